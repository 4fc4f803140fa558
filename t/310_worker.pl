# The worker on a real primary and standby: what it says, how often, and what
# it costs.

use strict;
use warnings FATAL => 'all';

use File::Spec;
use IPC::Run;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(time usleep);

# A time as the worker writes it, however long a slow machine has taken.
my $duration = qr/(?:less than a second|\d+ (?:s|min|h)(?: \d+ (?:s|min))?)/;

# The lines that a replica, or the worker itself, got since an offset; %e in
# the prefix shows the SQLSTATE.
sub lines_of
{
	my ($node, $offset) = @_;
	my $log = slurp_file($node->logfile, $offset // 0);

	return grep { /(?:WARNING|LOG):  (?:replica "|replica_kit )/ }
	  split /\n/, $log;
}

sub count_of
{
	my ($node, $pattern, $offset) = @_;

	return scalar grep { $_ =~ $pattern } lines_of($node, $offset);
}

sub log_end
{
	my ($node) = @_;

	return -s $node->logfile;
}

# Wait until a server lets sessions in, by a program that reads no input: one
# that is refused ends before it has read its query, at which IPC::Run dies.
sub wait_until_up
{
	my ($node) = @_;

	for (1 .. 10 * $PostgreSQL::Test::Utils::timeout_default)
	{
		return
		  if IPC::Run::run(
			[ 'psql', '-XAtq', '-d', $node->connstr('postgres'), '-c', 'SELECT 1' ],
			'<', File::Spec->devnull, '>', \my $out, '2>', \my $err);
		usleep(100_000);
	}
	die 'the server did not come back';
}

# Change settings and reload.
sub configure
{
	my ($node, %settings) = @_;

	$node->append_conf('postgresql.conf', "$_ = '$settings{$_}'")
	  foreach sort keys %settings;
	$node->reload;
}

my $primary = PostgreSQL::Test::Cluster->new('primary');
$primary->init(allows_streaming => 'logical');
$primary->append_conf('postgresql.conf', <<~CONF);
	shared_preload_libraries = 'pg_replica_kit'
	listen_addresses = '127.0.0.1'
	log_line_prefix = '%m [%p] %e %q%a '
	autovacuum = off
	restart_after_crash = on
	replica_kit.check_interval = '200ms'
	replica_kit.alert_after = '500ms'
	replica_kit.warning_disconnected = '1s'
	replica_kit.critical_disconnected = '8s'
	replica_kit.repeat_interval = '2s'
	replica_kit.warning_forecast = -1
	replica_kit.critical_forecast = -1
	CONF
$primary->start;
$primary->safe_psql('postgres', <<~SQL);
	CREATE EXTENSION pg_replica_kit;
	SELECT pg_create_physical_replication_slot('r1', true);
	SQL

$primary->backup('one');
my $standby = PostgreSQL::Test::Cluster->new('standby');
$standby->init_from_backup($primary, 'one', has_streaming => 1);
$standby->append_conf('postgresql.conf', "primary_slot_name = 'r1'");
$standby->start;

# ----------------------------------------------------------------------
# It is there, on both.
# ----------------------------------------------------------------------

$primary->wait_for_log(qr/replica_kit worker started.*\n/);
$standby->wait_for_log(qr/replica_kit worker started.*\n/);
my $started =
  qr/ RK000 LOG:  replica_kit worker started: \d replicas?, sampling every 200 ms$/;
is(count_of($primary, $started), 1, 'the worker says once that it started');
is(count_of($standby, $started), 1, 'and it does on a standby');

my ($worker_pid) =
  map { /\[(\d+)\]/ } grep { $_ =~ $started } lines_of($standby);

# It sees the standby within a check.
$primary->wait_for_catchup($standby);
$primary->poll_query_until('postgres',
	q{SELECT count(*) > 0 FROM replica_kit.history('r1') WHERE state = 'streaming'})
  or die 'the worker has not seen it';
ok( $primary->poll_query_until(
		'postgres',
		'SELECT replica_kit.assert_healthy(min_streaming => 1) IS NOT NULL'),
	'a healthy pair passes assert_healthy()');
ok( $primary->poll_query_until(
		'postgres',
		"SELECT count(*) = 0 FROM replica_kit.unhealthy('warning')"),
	'nothing is unhealthy about it');

# ----------------------------------------------------------------------
# A replica that is away: one warning, one critical, reminders, one recovery.
# ----------------------------------------------------------------------

my $offset = log_end($primary);
$standby->stop;
$primary->wait_for_log(qr/replica "r1" critical: .*\n/, $offset);

# While it repeats itself on an idle server it costs nothing.  Other processes
# may write for themselves, so the quietest of some rounds counts.
my $measure = <<~SQL;
	SELECT pg_current_wal_insert_lsn(),
		(SELECT sum(xact_commit + xact_rollback) FROM pg_stat_database)
	SQL
my ($wal_written, $transactions);
foreach my $round (1 .. 5)
{
	my ($lsn, $count) = split /\|/, $primary->safe_psql('postgres', $measure);
	my $since = log_end($primary);

	$primary->wait_for_log(qr/replica "r1" still critical.*\n/, $since);
	my ($lsn_after, $count_after) =
	  split /\|/, $primary->safe_psql('postgres', $measure);
	$wal_written = $lsn ne $lsn_after;
	$transactions = $count_after - $count;
	last if !$wal_written && $transactions <= 2;
}
ok(!$wal_written, 'ten cycles and a reminder write no WAL');
cmp_ok($transactions, '<=', 2,
	'and count no transaction but those that ask');
is( $primary->safe_psql('postgres',
		"SELECT count(*) FROM pg_stat_activity WHERE backend_type ~ 'replica_kit'"
	),
	'0',
	'the worker is connected to no database');

# A process that held a snapshot would hold back what VACUUM may remove.
my (undef, undef, $vacuum) = $primary->psql(
	'postgres', <<~SQL);
	CREATE TABLE vacuumed AS SELECT 1 AS a;
	DELETE FROM vacuumed;
	VACUUM (VERBOSE, TRUNCATE false) vacuumed;
	SQL
like(
	$vacuum,
	qr/removable cutoff: \d+, which was 0 XIDs old/,
	'and holds back no horizon');

my $unhealthy = $primary->safe_psql('postgres',
	'SELECT * FROM replica_kit.unhealthy()');
like(
	$unhealthy,
	qr/^r1\|critical\|disconnected for $duration$/,
	'unhealthy() lists the replica with its reason');
my ($rc, $stdout, $stderr) =
  $primary->psql('postgres', '\set VERBOSITY verbose
SELECT replica_kit.assert_healthy()');
like(
	$stderr,
	qr/ERROR:  RK002: replica "r1" critical: disconnected for $duration\n/,
	'assert_healthy() fails with the reason');

$standby->start;
$primary->wait_for_log(qr/replica "r1" ok: .*\n/, $offset);

is( count_of(
		$primary, qr/ RK001 WARNING:  replica "r1" warning: disconnected for $duration$/,
		$offset),
	1,
	'an absence is warned of once');
is( count_of(
		$primary, qr/ RK002 WARNING:  replica "r1" critical: disconnected for $duration$/,
		$offset),
	1,
	'and once called critical');
my $reminders = count_of(
	$primary,
	qr/ RK002 WARNING:  replica "r1" still critical after $duration: disconnected for /,
	$offset);
cmp_ok($reminders, '>=', 1, 'it is repeated while it is critical');
is( count_of(
		$primary,
		qr/ RK000 LOG:  replica "r1" ok: streaming, \d+ \w+ behind, after $duration$/,
		$offset),
	1,
	'and its end is told once');
is( count_of($primary, qr/./, $offset),
	3 + $reminders, 'nothing else is said about it');

# Reminders keep their distance, by what they say themselves: a slow machine may
# take its time from a check to its line.  From 10 s on that is in whole seconds.
my %unit = (ms => 0.001, s => 1, min => 60, h => 3600);
my @times = (0);
foreach my $line (lines_of($primary, $offset))
{
	my ($after) = $line =~ /still critical after ($duration): / or next;
	my $time = 0;

	$time += $1 * $unit{$2} while $after =~ /([\d.]+) (\w+)/g;
	push @times, $time;
}
my $too_early = grep { $times[$_] - $times[ $_ - 1 ] < 1 } 1 .. $#times;
is($too_early, 0, 'reminders are a repeat_interval apart')
  or diag(join ' ', @times);

my $log = slurp_file($primary->logfile, $offset);
like(
	$log,
	qr/critical: disconnected .*\n.*DETAIL:  Last seen at \[local\] at \d{4}-\d\d-\d\d \d\d:\d\d:\d\d \S+; slot retains \d+ (?:bytes|kB|MB), wal_status "reserved"\.\n.*HINT:  Run: SELECT \* FROM replica_kit\.diagnose\('r1'\);\n/,
	'the line has its DETAIL and its HINT');

# ----------------------------------------------------------------------
# A reload is followed at once.
# ----------------------------------------------------------------------

# Nobody looks for an hour.
configure(
	$primary,
	'replica_kit.check_interval' => '1h',
	'replica_kit.critical_disconnected' => '1h');
$standby->stop;
$offset = log_end($primary);
$primary->poll_query_until(
	'postgres', "SELECT health = 'warning' AND alert = 'ok'
		FROM replica_kit.status() WHERE name = 'r1'")
  or die 'the replica did not become unhealthy';
is(count_of($primary, qr/./, $offset),
	0, 'no sample is taken before check_interval');
configure($primary, 'replica_kit.check_interval' => '100ms');
$primary->wait_for_log(qr/replica "r1" warning: disconnected.*\n/, $offset);
pass('a shorter check_interval is followed at once');
configure($primary, 'replica_kit.check_interval' => '2h',
	'replica_kit.critical_disconnected' => '1s');
$primary->wait_for_log(qr/replica "r1" critical: disconnected.*\n/, $offset);
pass('and so is a threshold');

# Overrides: off ends the judgement without a word.
configure($primary, 'replica_kit.overrides' => 'r2: warning_lag=1kB, r*: off');
ok( $primary->poll_query_until('postgres',
		'SELECT count(*) = 0 FROM replica_kit.unhealthy()'),
	'a replica that is off is not unhealthy');
configure($primary, 'replica_kit.overrides' => 'r1: nonsense=1');
$primary->wait_for_log(
	qr/Unrecognized setting "nonsense" at character 5\./, $offset);
is( $primary->safe_psql('postgres', 'SHOW replica_kit.overrides'),
	'r2: warning_lag=1kB, r*: off',
	'nonsense is refused and the value before stays');

# The worker itself can be switched off.
configure($primary,
	'replica_kit.worker' => 'off',
	'replica_kit.check_interval' => '200ms',
	'replica_kit.overrides' => '');
$primary->wait_for_log(qr/replica_kit worker paused: replica_kit.worker is off/,
	$offset);
ok( $primary->poll_query_until(
		'postgres', "SELECT alert IS NULL FROM replica_kit.status()"),
	'nothing is announced by a worker that is off');
$standby->start;
$primary->wait_for_catchup($standby);
$offset = log_end($primary);
configure($primary, 'replica_kit.worker' => 'on');
$primary->wait_for_log(
	qr/replica_kit worker started: 1 replica, sampling every 200 ms/,
	$offset);
is( count_of($primary, qr/replica "r1"/, $offset),
	0, 'a replica that is well when the watch begins is no news');

# ----------------------------------------------------------------------
# Lag: replay is paused under load.
# ----------------------------------------------------------------------

configure(
	$primary,
	'replica_kit.warning_lag' => '500kB',
	'replica_kit.critical_lag' => '-1',
	'replica_kit.lag_grace' => '0',
	'replica_kit.warning_lag_time' => '-1',
	'replica_kit.critical_lag_time' => '-1',
	'replica_kit.overrides' => 'debezium_*: off',
	'replica_kit.alert_after' => '1h');
$standby->safe_psql('postgres', 'SELECT pg_wal_replay_pause()');
$standby->poll_query_until('postgres',
	"SELECT pg_get_wal_replay_pause_state() = 'paused'")
  or die 'replay was not paused';
$offset = log_end($primary);
$primary->safe_psql('postgres',
	"SELECT pg_logical_emit_message(false, '', repeat('x', 1000000))");
ok( $primary->poll_query_until(
		'postgres',
		"SELECT health = 'warning' AND alert = 'ok' AND reason ~ '^replay is .* behind'
		FROM replica_kit.status() WHERE name = 'r1'"),
	'health is of this instant, an alert has to last');
is(count_of($primary, qr/replica "r1"/, $offset),
	0, 'a lag that has not lasted for alert_after is not announced');
configure($primary, 'replica_kit.alert_after' => '300ms');
$primary->wait_for_log(
	qr/replica "r1" warning: replay is (?:$duration and )?9\d\d kB behind\n.*DETAIL:  Streaming to \[local\] \(pid \d+\): unsent \d+ \w+, unwritten \d+ \w+, unflushed \d+ \w+, unreplayed 9\d\d kB; slot retains \d+ \w+, wal_status "reserved"; (?:is not catching up|too early to say when it will catch up)\.\n/,
	$offset);
pass('a lag that lasts is, with the stage that holds it');

# Time behind grows although no WAL is written, which walsender's own measure
# does not show.
configure($primary, 'replica_kit.critical_lag_time' => '4s');
$primary->wait_for_log(
	qr/replica "r1" critical: replay is $duration and 9\d\d kB behind\n/,
	$offset);
pass('time counts as well, and goes on while nothing is written');
$standby->safe_psql('postgres', 'SELECT pg_wal_replay_resume()');
$primary->wait_for_log(qr/replica "r1" ok: streaming, .*\n/, $offset);
is( join(' ', map { /replica "r1" (\w+)/ }
		  grep { !/still/ } lines_of($primary, $offset)),
	'warning critical ok',
	'each change of the lag is told once');

# A wal receiver that is stopped writes nothing and says nothing; what its
# walsender shows of time stays as it was.
$offset = log_end($primary);
my $receiver =
  $standby->safe_psql('postgres', 'SELECT pid FROM pg_stat_wal_receiver');
kill 'STOP', $receiver;
$primary->safe_psql('postgres',
	"SELECT pg_logical_emit_message(false, '', repeat('x', 100000))");
$primary->wait_for_log(
	qr/replica "r1" critical: receiving is $duration and \d\d\d? kB behind\n/,
	$offset);
pass('a stalled receiver is found by the time that it stands still');
kill 'CONT', $receiver;
$primary->wait_for_log(qr/replica "r1" ok: streaming, .*\n/, $offset);

# ----------------------------------------------------------------------
# What comes and goes by itself, and what is new, is no news.
# ----------------------------------------------------------------------

# What is written meanwhile may take a slow machine's replica a while.
configure($primary, 'replica_kit.alert_after' => '1h');
$offset = log_end($primary);
my $fresh = $primary->safe_psql('postgres',
	"SELECT (pg_create_physical_replication_slot('waiting', true)).slot_name");
ok( $primary->poll_query_until(
		'postgres',
		"SELECT state = 'never connected' AND health = 'ok' AND alert = 'ok'
		FROM replica_kit.status() WHERE name = 'waiting'"),
	'a slot that waits for its first connection is given time');
$primary->safe_psql('postgres',
	"SELECT pg_create_physical_replication_slot('passing', true, true)");
$primary->backup('two');
$primary->safe_psql('postgres',
	"SELECT * FROM replica_kit.provision('guest', '127.0.0.1')");
ok( $primary->poll_query_until(
		'postgres',
		"SELECT alert = 'ok' FROM replica_kit.status() WHERE name = 'guest'"),
	'a provisioned replica is watched');
$primary->safe_psql('postgres',
	"SELECT * FROM replica_kit.deprovision('guest')");
$primary->safe_psql('postgres', <<~SQL);
	SELECT pg_create_logical_replication_slot(name, 'test_decoding')
	FROM unnest(ARRAY['debezium_1', 'feed', 'pg_16390_sync_16384_7000000000000000001']) name
	SQL
ok( $primary->poll_query_until(
		'postgres',
		"SELECT count(*) = 3 FROM replica_kit.status()
		WHERE slot_type = 'logical' AND alert = 'ok'"),
	'logical slots are watched');
$primary->safe_psql('postgres', <<~SQL);
	SELECT pg_drop_replication_slot(name)
	FROM unnest(ARRAY['debezium_1', 'feed', 'pg_16390_sync_16384_7000000000000000001', 'waiting']) name
	SQL
$primary->wait_for_log(qr/replica "$_" warning: its slot was dropped.*\n/, $offset)
  foreach ('waiting', 'feed');
is( join(' ', sort map { /replica "(\w+)"/ } lines_of($primary, $offset)),
	'feed waiting',
	'a slot dropped by hand is told once, others that end are not');

# ----------------------------------------------------------------------
# A lost slot is critical at once.
# ----------------------------------------------------------------------

configure(
	$primary,
	'replica_kit.alert_after' => '1h',
	'replica_kit.warning_disconnected' => '1h',
	'replica_kit.critical_disconnected' => '1h',
	'replica_kit.repeat_interval' => '-1',
	'max_slot_wal_keep_size' => '64MB');
$standby->stop;
$primary->poll_query_until('postgres',
	"SELECT pid IS NULL FROM replica_kit.status() WHERE name = 'r1'")
  or die 'the walsender stays';
$offset = log_end($primary);
my $segment = <<~SQL;
	SELECT pg_logical_emit_message(false, '', 'x');
	SELECT pg_switch_wal();
	SQL
$primary->safe_psql('postgres',
	$segment x 4 . "SELECT pg_logical_emit_message(false, '', repeat('x', 11000000))"
);
$primary->wait_for_log(
	qr/replica "r1" critical: disconnected for .*, slot will be lost (?:after \d+ (?:bytes|kB|MB) more|in [^,\n]+)\n.*DETAIL:  Last seen at .*; slot retains \d+ MB, \d+ (?:bytes|kB|MB) left, /,
	$offset);
pass('a slot that is near its limit is critical at once');

# A worker that somebody has ended comes back, and knows what it had said.
my ($current_pid) =
  map { /\[(\d+)\]/ } grep { /worker started/ } reverse lines_of($primary);
kill 'TERM', $current_pid;
$primary->wait_for_log(qr/replica_kit worker started.*\n/, $offset);
is( $primary->safe_psql('postgres',
		"SELECT alert FROM replica_kit.status() WHERE name = 'r1'"),
	'critical',
	'a worker that was ended comes back and has not forgotten');

$primary->safe_psql('postgres', $segment x 2 . 'CHECKPOINT');
configure($primary, 'replica_kit.repeat_interval' => '1s');
$primary->wait_for_log(
	qr/replica "r1" still critical after .*: slot is lost, the replica must be rebuilt: it held more WAL than max_slot_wal_keep_size allows\n.*DETAIL:  .*, wal_status "lost", cause "wal_removed"[.;].*\n.*HINT:  Run: SELECT \* FROM replica_kit\.diagnose\('r1'\);/,
	$offset);
pass('a lost slot says that the replica must be rebuilt, and why');
is( $primary->safe_psql('postgres',
		"SELECT state, alert, reason FROM replica_kit.status() WHERE name = 'r1'"
	),
	'lost|critical|slot is lost, the replica must be rebuilt: it held more WAL than max_slot_wal_keep_size allows',
	'and status() says it too');
$primary->safe_psql('postgres', "SELECT pg_drop_replication_slot('r1')");
$primary->wait_for_log(qr/replica "r1" warning: its slot was dropped/,
	$offset);
is( join(' ', map { /replica "r1" (\w+)/ }
		  grep { !/still/ } lines_of($primary, $offset)),
	'critical warning',
	'each of it once');

# ----------------------------------------------------------------------
# A crash of the server, a fast shutdown, a promotion.
# ----------------------------------------------------------------------

# A standby without a slot, so that it can go on.
configure($primary, 'max_slot_wal_keep_size' => '-1');
$standby = PostgreSQL::Test::Cluster->new('successor');
$primary->backup('three');
$standby->init_from_backup($primary, 'three', has_streaming => 1);
$standby->append_conf('postgresql.conf', <<~CONF);
	replica_kit.warning_disconnected = '500ms'
	replica_kit.critical_disconnected = '1s'
	CONF
$standby->start;
$standby->wait_for_log(qr/replica_kit worker started.*\n/);

foreach my $node ($primary, $standby)
{
	$offset = log_end($node);
	my ($in, $out) = ('', '');
	my $victim = IPC::Run::start(
		[
			'psql', '-XAtq', '-d', $node->connstr('postgres'),
			'-c', 'SELECT pg_backend_pid()', '-c', 'SELECT pg_sleep(600)'
		],
		'<', \$in, '>', \$out, '2>', \my $err,
		IPC::Run::timeout($PostgreSQL::Test::Utils::timeout_default));
	$victim->pump until $out =~ /^(\d+)\n/;
	kill 'KILL', $1;
	$victim->finish;
	$node->wait_for_log(qr/replica_kit worker started.*\n/, $offset);
	is(count_of($node, qr/replica_kit worker started/, $offset),
		1, 'after a crash of the ' . $node->name . ' the worker is back');
	wait_until_up($node);
}

# On a standby the server's own upstream is judged.
ok( $standby->poll_query_until(
		'postgres', 'SELECT count(*) = 0 FROM replica_kit.unhealthy()'),
	'a standby that streams has a healthy upstream');
my $before = time;
configure($primary, 'replica_kit.check_interval' => '1h');
$primary->stop('fast');
cmp_ok(time - $before, '<', $PostgreSQL::Test::Utils::timeout_default,
	'a worker that waits for an hour does not hold up a shutdown');
ok( $standby->poll_query_until(
		'postgres',
		"SELECT count(*) = 1 FROM replica_kit.unhealthy('critical')
		WHERE name = 'upstream' AND reason ~ '^disconnected for \\d'"),
	'without it the upstream is critical');
($rc, $stdout, $stderr) =
  $standby->psql('postgres', 'SELECT replica_kit.assert_healthy()');
like(
	$stderr,
	qr/ERROR:  upstream critical: disconnected for /,
	'and assert_healthy() fails on it');

$offset = log_end($standby);
my ($before_promotion) =
  map { /\[(\d+)\]/ } grep { /worker started/ } reverse lines_of($standby);
$standby->promote;
is( $standby->safe_psql('postgres',
		'SELECT count(*) FROM replica_kit.unhealthy()'),
	'0',
	'a promoted server has no upstream');
configure($standby, 'replica_kit.worker' => 'off');
$standby->wait_for_log(qr/replica_kit worker paused/, $offset);
my ($after_promotion) =
  map { /\[(\d+)\]/ } grep { /worker paused/ } lines_of($standby, $offset);
is($after_promotion, $before_promotion,
	'the same process goes on through a promotion');

$standby->stop;
done_testing();
