# Causes are told in whatever language the servers log.

use strict;
use warnings FATAL => 'all';

use FindBin;
use lib $FindBin::RealBin;

use DiagKit;
use IPC::Run;
use POSIX qw(LC_MESSAGES setlocale);
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

# A locale, and a message catalog of the server's.  scripts/test brings both.
my $german = 'de_DE.UTF-8';
my $major = PostgreSQL::Test::Cluster->new('version')->pg_version =~ /^(\d+)/ ? $1 : '';
my ($sharedir) = split /\n/, `pg_config --localedir`;
plan skip_all => 'no German locale' if !defined setlocale(LC_MESSAGES, $german);
setlocale(LC_MESSAGES, 'C');
plan skip_all => 'no German messages' if !-f "$sharedir/de/LC_MESSAGES/postgres-$major.mo";

my $primary = new_primary('primary', "lc_messages = '$german'", 'max_wal_senders = 2',
	'replica_kit.warning_disconnected = 1s', 'replica_kit.critical_disconnected = 1h');
my ($standby, $password) = new_standby($primary, 'replica1');

sub reconnect
{
	$primary->safe_psql('postgres', q{SELECT pg_terminate_backend(pid) FROM pg_stat_replication});
	return;
}

sub found
{
	my ($name, $code, $on_primary) = @_;
	$on_primary //= $code;
	is(wait_for_diagnosis($primary, $on_primary), $on_primary, "$name: the primary says $on_primary");
	is(wait_for_diagnosis($standby, $code), $code, "$name: so does the standby");
	return;
}

found('a healthy pair', '');
my $rule = slurp_file($primary->data_dir . '/pg_hba.conf') =~ /^(host.*# pg_replica_kit: replica1)$/m ? $1 : die 'no rule';

set_hba($primary);
reconnect();
found('no rule', 'hba_no_entry');
soon_like($standby, q{SELECT evidence FROM replica_kit.diagnose()}, qr/kein pg_hba.conf-Eintrag/, 'in German');
set_hba($primary, 'host replication all 127.0.0.1/32 reject', $rule);
found('rejected', 'hba_rejects');
set_hba($primary, $rule);
$primary->safe_psql('postgres', 'ALTER ROLE replica1 NOREPLICATION');
reconnect();
found('role may not replicate', 'role_cannot_replicate');
$primary->safe_psql('postgres', 'ALTER ROLE replica1 REPLICATION');
set_conninfo($standby, $primary, user => 'replica1', password => 'unguessable', application_name => 'replica1');
reconnect();
found('wrong password', 'auth_failed');
set_conninfo($standby, $primary, user => 'replica1', password => $password, application_name => 'replica1');
found('right password', '');

$standby->append_conf('postgresql.conf', q{primary_slot_name = 'nosuch'});
$standby->reload;
is(wait_for_diagnosis($standby, 'slot_missing'), 'slot_missing', 'slot missing: the standby says slot_missing');
$standby->append_conf('postgresql.conf', q{primary_slot_name = 'replica1'});
$standby->reload;
found('slot there', '');

# Another has the slot.
$standby->stop;
my $dir = PostgreSQL::Test::Utils::tempdir();
my $log = '';
my $other = IPC::Run::start([ 'pg_receivewal', '-d', $primary->connstr('postgres'), '-D', $dir, '-S', 'replica1', '--no-loop', '--no-sync' ],
	'<', '/dev/null', '>&', \$log);
$primary->poll_query_until('postgres', q{SELECT active FROM pg_replication_slots}) or die "nobody takes the slot: $log";
$standby->start;
found('slot taken', 'slot_taken');
$other->kill_kill;
found('slot free', '');

# No walsender is free.
$standby->stop;
$primary->poll_query_until('postgres', 'SELECT count(*) = 0 FROM pg_stat_replication') or die 'a walsender stays';
my @taken = map {
	$primary->background_psql('postgres', on_error_stop => 0,
		extra_params => [ '-d', $primary->connstr('postgres') . ' replication=true' ]);
} 1 .. 2;
$standby->start;
found('no walsender free', 'walsenders_exhausted', 'walsenders_exhausted,walsenders_exhausted');
$_->quit for @taken;
found('walsenders free', '');

# Not the standby's own cluster.
my $stranger = new_primary('stranger', "lc_messages = '$german'");
$stranger->safe_psql('postgres', q{CREATE ROLE replica1 LOGIN REPLICATION});
set_hba($stranger, 'host replication replica1 127.0.0.1/32 trust');
set_conninfo($standby, $stranger, user => 'replica1', application_name => 'replica1');
is(wait_for_diagnosis($standby, 'other_cluster'), 'other_cluster', 'another cluster: the standby says other_cluster');
set_conninfo($standby, $primary, user => 'replica1', password => $password, application_name => 'replica1');
found('its own', '');
$stranger->stop;

# WAL that is gone.
$standby->stop;
$standby->append_conf('postgresql.conf', q{primary_slot_name = ''});
drop_slot($primary, 'replica1');
$primary->safe_psql('postgres', 'CREATE TABLE t (i int)');
$primary->safe_psql('postgres', 'INSERT INTO t VALUES (1); SELECT pg_switch_wal()') for 1 .. 3;
$primary->safe_psql('postgres', 'CHECKPOINT');
$standby->start;
found('WAL is gone', 'wal_removed');

$primary->stop;
is(wait_for_diagnosis($standby, 'upstream_unreachable'), 'upstream_unreachable', 'primary down: the standby says upstream_unreachable');
$standby->stop;
done_testing();
