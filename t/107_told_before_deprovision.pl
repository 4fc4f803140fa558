# What deprovision() takes away that somebody needs is told before, also by a dry
# run; and what provision() and join_script() say of roles and addresses.

use strict;
use warnings FATAL => 'all';

use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $node = PostgreSQL::Test::Cluster->new('primary');
$node->init(allows_streaming => 1);
$node->append_conf('postgresql.conf', "listen_addresses = '127.0.0.1'\nshared_preload_libraries = 'pg_replica_kit'");
$node->start;
$node->safe_psql('postgres', 'CREATE EXTENSION pg_replica_kit');
my $port = $node->port;

sub sql
{
	my ($sql, %options) = @_;
	my ($rc, $out, $err) = $node->psql('postgres', $sql, %options);

	return ($out, $err);
}

sub exists_now
{
	my ($name) = @_;

	return $node->safe_psql('postgres', <<~"SQL");
		SELECT (SELECT count(*) FROM pg_roles WHERE rolname = '$name'),
		       (SELECT count(*) FROM pg_replication_slots WHERE slot_name = '$name'),
		       (SELECT count(*) FROM pg_hba_file_rules WHERE user_name = '{$name}')
		SQL
}

# ----------------------------------------------------------------------
# keep_role
# ----------------------------------------------------------------------

my ($out, $err) = sql(q{SELECT FROM replica_kit.provision('r1', '127.0.0.1')});
my $comment = $node->safe_psql('postgres', q{SELECT shobj_description(oid, 'pg_authid') FROM pg_roles WHERE rolname = 'r1'});
($out, $err) = sql(q{SELECT * FROM replica_kit.deprovision('r1', keep_role => true, dry_run => true)});
is($out, 'r1|t|1|f', 'keep_role: a dry run says that the role stays');
is(exists_now('r1'), '1|1|1', 'and does nothing');
($out, $err) = sql(q{SELECT * FROM replica_kit.deprovision('r1', keep_role => true)});
is("$out$err", 'r1|t|1|f', 'slot and line go');
is(exists_now('r1'), '1|0|0', 'the role stays');
is($node->safe_psql('postgres', q{SELECT shobj_description(oid, 'pg_authid') FROM pg_roles WHERE rolname = 'r1'}),
	$comment, 'with its comment');
($out, $err) = sql(q{SELECT * FROM replica_kit.deprovision('r1', keep_role => true)});
is("$out$err", 'r1|f|0|f', 'once more changes nothing');
($out, $err) = sql(q{SELECT FROM replica_kit.provision('r1', '127.0.0.1')});
unlike($err, qr/ERROR|WARNING/, 'the role serves again');
is(exists_now('r1'), '1|1|1', 'with slot and line');
($out, $err) = sql(q{SELECT keep_role FROM (SELECT NULL::boolean) AS v (keep_role), replica_kit.deprovision('r1', keep_role => NULL)});
like($err, qr/argument "keep_role" must not be null/, 'NULL is refused');

# ----------------------------------------------------------------------
# Who uses the role
# ----------------------------------------------------------------------

my $password = $node->safe_psql('postgres', q{SELECT replica_kit.rotate_password('r1')});
my $wal = PostgreSQL::Test::Utils::tempdir;

sub receive
{
	my ($name, $user, @slot) = @_;

	local $ENV{PGPASSWORD} = $password;
	mkdir "$wal/$name" or die "could not make a folder: $!";
	my $receiver = IPC::Run::start(
		[ 'pg_receivewal', '-D', "$wal/$name", @slot, '-d', "host=127.0.0.1 port=$port user=$user application_name=$name" ],
		'<', \undef, '>', \my $o, '2>', \my $e);
	$node->poll_query_until('postgres', "SELECT count(*) = 1 FROM pg_stat_replication WHERE application_name = '$name' AND state = 'streaming'")
	  or die "$name does not stream: $e";
	return $receiver;
}

sub stop_receiver
{
	my ($receiver) = @_;

	$receiver->signal('INT');
	$receiver->finish;
	$node->poll_query_until('postgres', 'SELECT count(*) = 0 FROM pg_stat_replication') or die 'a walsender stays';
	return;
}

my $kept = qr/HINT:  To keep the role, run: SELECT \* FROM replica_kit\.deprovision\('r1', keep_role => true\);/;
my $receiver = receive('r1', 'r1');
foreach my $dry ('true', 'false')
{
	($out, $err) = sql(qq{BEGIN; SELECT * FROM replica_kit.deprovision('r1', dry_run => $dry); ROLLBACK});
	like($err, qr/WARNING:  replica "r1" is connected with role "r1" \(PID \d+\)\nDETAIL:  It does not use its slot\.  Without the role it cannot reconnect\.\n$kept/,
		"dry_run => $dry: a replica that streams without its slot is told");
}
stop_receiver($receiver);

# A standby of this server has the role, too.
my $other = $node->safe_psql('postgres', q{SELECT password FROM replica_kit.provision('r2', '127.0.0.1')});
my $r1_password = $password;
$password = $other;
$receiver = receive('r2', 'r2', '-S', 'r2');
foreach my $dry ('true', 'false')
{
	($out, $err) = sql(qq{BEGIN; SELECT * FROM replica_kit.deprovision('r1', dry_run => $dry); ROLLBACK});
	like($err, qr/NOTICE:  role "r1" is also dropped on the standbys of this server, such as "r2"\nDETAIL:  .*cannot reconnect\.\n$kept/,
		"dry_run => $dry: that the standbys lose the role is told");
}
($out, $err) = sql(q{SELECT * FROM replica_kit.deprovision('r2')});
like($err, qr/HINT:  Stop the replica first, or run: SELECT \* FROM replica_kit\.deprovision\('r2', force => true\);/, 'a connected replica is refused');
($out, $err) = sql(q{SELECT * FROM replica_kit.deprovision('r2', keep_role => true)});
like($err, qr/run: SELECT \* FROM replica_kit\.deprovision\('r2', force => true, keep_role => true\);/, 'with the options that were given');
stop_receiver($receiver);
($out, $err) = sql(q{SELECT * FROM replica_kit.deprovision('r2')});
is("$out$err", 'r2|t|1|t', 'nothing is told where nobody is known to need the role');

# ----------------------------------------------------------------------
# Settings that wait for the replica
# ----------------------------------------------------------------------

sub set
{
	my ($name, $value) = @_;

	$node->safe_psql('postgres', "ALTER SYSTEM SET $name = '$value'");
	$node->safe_psql('postgres', 'SELECT pg_reload_conf()');
	# what a new session has from its start
	$node->poll_query_until('postgres', "SELECT setting = '$value' FROM pg_settings WHERE name = '$name'") or die "$name is not set";
	return;
}

foreach my $case (
	[ 'r1', qr/DETAIL:  Without the replica each commit waits/, '' ],
	[ 'FIRST 1 (a, R1)', qr/DETAIL:  Without the replica commits wait while fewer than 1 of the others are connected\./, 'FIRST 1 ("a")' ],
	[ 'ANY 2 (r1, "b ""c", *)', qr/DETAIL:  Without the replica commits wait while fewer than 2 of/, 'ANY 2 ("b ""c", *)' ],
	[ '2 (r1, a)', qr/DETAIL:  Without the replica each commit waits/, 'FIRST 1 ("a")' ])
{
	my ($value, $detail, $rest) = @$case;

	set('synchronous_standby_names', $value);
	foreach my $dry ('true', 'false')
	{
		($out, $err) = sql(qq{BEGIN; SELECT * FROM replica_kit.deprovision('r1', dry_run => $dry); ROLLBACK});
		like($err, qr/WARNING:  replica "r1" is named in synchronous_standby_names\n$detail/, "$value, dry_run => $dry: told");
	}
	my ($statement) = $err =~ /HINT:  First run: (ALTER SYSTEM SET synchronous_standby_names = .*;) then: SELECT pg_reload_conf\(\);/;
	ok(defined $statement, 'with the statement');
	$node->safe_psql('postgres', $statement);
	$node->safe_psql('postgres', 'SELECT pg_reload_conf()');
	ok($node->poll_query_until('postgres', "SELECT setting = '$rest' FROM pg_settings WHERE name = 'synchronous_standby_names'"),
		'which leaves the others');
	($out, $err) = sql(q{SELECT * FROM replica_kit.deprovision('r1', dry_run => true)});
	unlike($err, qr/synchronous_standby_names/, 'then nothing is told');
}
set('synchronous_standby_names', '*');
($out, $err) = sql(q{SELECT * FROM replica_kit.deprovision('r1', dry_run => true)});
is($err, '', '"*" names nobody');
set('synchronous_standby_names', '');

SKIP:
{
	skip 'synchronized_standby_slots is of 17 and later', 4 if $node->pg_version < 17;
	set('synchronized_standby_slots', 'r1, other');
	foreach my $dry ('true', 'false')
	{
		($out, $err) = sql(qq{BEGIN; SELECT * FROM replica_kit.deprovision('r1', dry_run => $dry); ROLLBACK});
		like($err, qr/WARNING:  replication slot "r1" is named in synchronized_standby_slots\nDETAIL:  .*\nHINT:  First run: ALTER SYSTEM SET synchronized_standby_slots = 'other'; then: SELECT pg_reload_conf\(\);/,
			"synchronized_standby_slots, dry_run => $dry: told");
	}
	set('synchronized_standby_slots', 'other');
	($out, $err) = sql(q{SELECT * FROM replica_kit.deprovision('r1', dry_run => true)});
	is($err, '', 'another name is not');
	set('synchronized_standby_slots', '');
	is(exists_now('r1'), '1|1|1', 'nothing was done');
}

# ----------------------------------------------------------------------
# A superuser as the replica's role
# ----------------------------------------------------------------------

$node->safe_psql('postgres', q{CREATE ROLE boss SUPERUSER LOGIN REPLICATION PASSWORD 'secret'; CREATE ROLE chief SUPERUSER LOGIN REPLICATION});
foreach my $dry ('true', 'false')
{
	($out, $err) = sql(qq{BEGIN; SELECT FROM replica_kit.provision('r3', '127.0.0.1', role => 'boss', dry_run => $dry); ROLLBACK});
	like($err, qr/NOTICE:  role "boss" is a superuser\nDETAIL:  .*\nHINT:  Leave the role argument out: the replica gets a role of its own\./,
		"dry_run => $dry: a superuser as the role is told");
}
($out, $err) = sql(q{SELECT FROM replica_kit.provision('r3', '127.0.0.1', role => 'chief')});
like($err, qr/ERROR:  role "chief" exists but has no password\nHINT:  It is a superuser\.  Leave the role argument out/, 'nobody is told to give a superuser a password');
$node->safe_psql('postgres', q{SELECT FROM replica_kit.provision('r3', '127.0.0.1', role => 'boss')});
($out, $err) = sql(q{SELECT replica_kit.rotate_password('r3')});
like($err, qr/ERROR:  role "boss" was not made by pg_replica_kit\nHINT:  It is a superuser\.  Give the replica a role of its own/, 'nor a new one');
$node->safe_psql('postgres', q{SELECT FROM replica_kit.deprovision('r3')});

# ----------------------------------------------------------------------
# One line to copy
# ----------------------------------------------------------------------

my $step = $node->safe_psql('postgres', q{SELECT next_step FROM replica_kit.provision('r1', '127.0.0.1')});
is($step, qq{psql -XAt -p $port -c "SELECT replica_kit.join_script('r1', '127.0.0.1')" > join_r1.sh},
	'next_step over a Unix socket has the address in the replica\'s network');
{
	my ($o, $e) = run_command([ 'sh', '-c', "cd '$wal' && PGHOST='@{[ $node->host ]}' PGDATABASE=postgres $step" ]);
	is("$o$e", '', 'the line is one that a shell runs');
	like(slurp_file("$wal/join_r1.sh"), qr/^prk_name='r1'\n(?:.*\n)*?prk_host='127\.0\.0\.1'\nprk_port='$port'$/m, 'and makes the script');
}
{
	local $ENV{PGHOST} = $node->host;
	run_command([ 'psql', '-XAtq', '-p', $port, '-d', 'postgres', '-c', q{CREATE DATABASE "odd 'one"} ]);
	run_command([ 'psql', '-XAtq', '-p', $port, '-d', q{dbname='odd \\'one'}, '-c', 'CREATE EXTENSION pg_replica_kit' ]);
	my ($o) = run_command([ 'psql', '-XAtq', '-p', $port, '-d', q{dbname='odd \\'one'}, '-c', q{SELECT next_step FROM replica_kit.provision('r1', '127.0.0.1')} ]);
	is($o, qq{psql -XAt -p $port -d 'odd '\\''one' -c "SELECT replica_kit.join_script('r1', '127.0.0.1')" > join_r1.sh}, 'in another database, too');
}

# ----------------------------------------------------------------------
# The loopback address
# ----------------------------------------------------------------------

my $hba = $node->data_dir . '/pg_hba.conf';
append_to_file($hba, "host all all 127.0.0.1/32 trust\n");
$node->reload;
($out, $err) = sql(q{SELECT length(replica_kit.join_script('r1')) > 1000}, connstr => "host=127.0.0.1 port=$port dbname=postgres");
like($err, qr/NOTICE:  the script will connect to "127\.0\.0\.1"\nDETAIL:  .*\nHINT:  For a replica on another machine pass primary_host to join_script\(\)\./,
	'join_script() over the loopback interface says so');
is($out, 't', 'and makes the script');
($out, $err) = sql(q{SELECT length(replica_kit.join_script('r1', '127.0.0.1')) > 1000}, connstr => "host=127.0.0.1 port=$port dbname=postgres");
is($err, '', 'not when the address was given');
($out, $err) = sql(q{SELECT next_step FROM replica_kit.provision('r1', '127.0.0.1')}, connstr => "host=127.0.0.1 port=$port dbname=postgres");
is($out, qq{psql -XAt -h 127.0.0.1 -p $port -c "SELECT replica_kit.join_script('r1', '127.0.0.1')" > join_r1.sh}, 'next_step over TCP has the way there');

# ----------------------------------------------------------------------
# What the log advises of a slot that is not the kit's
# ----------------------------------------------------------------------

$node->append_conf('postgresql.conf', <<~'CONF');
	replica_kit.check_interval = 1s
	replica_kit.warning_disconnected = 1s
	replica_kit.critical_disconnected = 2s
	CONF
my $log = -s $node->logfile;
$node->reload;
$node->safe_psql('postgres', q{SELECT pg_create_physical_replication_slot('foreign', true)});
$password = $r1_password;
$receiver = receive('foreign', 'r1', '-S', 'foreign');
$node->poll_query_until('postgres', q{SELECT count(*) > 0 FROM replica_kit.history('foreign') WHERE state = 'streaming'})
  or die 'the worker does not see it';
stop_receiver($receiver);
my $text = '';
foreach (1 .. 10 * $PostgreSQL::Test::Utils::timeout_default)
{
	$text = slurp_file($node->logfile, $log);
	last if $text =~ /replica "foreign" critical.*\n.*\n.*HINT: /;
	select undef, undef, undef, 0.1;
}
like($text, qr/replica "foreign" critical.*\n.*DETAIL: .*\n.*HINT:  Run: SELECT \* FROM replica_kit\.diagnose\('foreign'\);/,
	'the HINT of a slot that is not the kit\'s names what works');
is($node->psql('postgres', q{SELECT FROM replica_kit.diagnose('foreign')}), 0, 'as it does');

# A standby can't drop a role.
$node->safe_psql('postgres', q{SELECT pg_drop_replication_slot('foreign')});
$node->backup('base');
my $standby = PostgreSQL::Test::Cluster->new('standby');
$standby->init_from_backup($node, 'base', has_streaming => 1);
$standby->start;
$node->wait_for_catchup($standby, 'replay', $node->lsn('insert'));
my ($rc, $o, $e) = $standby->psql('postgres', q{SELECT * FROM replica_kit.deprovision('r1')});
like("$o\n$e", qr/^r1\|f\|1\|f\n.*NOTICE:  role "r1" stays because a standby cannot drop it\n.*HINT:  When no replica uses it any more, run on the primary: SELECT \* FROM replica_kit\.deprovision\('r1'\);/s,
	'on a standby the role stays, which is told');
$standby->stop;

$node->stop;
done_testing();
