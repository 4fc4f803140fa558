# What the script refuses: one clear line, the right exit code, and nothing
# changed.
use strict;
use warnings FATAL => 'all';

use FindBin;
use lib $FindBin::RealBin;

use File::Copy qw(copy);
use IPC::Run qw(start);
use JoinKit;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $scratch = PostgreSQL::Test::Utils::tempdir;
my $library = "$scratch/only_here.so";
my ($pkglibdir) = `pg_config --pkglibdir` =~ /(.*)/;
copy("$pkglibdir/auto_explain.so", $library) or die "copy: $!";

my $upstream = new_upstream('upstream');
provision($upstream, 'replica1', 'secret-word-1');
my $script = write_script($upstream, 'replica1');
my $other = new_upstream('other');
provision($other, 'replica1', 'secret-word-1');

my $replica = new_replica('replica');
my $pgdata = $replica->data_dir;
my @args = ('--pgdata', $pgdata, '--port', $replica->port);
my %env = (PGPASSWORD => 'secret-word-1');

# refused(WHAT, EXIT CODE, ERROR, HINT, SCRIPT, ENVIRONMENT, ARGUMENTS...)
sub refused
{
	my ($what, $expected, $error, $hint, $file, $env, @arguments) = @_;
	my $before = tree($replica->basedir);
	my ($code, $out, $err) = run_script($file, $env, @arguments);
	is($code, $expected, "$what: exit code $expected");
	my @lines = split /\n/, $err;
	is(scalar(grep { /^pg_replica_kit: error: / } @lines),
		1, "$what: there is one error");
	is(scalar(grep { !/^(pg_replica_kit: error: |hint: )/ } @lines),
		0, "$what: and nothing but a hint beside it");
	like($err, qr/^pg_replica_kit: error: .*$error/m, "$what: the error says so");
	if (defined $hint)
	{
		like($err, qr/^hint: .*$hint/m, "$what: the hint says what to do");
	}
	is(tree($replica->basedir), $before, "$what: nothing has been changed");
	unlike($out . $err, qr/secret-word/, "$what: the password is not shown");
	return;
}

# ----------------------------------------------------------------------
# Arguments
# ----------------------------------------------------------------------
refused('an unknown option', 2, 'unknown option "--rebild"', '--help',
	$script, \%env, @args, '--rebild');
refused('an option without value', 2, 'option --port needs a value', undef,
	$script, \%env, '--pgdata', $pgdata, '--port');
refused('an empty value', 2, 'option --pgdata needs a value', undef,
	$script, \%env, '--pgdata=');
refused('no directory', 2, 'no target given', '--pgdata DIR',
	$script, \%env);
refused('two directories', 2, 'exclude each other', undef,
	$script, \%env, @args, '--cluster', '15/main');
refused("a port that is none ($_)", 2, 'not a port', undef,
	$script, \%env, '--pgdata', $pgdata, '--port', $_)
  foreach (qw(0 65536 x 1e3 999999));
refused('a cluster of another version', 2, 'not of PostgreSQL', undef,
	$script, \%env, '--cluster', '9/main');
refused('a cluster without version', 2, 'not VERSION/NAME', '/main',
	$script, \%env, '--cluster', 'main');
refused('a start that contradicts itself', 2, 'exclude each other', undef,
	$script, \%env, @args, '--no-start', '--start-command', 'true');

# ----------------------------------------------------------------------
# This machine
# ----------------------------------------------------------------------
refused('programs of another major version', 3, 'PostgreSQL 99 is not installed here',
	'PostgreSQL 99|postgresql-?99',
	edit_script($script, prk_major => 99), \%env, @args);
refused('too little disk space', 9, 'not enough disk space: .* needs \d+ MB',
	'choose another directory',
	edit_script($script, prk_data_size => '1' . '0' x 17), \%env, @args);
refused('a port in use', 8, 'port ' . $upstream->port . ' is in use',
	'--port', $script, \%env, '--pgdata', $pgdata, '--port', $upstream->port);

mkdir $pgdata or die "mkdir: $!";
append_to_file("$pgdata/precious", "data\n");
refused('a directory that holds something', 8, 'is not empty',
	'Nothing in it has been touched', $script, \%env, @args);
unlink "$pgdata/precious";
rmdir $pgdata or die "rmdir: $!";
append_to_file($pgdata, "data\n");
refused('a file in its place', 8, 'is not a directory', undef,
	$script, \%env, @args);
unlink $pgdata;
refused('the upstream\'s own directory', 8,
	"is the upstream server's own data directory", '--pgdata',
	$script, \%env, '--pgdata', $upstream->data_dir);
refused('a directory in which a server runs', 8,
	'a server \(pid ' . slurp($other->data_dir . '/postmaster.pid') =~ s/\n.*//sr . '\) is running in',
	'--pgdata', $script, \%env, '--pgdata', $other->data_dir);
refused('the root directory', 2, 'cannot be a data directory', undef,
	$script, \%env, '--pgdata', '/');

SKIP:
{
	skip 'root may write anywhere', 7 if $> == 0;
	mkdir "$scratch/closed", 0500 or die "mkdir: $!";
	refused('a directory that cannot be made', 8, 'is not writable',
		'As root run: install -d', $script, \%env, '--pgdata',
		"$scratch/closed/pg", '--port', $replica->port);
}

$upstream->append_conf('postgresql.conf',
	"session_preload_libraries = '$library'");
$upstream->reload;
$upstream->poll_query_until('postgres',
	"SELECT current_setting('session_preload_libraries') <> ''")
  or die 'the library is not preloaded';
my $preloading = write_script($upstream, 'replica1');
my ($code) = run_script($preloading, \%env, @args, '--dry-run');
is($code, 0, 'a library that is installed is no obstacle');
unlink $library;
refused('a preloaded library that is not installed', 10,
	'the upstream server preloads what is not installed here: ' . $library,
	'Install the same packages', $preloading, \%env, @args);
copy("$pkglibdir/auto_explain.so", $library) or die "copy: $!";
$upstream->append_conf('postgresql.conf', "session_preload_libraries = ''");
$upstream->reload;

mkdir "$scratch/table space=1" or die "mkdir: $!";
$upstream->safe_psql('postgres',
	"CREATE TABLESPACE ts LOCATION '$scratch/table space=1'");
refused('the directory of a tablespace in use', 8,
	"tablespace directory \"$scratch/table space=1\" is not empty", undef,
	write_script($upstream, 'replica1'), \%env, @args);
$upstream->safe_psql('postgres', 'DROP TABLESPACE ts');

# ----------------------------------------------------------------------
# The upstream server
# ----------------------------------------------------------------------
refused('a wrong password', 5, 'password authentication failed',
	'password that provision\(\) returned',
	$script, { PGPASSWORD => 'secret-word-2' }, @args);
refused('no password and nobody to ask', 5, 'there is no password',
	'PGPASSWORD', $script, {}, @args);
refused('a password that no passfile can hold', 5, 'line break', undef,
	$script, { PGPASSWORD => "two\nlines" }, @args);
refused('a port where nobody answers', 4, 'Connection refused',
	'listen_addresses',
	edit_script($script,
		prk_port => PostgreSQL::Test::Cluster::get_free_port()),
	\%env, @args);
refused('a host that does not exist', 4, 'could not translate host name',
	"join_script\\('replica1', 'ADDRESS'\\)",
	edit_script($script, prk_host => 'nobody.invalid'), \%env, @args);
refused('another server at the address', 6, 'is another one: its system identifier',
	'make a new one', edit_script($script, prk_port => $other->port),
	\%env, @args);

my $receiver = start [ 'pg_receivewal', '-D', "$scratch", '-S', 'replica1',
	'-d', 'host=' . $upstream->host . ' port=' . $upstream->port ],
  '>', \my $ignored, '2>', \my $ignored_too;
$upstream->poll_query_until('postgres',
	"SELECT active FROM pg_replication_slots WHERE slot_name = 'replica1'")
  or die 'the slot is not in use';
refused('a slot in use', 7, 'replication slot "replica1" is in use',
	'a name of its own', $script, \%env, @args);
$receiver->signal('TERM');
$receiver->finish;
$upstream->poll_query_until('postgres',
	"SELECT NOT active FROM pg_replication_slots WHERE slot_name = 'replica1'")
  or die 'the slot is still in use';

$upstream->safe_psql('postgres', "SELECT pg_drop_replication_slot('replica1')");
refused('a slot that is gone', 7, 'replication slot "replica1" does not exist',
	"replica_kit.provision\\('replica1', ", $script, \%env, @args);
$upstream->safe_psql('postgres',
	"SELECT pg_create_physical_replication_slot('replica1', true)");

# No rule lets the role in: the hint has the address that the upstream saw.
my $hba = $upstream->data_dir . '/pg_hba.conf';
rename $hba, "$hba.saved" or die "rename: $!";
append_to_file($hba, "local all all trust\n");
$upstream->reload;
$upstream->poll_query_until('postgres',
	'SELECT count(*) = 1 FROM pg_hba_file_rules')
  or die 'pg_hba.conf has not been read';
refused('no rule in pg_hba.conf', 5, 'no pg_hba.conf entry',
	"SELECT \\* FROM replica_kit.provision\\('replica1', '127.0.0.1'\\);",
	$script, \%env, @args);
unlink $hba;
rename "$hba.saved", $hba or die "rename: $!";
$upstream->reload;

# ----------------------------------------------------------------------
# join_script() itself
# ----------------------------------------------------------------------
sub error_of
{
	my ($sql, @options) = @_;
	my ($rc, $out, $err) = $upstream->psql('postgres', $sql, @options);
	isnt($rc, 0, "refused: $sql");
	return $err;
}

like(error_of("SELECT replica_kit.join_script('replica1')"),
	qr/HINT:  Pass primary_host/, 'over a Unix socket it wants the address');
like(error_of("SELECT replica_kit.join_script(NULL)"),
	qr/must not be null/, 'a null name is refused');
like( error_of("SELECT replica_kit.join_script('it''s', '127.0.0.1')"),
	qr/replica "it's" is not provisioned.*provision\('it''s', /s,
	'a name that is not provisioned is refused, with the statement that helps');
like(
	error_of("SELECT replica_kit.join_script('replica1', E'$_')"),
	qr/invalid host/, 'a host that could be anything else is refused')
  foreach ("a''b", 'a b', '$(id)', 'a\nb', '-h', '', 'a;b', '/tmp', 'x' x 254);
like(
	error_of("SELECT replica_kit.join_script('replica1', 'localhost', $_)"),
	qr/invalid port/, 'a port that is none is refused')
  foreach (0, 65536, -1);
$upstream->safe_psql('postgres', 'CREATE ROLE nobody LOGIN');
like(
	error_of(
		"SELECT replica_kit.join_script('replica1', 'localhost')",
		extra_params => [ '-U', 'nobody' ]),
	qr/permission denied for function/,
	'it is for superusers');
foreach my $host ('10.0.0.1', '2001:db8::1', 'db.example.org', 'my_db')
{
	like(
		$upstream->safe_psql(
			'postgres',
			"SELECT replica_kit.join_script('replica1', '$host', 6543)"),
		qr/^prk_host='\Q$host\E'\nprk_port='6543'$/m,
		"$host is a host");
}
is( $upstream->safe_psql(
		'postgres',
		"SELECT replica_kit.join_script('replica1') ~ 'prk_host=''127.0.0.1'''",
		connstr => 'host=127.0.0.1 dbname=postgres port=' . $upstream->port),
	't', 'over TCP it knows the address');

$other->stop;
$upstream->stop;
done_testing();
