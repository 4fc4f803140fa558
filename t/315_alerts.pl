# Alerts are quiet: none for a healthy replica under any load, one for each
# change of one that isn't, none for those that only follow from another.
#
# The times are short, so that the test is.  With PRK_LONG_TESTS=1 in the
# environment they are the defaults, and the load lasts for five minutes.

use strict;
use warnings FATAL => 'all';

use IPC::Run;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(time);

my $long = $ENV{PRK_LONG_TESTS};
my $load_time = $long ? 300 : 20;

# The lines that anybody got since an offset.
sub lines_of
{
	my ($node, $offset) = @_;

	return grep { /(?:WARNING|LOG):  (?:replica "|server )/ } split /\n/, slurp_file($node->logfile, $offset // 0);
}

sub configure
{
	my ($node, %settings) = @_;

	$node->append_conf('postgresql.conf', "$_ = '$settings{$_}'") foreach sort keys %settings;
	$node->reload;

	# The postmaster passes the signal on before it lets the next session in.
	$node->safe_psql('postgres', 'SELECT 1');
}

my $primary = PostgreSQL::Test::Cluster->new('primary');
$primary->init(allows_streaming => 1);
$primary->append_conf('postgresql.conf', <<~CONF);
	shared_preload_libraries = 'pg_replica_kit'
	log_statement = none
	max_wal_size = 1GB
	CONF
$primary->append_conf('postgresql.conf', <<~CONF) if !$long;
	replica_kit.check_interval = 1s
	replica_kit.lag_grace = 5s
	replica_kit.warning_lag_time = 20s
	replica_kit.alert_after = 5s
	CONF
$primary->start;
$primary->safe_psql('postgres', q{CREATE EXTENSION pg_replica_kit; SELECT pg_create_physical_replication_slot('r1', true)});
$primary->backup('one');
my $standby = PostgreSQL::Test::Cluster->new('standby');
$standby->init_from_backup($primary, 'one', has_streaming => 1);
$standby->append_conf('postgresql.conf', "primary_slot_name = 'r1'\nmax_standby_streaming_delay = -1");
$standby->start;
$primary->poll_query_until('postgres', q{SELECT state = 'streaming' FROM replica_kit.status() WHERE name = 'r1'})
  or die 'the replica does not stream';

# ----------------------------------------------------------------------
# A healthy pair under load
# ----------------------------------------------------------------------

my $until = time + $load_time;
my $rounds = 0;
while (time < $until)
{
	$primary->run_log([ 'pgbench', '-i', '-s', $long ? 50 : 10, '--quiet', $primary->connstr('postgres') ])
	  or die 'pgbench failed';
	$primary->safe_psql('postgres', <<~SQL);
		UPDATE pgbench_accounts SET abalance = abalance + 1;
		CREATE INDEX ON pgbench_accounts (abalance, bid);
		SQL
	$rounds++;
}
cmp_ok($rounds, '>', 0, 'there was a load');
is(join("\n", lines_of($primary)), '', 'bulk loads, updates and index builds on a healthy pair give no line');
is($primary->safe_psql('postgres', q{SELECT alert, alert_since IS NULL FROM replica_kit.status()}), 'ok|t', 'nor an alert');

# ----------------------------------------------------------------------
# Replay paused under a trickle
# ----------------------------------------------------------------------

$primary->safe_psql('postgres', 'CREATE TABLE t (x text)');
$primary->wait_for_catchup($standby);
configure($primary,
	'replica_kit.lag_grace' => '2s',
	'replica_kit.warning_lag_time' => '5s',
	'replica_kit.critical_lag_time' => '60s',
	'replica_kit.alert_after' => '2s') if !$long;
my $script = "$PostgreSQL::Test::Utils::tmp_check/trickle.sql";
append_to_file($script, "INSERT INTO t VALUES (repeat('x', 1000)) \\watch 1\n");
my $trickle = IPC::Run::start([ 'psql', '-XAtq', '-d', $primary->connstr('postgres'), '-f', $script ],
	'<', '/dev/null', '>', '/dev/null', '2>', '/dev/null');
$primary->poll_query_until('postgres', 'SELECT count(*) > 0 FROM t') or die 'there is no trickle';
my $before_pause = time;
my $offset = -s $primary->logfile;
$standby->safe_psql('postgres', 'SELECT pg_wal_replay_pause()');
$standby->poll_query_until('postgres', q{SELECT pg_get_wal_replay_pause_state() = 'paused'}) or die 'replay is not paused';
my $paused = time;
$primary->wait_for_log(qr/WARNING:  replica "r1" warning: replay is [^\n]+ behind\n.*DETAIL: [^\n]*; is not catching up\./, $offset);
my $took = time - $paused;
cmp_ok($took, '<', $long ? 102 : 30, "replay paused under a trickle warns within the time that it should");
diag(sprintf 'after %.0f s', $took) if $long;

# The first row that it lacks may have come a second after the pause.
my $before_question = time;
my $lag = $primary->safe_psql('postgres', 'SELECT extract(epoch FROM lag_time) FROM replica_kit.status()');
cmp_ok($lag, '<=', time - $before_pause + 2, 'lag_time is not more than the truth, at 1 kB/s');
cmp_ok($lag, '>=', $before_question - $paused - 1 - 2, 'nor less');
is($primary->safe_psql('postgres', q{SELECT alert, alert_since > now() - interval '1 min' FROM replica_kit.status()}),
	'warning|t', 'status() has the alert and its time');
$standby->safe_psql('postgres', 'SELECT pg_wal_replay_resume()');
$primary->wait_for_log(qr/LOG:  replica "r1" ok: streaming, /, $offset);
is(scalar(lines_of($primary, $offset)), 2, 'and its recovery is one line more');
$trickle->kill_kill;

# ----------------------------------------------------------------------
# A replica killed on an idle primary
# ----------------------------------------------------------------------

# So that it has nothing to replay again, which would be a lag of its own; nor
# counts what the server itself writes meanwhile, which it lacks for an instant
# when it comes back.
configure($primary, 'autovacuum' => 'off');
$primary->poll_query_until('postgres', q{SELECT count(*) FILTER (WHERE backend_type = 'autovacuum launcher') = 0
	AND count(pg_cancel_backend(pid)) FILTER (WHERE backend_type = 'autovacuum worker') = 0 FROM pg_stat_activity})
  or die 'autovacuum goes on';
$primary->safe_psql('postgres', 'CHECKPOINT');
$primary->wait_for_catchup($standby);
$standby->safe_psql('postgres', 'CHECKPOINT');
configure($primary,
	'replica_kit.check_interval' => '300ms',
	'replica_kit.warning_lag' => '-1',
	'replica_kit.critical_lag' => '-1',
	'replica_kit.warning_lag_time' => '-1',
	'replica_kit.critical_lag_time' => '-1',
	'replica_kit.warning_disconnected' => '2s',
	'replica_kit.critical_disconnected' => '10s',
	'replica_kit.repeat_interval' => '2s');
$offset = -s $primary->logfile;
$standby->stop('immediate');
$primary->wait_for_log(qr/(?:WARNING:  replica "r1" still critical after [^\n]*\n.*){3}/s, $offset);
$standby->start;
$primary->wait_for_log(qr/LOG:  replica "r1" ok: streaming, /, $offset);
my $words = join ' ', map { /replica "r1" (still critical|\w+)/ } lines_of($primary, $offset);
like($words, qr/^warning critical(?: still critical){3,} ok$/, 'one warning, one critical, reminders, one recovery, and nothing else');

# ----------------------------------------------------------------------
# A threshold that is just passed, to and fro
# ----------------------------------------------------------------------

configure($primary,
	'replica_kit.warning_lag' => '1MB',
	'replica_kit.critical_lag' => '-1',
	'replica_kit.warning_lag_time' => '-1',
	'replica_kit.critical_lag_time' => '-1',
	'replica_kit.lag_grace' => '0',
	'replica_kit.alert_after' => '1s',
	'replica_kit.repeat_interval' => '-1');
$primary->wait_for_catchup($standby);
$standby->safe_psql('postgres', 'SELECT pg_wal_replay_pause()');
$standby->poll_query_until('postgres', q{SELECT pg_get_wal_replay_pause_state() = 'paused'}) or die 'replay is not paused';
$offset = -s $primary->logfile;
$primary->safe_psql('postgres', q{SELECT pg_logical_emit_message(false, '', repeat('x', 1100000))});
$primary->wait_for_log(qr/WARNING:  replica "r1" warning: /, $offset);
configure($primary, 'replica_kit.warning_lag' => '1200kB');
$primary->poll_query_until('postgres', q{SELECT health = 'ok' AND alert = 'warning' FROM replica_kit.status()})
  or die 'the alert was taken back';
$offset = -s $primary->logfile;
$primary->safe_psql('postgres', q{SELECT pg_logical_emit_message(false, '', repeat('x', 500000))});
$primary->poll_query_until('postgres', q{SELECT health = 'warning' AND alert = 'warning' FROM replica_kit.status()})
  or die 'the replica is not behind again';
is(scalar(lines_of($primary, $offset)), 0, 'a replica just below its threshold is no news, nor is it when it is above again');
$standby->safe_psql('postgres', 'SELECT pg_wal_replay_resume()');
$primary->wait_for_log(qr/LOG:  replica "r1" ok: streaming, /, $offset);

# ----------------------------------------------------------------------
# A standby that is behind on purpose
# ----------------------------------------------------------------------

configure($primary,
	'replica_kit.warning_lag' => '-1',
	'replica_kit.warning_lag_time' => '2s',
	'replica_kit.overrides' => 'r1: warning_lag_time=4h critical_lag_time=8h');
configure($standby, 'recovery_min_apply_delay' => '1h');
$offset = -s $primary->logfile;
$primary->safe_psql('postgres', q{INSERT INTO t VALUES ('')});
$primary->poll_query_until('postgres', q{SELECT count(*) > 3 FROM replica_kit.history('r1') WHERE lag_time > '4 s' AND sampled_at > now() - interval '10 s'})
  or die 'the replica is not delayed';
is(scalar(lines_of($primary, $offset)), 0, 'of a delayed standby with limits of its own nothing is said');
is($primary->safe_psql('postgres', 'SELECT health, alert FROM replica_kit.status()'), 'ok|ok', 'and it is well');
configure($primary, 'replica_kit.overrides' => '');
$primary->wait_for_log(qr/WARNING:  replica "r1" warning: replay is /, $offset);
pass('with the limits of all it is late');
configure($standby, 'recovery_min_apply_delay' => '0');
$primary->wait_for_log(qr/LOG:  replica "r1" ok: streaming, /, $offset);

# ----------------------------------------------------------------------
# A worker that is frozen, and one that is gone
# ----------------------------------------------------------------------

my ($worker) = slurp_file($primary->logfile) =~ /\[(\d+)\] LOG:  replica_kit worker started/;
ok($primary->poll_query_until('postgres', 'SELECT count(*) = 0 FROM replica_kit.unhealthy()'), 'a worker at work is no trouble');
kill 'STOP', $worker;
ok( $primary->poll_query_until('postgres',
		q{SELECT count(*) = 1 FROM replica_kit.unhealthy() WHERE name = 'server' AND level = 'warning' AND reason ~ '^worker \(pid \d+\) has done nothing for \d+ s$'}),
	'a frozen worker is noticed');
is($primary->safe_psql('postgres', q{SELECT alert IS NULL FROM replica_kit.status()}), 't', 'what it announced is no longer shown');
ok( $primary->poll_query_until('postgres', q{SELECT lag_time = '0' FROM replica_kit.status()}),
	'a replica at the primary\'s position still has no lag');
kill 'CONT', $worker;
ok($primary->poll_query_until('postgres', 'SELECT count(*) = 0 FROM replica_kit.unhealthy()'), 'one that goes on is none');

# Nor would a worker that cannot be started say so itself.
$standby->stop;
configure($primary, 'max_worker_processes' => 0);
$primary->restart;
ok( $primary->poll_query_until('postgres', q{SELECT name, level, reason FROM replica_kit.unhealthy() WHERE name = 'server'},
		'server|warning|worker is not running'),
	'a worker that is gone is noticed');
is($primary->safe_psql('postgres', q{SELECT code, advice ~ 'raise max_worker_processes' FROM replica_kit.diagnose('server')}),
	'worker_stale|t', 'and diagnosed, with what keeps it from starting');
like(slurp_file($primary->logfile), qr/LOG:  too many background workers\n/, 'which the log says in these words');

$primary->stop;
done_testing();
