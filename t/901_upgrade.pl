# A test-only next version of the kit, installed beside the running servers of
# a primary and a replica: in the order that the documentation says, and in
# wrong ones.  In each state in between every function answers, or its error
# says what is to be done; no server crashes.

use strict;
use warnings FATAL => 'all';

use FindBin;
use lib $FindBin::RealBin;

use File::Path qw(make_path);
use PackageKit;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $dir = PostgreSQL::Test::Utils::tempdir_short;
my $share = pg_config('sharedir');
my $lib = pg_config('pkglibdir');
my $bin = pg_config('bindir');

plan skip_all => 'this PostgreSQL cannot be copied'
  unless $share =~ m!^/usr/share/postgresql! && $bin =~ m!^/usr/lib/postgresql!;

#
# The next version.
#
my $sql = slurp_file("$FindBin::RealBin/../pg_replica_kit--1.0.sql");
my $changes = <<'SQL';
CREATE FUNCTION replica_kit.added()
RETURNS text
AS 'MODULE_PATHNAME', 'pg_replica_kit_added_1_1'
LANGUAGE C STABLE;
COMMENT ON FUNCTION replica_kit.added() IS 'new in 1.1';
REVOKE ALL ON FUNCTION replica_kit.added() FROM PUBLIC;
SQL
my $changed = <<'SQL';
CREATE FUNCTION replica_kit.revoke_address(name text, ip inet, dry_run boolean DEFAULT false)
RETURNS integer
AS 'MODULE_PATHNAME', 'pg_replica_kit_revoke_address_1_1'
LANGUAGE C;
REVOKE ALL ON FUNCTION replica_kit.revoke_address(text, inet, boolean) FROM PUBLIC;
SQL
my $drop = "DROP FUNCTION replica_kit.revoke_address(text, inet);\n";

copy_source("$dir/next");
edit("$dir/next/src/version.h", qr/"1\.0"/, '"1.1"');
edit("$dir/next/pg_replica_kit.control", qr/'1\.0'/, "'1.1'");
edit("$dir/next/Makefile", qr/^DATA = .*$/m,
	'DATA = pg_replica_kit--1.1.sql pg_replica_kit--1.0--1.1.sql');
edit("$dir/next/Makefile", qr/^OBJS = \\\n/m, "OBJS = test/next_version.o \\\n");
foreach my $script (
	[ 'pg_replica_kit--1.1.sql', $sql . $drop . $changes . $changed ],
	[ 'pg_replica_kit--1.0--1.1.sql', $drop . $changes . $changed ])
{
	open my $out, '>', "$dir/next/$script->[0]" or die $!;
	print $out $script->[1];
	close $out;
}
make_elsewhere("$dir/next", "$dir/build", "$dir/package");

#
# Machines: a PostgreSQL with this version of the kit, in a place of its own.
#
sub machine
{
	my ($name) = @_;
	my $root = "$dir/$name";

	make_path("$root/lib/postgresql", "$root/share/postgresql");
	system_or_bail('cp', '-R', $bin =~ s!/bin$!!r, "$root/lib/postgresql/");
	system_or_bail('cp', '-R', $share, "$root/share/postgresql/");
	# what a Debian package's paths are relative to
	symlink '/usr/share/locale', "$root/share/locale";
	return "$root/lib/postgresql/" . ($bin =~ s!^.*/([^/]+)/bin$!$1!r);
}

# As a package is upgraded: each file replaced by a new one.
sub upgrade_package
{
	my ($name) = @_;

	foreach my $file (files_below("$dir/package"))
	{
		my $to = "$dir/$name/" . ($file =~ s!^usr/!!r);

		next if $file =~ m!/man/!;
		system_or_bail('cp', "$dir/package/$file", "$to.new");
		rename "$to.new", $to or die "rename $to: $!";
	}
	return;
}

# A primary and its replica on two machines, with the version there is.
sub new_pair
{
	my ($what) = @_;
	my $primary = PostgreSQL::Test::Cluster->new("primary_$what",
		install_path => machine("p_$what"));
	my $standby = PostgreSQL::Test::Cluster->new("standby_$what",
		install_path => machine("s_$what"));

	$primary->init(allows_streaming => 1);
	$primary->append_conf('postgresql.conf', <<~CONF);
		shared_preload_libraries = 'pg_replica_kit'
		listen_addresses = '127.0.0.1'
		replica_kit.check_interval = '1s'
		CONF
	$primary->start;
	$primary->safe_psql('postgres', <<~SQL);
		CREATE EXTENSION pg_replica_kit;
		SELECT replica_kit.provision('r1', '127.0.0.1');
		SQL
	$primary->backup('one');
	$standby->init_from_backup($primary, 'one', has_streaming => 1);
	$standby->append_conf('postgresql.conf', "primary_slot_name = 'r1'");
	$standby->start;
	$primary->wait_for_catchup($standby, 'replay');
	return ($primary, $standby);
}

# Every call that changes nothing, and how it ends: "ok", "restart" for an error
# that names the loaded library or its missing function, else the error.
my @calls = (
	'SELECT count(*) FROM replica_kit.status()',
	'SELECT count(*) FROM replica_kit.summary',
	'SELECT count(*) FROM replica_kit.standby_status()',
	'SELECT count(*) FROM replica_kit.connection_errors()',
	'SELECT count(*) FROM replica_kit.history()',
	"SELECT replica_kit.lag_graph('r1') IS NULL",
	'SELECT count(*) FROM replica_kit.diagnose()',
	'SELECT count(*) FROM replica_kit.unhealthy()',
	'SELECT length(replica_kit.metrics()) > 1000',
	"SELECT replica_kit.assert_healthy('critical')",
	'SELECT count(*) FROM replica_kit.silences()',
	'SELECT count(*) FROM replica_kit.preflight()',
	"SELECT verdict FROM replica_kit.hba_match('r1', '127.0.0.1')");
my @primary_calls = (
	"SELECT name FROM replica_kit.provision('r2', '127.0.0.1', dry_run => true)",
	"SELECT name FROM replica_kit.deprovision('r1', force => true, dry_run => true)",
	"SELECT length(replica_kit.join_script('r1', '127.0.0.1')) > 1000");

sub answers
{
	my ($node, @more) = @_;
	my %ends;

	foreach my $call (@calls, @more)
	{
		my ($code, $out, $err) = $node->psql('postgres', $call);
		my $end =
			$code == 0 ? 'ok'
		  : $err =~ /restart the server|could not find function "\w+_1_1"/ ? 'restart'
		  : "$call: $err";

		push @{ $ends{$end} }, $call;
	}
	return join "\n", map { "$_ " . scalar @{ $ends{$_} } } sort keys %ends;
}

my $all = 'ok ' . @calls;
my $all_primary = 'ok ' . (@calls + @primary_calls);
my $new = 'SELECT replica_kit.added()';

sub version_of
{
	return $_[0]->safe_psql('postgres',
		"SELECT extversion FROM pg_extension WHERE extname = 'pg_replica_kit'");
}

# What diagnose() says of the versions: its level, or '' for nothing.
sub outdated
{
	my ($node) = @_;

	return $node->safe_psql('postgres',
		"SELECT level || ': ' || replace(evidence, E'\\n', ' ') FROM replica_kit.diagnose('server') WHERE code = 'library_outdated'");
}

sub versions
{
	my ($level, $library, $sql_version, $files) = @_;

	return "$level: loaded library $library; SQL of the extension $sql_version; installed files $files";
}

# Each process of a server that was ended by a signal is in its log.
sub no_crash
{
	my ($node, $what) = @_;

	unlike(slurp_file($node->logfile), qr/was terminated by signal|PANIC/,
		"$what: no process crashed");
	return;
}

#
# The right order.
#
my ($primary, $standby) = new_pair('right');
is(answers($primary, @primary_calls), $all_primary, 'before: the primary answers');
is(answers($standby), $all, 'before: the standby answers');
is(outdated($_), '', 'before: all is of one version') foreach $primary, $standby;

upgrade_package('p_right');
upgrade_package('s_right');
is(answers($primary, @primary_calls),
	$all_primary, 'new package, old server: the primary answers');
is(answers($standby), $all, 'new package, old server: the standby answers');
is(outdated($_), versions('info', '1.0', '1.0', '1.1'),
	'diagnose() says that the server has not been restarted')
  foreach $primary, $standby;
like($primary->safe_psql('postgres', "SELECT replica_kit.join_script('r1', 'h')"),
	qr/^prk_kit='1\.0'$/m,
	'and the script is that of the library, not of the new package');

$standby->restart;
is(answers($standby), $all, 'standby restarted: new library, old SQL');
$primary->restart;
is(answers($primary, @primary_calls),
	$all_primary, 'primary restarted: new library, old SQL');
is(outdated($_), versions('info', '1.1', '1.0', '1.1'),
	'diagnose() says that the SQL is older')
  foreach $primary, $standby;
like($primary->safe_psql('postgres', "SELECT replica_kit.join_script('r1', 'h')"),
	qr/^prk_kit='1\.1'$/m, 'the script is the new library\'s');

$primary->safe_psql('postgres', 'ALTER EXTENSION pg_replica_kit UPDATE');
is(version_of($primary), '1.1', 'ALTER EXTENSION UPDATE, last');
$primary->wait_for_catchup($standby, 'replay');
is(answers($primary, @primary_calls, $new),
	'ok ' . (@calls + @primary_calls + 1), 'the primary answers, the new function too');
is(answers($standby, $new), 'ok ' . (@calls + 1), 'and the standby');
is(outdated($_), '', 'all is of one version again') foreach $primary, $standby;
no_crash($primary, 'right order, primary');
no_crash($standby, 'right order, standby');

# What a fresh install of 1.1 has is what the upgraded one has.
my $objects = <<'SQL';
SELECT pg_get_functiondef(p.oid), p.proacl, obj_description(p.oid, 'pg_proc')
FROM pg_proc p WHERE pronamespace = 'replica_kit'::regnamespace
ORDER BY p.oid::regprocedure::text;
SELECT pg_get_viewdef(c.oid), c.relacl, obj_description(c.oid, 'pg_class')
FROM pg_class c WHERE relnamespace = 'replica_kit'::regnamespace
ORDER BY relname;
SELECT nspacl, obj_description(oid, 'pg_namespace') FROM pg_namespace
WHERE nspname = 'replica_kit';
SELECT pg_describe_object(classid, objid, 0) FROM pg_depend
WHERE refclassid = 'pg_extension'::regclass AND deptype = 'e'
	AND refobjid = (SELECT oid FROM pg_extension WHERE extname = 'pg_replica_kit')
ORDER BY 1;
SQL
$primary->safe_psql('postgres', 'CREATE DATABASE fresh TEMPLATE template0');
$primary->safe_psql('fresh', 'CREATE EXTENSION pg_replica_kit');
is( $primary->safe_psql('postgres', $objects),
	$primary->safe_psql('fresh', $objects),
	'a fresh install has the objects of an upgraded one');

#
# Wrong: ALTER EXTENSION UPDATE before the restart.
#
$_->stop foreach $standby, $primary;
($primary, $standby) = new_pair('wrong');
upgrade_package('p_wrong');
my ($code, $out, $err) =
  $primary->psql('postgres', 'ALTER EXTENSION pg_replica_kit UPDATE');
isnt($code, 0, 'UPDATE with the old library preloaded fails');
like($err, qr/could not find function "pg_replica_kit_\w+_1_1"/,
	'because the library lacks a function');
is(version_of($primary), '1.0', 'and changes nothing');
is(answers($primary, @primary_calls), $all_primary, 'the primary answers as before');

# Wrong: the primary is restarted and updated, the standby has the old package.
$primary->restart;
$primary->safe_psql('postgres', 'ALTER EXTENSION pg_replica_kit UPDATE');
$primary->wait_for_catchup($standby, 'replay');
is(version_of($standby), '1.1', 'the SQL of the new version is replicated');
is(answers($primary, @primary_calls, $new),
	'ok ' . (@calls + @primary_calls + 1), 'the primary answers');
is(answers($standby, $new), "ok ${\ scalar @calls}\nrestart 1",
	'the standby with the old library answers all but the new function');
is(outdated($standby), versions('warning', '1.0', '1.1', '1.0'),
	'diagnose() says that its library is older than the SQL');
upgrade_package('s_wrong');
is(answers($standby, $new), "ok ${\ scalar @calls}\nrestart 1",
	'the same with the new package, until it is restarted');
$standby->restart;
is(answers($standby, $new), 'ok ' . (@calls + 1), 'restarted, it answers all');
no_crash($primary, 'wrong order, primary');
no_crash($standby, 'wrong order, standby');
$_->stop foreach $standby, $primary;

done_testing();
