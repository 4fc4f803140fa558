# hba_match() against the server itself: random pg_hba.conf files, real
# connection attempts over loopback, and the line that the server says it
# used.  PRK_SEED repeats a run, PRK_FILES makes it longer.  Where chance brings
# too little of something it goes on by itself, for some time.
use strict;
use warnings FATAL => 'all';

use File::Basename qw(basename);
use File::Spec;
use IO::Socket::IP;
use IPC::Open2;
use MIME::Base64;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Socket;
use Test::More;

use FindBin;
use lib $FindBin::RealBin;
use RandomHba;

my $seed = $ENV{PRK_SEED} || time;
my $files = $ENV{PRK_FILES} || 45;
my $attempts = 50;
srand($seed);
note "PRK_SEED=$seed PRK_FILES=$files";

# ----------
# The server
# ----------
my $node = PostgreSQL::Test::Cluster->new('oracle');
$node->init(allows_streaming => 1);
my $v16 = $node->pg_version >= 16;
my $data = $node->data_dir;
my $hba = "$data/pg_hba.conf";

my $has_ipv6 =
  defined IO::Socket::IP->new(LocalHost => '::1', Listen => 1, Proto => 'tcp');
my $has_tls = grep({ -x "$_/openssl" } File::Spec->path)
  && !system_log('openssl', 'req', '-new', '-x509', '-nodes', '-days',
	'2', '-subj', '/CN=localhost', '-newkey', 'ec', '-pkeyopt',
	'ec_paramgen_curve:prime256v1', '-keyout', "$data/server.key", '-out',
	"$data/server.crt");
chmod 0600, "$data/server.key" if $has_tls;

$node->append_conf('postgresql.conf', <<"EOCONF");
listen_addresses = '127.0.0.1@{[ $has_ipv6 ? ',::1' : '' ]}'
ssl = @{[ $has_tls ? 'on' : 'off' ]}
log_connections = on
log_line_prefix = '%r|'
log_min_messages = warning
max_connections = 50
max_wal_senders = 50
EOCONF
$node->start;

# Roles of all kinds; no password is ever right.
my @roles = (
	'app', 'rep1', 'rep2', 'chief', 'Rep', 'all', 'replication', '+grp',
	'@x', 'a b', 'a,b', 'q"q', "caf\xc3\xa9", '/x', '/^rep', 'db1');
$node->safe_psql(
	'postgres', join ";\n",
	'CREATE EXTENSION pg_replica_kit',
	'CREATE ROLE grp',
	'CREATE ROLE subgrp ROLE grp',
	map({ 'CREATE ROLE "' . s/"/""/gr . '" LOGIN REPLICATION PASSWORD \'x\'' }
		@roles),
	'ALTER ROLE chief SUPERUSER',
	'GRANT grp TO rep1, "a b"',
	'GRANT subgrp TO app',
	'CREATE ROLE middle ROLE rep2',
	'GRANT grp TO middle');
push @roles, 'nosuch';
my @databases = (
	('replication') x 12, 'db1', 'Db2', 'all', 'grp',
	'rep1', 'sameuser', '/db', "caf\xc3\xa9");

my @addresses = (
	map({ "127.0.0.$_" } 1 .. 12), '127.1.2.3', '127.128.0.1');
push @addresses, ('::1') x 4 if $has_ipv6;

# Random files about these; the other databases are all "replication".
my $random = RandomHba->new(
	roles => \@roles,
	databases => [ @databases[ 12 .. $#databases ] ],
	addresses => [ @addresses[ 0 .. 13 ] ],
	ipv6 => $has_ipv6,
	v16 => $v16);

# ----------
# Attempts
# ----------
my $tls_port = 20000 + int(rand(10000));

# The clients in the log since the last reload, so that none is there twice.
my %clients;

# A connection from an address, as (in, out, our port, pid of openssl).
sub connection
{
	my ($attempt) = @_;
	my $ipv6 = $attempt->{ip} =~ /:/;
	my $server = $ipv6 ? '::1' : '127.0.0.1';

	if (!$attempt->{ssl})
	{
		my ($sock, @others);

		# A port that a connection of before had may be given out again.
		do
		{
			push @others, $sock if $sock;
			$sock = IO::Socket::IP->new(
				LocalHost => $attempt->{ip},
				PeerHost => $server,
				PeerPort => $node->port,
				Proto => 'tcp') or die "could not connect: $@";
		} while ($clients{ "$attempt->{ip}(" . $sock->sockport . ')' }++);
		$sock->autoflush(1);
		return ($sock, $sock, $sock->sockport);
	}

	$tls_port++;
	my ($bind, $peer) = map { $ipv6 ? "[$_]" : $_ } $attempt->{ip}, $server;
	my $pid = open2(
		my $in, my $out,
		'openssl', 's_client',
		'-quiet', '-no-CAfile', '-no-CApath', '-starttls', 'postgres',
		'-bind', "$bind:$tls_port",
		'-connect', "$peer:" . $node->port);
	return ($in, $out, $tls_port, $pid);
}

# One message of the server: its type and contents; nothing at the end.
sub message
{
	my $in = shift;
	my ($head, $body) = ('', '');

	while (length($head) < 5)
	{
		sysread($in, $head, 5 - length($head), length($head)) or return;
	}
	my ($type, $length) = unpack('aN', $head);
	while (length($body) < $length - 4)
	{
		sysread($in, $body, $length - 4 - length($body), length($body))
		  or return;
	}
	return ($type, $body);
}

# Try to connect with a wrong password, and answer as far as the server asks.
# What it asked for first, or its error message, goes into {asked}.
sub try
{
	my ($attempt) = @_;
	my ($in, $out, $port, $pid) = connection($attempt);
	my %parameters = (user => $attempt->{role});

	if ($attempt->{database} eq 'replication')
	{
		$parameters{replication} = 'true';
	}
	else
	{
		$parameters{database} = $attempt->{database};
	}
	my $packet = pack('N', 196608)
	  . join('', map({ "$_\0$parameters{$_}\0" } sort keys %parameters)) . "\0";
	syswrite($out, pack('N', length($packet) + 4) . $packet);

	my $answer = sub { syswrite($out, pack('aNa*', 'p', length($_[0]) + 4, $_[0])) };
	while (my ($type, $body) = message($in))
	{
		if ($type eq 'E')
		{
			my ($text) = $body =~ /\0M(.*?)\0/s;
			$attempt->{asked} //= $text;
			last;
		}
		next if $type ne 'R';

		my $request = unpack('N', $body);
		$attempt->{asked} //= $request;
		last if $request == 0;
		if ($request == 3)
		{
			$answer->("wrong\0");
		}
		elsif ($request == 10)
		{
			my $first = 'n,,n=,r=clientnonceclientnonce';
			$answer->(
				"SCRAM-SHA-256\0" . pack('Na*', length($first), $first));
		}
		elsif ($request == 11)
		{
			my ($nonce) = substr($body, 4) =~ /^r=([^,]*)/;
			$answer->(
				"c=biws,r=$nonce,p=" . encode_base64("\0" x 32, ''));
		}
		else
		{
			die "unexpected authentication request $request";
		}
	}
	close($in);
	close($out);
	if ($pid)
	{
		kill 'TERM', $pid;
		waitpid($pid, 0);
	}
	$attempt->{key} = "$attempt->{ip}($port)";
	return;
}

# ----------
# The comparison
# ----------
my %seen;
my @disagreements;
my ($tried, $lines_compared) = (0, 0);
my $literal = sub { "'" . $_[0] =~ s/'/''/gr . "'" };

# Have the server read the files; what it logs from then on begins at the offset
# that is returned.  All of them are valid; one that it could not open or read
# for want of something on a busy machine is offered again.
sub reload
{
	my $log_start;

	for (1 .. 5)
	{
		$log_start = -s $node->logfile;
		kill 'HUP', (split /\n/, slurp_file("$data/postmaster.pid"))[0];

		# The postmaster reads the files before it lets the next session in.
		$node->safe_psql('postgres', 'SELECT 1');
		my $log = slurp_file($node->logfile, $log_start);
		return $log_start if $log !~ /pg_hba\.conf"? was not reloaded/;
		note $log;
		last if $log !~ /could not (?:open|read)/;
	}
	die join "\n", 'the server refused the file:',
	  slurp_file($node->logfile, $log_start),
	  map { -f $_ ? ("$_:", slurp_file($_)) : () } $hba, "$data/inc.conf",
	  "$data/inc.d/01.conf";
}

# Does the server come to one line before the other?  A file that is included
# twice has its lines in both places, of which the later and the earlier count.
sub is_before
{
	my ($one, $other) = @_;
	my $name = $v16 ? q{regexp_replace(file_name, '.*/', '')} : q{'pg_hba.conf'};
	my @rules = split /\n/, $node->safe_psql('postgres',
		"SELECT $name || ':' || line_number FROM pg_hba_file_rules");
	my ($last) = grep { $rules[$_] eq $one } reverse 0 .. $#rules;
	my ($first) = grep { $rules[$_] eq $other } 0 .. $#rules;

	return $last < $first;
}

# Has there been enough of everything?
my @kinds = (
	qw(allow reject no_match undecidable ordinary),
	$has_tls ? 'ssl' : (),
	$has_ipv6 ? 'ipv6' : (),
	$v16 ? 'included' : ());
my $enough = int($files * $attempts / 4);
sub enough { return $lines_compared > $enough && !grep { !$seen{$_} } @kinds; }

$node->safe_psql('postgres', 'SELECT 1');
my $file = 0;
while ($file < $files || !enough() && $file < 5 * $files)
{
	$file++;
	$random->put_named_files($data);
	my $contents = "local all all trust\n" . $random->rules(4 + int(rand(9)), 1);
	put($hba, $contents);

	my $log_start = reload();
	%clients = ();
	my @attempts =
	  map {
		{
			role => pick(@roles),
			ip => pick(@addresses),
			database => pick(@databases),
			ssl => $has_tls && chance(15) ? 1 : 0
		}
	  } 1 .. $attempts;
	foreach my $attempt (@attempts)
	{
		# openssl gives up where another connection has its port
		for (1 .. 5)
		{
			try($attempt);
			last if !$attempt->{ssl} || defined $attempt->{asked};
			note 'no answer over TLS';
		}
	}

	# What the server has logged, by client.
	my (%line, $key);
	foreach my $logged (split /\n/, slurp_file($node->logfile, $log_start))
	{
		# A message of more than one line goes on after a tab.
		$key = $1 if $logged =~ /^([^\s|]*)\|/;
		if ($logged =~
			/Connection matched (?:pg_hba\.conf|file "([^"]*)") line (\d+)/
			|| $logged =~ /connection authenticated: .* \(([^()]*):(\d+)\)$/)
		{
			$line{$key} = basename($1 // 'pg_hba.conf') . ":$2";
		}
	}

	# What hba_match() says.
	my $values = join ",\n", map {
		my $attempt = $attempts[$_];
		"($_, "
		  . join(', ',
			$literal->($attempt->{role}), $literal->($attempt->{ip}) . '::inet',
			$literal->($attempt->{database}),
			$attempt->{ssl} ? 'true' : 'false')
		  . ')'
	} 0 .. $#attempts;
	my $said = $node->safe_psql('postgres', <<"EOSQL");
SET client_encoding = 'UTF8';
SELECT concat_ws(' ', n, regexp_replace(file_name, '.*/', '') || ':' || line_number,
		auth_method, replace(verdict, ' ', '_'))
	FROM (VALUES $values) AS v (n, role, ip, database, ssl),
		LATERAL replica_kit.hba_match(role, ip, database, ssl)
	ORDER BY n
EOSQL

	foreach (split /\n/, $said)
	{
		my @words = split / /;
		my $attempt = $attempts[ shift @words ];
		my $verdict = pop @words;
		my ($match, $method) = @words;
		my $asked = $attempt->{asked} // 'nothing';
		my $line = $line{ $attempt->{key} };
		my $agree;

		$tried++;
		$seen{$verdict}++;
		$seen{ssl}++ if $attempt->{ssl};
		$seen{ipv6}++ if $attempt->{ip} =~ /:/;
		$seen{ordinary}++ if $attempt->{database} ne 'replication';
		if ($verdict eq 'no_match')
		{
			$agree = $asked =~ /^no pg_hba\.conf entry/;
		}
		elsif ($verdict eq 'reject')
		{
			$agree = $asked =~ /^pg_hba\.conf rejects/;
		}
		elsif ($verdict eq 'undecidable')
		{
			# The rule that it stopped at, or any after it.
			$agree = $asked =~ /^(?:no pg_hba|pg_hba|[0-9])/
			  || defined $line && !is_before($line, $match);
		}
		else
		{
			$agree = $method eq 'trust' ? $asked eq '0'
			  : $method eq 'ident' ? $asked =~ /^Ident authentication failed/
			  : $method eq 'password' ? $asked eq '3'
			  : $asked eq '10';
			$agree &&= defined $line || $method eq 'trust';
			if (defined $line)
			{
				$agree &&= $line eq $match;
				$lines_compared++;
				$seen{included}++ if $line !~ /^pg_hba/;
			}
		}
		next if $agree;
		push @disagreements,
		  "role <$attempt->{role}> ip $attempt->{ip} database "
		  . "<$attempt->{database}> ssl $attempt->{ssl}: hba_match says $_, "
		  . "the server asked for <$asked> by " . ($line // 'no line')
		  . "\n$contents";
	}
}
$node->stop;

note join ', ', map { "$_ $seen{$_}" } sort keys %seen;
note "$file files, $tried attempts, $lines_compared lines compared";
is($tried, $file * $attempts, 'all attempts were judged');
is_deeply(\@disagreements, [],
	"hba_match() agrees with the server (PRK_SEED=$seed)");
cmp_ok($lines_compared, '>', $enough,
	'the server named its line often enough');
foreach my $kind (@kinds)
{
	cmp_ok($seen{$kind} // 0, '>', 0, "some attempts were of kind $kind");
}

done_testing();
