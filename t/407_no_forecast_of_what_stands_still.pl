# What a load that has ended, a replica that stands still and one that falls
# silent are told as: nothing is forecast of what does not move.

use strict;
use warnings FATAL => 'all';

use FindBin;
use lib $FindBin::RealBin;

use DiagKit;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $primary = new_primary('primary', 'autovacuum = off', 'checkpoint_timeout = 1h', 'max_wal_size = 4GB', 'max_slot_wal_keep_size = 1GB',
	'replica_kit.warning_disconnected = 1h', 'replica_kit.critical_disconnected = 2h', 'replica_kit.warning_lag_time = 3s',
	'replica_kit.critical_lag_time = 1h', 'replica_kit.lag_grace = 0', 'replica_kit.alert_after = 0');
my ($standby, $password) = new_standby($primary, 'replica1');

sub write_wal
{
	my ($megabytes) = @_;
	$primary->safe_psql('postgres', "SELECT count(pg_logical_emit_message(false, '', repeat('x', 100000))) FROM generate_series(1, 10 * $megabytes); CREATE TEMP TABLE x (i int)");
	return;
}

# ----------------------------------------------------------------------
# A load that has ended
# ----------------------------------------------------------------------

write_wal(100);
$primary->wait_for_catchup('replica1');
$primary->safe_psql('postgres', q{ALTER SYSTEM SET replica_kit.warning_forecast = '24d'; ALTER SYSTEM SET replica_kit.critical_forecast = '24d'});
$primary->reload;
$standby->stop;
$primary->poll_query_until('postgres', q{SELECT state = 'disconnected' FROM replica_kit.status()}) or die 'it is still there';
is($primary->safe_psql('postgres', q{SELECT lost_in, disk_full_in FROM replica_kit.status()}), '|', 'a load that has ended: nothing is forecast of a slot whose replica has just gone');
is($primary->safe_psql('postgres', q{SELECT count(*) FROM replica_kit.unhealthy()}), '0', 'a load that has ended: and nothing is an alarm');
$primary->safe_psql('postgres', q{ALTER SYSTEM SET replica_kit.warning_forecast = -1; ALTER SYSTEM SET replica_kit.critical_forecast = -1});
$primary->reload;

# ----------------------------------------------------------------------
# A lag in time, of who is away
# ----------------------------------------------------------------------

write_wal(1);
soon_is($primary, q{SELECT health, lag_time >= '3 s' FROM replica_kit.status()}, 'warning|t', 'away: what it lacks is as old as it is, and past the limit');
soon_is($primary, q{SELECT code, level FROM replica_kit.diagnose('replica1')}, 'replica_down|warning', 'away: that is told');
$standby->start;
is(wait_for_diagnosis($primary, ''), '', 'back: nothing is wrong');

# ----------------------------------------------------------------------
# A replica that falls silent
# ----------------------------------------------------------------------

my $pid = $standby->safe_psql('postgres', 'SELECT pid FROM pg_stat_wal_receiver');
$primary->safe_psql('postgres', q{ALTER SYSTEM SET wal_sender_timeout = '3s'});
$primary->reload;
kill 'STOP', $pid;
is(wait_for_diagnosis($primary, 'replica_unresponsive'), 'replica_unresponsive', 'silent: the timeout is the evidence');
like($primary->safe_psql('postgres', q{SELECT evidence FROM replica_kit.diagnose('replica1')}), qr/^wal_sender_timeout ended its connection .* ago \(.*\);\sit was at 127\.0\.0\.1;\sno attempt since;/, 'silent: since when, and where it was');
kill 'CONT', $pid;
is(wait_for_diagnosis($primary, ''), '', 'awake: nothing is wrong');

$_->stop foreach $standby, $primary;
done_testing();
