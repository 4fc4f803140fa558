# --rebuild with the changed blocks only where a tablespace lies outside the data
# directory: its changed blocks come back right, truncated and damaged files of it
# whole, and its old files are kept beside it and named.
use strict;
use warnings FATAL => 'all';

use FindBin;
use lib $FindBin::RealBin;

use File::Temp qw(tempdir);
use JoinKit;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $upstream = PostgreSQL::Test::Cluster->new('upstream');
plan skip_all => 'incremental backups begin with PostgreSQL 17'
  if $upstream->pg_version < 17;
plan skip_all => 'this system lets users make no mount of their own'
  if system('unshare -U -c --keep-caps -m true 2>/dev/null') != 0;
my $scratch = tempdir(CLEANUP => 1);
my $location = "$scratch/a=table space";
mkdir $location or die "mkdir: $!";
$upstream->init(allows_streaming => 1, extra => ['--data-checksums']);
$upstream->append_conf('postgresql.conf', <<~CONF);
	listen_addresses = '127.0.0.1'
	shared_preload_libraries = 'pg_replica_kit'
	summarize_wal = on
	autovacuum = off
	wal_retrieve_retry_interval = 100ms
	CONF
$upstream->start;
$upstream->safe_psql('postgres', $_) foreach
  'CREATE EXTENSION pg_replica_kit', "CREATE TABLESPACE ts LOCATION '$location'",
  (map { "CREATE TABLE $_ TABLESPACE ts AS SELECT g AS id, repeat('x', 100) AS words FROM generate_series(1, 6000) g" }
	  qw(changed shrunk short dropped)),
  'CREATE INDEX ON changed (id) TABLESPACE ts',
  q{CREATE TABLE still TABLESPACE ts AS SELECT g, repeat('x', 1900) FROM generate_series(1, 20000) g},
  'VACUUM FREEZE', 'CHECKPOINT';
provision($upstream, 'replica1', 'secret-word-1');
my $script = write_script($upstream, 'replica1');
my $replica = new_replica('replica');
my $pgdata = $replica->data_dir;

# The replica's tablespace lies where the primary's does: in a mount namespace of
# its own, which somebody has to keep.
my $keeper = IPC::Run::start(
	[ 'unshare', '-U', '-c', '--keep-caps', '-m', 'sh', '-c',
		'mount -t tmpfs none "$1" && echo there && exec cat', 'sh', $location ],
	'<pipe', \*KEEPER, '>', \my $there, '2>&1');
$keeper->pump until ($there // '') =~ /there/;
my @inside = ('nsenter', '--preserve-credentials', '-U', '-m', '-t', $keeper->{KIDS}[0]{PID});

sub inside
{
	my ($out, $err) = run_command([ @inside, @_ ]);
	return $out;
}

sub join_it
{
	my ($what, @args) = @_;
	my ($code, $out) = run_script($script, { PGPASSWORD => 'secret-word-1' },
		'--pgdata', $pgdata, '--port', $replica->port, @args, run_by => [@inside]);
	is($code, 0, "$what: exit code 0");
	return $out;
}

# Which blocks differ from the stopped primary's, whose tablespace is copied to
# where the replica's does not hide it?
sub unequal_blocks
{
	system_or_bail('cp', '-aL', $upstream->data_dir, "$scratch/master");
	return inside('perl', "-I$FindBin::RealBin", '-MClusterCompare', '-e',
		'my ($blocks, @unequal) = compare_clusters(@ARGV); print join "\n", $blocks > 1000, @unequal',
		$pgdata, "$scratch/master");
}

my $old_sums = 'cd "$1" && find PG_* -type f -exec md5sum {} + | sort';

join_it('a replica');
adopt_replica($replica);
$upstream->safe_psql('postgres', 'CHECKPOINT');
$upstream->wait_for_catchup('replica1', 'replay');
$replica->safe_psql('postgres', 'CHECKPOINT');
$replica->stop;
my $short = $upstream->safe_psql('postgres', q{SELECT pg_relation_filepath('short')});
inside('truncate', '-s', '8192', "$pgdata/$short");
my $sums = inside('sh', '-c', $old_sums, 'sh', $location);
$upstream->safe_psql('postgres', $_) foreach
  'UPDATE changed SET words = md5(words) WHERE id % 100 = 0', 'DELETE FROM shrunk WHERE id > 3000', 'VACUUM shrunk',
  "COPY shrunk FROM PROGRAM 'awk ''BEGIN { for (; i < 2200; i++) printf \"%d\\t%0100d\\n\", i, 0 }'''",
  'DROP TABLE dropped', 'CREATE TABLE late TABLESPACE ts AS SELECT * FROM changed',
  "ALTER SYSTEM SET max_slot_wal_keep_size = '1MB'", 'SELECT pg_reload_conf()',
  ("SELECT pg_logical_emit_message(true, 'x', 'x'); SELECT pg_switch_wal(); CHECKPOINT") x 3;
remove_wal($upstream);
$upstream->safe_psql('postgres', $_) foreach 'ALTER SYSTEM RESET max_slot_wal_keep_size', 'SELECT pg_reload_conf()';

my $out = join_it('changed blocks', '--rebuild');
like($out, qr/^pg_replica_kit: bringing back only what changed since /m, 'by the changed blocks');
unlike($out, qr/cloning everything/, 'to the end');
like($out, qr/^pg_replica_kit: fetching more files whole: 1$/m, 'a short file is seen');
like($out, qr/^pg_replica_kit: the old data is in \S+; if nobody needs it, run: rm -rf .*'\Q$location\E\/pg_replica_kit\.old'/m,
	'the old tablespace is named');
is(inside('sh', '-c', $old_sums, 'sh', "$location/pg_replica_kit.old"), $sums, 'and kept as it was');
is(inside('sh', '-c', 'ls -A "$1" | sed "s/^PG_.*/PG/"', 'sh', $location), "PG\npg_replica_kit.old", 'nothing else is left beside it');
adopt_replica($replica);
like(readlink((glob "$pgdata/pg_tblspc/*")[0]), qr/\A\Q$location\E\z/, 'the new data leads there');

$upstream->stop;
my ($control) = run_command([ 'pg_controldata', '-D', $upstream->data_dir ]);
my ($end) = $control =~ /^Latest checkpoint location: +(\S+)$/m;
$replica->poll_query_until('postgres', "SELECT pg_last_wal_replay_lsn() > '$end'") or die 'no replay';
$replica->stop;
is(unequal_blocks(), '1', 'no block is unequal');

$upstream->start;
$out = join_it('once more', '--rebuild', '--remove-old');
is(inside('sh', '-c', 'ls -A "$1" | sed "s/^PG_.*/PG/"', 'sh', $location), 'PG', 'the old tablespace is removed');
adopt_replica($replica);
$replica->stop;
$upstream->stop;
close KEEPER;
$keeper->finish;
done_testing();
