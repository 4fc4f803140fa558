# Whatever is typed: names, addresses and passwords that could mean something
# else to pg_hba.conf, to SQL or to a connection string.

use strict;
use warnings FATAL => 'all';

use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $node = PostgreSQL::Test::Cluster->new('primary');
$node->init(allows_streaming => 1, extra => [ '--encoding', 'UTF8' ]);
$node->append_conf('postgresql.conf', <<~CONF);
	listen_addresses = '127.0.0.1'
	max_replication_slots = 20
	CONF
# Whom no line of ours lets in is refused, so that a line which means less
# than it should is seen; and what lets in more is tried below.
$node->start;
my $hba = $node->data_dir . '/pg_hba.conf';
my $local = join '', grep { /^local/ } split /^/m, slurp_file($hba);
unlink $hba or die "could not remove \"$hba\": $!";
append_to_file($hba, $local);
$node->reload;
$node->safe_psql('postgres', 'CREATE EXTENSION pg_replica_kit');
my $before = slurp_file($hba);

sub literal
{
	my ($text) = @_;

	return 'NULL' if !defined $text;
	(my $quoted = $text) =~ s/(['\\])/$1$1/g;
	return $quoted =~ /\\/ ? "E'$quoted'" : "'$quoted'";
}

# Connect over TCP as the replica would, and run a replication command.
sub connect_as
{
	my ($role, $password) = @_;

	(my $user = $role) =~ s/(['\\])/\\$1/g;
	local $ENV{PGPASSWORD} = $password;
	my $result = run_log(
		[ 'psql', '-XAt', '-c', 'IDENTIFY_SYSTEM', '-d',
			"host=127.0.0.1 port=" . $node->port . " user='$user' replication=1 dbname=''" ],
		'>', \my $out, '2>', \my $err);

	return $result ? 'connected' : $err;
}

# ----------------------------------------------------------------------
# Names of replicas: what a slot can't be called is refused, with a proposal
# ----------------------------------------------------------------------

for my $case (
	[ undef, qr/argument "name" must not be null/ ],
	[ '', qr/name "" is not valid/ ],
	[ 'replica-1', qr/HINT:  Use "replica_1", for example/ ],
	[ 'Replica', qr/HINT:  Use "replica", for example/ ],
	[ 'a b', qr/HINT:  Use "a_b", for example/ ],
	[ '+x', qr/HINT:  Use "x", for example/ ],
	[ '@x', qr/HINT:  Use "x", for example/ ],
	[ '/x', qr/HINT:  Use "x", for example/ ],
	[ q{x'; DROP TABLE t; --}, qr/HINT:  Use "x_drop_table_t", for example/ ],
	[ 'a"b', qr/HINT:  Use "a_b", for example/ ],
	[ 'a#b', qr/HINT:  Use "a_b", for example/ ],
	[ "a\nb", qr/HINT:  Use "a_b", for example/ ],
	[ "r\x{c3}\x{a9}plica", qr/HINT:  Use "r_plica", for example/ ],
	[ "\x{c3}\x{a9}", qr/is not valid/ ],
	[ 'x' x 64, qr/longer than 63 bytes.*HINT:  Use "x{63}", for example/s ],
	[ 'x' x 10000, qr/longer than 63 bytes/ ])
{
	my ($name, $expected) = @$case;

	my ($rc, $out, $err) = $node->psql('postgres',
		'SELECT * FROM replica_kit.provision(' . literal($name) . q{, '127.0.0.1')});
	my $shown = substr($name // 'NULL', 0, 30) =~ s/\n/\\n/r;
	like($err, $expected, "replica name $shown is refused with what helps");
}
is(slurp_file($hba), $before, 'a refused name leaves pg_hba.conf alone');
is($node->safe_psql('postgres', 'SELECT count(*) FROM pg_replication_slots'), '0', 'and makes no slot');

for my $name ('all', 'replication', 'x' x 63, '_', '0')
{
	my $password = $node->safe_psql('postgres',
		"SELECT password FROM replica_kit.provision('$name', '127.0.0.1')");
	is(connect_as($name, $password), 'connected', "replica name $name works");
	$node->safe_psql('postgres', "SELECT replica_kit.deprovision('$name')");
	is(slurp_file($hba), $before, "and goes without a trace");
}

# ----------------------------------------------------------------------
# Names of roles: what PostgreSQL allows works, and lets nobody else in
# ----------------------------------------------------------------------

$node->safe_psql('postgres', <<~'SQL');
	CREATE ROLE regress_prk_other LOGIN REPLICATION PASSWORD 'other';
	CREATE ROLE x LOGIN REPLICATION PASSWORD 'other';
	SQL

for my $role (
	'all', 'replication', 'sameuser', 'samerole', 'samegroup', '+x', '@x',
	'+regress_prk_other', '/x', '/.*', '/^', '"', 'a"b', q{a'b}, 'a b', ' ', 'a#b', '#',
	'a,b', ',', 'a\\b', 'a\\', 'Capital', 'a-b', '-x', '$x', '%x', 'a=b', "r\x{c3}\x{a9}plica",
	"t\tb", '*', 'x' x 63, '/' . 'x' x 62)
{
	# The tokenizer of some versions takes a name with a line break or a
	# final backslash apart; what can't be written is refused, never cut.
	my ($rc, $password, $err) = $node->psql('postgres',
		q{SELECT password FROM replica_kit.provision('r', '127.0.0.1', role => } . literal($role) . ')');

	if ($rc != 0 || $err =~ /ERROR/)
	{
		like($err, qr/cannot be written in pg_hba\.conf|is reserved/, "role $role is refused with the reason");
	}
	else
	{
		is(connect_as($role, $password), 'connected', "role $role can connect");
		like(connect_as('regress_prk_other', 'other'), qr/no pg_hba\.conf entry/, "its line lets no other role in");
		like(connect_as('x', 'other'), qr/no pg_hba\.conf entry/, "nor one whose name is like it");
	}
	$node->safe_psql('postgres', q{SELECT replica_kit.deprovision('r')});
	is(slurp_file($hba), $before, "role $role goes without a trace");
}
for my $case (
	[ '', qr/role name must not be empty/ ],
	[ 'x' x 64, qr/role name .* is too long/ ],
	[ "a\nb", qr/role name must not contain a line break/ ],
	[ 'pg_x', qr/role name "pg_x" is reserved/ ],
	[ q{pg_it's}, qr/role => 'repl_pg_it''s'\)/ ],
	[ 'public', qr/role name "public" is reserved/ ],
	[ 'none', qr/role name "none" is reserved/ ])
{
	my ($role, $expected) = @$case;
	my ($rc, $out, $err) = $node->psql('postgres',
		q{SELECT replica_kit.provision('r', '127.0.0.1', role => } . literal($role) . ')');

	like($err, $expected, 'role name ' . substr($role, 0, 20) =~ s/\n/\\n/r . ' is refused');
}

# ----------------------------------------------------------------------
# Addresses
# ----------------------------------------------------------------------

$node->append_conf('postgresql.conf', "listen_addresses = '*'");
$node->restart;

# Each length of both families is a rule that lets in its first and last
# address, and not the ones beside them.
my $script = '';
for my $family ([ '172.16.255.255', 32 ], [ '2001:db8:ffff:ffff:ffff:ffff:ffff:ffff', 128 ])
{
	my ($address, $bits) = @$family;

	for my $len (1 .. $bits)
	{
		$script .= <<~SQL;
			BEGIN;
			SELECT FROM replica_kit.provision('r', '$address/$len');
			COMMIT;
			WITH n AS (SELECT network(inet '$address/$len') AS net),
			     a (which, ip, want) AS (
			         SELECT 'first', host(net)::inet, true FROM n
			         UNION ALL SELECT 'last', host(broadcast(net))::inet, true FROM n
			         UNION ALL SELECT 'below', host(net)::inet - 1, false FROM n
			             WHERE host(net) NOT IN ('0.0.0.0', '::')
			         UNION ALL SELECT 'above', host(broadcast(net))::inet + 1, false FROM n
			             WHERE host(broadcast(net)) NOT IN ('255.255.255.255', 'ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff'))
			SELECT '$address/$len ' || which
			  FROM a, LATERAL replica_kit.hba_match('r', ip) m
			 WHERE (m.verdict = 'allow' AND m.auth_method = 'scram-sha-256') IS DISTINCT FROM want;
			SELECT FROM replica_kit.deprovision('r');
			SQL
	}
}
is($node->safe_psql('postgres', "SET client_min_messages = error;\n$script"), '',
	'a rule of each mask length lets in its network and no more');
is(slurp_file($hba), $before, 'and all went without a trace');

for my $case (
	[ '10.1.2.3/8', qr/NOTICE:  address "10\.1\.2\.3\/8" stands for its network "10\.0\.0\.0\/8"/, '10.0.0.0/8' ],
	[ '2001:db8::15/32', qr/NOTICE:  .*stands for its network "2001:db8::\/32"/, '2001:db8::/32' ],
	[ '2001:db8::15', qr/^$/, '2001:db8::15/128' ],
	[ '10.0.0.5', qr/^$/, '10.0.0.5/32' ],
	[ '0.0.0.0/0', qr/WARNING:  "0\.0\.0\.0\/0" lets connections in from every address/, '0.0.0.0/0' ],
	[ '::/0', qr/WARNING:  "::\/0" lets connections in from every address/, '::/0' ])
{
	my ($address, $expected, $written) = @$case;
	my ($rc, $rule, $err) = $node->psql('postgres',
		qq{SELECT hba_rule FROM replica_kit.provision('r', '$address')});

	like($err, $expected, "address $address: what is said");
	is($rule, "host replication r $written scram-sha-256", "address $address: what is written");
	(undef, undef, $err) = $node->psql('postgres',
		qq{SELECT replica_kit.revoke_address('r', '$address')});
	unlike($err, qr/lets connections in/, "address $address: to revoke it lets nobody in");
	$node->safe_psql('postgres', q{SELECT replica_kit.deprovision('r')});
}
for my $case (
	[ q{'::ffff:10.0.0.0/104'}, qr/IPv4 address in IPv6 form/ ],
	[ q{'::ffff:10.0.0.5'}, qr/IPv4 address in IPv6 form.*HINT:  Give the IPv4 address/s ],
	[ 'NULL', qr/argument "ip" must not be null/ ],
	[ q{'10.0.0.300'}, qr/invalid input syntax for type inet/ ],
	[ q{'replica.example.com'}, qr/invalid input syntax for type inet/ ])
{
	my ($address, $expected) = @$case;
	my ($rc, $out, $err) = $node->psql('postgres', "SELECT replica_kit.provision('r', $address)");

	like($err, $expected, "address $address is refused");
}

# ----------------------------------------------------------------------
# Passwords
# ----------------------------------------------------------------------

for my $password (q{'}, q{"}, '\\', ':', '#', '$HOME', ' ', '%s', "\x{c3}\x{a4}\x{e2}\x{82}\x{ac}", 'x' x 1000,
	"a\tb", q{';DROP ROLE x;--})
{
	my $returned = $node->safe_psql('postgres',
		q{SELECT password FROM replica_kit.provision('r', '127.0.0.1', password => } . literal($password) . ')');

	is($returned, $password, 'password ' . substr($password, 0, 20) . ' is returned as given');
	is(connect_as('r', $password), 'connected', 'and lets the replica in');
	$node->safe_psql('postgres', q{SELECT replica_kit.deprovision('r')});
}
for my $case (
	[ '', qr/must not be empty/ ],
	[ "a\nb", qr/must not contain a line break/ ],
	[ 'md5' . '0123456789abcdef' x 2, qr/must not be an MD5 hash/ ])
{
	my ($password, $expected) = @$case;
	my ($rc, $out, $err) = $node->psql('postgres',
		q{SELECT replica_kit.provision('r', '127.0.0.1', password => } . literal($password) . ')');

	like($err, $expected, 'a password that no replica could use is refused');
}

my $secret = $node->safe_psql('postgres', q{SELECT rolpassword FROM pg_authid WHERE rolname = 'x'});
is($node->safe_psql('postgres', qq{SELECT password IS NULL FROM replica_kit.provision('r', '127.0.0.1', password => '$secret')}),
	't', 'a SCRAM secret is taken as it is and not returned');
is(connect_as('r', 'other'), 'connected', 'and its password lets the replica in');

my $rotated = $node->safe_psql('postgres', q{SELECT replica_kit.rotate_password('r')});
like(connect_as('r', 'other'), qr/password authentication failed/, 'after rotate_password the old one does not');
is(connect_as('r', $rotated), 'connected', 'and the new one does');
$node->psql('postgres', q{SELECT replica_kit.rotate_password('nobody')}, stderr => \my $err);
like($err, qr/replica "nobody" is not provisioned.*HINT:  Run: SELECT \* FROM replica_kit\.provision\('nobody'/s,
	'rotate_password of nobody says so');

$node->safe_psql('postgres', 'ALTER ROLE r SUPERUSER');
$node->psql('postgres', q{SELECT replica_kit.rotate_password('r')}, stderr => \$err);
like($err, qr/role "r" is a superuser.*HINT:  Give the replica a role of its own/s, 'nor does it hand out a superuser');
is(connect_as('r', $rotated), 'connected', 'whose password stays');
$node->safe_psql('postgres', 'ALTER ROLE r NOSUPERUSER');

# What SASLprep refuses or changes: the server and libpq then do the same.
for my $password ("bell\x07", "del\x7f", "\x{ee}\x{80}\x{80}", "soft\x{c2}\x{ad}hyphen", "\x{c2}\x{ad}",
	"no\x{c2}\x{a0}break", "\x{ef}\x{ac}\x{81}", "a\x{cc}\x{88}", "\x{d7}\x{90}a\x{d7}\x{90}")
{
	my $returned = $node->safe_psql('postgres', 'SELECT replica_kit.rotate_password(\'r\', ' . literal($password) . ')');
	my $shown = join ' ', map { sprintf '%02x', ord } split //, $password;

	is($returned, $password, "the password of bytes $shown is returned as given");
	is(connect_as('r', $password), 'connected', 'and lets the replica in');
}

# The replica's libpq sends UTF-8, whatever the database is encoded in.
$node->safe_psql('postgres', q{CREATE DATABASE regress_prk_latin ENCODING 'LATIN1' LOCALE 'C' TEMPLATE template0});
$node->safe_psql('regress_prk_latin', 'CREATE EXTENSION pg_replica_kit');
{
	local $ENV{PGCLIENTENCODING} = 'UTF8';
	my $password = "p\x{c3}\x{a4}ssw\x{c3}\x{b6}rd";

	is($node->safe_psql('regress_prk_latin', qq{SELECT replica_kit.rotate_password('r', '$password')}),
		$password, 'a password given in a database of another encoding is returned as given');
	is(connect_as('r', $password), 'connected', 'and lets the replica in');
}
$node->safe_psql('postgres', 'DROP DATABASE regress_prk_latin');

# ----------------------------------------------------------------------
# Names where a replica is only looked for
# ----------------------------------------------------------------------

for my $name ('', 'x' x 64, 'x' x 10000, q{it's}, 'a b', "a\nb", '/x', 'Replica', 'nobody')
{
	my $shown = substr($name, 0, 30) =~ s/\n/\\n/r;
	my $quoted = literal($name);

	for my $call ("deprovision($quoted)", "rotate_password($quoted)", "revoke_address($quoted, '127.0.0.1')",
		"join_script($quoted, '127.0.0.1')", "diagnose($quoted)", "history($quoted)")
	{
		my ($rc, $out, $err) = $node->psql('postgres', "SELECT * FROM replica_kit.$call");
		my ($function) = $call =~ /(\w+)/;

		# Each answers that there is no such replica: an error, or nothing.
		unlike($err, qr/syntax error|internal error|XX000|terminat|value too long/, "$function of replica $shown is no accident");
		ok($err =~ /ERROR/ || $out =~ /^(?:|0|[^|]*\|f\|0\|f)$/, "$function of replica $shown does nothing")
		  or diag "$out$err";
	}
}
is($node->safe_psql('postgres', q{SELECT count(*) FROM pg_replication_slots WHERE slot_name = 'r'}), '1', 'and all is there');

# ----------------------------------------------------------------------
# Servers that can't feed a replica
# ----------------------------------------------------------------------

$node->safe_psql('postgres', q{SELECT replica_kit.deprovision('r')});
$before = slurp_file($hba);
for my $case (
	[ "max_wal_senders = 1", qr/too few WAL sender processes are free.*HINT:  Run: ALTER SYSTEM SET max_wal_senders/s ],
	[ "max_wal_senders = 10\nmax_replication_slots = 0", qr/all replication slots are in use.*0 of 0 are free.*HINT:.*max_replication_slots/s ],
	[ "max_replication_slots = 10\nwal_level = minimal\nmax_wal_senders = 0", qr/wal_level must be "replica".*HINT:  Run: ALTER SYSTEM SET wal_level/s ],
	[ "wal_level = replica\nmax_wal_senders = 10\nlisten_addresses = ''", qr/does not listen.*HINT:  Run: ALTER SYSTEM SET listen_addresses/s ])
{
	my ($conf, $expected) = @$case;

	$node->append_conf('postgresql.conf', $conf);
	$node->restart;
	$node->psql('postgres', q{SELECT replica_kit.provision('r', '127.0.0.1')}, stderr => \my $said);
	like($said, $expected, "$conf: the error says what to do" =~ s/\n/, /gr);
	is(slurp_file($hba), $before, 'and nothing is changed');
	is($node->safe_psql('postgres', q{SELECT count(*) FROM pg_roles WHERE rolname = 'r'}), '0', 'no role either');
}

$node->stop;
done_testing();
