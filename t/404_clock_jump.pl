# The machine's clock is set, by an hour forward and two back: nothing lasts
# longer or shorter for that, and nobody is alarmed.  (The clock is set for one
# server only, by a library that stands between it and the system.)

use strict;
use warnings FATAL => 'all';

use File::Basename;
use File::Spec::Functions qw(rel2abs);
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(time);

my $library = rel2abs(dirname(__FILE__) . '/../test/wall_clock.so');
my $clock = "$PostgreSQL::Test::Utils::tmp_check/wall_clock";

# The file keeps its place, since it is mapped.
sub set_clock
{
	my ($seconds, $file) = (@_, $clock);

	open my $out, -e $file ? '+<' : '>', $file or die "could not open \"$file\": $!";
	binmode $out;
	syswrite $out, pack('q', $seconds);
	close $out;
}

# Starts a server with a clock of its own.
sub start_with_clock
{
	my ($node, $file) = @_;
	local $ENV{LD_PRELOAD} = $library;
	local $ENV{PRK_WALL_CLOCK} = $file;
	$node->start;
}

set_clock(0);

my $primary = PostgreSQL::Test::Cluster->new('primary');
$primary->init(allows_streaming => 1);
$primary->append_conf('postgresql.conf', <<~CONF);
	shared_preload_libraries = 'pg_replica_kit'
	autovacuum = off
	checkpoint_timeout = 1d
	replica_kit.check_interval = 500ms
	replica_kit.warning_disconnected = 10min
	replica_kit.warning_lag_time = 10min
	CONF

start_with_clock($primary, $clock);
$primary->safe_psql('postgres', q{CREATE EXTENSION pg_replica_kit; CREATE TABLE t (x text); SELECT pg_create_physical_replication_slot('r1', true)});
$primary->backup('one');
my $standby = PostgreSQL::Test::Cluster->new('standby');
$standby->init_from_backup($primary, 'one', has_streaming => 1);
$standby->append_conf('postgresql.conf', "primary_slot_name = 'r1'");
$standby->start;
$primary->poll_query_until('postgres', q{SELECT count(*) > 0 FROM replica_kit.history('r1') WHERE state = 'streaming' AND lag_time = '0'})
  or die 'the replica does not stream';

# The worker looks once more, and sees the replica in that state.
sub wait_for_sample
{
	my ($state) = @_;
	my $asked = time;
	$primary->poll_query_until('postgres', "SELECT count(*) > 0 FROM replica_kit.history('r1') WHERE state = '$state' AND sampled_at > to_timestamp($asked)")
	  or die 'the worker does not look';
	return;
}

# Between when and when each was done, on a slow machine a long time, and for the
# worker between two looks.
my @gone = (time);
wait_for_sample('streaming');
$standby->stop;
wait_for_sample('disconnected');
push @gone, time;
my @written = (time);
wait_for_sample('disconnected');
$primary->safe_psql('postgres', 'INSERT INTO t VALUES (1)');
wait_for_sample('disconnected');
push @written, time;
$primary->poll_query_until('postgres', q{SELECT lag_time > '3 s' FROM replica_kit.status()}) or die 'no lag';

# How far is it from the time since then, which is asked for between two times?
sub error_of
{
	my ($seconds, $since, $asked) = @_;
	my ($error) = sort { $b <=> $a } 0, $asked->[0] - $since->[1] - $seconds, $seconds - ($asked->[1] - $since->[0]);
	return $error;
}

# A silence of what is not alarmed here, and how long it has lasted.
my @silenced = (time);
$primary->safe_psql('postgres', q{SELECT replica_kit.silence('upstream', '1 hour')});
push @silenced, time;

sub check_silence
{
	my ($what) = @_;
	my @asked = (time);
	my $elapsed = 3600 - $primary->safe_psql('postgres', 'SELECT extract(epoch FROM until - clock_timestamp()) FROM replica_kit.silences()');
	push @asked, time;
	cmp_ok(error_of($elapsed, \@silenced, \@asked), '<=', 2, "$what: a silence lasts as long as was said");
}

# lag_time and the time of absence are what they are by a clock nobody set.
sub check
{
	my ($what) = @_;
	my @asked = (time);
	my ($lag, $health, $away, $unit, $alert) = split /\|/, $primary->safe_psql('postgres', <<~'SQL');
		SELECT extract(epoch FROM lag_time), health, away[1], away[2], alert
		FROM replica_kit.status(), regexp_matches(reason, 'disconnected for ([\d.]+) (\w+)') AS away
		SQL
	push @asked, time;

	cmp_ok(error_of($lag, \@written, \@asked), '<=', 2, "$what: lag_time is true");
	check_silence($what);
	is("$health $alert", 'ok ok', "$what: nobody is alarmed");
	cmp_ok(error_of($away * ($unit eq 'min' ? 60 : 1), \@gone, \@asked), '<=', $unit eq 'min' ? 60 : 2, "$what: its absence lasts as long as before");
}

check('before');
foreach my $jump (3600, -3600)
{
	set_clock($jump);
	my $seen = $primary->safe_psql('postgres', 'SELECT extract(epoch FROM clock_timestamp())');
	cmp_ok(abs($seen - time - $jump), '<', 60, "the clock is $jump s ahead");
	check("$jump s, at once");
	my $offset = -s $primary->logfile;
	$primary->safe_psql('postgres', 'SELECT 1 FROM pg_sleep(2)');
	check("$jump s, after some cycles");
	is($primary->safe_psql('postgres', q{SELECT count(*) FILTER (WHERE sampled_at > clock_timestamp()), count(*) FILTER (WHERE step > '10 min' OR step < '0')
		FROM (SELECT sampled_at, sampled_at - lag(sampled_at) OVER () AS step FROM replica_kit.history('r1', '1 day')) s}), '0|0', "$jump s: the history is of the past, without a gap");
}
$primary->stop;
set_clock(7200);
start_with_clock($primary, $clock);
$primary->poll_query_until('postgres', q{SELECT alert IS NOT NULL FROM replica_kit.status()}) or die 'no worker';
my @asked = (time);
my $lag = $primary->safe_psql('postgres', 'SELECT extract(epoch FROM lag_time) FROM replica_kit.status()');
push @asked, time;
cmp_ok(error_of($lag, \@written, \@asked), '<=', 2, 'lag_time is true after a restart during which the clock was set');
check_silence('a restart during which the clock was set');
ok($primary->poll_query_until('postgres', 'SELECT count(*) > 10 FROM replica_kit.history()'), 'there is a history');
is($primary->safe_psql('postgres', q{SELECT count(*) FILTER (WHERE sampled_at > clock_timestamp()), count(*) FILTER (WHERE step > '10 min' OR step < '0'), count(*) > 10
	FROM (SELECT sampled_at, sampled_at - lag(sampled_at) OVER () AS step FROM replica_kit.history('r1', '1 day')) s}), '0|0|t', 'the history is of the past, without a gap');
ok(slurp_file($primary->logfile) !~ /WARNING:  replica/, 'there was no alert');

# ----------------------------------------------------------------------
# A standby whose clock is set back
# ----------------------------------------------------------------------

# Its receiver asks for nothing then until the clock is where it was, and does not
# find out either that nothing comes any more.  The upstream speaks unasked.
my $own_clock = "$clock.standby";
set_clock(7200, $own_clock);
$primary->safe_psql('postgres', q{ALTER SYSTEM SET wal_sender_timeout = '4s'});
$primary->reload;
$standby->append_conf('postgresql.conf', join "\n", q{wal_receiver_timeout = '8s'}, q{replica_kit.alert_after = 0}, '');
start_with_clock($standby, $own_clock);

sub standby_is
{
	my ($expected, $what) = @_;
	my $query = q{SELECT state, health FROM replica_kit.standby_status()};
	ok($standby->poll_query_until('postgres', $query, $expected), $what);
}
standby_is('streaming|ok', 'a standby streams');
my $log_before = -s $standby->logfile;
foreach my $back (3600, -86400)
{
	set_clock($back, $own_clock);
	my $until = time + 6;
	my $states = '';
	$states .= $standby->safe_psql('postgres', q{SELECT state, health, lag_time FROM replica_kit.standby_status()}) . "\n" while time < $until;
	like($states, qr/\A(?:streaming\|ok\|00:00:00(?:\.\d+)?\n)+\z/, 'its clock is set back: it streams as before');
}
set_clock(-90000, $own_clock);
my $walsender = $primary->safe_psql('postgres', q{SELECT pid FROM pg_stat_replication});
kill 'STOP', $walsender;
my $stopped = time;
standby_is('stalled|warning', 'set back, and then nothing comes any more: it is told');
is($standby->safe_psql('postgres', q{SELECT status FROM pg_stat_wal_receiver}), 'streaming', 'which the view does not show');
my ($silence) = $standby->safe_psql('postgres', q{SELECT extract(epoch FROM lag_time), reason FROM replica_kit.standby_status()}) =~ /^([\d.]+)\|nothing received for .* although connected$/;
cmp_ok(abs(time - $stopped - $silence), '<=', 6, 'and for how long it has been so');
kill 'CONT', $walsender;
standby_is('streaming|ok', 'it comes again');
set_clock(0, $own_clock);
standby_is('streaming|ok', 'the clock is right again');
unlike(substr(slurp_file($standby->logfile), $log_before), qr/upstream critical|upstream warning: (?!nothing received for \d+(?:\.\d)? s although)/, 'nothing else was announced');

$standby->stop;
$primary->stop;
done_testing();
