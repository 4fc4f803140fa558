# No wait of the kit's holds a session that is asked to cancel or to end: before
# the commit record it aborts cleanly, after it what is left is said with the
# statement that completes it.

use strict;
use warnings FATAL => 'all';

use FindBin;
use lib "$FindBin::RealBin/fault";
use Fault;
use IPC::Run;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes ();

my $server = Fault->new('interrupts');
plan skip_all => 'needs Linux and a C compiler' if !defined $server;

my $node = $server->{node};
my $hba = $server->{hba};
append_to_file($hba, "local replication all trust\n");
$server->start;
$node->safe_psql('postgres', 'CREATE EXTENSION pg_replica_kit');
my ($postmaster) = slurp_file($node->data_dir . '/postmaster.pid') =~ /^(\d+)/;
my @stopped;

# A process that is not continued would stay for ever.
END { kill 'CONT', @stopped if @stopped; }

# What a wait takes that nobody ends: RELOAD_TIMEOUT_MS, HOLD_TIMEOUT_MS.  A
# session that is asked has to answer far earlier.
my $uninterrupted = 30;

sub stop_process
{
	my ($pid) = @_;

	push @stopped, $pid;
	kill 'STOP', $pid;
	wait_for(sub { slurp_file("/proc/$pid/stat") =~ /\) T/ }, "process $pid stops");
	return;
}

sub continue_all
{
	kill 'CONT', @stopped;
	@stopped = ();
	return;
}

sub wait_for
{
	my ($condition, $what) = @_;

	my $deadline = Time::HiRes::time() + $PostgreSQL::Test::Utils::timeout_default;

	while (Time::HiRes::time() < $deadline)
	{
		return 1 if $condition->();
		Time::HiRes::usleep(10_000);
	}
	die "waited in vain: $what";
}

my $observer = $server->connect;

sub state_now
{
	return $server->server_state($observer) . $server->file_state . $server->beside;
}

# Run the statement until $condition, then ask the session to stop by
# $function.  Its answer, and whether it came before the wait was over.
sub interrupt
{
	my ($session, $sql, $condition, $function) = @_;
	my $begin = Time::HiRes::time();

	$session->send($sql);
	wait_for($condition, $sql);
	$observer->run("SELECT $function($session->{pid});");
	my $answer = $session->wait;
	my $took = Time::HiRes::time() - $begin;
	note "after $took s:\n$answer";
	cmp_ok($took, '<', $uninterrupted - 5, 'the session does not wait for the server');
	return $answer;
}

my $provision = q{SET client_min_messages = 'warning'; SELECT FROM replica_kit.provision('x', '127.0.0.1');};
my $deprovision = q{SELECT FROM replica_kit.deprovision('x');};
my $has_line = sub { slurp_file($hba) =~ /pg_replica_kit: x$/m };
my $has_none = sub { slurp_file($hba) !~ /pg_replica_kit: x$/m };
my $nothing = state_now();

# ----------------------------------------------------------------------
# After the commit record
# ----------------------------------------------------------------------

for my $function (qw(pg_cancel_backend pg_terminate_backend))
{
	my $session = $server->connect;
	my $log = -s $node->logfile;

	$session->run($provision);
	stop_process($postmaster);
	my $answer = interrupt($session, $deprovision, $has_none, $function);
	my $log_text = slurp_file($node->logfile, $log);
	my $told = $function eq 'pg_cancel_backend' ? $answer : $log_text;

	like($told, qr/WARNING:  (?:\w+: )?the server may still use the old pg_hba\.conf: its reload could not be verified\n(?:.*DETAIL:  The wait for its answer was canceled\.\n).*HINT:  Run: SELECT pg_reload_conf\(\);/,
		"deprovision(), a silent postmaster, $function(): what is left is said");
	unlike($answer, qr/ERROR/, 'what is committed is not reported as an error');
	is(state_now(), $nothing, 'role, slot and line are gone');
	is($session->run(q{SELECT 'goes on';}) =~ /^goes on$/m, $function eq 'pg_cancel_backend', 'the session goes on unless it was told to end');
	continue_all();
	$observer->run('SELECT pg_reload_conf();');
	$session->quit;
}

# Somebody has the old file open, and may write to it: the lines stay.
{
	my $session = $server->connect;

	$session->run($provision);
	my $before = slurp_file($hba);
	my $inode = (stat $hba)[1];
	open my $writer, '>>', $hba or die "could not open \"$hba\": $!";
	my $answer = interrupt($session, $deprovision, sub { (stat $hba)[1] != $inode || slurp_file($node->logfile) =~ /still has lines/ },
		'pg_cancel_backend');
	like($answer, qr/WARNING:  (?:\w+: )?pg_hba\.conf still has lines of the replica: canceled by request\n.*HINT:  Run: SELECT \* FROM replica_kit\.deprovision\('x'\);/,
		'deprovision(), a writer that does not close the file: what is left is said');
	unlike($answer, qr/ERROR/, 'what is committed is not reported as an error');
	is(slurp_file($hba), $before, 'the file is back');
	is((stat $hba)[1], $inode, 'it is the one that is open');
	close $writer;
	is($session->run($deprovision) =~ /ERROR|WARNING/, '', 'what it says completes the work');
	is(state_now(), $nothing, 'nothing is left');
	$session->quit;
}

# ----------------------------------------------------------------------
# Before it
# ----------------------------------------------------------------------

for my $function (qw(pg_cancel_backend pg_terminate_backend))
{
	my $session = $server->connect;

	stop_process($postmaster);
	my $answer = interrupt($session, $provision, $has_line, $function);
	like($answer, qr/(?:ERROR|FATAL): .*(?:canceling statement|terminating connection)/,
		"provision(), a silent postmaster, $function(): the transaction fails");
	like(slurp_file($node->logfile), qr/WARNING:  the server may still use the old pg_hba\.conf: its reload could not be verified/,
		'that the file which was put back may not be loaded is said');
	is(state_now(), $nothing, 'all is as before');
	continue_all();
	$session->quit;

	# Lines are removed before the commit record by revoke_address().
	$session = $server->connect;
	$session->run($provision);
	my $provisioned = state_now();
	stop_process($postmaster);
	$answer = interrupt($session, q{SELECT replica_kit.revoke_address('x', '127.0.0.1');}, $has_none, $function);
	like($answer, qr/(?:ERROR|FATAL): .*(?:canceling statement|terminating connection)/, 'revoke_address(): the transaction fails');
	is(state_now(), $provisioned, 'all is as before');
	continue_all();

	# The kit's lock.
	my $holder = $server->connect;
	$holder->run(q{BEGIN; SELECT FROM replica_kit.deprovision('x');});
	$session = $server->connect if $session->{ended};
	$answer = interrupt($session, $deprovision,
		sub { $observer->run("SELECT 'waits ' || count(*) FROM pg_locks WHERE pid = $session->{pid} AND NOT granted;") =~ /waits [1-9]/ },
		$function);
	like($answer, qr/(?:ERROR|FATAL): .*(?:canceling statement|terminating connection)/, 'another session that sets up the same replica: the transaction fails');
	$holder->run('ROLLBACK;');
	$holder->quit;
	is(state_now(), $provisioned, 'all is as before');

	# A walsender that does not end.
	my $replica = IPC::Run::start(
		[ 'pg_receivewal', '-S', 'x', '-D', PostgreSQL::Test::Utils::tempdir, '-d', $node->connstr('postgres') ],
		'<', \undef, '>', \my $out, '2>', \my $err);
	my $walsender;
	wait_for(sub { ($walsender) = $observer->run(q{SELECT 'by ' || active_pid FROM pg_replication_slots WHERE active;}) =~ /^by (\d+)$/m }, 'the replica connects');
	stop_process($walsender);
	$provisioned = state_now();
	$session = $server->connect if $session->{ended};
	$answer = interrupt($session, q{SELECT FROM replica_kit.deprovision('x', force => true);},
		sub { slurp_file("/proc/$walsender/status") =~ /^ShdPnd:\s+0*[1-9a-f]/m }, $function);
	like($answer, qr/(?:ERROR|FATAL): .*(?:canceling statement|terminating connection)/, 'a walsender that does not end: the transaction fails');
	is(state_now(), $provisioned, 'all is as before');
	continue_all();
	$replica->kill_kill;
	wait_for(sub { $observer->run(q{SELECT 'active' FROM pg_replication_slots WHERE active;}) eq '' }, 'the replica is gone');
	$session = $server->connect if $session->{ended};
	$session->run($deprovision);
	is(state_now(), $nothing, 'nothing is left');
	$session->quit;
}

# A session that is ended, and can't put the file back: what it held is free,
# and what it could not do is said.
{
	my $session = $server->connect;

	stop_process($postmaster);
	$session->send($provision);
	wait_for($has_line, 'the file is exchanged');
	chmod 0555, $server->{folder};
	$observer->run("SELECT pg_terminate_backend($session->{pid});");
	$session->wait;
	chmod 0755, $server->{folder};
	continue_all();
	$session->quit;
	like(slurp_file($node->logfile), qr!WARNING:  pg_hba\.conf could not be put back: .*\n(?:.*DETAIL: .*\n)?.*HINT:  Run: SELECT replica_kit\.revoke_address\('x', '127\.0\.0\.1/32'\);!,
		'a terminated session that can not put the file back says what is left');
	$session = $server->connect;
	is($session->run(q{SELECT replica_kit.revoke_address('x', '127.0.0.1');}), "1\n", 'what it says completes the work');
	is($session->run($provision . $deprovision), '', 'no lock is left');
	is(state_now(), $nothing, 'and nothing else');
	$session->quit;
}

unlike(slurp_file($node->logfile), qr/PANIC|terminated by signal/, 'no process has crashed');
$observer->quit;
$node->stop;
done_testing();
