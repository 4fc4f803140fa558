# CALL wait_for_lsn(): a session on a standby reads what was written before.  It
# holds no snapshot while it waits, is refused where it could not give it up, and
# ends right at a promotion, a cancel and a shutdown.  With the waker, with the
# server's own (19), and with neither (not preloaded).

use strict;
use warnings FATAL => 'all';

use FindBin;
use lib $FindBin::RealBin;

use DiagKit;
use IPC::Run;
use Outside;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(usleep);

my $primary = new_primary('primary', 'autovacuum = off', 'checkpoint_timeout = 1h');
my ($standby) = new_standby($primary, 'replica1', 'max_standby_streaming_delay = -1', 'hot_standby_feedback = off', "listen_addresses = '127.0.0.1'");
my $has_waker = $standby->safe_psql('postgres', 'SHOW server_version_num') < 190000;

# A standby of the standby, without preloading.
my $second = PostgreSQL::Test::Cluster->new('second');
$standby->backup('of_standby');
$second->init_from_backup($standby, 'of_standby', has_streaming => 1);
$second->append_conf('postgresql.conf', "shared_preload_libraries = ''\nprimary_slot_name = ''");
$second->start;

$primary->safe_psql('postgres', <<'SQL');
CREATE TABLE t (i integer);
INSERT INTO t SELECT generate_series(1, 1000);
CREATE ROLE anybody LOGIN;
GRANT SELECT ON t TO anybody;
CREATE FUNCTION f(pg_lsn) RETURNS void LANGUAGE plpgsql AS 'BEGIN CALL replica_kit.wait_for_lsn($1); END';
CREATE PROCEDURE p(pg_lsn) LANGUAGE plpgsql AS 'BEGIN CALL replica_kit.wait_for_lsn($1); END';
CREATE PROCEDURE p_sql(l pg_lsn) LANGUAGE sql AS 'CALL replica_kit.wait_for_lsn(l)';
SQL

sub insert_lsn { return $primary->safe_psql('postgres', 'SELECT pg_current_wal_insert_lsn()'); }
sub future_lsn { return $primary->safe_psql('postgres', q{SELECT pg_current_wal_insert_lsn() + 16::bigint * 1024 * 1024}); }

# Statements in one session; what it prints, and its first error with SQLSTATE.
sub run_sql
{
	my ($node, $sql, @params) = @_;
	my ($out, $err) = ('', '');

	$node->psql('postgres', "\\set VERBOSITY verbose\n$sql", stdout => \$out, stderr => \$err, on_error_stop => 0, extra_params => \@params);
	return ($out, $err);
}

sub refused
{
	my ($node, $sql, $pattern, $name) = @_;
	my (undef, $err) = run_sql($node, $sql);

	like($err, $pattern, $name);
	return;
}

# A session that waits, found by its application name.  It has its statements
# from the start: input is passed on only while somebody pumps.
my $nwaits = 0;
sub start_wait
{
	my ($node, @statements) = @_;
	my $wait = { node => $node, name => 'waiter' . ++$nwaits, out => '', err => '' };
	local $ENV{PGAPPNAME} = $wait->{name};

	$wait->{run} = IPC::Run::start([ 'psql', '-X', '-A', '-t', '-v', 'VERBOSITY=verbose', '-d', $node->connstr('postgres'), map { ('-c', $_) } @statements ],
		'>', \$wait->{out}, '2>', \$wait->{err}, IPC::Run::timeout(180));
	$node->poll_query_until('postgres', qq{SELECT count(*) = 1 FROM pg_stat_activity WHERE application_name = '$wait->{name}' AND query ~ '^CALL' AND state = 'active' AND wait_event IS NOT NULL})
	  or die 'it does not wait';
	return $wait;
}

sub finish
{
	my ($wait) = @_;

	$wait->{run}->finish;
	return $wait->{err} ne '' ? $wait->{err} : $wait->{out};
}

sub of_wait
{
	my ($wait, $expression) = @_;

	return $wait->{node}->safe_psql('postgres', "SELECT $expression FROM pg_stat_activity WHERE application_name = '$wait->{name}'");
}

# The waker of a server; it is in no view, since it has no database.
sub waker_pid
{
	my ($node) = @_;
	my ($postmaster) = slurp_file($node->data_dir . '/postmaster.pid') =~ /^(\d+)$/m;

	foreach my $pid (split ' ', slurp_file("/proc/$postmaster/task/$postmaster/children"))
	{
		# it may end meanwhile
		open my $title, '<', "/proc/$pid/cmdline" or next;
		return $pid if (<$title> // '') =~ /pg_replica_kit waker/;
	}
	return;
}

# Nobody is left in the heap: else the waker looks at least each 50 ms.
sub waker_sleeps
{
	my ($name) = @_;
	my $pid = waker_pid($standby);
	my $switches = sub { return slurp_file("/proc/$pid/status") =~ /^voluntary_ctxt_switches:\s+(\d+)/m ? $1 : die };

	foreach (1 .. 100)
	{
		my $before = $switches->();

		usleep(300_000);
		if ($switches->() == $before)
		{
			pass("$name: no waiter is left behind");
			return;
		}
	}
	fail("$name: the waker still finds a waiter");
	return;
}

# ----------------------------------------------------------------------
# Write, wait, read
# ----------------------------------------------------------------------

# It has no title yet when it has just been started.
foreach (1 .. 1000)
{
	last if !$has_waker || defined waker_pid($standby);
	usleep(100_000);
}
is(defined waker_pid($standby) ? 1 : 0, $has_waker ? 1 : 0, 'a standby has the waker, where the server does not wake itself');
foreach (1 .. 1000)
{
	last if !defined waker_pid($primary);
	usleep(100_000);
}
is(waker_pid($primary), undef, 'a primary has none');

my @missing;
foreach my $i (1 .. 10)
{
	my $lsn = $primary->safe_psql('postgres', "INSERT INTO t VALUES (-$i); SELECT pg_current_wal_insert_lsn()");

	foreach my $node ($standby, $second)
	{
		push @missing, $node->name . " $i" if $node->safe_psql('postgres', "CALL replica_kit.wait_for_lsn('$lsn', '60 s'); SELECT count(*) FROM t WHERE i = -$i") ne '1';
	}
}
is("@missing", '', 'what was written is read, with the waker and without');

my $lsn = insert_lsn();
is((run_sql($standby, "CALL replica_kit.wait_for_lsn('$lsn', '60 s');\nSELECT count(*) FROM t WHERE i < 0", '-U', 'anybody'))[0], '10', 'anybody may wait');
is($standby->safe_psql('postgres', "BEGIN; CALL replica_kit.wait_for_lsn('$lsn', '60 s'); SELECT count(*) FROM t WHERE i < 0; SAVEPOINT s; CALL replica_kit.wait_for_lsn('$lsn'); SELECT 'still here'; COMMIT"), "10\nstill here", 'also in a transaction block');
foreach my $mode (qw(extended prepared))
{
	my $script = $primary->basedir . '/wait.sql';

	unlink $script;
	append_to_file($script, "\\set timeline 1\nBEGIN;\nCALL replica_kit.wait_for_lsn('$lsn', '60 s', :timeline);\nSELECT count(*) FROM t;\nCOMMIT;\n");
	$standby->command_ok([ 'pgbench', '-n', '-M', $mode, '-t', '3', '-f', $script, '-h', $standby->host, '-p', $standby->port, 'postgres' ], "in the $mode protocol");
}

# ----------------------------------------------------------------------
# On the primary, and what is no argument
# ----------------------------------------------------------------------

is($primary->safe_psql('postgres', "CALL replica_kit.wait_for_lsn(pg_current_wal_insert_lsn()); SELECT 'at once'"), 'at once', 'a primary has what it has written');
refused($primary, q{CALL replica_kit.wait_for_lsn(pg_current_wal_insert_lsn() + 1000000::numeric)}, qr/^psql:\S+ ERROR:  RK011: WAL position \S+ is not on this primary\nDETAIL:  It has written the WAL of timeline 1 up to /, 'what a primary has not written it will not get');
refused($primary, q{CALL replica_kit.wait_for_lsn('0/1', timeline => 2)}, qr/ERROR:  RK011: WAL position 0\/1 is not on this primary/, 'nor another timeline');
refused($standby, q{CALL replica_kit.wait_for_lsn(NULL)}, qr/ERROR:  22004: argument "lsn" must not be null/, 'no position');
refused($standby, q{CALL replica_kit.wait_for_lsn('0/1', NULL)}, qr/ERROR:  22004: argument "timeout" must not be null/, 'no time');
refused($standby, q{CALL replica_kit.wait_for_lsn('0/1', '-1 s')}, qr/ERROR:  22023: argument "timeout" must not be negative/, 'a negative time');
refused($standby, q{CALL replica_kit.wait_for_lsn('0/1', timeline => 0)}, qr/ERROR:  22023: argument "timeline" must be greater than 0/, 'no timeline');

# ----------------------------------------------------------------------
# Where a snapshot can't be given up
# ----------------------------------------------------------------------

my %refused = (
	'a DO block' => "DO 'BEGIN CALL replica_kit.wait_for_lsn(''$lsn''); END'",
	'a DO block in a transaction' => "BEGIN; DO 'BEGIN CALL replica_kit.wait_for_lsn(''$lsn''); END'",
	'a DO block that has committed' => "DO 'BEGIN COMMIT; CALL replica_kit.wait_for_lsn(''$lsn''); END'",
	'a function' => "SELECT f('$lsn')",
	'a function in an argument' => "CALL replica_kit.wait_for_lsn('$lsn', f('$lsn')::text::interval)",
	'a procedure' => "CALL p('$lsn')",
	'a procedure in a transaction' => "BEGIN; CALL p('$lsn')",
	'a procedure in SQL' => "CALL p_sql('$lsn')",
	'a transaction of repeatable read' => "BEGIN ISOLATION LEVEL REPEATABLE READ;\nCALL replica_kit.wait_for_lsn('$lsn')",
	'a session of repeatable read' => "SET default_transaction_isolation = 'repeatable read';\nCALL replica_kit.wait_for_lsn('$lsn')",
	'an open cursor' => "BEGIN; DECLARE c CURSOR FOR SELECT * FROM t; CALL replica_kit.wait_for_lsn('$lsn')");
foreach my $name (sort keys %refused)
{
	foreach my $node ($standby, $primary)
	{
		refused($node, $refused{$name}, qr/ERROR:  RK012: wait_for_lsn\(\) .*\nDETAIL:  .*\nHINT:  /, "$name is refused: " . $node->name);
	}
}
is($standby->safe_psql('postgres', "BEGIN; DECLARE c CURSOR FOR SELECT * FROM t; CLOSE c; CALL replica_kit.wait_for_lsn('$lsn'); COMMIT; SELECT 'closed'"), 'closed', 'a cursor that is closed holds nothing');

# ----------------------------------------------------------------------
# No snapshot while it waits
# ----------------------------------------------------------------------

my $wait = start_wait($standby, "CALL replica_kit.wait_for_lsn('@{[ future_lsn() ]}', '1 hour')", "SELECT 'it waited'");
my $reader = $standby->background_psql('postgres', on_error_stop => 0);
is(of_wait($wait, 'backend_xmin IS NULL AND backend_xid IS NULL'), 't', 'who waits has no snapshot');
$primary->safe_psql('postgres', 'DELETE FROM t WHERE i BETWEEN 1 AND 500; VACUUM t');
$primary->wait_for_catchup('replica1');
is(of_wait($wait, 'state'), 'active', 'WAL that conflicts with snapshots is replayed meanwhile');

# To be sure that it does conflict.
$reader->query_safe('BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT count(*) FROM t');
$primary->safe_psql('postgres', 'DELETE FROM t WHERE i BETWEEN 501 AND 600; VACUUM t');
ok($standby->poll_query_until('postgres', q{SELECT count(*) = 1 FROM pg_stat_activity WHERE backend_type = 'startup' AND wait_event = 'RecoveryConflictSnapshot'}), 'which a snapshot does hold up');
$lsn = insert_lsn();
$primary->wait_for_catchup('replica1', 'flush', $lsn);
refused($standby, "CALL replica_kit.wait_for_lsn('$lsn', '100 ms')", qr/ERROR:  RK010: WAL position \S+ was not replayed within 100 ms\nDETAIL:  Replay is at \S+, .* before that position, whose WAL has arrived\./, 'and the error says that the WAL is here');
$reader->query_safe('ROLLBACK');

$primary->safe_psql('postgres', q{SELECT count(pg_logical_emit_message(false, '', repeat('x', 1000000))) FROM generate_series(1, 18)});
$primary->safe_psql('postgres', 'SELECT pg_switch_wal() FROM pg_logical_emit_message(true, $$$$, $$x$$)');
is(finish($wait), "CALL\nit waited\n", 'it ends when its position is replayed');

# ----------------------------------------------------------------------
# Positions that replay never has
# ----------------------------------------------------------------------

foreach (1 .. 10)
{
	# the background writer may write something in between
	$primary->safe_psql('postgres', 'SELECT pg_logical_emit_message(true, $$$$, $$x$$)');
	$lsn = $primary->safe_psql('postgres', 'SELECT pg_switch_wal(); SELECT pg_current_wal_insert_lsn()') =~ s/.*\n//sr;
	last if $lsn =~ /000028$/;
}
like($lsn, qr/000028$/, 'an idle server inserts behind the header of a segment');
is($standby->safe_psql('postgres', "CALL replica_kit.wait_for_lsn('$lsn', '60 s'); SELECT 'there'"), 'there', 'which means where the header begins');
$lsn =~ s/000028$/002018/;
refused($standby, "CALL replica_kit.wait_for_lsn('$lsn', '0')", qr/ERROR:  RK010: .*\nDETAIL:  Replay is at \S+, \S+ \S+ before that position, whose WAL has not arrived\./, 'a time of 0 is a look');

# ----------------------------------------------------------------------
# What ends a wait
# ----------------------------------------------------------------------

$standby->safe_psql('postgres', 'SELECT pg_wal_replay_pause()');
$standby->poll_query_until('postgres', q{SELECT pg_get_wal_replay_pause_state() = 'paused'}) or die 'replay does not pause';
$lsn = $primary->safe_psql('postgres', 'INSERT INTO t VALUES (-11); SELECT pg_current_wal_insert_lsn()');
my @call = ("CALL replica_kit.wait_for_lsn('$lsn', '1 hour')", "SELECT 'it waited'");

refused($standby, "CALL replica_kit.wait_for_lsn('$lsn', '1 s')", qr/ERROR:  RK010: WAL position \S+ was not replayed within 1 s\nDETAIL:  Replay is paused at /, 'the time is over');
refused($standby, "SET statement_timeout = '100ms';\nCALL replica_kit.wait_for_lsn('$lsn', '1 hour')", qr/ERROR:  57014: canceling statement due to statement timeout/, 'statement_timeout');
$wait = start_wait($standby, @call);
of_wait($wait, 'pg_cancel_backend(pid)');
like(finish($wait), qr/ERROR:  57014: canceling statement due to user request/, 'a cancel');
$wait = start_wait($standby, @call);
of_wait($wait, 'pg_terminate_backend(pid)');
like(finish($wait), qr/FATAL:  57P01: terminating connection due to administrator command/, 'the end of its session');
waker_sleeps('after all these') if $has_waker;

my @waits = map { start_wait($standby, @call) } 1 .. 5;
push @waits, start_wait($standby, 'BEGIN', @call);
$standby->safe_psql('postgres', 'SELECT pg_wal_replay_resume()');
is(scalar(grep { finish($_) =~ /^it waited$/m } @waits), scalar(@waits), 'several are woken');
waker_sleeps('woken') if $has_waker;

# ----------------------------------------------------------------------
# A lock of its own
# ----------------------------------------------------------------------

$reader->query_safe('BEGIN; SELECT count(*) FROM t');
$primary->safe_psql('postgres', 'ALTER TABLE t ADD COLUMN j integer');
$lsn = insert_lsn();
$standby->poll_query_until('postgres', q{SELECT count(*) = 1 FROM pg_stat_activity WHERE backend_type = 'startup' AND wait_event_type = 'Lock'}) or die 'replay does not wait for the lock';
$reader->{stderr} = '';
$reader->query("CALL replica_kit.wait_for_lsn('$lsn', '1 hour')");
like($reader->{stderr}, qr/ERROR:  replay waits for a lock that this transaction holds\nDETAIL:  Replay needs an exclusive lock on relation \d+ of database \d+ before it can reach WAL position \S+\./, 'a lock that holds up replay is noticed by who has it');
is($standby->safe_psql('postgres', "CALL replica_kit.wait_for_lsn('$lsn', '60 s'); SELECT count(*) FROM pg_attribute WHERE attname = 'j' AND attrelid = 't'::regclass"), '1', 'and replay goes on');
eval { $reader->quit };

# ----------------------------------------------------------------------
# The recipe of doc/reads.md, as it stands there
# ----------------------------------------------------------------------

my $page = slurp_file("$FindBin::RealBin/../doc/reads.md");
sub block
{
	my ($kind) = @_;

	return $page =~ /^```$kind\n(.*?)^```$/ms ? $1 : die "no block \"$kind\"";
}
$primary->safe_psql('postgres', q{CREATE TABLE page (id integer PRIMARY KEY, body text); INSERT INTO page VALUES (1, 'old')});
foreach my $commit (qw(on off))
{
	# the replica may be slow here, and half a second over
	my $wait_and_read = block('sql wait') =~ s/500 ms/60 s/r;
	my $position = block('sql position') =~ s/;\s*$/ \\gset/r;

	is($primary->safe_psql('postgres', <<~SQL), "in psql, $commit", "libpq, synchronous_commit = $commit");
		\\set QUIET on
		SET synchronous_commit = $commit;
		BEGIN;
		UPDATE page SET body = 'in psql, $commit' WHERE id = 1;
		COMMIT;
		$position
		\\connect "@{[ $standby->connstr('postgres') ]}"
		$wait_and_read
		SQL
}
SKIP:
{
	my $python = (grep { -x } '/usr/bin/python3')[0];

	skip 'no psycopg', 1 if !defined $python || system("$python -c 'import psycopg' 2>/dev/null") != 0;
	my $program = block('python') =~ s/500 ms/60 s/r;
	my ($out, $err) = ('', '');

	$program .= <<~PYTHON;

		primary = psycopg.connect("@{[ $primary->connstr('postgres') ]}", autocommit=True)
		replica = psycopg.connect("@{[ $standby->connstr('postgres') ]}", autocommit=True)
		for commit in "on", "off":
		    primary.execute("SET synchronous_commit = " + commit)
		    for i in range(20):
		        position = write(primary, "UPDATE page SET body = %s WHERE id = %s", f"{commit} {i}", 1)
		        found = read(replica, None, position, "SELECT body FROM page WHERE id = %s", 1)
		        if found != [(f"{commit} {i}",)]:
		            print(commit, i, found)
		position = (primary.execute("SELECT (pg_current_wal_insert_lsn() + 1000000)::text").fetchone()[0], 1)
		print(read(primary, primary, position, "SELECT 1"))
		PYTHON
	IPC::Run::run([ $python, '-c', $program ], '>', \$out, '2>', \$err, IPC::Run::timeout(180));
	is("$out$err", "[(1,)]\n", 'psycopg reads each write, and from the primary what no server has');
}
SKIP:
{
	my $driver = outside_file('/usr/share/java/postgresql.jar');
	skip 'no pgjdbc', 1 if !defined $driver;
	skip 'no Java that runs a source file', 1 if !run_java('class None { public static void main(String[] args) {} }', undef, $driver);
	my @urls = map { 'jdbc:postgresql://127.0.0.1:' . $_->port . '/postgres?user=jdbc&password=secret' } $primary, $standby;
	my $program = block('java') =~ s/500 ms/60 s/r;

	$primary->safe_psql('postgres', q{CREATE ROLE jdbc LOGIN PASSWORD 'secret'; GRANT ALL ON page TO jdbc});
	$primary->wait_for_catchup('replica1');

	# the class with main() comes first
	$program =~ s/^(?=final class)/<<~'JAVA'/me;
		class Recipe {
		    public static void main(String[] urls) throws SQLException {
		        Connection primary = DriverManager.getConnection(urls[0]);
		        Connection replica = DriverManager.getConnection(urls[1]);
		        for (String commit : List.of("on", "off")) {
		            primary.createStatement().execute("SET synchronous_commit = " + commit);
		            for (int i = 0; i < 20; i++) {
		                var position = Reads.write(primary, "UPDATE page SET body = ? WHERE id = ?", commit + i, 1);
		                var found = Reads.read(replica, null, position, "SELECT body FROM page WHERE id = ?", 1).executeQuery();
		                found.next();
		                if (!found.getString(1).equals(commit + i))
		                    System.out.println(commit + i + " " + found.getString(1));
		            }
		        }
		        var lsn = primary.createStatement().executeQuery("SELECT pg_current_wal_insert_lsn() + 1000000");
		        lsn.next();
		        var found = Reads.read(primary, primary, new Reads.Position(lsn.getString(1), 1), "SELECT pg_is_in_recovery()").executeQuery();
		        found.next();
		        System.out.println(found.getString(1));
		    }
		}

		JAVA
	my $said;
	run_java($program, \$said, $driver, @urls);
	is($said, "f\n", 'pgjdbc reads each write, and from the primary what no server has');
}

# ----------------------------------------------------------------------
# Commits that are not flushed
# ----------------------------------------------------------------------

$primary->safe_psql('postgres', "ALTER SYSTEM SET wal_writer_delay = '2s'");
$primary->reload;
my ($flushed, $inserted);
foreach my $i (1 .. 20)
{
	($flushed, $inserted) = split /\|/, $primary->safe_psql('postgres', "SET synchronous_commit = off; INSERT INTO t VALUES (-100 - $i); SELECT pg_current_wal_flush_lsn(), pg_current_wal_insert_lsn()");
	last if $primary->safe_psql('postgres', "SELECT '$flushed'::pg_lsn < '$inserted'") eq 't';
}
is($primary->safe_psql('postgres', "SELECT '$flushed'::pg_lsn < '$inserted'"), 't', 'with synchronous_commit = off the flushed position is before the commit');
is($standby->safe_psql('postgres', "CALL replica_kit.wait_for_lsn('$inserted', '60 s'); SELECT count(*) > 0 FROM t WHERE i < -100"), 't', 'the inserted one is not, and is replayed soon');

# ----------------------------------------------------------------------
# Promotion and timelines
# ----------------------------------------------------------------------

$lsn = insert_lsn();
my $lost = start_wait($standby, "CALL replica_kit.wait_for_lsn('@{[ future_lsn() ]}', '1 hour')");
my $follower = start_wait($second, "CALL replica_kit.wait_for_lsn('$lsn', '1 hour', 2)", "SELECT 'it waited'");
refused($second, "CALL replica_kit.wait_for_lsn('0/1', '0', 2)", qr/ERROR:  RK010: WAL position 0\/1 of timeline 2 was not replayed within .*\nDETAIL:  Replay is at \S+, and still on timeline 1\./, 'a timeline that is not there yet');
$primary->stop;
$standby->promote;
like(finish($lost), qr/ERROR:  RK011: this server was promoted without WAL position \S+\nDETAIL:  It had replayed the WAL of timeline 1 up to /, 'promoted without that WAL');
$standby->poll_query_until('postgres', 'SELECT NOT pg_is_in_recovery()') or die 'no promotion';
is(finish($follower), "CALL\nit waited\n", 'a timeline is waited for');

$standby->safe_psql('postgres', q{SELECT count(pg_logical_emit_message(false, '', repeat('x', 1000000))) FROM generate_series(1, 34)});
my $new = $standby->safe_psql('postgres', 'INSERT INTO t VALUES (-12); SELECT pg_current_wal_insert_lsn()');
my $future = $standby->safe_psql('postgres', "SELECT '$new'::pg_lsn - 1000000::numeric");
foreach my $node ($standby, $second)
{
	my $name = $node->name;

	is($node->safe_psql('postgres', "CALL replica_kit.wait_for_lsn('$new', '60 s', 2); SELECT count(*) FROM t WHERE i = -12"), '1', "$name: a write of the new primary");
	is($node->safe_psql('postgres', "CALL replica_kit.wait_for_lsn('$lsn', '60 s', 1); SELECT 'there'"), 'there', "$name: one of the old primary that was not lost");
	is($node->safe_psql('postgres', "CALL replica_kit.wait_for_lsn('$future'); SELECT 'a number'"), 'a number', "$name: without the timeline a lost one is not noticed");
	refused($node, "CALL replica_kit.wait_for_lsn('$future', '1 hour', 1)", qr/ERROR:  RK011: WAL position \S+ of timeline 1 is not in the history of this server\nDETAIL:  This server is on timeline 2, whose history left timeline 1 at /, "$name: with it, it is");
}

# ----------------------------------------------------------------------
# Shutdown
# ----------------------------------------------------------------------

$wait = start_wait($second, "CALL replica_kit.wait_for_lsn('FFFF/0', '1 hour')");
$second->stop('fast');
like(finish($wait), qr/FATAL:  57P01: terminating connection due to administrator command/, 'a shutdown');
$standby->stop;
unlike(slurp_file($_->logfile), qr/PANIC|was terminated by signal|TRAP|snapshot reference leak|portal snapshots/, $_->name . ' was never in trouble') foreach $primary, $standby, $second;
done_testing();
