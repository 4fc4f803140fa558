# As t/601_crashes_of_provision.pl: a backend, or the whole server, is killed at each step
# of revoke_address() and rotate_password(), and of deprovision(force => true)
# while a replica reconnects as soon as it can.

use strict;
use warnings FATAL => 'all';

use FindBin;
use lib "$FindBin::RealBin/fault";
use Fault;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use POSIX ();
use Test::More;
use Time::HiRes ();

my $server = Fault->new('crashes');
plan skip_all => 'needs Linux and a C compiler' if !defined $server;

my $node = $server->{node};
$node->append_conf('postgresql.conf', 'restart_after_crash = on');
# a broad rule, by which the replica would always get in
append_to_file($server->{hba}, "host replication all 127.0.0.1/32 trust\n");
$server->start;
$node->safe_psql('postgres', 'CREATE EXTENSION pg_replica_kit');
my $session = $server->connect;

# Passwords of whose secrets the beginning tells which one it is.
my %secret = map {
	$_ => "SCRAM-SHA-256\$4096:${_}c2FsdHNhbHRzYWx0cw==\$" . ('A' x 43) . '=:' . ('B' x 43) . '='
} qw(b25l dHdv);

# Whether somebody is connected is not the kit's doing.
sub state_now
{
	return $server->server_state($session) =~ s/ active//gr .
	  $session->run(q{SELECT 'secret ' || substr(rolpassword, 20, 4) FROM pg_authid WHERE rolpassword LIKE '%:____c2FsdHNhbHRzYWx0cw==$%';}) .
	  $server->file_state;
}

my $provision = qq{SELECT FROM replica_kit.provision('x', '127.0.0.1', password => '$secret{b25l}');};
my $deprovision = q{SELECT FROM replica_kit.deprovision('x', force => true);};
my %operations = (
	revoke_address => {
		before => "$provision SELECT FROM replica_kit.provision('x', '127.0.0.2');",
		sql => q{SELECT replica_kit.revoke_address('x', '127.0.0.2');},
	},
	# what it does to pg_hba.conf is to look
	rotate_password => {
		before => $provision,
		sql => qq{SELECT replica_kit.rotate_password('x', '$secret{dHdv}');},
		all_calls => 1,
	},
	'deprovision(force)' => {
		before => q{SELECT FROM replica_kit.provision('x', '127.0.0.1', password => 'secret');},
		connected => 1,
		sql => $deprovision,
	});
my $nothing = state_now();

# A replica that tries again at once, for as long as a file is there.
my $receiving = PostgreSQL::Test::Utils::tempdir . '/receiving';
my $receiver;

sub start_receiver
{
	local $ENV{PGPASSWORD} = 'secret';
	my $connstr = $node->connstr('') =~ s/host=\S+/host=127.0.0.1/r . ' user=x';

	mkdir $receiving or die "could not make \"$receiving\": $!";
	$receiver = fork // die "could not fork: $!";
	return if $receiver != 0;
	# nor keep the pipes of the sessions open
	POSIX::close($_) for 3 .. 255;
	open STDOUT, '>', '/dev/null';
	open STDERR, '>', '/dev/null';
	while (-e $receiving)
	{
		system('pg_receivewal', '--no-loop', '-D', $receiving, '-S', 'x', '-d', $connstr);
		Time::HiRes::usleep(20_000);
	}
	POSIX::_exit(0);
}

sub stop_receiver
{
	rename $receiving, "$receiving.done" or die "could not rename \"$receiving\": $!";
	$session->run(q{SELECT pg_terminate_backend(pid) FROM pg_stat_replication;});
	waitpid $receiver, 0;
	return;
}

# Up to the call that is to be cut off.
sub prepare
{
	my ($operation) = @_;

	$session->run($operation->{before});
	return if !$operation->{connected};
	$node->poll_query_until('postgres', q{SELECT active FROM pg_replication_slots WHERE slot_name = 'x'})
	  or die 'the replica does not connect';
	return;
}

my %left;
my $number = 0;

# As in t/601_crashes_of_provision.pl: what is wrong, if anything.
sub crash_and_mend
{
	my ($name, $action, $call) = @_;
	my $operation = $operations{$name};
	my $what = "$action at call $call of $name ($operation->{calls}[ $call - 1 ])";
	my @wrong;

	$session = $server->connect;
	prepare($operation);
	my $log = -s $node->logfile;
	$server->arm($session->{pid}, $action, $call);
	$session->run($operation->{sql});
	my (undef, $hits) = $server->report;
	$server->disarm;
	$session->quit;
	die "$what: nothing happened" if !$hits;

	$node->wait_for_log(qr/reinitializing/, $log) if $action !~ /^crash/;
	my $running = $action =~ /^crash/ ? $server->restart_crashed : $server->wait_until_up;
	die "$what: the server does not start" if !$running;

	$session = $server->connect;
	my $state = state_now();
	my ($role) = $state =~ /^role (x\b.*)$/m;
	my ($slot) = $state =~ /^slot (x\b.*)$/m;
	my ($line) = $state =~ /^(host .* # pg_replica_kit: x)$/m;
	my $left = join ', ', ($role ? 'role' : ()), ($slot ? 'slot' : ()), ($line ? 'line' : ());
	my $which = $state eq $operation->{from} ? 'as before' : $state eq $operation->{to} ? 'done' : $left;

	$left{$name}{$which}++;
	push @wrong, 'pg_hba.conf has an error'
	  if $session->run('SELECT count(*) FROM pg_hba_file_rules WHERE error IS NOT NULL;') !~ /^0$/m;
	push @wrong, 'pg_hba.conf is neither the old nor the new file'
	  if !grep { /\Q${\ $server->file_state}\E\z/ } @$operation{qw(from to)};

	# Before its commit record all is as before, but for a line that has gone:
	# that is of an address which was not to be let in any more.
	push @wrong, "role or slot are neither as before nor as after: $state"
	  if $name ne 'deprovision(force)' && !grep { $state =~ s/(?:secret .*\n)?\d+ \d+ \d+ .*//sr eq s/(?:secret .*\n)?\d+ \d+ \d+ .*//sr } @$operation{qw(from to)};
	push @wrong, "there is: $left" if $slot && !$role && !$line;

	# Once more, or the other way round and back.
	if ($number++ % 2)
	{
		prepare($operation);
		push @wrong, 'what was before does not mend it: ' . state_now()
		  if state_now() ne $operation->{from} && $name ne 'rotate_password';
	}
	$session->run($operation->{sql});
	push @wrong, 'once more does not mend it: ' . state_now() if state_now() ne $operation->{to};
	$session->run($deprovision);
	push @wrong, 'deprovision() leaves: ' . state_now() if state_now() ne $nothing;
	push @wrong, 'left: ' . $server->beside if $server->beside ne '';
	$session->quit;
	return @wrong ? "$what: " . join('; ', @wrong) . "\n" : ();
}

for my $name (sort keys %operations)
{
	my $operation = $operations{$name};

	start_receiver() if $operation->{connected};
	# twice, for the caches
	for (1, 2)
	{
		prepare($operation);
		$operation->{from} = state_now();
		$server->arm($session->{pid}, 'count', 0);
		my $answer = $session->run($operation->{sql});
		$server->disarm;
		unlike($answer, qr/ERROR|WARNING/, "$name works");
		(undef, undef, @{ $operation->{calls} }) = $server->report;
		$operation->{to} = state_now();
		$session->run($deprovision);
		is(state_now(), $nothing, 'and leaves nothing in the end');
	}
	$session->quit;
	note "$name:\n", map { "$_\n" } @{ $operation->{calls} };

	for my $action (qw(kill_before crash_before))
	{
		my $last = @{ $operation->{calls} };
		my @wrong;

		for my $call (1 .. $last)
		{
			push @wrong, crash_and_mend($name, $action, $call)
			  if $operation->{all_calls} || Fault::is_writing($operation->{calls}[ $call - 1 ]);
		}
		push @wrong, crash_and_mend($name, $action =~ s/before/after/r, $last);
		is(join('', @wrong), '', "$name: $action at each call leaves what can be mended");
	}
	note map { "$name left $_: $left{$name}{$_} times\n" } sort keys %{ $left{$name} };
	$session = $server->connect;
	stop_receiver() if $operation->{connected};
}

# Something of each kind must have been seen, or the calls were the wrong ones.
ok($left{revoke_address}{$_}, "a killed revoke_address left all $_") for 'as before', 'done';
ok($left{rotate_password}{$_}, "a killed rotate_password left all $_") for 'as before';
ok($left{'deprovision(force)'}{$_}, "a killed deprovision(force) left: $_") for 'as before', 'slot, line', 'line', 'done';

$session->quit;
$node->stop;
done_testing();
