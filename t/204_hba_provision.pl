# provision() and deprovision() on pg_hba.conf files of all kinds: the rule
# works, nothing else changes, and the file comes back byte for byte.
use strict;
use warnings FATAL => 'all';

use File::Basename qw(basename);
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

# pg_hba.conf is a symbolic link into a folder of its own.
my $node = PostgreSQL::Test::Cluster->new('primary');
$node->init(allows_streaming => 1);
$node->append_conf('postgresql.conf', "listen_addresses = '127.0.0.1'");
my $link = $node->data_dir . '/pg_hba.conf';
my $folder = PostgreSQL::Test::Utils::tempdir;
my $path = "$folder/hba";
unlink $link;
symlink $path, $link or die "could not link $link: $!";

sub put
{
	my ($name, $contents) = @_;

	unlink $name;
	open(my $fh, '>:raw', $name) or die "could not open $name: $!";
	print $fh $contents;
	close($fh) or die "could not write $name: $!";
	return;
}

put($path, "local all all trust\n");
$node->start;
my $v16 = $node->pg_version >= 16;
$node->safe_psql('postgres', 'CREATE EXTENSION pg_replica_kit');

my ($stdout, $stderr);

sub sql
{
	my $rc = $node->psql(
		'postgres', shift,
		stdout => \$stdout,
		stderr => \$stderr);
	return $rc;
}

sub provision
{
	my ($name, $ip, $more) = @_;

	return sql("SELECT password FROM replica_kit.provision('$name', '$ip'"
		  . ($more // '') . ')');
}

sub deprovision { return sql("SELECT * FROM replica_kit.deprovision('$_[0]')"); }

# How a replica that connects now fares.
sub connection
{
	my ($role, $password) = @_;
	local $ENV{PGPASSWORD} = $password;
	my $connstr =
	  'host=127.0.0.1 port=' . $node->port . " user=$role replication=1 sslmode=disable";
	my ($out, $err) =
	  run_command([ 'psql', '-XAt', '-d', $connstr, '-c', 'IDENTIFY_SYSTEM' ]);
	return $err eq '' ? 'connected' : $err;
}

sub others
{
	opendir(my $dir, $folder) or die "could not open $folder: $!";
	return join ' ', sort grep { !/^\./ && $_ ne basename($path) } readdir $dir;
}

# ----------
# Files that an editor could break
# ----------
my $rule = 'host replication r1 127.0.0.1/32 scram-sha-256';
my $marked = "$rule  # pg_replica_kit: r1";
my $local = 'local all all trust';
put($node->data_dir . '/who.txt', "somebody\nr1\n");
put($node->data_dir . '/others.txt', "somebody, \"r 1\"\n");
put($node->data_dir . '/databases.txt', "one two\nreplication\n");
my $many = join '', map {
	$_ % 5 ? "host all user$_ 10.0.@{[ $_ >> 8 & 255 ]}.@{[ $_ & 255 ]}/32 scram-sha-256\n" : "# line $_\n"
} 1 .. 10_000;
# as a new file would not have
my ($group) = grep { $_ != $) + 0 } split / /, $);
my %files = (
	'plain' => [ "$local\n", "$local\n$marked\n" ],
	'CRLF' => [ "$local\r\n# x\r\n", "$local\r\n# x\r\n$marked\r\n" ],
	'no final newline' => [ $local, "$local\n$marked" ],
	'CRLF, no final newline' =>
	  [ "# x\r\n$local", "# x\r\n$local\r\n$marked" ],
	'a final comment that continues' =>
	  [ "$local\n# x \\\n", "$local\n# x \\\n\n$marked\n" ],
	'the same without newline' =>
	  [ "$local\n# x \\", "$local\n# x \\\n\n$marked" ],
	'the same with CRLF' =>
	  [ "$local\r\n# x \\\r\n", "$local\r\n# x \\\r\n\r\n$marked\r\n" ],
	'a final comment that continues on an empty line' =>
	  [ "$local\n# x \\\n\n", "$local\n# x \\\n\n\n$marked\n" ],
	'a final rule that continues' =>
	  [ "$local\nlocal all all \\\n trust \\\n",
		"$local\nlocal all all \\\n trust \\\n\n$marked\n" ],
	'blanks, tabs and empty lines at the end' =>
	  [ "$local\n\t\n  \n\n", "$local\n\t\n  \n\n$marked\n" ],
	'tabs between everything' =>
	  [ "local\tall\t\tall\ttrust\t# x\t\n\t\n", "local\tall\t\tall\ttrust\t# x\t\n\t\n$marked\n" ],
	'quotes that hold #' => [
		"$local\nhost \"a#b\" \"c # d\" 10.0.0.1/32 md5 # \"\nhost \"all\",\"# \" \"#\" all trust",
		"$local\nhost \"a#b\" \"c # d\" 10.0.0.1/32 md5 # \"\nhost \"all\",\"# \" \"#\" all trust\n$marked"
	],
	'UTF-8' => [
		"# K\xc3\xb6ln \xe5\xaf\x86\xe7\xa0\x81\n$local\nhost all \"\xd0\xb6\" 10.0.0.1/32 md5\n",
		"# K\xc3\xb6ln \xe5\xaf\x86\xe7\xa0\x81\n$local\nhost all \"\xd0\xb6\" 10.0.0.1/32 md5\n$marked\n" ],
	'names in a file that would win' => [
		"$local\nhost replication \@who.txt all trust\n",
		"$local\n$marked\nhost replication \@who.txt all trust\n" ],
	'names in a file that are others' => [
		"$local\nhost \@databases.txt \@others.txt all trust\n",
		"$local\nhost \@databases.txt \@others.txt all trust\n$marked\n" ],
	'10,000 lines' => [ "$local\n$many", "$local\n$many$marked\n" ],
	'10,000 lines, and one that would win' => [
		"$local\n${many}host replication all all trust\n$many",
		"$local\n$many$marked\nhost replication all all trust\n$many" ],
	'a byte that is no UTF-8' =>
	  [ "# caf\xe9\n$local\n", "# caf\xe9\n$local\n$marked\n" ],
	'another method that would win' => [
		"$local\n# why\nhost replication all all \\\n trust # x\n",
		"$local\n# why\n$marked\nhost replication all all \\\n trust # x\n" ],
	'the same with CRLF, at the end without newline' => [
		"$local\r\nhost replication all all trust",
		"$local\r\n$marked\r\nhost replication all all trust" ],
	'a host name that may win' => [
		"$local\nhost all,replication r1 localhost md5\n",
		"$local\n$marked\nhost all,replication r1 localhost md5\n" ],
	'another method for others' => [
		"$local\nhost replication r2,+nobody all trust\nhost all all all trust\n",
		"$local\nhost replication r2,+nobody all trust\nhost all all all trust\n$marked\n"
	],
	'a rule that lets it in anyway' => [
		"$local\nhost replication all all scram-sha-256\n",
		"$local\nhost replication all all scram-sha-256\n$marked\n" ],
	'a reject that comes later' => [
		"$local\nhost replication all samenet scram-sha-256\nhost all,replication all all reject\n",
		"$local\nhost replication all samenet scram-sha-256\nhost all,replication all all reject\n$marked\n"
	]);
if ($v16)
{
	put($node->data_dir . '/others.conf', "host replication r1 all trust\n");
	$files{'an included rule that would win'} = [
		"$local\ninclude others.conf\n",
		"$local\n$marked\ninclude others.conf\n" ];
}

my $turn = 0;
foreach my $kind (sort keys %files)
{
	my ($before, $wanted) = @{ $files{$kind} };

	put($path, $before);
	chown -1, $group, $path if defined $group;
	chmod 0440, $path;
	my @stat = stat $path;
	is(provision('r1', '127.0.0.1'), 0, "$kind: r1 is provisioned")
	  or diag $stderr;
	my $password = $stdout;
	is(slurp_file($path), $wanted, 'the rule is where it belongs');
	is(connection('r1', $password), 'connected', 'the replica gets in');
	like(connection('r1', 'wrong'),
		qr/password authentication failed/, 'by its password only');
	my $line = (split /\n/,
		$node->safe_psql('postgres',
			"SELECT rule FROM replica_kit.hba_match('r1', '127.0.0.1')"))[0];
	like($line, qr/^host .* scram-sha-256$/, 'and hba_match() says so');
	is(provision('r1', '127.0.0.1'), 0, 'again changes nothing');
	is(slurp_file($path), $wanted, 'in the file');

	# A second replica comes and goes, one time first and one time last.
	my $first = $turn++ % 2 ? 'r1' : 'zz';
	is(provision('zz', '127.0.0.2'), 0, 'another one is provisioned');
	is(deprovision($first), 0, "and $first deprovisioned first");
	is(deprovision($first eq 'r1' ? 'zz' : 'r1'), 0, 'then the other');
	is(slurp_file($path), $before, 'the file is back, byte for byte');
	is("@{[ (stat $path)[ 2, 4, 5 ] ]}", "@stat[ 2, 4, 5 ]", 'with its mode, owner and group');
	ok(-l $link, 'the link is one still');
	is(others(), '', 'and nothing is left beside');
}

# ----------
# What is refused, before anything is done
# ----------
sub server_state
{
	return $node->safe_psql('postgres',
		"SELECT rolname FROM pg_authid WHERE rolname !~ '^pg_'"
		  . ' UNION ALL SELECT slot_name FROM pg_replication_slots');
}

my $state = server_state();

sub refused
{
	my ($what, $contents, $error) = @_;

	put($path, $contents);
	isnt(provision('r1', '127.0.0.1'), 0, "$what is an error");
	like($stderr, $error, 'that says what to do');
	is(slurp_file($path), $contents, 'the file is as it was');
	is(others(), '', 'nothing is left beside');
	is(server_state(), $state, 'and neither a role nor a slot');
	return;
}

refused(
	'a policy that rejects',
	"$local\nhost all,replication all samenet reject\n",
	qr/rejects.*DETAIL:  Line 2 of .*\n.*\Q$rule\E/s);
refused(
	'a policy that rejects a host name',
	"$local\nhost all,replication all .example.com reject\n",
	qr/may reject.*DETAIL:  Line 2 of .* only when a connection arrives.*\n.*\Q$rule\E/s);
refused('an error in the file', "$local\nhost all all 10.0.0.1\n",
	qr/Line 2 of file .*end-of-line before netmask specification/);
refused('a zero byte', "$local\n# \0\n", qr/contains a zero byte/);
refused('a secret in a broken line',
	"$local\nhost all all all ldap ldapserver=a =secretword\n",
	qr/Line 2 of file (?!.*secretword)/s);

put($path, "$local\n");
chmod 0555, $folder;
isnt(provision('r1', '127.0.0.1'), 0, 'a closed folder is an error');
like($stderr, qr/Permission denied.*use manage_hba => false: \Q$rule\E/s,
	'that says what to do');
is(server_state(), $state, 'and leaves neither a role nor a slot');
is(provision('r1', '127.0.0.1', ', manage_hba => false'), 0, 'as it said')
  or diag $stderr;
is(slurp_file($path), "$local\n", 'the file is not touched');
chmod 0755, $folder;
is(deprovision('r1'), 0, 'and r1 goes');
is(server_state(), $state, 'entirely');

# A file that says that it is generated.
put($path, "# Ansible managed\n$local\n");
is(provision('r1', '127.0.0.1'), 0, 'a generated file is changed');
like($stderr, qr/WARNING:.*Ansible.*\Q$rule\E/s,
	'with a warning that names the program and the rule');
is(deprovision('r1'), 0, 'and r1 goes');
is(slurp_file($path), "# Ansible managed\n$local\n", 'without a trace');

$node->stop;
done_testing();
