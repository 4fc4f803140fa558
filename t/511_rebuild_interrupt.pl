# --rebuild that does not come to its end: the old data is back in place, and
# the script can be run again.
use strict;
use warnings FATAL => 'all';

use FindBin;
use lib $FindBin::RealBin;

use JoinKit;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $upstream =
  new_upstream('upstream', 'wal_retrieve_retry_interval = 100ms');
# A clone that takes long enough to be caught.
$upstream->safe_psql('postgres', q{
	CREATE TABLE big (g int, t text);
	ALTER TABLE big ALTER t SET STORAGE PLAIN;
	INSERT INTO big SELECT g, repeat(md5(g::text), 200)
	FROM generate_series(1, 40000) g;
	CHECKPOINT;
});
provision($upstream, 'replica1', 'secret-word-1');
my $script = write_script($upstream, 'replica1');
my $replica = new_replica('replica');
my $pgdata = $replica->data_dir;
my $state = "$pgdata.pg_replica_kit";
my $waldir = $replica->basedir . '/a wal directory';
my @where = ('--pgdata', $pgdata);
my ($code, $out, $err);

# Begins a rebuild, when no clone of before is under way any more.
sub start_rebuild
{
	$upstream->poll_query_until('postgres',
		'SELECT count(*) = 0 FROM pg_stat_progress_basebackup')
	  or die 'a clone of before does not end';
	return start_script($script, {}, \$out, \$err, @where, '--rebuild');
}

# The files of the old data, but for what a start of the server changes.
sub files
{
	my %names;
	foreach my $dir ($pgdata, $waldir)
	{
		$names{$_} = 1
		  for map { s/ .*//sr } split /\n/, tree($dir);
	}
	delete $names{"$pgdata/$_"} for qw(postmaster.pid postmaster.opts);
	return join "\n", sort keys %names;
}

# A damaged replica: a rebuild clones at once.
sub damage
{
	unlink "$pgdata/base/1/PG_VERSION" or die "unlink: $!";
	return;
}

sub is_back
{
	my ($what, $before) = @_;
	is(files(), $before, "$what: the old data is back in place");
	ok(!-e "$state/old" && !-e "$waldir/pg_replica_kit.old",
		"$what: nothing is left aside");
	is(readlink "$pgdata/pg_wal", $waldir, "$what: so is its WAL directory");
	return;
}

($code, $out, $err) = run_script(
	$script, { PGPASSWORD => 'secret-word-1' },
	@where, '--port', $replica->port, '--no-start');
is($code, 0, 'a replica is made');
rename "$pgdata/pg_wal", $waldir or die "rename: $!";
symlink $waldir, "$pgdata/pg_wal" or die "symlink: $!";
damage();
my $before = files();

# ----------------------------------------------------------------------
# The connection is lost in the midst of the clone
# ----------------------------------------------------------------------
{
	my $run = start_rebuild();
	my $walsender = hold_clone($upstream);
	ok(!-e "$pgdata/global", 'the old data is aside');
	$upstream->safe_psql('postgres', "SELECT pg_terminate_backend($walsender)");
	kill CONT => $walsender;
	$run->finish;
	is($run->full_result(0) >> 8, 11, 'a lost connection: exit code 11');
	like($err, qr/the old data is back in place/, 'a lost connection: it says so');
	is_back('a lost connection', $before);
}

# ----------------------------------------------------------------------
# A signal that can be caught
# ----------------------------------------------------------------------
{
	my $run = start_rebuild();
	my $walsender = hold_clone($upstream);
	$run->signal('TERM');
	$run->finish;
	kill CONT => $walsender;
	is($run->full_result(0) >> 8, 143, 'TERM: exit code 143');
	is_back('TERM', $before);
}

# ----------------------------------------------------------------------
# SIGKILL in the midst of the clone
# ----------------------------------------------------------------------
{
	my $run = start_rebuild();
	my $walsender = hold_clone($upstream);
	$run->signal('KILL');
	$run->kill_kill;
	ok(!-e "$pgdata/global", 'KILL: the old data is aside');
	($code, $out, $err) = run_script($script, {}, @where, '--dry-run');
	is($code, 0, 'KILL: a dry run succeeds');
	like($out, qr/an earlier run is under way or was interrupted/,
		'KILL: it says what there is');
	ok(!-e "$pgdata/global", 'KILL: and changes nothing');
	($code, $out, $err) = run_script($script, { PGPASSWORD => 'nonsense' },
		@where, '--rebuild');
	kill CONT => $walsender;
	is($code, 5, 'KILL: the next run goes no further than it can');
	like($out, qr/putting back the data that an interrupted rebuild/,
		'KILL: but puts the old data back');
	is_back('KILL', $before);
	$upstream->safe_psql('postgres', 'DROP TABLE big');
}

# ----------------------------------------------------------------------
# SIGKILL while the old data moves: every mixture that can be
# ----------------------------------------------------------------------
foreach my $moved ([], ['global'], [qw(global base PG_VERSION)], ['all'])
{
	my $what = "KILL, moved so far: @$moved";
	append_to_file("$state/aside", "data $state/old\nwal $waldir\n");
	mkdir "$state/old" if @$moved;
	my %goes = map { $_ => 1 } @$moved;
	foreach my $file (map { s!.*/!!r } glob "$pgdata/*")
	{
		rename "$pgdata/$file", "$state/old/$file" or die "rename: $!"
		  if $goes{$file} || $goes{all};
	}
	if ($goes{all})
	{
		mkdir "$waldir/pg_replica_kit.old";
		foreach my $file (map { s!.*/!!r } glob "'$waldir/'*")
		{
			rename "$waldir/$file", "$waldir/pg_replica_kit.old/$file"
			  if $file ne 'pg_replica_kit.old';
		}
	}
	($code) = run_script($script, { PGPASSWORD => 'nonsense' }, @where);
	is($code, 5, "$what: run again");
	is_back($what, $before);
}

# ----------------------------------------------------------------------
# SIGKILL after the clone, and then to the end
# ----------------------------------------------------------------------
{
	my $flag = $replica->basedir . '/started';
	my $run = start_script($script, {}, \$out, \$err, @where, '--rebuild',
		'--start-command', "echo \$\$ >'$flag'; exec sleep 600");
	ok(eventually(sub { -s $flag }), 'the clone is complete');
	$run->signal('KILL');
	kill KILL => slurp($flag);
	$run->kill_kill;
	ok(-e "$state/old/global/pg_control",
		'KILL before the start: the old data is aside');
	($code, $out, $err) =
	  run_script($script, {}, @where, '--rebuild', '--remove-old');
	is($code, 0, 'KILL before the start: run again, it comes to its end');
	unlike($out, qr/cloning/, 'without another clone');
	adopt_replica($replica);
	is($replica->safe_psql('postgres', 'SELECT count(*) FROM filler'),
		'1000', 'the data is there');
	is(readlink "$pgdata/pg_wal", $waldir, 'its WAL is where it was');
	ok(!-e "$waldir/pg_replica_kit.old" && !-e "$waldir/pg_replica_kit.clone",
		'with nothing beside');
	ok(!-e "$state/old", 'the old data is removed');
}

$replica->stop;
$upstream->stop;
done_testing();
