# Every system call of provision(), deprovision(), revoke_address() and
# rotate_password() that concerns pg_hba.conf or a slot fails once, in every way: the transaction
# fails and nothing has happened, or it has committed and a WARNING names the
# statement that completes it.  The server never ends, the session goes on.

use strict;
use warnings FATAL => 'all';

use FindBin;
use lib "$FindBin::RealBin/fault";
use Fault;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

# The name of the folder has a letter that not every client's encoding has.
my $server = Fault->new('faults', folder => "pg_hba.conf.\xd0\xb6");
plan skip_all => 'needs Linux and a C compiler' if !defined $server;

my $node = $server->{node};
$server->start;
$node->safe_psql('postgres', 'CREATE EXTENSION pg_replica_kit; CREATE TABLE skew (i integer)');

my $observer = $server->connect;
my $session = $server->connect;
my $started = $observer->run('SELECT pg_postmaster_start_time();');

# Secrets by their salts, for passwords that are made are all different.
sub scram
{
	my ($salt) = @_;

	return "SCRAM-SHA-256\$4096:${salt}c2FsdHNhbHRzYWx0cw==\$" . ('A' x 43) . '=:' . ('B' x 43) . '=';
}

sub state_now
{
	return $server->server_state($observer) .
	  $observer->run(q{SELECT 'secret ' || substr(rolpassword, 20, 4) FROM pg_authid WHERE rolpassword LIKE '%:____c2FsdHNhbHRzYWx0cw==$%' ORDER BY 1;}) .
	  $server->file_state;
}

my $nothing = state_now();

# What fails, from which state to which.  A revoked address and a replica that
# goes are different ways through the code, as is what a ROLLBACK undoes.
my @operations = (
	{
		name => 'provision',
		adds => 1,
		covered => 1,
		sql => q{SELECT FROM replica_kit.provision('x', '127.0.0.1');},
	},
	{
		name => 'a second address',
		adds => 1,
		for_each_error => 1,
		before => q{SELECT FROM replica_kit.provision('x', '127.0.0.1');},
		sql => q{SELECT FROM replica_kit.provision('x', '127.0.0.2');},
	},
	{
		name => 'rotate_password',
		for_each_error => 1,
		reads_only => 1,
		before => q{SELECT FROM replica_kit.provision('x', '127.0.0.1', password => '} . scram('b25l') . q{');},
		sql => q{SELECT replica_kit.rotate_password('x', '} . scram('dHdv') . q{');},
	},
	{
		name => 'revoke_address',
		for_each_error => 1,
		before => q{SELECT FROM replica_kit.provision('x', '127.0.0.1');
			SELECT FROM replica_kit.provision('x', '127.0.0.2');},
		sql => q{SELECT replica_kit.revoke_address('x', '127.0.0.2');},
	},
	{
		name => 'deprovision',
		covered => 1,
		before => q{SELECT FROM replica_kit.provision('x', '127.0.0.1');
			SELECT FROM replica_kit.provision('x', '127.0.0.2');},
		sql => q{SELECT FROM replica_kit.deprovision('x');},
	},
	{
		name => 'deprovision without managed lines',
		before => q{SELECT FROM replica_kit.provision('x', '127.0.0.1', manage_hba => false);},
		sql => q{SELECT FROM replica_kit.deprovision('x');},
	},
	{
		name => 'one replica comes and one goes',
		adds => 1,
		for_each_error => 1,
		before => q{SELECT FROM replica_kit.provision('y', '127.0.0.2');},
		prepare => q{BEGIN; SELECT FROM replica_kit.provision('x', '127.0.0.1'); SELECT FROM replica_kit.deprovision('y');},
		sql => q{COMMIT;},
	},
	{
		name => 'a COMMIT that fails late',
		before => q{SELECT FROM replica_kit.provision('y', '127.0.0.2');},
		prepare => q{BEGIN ISOLATION LEVEL SERIALIZABLE; SELECT FROM replica_kit.provision('x', '127.0.0.1');
			SELECT FROM replica_kit.deprovision('y');},
		conflict => 1,
		sql => q{COMMIT;},
	});

sub clear
{
	$session->run(q{SELECT FROM replica_kit.deprovision('x'); SELECT FROM replica_kit.deprovision('y');});
	return;
}

# Up to the statement that is to fail.  With a conflict, COMMIT raises an error
# after the kit has done all it does before one: another transaction has
# committed first what makes the two not serializable.
sub prepare
{
	my ($operation) = @_;

	$session->run($operation->{before} // '');
	$operation->{from} //= state_now();
	$session->run($operation->{prepare} // '');
	if ($operation->{conflict})
	{
		$session->run('SELECT sum(i) FROM skew; INSERT INTO skew VALUES (1);');
		$observer->run('BEGIN ISOLATION LEVEL SERIALIZABLE; SELECT sum(i) FROM skew; INSERT INTO skew VALUES (2); COMMIT;');
	}
	return;
}

# What the statement does, and by which calls, when nothing fails.
for my $operation (@operations)
{
	# once before, since a session looks roles and slots up in caches
	for my $pass (1, 2)
	{
		prepare($operation);
		$server->arm($session->{pid}, 'count', 0);
		my $answer = $session->run($operation->{sql});
		$server->disarm;
		$operation->{to} = state_now();
		if ($pass == 1)
		{
			clear();
			next;
		}
		if ($operation->{conflict})
		{
			like($answer, qr/^ERROR:  40001/m, "$operation->{name}");
			is($operation->{to}, $operation->{from}, "$operation->{name} has changed nothing");
		}
		else
		{
			unlike($answer, qr/ERROR|WARNING/, "$operation->{name} works");
			isnt($operation->{to}, $operation->{from}, "$operation->{name} changes something");
		}
	}
	$operation->{calls} = [ ($server->report)[ 2 .. ($server->report)[0] + 1 ] ];
	note "$operation->{name}:\n", map { "$_\n" } @{ $operation->{calls} };
	is($server->beside, '', "$operation->{name} leaves nothing beside pg_hba.conf");
	clear();
	is(state_now(), $nothing, "$operation->{name} can be undone");
}

my %cases;

# One failure: empty if all is as it should be, else what is not.
sub try
{
	my ($operation, $call, $error, %options) = @_;
	my @wrong;

	prepare($operation);
	$server->arm($session->{pid}, 'fail', $call, error => $error, %options);
	my $answer = $session->run($operation->{sql});
	$server->disarm;
	my (undef, $hits) = $server->report;
	my $state = state_now();
	my $failed = $answer =~ /^ERROR: /m;
	my $wanted = $operation->{ $failed ? 'from' : 'to' };

	$cases{$error}++ if $hits;
	push @wrong, 'no such call' if !$hits;
	if ($state ne $wanted || $server->beside ne '')
	{
		push @wrong, ($failed ? 'an error, but not all is as before' : 'not completed') . ', and no warning'
		  if $answer !~ /^WARNING: /m;
		$session->run($_) for $answer =~ /^HINT:  Run: (.*)$/mg;
		push @wrong, 'not completed by what the warning says' if state_now() ne $wanted;
	}
	# what to do without the file, where it can be read
	push @wrong, 'the error does not say which line to add by hand'
	  if $failed && $operation->{adds} && !is_reading($operation->{calls}[ $call - 1 ]) && $operation->{calls}[ $call - 1 ] =~ m!/pg_hba\.conf(?:\.pg_replica_kit\S*)?$! &&
	  $answer !~ /manage_hba => false: host replication x 127\.0\.0\.\d/;
	push @wrong, 'the session is gone' if $session->{ended};

	# "due to user request" when the timer has run out before the statement was
	# even parsed: the server arms it twice, and forgets why it was cancelled
	my $cancelled = $session->run(q{BEGIN; SET LOCAL statement_timeout = '5ms'; SELECT pg_sleep(60); ROLLBACK;});
	push @wrong, "the session cannot be cancelled: $cancelled" if $cancelled !~ /canceling statement due to/;
	if ($session->{ended})
	{
		$session->quit;
		$session = $server->connect;
	}
	clear();
	push @wrong, 'cannot be mended' if state_now() ne $nothing || $server->beside ne '';
	return () if !@wrong;

	return "$error at call $call ($operation->{calls}[ $call - 1 ]): " . join('; ', @wrong) . "\n$answer";
}

# To open and read what is there fails in the same way each time.
sub is_reading
{
	my ($call) = @_;

	return $call =~ m!^(?:fopen|fstat|read|close|open) \S*/pg_hba\.conf$!;
}

# Every failure at every call of everything would take minutes and show no more.
for my $error (qw(ENOSPC EIO EACCES EMFILE EROFS ENOENT))
{
	for my $operation (@operations)
	{
		my @wrong;

		# one that comes and one that goes are tried together below
		next if $error ne 'ENOSPC' && $operation->{covered};
		next if $error !~ /^(?:ENOSPC|EIO|ENOENT)$/ && !$operation->{for_each_error};
		for my $call (1 .. @{ $operation->{calls} })
		{
			my $name = $operation->{calls}[ $call - 1 ];

			# t/601_crashes_of_provision.pl has these
			next if Fault::is_panic_by_policy($name);
			next if is_reading($name) && $error ne 'EMFILE' && !$operation->{reads_only};
			# a file that is there and isn't
			next if $error eq 'ENOENT' && $name =~ /^(?:unlink|fsync|fstat|fchmod|write|close) /;
			push @wrong, try($operation, $call, $error);
		}
		is(join('', @wrong), '', "$operation->{name} survives $error at each call");
	}
}

for my $error (qw(ENOSPC EIO EACCES EMFILE EROFS ENOENT))
{
	cmp_ok($cases{$error}, '>=', 50, "at least 50 failures were $error");
}
note map { "$_: $cases{$_} failures\n" } sort keys %cases;

# A WARNING that can't be sent to the client, after the commit record.
$node->safe_psql('postgres', q{CREATE DATABASE regress_utf8 ENCODING 'UTF8' LOCALE 'C' TEMPLATE template0});
$node->safe_psql('regress_utf8', 'CREATE EXTENSION pg_replica_kit');
{
	my $latin = $server->connect(connstr => $node->connstr('regress_utf8'));
	my ($operation) = grep { $_->{name} eq 'deprovision' } @operations;

	$latin->run($operation->{before} . q{SET client_encoding = 'LATIN1';});
	# the first call after the drop of the slot
	$server->arm($latin->{pid}, 'count', 0);
	$latin->run($operation->{sql});
	my (undef, undef, @calls) = $server->report;
	my ($call) = grep { $calls[ $_ - 1 ] =~ /^rmdir / } 1 .. @calls;
	($call) = grep { $_ > $call && $calls[ $_ - 1 ] =~ /^open .*pg_replica_kit$/ } 1 .. @calls;

	$latin->run(q{RESET client_encoding;} . $operation->{before} . q{SET client_encoding = 'LATIN1';});
	$server->arm($latin->{pid}, 'fail', $call, error => 'EACCES');
	$latin->run($operation->{sql});
	$server->disarm;
	is(($server->report)[1], 1, 'a call after the commit record fails');
	like($latin->run('SELECT 1;'), qr/^1$/m, 'a warning that the client cannot be sent does no harm');
	like(slurp_file($node->logfile), qr/LOG:  pg_hba\.conf still has lines of the replica\n.*DETAIL:  Run: SELECT \* FROM replica_kit\.deprovision\('x'\);/,
		'and is in the log');
	$latin->quit;
	clear();
	is(state_now(), $nothing, 'what it says completes the work');
}

is($observer->run('SELECT pg_postmaster_start_time();'), $started, 'the server has not restarted');
unlike(slurp_file($node->logfile), qr/PANIC|terminated by signal/, 'no process has crashed');

$_->quit for $session, $observer;
$node->stop;
done_testing();
