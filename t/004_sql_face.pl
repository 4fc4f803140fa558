# What psql shows of the extension: short signatures, comments on everything,
# help(); and that nothing of it is for everybody, but what applications call.

use strict;
use warnings FATAL => 'all';

use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $node = PostgreSQL::Test::Cluster->new('primary');
$node->init(allows_streaming => 1);
$node->start;
$node->safe_psql('postgres', 'CREATE EXTENSION pg_replica_kit');

sub sql
{
	my ($sql) = @_;

	return $node->safe_psql('postgres', $sql);
}

# What psql prints on a terminal of 120 columns.
sub terminal
{
	my ($command, $format) = @_;
	my ($out, $err);

	IPC::Run::run([ 'psql', '-X', '-P', "format=$format", '-P', 'columns=120', '-d', $node->connstr('postgres'), '-c', $command ],
		'>', \$out, '2>', \$err)
	  or die "psql failed: $err";
	return $out;
}

sub widest
{
	my ($widest) = sort { $b <=> $a } map { length } split /\n/, $_[0];

	return $widest;
}

# The extension's own objects, by catalog.
my $members = <<~'SQL';
	SELECT d.classid, d.objid
	  FROM pg_depend d JOIN pg_extension e ON e.oid = d.refobjid AND d.refclassid = 'pg_extension'::regclass
	 WHERE e.extname = 'pg_replica_kit' AND d.deptype = 'e'
	SQL

# ----------------------------------------------------------------------
# \df
# ----------------------------------------------------------------------

my $df = terminal('\df replica_kit.*', 'wrapped');
cmp_ok(widest($df), '<=', 120, '\df fits a terminal of 120 columns');
my $nfunctions = sql("SELECT count(*) FROM pg_proc WHERE oid IN (SELECT objid FROM ($members) m WHERE classid = 'pg_proc'::regclass)");
my (%lines, $function);
foreach my $line (split /\n/, $df)
{
	my (undef, $name) = map { s/^\s+|\s+$//gr } split /\|/, $line;

	$function = $name if defined $name && $name =~ /^\w+$/;
	$lines{$function}++ if defined $name && defined $function && $name ne 'Name';
}
is(scalar(keys %lines), $nfunctions, 'with every function');
my @long = map { "$_: $lines{$_}" } grep { $lines{$_} > 7 } sort keys %lines;
is("@long", '', 'none of which takes more than seven lines');
my $signatures = terminal(q{SELECT p.proname, pg_get_function_result(p.oid) FROM pg_proc p WHERE pronamespace = 'replica_kit'::regnamespace}, 'aligned');
cmp_ok(widest($signatures), '<=', 70, 'without the arguments it would need no wrapping');

# No column of a function is lost: its row type shows them.
foreach my $type (split /\n/, sql(q{SELECT DISTINCT p.prorettype::regtype FROM pg_proc p JOIN pg_type t ON t.oid = p.prorettype WHERE pronamespace = 'replica_kit'::regnamespace AND t.typtype = 'c'}))
{
	my $columns = terminal("\\d+ $type", 'wrapped');
	my $n = sql("SELECT count(*) FROM pg_attribute WHERE attrelid = '$type'::regclass AND attnum > 0 AND NOT attisdropped");

	# a name that is wrapped goes on in a line that begins with a dot
	my @names = grep { $_ ne 'Column' } $columns =~ /^ (\w+)\.? *\| \w/mg;

	cmp_ok(widest($columns), '<=', 120, "\\d+ $type fits, too");
	is(scalar(@names), $n, "and shows all $n columns");
}
is(sql(q{SELECT count(*) FROM pg_proc WHERE pronamespace = 'replica_kit'::regnamespace AND prorettype = 'record'::regtype}), '0', 'each row has a type with a name');
is(sql(q{SELECT string_agg(proname, ' ') FROM pg_proc WHERE pronamespace = 'replica_kit'::regnamespace AND probin IS NULL}), '', 'no body is in the catalog');

# ----------------------------------------------------------------------
# Comments
# ----------------------------------------------------------------------

is(sql(<<~SQL), '', 'every object has a comment');
	SELECT string_agg(pg_describe_object(m.classid, m.objid, 0), ', ')
	  FROM ($members) m LEFT JOIN pg_type t ON m.classid = 'pg_type'::regclass AND t.oid = m.objid
	 WHERE obj_description(m.objid, m.classid::regclass::name) IS NULL
	       -- of the row type of a view, or an array, nobody thinks
	   AND coalesce(t.typelem = 0, true)
	   AND NOT EXISTS (SELECT FROM pg_class c WHERE c.oid = t.typrelid AND c.relkind = 'v')
	SQL
is(sql(<<~'SQL'), '', 'and every column');
	SELECT string_agg(c.relname || '.' || a.attname, ', ')
	  FROM pg_class c JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
	 WHERE c.relnamespace = 'replica_kit'::regnamespace
	   AND col_description(c.oid, a.attnum) IS NULL
	SQL

# ----------------------------------------------------------------------
# help()
# ----------------------------------------------------------------------

is(sql(q{SELECT string_agg(name, ' ') FROM replica_kit.help() WHERE does IS NULL OR does = '' OR does ~ '\n' OR length(does) > 82}), '',
	'help() says in one line what each does');
is(sql(<<~'SQL'), '', 'it knows every function, view and setting');
	SELECT string_agg(name, ' ')
	  FROM (SELECT proname AS name FROM pg_proc WHERE pronamespace = 'replica_kit'::regnamespace
	        UNION ALL SELECT relname FROM pg_class WHERE relnamespace = 'replica_kit'::regnamespace AND relkind = 'v'
	        UNION ALL SELECT name FROM pg_settings WHERE name LIKE 'replica_kit.%') x
	 WHERE name NOT IN (SELECT h.name FROM replica_kit.help() h)
	SQL
is(sql(q{SELECT topic, arguments FROM replica_kit.help() WHERE name = 'provision'}), 'set up|name, ip [, role, password, require_ssl, manage_hba, dry_run]', 'arguments with a default stand in brackets');
is(sql(q{SELECT topic, arguments FROM replica_kit.help() WHERE name = 'diagnose'}), 'watch|[name]', 'monitors watch');
is(sql(q{SELECT topic, arguments FROM replica_kit.help() WHERE name = 'wait_for_lsn'}), 'use|lsn [, timeout, timeline]', 'and applications use');
is(sql(q{SELECT topic, arguments, does FROM replica_kit.help() WHERE name = 'replica_kit.warning_lag'}),
	'setting|10MB|Warns when a replica is this much WAL behind.', 'a setting has its value');
my @codes = slurp_file('src/judge/codes.c') =~ /^\t\[PRK_CODE_\w+\] = \{"(\w+)"/mg;
my $codes = join "\n", sort @codes;
is(sql(q{SELECT name FROM replica_kit.help() WHERE topic = 'diagnosis' ORDER BY name COLLATE "C"}), $codes, 'it knows every code of diagnose()');
is(sql(q{SELECT array_agg(DISTINCT topic) FROM (SELECT topic FROM replica_kit.help() LIMIT 3) h}), '{"set up"}', 'set-up comes first');
cmp_ok(widest(terminal('SELECT * FROM replica_kit.help()', 'wrapped')), '<=', 120, 'it fits a terminal of 120 columns');
cmp_ok(widest(terminal($_, 'aligned')), '<=', 120, "$_ needs no wrapping")
  foreach 'SELECT name, does FROM replica_kit.help()', q{SELECT name, arguments FROM replica_kit.help() WHERE topic = 'set up'};

# ----------------------------------------------------------------------
# For whom
# ----------------------------------------------------------------------

is(sql(q{SELECT string_agg(proname, ' ') FROM pg_proc WHERE pronamespace = 'replica_kit'::regnamespace AND prokind = 'p' AND has_function_privilege('public', oid, 'EXECUTE')}),
	'wait_for_lsn', 'procedures are for everybody');
is(sql(<<~SQL), '', 'PUBLIC has no right on another function, view or type');
	SELECT string_agg(pg_describe_object(m.classid, m.objid, 0), ', ')
	  FROM ($members) m
	  LEFT JOIN pg_proc p ON m.classid = 'pg_proc'::regclass AND p.oid = m.objid
	  LEFT JOIN pg_class c ON m.classid = 'pg_class'::regclass AND c.oid = m.objid AND c.relkind = 'v'
	  LEFT JOIN pg_type t ON m.classid = 'pg_type'::regclass AND t.oid = m.objid
	       AND EXISTS (SELECT FROM pg_class r WHERE r.oid = t.typrelid AND r.relkind = 'c')
	 WHERE (p.oid IS NOT NULL AND p.prokind <> 'p' AND has_function_privilege('public', p.oid, 'EXECUTE'))
	    OR (c.oid IS NOT NULL AND has_any_column_privilege('public', c.oid, 'SELECT'))
	    OR (t.oid IS NOT NULL AND has_type_privilege('public', t.oid, 'USAGE'))
	SQL
sql(q{CREATE ROLE regress_prk_monitor IN ROLE pg_monitor});
sql(q{SET ROLE regress_prk_monitor; SELECT * FROM replica_kit.status(); SELECT * FROM replica_kit.help(); SELECT * FROM replica_kit.summary});
pass('a monitor needs no right on the types of rows');
my ($status, $out, $err) = $node->psql('postgres', 'SET ROLE regress_prk_monitor; CREATE TEMP TABLE t (s replica_kit.status_row)');
like($err, qr/permission denied for type/, 'nobody else can make DROP EXTENSION need CASCADE');

# ----------------------------------------------------------------------
# Dump and restore
# ----------------------------------------------------------------------

sql(q{CREATE VIEW public.regress_prk_late AS SELECT name, lag_time FROM replica_kit.status() WHERE health <> 'ok'});
my $dump = $node->basedir . '/dump.sql';
$node->command_ok([ 'pg_dump', '-f', $dump, '-d', $node->connstr('postgres') ], 'the database is dumped');
unlike(slurp_file($dump), qr/CREATE (?:TYPE|FUNCTION)/, 'without the objects of the extension');
sql('CREATE DATABASE regress_prk_restored');
$node->command_ok([ 'psql', '-X', '-q', '-v', 'ON_ERROR_STOP=1', '-f', $dump, '-d', $node->connstr('regress_prk_restored') ], 'and restored');
is($node->safe_psql('regress_prk_restored', 'SELECT count(*) FROM public.regress_prk_late'), '0', 'with a view over status()');

# ----------------------------------------------------------------------
# The script
# ----------------------------------------------------------------------

my $script = slurp_file('pg_replica_kit--1.0.sql');
unlike($script, qr/\t| $/m, 'the script has neither tabs nor blanks at the end of a line');
my @created = $script =~ /^CREATE FUNCTION replica_kit\.(\w+)\(/mg;
my @full = $script =~ /^LANGUAGE C (?:STRICT|CALLED ON NULL INPUT) (?:VOLATILE|STABLE) PARALLEL (?:UNSAFE|RESTRICTED)(?: ROWS \d+)?(?:;|\nSECURITY DEFINER SET search_path = pg_catalog, pg_temp;)$/mg;
is(scalar(@full), scalar(@created), 'each function says what it does with NULL, how volatile and how parallel it is');

$node->stop;
done_testing();
