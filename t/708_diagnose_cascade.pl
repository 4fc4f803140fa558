# diagnose() and standby_status() in a cascade: each of the three servers says
# what is wrong with its own neighbours, and nothing of what it can't know.

use strict;
use warnings FATAL => 'all';

use FindBin;
use lib $FindBin::RealBin;

use DiagKit;
use IPC::Run;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $primary = new_primary('primary', 'autovacuum = off', 'checkpoint_timeout = 1h', 'wal_keep_size = 256MB',
	'replica_kit.warning_disconnected = 1s', 'replica_kit.critical_disconnected = 1h');
my ($standby1, $password) = new_standby($primary, 'standby1', 'hot_standby_feedback = off');
$primary->safe_psql('postgres', 'CREATE TABLE t (x text)');
$primary->wait_for_catchup('standby1');

# The second has a slot and a rule on the first, and shares its role.
$standby1->safe_psql('postgres', q{SELECT replica_kit.provision('standby2', '127.0.0.1', 'standby1')});
my %login = (user => 'standby1', application_name => 'standby2');
my $count = 0;

sub new_standby2
{
	my $name = 'standby2' . ($count++ ? "_$count" : '');
	$standby1->backup($name);
	my $node = PostgreSQL::Test::Cluster->new($name);
	$node->init_from_backup($standby1, $name, has_streaming => 1);
	$node->append_conf('postgresql.conf', q{primary_slot_name = 'standby2'});
	set_conninfo($node, $standby1, %login, password => $password);
	$node->start;
	return $node;
}
my $standby2 = new_standby2();

sub found
{
	my ($name, @wanted) = @_;
	my @nodes = ($primary, $standby1, $standby2);
	foreach my $i (0 .. 2)
	{
		next if !defined $wanted[$i];
		is(wait_for_diagnosis($nodes[$i], $wanted[$i]), $wanted[$i], "$name: " . $nodes[$i]->name . ' says ' . ($wanted[$i] || 'nothing'));
	}
	return;
}

sub status
{
	my ($node, $columns) = @_;
	return $node->safe_psql('postgres', "SELECT $columns FROM replica_kit.standby_status()");
}

sub wait_for_status
{
	my ($node, $condition, $what) = @_;
	ok($node->poll_query_until('postgres', "SELECT $condition FROM replica_kit.standby_status()"), $what)
	  or diag($node->safe_psql('postgres', 'SELECT * FROM replica_kit.standby_status()'));
	return;
}

# ----------------------------------------------------------------------
# Healthy
# ----------------------------------------------------------------------

found('idle', '', '', '');
foreach ($standby1, $standby2)
{
	soon_is($_, q{SELECT state, lag_time, health, receive_lag_bytes, replay_lag_bytes, last_error FROM replica_kit.standby_status()},
		'streaming|00:00:00|ok|0|0|', 'idle: ' . $_->name . ' is not behind, and knows of no trouble');
}
is(status($standby1, 'sender_port') . ' ' . status($standby2, 'sender_port'), $primary->port . ' ' . $standby1->port, 'each names its own upstream');

my $script = "$PostgreSQL::Test::Utils::tmp_check/cascade_load.sql";
append_to_file($script, "INSERT INTO t SELECT repeat('x', 1000) FROM generate_series(1, 500) \\watch 0.05\n");
my $load = IPC::Run::start([ 'psql', '-XAtq', '-d', $primary->connstr('postgres'), '-f', $script ], '<', '/dev/null', '>', '/dev/null', '2>', '/dev/null');
my @said;
foreach (1 .. 8)
{
	push @said, map { $_->safe_psql('postgres', q{SELECT code || ': ' || evidence FROM replica_kit.diagnose()}) } $primary, $standby1, $standby2;
	push @said, map { $_->safe_psql('postgres', q{SELECT state || reason FROM replica_kit.standby_status() WHERE state <> 'streaming' OR health <> 'ok'}) } $standby1, $standby2;
}
$load->kill_kill;
is(join("\n", grep { $_ ne '' } @said), '', 'busy: nobody has anything to say');
found('idle again', '', '', '');

# ----------------------------------------------------------------------
# A slot that some tool keeps on the first for a sibling
# ----------------------------------------------------------------------

sub move_sibling
{
	$primary->safe_psql('postgres', q{INSERT INTO t VALUES ('x')});
	$primary->wait_for_catchup('standby1');
	$standby1->safe_psql('postgres', q{SELECT pg_replication_slot_advance('sibling', pg_last_wal_replay_lsn())});
	return;
}

$standby1->safe_psql('postgres', q{SELECT pg_create_physical_replication_slot('sibling', true)});
my $begun = $standby1->safe_psql('postgres', 'SELECT clock_timestamp()');
my ($sibling, $said) = ('', '');
for (1 .. 10 * $PostgreSQL::Test::Utils::timeout_default)
{
	move_sibling();
	$said = $standby1->safe_psql('postgres', q{SELECT health, reason FROM replica_kit.status() WHERE name = 'sibling'});
	$sibling .= "$said\n" if $said !~ /^ok\|/;
	last if $said =~ /moved/ && $standby1->safe_psql('postgres', "SELECT clock_timestamp() > timestamptz '$begun' + interval '3 s'") eq 't';
}
is($said, 'ok|slot is moved by another tool, for a failover', 'a slot that moves with nobody connected: told');
is($sibling, '', 'a slot that moves with nobody connected: not alarmed');
found('a slot that moves with nobody connected', undef, '');
$primary->safe_psql('postgres', q{INSERT INTO t VALUES ('x')});
found('a slot that moves no more', undef, 'replica_down');
drop_slot($standby1, 'sibling');
found('dropped', '', '', '');

# ----------------------------------------------------------------------
# Another library for text
# ----------------------------------------------------------------------

$primary->safe_psql('postgres', q{CREATE COLLATION other (provider = icu, locale = 'de'); CREATE TABLE words (w text COLLATE other PRIMARY KEY)});
found('collations', '', '', undef);
my $recorded = $primary->safe_psql('postgres', q{UPDATE pg_collation SET collversion = '0.1' WHERE collname = 'other'; SELECT pg_collation_actual_version(oid) FROM pg_collation WHERE collname = 'other'});
$primary->wait_for_catchup('standby1');
found('a collation of another version', '', 'collation_version_mismatch', undef);
is($standby1->safe_psql('postgres', q{SELECT name, evidence FROM replica_kit.diagnose('server')}),
	qq{server|collation version "$recorded" here; "0.1" when collations of this database were made;\nindexes in this database that use such a collation: 1}, 'a collation of another version: which');
unlike(advice($standby1), qr/ALTER|REFRESH/, 'a collation of another version: nothing that would only silence it');
my $at_risk = qr/^  (SELECT DISTINCT .*?;)$/ms;
is($standby1->safe_psql('postgres', advice($standby1) =~ $at_risk ? $1 : 'none'), 'words_pkey', 'a collation of another version: the indexes');
$primary->safe_psql('postgres', q{DROP TABLE words; DROP COLLATION other});
$primary->safe_psql('postgres', q{CREATE DATABASE icu TEMPLATE template0 LOCALE_PROVIDER icu ICU_LOCALE 'en' ENCODING UTF8});
$primary->safe_psql('postgres', q{UPDATE pg_database SET datcollversion = '0.1' WHERE datname = 'icu'});
$primary->wait_for_catchup('standby1');
found('a database of another version', '', 'collation_version_mismatch', undef);
like($standby1->safe_psql('postgres', q{SELECT evidence FROM replica_kit.diagnose('server')}), qr/here; "0\.1" when databases were made: icu;\s/, 'a database of another version: which');
$primary->safe_psql('icu', 'CREATE TABLE words (w text PRIMARY KEY, c text COLLATE "C" UNIQUE)');
$primary->wait_for_catchup('standby1');
is($standby1->safe_psql('icu', advice($standby1) =~ $at_risk ? $1 : 'none'), 'words_pkey', 'a database of another version: its indexes, where it is asked');
$primary->safe_psql('postgres', 'DROP DATABASE icu WITH (FORCE)');
$primary->wait_for_catchup('standby1');
found('gone', '', '', '');

# ----------------------------------------------------------------------
# The first loses its upstream
# ----------------------------------------------------------------------

set_conninfo($standby1, $primary, %login, password => $password, application_name => 'standby1', port => 1);
found('the first is cut off', 'replica_down', 'upstream_unreachable', '');
is(status($standby1, 'state') . ' ' . status($standby2, 'state'), 'disconnected streaming', 'the first is cut off: the second streams from it');
wait_for_status($standby1, q{lag_time > '3 s'}, 'the first is cut off: its lag grows');
set_conninfo($standby1, $primary, %login, password => $password, application_name => 'standby1');
found('the first is back', '', '', '');

# ----------------------------------------------------------------------
# The second is refused
# ----------------------------------------------------------------------

sub reconnect2
{
	$standby1->safe_psql('postgres', q{SELECT pg_terminate_backend(pid) FROM pg_stat_replication});
	return;
}

set_conninfo($standby2, $standby1, %login, password => 'unguessable');
reconnect2();
found('a wrong password', '', 'auth_failed', 'auth_failed');
is(remedy($standby1), '', 'a wrong password: the first has no remedy');
my ($statement) = advice($standby1) =~ /first on the primary: (SELECT .*;)$/m;
$password = $primary->safe_psql('postgres', $statement);
set_conninfo($standby1, $primary, %login, password => $password, application_name => 'standby1');
set_conninfo($standby2, $standby1, %login, password => $password);
found('a new password for both', '', '', '');

$primary->safe_psql('postgres', 'ALTER ROLE standby1 NOREPLICATION');
$primary->wait_for_catchup('standby1');
reconnect2();
found('the role may not replicate', undef, 'role_cannot_replicate', 'role_cannot_replicate');
is(remedy($standby1), '', 'the role may not replicate: the first has no remedy');
($statement) = advice($standby1) =~ /on the primary: (ALTER ROLE .*;)$/m;
$primary->safe_psql('postgres', $statement);
found('the role may', '', '', '');

# ----------------------------------------------------------------------
# The second loses its slot
# ----------------------------------------------------------------------

$standby2->stop;
found('the second is down', '', 'replica_down', undef);
$standby1->safe_psql('postgres', q{ALTER SYSTEM SET max_slot_wal_keep_size = '1MB'});
$standby1->safe_psql('postgres', q{ALTER SYSTEM SET wal_keep_size = 0});
$standby1->reload;
$primary->safe_psql('postgres', q{INSERT INTO t VALUES ('x'); SELECT pg_switch_wal()}) for 1 .. 4;
$primary->safe_psql('postgres', 'CHECKPOINT');
$primary->wait_for_catchup('standby1');
$standby1->safe_psql('postgres', 'CHECKPOINT');
found('the slot is lost', '', 'slot_lost', undef);
$standby2->start;
my $lost = $standby2->safe_psql('postgres', 'SHOW server_version_num') >= 180000 ? 'slot_lost' : 'wal_removed';
found('the slot is lost', '', 'slot_lost', $lost);
soon_like($standby2, 'SELECT finding FROM replica_kit.diagnose()', qr/must be rebuilt\.$/, 'the slot is lost: the second knows that it must be rebuilt');
soon_is($standby2, 'SELECT state FROM replica_kit.standby_status()', 'disconnected', 'the slot is lost: the second does not stream');
$standby2->stop;
soon_like($standby1, 'SELECT advice FROM replica_kit.diagnose()', qr/^  sh join_standby2\.sh --cluster \d+\/main --rebuild  /m, 'the slot is lost: the advice is one command');
renew_slot($standby1, 'standby2');
$standby2 = new_standby2();
found('rebuilt', '', '', '');

$standby2->stop;
$standby1->stop;
$primary->stop;
done_testing();
