# diagnose(), of replicas that are connected and yet not well: paused, blocked,
# stalled, configured too low, on another timeline.

use strict;
use warnings FATAL => 'all';

use FindBin;
use lib $FindBin::RealBin;

use DiagKit;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $primary = new_primary('primary', 'autovacuum = off', 'max_connections = 20', 'checkpoint_timeout = 1h',
	'wal_sender_timeout = 60s', 'replica_kit.warning_lag = 1MB', 'replica_kit.lag_grace = 1s',
	'replica_kit.warning_disconnected = 1s', 'replica_kit.critical_disconnected = 1h', 'replica_kit.alert_after = 0');
my ($standby, $password) = new_standby($primary, 'replica1', 'max_standby_streaming_delay = -1');
$primary->safe_psql('postgres', q{CREATE TABLE t (i int, filler text)});

sub found
{
	my ($name, $on_primary, $on_standby) = @_;
	is(wait_for_diagnosis($primary, $on_primary), $on_primary, "$name: the primary says " . ($on_primary || 'nothing')) if defined $on_primary;
	is(wait_for_diagnosis($standby, $on_standby), $on_standby, "$name: the standby says " . ($on_standby || 'nothing')) if defined $on_standby;
	return;
}

sub write_wal
{
	my ($rows) = @_;
	$primary->safe_psql('postgres', "INSERT INTO t SELECT i, repeat('x', 500) FROM generate_series(1, $rows) i");
	return;
}

sub receiver
{
	return $standby->safe_psql('postgres', q{SELECT pid FROM pg_stat_wal_receiver});
}

found('a healthy pair', '', '');

# ----------------------------------------------------------------------
# Replay
# ----------------------------------------------------------------------

$standby->safe_psql('postgres', 'SELECT pg_wal_replay_pause()');
write_wal(5000);
found('paused', 'replay_slow', 'replay_paused');
is(remedy($standby), '', 'paused: who did it may have had a reason');
do_advised($standby, qr/pg_wal_replay_resume/);
found('paused', '', '');

my $reader = $standby->background_psql('postgres');
$reader->query_safe('BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT count(*) FROM t');
$primary->safe_psql('postgres', 'DELETE FROM t; VACUUM t');
write_wal(5000);
found('in conflict', 'replay_slow', 'replay_conflict');
soon_like($standby, q{SELECT evidence FROM replica_kit.diagnose()}, qr/startup waits for RecoveryConflictSnapshot since .*oldest snapshot: pid \d+ \(role/s, 'in conflict: who and since when');
is(remedy($standby), '', 'in conflict: nobody is ended unseen');
do_advised($standby, qr/pg_terminate_backend/);
found('in conflict', '', '');
eval { $reader->quit };

# ----------------------------------------------------------------------
# Stalls
# ----------------------------------------------------------------------

my $pid = receiver();
kill 'STOP', $pid;
write_wal(20000);
found('a receiver that takes nothing in', 'network_slow', undef);
$primary->append_conf('postgresql.conf', 'wal_sender_timeout = 2s');
$primary->reload;
kill 'CONT', $pid;
found('a receiver that takes nothing in', '', '');

$primary->append_conf('postgresql.conf', 'wal_sender_timeout = 4s');
$primary->reload;
$primary->append_conf('postgresql.conf', 'wal_sender_timeout = 0');
my $walsender = $primary->safe_psql('postgres', q{SELECT pid FROM replica_kit.status() WHERE name = 'replica1'});
$standby->append_conf('postgresql.conf', "wal_receiver_timeout = 3s");
$standby->reload;
$pid = receiver();
kill 'STOP', $walsender;
kill 'STOP', $pid;
is(wait_for_diagnosis($standby, 'receiver_stalled'), 'receiver_stalled', 'nothing comes: the standby says receiver_stalled');
kill 'CONT', $pid;
kill 'CONT', $walsender;
found('nothing comes', '', '');

# ----------------------------------------------------------------------
# Settings
# ----------------------------------------------------------------------

$primary->append_conf('postgresql.conf', 'max_connections = 30');
$primary->restart;
write_wal(5000);
found('raised on the primary', undef, 'parameters_too_low');
soon_is($standby, q{SELECT level, evidence FROM replica_kit.diagnose('upstream') WHERE code <> 'reload_needed'}, 'critical|max_connections is 20 here and 30 on the primary', 'raised on the primary: which, and to what');
soon_is($standby, q{SELECT pg_get_wal_replay_pause_state()}, 'paused', 'raised on the primary: replay is paused');
do_remedies($standby);
$standby->restart;
found('raised here, too', '', '');

# ----------------------------------------------------------------------
# Another timeline
# ----------------------------------------------------------------------

$standby->promote;
$standby->safe_psql('postgres', 'CREATE TABLE elsewhere (i int)');
is(wait_for_diagnosis($primary, 'replica_down'), 'replica_down', 'promoted: the primary misses it');
is(wait_for_diagnosis($standby, 'promoted'), 'promoted', 'promoted: it says so itself');
$standby->stop;
append_to_file($standby->data_dir . '/standby.signal', '');
$standby->start;
found('a promoted one comes back', undef, 'newer_timeline_exists');
soon_like($standby, q{SELECT advice FROM replica_kit.diagnose()}, qr/promoted by mistake: rewind it \(pg_rewind\) or rebuild it\.$/m, 'a promoted one comes back: what it needs');

$standby->stop;
$primary->stop;
done_testing();
