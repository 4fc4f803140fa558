# --rebuild with the changed blocks only, through random histories: DDL of every
# kind before, during and after, the server ended in any way, its files damaged,
# another server promoted, also exactly on the boundary of two WAL segments.  Each
# rebuilt replica is the next one lost.  Each time it equals its primary after a
# clean shutdown, block by block; and in every tenth round a full clone that was
# stopped at the same position, too.
#
# Goes on for PRK_REBUILD_ROUNDS rounds from PRK_REBUILD_SEED on.  With
# PRK_REBUILD_BIG=yes the last one is on more than 2 GB; with
# PRK_REBUILD_CASCADE=yes the replica is one of a standby's: scripts/proof rebuild.
# What is unequal is copied to the directory PRK_REBUILD_KEEP, where that is set.
use strict;
use warnings FATAL => 'all';

use FindBin;
use lib $FindBin::RealBin;

use ClusterCompare;
use JoinKit;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(usleep);

my ($rounds, $big, $cascade, $keep) = @ENV{qw(PRK_REBUILD_ROUNDS PRK_REBUILD_BIG PRK_REBUILD_CASCADE PRK_REBUILD_KEEP)};
plan skip_all => 'scripts/proof rebuild runs it' if !$rounds;
my $upstream = PostgreSQL::Test::Cluster->new('upstream');
plan skip_all => 'incremental backups begin with PostgreSQL 17'
  if $upstream->pg_version < 17;
my $seed = $ENV{PRK_REBUILD_SEED} || int(time);
srand $seed;
my $session;
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
  'CREATE SEQUENCE numbers',
  # what never changes, or a clone would be less than most deltas
  q{CREATE TABLE still AS SELECT g, repeat('x', 1900) AS words FROM generate_series(1, 32000) g};
my $names = 0;
table() foreach 1 .. 6;
$upstream->safe_psql('postgres',
	"SELECT replica_kit.provision('replica1', '127.0.0.1', 'replica1', 'secret-word-1')");
# where the replica gets its data from
my $source = $upstream;
if ($cascade)
{
	$source = copy_of_upstream('source');
	$source->safe_psql('postgres', "SELECT replica_kit.provision('replica1', '127.0.0.1')");
}
my $script = write_script($source, 'replica1');
my $replica = new_replica('replica');
my $pgdata = $replica->data_dir;
my @where = ('--pgdata', $pgdata, '--port', $replica->port);

sub pick { return $_[ rand @_ ]; }

# A statement by a session that lasts as long as the upstream runs: what it
# returns, and its errors, which the caller may expect.
sub ask
{
	my ($statement) = @_;
	if (!defined $session)
	{
		$session = $upstream->background_psql('postgres', on_error_stop => 0);
		$session->set_query_timer_restart;
	}
	$session->{stderr} = '';
	my $out = $session->query($statement);
	return ($out, join ' ', $session->{stderr} =~ /ERROR:.*/g);
}

sub stop_upstream
{
	my ($mode) = @_;
	$session->quit if defined $session;
	undef $session;
	$upstream->stop($mode);
	return;
}

sub tables
{
	my ($out) = ask("SELECT relname FROM pg_class WHERE relkind = 'r' AND relname ~ '^t[0-9]' ORDER BY 1");
	return split /\n/, $out;
}

sub databases
{
	my ($out) = ask("SELECT datname FROM pg_database WHERE datname ~ '^d[0-9]' ORDER BY 1");
	return split /\n/, $out;
}

sub table
{
	my $name = 't' . ++$names;
	my $rows = 500 + int rand 8000;
	return ask(
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
	'drop index' => sub {
		my ($out) = ask("SELECT relname FROM pg_class WHERE relkind = 'i' AND relname ~ '^t[0-9]' ORDER BY random() LIMIT 1");
		return $out ? "DROP INDEX $out" : ();
	},
	'index concurrently' => sub { return "CREATE INDEX CONCURRENTLY ON ${\ pick(tables())} (words)"; },
	'cluster' => sub {
		my ($out) = ask("SELECT format('CLUSTER %s USING %s', indrelid::regclass, indexrelid::regclass) FROM pg_index JOIN pg_class i ON i.oid = indexrelid JOIN pg_am ON pg_am.oid = relam WHERE relname ~ '^t[0-9]' AND amname = 'btree' ORDER BY random() LIMIT 1");
		return $out || ();
	},
	'rolled back' => sub { return "BEGIN; INSERT INTO ${\ pick(tables())} SELECT g, md5(g::text) FROM generate_series(1, ${\ int rand 3000}) g; CREATE TABLE never AS SELECT generate_series(1, 2000); ROLLBACK"; },
	'long values' => sub { return "INSERT INTO ${\ pick(tables())} (id, words) SELECT g, (SELECT string_agg(md5((g * i)::text), '') FROM generate_series(1, 200) i) FROM generate_series(1, 40) g"; },
	'several lockers' => sub { my $t = pick(tables()); return "BEGIN; SELECT count(*) FROM (SELECT FROM $t WHERE id < 50 FOR KEY SHARE) x; SAVEPOINT s; UPDATE $t SET list = NULL WHERE id < 50; COMMIT"; },
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
			my (undef, $err) = ask($statement);
			note "$event: $err" if $err;
			ask('ROLLBACK') if $err && $statement =~ /^BEGIN/;
		}
	}
	return;
}

# What the slot of the stopped replica holds is removed where it is.
sub lose_slot
{
	$source->safe_psql('postgres', "ALTER SYSTEM SET max_slot_wal_keep_size = '1MB'");
	$source->reload;
	my $status = '';
	for (my $try = 0; $status ne 'lost' && $try < 10; $try++)
	{
		ask("SELECT pg_logical_emit_message(true, 'x', 'x'); SELECT pg_switch_wal()") foreach 1 .. 2;
		ask('CHECKPOINT');
		if ($cascade)
		{
			$upstream->wait_for_catchup($source, 'replay');
			$source->safe_psql('postgres', 'CHECKPOINT');
		}
		$status = $source->safe_psql('postgres', q{SELECT wal_status FROM pg_replication_slots WHERE slot_name = 'replica1'});
	}
	$status eq 'lost' or die "the slot is $status";
	$source->safe_psql('postgres', 'ALTER SYSTEM RESET max_slot_wal_keep_size');
	$source->reload;
	return;
}

# A standby of the upstream's is promoted and takes its place.
my $switches = 0;
my $on_boundary = 0;

sub switch_upstream
{
	my ($next, $is_boundary) = @_;
	storm(3);
	my ($lsn) = ask($is_boundary ? 'SELECT pg_switch_wal()' : 'SELECT pg_current_wal_insert_lsn()');
	$next->poll_query_until('postgres', "SELECT pg_last_wal_replay_lsn() >= '$lsn'") or die 'no replay';
	stop_upstream('immediate');
	$next->append_conf('postgresql.conf', "primary_slot_name = ''");
	$next->promote;
	my $history = (sort glob $next->data_dir . '/pg_wal/*.history')[-1];
	my ($fork) = (slurp($history) =~ m!^\d+\t(\S+)!mg)[-1];
	$on_boundary++ if $fork =~ m!/[0-9A-F]{0,2}000000\z!;
	note "the timeline was left at $fork";
	system_or_bail('rm', '-rf', $upstream->basedir);
	$source = $upstream = $next;
	ask("SELECT replica_kit.provision('replica1', '127.0.0.1')");
	$script = write_script($upstream, 'replica1');
	return;
}

# A full clone that streams from the upstream; its slot has it get all WAL.
sub copy_of_upstream
{
	my ($name) = @_;
	ask("SELECT pg_create_physical_replication_slot('$name', true)");
	$upstream->backup($name);
	my $copy = PostgreSQL::Test::Cluster->new($name);
	$copy->init_from_backup($upstream, $name, has_streaming => 1);
	system_or_bail('rm', '-rf', $upstream->backup_dir . "/$name");
	$copy->append_conf('postgresql.conf', "primary_slot_name = '$name'");
	$copy->start;
	return $copy;
}

# With all that the stopped upstream has.
sub stop_standby
{
	my ($standby) = @_;
	my ($control) = run_command([ 'pg_controldata', '-D', $upstream->data_dir ]);
	my ($end) = $control =~ /^Latest checkpoint location: +(\S+)$/m;
	# what cannot be read is found by the comparison
	$standby->poll_query_until('postgres', "SELECT pg_last_wal_replay_lsn() > '$end'") or note 'no replay';
	$standby->stop;
	return;
}

my ($by_changes, $all_blocks, $all_unequal, $clones) = (0, 0, 0, 0);
my %reasons;

sub compare
{
	my ($what, $copy, $master) = @_;
	my ($blocks, @unequal) = compare_clusters($copy, $master);
	$all_blocks += $blocks;
	$all_unequal += @unequal;
	my (%of, @files);
	foreach (@unequal)
	{
		my ($file) = /^(\S+)/;
		push @files, $file if !$of{$file}++;
	}
	my @sizes = map { my $file = $_; join ' and ', map { -s "$_/$file" // 'no file' } $copy, $master } @files;
	is(join("\n", map { "$files[$_]: $of{$files[$_]}, of $sizes[$_] bytes" } 0 .. $#files), '', "$what: none of $blocks blocks is unequal");
	if (@unequal && $keep)
	{
		system_or_bail('cp', '-a', $copy, "$keep/copy");
		system_or_bail('cp', '-a', $master, "$keep/master");
	}
	return !@unequal;
}

# The script, mostly without its attempt of a restart, which takes half the time.
sub some_script
{
	return $script if rand() < 0.3;
	my $text = slurp($script);
	$text =~ s/elif \[ -n "\$start" \]; then\n +find_step\n/elif false; then\n/ or die 'the script tries no restart';
	my $copy = PostgreSQL::Test::Utils::tempdir . '/join.sh';
	open my $fh, '>', $copy or die "open: $!";
	print $fh $text;
	close $fh;
	return $copy;
}

# The replica is rebuilt while more happens, and then equals its upstream.
sub rebuild
{
	my ($what, $is_with_clone) = @_;
	my ($code, $out, $err);
	my ($before, $meanwhile) = (2, 8);
	while (1)
	{
		($out, $err) = ('', '');
		my $harness = start_script(some_script(), { PGPASSWORD => 'secret-word-1' }, \$out, \$err, @where, '--rebuild', '--remove-old');
		while ($harness->pumpable)
		{
			# most of it while the blocks are fetched
			storm(1) if $out =~ /fetching what has changed|cloning / ? $meanwhile-- > 0 : $before-- > 0;
			usleep(100_000);
			$harness->pump_nb;
		}
		$harness->finish;
		$code = $harness->full_result(0) >> 8;
		last if $code != 11 || $err !~ /was moved meanwhile/;
		note "once more: $err";
		$source->safe_psql('postgres', 'CHECKPOINT') if $cascade;
	}
	print map { "#   $_\n" } split /\n/, $out . $err;
	is($code, 0, "$what: rebuilt");
	my $is_delta = $out =~ /bringing back only what changed/ && $out !~ /cloning everything/;
	$by_changes++ if $is_delta;
	$reasons{$1 =~ s!\b[0-9A-F]+/[0-9A-F]+!X!gr}++ if $out =~ /not possible with the changed blocks only: (.*): cloning everything/;
	adopt_replica($replica);
	my $clone = $is_with_clone ? copy_of_upstream('clone' . ++$clones) : undef;
	storm(2);
	stop_upstream();
	stop_standby($_) foreach grep { defined } $replica, $clone, $cascade ? $source : undef;
	my $is_equal = compare($what, $pgdata, $upstream->data_dir);
	note $out . $err if !$is_equal;
	if ($clone)
	{
		$is_equal &&= compare("$what, and a clone", $pgdata, $clone->data_dir);
		system_or_bail('rm', '-rf', $clone->basedir);
	}
	return ($is_equal, $is_delta);
}

# The replica has nothing to replay when it starts.  Replay would stop at damage, or
# fill with zeros what a file lacks, which nobody sees.
sub restart_point
{
	ask('CHECKPOINT');
	my ($lsn) = ask('SELECT pg_current_wal_lsn()');
	$replica->poll_query_until('postgres', "SELECT pg_last_wal_replay_lsn() >= '$lsn'") or die 'no replay';
	$replica->safe_psql('postgres', 'CHECKPOINT');
	return;
}

# Damages a file of the stopped replica in a way that the rebuild is to heal.
sub damage
{
	my ($verified) = @_;
	# pg_checksums does not go past a file with half a block
	my $kind = pick('short', 'missing', 'long', $verified ? ('rot', 'misplaced') : 'odd');
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
foreach my $round (1 .. $rounds)
{
	storm(4 + int rand 6);
	$replica->safe_psql('postgres', 'CHECKPOINT') if rand() < 0.5;
	storm(2 + int rand 4);
	my $end = pick('fast', 'damaged', 'immediate', 'kill');
	# it has summaries from its own beginning on
	my $next = $round % 10 == 4 && !$cascade ? copy_of_upstream('upstream' . ++$switches) : undef;
	restart_point() if $end eq 'damaged' || $next;
	$end eq 'kill' ? $replica->kill9 : $replica->stop($end eq 'damaged' ? 'fast' : $end);
	switch_upstream($next, $round % 20 == 4) if $next;
	storm(6 + int rand 10);
	lose_slot();
	my $damage = $end eq 'damaged' ? damage($checksums) : 'none';
	my ($is_equal) = rebuild("round $round: $end, $damage", $round % 10 == 8);
	last if !$is_equal;
	$upstream->start;
	ask("SELECT pg_drop_replication_slot('clone$clones')") if $round % 10 == 8;
	$source->start if $cascade;
	$replica->start;
}

# Relations of several files: changed here and there, emptied in their midst and
# grown again, cut off within the first file and grown beyond it.
if ($big)
{
	ask("CREATE TABLE big$_ (id integer, words text STORAGE PLAIN) WITH (autovacuum_enabled = off)"),
	  ask("INSERT INTO big$_ SELECT g, repeat('x', 7900) FROM generate_series(1, 150000) g") foreach 1, 2;
	ask('CREATE INDEX ON big1 (id)');
	restart_point();
	$replica->stop;
	ask($_) foreach 'UPDATE big1 SET id = id WHERE id % 1000 = 1', 'DELETE FROM big1 WHERE id BETWEEN 60000 AND 70000', 'VACUUM big1',
	  q{INSERT INTO big1 SELECT g, repeat('y', 7900) FROM generate_series(1, 500) g},
	  'DELETE FROM big2 WHERE id > 100000', 'VACUUM big2',
	  q{COPY big2 FROM PROGRAM 'awk ''BEGIN { for (; i < 40000; i++) printf "%d\t%07900d\n", i, 0 }'''};
	my ($size) = ask(q{SELECT sum(pg_relation_size(oid)) FROM pg_class WHERE relname ~ '^big'});
	cmp_ok($size, '>', 2 * 1024**3, 'more than 2 GB');
	lose_slot();
	my (undef, $is_delta) = rebuild('more than 2 GB');
	ok($is_delta, 'more than 2 GB: by the changed blocks');
	$rounds++;
}
$session->quit if defined $session;
$_->stop foreach grep { -e $_->data_dir . '/postmaster.pid' } $replica, $cascade ? $source : (), $upstream;
diag("seed $seed: $by_changes of $rounds rounds by the changed blocks, $all_unequal of $all_blocks blocks unequal; $clones times with a clone, $switches switches of the timeline, $on_boundary on a boundary");
diag("$reasons{$_} cloned: $_") foreach sort keys %reasons;
cmp_ok($by_changes, '>=', $rounds * 0.6, 'most by the changed blocks');
done_testing();
