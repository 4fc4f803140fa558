# The rules of the source that a compiler does not check.

use strict;
use warnings FATAL => 'all';

use File::Basename qw(basename);
use Test::More;

# Limits: what is longer is two of something.
my $max_file_lines = 700;
my $max_function_lines = 120;

sub slurp
{
	my ($path) = @_;

	open my $in, '<', $path or die "could not open \"$path\": $!";
	local $/ = undef;
	return scalar <$in>;
}

# The functions of a file that are longer than allowed.  In PostgreSQL's layout
# a body begins and ends with a brace in the first column.
sub long_functions
{
	my ($text) = @_;
	my ($start, $name, $previous, @long) = (0, '', '');

	my @lines = split /\n/, $text;
	foreach my $number (1 .. @lines)
	{
		my $line = $lines[ $number - 1 ];

		if ($line eq '{')
		{
			$start = $number;
		}
		elsif ($line eq '}' && $start)
		{
			push @long, "$name (" . ($number - $start + 1) . " lines)"
			  if $number - $start + 1 > $max_function_lines;
			$start = 0;
		}
		elsif (!$start && $line =~ /^(\w+)\(/)
		{
			$name = $1;
		}
	}
	return @long;
}

is_deeply(
	[ long_functions("f(void)\n{\n" . "\tx;\n" x $max_function_lines . "}\n") ],
	[ 'f (' . ($max_function_lines + 2) . ' lines)' ],
	'a function that is too long is noticed');

my @files = (glob('*.c'), glob('src/*.c'), glob('src/*.h'));
my @versioned = grep { slurp($_) =~ /^\s*#.*\bPG_VERSION_NUM\b/m } @files;

is("@versioned", 'src/compat.h',
	'only src/compat.h asks for the version of the server');

foreach my $file (@files)
{
	my $text = slurp($file);
	my $lines = () = $text =~ /\n/g;
	my $is_mechanism =
	  $file =~ m!^src/! && $file !~ /(_funcs|worker|compat|settings)\.[ch]$/;

	cmp_ok($lines, '<=', $max_file_lines, "$file has one subject");
	is(join(', ', long_functions($text)),
		'', "$file has no function of more than $max_function_lines lines");
	unlike($text, qr/\b(?:TODO|FIXME|XXX)\b|^(?:<{7}|>{7}) /m,
		"$file is finished");
	unlike(
		$text,
		qr!^#include "(?:fmgr|funcapi|executor/spi)\.h"!m,
		"$file is a mechanism and knows no SQL") if $is_mechanism;
	like(
		$text,
		qr!^/\*-+\n \*\n \* \Q${\ basename($file)}\E\n!,
		"$file begins with its own name");
	like(
		$text,
		qr!^ \* IDENTIFICATION\n \*\t  \Q$file\E\n!m,
		"$file says where it is");
	unlike($text, qr/^#include "postgres\.h"/m,
		"$file leaves postgres.h to its users")
	  if $file =~ /\.h$/;
}

# One version, in the control file.
my ($version) =
  slurp('pg_replica_kit.control') =~ /^default_version = '(.*)'$/m;
ok(-f "pg_replica_kit--$version.sql",
	'the script of the default version is there');

done_testing();
