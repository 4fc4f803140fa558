# libpq tries a connection twice where it may, with TLS and without.  A rule for
# TLS only then refuses the second attempt, which hides why the first failed:
# both are one failure, and the one that got further is the cause, on both sides.

use strict;
use warnings FATAL => 'all';

use FindBin;
use lib $FindBin::RealBin;

use DiagKit;
use File::Spec;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

plan skip_all => 'no openssl program to make a certificate with'
  unless grep { -x "$_/openssl" } File::Spec->path;

my $primary = new_primary('primary');
my $data = $primary->data_dir;
system_or_bail('openssl', 'req', '-new', '-x509', '-nodes', '-days', '2', '-subj', '/CN=localhost',
	'-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:prime256v1', '-keyout', "$data/server.key", '-out', "$data/server.crt");
chmod 0600, "$data/server.key" or die "chmod: $!";
my ($standby, $password) = new_standby($primary, 'replica1');
$primary->append_conf('postgresql.conf', 'ssl = on');
set_hba($primary, 'hostssl replication replica1 127.0.0.1/32 scram-sha-256  # pg_replica_kit: replica1');

foreach my $case ([ 'prefer', 'the first attempt' ], [ 'allow', 'the second' ])
{
	my ($mode, $which) = @$case;
	my %login = (user => 'replica1', application_name => 'replica1', sslmode => $mode);

	set_conninfo($standby, $primary, %login, password => $password);
	$primary->restart;
	$primary->poll_query_until('postgres', q{SELECT count(*) = 1 FROM pg_stat_replication JOIN pg_stat_ssl USING (pid) WHERE state = 'streaming' AND ssl})
	  or die 'the standby does not stream with TLS';
	set_conninfo($standby, $primary, %login, password => 'wrong');
	$primary->poll_query_until('postgres', q{SELECT count(*) = 0 FROM pg_stat_replication})
	  or die 'the standby does not reconnect';
	is(wait_for_diagnosis($primary, 'auth_failed'), 'auth_failed', "$mode: the password is the cause, $which");
	is(wait_for_diagnosis($standby, 'auth_failed'), 'auth_failed', "$mode: the standby says so, too");
	$primary->poll_query_until('postgres', q{SELECT sum(count) >= 3 FROM replica_kit.connection_errors() WHERE sqlstate = '28P01'})
	  or die 'no attempts';

	# two, while the second comes late, until they are tried again
	soon_is($primary, q{SELECT count(*) FROM replica_kit.connection_errors() WHERE sqlstate <> '28P01'}, '0', "$mode: both attempts are one row");
}

# Without TLS at all it is what it was.
set_conninfo($standby, $primary, user => 'replica1', application_name => 'replica1', sslmode => 'disable', password => $password);
is(wait_for_diagnosis($primary, 'tls_required'), 'tls_required', 'disable: TLS is required');

$standby->stop;
$primary->stop;
done_testing();
