# The life of a replica as its owner sees it, with the kit preloaded: two
# statements and one script, what the guide's own queries say, a replica that
# goes away and returns, and the end, which leaves nothing behind.

use strict;
use warnings FATAL => 'all';

use FindBin;
use lib $FindBin::RealBin;

use JoinKit;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $primary = PostgreSQL::Test::Cluster->new('primary');
$primary->init(allows_streaming => 1);
$primary->append_conf('postgresql.conf', <<~CONF);
	listen_addresses = '127.0.0.1'
	shared_preload_libraries = 'pg_replica_kit'
	replica_kit.check_interval = 100ms
	CONF
$primary->start;
my $hba = $primary->data_dir . '/pg_hba.conf';
my $file_before = slurp_file($hba);
my $roles_before = $primary->safe_psql('postgres', 'SELECT rolname FROM pg_roles ORDER BY 1');

# The lines that the worker has logged of a replica, without time and pid.
sub worker_lines
{
	my ($name) = @_;

	return [ map { /((?:WARNING|LOG):  replica "\Q$name\E" .*)/ ? $1 : () }
		  split /\n/, slurp_file($primary->logfile) ];
}

# ----------------------------------------------------------------------
# Two statements and one command
# ----------------------------------------------------------------------

$primary->safe_psql('postgres', 'CREATE EXTENSION pg_replica_kit');
my $password = $primary->safe_psql('postgres',
	q{SELECT password FROM replica_kit.provision('replica1', '127.0.0.1')});

my $replica = new_replica('replica');
my $script = write_script($primary, 'replica1');
my ($code, $out, $err) = run_script($script, { PGPASSWORD => $password },
	'--pgdata', $replica->data_dir, '--port', $replica->port);
is($code, 0, 'the script makes the replica') or diag($out, $err);
adopt_replica($replica);

ok($primary->poll_query_until('postgres',
		q{SELECT string_agg(concat_ws('|', name, state, health), E'\n') FROM replica_kit.summary}, 'replica1|streaming|ok'),
	'the summary is one line: streaming and ok');
$primary->safe_psql('postgres', 'CREATE TABLE t AS SELECT generate_series(1, 10000) i');
$primary->wait_for_catchup('replica1', 'replay');
is($replica->safe_psql('postgres', 'SELECT count(*) FROM t'), '10000', 'rows arrive');

# ----------------------------------------------------------------------
# The guide's queries, and the same from status()
# ----------------------------------------------------------------------

my $verify = <<'SQL';
SELECT client_addr, state, pid, slot_name, active
FROM pg_stat_replication
INNER JOIN pg_replication_slots on pid = pg_replication_slots.active_pid;
SQL
my $verify_status = <<'SQL';
SELECT client_addr, state, pid, slot_name, pid IS NOT NULL FROM replica_kit.status();
SQL
my $delay = <<'SQL';
select usename, client_addr, state, pg_wal_lsn_diff(pg_current_wal_lsn(),replay_lsn) as delay from pg_stat_replication;
SQL
my $delay_status = <<'SQL';
SELECT usename, client_addr, state, lag_bytes FROM replica_kit.status();
SQL
# Now and then the server writes WAL of its own accord, between two queries.
sub agree
{
	my ($one, $other) = @_;

	return $primary->poll_query_until('postgres',
		"SELECT (SELECT array_agg(a::text) FROM ($one) a) = (SELECT array_agg(b::text) FROM ($other) b)");
}
s/;\s*\z// for $verify, $verify_status, $delay, $delay_status;
ok(agree($verify_status, $verify), q{status() answers the guide's "Verify connectivity"});
ok(agree($delay_status, $delay), q{and its query for the delay});

# ----------------------------------------------------------------------
# Away and back: what the worker says, once each
# ----------------------------------------------------------------------

is_deeply(worker_lines('replica1'), [], 'of a healthy replica the worker says nothing');

# Soon enough for a test; before, a slow machine's pauses would be absences.
$primary->append_conf('postgresql.conf', <<~CONF);
	replica_kit.warning_disconnected = 1s
	replica_kit.critical_disconnected = 8s
	CONF
$primary->reload;
$replica->stop;
ok($primary->poll_query_until('postgres', "SELECT count(*) = 0 FROM ($verify) a"), q{of a replica that is down the guide's query says nothing});
like($primary->safe_psql('postgres', q{SELECT name, state, pid IS NULL, reason FROM replica_kit.status()}),
	qr/^replica1\|disconnected\|t\|disconnected for/, 'status() says that it is disconnected and for how long');
$primary->poll_query_until('postgres', q{SELECT level = 'critical' FROM replica_kit.unhealthy()})
  or die 'the worker does not notice';
my ($rc, $stdout, $stderr) = $primary->psql('postgres', 'SELECT replica_kit.assert_healthy()');
is($rc, 3, 'assert_healthy() fails');
like($stderr, qr/replica "?replica1"?.*disconnected for/s, 'with the reason');

# What it finds is there to be asked for before its line is.
$primary->wait_for_log(qr/WARNING:  replica "replica1" critical: .*\n/);
my $stopped = -s $primary->logfile;
$replica->start;
$primary->wait_for_log(qr/LOG:  replica "replica1" ok: .*\n/, $stopped);
$primary->poll_query_until('postgres', q{SELECT count(*) = 0 FROM replica_kit.unhealthy()})
  or die 'the worker does not see the replica return';
is($primary->safe_psql('postgres', 'SELECT replica_kit.assert_healthy()'), '', 'after its return assert_healthy() passes');

my $lines = worker_lines('replica1');
is(scalar @$lines, 3, 'the worker has said three things') or diag(explain($lines));
like($lines->[0], qr/^WARNING:  replica "replica1" warning: disconnected for [\d.]+ (?:s|min)[^:]*$/, 'a warning');
like($lines->[1], qr/^WARNING:  replica "replica1" critical: disconnected for [\d.]+ (?:s|min)[^:]*$/, 'that it is critical');
like($lines->[2], qr/^LOG:  replica "replica1" ok: streaming, .* behind, after [\d.]+ (?:s|min)[^:]*$/, 'and that it is back');

# ----------------------------------------------------------------------
# The end
# ----------------------------------------------------------------------

is($primary->safe_psql('postgres', q{SELECT * FROM replica_kit.deprovision('replica1', force => true)}),
	'replica1|t|1|t', 'deprovision takes a connected replica away with force');
is(slurp_file($hba), $file_before, 'pg_hba.conf is byte for byte as before');
is($primary->safe_psql('postgres', 'SELECT rolname FROM pg_roles ORDER BY 1'), $roles_before, 'so are the roles');
is($primary->safe_psql('postgres', 'SELECT count(*) FROM replica_kit.status()'), '0', 'nothing is left to watch');

# A slot that is dropped by hand is a loss, and when that has been said the
# worker has passed the other one by.
my $offset = -s $primary->logfile;
$primary->safe_psql('postgres', q{SELECT pg_create_physical_replication_slot('by_hand', true)});
$primary->poll_query_until('postgres',
	q{SELECT alert IS NOT NULL FROM replica_kit.status() WHERE name = 'by_hand'})
  or die 'the worker does not see the slot';
$primary->safe_psql('postgres', q{SELECT pg_drop_replication_slot('by_hand')});
$primary->wait_for_log(qr/WARNING:  replica "by_hand" warning: its slot was dropped/, $offset);
pass('a slot that is dropped by hand is told');
is(scalar @{ worker_lines('replica1') }, 3, 'one that deprovision dropped is not');

$replica->stop;
$primary->stop;
done_testing();
