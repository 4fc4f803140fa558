# A running pg_basebackup is one row, "backup", with its percentage; whatever
# slot it uses, and however many run.

use strict;
use warnings FATAL => 'all';

use IPC::Run;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $primary = PostgreSQL::Test::Cluster->new('primary');
$primary->init(allows_streaming => 1);

# WAL stays for who has no slot.  Any lag would be too much, if a backup were
# judged by it.
$primary->append_conf('postgresql.conf', <<~'CONF');
	wal_keep_size = 256MB
	replica_kit.warning_lag = 1kB
	replica_kit.critical_lag = 2kB
	replica_kit.lag_grace = 0
	CONF
$primary->start;
$primary->safe_psql('postgres', <<~'SQL');
	CREATE EXTENSION pg_replica_kit;
	SELECT pg_create_physical_replication_slot('clone', true);
	CHECKPOINT;
	SQL

my $target = 0;

sub start_backup
{
	my ($name, @options) = @_;
	my ($out, $err) = ('', '');
	my $dir =
	  "$PostgreSQL::Test::Utils::tmp_check/backup" . $target++;

	local $ENV{PGAPPNAME} = $name // 'pg_basebackup';
	return IPC::Run::start(
		[
			'pg_basebackup', '-h', $primary->host, '-p', $primary->port,
			'-D', $dir, '--no-sync', '--max-rate', '4M', @options
		],
		'<', \undef, '>', \$out, '2>', \$err);
}

# Some WAL, so that there is lag, and what status() makes of it.
sub rows
{
	return $primary->safe_psql('postgres', <<~'SQL');
		DO $$ BEGIN PERFORM pg_logical_emit_message(false, 'prk', repeat('x', 100000)); END $$;
		SELECT name, slot_type, state, health, reason
		FROM replica_kit.status() ORDER BY name COLLATE "C"
		SQL
}

sub copying
{
	return $primary->safe_psql('postgres', <<~'SQL');
		SELECT count(*) FROM pg_stat_progress_basebackup
		WHERE phase = 'streaming database files'
		SQL
}

# From when the rows first look as they should until a backup has copied all,
# each look shows the same rows.  The pattern captures the percentages, which
# never fall, and rise in the end.
sub watch_backups
{
	my ($title, $pattern, @backups) = @_;
	my ($looks, $bad, @first, @last) = (0);

	$primary->poll_query_until('postgres',
		"SELECT count(*) = ${\ scalar @backups } FROM replica_kit.status() WHERE reason ~ '\\d %\$'"
	) or die "$title: no percentage is shown";
	ok( $primary->poll_query_until('postgres',
			"SELECT m ~ '\nreplica_kit_base_backups ${\ scalar @backups }\n' AND m !~ 'pg_basebackup' FROM replica_kit.metrics() m"),
		"$title: metrics() counts it, and makes no series of it");

	while (!defined $bad && copying() == @backups)
	{
		my $rows = rows();

		if (my @now = $rows =~ /^$pattern$/)
		{
			@first = @now if !@first;
			$bad = $rows
			  if grep { defined $last[$_] && $now[$_] < $last[$_] } 0 .. $#now;
			@last = @now;
			$looks++;
		}
		elsif (@first && copying() == @backups)
		{
			$bad = $rows;
		}
	}

	is($bad, undef, "$title: the same rows at each look");
	cmp_ok($looks, '>', 3, "$title: there was something to look at");
	cmp_ok($last[$_] // 0, '>', $first[$_] // 0, "$title: the percentage rises")
	  foreach 0 .. $#backups;

	foreach my $backup (@backups)
	{
		ok($backup->finish, "$title: the backup succeeds");
	}
	ok( $primary->poll_query_until(
			'postgres',
			"SELECT count(*) = 0 FROM replica_kit.status() WHERE pid IS NOT NULL"
		),
		"$title: it is gone when it is done");
}

my @fast = ('-c', 'fast');

watch_backups(
	'in a slot',
	qr/clone\|physical\|backup\|ok\|base backup (\d+) %/,
	start_backup(undef, @fast, '-S', 'clone'));
is( $primary->safe_psql('postgres', <<~'SQL'),
	SELECT s.name, s.state, s.restart_lsn = v.restart_lsn, s.wal_status = v.wal_status
	FROM replica_kit.status() AS s JOIN pg_replication_slots AS v USING (slot_name)
	SQL
	'clone|disconnected|t|t', 'in a slot: the slot is left');
$primary->safe_psql('postgres', "SELECT pg_drop_replication_slot('clone')");

watch_backups(
	'in a temporary slot',
	qr/pg_basebackup_\d+\|physical\|backup\|ok\|base backup (\d+) %/,
	start_backup(undef, @fast));

watch_backups(
	'without a slot',
	qr/pg_basebackup\|\|backup\|ok\|base backup (\d+) %/,
	start_backup(undef, @fast, '--no-slot'));

watch_backups(
	'without a stream',
	qr/pg_basebackup\|\|backup\|ok\|base backup (\d+) %/,
	start_backup(undef, @fast, '-X', 'fetch'));

# Two at once, told apart by nothing but their order.
watch_backups(
	'two at once',
	qr/pg_basebackup_\d+\|physical\|backup\|ok\|base backup (\d+) %\npg_basebackup_\d+\|physical\|backup\|ok\|base backup (\d+) %/,
	start_backup(undef, @fast),
	start_backup(undef, @fast));

# A standby of the same name and user that streams meanwhile is not taken for
# a part of the backup.
$primary->backup('base');
my $standby = PostgreSQL::Test::Cluster->new('standby');
$standby->init_from_backup($primary, 'base', has_streaming => 1);
$standby->start;
$primary->poll_query_until('postgres',
	"SELECT replay_lsn IS NOT NULL FROM pg_stat_replication")
  or die 'the standby does not stream';
my $backup = start_backup('standby', @fast, '--no-slot');
my $rows;
foreach my $try (1 .. 10 * $PostgreSQL::Test::Utils::timeout_default)
{
	$rows = $primary->safe_psql('postgres',
		'SELECT name, state FROM replica_kit.status() ORDER BY state');
	last if $rows eq "standby|backup\nstandby|streaming";
}
is($rows, "standby|backup\nstandby|streaming",
	'a standby of the same name stays a row of its own');
ok($backup->finish, 'and its clone succeeds');
$standby->stop;

# ----------------------------------------------------------------------
# While it waits for its checkpoint, it has no stream yet
# ----------------------------------------------------------------------

$primary->safe_psql('postgres', <<~'SQL');
	SELECT pg_create_physical_replication_slot('replica1', true);
	CREATE TABLE t AS SELECT g, repeat('x', 1000) AS x FROM generate_series(1, 20000) AS g;
	SQL
$backup = start_backup('replica1', '-c', 'spread', '-S', 'replica1');
ok( $primary->poll_query_until(
		'postgres',
		"SELECT count(*) = 1 AND bool_and(name = 'replica1' AND state = 'backup') FROM replica_kit.status()"
	),
	'the clone of a replica goes into the slot that has its name');
is( $primary->safe_psql('postgres',
		'SELECT name, slot_name, state, health, reason FROM replica_kit.status()'
	),
	'replica1|replica1|backup|ok|base backup, waiting for a checkpoint',
	'before it streams, and says what it waits for');
$primary->safe_psql('postgres', 'CHECKPOINT');
watch_backups(
	'in the slot of its name',
	qr/replica1\|physical\|backup\|ok\|base backup (\d+) %/, $backup);

$primary->stop;

done_testing();
