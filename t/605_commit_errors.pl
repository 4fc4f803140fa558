# A COMMIT that fails after the kit has done all it does before one, and a
# session that is ended in it: for each of the four statements that change
# something, all is as before.

use strict;
use warnings FATAL => 'all';

use FindBin;
use lib "$FindBin::RealBin/fault";
use Fault;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes ();

my $server = Fault->new('commit');
plan skip_all => 'needs Linux and a C compiler' if !defined $server;

my $node = $server->{node};
my $small_queue = $node->pg_version >= 17;
$node->append_conf('postgresql.conf', 'max_notify_queue_pages = 64') if $small_queue;
$server->start;
$node->safe_psql('postgres', <<~'SQL');
	CREATE EXTENSION pg_replica_kit;
	CREATE TABLE twice (i integer UNIQUE DEFERRABLE INITIALLY DEFERRED);
	CREATE TABLE skew (i integer);
	CREATE TABLE log (line text);
	SQL
my $session = $server->connect;
my $observer = $server->connect;

# With the secret, which a rotate_password() that failed has left.
sub state_now
{
	return $server->server_state($observer) .
	  $observer->run(q{SELECT rolpassword FROM pg_authid WHERE rolname IN ('x', 'y') ORDER BY rolname;}) . $server->file_state;
}

my %statements = (
	'provision()' => q{SELECT FROM replica_kit.provision('y', '127.0.0.1');},
	'a second address' => q{SELECT FROM replica_kit.provision('x', '127.0.0.3');},
	'deprovision()' => q{SELECT FROM replica_kit.deprovision('x');},
	'rotate_password()' => q{SELECT FROM replica_kit.rotate_password('x');},
	'revoke_address()' => q{SELECT FROM replica_kit.revoke_address('x', '127.0.0.2');},
	'all of them' => q{SELECT FROM replica_kit.rotate_password('x'); SELECT FROM replica_kit.revoke_address('x', '127.0.0.2');
		SELECT FROM replica_kit.provision('y', '127.0.0.1'); SELECT FROM replica_kit.deprovision('x');});
$session->run(q{SELECT FROM replica_kit.provision('x', '127.0.0.1'); SELECT FROM replica_kit.provision('x', '127.0.0.2');});
my $before = state_now();

# ----------------------------------------------------------------------
# Errors of a COMMIT
# ----------------------------------------------------------------------

# What the transaction does after, what another does then, and the error.
my %errors = (
	'a deferred constraint' => {
		does => 'INSERT INTO twice VALUES (1), (1);',
		error => qr/duplicate key value/,
	},
	# PreCommit_on_commit_actions() comes after the callbacks
	'a temporary table' => {
		does => q{CREATE TEMP TABLE a (i integer PRIMARY KEY) ON COMMIT DELETE ROWS; CREATE TEMP TABLE b (i integer REFERENCES a);},
		error => qr/unsupported ON COMMIT and foreign key combination/,
	},
	'a serialization failure' => {
		begin => 'BEGIN ISOLATION LEVEL SERIALIZABLE;',
		does => 'SELECT sum(i) FROM skew; INSERT INTO skew VALUES (1);',
		meanwhile => 'BEGIN ISOLATION LEVEL SERIALIZABLE; SELECT sum(i) FROM skew; INSERT INTO skew VALUES (2); COMMIT;',
		error => qr/could not serialize access/,
	});

# A queue that is full since somebody listens and does not read on.
my $listener;
if ($small_queue)
{
	$errors{'a full queue of notifications'} = {
		does => 'NOTIFY queue_test;',
		error => qr/too many notifications in the NOTIFY queue/,
	};
	$listener = $server->connect;
	# from 19 on who listens to another channel does not hold the queue
	$listener->run('LISTEN queue_test; BEGIN; SELECT 1;');
	for my $try (1 .. 1000)
	{
		last if $observer->run(q{SELECT count(pg_notify('queue_test', i || repeat('x', 7000))) FROM generate_series(1, 8) i;}) =~ /too many notifications/;
	}
	for my $try (1 .. 1000)
	{
		last if $observer->run(q{NOTIFY queue_test;}) =~ /too many notifications/;
	}
}
for my $error (sort keys %errors)
{
	my $end = $errors{$error};

	for my $statement (sort keys %statements)
	{
		$session->run(($end->{begin} // 'BEGIN;') . $statements{$statement} . $end->{does});
		$observer->run($end->{meanwhile}) if $end->{meanwhile};
		like($session->run('COMMIT;'), qr/^ERROR: .*$end->{error}/m, "$statement: COMMIT fails by $error");
		is(state_now(), $before, 'and all is as before');
		is($server->beside, '', 'with nothing beside the file');
	}
}
$listener->quit if $listener;

# ----------------------------------------------------------------------
# A session that is ended while its COMMIT waits
# ----------------------------------------------------------------------

my $postmaster = (split /\n/, slurp_file($node->data_dir . '/postmaster.pid'))[0];
for my $statement ('provision()', 'revoke_address()', 'all of them')
{
	my $file = $server->file_state;

	kill 'STOP', $postmaster;
	$session->send("BEGIN; $statements{$statement} COMMIT;");
	for (1 .. 100 * $PostgreSQL::Test::Utils::timeout_default)
	{
		last if $server->file_state ne $file;
		Time::HiRes::usleep(10_000);
	}
	isnt($server->file_state, $file, "$statement: COMMIT has changed the file");
	$observer->run("SELECT pg_terminate_backend($session->{pid});");
	my $answer = $session->wait;
	kill 'CONT', $postmaster;
	like($answer, qr/FATAL: .*terminating connection/, 'and is ended');
	$session->quit;
	$session = $server->connect;
	is(state_now(), $before, 'and all is as before');
	is($server->beside, '', 'with nothing beside the file');
}

# ----------------------------------------------------------------------
# Transactions inside of procedures, and errors that are caught
# ----------------------------------------------------------------------

my $answer = $session->run(<<~'SQL');
	CREATE PROCEDURE one_by_one(names text[]) LANGUAGE plpgsql AS $$
	DECLARE
		replica text;
	BEGIN
		FOREACH replica IN ARRAY names LOOP
			BEGIN
				PERFORM replica_kit.provision(replica, '127.0.0.9');
				IF replica LIKE 'bad%' THEN
					RAISE 'no';
				END IF;
			EXCEPTION WHEN raise_exception THEN
				INSERT INTO log VALUES ('caught ' || replica);
			END;
			COMMIT;
		END LOOP;
		FOREACH replica IN ARRAY names LOOP
			PERFORM replica_kit.deprovision(replica);
			IF replica = 'p1' THEN
				ROLLBACK;
			ELSE
				COMMIT;
			END IF;
		END LOOP;
	END $$;
	CALL one_by_one(ARRAY['p1', 'bad1', 'p2', 'bad2']);
	SELECT 'left ' || string_agg(slot_name, ' ' ORDER BY slot_name) FROM pg_replication_slots;
	SELECT 'log ' || string_agg(line, ', ' ORDER BY line) FROM log;
	SELECT FROM replica_kit.deprovision('p1');
	DROP PROCEDURE one_by_one;
	SQL
like($answer, qr/^left p1 x$/m, 'a procedure that provisions, catches errors, commits, deprovisions and undoes one ends right');
like($answer, qr/^log caught bad1, caught bad2$/m, 'two errors were caught');
unlike($answer, qr/ERROR/, 'and none else');
is(state_now(), $before, 'and all is as before');

# The server drops a session's temporary slots at any error, so none may be
# made before COMMIT; and each way to write it.
for my $caught (
	[ 'ROLLBACK TO', q{SAVEPOINT s; SELECT 1/0; ROLLBACK TO s;} ],
	[ 'a block', q{DO $$ BEGIN PERFORM 1/0; EXCEPTION WHEN division_by_zero THEN NULL; END $$;} ],
	[ 'the provision of a bad name', q{SAVEPOINT s; SELECT FROM replica_kit.provision('BAD', '127.0.0.1'); ROLLBACK TO s;} ],
	[ 'a savepoint released', q{SAVEPOINT s; SELECT FROM replica_kit.provision('z', '127.0.0.1'); RELEASE s; SAVEPOINT s; SELECT 1/0; ROLLBACK TO s;} ],
	[ 'nested savepoints', q{SAVEPOINT s; SAVEPOINT t; SELECT FROM replica_kit.provision('gone', '127.0.0.1'); RELEASE t; ROLLBACK TO s;} ])
{
	my ($what, $sql) = @$caught;

	$session->run("BEGIN; $statements{'provision()'} $sql COMMIT;");
	like(state_now(), qr/^slot y physical reserved$(?:.*\n)*^host replication y .* # pg_replica_kit: y$/m, "$what after a provision does not lose it");
	unlike(state_now(), qr/gone/, 'and what was undone is not there');
	$session->run(q{SELECT FROM replica_kit.deprovision('y'); SELECT FROM replica_kit.deprovision('z');});
	is(state_now(), $before, 'and all is as before');
}

$session->run(q{SELECT FROM replica_kit.deprovision('x');});
is($observer->run('SELECT count(*) FROM pg_replication_slots;'), "0\n", 'in the end nothing is left');
unlike(slurp_file($node->logfile), qr/PANIC|terminated by signal/, 'no process has crashed');
$_->quit for $session, $observer;
$node->stop;
done_testing();
