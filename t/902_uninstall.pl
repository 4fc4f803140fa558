# DROP EXTENSION tells which replicas stay, and they do.
use strict;
use warnings FATAL => 'all';

use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $primary = PostgreSQL::Test::Cluster->new('primary');
$primary->init(allows_streaming => 1);
$primary->append_conf('postgresql.conf', <<~CONF);
	shared_preload_libraries = 'pg_replica_kit'
	listen_addresses = '127.0.0.1'
	CONF
$primary->start;

my ($code, $out, $err) = $primary->psql('postgres',
	'CREATE EXTENSION pg_replica_kit; DROP EXTENSION pg_replica_kit');
is($code, 0, 'DROP EXTENSION without replicas');
is($err, '', 'says nothing');

$primary->safe_psql('postgres', <<~SQL);
	CREATE EXTENSION pg_replica_kit;
	SELECT replica_kit.provision('r1', '127.0.0.1');
	SELECT replica_kit.provision('r2', '127.0.0.1', role => 'two');
	SQL
$primary->backup('one');
my $standby = PostgreSQL::Test::Cluster->new('standby');
$standby->init_from_backup($primary, 'one', has_streaming => 1);
$standby->append_conf('postgresql.conf', "primary_slot_name = 'r1'");
$standby->start;

($code, $out, $err) =
  $primary->psql('postgres', 'DROP EXTENSION pg_replica_kit');
is($code, 0, 'DROP EXTENSION with replicas');
like(
	$err,
	qr/WARNING:  the replicas of pg_replica_kit stay: replication slots: 2, lines in pg_hba\.conf: 2, roles: 2$/m,
	'counts what stays');
like($err, qr/^DETAIL:  Replicas: "r1", "r2"\.$/m, 'names the replicas');
like($err,
	qr/^HINT:  .*SELECT \* FROM replica_kit\.deprovision\('r1'\);$/m,
	'and has the statement that removes one');

$primary->safe_psql('postgres', 'CREATE TABLE t AS SELECT 1 AS a');
$primary->wait_for_catchup($standby, 'replay');
is($standby->safe_psql('postgres', 'SELECT a FROM t'),
	'1', 'the replica streams on');
$standby->stop;
$primary->poll_query_until('postgres', q{SELECT NOT active FROM pg_replication_slots WHERE slot_name = 'r1'})
  or die 'the slot is still in use';

# As the page on uninstalling says.
($code, $out, $err) = $primary->psql('postgres', <<~SQL);
	CREATE EXTENSION pg_replica_kit;
	SELECT * FROM replica_kit.deprovision('r1');
	SELECT * FROM replica_kit.deprovision('r2');
	DROP EXTENSION pg_replica_kit;
	SQL
is($code, 0, 'each replica deprovisioned, then the extension dropped');
unlike($err, qr/stay/, 'nothing stays');
is( $primary->safe_psql('postgres',
		"SELECT count(*) FROM pg_replication_slots"),
	'0', 'no slot');
is( $primary->safe_psql('postgres',
		"SELECT count(*) FROM pg_roles WHERE rolname IN ('r1', 'two')"),
	'0', 'no role');
unlike(slurp_file($primary->data_dir . '/pg_hba.conf'),
	qr/pg_replica_kit/, 'no line');

# The last step needs a restart.
$primary->adjust_conf('postgresql.conf', 'shared_preload_libraries', undef);
$primary->restart;
unlike($primary->safe_psql('postgres', 'SHOW shared_preload_libraries'),
	qr/pg_replica_kit/, 'the server starts without the library');
$primary->stop;

done_testing();
