-- hba_match(): arguments, columns and who may see what.  What it answers is
-- held against the server in t/200_hba_match.pl.

-- initdb's file lets replication in from this machine, and from nowhere else
SELECT file_name = current_setting('hba_file') AS this_file,
       line_number > 0 AS has_line, rule, auth_method, verdict
  FROM replica_kit.hba_match('regress_prk_nobody', '127.0.0.1');
SELECT * FROM replica_kit.hba_match('regress_prk_nobody', '10.1.2.3');
SELECT rule, verdict
  FROM replica_kit.hba_match('regress_prk_nobody', '::1', 'postgres', true);
-- no
SELECT verdict
  FROM replica_kit.hba_match('regress_prk_nobody', '::ffff:127.0.0.1');

-- Arguments
SELECT replica_kit.hba_match(NULL, '10.1.2.3'); -- ERROR
SELECT replica_kit.hba_match('x', NULL); -- ERROR
SELECT replica_kit.hba_match('x', '10.1.2.3', NULL); -- ERROR
SELECT replica_kit.hba_match('x', '10.1.2.3', 'x', NULL); -- ERROR
SELECT replica_kit.hba_match('', '10.1.2.3'); -- ERROR
SELECT replica_kit.hba_match('x', '10.1.2.3', ''); -- ERROR
SELECT replica_kit.hba_match(repeat('x', 64), '10.1.2.3'); -- ERROR
SELECT replica_kit.hba_match('x', '10.1.2.3', repeat('x', 64)); -- ERROR
SELECT replica_kit.hba_match('x', '10.1.2.0/24'); -- ERROR
SELECT verdict FROM replica_kit.hba_match(repeat('x', 63), '10.1.2.3');

-- Privileges: for superusers, until granted; the rule only for who may read
-- pg_hba_file_rules.
CREATE ROLE regress_prk_reader;
SET ROLE regress_prk_reader;
SELECT replica_kit.hba_match('x', '10.1.2.3'); -- ERROR
RESET ROLE;
GRANT EXECUTE ON FUNCTION replica_kit.hba_match TO regress_prk_reader;
SET ROLE regress_prk_reader;
SELECT rule, auth_method, verdict
  FROM replica_kit.hba_match('x', '127.0.0.1'); -- no rule
RESET ROLE;
GRANT EXECUTE ON FUNCTION pg_hba_file_rules() TO regress_prk_reader;
SET ROLE regress_prk_reader;
SELECT rule, auth_method, verdict
  FROM replica_kit.hba_match('x', '127.0.0.1'); -- rule
RESET ROLE;
REVOKE EXECUTE ON FUNCTION pg_hba_file_rules() FROM regress_prk_reader;
REVOKE EXECUTE ON FUNCTION replica_kit.hba_match FROM regress_prk_reader;
DROP ROLE regress_prk_reader;
