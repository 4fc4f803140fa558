# The files that packages are made of agree with each other; the source builds
# out of its directory, installs below DESTDIR, and works from there (18).
use strict;
use warnings FATAL => 'all';

use Cwd qw(getcwd);
use FindBin;
use lib $FindBin::RealBin;
use JSON::PP;

use PackageKit;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $root = "$FindBin::RealBin/..";

# One version everywhere.
my ($version) = slurp_file("$root/pg_replica_kit.control") =~
  /^default_version = '(.*)'$/m;
my ($library) = slurp_file("$root/src/version.h") =~
  /^#define PRK_KIT_VERSION "(.*)"$/m;
my $meta = decode_json(slurp_file("$root/META.json"));
my ($debian) =
  slurp_file("$root/debian/changelog") =~ /^pg-replica-kit \((.*)-\d+\)/;
my ($changed) = slurp_file("$root/CHANGELOG.md") =~ /^## (\S+)/m;

is($library, $version, 'the library has the version of the control file');
is($meta->{version}, "$version.0", 'META.json, with a third number');
is($meta->{provides}{pg_replica_kit}{version},
	"$version.0", 'and what it provides');
is($debian, $version, 'the Debian package');
is($changed, $version, 'CHANGELOG.md');

# What PGXN asks for.
ok(defined $meta->{$_}, "META.json has $_")
  foreach qw(name abstract maintainer license provides meta-spec);
ok(-f "$root/$meta->{provides}{pg_replica_kit}{$_}", "its $_ is there")
  foreach qw(file docfile);

# Each version has its script, or a path of updates to it.
ok(-f "$root/pg_replica_kit--$version.sql", 'the script of this version');

# Debian's control file is its template, for one version or several.
my ($template) =
  slurp_file("$root/debian/control.in") =~ /^(Package: .*)\z/ms;
my ($control) = slurp_file("$root/debian/control") =~ /^(Package: .*)\z/ms;
my ($server) = $control =~ /^Package: postgresql-(\d+)-replica-kit$/m;
like($control, qr/^\Q${\ ($template =~ s!PGVERSION!$server!gr) }\E/,
	'debian/control is made from control.in');

# Out of the tree.  Its version is its own, to be told from the installed one.
my $dir = PostgreSQL::Test::Utils::tempdir;
copy_source("$dir/source");
edit("$dir/source/src/version.h", qr/"\Q$version\E"/, '"0.0elsewhere"');
my @before = files_below("$dir/source");
make_elsewhere("$dir/source", "$dir/build", "$dir/root");
is_deeply([ files_below("$dir/source") ],
	\@before, 'a build out of the tree writes nothing to the source');
my $share = pg_config('sharedir');
my $lib = pg_config('pkglibdir');
my $man = pg_config('mandir');
is_deeply(
	[ map { "/$_" } files_below("$dir/root") ],
	[
		sort "$lib/pg_replica_kit.so",
		"$man/man1/pg_replica_kit_join.1",
		"$share/extension/pg_replica_kit--$version.sql",
		"$share/extension/pg_replica_kit.control"
	],
	'make DESTDIR= install puts these files there, and no other');

# The man page has all that --help has.
my $page = slurp_file("$dir/root$man/man1/pg_replica_kit_join.1");
my ($options, $codes) = slurp_file("$root/src/join/join.sh") =~
  /^Options:\n(.*?)^Exit codes:\n(.*?)^EOF$/ms;
foreach my $option ($options =~ /^ +(--[a-z-]+)/mg)
{
	like($page, qr/^\.B \Q${\ ($option =~ s!-!\\-!gr) }\E/m,
		"the man page tells of $option");
}
foreach my $code ($codes =~ /^ +(\d+)  /mg)
{
	like($page, qr/^\.B $code$/m, "the man page tells of exit code $code");
}

SKIP:
{
	skip 'man is not installed', 1 if system('man --version >/dev/null 2>&1') != 0;
	is(`MANROFFSEQ= MANWIDTH=80 man --warnings -l -P cat $dir/root$man/man1/pg_replica_kit_join.1 2>&1 >/dev/null`,
		'', 'man has nothing to complain of');
}

# What goes to PGXN: the files of the source and no other; its client installs
# them.
SKIP:
{
	skip 'git is not installed', 2 if system('git --version >/dev/null 2>&1') != 0;
	copy_source("$dir/dist");
	my $git = 'git -c user.name=t -c user.email=t@localhost';
	system_or_bail('sh', '-c',
		"cd $dir/dist && git init -q . && git add . && $git commit -q -m dist && make -s dist with_llvm=no >/dev/null"
	);
	my $name = "pg_replica_kit-$meta->{version}";
	my $zip = "$dir/dist/$name.zip";
	is_deeply(
		[ sort grep { !m!/$! } split /\n/, `unzip -Z1 $zip` ],
		[ sort map { "$name/$_" } source_files() ],
		'make dist packs the files of the source, and no other')
	  if system('unzip -v >/dev/null 2>&1') == 0;

	skip 'pgxnclient is not installed', 1
	  if system('pgxn --version >/dev/null 2>&1') != 0;
	local $ENV{DESTDIR} = "$dir/pgxn";
	local $ENV{COPT} = '-O0';
	local $ENV{MAKEFLAGS} = '-j2 with_llvm=no';
	local $ENV{HOME} = $dir;
	my $program = $ENV{PG_CONFIG} // 'pg_config';
	system("pgxn install --sudo=env --pg_config=$program $zip >$dir/pgxn.log 2>&1");
	is_deeply([ files_below("$dir/pgxn") ],
		[ files_below("$dir/root") ], "pgxnclient installs the same files")
	  or diag(slurp_file("$dir/pgxn.log"));
}

# From another prefix.
my $node = PostgreSQL::Test::Cluster->new('elsewhere');
SKIP:
{
	skip 'extension_control_path came with 18', 3
	  if $node->pg_version < 18;
	$node->init(allows_streaming => 1);
	$node->append_conf('postgresql.conf', <<~CONF);
		extension_control_path = '$dir/root$share'
		dynamic_library_path = '$dir/root$lib'
		shared_preload_libraries = 'pg_replica_kit'
		listen_addresses = '127.0.0.1'
		CONF
	$node->start;
	$node->safe_psql('postgres', 'CREATE EXTENSION pg_replica_kit');
	$node->safe_psql('postgres',
		"SELECT replica_kit.provision('r1', '127.0.0.1')");
	like(
		$node->safe_psql('postgres', "SELECT replica_kit.join_script('r1', 'h')"),
		qr/^prk_kit='0\.0elsewhere'$/m,
		'with extension_control_path the script is that of the library used');
	is( $node->safe_psql('postgres',
			"SELECT version FROM pg_get_loaded_modules() WHERE module_name = 'pg_replica_kit'"
		),
		'0.0elsewhere',
		'the server lists the library with its version');
	is($node->safe_psql('postgres', 'SELECT name, health FROM replica_kit.status()'),
		'r1|ok', 'and the functions work');
	$node->stop;
}

done_testing();
