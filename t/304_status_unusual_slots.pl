# status() at the edges: no slots at all, clients by IPv6, a slot in the hands
# of a session, and slots copied from a primary.

use strict;
use warnings FATAL => 'all';

use IPC::Run;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

# ----------------------------------------------------------------------
# Nothing to show
# ----------------------------------------------------------------------

my $bare = PostgreSQL::Test::Cluster->new('bare');
$bare->init;
$bare->append_conf('postgresql.conf', <<~'CONF');
	wal_level = minimal
	max_wal_senders = 0
	max_replication_slots = 0
	CONF
$bare->start;
$bare->safe_psql('postgres', 'CREATE EXTENSION pg_replica_kit');
is($bare->safe_psql('postgres', 'SELECT count(*) FROM replica_kit.status()'),
	'0', 'a server without slots and walsenders has no row');
$bare->stop;

# ----------------------------------------------------------------------
# Clients
# ----------------------------------------------------------------------

my $primary = PostgreSQL::Test::Cluster->new('primary');
$primary->init(allows_streaming => 'logical');
$primary->append_conf('postgresql.conf',
	"listen_addresses = '127.0.0.1, ::1'\n");
$primary->start;
$primary->safe_psql('postgres', 'CREATE EXTENSION pg_replica_kit');
my $version = $primary->safe_psql('postgres', 'SHOW server_version_num');

# Replication sessions that wait for a command.
my @sessions;

sub start_session
{
	my ($host, $name) = @_;
	my ($in, $out, $err) = ('', '', '');

	push @sessions,
	  IPC::Run::start(
		[
			'psql', '-XAtq', '-d',
			"host=$host port=${\ $primary->port } dbname=postgres replication=true application_name=$name"
		],
		'<', \$in, '>', \$out, '2>', \$err);
	$sessions[-1]->pump_nb;
}

my @hosts = ([ $primary->host, 'socket', '' ], [ '127.0.0.1', 'v4', '127.0.0.1' ]);
push @hosts, [ '::1', 'v6', '::1' ]
  if $primary->psql('postgres', 'SELECT 1',
	connstr => "host=::1 port=${\ $primary->port } dbname=postgres") == 0;
foreach my $host (@hosts)
{
	start_session($host->[0], $host->[1]);
}
ok( $primary->poll_query_until(
		'postgres',
		"SELECT count(*) = ${\ scalar @hosts } FROM replica_kit.status() WHERE state = 'startup'"
	),
	'each session in replication mode is a row');
is( $primary->safe_psql('postgres',
		'SELECT name, client_addr FROM replica_kit.status() ORDER BY name'),
	join("\n", map { "$_->[1]|$_->[2]" } @hosts),
	'by socket without an address, by IPv4 and IPv6 with it');
is( $primary->safe_psql('postgres', <<~'SQL'),
	SELECT count(*) FROM replica_kit.status() AS s FULL JOIN pg_stat_replication AS r USING (pid)
	WHERE (s.client_addr, s.usename, s.application_name, s.backend_start, s.state)
		IS DISTINCT FROM (r.client_addr, r.usename, r.application_name, r.backend_start, r.state)
	SQL
	'0', 'as the view has it');
is( $primary->safe_psql('postgres',
		"SELECT DISTINCT slot_name, slot_type, lag_bytes, retained_bytes, health FROM replica_kit.status()"
	),
	'||||ok', 'nothing is known of its lag');

foreach my $session (@sessions)
{
	$session->kill_kill;
}
ok( $primary->poll_query_until('postgres',
		'SELECT count(*) = 0 FROM replica_kit.status()'),
	'they go with their sessions');

# ----------------------------------------------------------------------
# A slot in the hands of a session, and its temporary ones
# ----------------------------------------------------------------------

is( $primary->safe_psql('postgres', <<~'SQL'),
	SET application_name = 'poller';
	SELECT FROM pg_create_physical_replication_slot('mine', true, true);
	SELECT name, slot_type, pid = pg_backend_pid(), usename = current_user, application_name,
		state, health, sync_state
	FROM replica_kit.status()
	SQL
	"mine|physical|t|t|poller|startup|ok|",
	'a temporary slot shows the session that holds it');
ok( $primary->poll_query_until('postgres',
		'SELECT count(*) = 0 FROM replica_kit.status()'),
	'and goes with it');

# ----------------------------------------------------------------------
# Slots that a standby copies from its primary (17)
# ----------------------------------------------------------------------

SKIP:
{
	skip 'slots are not copied before version 17', 7 if $version < 170000;

	$primary->safe_psql('postgres', <<~'SQL');
		CREATE PUBLICATION regress_prk_all FOR ALL TABLES;
		SELECT pg_create_physical_replication_slot('standby', true);
		SELECT pg_create_logical_replication_slot('copied', 'pgoutput', failover => true);
		SQL
	$primary->backup('base');
	my $standby = PostgreSQL::Test::Cluster->new('standby');
	$standby->init_from_backup($primary, 'base', has_streaming => 1);
	$standby->append_conf('postgresql.conf',
			"primary_conninfo = 'host=${\ $primary->host } port=${\ $primary->port } dbname=postgres'\n"
		  . "primary_slot_name = 'standby'\n"
		  . "hot_standby_feedback = on\n"
		  . "sync_replication_slots = on\n");
	$standby->start;

	# The copy is made once the primary's slot is as far as the standby.
	foreach my $try (1 .. 10 * $PostgreSQL::Test::Utils::timeout_default)
	{
		$primary->safe_psql('postgres', <<~'SQL');
			SELECT pg_log_standby_snapshot();
			SELECT count(*) FROM pg_logical_slot_get_binary_changes('copied', NULL, NULL,
				'proto_version', '1', 'publication_names', 'regress_prk_all');
			SQL
		last
		  if $standby->safe_psql('postgres',
			'SELECT count(*) FROM pg_replication_slots WHERE synced AND NOT temporary'
		  );
	}
	is( $standby->safe_psql('postgres',
			'SELECT name, slot_type, state, health, reason, wal_status FROM replica_kit.status()'
		),
		"copied|logical|startup|ok|copy of the primary's slot|reserved",
		'a copy of the primary\'s slot is no lost replica');
	is( $primary->safe_psql('postgres',
			"SELECT name, state FROM replica_kit.status() WHERE name = 'standby'"),
		'standby|streaming',
		'whose standby streams');

	# What the subscriber waits for.
	my $awaited = q{SELECT level, evidence FROM replica_kit.diagnose('server') WHERE code = 'logical_waits_for_standby'};
	$primary->safe_psql('postgres', q{ALTER SYSTEM SET synchronized_standby_slots = 'standby'});
	$primary->reload;
	$primary->poll_query_until('postgres', q{SHOW synchronized_standby_slots}, 'standby') or die 'not reloaded';
	is($primary->safe_psql('postgres', $awaited), '', 'a standby that subscribers wait for: nothing to say while it streams');
	$standby->stop;
	$primary->safe_psql('postgres', 'CREATE TABLE missed (i int)');
	ok($primary->poll_query_until('postgres', $awaited, qq{info|synchronized_standby_slots names slot "standby", which is not in use; 1 logical slot has failover set}),
		'just away: they wait, no more');
	$primary->append_conf('postgresql.conf', 'replica_kit.warning_disconnected = 0');
	$primary->reload;
	ok($primary->poll_query_until('postgres', q{SELECT level FROM replica_kit.diagnose('server') WHERE code = 'logical_waits_for_standby'}, 'warning'), 'and a warning as soon as its absence is one');
	$primary->safe_psql('postgres', q{SELECT pg_drop_replication_slot('standby')});
	like($primary->safe_psql('postgres', $awaited), qr/^warning\|synchronized_standby_slots names slot "standby", which does not exist;/, 'its slot is dropped: a warning');
	$primary->safe_psql('postgres', q{ALTER SYSTEM SET synchronized_standby_slots = ''});
	$primary->reload;
	ok($primary->poll_query_until('postgres', q{SELECT count(*) = 0 FROM replica_kit.diagnose('server') WHERE code = 'logical_waits_for_standby'}), 'out of the setting: nothing');
}

$primary->stop;

done_testing();
