# diagnose(), of replicas that can't connect: each scene is made on a real
# pair, both sides name its cause and nothing else, the remedy or the advice is
# run as it is printed, and then both are silent.

use strict;
use warnings FATAL => 'all';

use FindBin;
use lib $FindBin::RealBin;

use DiagKit;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my @conf = split /,/, $ENV{PRK_TEST_CONF} // '';
my $primary = new_primary('primary', 'max_wal_senders = 4', 'wal_keep_size = 64MB', @conf);
my ($standby, $password) = new_standby($primary, 'replica1');
my $rule = slurp_file($primary->data_dir . '/pg_hba.conf') =~ /^(host.*# pg_replica_kit: replica1)$/m ? $1 : die 'no rule';

# Both sides have nothing to say.
sub silent
{
	my ($name) = @_;
	is(wait_for_diagnosis($primary, ''), '', "$name: then the primary is silent");
	is(wait_for_diagnosis($standby, ''), '', "$name: and the standby");
	return;
}

# The standby drops its connection and tries again.
sub reconnect
{
	$primary->safe_psql('postgres', q{SELECT pg_terminate_backend(pid) FROM pg_stat_replication WHERE application_name = 'replica1'});
	return;
}

# Both sides find that, or the primary nothing; the primary's remedy.
sub found
{
	my ($name, $on_primary, $on_standby) = @_;
	is(wait_for_diagnosis($primary, $on_primary), $on_primary, "$name: the primary says $on_primary") if defined $on_primary;
	is(wait_for_diagnosis($standby, $on_standby), $on_standby, "$name: the standby says $on_standby") if defined $on_standby;
	return defined $on_primary && $on_primary ne '' ? remedy($primary) : '';
}

# Runs a remedy as it stands.
sub cure
{
	my ($node, $remedy) = @_;
	note $remedy;
	$node->safe_psql('postgres', $remedy);
	return;
}

silent('a healthy pair');
$primary->safe_psql('postgres', 'CREATE TABLE t AS SELECT generate_series(1, 100000) i');
silent('a pair that just worked');

# ----------------------------------------------------------------------
# pg_hba.conf
# ----------------------------------------------------------------------

set_hba($primary);
reconnect();
my $remedy = found('no rule', 'hba_no_entry', 'hba_no_entry');
like($remedy, qr/provision\('replica1', '127\.0\.0\.1/, 'no rule: the address is known, so the remedy lets it in');
cure($primary, $remedy);
silent('no rule');

set_hba($primary, 'host replication all 127.0.0.1/32 reject', $rule);
reconnect();
$remedy = found('rejected', 'hba_rejects', 'hba_rejects');
is($remedy, '', 'rejected: that is somebody\'s policy, and no remedy');
soon_is($primary, q{SELECT finding ~ 'Line 3 ', level FROM replica_kit.diagnose()}, 't|warning', 'rejected: the line is named');
{
	my $text = slurp_file($primary->data_dir . '/pg_hba.conf');
	$text =~ s/^.*reject\n//m;
	open my $fh, '>', $primary->data_dir . '/pg_hba.conf' or die $!;
	print $fh $text;
	close $fh;
}
do_advised($primary, qr/pg_reload_conf/);
silent('rejected');

set_hba($primary, 'host replication replica1 127.0.0.1/32 ident', $rule);
reconnect();
$remedy = found('shadowed', 'hba_shadowed', 'auth_failed');
is($remedy, '', 'shadowed: two statements are advice');
do_advised($primary, qr/revoke_address|provision/);
silent('shadowed');

# Whoever was refused by that method comes no more, and would be let in.
set_hba($primary, 'host replication replica1 127.0.0.1/32 ident', $rule);
reconnect();
found('shadowed again', 'hba_shadowed', undef);
$standby->stop;
set_hba($primary, $rule);
found('shadowed no more, and away', 'replica_down', undef);
$standby->start;
silent('shadowed no more');

set_hba($primary, 'hostssl replication replica1 127.0.0.1/32 scram-sha-256');
reconnect();
found('only with TLS', 'tls_required', 'hba_no_entry');
set_hba($primary, $rule);
silent('only with TLS');

set_hba($primary, $rule, 'host replication all 127.0.0.1/32 no_such_method');
$remedy = found('an error in the file', 'hba_error', '');
like($primary->safe_psql('postgres', q{SELECT level, name, evidence FROM replica_kit.diagnose('server')}), qr/^warning\|server\|Line 4 /, 'an error in the file: the line is named');
set_hba($primary, $rule);
do_advised($primary, qr/pg_reload_conf/);
silent('an error in the file');

# ----------------------------------------------------------------------
# Role and password
# ----------------------------------------------------------------------

set_conninfo($standby, $primary, user => 'replica1', password => 'unguessable', application_name => 'replica1');
$remedy = found('wrong password', 'auth_failed', 'auth_failed');
is($remedy, '', 'wrong password: a new one is no remedy, it would lock out who has the old one');
$password = do_advised($primary, qr/rotate_password\('replica1'\)/);
set_conninfo($standby, $primary, user => 'replica1', password => $password, application_name => 'replica1');
silent('wrong password');

$primary->safe_psql('postgres', q{ALTER ROLE replica1 PASSWORD NULL});
reconnect();
$remedy = found('no secret', 'auth_failed', 'auth_failed');
$password = do_advised($primary, qr/rotate_password/);
soon_like($primary, q{SELECT finding FROM replica_kit.diagnose()}, qr/^(?:Role "replica1" has no password|The replica comes with a wrong password)/, 'no secret: that is said');
set_conninfo($standby, $primary, user => 'replica1', password => $password, application_name => 'replica1');
silent('no secret');

{
	# no password anywhere
	set_conninfo($standby, $primary, user => 'replica1', application_name => 'replica1', passfile => '/nonexistent');
	reconnect();
	is(wait_for_diagnosis($standby, 'no_password'), 'no_password', 'nothing to send: the standby says no_password');
	is(wait_for_diagnosis($primary, 'replica_down'), 'replica_down', 'nothing to send: the primary sees nobody');
	set_conninfo($standby, $primary, user => 'replica1', password => $password, application_name => 'replica1');
	silent('nothing to send');
}

$primary->safe_psql('postgres', 'ALTER ROLE replica1 NOREPLICATION');
reconnect();
$remedy = found('role may not replicate', 'role_cannot_replicate', 'role_cannot_replicate');
is($remedy, '', 'role may not replicate: somebody may have meant that');
do_advised($primary, qr/^ALTER ROLE/);
silent('role may not replicate');

set_conninfo($standby, $primary, user => 'replica1', password => $password, application_name => 'replica1', options => '-c work_mem=much');
found('refused for another reason', 'upstream_refused', 'upstream_refused');
soon_is($standby, q{SELECT evidence ~ 'invalid value for parameter "work_mem"' FROM replica_kit.diagnose()}, 't', 'refused for another reason: which is quoted');
set_conninfo($standby, $primary, user => 'replica1', password => $password, application_name => 'replica1');
silent('refused for another reason');

$primary->safe_psql('postgres', 'DROP ROLE replica1');
reconnect();
$remedy = found('role missing', 'role_missing', 'auth_failed');
like($remedy, qr/provision\('replica1', '127\.0\.0\.1\/32'\)/, 'role missing: provision makes it anew');
$password = (split /\|/, $primary->safe_psql('postgres', $remedy))[4];
set_conninfo($standby, $primary, user => 'replica1', password => $password, application_name => 'replica1');
silent('role missing');

# ----------------------------------------------------------------------
# Slots and walsenders
# ----------------------------------------------------------------------

$primary->safe_psql('postgres', <<'SQL');
DO $$
BEGIN
	FOR i IN 1 .. 10000 LOOP
		BEGIN
			PERFORM pg_terminate_backend(active_pid) FROM pg_replication_slots WHERE slot_name = 'replica1';
			PERFORM pg_drop_replication_slot('replica1');
			RETURN;
		EXCEPTION WHEN object_in_use THEN
			PERFORM pg_sleep(0.002);
		END;
	END LOOP;
	RAISE 'the slot stays';
END $$;
SQL
$remedy = found('slot missing', 'slot_missing', 'slot_missing');
soon_is($primary, q{SELECT level FROM replica_kit.diagnose()}, 'critical', 'slot missing: critical');
cure($primary, $remedy);
silent('slot missing');

# A second server with the same configuration.
$primary->backup('twin');
my $twin = PostgreSQL::Test::Cluster->new('twin');
$twin->init_from_backup($primary, 'twin', has_streaming => 1);
$twin->append_conf('postgresql.conf', q{primary_slot_name = 'replica1'});
set_conninfo($twin, $primary, user => 'replica1', password => $password, application_name => 'twin');
$twin->start;
is(wait_for_diagnosis($primary, 'slot_taken'), 'slot_taken', 'slot wanted by two: the primary says slot_taken');
is(wait_for_diagnosis($twin, 'slot_taken'), 'slot_taken', 'slot wanted by two: so does the one that wants it');
soon_is($primary, q{SELECT evidence ~ 'as "replica1"; wanted from 127.0.0.1 as "twin"' FROM replica_kit.diagnose()}, 't', 'slot wanted by two: both are named');
is(remedy($primary), '', 'slot wanted by two: nobody is ended unseen');
my ($twin_password) = $primary->safe_psql('postgres', q{SELECT password FROM replica_kit.provision('twin', '127.0.0.1')});
$twin->append_conf('postgresql.conf', q{primary_slot_name = 'twin'});
set_conninfo($twin, $primary, user => 'twin', password => $twin_password, application_name => 'twin');
is(wait_for_diagnosis($twin, ''), '', 'slot wanted by two: with a slot of its own it is silent');
silent('slot wanted by two');
$twin->stop;
$primary->poll_query_until('postgres', q{SELECT NOT active FROM pg_replication_slots WHERE slot_name = 'twin'})
  or die 'the twin stays';
$primary->safe_psql('postgres', q{SELECT replica_kit.deprovision('twin')});

# All walsenders taken.
$standby->stop;
$primary->poll_query_until('postgres', 'SELECT count(*) = 0 FROM pg_stat_replication') or die 'a walsender stays';
my @taken = map {
	$primary->background_psql('postgres', on_error_stop => 0,
		extra_params => [ '-d', $primary->connstr('postgres') . ' replication=true' ]);
} 1 .. 4;
$standby->start;
$remedy = found('no walsender free', 'walsenders_exhausted,walsenders_exhausted', 'walsenders_exhausted');
soon_is($primary, q{SELECT level, name FROM replica_kit.diagnose('server')}, 'warning|server', q{no walsender free: the server's own cause});
soon_is($primary, q{SELECT code, advice FROM replica_kit.diagnose('replica1')}, q{walsenders_exhausted|What to do is said of this server: SELECT * FROM replica_kit.diagnose('server');},
	'no walsender free: whoever asks for the replica is told');
is($remedy, '', 'no walsender free: raised here first, the standbys would stop');
do_advised($primary, qr/max_wal_senders/);
$_->quit for @taken;
$standby->append_conf('postgresql.conf', 'max_wal_senders = 14');
$standby->restart;
$primary->restart;
silent('no walsender free');

# ----------------------------------------------------------------------
# The upstream is not there, or not the one
# ----------------------------------------------------------------------

$primary->stop;
is(wait_for_diagnosis($standby, 'upstream_unreachable'), 'upstream_unreachable', 'primary down: the standby says upstream_unreachable');
$primary->start;
silent('primary down');

my $other = new_primary('other');
$other->safe_psql('postgres', q{CREATE ROLE replica1 LOGIN REPLICATION});
set_hba($other, 'host replication replica1 127.0.0.1/32 trust');
set_conninfo($standby, $other, user => 'replica1', application_name => 'replica1');
is(wait_for_diagnosis($standby, 'other_cluster'), 'other_cluster', 'another cluster: the standby says so');
soon_is($standby, q{SELECT level FROM replica_kit.diagnose()}, 'critical', 'another cluster: critical');
is(wait_for_diagnosis($other, ''), '', 'another cluster: that one knows nothing of it');
set_conninfo($standby, $primary, user => 'replica1', password => $password, application_name => 'replica1');
silent('another cluster');

$other->stop;
$standby->stop;
$primary->stop;
done_testing();
