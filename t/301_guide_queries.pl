# The usual hand-written checks of a replica ("Verify connectivity" by a join
# of two views, "Replica Lag" by a subtraction), answered by status(): the same
# answer where they have one, and an answer where they are silent.

use strict;
use warnings FATAL => 'all';

use FindBin;

use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $connectivity = <<~'SQL';
	SELECT client_addr, state, pid, slot_name, active
	FROM pg_stat_replication
	INNER JOIN pg_replication_slots on pid = pg_replication_slots.active_pid;
	SQL
my $lag = <<~'SQL';
	select usename, client_addr, state, pg_wal_lsn_diff(pg_current_wal_lsn(),replay_lsn) as delay from pg_stat_replication;
	SQL

my $our_connectivity = <<~'SQL';
	SELECT client_addr, state, pid, slot_name, pid IS NOT NULL
	FROM replica_kit.status() WHERE state = 'streaming' AND slot_name IS NOT NULL
	SQL
my $our_lag = <<~'SQL';
	SELECT usename, client_addr, state, lag_bytes
	FROM replica_kit.status() WHERE state = 'streaming'
	SQL

my $primary = PostgreSQL::Test::Cluster->new('primary');
$primary->init(allows_streaming => 1);
$primary->append_conf('postgresql.conf', "listen_addresses = '127.0.0.1'\n");
$primary->start;
$primary->safe_psql('postgres', <<~'SQL');
	CREATE EXTENSION pg_replica_kit;
	CREATE ROLE regress_prk_rep LOGIN REPLICATION;
	CREATE TABLE t (a integer);
	SQL
$primary->backup('base');

is($primary->safe_psql('postgres', $connectivity),
	'', 'never set up: the guide shows nothing');
is($primary->safe_psql('postgres', 'SELECT * FROM replica_kit.status()'),
	'', 'never set up: status() has no row');

# As the guide makes it: the slot holds nothing until it is used.
$primary->safe_psql('postgres',
	"SELECT pg_create_physical_replication_slot('replica1')");
is($primary->safe_psql('postgres', $connectivity),
	'', 'a slot that was never used: the guide shows nothing');
is( $primary->safe_psql('postgres', <<~'SQL'),
	SELECT name, slot_type, state, pid, wal_status, retained_bytes
	FROM replica_kit.status()
	SQL
	'replica1|physical|disconnected|||',
	'a slot that was never used: status() shows it, and that it holds no WAL'
);

# ----------------------------------------------------------------------
# Healthy
# ----------------------------------------------------------------------

my $replica = PostgreSQL::Test::Cluster->new('replica');
$replica->init_from_backup($primary, 'base', has_streaming => 1);
$replica->append_conf('postgresql.conf',
		"primary_conninfo = 'host=127.0.0.1 port="
	  . $primary->port
	  . " user=regress_prk_rep application_name=12/main'\n"
	  . "primary_slot_name = 'replica1'\n"
	  . "wal_receiver_status_interval = 1s\n");
$replica->start;
$primary->safe_psql('postgres', 'INSERT INTO t VALUES (1)');
$primary->wait_for_catchup('12/main');

my $their_answer = $primary->safe_psql('postgres', $connectivity);
like($their_answer, qr/^127\.0\.0\.1\|streaming\|\d+\|replica1\|t$/,
	'healthy: the guide shows the connection');
is($primary->safe_psql('postgres', $our_connectivity),
	$their_answer, 'healthy: status() shows the same connection');

# The server writes a record now and then also when idle: look until none
# comes between.
my ($before, $ours, $summary, $after);
foreach my $try (1 .. 10 * $PostgreSQL::Test::Utils::timeout_default)
{
	($before, $ours, $summary, $after) = split /\n/,
	  $primary->safe_psql('postgres',
		"$lag $our_lag; SELECT name, state, health, lag, lag_time FROM replica_kit.summary; $lag"
	  );
	last
	  if $before =~ /\|0$/
	  && $after eq $before
	  && $ours eq $before
	  && $summary =~ /\|0 bytes\|/;
}
is($before, 'regress_prk_rep|127.0.0.1|streaming|0',
	'healthy: the guide shows no lag');
is($after, $before, 'healthy: and again');
is($ours, $before, 'healthy: status() shows the same lag');
is($summary, 'replica1|streaming|ok|0 bytes|00:00:00',
	'healthy: the summary says so');

# A paused replay makes the lag stand still: the same bytes in both.
$replica->safe_psql('postgres', 'SELECT pg_wal_replay_pause()');
$replica->poll_query_until('postgres',
	"SELECT pg_get_wal_replay_pause_state() = 'paused'")
  or die 'replay is not paused';
$primary->safe_psql('postgres', 'INSERT INTO t SELECT generate_series(1, 10000)');
ok( $primary->poll_query_until('postgres', <<~SQL),
	SELECT unsent_bytes + unwritten_bytes + unflushed_bytes = 0 AND unreplayed_bytes > 500000
	FROM replica_kit.status()
	SQL
	'replay paused: all that is missing is replay');
ok( $primary->poll_query_until('postgres', <<~SQL),
	SELECT s.lag_bytes = pg_wal_lsn_diff(pg_current_wal_lsn(), r.replay_lsn)
	FROM replica_kit.status() AS s JOIN pg_stat_replication AS r USING (pid)
	SQL
	'replay paused: the lag is the guide\'s');
$replica->safe_psql('postgres', 'SELECT pg_wal_replay_resume()');

# ----------------------------------------------------------------------
# What the guide does not see
# ----------------------------------------------------------------------

is( $primary->safe_psql(
		'postgres', $lag, extra_params => [ '-U', 'regress_prk_rep' ]),
	'regress_prk_rep|127.0.0.1||',
	'the replication role: the guide shows no state and no lag');
$primary->safe_psql('postgres',
	'GRANT EXECUTE ON FUNCTION replica_kit.status() TO regress_prk_rep');
like(
	$primary->safe_psql(
		'postgres', $our_lag, extra_params => [ '-U', 'regress_prk_rep' ]),
	qr/^regress_prk_rep\|127\.0\.0\.1\|streaming\|\d+$/,
	'the replication role: status(), once granted, shows both');

is($replica->safe_psql('postgres', $lag),
	'', 'on the replica: the guide shows nothing');
is($replica->safe_psql('postgres', 'SELECT count(*) FROM replica_kit.status()'),
	'0', 'on the replica: status() says that nothing is attached to it');

$replica->stop;
$primary->safe_psql('postgres', 'INSERT INTO t SELECT generate_series(1, 10000)');
ok( $primary->poll_query_until('postgres',
		'SELECT count(*) = 0 FROM pg_stat_replication'),
	'the replica is down');
is($primary->safe_psql('postgres', $connectivity),
	'', 'down: the guide shows nothing, as if it had never been set up');
is($primary->safe_psql('postgres', $lag), '', 'down: nor has it a lag');
is( $primary->safe_psql('postgres', <<~'SQL'),
	SELECT name, state, lag_bytes > 500000, lag_bytes = retained_bytes, wal_status,
		reason ~ '^disconnected'
	FROM replica_kit.status()
	SQL
	'replica1|disconnected|t|t|reserved|t',
	'down: status() says so, how far it is behind, and that its WAL is kept');

# What doc/reads.md gives an application that asks for one row of a name and a
# number, as a role that is in nobody's group.
my $page = slurp_file("$FindBin::RealBin/../doc/reads.md");
my ($grant) = $page =~ /^```sql grant\n(.*?)^```$/ms or die 'no grant';
my ($bytes, $seconds) = map { $page =~ /"$_": "(.*)"/ ? $1 : die "no $_" } qw(QueryAbsoluteLag QueryTimeLag);
$primary->safe_psql('postgres', "CREATE ROLE mmuser LOGIN; $grant");

sub application_sees
{
	my ($query) = @_;

	return $primary->safe_psql('postgres', $query, extra_params => [ '-U', 'mmuser' ]);
}

is(application_sees($lag), '', 'down: an application that is given the guide\'s query gets no row');
cmp_ok((split /\|/, application_sees($bytes))[1], '>', 500000, 'down: with ours it gets the lag');
like(application_sees($bytes), qr/^replica1\|\d+$/, 'one row of name and number');
like(application_sees($seconds), qr/^replica1\|(?:NaN|\d[\d.e-]*)$/, 'in time, too, or that it is not known');
is(application_sees($bytes =~ s/name = 'replica1'/name = 'nosuch'/r), 'replica1|NaN', 'a replica that is not there has one row, too');

# The inner join loses whatever has no partner.
$primary->safe_psql('postgres',
	"SELECT pg_create_physical_replication_slot('replica2', true)");
$replica->append_conf('postgresql.conf', "primary_slot_name = ''\n");
$replica->start;
$primary->wait_for_catchup('12/main');
is($primary->safe_psql('postgres', $connectivity),
	'', 'two slots and a replica without one: the guide shows none of them');
is( $primary->safe_psql('postgres',
		'SELECT name, slot_name, state FROM replica_kit.status() ORDER BY name COLLATE "C"'
	),
	"12/main||streaming\nreplica1|replica1|disconnected\nreplica2|replica2|disconnected",
	'two slots and a replica without one: status() shows three rows');

$replica->stop;
$primary->stop;

done_testing();
