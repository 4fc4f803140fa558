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

my @files = (glob('*.c'), glob('src/*.[ch]'), glob('src/*/*.[ch]'));
my @versioned = grep { slurp($_) =~ /^\s*#.*\bPG_VERSION_NUM\b/m } @files;

is("@versioned", 'src/compat.h',
	'only src/compat.h asks for the version of the server');

foreach my $file (@files)
{
	my $text = slurp($file);
	my $lines = () = $text =~ /\n/g;
	my $is_mechanism =
	  $file =~ m!^src/! && $file !~ m!(_funcs|worker|compat|settings|^src/sql)\.[ch]$!;

	cmp_ok($lines, '<=', $max_file_lines, "$file has one subject");
	is(join(', ', long_functions($text)),
		'', "$file has no function of more than $max_function_lines lines");
	unlike($text, qr/\b(?:TODO|FIXME|XXX)\b|^(?:<{7}|>{7}) /m,
		"$file is finished");
	unlike(
		$text,
		qr!^#include "(?:fmgr|funcapi|executor/spi|sql)\.h"!m,
		"$file is a mechanism and knows no SQL") if $is_mechanism;

	# The kit has no message catalog; only the server's own words are looked up.
	unlike($text, qr/\b(?:gettext_noop|_)\(/, "$file asks for no translation of its words")
	  if $file ne 'src/failures/failure_words.c';

	# A path that is cut names another file.  get_share_path() wants the buffer.
	unlike($text =~ s/^\tchar\t\tshare_path\[MAXPGPATH\];.*\n//mr,
		qr/\b(?:MAXPGPATH|PATH_MAX)\b|\breadlink(?:at)?\(/,
		"$file has no path of a fixed size");
	like(
		$text,
		qr!^/\*-+\n \*\n \* \Q${\ basename($file)}\E\n!,
		"$file begins with its own name");
	like(
		$text,
		qr!^ \* IDENTIFICATION\n \*\t  \Q$file\E\n!m,
		"$file says where it is");
	unlike($text, qr/(?:\.|->)escaped\b/, "$file does not look into foreign text")
	  if $file ne 'src/foreign.c';
	unlike($text, qr/^#include "postgres\.h"/m,
		"$file leaves postgres.h to its users")
	  if $file =~ /\.h$/;
}

#
# Rooms.  A folder of src/ is a room on a floor; what lies in src/ itself is on
# the lowest.  A file includes headers of its own room and of lower floors.
#
my %floor = (
	'' => 1,
	sample => 2,
	hba => 2,
	failures => 2,
	ask => 3,
	clock => 3,
	judge => 4,
	reads => 4,
	watch => 5,
	provision => 6,
	join => 7,
	diagnose => 7,
	show => 8);

sub room
{
	my ($path) = @_;

	return ($path =~ s{^src/}{}r) =~ m!^(\w+)/! ? $1 : '';
}

# The project's own headers that a text includes, as paths below src/.
sub own_includes
{
	my ($text) = @_;

	return grep { -f "src/$_" } $text =~ /^#include "([\w\/]+\.h)"/mg;
}

# Includes that a room may not have, as "FILE -> HEADER".
sub upward
{
	my ($path, @headers) = @_;
	my $from = room($path);

	return map { "$path -> $_" } grep {
		my $to = room($_);
		$to ne $from
		  && ($floor{$to} // 99) >= ($floor{$from} // 0);
	} @headers;
}

# One circle among the modules, a .c and its .h, or ''.  %$uses is module =>
# modules that it includes.
sub circle
{
	my ($uses) = @_;
	my %done;

	foreach my $start (sort keys %$uses)
	{
		my @path = ([ $start, sort @{ $uses->{$start} } ]);

		while (@path)
		{
			my $next = splice @{ $path[-1] }, 1, 1;

			if (!defined $next)
			{
				$done{ pop(@path)->[0] } = 1;
				next;
			}
			next if $done{$next};
			my @names = map { $_->[0] } @path;
			return join ' -> ', @names, $next if grep { $_ eq $next } @names;
			push @path, [ $next, sort @{ $uses->{$next} // [] } ];
		}
	}
	return '';
}

is_deeply(
	[ upward('src/hba/hba.c', 'hba/hba.h', 'format.h', 'sample/sample.h') ],
	['src/hba/hba.c -> sample/sample.h'],
	'an include that a floor does not allow is noticed');
is(circle({ a => ['b'], b => ['c'], c => ['b'] }),
	'a -> b -> c -> b', 'a circle is noticed');

my %uses;
my @upward;
foreach my $file (grep { m!^src/! } @files)
{
	my ($module) = $file =~ m!^src/(.*)\.[ch]$!;
	my @headers = own_includes(slurp($file));

	push @upward, upward($file, @headers);
	push @{ $uses{$module} },
	  grep { $_ ne $module } map { s/\.h$//r } @headers;
}
is(join("\n", @upward), '', 'no room includes a header of a higher floor');
is(circle(\%uses), '', 'no circle among the files');
cmp_ok(scalar(map { @$_ } values %uses),
	'>', 100, 'the includes were really looked at');

# The rooms are those of the table above, each says what it promises, and none
# has the name of a folder of the server's headers, which -Isrc would hide.
my @rooms = grep { $_ ne '' } sort keys %floor;
my @folders = sort map { m!^src/(\w+)/$! ? $1 : () } glob('src/*/');
is("@folders", "@rooms", 'each folder of src/ has a floor');
my $pg_config = $ENV{PG_CONFIG} // 'pg_config';
chomp(my $server_headers = `$pg_config --includedir-server`);
ok(-f "$server_headers/postgres.h", 'the headers of the server are there');
foreach my $room (@rooms)
{
	ok(-s "src/$room/README.md", "src/$room says what it promises");
	ok(!-e "$server_headers/$room",
		"src/$room does not hide headers of the server");
}

#
# The script for the replica's machine.  No program of this machine may keep it
# waiting: each has a bound, and one that merely answers a question has that of
# a question; no answer ends the script by tells(), or is looked at.
#
my $programs = qr/(?:systemctl|journalctl|getent|ldd|pg_conftool|pg_createcluster|pg_ctlcluster|restorecon)\b/;
my $question = qr/pg_controldata|pg_ctl" (?:status|.*\breload)|postgres" .*(?:-C|--version)|psql|--version|pg_waldump" .*-n 1\b|pg_basebackup" .*-d host=\/nonexistent|\bldd |getent|systemctl show|pg_conftool .*show/;

sub unbounded
{
	my ($text) = @_;
	my @bad;

	$text =~ s/\\\n\s*/ /g;
	foreach my $line (grep { !/^\s*#/ } split /\n/, $text)
	{
		my ($before) = $line =~ /^(.*?)"\$(?:bindir|dir)\/\w+"/;
		my $bounded = qr/\btells(?:_all)? (?:[^|]*)$|"\$\w+_seconds" (?:[^|]*)$/;

		# what is only tested, shown, or handed to what has a bound of its own
		if (defined $before)
		{
			next if $before =~ /-x $|shell_quote $|\b(?:set -- |start_job |(?:plan_|try_)?rewind |recover_old )/;
			push @bad, $line
			  if $before !~ $bounded
			  || ($line =~ $question && $before !~ /\btells|"\$(?:program|answer)_seconds"/);
		}
		elsif ($line !~ /^\s*say "/ && $line =~ /(?:^\s*|[|;&({!]\s*|\$\(\s*|\b(?:outside|as_owner|if|then|do)\s+)$programs/)
		{
			push @bad, $line;
		}
	}
	return @bad;
}

is(scalar(unbounded(<<'SH')), 4, 'a program without a bound, or with that of work, is noticed');
	x=$(as_owner "$bindir/pg_controldata" -D x)
	as_owner timeout -k 2 "$work_seconds" "$bindir/postgres" -D x \
		-C port
	list=$(getent ahosts x)
	outside systemctl stop x
	x=$(tells "$bindir/pg_controldata" -D x)
	outside timeout -k 5 "$start_seconds" systemctl stop x
SH
foreach my $file (glob 'src/join/*.sh')
{
	is(join("\n", unbounded(slurp($file))), '', "$file waits for no program without end");
}

# One version, in the control file.
my ($version) =
  slurp('pg_replica_kit.control') =~ /^default_version = '(.*)'$/m;
ok(-f "pg_replica_kit--$version.sql",
	'the script of the default version is there');

done_testing();
