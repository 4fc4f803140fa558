# diagnose(), of what hangs: a disk that is slow, a replay, a checkpoint.  The
# sides that can know name it, the remedy is run as it is printed, and both are
# silent.

use strict;
use warnings FATAL => 'all';

use FindBin;
use lib $FindBin::RealBin;

use DiagKit;
use DiagPair;
use File::Basename;
use File::Spec::Functions qw(rel2abs);
use IPC::Run;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $library = rel2abs(dirname(__FILE__) . '/../test/slow_disk.so');
my $disk = PostgreSQL::Test::Utils::tempdir() . '/slow_disk';

# The standby's disk takes so many bytes a second from now on, 0 as many as come.
sub set_disk
{
	my ($rate) = @_;
	open my $out, -e $disk ? '+<' : '>', $disk or die "could not open \"$disk\": $!";
	binmode $out;
	syswrite $out, pack('q', $rate);
	close $out;
	return;
}

start_primary();
set_disk(0);
{
	local $ENV{LD_PRELOAD} = $library;
	local $ENV{PRK_SLOW_DISK} = $disk;
	start_standby('fsync = on', 'wal_sync_method = fdatasync');
}

settle();
found('a healthy pair', '', '');

# ----------------------------------------------------------------------
# The disk
# ----------------------------------------------------------------------

set_disk(200000);
write_wal(4);
found('a slow disk', 'flush_slow', 'flush_slow');
ok($standby->poll_query_until('postgres', q{SELECT advice LIKE '%the disk of pg_wal on this server%' FROM replica_kit.diagnose() WHERE code = 'flush_slow'}),
	'a slow disk: the standby says that it is its own');
cure($primary);
set_disk(0);
found('a slow disk no more', '', '');

# A receiver that flushes whole segments only.
my $dir = PostgreSQL::Test::Utils::tempdir();
my $log = '';
$primary->safe_psql('postgres', q{SELECT pg_create_physical_replication_slot('archive', true)});

sub start_receivewal
{
	my (@options) = @_;

	# by the one before, whose end the walsender may not have noticed yet
	$primary->poll_query_until('postgres', q{SELECT NOT active FROM pg_replication_slots WHERE slot_name = 'archive'})
	  or die 'the slot is still used';
	my $process = IPC::Run::start([ 'pg_receivewal', '-d', $primary->connstr('postgres'), '-D', $dir, '-S', 'archive', '-s', 1, '--no-loop', @options ],
		'<', '/dev/null', '>&', \$log);
	$primary->poll_query_until('postgres', q{SELECT state = 'streaming' FROM replica_kit.status() WHERE name = 'archive'})
	  or die "pg_receivewal does not stream: $log";
	return $process;
}
my $archiver = start_receivewal();
$primary->safe_psql('postgres', 'SELECT pg_switch_wal()');
write_wal(4);
found('a receiver that does not flush', 'flush_slow', '');

# What it was sent and has not told of yet may look like the network again.
ok($primary->poll_query_until('postgres', q{SELECT name = 'archive' AND advice ~ 'without --synchronous' FROM replica_kit.diagnose()}),
	'a receiver that does not flush: which, and that it may be meant so');
cure($primary);
$archiver->kill_kill;
$archiver = start_receivewal('--synchronous');
found('it flushes', '', '');
$archiver->kill_kill;
drop_slot($primary, 'archive');

# ----------------------------------------------------------------------
# Replay
# ----------------------------------------------------------------------

my ($startup) = map { (split)[0] } grep { /\bstartup\b/ } split /\n/,
  `ps -o pid=,args= --ppid @{[ (split /\n/, slurp_file($standby->data_dir . '/postmaster.pid'))[0] ]}`;
kill 'STOP', $startup;
write_wal(4);
found('replay that hangs', 'replay_slow', 'replay_slow');
kill 'CONT', $startup;
found('it goes on', '', '');

# ----------------------------------------------------------------------
# Checkpoints
# ----------------------------------------------------------------------

# Through a Unix socket, which holds no more than it says, so that the walsender
# soon waits for its receiver.  What it has still to send then keeps it from
# saying goodbye.
set_conninfo($standby, $primary, %login, host => $primary->host);
reconnect();
settle();
my $pid = receiver();
kill 'STOP', $pid;
write_wal(20);
my $sent = q{SELECT sent_lsn FROM pg_stat_replication};
my $last = '';
my $same = 0;
for (1 .. 300)
{
	my $now = $primary->safe_psql('postgres', $sent);
	$same = $now eq $last ? $same + 1 : 0;
	last if $same == 4;
	$last = $now;
	$primary->safe_psql('postgres', 'SELECT pg_sleep(0.5)');
}
$primary->safe_psql('postgres', q{SELECT pg_switch_wal(); ALTER SYSTEM SET max_slot_wal_keep_size = '1MB'});
write_wal(1);
$primary->safe_psql('postgres', 'SELECT pg_switch_wal()');
$primary->reload;
my ($out, $err) = ('', '');
my $checkpoint = IPC::Run::start([ 'psql', '-X', '-d', $primary->connstr('postgres'), '-c', 'CHECKPOINT' ], '<', '/dev/null', '>', \$out, '2>', \$err);
found('a stalled receiver past the limit', 'checkpoint_blocked', undef);
soon_is($primary, q{SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'ReplicationSlotDrop'}, '1', 'checkpoints do hang');
cure($primary);
$checkpoint->finish;
is($out, "CHECKPOINT\n", 'the remedy lets the checkpoint go on');
found('and then', 'slot_lost', undef);
kill 'CONT', $pid;
found('resumed', undef, $standby->safe_psql('postgres', 'SHOW server_version_num') >= 180000 ? 'slot_lost' : 'wal_removed');
$standby->stop;
renew_slot($primary, 'replica1');
$primary->safe_psql('postgres', q{ALTER SYSTEM RESET max_slot_wal_keep_size});
$primary->reload;
$primary->backup('again');
$standby = PostgreSQL::Test::Cluster->new('again');
$standby->init_from_backup($primary, 'again', has_streaming => 1);
$standby->append_conf('postgresql.conf', q{primary_slot_name = 'replica1'});
set_conninfo($standby, $primary, %login);
$standby->start;
found('rebuilt', '', '');

$standby->stop;
$primary->stop;
done_testing();
