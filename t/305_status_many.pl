# status() of many slots: the order of its rows, and the memory that a session
# keeps for the next call.

use strict;
use warnings FATAL => 'all';

use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $node = PostgreSQL::Test::Cluster->new('primary');
$node->init(allows_streaming => 1);
$node->append_conf(
	'postgresql.conf', q{
max_replication_slots = 700
max_slot_wal_keep_size = 1MB
autovacuum = off
replica_kit.overrides = 'calm*: off'
replica_kit.warning_disconnected = 0
});
$node->start;
$node->safe_psql('postgres', 'CREATE EXTENSION pg_replica_kit');

# Not in the order of their names, which are alike for long, or for ever.
sub make_slots
{
	my ($prefix, $count) = @_;
	$node->safe_psql('postgres', qq{SELECT pg_create_physical_replication_slot('$prefix' || (g * 7919 % 1009), true)
		FROM generate_series(1, $count) AS g});
	return;
}

# Rows that do not stand where they should: worst first, then by name.
my $misplaced = q{
	SELECT count(*)
	FROM (SELECT ordinality, row_number() OVER (
			ORDER BY array_position('{critical,warning,ok}', health), name COLLATE "C") AS place
		FROM replica_kit.status() WITH ORDINALITY) AS s
	WHERE ordinality <> place};

my $levels = q{SELECT string_agg(health || ' ' || n, ', ' ORDER BY health)
	FROM (SELECT health, count(*) AS n FROM replica_kit.status() GROUP BY health) AS s};

is($node->safe_psql('postgres', $misplaced), 0, 'no slot, no row');

make_slots('lost', 40);
make_slots('a' x 59 . '_', 40);
$node->safe_psql('postgres', q{
	CREATE TABLE t (i int);
	INSERT INTO t VALUES (1);
	SELECT pg_switch_wal();
	INSERT INTO t VALUES (2);
	SELECT pg_switch_wal();
	INSERT INTO t VALUES (3);
	CHECKPOINT});
make_slots('calm', 40);
make_slots('slot', 40);
make_slots('m' x 59 . '_', 40);
is($node->safe_psql('postgres', $levels), 'critical 80, ok 120', 'slots of both levels');
is($node->safe_psql('postgres', $misplaced), 0, 'they stand the worst first, then by name');
is( $node->safe_psql('postgres', q{SELECT count(*) FROM replica_kit.status() AS s JOIN pg_replication_slots AS p USING (slot_name)
	WHERE s.name = p.slot_name AND s.restart_lsn IS NOT DISTINCT FROM p.restart_lsn}),
	200, 'each row is of its own slot');

# One session sees slots come and go, and keeps memory for the most there were.
my $kept = q{SELECT sum(total_bytes) FROM pg_backend_memory_contexts WHERE name = 'pg_replica_kit report'};
my $calls = 'SELECT count(*) FROM replica_kit.status() AS s, generate_series(1, 3) AS g, LATERAL replica_kit.status() AS t WHERE s.name = t.name';
my $session = $node->background_psql('postgres', on_error_stop => 1);
is($session->query($misplaced), 0, 'a session sees all');
$session->query($calls);
my $before = $session->query($kept);
note "kept for 200 slots: $before bytes";
cmp_ok($before, '>', 200 * 500, 'what a call needs is kept');
cmp_ok($before, '<', 200 * 4000, 'and no more than that');
$session->query($calls) for 1 .. 20;
is($session->query($kept), $before, 'more calls keep no more');

make_slots('late', 400);
is($session->query('SELECT count(*) FROM replica_kit.status()'), 600, 'it sees slots that came later');
is($session->query($misplaced), 0, 'in order');
$node->safe_psql('postgres', q{SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots WHERE slot_name !~ '^(lost|calm)'});
is($session->query($levels), 'critical 40, ok 40', 'and misses those that are gone');
is($session->query($misplaced), 0, 'in order');
is($session->query(q{SELECT count(*) FROM replica_kit.unhealthy('critical')}), 40, 'so does unhealthy()');
is($session->query(q{SELECT count(*) FROM replica_kit.diagnose() WHERE code = 'slot_lost'}), 40, 'and diagnose()');
$session->quit;

$node->stop;
done_testing();
