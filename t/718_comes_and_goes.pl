# diagnose(): replicas that are let in and leave again by themselves, of which this
# server's log has no word.  Nothing may be promised of them.

use strict;
use warnings FATAL => 'all';

use FindBin;
use lib $FindBin::RealBin;

use DiagKit;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(usleep);

my @conf = ('autovacuum = off', 'checkpoint_timeout = 1h', 'wal_level = logical', 'wal_keep_size = 128MB',
	'replica_kit.warning_disconnected = 1s', 'replica_kit.critical_disconnected = 1h');
my $primary = new_primary('primary', @conf);

# What the row says, and whether the other mouths say so as well.
sub says
{
	my ($what, $node, $name, $finding, $evidence) = @_;
	soon_like($node, "SELECT concat_ws(' ', code, level, finding, evidence) FROM replica_kit.diagnose('$name')",
		qr/^replica_down warning $finding.*$evidence/s, "$what: " . $node->name . ' says so');
	unlike($node->safe_psql('postgres', "SELECT finding, evidence FROM replica_kit.diagnose('$name')"),
		qr/WAL is safe|no attempt/, "$what: nothing is promised");
	soon_is($node, "SELECT level FROM replica_kit.unhealthy() WHERE name = '$name'", 'warning', "$what: unhealthy() has it");
	return;
}

sub silent
{
	my ($what, $node) = @_;
	is(wait_for_diagnosis($node, ''), '', "$what: " . $node->name . ' says nothing');
	return;
}

# ----------------------------------------------------------------------
# A subscription that cannot apply a change
# ----------------------------------------------------------------------

my $subscriber = PostgreSQL::Test::Cluster->new('subscriber');
$subscriber->init;
$subscriber->append_conf('postgresql.conf', "wal_retrieve_retry_interval = 200ms\n");
$subscriber->start;
$_->safe_psql('postgres', 'CREATE TABLE t (a int PRIMARY KEY)') foreach $primary, $subscriber;
$primary->safe_psql('postgres', 'CREATE PUBLICATION p FOR TABLE t');
my $connection = 'host=' . $primary->host . ' port=' . $primary->port . ' dbname=postgres';
$subscriber->safe_psql('postgres', "CREATE SUBSCRIPTION logical1 CONNECTION '$connection' PUBLICATION p WITH (enabled = false)");
$primary->poll_query_until('postgres', q{SELECT count(*) > 5 FROM replica_kit.history('logical1')})
  or die 'the slot is not watched';
is($primary->safe_psql('postgres', q{SELECT state, health FROM replica_kit.status() WHERE name = 'logical1'}), 'never connected|ok',
	'a subscription that is made and not enabled has never connected');
$subscriber->safe_psql('postgres', 'ALTER SUBSCRIPTION logical1 ENABLE');
$primary->poll_query_until('postgres', q{SELECT count(*) > 0 FROM replica_kit.history('logical1') WHERE state = 'streaming'})
  or die 'it does not stream';
$subscriber->safe_psql('postgres', 'INSERT INTO t VALUES (1)');
$primary->safe_psql('postgres', 'INSERT INTO t VALUES (1)');
says('a conflict', $primary, 'logical1', 'The subscriber is let in and leaves again by itself', qr/let in \d+ times since, and left, the last time /);
like($primary->safe_psql('postgres', q{SELECT advice FROM replica_kit.diagnose('logical1')}), qr/^  SELECT \* FROM pg_stat_subscription_stats;$/m,
	'a conflict: where to look');
is($subscriber->safe_psql('postgres', q{SELECT apply_error_count > 0 FROM pg_stat_subscription_stats}), 't', 'a conflict: it is there');
$subscriber->safe_psql('postgres', 'DELETE FROM t');
silent('no conflict', $primary);
$primary->poll_query_until('postgres', q{SELECT state = 'streaming' AND health = 'ok' FROM replica_kit.status() WHERE name = 'logical1'})
  or die 'it does not stream again';
$subscriber->stop;
soon_like($primary, q{SELECT finding, evidence FROM replica_kit.diagnose('logical1')},
	qr/^The subscriber is not connected\. Its WAL is safe.*no attempt since/s, 'stopped: what it did before is over');
$primary->safe_psql('postgres', q{SELECT pg_drop_replication_slot('logical1')});

# ----------------------------------------------------------------------
# A consumer that is stopped, and later started for a moment
# ----------------------------------------------------------------------

my @consumer = ('pg_recvlogical', '-d', $primary->connstr('postgres'), '-S', 'consumer1', '--start', '-f', '-', '-s', 1, '--no-loop');

# Whoever makes a slot by SQL waits for transactions that are open.
my $open = $primary->background_psql('postgres');
$open->query_safe('BEGIN; SELECT txid_current()');
my $maker = IPC::Run::start([ 'psql', '-XAtq', '-d', $primary->connstr('postgres'), '-c', q{SELECT pg_create_logical_replication_slot('consumer1', 'test_decoding')} ],
	'>', \my $made, '2>', \my $refused);
$primary->poll_query_until('postgres', q{SELECT count(*) > 5 FROM replica_kit.history('consumer1')}) or die 'the slot is not watched';
is($primary->safe_psql('postgres', q{SELECT active FROM pg_replication_slots WHERE slot_name = 'consumer1'}), 't', 'a consumer: its slot is being made');
$open->query_safe('COMMIT');
$open->quit;
$maker->finish;
my $made_at = $primary->safe_psql('postgres', 'SELECT clock_timestamp()');
$primary->poll_query_until('postgres', qq{SELECT count(*) > 5 FROM replica_kit.history('consumer1') WHERE sampled_at > '$made_at'})
  or die 'the slot is not watched';
is($primary->safe_psql('postgres', q{SELECT state, health FROM replica_kit.status() WHERE name = 'consumer1'}), 'never connected|ok',
	'a consumer: its slot is made');
foreach my $time (1, 2)
{
	my $run = IPC::Run::start([@consumer], '>', \my $out, '2>', \my $err);
	$primary->poll_query_until('postgres', q{SELECT clock_timestamp() - backend_start > '3 s'
		FROM pg_stat_replication WHERE state = 'streaming'}) or die 'it does not stream';
	soon_is($primary, q{SELECT level FROM replica_kit.unhealthy() WHERE name = 'consumer1'}, '', "a consumer: it stays, time $time");
	$run->signal('INT');
	$run->finish;
}
soon_like($primary, q{SELECT evidence FROM replica_kit.diagnose('consumer1')}, qr/no attempt since/, 'a consumer: stopped');

# Where the worker happened to see it stream, once is not counted.
my ($moments, $counted) = (0, 0);
while ($moments < 10 && !$counted)
{
	$moments++;
	$primary->command_ok([ @consumer, '--endpos', '0/1' ], 'a consumer: for a moment');
	my $left = $primary->safe_psql('postgres', 'SELECT clock_timestamp()');
	$primary->poll_query_until('postgres', qq{SELECT count(*) > 2 FROM replica_kit.history('consumer1') WHERE sampled_at > '$left'})
	  or die 'the slot is not watched';
	my ($times) = $primary->safe_psql('postgres', q{SELECT evidence FROM replica_kit.diagnose('consumer1')}) =~ /let in (once|\d+)/;
	$counted = !defined $times ? 0 : $times eq 'once' ? 1 : $times;
}
cmp_ok($counted, '>', 0, 'a consumer: it left by itself');
cmp_ok($counted, '<=', $moments, 'a consumer: and before that it was stopped');
$primary->safe_psql('postgres', q{SELECT pg_drop_replication_slot('consumer1')});

# ----------------------------------------------------------------------
# A consumer that comes for a moment, and does its work
# ----------------------------------------------------------------------

$primary->safe_psql('postgres', q{SELECT pg_create_logical_replication_slot('consumer', 'test_decoding')});
my $well = 0;
foreach (1 .. 8)
{
	my $end = $primary->safe_psql('postgres', 'INSERT INTO t SELECT max(a) + 1 FROM t; SELECT pg_current_wal_lsn()');
	$primary->command_ok([ 'pg_recvlogical', '-S', 'consumer', '--start', '--endpos', $end, '--no-loop', '-f', '/dev/null', '-d', $primary->connstr('postgres') ],
		'a consumer comes');
	usleep(400_000);

	# on a slow machine not each time
	$well++ if $_ > 4 && $primary->safe_psql('postgres', q{SELECT state, health FROM replica_kit.status() WHERE name = 'consumer'}) eq 'disconnected|ok';
}
cmp_ok($well, '>', 0, 'a consumer: it is well');
unlike($primary->safe_psql('postgres', q{SELECT finding FROM replica_kit.diagnose('consumer')}), qr/leaves again/, 'a consumer: it does not come and go');
$primary->safe_psql('postgres', q{SELECT pg_drop_replication_slot('consumer')});

# ----------------------------------------------------------------------
# A standby that cannot write
# ----------------------------------------------------------------------

my ($standby1, $password1) = new_standby($primary, 'standby1');
my ($standby2, $password2) = new_standby($primary, 'standby2');
my %login1 = (user => 'standby1', password => $password1, application_name => 'standby1');
my %login2 = (user => 'standby2', password => $password2, application_name => 'standby2');

chmod 0500, $standby2->data_dir . '/pg_wal' or die "chmod: $!";
$primary->safe_psql('postgres', "CREATE TABLE w$_ AS SELECT generate_series(1, 1000); SELECT pg_switch_wal()") foreach 1 .. 4;
says('no room', $primary, 'standby2', 'The replica is let in and leaves again by itself', qr/let in \d+ times since, and left, the last time /);
like($primary->safe_psql('postgres', q{SELECT advice FROM replica_kit.diagnose('standby2')}), qr/^  SELECT \* FROM replica_kit\.diagnose\(\);$/m,
	'no room: where to look');
is(wait_for_diagnosis($standby2, 'flush_slow'), 'flush_slow', 'no room: the standby knows');
like($standby2->safe_psql('postgres', 'SELECT finding, evidence FROM replica_kit.diagnose()'),
	qr/^This server cannot write the WAL that it receives: .*could not create file "pg_wal\//s, 'no room: and does not send to the upstream');

# It came and went many times: the log has one beginning and one end.
soon_like($primary, q{SELECT evidence FROM replica_kit.diagnose('standby2')}, qr/let in \d{2,} times since/, 'no room: again and again');
is_deeply([ slurp_file($primary->logfile) =~ /replica "standby2" (warning|critical|ok): /g ], ['warning'], 'no room: the log has it once');
chmod 0700, $standby2->data_dir . '/pg_wal' or die "chmod: $!";
$primary->wait_for_log(qr/replica "standby2" ok: /);
silent('room again', $primary);
is_deeply([ slurp_file($primary->logfile) =~ /replica "standby2" (warning|critical|ok): /g ], [ 'warning', 'ok' ], 'room again: and that it is over');
$primary->wait_for_catchup('standby2');

# ----------------------------------------------------------------------
# Whoever streams, and is stopped, does not come and go
# ----------------------------------------------------------------------

sub ask_position
{
	my (%login) = @_;
	return run_command([ 'psql', '-XAtq', '-d', conninfo($primary, %login, replication => 'true'), '-c', 'IDENTIFY_SYSTEM' ]);
}

sub is_stopped
{
	my ($what) = @_;
	soon_like($primary, q{SELECT finding, evidence FROM replica_kit.diagnose('standby1')},
		qr/^The replica is not connected\. Its WAL is safe: a restart.*no attempt since/s, "$what: it is not connected");
	return;
}

# It stayed, and then was there for less than the worker waits to see it stay.
$standby1->stop;
my $restarted = $primary->safe_psql('postgres', 'SELECT clock_timestamp()');
$standby1->start;
$primary->poll_query_until('postgres', qq{SELECT count(*) > 0 FROM replica_kit.history('standby1') WHERE state = 'streaming' AND sampled_at > '$restarted'})
  or die 'it does not stream';
$standby1->stop;
is_stopped('restarted, and stopped');
delete $login1{application_name};
ask_position(%login1);
is_stopped('somebody tried to connect as the replica');
$login1{application_name} = 'standby1';

$standby1->start;
$primary->wait_for_catchup('standby1');

# ----------------------------------------------------------------------
# A clone is none of the replica's doing
# ----------------------------------------------------------------------

my $password3 = $primary->safe_psql('postgres', q{SELECT password FROM replica_kit.provision('standby3', '127.0.0.1')});
my %login3 = (user => 'standby3', password => $password3, application_name => 'standby3');
$primary->command_ok([ 'pg_basebackup', '-D', $primary->backup_dir . '/for_standby3', '-S', 'standby3', '-X', 'stream', '-c', 'fast', '--no-sync',
		'-d', conninfo($primary, %login3) ], 'a clone, as the replica');
my $then = $primary->safe_psql('postgres', 'SELECT clock_timestamp()');
$primary->poll_query_until('postgres', qq{SELECT count(*) > 2 FROM replica_kit.history('standby3') WHERE sampled_at > '$then'})
  or die 'the slot is not watched';
unlike($primary->safe_psql('postgres', q{SELECT finding, evidence FROM replica_kit.diagnose('standby3')}), qr/let in|leaves/,
	'a clone, as the replica: it did not come and go');
my $state3 = $primary->safe_psql('postgres', q{SELECT state FROM replica_kit.status() WHERE name = 'standby3'});
ask_position(%login3);
$then = $primary->safe_psql('postgres', 'SELECT clock_timestamp()');
$primary->poll_query_until('postgres', qq{SELECT count(*) > 2 FROM replica_kit.history('standby3') WHERE sampled_at > '$then'})
  or die 'the slot is not watched';
is($primary->safe_psql('postgres', q{SELECT state FROM replica_kit.status() WHERE name = 'standby3'}), $state3,
	'somebody tried to connect: that was not the replica');

# ----------------------------------------------------------------------
# Another cluster
# ----------------------------------------------------------------------

my $other = new_primary('other', @conf);
my $password4 = $other->safe_psql('postgres', q{SELECT password FROM replica_kit.provision('standby2', '127.0.0.1')});
set_conninfo($standby2, $other, %login2, password => $password4);
says('another cluster', $other, 'standby2', 'The replica is let in and leaves again by itself', qr/let in \d+ times since, and left/);
is(wait_for_diagnosis($standby2, 'other_cluster'), 'other_cluster', 'another cluster: the standby knows');
$other->stop;
set_conninfo($standby2, $primary, %login2);
$primary->wait_for_catchup('standby2');

# ----------------------------------------------------------------------
# A timeline that ends before the replica, with a segment
# ----------------------------------------------------------------------

# The new primary's timeline begins where that segment ends; of a replica that is
# ahead it is asked for nothing but that position.
sub cut_off
{
	my ($node, $upstream, %login) = @_;
	set_conninfo($node, $upstream, %login, port => 1);
	$upstream->poll_query_until('postgres', "SELECT count(*) = 0 FROM pg_stat_replication WHERE application_name = '" . $node->name . q{'})
	  or die 'it is not cut off';
	return;
}

$primary->safe_psql('postgres', 'CREATE TABLE b(); SELECT pg_switch_wal()');
$primary->wait_for_catchup($_) foreach qw(standby1 standby2);
cut_off($standby1, $primary, %login1);
$primary->safe_psql('postgres', 'CREATE TABLE ahead AS SELECT generate_series(1, 10000)');
$primary->wait_for_catchup('standby2');
$primary->stop('immediate');
$standby1->promote;
$standby1->safe_psql('postgres', q{SELECT replica_kit.provision('standby2', '127.0.0.1')});

# The replica's script asks as the replica, with a semicolon; somebody tries the login.
foreach my $asks (
	[ 'standby2', 'IDENTIFY_SYSTEM;' ],
	[ 'psql', 'IDENTIFY_SYSTEM' ],
	[ 'standby2', 'TIMELINE_HISTORY 2;' ],
	[ 'standby2', 'START_REPLICATION SLOT "standby2" PHYSICAL ' . $standby1->lsn('flush') . ';' ])
{
	my ($as, $question) = @$asks;
	run_log([ 'psql', '-XAtqw', '-d', conninfo($standby1, %login2, application_name => $as, replication => 'true'), '-c', $question ]);
	my $asked = $standby1->safe_psql('postgres', 'SELECT clock_timestamp()');
	$standby1->poll_query_until('postgres', qq{SELECT count(*) > 10 FROM replica_kit.history('standby2') WHERE sampled_at > '$asked'})
	  or die 'the slot is not watched';
	unlike($standby1->safe_psql('postgres', q{SELECT finding, evidence FROM replica_kit.diagnose('standby2')}), qr/let in|left by itself/,
		"$as asks $question: the replica did not come and go");
}
set_conninfo($standby2, $standby1, %login2);
says('ahead by a segment', $standby1, 'standby2', 'The replica is connected and does not stream', qr/connected for [^,]* without streaming, walsender pid \d+/);
is(wait_for_diagnosis($standby2, 'other_timeline'), 'other_timeline', 'ahead by a segment: the standby knows');
$standby2->stop;

# ----------------------------------------------------------------------
# A timeline that ends before the replica, within a segment
# ----------------------------------------------------------------------

$standby1->safe_psql('postgres', q{SELECT replica_kit.deprovision('standby2')});
$standby1->safe_psql('postgres', q{SELECT replica_kit.deprovision('standby3')});
my ($standby5, $password5) = new_standby($standby1, 'standby5');
my ($standby6, $password6) = new_standby($standby1, 'standby6');
my %login5 = (user => 'standby5', password => $password5, application_name => 'standby5');
my %login6 = (user => 'standby6', password => $password6, application_name => 'standby6');
$standby1->wait_for_catchup('standby5');
cut_off($standby5, $standby1, %login5);
$standby1->safe_psql('postgres', 'CREATE TABLE ahead2 AS SELECT generate_series(1, 100)');
$standby1->wait_for_catchup('standby6');
$standby1->stop('immediate');
$standby5->promote;
$standby5->safe_psql('postgres', q{SELECT replica_kit.provision('standby6', '127.0.0.1')});
$login6{application_name} = 'walreceiver';
set_conninfo($standby6, $standby5, %login6);
says('ahead within a segment, under another name', $standby5, 'standby6', 'The replica is connected and does not stream', qr/without streaming/);
is(wait_for_diagnosis($standby6, 'other_timeline'), 'other_timeline', 'ahead within a segment: the standby knows');

$standby6->stop;
says('it was stopped then', $standby5, 'standby6', 'The replica has come, has left by itself and is away', qr/let in once since, and left /);

# ----------------------------------------------------------------------
# An upstream that is behind: restored, or the one that was left
# ----------------------------------------------------------------------

$standby5->stop;
$standby1->start;
$standby5->set_standby_mode;
set_conninfo($standby5, $standby1, %login5);
$standby5->start;
says('the upstream is behind', $standby1, 'standby5', 'The replica is let in and leaves again by itself', qr/let in \d+ times since, and left/);
is(wait_for_diagnosis($standby5, 'newer_timeline_exists,replica_down'), 'newer_timeline_exists,replica_down', 'the upstream is behind: the standby knows');

$standby5->stop;
$standby1->stop;
done_testing();
