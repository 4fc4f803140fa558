# When COMMIT returns, the running server uses the rule: proved by connecting
# at once, also where the usual way to ask the server is not open.

use strict;
use warnings FATAL => 'all';

use FindBin;
use lib "$FindBin::RealBin/fault";
use Fault;
use File::Spec::Functions qw(rel2abs);
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes ();

my $server = Fault->new('force');
plan skip_all => 'needs Linux and a C compiler' if !defined $server;

my $node = $server->{node};
my $rules = slurp_file($server->{hba});
append_to_file($server->{hba}, "host all all 127.0.0.1/32 trust\nhost all all ::1/128 trust\n");
$server->start;
$node->safe_psql('postgres', q{CREATE EXTENSION pg_replica_kit; CREATE ROLE regress_replica LOGIN REPLICATION PASSWORD 'secret'});
my $session = $server->connect;
my $state = $server->server_state($session) . $server->file_state;
my $port = $node->port;
my $replica = "host=127.0.0.1 port=$port user=regress_replica password=secret replication=1 connect_timeout=60";
my $provision = q{SELECT FROM replica_kit.provision('x', '127.0.0.1', role => 'regress_replica');};
my $clock = "$PostgreSQL::Test::Utils::tmp_check/wall_clock";
my $deprovision = q{SELECT FROM replica_kit.deprovision('x');};

# How a replica that connects now fares.
sub attempt
{
	my ($rc, $stdout, $stderr);

	IPC::Run::run([ 'psql', '-XAtq', '-d', $replica, '-c', 'IDENTIFY_SYSTEM' ], '>', \$stdout, '2>', \$stderr);
	return $stderr =~ /no pg_hba\.conf entry/ ? 'refused' : $stdout =~ /^\d+\|/ ? 'let in' : $stderr;
}

# Waits until the rule is in the file, whatever the server makes of it.
sub wait_for_rule
{
	for (1 .. 100 * $PostgreSQL::Test::Utils::timeout_default)
	{
		return if slurp_file($server->{hba}) =~ /pg_replica_kit: x$/m;
		Time::HiRes::usleep(10_000);
	}
	die 'no rule';
}

# By how many seconds the server's clock is ahead.
sub set_clock
{
	my ($seconds) = @_;
	open my $out, -e $clock ? '+<' : '>', $clock or die "could not open \"$clock\": $!";
	syswrite $out, pack('q', $seconds);
	close $out;
	return;
}

my %seen;
for my $flip (1 .. 60)
{
	$session->run($provision);
	$seen{'provisioned, ' . attempt()}++;
	$session->run($deprovision);
	$seen{'deprovisioned, ' . attempt()}++;
}
is_deeply(\%seen, { 'provisioned, let in' => 60, 'deprovisioned, refused' => 60 }, 'each of 120 connections right after COMMIT meets the new rule');

# A transaction undone, and one refused late, have not changed what is in force.
$session->run("BEGIN; $provision ROLLBACK;");
is(attempt(), 'refused', 'ROLLBACK lets nobody in');

# An error in postgresql.conf keeps the server from reading on in that file
# alone.
$node->append_conf('postgresql.conf', 'work_mem = nonsense');
is($session->run($provision) =~ /ERROR|WARNING/, '', 'with an error in postgresql.conf it works all the same');
is(attempt(), 'let in', 'the replica gets in');
$session->run($deprovision);
is(attempt(), 'refused', 'and not any more');
my $conf = slurp_file($node->data_dir . '/postgresql.conf') =~ s/^work_mem = nonsense\n//mr;
open my $out, '>', $node->data_dir . '/postgresql.conf' or die "could not open postgresql.conf: $!";
print $out $conf;
close $out;

# The socket's file has been removed: over TCP.
my $directory = $node->safe_psql('postgres', 'SHOW unix_socket_directories');
my $socket = "$directory/.s.PGSQL.$port";
rename $socket, "$socket.away" or die "could not rename \"$socket\": $!";
is($session->run($provision) =~ /ERROR|WARNING/, '', 'without the file of its socket the server is asked over TCP');
is(attempt(), 'let in', 'the replica gets in');
$session->run($deprovision);
rename "$socket.away", $socket or die "could not rename \"$socket.away\": $!";
is($server->server_state($session) . $server->file_state, $state, 'and all is as before');

# No Unix socket at all, and then nobody who answers.
$session->quit;
$node->stop;
$node->append_conf('postgresql.conf', "unix_socket_directories = ''\nlisten_addresses = '127.0.0.1'");
set_clock(0);
$server->start(wrap => [ 'env', "LD_PRELOAD=$server->{library}:" . rel2abs("$FindBin::RealBin/../test/wall_clock.so"), "PRK_WALL_CLOCK=$clock" ]);
$session = $server->connect(connstr => "host=127.0.0.1 port=$port dbname=postgres");
is($session->run($provision) =~ /ERROR|WARNING/, '', 'without a Unix socket the server is asked over TCP');
is(attempt(), 'let in', 'the replica gets in');
$session->run($deprovision);
is(attempt(), 'refused', 'and not any more');
is($server->server_state($session) . $server->file_state, $state, 'and all is as before');

# A server that is stopped can't prove anything: what waits for it can be
# cancelled, and the file is back.
my $postmaster = (split /\n/, slurp_file($node->data_dir . '/postmaster.pid'))[0];
my $other = $server->connect(connstr => "host=127.0.0.1 port=$port dbname=postgres");
kill 'STOP', $postmaster;
$session->send($provision);
wait_for_rule();
$other->run("SELECT pg_cancel_backend($session->{pid});");
# what the abort asks of the server is not waited for either
my $answer = $session->wait;
kill 'CONT', $postmaster;
$other->quit;
like($answer, qr/ERROR: .*canceling statement due to user request/, 'a server that does not answer makes the transaction fail');
is($server->server_state($session) . $server->file_state, $state, 'and all is as before');
is($server->beside, '', 'nothing is left beside the file');
is(attempt(), 'refused', 'and nobody is let in');

# It is waited for by a clock that nobody sets.
kill 'STOP', $postmaster;
$session->send($provision);
wait_for_rule();
set_clock(86400);
Time::HiRes::usleep(1_500_000);
kill 'CONT', $postmaster;
is($session->wait =~ /ERROR|WARNING/, '', 'a server that answers late is waited for, though the clock is set meanwhile');
$session->run($deprovision);

# ----------------------------------------------------------------------
# Wherever a transaction may end
# ----------------------------------------------------------------------

$answer = $session->run(<<~'SQL');
	CREATE PROCEDURE twice() LANGUAGE plpgsql AS $$
	BEGIN
		PERFORM replica_kit.provision('a', '127.0.0.1');
		COMMIT;
		PERFORM replica_kit.provision('b', '127.0.0.2');
		ROLLBACK;
		PERFORM replica_kit.provision('c', '127.0.0.3');
		COMMIT;
	END $$;
	CALL twice();
	SELECT string_agg(slot_name, ' ' ORDER BY slot_name) FROM pg_replication_slots;
	SQL
like($answer, qr/^a c$/m, 'a procedure with COMMIT and ROLLBACK inside');

# SPI_commit() catches the error of a COMMIT that fails, without what a session
# does after one.
$answer = $session->run(<<~'SQL');
	SELECT pg_create_physical_replication_slot('foreign') IS NOT NULL;
	CREATE PROCEDURE fails() LANGUAGE plpgsql AS $$
	BEGIN
		PERFORM replica_kit.provision('d', '127.0.0.4');
		PERFORM replica_kit.provision('e', '127.0.0.5');
		PERFORM pg_create_physical_replication_slot('e');
		COMMIT;
	END $$;
	CALL fails();
	SELECT string_agg(slot_name, ' ' ORDER BY slot_name) FROM pg_replication_slots;
	SELECT count(*) FROM pg_replication_slots WHERE active;
	SQL
like($answer, qr/ERROR: .*replication slot "e" already exists/, 'a slot made by somebody else meanwhile is not taken');
like($answer, qr/^a c e foreign\n0$/m, 'and none of ours is left or held');
unlike(slurp_file($server->{hba}), qr/pg_replica_kit: [bde]$/m, 'in the file neither');
$session->run(q{SELECT pg_drop_replication_slot('e'); SELECT pg_drop_replication_slot('foreign');});

$answer = $session->run(<<~'SQL');
	DO $$ BEGIN PERFORM replica_kit.provision('f', '127.0.0.6'); END $$;
	SELECT count(*) FROM pg_replication_slots WHERE slot_name = 'f';
	BEGIN; SELECT FROM replica_kit.deprovision('f'); PREPARE TRANSACTION 'p';
	SELECT count(*) FROM pg_replication_slots WHERE slot_name = 'f';
	BEGIN; SELECT FROM replica_kit.provision('g', '127.0.0.7'); PREPARE TRANSACTION 'p';
	BEGIN; SELECT FROM replica_kit.rotate_password('f'); PREPARE TRANSACTION 'p';
	BEGIN; SELECT FROM replica_kit.revoke_address('f', '127.0.0.6'); PREPARE TRANSACTION 'p';
	SQL
is(() = $answer =~ /ERROR: .*cannot PREPARE a transaction/g, 4, 'PREPARE TRANSACTION is refused');
like($answer, qr/^1\n(?:.*\n)*1$/m, 'and changes nothing');
$session->run("SELECT FROM replica_kit.deprovision('$_');") for qw(a c f);
$session->run('DROP PROCEDURE twice, fails;');
is($server->server_state($session) . $server->file_state, $state, 'in the end all is as before');
unlike(slurp_file($node->logfile), qr/PANIC|terminated by signal/, 'no process has crashed');

$session->quit;
$node->stop;
done_testing();
