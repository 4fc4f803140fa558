# A database whose directory is moved while it is copied: PostgreSQL's own programs
# leave it empty, without a word, in a clone, in changed blocks, and in a rewind.
# The script finds that in the WAL, before any server reads it.
use strict;
use warnings FATAL => 'all';

use FindBin;
use lib $FindBin::RealBin;

use File::Temp qw(tempdir);
use JoinKit;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my ($major) = `pg_config --version` =~ /(\d+)/;
my $primary = new_upstream(
	'primary', 'wal_log_hints = on', 'autovacuum = off', 'wal_retrieve_retry_interval = 100ms',
	'allow_in_place_tablespaces = on', "shared_preload_libraries = 'pg_replica_kit'", $major >= 17 ? 'summarize_wal = on' : ());
$primary->safe_psql('postgres', $_) foreach q{CREATE TABLESPACE space LOCATION ''}, 'CREATE DATABASE d0', 'CREATE TABLE still AS SELECT g, repeat(md5(g::text), 30) FROM generate_series(1, 10000) g';
$primary->safe_psql('d0', 'CREATE TABLE t AS SELECT generate_series(1, 1000)');
provision($primary, 'replica1', 'secret-word-1');
my $script = write_script($primary, 'replica1');
my $replica = new_replica('replica');
my $pgdata = $replica->data_dir;
my @where = ('--pgdata', $pgdata, '--port', $replica->port);
my ($code, $out, $err);
my $in_space = 0;

# The statements that move the directory of d0: to a tablespace and back, or by a
# copy that takes its name.
sub moves
{
	my ($by_copy) = @_;
	return ('CREATE DATABASE other TEMPLATE d0 STRATEGY file_copy', 'DROP DATABASE d0', 'ALTER DATABASE other RENAME TO d0') if $by_copy;
	$in_space = !$in_space;
	return 'ALTER DATABASE d0 SET TABLESPACE ' . ($in_space ? 'space' : 'pg_default');
}

# PostgreSQL's programs, but that pg_basebackup is slow once, and has something
# happen meanwhile.
my $programs = tempdir(CLEANUP => 1);
my $bindir = `pg_config --bindir` =~ s/\n//r;
symlink $_, $programs . '/' . s!.*/!!r for grep { !/pg_basebackup$/ } glob "$bindir/*";
append_to_file("$programs/pg_basebackup", <<~SH);
	#!/bin/sh
	[ -s "$programs/meanwhile" ] || exec $bindir/pg_basebackup "\$@"
	# the changed blocks are not much
	case " \$*" in *' --incremental'*) rate=1M ;; *) rate=4M ;; esac
	$bindir/pg_basebackup "\$@" --max-rate=\$rate &
	until [ "\$($bindir/psql -XAtc "SELECT count(*) FROM pg_stat_progress_basebackup WHERE phase = 'streaming database files'" '${\ $primary->connstr('postgres')}')" = 1 ]; do
		kill -0 \$! || exit 1
		sleep 0.1
	done
	$bindir/psql -Xq -v ON_ERROR_STOP=1 -f "$programs/meanwhile" '${\ $primary->connstr('postgres')}' || kill \$!
	: >"$programs/meanwhile"
	wait \$!
	SH
chmod 0755, "$programs/pg_basebackup";

sub run_while
{
	my ($statements, @options) = @_;
	append_to_file("$programs/meanwhile", join '', map { "$_;\n" } @$statements);
	($code, $out, $err) = run_script($script, { PGPASSWORD => 'secret-word-1', PATH => "$programs:$ENV{PATH}" }, @where, @options);
	is(-s "$programs/meanwhile", 0, 'it has been moved meanwhile') if @$statements;
	return;
}

sub is_whole
{
	my ($what) = @_;
	adopt_replica($replica);
	$primary->wait_for_catchup('replica1', 'replay');
	is(($replica->psql('d0', 'SELECT count(*) FROM t'))[1], '1000', "$what: the database has all that it had");
	return;
}

my $moved = qr/the directory of database \d+ was moved meanwhile, and replay would leave that database empty/;

# ----------------------------------------------------------------------
# Clone
# ----------------------------------------------------------------------

foreach my $by_copy (0, 1)
{
	run_while([ moves($by_copy) ]);
	is($code, 11, 'a clone: it is not used');
	like($err, qr/^pg_replica_kit: error: the clone cannot be used: $moved$/m, 'a clone: and why');
	is(join(' ', glob "$pgdata/*"), '', 'a clone: nothing is left of it');
}
run_while([ 'CREATE DATABASE d1 STRATEGY file_copy', 'DROP DATABASE d1' ]);
is($code, 0, 'a clone while another database comes and goes: it is used');
is_whole('a clone');

# ----------------------------------------------------------------------
# Changed blocks
# ----------------------------------------------------------------------

SKIP:
{
	skip 'incremental backups begin with PostgreSQL 17', 4 if $major < 17;
	$primary->safe_psql('postgres', 'UPDATE still SET g = g WHERE g % 50 = 1; CHECKPOINT');
	$primary->wait_for_catchup('replica1', 'replay');
	$replica->safe_psql('postgres', 'CHECKPOINT');
	$replica->stop;
	$primary->safe_psql('postgres', q{ALTER SYSTEM SET max_slot_wal_keep_size = '1MB'});
	$primary->reload;
	my $status = '';
	for (my $try = 0; $status ne 'lost' && $try < 20; $try++)
	{
		$primary->safe_psql('postgres', q{SELECT pg_logical_emit_message(true, 'x', 'x'); SELECT pg_switch_wal()});
		remove_wal($primary);
		$status = $primary->safe_psql('postgres', 'SELECT wal_status FROM pg_replication_slots');
	}
	is($status, 'lost', 'the slot is lost');
	$primary->safe_psql('postgres', 'ALTER SYSTEM RESET max_slot_wal_keep_size');
	$primary->reload;
	run_while([ moves(0) ], '--rebuild', '--remove-old');
	is($code, 0, 'changed blocks: exit code 0');

	# Where something else had to be fetched again, that backup began after the move.
	note $out =~ /^pg_replica_kit: not possible with the changed blocks only: $moved: cloning everything$/m ? 'everything was cloned' : 'by the changed blocks';
	is_whole('changed blocks');
}

# ----------------------------------------------------------------------
# Rewind
# ----------------------------------------------------------------------

# A copy that takes the name: pg_rewind knows no tablespace inside the data directory.
$primary->safe_psql('postgres', $_) foreach $in_space ? moves(0) : (), 'DROP TABLESPACE space', 'CHECKPOINT';
$primary->wait_for_catchup('replica1', 'replay');
$replica->promote;
$replica->stop;
$primary->safe_psql('postgres', $_) foreach moves(1), q{SELECT replica_kit.allow_rewind('replica1', '1 hour')};
run_while([], '--rebuild', '--discard-diverged', '--remove-old');
is($code, 0, 'rewind: exit code 0');
like($out, qr/^pg_replica_kit: the rewind failed, and no server can use this data any more: $moved\n.*^pg_replica_kit: (?:cloning |.*cloning everything)/ms, 'rewind: it is not used, and why');
is_whole('rewind');

$replica->stop;
$primary->stop;
done_testing();
