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
-- For superusers.  SECURITY DEFINER, so that granting one of these grants the
-- whole job, and with it a copy of everything that the server holds.
-- ======================================================================

--
-- preflight_facts()
--
-- For preflight() alone: what needs a look at the file system.
CREATE FUNCTION replica_kit.preflight_facts(
    libraries text,
    OUT wal_free bigint,
    OUT hba_owner text,
    OUT hba_error text,
    OUT missing_libraries text
)
RETURNS record
AS 'MODULE_PATHNAME', 'pg_replica_kit_preflight_facts_1_0'
LANGUAGE C VOLATILE PARALLEL UNSAFE;

COMMENT ON FUNCTION replica_kit.preflight_facts(text) IS
'Internal: what preflight() needs from the file system and the server''s parser.';

REVOKE ALL ON FUNCTION replica_kit.preflight_facts(text) FROM PUBLIC;

--
-- preflight_accepts()
--
-- For preflight() alone.
CREATE FUNCTION replica_kit.preflight_accepts(name text, setting text)
RETURNS boolean
AS 'MODULE_PATHNAME', 'pg_replica_kit_preflight_accepts_1_0'
LANGUAGE C STRICT VOLATILE PARALLEL UNSAFE;

COMMENT ON FUNCTION replica_kit.preflight_accepts(text, text) IS
'Internal: would the server start with that value of a parameter?';

REVOKE ALL ON FUNCTION replica_kit.preflight_accepts(text, text) FROM PUBLIC;

--
-- preflight()
--
-- A row for each thing that wants attention.  What a restart would bring is
-- judged too: "next" is the value that the configuration files hold.  A fix
-- never widens access, switches TLS or needs a guess.
CREATE FUNCTION replica_kit.preflight(
    OUT check_name text,
    OUT level text,
    OUT current text,
    OUT wanted text,
    OUT needs_restart boolean,
    OUT fix text
)
RETURNS SETOF record
LANGUAGE sql VOLATILE PARALLEL UNSAFE SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
BEGIN ATOMIC
    WITH file AS (
        -- the last line of a name counts, however that is spelt
        SELECT DISTINCT ON (lower(f.name)) lower(f.name) AS name, f.setting
          FROM pg_file_settings f
         WHERE f.name IS NOT NULL
         ORDER BY lower(f.name), f.seqno DESC
    ), setting AS (
        -- what is not spelt as a plain number, a start will read, or refuse
        SELECT s.name, s.source,
               current_setting(s.name) AS now,
               CASE WHEN s.source = 'command line' OR s.context = 'internal' OR
                         (s.vartype = 'integer' AND file.setting !~ '^\d{1,9}$') THEN current_setting(s.name)
                    WHEN s.vartype IN ('bool', 'enum') THEN lower(coalesce(file.setting, s.boot_val))
                    ELSE coalesce(file.setting, s.boot_val, '') END AS next
          FROM pg_settings s LEFT JOIN file ON file.name = lower(s.name)
    ), v AS (
        SELECT max(now) FILTER (WHERE name = 'wal_level') AS wal_level,
               max(next) FILTER (WHERE name = 'wal_level') AS next_wal_level,
               max(now) FILTER (WHERE name = 'max_wal_senders')::integer AS max_wal_senders,
               max(next) FILTER (WHERE name = 'max_wal_senders')::integer AS next_max_wal_senders,
               max(now) FILTER (WHERE name = 'max_replication_slots')::integer AS max_replication_slots,
               max(next) FILTER (WHERE name = 'max_replication_slots')::integer AS next_max_replication_slots,
               max(now) FILTER (WHERE name = 'listen_addresses') AS listen_addresses,
               max(next) FILTER (WHERE name = 'listen_addresses') AS next_listen_addresses,
               max(now) FILTER (WHERE name = 'port') AS port,
               max(now) FILTER (WHERE name = 'max_slot_wal_keep_size') AS max_slot_wal_keep_size,
               max(now) FILTER (WHERE name = 'wal_keep_size') AS wal_keep_size,
               max(now) FILTER (WHERE name = 'max_wal_size') AS max_wal_size,
               max(now) FILTER (WHERE name = 'hot_standby') AS hot_standby,
               max(next) FILTER (WHERE name = 'hot_standby') AS next_hot_standby,
               max(now) FILTER (WHERE name = 'password_encryption') AS password_encryption,
               max(now) FILTER (WHERE name = 'ssl') AS ssl,
               max(now) FILTER (WHERE name = 'data_checksums') AS data_checksums,
               max(now) FILTER (WHERE name = 'wal_log_hints') AS wal_log_hints,
               max(next) FILTER (WHERE name = 'wal_log_hints') AS next_wal_log_hints,
               max(now) FILTER (WHERE name = 'wal_sender_timeout') AS wal_sender_timeout,
               max(now) FILTER (WHERE name = 'summarize_wal') AS summarize_wal,
               max(now) FILTER (WHERE name = 'synchronous_standby_names') AS sync_names,
               max(now) FILTER (WHERE name = 'log_min_messages') AS log_min_messages,
               max(now) FILTER (WHERE name = 'shared_preload_libraries') AS libraries,
               max(next) FILTER (WHERE name = 'shared_preload_libraries') AS next_libraries,
               -- from 17 on
               coalesce(max(now) FILTER (WHERE name = 'allow_alter_system') = 'off', false) AS no_alter_system,
               -- ALTER SYSTEM is of no avail against these
               coalesce(array_agg(name) FILTER (WHERE source = 'command line'), '{}') AS fixed
          FROM setting
    ), fact AS (
        SELECT * FROM replica_kit.preflight_facts((SELECT next_libraries FROM v))
    ), slots AS (
        SELECT count(*)::integer AS all_slots,
               (count(*) FILTER (WHERE NOT temporary))::integer AS kept_slots,
               coalesce(max(pg_wal_lsn_diff(
                   CASE WHEN pg_is_in_recovery()
                        THEN greatest(pg_last_wal_receive_lsn(), pg_last_wal_replay_lsn())
                        ELSE pg_current_wal_lsn() END, restart_lsn)), 0)::bigint AS retained
          FROM pg_replication_slots
    ), senders AS (
        SELECT count(*)::integer AS used,
               (count(*) FILTER (WHERE sync_state IN ('sync', 'quorum')))::integer AS synchronous,
               string_agg(r.application_name, ', ' ORDER BY r.application_name) FILTER (
                   WHERE r.state IN ('streaming', 'catchup') AND NOT EXISTS (
                       SELECT FROM pg_replication_slots s WHERE s.active_pid = r.pid)) AS slotless
          FROM pg_stat_replication r
    ), sync AS (
        SELECT CASE WHEN btrim(v.sync_names) = '' THEN 0
                    ELSE coalesce((regexp_match(v.sync_names, '^\s*(?:FIRST\s+|ANY\s+)?(\d+)\s*\(', 'i'))[1]::integer, 1)
               END AS wanted
          FROM v
    ), keep AS (
        -- half of what is free, on top of what is held: less would cost a slot
        -- that is there its WAL at once
        SELECT CASE WHEN fact.wal_free >= 16::bigint << 30
                    THEN (slots.retained + fact.wal_free / 2 >> 30) || 'GB'
                    ELSE (slots.retained + greatest(fact.wal_free / 2, 64 << 20,
                              4 * pg_size_bytes(current_setting('wal_segment_size'))) >> 20) || 'MB'
               END AS proposal
          FROM fact, slots
    ), found (ord, check_name, level, current, wanted, needs_restart, fix) AS (
        -- what the next restart would refuse
        SELECT 10, 'restart_would_fail', 'critical', 'wal_level = minimal after a restart, with ' ||
                   slots.kept_slots || ' replication slots and max_wal_senders = ' || v.next_max_wal_senders,
               'replica or logical', false,
               format('ALTER SYSTEM SET wal_level = %L', v.wal_level)
          FROM v, slots
         WHERE v.next_wal_level = 'minimal' AND v.wal_level <> 'minimal'
           AND (slots.kept_slots > 0 OR v.next_max_wal_senders > 0 OR coalesce(v.summarize_wal = 'on', false))
        UNION ALL
        SELECT 11, 'restart_would_fail', 'critical', 'max_replication_slots = ' || v.next_max_replication_slots ||
                   ' after a restart, with ' || slots.kept_slots || ' slots in use',
               'at least ' || slots.kept_slots, false,
               format('ALTER SYSTEM SET max_replication_slots = %s', v.max_replication_slots)
          FROM v, slots
         WHERE v.next_max_replication_slots < slots.kept_slots
        UNION ALL
        SELECT 12, 'restart_would_fail', 'critical', 'library not found: ' || fact.missing_libraries,
               'each of shared_preload_libraries installed', false, NULL
          FROM fact
         WHERE fact.missing_libraries IS NOT NULL
        UNION ALL
        SELECT 13, 'restart_would_fail', 'critical',
               coalesce(f.name || ': ', '') || f.error ||
                   coalesce(' (line ' || f.sourceline || ' of ' || f.sourcefile || ')', ''),
               'a configuration without errors', false, NULL
          FROM pg_file_settings f LEFT JOIN pg_settings s ON lower(s.name) = lower(f.name)
         WHERE f.error IS NOT NULL
           -- a change that waits for a restart is none, nor a line taken out
           AND f.error NOT LIKE '%cannot be changed without restarting%'
           AND NOT coalesce(s.context = 'postmaster' AND replica_kit.preflight_accepts(s.name, f.setting), false)
        UNION ALL
        SELECT 14, 'pg_hba', 'critical', fact.hba_error,
               'a pg_hba.conf that the server loads; a restart would fail', false, NULL
          FROM fact
         WHERE fact.hba_error IS NOT NULL
        UNION ALL
        -- what a replica needs
        SELECT 20, 'wal_level', 'critical', v.wal_level, 'replica or logical', true,
               CASE WHEN v.next_wal_level = 'minimal' THEN 'ALTER SYSTEM SET wal_level = ''replica''' END
          FROM v
         WHERE v.wal_level = 'minimal'
        UNION ALL
        SELECT 21, 'max_wal_senders', 'critical',
               greatest(v.max_wal_senders - senders.used, 0) || ' of ' || v.max_wal_senders || ' free',
               'two free: a clone takes two', true,
               -- where WAL is minimal, and has to be, any would keep the server from starting
               CASE WHEN v.next_max_wal_senders - senders.used < 2
                         AND NOT (v.next_wal_level = 'minimal' AND 'wal_level' = ANY (v.fixed))
                    THEN format('ALTER SYSTEM SET max_wal_senders = %s', senders.used + 10) END
          FROM v, senders
         WHERE v.max_wal_senders - senders.used < 2
        UNION ALL
        SELECT 22, 'max_replication_slots', 'critical',
               v.max_replication_slots - slots.all_slots || ' of ' || v.max_replication_slots || ' free',
               'one free', true,
               CASE WHEN v.next_max_replication_slots - slots.all_slots < 1
                    THEN format('ALTER SYSTEM SET max_replication_slots = %s', slots.all_slots + 10) END
          FROM v, slots
         WHERE v.max_replication_slots - slots.all_slots < 1
        UNION ALL
        (SELECT 23, 'listen_addresses', 'critical', format('%L%s, port %s', l.addresses, l.at_next, v.port),
                'an address that replicas reach, or ''*''', l.at_next = '', NULL::text
           FROM v, LATERAL (VALUES (v.listen_addresses, ''), (v.next_listen_addresses, ' after a restart')) l (addresses, at_next)
          WHERE NOT EXISTS (
                    SELECT FROM regexp_split_to_table(l.addresses, '\s*,\s*') a (host)
                     WHERE a.host <> '' AND a.host <> 'localhost' AND a.host <> '::1' AND a.host NOT LIKE '127.%')
          ORDER BY l.at_next LIMIT 1)
        UNION ALL
        -- what endangers this server, or its replicas
        SELECT 30, 'synchronous_standby_names', 'critical',
               format('%L: %s of %s connected', v.sync_names, senders.synchronous, sync.wanted),
               'the standbys that it names: commits wait for them', false, NULL
          FROM v, senders, sync
         WHERE sync.wanted > senders.synchronous AND NOT pg_is_in_recovery()
        UNION ALL
        SELECT 31, 'max_slot_wal_keep_size', 'warning', 'unlimited: a dead replica fills the disk',
               'a limit that the disk can bear; ' || coalesce(pg_size_pretty(fact.wal_free), 'an unknown amount') || ' are free',
               false, CASE WHEN fact.wal_free IS NOT NULL
                           THEN format('ALTER SYSTEM SET max_slot_wal_keep_size = %L', keep.proposal) END
          FROM v, fact, keep
         WHERE v.max_slot_wal_keep_size = '-1'
        UNION ALL
        SELECT 32, 'wal_keep_size', 'warning', 'no WAL is kept for replicas without a slot: ' || senders.slotless,
               'a slot for each, or wal_keep_size', false, NULL
          FROM v, senders
         WHERE v.wal_keep_size = '0' AND senders.slotless IS NOT NULL
        UNION ALL
        SELECT 33, 'wal_disk', 'critical', pg_size_pretty(fact.wal_free) || ' free beside pg_wal',
               'more than max_wal_size, ' || v.max_wal_size, false, NULL
          FROM v, fact
         WHERE fact.wal_free < pg_size_bytes(v.max_wal_size)
        UNION ALL
        SELECT 34, 'wal_sender_timeout', 'warning', 'off: a replica that vanished keeps its slot active',
               'a minute or so', false, 'ALTER SYSTEM SET wal_sender_timeout = ''1min'''
          FROM v
         WHERE v.wal_sender_timeout = '0'
        UNION ALL
        SELECT 35, 'hot_standby', 'warning', 'off: a replica cloned from here answers no query', 'on', true,
               CASE WHEN v.next_hot_standby NOT IN ('on', 'true', 'yes', '1') THEN 'ALTER SYSTEM SET hot_standby = on' END
          FROM v
         WHERE v.hot_standby = 'off'
        UNION ALL
        SELECT 36, 'password_encryption', 'warning', v.password_encryption,
               'scram-sha-256: what the rules of replicas ask for', false,
               'ALTER SYSTEM SET password_encryption = ''scram-sha-256'''
          FROM v
         WHERE v.password_encryption <> 'scram-sha-256'
        UNION ALL
        SELECT 37, 'log_min_messages', 'warning', v.log_min_messages,
               'error or lower: what is not logged is not seen by connection_errors()', false,
               'ALTER SYSTEM SET log_min_messages = ''warning'''
          FROM v
         WHERE v.log_min_messages IN ('log', 'fatal', 'panic')
        UNION ALL
        SELECT 38, 'pg_hba_owner', 'warning', 'pg_hba.conf seems to be managed by ' || fact.hba_owner,
               'the rules of replicas in its template', false, NULL
          FROM fact
         WHERE fact.hba_owner IS NOT NULL
        UNION ALL
        -- what is good to know before
        SELECT 40, 'pg_rewind', 'info', 'neither data checksums nor wal_log_hints',
               'one of them: without it an old primary must be cloned anew', true,
               CASE WHEN v.next_wal_log_hints NOT IN ('on', 'true', 'yes', '1') THEN 'ALTER SYSTEM SET wal_log_hints = on' END
          FROM v
         WHERE v.data_checksums = 'off' AND v.wal_log_hints = 'off'
        UNION ALL
        SELECT 41, 'summarize_wal', 'info', 'off', 'on, for incremental backups', false,
               'ALTER SYSTEM SET summarize_wal = on'
          FROM v
         -- with the lowest wal_level it would keep the server from starting
         WHERE v.summarize_wal = 'off' AND 'minimal' NOT IN (v.wal_level, v.next_wal_level)
        UNION ALL
        SELECT 42, 'ssl', 'info', 'off: replication is not encrypted',
               'on, with a certificate, and require_ssl for the replicas', false, NULL
          FROM v
         WHERE v.ssl = 'off'
        UNION ALL
        SELECT 43, 'worker', 'info', 'pg_replica_kit is not preloaded: no worker watches',
               'pg_replica_kit in shared_preload_libraries', true,
               CASE WHEN v.next_libraries !~ '(^|[\s,"/])pg_replica_kit($|[\s,"])'
                    THEN 'ALTER SYSTEM SET shared_preload_libraries = ' || (
                        SELECT string_agg(quote_literal(btrim(l.name, ' "')), ', ' ORDER BY l.ord)
                          FROM unnest(array_remove(string_to_array(v.next_libraries, ','), '') || 'pg_replica_kit'::text)
                               WITH ORDINALITY l (name, ord)) END
          FROM v
         WHERE v.libraries !~ '(^|[\s,"/])pg_replica_kit($|[\s,"])'
        UNION ALL
        SELECT 44, 'libraries', 'info', 'preloaded here: ' || l.names,
               'installed on the replica''s machine before it is cloned', false, NULL
          FROM (SELECT string_agg(btrim(n, ' "'), ', ') AS names
                  FROM v, unnest(string_to_array(v.libraries, ',')) n
                 WHERE btrim(n, ' "') NOT IN ('', 'pg_replica_kit')) l
         WHERE l.names IS NOT NULL
        UNION ALL
        SELECT 45, 'tablespaces', 'info', string_agg(pg_tablespace_location(t.oid), ', ' ORDER BY t.spcname),
               'the same directories, empty, on the replica''s machine', false, NULL
          FROM pg_tablespace t
         WHERE pg_tablespace_location(t.oid) <> ''
        HAVING count(*) > 0
    ), able AS (
        -- where ALTER SYSTEM is refused, the line for whoever writes the configuration
        SELECT f.ord, f.check_name, f.level, f.current,
               f.wanted || CASE WHEN f.fixed THEN ', on the command line of the server'
                                WHEN f.withheld THEN ', in its configuration: ' || replace(f.assignment, ''', ''', ', ')
                                ELSE '' END AS wanted,
               f.needs_restart OR f.fixed AS needs_restart,
               CASE WHEN NOT f.fixed AND NOT f.withheld THEN f.fix END AS fix,
               f.withheld AND NOT f.fixed AS withheld
          FROM (SELECT found.*, coalesce(a.assignment <> '' AND v.no_alter_system, false) AS withheld, a.assignment,
                       coalesce(substring(a.assignment FROM '^\w+'), found.check_name) = ANY (v.fixed) AS fixed
                  FROM found CROSS JOIN v
                       CROSS JOIN LATERAL substring(found.fix FROM '^ALTER SYSTEM SET (.*)') a (assignment)) f
    )
    SELECT f.check_name, f.level, f.current, f.wanted, f.needs_restart, f.fix
      FROM (SELECT able.ord, able.check_name, able.level, able.current, able.wanted, able.needs_restart, able.fix
              FROM able
            UNION ALL
            SELECT 98, 'allow_alter_system', 'info',
                   'off: ALTER SYSTEM is refused, so what is wanted above has no fix',
                   'the lines above, in the configuration that whoever manages this server writes', false, NULL
             WHERE EXISTS (SELECT FROM able WHERE able.withheld)
            UNION ALL
            SELECT 99, 'reload', 'info', 'the fixes above are not in force',
                   'reloaded', false, 'SELECT pg_reload_conf()'
             WHERE EXISTS (SELECT FROM able WHERE able.fix IS NOT NULL)) f
     ORDER BY f.ord;
END;

COMMENT ON FUNCTION replica_kit.preflight() IS
'Is this server ready to feed one more replica, and would it survive its next restart?  A row for each thing that wants attention.';

REVOKE ALL ON FUNCTION replica_kit.preflight() FROM PUBLIC;

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
LANGUAGE C CALLED ON NULL INPUT VOLATILE PARALLEL RESTRICTED
SECURITY DEFINER SET search_path = pg_catalog, pg_temp;
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
	OUT remedy text)
RETURNS SETOF record
AS 'MODULE_PATHNAME', 'pg_replica_kit_diagnose_1_0'
LANGUAGE C CALLED ON NULL INPUT VOLATILE PARALLEL UNSAFE ROWS 10
SECURITY DEFINER SET search_path = pg_catalog, pg_temp;
COMMENT ON FUNCTION replica_kit.diagnose(text) IS
'Root causes of what is wrong with the replicas of this server, with its own upstream, or with itself (name null), worst first, each with what proves it and what mends it; no row: nothing is wrong.';
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
