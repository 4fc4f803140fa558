# A walk: events that nobody chose by hand on a primary, its replicas, a cascade
# and a logical consumer, with a model of the truth beside it.  Here some seconds
# of it; scripts/walk goes further.

use strict;
use warnings FATAL => 'all';

use FindBin;
use lib $FindBin::RealBin;

use JSON::PP ();
use List::Util qw(min sum0);
use POSIX ();
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(time);
use Walk;
use WalkEvidence;
use WalkModel;
use WalkTree;

# So many events are walked from one seed, the next with the next one: what fails
# costs no more than that.
my $length = 125;

# Where the random numbers begin, how many events; without them a walk that is
# always the same, for some seconds.
my $asked = defined $ENV{PRK_FUZZ_SEED};
my $kinds = $ENV{PRK_FUZZ_KINDS};
my $shrink_seconds = $ENV{PRK_FUZZ_SHRINK} // 60;
my $processes = $ENV{PRK_FUZZ_PROCESSES} // 1;
my @walks;
if ($asked)
{
	my $left = $ENV{PRK_FUZZ_EVENTS} || 2000;
	my @seeds = split /,/, $ENV{PRK_FUZZ_SEED};
	for (my $seed = shift @seeds; $left > 0; $seed = shift(@seeds) // $seed + 1, $left -= $length)
	{
		push @walks, { seed => $seed, events => min($left, $length), seconds => 0 };
	}
}
else
{
	@walks = ({ seed => 14, events => $length, seconds => 30 });
}

is(join("\n", map { describe($_) } make_walk(1, 100)), join("\n", map { describe($_) } make_walk(1, 100)), 'the same seed gives the same walk');

# Walks, what comes after a failure as well; to be called with a tree.  How often
# each kind of event took place, and each failure with its shortest walk.
sub take_all
{
	my ($tree, $walk) = @_;
	my $seed = $walk->{seed};
	my @steps = make_walk($seed, $walk->{events}, $kinds);
	my (%done, @failures);
	my $stops = 0;

	while (@steps)
	{
		my ($count, $wrong) = take_walk($tree, \@steps, $walk->{seconds}, \%done);
		my @also = map { "seed $seed: $_" } also_wrong($tree);
		diag($_) foreach @also;
		push @failures, @also;
		last if $wrong eq '';
		diag(join "\n  ", "seed $seed: $wrong", evidence($tree));
		my @walked = @steps[ 0 .. $count - 1 ];
		my ($shortest, $why) = shrink_walk($tree, \@walked, $wrong, $shrink_seconds);
		also_wrong($tree);
		push @failures, "seed $seed: $wrong\nthe shortest walk that fails:\n" . join("\n", map { '  ' . describe($_) . ($_->{more} ? ', and at once' : '') } @$shortest) . "\n$why";
		diag($failures[-1]);
		last if $count == 0 || ++$stops >= 10;
		my %begun = map { $_->{event}{number} => 1 } @walked;
		@steps = grep { !$begun{ $_->{event}{number} } } @steps;
		delete $_->{event}{remedied} foreach @steps;
	}
	return { seed => $seed, done => \%done, failures => \@failures };
}

# Each process has a tree of its own and takes every so manieth walk.
my $results = "$PostgreSQL::Test::Utils::tmp_check/walks";
mkdir $results;
my @pids;
foreach my $process (0 .. min($processes, scalar @walks) - 1)
{
	my $pid = fork // die "fork: $!";
	if ($pid)
	{
		push @pids, $pid;
		next;
	}
	my $tree;
	my $good = eval {
		$tree = WalkTree->new("w$process");
		foreach my $i (grep { $_ % $processes == $process } 0 .. $#walks)
		{
			my $began = time;
			diag("seed $walks[$i]{seed}: $walks[$i]{events} events" . ($walks[$i]{seconds} ? ", $walks[$i]{seconds} s" : ''));
			my $result = take_all($tree, $walks[$i]);
			# In a run of all tests what fails counts if it fails again.
			$result = take_all($tree, $walks[$i]) if !$asked && @{ $result->{failures} };
			diag(sprintf 'seed %d: %d events in %d s, %d failures', $walks[$i]{seed}, sum0(values %{ $result->{done} }), time - $began, scalar @{ $result->{failures} });
			append_to_file("$results/$walks[$i]{seed}", JSON::PP->new->encode($result));
		}
		1;
	};
	diag("process $process: $@") if !$good;
	eval { $tree->stop_all('immediate') } if $tree;
	POSIX::_exit($good ? 0 : 1);
}
foreach my $pid (@pids)
{
	waitpid $pid, 0;
	is($?, 0, 'a process has ended its walks');
}

my %done;
foreach my $walk (@walks)
{
	my $result = -e "$results/$walk->{seed}" ? JSON::PP->new->decode(slurp_file("$results/$walk->{seed}")) : { failures => ['not walked'], done => {} };
	is(join("\n\n", @{ $result->{failures} }), '', "seed $walk->{seed}: what each server says is true");
	$done{$_} += $result->{done}{$_} foreach keys %{ $result->{done} };
}
my $histogram = join "\n", sum0(values %done) . ' events:', histogram(\%done);
$asked ? diag($histogram) : note($histogram);
cmp_ok(sum0(values %done), '>', 0, 'events took place');
done_testing();
