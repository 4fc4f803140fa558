# Two causes at once are two rows: pairs of codes, by events of the walk's, both on
# real servers at once; and the matrix of all pairs in doc/codes.md.  Here some
# seconds of it; scripts/walk --pairs goes further.

use strict;
use warnings FATAL => 'all';

use FindBin;
use lib $FindBin::RealBin;

use CodePairs;
use PostgreSQL::Test::Utils;
use Test::More;
use Walk;
use WalkEvidence;
use WalkModel;
use WalkTree;

# ----------------------------------------------------------------------
# The matrix
# ----------------------------------------------------------------------

my %is_code = map { $_ => 1 } all_codes();
my $staged = staged_pairs();
is(join(' ', grep { !$is_code{$_} } map { split / / } keys %$staged), '', 'the walk has codes that there are');
is(join(' ', unknown_codes()), '', 'so has the matrix');
is(join(', ', grep { defined why_never(split / /) } sort keys %$staged), '', 'nothing is called impossible that can be brought about');
my ($matrix) = slurp_file("$FindBin::RealBin/../doc/codes.md") =~ /^```text pairs\n(.*?)^```$/ms;
is($matrix, pair_matrix(), 'the matrix in doc/codes.md is that of the tests') or diag(pair_matrix());

# ----------------------------------------------------------------------
# On servers
# ----------------------------------------------------------------------

my $asked = $ENV{PRK_FUZZ_PAIRS};
my $count = $asked || 40;
my $seconds = $asked ? 0 : 25;

# The pairs in any order, each by any of its events.
WalkModel::seed($ENV{PRK_FUZZ_SEED} // 14);
my @names = sort keys %$staged;
my @chosen;
while (@names && @chosen < $count)
{
	my $name = splice @names, WalkModel::pick(scalar @names), 1;
	my $ways = $staged->{$name};
	push @chosen, [ $name, map { +{%$_} } @{ $ways->[ WalkModel::pick(scalar @$ways) ] } ];
}

# Both at once; then their end, with which the next two begin, as far as these
# touch nothing of theirs.
my (@steps, @before);
my $number = 0;
foreach my $pair (@chosen)
{
	my ($name, @events) = @$pair;
	$_->{plain} = 1 foreach @events;
	$_->{number} = ++$number foreach @events;
	$events[0]{counts} = '';
	$events[1]{counts} = $name;
	my $meets = grep { my $event = $_; grep { WalkModel::meet($event, $_) } @before } @events;
	$steps[-1]{more} = 1 if @steps && !$meets;
	push @steps, { event => $events[0], more => 1 }, { event => $events[1] }, { event => $events[0], undo => 1, more => 1 }, { event => $events[1], undo => 1 };
	@before = @events;
}

my $tree = WalkTree->new;
my %done;

# Takes all steps, those after a failure as well.  What was wrong.
sub take_pairs
{
	my @left = @_;
	my @failures;
	my $stops = 0;

	delete $_->{event}{remedied} foreach @left;
	while (@left && $stops++ < 10)
	{
		my ($taken, $wrong) = take_walk($tree, \@left, $seconds, \%done);
		my @wrong = grep { $_ ne '' } $wrong, also_wrong($tree);
		diag($_) foreach @wrong;
		push @failures, @wrong;
		last if $wrong eq '';
		diag(join "\n  ", 'the servers said:', evidence($tree));
		last if $taken == 0;
		my %begun = map { $_->{event}{number} => 1 } @left[ 0 .. $taken - 1 ];
		@left = grep { !$begun{ $_->{event}{number} } } @left;
	}
	return @failures;
}

# In a run of all tests what fails counts if it fails again.
my @failures = take_pairs(@steps);
@failures = take_pairs(@steps) if !$asked && @failures;
is(join("\n", @failures), '', 'two causes are two rows');
delete $done{''};
my $pairs = keys %done;
$asked ? diag("$pairs pairs of codes") : note("$pairs pairs of codes");
cmp_ok($pairs, '>', 0, 'there were pairs');
$tree->stop_all('immediate');
done_testing();
