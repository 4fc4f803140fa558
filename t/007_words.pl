# Words of messages, pages and comments: patterns that made sentences hard to read,
# and PostgreSQL's own terms for its own things.

use strict;
use warnings FATAL => 'all';

use FindBin;
use Test::More;

# What is wrong, and better.
my @rules = (
	[ qr/\banew\b/i => 'again; "made anew" is re-created' ],
	[ qr/\ball the same\b(?! \w+ (?:as|that))/i => 'nevertheless, or nothing' ],
	[ qr/\bdo(?:es)? so\b/i => 'the verb that is meant' ],
	[ qr/\ba thing of (?:its|their) own\b/i => 'separate' ],
	[ qr/\bthat which\b/i => 'what, or the noun' ],
	[ qr/(?:^|[.;:] |^[^\w\n#]+)Who (?!\w+ what\b)[^.?\n]*[^?\n]$/m => 'the replica, the client, the person: a noun as subject' ],
	[ qr/\bfor eyes\b/i => 'for reading, formatted' ],
	[ qr/\bone a transaction\b/i => 'only one per transaction' ],
	[ qr/\bdoes not try\b/i => 'makes no connection attempts' ],
	[ qr/\bnothing is to be done\b/i => 'no action needed' ],
	[ qr/\bdo(?:es)? away with\b/i => 'remove, fix' ],
	[ qr/\btakes? (?:it|them|this) away\b/i => 'removes' ],
	[ qr/\bwithout a trace\b/i => 'completely' ],
	[ qr/\b(?:is|are|was) let have\b/i => 'keeps' ],
	[ qr/\b1 times\b/i => 'once' ],
	[ qr/\bhang(?:s|ed)? itself\b/i => 'is stuck' ],

	# PostgreSQL's terms
	[ qr/\bmaster(?! ?slave)\b/i => 'primary' ],
	[ qr/\bslave\b/i => 'standby, replica' ],
	[ qr/\bWAL[ -]sender\b(?! process)(?![^\n]*ROLE|",)/i => 'walsender' ],
	[ qr/\bxlog\b(?![_.:])/ => 'WAL' ],
	[ qr/\btransaction log\b/i => 'WAL' ],
	[ qr/\brecovery\.conf\b/ => 'postgresql.auto.conf and standby.signal' ],
	[ qr/\bpg_xlog\b/ => 'pg_wal' ],
	[ qr/\breplica's? slot is deleted\b/i => 'dropped' ]);

# The lines of a text with the rules that they break, as "LINE: WORDS (BETTER)".
sub broken
{
	my ($text) = @_;
	my @broken;

	foreach my $rule (@rules)
	{
		my ($pattern, $better) = @$rule;
		while ($text =~ /$pattern/g)
		{
			my ($from, $to) = ($-[0], $+[0]);
			my $line = 1 + (() = substr($text, 0, $from) =~ /\n/g);
			my $words = substr($text, $from, $to - $from) =~ s/\s+/ /gr;
			push @broken, "$line: \"" . substr($words, 0, 60) . "\" ($better)";
		}
	}
	return @broken;
}

# What a person reads: of pages all but code, of sources comments and strings.
sub words
{
	my ($file, $text) = @_;

	if ($file =~ /\.md$/)
	{
		$text =~ s/(^```.*?^```$)/$1 =~ s![^\n]!!gr/msge;
		$text =~ s/`[^`\n]*`/``/g;
	}
	return $text;
}

is(scalar(broken('The slot is made anew. Who is refused waits.')), 2, 'the patterns are seen');
is(scalar(broken('Who may what?')), 0, 'and a question is none');

chdir "$FindBin::RealBin/..";
my @files = grep { !/join_text\.inc$/ } map { glob } qw(*.md doc/*.md src/*.md src/*/*.md *.c src/*.[ch] src/*/*.[ch] src/join/*.sh pg_replica_kit--*.sql monitoring/*);
foreach my $file (grep { -f } @files)
{
	open my $in, '<', $file or die "could not open \"$file\": $!";
	local $/ = undef;
	my @broken = broken(words($file, scalar <$in>));
	is(join("\n", @broken), '', "$file: words");
}
done_testing();
