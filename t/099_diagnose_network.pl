# diagnose(), of what comes slowly or not at all: a network that is slow or
# dead, a receiver that hangs.  Both sides name it, the remedy is run as it is
# printed, and both are silent.

use strict;
use warnings FATAL => 'all';

use FindBin;
use lib $FindBin::RealBin;

use DiagKit;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use SlowNet;
use Test::More;

my $primary = new_primary('primary', 'autovacuum = off', 'checkpoint_timeout = 1h', 'max_wal_size = 10GB',
	'wal_sender_timeout = 0', 'replica_kit.warning_lag = 1MB', 'replica_kit.lag_grace = 1s',
	'replica_kit.warning_disconnected = 1s', 'replica_kit.critical_disconnected = 1h', 'replica_kit.alert_after = 0');
my ($standby, $password) = new_standby($primary, 'replica1', 'wal_receiver_timeout = 0');
$primary->safe_psql('postgres', 'CREATE TABLE t (i int, filler text)');
my $net = SlowNet->new($primary->port);
my %login = (user => 'replica1', password => $password, application_name => 'replica1');

sub found
{
	my ($name, $on_primary, $on_standby) = @_;
	is(wait_for_diagnosis($primary, $on_primary), $on_primary, "$name: the primary says " . ($on_primary || 'nothing')) if defined $on_primary;
	is(wait_for_diagnosis($standby, $on_standby), $on_standby, "$name: the standby says " . ($on_standby || 'nothing')) if defined $on_standby;
	return;
}

sub cure
{
	my ($node) = @_;
	my $remedy = $node->safe_psql('postgres', q{SELECT remedy FROM replica_kit.diagnose()});
	note $remedy;
	$node->safe_psql('postgres', $remedy);
	return;
}

sub write_wal
{
	my ($megabytes) = @_;
	$primary->safe_psql('postgres', "SELECT count(pg_logical_emit_message(false, '', repeat('x', 100000))) FROM generate_series(1, 10 * $megabytes)");
	return;
}

sub receiver
{
	return $standby->safe_psql('postgres', q{SELECT pid FROM pg_stat_wal_receiver});
}

sub reconnect
{
	$primary->safe_psql('postgres', q{SELECT pg_terminate_backend(pid) FROM pg_stat_replication});
	$primary->poll_query_until('postgres', q{SELECT count(*) = 1 FROM pg_stat_replication WHERE state = 'streaming'})
	  or die 'the standby does not return';
	return;
}

# Connected for longer than an instant.
sub settle
{
	my $since = $standby->safe_psql('postgres', 'SELECT clock_timestamp()');
	$standby->poll_query_until('postgres', "SELECT lag_time = '0' AND clock_timestamp() > timestamptz '$since' + interval '4 s' FROM replica_kit.standby_status()")
	  or die 'the standby does not settle';
	return;
}

# ----------------------------------------------------------------------
# The network
# ----------------------------------------------------------------------

set_conninfo($standby, $primary, %login, port => $net->port);
reconnect();
settle();
found('a healthy pair', '', '');

$net->tell(300000, 0);
write_wal(30);
found('a slow network', 'network_slow', 'network_slow');
like($standby->safe_psql('postgres', 'SELECT evidence FROM replica_kit.diagnose()'), qr/^receiving is .* behind; not received \d+ MB/, 'a slow network: the standby knows how much is to come');
cure($primary);
$net->tell(0, 0);
found('a slow network no more', '', '');

# The receiver gives up and comes anew, and its old connection is still there.
$standby->append_conf('postgresql.conf', 'wal_receiver_timeout = 3s');
$standby->reload;
$net->tell(0, 1);
found('a dead connection', 'slot_taken', 'slot_taken');
like($primary->safe_psql('postgres', 'SELECT finding FROM replica_kit.diagnose()'), qr/^the replica wants its slot, but a connection under the same name has it: its own that died/, 'a dead connection: it may be its own');
cure($primary);
found('a dead connection ended', '', '');
set_conninfo($standby, $primary, %login);
reconnect();

# ----------------------------------------------------------------------
# The receiver
# ----------------------------------------------------------------------

$primary->append_conf('postgresql.conf', 'wal_sender_timeout = 24s');
$primary->reload;
settle();
my $pid = receiver();
kill 'STOP', $pid;
write_wal(2);
found('a receiver that hangs', undef, 'receiver_stalled');
found('a receiver that hangs', 'receiver_stalled', undef);
like($primary->safe_psql('postgres', 'SELECT evidence FROM replica_kit.diagnose()'), qr/^no reply for .* behind; /, 'a receiver that hangs: since when');
cure($primary);
kill 'CONT', $pid;
found('it goes on', '', '');

$standby->stop;
$primary->stop;
done_testing();
