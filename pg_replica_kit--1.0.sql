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
-- ======================================================================

-- ======================================================================
-- Watch
-- ======================================================================

-- ======================================================================
-- Judge
-- ======================================================================
