# A backend, or the whole server, is killed at each step of provision() and
# deprovision(): after the restart pg_hba.conf is whole, no provisioned slot is
# without its role, and the next provision() or deprovision() of that name
# mends what is left.

use strict;
use warnings FATAL => 'all';

use FindBin;
use lib "$FindBin::RealBin/fault";
use Fault;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $server = Fault->new('crashes');
plan skip_all => 'needs Linux and a C compiler' if !defined $server;

my $node = $server->{node};
$node->append_conf('postgresql.conf', 'restart_after_crash = on');
$server->start;
$node->safe_psql('postgres', 'CREATE EXTENSION pg_replica_kit');

my $provision = q{SELECT FROM replica_kit.provision('x', '127.0.0.1');};
my $deprovision = q{SELECT FROM replica_kit.deprovision('x');};
my $session = $server->connect;

sub state_now
{
	return $server->server_state($session) . $server->file_state;
}

my $nothing = state_now();
my %calls;
for ([ provision => $provision ], [ deprovision => $deprovision ], [ provision => $provision ], [ deprovision => $deprovision ])
{
	my ($name, $sql) = @$_;

	# each twice, for the caches to be as later on
	$server->arm($session->{pid}, 'count', 0);
	$session->run($sql);
	$server->disarm;
	(undef, undef, @{ $calls{$name} }) = $server->report;
	$calls{"after $name"} = state_now();
}
my $provisioned = $calls{'after provision'};
is($calls{'after deprovision'}, $nothing, 'a replica comes and goes without a trace');

# What is left, and how often.
my %left;
my $number = 0;

# What is wrong after that, if anything.  Dies when there is no server to go on
# with, or when no call was hit: all that follows would only say it again.
sub crash_and_mend
{
	my ($name, $sql, $action, $call, %options) = @_;
	my @wrong;
	my $what = "$action at call $call of $name (" . ($calls{$name}[ $call - 1 ]) . ')';

	$session = $server->connect;
	$session->run($provision) if $name eq 'deprovision';
	my $log = -s $node->logfile;
	$server->arm($session->{pid}, $action, $call, %options);
	$session->run($sql);
	my (undef, $hits) = $server->report;
	$server->disarm;
	$session->quit;
	die "$what: nothing happened" if !$hits;

	# The postmaster may not have noticed yet that it has lost a child.
	$node->wait_for_log(qr/reinitializing/, $log) if $action !~ /^crash/;
	my $running = $action =~ /^crash/ ? $server->restart_crashed : $server->wait_until_up;
	die "$what: the server does not start" if !$running;

	$session = $server->connect;
	my $state = state_now();
	my ($role) = $state =~ /^role (x\b.*)$/m;
	my ($slot) = $state =~ /^slot (x\b.*)$/m;
	my ($line) = $state =~ /^(host .* # pg_replica_kit: x)$/m;
	my $left = join ', ', ($role ? 'role' : ()), ($slot ? 'slot' : ()), ($line ? 'line' : ());

	$left{$name}{ $left || 'nothing' }++;
	push @wrong, 'pg_hba.conf has an error'
	  if $session->run('SELECT count(*) FROM pg_hba_file_rules WHERE error IS NOT NULL;') !~ /^0$/m;
	push @wrong, 'pg_hba.conf is neither the old nor the new file'
	  if !grep { /\Q${\ $server->file_state}\E\z/ } $nothing, $provisioned;
	push @wrong, "there is: $left" if $slot && !$role && !($name eq 'deprovision' && $line);
	push @wrong, "the slot is $slot" if $slot && $slot ne 'x physical reserved';

	# The one and the other way to mend it.
	if ($number++ % 2)
	{
		$session->run($provision);
		push @wrong, 'provision() does not mend it: ' . state_now() if state_now() ne $provisioned;
	}
	$session->run($deprovision);
	push @wrong, 'deprovision() does not mend it: ' . state_now() if state_now() ne $nothing;
	push @wrong, 'left: ' . $server->beside if $server->beside ne '';
	$session->quit;
	return @wrong ? "$what: " . join('; ', @wrong) . "\n" : ();
}

$session->quit;
for ([ 'provision', $provision ], [ 'deprovision', $deprovision ])
{
	my ($name, $sql) = @$_;
	my $last = @{ $calls{$name} };

	for my $action (qw(kill_before crash_before))
	{
		my @wrong;

		for my $call (1 .. $last)
		{
			# Between these nothing changes on disk.
			push @wrong, crash_and_mend($name, $sql, $action, $call)
			  if Fault::is_writing($calls{$name}[ $call - 1 ]);
		}
		push @wrong, crash_and_mend($name, $sql, $action =~ s/before/after/r, $last);
		is(join('', @wrong), '', "$name: $action at each call leaves what can be mended");
	}

	# PostgreSQL's own answer to an fsync() that fails is a PANIC.
	my @wrong;
	my $panics = 0;
	for my $call (1 .. $last)
	{
		next if !Fault::is_panic_by_policy($calls{$name}[ $call - 1 ]) || $calls{$name}[ $call - 1 ] !~ /^fsync/;
		push @wrong, crash_and_mend($name, $sql, 'fail', $call, error => 'EIO');
		$panics++;
	}
	is(join('', @wrong), '', "$name: the server's own PANIC leaves what can be mended");
	cmp_ok($panics, '>=', 2, 'there are such calls');
	note map { "$name left $_: $left{$name}{$_} times\n" } sort keys %{ $left{$name} };
}

# Something of each kind must have been seen, or the calls were the wrong ones.
ok($left{provision}{$_}, "a killed provision left: $_") for 'nothing', 'line', 'role, slot, line', 'role, line';
ok($left{deprovision}{$_}, "a killed deprovision left: $_") for 'nothing', 'line', 'slot, line', 'role, slot, line';

# ----------------------------------------------------------------------
# What was committed asynchronously
# ----------------------------------------------------------------------

my @wrong;
for my $try (1 .. 20)
{
	$node->psql('postgres', qq{SET synchronous_commit = off; $provision});
	$node->stop('immediate');
	$server->start;
	$session = $server->connect;
	push @wrong, "$try: " . state_now() if state_now() ne $provisioned;
	$session->run($deprovision);
	$session->quit;
}
is(join('', @wrong), '', 'a crash right after COMMIT loses nothing, also with synchronous_commit = off');

# ----------------------------------------------------------------------
# The only synchronous standby is the one that is provisioned
# ----------------------------------------------------------------------

$node->safe_psql('postgres', q{ALTER SYSTEM SET synchronous_standby_names = 'x'});
$node->reload;
$node->poll_query_until('postgres', q{SELECT setting = 'x' FROM pg_settings WHERE name = 'synchronous_standby_names'})
  or die 'could not set synchronous_standby_names';
$session = $server->connect;
my $answer = $session->run("SET statement_timeout = '60s'; $provision");
like($answer, qr/NOTICE: .*does not wait for synchronous standbys/, 'COMMIT does not wait for the standby that it provisions');
unlike($answer, qr/ERROR|WARNING/, 'and ends by itself');
is(state_now(), $provisioned, 'with everything there');
$session->run($deprovision);
is(state_now(), $nothing, 'nor does deprovision');

$session->quit;
$node->stop;
done_testing();
