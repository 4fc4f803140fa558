# A primary and its standby between which something hangs: no timeout of theirs
# ends it, and what is found is told at once.
package DiagPair;

use strict;
use warnings FATAL => 'all';

use DiagKit;
use Exporter 'import';
use Test::More;

our @EXPORT = qw($primary $standby %login start_primary start_standby found
  cure write_wal receiver reconnect settle);

our ($primary, $standby, %login);

sub start_primary
{
	$primary = new_primary('primary', 'autovacuum = off', 'checkpoint_timeout = 1h', 'max_wal_size = 10GB',
		'wal_sender_timeout = 0', 'replica_kit.warning_lag = 1MB', 'replica_kit.lag_grace = 1s',
		'replica_kit.warning_disconnected = 1s', 'replica_kit.critical_disconnected = 1h', 'replica_kit.alert_after = 0');
	return;
}

# With a table t to write to.
sub start_standby
{
	my (@conf) = @_;
	($standby, my $password) = new_standby($primary, 'replica1', 'wal_receiver_timeout = 0', @conf);
	%login = (user => 'replica1', password => $password, application_name => 'replica1');
	$primary->safe_psql('postgres', 'CREATE TABLE t (i int, filler text)');
	return;
}

# Does diagnose() find those codes, and no others?  undef: not asked.
sub found
{
	my ($name, $on_primary, $on_standby) = @_;
	is(wait_for_diagnosis($primary, $on_primary), $on_primary, "$name: the primary says " . ($on_primary || 'nothing')) if defined $on_primary;
	is(wait_for_diagnosis($standby, $on_standby), $on_standby, "$name: the standby says " . ($on_standby || 'nothing')) if defined $on_standby;
	return;
}

# Runs the remedies as they are printed.
sub cure
{
	my ($node) = @_;
	$node->safe_psql('postgres', remedy($node));
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
	# waits for the end of the old one, which is streaming, too
	$primary->safe_psql('postgres', q{SELECT pg_terminate_backend(pid, 60000) FROM pg_stat_replication});
	$primary->poll_query_until('postgres', q{SELECT count(*) = 1 FROM pg_stat_replication WHERE state = 'streaming'})
	  or die 'the standby does not return';
	return;
}

# Connected for longer than an instant.
sub settle
{
	my $since = $standby->safe_psql('postgres', 'SELECT clock_timestamp()');
	$standby->poll_query_until('postgres', "SELECT state = 'streaming' AND lag_time = '0' AND clock_timestamp() > timestamptz '$since' + interval '4 s' FROM replica_kit.standby_status()")
	  or die 'the standby does not settle';
	return;
}

1;
