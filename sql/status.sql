-- status() and summary: what they show, to whom.

--
-- The columns, in order, and their types
--
SELECT a.attnum AS n, a.attname AS name, a.atttypid::regtype AS type
FROM pg_attribute AS a
WHERE a.attrelid = 'replica_kit.status_row'::regclass AND a.attnum > 0
ORDER BY a.attnum;

SELECT column_name, data_type
FROM information_schema.columns
WHERE table_schema = 'replica_kit' AND table_name = 'summary'
ORDER BY ordinal_position;

-- what PostgreSQL's views have too, has their types: no row
SELECT a.attname AS name, a.atttypid::regtype AS type, v.atttypid::regtype
FROM pg_attribute AS a
JOIN pg_attribute AS v ON v.attname = a.attname AND v.atttypid <> a.atttypid
WHERE a.attrelid = 'replica_kit.status_row'::regclass AND a.attnum > 0
	AND v.attrelid IN ('pg_stat_replication'::regclass, 'pg_replication_slots'::regclass)
	AND v.attnum > 0;

-- everything has a comment: no row
SELECT 'function' AS missing WHERE obj_description('replica_kit.status()'::regprocedure) IS NULL
UNION ALL
SELECT 'view' WHERE obj_description('replica_kit.summary'::regclass) IS NULL
UNION ALL
SELECT attname FROM pg_attribute
WHERE attrelid = 'replica_kit.summary'::regclass AND attnum > 0
	AND col_description(attrelid, attnum) IS NULL;

--
-- No slot, no walsender: no row
--
SELECT name, state FROM replica_kit.status();

--
-- Slots of each kind
--
SELECT FROM pg_create_physical_replication_slot('regress_prk_reserved', true);
SELECT FROM pg_create_physical_replication_slot('regress_prk_never');
SELECT FROM pg_create_physical_replication_slot('regress_prk_temporary', true, true);
SELECT FROM pg_create_logical_replication_slot('regress_prk_logical', 'pgoutput');
-- so that none of them is at the current position
SELECT pg_logical_emit_message(false, 'regress_prk', repeat('x', 10000)) IS NOT NULL AS written;
CHECKPOINT;

SELECT name, slot_name, slot_type, usename IS NOT NULL AS usename,
	application_name, client_addr, pid = pg_backend_pid() AS mine, state,
	restart_lsn IS NOT NULL AS restart, confirmed_flush_lsn IS NOT NULL AS confirmed,
	lag_bytes >= 10000 AS lag, retained_bytes >= 10000 AS retained,
	wal_status, safe_wal_size > 0 AS safe_wal_size, xmin_age >= 0 AS xmin_age
FROM replica_kit.status() ORDER BY name;

-- without a walsender none of its columns
SELECT name, sync_state, sent_lsn, write_lsn, flush_lsn, replay_lsn, reply_time
FROM replica_kit.status() ORDER BY name;

-- the stages add up, where the lag is known
SELECT name,
	unsent_bytes + unwritten_bytes + unflushed_bytes + unreplayed_bytes = lag_bytes AS sum,
	least(unsent_bytes, unwritten_bytes, unflushed_bytes, unreplayed_bytes) >= 0 AS positive
FROM replica_kit.status() ORDER BY name;

-- nobody watches and nothing forecasts here
SELECT count(*) AS rows, count(catch_up_in) + count(lost_in) + count(disk_full_in) AS forecasts,
	count(alert) + count(alert_since) AS alerts, count(last_error) + count(last_error_at) AS errors
FROM replica_kit.status();

-- only a slot that reserves WAL has a safe size; the view shows nonsense
SELECT s.name, s.safe_wal_size IS NOT NULL AS has_safe_wal_size,
	s.safe_wal_size = v.safe_wal_size AS as_the_view, v.safe_wal_size > 0 AS view_has_some
FROM replica_kit.status() AS s JOIN pg_replication_slots AS v USING (slot_name)
ORDER BY s.name;

-- fresh at each call, also within one transaction
BEGIN;
SELECT count(*) FROM replica_kit.status();
SELECT FROM pg_drop_replication_slot('regress_prk_temporary');
SELECT count(*) FROM replica_kit.status();
COMMIT;

-- worst first, then by name: no row
SELECT * FROM (
	SELECT name, health, lag(name) OVER w AS name_before, lag(health) OVER w AS health_before
	FROM (SELECT row_number() OVER () AS n, name, health FROM replica_kit.status()) AS s
	WINDOW w AS (ORDER BY n)) AS o
WHERE array_position('{critical,warning,ok}', health)
		< array_position('{critical,warning,ok}', health_before)
	OR health = health_before AND name < name_before COLLATE "C";

--
-- summary
--
SELECT name, state, health IN ('ok', 'warning') AS judged, lag ~ '^\d+ (bytes|kB|MB)$' AS lag,
	retained ~ '^\d+ (bytes|kB|MB)$' AS retained, lag_time IS NULL OR lag_time >= '0' AS lag_time,
	reason <> '' AS reason
FROM replica_kit.summary ORDER BY name;

--
-- Who may see it
--
CREATE ROLE regress_prk_nobody;
CREATE ROLE regress_prk_monitor IN ROLE pg_monitor;
CREATE ROLE regress_prk_application;
GRANT EXECUTE ON FUNCTION replica_kit.status() TO regress_prk_application;

SET ROLE regress_prk_nobody;
SELECT count(*) FROM replica_kit.status(); -- ERROR
SELECT count(*) FROM replica_kit.summary; -- ERROR
RESET ROLE;

SET ROLE regress_prk_monitor;
SELECT name, restart_lsn IS NOT NULL AS restart, reason <> '' AS reason
FROM replica_kit.status() ORDER BY name;
SELECT count(*) FROM replica_kit.summary;
RESET ROLE;

-- an application's role sees the numbers, though the server's views hide them
SET ROLE regress_prk_application;
SELECT name, state, lag_bytes IS NOT NULL AS lag FROM replica_kit.status() ORDER BY name;
SELECT count(*) FROM replica_kit.summary; -- ERROR: not granted
RESET ROLE;
GRANT SELECT ON replica_kit.summary TO regress_prk_application;
SET ROLE regress_prk_application;
SELECT count(*) FROM replica_kit.summary;
RESET ROLE;

-- nothing of the schema is for PUBLIC, but what applications call: no row
SELECT p.oid::regprocedure FROM pg_proc AS p, aclexplode(coalesce(p.proacl, acldefault('f', p.proowner))) AS a
WHERE p.pronamespace = 'replica_kit'::regnamespace AND a.grantee = 0 AND p.prokind <> 'p';
SELECT c.oid::regclass FROM pg_class AS c, aclexplode(c.relacl) AS a
WHERE c.relnamespace = 'replica_kit'::regnamespace AND a.grantee = 0;

--
-- Whoever made a schema first takes nothing over
--
SELECT current_database() AS here \gset
CREATE DATABASE regress_prk_hijack;
\c regress_prk_hijack
CREATE FUNCTION public.pg_size_pretty(bigint) RETURNS text LANGUAGE sql AS 'SELECT ''hijacked''';
CREATE FUNCTION public.status() RETURNS TABLE (name text) LANGUAGE sql AS 'SELECT ''hijacked''';
CREATE DOMAIN public.text AS pg_catalog.text DEFAULT 'hijacked';
SET search_path = public, pg_catalog;
CREATE EXTENSION pg_replica_kit;
SELECT name, state, lag ~ 'hijacked' AS hijacked FROM replica_kit.summary ORDER BY name COLLATE "C";
SELECT count(*) FROM replica_kit.status() AS s WHERE s::pg_catalog.text ~ 'hijacked';
SET search_path = '';
SELECT name, state FROM replica_kit.summary ORDER BY name COLLATE "C";
RESET search_path;
\c :here
DROP DATABASE regress_prk_hijack;

--
-- Clean up
--
SELECT FROM pg_drop_replication_slot('regress_prk_reserved');
SELECT FROM pg_drop_replication_slot('regress_prk_never');
SELECT FROM pg_drop_replication_slot('regress_prk_logical');
DROP OWNED BY regress_prk_application;
DROP ROLE regress_prk_nobody, regress_prk_monitor, regress_prk_application;
