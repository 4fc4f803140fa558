-- The extension can be made, in the schema nobody could prepare.
CREATE EXTENSION pg_replica_kit;
