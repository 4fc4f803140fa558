# lag_time against the truth, on real servers: replay paused, wal receiver
# stopped, replica killed; a trickle, a busy and an idle primary; over a restart
# of the primary and a promotion; and without the worker.

use strict;
use warnings FATAL => 'all';

use File::Copy;
use IPC::Run;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::RecursiveCopy;
use PostgreSQL::Test::Utils;
use Test::More;

# How far lag_time may be from the truth, in seconds, besides what this test does
# not know itself.
my $tolerance = 2;

sub now
{
	my ($node) = @_;

	return $node->safe_psql('postgres', 'SELECT extract(epoch FROM clock_timestamp())');
}

# Do something that takes a moment, on a slow machine a long one; between when
# and when it was done.
sub period_of
{
	my ($node, $action) = @_;
	my $from = now($node);

	$action->();
	return [ $from, now($node) ];
}

# Is the replica's lag_time, on this server, that of WAL written since some
# time in that period?
sub lag_is_true
{
	my ($node, $name, $since, $what) = @_;
	my ($error, $lag) = split /\|/, $node->safe_psql('postgres', <<~SQL);
		SELECT greatest(lag - (now - $since->[0]), now - $since->[1] - lag, 0), lag
		FROM (SELECT extract(epoch FROM lag_time) AS lag, extract(epoch FROM clock_timestamp()) AS now
			FROM replica_kit.status() WHERE name = '$name') s
		SQL

	ok(defined $error && $error ne '' && $error <= $tolerance, $what)
	  or diag("$name: lag_time is " . ($lag // 'unknown') . ', wrong by ' . ($error // '?'));
}

# Wait until a replica is said to be this far behind, in seconds.
sub wait_for_lag
{
	my ($node, $name, $seconds) = @_;

	$node->poll_query_until('postgres',
		"SELECT extract(epoch FROM lag_time) >= $seconds FROM replica_kit.status() WHERE name = '$name'")
	  or die "$name never was $seconds s behind";
}

my $primary = PostgreSQL::Test::Cluster->new('primary');
$primary->init(allows_streaming => 'logical');
$primary->append_conf('postgresql.conf', <<~CONF);
	shared_preload_libraries = 'pg_replica_kit'
	autovacuum = off
	checkpoint_timeout = 1h
	max_wal_size = 1GB
	wal_keep_size = 1GB
	replica_kit.check_interval = 1h
	CONF
$primary->start;
$primary->safe_psql('postgres', 'CREATE EXTENSION pg_replica_kit; CREATE TABLE t (x text)');
my $file = $primary->data_dir . '/pg_stat_tmp/pg_replica_kit.clock';
ok(!-e $file, 'while the server runs the clock has no file');
append_to_file($file, 'as if the server had just stopped');
$primary->backup('one');

my %standby;
foreach my $name (qw(paused stopped killed healthy))
{
	$primary->safe_psql('postgres', "SELECT pg_create_physical_replication_slot('$name', true)");
	$standby{$name} = PostgreSQL::Test::Cluster->new($name);
	$standby{$name}->init_from_backup($primary, 'one', has_streaming => 1);
	$standby{$name}->append_conf('postgresql.conf', "primary_slot_name = '$name'");
	$standby{$name}->start;
}
ok(!-e $primary->backup_dir . '/one/pg_stat_tmp/pg_replica_kit.clock', 'a base backup leaves the clock out');
unlink $file;

# 1 kB five times a second, until it is told to stop.
my $script = "$PostgreSQL::Test::Utils::tmp_check/lag_trickle.sql";
append_to_file($script, "INSERT INTO t VALUES (repeat('x', 1000)) \\watch 0.2\n");
my $in = '';
my $trickle;

sub start_trickle
{
	my ($node) = @_;

	my $position = 'SELECT pg_current_wal_lsn()';
	my $before = $node->safe_psql('postgres', $position);
	$trickle = IPC::Run::start([ 'psql', '-XAtq', '-d', $node->connstr('postgres'), '-f', $script ],
		'<', \$in, '>', '/dev/null', '2>', '/dev/null');
	$node->poll_query_until('postgres', "SELECT pg_current_wal_lsn() > '$before'")
	  or die 'no WAL is written';
}

sub stop_trickle
{
	$trickle->kill_kill;
}

$primary->poll_query_until('postgres',
	q{SELECT count(*) = 4 FROM replica_kit.status() WHERE state = 'streaming' AND lag_time = '0'})
  or die 'not all replicas are at the position of an idle primary';
pass('on an idle primary healthy replicas are 0 behind, whatever the check interval is');

# ----------------------------------------------------------------------
# A trickle
# ----------------------------------------------------------------------

$primary->safe_psql('postgres', q{SELECT pg_create_logical_replication_slot('confirmed', 'test_decoding')});
start_trickle($primary);
my %since;
my $receiver = $standby{stopped}->safe_psql('postgres', 'SELECT pid FROM pg_stat_wal_receiver');
$since{paused} = period_of(
	$primary,
	sub {
		$standby{paused}->safe_psql('postgres', 'SELECT pg_wal_replay_pause()');
		$standby{paused}->poll_query_until('postgres', q{SELECT pg_get_wal_replay_pause_state() = 'paused'})
		  or die 'replay is not paused';
	});
$since{killed} = period_of($primary, sub { $standby{killed}->stop('immediate') });
$since{stopped} = period_of($primary, sub { kill 'STOP', $receiver });
$since{confirmed} = period_of($primary,
	sub { $primary->safe_psql('postgres', q{SELECT count(*) FROM pg_logical_slot_get_changes('confirmed', NULL, NULL)}) });

wait_for_lag($primary, 'confirmed', 4);
lag_is_true($primary, 'paused', $since{paused}, 'replay paused under a trickle');
lag_is_true($primary, 'killed', $since{killed}, 'replica killed under a trickle');
lag_is_true($primary, 'stopped', $since{stopped}, 'wal receiver stopped under a trickle');
lag_is_true($primary, 'confirmed', $since{confirmed}, 'what a logical slot has confirmed, under a trickle');
ok( $primary->poll_query_until('postgres', q{SELECT lag_time < '1.5 s' FROM replica_kit.status() WHERE name = 'healthy'}),
	'a healthy replica is not behind under a trickle');

# ----------------------------------------------------------------------
# Busy, then idle
# ----------------------------------------------------------------------

stop_trickle();
$primary->safe_psql('postgres', "INSERT INTO t SELECT repeat('x', 1000) FROM generate_series(1, 50000)");
lag_is_true($primary, $_, $since{$_}, "$_: still true after a bulk load") foreach qw(paused stopped killed confirmed);
$primary->poll_query_until('postgres',
	q{SELECT lag_time = '0' FROM replica_kit.status() WHERE name = 'healthy'})
  or die 'the healthy replica did not catch up';
my $wait = now($primary) - $since{paused}[0] + 4;
wait_for_lag($primary, 'paused', $wait);
lag_is_true($primary, $_, $since{$_}, "$_: still true on an idle primary") foreach qw(paused stopped killed confirmed);
ok( $primary->poll_query_until('postgres', q{SELECT lag_time = '0' FROM replica_kit.status() WHERE name = 'healthy'}),
	'on an idle primary the healthy replica is 0 behind');

# What was never used is as old as what it reserves.
my $checkpoint = period_of(
	$primary,
	sub {
		$primary->safe_psql('postgres', q{CHECKPOINT; SELECT pg_create_physical_replication_slot('unused', true)});
	});
start_trickle($primary);
wait_for_lag($primary, 'unused', 3);
lag_is_true($primary, 'unused', $checkpoint, 'a slot that was never used');

# ----------------------------------------------------------------------
# A restart
# ----------------------------------------------------------------------

stop_trickle();
kill 'CONT', $receiver;
$standby{stopped}->stop;
$primary->stop;
ok(-s $file, 'the clock is kept while the server is down');
PostgreSQL::Test::RecursiveCopy::copypath($primary->data_dir, $primary->backup_dir . '/cold');
$primary->start;

# The file goes before what it had is there for others.
ok( $primary->poll_query_until('postgres', q{SELECT pg_stat_file('pg_stat_tmp/pg_replica_kit.clock', true) IS NULL AND bool_and(alert IS NOT NULL) FROM replica_kit.status()}),
	'it is taken up at once, and not used twice');
lag_is_true($primary, $_, $since{$_}, "$_: true after a restart of the primary") foreach qw(killed confirmed);

# ----------------------------------------------------------------------
# A crash leaves nothing to go by but the age of files
# ----------------------------------------------------------------------

$primary->stop('immediate');
$primary->start;
my $paused = $standby{paused};
$paused->safe_psql('postgres', 'SELECT pg_wal_replay_resume()');
is( $primary->safe_psql('postgres', q{SELECT lag_time BETWEEN '0' AND '1 h' FROM replica_kit.status() WHERE name = 'killed'}),
	't',
	'after a crash the age of a file is known');

# ----------------------------------------------------------------------
# A promotion
# ----------------------------------------------------------------------

my $healthy = $standby{healthy};
$primary->poll_query_until('postgres', q{SELECT state = 'streaming' FROM replica_kit.status() WHERE name = 'healthy'})
  or die 'the healthy replica did not come back';

# Until its clock has ticked, what is written counts as written since the cut.
my $back = now($healthy);
$healthy->poll_query_until('postgres', "SELECT extract(epoch FROM clock_timestamp()) > $back + 4");
start_trickle($primary);
$healthy->safe_psql('postgres', q{SELECT pg_create_physical_replication_slot('cascade')});
my $cascade = PostgreSQL::Test::Cluster->new('cascade');
$cascade->init_from_backup($primary, 'one', has_streaming => 1);
$cascade->append_conf('postgresql.conf', 'primary_conninfo = \'' . $healthy->connstr . " application_name=cascade'\n" . "primary_slot_name = 'cascade'");
$cascade->start;
$healthy->poll_query_until('postgres',
	q{SELECT state = 'streaming' AND lag_time < '2 s' FROM replica_kit.status() WHERE name = 'cascade'})
  or die 'the cascade does not stream';
pass('a replica of a standby is not behind under a trickle');
my $gone = period_of($primary, sub { $cascade->stop('immediate') });
wait_for_lag($healthy, 'cascade', 3);
lag_is_true($healthy, 'cascade', $gone, 'a standby knows since when its own replica is behind');
$healthy->promote;
lag_is_true($healthy, 'cascade', $gone, 'and so it does at once after its promotion');
stop_trickle();

# ----------------------------------------------------------------------
# Without the worker
# ----------------------------------------------------------------------

$primary->append_conf('postgresql.conf', "shared_preload_libraries = ''");
$primary->restart;
my $segment = $primary->safe_psql('postgres',
	q{SELECT pg_walfile_name(restart_lsn) FROM pg_replication_slots WHERE slot_name = 'killed'});
my $written = (stat $primary->data_dir . "/pg_wal/$segment")[9];
lag_is_true($primary, 'killed', [ $written, $written ], 'without the worker it is the age of the file with its WAL');
unlink $primary->data_dir . "/pg_wal/$segment";
is( $primary->safe_psql('postgres', q{SELECT lag_time IS NULL FROM replica_kit.status() WHERE name = 'killed'}),
	't',
	'without that file it is not known');
$primary->poll_query_until('postgres', q{SELECT state = 'streaming' FROM replica_kit.status() WHERE name = 'paused'})
  or die 'the paused replica did not come back';
start_trickle($primary);
$primary->poll_query_until('postgres', q{SELECT lag_time < '1.5 s' FROM replica_kit.status() WHERE name = 'paused'})
  or die 'the paused replica did not catch up';
pass('without the worker a replica that streams has its walsender\'s measure');
stop_trickle();

# ----------------------------------------------------------------------
# A damaged file
# ----------------------------------------------------------------------

$primary->append_conf('postgresql.conf', "shared_preload_libraries = 'pg_replica_kit'");
$primary->restart;
$primary->poll_query_until('postgres', q{SELECT lag_time = '0' AND alert IS NOT NULL FROM replica_kit.status() WHERE name = 'paused'})
  or die 'the paused replica did not come back';
$primary->stop;
ok(-s $file, 'the clock is kept again');

# Of this system, but of later: as if a snapshot of the disk had been restored
# without the directory that the file is in.
my $older = PostgreSQL::Test::Cluster->new('older');
$older->init_from_backup($primary, 'cold');
copy($file, $older->data_dir . '/pg_stat_tmp') or die "could not copy \"$file\": $!";
$older->start;
$older->wait_for_log(qr{ignoring file "pg_stat_tmp/pg_replica_kit\.clock": it is ahead of this server's WAL});
pass('a file that is ahead of the WAL is ignored, and said so');
$older->stop;

append_to_file($file, 'x');
truncate $file, 100 or die "could not truncate \"$file\": $!";
my $offset = -s $primary->logfile;
$primary->start;
$primary->wait_for_log(qr{ignoring file "pg_stat_tmp/pg_replica_kit\.clock": it is damaged}, $offset);
pass('a damaged file is ignored, and said so');

$_->stop('immediate') foreach $primary, $paused, $healthy;
done_testing();
