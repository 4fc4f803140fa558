# --rebuild with the changed blocks only: a lost replica comes back equal to its
# primary, block by block, whatever happened meanwhile; and where that cannot be
# done rightly, everything is cloned and it says why.
#
# PostgreSQL's own programs give a wrong copy without a word in six ways.  Each
# is staged here: deleted rows of a truncated table (T), a short file (H), the
# visibility map (V), a WAL directory of its own (W), data that has left the
# upstream's history (D), and data checksums switched meanwhile (C).
use strict;
use warnings FATAL => 'all';

use FindBin;
use lib $FindBin::RealBin;

use ClusterCompare;
use JoinKit;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $upstream = PostgreSQL::Test::Cluster->new('upstream');
plan skip_all => 'incremental backups begin with PostgreSQL 17'
  if $upstream->pg_version < 17;
$upstream->init(allows_streaming => 1, extra => ['--data-checksums']);
$upstream->append_conf('postgresql.conf', <<~CONF);
	listen_addresses = '127.0.0.1'
	shared_preload_libraries = 'pg_replica_kit'
	summarize_wal = on
	shared_buffers = 32MB
	autovacuum = off
	wal_retrieve_retry_interval = 100ms
	allow_in_place_tablespaces = on
	CONF
$upstream->start;
$upstream->safe_psql('postgres', 'CREATE EXTENSION pg_replica_kit');
my @names = qw(shrunk short rotten seen moved grown);
$upstream->safe_psql('postgres', join ';', map
	{ "CREATE TABLE $_ WITH (autovacuum_enabled = off) AS SELECT g AS id, repeat('x', 100) AS words FROM generate_series(1, 6000) g" }
	@names);
$upstream->safe_psql('postgres', "CREATE TABLESPACE space LOCATION ''");
$upstream->safe_psql('postgres', <<~SQL);
	CREATE INDEX ON seen (id);
	ALTER TABLE moved SET TABLESPACE space;
	CREATE UNLOGGED TABLE unlogged AS SELECT 1;
	CREATE TABLE still AS SELECT g, repeat('x', 1900) FROM generate_series(1, 20000) g;
	VACUUM FREEZE;
	SQL
provision($upstream, 'replica1', 'secret-word-1');
my $script = write_script($upstream, 'replica1');
my $replica = new_replica('replica');
my $pgdata = $replica->data_dir;
my $state = "$pgdata.pg_replica_kit";
my @where = ('--pgdata', $pgdata, '--port', $replica->port);
my $kept = PostgreSQL::Test::Utils::tempdir . '/kept';
my $wal = $replica->basedir . '/wal';
my ($code, $out, $err);

sub rebuild
{
	my ($what, $file, @more) = @_;
	($code, $out, $err) = run_script($file, { PGPASSWORD => 'secret-word-1' }, @where, '--rebuild', '--remove-old', @more);
	is($code, 0, "$what: exit code 0");
	return;
}

# A restart point with all that the upstream has; then the replica is stopped.
sub stop_replica
{
	my ($master, $mode) = @_;
	$master->safe_psql('postgres', 'CHECKPOINT');
	$master->wait_for_catchup('replica1', 'replay');
	$replica->safe_psql('postgres', 'CHECKPOINT');
	$replica->stop($mode // 'fast');
	return;
}

# The upstream removes the WAL that the stopped replica needs; it may be a standby
# of the primary.
sub lose_slot
{
	my ($master, $standby) = @_;
	my $holder = $standby // $master;
	$holder->safe_psql('postgres', "ALTER SYSTEM SET max_slot_wal_keep_size = '1MB'");
	$holder->reload;
	foreach (1 .. 3)
	{
		$master->safe_psql('postgres',
			"CREATE TABLE IF NOT EXISTS wal (); SELECT pg_logical_emit_message(true, 'x', 'x'); SELECT pg_switch_wal(); CHECKPOINT");
		next if !$standby;
		$master->wait_for_catchup($standby, 'replay');
		$standby->safe_psql('postgres', 'CHECKPOINT');
	}
	remove_wal($holder);
	$holder->safe_psql('postgres', 'ALTER SYSTEM RESET max_slot_wal_keep_size');
	$holder->reload;
	return;
}

# The file of a relation, as the replica has it.
sub file_of
{
	my ($master, $relation) = @_;
	return $master->safe_psql('postgres', "SELECT pg_relation_filepath('$relation')");
}

# Both are stopped at the same position and compared; the upstream runs again.
sub stop_and_compare
{
	my ($master) = @_;
	adopt_replica($replica);
	$master->stop;
	my ($control) = run_command([ 'pg_controldata', '-D', $master->data_dir ]);
	my ($end) = $control =~ /^Latest checkpoint location: +(\S+)$/m;
	$replica->poll_query_until('postgres',
		"SELECT pg_last_wal_replay_lsn() > '$end'")
	  or die 'no replay';
	$replica->stop;
	my @result = compare_clusters($pgdata, $master->data_dir);
	$master->start;
	return @result;
}

sub is_equal
{
	my ($what, $master) = @_;
	my ($blocks, @unequal) = stop_and_compare($master);
	cmp_ok($blocks, '>', 1000, "$what: blocks were compared");
	is(join("\n", @unequal), '', "$what: none of $blocks blocks is unequal");
	ok(!-e "$state/old", "$what: the old data is removed");
	return;
}

# What a dry run says would be fetched, and what a run says was.
my $estimate = qr/fetch what has changed since [0-9A-F\/]+ .*: about (\d+) MB of \d+ MB$/m;
my $said = qr/bringing back only what changed since [0-9A-F\/]+ \((\d+) MB of \d+ MB fetched\)/;

sub is_estimated
{
	my ($what, $about) = @_;
	my ($fetched) = $out =~ $said;
	ok($about && $fetched, "$what: what would be fetched, and what was") or return;
	# a backup that ends in the next WAL segment brings that along
	$fetched -= 16 if $fetched > 16 + 0.9 * $about;
	cmp_ok(abs($fetched - $about), '<=', 1 + $about / 10, "$what: about as much as was said ($about, $fetched)");
	return;
}

# Not by a clone after all.
sub is_delta
{
	my ($what) = @_;
	like($out, qr/^pg_replica_kit: bringing back only what changed since /m, "$what: by the changed blocks");
	unlike($out, qr/cloning everything/, "$what: to the end");
	return;
}

# Without one of its precautions it goes wrong without a word, and the comparison
# sees it.
sub goes_wrong
{
	my ($what, $master, $file) = @_;
	($code, $out, $err) = run_script($file, { PGPASSWORD => 'secret-word-1' }, @where, '--rebuild', '--remove-old');
	is($code, 0, "$what: the replica streams nevertheless");
	is_delta($what);
	my ($blocks, @unequal) = stop_and_compare($master);
	cmp_ok(scalar @unequal, '>', 0, "$what: blocks are unequal");
	return;
}

sub keep_replica
{
	system_or_bail('rm', '-rf', $kept, "$kept.wal");
	system_or_bail('cp', '-a', $pgdata, $kept);
	system_or_bail('cp', '-a', $wal, "$kept.wal");
	return;
}

sub restore_replica
{
	my ($master) = @_;
	system_or_bail('rm', '-rf', $pgdata, $wal);
	system_or_bail('cp', '-a', $kept, $pgdata);
	system_or_bail('cp', '-a', "$kept.wal", $wal);
	lose_slot($master);
	return;
}

# The script without one of its precautions, and without its attempt of a restart.
sub careless
{
	return without(qr/elif \[ -n "\$start" \]; then\n +find_step\n/, "elif false; then\n", @_);
}

sub without
{
	my @changes = @_;
	my $text = slurp($script);
	while (my ($from, $to) = splice @changes, 0, 2)
	{
		$text =~ s/$from/$to/ or die "the script has no $from";
	}
	my $copy = PostgreSQL::Test::Utils::tempdir . '/join.sh';
	open my $fh, '>', $copy or die "open: $!";
	print $fh $text;
	close $fh;
	return $copy;
}

# ----------------------------------------------------------------------
# T, H, V, W, bit rot, and DDL of every kind
# ----------------------------------------------------------------------
($code, $out, $err) = run_script($script, { PGPASSWORD => 'secret-word-1' },
	@where, '--waldir', $wal);
is($code, 0, 'a replica is made, with a WAL directory of its own');
adopt_replica($replica);
$upstream->safe_psql('postgres', 'CREATE DATABASE gone');
stop_replica($upstream);
my ($short, $rotten) = map { file_of($upstream, $_) } qw(short rotten);
truncate "$pgdata/$short", 8192 * 40 or die "truncate: $!";
{
	open my $file, '+<:raw', "$pgdata/$rotten" or die "open: $!";
	seek $file, 8192 * 3 + 5000, 0;
	print $file 'rot';
	close $file;
}
$upstream->safe_psql('postgres', $_) foreach (
	'DELETE FROM shrunk WHERE id > 3000', 'VACUUM shrunk',
	# the last pages that a COPY extends the table by stay unused
	"COPY shrunk FROM PROGRAM 'awk ''BEGIN { for (; i < 2200; i++) printf \"%d\\t%0100d\\n\", i, 0 }'''",
	'UPDATE seen SET words = NULL WHERE id % 100 = 0', 'VACUUM seen',
	'DELETE FROM seen WHERE id % 1000 = 7',
	'UPDATE moved SET words = NULL WHERE id < 100', 'DROP DATABASE gone', 'CREATE DATABASE late',
	'VACUUM FULL pg_class', 'CREATE TABLE late AS SELECT * FROM short', 'CHECKPOINT');
is($upstream->safe_psql('postgres',
		"SELECT pg_relation_size('shrunk') / 8192 > (max(ctid)::text::point)[0] + 1 FROM shrunk"),
	't', 'the truncated table ends with pages that were never used');
lose_slot($upstream);
keep_replica();
rebuild('changed blocks', $script);
is_delta('changed blocks');
like($out, qr/^pg_replica_kit: files of the old data are damaged: 1 \(\Q$rotten\E\); fetching them whole$/m,
	'bit rot in a block that has not changed is seen');
like($out, qr/^pg_replica_kit: fetching more files whole: \d+$/m, 'a short file is seen');
like($out, $said, 'it says how much was fetched');
like(readlink("$pgdata/pg_wal"), qr/\Q$wal\E\z/, 'the WAL is in its own directory');
is_equal('changed blocks', $upstream);

# What a dry run says is what is fetched, also where a table has grown by pages that
# are in no WAL: it comes whole at once, and no second backup is needed.
$replica->start;
stop_replica($upstream);
$upstream->safe_psql('postgres', $_) foreach
  "COPY grown FROM PROGRAM 'awk ''BEGIN { for (; i < 2200; i++) printf \"%d\\t%0100d\\n\", i, 0 }'''",
  'UPDATE seen SET words = NULL WHERE id % 50 = 0';
is($upstream->safe_psql('postgres', "SELECT pg_relation_size('grown') / 8192 > (max(ctid)::text::point)[0] + 1 FROM grown"),
	't', 'a table that has grown ends with pages that were never used');
lose_slot($upstream);
rebuild('a table that has grown', $script, '--dry-run');
my ($about) = $out =~ $estimate;
rebuild('a table that has grown', $script);
is_delta('a table that has grown');
unlike($out, qr/fetching more files whole/, 'a table that has grown: by one backup');
is_estimated('a table that has grown', $about);
is_equal('a table that has grown', $upstream);

# Without its precautions.
foreach my $case (
	[ 'not looking at truncated tables', qr/limits="\$limits\$files\$newline"/, ':' ],
	[ 'not looking at short files', qr/holes=\$\(find_holes\)/, 'holes=$(:)' ])
{
	restore_replica($upstream);
	goes_wrong($case->[0], $upstream, careless(@$case[ 1, 2 ]));
}

# Short files, and together they are more than everything.
restore_replica($upstream);
truncate "$pgdata/$_", 8192 or die "truncate: $!" foreach map { file_of($upstream, $_) } @names, 'still';
rebuild('many short files', careless());
like($out, qr/^pg_replica_kit: not possible with the changed blocks only: with files that have to come whole after all, about \d+ MB would be fetched, and everything is \d+ MB: cloning everything$/m,
	'many short files: the reason');
is_equal('many short files', $upstream);

# The restart that is tried first fills a short file with zeros, and makes one that
# is missing, up to the block that is replayed.  A table that got unused pages
# while the replica streamed, which has none of them, comes by a second backup.
$replica->start;
$upstream->safe_psql('postgres', $_) foreach
  'CREATE TABLE loaded (id integer, words text) WITH (autovacuum_enabled = off)',
  "COPY loaded FROM PROGRAM 'awk ''BEGIN { for (; i < 2200; i++) printf \"%d\\t%0100d\\n\", i, 0 }'''";
stop_replica($upstream);
my $loaded = file_of($upstream, 'loaded');
cmp_ok(-s "$pgdata/$loaded", '<', -s $upstream->data_dir . "/$loaded", 'a replica has no pages that were never used');
$replica->start;
my @filled = map { file_of($upstream, $_) } qw(short seen);
$upstream->safe_psql('postgres', "UPDATE $_ SET words = 'last' WHERE id = 6000") foreach qw(short seen);
$upstream->wait_for_catchup('replica1', 'replay');
$replica->stop('immediate');
truncate "$pgdata/$filled[0]", 8192 or die "truncate: $!";
unlink "$pgdata/$filled[1]" or die "unlink: $!";
my $kept_first = $kept;
$kept = "$kept.filled";
keep_replica();
lose_slot($upstream);
goes_wrong('not looking at files that were filled', $upstream, without(qr/ && leave_filled/, ''));
restore_replica($upstream);
rebuild('files that were filled', $script);
is_delta('files that were filled');
like($out, qr/^pg_replica_kit: files of the old data have grown with empty blocks: 2 \((?:\Q$filled[0] $filled[1]\E|\Q$filled[1] $filled[0]\E)\); fetching them whole$/m,
	'files that were filled: they are seen');
like($out, qr/^pg_replica_kit: fetching more files whole: 1$/m, 'pages that were never used: a second backup');
is_equal('files that were filled', $upstream);
ok(!-e "$state/sizes", 'files that were filled: their sizes are kept no longer');
$kept = $kept_first;

# A WAL directory of its own, told to pg_basebackup: pg_combinebackup leaves it out
# and ends with 0.  Its words are heeded, and where they are not, the result is
# seen to lack it.
my @waldir = (qr/(?<=--manifest-checksums=NONE) \\\n(?= +--incremental)/, ' --waldir="$waldir/pg_replica_kit.clone/$part" ');
foreach my $case (
	[ qr/skipping symbolic link|could not stat file/ ],
	[ qr/the result is not complete: pg_wal\S* is missing/, qr/\[ "\$status" -eq 0 \] && \[ -z "\$words" \](?=; \} \|\|\n +cannot "\$\{words:-pg_combinebackup)/, ':' ])
{
	my ($reason, @more) = @$case;
	restore_replica($upstream);
	rebuild('a WAL directory told to pg_basebackup', careless(@waldir, @more));
	like($out, qr/^pg_replica_kit: not possible with the changed blocks only: .*$reason.*: cloning everything$/m, 'a WAL directory told to pg_basebackup: the reason');
	adopt_replica($replica);
	$replica->stop;
}

# Data checksums were switched on since: the old data has neither the setting nor
# the checksums.
sub without_checksums
{
	restore_replica($upstream);
	system_or_bail('pg_checksums', '--disable', '-D', $pgdata);
	foreach my $file (grep { m!/\d+\z! && -s } glob "$pgdata/base/5/*")
	{
		open my $fh, '+<:raw', $file or die "open: $!";
		for (my $block = 0; $block < (-s $file) / 8192; $block++)
		{
			seek $fh, 8192 * $block + 8, 0;
			print $fh "\0\0";
		}
		close $fh or die "close: $!";
	}
	return;
}

sub pages_without_checksum
{
	my $count = 0;
	foreach my $file (grep { m!/\d+\z! && -s } glob "$pgdata/base/5/*")
	{
		my $content = slurp($file);
		$count += grep { unpack('x8 v x2 v', $_) == 0 && $_ =~ /[^\0]/ } unpack '(a8192)*', $content;
	}
	return $count;
}
without_checksums();
($code, $out, $err) = run_script($script, {}, @where, '--rebuild', '--dry-run');
like($out, qr/data checksums were switched on or off since: cloning everything/, 'checksums switched on: the reason');
($code, $out, $err) = run_script(
	careless(qr/0:off \| 1:on\) ;;/, '*) ;;', qr/\[ -n "\$start" \] \|\| cannot/, ': || cannot',
		qr/\[ "\$status" -eq 0 \] && \[ -z "\$words" \](?=; \} \|\|\n +cannot "\$\{words:-pg_combinebackup)/, ':'),
	{}, @where, '--rebuild', '--no-start');
is($code, 0, 'not looking at checksums: the script says nothing');
is_delta('not looking at checksums');
like(slurp_control(), qr/^Data page checksum version: +[1-9]/m, 'not looking at checksums: the result is said to have them');
cmp_ok(pages_without_checksum(), '>', 0, 'not looking at checksums: pages have none');
system_or_bail('rm', '-rf', "$state/old", "$state/kept");

sub slurp_control
{
	my ($out) = run_command([ 'pg_controldata', '-D', $pgdata ]);
	return $out;
}

# Killed when all is fetched and put together, it begins again.
restore_replica($upstream);
my $programs = PostgreSQL::Test::Utils::tempdir;
append_to_file("$programs/rmdir", "#!/bin/sh\n" . kill_session() . "\n");
chmod 0755, "$programs/rmdir" or die "chmod: $!";
run_script($script, { PATH => "$programs:$ENV{PATH}" }, @where, '--rebuild');
ok(-e "$state/aside" && -e "$state/old/base", 'killed: the old data is aside');
my $manifest = PostgreSQL::Test::Utils::tempdir . '/manifest';
rebuild('killed', careless(qr/fetch_parts && combine/, "fetch_parts && combine && cp \"\$clone/manifest\" $manifest"));
is_delta('killed');
# visibility maps come whole: WAL of 17.10 and before does not name their blocks
like(slurp($manifest), qr!"Path": "base/5/\d+"!, 'the manifest lists tables');
unlike(slurp($manifest), qr!_(?:vm|fsm)"!, 'the manifest lists no maps');
like($out, qr/putting back the data that an interrupted rebuild had moved aside/, 'killed: the old data is put back');
like($out, $said, 'killed: and the changed blocks are fetched again');
is_equal('killed', $upstream);

# ----------------------------------------------------------------------
# Refusals, each with its reason
# ----------------------------------------------------------------------

# More than a clone is not fetched.
$replica->start;
stop_replica($upstream);
$upstream->safe_psql('postgres', $_) foreach 'DROP DATABASE late', (map { "UPDATE $_ SET words = repeat('z', 900)" } @names), 'VACUUM FULL';
lose_slot($upstream);
rebuild('all has changed', $script, '--dry-run');
like($out, qr/^pg_replica_kit: step: full clone$/m, 'all has changed: the step of a dry run');
like($out, qr/^pg_replica_kit: not possible with the changed blocks only: about \d+ MB would be fetched, and everything is \d+ MB: cloning everything$/m, 'all has changed: the reason');

sub refused
{
	my ($what, $reason, @more) = @_;
	restore_replica($upstream);
	($code, $out, $err) = run_script($script, {}, @where, '--rebuild', '--dry-run', @more);
	like($out, qr/^pg_replica_kit: not possible with the changed blocks only: $reason.*: cloning everything$/m, "$what: the reason");
	like($out, qr/^pg_replica_kit: - clone \d+ MB/m, "$what: everything would be cloned");
	return;
}
refused('--full', qr/--full is given/, '--full');
refused('--no-start', qr/with --no-start the old data is taken to be damaged/, '--no-start');
$upstream->safe_psql('postgres', 'ALTER SYSTEM SET summarize_wal = off');
$upstream->reload;
refused('no summaries', qr/summarize_wal is off on the upstream server/);
$upstream->safe_psql('postgres', "CREATE TABLE unseen AS SELECT g FROM generate_series(1, 1000) g");
lose_slot($upstream);
$upstream->safe_psql('postgres', 'ALTER SYSTEM SET summarize_wal = on');
$upstream->reload;
lose_slot($upstream);
$upstream->poll_query_until('postgres',
	'SELECT count(*) > 0 FROM pg_available_wal_summaries() WHERE end_lsn > (SELECT redo_lsn - 100 FROM pg_control_checkpoint())');
refused('a gap in the summaries', qr/the upstream server has no WAL summaries from [0-9A-F\/]+ to [0-9A-F\/]+/);
rebuild('a gap in the summaries', $script);
is_equal('a gap in the summaries', $upstream);

# ----------------------------------------------------------------------
# Another upstream, with and without changes that it never had
# ----------------------------------------------------------------------
my $other = PostgreSQL::Test::Cluster->new('other');
$upstream->backup('b');
$other->init_from_backup($upstream, 'b', has_streaming => 1);
$other->start;
$replica->start;
$upstream->safe_psql('postgres', 'CREATE TABLE before AS SELECT g FROM generate_series(1, 1000) g');
$upstream->wait_for_catchup($other, 'replay');
stop_replica($upstream);
keep_replica();
# no less than the replica that was kept
$upstream->wait_for_catchup($other, 'replay');
my $before = $kept;
$other->stop;
# Too few buffers to hold what is replayed: without a new restart point, they are
# not written when it is stopped.
$replica->append_conf('postgresql.conf', 'shared_buffers = 1MB');
$replica->start;
$upstream->safe_psql('postgres', "INSERT INTO before SELECT g FROM generate_series(1, 50000) g; UPDATE short SET words = 'only there'");
$upstream->wait_for_catchup('replica1', 'replay');
$replica->stop;
$upstream->stop;
$other->start;
$other->promote;
$other->safe_psql('postgres', "SELECT replica_kit.provision('replica1', '127.0.0.1')");
$other->safe_psql('postgres', "UPDATE rotten SET words = 'other' WHERE id < 100");
$script = write_script($other, 'replica1');
$kept = "$before.later";
keep_replica();
# PostgreSQL accepts it where the manifest names no WAL past the fork.
restore_replica($other);
goes_wrong('not looking at the history', $other, careless(qr/is_in_history "\$from_timeline" "\$from" && is_in_history "\$end_timeline" "\$end"/, 'end=$from'));
restore_replica($other);
rebuild('left the history', $script);
like($out, qr/the old data has replayed to [0-9A-F\/]+ on timeline 1, which the upstream server has left at [0-9A-F\/]+: it holds changes that the upstream never had: cloning everything/,
	'left the history: the reason');
is_equal('left the history', $other);
$kept = $before;
restore_replica($other);
($code, $out, $err) = run_script($script, { PGPASSWORD => 'secret-word-1' }, @where, '--rebuild', '--dry-run');
($about) = $out =~ $estimate;
like($out, qr/^pg_replica_kit: step: changed blocks$/m, 'over a switch of timeline: the step of a dry run');
rebuild('over a switch of timeline', $script);
is_delta('over a switch of timeline');
is_estimated('over a switch of timeline', $about);
is_equal('over a switch of timeline', $other);

# ----------------------------------------------------------------------
# A standby as upstream
# ----------------------------------------------------------------------
my $between = PostgreSQL::Test::Cluster->new('between');
$other->backup('b');
$between->init_from_backup($other, 'b', has_streaming => 1);
$between->start;
$between->safe_psql('postgres', "SELECT replica_kit.provision('replica1', '127.0.0.1')");
$replica->start;
stop_replica($other);
# A second backup of a standby would begin where its first does, and the server
# refuses that.
truncate "$pgdata/" . file_of($other, 'seen'), 8192 or die "truncate: $!";
$other->safe_psql('postgres', $_) foreach "UPDATE short SET words = 'x' WHERE id % 100 = 0", 'DELETE FROM rotten WHERE id > 3000', 'VACUUM rotten',
  'CREATE TABLE cascaded AS SELECT * FROM short', 'VACUUM FULL pg_class';
lose_slot($other, $between);
$script = write_script($between, 'replica1');
rebuild('a standby as upstream', $script);
is_delta('a standby as upstream');
like($out, qr/^pg_replica_kit: fetching more files whole: 1$/m, 'a standby as upstream: a short file is seen');
is_equal('a standby as upstream', $other);
$_->stop foreach $between, $other;
done_testing();
