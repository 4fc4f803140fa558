-- unhealthy() and assert_healthy(): arguments, privileges, an empty server.
SELECT * FROM replica_kit.unhealthy();
SELECT * FROM replica_kit.unhealthy(level => 'critical');
SELECT replica_kit.assert_healthy();
SELECT replica_kit.assert_healthy('warning', 0);

-- Fewer replicas than wanted.
DO $$
BEGIN
  PERFORM replica_kit.assert_healthy(min_streaming => 1);
EXCEPTION WHEN SQLSTATE 'RK002' THEN
  RAISE NOTICE '%: %', SQLSTATE, SQLERRM;
END $$;

-- What is no level.
SELECT * FROM replica_kit.unhealthy(NULL); -- ERROR
SELECT * FROM replica_kit.unhealthy('ok'); -- ERROR
SELECT * FROM replica_kit.unhealthy('Critical'); -- ERROR
SELECT replica_kit.assert_healthy(NULL); -- ERROR
SELECT replica_kit.assert_healthy('fine'); -- ERROR
SELECT replica_kit.assert_healthy(min_streaming => NULL); -- ERROR
SELECT replica_kit.assert_healthy(min_streaming => -1); -- ERROR

-- For monitors, and nobody else.
CREATE ROLE regress_prk_nobody;
CREATE ROLE regress_prk_monitor;
GRANT pg_monitor TO regress_prk_monitor;
SELECT proname,
  has_function_privilege('regress_prk_nobody', oid, 'EXECUTE') AS nobody, -- no
  has_function_privilege('regress_prk_monitor', oid, 'EXECUTE') AS monitor -- yes
FROM pg_proc
WHERE pronamespace = 'replica_kit'::regnamespace
  AND proname IN ('unhealthy', 'assert_healthy')
ORDER BY proname;
SET ROLE regress_prk_monitor;
SELECT count(*) FROM replica_kit.unhealthy();
RESET ROLE;
DROP ROLE regress_prk_nobody;
DROP ROLE regress_prk_monitor;
