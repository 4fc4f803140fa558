# standby_status().lag_time against the truth: behind an idle and a busy
# primary, with replay paused, the stream cut, the standby and the primary
# restarted, and the connection stalled.  The worker's check interval is an
# hour, so that it's the LSN clock that knows.

use strict;
use warnings FATAL => 'all';

use FindBin;
use lib $FindBin::RealBin;

use DiagKit;
use IPC::Run;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

# How far lag_time may be from the truth, in seconds, besides what this test does
# not know itself: a connection that is new counts after two seconds.
my $tolerance = 3;

my $primary = new_primary('primary', 'autovacuum = off', 'wal_sender_timeout = 0', 'checkpoint_timeout = 1h');
my ($standby, $password) = new_standby($primary, 'replica1', 'replica_kit.check_interval = 1h', 'wal_receiver_timeout = 60s');
$primary->safe_psql('postgres', 'CREATE TABLE t (x text)');

sub now
{
	return $standby->safe_psql('postgres', 'SELECT extract(epoch FROM clock_timestamp())');
}

# Between when and when something was done.
sub period_of
{
	my ($action) = @_;
	my $from = now();

	$action->();
	return [ $from, now() ];
}

# Is lag_time that of WAL that is missing since some time in that period?
sub lag_is_true
{
	my ($since, $what) = @_;
	my ($error, $lag) = split /\|/, $standby->safe_psql('postgres', <<~SQL);
		SELECT greatest(lag - (now - $since->[0]), now - $since->[1] - lag, 0), lag
		FROM (SELECT extract(epoch FROM lag_time) AS lag, extract(epoch FROM clock_timestamp()) AS now
			FROM replica_kit.standby_status()) s
		SQL

	ok(defined $error && $error ne '' && $error <= $tolerance, $what)
	  or diag('lag_time is ' . ($lag // 'unknown') . ', wrong by ' . ($error // '?'));
	return;
}

sub wait_until
{
	my ($condition, $what) = @_;
	ok($standby->poll_query_until('postgres', "SELECT $condition FROM replica_kit.standby_status()"), $what);
	return;
}

sub wait_for
{
	my ($seconds) = @_;
	$standby->poll_query_until('postgres', 'SELECT extract(epoch FROM clock_timestamp()) > ' . (now() + $seconds));
	return;
}

# 1 kB five times a second, until it is told to stop.
my $script = "$PostgreSQL::Test::Utils::tmp_check/standby_lag.sql";
append_to_file($script, "INSERT INTO t VALUES (repeat('x', 1000)) \\watch 0.2\n");
my $trickle;

sub start_trickle
{
	my $before = $primary->safe_psql('postgres', 'SELECT pg_current_wal_lsn()');
	$trickle = IPC::Run::start([ 'psql', '-XAtq', '-d', $primary->connstr('postgres'), '-f', $script ],
		'<', '/dev/null', '>', '/dev/null', '2>', '/dev/null');
	$primary->poll_query_until('postgres', "SELECT pg_current_wal_lsn() > '$before'") or die 'no WAL is written';
	return;
}

sub stop_trickle
{
	$trickle->kill_kill;
	return;
}

sub pause
{
	return period_of(
		sub {
			$standby->safe_psql('postgres', 'SELECT pg_wal_replay_pause()');
			$standby->poll_query_until('postgres', q{SELECT pg_get_wal_replay_pause_state() = 'paused'})
			  or die 'replay is not paused';
		});
}

wait_until(q{state = 'streaming' AND lag_time = '0'}, 'behind an idle primary it is 0');

# ----------------------------------------------------------------------
# Replay
# ----------------------------------------------------------------------

start_trickle();
wait_until(q{lag_time < '1.5 s'}, 'under a trickle it is next to nothing');
my $since = pause();
wait_for(4);
lag_is_true($since, 'replay paused under a trickle');
stop_trickle();
$primary->safe_psql('postgres', q{INSERT INTO t SELECT repeat('x', 1000) FROM generate_series(1, 50000)});
lag_is_true($since, 'still true after a bulk load');
wait_for(2);
lag_is_true($since, 'still true behind an idle primary');

# The stream is cut in addition.
$primary->stop('immediate');
wait_until(q{state = 'disconnected'}, 'cut while paused');
lag_is_true($since, 'what waits is older than the cut');
$standby->safe_psql('postgres', 'SELECT pg_wal_replay_resume()');
$primary->start;
wait_until(q{state = 'streaming' AND lag_time = '0'}, 'replayed, with the primary back, it is 0');

# ----------------------------------------------------------------------
# Cut
# ----------------------------------------------------------------------

start_trickle();
wait_until(q{lag_time < '1.5 s'}, 'under a trickle again');

# Until the clock has ticked, what is written counts as written since the cut
# before.
wait_for(3);

# What was written last may not have come any more.
$since = period_of(
	sub {
		stop_trickle();
		$primary->stop('immediate');
		wait_until(q{state = 'disconnected'}, 'cut');
	});
wait_for(3);
lag_is_true($since, 'the stream is cut');

# Started anew, the server knows how long it has heard nothing.
$standby->restart;
lag_is_true($since, 'cut, and the standby restarted');
wait_for(2);
lag_is_true($since, 'and it goes on to grow');
$primary->start;
wait_until(q{state = 'streaming' AND lag_time = '0'}, 'behind the restarted primary it is 0');

# ----------------------------------------------------------------------
# Stalled
# ----------------------------------------------------------------------

# A receiver that is stopped does not give up, whatever its timeout is.
$standby->append_conf('postgresql.conf', 'wal_receiver_timeout = 2s');
$standby->reload;
start_trickle();
wait_until(q{lag_time < '1.5 s'}, 'under a trickle once more');
my $receiver = $standby->safe_psql('postgres', 'SELECT pid FROM pg_stat_wal_receiver');
$since = period_of(sub { kill 'STOP', $receiver });
wait_until(q{state = 'stalled'}, 'the stall is seen');
lag_is_true($since, 'in a stall');
wait_for(2);
lag_is_true($since, 'and it grows');

kill 'CONT', $receiver;
stop_trickle();
wait_until(q{state = 'streaming' AND lag_time = '0'}, 'and then it is 0');

$standby->stop;
$primary->stop;
done_testing();
