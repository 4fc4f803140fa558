# Without preloading everything but the worker is there: settings, status,
# judgement by the health of the instant.

use strict;
use warnings FATAL => 'all';

use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $primary = PostgreSQL::Test::Cluster->new('primary');
$primary->init(allows_streaming => 1);

# Settings in the file are placeholders until a session loads the library.
$primary->append_conf('postgresql.conf', <<~CONF);
	replica_kit.warning_disconnected = 0
	replica_kit.critical_disconnected = 0
	replica_kit.check_interval = '250ms'
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
$primary->wait_for_catchup($standby);

is( $primary->safe_psql(
		'postgres',
		"SELECT count(*) FROM replica_kit.unhealthy();
		SHOW replica_kit.check_interval"),
	"0\n250ms",
	'a call loads the library, and the settings of the file hold');
is( $primary->safe_psql(
		'postgres',
		'SELECT name, state, health, alert IS NULL, alert_since IS NULL
		FROM replica_kit.status()'),
	'r1|streaming|ok|t|t',
	'status() has health and no alert');
is( $primary->safe_psql(
		'postgres',
		'SELECT replica_kit.assert_healthy(min_streaming => 1)'),
	'',
	'a healthy pair passes assert_healthy()');
my ($rc, $stdout, $stderr) = $primary->psql('postgres',
	'SELECT replica_kit.assert_healthy(min_streaming => 2)');
like(
	$stderr,
	qr/ERROR:  too few replicas are streaming: 1 of at least 2\n/,
	'which counts the replicas that stream');

$primary->safe_psql('postgres', q{SELECT pg_create_physical_replication_slot('r2', true)});
like($primary->safe_psql('postgres', q{SELECT state, health, reason FROM replica_kit.status() WHERE name = 'r2'}),
	qr/^disconnected\|ok\|never connected, slot was made .* ago$/, 'a slot that was just made has not been used yet, and nothing is wrong with that');
is($primary->safe_psql('postgres', q{SELECT count(*) FROM replica_kit.diagnose('r2')}), '0', 'nor has it a diagnosis');
$primary->safe_psql('postgres', q{SELECT pg_drop_replication_slot('r2')});

$standby->stop;
ok( $primary->poll_query_until(
		'postgres',
		"SELECT state = 'disconnected' FROM replica_kit.status()"),
	'a stopped replica is disconnected');

# Before 17 the server doesn't know since when a slot is inactive.
my ($level, $reason) =
  $primary->pg_version >= 17
  ? ('critical', qr/disconnected for (?:less than a second|\d+ s)/)
  : ('warning', qr/disconnected, not known since when/);
like(
	$primary->safe_psql(
		'postgres', "SELECT * FROM replica_kit.unhealthy('warning')"),
	qr/^r1\|$level\|$reason$/,
	'unhealthy() goes by its health');
($rc, $stdout, $stderr) = $primary->psql('postgres',
	"SELECT replica_kit.assert_healthy('warning')");
like(
	$stderr,
	qr/ERROR:  replica "r1" $level: $reason\n(?:.*\n)?HINT:  Run: SELECT \* FROM replica_kit\.diagnose\('r1'\);/,
	'and so does assert_healthy(), which names diagnose()');
unlike($stderr, qr/DETAIL/, 'and says it once');

# Where nobody watches, metrics() has a level, and no alert.
my $metrics = $primary->safe_psql('postgres', 'SELECT replica_kit.metrics()');
my $number = { warning => 1, critical => 2 }->{$level};
like($metrics, qr/^replica_kit_worker_up 0$/m, 'metrics() tells that there is no worker');
like($metrics, qr/^replica_kit_replica_alert\{replica="r1"\} NaN$/m, 'and so no alert');
like($metrics, qr/^replica_kit_replica_unhealthy\{replica="r1"\} $number$/m, 'but the level of unhealthy()');
unlike($metrics, qr/^replica_kit_(?:worker_\w+_total|connection_failures_total)/m, 'nothing is counted');

# The standby's own upstream: nobody knows since when it is away.
$standby->start;
$primary->stop;
ok( $standby->poll_query_until(
		'postgres',
		"SELECT count(*) = 1 FROM replica_kit.unhealthy()
		WHERE name = 'upstream' AND level = 'warning'
			AND reason = 'disconnected, not known since when'"),
	'on a standby unhealthy() shows an upstream that is away');
$primary->start;
ok( $standby->poll_query_until(
		'postgres', 'SELECT count(*) = 0 FROM replica_kit.unhealthy()'),
	'and is silent when it is back');

foreach my $call (q{silence('server')}, q{unsilence('server')}, 'silences()')
{
	($rc, $stdout, $stderr) = $primary->psql('postgres', "SELECT replica_kit.$call");
	like($stderr, qr/ERROR:  pg_replica_kit must be loaded via shared_preload_libraries/, "$call needs preloading, and says so");
}

# What the file has wrong is told to the session that loads the library.
$primary->append_conf('postgresql.conf',
	"replica_kit.overrides = 'r1: warning_lag=much'");
$primary->reload;
ok( $primary->poll_query_until(
		'postgres', "SELECT setting <> '' FROM pg_file_settings
		WHERE name = 'replica_kit.overrides'"),
	'the file has an override');
($rc, $stdout, $stderr) = $primary->psql('postgres',
	"LOAD 'pg_replica_kit'; SHOW replica_kit.overrides");
like(
	$stderr,
	qr/Invalid value "much" for "warning_lag" at character 17\./,
	'nonsense in the file is told when the library is loaded');
is($stdout, '', 'and is not in force');

unlike(
	slurp_file($primary->logfile),
	qr/replica_kit worker/,
	'there is no worker');

$standby->stop;
$primary->stop;
done_testing();
