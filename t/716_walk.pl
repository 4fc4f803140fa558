# A walk: events that nobody chose by hand on a primary, its replicas, a cascade
# and a logical consumer, with a model of the truth beside it.  Here half a minute
# of it; scripts/walk goes further.

use strict;
use warnings FATAL => 'all';

use FindBin;
use lib $FindBin::RealBin;

use PostgreSQL::Test::Utils;
use Test::More;
use Walk;
use WalkModel;
use WalkTree;

# Seed and number of events; without them a walk that is always the same, for some
# seconds.
my @walks = ([ $ENV{PRK_FUZZ_SEED} // 14, $ENV{PRK_FUZZ_EVENTS} || 100, defined $ENV{PRK_FUZZ_SEED} ? 0 : 30 ]);
my $kinds = $ENV{PRK_FUZZ_KINDS};
my $shrink_seconds = $ENV{PRK_FUZZ_SHRINK} // (defined $ENV{PRK_FUZZ_SEED} ? 300 : 60);

is(join("\n", map { describe($_) } make_walk(1, 100)), join("\n", map { describe($_) } make_walk(1, 100)), 'the same seed gives the same walk');

my $tree = WalkTree->new;
my (%done, $failures);
foreach my $walk (@walks)
{
	my ($seed, $events, $seconds) = @$walk;
	my @steps = make_walk($seed, $events, $kinds);
	diag("seed $seed, $events events" . ($seconds ? ", $seconds s" : ''));

	# What comes after a failure is walked as well, from the beginning.
	while (@steps)
	{
		my ($count, $wrong) = take_walk($tree, \@steps, $seconds, \%done);
		ok($wrong eq '', "seed $seed: what each server says is true") or diag($wrong);
		last if $wrong eq '';
		$failures++;
		my ($shortest, $why) = shrink_walk($tree, [ @steps[ 0 .. $count - 1 ] ], $wrong, $shrink_seconds);
		diag("the shortest walk that fails, of seed $seed:\n" . join("\n", map { '  ' . describe($_) } @$shortest) . "\n$why");
		last if $count == 0 || $failures >= 20;
		my %begun = map { $_->{event}{number} => 1 } @steps[ 0 .. $count - 1 ];
		@steps = grep { !$begun{ $_->{event}{number} } } @steps;
		delete $_->{event}{remedied} foreach @steps;
	}
}
my $all = 0;
$all += $_ foreach values %done;
diag(join "\n", "$all events:", histogram(\%done)) if defined $ENV{PRK_FUZZ_SEED};
note(join "\n", "$all events:", histogram(\%done));
cmp_ok($all, '>', 0, 'events took place');
$tree->stop_all('immediate');
done_testing();
