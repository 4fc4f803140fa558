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
		'max_wal_size = 4GB', 'replica_kit.alert_after = 0',
		'archive_mode = on', q{archive_command = '/bin/true'});
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

# Two minutes, in which WAL is written.
sub write_for_minutes
{
	foreach (1 .. 4)
	{
		$primary->safe_psql('postgres', 'INSERT INTO t VALUES (1); SELECT pg_switch_wal()') for 1 .. 4;
		sleep_for(1 / 120);
		$primary->poll_query_until('postgres', q{SELECT count(*) > 0 FROM replica_kit.history('replica1') WHERE sampled_at > clock_timestamp() - interval '20 s'})
		  or die 'the worker does not look';
	}
	return;
}
write_for_minutes();
found('disk_filling server, replica_down replica1', 'a disk that fills, and the reason');
soon_like($primary, q{SELECT level || ': ' || finding || '; ' || evidence FROM replica_kit.diagnose() WHERE code = 'disk_filling'},
	qr/^warning: The disk of pg_wal will be full in .*; then this server stops\.; .* free; slot "replica1" retains \d+ MB$/, 'when, and whose slot it is');
my ($statement) = $primary->safe_psql('postgres', q{SELECT advice FROM replica_kit.diagnose() WHERE code = 'disk_filling'}) =~ /^  (SELECT .*;)$/m;
soon_like($primary, $statement, qr/\|replica_down\|replica1\|.*start its PostgreSQL server/s, 'the advice leads to the replica');
$standby->start;
found('', 'started, it mends the disk, too');
is(wait_for_diagnosis($standby, ''), '', 'and has nothing to say itself');

# The archiver fills it; that nothing is archived is no alarm yet by itself.
$primary->safe_psql('postgres', q{ALTER SYSTEM SET archive_command = '/bin/false'; ALTER SYSTEM SET replica_kit.overrides = 'server: warning_disconnected=-1 critical_disconnected=-1'});
$primary->reload;
write_for_minutes();
found('archive_failing server', 'a disk that an archiver fills');
soon_like($primary, q{SELECT level || ': ' || finding || '; ' || evidence FROM replica_kit.diagnose('server')},
	qr/^warning: Archiving fails, so WAL files cannot be removed\. The disk of pg_wal is full in .*; then the server stops\.; .*slots retain .*: no replica is to blame$/s, 'a disk that an archiver fills: when');
soon_like($primary, q{SELECT reason FROM replica_kit.unhealthy() WHERE name = 'server'}, qr/^nothing was archived for .*, disk of pg_wal will be full in /, 'a disk that an archiver fills: in every mouth');
$primary->safe_psql('postgres', q{ALTER SYSTEM SET archive_command = '/bin/true'; ALTER SYSTEM RESET replica_kit.overrides});
$primary->reload;
$primary->safe_psql('postgres', 'INSERT INTO t VALUES (1); SELECT pg_switch_wal()');
found('', 'a disk that an archiver fills: mended');

# The WAL summarizer does.
SKIP:
{
	skip 'WAL is summarized from 17 on', 3 if $primary->pg_version < 17;

	$primary->safe_psql('postgres', 'ALTER SYSTEM SET summarize_wal = on');
	$primary->reload;
	$primary->poll_query_until('postgres', q{SELECT count(*) = 1 FROM pg_stat_activity WHERE backend_type = 'walsummarizer'}) or die 'no summarizer';
	my $summarizer = $primary->safe_psql('postgres', q{SELECT pid FROM pg_stat_activity WHERE backend_type = 'walsummarizer'});
	kill 'STOP', $summarizer;
	write_for_minutes();
	found('disk_filling server', 'a disk that the summarizer fills');
	soon_like($primary, q{SELECT evidence FROM replica_kit.diagnose('server')}, qr/free; \d+ MB of WAL waits for the WAL summarizer$/, 'a disk that the summarizer fills: who');
	kill 'CONT', $summarizer;
	found('', 'a disk that the summarizer fills: it goes on');
	$primary->safe_psql('postgres', 'ALTER SYSTEM RESET summarize_wal');
}
$primary->safe_psql('postgres', q{ALTER SYSTEM RESET replica_kit.warning_forecast});
$primary->reload;

# ----------------------------------------------------------------------
# A day
# ----------------------------------------------------------------------

# A slot of somebody's that was used, another that was not, and a replica that
# is still to be made.  A slot reserves WAL from the last checkpoint on, and a
# receiver begins with its segment, so both are to be of now.
$primary->safe_psql('postgres', 'INSERT INTO t VALUES (1); SELECT pg_switch_wal()');
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
