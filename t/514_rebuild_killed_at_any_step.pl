# --rebuild ended at any point: killed at, or failing in, any of its commands
# that change something, the old data is back or named, and the script can be
# run again.
#
# Programs of the same names come first in the script's PATH and count.  Every
# one of the points is tried with PRK_LONG_TESTS in the environment.
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
provision($upstream, 'replica1', 'secret-word-1');
my $script = write_script($upstream, 'replica1');
my $replica = new_replica('replica');
my $pgdata = $replica->data_dir;
my $state = "$pgdata.pg_replica_kit";
my $waldir = $replica->basedir . '/wal';
my @where = ('--pgdata', $pgdata);
my ($code, $out, $err);

my $programs = PostgreSQL::Test::Utils::tempdir;
my $count = "$programs/count";
foreach my $name (qw(ln mkdir mv rm rmdir))
{
	my ($real) = grep { -x } map { "$_/$name" } split /:/, $ENV{PATH};
	open my $fh, '>', "$programs/$name" or die "open: $!";
	print $fh <<~SH;
		#!/bin/sh
		read -r n <'$count' || n=0
		n=\$((n + 1))
		echo \$n >'$count'
		if [ \$n -eq \$PRK_AT ]; then
			case \$PRK_HOW in
				kill) @{[ kill_session() ]} ;;
				fail) exit 1 ;;
			esac
		fi
		exec $real "\$@"
		SH
	close $fh;
	chmod 0755, "$programs/$name" or die "chmod: $!";
}

# Runs a rebuild that ends at that point; true if it came to it.
sub interrupted
{
	my ($how, $at) = @_;
	open my $fh, '>', $count or die "open: $!";
	print $fh "0\n";
	close $fh;
	($code, $out, $err) = run_script(
		$script,
		{ PATH => "$programs:$ENV{PATH}", PRK_AT => $at, PRK_HOW => $how },
		@where, '--rebuild', '--no-start');
	return slurp($count) >= $at;
}

# The files of the data, but for what a start of the server changes.
sub files
{
	my %names;
	foreach my $dir ($pgdata, $waldir)
	{
		$names{$_} = 1 for map { s/ .*//sr } split /\n/, tree($dir);
	}
	delete $names{"$pgdata/$_"} for qw(postmaster.pid postmaster.opts);
	return join "\n", sort keys %names;
}

# Run to its end; the replica streams, and nothing of the old data is left.
sub completes
{
	my ($what) = @_;
	($code, $out, $err) =
	  run_script($script, {}, @where, '--rebuild', '--remove-old');
	adopt_replica($replica) if $code == 0;
	my $good = $code == 0
	  && $replica->safe_psql('postgres', 'SELECT count(*) FROM filler') == 1000
	  && readlink "$pgdata/pg_wal" eq $waldir;
	ok($good, "$what: run again, the replica streams");
	my @left = grep { -e } "$state/old", "$state/kept", "$state/aside",
	  "$waldir/pg_replica_kit.old", map { "$_/pg_replica_kit.clone" } $pgdata, $waldir;
	is("@left", '', "$what: and nothing else is left");
	$replica->stop if $code == 0;
	return $good;
}

($code, $out, $err) = run_script($script, { PGPASSWORD => 'secret-word-1' },
	@where, '--port', $replica->port, '--no-start');
is($code, 0, 'a replica is made');
rename "$pgdata/pg_wal", $waldir or die "rename: $!";
symlink $waldir, "$pgdata/pg_wal" or die "symlink: $!";

# The fewest: while the slot is still held by the question whether it is free, the
# script asks once more, and each question removes files.
my $points = 1_000_000;
foreach (1, 2)
{
	ok(!interrupted('kill', 1_000_000), 'a rebuild comes to its end');
	is($code, 0, 'with success');
	my $steps = slurp($count) + 0;
	$points = $steps if $steps < $points;
	completes('uninterrupted');
}
cmp_ok($points, '>', 50, 'in many steps');

# Some of the points, others for each way, and the last one.
my $step = $ENV{PRK_LONG_TESTS} ? 1 : int($points / 4);
my $offset = 1 + int($step / 3);
foreach my $how ('kill', 'fail')
{
	my %at = ($points => 1);
	for (my $at = $offset; $at < $points; $at += $step)
	{
		$at{$at} = 1;
	}
	foreach my $at (sort { $a <=> $b } keys %at)
	{
		my $what = "$how at $at of $points";
		my $before = files();
		ok(interrupted($how, $at), "$what: it came to that");
		isnt($code, 0, "$what: and ended") if $how eq 'fail' && $err =~ /error:/;
		my $said = $out . $err;

		# A run that can go no further, to put back what is to be put back.
		($code, $out, $err) =
		  run_script($script, { PGPASSWORD => 'nonsense' }, @where);
		my $now = files();
		if ($now eq $before && !-e "$state/kept")
		{
			pass("$what: the old data is in place");
			ok(!-e "$state/old" && !-e "$waldir/pg_replica_kit.old",
				"$what: all of it");
			next;
		}
		ok(-e "$state/old/global/pg_control" && -e "$state/kept",
			"$what: the clone was complete, the old data is kept");
		like($said . $out . $err, qr/the old data is in \Q$state\E\/old/,
			"$what: and named");
		completes($what) or last;
	}
	$offset = 1 + ($offset + int($step / 2)) % $step;
}

$upstream->stop;
done_testing();
