# A worker that finds slots which nobody holds: some wait for a replica that is
# still to come, as they do for a day, others have been left.

use strict;
use warnings FATAL => 'all';

use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

# No worker, so far.
my $primary = PostgreSQL::Test::Cluster->new('primary');
$primary->init(allows_streaming => 'logical');
$primary->append_conf('postgresql.conf', <<~CONF);
	listen_addresses = '127.0.0.1'
	checkpoint_timeout = 1h
	replica_kit.check_interval = 500ms
	replica_kit.warning_disconnected = 1s
	replica_kit.critical_disconnected = 4s
	CONF
$primary->start;

# awaited and reserving wait for replicas; left and its like had one.
my $making = time;
$primary->safe_psql('postgres', <<~SQL);
	CREATE EXTENSION pg_replica_kit;
	SELECT replica_kit.provision('awaited', '127.0.0.1');
	SELECT pg_create_physical_replication_slot('left', true);
	SELECT pg_create_physical_replication_slot('plain');
	SELECT pg_create_logical_replication_slot('decoder', 'test_decoding');
	SQL
my $made = time;
my $born = `stat -c %W @{[ $primary->data_dir ]}/pg_replslot/awaited`;
plan skip_all => 'the file system does not tell when files were made'
  if $born !~ /^[1-9]/;

$primary->backup('one');
my $standby = PostgreSQL::Test::Cluster->new('standby');
$standby->init_from_backup($primary, 'one', has_streaming => 1);
$standby->append_conf('postgresql.conf', "primary_slot_name = 'left'");
$standby->start;
$primary->wait_for_catchup($standby);
$primary->poll_query_until('postgres',
	q{SELECT restart_lsn = pg_current_wal_lsn() FROM pg_replication_slots WHERE slot_name = 'left'})
  or die 'the standby does not say how far it is';
$standby->stop;

# What is written within ten seconds after it was made counts as its making.
my $wait = $made + 12 - time;
$primary->safe_psql('postgres', "SELECT pg_sleep($wait)") if $wait > 0;

# What the worker makes of each slot, once it has judged.
sub states
{
	$primary->poll_query_until('postgres',
		q{SELECT count(*) = 4 AND bool_or(name = 'left' AND alert = 'critical') FROM replica_kit.status()})
	  or die 'the slot that was left is not critical';
	return $primary->safe_psql('postgres',
		q{SELECT string_agg(name || ' ' || state || ' ' || alert, ', ' ORDER BY name) FROM replica_kit.status() WHERE slot_type = 'physical'});
}

my $wanted = 'awaited never connected ok, left disconnected critical, plain never connected ok';
$primary->append_conf('postgresql.conf', q{shared_preload_libraries = 'pg_replica_kit'});
$primary->restart;
is(states(), $wanted, 'a worker that starts for the first time knows slots that were never used');

# How long it has waited already, from when it was made.
$primary->poll_query_until('postgres',
	q{SELECT alert = 'critical' FROM replica_kit.status() WHERE name = 'decoder'})
  or die 'a logical slot that nobody reads is not critical';
my $asking = time;
my ($number, $unit) = $primary->safe_psql('postgres', q{SELECT reason FROM replica_kit.status() WHERE name = 'awaited'}) =~
  /^never connected, slot was made (\d+)(?:\.\d)? (s|min)/;
my $age = $number * ($unit eq 'min' ? 60 : 1);
my $asked = time;

# What it says is rounded down, and so are the times of both.
cmp_ok($age, '>=', $asking - $made - ($unit eq 'min' ? 60 : 1) - 1, 'and since when, not less');
cmp_ok($age, '<=', $asked - $making + 1, 'and not more');

$primary->restart;
is(states(), $wanted, 'so it does after each restart');

# Used at last, and left.
$standby->append_conf('postgresql.conf', "primary_slot_name = 'awaited'");
$standby->start;
$primary->wait_for_catchup($standby);
$standby->stop;
$primary->restart;
ok($primary->poll_query_until('postgres', q{SELECT state = 'disconnected' AND alert = 'critical' FROM replica_kit.status() WHERE name = 'awaited'}),
	'a slot that was used is no longer awaited');

# Switched on again, the worker does not know the past; nor does a file tell
# what has happened since the last checkpoint.
$primary->safe_psql('postgres', q{ALTER SYSTEM SET replica_kit.worker = off});
$primary->reload;
$primary->poll_query_until('postgres', 'SELECT bool_and(alert IS NULL) FROM replica_kit.status()') or die 'the worker goes on';
$primary->safe_psql('postgres', q{SELECT pg_create_physical_replication_slot(name, true) FROM unnest(ARRAY['late', 'passing']) name});
$standby->append_conf('postgresql.conf', "primary_slot_name = 'passing'");
$standby->start;
$primary->safe_psql('postgres', 'CREATE TABLE t ()');
$primary->wait_for_catchup($standby, 'flush');
$primary->poll_query_until('postgres',
	q{SELECT restart_lsn = pg_current_wal_lsn() FROM pg_replication_slots WHERE slot_name = 'passing'})
  or die 'the standby does not say how far it is';
$standby->stop;
$primary->poll_query_until('postgres', q{SELECT NOT active FROM pg_replication_slots WHERE slot_name = 'passing'})
  or die 'the slot is still in use';
$primary->safe_psql('postgres', q{ALTER SYSTEM RESET replica_kit.worker});
$primary->reload;
$primary->poll_query_until('postgres', 'SELECT bool_and(alert IS NOT NULL) FROM replica_kit.status()') or die 'no worker';
is($primary->safe_psql('postgres', q{SELECT string_agg(name || ' ' || state, ', ' ORDER BY name) FROM replica_kit.status() WHERE name IN ('late', 'passing')}),
	'late never connected, passing disconnected', 'nor is one that has moved and whose file was not written yet');

# A crash forgets that a slot was used, as the file does not have it yet, and the
# worker does not say "never" then, nor does it after the next clean stop.
$primary->safe_psql('postgres', q{CHECKPOINT; SELECT pg_create_physical_replication_slot('forgotten', true)});
$made = time;
$standby->append_conf('postgresql.conf', "primary_slot_name = 'forgotten'");
$standby->start;
$primary->wait_for_catchup($standby);
$primary->poll_query_until('postgres', q{SELECT state = 'streaming' AND alert IS NOT NULL FROM replica_kit.status() WHERE name = 'forgotten'})
  or die 'the slot is not used';
$standby->stop;
$wait = $made + 12 - time;
$primary->safe_psql('postgres', "SELECT pg_sleep($wait)") if $wait > 0;
$primary->stop('immediate');
foreach my $what ('a crash', 'a clean stop after that')
{
	$primary->start;
	ok($primary->poll_query_until('postgres', q{SELECT state = 'disconnected' AND alert = 'critical' FROM replica_kit.status() WHERE name = 'forgotten'}),
		"after $what nobody says of a slot that it was never used");
	$primary->safe_psql('postgres', q{SELECT pg_create_physical_replication_slot('fresh', true)}) if $what eq 'a crash';
	is($primary->safe_psql('postgres', q{SELECT state FROM replica_kit.status() WHERE name = 'fresh'}), 'never connected', 'but of one that was made since');
	$primary->stop;
}
done_testing();
