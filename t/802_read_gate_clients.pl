# The read gate and the programs that stand before replicas, with passwords by
# SCRAM: what pgjdbc, HAProxy, PgBouncer and psycopg_pool do when it closes and
# opens, and how long a pool goes on.  libpq and pg_isready are t/801_read_gate.pl.

use strict;
use warnings FATAL => 'all';

use FindBin;
use lib $FindBin::RealBin;

use DiagKit;
use Outside;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(time usleep);

my $haproxy = outside_program('haproxy');
my $pgbouncer = outside_program('pgbouncer');
my $driver = outside_file('/usr/share/java/postgresql.jar');
undef $driver if defined $driver && !run_java('class None { public static void main(String[] args) {} }', undef, $driver);
plan skip_all => 'neither HAProxy, PgBouncer nor pgjdbc here' if !defined $haproxy && !defined $pgbouncer && !defined $driver;

my $page = slurp_file("$FindBin::RealBin/../doc/read_gate.md");
my $dir = $PostgreSQL::Test::Utils::tmp_check;
my $primary = new_primary('primary', 'autovacuum = off', 'checkpoint_timeout = 1h', "password_encryption = 'scram-sha-256'", 'log_connections = on');
$primary->safe_psql('postgres', q{CREATE ROLE app LOGIN PASSWORD 'secret'; CREATE ROLE lb_check NOLOGIN});
set_hba($primary, 'host all lb_check 127.0.0.1/32 trust', 'host all all 127.0.0.1/32 scram-sha-256');

# The gate opens by itself where the worker has not looked three times, which a slow
# machine is not to bring about; it looks at each reload.
my ($standby) = new_standby($primary, 'replica1', "listen_addresses = '127.0.0.1'", 'replica_kit.read_gate_lag = 1MB', 'replica_kit.check_interval = 3s');

# What a new session at a port says, or why there is none.
sub session
{
	my ($port, $more) = @_;
	my ($out, $err) = ('', '');

	IPC::Run::run([ 'psql', '-X', '-q', '-A', '-t', '-w', '-d', "host=127.0.0.1 port=$port dbname=postgres user=app password=secret " . ($more // ''), '-c', 'SELECT pg_is_in_recovery()' ],
		'<', \undef, '>', \$out, '2>', \$err, IPC::Run::timeout(180));
	chomp $out;
	return $out eq '' ? $err : $out;
}

# The same once it is that, or for too long.
sub session_soon
{
	my ($port, $wanted) = @_;
	my $said = '';

	for (1 .. 10 * $PostgreSQL::Test::Utils::timeout_default)
	{
		$said = session($port);
		last if $said =~ $wanted;
		usleep(100_000);
	}
	return $said;
}

sub set_gate
{
	my ($state) = @_;

	if ($state eq 'closed')
	{
		$standby->safe_psql('postgres', 'SELECT pg_wal_replay_pause()');
		$primary->safe_psql('postgres', q{SELECT count(pg_logical_emit_message(true, '', repeat('x', 1000000))) FROM generate_series(1, 3)});
	}
	else
	{
		$standby->safe_psql('postgres', 'SELECT pg_wal_replay_resume()');
	}
	ok($standby->poll_query_until('postgres', "SELECT read_gate = '$state' FROM pg_reload_conf(), replica_kit.standby_status()"), "the gate is $state");
	return;
}

my $refused = qr/FATAL:  the read gate of this standby is closed/;
set_gate('open');

# ----------------------------------------------------------------------
# pgjdbc
# ----------------------------------------------------------------------

# Asks a list of hosts.
sub java_says
{
	my ($options) = @_;
	my $said;

	run_java(<<~'JAVA', \$said, $driver, 'jdbc:postgresql://127.0.0.1:' . $standby->port . ',127.0.0.1:' . $primary->port . "/postgres?user=app&password=secret$options");
		import java.sql.*;

		class Ask {
		    public static void main(String[] args) throws SQLException {
		        try (var connection = DriverManager.getConnection(args[0])) {
		            var answer = connection.createStatement().executeQuery("SELECT pg_is_in_recovery()");
		            answer.next();
		            System.out.println(answer.getString(1));
		        }
		    }
		}
		JAVA
	return $said;
}

my @lists = ('', '&targetServerType=preferSecondary');
SKIP:
{
	skip 'no pgjdbc here', 4 if !defined $driver;
	is(java_says($_), "t\n", "pgjdbc, open: the first host of the list$_") foreach @lists;
	set_gate('closed');
	is(java_says($_), "f\n", "pgjdbc, closed: it goes on to the next one$_") foreach @lists;
	set_gate('open');
}

# ----------------------------------------------------------------------
# HAProxy, as on the page
# ----------------------------------------------------------------------

SKIP:
{
	skip 'no HAProxy here', 8 if !defined $haproxy;
	my ($config) = $page =~ /^```haproxy\n(.*?)^```$/ms or die 'no configuration of HAProxy';
	my ($port, $blind) = map { PostgreSQL::Test::Cluster::get_free_port() } 1 .. 2;

	$config =~ s/^(\s+bind ).*/${1}127.0.0.1:$port/m or die 'no bind';
	$config =~ s/^(\s+server replica1 )\S+/"${1}127.0.0.1:" . $standby->port/me or die 'no replica1';
	$config =~ s/^(\s+server primary )\S+/"${1}127.0.0.1:" . $primary->port/me or die 'no primary';
	$config =~ s/inter 2s/inter 500ms/ or die 'no interval';
	my ($listen) = $config =~ /^(listen .*)/ms;
	$listen =~ s/^listen \w+/listen blind/;
	$listen =~ s/:$port/:$blind/;
	$listen =~ s/pgsql-check user lb_check/pgsql-check user app/;
	append_to_file("$dir/haproxy.cfg", $config . $listen);
	start_outside('haproxy', $haproxy, '-db', '-f', "$dir/haproxy.cfg");
	ok(reachable($port), 'HAProxy starts with the configuration of the page');
	is(session_soon($port, qr/^t$/), 't', 'HAProxy, open: reads go to the replica');

	my $before = IPC::Run::start([ 'psql', '-X', '-q', '-A', '-t', '-w', '-d', "host=127.0.0.1 port=$port dbname=postgres user=app password=secret" ], '<', \my $in, '>', \my $out, '2>', \my $err);
	$in = "SELECT pg_is_in_recovery();\n";
	$before->pump_nb, usleep(50_000) until ($out // '') =~ /\n/ || ($err // '') ne '';
	is($out, "t\n", 'HAProxy, open: so does a session');
	my $offset = -s $standby->logfile;
	set_gate('closed');
	my $closed = time;
	is(session_soon($port, qr/^f$/), 'f', 'HAProxy, closed: they go to the primary');
	cmp_ok(time - $closed, '<', 30, 'HAProxy, closed: soon');
	like(session($blind), $refused, 'HAProxy, closed: with a role that would have to give a password it notices nothing');
	$in = "SELECT pg_is_in_recovery();\n\\q\n";
	$before->finish;
	is($out, "t\nt\n", 'HAProxy, closed: a session that is there stays');
	my ($log) = substr(slurp_file($standby->logfile), $offset) =~ /read gate closed(.*)/s;
	unlike($log, qr/lb_check/, 'HAProxy, closed: its checks add nothing to the log but what the gate adds');
	set_gate('open');
	is(session_soon($port, qr/^t$/), 't', 'HAProxy, open again: back to the replica');
	stop_outside('haproxy');
}

# ----------------------------------------------------------------------
# PgBouncer
# ----------------------------------------------------------------------

SKIP:
{
	skip 'no PgBouncer here', 8 if !defined $pgbouncer;
	my $port = PostgreSQL::Test::Cluster::get_free_port();
	my ($limits) = $page =~ /^```ini\n(.*?)^```$/ms or die 'no settings of PgBouncer';
	my ($lifetime, $wait) = (12, 3);

	# how much longer anything may take on a slow machine
	my $slow = 15;

	$limits =~ s/^(server_lifetime = )\d+$/$1$lifetime/m or die 'no server_lifetime';
	$limits =~ s/^(query_wait_timeout = )\d+$/$1$wait/m or die 'no query_wait_timeout';
	append_to_file("$dir/users", qq{"app" "secret"\n});
	append_to_file("$dir/pgbouncer.ini", <<~INI);
		[databases]
		postgres = host=127.0.0.1 port=@{[ $standby->port ]} dbname=postgres
		[pgbouncer]
		listen_addr = 127.0.0.1
		listen_port = $port
		unix_socket_dir =
		auth_type = scram-sha-256
		auth_file = $dir/users
		pool_mode = transaction
		$limits
		INI
	start_outside('pgbouncer', $pgbouncer, "$dir/pgbouncer.ini");
	ok(reachable($port), 'PgBouncer starts');
	is(session_soon($port, qr/^t$/), 't', 'PgBouncer, open: reads go to the replica');
	set_gate('closed');
	my $closed = time;
	is(session($port), 't', 'PgBouncer, closed: its connection goes on reading');

	# How long does the pool go on, asked all the time?
	my ($said, $last) = ('', $closed);
	while (time - $closed < 60)
	{
		$said = session($port, 'connect_timeout=60');
		last if $said ne 't';
		$last = time;
		usleep(100_000);
	}
	my $waited = time - $last;
	note sprintf 'the pool has drained after %.1f s; its client has waited for %.1f s: %s', $last - $closed, $waited, $said;
	cmp_ok($last - $closed, '<=', $lifetime + $slow, 'PgBouncer, closed: its connection ends after server_lifetime');
	like($said, qr/query_wait_timeout/, 'PgBouncer, closed: who waits for a new one gets an error of its own');
	cmp_ok($waited, '<=', $wait + $slow, 'PgBouncer, closed: after query_wait_timeout');
	$said = session($port);
	note $said;
	set_gate('open');
	is(session_soon($port, qr/^t$/), 't', 'PgBouncer, open again: it connects');
	stop_outside('pgbouncer');
}

# ----------------------------------------------------------------------
# A pool in the application
# ----------------------------------------------------------------------

SKIP:
{
	my $python = outside_program('python3');
	my $modules = ($ENV{PRK_OUTSIDE} // '') . '/usr/lib/python3/dist-packages';
	my ($lifetime, $in, $out, $err) = (12, '', '', '');

	# Debian's own, which has Debian's modules
	$python = '/usr/bin/python3' if -x '/usr/bin/python3';
	local $ENV{PYTHONPATH} = $modules;
	skip 'no psycopg_pool here', 5 if !defined $python || system("$python -c 'import psycopg_pool' 2>/dev/null") != 0;

	# At each line that it reads it asks, and tells.
	my $pool = IPC::Run::start([ $python, '-c', <<~PYTHON, 'host=127.0.0.1,127.0.0.1 port=' . $standby->port . ',' . $primary->port . ' dbname=postgres user=app password=secret' ], '<', \$in, '>', \$out, '2>', \$err);
		import sys, psycopg_pool
		with psycopg_pool.ConnectionPool(sys.argv[1], min_size=1, max_size=1, max_lifetime=$lifetime) as pool:
		    for line in sys.stdin:
		        with pool.connection() as connection:
		            print(connection.execute("SELECT pg_is_in_recovery()").fetchone()[0], flush=True)
		PYTHON
	my $ask = sub {
		$out = '';
		$in .= "\n";
		$pool->pump until $out =~ /\n/;
		return $out =~ s/\n//r;
	};

	is($ask->(), 'True', 'psycopg_pool, open: reads go to the replica');
	set_gate('closed');
	is($ask->(), 'True', 'psycopg_pool, closed: its connection goes on reading');
	my ($said, $closed) = ('', time);
	while (time - $closed < 60)
	{
		$said = $ask->();
		last if $said ne 'True';
		usleep(100_000);
	}
	note sprintf 'the pool has drained after %.1f s', time - $closed;
	is($said, 'False', 'psycopg_pool, closed: the next one is to the primary');
	cmp_ok(time - $closed, '<=', $lifetime + 15, 'psycopg_pool, closed: that is so after max_lifetime');
	set_gate('open');
	$pool->finish;
	note $err;
}

done_testing();
