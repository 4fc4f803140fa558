# Causes are told in whatever language the servers log.

use strict;
use warnings FATAL => 'all';

use FindBin;
use lib $FindBin::RealBin;

use DiagKit;
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

my $primary = new_primary('primary', "lc_messages = '$german'");
my ($standby, $password) = new_standby($primary, 'replica1');

sub reconnect
{
	$primary->safe_psql('postgres', q{SELECT pg_terminate_backend(pid) FROM pg_stat_replication});
	return;
}

sub found
{
	my ($name, $code) = @_;
	is(wait_for_diagnosis($primary, $code), $code, "$name: the primary says $code");
	is(wait_for_diagnosis($standby, $code), $code, "$name: so does the standby");
	return;
}

found('a healthy pair', '');
my $rule = slurp_file($primary->data_dir . '/pg_hba.conf') =~ /^(host.*# pg_replica_kit: replica1)$/m ? $1 : die 'no rule';

set_hba($primary);
reconnect();
found('no rule', 'hba_no_entry');
like($standby->safe_psql('postgres', q{SELECT evidence FROM replica_kit.diagnose()}), qr/kein pg_hba.conf-Eintrag/, 'in German');
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

$primary->stop;
is(wait_for_diagnosis($standby, 'upstream_unreachable'), 'upstream_unreachable', 'primary down: the standby says upstream_unreachable');
$standby->stop;
done_testing();
