# The script ended at every stage, by signals it can and cannot catch, and
# run again.
use strict;
use warnings FATAL => 'all';

use FindBin;
use lib $FindBin::RealBin;

use JoinKit;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $upstream = new_upstream('upstream');
# A clone that takes long enough to be caught.
$upstream->safe_psql('postgres', q{
	CREATE TABLE big AS
	SELECT g, repeat(md5(g::text), 100) AS t FROM generate_series(1, 500) g;
	ALTER TABLE big ALTER t SET STORAGE PLAIN;
	INSERT INTO big SELECT g, repeat(md5(g::text), 200)
	FROM generate_series(1, 40000) g;
	CHECKPOINT;
});
my %exit_code = (HUP => 129, INT => 130, TERM => 143);
my $replica;
my ($script, @args, %env, $number);

# A replica of its own for each scene.
sub scene
{
	$number++;
	provision($upstream, "replica$number", 'secret-word-1');
	$script = write_script($upstream, "replica$number");
	$replica = new_replica("replica$number");
	@args = ('--pgdata', $replica->data_dir, '--port', $replica->port);
	%env = (PGPASSWORD => 'secret-word-1');
	return;
}

# The same options again make the replica.
sub completes
{
	my ($what, %more) = @_;
	my ($code, $out, $err) = run_script($script, { %env, %more }, @args);
	is($code, 0, "$what: run again, the script makes the replica");
	adopt_replica($replica);
	is($replica->safe_psql('postgres', 'SELECT count(*) FROM filler'),
		'1000', "$what: the data is there");
	ok( $upstream->poll_query_until(
			'postgres',
			"SELECT state FROM pg_stat_replication WHERE application_name = 'replica$number' AND state <> 'backup'",
			'streaming'),
		"$what: it streams");
	ok(!-e $replica->data_dir . '/pg_replica_kit.clone',
		"$what: nothing of the interrupted run is left");
	$replica->stop;
	$upstream->safe_psql('postgres',
		"SELECT replica_kit.deprovision('replica$number', true)");
	return $out;
}

# ----------------------------------------------------------------------
# Signals that can be caught, in the midst of the clone
# ----------------------------------------------------------------------
foreach my $signal (qw(INT TERM HUP))
{
	scene();
	my ($out, $err) = ('', '');
	my $before = tree($replica->basedir) =~ s/ \S+$//mgr;
	my $run = start_script($script, \%env, \$out, \$err, @args);
	my $walsender = hold_clone($upstream);
	ok( eventually(
			sub {
				my $clone = $replica->data_dir . '/pg_replica_kit.clone/data';
				return -s "$clone/PG_VERSION" || -d "$clone/base";
			}),
		"$signal: files have arrived");
	$run->signal($signal);
	$run->finish;
	kill CONT => $walsender;
	is($run->full_result(0) >> 8,
		$exit_code{$signal}, "$signal: exit code $exit_code{$signal}");
	is( $err,
		"pg_replica_kit: error: interrupted by signal $signal\n"
		  . "hint: Run this script again with the same options to complete the replica.\n",
		"$signal: it says so, and what to do");
	is(tree($replica->basedir) =~ s/ \S+$//mgr,
		$before, "$signal: nothing is left");
	completes($signal);
}

# ----------------------------------------------------------------------
# SIGKILL in the midst of the clone
# ----------------------------------------------------------------------
{
	scene();
	my ($out, $err) = ('', '');
	my $run = start_script($script, \%env, \$out, \$err, @args);
	my $walsender = hold_clone($upstream);

	my ($code, $second, $second_err) = run_script($script, \%env, @args);
	is($code, 14, 'a second run at the same time is refused');
	like($second_err, qr/another run of this script is at work/,
		'it says why');

	$run->signal('KILL');
	my $clone = $replica->data_dir . '/pg_replica_kit.clone';
	ok(-d $clone, 'KILL: the unfinished clone is there');
	my $pid = slurp($replica->data_dir . '.pg_replica_kit/clone.pid') + 0;
	ok(kill(0, $pid), 'KILL: and so is its pg_basebackup');
	($code, $second) = run_script($script, \%env, @args, '--dry-run');
	ok(kill(0, $pid), 'KILL: a dry run does not end it');
	my $words = completes('KILL', PGPASSWORD => undef);
	like($words, qr/ending the pg_basebackup \(pid $pid\)/,
		'KILL: the next run has ended it');
	kill CONT => $walsender;
	$run->kill_kill;
	$upstream->safe_psql('postgres', 'DROP TABLE big');
}

# ----------------------------------------------------------------------
# SIGKILL after the clone, before the server is started
# ----------------------------------------------------------------------
{
	scene();
	my $flag = $replica->basedir . '/started';
	my ($out, $err) = ('', '');
	my $run = start_script($script, \%env, \$out, \$err, @args,
		'--start-command', "echo \$\$ >'$flag'; exec sleep 600");
	ok(eventually(sub { -s $flag }), 'the server is about to be started');
	$run->signal('KILL');
	kill KILL => slurp($flag);
	my $words = completes('KILL before the start');
	like($words, qr/it is not cloned again/,
		'KILL before the start: the clone is used');
	$run->kill_kill;
}

# ----------------------------------------------------------------------
# SIGKILL between the renames that bring the clone to its place: every mixture
# that can be is made from a finished clone.
# ----------------------------------------------------------------------
foreach my $moved ([], [qw(base pg_wal)], ['all but global'], ['all'])
{
	scene();
	my ($code) = run_script($script, \%env, @args, '--no-start');
	is($code, 0, 'a clone is made');
	my $pgdata = $replica->data_dir;
	my $up = "$pgdata/pg_replica_kit.clone";
	opendir my $dir, $pgdata or die "opendir: $!";
	my @files = grep { !/^\.\.?$/ } readdir $dir;
	closedir $dir;
	my %stays = map { $_ => 1 } @$moved;
	%stays = map { $_ => 1 } grep { $_ ne 'global' } @files
	  if "@$moved" eq 'all but global';
	%stays = map { $_ => 1 } @files if "@$moved" eq 'all';
	mkdir $up;
	mkdir "$up/data";
	append_to_file("$up/complete", '');
	foreach my $file (grep { !$stays{$_} } @files)
	{
		rename "$pgdata/$file", "$up/data/$file" or die "rename: $!";
	}
	my $words = completes("KILL, moved so far: @$moved");
	like(
		$words,
		qr/completing the clone of an interrupted run/,
		"KILL, moved so far: @$moved: the clone is completed");
}

# ----------------------------------------------------------------------
# What looks like a beginning, but has data beside it, is left alone
# ----------------------------------------------------------------------
{
	scene();
	my $pgdata = $replica->data_dir;
	mkdir $pgdata;
	mkdir "$pgdata/pg_replica_kit.clone";
	append_to_file("$pgdata/precious", "data\n");
	my $before = tree($replica->basedir);
	my ($code, $out, $err) = run_script($script, \%env, @args);
	is($code, 8, 'data beside an unfinished clone: refused');
	is(tree($replica->basedir), $before, 'and nothing is changed');
	unlink "$pgdata/precious";
	completes('an unfinished clone alone');
}

$upstream->stop;
done_testing();
