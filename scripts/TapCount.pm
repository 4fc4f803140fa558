# TapCount.pm: a formatter for prove that also counts.
#
# For each test file it appends "PASSED FAILED SKIPPED FILE" to the file named
# by TAP_COUNTS.  A file that died, bailed out, or ran less than it planned, has
# a failure even when each assertion that it reached was right.

package TapCount;

use strict;
use warnings;

use parent 'TAP::Formatter::File';

sub summary
{
	my ($self, $aggregate, @rest) = @_;

	$self->SUPER::summary($aggregate, @rest);

	open my $out, '>>', $ENV{TAP_COUNTS}
	  or die "could not open \"$ENV{TAP_COUNTS}\": $!";
	foreach my $file ($aggregate->descriptions)
	{
		my ($parser) = $aggregate->parsers($file);
		my $skipped = my @skipped = $parser->skipped;
		my $failed = my @failed = $parser->failed;
		my $passed = (my @passed = $parser->passed) - $skipped;

		# A test that dies before its first assertion prints "1..0" where
		# Test::More is new, as one that skips everything does: the exit status
		# tells them apart.
		if (!$parser->is_good_plan
			|| $parser->parse_errors
			|| ($parser->has_problems && !$failed))
		{
			$failed++;
		}
		elsif (defined $parser->skip_all)
		{
			$skipped++;
		}
		print $out "$passed $failed $skipped $file\n";
	}
	close $out or die "could not write \"$ENV{TAP_COUNTS}\": $!";
	return;
}

1;
