# status() on a standby that feeds another, where PostgreSQL's own view reckons
# from position 0; and slots that were lost, on either.

use strict;
use warnings FATAL => 'all';

use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $primary = PostgreSQL::Test::Cluster->new('primary');
$primary->init(allows_streaming => 1);

# No checkpoint on the primary, and so no restartpoint on the standby, but
# those that are asked for.
$primary->append_conf('postgresql.conf', <<~'CONF');
	autovacuum = off
	checkpoint_timeout = 1h
	max_wal_size = 4GB
	wal_keep_size = 0
	CONF
$primary->start;
my $version = $primary->safe_psql('postgres', 'SHOW server_version_num');
$primary->safe_psql('postgres', <<~'SQL');
	CREATE EXTENSION pg_replica_kit;
	SELECT pg_create_physical_replication_slot('middle', true);
	SQL
$primary->backup('base');

my $middle = PostgreSQL::Test::Cluster->new('middle');
$middle->init_from_backup($primary, 'base', has_streaming => 1);
$middle->append_conf('postgresql.conf', <<~'CONF');
	primary_slot_name = 'middle'
	max_slot_wal_keep_size = 192MB
	max_wal_size = 64MB
	CONF
$middle->start;
$middle->safe_psql('postgres',
	"SELECT pg_create_physical_replication_slot('leaf')");

my $leaf = PostgreSQL::Test::Cluster->new('leaf');
$leaf->init_from_backup($primary, 'base', has_streaming => 1);
$leaf->enable_streaming($middle);
$leaf->append_conf('postgresql.conf', <<~'CONF');
	primary_slot_name = 'leaf'
	wal_receiver_status_interval = 1s
	CONF
$leaf->start;

# Write so many MB, and wait until a standby has replayed it.
sub write_wal
{
	my ($megabytes, $standby) = @_;

	$primary->safe_psql('postgres',
		"SELECT count(pg_logical_emit_message(false, 'prk', repeat('x', 1000000))) FROM generate_series(1, $megabytes)"
	);
	$primary->safe_psql('postgres', 'CREATE TABLE IF NOT EXISTS t ()');
	$primary->wait_for_catchup($standby, 'replay', $primary->lsn('insert'))
	  if $standby;
}

my $figures = <<~'SQL';
	SELECT state, retained_bytes, safe_wal_size, wal_status, health
	FROM replica_kit.status() WHERE name = 'leaf'
	SQL

# ----------------------------------------------------------------------
# The cascade streams
# ----------------------------------------------------------------------

write_wal(5, $middle);
ok( $middle->poll_query_until('postgres', <<~'SQL'),
	SELECT count(*) = 1 AND bool_and(lag_bytes = 0 AND state = 'streaming' AND health = 'ok')
	FROM replica_kit.status() WHERE name = 'leaf'
	SQL
	'on the standby its replica streams, with no lag');
ok( $middle->poll_query_until('postgres', <<~'SQL'),
	SELECT s.pid = r.pid AND s.sent_lsn = r.sent_lsn AND s.replay_lsn = r.replay_lsn
		AND s.sync_state = r.sync_state AND s.restart_lsn = v.restart_lsn
		AND s.replay_lsn + s.lag_bytes = greatest(pg_last_wal_receive_lsn(), pg_last_wal_replay_lsn())
		AND s.restart_lsn + s.retained_bytes = greatest(pg_last_wal_receive_lsn(), pg_last_wal_replay_lsn())
		AND s.unsent_bytes + s.unwritten_bytes + s.unflushed_bytes + s.unreplayed_bytes = s.lag_bytes
	FROM replica_kit.status() AS s
		JOIN pg_stat_replication AS r USING (pid)
		JOIN pg_replication_slots AS v USING (slot_name)
	SQL
	'on the standby its figures are those of the views');
ok( $middle->poll_query_until('postgres', <<~'SQL'),
	SELECT (name, state, health, lag) = ('leaf', 'streaming', 'ok', '0 bytes')
	FROM replica_kit.summary
	SQL
	'on the standby there is a summary');
is( $primary->safe_psql('postgres', 'SELECT name FROM replica_kit.status()'),
	'middle', 'the primary has the row of the standby only');

# Replay paused in the middle: received WAL counts, and is sent on.
$middle->safe_psql('postgres', 'SELECT pg_wal_replay_pause()');
write_wal(3);
$primary->poll_query_until('postgres', <<~'SQL')
	SELECT flush_lsn = pg_current_wal_lsn() FROM pg_stat_replication
	SQL
  or die 'the standby does not receive';
ok( $middle->poll_query_until('postgres', <<~'SQL'),
	SELECT lag_bytes < 10000 AND replay_lsn + lag_bytes = pg_last_wal_receive_lsn()
		AND pg_last_wal_receive_lsn() > pg_last_wal_replay_lsn()
	FROM replica_kit.status()
	SQL
	'what the standby received and did not replay itself counts for its replica'
);
$middle->safe_psql('postgres', 'SELECT pg_wal_replay_resume()');

# ----------------------------------------------------------------------
# Its replica goes: the slot fills up, and is lost
# ----------------------------------------------------------------------

$leaf->stop;
write_wal(1, $middle);
ok( $middle->poll_query_until('postgres',
		"SELECT state = 'disconnected' FROM replica_kit.status()"),
	'the replica of the standby is down');
my ($state, $retained, $safe, $wal_status) =
  split /\|/, $middle->safe_psql('postgres', $figures);
my $view_safe = $middle->safe_psql('postgres',
	'SELECT safe_wal_size FROM pg_replication_slots');
is($wal_status, 'reserved', 'its slot is reserved');
cmp_ok($safe, '>', 0, 'there is some room left');

# What goes into the slot is what is lost of the room, to the byte.
write_wal(40, $middle);
my (undef, $retained_then, $safe_then) =
  split /\|/, $middle->safe_psql('postgres', $figures);
cmp_ok($retained_then - $retained, '>', 40_000_000, 'the slot holds more');
is($safe - $safe_then, $retained_then - $retained, 'and the room shrinks');
is( $middle->safe_psql('postgres',
		'SELECT safe_wal_size FROM pg_replication_slots'),
	$view_safe,
	'which the server\'s own view does not show');

write_wal(70, $middle);
(undef, $retained, $safe, $wal_status, my $health) =
  split /\|/, $middle->safe_psql('postgres', $figures);
is($wal_status, 'extended', 'more than max_wal_size is extended');

# Past the limit, and before a restartpoint notices.
write_wal(110, $middle);
(undef, $retained, $safe, $wal_status, $health) =
  split /\|/, $middle->safe_psql('postgres', $figures);
cmp_ok($safe, '<', 0, 'past the limit there is less than no room');
is($wal_status, 'unreserved', 'and the WAL is not reserved any more');
is($health, 'critical', 'which is critical');

$primary->safe_psql('postgres', 'CHECKPOINT');
$primary->wait_for_catchup($middle, 'replay', $primary->lsn('insert'));
$middle->safe_psql('postgres', 'CHECKPOINT');
is($middle->safe_psql('postgres', $figures),
	'lost|||lost|critical', 'after a restartpoint the slot is lost');
is( $middle->safe_psql('postgres',
		"SELECT name, state, health FROM replica_kit.summary"),
	'leaf|lost|critical', 'which the summary says');

# ----------------------------------------------------------------------
# The same on the primary
# ----------------------------------------------------------------------

$middle->stop;
$primary->append_conf('postgresql.conf', "max_slot_wal_keep_size = 64MB\n");
$primary->reload;
write_wal(150);
$primary->safe_psql('postgres', 'CHECKPOINT');
is( $primary->safe_psql('postgres', <<~'SQL'),
	SELECT s.state, s.health, s.wal_status, s.wal_status = v.wal_status, s.lag_bytes,
		s.retained_bytes, s.safe_wal_size, s.reason ~ 'lost'
	FROM replica_kit.status() AS s JOIN pg_replication_slots AS v USING (slot_name)
	SQL
	'lost|critical|lost|t||||t', 'on the primary a lost slot is lost');

# A clone through a lost slot: 15 revives it, on 17 it streams and holds no
# WAL, 18 refuses.
if ($version < 180000)
{
	my $again = PostgreSQL::Test::Cluster->new('again');

	$primary->command_ok(
		[
			'pg_basebackup', '-D', $primary->backup_dir . '/again',
			'-h', $primary->host, '-p', $primary->port,
			'-c', 'fast', '-S', 'middle', '--no-sync'
		],
		'a clone through a lost slot');
	$again->init_from_backup($primary, 'again', has_streaming => 1);
	$again->append_conf('postgresql.conf', "primary_slot_name = 'middle'\n");
	$again->start;
	$primary->wait_for_catchup($again);
	is( $primary->safe_psql('postgres', <<~'SQL'),
		SELECT s.pid = r.pid, r.state, s.state, s.health,
			s.wal_status IS NOT DISTINCT FROM v.wal_status
		FROM replica_kit.status() AS s
			JOIN pg_stat_replication AS r USING (pid)
			JOIN pg_replication_slots AS v USING (slot_name)
		SQL
		$version < 170000
		? 't|streaming|streaming|ok|t'
		: 't|streaming|lost|critical|t',
		'what streams through it is ' . ($version < 170000 ? 'well' : 'lost'));
	$again->stop;
}

$primary->stop;

done_testing();
