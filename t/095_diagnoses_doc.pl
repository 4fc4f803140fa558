# doc/diagnoses.md and the code know the same diagnoses.

use strict;
use warnings FATAL => 'all';

use Test::More;

sub slurp
{
	my ($path) = @_;
	open my $in, '<', $path or die "could not open \"$path\": $!";
	local $/ = undef;
	return scalar <$in>;
}

my $doc = slurp('doc/diagnoses.md');
my ($table) = slurp('src/diagnose/findings.c') =~ /codes\[\] = \{(.*?)\};/s or die 'no table of codes';
my @known = $table =~ /"(\w+)"/g;
my @described = $doc =~ /^### (\w+)$/mg;
my @used;

foreach my $file (glob 'src/diagnose/*.c')
{
	my $text = slurp($file);
	$text =~ s/codes\[\] = \{.*?\};//s;
	push @used, $text =~ /"([a-z_]+)"/g;
}

is_deeply([ sort @described ], [ sort @known ], 'every code is described, and nothing else');
is_deeply(\@known, [ sort @known ], 'the table of codes is sorted');

# Those that health.c gives are passed on.
push @used, slurp('src/judge/health.c') =~ /"([a-z_]+)"/g;
my %used = map { $_ => 1 } @used;
is_deeply([ grep { !$used{$_} } @known ], [], 'every code is given by some rule');

foreach my $line (
	'the database system is in recovery mode',
	'entering standby mode',
	'redo starts at',
	'the database system is starting up',
	'consistent recovery state reached',
	'database system is ready to accept read only connections',
	'invalid resource manager ID',
	'started streaming WAL from primary',
	'has already been removed')
{
	like($doc, qr/^\| `.*\Q$line\E.*` \| (?:harmless|\*\*the cause\*\*)/m, qq{the log's "$line" is explained});
}

done_testing();
