# diagnose(), of what it takes a day to find out: slots that nobody uses and
# replicas that never came; and of a disk that fills.  Meanwhile the machine
# sleeps: a library that stands between the server and the system adds that to
# its clocks.

use strict;
use warnings FATAL => 'all';

use FindBin;
use lib $FindBin::RealBin;

use DiagKit;
use File::Basename;
use File::Spec::Functions qw(rel2abs);
use IPC::Run;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $library = rel2abs(dirname(__FILE__) . '/../test/wall_clock.so');
my $clock = PostgreSQL::Test::Utils::tempdir() . '/wall_clock';
my $slept = 0;

# The machine sleeps.  The file keeps its place, since it is mapped.
sub sleep_for
{
	my ($hours) = @_;
	$slept += $hours * 3600;
	open my $out, -e $clock ? '+<' : '>', $clock or die "could not open \"$clock\": $!";
	binmode $out;
	syswrite $out, pack('qq', 0, $slept);
	close $out;
	return;
}

sleep_for(0);
my $primary;
{
	local $ENV{LD_PRELOAD} = $library;
	local $ENV{PRK_WALL_CLOCK} = $clock;
	$primary = new_primary('primary', 'autovacuum = off', 'checkpoint_timeout = 1d', 'wal_sender_timeout = 0',
		'max_wal_size = 4GB', 'replica_kit.alert_after = 0');
}
my ($standby, $password) = new_standby($primary, 'replica1', 'wal_receiver_timeout = 0');

$primary->safe_psql('postgres', 'CREATE TABLE t (i int)');

# Codes with their names.
sub found
{
	my ($wanted, $what) = @_;
	my $query = q{SELECT coalesce(string_agg(concat_ws(' ', code, name), ', ' ORDER BY code, name), '') FROM replica_kit.diagnose()};
	soon_is($primary, $query, $wanted, $what);
	return;
}

sub dismissal_of
{
	my ($name) = @_;
	my $advice = $primary->safe_psql('postgres', "SELECT advice FROM replica_kit.diagnose('$name')");
	note $advice;
	return $advice =~ /here: (SELECT [^;]*(?:deprovision|drop)[^;]*;)$/ ? $1 : die 'no statement';
}

# ----------------------------------------------------------------------
# A disk
# ----------------------------------------------------------------------

# Some terabytes at most are full at this pace within 24 days.
$primary->safe_psql('postgres', q{ALTER SYSTEM SET replica_kit.warning_forecast = '24d'});
$primary->reload;
found('', 'a disk that nobody fills');
$standby->stop;

# What is forecast of it counts from its absence, so that has to be known.
$primary->poll_query_until('postgres', q{SELECT count(*) > 0 FROM replica_kit.history('replica1') WHERE state = 'disconnected'})
  or die 'the worker does not look';
foreach (1 .. 4)
{
	$primary->safe_psql('postgres', 'INSERT INTO t VALUES (1); SELECT pg_switch_wal()') for 1 .. 4;
	sleep_for(1 / 120);
	$primary->poll_query_until('postgres', q{SELECT count(*) > 0 FROM replica_kit.history('replica1') WHERE sampled_at > clock_timestamp() - interval '20 s'})
	  or die 'the worker does not look';
}
found('disk_filling server, replica_down replica1', 'a disk that fills, and the reason');
soon_like($primary, q{SELECT level || ': ' || finding || '; ' || evidence FROM replica_kit.diagnose() WHERE code = 'disk_filling'},
	qr/^warning: The disk of pg_wal will be full in .*; then this server stops\.; .* free; slot "replica1" retains \d+ MB$/, 'when, and whose slot it is');
my ($statement) = $primary->safe_psql('postgres', q{SELECT advice FROM replica_kit.diagnose() WHERE code = 'disk_filling'}) =~ /^  (SELECT .*;)$/m;
soon_like($primary, $statement, qr/\|replica_down\|replica1\|.*start its PostgreSQL server/s, 'the advice leads to the replica');
$standby->start;
found('', 'started, it mends the disk, too');
is(wait_for_diagnosis($standby, ''), '', 'and has nothing to say itself');
$primary->safe_psql('postgres', q{ALTER SYSTEM RESET replica_kit.warning_forecast});
$primary->reload;

# ----------------------------------------------------------------------
# A day
# ----------------------------------------------------------------------

# A slot of somebody's that was used, another that was not, and a replica that
# is still to be made.  A slot reserves WAL from the last checkpoint on, which is
# as old as that.
$primary->safe_psql('postgres', 'CHECKPOINT');
$primary->safe_psql('postgres', q{SELECT pg_create_physical_replication_slot(n, true) FROM unnest('{used, unused}'::text[]) n;
	SELECT replica_kit.provision('later', '127.0.0.1')});
my $dir = PostgreSQL::Test::Utils::tempdir();
my $log = '';
my $receiver = IPC::Run::start([ 'pg_receivewal', '-d', $primary->connstr('postgres'), '-D', $dir, '-S', 'used', '--no-loop', '--no-sync' ],
	'<', '/dev/null', '>&', \$log);
$primary->poll_query_until('postgres', q{SELECT state = 'streaming' FROM replica_kit.status() WHERE name = 'used'})
  or die "nobody uses the slot: $log";
$receiver->kill_kill;
$primary->safe_psql('postgres', q{INSERT INTO t VALUES (1)});
$primary->wait_for_catchup('replica1');
found('replica_down used', 'a new slot is no trouble, whether its replica is the kit\'s or not');
is($primary->safe_psql('postgres', 'SELECT level FROM replica_kit.diagnose()'), 'info', 'nor is one whose user has just gone');

sleep_for(23);
found('replica_down used', 'nor are new ones after 23 hours');
sleep_for(2);
found('replica_never_seen later, slot_unused unused, slot_unused used', 'after a day they are');
soon_is($primary, 'SELECT DISTINCT level FROM replica_kit.diagnose()', 'warning', 'as warnings');
like($primary->safe_psql('postgres', q{SELECT evidence FROM replica_kit.diagnose('later')}), qr/^never connected, slot was made 1 d 1 h ago \(.*\);\sslot retains .* without limit$/, 'replica_never_seen: since when, and what it costs');
like($primary->safe_psql('postgres', q{SELECT evidence FROM replica_kit.diagnose('used')}), qr/^disconnected 1 d 1 h ago .*;\sslot retains .* without limit$/, 'slot_unused: since when, and what it costs');
$primary->safe_psql('postgres', dismissal_of($_)) foreach qw(later unused used);
found('', 'the advice silences them');
is($primary->safe_psql('postgres', q{SELECT count(*) FROM pg_roles WHERE rolname = 'later'}), '0', 'with all that was made for the replica');
is(wait_for_diagnosis($standby, ''), '', 'the standby has nothing to say');

$standby->stop;
$primary->stop;
done_testing();
