# --rebuild with the changed blocks only, through random histories: DDL of every
# kind before, during and after, the server ended in any way, its files damaged.
# Each rebuilt replica is the next one lost, and each time it equals its primary
# after a clean shutdown, block by block.
#
# Goes on for PRK_REBUILD_ROUNDS rounds from PRK_REBUILD_SEED on: scripts/proof
# rebuild.
use strict;
use warnings FATAL => 'all';

use FindBin;
use lib $FindBin::RealBin;

use ClusterCompare;
use JoinKit;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $rounds = $ENV{PRK_REBUILD_ROUNDS};
plan skip_all => 'scripts/proof rebuild runs it' if !$rounds;
my $upstream = PostgreSQL::Test::Cluster->new('upstream');
plan skip_all => 'incremental backups begin with PostgreSQL 17'
  if $upstream->pg_version < 17;
my $seed = $ENV{PRK_REBUILD_SEED} || int(time);
srand $seed;
note "PRK_REBUILD_SEED=$seed";

my $checksums = rand() < 0.7;
$upstream->init(
	allows_streaming => 1,
	extra => [ $checksums ? '--data-checksums' : $upstream->pg_version >= 18 ? '--no-data-checksums' : () ]);
$upstream->append_conf('postgresql.conf', <<~CONF);
	listen_addresses = '127.0.0.1'
	shared_preload_libraries = 'pg_replica_kit'
	summarize_wal = on
	shared_buffers = 32MB
	autovacuum_naptime = 1s
	wal_retrieve_retry_interval = 100ms
	allow_in_place_tablespaces = on
	max_prepared_transactions = 20
	track_commit_timestamp = on
	CONF
$upstream->start;
$upstream->safe_psql('postgres', $_) foreach
  'CREATE EXTENSION pg_replica_kit', "CREATE TABLESPACE space LOCATION ''",
  'CREATE SEQUENCE numbers';
my $names = 0;
table() foreach 1 .. 6;
$upstream->safe_psql('postgres',
	"SELECT replica_kit.provision('replica1', '127.0.0.1', 'replica1', 'secret-word-1')");
my $script = write_script($upstream, 'replica1');
my $replica = new_replica('replica');
my $pgdata = $replica->data_dir;
my @where = ('--pgdata', $pgdata, '--port', $replica->port);

sub pick { return $_[ rand @_ ]; }

sub tables
{
	return split /\n/, $upstream->safe_psql('postgres',
		"SELECT relname FROM pg_class WHERE relkind = 'r' AND relname ~ '^t[0-9]'");
}

sub databases
{
	return split /\n/, $upstream->safe_psql('postgres',
		"SELECT datname FROM pg_database WHERE datname ~ '^d[0-9]'");
}

sub table
{
	my $name = 't' . ++$names;
	my $rows = 500 + int rand 8000;
	return $upstream->safe_psql('postgres',
		"CREATE TABLE $name AS SELECT g AS id, repeat(md5(g::text), 1 + g % 4) AS words, ARRAY[g % 7, g % 11] AS list, point(g, g) AS place FROM generate_series(1, $rows) g");
}

# One of what may happen to a database, each a list of statements.
my %events = (
	'create table' => sub { table(); return; },
	'drop table' => sub { my @all = tables(); return @all > 4 ? "DROP TABLE ${\ pick(@all)}" : (); },
	'truncate' => sub { my $t = pick(tables()); return ("TRUNCATE $t", "INSERT INTO $t (id) SELECT generate_series(1, 1000)"); },
	'vacuum full' => sub { return "VACUUM FULL ${\ pick(tables())}"; },
	'vacuum full of catalogs' => sub { return 'VACUUM FULL ' . pick(qw(pg_class pg_authid pg_database pg_attribute pg_type)); },
	'cut and grow' => sub {
		my $t = pick(tables());
		my $rows = int rand 4000;
		return ("DELETE FROM $t WHERE ctid > '(5,0)'", "VACUUM $t",
			"COPY $t (id, words) FROM PROGRAM 'awk ''BEGIN { for (; i < $rows; i++) printf \"%d\\t%090d\\n\", i, 0 }'''");
	},
	'update' => sub { return "UPDATE ${\ pick(tables())} SET words = md5(id::text || 'x') WHERE id % ${\ (1 + int rand 50)} = 0"; },
	'delete' => sub { my $t = pick(tables()); return ("DELETE FROM $t WHERE id % ${\ (2 + int rand 20)} = 0", rand() < 0.5 ? "VACUUM $t" : ()); },
	'insert' => sub { return "INSERT INTO ${\ pick(tables())} SELECT g, md5(g::text) FROM generate_series(1, ${\ int rand 3000}) g"; },
	'freeze' => sub { return "VACUUM FREEZE ${\ pick(tables())}"; },
	'index' => sub {
		my $t = pick(tables());
		return 'CREATE INDEX ON ' . pick("$t (id)", "$t USING hash (id)", "$t USING gin (list)",
			"$t USING brin (id)", "$t USING gist (place)", "$t USING spgist (place)");
	},
	'reindex' => sub { return "REINDEX TABLE ${\ pick(tables())}"; },
	'unlogged' => sub { return "ALTER TABLE ${\ pick(tables())} SET " . pick('UNLOGGED', 'LOGGED'); },
	'create database' => sub { return databases() < 3 ? "CREATE DATABASE d${\ ++$names} STRATEGY " . pick('file_copy', 'wal_log') : (); },
	'drop database' => sub { my @all = databases(); return @all ? "DROP DATABASE $all[0]" : (); },
	'move database' => sub { my @all = databases(); return @all ? "ALTER DATABASE $all[0] SET TABLESPACE " . pick('space', 'pg_default') : (); },
	'move table' => sub { my $t = pick(tables()); return ("ALTER TABLE $t SET TABLESPACE space", rand() < 0.5 ? "ALTER TABLE $t SET TABLESPACE pg_default" : ()); },
	'tablespace' => sub {
		my $n = ++$names;
		return ("CREATE TABLESPACE s$n LOCATION ''", "CREATE TABLE x$n TABLESPACE s$n AS SELECT generate_series(1, 500) g",
			rand() < 0.7 ? ("DROP TABLE x$n", "DROP TABLESPACE s$n") : ());
	},
	'two phases' => sub {
		my $n = ++$names;
		return ("BEGIN; INSERT INTO ${\ pick(tables())} (id) SELECT generate_series(1, 50); PREPARE TRANSACTION 'p$n'",
			pick("COMMIT PREPARED 'p$n'", "ROLLBACK PREPARED 'p$n'"));
	},
	'subtransactions' => sub {
		my $t = pick(tables());
		return "DO \$\$ BEGIN FOR i IN 1..80 LOOP BEGIN INSERT INTO $t (id) VALUES (i); IF i % 3 = 0 THEN RAISE 'x'; END IF; EXCEPTION WHEN raise_exception THEN END; END LOOP; END \$\$";
	},
	'role' => sub { return ("CREATE ROLE r${\ ++$names}", "DROP ROLE r$names"); },
	'sequence' => sub { return "SELECT count(nextval('numbers')) FROM generate_series(1, 70)"; },
	'setting' => sub { return "ALTER SYSTEM SET work_mem = '${\ (1 + int rand 9)}MB'"; },
	'checkpoint' => sub { return 'CHECKPOINT'; },
	'segment' => sub { return 'SELECT pg_switch_wal()'; });
my @events = sort keys %events;

sub storm
{
	my ($count) = @_;
	foreach (1 .. $count)
	{
		my $event = pick(@events);
		foreach my $statement ($events{$event}->())
		{
			# some meet what another has left, such as a table in a tablespace
			my ($rc, undef, $err) = $upstream->psql('postgres', $statement);
			note "$event: $err" if $rc;
		}
	}
	return;
}

sub lose_slot
{
	$upstream->safe_psql('postgres', "ALTER SYSTEM SET max_slot_wal_keep_size = '1MB'");
	$upstream->reload;
	$upstream->safe_psql('postgres',
		"SELECT pg_logical_emit_message(true, 'x', 'x'); SELECT pg_switch_wal(); CHECKPOINT")
	  foreach 1 .. 3;
	$upstream->safe_psql('postgres', 'ALTER SYSTEM RESET max_slot_wal_keep_size');
	$upstream->reload;
	return;
}

# Damages a file of the stopped replica in a way that the rebuild is to heal.
sub damage
{
	my ($verified) = @_;
	my $kind = pick('none', 'none', 'short', 'odd', 'missing', 'long', $verified ? ('rot', 'misplaced') : ());
	my $file = pick(grep { m!/\d+\z! && -s $_ > 16384 } glob("$pgdata/base/5/*"));
	my $size = -s $file;
	truncate $file, 8192 if $kind eq 'short';
	unlink $file if $kind eq 'missing';
	if ($kind =~ /rot|misplaced|long|odd/)
	{
		open my $fh, '+<:raw', $file or die "open: $!";
		read $fh, my $page, 8192;
		my $at = $kind eq 'long' ? $size : $kind eq 'odd' ? $size : 8192;
		substr($page, 6000, 4) = 'xxxx' if $kind eq 'rot';
		seek $fh, $at, 0;
		print $fh $kind eq 'odd' ? substr($page, 0, 100) : $page;
		close $fh;
	}
	return "$kind of " . substr $file, length $pgdata;
}

my ($code, $out, $err) = run_script($script, { PGPASSWORD => 'secret-word-1' }, @where);
is($code, 0, 'a replica is made');
adopt_replica($replica);
my ($by_changes, $all_blocks, $all_unequal) = (0, 0, 0);
foreach my $round (1 .. $rounds)
{
	storm(4 + int rand 6);
	$replica->safe_psql('postgres', 'CHECKPOINT') if rand() < 0.5;
	storm(2 + int rand 4);
	my $end = pick('fast', 'fast', 'immediate', 'kill');
	$end eq 'kill' ? $replica->kill9 : $replica->stop($end);
	storm(6 + int rand 10);
	lose_slot();
	# A server that did not end cleanly may find more WAL to replay, and then
	# damage that stops it; whose blocks nobody verifies.
	my $damage = $end eq 'fast' ? damage($checksums) : 'none';
	my ($out, $err) = ('', '');
	my $harness = start_script($script, {}, \$out, \$err, @where, '--rebuild', '--remove-old');
	while ($harness->pumpable)
	{
		storm(1);
		$harness->pump_nb;
	}
	$harness->finish;
	my $code = $harness->full_result(0) >> 8;
	print map { "#   $_\n" } split /\n/, $out . $err;
	is($code, 0, "round $round: $end, $damage: rebuilt");
	$by_changes++ if $out =~ /bringing back only what changed/ && $out !~ /cloning everything/;
	adopt_replica($replica);
	storm(2);
	$upstream->stop;
	$replica->poll_query_until('postgres',
		'SELECT pg_last_wal_receive_lsn() = pg_last_wal_replay_lsn()') or die 'no replay';
	$replica->stop;
	my ($blocks, @unequal) = compare_clusters($pgdata, $upstream->data_dir);
	$all_blocks += $blocks;
	$all_unequal += @unequal;
	is(join("\n", @unequal[ 0 .. ($#unequal < 9 ? $#unequal : 9) ]), '', "round $round: none of $blocks blocks is unequal");
	last if @unequal;
	$upstream->start;
	$replica->start;
}
diag("seed $seed: $by_changes of $rounds rounds by the changed blocks, $all_unequal of $all_blocks blocks unequal");
cmp_ok($by_changes, '>=', $rounds * 0.7, 'most by the changed blocks');
done_testing();
