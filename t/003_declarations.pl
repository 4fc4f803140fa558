# A function that is declared in another way than the loaded library knows it,
# as ALTER EXTENSION UPDATE does while an older library is preloaded, is an
# error that says what to do, and never the end of the server.

use strict;
use warnings FATAL => 'all';

use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $node = PostgreSQL::Test::Cluster->new('primary');
$node->init(allows_streaming => 1);
$node->append_conf('postgresql.conf', <<~CONF);
	listen_addresses = '*'
	shared_preload_libraries = 'pg_replica_kit'
	CONF
$node->start;
$node->safe_psql('postgres', 'CREATE EXTENSION pg_replica_kit');

# A value of each type that a function takes.
my %value = (
	text => q{'critical'},
	inet => q{'10.0.0.5'},
	integer => '1',
	boolean => 'true',
	interval => q{'1 hour'},
	pg_lsn => q{'0/1'});

# Another type for each, passed in the other way where there is one: what is
# taken for a pointer and is none is the end of a process.
sub other_type
{
	my ($type) = @_;

	return $type =~ /^(?:text|name|inet|interval)$/ ? 'bigint' : 'text';
}

sub value_of
{
	my ($type) = @_;

	return ($value{$type} // '1') . "::$type";
}

# Every C function of the extension: its symbol, its argument types, whether
# it returns a set, its scalar result or the columns of its row.
my $functions = $node->safe_psql('postgres', <<~'SQL');
	SELECT concat_ws('|', p.proname, p.prosrc, p.proretset,
	                 (SELECT string_agg(format_type(t, NULL), ',' ORDER BY n)
	                    FROM unnest(p.proargtypes) WITH ORDINALITY a (t, n)),
	                 '=' || CASE WHEN p.prorettype <> 'record'::regtype AND r.typrelid = 0
	                             THEN format_type(p.prorettype, NULL) END,
	                 '>' || coalesce(
	                     (SELECT string_agg(format_type(t, NULL), ',' ORDER BY n)
	                        FROM unnest(p.proallargtypes, p.proargmodes) WITH ORDINALITY a (t, m, n)
	                       WHERE m IN ('o', 't')),
	                     (SELECT string_agg(format_type(atttypid, NULL), ',' ORDER BY attnum)
	                        FROM pg_attribute WHERE attrelid = r.typrelid AND attnum > 0)))
	  FROM pg_proc p
	  JOIN pg_type r ON r.oid = p.prorettype
	  JOIN pg_depend d ON d.classid = 'pg_proc'::regclass AND d.objid = p.oid AND d.deptype = 'e'
	  JOIN pg_extension e ON e.oid = d.refobjid AND e.extname = 'pg_replica_kit'
	 WHERE p.probin IS NOT NULL
	 ORDER BY p.proname
	SQL

# Declares a function and calls it; what comes back on stderr.
sub call
{
	my ($symbol, $set, $args, $result, $columns) = @_;
	my @in = map { "a$_ $args->[$_]" } 0 .. $#$args;
	my @out = map { "OUT c$_ $columns->[$_]" } 0 .. $#$columns;
	my $returns =
	    @out > 1 ? ($set ? 'RETURNS SETOF record' : '')
	  : @out == 1 ? 'RETURNS ' . ($set ? 'SETOF ' : '') . $columns->[0]
	  : 'RETURNS ' . ($set ? 'SETOF ' : '') . $result;
	my ($status, $stdout, $stderr) = $node->psql('postgres', sprintf(<<~'SQL', join(', ', @in, @out), $returns, $symbol, join(', ', map { value_of($_) } @$args)));
		\set VERBOSITY verbose
		BEGIN;
		CREATE FUNCTION public.regress_prk(%s) %s
		AS '$libdir/pg_replica_kit', '%s' LANGUAGE C;
		SELECT * FROM public.regress_prk(%s);
		ROLLBACK;
		SQL
	return $stderr;
}

my $started = $node->safe_psql('postgres', 'SELECT pg_postmaster_start_time()');
my $tried = 0;
my $mended = qr/ERROR:  55000: function regress_prk\(.*\) does not fit the loaded library.*^HINT:  .*restart the server/ms;

foreach my $line (split /\n/, $functions)
{
	my ($name, $symbol, $set, @rest) = split /\|/, $line;
	my ($scalar) = map { /^=(.+)/ ? $1 : () } @rest;
	my @columns = map { /^>(.+)/ ? split /,/, $1 : () } @rest;
	my @args = map { /^[=>]/ ? () : split /,/, $_ } @rest;
	my @cases;

	like($symbol, qr/^pg_replica_kit_\Q$name\E_\d+_\d+$/, "the symbol of $name() carries the version that brought it");

	push @cases, [ 'one argument more', [ @args, 'integer' ], $scalar, \@columns ];
	push @cases, [ 'one argument less', [ @args[ 0 .. $#args - 1 ] ], $scalar, \@columns ] if @args;
	for my $i (0 .. $#args)
	{
		my @other = @args;

		$other[$i] = other_type($args[$i]);
		push @cases, [ "argument $i of type $other[$i]", \@other, $scalar, \@columns ];
	}
	if ($scalar)
	{
		push @cases, [ 'another result', \@args, other_type($scalar), [] ];
		push @cases, [ 'a row as its result', \@args, undef, [ $scalar, 'integer' ] ];
	}
	else
	{
		push @cases, [ 'one column more', \@args, undef, [ @columns, 'integer' ] ];
		push @cases, [ 'forty columns more', \@args, undef, [ @columns, ('text') x 40 ] ];
		push @cases, [ 'one column less', \@args, undef, [ @columns[ 0 .. $#columns - 1 ] ] ];
		push @cases, [ 'no row as its result', \@args, 'text', [] ];
		for my $i (0 .. $#columns)
		{
			my @other = @columns;

			$other[$i] = other_type($columns[$i]);
			push @cases, [ "column $i of type $other[$i]", \@args, undef, \@other ];
		}
	}

	foreach my $case (@cases)
	{
		my ($what, @declaration) = @$case;

		like(call($symbol, $set eq 't', @declaration), $mended, "$name() with $what");
		$node->poll_query_until('postgres', 'SELECT true') or die 'the server does not come back';
		$tried++;
	}
	unlike(call($symbol, $set eq 't', \@args, $scalar, \@columns), qr/does not fit/, "$name() as it is declared by the extension");
}
cmp_ok($tried, '>', 100, 'many declarations were tried');
is($node->safe_psql('postgres', 'SELECT pg_postmaster_start_time()'), $started, 'the server goes on as if nothing was');
unlike(slurp_file($node->logfile), qr/was terminated by signal/, 'and none of its processes has crashed');

$node->stop;
done_testing();
