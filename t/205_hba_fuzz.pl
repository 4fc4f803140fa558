# provision() and deprovision() as a whole on random pg_hba.conf files, valid
# and broken.  The server is the judge: what it loads is changed by our lines
# and nothing else, and comes back byte for byte; what it does not load is
# refused, in its words, and not touched.
#
# Goes on for PRK_FUZZ_SECONDS, or for PRK_FUZZ_FILES files.  Each file has a
# seed of its own, from PRK_FUZZ_SEED on: a failure names its file's, with which
# PRK_FUZZ_FILES=1 repeats it alone.
use strict;
use warnings FATAL => 'all';

use FindBin;
use lib $FindBin::RealBin;
use File::Spec;
use IO::Socket::IP;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use RandomHba;
use Test::More;
use Time::HiRes qw(time);
use WireSession;

my $first_seed = $ENV{PRK_FUZZ_SEED} || int(time);
my $files = $ENV{PRK_FUZZ_FILES};
my $seconds = $ENV{PRK_FUZZ_SECONDS} || 25;
my $max_failures = 5;
note "PRK_FUZZ_SEED=$first_seed";

# ----------
# The server
# ----------
my $node = PostgreSQL::Test::Cluster->new('fuzz');
$node->init(allows_streaming => 1, extra => [ '--encoding', 'UTF8' ]);
my $v16 = $node->pg_version >= 16;
my $folder = PostgreSQL::Test::Utils::tempdir;
my $hba = "$folder/hba";
my $has_ipv6 =
  defined IO::Socket::IP->new(LocalHost => '::1', Listen => 1, Proto => 'tcp');
my $data = $node->data_dir;
my $has_tls = grep({ -x "$_/openssl" } File::Spec->path)
  && !system_log('openssl', 'req', '-new', '-x509', '-nodes', '-days',
	'2', '-subj', '/CN=localhost', '-newkey', 'ec', '-pkeyopt',
	'ec_paramgen_curve:prime256v1', '-keyout', "$data/server.key", '-out',
	"$data/server.crt");
chmod 0600, "$data/server.key" if $has_tls;

# A loopback address that the kit does not know as one: other addresses may be
# provisioned then, while nobody else can connect.  Tries that the server has
# not noticed yet to be over are senders, too.
$node->append_conf('postgresql.conf', <<"EOCONF");
listen_addresses = '127.0.0.1@{[ $has_ipv6 ? ',0:0:0:0:0:0:0:1' : '' ]}'
hba_file = '$hba'
max_wal_senders = 100
EOCONF
put($hba, "local all all trust\n");
$node->start;
$node->safe_psql(
	'postgres', join ";\n", 'CREATE EXTENSION pg_replica_kit',
	'CREATE ROLE grp', 'CREATE ROLE subgrp ROLE grp', 'CREATE ROLE middle',
	'CREATE ROLE app ROLE grp');
my $user = $node->safe_psql('postgres', 'SELECT current_user');
my ($postmaster) = split /\n/, slurp_file("$data/postmaster.pid");
my $session = WireSession->new($node, $user);

# ----------
# What files are about
# ----------
my @roles = (
	'rep1', 'rep2', 'Rep', 'all', 'replication', 'sameuser', '+grp',
	'@x', '@roles.txt', 'a b', 'a,b', 'a#b', 'q"q', "q'q", 'back\\slash',
	"tab\tbed", "caf\xc3\xa9", '/x', '/^rep', '/.*', '/a"b', '/', '#',
	'x' x 63, "\xe2\x82\xac" x 21, '/' . '.' x 62);
my @unusable_roles = ("new\nline", "carriage\rreturn", 'pg_own', 'none', '', 'x' x 64);
my @local_addresses = map { "127.0.0.$_" } 1 .. 12;
my @addresses = (@local_addresses, '127.1.2.3', '127.128.0.1');
my @far_addresses = ('10.0.0.5', '127.0.0.0/24', '10.0.0.0/8', '0.0.0.0/0', '192.168.1.1/24');
push @far_addresses, '2001:db8::/32', 'fe80::1' if $has_ipv6;

my $random = RandomHba->new(
	roles => \@roles,
	databases => [ 'db1', 'Db2', 'all', 'rep1', 'sameuser', "caf\xc3\xa9" ],
	addresses => \@addresses,
	ipv6 => $has_ipv6,
	v16 => $v16,
	methods => [
		('password') x 6, ('md5') x 2, ('scram-sha-256') x 3, 'trust',
		('reject') x 3, 'ident', 'ident map=m', 'gss',
		'ldap ldapserver=127.0.0.1 ldapsearchattribute=s3cret' ]);

sub random_replica
{
	my ($name) = @_;
	my $far = !($has_ipv6 && chance(5)) && chance(20);

	return {
		name => $name . (chance(5) ? '_' x (63 - length $name) : ''),
		role => chance(2) ? pick(@unusable_roles)
		: chance(20) ? "role_of_$name"
		: pick(@roles),
		ip => $far ? pick(@far_addresses)
		: $has_ipv6 && chance(10) ? '::1'
		: pick(@local_addresses),
		far => $far,
		ssl => chance(15) ? 'true' : 'false' };
}

# ----------
# What the server says
# ----------
sub literal { return "'" . $_[0] =~ s/'/''/gr . "'"; }

# The rules of the files on disk: of each file, line, what it says, and error.
my $file_name = $v16 ? 'file_name' : literal($hba);

sub server_rules
{
	my ($rows, $messages) = $session->query(
		"SELECT $file_name, line_number, concat_ws('|', type, database, user_name,"
		  . ' address, netmask, auth_method, options), auth_method, error'
		  . ' FROM pg_hba_file_rules');
	die $messages if $messages;
	return $rows;
}

# Does the server load the file?
sub is_loaded
{
	my $log_start = -s $node->logfile;

	kill 'HUP', $postmaster;
	WireSession::is_served($node) or die 'the server does not answer';
	return slurp_file($node->logfile, $log_start) !~ /was not reloaded/;
}

# What it first asks for, where that can be tried: a number, or an error.
sub answer
{
	my ($replica) = @_;

	return '' if $replica->{far} || $replica->{role} =~ /^$|^.{64}/s;
	return WireSession::first_answer($node, $replica->{role}, $replica->{ip});
}

# ----------
# The expectations
# ----------
my (%count, @failures);
my ($seed, $contents);

sub expect
{
	my ($ok, $what, @details) = @_;

	return 1 if $ok;
	push @failures, join "\n", "PRK_FUZZ_SEED=$seed PRK_FUZZ_FILES=1: $what",
	  @details, "File: <<$contents>>";
	return 0;
}

sub shown
{
	return join "\n", map { join ' ', map { $_ // '-' } @$_ } @_;
}

# Everything on disk: the main file, its mode, what it names, what is beside.
sub on_disk
{
	my %disk;

	foreach my $path (glob("$folder/*"), glob("$folder/inc.d/*"))
	{
		$disk{$path} = (stat $path)[2] . ' ' . slurp_file($path) if -f $path;
	}
	return \%disk;
}

sub same_disk
{
	my ($one, $other, $but) = @_;
	my %paths = (%$one, %$other);

	return !grep {
		$_ ne ($but // '') && ($one->{$_} // 'none') ne ($other->{$_} // 'none')
	} keys %paths;
}

# The text without the one line that is the replica's, if nothing else was added
# but an empty line after one that continues, or the line break that was missing.
sub without_line
{
	my ($text, $rule, $replica) = @_;
	my $line = "$rule  # pg_replica_kit: $replica->{name}";
	my ($before, $eol, $after) = $text =~ /\A(.*?)^\Q$line\E(\r?\n|\z)(.*)\z/ms
	  or return;
	my $number = 1 + ($before =~ tr/\n//);
	my @candidates = ("$before$after");

	push @candidates, $before =~ s/(?<=\n)\r?\n\z//r if $after eq '';
	if ($eol eq '')
	{
		@candidates = ($before =~ s/\r?\n\z//r);
		push @candidates, $candidates[0] =~ s/\r?\n\z//r;
	}
	return ($number, @candidates);
}

# The rules with one more at a line; what follows it moves down.
sub with_rule
{
	my ($rules, $line) = @_;

	return map {
		my ($file, $number, @rest) = @$_;
		[ $file, $file eq $hba && $number >= $line ? $number + 1 : $number, @rest ];
	} @$rules;
}

# A provision that the server's file allowed, against what was before.
sub check_added
{
	my ($replica, $rule, $disk, $rules, $answer) = @_;
	my $now = on_disk();
	my ($mode, $before) = $disk->{$hba} =~ /^(\d+) (.*)\z/s;
	my ($now_mode, $after) = $now->{$hba} =~ /^(\d+) (.*)\z/s;
	my ($line, @candidates) = without_line($after, $rule, $replica);

	expect(same_disk($disk, $now, $hba) && $mode eq $now_mode,
		'another file has changed');
	expect($line && grep({ $_ eq $before } @candidates),
		'more than our line was added', "After: <<$after>>")
	  or return;

	my @now = @{ server_rules() };
	my ($ours) = grep { $_->[0] eq $hba && $_->[1] == $line } @now;
	my @others = grep { $_ != ($ours // 0) } @now;

	expect($ours && !defined $ours->[4] && $ours->[3] eq 'scram-sha-256',
		"our line $line is no rule", shown(@now), "After: <<$after>>");
	expect(
		shown(@others) eq shown(with_rule($rules, $line)),
		'other rules have changed', shown(@$rules), "Now:", shown(@now),
		"After: <<$after>>");
	$count{ $after =~ /\Q$replica->{name}\E\r?\n?\z/ ? 'at the end' : 'before another rule' }++;

	return if $replica->{far} || $replica->{ssl} eq 'true';
	my $now_asked = answer($replica);
	$count{'connections tried'}++;
	$count{'of them let in by another method before'}++
	  if $answer =~ /^\d+$/ && $answer != 10;
	expect($now_asked eq '10', "the server asks for <$now_asked>, not a SCRAM secret",
		"Before: <$answer>", "After: <<$after>>");
	return;
}

# A refusal must have a reason, and name it.
sub check_refused
{
	my ($replica, $messages, $loaded, $rules) = @_;
	my ($line, $file, $words) =
	  $messages =~ /^DETAIL:  Line (\d+) of (?:file )?"([^"]*)"(?:: )?(.*)\.$/m;

	if (grep { $replica->{role} eq $_ } @unusable_roles)
	{
		$count{'refused for the name of the role'}++;
	}
	elsif ($contents =~ /\0/)
	{
		$count{'refused for a zero byte'}++;
		expect($messages =~ /contains a zero byte/, 'it is not named', $messages);
	}
	elsif ($replica->{ssl} eq 'true' && $messages =~ /while ssl is off/)
	{
		$count{'refused as ssl is off'}++;
	}
	elsif ($messages =~ /with which the server does not load it/)
	{
		my ($broken) = grep { $_->[2] eq '' } @$rules;

		$count{'refused as broken'}++;
		expect(!$loaded, 'the server does load it', $messages);
		if (!defined $broken)
		{
			expect($messages =~ /File "\Q$hba\E" contains no entries/,
				'no error is found', $messages);
			return;
		}
		my $error = $broken->[4] // 'record cannot match because';
		$error = 'one of its options has an invalid value'
		  if $error =~ /record cannot match because/;
		expect(
			defined $words
			  && $file eq $broken->[0]
			  && $line == $broken->[1]
			  && $words ne ''
			  && $words eq substr($error, 0, length $words),
			'the error is another', $messages, shown($broken));
	}
	elsif ($messages =~ /(?:rejects|may reject) replication connections/)
	{
		my ($reject) =
		  grep { defined $line && $_->[0] eq $file && $_->[1] == $line } @$rules;

		$count{'refused as rejected by a rule'}++;
		expect($loaded, 'the server does not load it', $messages);
		expect($reject && $reject->[3] eq 'reject', 'which is no such rule',
			$messages, shown(@$rules));
	}
	else
	{
		expect(0, "$replica->{name} is refused", $messages);
	}
	return;
}

# What there is besides files.
sub objects
{
	my ($rows) = $session->query(
		'SELECT (SELECT string_agg(rolname, $$ $$ ORDER BY rolname) FROM pg_authid),'
		  . ' (SELECT string_agg(slot_name, $$ $$ ORDER BY slot_name) FROM pg_replication_slots)'
	);
	return shown(@$rows);
}

# Provision a replica; true if that was done.
sub provision
{
	my ($replica, $loaded, $tls) = @_;
	my ($disk, $rules, $objects) = (on_disk(), server_rules(), objects());
	my $answer = $loaded ? answer($replica) : '';

	# A rule by a host name, such as a quoted "all", may come before the one that
	# rejects: only the server knows whether it applies.
	my $is_decidable = 1;
	if ($answer =~ /rejects/)
	{
		my ($verdict) = $session->query('SELECT verdict FROM replica_kit.hba_match('
			  . join(', ', map { literal($replica->{$_}) } qw(role ip)) . ')');
		$is_decidable = $verdict->[0][0] ne 'undecidable';
	}
	my $statement =
	    'SELECT hba_rule FROM replica_kit.provision('
	  . join(', ', map { literal($replica->{$_}) } qw(name ip role))
	  . ", require_ssl => $replica->{ssl})";
	my ($rows, $messages) = $session->query($statement);

	expect($messages !~ /s3cret/, 'a secret is told', $messages);
	if ($messages =~ /^ERROR/m)
	{
		check_refused($replica, $messages, $loaded, $rules);
		expect(
			same_disk($disk, on_disk()) && $objects eq objects(),
			'something has changed all the same', $messages, $objects);
		return 0;
	}

	my ($why) = (
		!$loaded ? 'the server does not load the file' : (),
		$contents =~ /\0/ ? 'the file has a zero byte' : (),
		$replica->{ssl} eq 'true' ? ($tls ? () : 'ssl is off')
		: $answer =~ /rejects/ && $is_decidable ? 'the server says that it rejects' : (),
		grep({ $replica->{role} eq $_ } @unusable_roles)
		? 'the role is unusable'
		: ());
	expect(!$why, "it is not refused although " . ($why // ''), $messages);
	check_added($replica, $rows->[0][0], $disk, $rules, $answer);

	if (chance(10))
	{
		$disk = on_disk();
		$session->query($statement);
		expect(same_disk($disk, on_disk()), 'a second time adds something');
	}
	return 1;
}

sub deprovision
{
	my ($replica) = @_;
	my ($name, $ip) = map { literal($replica->{$_}) } qw(name ip);

	foreach my $statement (
		chance(10) ? "SELECT replica_kit.revoke_address($name, $ip)" : (),
		"SELECT * FROM replica_kit.deprovision($name)")
	{
		my ($rows, $messages) = $session->query($statement);
		expect($messages !~ /^ERROR|^WARNING|s3cret/m, $statement, $messages);
	}
	return;
}

# A file, and one replica or two that come and go.
sub try_file
{
	my ($tls) = @_;

	unlink $hba;
	$random->put_named_files($folder);
	$contents = $random->file;
	put($hba, $contents);
	chmod pick(0600, 0640, 0440), $hba;

	my $loaded = is_loaded();
	my ($disk, $rules, $objects) = (on_disk(), server_rules(), objects());
	my @replicas = map { random_replica(pick(qw(r replica replication 0)) . $_) }
	  chance(25) ? (1, 2) : (1);
	my @answers = $loaded ? map { answer($_) } @replicas : ();

	$count{ $loaded ? 'valid' : 'broken' }++;
	$count{'with CRLF'}++ if $contents =~ /\r\n/;
	$count{'without final newline'}++ if $contents =~ /[^\n]\z/;
	$count{'with a backslash at the end'}++ if $contents =~ /\\\s*\z/;
	$count{'with included rules'}++
	  if grep { defined $_->[0] && $_->[0] ne $hba } @$rules;

	my @done = grep { provision($_, $loaded, $tls) } @replicas;
	return if !@done;

	$count{'provisioned'} += @done;
	@done = reverse @done if chance(50);
	deprovision($_) foreach @done;
	expect(same_disk($disk, on_disk()), 'the files are not as before',
		'Now: <<' . slurp_file($hba) . '>>');
	expect(shown(@$rules) eq shown(@{ server_rules() }), 'nor the rules');
	expect($objects eq objects(), 'nor the roles and slots', $objects, objects());
	expect(
		join("\n", @answers) eq join("\n", map { answer($_) } @replicas),
		'nor what the server answers', @answers);
	return;
}

# ----------
# As long as it takes
# ----------
my @kinds = (
	'valid', 'refused as broken', 'refused as rejected by a rule',
	'at the end', 'before another rule', 'with CRLF',
	'without final newline', 'with a backslash at the end',
	$v16 ? 'with included rules' : ());
sub enough { return !grep { !$count{$_} } @kinds; }

my ($number, $tls_is_on, $started) = (0, 0, time);

sub is_over
{
	my $passed = time - $started;

	return 1 if @failures >= $max_failures;
	return $number >= $files if $files;
	return $passed > $seconds && (enough() || $passed > 4 * $seconds);
}

until (is_over())
{
	$seed = $first_seed + $number++;
	srand($seed);

	# By the seed, too, but seldom.
	my $tls = $has_tls && int($seed / 50) % 2;
	if ($tls != $tls_is_on)
	{
		$session->query('ALTER SYSTEM SET ssl = ' . ($tls ? 'on' : 'off'));
		is_loaded();
		$tls_is_on = $tls;
	}
	try_file($tls);
	note sprintf '%d files in %d s', $number, time - $started
	  if $number % 1000 == 0;
}

note sprintf '%d files in %.1f s:', $number, time - $started;
note sprintf '%7d %s', $count{$_}, $_ foreach sort keys %count;
is(join("\n\n", @failures), '', "no fault in $number files (PRK_FUZZ_SEED=$first_seed)");
if (!$files)
{
	cmp_ok($count{$_} // 0, '>', 0, "some files or replicas are: $_") foreach @kinds;
}
$node->stop;
done_testing();
