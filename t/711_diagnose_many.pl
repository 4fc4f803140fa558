# diagnose() with many replicas: what it reads of the catalogs is in proportion
# to what there is, and each role, line and slot is joined with the others of
# its name.

use strict;
use warnings FATAL => 'all';

use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $node = PostgreSQL::Test::Cluster->new('primary');
$node->init(allows_streaming => 1);
$node->append_conf('postgresql.conf', "max_replication_slots = 100\nautovacuum = off\n");
$node->start;
$node->safe_psql('postgres', 'CREATE EXTENSION pg_replica_kit');

# Roles, slots and lines as provision() makes them, of the replicas r1 to rN.
my $made = 0;

sub make_replicas
{
	my ($count) = @_;
	my $sql = '';
	my $lines = '';
	foreach my $i ($made + 1 .. $count)
	{
		$sql .= "CREATE ROLE r$i LOGIN REPLICATION;\n";
		$sql .= "COMMENT ON ROLE r$i IS 'pg_replica_kit: r$i';\n";
		$sql .= "SELECT pg_create_physical_replication_slot('r$i', true);\n";
		$lines .= "host replication r$i 10.0.0.$i/32 scram-sha-256 # pg_replica_kit: r$i\n";
	}
	$node->safe_psql('postgres', $sql);
	append_to_file($node->data_dir . '/pg_hba.conf', $lines);
	$made = $count;
	return;
}

# Scans and rows read of the catalogs of roles in one call of diagnose(), by a
# session that has called it before.
sub catalog_reads
{
	my $counts = q{SELECT sum(seq_scan + coalesce(idx_scan, 0)), sum(seq_tup_read + coalesce(idx_tup_fetch, 0))
		FROM pg_stat_xact_all_tables WHERE relname IN ('pg_shdescription', 'pg_authid');};
	my @rows = split /\n/,
	  $node->safe_psql('postgres',
			"SELECT count(*) FROM replica_kit.diagnose();\nBEGIN;\n$counts\n"
		  . "SELECT count(*) FROM replica_kit.diagnose();\n$counts\nCOMMIT;");
	my ($scans_before, $read_before) = split /\|/, $rows[1];
	my ($scans_after, $read_after) = split /\|/, $rows[3];
	note "$made replicas: ", $scans_after - $scans_before, ' scans, ', $read_after - $read_before, ' rows';
	return ($scans_after - $scans_before, $read_after - $read_before);
}

# ----------------------------------------------------------------------
# How much is read
# ----------------------------------------------------------------------

make_replicas(20);
my ($scans_of_20, $read_of_20) = catalog_reads();
make_replicas(80);
my ($scans_of_80, $read_of_80) = catalog_reads();
is($scans_of_80, $scans_of_20, 'four times as many replicas take no more scans of the catalogs');
cmp_ok($read_of_20, '>', 0, 'the comments on roles are read');
cmp_ok($read_of_80, '<=', 4 * $read_of_20, 'and at most four times as many rows');

# ----------------------------------------------------------------------
# What is joined
# ----------------------------------------------------------------------

# What is wrong with replicas of these names; of those that are only away,
# nothing.
sub found
{
	my ($names) = @_;
	return $node->safe_psql('postgres', qq{SELECT coalesce(string_agg(concat_ws(' ', code, name), ', ' ORDER BY name, code), '')
		FROM replica_kit.diagnose() WHERE code <> 'replica_down' AND name ~ '^($names)\$'});
}

is(found('.*'), '', 'each replica has its role and its line');

$node->safe_psql('postgres', 'DROP ROLE r2; DROP ROLE r3');
is(found('.*'), 'orphan_slot r2, orphan_slot r3', 'slots whose roles are gone');

$node->safe_psql('postgres', q{COMMENT ON ROLE r1 IS 'pg_replica_kit: r1, r2, zz'});
is(found('.*'), 'orphan_slot r3, orphan_role zz', 'one role for two slots, and for one that is not there');

$node->safe_psql('postgres', q{SELECT pg_drop_replication_slot('r4'); SELECT pg_drop_replication_slot('r5'); DROP ROLE r5});
append_to_file($node->data_dir . '/pg_hba.conf',
	"host replication r5 10.0.0.55/32 scram-sha-256 # pg_replica_kit: r5\n"
	  . "host replication r3 10.0.0.33/32 scram-sha-256 # pg_replica_kit: yy\n");
is( found('.*'),
	'orphan_slot r3, replica_not_attached r4, orphan_rule r5, orphan_rule yy, orphan_role zz',
	'roles and lines without a slot, each name once');

$node->safe_psql('postgres', 'ALTER ROLE r4 NOREPLICATION');
is(found('r4'), 'orphan_rule r4', 'a role that cannot replicate is none, but its line is left');

$node->stop;
done_testing();
