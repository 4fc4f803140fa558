# status() against pg_stat_replication and pg_replication_slots, column by
# column, on a primary with replicas of every kind, under load and idle.

use strict;
use warnings FATAL => 'all';

use IPC::Run;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $primary = PostgreSQL::Test::Cluster->new('primary');
$primary->init(allows_streaming => 'logical');
$primary->append_conf('postgresql.conf', <<~'CONF');
	max_slot_wal_keep_size = 10GB
	max_wal_size = 64MB
	min_wal_size = 32MB
	synchronous_standby_names = 'FIRST 1 (slotted, slotless)'
	synchronous_commit = local
	autovacuum = off
	wal_receiver_status_interval = 1s
	CONF
$primary->start;
$primary->safe_psql('postgres', 'CREATE EXTENSION pg_replica_kit');
my $version = $primary->safe_psql('postgres', 'SHOW server_version_num');

# ----------------------------------------------------------------------
# Replicas of every kind
# ----------------------------------------------------------------------

$primary->safe_psql('postgres', <<~'SQL');
	SELECT pg_create_physical_replication_slot('with_slot', true);
	SELECT pg_create_physical_replication_slot('receiver', true);
	SELECT pg_create_physical_replication_slot('inactive', true);
	SELECT pg_create_physical_replication_slot('never_used');
	CREATE PUBLICATION everything FOR ALL TABLES;
	SELECT pg_create_logical_replication_slot('decoder', 'pgoutput');
	SELECT pg_create_logical_replication_slot('idle_logical', 'pgoutput');
	SQL
$primary->backup('base');

my $slotted = PostgreSQL::Test::Cluster->new('slotted');
$slotted->init_from_backup($primary, 'base', has_streaming => 1);
$slotted->append_conf('postgresql.conf', "primary_slot_name = 'with_slot'\n"
	  . "hot_standby_feedback = on\n");
$slotted->start;

my $slotless = PostgreSQL::Test::Cluster->new('slotless');
$slotless->init_from_backup($primary, 'base', has_streaming => 1);
$slotless->start;

my @background;

# Start a program of the server's that ends only when it is told to.
sub start_program
{
	my (@command) = @_;
	my ($out, $err) = ('', '');

	push @background,
	  IPC::Run::start(\@command, '<', \undef, '>', \$out, '2>', \$err);
	return $background[-1];
}

my @connection = ('-h', $primary->host, '-p', $primary->port);

# Start a receiver of WAL that calls itself so.
sub start_receiver
{
	my ($name, @options) = @_;
	my $dir = "$PostgreSQL::Test::Utils::tmp_check/$name";

	local $ENV{PGAPPNAME} = $name;
	mkdir $dir or die "could not make \"$dir\": $!";
	return start_program('pg_receivewal', @connection, '--no-loop',
		'-s', 1, '-D', $dir, @options);
}

# One reports what it flushed, the other only what it wrote.
start_receiver('receiver', '--synchronous', '-S', 'receiver');
start_receiver('writer');
start_program('pg_recvlogical', @connection, '--no-loop', '--start',
	'-s', 1, '-F', 1, '-d', 'postgres', '-S', 'decoder',
	'-o', 'proto_version=1', '-o', 'publication_names=everything',
	'-f', "$PostgreSQL::Test::Utils::tmp_check/decoded");

ok( $primary->poll_query_until(
		'postgres',
		"SELECT count(*) = 5 FROM pg_stat_replication WHERE state = 'streaming'"
	),
	'two standbys, two receivers and a decoder stream');

# ----------------------------------------------------------------------
# One round of comparison, in SQL so that the readings are close.
# ----------------------------------------------------------------------

$primary->safe_psql('postgres', <<~'SQL');
	CREATE VIEW status AS SELECT * FROM replica_kit.status();
	CREATE VIEW views AS
	SELECT coalesce(s.slot_name, r.application_name)::text AS name,
		r.pid AS walsender_pid, r.usename, r.application_name, r.client_addr, r.backend_start,
		r.state, r.sync_state, r.sent_lsn, r.write_lsn, r.flush_lsn, r.replay_lsn, r.reply_time,
		s.slot_name, s.slot_type, s.active_pid, s.restart_lsn, s.confirmed_flush_lsn,
		s.wal_status, s.safe_wal_size, s.xmin, s.catalog_xmin,
		to_jsonb(s) ->> 'inactive_since' AS inactive_since
	FROM pg_stat_replication AS r FULL JOIN pg_replication_slots AS s ON r.pid = s.active_pid;

	-- The older of a slot's horizons, in transactions before this one.
	CREATE FUNCTION oldest(v views) RETURNS bigint LANGUAGE sql AS $$
		SELECT max(pg_snapshot_xmax(pg_current_snapshot())::text::bigint - x::text::bigint)
		FROM unnest(ARRAY[v.xmin, v.catalog_xmin]) AS x
	$$;

	-- Is a value between two readings of what only grows?
	CREATE FUNCTION between_readings(value anyelement, before anyelement, after anyelement)
	RETURNS boolean LANGUAGE sql AS $$
		SELECT CASE WHEN value IS NULL THEN before IS NULL OR after IS NULL
			ELSE (before IS NULL OR value >= before) AND value <= after END
	$$;

	-- The names of columns that don't agree, and whether nothing moved.
	CREATE FUNCTION compare(OUT wrong text[], OUT still boolean) LANGUAGE plpgsql AS $$
	DECLARE
		start pg_lsn;
		before views[];
		status status[];
		after views[];
		finish pg_lsn;
	BEGIN
		PERFORM pg_stat_clear_snapshot();
		start := pg_current_wal_lsn();
		before := ARRAY(SELECT v FROM views AS v ORDER BY v.name);
		status := ARRAY(SELECT s FROM status AS s);
		after := ARRAY(SELECT v FROM views AS v ORDER BY v.name);
		finish := pg_current_wal_lsn();

		still := before = after AND start = finish;
		wrong := ARRAY(
			SELECT format('%s.%s %s: %s', s.name, c.name, c.value,
				to_json(ARRAY[to_json(b), to_json(s), to_json(a)]))
			FROM unnest(before) AS b
				FULL JOIN unnest(status) AS s USING (name)
				FULL JOIN unnest(after) AS a USING (name),
			LATERAL (VALUES
				('slot_name', s.slot_name::text, s.slot_name IS NOT DISTINCT FROM b.slot_name),
				('slot_type', s.slot_type, s.slot_type IS NOT DISTINCT FROM b.slot_type),
				('usename', s.usename, s.usename IS NOT DISTINCT FROM b.usename),
				('application_name', s.application_name,
					s.application_name IS NOT DISTINCT FROM b.application_name),
				('client_addr', s.client_addr::text,
					s.client_addr IS NOT DISTINCT FROM b.client_addr),
				('backend_start', s.backend_start::text,
					s.backend_start IS NOT DISTINCT FROM b.backend_start),
				('pid', s.pid::text, s.pid IS NOT DISTINCT FROM
					coalesce(b.walsender_pid, b.active_pid)),
				('state', s.state, s.state IN (b.state, a.state)
					OR b.state IS NULL AND s.state = 'disconnected'),
				('sync_state', s.sync_state, s.sync_state IS NOT DISTINCT FROM b.sync_state
					OR s.sync_state IS NOT DISTINCT FROM a.sync_state),
				('sent_lsn', s.sent_lsn::text,
					between_readings(s.sent_lsn, b.sent_lsn, a.sent_lsn)),
				('write_lsn', s.write_lsn::text,
					between_readings(s.write_lsn, b.write_lsn, a.write_lsn)),
				('flush_lsn', s.flush_lsn::text,
					between_readings(s.flush_lsn, b.flush_lsn, a.flush_lsn)),
				('replay_lsn', s.replay_lsn::text,
					between_readings(s.replay_lsn, b.replay_lsn, a.replay_lsn)),
				('reply_time', s.reply_time::text,
					between_readings(s.reply_time, b.reply_time, a.reply_time)),
				('restart_lsn', s.restart_lsn::text,
					between_readings(s.restart_lsn, b.restart_lsn, a.restart_lsn)),
				('confirmed_flush_lsn', s.confirmed_flush_lsn::text, between_readings(
					s.confirmed_flush_lsn, b.confirmed_flush_lsn, a.confirmed_flush_lsn)),
				('wal_status', s.wal_status, s.wal_status IS NOT DISTINCT FROM b.wal_status
					OR s.wal_status IS NOT DISTINCT FROM a.wal_status),
				-- the view shows it also for a slot that reserves nothing
				('safe_wal_size', s.safe_wal_size::text, CASE WHEN s.restart_lsn IS NULL
					THEN s.safe_wal_size IS NULL
					ELSE s.safe_wal_size BETWEEN b.safe_wal_size - (finish - start)
						AND a.safe_wal_size + (finish - start) END),
				('inactive_since', s.inactive_since::text,
					s.inactive_since IS NOT DISTINCT FROM b.inactive_since::timestamptz),
				-- an xid that is running is behind the snapshot's end; the
				-- horizon may move on after either reading
				('xmin_age', s.xmin_age::text, s.xmin_age IS NULL AND oldest(b) IS NULL
					OR s.xmin_age BETWEEN 0 AND greatest(oldest(b), oldest(a)) + 10),
				-- derived figures, from the same columns
				('lag_bytes', s.lag_bytes::text, s.lag_bytes >= 0
					OR coalesce(s.replay_lsn, s.write_lsn, s.confirmed_flush_lsn, s.restart_lsn) IS NULL),
				('lag_bytes sum', s.lag_bytes::text, coalesce(s.lag_bytes, 0) =
					coalesce(s.unsent_bytes + s.unwritten_bytes + s.unflushed_bytes
						+ s.unreplayed_bytes, 0)),
				('stages', s.lag_bytes::text, s.lag_bytes IS NULL OR least(s.unsent_bytes,
					s.unwritten_bytes, s.unflushed_bytes, s.unreplayed_bytes) >= 0),
				('lag position', s.lag_bytes::text, s.lag_bytes IS NULL
					OR CASE WHEN s.slot_type = 'logical' THEN s.confirmed_flush_lsn
						ELSE coalesce(s.replay_lsn, s.flush_lsn, s.write_lsn, s.restart_lsn) END
						+ s.lag_bytes BETWEEN start AND finish),
				('unsent_bytes', s.unsent_bytes::text, s.sent_lsn IS NULL
					OR s.sent_lsn + s.unsent_bytes BETWEEN start AND finish),
				('retained_bytes', s.retained_bytes::text, CASE WHEN s.restart_lsn IS NULL
					THEN s.retained_bytes IS NULL
					ELSE s.restart_lsn + s.retained_bytes BETWEEN start AND finish END)
			) AS c (name, value, ok)
			WHERE c.ok IS NOT TRUE);
	END $$;

	CREATE FUNCTION compare(rounds integer) RETURNS TABLE (still bigint, wrong text)
	LANGUAGE plpgsql AS $$
	DECLARE
		r record;
		all_wrong text[] := '{}';
	BEGIN
		still := 0;
		FOR i IN 1 .. rounds LOOP
			r := compare();
			still := still + r.still::integer;
			all_wrong := all_wrong || r.wrong;
			PERFORM pg_sleep(0.01);
		END LOOP;
		wrong := array_to_string(all_wrong[1:3], E'\n');
		RETURN NEXT;
	END $$;
	SQL

is( $primary->safe_psql('postgres',
		'SELECT name, slot_type, state FROM status ORDER BY name COLLATE "C"'),
	join("\n",
		'decoder|logical|streaming', 'idle_logical|logical|disconnected',
		'inactive|physical|disconnected', 'never_used|physical|disconnected',
		'receiver|physical|streaming', 'slotless||streaming',
		'with_slot|physical|streaming', 'writer||streaming'),
	'one row per slot and per walsender without one');

# ----------------------------------------------------------------------
# Under load
# ----------------------------------------------------------------------

$primary->run_log(
	[ 'pgbench', @connection, '-q', '-i', '-s', 2, 'postgres' ]);
my $load = start_program('pgbench', @connection, '-n', '-c', 2, '-T', 600,
	'postgres');
$primary->poll_query_until('postgres',
	'SELECT count(*) > 100 FROM pgbench_history')
  or die 'pgbench does nothing';

my $end_before = $primary->lsn('insert');
my ($still, $wrong) = split /\|/,
  $primary->safe_psql('postgres', 'SELECT * FROM compare(200)'), 2;
is($wrong, '', 'no column disagrees in 200 rounds under load');
cmp_ok($still, '<', 200, 'and something moved meanwhile');
isnt($primary->lsn('insert'), $end_before, 'the load wrote WAL');

# ----------------------------------------------------------------------
# Idle: to the byte
# ----------------------------------------------------------------------

$load->kill_kill;
$primary->safe_psql('postgres', 'CHECKPOINT');
ok( $primary->poll_query_until('postgres', <<~'SQL'),
	SELECT bool_and(lag_bytes = 0) FROM status WHERE pid IS NOT NULL
	SQL
	'all that stream catch up');

($still, $wrong) = split /\|/,
  $primary->safe_psql('postgres', 'SELECT * FROM compare(100)'), 2;
is($wrong, '', 'no column disagrees when idle');
cmp_ok($still, '>', 0, 'in some round nothing moved: all figures were equal');

# Now and then nobody is there, when the server has just written a record.
my $no_lag = '';
foreach my $try (1 .. 10 * $PostgreSQL::Test::Utils::timeout_default)
{
	$no_lag = $primary->safe_psql('postgres', <<~'SQL');
		SELECT bool_and(lag_time IS NOT DISTINCT FROM '0') FROM status WHERE lag_bytes = 0 AND pid IS NOT NULL
		SQL
	last if $no_lag ne '';
}
is($no_lag, 't', 'who is at the current position has no lag in time');
is( $primary->safe_psql('postgres',
		"SELECT sync_state FROM status WHERE name IN ('with_slot', 'slotless') ORDER BY name"
	),
	"potential\nsync",
	'synchronous standbys are told from potential ones');

# The standby may send its horizon between the two readings.
ok( $primary->poll_query_until('postgres', <<~'SQL',
	SELECT s.name, s.xmin_age = greatest(age(v.xmin), age(v.catalog_xmin))
	FROM status AS s JOIN pg_replication_slots AS v USING (slot_name)
	WHERE s.xmin_age IS NOT NULL ORDER BY s.name COLLATE "C"
	SQL
		"decoder|t\nidle_logical|t\nwith_slot|t"),
	'slots that hold back vacuum have the age of what they hold');

# ----------------------------------------------------------------------
# Fresh at each call
# ----------------------------------------------------------------------

# In one transaction PostgreSQL's views show the backends of its first look.
my ($out, $err) = ('', '');
my $session = IPC::Run::start(
	[
		'psql', '-XAtq', '-d', $primary->connstr('postgres'),
		'-v', 'ON_ERROR_STOP=1', '-c', <<~'SQL' ],
	DO $$
	DECLARE
		rows bigint := (SELECT count(*) FROM status);
	BEGIN
		PERFORM FROM pg_stat_activity;
		PERFORM pg_advisory_lock(1);
		FOR i IN 1 .. 1800 LOOP
			IF EXISTS (SELECT FROM status WHERE application_name = 'late') THEN
				IF (SELECT count(*) FROM status) <> rows + 1 THEN
					RAISE 'rows are missing';
				END IF;
				RETURN;
			END IF;
			PERFORM pg_sleep(0.1);
		END LOOP;
		RAISE 'the new walsender was not seen';
	END $$
	SQL
	'<', \undef, '>', \$out, '2>', \$err);
$primary->poll_query_until('postgres',
	"SELECT count(*) = 1 FROM pg_locks WHERE locktype = 'advisory' AND granted")
  or die 'the session does not start';
start_receiver('late');
$session->finish;
$primary->poll_query_until('postgres',
	"SELECT state = 'streaming' FROM pg_stat_replication WHERE application_name = 'late'")
  or die 'the late receiver does not stream';
is($err, '', 'a walsender is seen, with its name, in a transaction that looked before');

# ----------------------------------------------------------------------
# A role of its own sees figures that the views hide from it
# ----------------------------------------------------------------------

$primary->safe_psql('postgres', <<~'SQL');
	CREATE ROLE regress_prk_app LOGIN;
	GRANT EXECUTE ON FUNCTION replica_kit.status() TO regress_prk_app;
	SQL
is( $primary->safe_psql(
		'postgres',
		"SELECT count(*), count(sent_lsn), count(usename) FROM replica_kit.status() WHERE pid IS NOT NULL",
		extra_params => [ '-U', 'regress_prk_app' ]),
	'6|6|6',
	'a role that was granted status() sees it all');
is( $primary->safe_psql(
		'postgres',
		'SELECT count(sent_lsn) FROM pg_stat_replication',
		extra_params => [ '-U', 'regress_prk_app' ]),
	'0',
	'where the view shows it nothing');

foreach my $program (@background)
{
	$program->kill_kill;
}
$slotless->stop;
$slotted->stop;
$primary->stop;

done_testing();
