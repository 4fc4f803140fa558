# diagnose(): scenes whose remedy is not done with one statement.  TLS that is
# asked for, slots that are used up, and a failover after which a standby has
# more than its new primary.

use strict;
use warnings FATAL => 'all';

use FindBin;
use lib $FindBin::RealBin;

use DiagKit;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $primary = new_primary('primary', 'autovacuum = off', 'checkpoint_timeout = 1h', 'max_replication_slots = 3',
	'wal_keep_size = 128MB', 'replica_kit.warning_disconnected = 1s', 'replica_kit.critical_disconnected = 1h');
my ($standby1, $password1) = new_standby($primary, 'standby1');
my ($standby2, $password2) = new_standby($primary, 'standby2');
my %login1 = (user => 'standby1', password => $password1, application_name => 'standby1');
my %login2 = (user => 'standby2', password => $password2, application_name => 'standby2');

sub found
{
	my ($name, $node, $wanted) = @_;
	is(wait_for_diagnosis($node, $wanted), $wanted, "$name: " . $node->name . ' says ' . ($wanted || 'nothing'));
	return;
}

# ----------------------------------------------------------------------
# TLS
# ----------------------------------------------------------------------

SKIP:
{
	my $dir = $primary->data_dir;
	skip 'no openssl', 6 if system("openssl req -new -x509 -days 30 -nodes -subj /CN=primary -keyout $dir/server.key -out $dir/server.crt >/dev/null 2>&1") != 0;
	chmod 0600, "$dir/server.key";
	my @rules = grep { /^host/ } split /\n/, slurp_file("$dir/pg_hba.conf");
	set_hba($primary, map { s/^host /hostssl /r } @rules);
	$primary->safe_psql('postgres', q{SELECT pg_terminate_backend(pid) FROM pg_stat_replication WHERE application_name = 'standby1'});
	found('TLS asked for', $primary, 'tls_required');
	found('TLS asked for', $standby1, 'hba_no_entry');
	is(remedy($primary), '', 'TLS asked for: what is to be done is not a statement');
	$primary->safe_psql('postgres', 'ALTER SYSTEM SET ssl = on');
	$primary->reload;
	set_conninfo($standby1, $primary, %login1, sslmode => 'require');
	set_conninfo($standby2, $primary, %login2, sslmode => 'require');
	found('done', $primary, '');
	found('done', $standby1, '');
	$primary->poll_query_until('postgres', q{SELECT count(*) = 2 FROM pg_stat_replication JOIN pg_stat_ssl USING (pid) WHERE ssl})
	  or die 'no TLS';
	pass('done: they stream with TLS');
	set_hba($primary, @rules);
}

# ----------------------------------------------------------------------
# Slots used up
# ----------------------------------------------------------------------

$primary->safe_psql('postgres', q{SELECT pg_create_physical_replication_slot('third')});
$primary->command_fails([ 'pg_basebackup', '-d', $primary->connstr('postgres'), '-D', $primary->backup_dir . '/full', '-c', 'fast', '--no-sync' ], 'no slot is left for a base backup');
is($primary->safe_psql('postgres', q{SELECT code, level FROM replica_kit.diagnose('server')}), "slots_exhausted|warning\nreload_needed|info", 'no slot is left: that is said');
do_remedies($primary);
$primary->safe_psql('postgres', q{SELECT pg_drop_replication_slot('third')});
$primary->restart;
found('more are allowed', $primary, '');
$primary->command_ok([ 'pg_basebackup', '-d', $primary->connstr('postgres'), '-D', $primary->backup_dir . '/full', '-c', 'fast', '--no-sync' ], 'more are allowed: a base backup finds one');

# ----------------------------------------------------------------------
# What was once
# ----------------------------------------------------------------------

# Why it failed before it came is not why it is gone now.
$standby2->append_conf('postgresql.conf', q{primary_slot_name = 'nosuch'});
$standby2->reload;
$primary->poll_query_until('postgres', q{SELECT count(*) = 1 FROM replica_kit.diagnose('nosuch') WHERE code = 'slot_missing'})
  or die 'a missing slot is not seen';
$standby2->append_conf('postgresql.conf', q{primary_slot_name = 'standby2'});
$standby2->reload;
found('its own slot again', $primary, '');
my $then = $primary->safe_psql('postgres', 'SELECT clock_timestamp()');
$primary->poll_query_until('postgres', qq{SELECT count(*) > 0 FROM replica_kit.history('standby2') WHERE state = 'streaming' AND sampled_at > '$then'})
  or die 'the worker has not seen it';
$standby2->stop;
$primary->poll_query_until('postgres', q{SELECT count(*) = 1 FROM replica_kit.diagnose('standby2')})
  or die 'nobody misses it';
soon_is($primary, q{SELECT string_agg(concat_ws(' ', code, name), ', ') FROM replica_kit.diagnose()}, 'replica_down standby2',
	'stopped: it is down, whatever kept it out before');
$standby2->start;
found('started', $primary, '');

# ----------------------------------------------------------------------
# A failover to the one that had less
# ----------------------------------------------------------------------

$primary->wait_for_catchup('standby1');
set_conninfo($standby1, $primary, %login1, port => 1);
$primary->poll_query_until('postgres', q{SELECT count(*) = 0 FROM pg_stat_replication WHERE application_name = 'standby1'})
  or die 'the first is not cut off';

# By a segment at least: of what is in the same one the new primary would send
# its own, and not know.
# Where nothing is in a segment yet, nothing is switched.
$primary->safe_psql('postgres', q{SELECT pg_logical_emit_message(true, 'x', 'x'); SELECT pg_switch_wal()});
$primary->safe_psql('postgres', q{CREATE TABLE ahead AS SELECT generate_series(1, 10000)});
$primary->wait_for_catchup('standby2');
$primary->stop('immediate');
$standby1->promote;
$standby1->safe_psql('postgres', q{SELECT replica_kit.provision('standby2', '127.0.0.1')});
set_conninfo($standby2, $standby1, %login2);
$standby1->poll_query_until('postgres', q{SELECT count(*) = 1 FROM replica_kit.diagnose('standby2') WHERE code = 'other_timeline' AND level = 'critical'})
  or diag($standby1->safe_psql('postgres', 'SELECT * FROM replica_kit.diagnose(); SELECT * FROM replica_kit.connection_errors()'));
soon_is($standby1, q{SELECT string_agg(code, ',') FROM replica_kit.diagnose('standby2')}, 'other_timeline', 'the other was ahead: the new primary says other_timeline');
found('the other was ahead', $standby2, 'other_timeline');
soon_like($standby1, q{SELECT advice FROM replica_kit.diagnose('standby2')}, qr/^  sh join_standby2\.sh --cluster \d+\/main --rebuild  /m, 'the other was ahead: it must be rebuilt');
$standby2->stop;
$standby1->backup('again');
my $again = PostgreSQL::Test::Cluster->new('again');
$again->init_from_backup($standby1, 'again', has_streaming => 1);
$again->append_conf('postgresql.conf', q{primary_slot_name = 'standby2'});
set_conninfo($again, $standby1, %login2);
$again->start;
found('rebuilt', $again, '');
$standby1->poll_query_until('postgres', q{SELECT count(*) = 0 FROM replica_kit.diagnose('standby2')})
  or diag($standby1->safe_psql('postgres', 'SELECT * FROM replica_kit.diagnose()'));
found('rebuilt: nobody is missed, least of all the new primary itself', $standby1, '');

$again->stop;
$standby1->stop;
done_testing();
