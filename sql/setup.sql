\set SHOW_CONTEXT never
-- ======================================================================
-- Making the extension
-- ======================================================================
-- A schema that somebody made before could hold anything: refused.
CREATE SCHEMA replica_kit;
CREATE EXTENSION pg_replica_kit; -- ERROR
DROP SCHEMA replica_kit;
-- Nor can it be put elsewhere.
CREATE SCHEMA regress_prk_schema;
CREATE EXTENSION pg_replica_kit SCHEMA regress_prk_schema; -- ERROR
DROP SCHEMA regress_prk_schema;
-- Only a superuser makes it.
CREATE ROLE regress_prk_user LOGIN;
SET ROLE regress_prk_user;
CREATE EXTENSION pg_replica_kit; -- ERROR
RESET ROLE;
CREATE EXTENSION pg_replica_kit;

-- ======================================================================
-- Every object says what it is
-- ======================================================================
SELECT pg_describe_object(classid, objid, objsubid) AS without_comment
  FROM pg_depend
 WHERE refclassid = 'pg_extension'::regclass AND deptype = 'e'
   AND refobjid = (SELECT oid FROM pg_extension WHERE extname = 'pg_replica_kit')
   AND classid IN ('pg_proc'::regclass, 'pg_class'::regclass, 'pg_namespace'::regclass, 'pg_type'::regclass)
   AND obj_description(objid, classid::regclass::name) IS NULL
   AND NOT (classid = 'pg_type'::regclass AND EXISTS
            (SELECT FROM pg_type t WHERE t.oid = objid AND (t.typrelid <> 0 OR t.typelem <> 0)))
 ORDER BY 1;

-- ======================================================================
-- Who may what
-- ======================================================================
\pset format unaligned
\pset tuples_only on
SELECT p.proname,
       has_function_privilege('public', p.oid, 'EXECUTE') AS public,
       has_function_privilege('pg_monitor', p.oid, 'EXECUTE') AS monitor,
       p.prosecdef AS definer,
       array_to_string(p.proconfig, ',') AS config
  FROM pg_proc p
 WHERE p.pronamespace = 'replica_kit'::regnamespace
 ORDER BY p.prosecdef DESC, p.proname;
\pset tuples_only off
\pset format aligned
SET ROLE regress_prk_user;
SELECT replica_kit.provision('replica1', '127.0.0.1'); -- ERROR
SELECT replica_kit.deprovision('replica1'); -- ERROR
SELECT replica_kit.rotate_password('replica1'); -- ERROR
SELECT replica_kit.revoke_address('replica1', '127.0.0.1'); -- ERROR
SELECT replica_kit.allow_rewind('replica1'); -- ERROR
SELECT replica_kit.revoke_rewind('replica1'); -- ERROR
SELECT replica_kit.end_rewind(); -- ERROR
RESET ROLE;

-- The private server of the tests listens on no address at all.
SELECT replica_kit.provision('replica1', '127.0.0.1'); -- ERROR

-- ======================================================================
-- What is NULL is said by name
-- ======================================================================
SELECT replica_kit.provision(NULL, '127.0.0.1'); -- ERROR
SELECT replica_kit.provision('replica1', NULL); -- ERROR
SELECT replica_kit.provision('replica1', '127.0.0.1', require_ssl => NULL); -- ERROR
SELECT replica_kit.provision('replica1', '127.0.0.1', manage_hba => NULL); -- ERROR
SELECT replica_kit.provision('replica1', '127.0.0.1', dry_run => NULL); -- ERROR
SELECT replica_kit.deprovision(NULL); -- ERROR
SELECT replica_kit.deprovision('replica1', force => NULL); -- ERROR
SELECT replica_kit.rotate_password(NULL); -- ERROR
SELECT replica_kit.revoke_address('replica1', NULL); -- ERROR
SELECT replica_kit.allow_rewind('replica1', NULL); -- ERROR
SELECT replica_kit.revoke_rewind(NULL); -- ERROR

DROP ROLE regress_prk_user;
