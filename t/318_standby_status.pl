# standby_status(): what a standby knows of itself, in the states in which the
# server's own views say something else.

use strict;
use warnings FATAL => 'all';

use FindBin;
use lib $FindBin::RealBin;

use DiagKit;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(usleep);

my $primary = new_primary('primary', 'wal_sender_timeout = 0', 'autovacuum = off');
my ($standby, $password) = new_standby($primary, 'replica1', 'wal_receiver_timeout = 60s',
	'replica_kit.warning_lag = 1MB', 'replica_kit.lag_grace = 0', 'replica_kit.alert_after = 1h');

sub write_wal
{
	my ($rows) = @_;
	$primary->safe_psql('postgres', "CREATE TABLE IF NOT EXISTS t (i int, filler text); INSERT INTO t SELECT i, repeat('x', 500) FROM generate_series(1, $rows) i");
	return;
}

sub standby_is
{
	my ($columns) = @_;
	return $standby->safe_psql('postgres', "SELECT $columns FROM replica_kit.standby_status()");
}

is($primary->safe_psql('postgres', 'SELECT count(*) FROM replica_kit.standby_status()'), '0', 'a primary has no row');

# Idle: the server's usual query takes idleness for lag.
write_wal(10);
$primary->wait_for_catchup('replica1');
$standby->poll_query_until('postgres', q{SELECT now() - pg_last_xact_replay_timestamp() > '1 s'})
  or die 'the last transaction does not age';
soon_is($standby, q{SELECT state, sender_host, slot_name, receive_lag_bytes, replay_lag_bytes, lag_time, replay_pause_state, timeline, conflicts, health, last_error FROM replica_kit.standby_status()},
	'streaming|127.0.0.1|replica1|0|0|00:00:00|not paused|1|0|ok|', 'behind an idle primary its lag is 0');
is(standby_is(q{sender_port}), $primary->port, 'it knows whom it follows');
soon_is($standby, q{SELECT received_lsn = pg_last_wal_receive_lsn() AND replayed_lsn = pg_last_wal_replay_lsn()
	AND last_msg_receipt_time = (SELECT last_msg_receipt_time FROM pg_stat_wal_receiver) FROM replica_kit.standby_status()}, 't', 'and its figures are those of the views');

# Reloaded again and again: from 16 on each reload puts off what the receiver asks,
# so that it is silent for longer than it would be otherwise.
$standby->append_conf('postgresql.conf', 'wal_receiver_timeout = 2s');
my $states = '';
for (1 .. 10)
{
	my $reloaded = $standby->safe_psql('postgres', 'SELECT clock_timestamp() FROM pg_reload_conf()');
	$standby->poll_query_until('postgres', "SELECT clock_timestamp() > timestamptz '$reloaded' + interval '600 ms'");
	$states .= standby_is('state') . "\n";
}
unlike($states, qr/stalled/, 'a reload puts off the next answer, which is no stall');
$standby->append_conf('postgresql.conf', 'wal_receiver_timeout = 60s');
$standby->reload;

# Paused.
$standby->safe_psql('postgres', 'SELECT pg_wal_replay_pause()');
write_wal(5000);
$standby->poll_query_until('postgres', q{SELECT replay_pause_state = 'paused' AND health <> 'ok' AND lag_time > '1 s' AND replay_lag_bytes > 1000000 FROM replica_kit.standby_status()})
  or die 'the pause is not seen';
soon_like($standby, 'SELECT reason FROM replica_kit.standby_status()', qr/^replay is paused, replay is .* behind$/, 'a paused replay is told, with how far it is behind');
soon_is($standby, 'SELECT state FROM replica_kit.standby_status()', 'streaming', 'while it streams');

# A query that replay waits for is over soon, and no scheduler's business.
is($standby->safe_psql('postgres', 'SELECT count(*) FROM replica_kit.unhealthy()'), '0', 'unhealthy() does not list what has not lasted');
soon_is($standby, 'SELECT code FROM replica_kit.diagnose()', 'replay_paused', 'for who asks it has a cause at once');
$standby->append_conf('postgresql.conf', "replica_kit.alert_after = '500ms'");
$standby->reload;
ok($standby->poll_query_until('postgres', q{SELECT name, level, reason ~ '^replay is paused' FROM replica_kit.unhealthy()}, 'upstream|warning|t'), 'and unhealthy() what has');
$standby->safe_psql('postgres', 'SELECT pg_wal_replay_resume()');
$primary->wait_for_catchup('replica1');
soon_is($standby, 'SELECT replay_lag_bytes, lag_time, health FROM replica_kit.standby_status()', '0|00:00:00|ok', 'and is over when resumed');

# Waits for a line of the worker's, behind the last one that was waited for.
my $offset = 0;

sub wait_for_line
{
	my ($pattern) = @_;
	for (1 .. 10 * $PostgreSQL::Test::Utils::timeout_default)
	{
		my $log = substr(slurp_file($standby->logfile), $offset);
		if ($log =~ $pattern)
		{
			$offset += $+[0];
			return;
		}
		usleep(100_000);
	}
	die "no line like $pattern";
}
wait_for_line(qr/WARNING:  upstream warning: replay is paused, replay is .* behind\n.*DETAIL:  Streaming from 127\.0\.0\.1, port \d+: not received .*, unreplayed .*\.\n.*HINT:  Run: SELECT \* FROM replica_kit\.diagnose\('upstream'\);/);
wait_for_line(qr/LOG:  upstream ok: streaming, \d+ \w+ behind, after /);
pass('the log has a line when it has lasted, and one when it is over');

# Stalled: the receiver is there, and nothing comes.
my $walsender = $primary->safe_psql('postgres', q{SELECT pid FROM replica_kit.status() WHERE name = 'replica1'});
$standby->append_conf('postgresql.conf', 'wal_receiver_timeout = 3s');
$standby->reload;
kill 'STOP', $walsender;
my $receiver = $standby->safe_psql('postgres', 'SELECT pid FROM pg_stat_wal_receiver');
kill 'STOP', $receiver;
$standby->poll_query_until('postgres', q{SELECT state = 'stalled' FROM replica_kit.standby_status()})
  or die 'the stall is not seen';
is($standby->safe_psql('postgres', 'SELECT status FROM pg_stat_wal_receiver'), 'streaming', 'in a stall the view says streaming');
is(standby_is(q{state, receive_lag_bytes IS NULL, lag_time > '4 s', health}), 'stalled|t|t|warning', 'standby_status() does not');
like(standby_is('reason'), qr/^nothing received for .* although connected$/, 'and says for how long');
# Whoever asks sees it before the worker does, and what was not announced is not taken back.
wait_for_line(qr/WARNING:  upstream warning: nothing received for /);
kill 'CONT', $walsender;
kill 'CONT', $receiver;
$standby->poll_query_until('postgres', q{SELECT state = 'streaming' AND health = 'ok' FROM replica_kit.standby_status()})
  or die 'the stall does not end';
wait_for_line(qr/LOG:  upstream ok: streaming, \d+ \w+ behind, after /);
$standby->append_conf('postgresql.conf', 'wal_receiver_timeout = 60s');
$standby->reload;

# Cut.
$primary->stop;
$standby->poll_query_until('postgres', q{SELECT state = 'disconnected' AND lag_time > '1 s' FROM replica_kit.standby_status()})
  or die 'the cut is not seen';
my $lag = standby_is('extract(epoch FROM lag_time)');
$standby->poll_query_until('postgres', "SELECT extract(epoch FROM lag_time) > $lag + 1 FROM replica_kit.standby_status()")
  or die 'the lag does not grow';
pass('with the stream cut the lag grows');
soon_is($standby, q{SELECT sender_host, receive_lag_bytes, replay_lag_bytes, health, reason LIKE 'disconnected for %', last_error ~ 'refused' FROM replica_kit.standby_status()},
	'||0|ok|t|t', 'what it cannot know it does not say');
unlike(substr(slurp_file($standby->logfile), $offset), qr/WARNING:  upstream/, 'a restart of the upstream is no line in the log');
$standby->append_conf('postgresql.conf', "replica_kit.warning_disconnected = '1s'");
$standby->reload;
wait_for_line(qr/WARNING:  upstream warning: disconnected for .*\n.*DETAIL:  Last received from 127\.0\.0\.1, port \d+, at .*; received up to \w+\/\w+, replayed up to \w+\/\w+; last error: .*refused/);
is($standby->safe_psql('postgres', q{SELECT name, level FROM replica_kit.unhealthy()}), 'upstream|warning', 'a longer absence is, and the other mouths agree');
isnt($standby->psql('postgres', q{SELECT replica_kit.assert_healthy('warning')}), 0, 'assert_healthy() as well');
$primary->start;
$standby->poll_query_until('postgres', q{SELECT state = 'streaming' AND lag_time = '0' AND health = 'ok' FROM replica_kit.standby_status()})
  or die 'the standby does not reconnect';
pass('and is 0 again when it is back');
wait_for_line(qr/LOG:  upstream ok: streaming, .* behind, after /);

# Refused, again and again: one line, and one when it is let in.  It may take longer
# to try than until it is missed, and the line is to say why.
$standby->append_conf('postgresql.conf', "replica_kit.warning_disconnected = '1h'");
$standby->reload;
$standby->poll_query_until('postgres', q{SHOW replica_kit.warning_disconnected}, '1h') or die 'not reloaded';
$primary->safe_psql('postgres', q{ALTER ROLE replica1 NOLOGIN});
$primary->safe_psql('postgres', q{SELECT pg_terminate_backend(pid) FROM pg_stat_replication});
$standby->poll_query_until('postgres', q{SELECT last_error ~ 'not permitted to log in' FROM replica_kit.standby_status()}) or die 'it is not refused';
$standby->append_conf('postgresql.conf', "replica_kit.warning_disconnected = '1s'");
$standby->reload;
wait_for_line(qr/WARNING:  upstream warning: disconnected for .*\n.*DETAIL:  .*; last error: .*not permitted to log in/);
my $tries = errors_like($standby, q{direction = 'out' AND message LIKE '%permitted to log in%'}) =~ /\|(\d+)$/ ? $1 : 0;
$standby->poll_query_until('postgres', qq{SELECT sum(count) > $tries + 5 FROM replica_kit.connection_errors() WHERE message LIKE '%permitted to log in%'}) or die 'it does not try';
unlike(substr(slurp_file($standby->logfile), $offset), qr/:  upstream \w+:/, 'refused again and again: one line');
$primary->safe_psql('postgres', q{ALTER ROLE replica1 LOGIN});
wait_for_line(qr/LOG:  upstream ok: streaming, .* behind, after /);
soon_is($standby, 'SELECT count(*) FROM replica_kit.unhealthy()', '0', 'let in: all is well');

# A message that is too long to be kept.
set_conninfo($standby, $primary, user => 'replica1', password => $password, application_name => 'replica1',
	host => join(',', ('127.0.0.1') x 9), port => join(',', 1 .. 9));
soon_like($standby, 'SELECT last_error FROM replica_kit.standby_status()', qr/(?:refused|server|port|host|accepting|TCP\/IP|running|on|that|and|at|to|connection|failed:|Is|the|Connection|"127.0.0.1",|\d|connections\?|\/) \.\.\.$/, 'a long message ends after a word');

# An archive that has nothing.
$standby->append_conf('postgresql.conf', join("\n", q{primary_conninfo = ''}, q{restore_command = 'false'}, q{replica_kit.critical_disconnected = '2s'}, ''));
$standby->reload;
soon_is($standby, q{SELECT state, lag_time IS NULL, health, reason ~ '^replaying from the archive only, nothing was restored for ' FROM replica_kit.standby_status()}, 'archive recovery|t|warning|t',
	'an archive that has nothing: how far behind is not known, and said');
is(wait_for_diagnosis($standby, 'restore_stalled'), 'restore_stalled', 'an archive that has nothing: it has a cause');
soon_is($standby, 'SELECT name, level FROM replica_kit.unhealthy()', 'upstream|warning', 'an archive that has nothing: the other mouths agree');
wait_for_line(qr/WARNING:  upstream warning: /);
$standby->append_conf('postgresql.conf', "replica_kit.critical_disconnected = '1h'");
set_conninfo($standby, $primary, user => 'replica1', password => $password, application_name => 'replica1');
is(wait_for_diagnosis($standby, ''), '', 'streaming again: nothing is wrong');
wait_for_line(qr/LOG:  upstream ok: streaming, .* behind, after /);

# Promoted, while cut off.
$primary->stop;
wait_for_line(qr/WARNING:  upstream warning: disconnected for /);
$standby->promote;
wait_for_line(qr/LOG:  upstream ok: this server is a standby no more, after /);
is($standby->safe_psql('postgres', 'SELECT count(*) FROM replica_kit.standby_status()'), '0', 'promoted it has no row');

$standby->stop;
done_testing();
