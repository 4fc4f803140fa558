/* pg_replica_kit--1.0.sql */

-- complain if script is sourced in psql, rather than via CREATE EXTENSION
\echo Use "CREATE EXTENSION pg_replica_kit" to load this file. \quit

-- Fails if somebody made the schema before: what is in it could then be theirs.
CREATE SCHEMA replica_kit;
COMMENT ON SCHEMA replica_kit IS 'Set up, watch and explain streaming read replicas.';
-- EXECUTE on each function is the only gate.
GRANT USAGE ON SCHEMA replica_kit TO PUBLIC;

-- ======================================================================
-- Set up
--
-- For superusers.  All but preflight() are SECURITY DEFINER, so that granting
-- one of these grants the whole job, and with it a copy of everything that the
-- server holds.
-- ======================================================================

--
-- preflight()
--
-- A row for each thing that wants attention.
CREATE FUNCTION replica_kit.preflight(
    replicas integer DEFAULT 1,
    OUT check_name text,
    OUT level text,
    OUT current text,
    OUT wanted text,
    OUT needs_restart boolean,
    OUT fix text
)
RETURNS SETOF record
AS 'MODULE_PATHNAME', 'pg_replica_kit_preflight_1_0'
LANGUAGE C VOLATILE PARALLEL UNSAFE ROWS 10;

COMMENT ON FUNCTION replica_kit.preflight(integer) IS
'Is this server ready to feed so many more replicas, and would it survive its next restart?  A row for each thing that wants attention.';

REVOKE ALL ON FUNCTION replica_kit.preflight(integer) FROM PUBLIC;

--
-- provision()
--
CREATE FUNCTION replica_kit.provision(
    name text,
    ip inet,
    role text DEFAULT NULL,
    password text DEFAULT NULL,
    require_ssl boolean DEFAULT false,
    manage_hba boolean DEFAULT true,
    dry_run boolean DEFAULT false,
    OUT name text,
    OUT role_name text,
    OUT slot_name text,
    OUT hba_rule text,
    OUT password text,
    OUT next_step text
)
RETURNS record
AS 'MODULE_PATHNAME', 'pg_replica_kit_provision_1_0'
LANGUAGE C VOLATILE PARALLEL UNSAFE SECURITY DEFINER
SET search_path = pg_catalog, pg_temp;

COMMENT ON FUNCTION replica_kit.provision(text, inet, text, text, boolean, boolean, boolean) IS
'Create role, slot and pg_hba.conf rule for a replica at that address, all at commit or not at all.';

REVOKE ALL ON FUNCTION replica_kit.provision(text, inet, text, text, boolean, boolean, boolean) FROM PUBLIC;

--
-- deprovision()
--
CREATE FUNCTION replica_kit.deprovision(
    name text,
    force boolean DEFAULT false,
    dry_run boolean DEFAULT false,
    keep_role boolean DEFAULT false,
    OUT name text,
    OUT slot_dropped boolean,
    OUT hba_rules_removed integer,
    OUT role_dropped boolean
)
RETURNS record
AS 'MODULE_PATHNAME', 'pg_replica_kit_deprovision_1_0'
LANGUAGE C VOLATILE PARALLEL UNSAFE SECURITY DEFINER
SET search_path = pg_catalog, pg_temp;

COMMENT ON FUNCTION replica_kit.deprovision(text, boolean, boolean, boolean) IS
'Drop the replica''s slot, its pg_hba.conf rules and, unless it is to be kept or something else needs it, its role.';

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
LANGUAGE C VOLATILE PARALLEL UNSAFE SECURITY DEFINER
SET search_path = pg_catalog, pg_temp;

COMMENT ON FUNCTION replica_kit.rotate_password(text, text) IS
'Give the replica''s role a new password, generated unless given, and return it once.';

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
LANGUAGE C VOLATILE PARALLEL UNSAFE SECURITY DEFINER
SET search_path = pg_catalog, pg_temp;

COMMENT ON FUNCTION replica_kit.revoke_address(text, inet) IS
'Remove the replica''s pg_hba.conf rules for one address and return how many there are.';

REVOKE ALL ON FUNCTION replica_kit.revoke_address(text, inet) FROM PUBLIC;

--
-- hba_match()
--
CREATE FUNCTION replica_kit.hba_match(
	role text,
	ip inet,
	database text DEFAULT 'replication',
	ssl boolean DEFAULT false,
	OUT file_name text,
	OUT line_number integer,
	OUT rule text,
	OUT auth_method text,
	OUT verdict text)
AS 'MODULE_PATHNAME', 'pg_replica_kit_hba_match_1_0'
LANGUAGE C CALLED ON NULL INPUT VOLATILE PARALLEL RESTRICTED;
COMMENT ON FUNCTION replica_kit.hba_match(text, inet, text, boolean) IS
'Which line of pg_hba.conf, as the file is now, the server would apply to a connection.';
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
LANGUAGE C CALLED ON NULL INPUT VOLATILE PARALLEL UNSAFE SECURITY DEFINER
SET search_path = pg_catalog, pg_temp;

COMMENT ON FUNCTION replica_kit.join_script(text, text, integer) IS
'The shell script that makes the provisioned replica, to be run on the replica''s machine.';

REVOKE ALL ON FUNCTION replica_kit.join_script(text, text, integer) FROM PUBLIC;

-- ======================================================================
-- Watch
-- ======================================================================

--
-- status()
--
CREATE FUNCTION replica_kit.status(
	OUT name text,
	OUT slot_name pg_catalog.name,
	OUT slot_type text,
	OUT usename pg_catalog.name,
	OUT application_name text,
	OUT client_addr inet,
	OUT pid integer,
	OUT state text,
	OUT sync_state text,
	OUT sent_lsn pg_lsn,
	OUT write_lsn pg_lsn,
	OUT flush_lsn pg_lsn,
	OUT replay_lsn pg_lsn,
	OUT restart_lsn pg_lsn,
	OUT confirmed_flush_lsn pg_lsn,
	OUT lag_bytes bigint,
	OUT lag_time interval,
	OUT unsent_bytes bigint,
	OUT unwritten_bytes bigint,
	OUT unflushed_bytes bigint,
	OUT unreplayed_bytes bigint,
	OUT retained_bytes bigint,
	OUT wal_status text,
	OUT safe_wal_size bigint,
	OUT xmin_age integer,
	OUT backend_start timestamptz,
	OUT reply_time timestamptz,
	OUT inactive_since timestamptz,
	OUT catch_up_in interval,
	OUT lost_in interval,
	OUT disk_full_in interval,
	OUT health text,
	OUT alert text,
	OUT alert_since timestamptz,
	OUT reason text,
	OUT last_error text,
	OUT last_error_at timestamptz)
RETURNS SETOF record
AS 'MODULE_PATHNAME', 'pg_replica_kit_status_1_0'
LANGUAGE C STRICT VOLATILE PARALLEL RESTRICTED ROWS 10;
COMMENT ON FUNCTION replica_kit.status() IS
'One row per replication slot and per walsender without one, worst first: who it is, how far behind, what it holds back, and what is wrong with it.';
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
	s.lag_time,
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
'How much WAL the slot holds on this server, with its unit.';
COMMENT ON COLUMN replica_kit.summary.lag_time IS
'How long the replica is behind; null when not known.';
COMMENT ON COLUMN replica_kit.summary.reason IS
'What is wrong, or what goes on.';
REVOKE ALL ON replica_kit.summary FROM PUBLIC;
GRANT SELECT ON replica_kit.summary TO pg_monitor;

--
-- standby_status()
--
CREATE FUNCTION replica_kit.standby_status(
	OUT state text,
	OUT sender_host text,
	OUT sender_port integer,
	OUT slot_name pg_catalog.name,
	OUT received_lsn pg_lsn,
	OUT replayed_lsn pg_lsn,
	OUT receive_lag_bytes bigint,
	OUT replay_lag_bytes bigint,
	OUT lag_time interval,
	OUT replay_pause_state text,
	OUT timeline integer,
	OUT last_msg_receipt_time timestamptz,
	OUT conflicts bigint,
	OUT health text,
	OUT reason text,
	OUT last_error text,
	OUT last_error_at timestamptz)
RETURNS SETOF record
AS 'MODULE_PATHNAME', 'pg_replica_kit_standby_status_1_0'
LANGUAGE C STRICT VOLATILE PARALLEL RESTRICTED ROWS 1;
COMMENT ON FUNCTION replica_kit.standby_status() IS
'On a standby one row, on a primary none: what it receives and from whom, how far it is behind, and what is wrong with that. state is streaming, stalled, disconnected or archive recovery.';
REVOKE ALL ON FUNCTION replica_kit.standby_status() FROM PUBLIC;
GRANT EXECUTE ON FUNCTION replica_kit.standby_status() TO pg_monitor;

--
-- connection_errors()
--
CREATE FUNCTION replica_kit.connection_errors(
	OUT first_at timestamptz,
	OUT last_at timestamptz,
	OUT count bigint,
	OUT direction text,
	OUT role_name text,
	OUT client_addr inet,
	OUT application_name text,
	OUT slot_name text,
	OUT sqlstate text,
	OUT message text)
RETURNS SETOF record
AS 'MODULE_PATHNAME', 'pg_replica_kit_connection_errors_1_0'
LANGUAGE C STRICT VOLATILE PARALLEL RESTRICTED ROWS 10;
COMMENT ON FUNCTION replica_kit.connection_errors() IS
'Why replication connections to this server (direction in) or from it to its upstream (out) failed since it was started: one row per distinct failure with its count, newest first.';
REVOKE ALL ON FUNCTION replica_kit.connection_errors() FROM PUBLIC;
GRANT EXECUTE ON FUNCTION replica_kit.connection_errors() TO pg_monitor;

--
-- history()
--
CREATE FUNCTION replica_kit.history(
    name pg_catalog.text DEFAULT NULL,
    since pg_catalog.interval DEFAULT '1 hour',
    OUT sampled_at pg_catalog.timestamptz,
    OUT name pg_catalog.text,
    OUT state pg_catalog.text,
    OUT lag_bytes pg_catalog.int8,
    OUT lag_time pg_catalog.interval,
    OUT retained_bytes pg_catalog.int8)
RETURNS SETOF pg_catalog.record
AS 'MODULE_PATHNAME', 'pg_replica_kit_history_1_0'
LANGUAGE C CALLED ON NULL INPUT VOLATILE PARALLEL RESTRICTED ROWS 1000;
COMMENT ON FUNCTION replica_kit.history(pg_catalog.text, pg_catalog.interval) IS
'What the worker has sampled of a replica, or of all (name null), since so long ago, oldest first. Columns: sampled_at; name; state, lag_bytes, lag_time and retained_bytes as in status().';
REVOKE ALL ON FUNCTION replica_kit.history(pg_catalog.text, pg_catalog.interval) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION replica_kit.history(pg_catalog.text, pg_catalog.interval) TO pg_monitor;

--
-- lag_graph()
--
CREATE FUNCTION replica_kit.lag_graph(
    name pg_catalog.text,
    since pg_catalog.interval DEFAULT '1 hour',
    width pg_catalog.int4 DEFAULT 60)
RETURNS pg_catalog.text
AS 'MODULE_PATHNAME', 'pg_replica_kit_lag_graph_1_0'
LANGUAGE C CALLED ON NULL INPUT VOLATILE PARALLEL RESTRICTED;
COMMENT ON FUNCTION replica_kit.lag_graph(pg_catalog.text, pg_catalog.interval, pg_catalog.int4) IS
'The lag of a replica since so long ago as a picture in characters, so many columns wide; each shows the greatest lag of its part of the time.';
REVOKE ALL ON FUNCTION replica_kit.lag_graph(pg_catalog.text, pg_catalog.interval, pg_catalog.int4) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION replica_kit.lag_graph(pg_catalog.text, pg_catalog.interval, pg_catalog.int4) TO pg_monitor;

-- ======================================================================
-- Judge
-- ======================================================================

--
-- diagnose()
--
CREATE FUNCTION replica_kit.diagnose(
	name text DEFAULT NULL,
	OUT level text,
	OUT code text,
	OUT name text,
	OUT finding text,
	OUT evidence text,
	OUT remedy text,
	OUT advice text)
RETURNS SETOF record
AS 'MODULE_PATHNAME', 'pg_replica_kit_diagnose_1_0'
LANGUAGE C CALLED ON NULL INPUT VOLATILE PARALLEL UNSAFE ROWS 10;
COMMENT ON FUNCTION replica_kit.diagnose(text) IS
'Root causes of what is wrong with the replicas of this server, with its own upstream (name "upstream"), or with itself (name "server"), worst first; remedy is one statement that is safe to run unseen, or null; advice is what a person has to do or decide; no row: nothing is wrong.';
REVOKE ALL ON FUNCTION replica_kit.diagnose(text) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION replica_kit.diagnose(text) TO pg_monitor;

--
-- unhealthy()
--
CREATE FUNCTION replica_kit.unhealthy(
    level pg_catalog.text DEFAULT 'warning',
    OUT name pg_catalog.text,
    OUT level pg_catalog.text,
    OUT reason pg_catalog.text)
RETURNS SETOF pg_catalog.record
AS 'MODULE_PATHNAME', 'pg_replica_kit_unhealthy_1_0'
LANGUAGE C VOLATILE PARALLEL RESTRICTED;
COMMENT ON FUNCTION replica_kit.unhealthy(pg_catalog.text) IS
'What is at or above a level (warning or critical), worst first: replicas, by what the worker announced or, without one, by their health now; on a standby also this server''s own upstream. Columns: name; level, warning or critical; reason.';
REVOKE ALL ON FUNCTION replica_kit.unhealthy(pg_catalog.text) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION replica_kit.unhealthy(pg_catalog.text) TO pg_monitor;

--
-- assert_healthy()
--
CREATE FUNCTION replica_kit.assert_healthy(
    level pg_catalog.text DEFAULT 'critical',
    min_streaming pg_catalog.int4 DEFAULT 0)
RETURNS pg_catalog.void
AS 'MODULE_PATHNAME', 'pg_replica_kit_assert_healthy_1_0'
LANGUAGE C VOLATILE PARALLEL RESTRICTED;
COMMENT ON FUNCTION replica_kit.assert_healthy(pg_catalog.text, pg_catalog.int4) IS
'Raises an error that lists what unhealthy() lists at this level (SQLSTATE RK001 if the worst is a warning, RK002 if it is critical), or that fewer read replicas than min_streaming are streaming (RK002).';
REVOKE ALL ON FUNCTION replica_kit.assert_healthy(pg_catalog.text, pg_catalog.int4) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION replica_kit.assert_healthy(pg_catalog.text, pg_catalog.int4) TO pg_monitor;
