# The password that provision() and rotate_password() make is in the row that
# they return and nowhere else: no log, view, process title, WAL or file of the
# server, and no error raised after it was made.  And what doc/switchover.md says of
# one that the caller passes.

use strict;
use warnings FATAL => 'all';

use FindBin;
use lib $FindBin::RealBin;
use lib "$FindBin::RealBin/fault";
use Digest::SHA qw(hmac_sha256 sha256);
use Fault;
use MIME::Base64 qw(encode_base64);
use OwnProcesses;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes ();

my $server = Fault->new('secrets');
plan skip_all => 'needs Linux and a C compiler' if !defined $server;

# All that a server can be made to write.
my $node = $server->{node};
chomp(my $libraries = `pg_config --pkglibdir`);
my @preload = grep { -f "$libraries/$_.so" } qw(auto_explain pg_stat_statements pg_replica_kit);
my $has_statements = grep { $_ eq 'pg_stat_statements' } @preload;
note "preloaded: @preload";
$node->append_conf('postgresql.conf', <<~CONF);
	shared_preload_libraries = '@{[ join ', ', @preload ]}'
	wal_level = logical
	wal_compression = off
	max_replication_slots = 4
	track_activity_query_size = '64kB'
	log_statement = all
	log_duration = on
	log_min_duration_statement = 0
	log_min_messages = debug5
	log_min_error_statement = debug5
	log_error_verbosity = verbose
	log_parameter_max_length = -1
	log_parameter_max_length_on_error = -1
	log_connections = on
	log_replication_commands = on
	log_lock_waits = on
	deadlock_timeout = '100ms'
	debug_print_parse = on
	debug_print_rewritten = on
	debug_print_plan = on
	auto_explain.log_min_duration = 0
	auto_explain.log_nested_statements = on
	auto_explain.log_analyze = on
	auto_explain.log_verbose = on
	auto_explain.log_triggers = on
	auto_explain.log_settings = on
	pg_stat_statements.track = all
	pg_stat_statements.track_utility = on
	CONF
$server->start;
$node->safe_psql('postgres', <<~'SQL');
	CREATE EXTENSION pg_replica_kit;
	CREATE TABLE twice (i integer UNIQUE DEFERRABLE INITIALLY DEFERRED);
	CREATE TABLE control (word text);
	INSERT INTO control VALUES ('a word that WAL shows');
	SQL
$node->safe_psql('postgres', 'CREATE EXTENSION pg_stat_statements') if $has_statements;

my $session = $server->connect;
my $observer = $server->connect;
my $postmaster = (split /\n/, slurp_file($node->data_dir . '/postmaster.pid'))[0];

# What was made, and what anybody could see meanwhile.
my @made;
my ($seen, $said) = ('', '');

# A word like those that are made.  Where a call fails before it has returned
# one, nothing tells which one it was.
my $word = qr/(?<![A-Za-z0-9])[A-Za-z0-9]{32}(?![A-Za-z0-9])/;

# What others see of the session that calls, by SQL and by ps.
sub look
{
	my $answer = $observer->run(
		q{SELECT concat_ws(' ', coalesce((SELECT 'Lock' FROM pg_locks l WHERE l.pid = a.pid AND NOT granted LIMIT 1), wait_event_type), wait_event, state, query)
		FROM pg_stat_activity a WHERE pid <> pg_backend_pid();});

	$seen .= $answer;
	for my $pid (own_processes())
	{
		open my $in, '<', "/proc/$pid/cmdline" or next;
		local $/ = undef;
		$seen .= (<$in> // '') . "\n";
	}
	return $answer;
}

# Keep the passwords that came back, which are the whole of a line, and what
# else was said.
sub keep
{
	my ($answer, $what, $wanted) = @_;
	my @words = $answer =~ /^($word)$/mg;

	is(scalar @words, $wanted, "$what: $wanted made");
	push @made, @words;
	$said .= $answer =~ s/^$word\n//mgr;
	return $answer;
}

# Run it while somebody looks on.
sub watched
{
	my ($sql, $what, $wanted) = @_;

	my ($begin) = $observer->run('SELECT clock_timestamp();') =~ /^(\S.*)$/m;
	$session->send($sql);
	look()
	  while $observer->run("SELECT 'done' FROM pg_stat_activity WHERE pid = $session->{pid} AND state LIKE 'idle%' AND state_change > '$begin';") !~ /^done$/m;
	return keep($session->wait, $what, $wanted);
}

# A row that is sent before its transaction ends.
my $provision = q{COPY (SELECT password FROM replica_kit.provision('x', '127.0.0.1')) TO STDOUT;};
my $rotate = q{COPY (SELECT replica_kit.rotate_password('x')) TO STDOUT;};
my $deprovision = q{SELECT FROM replica_kit.deprovision('x');};

# ----------------------------------------------------------------------
# When all goes well, in each way to call
# ----------------------------------------------------------------------

unlike(watched($provision, 'provision()', 1), qr/ERROR|WARNING/, 'which works');
for my $call (
	[ 'rotate_password()', 'SELECT replica_kit.rotate_password(\'x\');' ],
	[ 'in COPY', $rotate ],
	[ 'prepared', q{PREPARE p AS SELECT replica_kit.rotate_password($1); EXECUTE p('x'); DEALLOCATE p;} ],
	[ 'by a cursor', q{BEGIN; DECLARE c CURSOR WITH HOLD FOR SELECT replica_kit.rotate_password('x'); COMMIT; FETCH c; CLOSE c;} ],
	[ 'explained', q{EXPLAIN (ANALYZE, VERBOSE) SELECT replica_kit.rotate_password('x');}, 0 ],
	[ 'in a DO block', q{DO $$ DECLARE secret text; BEGIN secret := replica_kit.rotate_password('x'); END $$;}, 0 ])
{
	my ($what, $sql, $wanted) = @$call;

	unlike(watched($sql, $what, $wanted // 1), qr/ERROR|WARNING/, 'which works');
}
$session->run($deprovision);

# ----------------------------------------------------------------------
# While it waits
# ----------------------------------------------------------------------

# Until the session waits for what a regular expression says.
sub wait_until_waiting
{
	my ($event) = @_;

	for (1 .. 100 * $PostgreSQL::Test::Utils::timeout_default)
	{
		return 1 if look() =~ /^$event/m;
		Time::HiRes::usleep(10_000);
	}
	return 0;
}

# The password is made before the role is.
for my $call ([ 'provision()', $provision ], [ 'rotate_password()', $rotate ])
{
	my ($what, $sql) = @$call;

	$observer->run('BEGIN; LOCK TABLE pg_catalog.pg_authid IN SHARE MODE;');
	$session->send($sql);
	ok(wait_until_waiting('Lock '), "$what waits for a lock");
	$observer->run('COMMIT;');
	keep($session->wait, "$what after a lock", 1);

	$observer->run('BEGIN; LOCK TABLE pg_catalog.pg_authid IN SHARE MODE;');
	$session->send("SET statement_timeout = '200ms'; " . ($sql =~ s/'x'/'y'/r =~ s/rotate_password\('y'\)/rotate_password('x')/r));
	my $answer = $session->wait;
	$observer->run('COMMIT;');
	like(keep($answer, "$what that ends while it waits", 0), qr/ERROR: .*statement timeout/, 'which fails');
	$session->run('RESET statement_timeout;');
}
$session->run($deprovision);

# ----------------------------------------------------------------------
# When something fails after it was made
# ----------------------------------------------------------------------

my $rules = slurp_file($server->{hba});

sub put
{
	my ($contents) = @_;

	open my $out, '>', $server->{hba} or die "could not open \"$server->{hba}\": $!";
	print $out $contents;
	close $out;
	return;
}

# The server can't show that the rule is in force.
kill 'STOP', $postmaster;
$session->send($provision);
for (1 .. 100 * $PostgreSQL::Test::Utils::timeout_default)
{
	look();
	last if slurp_file($server->{hba}) =~ /pg_replica_kit: x$/m;
	Time::HiRes::usleep(10_000);
}
$observer->run("SELECT pg_cancel_backend($session->{pid});");
my $answer = $session->wait;
kill 'CONT', $postmaster;
like(keep($answer, 'a reload that is not shown', 1), qr/ERROR: .*canceling statement/, 'which fails');

# Others take what was free.
$session->run('BEGIN;');
keep($session->run($provision), 'all slots taken meanwhile', 1);
$observer->run(q{SELECT pg_create_physical_replication_slot('other' || i) FROM generate_series(1, 4) i;});
like(keep($session->run('COMMIT;'), 'COMMIT', 0), qr/ERROR: .*all replication slots are in use/, 'which fails');
$observer->run(q{SELECT pg_drop_replication_slot('other' || i) FROM generate_series(1, 4) i;});
$session->run('BEGIN;');
keep($session->run($provision), 'the slot made meanwhile', 1);
$observer->run(q{SELECT pg_create_physical_replication_slot('x');});
like(keep($session->run('COMMIT;'), 'COMMIT', 0), qr/ERROR: .*replication slot "x" already exists/, 'which fails');
$observer->run(q{SELECT pg_drop_replication_slot('x');});

# What the file says, after the role was made.
put("host replication all all reject\n$rules");
like(keep($session->run($provision), 'a reject', 0), qr/ERROR: .*reject/, 'which fails');
put("host replication all all nonsense\n$rules");
like(keep($session->run($provision), 'a broken file', 0), qr/ERROR: /, 'which fails');
put($rules);

# At COMMIT, by a file that can't be made.
chmod 0555, $server->{folder};
like(keep($session->run($provision), 'a closed folder', 1), qr/ERROR: .*Permission denied.*\n(?:.*\n)*HINT: .*manage_hba => false/, 'which fails')
  if $> != 0;
chmod 0755, $server->{folder};

# By whatever else the transaction does, around either.
for my $call ([ 'provision()', $provision ], [ 'rotate_password()', $rotate ])
{
	my ($what, $sql) = @$call;

	$session->run(q{SELECT FROM replica_kit.provision('x', '127.0.0.1');}) if $what =~ /rotate/;
	for my $end (
		[ 'a failed COMMIT', 'INSERT INTO twice VALUES (1), (1); COMMIT;' ],
		[ 'a timeout', q{SET LOCAL statement_timeout = '20ms'; SELECT pg_sleep(60); COMMIT;} ],
		[ 'an error', 'SELECT 1/0; COMMIT;' ],
		[ 'PREPARE TRANSACTION', q{PREPARE TRANSACTION 'p';} ],
		[ 'ROLLBACK', 'ROLLBACK;' ])
	{
		my ($why, $rest) = @$end;

		$answer = keep($session->run("BEGIN; $sql $rest"), "$what, then $why", 1);
		like($answer, qr/^ERROR: /m, 'which fails') if $why ne 'ROLLBACK';
	}
	# with a CONTEXT
	my $nested = $sql =~ s/COPY \((.*)\) TO STDOUT;/$1/r;
	like(keep($session->run(qq{DO \$\$ DECLARE secret text; BEGIN $nested INTO secret; RAISE 'on purpose'; END \$\$;} =~
				s/(SELECT .*?) INTO secret/EXECUTE \$q\$$1\$q\$ INTO secret/r), "$what in a block", 0),
		qr/ERROR: .*on purpose\n(?:.*\n)*CONTEXT: /, 'which fails');
	like(keep($session->run(qq{DO \$\$ DECLARE secret varchar(3); BEGIN EXECUTE \$q\$$nested\$q\$ INTO secret; END \$\$;}), "$what into too short a variable", 0),
		qr/ERROR: .*value too long/, 'which fails');
}
$session->run('ALTER ROLE x SUPERUSER;');
like(keep($session->run($rotate), 'rotate_password() of a superuser', 0), qr/ERROR: .*is a superuser/, 'which fails');
$session->run('ALTER ROLE x NOSUPERUSER;');
$session->run($deprovision);
like(keep($session->run($rotate), 'rotate_password() of nobody', 0), qr/ERROR: .*is not provisioned/, 'which fails');

# ----------------------------------------------------------------------
# A password that the caller passes, as doc/switchover.md says
# ----------------------------------------------------------------------

my %passed = map { $_ => "Passed-$_-4711" } qw(shown careful secret);

sub with_password
{
	my ($password, $name) = @_;

	return qq{SELECT FROM replica_kit.provision('$name', '127.0.0.1', password => '$password');};
}
$session->run(with_password($passed{shown}, 'x') . $deprovision);
my $page = slurp_file("$FindBin::RealBin/../doc/switchover.md");
my ($advice) = $page =~ /^```sql quiet\n(.*?)^```/ms;
isnt($advice, undef, 'the page says how to keep it out of the log');
my $quiet = $server->connect;
$quiet->run($advice // '');
# waits for a lock, and later fails
$observer->run('BEGIN; LOCK TABLE pg_catalog.pg_authid IN SHARE MODE;');
$quiet->send(with_password($passed{careful}, 'x'));
ok(wait_until_waiting('Lock '), 'a session that says nothing waits for a lock');
$observer->run('COMMIT;');
unlike($quiet->wait, qr/ERROR|WARNING/, 'and goes on');
like($quiet->run(with_password($passed{careful}, 'x y')), qr/ERROR/, 'and fails');
$quiet->quit;
$session->run($deprovision);

# Its secret, as \password sends it.
sub scram_secret
{
	my ($password) = @_;
	my $salt = '0123456789abcdef';
	my $block = hmac_sha256("$salt\0\0\0\1", $password);
	my $salted = $block;

	for (2 .. 4096)
	{
		$block = hmac_sha256($block, $password);
		$salted ^= $block;
	}
	return 'SCRAM-SHA-256$4096:' . join '', encode_base64($salt, ''), '$', encode_base64(sha256(hmac_sha256('Client Key', $salted)), ''),
	  ':', encode_base64(hmac_sha256('Server Key', $salted), '');
}
unlike(watched(with_password(scram_secret($passed{secret}), 'x'), 'a secret', 0), qr/ERROR|WARNING/, 'which works');
{
	local $ENV{PGPASSWORD} = $passed{secret};
	$node->command_ok([ 'psql', '-XAtq', '-c', 'IDENTIFY_SYSTEM', '-d', 'host=127.0.0.1 user=x replication=1 port=' . $node->port ],
		'and lets the password in');
}
$session->run($deprovision);

# ----------------------------------------------------------------------
# Options of other rules
# ----------------------------------------------------------------------

# Lines that the server takes, and ones with an error, of which some of its own
# messages quote the value.
my $option = 'geheim4711';
my ($ldap, $radius) = ('ldap ldapserver=s ldapbasedn="dc=x" ldapbinddn="cn=y"', 'radius radiusservers=127.0.0.1');
my @lines = (
	qq{$ldap ldapbindpasswd="$option"},
	qq{ldap ldapurl="ldap://s/dc=$option?uid?sub"},
	qq{ldap ldapserver=s ldapprefix="$option" ldapsuffix="$option"},
	qq{$radius radiussecrets="$option"},
	qq{$radius radiussecrets="$option" radiusidentifiers="$option" radiusports=1812},
	qq{$ldap ldapbindpasswd="$option" nonsense},
	qq{$ldap ldapbindpasswd="$option" $option},
	qq{$ldap ldapbindpasswd="$option" $option=1},
	qq{$ldap ldapbindpasswd="$option" ldapport=$option},
	qq{$ldap ldapscheme=$option},
	qq{ldap ldapurl="$option a"},
	qq{ldap ldapurl="$option://s/"},
	qq{md5 ldapbindpasswd="$option"},
	qq{scram-sha-256 radiussecrets=$option},
	qq{$radius radiussecrets="$option,,$option"},
	qq{$radius radiussecrets="$option,$option"},
	qq{$radius radiussecrets="$option" radiusports="$option"},
	qq{radius radiusservers="$option,," radiussecrets=x},
	qq{radius radiusservers="$option.invalid" radiussecrets=x},
	qq{$radius radiussecrets=x radiusidentifiers="$option,,"},
	qq{ldapbindpasswd=$option},
	qq{"$ldap ldapbindpasswd=$option});
my $quoted = '';
my ($loaded, $refused) = (0, 0);
# which print more of the server's own views than anything else
$session->run("SET $_ = off;") for qw(debug_print_parse debug_print_rewritten debug_print_plan);
$session->run('SET auto_explain.log_min_duration = -1;');
for my $line (@lines)
{
	put("host replication all 127.0.0.0/8 $line\n$rules");
	$quoted .= $answer = $session->run(<<~'SQL');
		SET client_min_messages = debug5;
		SELECT * FROM replica_kit.preflight();
		SELECT * FROM replica_kit.hba_match('x', '127.0.0.1');
		SELECT * FROM replica_kit.hba_match('x', '127.0.0.1', ssl => true);
		SELECT * FROM replica_kit.provision('x', '127.0.0.1', dry_run => true);
		SELECT name FROM replica_kit.provision('x', '127.0.0.1');
		SELECT name FROM replica_kit.provision('x', '127.0.0.2', manage_hba => false);
		SELECT * FROM replica_kit.revoke_address('x', '127.0.0.1');
		SELECT * FROM replica_kit.diagnose();
		SELECT name, reason FROM replica_kit.status();
		SELECT * FROM replica_kit.deprovision('x');
		RESET client_min_messages;
		SQL
	$answer =~ /ERROR: .*the server does not load it/ ? $refused++ : $loaded++;
	put($rules);
	$session->run($deprovision);
}
# 19 knows no RADIUS
cmp_ok($loaded, '>=', $node->pg_version =~ /^(?:1[5-8])\b/ ? 5 : 3, "$loaded files with a secret of another rule are used");
cmp_ok($refused, '>=', 12, "$refused with an error are refused");
unlike($quoted, qr/$option/, 'no message and no row quotes an option of another rule');
is(join('', grep { /\[$session->{pid}\].*$option/ } split /^/m, slurp_file($node->logfile)), '', 'nor does what the kit writes into the log');

# ----------------------------------------------------------------------
# Nowhere
# ----------------------------------------------------------------------

my $statements = $has_statements ? $observer->run('SELECT query FROM pg_stat_statements;') : '';
cmp_ok(() = $statements =~ /provision/g, '>', 3, 'pg_stat_statements has the statements') if $has_statements;
$_->quit for $session, $observer;
$node->stop;

# The log is the only place where a word like it, made in a call that failed,
# can be searched for.
my $log = slurp_file($node->logfile);
my %views = (
	'pg_stat_activity, nor in the title of a process' => $seen,
	'what is said to the client' => $said,
	'pg_stat_statements' => $statements,
	'the log' => $log);
cmp_ok(scalar @made, '>=', 20, 'passwords were made: ' . @made);
is(scalar(keys %{ { map { $_ => 1 } @made } }), scalar @made, 'each is another');
for my $where (sort keys %views)
{
	# a SCRAM secret is no secret of ours
	my @found = $views{$where} =~ s/SCRAM-SHA-256\$[^\s']+//gr =~ /($word)/g;

	is(join(' ', @found), '', "none of them, nor a word like it, is in $where");
	is(join(' ', grep { index($views{$where}, $_) >= 0 } $passed{careful}, $passed{secret}),
		'', 'nor one that is passed as the page says');
}
like($log, qr/\Q$passed{shown}\E/, 'one that is just passed is in the log');

# All files: WAL, tables, and what pg_stat_statements keeps.
my $patterns = PostgreSQL::Test::Utils::tempdir . '/patterns';
append_to_file($patterns, join '', map { "$_\n" } @made, $passed{careful}, $passed{secret});
my @found = split /\n/, `grep -rlaF -f '$patterns' '@{[ $node->basedir ]}'`;
is(join(' ', @found), '', 'no file of the server holds one, WAL neither');
@found = split /\n/, `grep -rlaF 'a word that WAL shows' '@{[ $node->data_dir ]}/pg_wal'`;
cmp_ok(scalar @found, '>', 0, 'where another word is found');

done_testing();
