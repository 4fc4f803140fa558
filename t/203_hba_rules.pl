# Reading pg_hba.conf with the server's parser: which errors count, what is
# said of them, and where the rules of included files are.
use strict;
use warnings FATAL => 'all';

use File::Basename;
use File::Spec::Functions qw(rel2abs);
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $module = rel2abs(dirname(__FILE__) . '/../test/hba_test.so');

# pg_hba.conf is a symbolic link; the server resolves relative names in it by
# the folder of the link, not of the file.
my $node = PostgreSQL::Test::Cluster->new('rules');
$node->init;
my $data = $node->data_dir;
my $elsewhere = PostgreSQL::Test::Utils::tempdir;
my $hba = "$data/pg_hba.conf";
unlink $hba;
symlink "$elsewhere/hba", $hba or die "could not link $hba: $!";

sub put
{
	my ($path, $contents) = @_;

	open(my $fh, '>:raw', $path) or die "could not open $path: $!";
	print $fh $contents;
	close($fh) or die "could not write $path: $!";
	return;
}

put("$elsewhere/hba", "local all all trust\n");
$node->start;
my $v16 = $node->pg_version >= 16;
$node->safe_psql('postgres', <<"EOSQL");
CREATE EXTENSION pg_replica_kit;
CREATE FUNCTION hba_test_main_line(text, text) RETURNS integer
	AS '$module' LANGUAGE C STRICT;
EOSQL

my ($stdout, $stderr);

# Ask about a file that the server has not loaded.
sub ask
{
	my ($contents, $role, $columns) = @_;

	put("$elsewhere/hba", $contents);
	$stdout = $stderr = '';
	return $node->psql(
		'postgres',
		"SELECT $columns FROM replica_kit.hba_match('$role', '10.0.0.1')",
		stdout => \$stdout,
		stderr => \$stderr);
}

# Errors with which the server does not load the file.
my $good = "host all all 10.0.0.0/8 md5\n";
my %refused = (
	"host all all 10.0.0.1/32 peer_or_cert" =>
	  'invalid authentication method "peer_or_cert"',
	'host all all 10.0.0.1' => 'end-of-line before netmask specification',
	'host all all replica-IP/32 md5' =>
	  'specifying both host name and CIDR mask is invalid: "replica-IP/32"',
	'hots all all 10.0.0.1/32 md5' => 'invalid connection type "hots"',
	'host all @nosuch 10.0.0.1/32 md5' => 'could not open ',
	'host all all 10.0.0.1/32 ldap ldapserver=a secretword' =>
	  'authentication option not in name=value format',
	'host all all 10.0.0.1/32 ldap ldapserver=a secretword=x' =>
	  'unrecognized authentication option name',
	'host all all 10.0.0.1/32 ldap ldapurl="secretword a"' =>
	  'could not parse LDAP URL',
	'host all all 10.0.0.1/32 md5 ldapbindpasswd=secretword' =>
	  'authentication option "ldapbindpasswd" is only valid for authentication methods ldap',
	'host all all 10.0.0.1/32 ldapbindpasswd=secretword' =>
	  'invalid authentication method',
	'hostssl all all 10.0.0.1/32 cert clientname=secretword' =>
	  'one of its options has an invalid value',);
$refused{'host all "/(" 10.0.0.1/32 md5'} =
  'invalid regular expression "(": parentheses () not balanced'
  if $v16;
$refused{'include nosuch.conf'} = 'could not open ' if $v16;

foreach my $line (sort keys %refused)
{
	isnt(ask("$good# more\n$line\n$good", 'x', '1'),
		0, "an error of the server's is one here: $line");
	like(
		$stderr,
		qr/DETAIL:  Line 3 of file "\Q$hba\E": \Q$refused{$line}\E/,
		"it has the line and the server's words");
	unlike($stderr, qr/secretword/, 'and no option');

	# The server agrees.
	my $start = -s $node->logfile;
	$node->reload;
	$node->wait_for_log(qr/pg_hba\.conf"? was not reloaded/, $start);
}
foreach my $empty ('', "# nothing\n\n")
{
	isnt(ask($empty, 'x', '1'), 0, 'a file without entries is an error');
	like($stderr, qr/contains no entries/, 'and called so');
}
unlink "$elsewhere/hba";
isnt(
	$node->psql(
		'postgres', "SELECT replica_kit.hba_match('x', '10.0.0.1')",
		stderr => \$stderr),
	0, 'no file is an error');
like($stderr, qr/could not open file "\Q$hba\E": No such file/, 'and named');
mkdir "$elsewhere/hba";
isnt(
	$node->psql(
		'postgres', "SELECT replica_kit.hba_match('x', '10.0.0.1')",
		stderr => \$stderr),
	0, 'a folder is an error');
rmdir "$elsewhere/hba";

# Not an error: the server loads these, and says something about them.
ask("hostssl all all all md5\nhost replication all all trust\n",
	'x', 'line_number, verdict');
is($stdout, '2|allow', 'hostssl without TLS is no error, and no match');

# Options are not shown.
my %shown = (
	'host replication x 10.0.0.1/32 ldap ldapserver=s ldapprefix=secretword' =>
	  'host replication x 10.0.0.1/32 ldap',
	'host replication x 10.0.0.1 255.255.255.255 ldap ldapserver=s ldapprefix=secretword # secretword'
	  => 'host replication x 10.0.0.1 255.255.255.255 ldap',
	"host replication x,\\\n y all ldap \\\n ldapserver=s ldapprefix=secretword" =>
	  'host replication x, y all ldap',
	'host replication "x" 0.0.0.0/0 reject#secretword' =>
	  'host replication "x" 0.0.0.0/0 reject',);
foreach my $line (sort keys %shown)
{
	ask("$line\n", 'x', 'rule');
	is($stdout . $stderr, $shown{$line}, "shown without options: $shown{$line}");
}

# What only the server can know.
ask("host replication x localhost md5\nhost all all all reject\n", 'x',
	'line_number, auth_method, verdict');
is($stdout, '1|md5|undecidable', 'a host name is not looked up');
ask("host replication y localhost md5\nhost replication all all reject\n",
	'x', 'line_number, auth_method, verdict');
is($stdout, '2|reject|reject', 'unless the rule is for somebody else');
ask("host replication x all ident map=m\n", 'x',
	'line_number, auth_method, verdict');
is($stdout, '1|ident|undecidable', 'a user map is not followed');
ask("host replication x all ident map=m\n", 'y', 'verdict');
is($stdout, 'no match', 'unless the rule is for somebody else');

# Files named in the file are beside the link.
put("$data/who", "x\n");
put("$elsewhere/who", "y\n");
ask("host replication \@who all md5\n", 'x', 'verdict');
is($stdout, 'allow', 'a relative name is taken from the folder of the link');

# Where a new rule has to go to win.
sub main_line
{
	my ($contents, $role) = @_;

	put("$elsewhere/hba", $contents);
	return $node->safe_psql('postgres',
		"SELECT hba_test_main_line('$role', '10.0.0.1')");
}
is(main_line("\n# x \\\n y\nhost \\\n replication all all md5\n", 'x'),
	4, 'a rule is where its first line is');
is(main_line($good, 'x'), 0, 'no rule, no line');
SKIP:
{
	skip 'no included files before 16', 4 if !$v16;

	put("$data/a", "host replication a all md5\n");
	put("$data/b", "include a\nhost replication b all reject\n");
	my $main =
	  "# x\ninclude a\nhost all c all md5\n\ninclude_if_exists no\ninclude b\nhost replication d all md5\n";
	is(main_line($main, 'a'), 2, 'an included rule is where its file is');
	is(main_line($main, 'b'),
		5, 'or at an earlier line that includes and has no match');
	is(main_line($main, 'd'), 7, 'a rule after included files is where it is');
	ask($main, 'b', "regexp_replace(file_name, '.*/', ''), line_number, verdict");
	is($stdout, 'b|2|reject', 'the included file is named');
}

# The file was edited; the postmaster must be able to load it at the end.
put("$elsewhere/hba", "local all all trust\n");
$node->stop;
done_testing();
