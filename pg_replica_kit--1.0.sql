/* pg_replica_kit--1.0.sql */

-- complain if script is sourced in psql, rather than via CREATE EXTENSION
\echo Use "CREATE EXTENSION pg_replica_kit" to load this file. \quit

-- CREATE EXTENSION runs this with the search_path pg_catalog, so what is not
-- qualified is the server's own.  The rows of functions are types with a name:
-- \df stays readable, and each column has a comment (\d+).  The first line of
-- a function's comment is what help() shows.

-- Fails if somebody made the schema before: what is in it could then be theirs.
CREATE SCHEMA replica_kit;

COMMENT ON SCHEMA replica_kit IS
'Set up, watch and explain streaming read replicas.';

-- EXECUTE on each function is the only gate.
GRANT USAGE ON SCHEMA replica_kit TO PUBLIC;

-- ======================================================================
-- Set up
--
-- For superusers.  What changes something is SECURITY DEFINER, so that granting
-- one of these grants the whole job, and with it a copy of everything that the
-- server holds.
-- ======================================================================

--
-- preflight()
--
CREATE TYPE replica_kit.preflight_row AS (
    check_name text,
    level text,
    current text,
    wanted text,
    needs_restart boolean,
    fix text
);

COMMENT ON TYPE replica_kit.preflight_row IS
'A row of preflight(): something that needs attention.';
COMMENT ON COLUMN replica_kit.preflight_row.check_name IS
'What is looked at, as a rule the name of a setting.';
COMMENT ON COLUMN replica_kit.preflight_row.level IS
'critical: no replica can be made, or this server is in danger; warning; info.';
COMMENT ON COLUMN replica_kit.preflight_row.current IS
'How it is now.';
COMMENT ON COLUMN replica_kit.preflight_row.wanted IS
'How it should be, and where to set that if no fix can; in the row restart the command that restarts this server.';
COMMENT ON COLUMN replica_kit.preflight_row.needs_restart IS
'Takes a restart of this server.';
COMMENT ON COLUMN replica_kit.preflight_row.fix IS
'One statement that is safe to run unseen; null where access would be widened, TLS switched, or something guessed.';

REVOKE ALL ON TYPE replica_kit.preflight_row FROM PUBLIC;

CREATE FUNCTION replica_kit.preflight(
    replicas integer DEFAULT 1
)
RETURNS SETOF replica_kit.preflight_row
AS 'MODULE_PATHNAME', 'pg_replica_kit_preflight_1_0'
LANGUAGE C CALLED ON NULL INPUT VOLATILE PARALLEL UNSAFE ROWS 10;

COMMENT ON FUNCTION replica_kit.preflight(integer) IS
'Checks whether this server can feed that many more replicas, and can restart.';

REVOKE ALL ON FUNCTION replica_kit.preflight(integer) FROM PUBLIC;

--
-- provision()
--
CREATE TYPE replica_kit.provision_row AS (
    name text,
    role_name text,
    slot_name text,
    hba_rule text,
    password text,
    next_step text
);

COMMENT ON TYPE replica_kit.provision_row IS
'The row of provision(): what the commit makes.';
COMMENT ON COLUMN replica_kit.provision_row.name IS
'The replica.';
COMMENT ON COLUMN replica_kit.provision_row.role_name IS
'The role that it connects with.';
COMMENT ON COLUMN replica_kit.provision_row.slot_name IS
'Its physical replication slot, named like the replica.';
COMMENT ON COLUMN replica_kit.provision_row.hba_rule IS
'The line for pg_hba.conf, also where the kit does not add it.';
COMMENT ON COLUMN replica_kit.provision_row.password IS
'The role''s password if it has just been generated or given in clear; it is shown only here.';
COMMENT ON COLUMN replica_kit.provision_row.next_step IS
'The command that writes the script for the replica''s machine.';

REVOKE ALL ON TYPE replica_kit.provision_row FROM PUBLIC;

CREATE FUNCTION replica_kit.provision(
    name text,
    ip inet,
    role text DEFAULT NULL,
    password text DEFAULT NULL,
    require_ssl boolean DEFAULT false,
    manage_hba boolean DEFAULT true,
    dry_run boolean DEFAULT false
)
RETURNS replica_kit.provision_row
AS 'MODULE_PATHNAME', 'pg_replica_kit_provision_1_0'
LANGUAGE C CALLED ON NULL INPUT VOLATILE PARALLEL UNSAFE
SECURITY DEFINER SET search_path = pg_catalog, pg_temp;

COMMENT ON FUNCTION replica_kit.provision(text, inet, text, text, boolean, boolean, boolean) IS
'Creates role, slot and pg_hba.conf rule of a replica, all at commit or none.';

REVOKE ALL ON FUNCTION replica_kit.provision(text, inet, text, text, boolean, boolean, boolean) FROM PUBLIC;

--
-- deprovision()
--
CREATE TYPE replica_kit.deprovision_row AS (
    name text,
    slot_dropped boolean,
    hba_rules_removed integer,
    role_dropped boolean
);

COMMENT ON TYPE replica_kit.deprovision_row IS
'The row of deprovision(): what the commit removes.';
COMMENT ON COLUMN replica_kit.deprovision_row.name IS
'The replica.';
COMMENT ON COLUMN replica_kit.deprovision_row.slot_dropped IS
'Its replication slot is dropped.';
COMMENT ON COLUMN replica_kit.deprovision_row.hba_rules_removed IS
'How many of its lines leave pg_hba.conf.';
COMMENT ON COLUMN replica_kit.deprovision_row.role_dropped IS
'Its role is dropped; false if it is kept, was not made by the kit, or is needed elsewhere.';

REVOKE ALL ON TYPE replica_kit.deprovision_row FROM PUBLIC;

CREATE FUNCTION replica_kit.deprovision(
    name text,
    force boolean DEFAULT false,
    dry_run boolean DEFAULT false,
    keep_role boolean DEFAULT false
)
RETURNS replica_kit.deprovision_row
AS 'MODULE_PATHNAME', 'pg_replica_kit_deprovision_1_0'
LANGUAGE C CALLED ON NULL INPUT VOLATILE PARALLEL UNSAFE
SECURITY DEFINER SET search_path = pg_catalog, pg_temp;

COMMENT ON FUNCTION replica_kit.deprovision(text, boolean, boolean, boolean) IS
'Drops the replica''s slot, its pg_hba.conf rules and its role.
The role stays if it is to be kept, if the kit did not make it, or if it is needed elsewhere.';

REVOKE ALL ON FUNCTION replica_kit.deprovision(text, boolean, boolean, boolean) FROM PUBLIC;

--
-- rotate_password()
--
CREATE FUNCTION replica_kit.rotate_password(
    name text,
    password text DEFAULT NULL
)
RETURNS text
AS 'MODULE_PATHNAME', 'pg_replica_kit_rotate_password_1_0'
LANGUAGE C CALLED ON NULL INPUT VOLATILE PARALLEL UNSAFE
SECURITY DEFINER SET search_path = pg_catalog, pg_temp;

COMMENT ON FUNCTION replica_kit.rotate_password(text, text) IS
'Gives the replica''s role a new password, and returns it once.
It is generated unless given.';

REVOKE ALL ON FUNCTION replica_kit.rotate_password(text, text) FROM PUBLIC;

--
-- revoke_address()
--
CREATE FUNCTION replica_kit.revoke_address(
    name text,
    ip inet
)
RETURNS integer
AS 'MODULE_PATHNAME', 'pg_replica_kit_revoke_address_1_0'
LANGUAGE C CALLED ON NULL INPUT VOLATILE PARALLEL UNSAFE
SECURITY DEFINER SET search_path = pg_catalog, pg_temp;

COMMENT ON FUNCTION replica_kit.revoke_address(text, inet) IS
'Removes the replica''s pg_hba.conf rules for one address; returns how many.';

REVOKE ALL ON FUNCTION replica_kit.revoke_address(text, inet) FROM PUBLIC;

--
-- allow_rewind(), revoke_rewind(), end_rewind()
--
CREATE FUNCTION replica_kit.allow_rewind(
    name text,
    duration interval DEFAULT '1 hour'
)
RETURNS timestamp with time zone
AS 'MODULE_PATHNAME', 'pg_replica_kit_allow_rewind_1_0'
LANGUAGE C CALLED ON NULL INPUT VOLATILE PARALLEL UNSAFE
SECURITY DEFINER SET search_path = pg_catalog, pg_temp;

COMMENT ON FUNCTION replica_kit.allow_rewind(text, interval) IS
'Lets the replica''s pg_rewind read this server''s files; returns when that ends.
It gets a role of its own, NAME_rewind, with the replica''s password, in this database only.';

REVOKE ALL ON FUNCTION replica_kit.allow_rewind(text, interval) FROM PUBLIC;

CREATE FUNCTION replica_kit.revoke_rewind(
    name text
)
RETURNS boolean
AS 'MODULE_PATHNAME', 'pg_replica_kit_revoke_rewind_1_0'
LANGUAGE C CALLED ON NULL INPUT VOLATILE PARALLEL UNSAFE
SECURITY DEFINER SET search_path = pg_catalog, pg_temp;

COMMENT ON FUNCTION replica_kit.revoke_rewind(text) IS
'Ends what allow_rewind() gave; false if there was nothing.';

REVOKE ALL ON FUNCTION replica_kit.revoke_rewind(text) FROM PUBLIC;

CREATE FUNCTION replica_kit.end_rewind()
RETURNS void
AS 'MODULE_PATHNAME', 'pg_replica_kit_end_rewind_1_0'
LANGUAGE C CALLED ON NULL INPUT VOLATILE PARALLEL UNSAFE
SECURITY DEFINER SET search_path = pg_catalog, pg_temp;

COMMENT ON FUNCTION replica_kit.end_rewind() IS
'Ends what allow_rewind() gave; the script calls it last, as that role.';

REVOKE ALL ON FUNCTION replica_kit.end_rewind() FROM PUBLIC;

--
-- hba_match()
--
CREATE TYPE replica_kit.hba_match_row AS (
    file_name text,
    line_number integer,
    rule text,
    auth_method text,
    verdict text
);

COMMENT ON TYPE replica_kit.hba_match_row IS
'The row of hba_match(): the rule that decides.';
COMMENT ON COLUMN replica_kit.hba_match_row.file_name IS
'The file that the rule is in; null if no rule matches.';
COMMENT ON COLUMN replica_kit.hba_match_row.line_number IS
'Its line there.';
COMMENT ON COLUMN replica_kit.hba_match_row.rule IS
'The rule without its options; null for those who may not read pg_hba_file_rules.';
COMMENT ON COLUMN replica_kit.hba_match_row.auth_method IS
'How the client has to authenticate.';
COMMENT ON COLUMN replica_kit.hba_match_row.verdict IS
'allow, reject, no match, or undecidable: host names and maps are the server''s to decide.';

REVOKE ALL ON TYPE replica_kit.hba_match_row FROM PUBLIC;

CREATE FUNCTION replica_kit.hba_match(
    role text,
    ip inet,
    database text DEFAULT 'replication',
    ssl boolean DEFAULT false
)
RETURNS replica_kit.hba_match_row
AS 'MODULE_PATHNAME', 'pg_replica_kit_hba_match_1_0'
LANGUAGE C CALLED ON NULL INPUT VOLATILE PARALLEL RESTRICTED;

COMMENT ON FUNCTION replica_kit.hba_match(text, inet, text, boolean) IS
'Says which line of pg_hba.conf the server would apply to a connection.';

REVOKE ALL ON FUNCTION replica_kit.hba_match(text, inet, text, boolean) FROM PUBLIC;

--
-- join_script()
--
CREATE FUNCTION replica_kit.join_script(
    name text,
    primary_host text DEFAULT NULL,
    primary_port integer DEFAULT NULL
)
RETURNS text
AS 'MODULE_PATHNAME', 'pg_replica_kit_join_script_1_0'
LANGUAGE C CALLED ON NULL INPUT VOLATILE PARALLEL UNSAFE
SECURITY DEFINER SET search_path = pg_catalog, pg_temp;

COMMENT ON FUNCTION replica_kit.join_script(text, text, integer) IS
'Returns the shell script that makes the replica on the replica''s machine.';

REVOKE ALL ON FUNCTION replica_kit.join_script(text, text, integer) FROM PUBLIC;

-- ======================================================================
-- Watch
-- ======================================================================

--
-- status()
--
CREATE TYPE replica_kit.status_row AS (
    name text,
    slot_name name,
    slot_type text,
    usename name,
    application_name text,
    client_addr inet,
    pid integer,
    state text,
    sync_state text,
    sent_lsn pg_lsn,
    write_lsn pg_lsn,
    flush_lsn pg_lsn,
    replay_lsn pg_lsn,
    restart_lsn pg_lsn,
    confirmed_flush_lsn pg_lsn,
    lag_bytes bigint,
    lag_time interval,
    unsent_bytes bigint,
    unwritten_bytes bigint,
    unflushed_bytes bigint,
    unreplayed_bytes bigint,
    retained_bytes bigint,
    wal_status text,
    safe_wal_size bigint,
    xmin_age integer,
    backend_start timestamptz,
    reply_time timestamptz,
    inactive_since timestamptz,
    catch_up_in interval,
    lost_in interval,
    disk_full_in interval,
    health text,
    alert text,
    alert_since timestamptz,
    reason text,
    last_error text,
    last_error_at timestamptz
);

COMMENT ON TYPE replica_kit.status_row IS
'A row of status(): a replication slot with its connection, or a connection without a slot.';
COMMENT ON COLUMN replica_kit.status_row.name IS
'The slot''s name, or the application name of a walsender without a slot.';
COMMENT ON COLUMN replica_kit.status_row.slot_name IS
'As in pg_replication_slots.';
COMMENT ON COLUMN replica_kit.status_row.slot_type IS
'physical or logical, as in pg_replication_slots.';
COMMENT ON COLUMN replica_kit.status_row.usename IS
'As in pg_stat_replication.';
COMMENT ON COLUMN replica_kit.status_row.application_name IS
'As in pg_stat_replication.';
COMMENT ON COLUMN replica_kit.status_row.client_addr IS
'As in pg_stat_replication; null over a Unix socket.';
COMMENT ON COLUMN replica_kit.status_row.pid IS
'The process that serves the replica; null if none does.';
COMMENT ON COLUMN replica_kit.status_row.state IS
'streaming, catchup, backup, startup, stopping, disconnected, never connected or lost.';
COMMENT ON COLUMN replica_kit.status_row.sync_state IS
'As in pg_stat_replication.';
COMMENT ON COLUMN replica_kit.status_row.sent_lsn IS
'As in pg_stat_replication.';
COMMENT ON COLUMN replica_kit.status_row.write_lsn IS
'As in pg_stat_replication.';
COMMENT ON COLUMN replica_kit.status_row.flush_lsn IS
'As in pg_stat_replication.';
COMMENT ON COLUMN replica_kit.status_row.replay_lsn IS
'As in pg_stat_replication.';
COMMENT ON COLUMN replica_kit.status_row.restart_lsn IS
'As in pg_replication_slots.';
COMMENT ON COLUMN replica_kit.status_row.confirmed_flush_lsn IS
'As in pg_replication_slots.';
COMMENT ON COLUMN replica_kit.status_row.lag_bytes IS
'How much WAL of this server the replica has not replayed (confirmed, if logical).';
COMMENT ON COLUMN replica_kit.status_row.lag_time IS
'How long the replica is behind; 0 at the server''s own position, null when not known.';
COMMENT ON COLUMN replica_kit.status_row.unsent_bytes IS
'Of lag_bytes, what has not been sent.';
COMMENT ON COLUMN replica_kit.status_row.unwritten_bytes IS
'Of lag_bytes, what has been sent and not written there.';
COMMENT ON COLUMN replica_kit.status_row.unflushed_bytes IS
'Of lag_bytes, what has been written and not flushed there.';
COMMENT ON COLUMN replica_kit.status_row.unreplayed_bytes IS
'Of lag_bytes, what has been flushed and not replayed there.';
COMMENT ON COLUMN replica_kit.status_row.retained_bytes IS
'How much WAL the slot retains on this server.';
COMMENT ON COLUMN replica_kit.status_row.wal_status IS
'As in pg_replication_slots.';
COMMENT ON COLUMN replica_kit.status_row.safe_wal_size IS
'As in pg_replication_slots; null for a slot that reserves nothing.';
COMMENT ON COLUMN replica_kit.status_row.xmin_age IS
'How many transactions old the oldest row is that the slot keeps from vacuum.';
COMMENT ON COLUMN replica_kit.status_row.backend_start IS
'As in pg_stat_replication.';
COMMENT ON COLUMN replica_kit.status_row.reply_time IS
'As in pg_stat_replication.';
COMMENT ON COLUMN replica_kit.status_row.inactive_since IS
'As in pg_replication_slots, from 17 on.';
COMMENT ON COLUMN replica_kit.status_row.catch_up_in IS
'When it will have caught up, at the present rates; null: not known, or never.';
COMMENT ON COLUMN replica_kit.status_row.lost_in IS
'When its slot will be lost, at the present rates; null: not known, or never.';
COMMENT ON COLUMN replica_kit.status_row.disk_full_in IS
'When WAL that its slot retains will have filled the disk of pg_wal, at the present rates; null: not known, or never.';
COMMENT ON COLUMN replica_kit.status_row.health IS
'ok, warning or critical, judged for this instant.';
COMMENT ON COLUMN replica_kit.status_row.alert IS
'What the worker has announced: ok, warning or critical; null without a worker.';
COMMENT ON COLUMN replica_kit.status_row.alert_since IS
'Since when.';
COMMENT ON COLUMN replica_kit.status_row.reason IS
'What is wrong, or what goes on.';
COMMENT ON COLUMN replica_kit.status_row.last_error IS
'Why its last connection failed.';
COMMENT ON COLUMN replica_kit.status_row.last_error_at IS
'When that was.';

REVOKE ALL ON TYPE replica_kit.status_row FROM PUBLIC;

CREATE FUNCTION replica_kit.status()
RETURNS SETOF replica_kit.status_row
AS 'MODULE_PATHNAME', 'pg_replica_kit_status_1_0'
LANGUAGE C STRICT VOLATILE PARALLEL RESTRICTED ROWS 10;

COMMENT ON FUNCTION replica_kit.status() IS
'All slots and walsenders: how far behind, WAL retained, what is wrong.
Worst first.';

REVOKE ALL ON FUNCTION replica_kit.status() FROM PUBLIC;
GRANT EXECUTE ON FUNCTION replica_kit.status() TO pg_monitor;

--
-- summary
--
-- In the order of status().  Who reads it needs EXECUTE on status() too:
-- PostgreSQL checks functions in a view against the reader.
CREATE VIEW replica_kit.summary AS
SELECT
    s.name,
    s.state,
    s.health,
    pg_catalog.pg_size_pretty(s.lag_bytes) AS lag,
    pg_catalog.pg_size_pretty(s.retained_bytes) AS retained,
    pg_catalog.date_trunc('second', s.lag_time) AS lag_time,
    s.reason
FROM replica_kit.status() AS s;

COMMENT ON VIEW replica_kit.summary IS
'The replicas of this server at a glance, worst first; status() has the figures.';
COMMENT ON COLUMN replica_kit.summary.name IS
'The slot''s name, or the application name of a walsender without a slot.';
COMMENT ON COLUMN replica_kit.summary.state IS
'streaming, catchup, backup, startup, stopping, disconnected, never connected or lost.';
COMMENT ON COLUMN replica_kit.summary.health IS
'ok, warning or critical, judged for this instant.';
COMMENT ON COLUMN replica_kit.summary.lag IS
'How much WAL of this server the replica has not replayed (confirmed, if logical), with its unit.';
COMMENT ON COLUMN replica_kit.summary.retained IS
'How much WAL the slot retains on this server, with its unit.';
COMMENT ON COLUMN replica_kit.summary.lag_time IS
'How long the replica is behind; null when not known.';
COMMENT ON COLUMN replica_kit.summary.reason IS
'What is wrong, or what goes on.';

REVOKE ALL ON replica_kit.summary FROM PUBLIC;
GRANT SELECT ON replica_kit.summary TO pg_monitor;

--
-- standby_status()
--
CREATE TYPE replica_kit.standby_status_row AS (
    state text,
    sender_host text,
    sender_port integer,
    slot_name name,
    received_lsn pg_lsn,
    replayed_lsn pg_lsn,
    receive_lag_bytes bigint,
    replay_lag_bytes bigint,
    lag_time interval,
    replay_pause_state text,
    timeline integer,
    last_msg_receipt_time timestamptz,
    conflicts bigint,
    health text,
    reason text,
    last_error text,
    last_error_at timestamptz,
    read_gate text,
    read_gate_since timestamptz
);

COMMENT ON TYPE replica_kit.standby_status_row IS
'The row of standby_status(): what this standby receives, and how far it has replayed it.';
COMMENT ON COLUMN replica_kit.standby_status_row.state IS
'streaming, stalled, disconnected or archive recovery.';
COMMENT ON COLUMN replica_kit.standby_status_row.sender_host IS
'The upstream server, as in pg_stat_wal_receiver.';
COMMENT ON COLUMN replica_kit.standby_status_row.sender_port IS
'Its port.';
COMMENT ON COLUMN replica_kit.standby_status_row.slot_name IS
'The slot that is used there.';
COMMENT ON COLUMN replica_kit.standby_status_row.received_lsn IS
'What has been received and flushed.';
COMMENT ON COLUMN replica_kit.standby_status_row.replayed_lsn IS
'What has been replayed.';
COMMENT ON COLUMN replica_kit.standby_status_row.receive_lag_bytes IS
'How much of the upstream''s WAL has not arrived; null when not known.';
COMMENT ON COLUMN replica_kit.standby_status_row.replay_lag_bytes IS
'How much has arrived and not been replayed.';
COMMENT ON COLUMN replica_kit.standby_status_row.lag_time IS
'How long this server is behind its upstream; null when not known.';
COMMENT ON COLUMN replica_kit.standby_status_row.replay_pause_state IS
'not paused, pause requested or paused.';
COMMENT ON COLUMN replica_kit.standby_status_row.timeline IS
'The timeline that is replayed.';
COMMENT ON COLUMN replica_kit.standby_status_row.last_msg_receipt_time IS
'When the upstream last sent something.';
COMMENT ON COLUMN replica_kit.standby_status_row.conflicts IS
'How many queries were cancelled because of conflicts with replay, in all databases.';
COMMENT ON COLUMN replica_kit.standby_status_row.health IS
'ok, warning or critical, judged for this instant.';
COMMENT ON COLUMN replica_kit.standby_status_row.reason IS
'What is wrong, or what goes on.';
COMMENT ON COLUMN replica_kit.standby_status_row.last_error IS
'Why the connection to the upstream last failed.';
COMMENT ON COLUMN replica_kit.standby_status_row.last_error_at IS
'When that was.';
COMMENT ON COLUMN replica_kit.standby_status_row.read_gate IS
'off, open, or closed: this standby is too far behind and refuses new sessions.';
COMMENT ON COLUMN replica_kit.standby_status_row.read_gate_since IS
'Since when the read gate is open or closed.';

REVOKE ALL ON TYPE replica_kit.standby_status_row FROM PUBLIC;

CREATE FUNCTION replica_kit.standby_status()
RETURNS SETOF replica_kit.standby_status_row
AS 'MODULE_PATHNAME', 'pg_replica_kit_standby_status_1_0'
LANGUAGE C STRICT VOLATILE PARALLEL RESTRICTED ROWS 1;

COMMENT ON FUNCTION replica_kit.standby_status() IS
'On a standby one row: its upstream, how far behind it is, what is wrong.';

REVOKE ALL ON FUNCTION replica_kit.standby_status() FROM PUBLIC;
GRANT EXECUTE ON FUNCTION replica_kit.standby_status() TO pg_monitor;

--
-- connection_errors()
--
CREATE TYPE replica_kit.connection_errors_row AS (
    first_at timestamptz,
    last_at timestamptz,
    count bigint,
    direction text,
    role_name text,
    client_addr inet,
    application_name text,
    slot_name text,
    sqlstate text,
    message text
);

COMMENT ON TYPE replica_kit.connection_errors_row IS
'A row of connection_errors(): one kind of failure, with its count.';
COMMENT ON COLUMN replica_kit.connection_errors_row.first_at IS
'When it happened first.';
COMMENT ON COLUMN replica_kit.connection_errors_row.last_at IS
'When it happened last.';
COMMENT ON COLUMN replica_kit.connection_errors_row.count IS
'How often.';
COMMENT ON COLUMN replica_kit.connection_errors_row.direction IS
'in: to this server; out: from this server to its upstream.';
COMMENT ON COLUMN replica_kit.connection_errors_row.role_name IS
'The role that the client named.';
COMMENT ON COLUMN replica_kit.connection_errors_row.client_addr IS
'Where it came from; null over a Unix socket.';
COMMENT ON COLUMN replica_kit.connection_errors_row.application_name IS
'What the client called itself.';
COMMENT ON COLUMN replica_kit.connection_errors_row.slot_name IS
'The slot that it asked for.';
COMMENT ON COLUMN replica_kit.connection_errors_row.sqlstate IS
'The error''s code.';
COMMENT ON COLUMN replica_kit.connection_errors_row.message IS
'The error''s message, as the server logged it.';

REVOKE ALL ON TYPE replica_kit.connection_errors_row FROM PUBLIC;

CREATE FUNCTION replica_kit.connection_errors()
RETURNS SETOF replica_kit.connection_errors_row
AS 'MODULE_PATHNAME', 'pg_replica_kit_connection_errors_1_0'
LANGUAGE C STRICT VOLATILE PARALLEL RESTRICTED ROWS 10;

COMMENT ON FUNCTION replica_kit.connection_errors() IS
'Why replication connections to or from this server failed, newest first.';

REVOKE ALL ON FUNCTION replica_kit.connection_errors() FROM PUBLIC;
GRANT EXECUTE ON FUNCTION replica_kit.connection_errors() TO pg_monitor;

--
-- history()
--
CREATE TYPE replica_kit.history_row AS (
    sampled_at timestamptz,
    name text,
    state text,
    lag_bytes bigint,
    lag_time interval,
    retained_bytes bigint
);

COMMENT ON TYPE replica_kit.history_row IS
'A row of history(): a replica in one sample of the worker.';
COMMENT ON COLUMN replica_kit.history_row.sampled_at IS
'When the sample was taken.';
COMMENT ON COLUMN replica_kit.history_row.name IS
'The replica, as in status().';
COMMENT ON COLUMN replica_kit.history_row.state IS
'As in status().';
COMMENT ON COLUMN replica_kit.history_row.lag_bytes IS
'As in status().';
COMMENT ON COLUMN replica_kit.history_row.lag_time IS
'As in status().';
COMMENT ON COLUMN replica_kit.history_row.retained_bytes IS
'As in status().';

REVOKE ALL ON TYPE replica_kit.history_row FROM PUBLIC;

CREATE FUNCTION replica_kit.history(
    name text DEFAULT NULL,
    since interval DEFAULT '1 hour'
)
RETURNS SETOF replica_kit.history_row
AS 'MODULE_PATHNAME', 'pg_replica_kit_history_1_0'
LANGUAGE C CALLED ON NULL INPUT VOLATILE PARALLEL RESTRICTED ROWS 1000;

COMMENT ON FUNCTION replica_kit.history(text, interval) IS
'The samples of one replica or of all, in the last hour or the interval given.
Oldest first; the worker takes them.';

REVOKE ALL ON FUNCTION replica_kit.history(text, interval) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION replica_kit.history(text, interval) TO pg_monitor;

--
-- lag_graph()
--
CREATE FUNCTION replica_kit.lag_graph(
    name text,
    since interval DEFAULT '1 hour',
    width integer DEFAULT 60
)
RETURNS SETOF text
AS 'MODULE_PATHNAME', 'pg_replica_kit_lag_graph_1_0'
LANGUAGE C CALLED ON NULL INPUT VOLATILE PARALLEL RESTRICTED;

COMMENT ON FUNCTION replica_kit.lag_graph(text, interval, integer) IS
'Draws the lag of a replica in the last hour, or in the interval given.
Each column shows the greatest lag of its part of the time.';

REVOKE ALL ON FUNCTION replica_kit.lag_graph(text, interval, integer) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION replica_kit.lag_graph(text, interval, integer) TO pg_monitor;

-- ======================================================================
-- Judge
-- ======================================================================

--
-- diagnose()
--
CREATE TYPE replica_kit.diagnose_row AS (
    level text,
    code text,
    name text,
    finding text,
    evidence text,
    remedy text,
    advice text
);

COMMENT ON TYPE replica_kit.diagnose_row IS
'A row of diagnose(): a root cause.';
COMMENT ON COLUMN replica_kit.diagnose_row.level IS
'info, warning or critical.';
COMMENT ON COLUMN replica_kit.diagnose_row.code IS
'The cause, one word for each kind; help() lists them.';
COMMENT ON COLUMN replica_kit.diagnose_row.name IS
'The replica; "server" for this server, "upstream" for what a standby receives from.';
COMMENT ON COLUMN replica_kit.diagnose_row.finding IS
'What is wrong.';
COMMENT ON COLUMN replica_kit.diagnose_row.evidence IS
'What proves it.';
COMMENT ON COLUMN replica_kit.diagnose_row.remedy IS
'One statement that is safe to run unseen, or null.';
COMMENT ON COLUMN replica_kit.diagnose_row.advice IS
'What a person has to do or decide, with the command to copy.';

REVOKE ALL ON TYPE replica_kit.diagnose_row FROM PUBLIC;

CREATE FUNCTION replica_kit.diagnose(
    name text DEFAULT NULL
)
RETURNS SETOF replica_kit.diagnose_row
AS 'MODULE_PATHNAME', 'pg_replica_kit_diagnose_1_0'
LANGUAGE C CALLED ON NULL INPUT VOLATILE PARALLEL UNSAFE ROWS 10;

COMMENT ON FUNCTION replica_kit.diagnose(text) IS
'What is wrong with replicas, upstream and this server, and why; worst first.
No row: nothing is wrong.';

REVOKE ALL ON FUNCTION replica_kit.diagnose(text) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION replica_kit.diagnose(text) TO pg_monitor;

--
-- unhealthy()
--
CREATE TYPE replica_kit.unhealthy_row AS (
    name text,
    level text,
    reason text
);

COMMENT ON TYPE replica_kit.unhealthy_row IS
'A row of unhealthy(): something at or above a level.';
COMMENT ON COLUMN replica_kit.unhealthy_row.name IS
'The replica; server: this server itself; upstream: what a standby receives from.';
COMMENT ON COLUMN replica_kit.unhealthy_row.level IS
'warning or critical.';
COMMENT ON COLUMN replica_kit.unhealthy_row.reason IS
'What is wrong.';

REVOKE ALL ON TYPE replica_kit.unhealthy_row FROM PUBLIC;

CREATE FUNCTION replica_kit.unhealthy(
    level text DEFAULT 'warning'
)
RETURNS SETOF replica_kit.unhealthy_row
AS 'MODULE_PATHNAME', 'pg_replica_kit_unhealthy_1_0'
LANGUAGE C CALLED ON NULL INPUT VOLATILE PARALLEL RESTRICTED ROWS 10;

COMMENT ON FUNCTION replica_kit.unhealthy(text) IS
'What is at or above a level (warning or critical), worst first.
Replicas count by what the worker has announced or, without one, by their health now.';

REVOKE ALL ON FUNCTION replica_kit.unhealthy(text) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION replica_kit.unhealthy(text) TO pg_monitor;

--
-- assert_healthy()
--
CREATE FUNCTION replica_kit.assert_healthy(
    level text DEFAULT 'critical',
    min_streaming integer DEFAULT 0
)
RETURNS void
AS 'MODULE_PATHNAME', 'pg_replica_kit_assert_healthy_1_0'
LANGUAGE C CALLED ON NULL INPUT VOLATILE PARALLEL RESTRICTED;

COMMENT ON FUNCTION replica_kit.assert_healthy(text, integer) IS
'Raises an error if unhealthy() has rows, or fewer than min_streaming stream.
SQLSTATE is RK001 if the worst is a warning, else RK002.';

REVOKE ALL ON FUNCTION replica_kit.assert_healthy(text, integer) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION replica_kit.assert_healthy(text, integer) TO pg_monitor;

--
-- metrics()
--
CREATE FUNCTION replica_kit.metrics()
RETURNS text
AS 'MODULE_PATHNAME', 'pg_replica_kit_metrics_1_0'
LANGUAGE C STRICT VOLATILE PARALLEL RESTRICTED;

COMMENT ON FUNCTION replica_kit.metrics() IS
'All of status() and unhealthy() in Prometheus'' text format.
With the worker''s cost, and with series for each known replica. What is not known is NaN.';

REVOKE ALL ON FUNCTION replica_kit.metrics() FROM PUBLIC;
GRANT EXECUTE ON FUNCTION replica_kit.metrics() TO pg_monitor;

--
-- silence(), unsilence(), silences()
--
CREATE FUNCTION replica_kit.silence(
    name text,
    duration interval DEFAULT '1 hour',
    reason text DEFAULT NULL
)
RETURNS timestamptz
AS 'MODULE_PATHNAME', 'pg_replica_kit_silence_1_0'
LANGUAGE C CALLED ON NULL INPUT VOLATILE PARALLEL UNSAFE;

COMMENT ON FUNCTION replica_kit.silence(text, interval, text) IS
'Mutes the alarms of one name during planned work, for a day at most.
That is the log, unhealthy() and assert_healthy(). The name is a replica, "server" or "upstream". Returns when the silence ends. A lost slot and a disk that is about to be full are told nevertheless. Takes effect at once, and ROLLBACK does not undo it.';

REVOKE ALL ON FUNCTION replica_kit.silence(text, interval, text) FROM PUBLIC;

CREATE FUNCTION replica_kit.unsilence(
    name text
)
RETURNS boolean
AS 'MODULE_PATHNAME', 'pg_replica_kit_unsilence_1_0'
LANGUAGE C CALLED ON NULL INPUT VOLATILE PARALLEL UNSAFE;

COMMENT ON FUNCTION replica_kit.unsilence(text) IS
'Ends the silence of a name; false if there was none.';

REVOKE ALL ON FUNCTION replica_kit.unsilence(text) FROM PUBLIC;

CREATE TYPE replica_kit.silences_row AS (
    name text,
    since timestamptz,
    until timestamptz,
    role_name text,
    reason text
);

COMMENT ON TYPE replica_kit.silences_row IS
'A row of silences(): a name that is silenced.';
COMMENT ON COLUMN replica_kit.silences_row.name IS
'The replica, "server" or "upstream", as in diagnose().';
COMMENT ON COLUMN replica_kit.silences_row.since IS
'When the silence began.';
COMMENT ON COLUMN replica_kit.silences_row.until IS
'When it ends.';
COMMENT ON COLUMN replica_kit.silences_row.role_name IS
'Who called silence().';
COMMENT ON COLUMN replica_kit.silences_row.reason IS
'The reason that was given.';

REVOKE ALL ON TYPE replica_kit.silences_row FROM PUBLIC;

CREATE FUNCTION replica_kit.silences()
RETURNS SETOF replica_kit.silences_row
AS 'MODULE_PATHNAME', 'pg_replica_kit_silences_1_0'
LANGUAGE C STRICT VOLATILE PARALLEL RESTRICTED ROWS 10;

COMMENT ON FUNCTION replica_kit.silences() IS
'What is silenced, until when, by whom and why.';

REVOKE ALL ON FUNCTION replica_kit.silences() FROM PUBLIC;
GRANT EXECUTE ON FUNCTION replica_kit.silences() TO pg_monitor;

--
-- help()
--
CREATE TYPE replica_kit.help_row AS (
    topic text,
    name text,
    arguments text,
    does text
);

COMMENT ON TYPE replica_kit.help_row IS
'A row of help(): a function, a view, a setting or a diagnosis.';
COMMENT ON COLUMN replica_kit.help_row.topic IS
'set up, watch, use (for applications), setting or diagnosis.';
COMMENT ON COLUMN replica_kit.help_row.name IS
'Its name.';
COMMENT ON COLUMN replica_kit.help_row.arguments IS
'A function''s arguments, those with a default in brackets; a setting''s value.';
COMMENT ON COLUMN replica_kit.help_row.does IS
'What it does, or means.';

REVOKE ALL ON TYPE replica_kit.help_row FROM PUBLIC;

CREATE FUNCTION replica_kit.help()
RETURNS SETOF replica_kit.help_row
AS 'MODULE_PATHNAME', 'pg_replica_kit_help_1_0'
LANGUAGE C STRICT STABLE PARALLEL RESTRICTED ROWS 100;

COMMENT ON FUNCTION replica_kit.help() IS
'Every function, view, setting and diagnosis in one line each.';

REVOKE ALL ON FUNCTION replica_kit.help() FROM PUBLIC;
GRANT EXECUTE ON FUNCTION replica_kit.help() TO pg_monitor;

-- ======================================================================
-- Serve reads
--
-- For applications: EXECUTE is everybody's, as it is on pg_sleep().
-- ======================================================================

--
-- wait_for_lsn()
--
-- Neither SECURITY DEFINER nor SET, and no OUT parameter: with any of them CALL
-- could not give up its snapshot.
--
CREATE PROCEDURE replica_kit.wait_for_lsn(
    lsn pg_lsn,
    timeout interval DEFAULT '10 seconds',
    timeline integer DEFAULT NULL
)
AS 'MODULE_PATHNAME', 'pg_replica_kit_wait_for_lsn_1_0'
LANGUAGE C;

COMMENT ON PROCEDURE replica_kit.wait_for_lsn(pg_lsn, interval, integer) IS
'Waits on a standby until that WAL is replayed, to read what was written before.
On a primary it returns at once. SQLSTATE is RK010 when the time is over, RK011 if the server was
promoted without that WAL or never had it, RK012 in a function, another procedure, a DO block, under
repeatable read, or with an open cursor.';

REVOKE ALL ON PROCEDURE replica_kit.wait_for_lsn(pg_lsn, interval, integer) FROM PUBLIC;
GRANT EXECUTE ON PROCEDURE replica_kit.wait_for_lsn(pg_lsn, interval, integer) TO PUBLIC;
