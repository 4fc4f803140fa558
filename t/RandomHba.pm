# Random files of the pg_hba.conf kind, for tests that compare what is made of
# them with what the server does.  All chance comes from rand(), so that srand()
# repeats a file.
package RandomHba;

use strict;
use warnings FATAL => 'all';

use Exporter 'import';

our @EXPORT = qw(pick chance put);

sub pick { return $_[ int(rand(@_)) ]; }
sub chance { return rand(100) < shift; }

# What rules are about: roles, databases, addresses (IPv4), ipv6 (whether there
# is any), v16 (regular expressions and included files), methods.
sub new
{
	my ($class, %about) = @_;

	return bless {
		methods => [
			('password') x 6, ('md5') x 2, ('scram-sha-256') x 3,
			'trust', 'reject', 'reject', 'ident', 'ident map=m' ],
		%about }, $class;
}

sub put
{
	my ($path, $contents) = @_;

	open(my $fh, '>:raw', $path) or die "could not open $path: $!";
	print $fh $contents;
	close($fh) or die "could not write $path: $!";
	return;
}

# ----------
# Rules, all valid
# ----------
sub quoted { return '"' . $_[0] =~ s/"/""/gr . '"'; }

sub name_token
{
	my $name = shift;

	return quoted($name) if $name =~ /[^A-Za-z0-9]/ || chance(30);
	return substr($name, 0, 2) . quoted(substr($name, 2))
	  if chance(10) && length($name) > 2;
	return $name;
}

sub role_token
{
	my ($self) = @_;

	return 'all' if chance(40);
	return pick('+grp', '+middle', '+subgrp', '+nosuch', '+app', '"+grp"')
	  if chance(25);
	return pick('@roles.txt', '@"roles.txt"', '"@x"') if chance(7);
	return pick('/^rep', '"/^rep[12]$"', '/x', '"/a b"', '/.', '/^.{4}$',
		"/f\xc3.\$", '/(?i)^REP$')
	  if chance(12);
	return name_token(pick(@{ $self->{roles} }));
}

sub database_token
{
	my ($self) = @_;

	return pick('replication', 'all') if chance(60);
	return pick('"replication"', '"all"', 'sameuser', 'samerole',
		'samegroup', '"sameuser"', '"samerole"')
	  if chance(50);
	return pick('@dbs.txt', '/^db', '"/^D"', '/.') if chance(30);
	return name_token(pick(@{ $self->{databases} }));
}

sub list
{
	my ($self, $token) = @_;
	my $list = $self->$token();

	$list .= pick(',', ', ') . $self->$token() while chance(25);
	return $list;
}

sub address
{
	my ($self) = @_;
	my @addresses = @{ $self->{addresses} };

	return 'all' if chance(25);
	return pick('samehost', 'samenet') if chance(15);
	return pick('"all"', 'localhost', '.example.com') if chance(2);
	if ($self->{ipv6} && chance(25))
	{
		return pick('::1/128', '::/0', '::1/127', '::2/127', '2001:db8::/32',
			'::ffff:127.0.0.1/128', '::ffff:127.0.0.1/0',
			'::1 ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff', '::1 ffff::');
	}
	return pick(@addresses) . '/' . pick(8, 9, 16, 24, 28 .. 32)
	  if chance(60);
	return pick('0.0.0.0/0', '10.0.0.0/8', '127.0.0.0/8', '127.0.0.2/31')
	  if chance(60);
	return pick(@addresses) . ' '
	  . pick('255.255.255.255', '255.255.255.252', '255.0.0.0', '0.0.0.0',
		'255.0.255.0', '255.255.255.254');
}

sub rule
{
	my ($self) = @_;
	my $type = pick(('host') x 9, ('hostssl') x 3, ('hostnossl') x 3,
		'hostnogssenc', 'hostnogssenc', 'hostgssenc', 'local');
	my $method = pick(@{ $self->{methods} });
	my $blank = chance(10) ? " \\\n\t" : pick(' ', "\t", '   ');

	# Is not even tried over TCP, and must not lock out the test.
	return "local all all trust\n" if $type eq 'local';

	return join($blank, $type, $self->list('database_token'),
		$self->list('role_token'), $self->address, $method)
	  . (chance(15) ? pick(' # a note', "\t#\"", '#x') : '') . "\n";
}

# So many rules with what stands between; they include other files if they may.
sub rules
{
	my ($self, $count, $may_include) = @_;
	my $rules = '';

	foreach (1 .. $count)
	{
		$rules .= pick("\n", "# host all all all trust\n", "# more \\\nof it\n",
			" \n", "#\n")
		  if chance(20);
		$rules .= pick('include inc.conf', 'include_dir inc.d',
			'include_if_exists nothing.conf') . "\n"
		  if $self->{v16} && $may_include && chance(8);
		$rules .= $self->rule;
	}
	return $rules;
}

# The files that rules may name, in the folder of the main one.
sub put_named_files
{
	my ($self, $folder) = @_;

	mkdir "$folder/inc.d";
	foreach my $place ($folder, "$folder/inc.d")
	{
		put("$place/roles.txt", "rep1, \"a b\"\n+subgrp # here\n");
		put("$place/dbs.txt", "db1\nsamerole\n");
	}
	return if !$self->{v16};
	put("$folder/inc.conf", $self->rules(3));
	put("$folder/inc.d/01.conf", $self->rules(2));
	put("$folder/inc.d/02.other", "no rule\n");
	return;
}

# ----------
# Whole files, in every layout, and some of them broken
# ----------

# What no rule is, or an unusual one.
sub oddity
{
	my ($self) = @_;

	return pick(
		"# caf\xc3\xa9, \xe2\x82\xac\n", "# no UTF-8: \xe9\xff\n",
		"\t \t\n", "\r\n", "\\\n", " \\\n \\\n", "# \\\n# \\\n\n",
		"# \"quoted \\\n# and \" on\n",
		"host all \"a#b\",c , d samenet md5 # \"\n",
		"host all \"# pg_replica_kit: quoted\" samehost md5\n",
		"host replication other 10.0.0.1/32 scram-sha-256  # pg_replica_kit: other\n",
		"# host replication other 10.0.0.1/32 md5  # pg_replica_kit: other\n",
		"host replication other ::1/128 md5# pg_replica_kit: other no more\n",
		"host replication \\\n other 10.0.0.2/32 md5 # x # pg_replica_kit: other \t\n",
		'# ' . 'long ' x (200 + rand(2000)) . "\n",
		'host all '
		  . join(',', map { "user_$_" } 1 .. 50 + rand(300)) . " all md5\n",
		'host all all 10.0.0.0/8 ' . ' ' x rand(9000) . "md5\n",
		"host all \"un\"\"usual\" 10.0.0.0/8 \"md5\"\n",
		"local all all peer map=\"a # b\"\n",
		"host all all 10.1.0.0/16 ldap ldapserver=127.0.0.1 ldapbindpasswd=s3cret\n",
		"host all all 10.1.0.0/16 ldap ldapserver=127.0.0.1 \"ldapprefix=\"\"cn=, \" \"ldapsuffix=,dc=a # b\"\n",
		"host all all 10.1.0.0/16 radius radiusservers=127.0.0.1 radiussecrets=s3cret\n",
		"hostssl all all 10.1.0.0/16 cert clientname=DN\n",
		"host all all samenet gss include_realm=0\n");
}

# What the server does not load, at least by itself in a line.
sub broken
{
	my ($self) = @_;

	return pick(
		"host all all 10.0.0.1 md5\n", "host all all 10.0.0.1/33 md5\n",
		"host all all 10.0.0.1 255.255.0 md5\n", "host all all ::/129 md5\n",
		"host all all 10.0.0.0/8\n", "host all all\n", "host\n", "hist all\n",
		"host all all all md6\n", "host all all all peer\n",
		"host all all all sspi\n", "local all all ident map\n",
		"host all all all md5 map=x\n", "host all all a,b md5\n",
		"host all all all md5,trust\n", "host,local all all all md5\n",
		"host all all all \\\n", "a,\n", "\"unterminated\n", "host all \"x all md5\n",
		"host all all nosuch/8 md5\n", "local all all cert\n",
		'host all "' . 'x' x 600 . "\" all md6\n",
		'host all ' . 'y' x 300 . " all trust\n",
		"host all all all ldap ldapbindpasswd=s3cret\n",
		"host all all all ldap s3cret\n",
		"host all all all ldap ldapserver=127.0.0.1 ldappasswd=s3cret\n",
		"host all all all ldap ldapserver=127.0.0.1 ldapport=s3cret\n",
		"host all all all ldap ldapserver=127.0.0.1 ldaptls=s3cret ldapscheme=x\n",
		"host all all all radius radiusservers=127.0.0.1 radiusports=s3cret\n",
		"host all all all radius radiusservers=127.0.0.1,127.0.0.2,127.0.0.3 radiussecrets=s3cret,s3cret\n",
		"host all \@nosuch.txt all md5\n", "host \@\"no such\" all all md5\n",
		'include nosuch.conf' . "\n", "include_dir nosuch.d\n", "include\n",
		"include inc.conf inc.conf\n", "include hba\n",
		"host all /( all md5\n", "host \"/[\" all all md5\n",
		"host all /^(a\$ all md5\n");
}

# A whole main file: now and then broken, or very long, in an unusual layout.
sub file
{
	my ($self) = @_;
	my $count = chance(0.3) ? 3000 : int(rand(8));
	my @parts;

	push @parts, chance(25) ? $self->oddity : $self->rules(1, 1)
	  foreach 1 .. $count;
	push @parts, $self->oddity while chance(20);
	splice(@parts, int(rand(@parts + 1)), 0, $self->broken) if chance(12);
	unshift @parts, "local all all trust\n" if chance(60);

	my $contents = join '', @parts;
	$contents =~ s/\n/\r\n/g if chance(15);
	$contents =~ s/\n/chance(50) ? "\r\n" : "\n"/ge if chance(10);
	$contents =~ s/\r?\n\z// if chance(25);
	$contents .= pick("\\", " \\\n", "# \\\n\n\n", "# x \\\r\n\r\n", "\n\n\n",
		"\t", "# \\", "# \\\\\n")
	  if chance(20);
	substr($contents, int(rand(length($contents) + 1)), 0, "\0")
	  if chance(0.7);
	return $contents;
}

1;
