# What happens between two of the worker's samples is not lost on it: a
# replica that came and went is away, not awaited.

use strict;
use warnings FATAL => 'all';

use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

# The worker samples when it starts, when the settings are loaded, and not in
# the hour after that.  What it says when it starts comes after its first.
my $primary = PostgreSQL::Test::Cluster->new('primary');
$primary->init(allows_streaming => 1);
$primary->append_conf('postgresql.conf', <<~CONF);
	shared_preload_libraries = 'pg_replica_kit'
	replica_kit.check_interval = '1h'
	CONF
$primary->start;
$primary->safe_psql('postgres', 'CREATE EXTENSION pg_replica_kit');
$primary->wait_for_log(qr/replica_kit worker started/);
$primary->backup('one');

# state_becomes(NAME, STATE): it does once the worker has looked again.
sub state_becomes
{
	my ($name, $state) = @_;

	return $primary->poll_query_until('postgres',
		"SELECT state = '$state' FROM replica_kit.status() WHERE name = '$name'"
	);
}

$primary->safe_psql('postgres', <<~SQL);
	SELECT pg_create_physical_replication_slot(name, true)
	FROM unnest(ARRAY['visitor', 'awaited']) name
	SQL
$primary->reload;
ok(state_becomes($_, 'never connected'), "$_ is awaited")
  foreach ('visitor', 'awaited');

my $standby = PostgreSQL::Test::Cluster->new('standby');
$standby->init_from_backup($primary, 'one', has_streaming => 1);
$standby->append_conf('postgresql.conf', "primary_slot_name = 'visitor'");
$standby->start;
$primary->wait_for_catchup($standby, 'flush');
ok( $primary->poll_query_until(
		'postgres', q{SELECT restart_lsn = pg_current_wal_lsn()
		FROM pg_replication_slots WHERE slot_name = 'visitor'}),
	'the visitor comes');
$standby->stop;

$primary->reload;
ok(state_becomes('visitor', 'disconnected'), 'who came and went is away');
is( $primary->safe_psql(
		'postgres', q{SELECT state, reason ~ '^never connected'
		FROM replica_kit.status() WHERE name = 'awaited'}),
	'never connected|t',
	'who never came is still awaited');

# It comes twice and stays, and nobody looks: it has not left at once.
foreach (1 .. 2)
{
	$standby->start;
	$primary->poll_query_until('postgres',
		q{SELECT state = 'streaming' AND clock_timestamp() - backend_start > '3 s' FROM pg_stat_replication})
	  or die 'the visitor does not stay';
	$standby->stop;
}
is( $primary->safe_psql('postgres',
		q{SELECT code, finding ~ 'let in|leaves', evidence ~ 'let in' FROM replica_kit.diagnose('visitor')}),
	'replica_down|f|f',
	'who came twice and stayed is not said to leave at once');

# Dropped and made again: another slot, and nobody has used it either.
SKIP:
{
	skip 'the file system does not tell when files were made', 2
	  if `stat -c %W @{[ $primary->data_dir ]}/pg_replslot/awaited` !~ /^[1-9]/;
	$primary->safe_psql(
		'postgres', q{SELECT pg_drop_replication_slot('awaited');
		CREATE TABLE t (); CHECKPOINT;
		SELECT pg_create_physical_replication_slot('awaited', true);
		SELECT pg_create_physical_replication_slot('later')});
	$primary->reload;
	ok(state_becomes('later', 'never connected'), 'the worker has looked');
	is($primary->safe_psql('postgres', q{SELECT state FROM replica_kit.status() WHERE name = 'awaited'}),
		'never connected', 'a slot that was made again is awaited, too');
}

$standby->clean_node;
$primary->stop;
done_testing();
