# Forecasts under a steady load, against what then happens: a replica that
# catches up, a slot that is lost, a disk that gets full.  What was forecast
# at half time has to be right by a quarter.  Half time is later than the first
# minute, in which nothing is forecast of a slot that is not in use.
#
# The disk needs a small file system.  It is made in a user namespace, as
# far as that is allowed; or PRK_SMALL_DISK names an empty directory on one.

use strict;
use warnings FATAL => 'all';

use File::Temp;
use FindBin;
use lib $FindBin::RealBin;

# Before the test's output is redirected, or nobody would see it.
BEGIN
{
	if (!defined $ENV{PRK_SMALL_DISK})
	{
		my $dir = File::Temp->newdir(CLEANUP => 0);
		my @outer = ('unshare', '--user', '--map-root-user', '--mount');
		my @inner = ('unshare', '--user', "--map-user=$>", '--map-group=' . ($) + 0));
		my $mount = 'mount -t tmpfs -o size=192m tmpfs "$0"';

		if (system("@outer sh -c '$mount && exec @inner true' $dir >/dev/null 2>&1") == 0)
		{
			$ENV{PRK_SMALL_DISK} = "$dir";
			exec @outer, 'sh', '-c', "$mount && exec @inner \"\$@\"", $dir, $^X, (map { "-I$_" } @INC), $0;
		}
		rmdir $dir;
	}
}

use IPC::Run;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use SlowNet;
use Test::More;
use POSIX ();
use Time::HiRes qw(time usleep);

my @background;
my $strict = $ENV{PRK_LONG_TESTS};

sub new_primary
{
	my ($name, $conf, @initdb) = @_;
	my $node = PostgreSQL::Test::Cluster->new($name);

	$node->init(allows_streaming => 1, extra => [ '--wal-segsize=1', @initdb ]);
	$node->append_conf('postgresql.conf', <<~CONF);
		shared_preload_libraries = 'pg_replica_kit'
		autovacuum = off
		log_statement = none
		max_wal_size = 4MB
		min_wal_size = 2MB
		max_replication_slots = 30
		replica_kit.check_interval = 500ms
		$conf
		CONF
	$node->start;
	$node->safe_psql('postgres', 'CREATE EXTENSION pg_replica_kit');
	return $node;
}

# Runs a statement again and again, some ten times a second.
sub keep_running
{
	my ($node, $statement) = @_;
	my $script = "$PostgreSQL::Test::Utils::tmp_check/" . $node->name . '.sql';

	append_to_file($script, "$statement \\watch 0.1\n");
	push @background, IPC::Run::start([ 'psql', '-XAtq', '-d', $node->connstr('postgres'), '-f', $script ],
		'<', '/dev/null', '>', '/dev/null', '2>', '/dev/null');
	return $background[-1];
}

sub wal
{
	my ($bytes) = @_;

	return "SELECT pg_logical_emit_message(false, '', repeat('x', $bytes))";
}

# A forecast while it runs: what it said, when.
sub begin
{
	my ($node, $column, $name) = @_;

	return {
		node => $node,
		query => "SELECT extract(epoch FROM $column) FROM replica_kit.status() WHERE name = '$name'",
		started => time,
		said => []
	};
}

sub ask
{
	my ($forecast) = @_;
	my ($code, $answer) = $forecast->{node}->psql('postgres', $forecast->{query});

	push @{ $forecast->{said} }, [ time, $answer ] if $code == 0;
}

sub end
{
	my ($forecast) = @_;

	$forecast->{ended} //= time;
}

# Was the forecast made at half time right, by a quarter of what was left?  That
# supposes a steady load, which a machine that does other work does not give; so
# if not strict, a forecast by a factor of three is good enough.
sub check
{
	my ($forecast, $what, $strict) = @_;
	my $half = ($forecast->{started} + $forecast->{ended}) / 2;
	my ($asked) = grep { $_->[0] >= $half } @{ $forecast->{said} };
	my $left = $forecast->{ended} - ($asked // [$half])->[0];
	my $said = ($asked // [])->[1] // '';

	my $right = $strict ? abs(($said || 0) - $left) <= 0.25 * $left :
	  ($said || 0) >= $left / 3 && ($said || 0) <= $left * 3;

	ok($said ne '' && $right, $what)
	  or diag("said '$said', it was $left of " . ($forecast->{ended} - $forecast->{started}) . "\n"
		  . join ' ', map { sprintf '%.0f:%s', $_->[0] - $forecast->{started}, $_->[1] } @{ $forecast->{said} });
}

# ----------------------------------------------------------------------
# Three servers, each with its own trouble
# ----------------------------------------------------------------------

my $lost = new_primary('lost', "max_slot_wal_keep_size = 100MB\nreplica_kit.alert_after = 2s");
$lost->safe_psql('postgres', "SELECT pg_create_physical_replication_slot('gone', true)");
keep_running($lost, wal(70000));
my $lost_in = begin($lost, 'lost_in', 'gone');

my ($full, $disk_full_in);
if (defined $ENV{PRK_SMALL_DISK})
{
	$full = new_primary('full', 'replica_kit.alert_after = 2s', "--waldir=$ENV{PRK_SMALL_DISK}/pg_wal");
	$full->safe_psql('postgres', "SELECT pg_create_physical_replication_slot('slot$_', true)") foreach 1 .. 20;
	keep_running($full, wal(110000));
	$disk_full_in = begin($full, 'disk_full_in', 'slot1');
}

my $behind = new_primary('behind', "replica_kit.critical_lag = 30MB\nreplica_kit.alert_after = 2s\nwal_keep_size = 1GB\nlisten_addresses = '127.0.0.1'");
$behind->backup('one');
my $standby = PostgreSQL::Test::Cluster->new('standby');
$standby->init_from_backup($behind, 'one', has_streaming => 1);
$standby->start;
$standby->safe_psql('postgres', 'SELECT pg_wal_replay_pause()');
$behind->safe_psql('postgres', 'CREATE TABLE t (i integer, x text)');
keep_running($behind, wal(20000));
$behind->safe_psql('postgres', "INSERT INTO t SELECT i, repeat('x', 60) FROM generate_series(1, 600000) i");
$behind->wait_for_catchup('standby', 'flush');
ok( $behind->poll_query_until('postgres',
		q{SELECT catch_up_in IS NULL AND reason ~ 'is not catching up$' AND health = 'critical' FROM replica_kit.status() WHERE name = 'standby'}),
	'a paused replica is never going to catch up, and critical');

# Its replay is given a small share of the time that it would take.
my $startup = $standby->safe_psql('postgres', q{SELECT pid FROM pg_stat_activity WHERE backend_type = 'startup'});
my $throttle = fork // die "could not fork: $!";
if ($throttle == 0)
{
	$SIG{TERM} = 'DEFAULT';    # not that of the parent, which stops its servers
	my $parent = getppid;
	while (getppid == $parent)
	{
		kill 'STOP', $startup or last;
		usleep 148000;
		kill 'CONT', $startup or last;
		usleep 2000;
	}
	kill 'CONT', $startup;
	POSIX::_exit(0);
}
$standby->safe_psql('postgres', 'SELECT pg_wal_replay_resume()');
my $catch_up_in = begin($behind, 'catch_up_in', 'standby');

# And one that gets it all through a narrow network, which is steadier.
my $net = SlowNet->new($behind->port);
$net->tell(2_500_000, 0);
my $far = PostgreSQL::Test::Cluster->new('far');
$far->init_from_backup($behind, 'one', has_streaming => 1);
$far->append_conf('postgresql.conf', "primary_conninfo = 'host=127.0.0.1 port=@{[ $net->port ]} application_name=far'");
$far->start;
my $arrives_in = begin($behind, 'catch_up_in', 'far');

# ----------------------------------------------------------------------
# What happens
# ----------------------------------------------------------------------

my $deadline = time + $PostgreSQL::Test::Utils::timeout_default;
my $mild;
while (time < $deadline)
{
	if (!$catch_up_in->{ended})
	{
		my ($bytes, $health, $reason) = split /\|/,
		  $behind->safe_psql('postgres', q{SELECT lag_bytes, health, reason FROM replica_kit.status() WHERE name = 'standby'});

		ask($catch_up_in);
		$mild = $reason if $health eq 'warning' && $reason =~ /will catch up in/ && $bytes > 30 * 1024 * 1024;
		end($catch_up_in) if $bytes < 1024 * 1024;
	}
	if (!$arrives_in->{ended})
	{
		ask($arrives_in);
		end($arrives_in)
		  if $behind->safe_psql('postgres', q{SELECT lag_bytes < 1024 * 1024 FROM replica_kit.status() WHERE name = 'far'}) eq 't';
	}
	if (!$lost_in->{ended})
	{
		ask($lost_in);
		end($lost_in)
		  if $lost->safe_psql('postgres', q{SELECT wal_status = 'lost' FROM replica_kit.status()}) eq 't';
	}
	if (defined $full && !$disk_full_in->{ended})
	{
		ask($disk_full_in);
		end($disk_full_in) if slurp_file($full->logfile) =~ /No space left on device/;
	}
	last if $catch_up_in->{ended} && $arrives_in->{ended} && $lost_in->{ended} && (!defined $full || $disk_full_in->{ended});
	usleep 400_000;
}
kill 'TERM', $throttle;
waitpid $throttle, 0;
kill 'CONT', $startup;
ok($catch_up_in->{ended}, 'the replica has caught up');
check($catch_up_in, 'catch_up_in was about right at half time, where replay has no steady pace', 0);
ok($arrives_in->{ended}, 'so has the one behind a narrow network');
check($arrives_in, 'catch_up_in was right at half time', $strict);
ok(defined $mild, 'a replica that soon will have caught up is not critical, and says when');
ok($lost_in->{ended}, 'the slot is lost');
check($lost_in, 'lost_in was right at half time', $strict);

$lost->wait_for_log(qr/WARNING:  replica "gone" critical: slot is lost/);
ok(slurp_file($lost->logfile) =~ /WARNING:  replica "gone" (?:warning|critical): [^\n]*slot will be lost in [^\n]+\n/,
	'the loss was announced before it came');

SKIP:
{
	skip 'no small file system can be mounted here', 5 if !defined $full;

	ok($disk_full_in->{ended}, 'the disk is full');
	check($disk_full_in, 'disk_full_in was right at half time', $strict);

	my @lines = grep { /WARNING:  server / } split /\n/, slurp_file($full->logfile);
	is(scalar @lines, 1, 'twenty slots and a disk that fills give one line for the disk');
	like($lines[0], qr/server critical: disk of pg_wal will be full in /, 'it says when');
	ok(slurp_file($full->logfile) =~ /DETAIL:  [\d.]+ \wB free, WAL grows [\d.]+ \wB\/s; slot "slot1" holds [\d.]+ \wB\./,
		'and names the slot');
	$full->stop('immediate', fail_ok => 1);
}

$_->kill_kill foreach @background;
$_->stop('immediate') foreach $standby, $far, $behind, $lost;
done_testing();
