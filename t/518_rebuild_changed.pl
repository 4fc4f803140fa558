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
my @names = qw(shrunk short rotten seen moved);
$upstream->safe_psql('postgres', join ';', map
	{ "CREATE TABLE $_ WITH (autovacuum_enabled = off) AS SELECT g AS id, repeat('x', 100) AS words FROM generate_series(1, 6000) g" }
	@names);
$upstream->safe_psql('postgres', "CREATE TABLESPACE space LOCATION ''");
$upstream->safe_psql('postgres', <<~SQL);
	CREATE INDEX ON seen (id);
	ALTER TABLE moved SET TABLESPACE space;
	CREATE UNLOGGED TABLE unlogged AS SELECT 1;
	VACUUM FREEZE;
	SQL
provision($upstream, 'replica1', 'secret-word-1');
my $script = write_script($upstream, 'replica1');
my $replica = new_replica('replica');
my $pgdata = $replica->data_dir;
my $state = "$pgdata.pg_replica_kit";
my @where = ('--pgdata', $pgdata, '--port', $replica->port);
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

# The upstream removes the WAL that the stopped replica needs.
sub lose_slot
{
	my ($master) = @_;
	$master->safe_psql('postgres', "ALTER SYSTEM SET max_slot_wal_keep_size = '1MB'");
	$master->reload;
	$master->safe_psql('postgres',
		"CREATE TABLE IF NOT EXISTS wal (); SELECT pg_logical_emit_message(true, 'x', 'x'); SELECT pg_switch_wal(); CHECKPOINT")
	  foreach 1 .. 3;
	$master->safe_psql('postgres', 'ALTER SYSTEM RESET max_slot_wal_keep_size');
	$master->reload;
	return;
}

# The file of a relation, as the replica has it.
sub file_of
{
	my ($master, $relation) = @_;
	return $master->safe_psql('postgres', "SELECT pg_relation_filepath('$relation')");
}

# Both stopped at the same position, they are the same; both run again.
sub is_equal
{
	my ($what, $master) = @_;
	adopt_replica($replica);
	$master->stop;
	$replica->poll_query_until('postgres',
		"SELECT pg_last_wal_receive_lsn() = pg_last_wal_replay_lsn()")
	  or die 'no replay';
	$replica->stop;
	my ($blocks, @unequal) = compare_clusters($pgdata, $master->data_dir);
	cmp_ok($blocks, '>', 1000, "$what: blocks were compared");
	is(join("\n", @unequal), '', "$what: none of $blocks blocks is unequal");
	ok(!-e "$state/old", "$what: the old data is removed");
	$master->start;
	return;
}

# The script without one of its precautions.
sub careless
{
	my ($from, $to) = @_;
	my $text = slurp($script);
	$text =~ s/$from/$to/ or die "the script has no $from";
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
	@where, '--waldir', $replica->basedir . '/wal');
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
my $kept = PostgreSQL::Test::Utils::tempdir . '/kept';
my $wal = $replica->basedir . '/wal';
system_or_bail('cp', '-a', $pgdata, $kept);
system_or_bail('cp', '-a', $wal, "$kept.wal");
rebuild('changed blocks', $script);
like($out, qr/^pg_replica_kit: files of the old data are damaged: 1 \(\Q$rotten\E\); fetching them whole$/m,
	'bit rot in a block that has not changed is seen');
like($out, qr/^pg_replica_kit: fetching more files whole: \d+$/m, 'a short file is seen');
my $said = qr/bringing back only what changed since [0-9A-F\/]+ \((\d+) MB of \d+ MB fetched\)/;
like($out, $said, 'it says how much was fetched');
like(readlink("$pgdata/pg_wal"), qr/\Q$wal\E\z/, 'the WAL is in its own directory');
is_equal('changed blocks', $upstream);

# Without its precautions it goes wrong, and the comparison sees it.
foreach my $case (
	[ 'truncated tables', qr/limits="\$limits\$files\$newline"/, ':' ],
	[ 'short files', qr/holes=\$\(find_holes\)/, 'holes=$(:)' ])
{
	my ($what, $from, $to) = @$case;
	rmtree_and_restore();
	($code, $out, $err) = run_script(careless($from, $to), {}, @where, '--rebuild', '--remove-old');
	is($code, 0, "not looking at $what: the replica streams nevertheless");
	adopt_replica($replica);
	$upstream->stop;
	$replica->stop;
	my ($blocks, @unequal) = compare_clusters($pgdata, $upstream->data_dir);
	cmp_ok(scalar @unequal, '>', 0, "not looking at $what: blocks are unequal");
	$upstream->start;
}

# Killed when all is fetched and put together, it begins again.
rmtree_and_restore();
my $programs = PostgreSQL::Test::Utils::tempdir;
append_to_file("$programs/rmdir", "#!/bin/sh\n" . kill_session() . "\n");
chmod 0755, "$programs/rmdir" or die "chmod: $!";
run_script($script, { PATH => "$programs:$ENV{PATH}" }, @where, '--rebuild');
ok(-e "$state/aside" && -e "$state/old/base", 'killed: the old data is aside');
rebuild('killed', $script);
like($out, qr/putting back the data that an interrupted rebuild had moved aside/, 'killed: the old data is put back');
like($out, $said, 'killed: and the changed blocks are fetched again');
is_equal('killed', $upstream);

sub rmtree_and_restore
{
	system_or_bail('rm', '-rf', $pgdata, $wal);
	system_or_bail('cp', '-a', $kept, $pgdata);
	system_or_bail('cp', '-a', "$kept.wal", $wal);
	lose_slot($upstream);
	return;
}

# ----------------------------------------------------------------------
# Refusals, each with its reason
# ----------------------------------------------------------------------
sub refused
{
	my ($what, $reason, @more) = @_;
	rmtree_and_restore();
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
$upstream->stop;
system_or_bail('pg_checksums', '--disable', '-D', $upstream->data_dir);
$upstream->start;
lose_slot($upstream);
rebuild('checksums switched off', $script);
like($out, qr/data checksums were switched on or off since: cloning everything/, 'checksums switched off: the reason');
is_equal('checksums switched off', $upstream);

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
system_or_bail('rm', '-rf', $kept, "$kept.wal");
system_or_bail('cp', '-a', $pgdata, $kept);
system_or_bail('cp', '-a', $wal, "$kept.wal");
$other->stop;
$replica->start;
$upstream->safe_psql('postgres', "INSERT INTO before SELECT g FROM generate_series(1, 50000) g; UPDATE short SET words = 'only there'");
$upstream->wait_for_catchup('replica1', 'replay');
$replica->stop;
$upstream->stop;
$other->start;
$other->promote;
$other->safe_psql('postgres', "SELECT replica_kit.provision('replica1', '127.0.0.1')");
$other->safe_psql('postgres', "UPDATE rotten SET words = 'other' WHERE id < 100");
lose_slot($other);
$script = write_script($other, 'replica1');
rebuild('left the history', $script);
like($out, qr/the old data has replayed to [0-9A-F\/]+ on timeline 1, which the upstream server has left at [0-9A-F\/]+: it holds changes that the upstream never had: cloning everything/,
	'left the history: the reason');
is_equal('left the history', $other);
system_or_bail('rm', '-rf', $pgdata, $wal);
system_or_bail('cp', '-a', $kept, $pgdata);
system_or_bail('cp', '-a', "$kept.wal", $wal);
($code, $out, $err) = run_script($script, { PGPASSWORD => 'secret-word-1' }, @where, '--rebuild', '--dry-run');
my ($about) = $out =~ /fetch what has changed since [0-9A-F\/]+ .*: about (\d+) MB of \d+ MB$/m;
like($out, qr/^pg_replica_kit: step: changed blocks$/m, 'over a switch of timeline: the step of a dry run');
ok($about, 'over a switch of timeline: a dry run says what would be fetched');
rebuild('over a switch of timeline', $script);
my ($fetched) = $out =~ $said;
ok($fetched, 'over a switch of timeline: by the changed blocks');
cmp_ok(abs(($fetched // 0) - $about), '<=', 1 + $about / 10, "about as much as was said ($about, $fetched)");
is_equal('over a switch of timeline', $other);
$other->stop;
done_testing();
