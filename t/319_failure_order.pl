# A failure that was mended is over, and one that goes on is not, whatever the
# machine's clock is set to meanwhile; and a stream that is back is.  (The clock
# is set for one server only, by a library that stands between it and the system.)

use strict;
use warnings FATAL => 'all';

use FindBin;
use lib $FindBin::RealBin;

use DiagKit;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $library = "$FindBin::RealBin/../test/wall_clock.so";
my $clock = "$PostgreSQL::Test::Utils::tmp_check/failure_clock";
my $standby_clock = "$clock.standby";

# The file keeps its place, since it is mapped.
sub set_clock
{
	my ($seconds, $clock) = (@_, $clock);

	open my $out, -e $clock ? '+<' : '>', $clock or die "could not open \"$clock\": $!";
	binmode $out;
	syswrite $out, pack('q', $seconds);
	close $out;
	return;
}

set_clock(0);
set_clock(3600, $standby_clock);
my $primary = new_primary('primary');
my ($standby, $password) = new_standby($primary, 'replica1', 'replica_kit.warning_disconnected = 1s');
my %login = (user => 'replica1', application_name => 'replica1');
$standby->stop;
$primary->stop;
{
	local $ENV{LD_PRELOAD} = $library;
	local $ENV{PRK_WALL_CLOCK} = $clock;
	$primary->start;
}
$standby->start;

sub wait_for_stream
{
	$primary->poll_query_until('postgres', q{SELECT state = 'streaming' FROM replica_kit.status() WHERE name = 'replica1'})
	  or die 'the replica does not stream';
	return;
}

wait_for_stream();
my ($worker) = (slurp_file($primary->logfile) =~ /\[(\d+)\] LOG:  replica_kit worker started/g)[-1];
foreach my $jump (-3600, 7200)
{
	my $name = $jump < 0 ? 'set back' : 'set forward';

	set_conninfo($standby, $primary, %login, password => 'wrong');
	is(wait_for_diagnosis($primary, 'auth_failed'), 'auth_failed', "$name: a wrong password is the cause");
	set_clock($jump);
	$primary->poll_query_until('postgres', q{SELECT count(*) = 1 FROM replica_kit.diagnose('replica1') WHERE code = 'auth_failed'})
	  or die 'it is not the cause any more';
	pass("$name: it is still, while the replica tries");

	# It streams for so short a time that the worker does not see it.
	kill 'STOP', $worker;
	set_conninfo($standby, $primary, %login, password => $password);
	wait_for_stream();
	soon_is($primary, q{SELECT count(*) FROM replica_kit.diagnose('replica1') WHERE code = 'auth_failed'}, '0', "$name: mended, it is over");
	set_clock($jump - 1800);
	$standby->stop;
	$primary->poll_query_until('postgres', q{SELECT state = 'disconnected' FROM replica_kit.status() WHERE name = 'replica1'})
	  or die 'the replica does not go';
	is($primary->safe_psql('postgres', q{SELECT count(*) FROM replica_kit.diagnose('replica1') WHERE code = 'auth_failed'}), '0',
		"$name: gone later, it was not that");
	my $offset = -s $primary->logfile;
	kill 'CONT', $worker;
	$primary->safe_psql('postgres', q{ALTER SYSTEM SET replica_kit.critical_disconnected = '1s'});
	$primary->reload;
	$primary->wait_for_log(qr/"replica1" critical: /, $offset);
	unlike(slurp_file($primary->logfile, $offset), qr/last error/, "$name: nor is it its last error");
	$primary->safe_psql('postgres', 'ALTER SYSTEM RESET replica_kit.critical_disconnected');
	$primary->reload;
	$standby->start;
	$primary->wait_for_log(qr/LOG:  replica "replica1" ok: /, $offset);
}

# A machine that boots with its clock ahead, and sets it right when it has found
# its time server, just after the stream has come back.
$standby->stop;
set_conninfo($standby, $primary, %login, port => 1);
{
	local $ENV{LD_PRELOAD} = $library;
	local $ENV{PRK_WALL_CLOCK} = $standby_clock;
	$standby->start;
}
soon_is($standby, q{SELECT count(*) FROM replica_kit.unhealthy() WHERE name = 'upstream'}, '1', 'a standby that is cut off: it says so');
set_conninfo($standby, $primary, %login, password => $password);
$standby->poll_query_until('postgres', q{SELECT count(*) = 1 FROM pg_stat_wal_receiver}) or die 'the standby does not stream';
set_clock(0, $standby_clock);
soon_is($standby, q{SELECT count(*) FROM replica_kit.unhealthy()}, '0', 'its clock set back when it streams again: that is over');
soon_is($standby, q{SELECT lag_time FROM replica_kit.standby_status()}, '00:00:00', 'its clock set back when it streams again: it is not behind');

$standby->stop;
$primary->stop;
done_testing();
