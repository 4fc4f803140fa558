# diagnose(), of what comes slowly or not at all: a network that is slow or
# dead, a receiver that hangs.  Both sides name it, the remedy is run as it is
# printed, and both are silent.

use strict;
use warnings FATAL => 'all';

use FindBin;
use lib $FindBin::RealBin;

use DiagKit;
use DiagPair;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use SlowNet;
use Test::More;

start_primary();
start_standby();
my $net = SlowNet->new($primary->port);

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
soon_like($standby, 'SELECT evidence FROM replica_kit.diagnose()', qr/^receiving is .* behind;\snot received \d+ MB/, 'a slow network: the standby knows how much is to come');
cure($primary);
$net->tell(0, 0);
found('a slow network no more', '', '');

# The receiver gives up and comes anew, and its old connection is still there.
$standby->append_conf('postgresql.conf', 'wal_receiver_timeout = 3s');
$standby->reload;
$net->tell(0, 1);
found('a dead connection', 'slot_taken', 'slot_taken');
soon_like($primary, 'SELECT finding FROM replica_kit.diagnose()', qr/^The replica wants its slot, but a connection of the same name has it\./, 'a dead connection: it may be its own');
do_advised($primary, qr/pg_terminate_backend/);
found('a dead connection ended', '', '');

# What the primary says does not arrive: it is answered no more.
$primary->append_conf('postgresql.conf', 'authentication_timeout = 2s');
$primary->reload;
$net->cut('down');
found('a way back that is cut', 'replica_unresponsive', undef);
soon_like($primary, 'SELECT evidence FROM replica_kit.diagnose()', qr/^it comes, and does not answer when asked for its password: authentication_timeout ended /, 'a way back that is cut: the replica does come');
is(errors_like($primary, q{direction = 'in' AND sqlstate = '57014' AND message = 'canceling authentication due to timeout' AND role_name = 'replica1'}) =~ /^1\|[1-9]/, 1,
	'a way back that is cut: the login is in connection_errors()');
$net->cut('');
found('the way back is open', '', '');
set_conninfo($standby, $primary, %login);
reconnect();

# ----------------------------------------------------------------------
# The receiver
# ----------------------------------------------------------------------

# It is called stalled five seconds after half of that, and is gone after all.
$primary->append_conf('postgresql.conf', 'wal_sender_timeout = 40s');
$primary->reload;
settle();
my $pid = receiver();
kill 'STOP', $pid;
write_wal(2);
found('a receiver that hangs', undef, 'receiver_stalled');
found('a receiver that hangs', 'receiver_stalled', undef);
soon_like($primary, 'SELECT evidence FROM replica_kit.diagnose()', qr/^no reply for .* behind;\s/, 'a receiver that hangs: since when');
cure($primary);
kill 'CONT', $pid;
found('it goes on', '', '');

$standby->stop;
$primary->stop;
done_testing();
