# The ways in which a guide for doing this by hand fails its reader, D1 to D28:
# for each, that the kit does not, or says clearly why not.

use strict;
use warnings FATAL => 'all';

use FindBin;
use lib $FindBin::RealBin;

use JoinKit;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

# The configuration is not in the data directory, as on Debian (D13), and
# there are just as many slots as replicas (D24).
my $primary = PostgreSQL::Test::Cluster->new('primary');
$primary->init(allows_streaming => 1);
my $hba = $primary->basedir . '/elsewhere_hba.conf';
rename $primary->data_dir . '/pg_hba.conf', $hba or die "could not move pg_hba.conf: $!";
$primary->append_conf('postgresql.conf', <<~CONF);
	listen_addresses = '127.0.0.1'
	hba_file = '$hba'
	max_replication_slots = 2
	max_connections = 120
	max_wal_size = 64MB
	wal_keep_size = 0
	log_statement = 'all'
	log_checkpoints = on
	CONF
$primary->start;
$primary->safe_psql('postgres', 'CREATE EXTENSION pg_replica_kit; CREATE TABLE t (i int)');
my $hba_before = slurp_file($hba);

sub sql
{
	my ($sql, $node) = @_;

	return ($node // $primary)->safe_psql('postgres', $sql);
}

# What the server says to a statement that fails, or all that it says.
sub said
{
	my ($sql) = @_;

	$primary->psql('postgres', $sql, stderr => \my $err);
	return $err;
}

# WAL that nobody holds back goes.
sub move_on
{
	sql(q{INSERT INTO t VALUES (1); SELECT pg_switch_wal()}) for 1 .. 5;
	sql('CHECKPOINT; CHECKPOINT');
}

# ----------------------------------------------------------------------
# Setting up the primary
# ----------------------------------------------------------------------

like(said("SELECT replica_kit.provision(E'\\u2018replica1\\u2019', '127.0.0.1')"),
	qr/is not valid.*HINT:  Use "replica1", for example/s, 'D1: typographic quotes are refused, with the name that was meant');
like(said("SELECT replica_kit.deprovision(E'\\u2018replica1\\u2019')"),
	qr/is not valid.*HINT:  Use "replica1", for example/s, 'D15: also when a replica is dropped');
like(said(q{SELECT replica_kit.provision('replica-1', '127.0.0.1')}),
	qr/HINT:  Use "replica_1", for example/, 'D19: so is a name that no slot can have');
like(said(q{SELECT replica_kit.provision('replica1', '10.0.0.5')}),
	qr/does not listen for connections from 10\.0\.0\.5.*HINT:  Run: ALTER SYSTEM SET listen_addresses/s,
	'D12: a server that the replica cannot reach is told');
like(said(q{SELECT replica_kit.provision('replica1', '127.0.0.1', dry_run => true)}),
	qr/goes before line \d+ of "\Q$hba\E"/, 'D7: the rule goes before one that would win over it');

my $password = sql(q{SELECT password FROM replica_kit.provision('replica1', '127.0.0.1')});
is(sql(q{SELECT restart_lsn IS NOT NULL, wal_status FROM pg_replication_slots}), 't|reserved',
	'D2: the slot holds WAL from the start');
is(sql(q{SELECT verdict, auth_method FROM replica_kit.hba_match('replica1', '127.0.0.1')}), 'allow|scram-sha-256',
	'D7: the rule wins');
sql(q{SELECT replica_kit.provision('replica1', '127.0.0.1')});
is(() = slurp_file($hba) =~ /pg_replica_kit: replica1/g, 1, 'D8: twice is once');
like(slurp_file($hba), qr/^host replication replica1 /m, 'D10: the rule is for replication, which "all" is not');
is(sql(q{SELECT verdict FROM replica_kit.hba_match('somebody', '10.9.9.9')}), 'no match',
	'D10: and hba_match knows the difference');
is(sql(q{SELECT left(rolpassword, 13) FROM pg_authid WHERE rolname = 'replica1'}), 'SCRAM-SHA-256',
	'D11: secret and rule are both of SCRAM');
ok(-f $hba && !-e $primary->data_dir . '/pg_hba.conf', 'D13: pg_hba.conf is found where it is');
unlike(slurp_file($primary->logfile), qr/\Q$password\E/, 'D20: the password is in no log');

$primary->reload;
my $started = sql('SELECT pg_postmaster_start_time()');
append_to_file($hba, "host replication all 127.0.0.1/32 nonsense\n");
like(said(q{SELECT replica_kit.provision('replica2', '127.0.0.1')}), qr/\Q$hba\E/,
	'D6: a file that a restart would not survive is named, not extended');
my $mended = slurp_file($hba) =~ s/^.*nonsense\n//mr;
unlink $hba;
append_to_file($hba, $mended);
$primary->reload;
is(sql('SELECT pg_postmaster_start_time()'), $started, 'D6: and no restart is needed for a replica');

is(sql(q{SELECT name, password IS NULL FROM replica_kit.provision('replica2', '127.0.0.1', role => 'replica1')}),
	'replica2|t', 'D18: a second replica can have the same role');
like(said(q{SELECT replica_kit.provision('replica3', '127.0.0.1')}),
	qr/all replication slots are in use.*HINT:  .*max_replication_slots = \d+/s, 'D24: a third finds no slot and is told');

# D9, with a dry run in a transaction: an IPv6 address is one address.
$primary->append_conf('postgresql.conf', "listen_addresses = '*'");
$primary->restart;
is(sql(q{SELECT hba_rule FROM replica_kit.provision('replica2', '2001:db8::15', role => 'replica1', dry_run => true)}),
	'host replication replica1 2001:db8::15/128 scram-sha-256', 'D9: an IPv6 address is one address, not a network');

# ----------------------------------------------------------------------
# The replica
# ----------------------------------------------------------------------

my $replica = new_replica('replica');
my $script = write_script($primary, 'replica1');
my @args = ('--pgdata', $replica->data_dir, '--port', $replica->port);
my %env = (PGPASSWORD => $password);
my ($code, $out, $err);

my $other = PostgreSQL::Test::Cluster->new('other');
$other->init;
$other->start;
($code, $out, $err) = run_script($script, \%env, '--pgdata', $other->data_dir, '--port', $replica->port);
is($code, 8, 'D4: the directory of a running server is refused');
is($other->safe_psql('postgres', 'SELECT 1'), '1', 'D4: and its server lives on');
$other->stop;
my $kept = tree($other->data_dir);
($code, $out, $err) = run_script($script, \%env, '--pgdata', $other->data_dir, '--port', $replica->port);
is($code, 8, 'D4: so is one that holds anything');
is(tree($other->data_dir), $kept, 'D4: nothing in it is deleted');

my $offset = -s $primary->logfile;
($code, $out, $err) = run_script($script, \%env, @args, '--no-start');
is($code, 0, 'D24: the clone takes no slot besides its own') or diag($err);
my $log = substr slurp_file($primary->logfile), $offset;
like($log, qr/START_REPLICATION SLOT "replica1"|checkpoint starting: immediate force wait/,
	'D23: the clone waits for no spread checkpoint');
like($log, qr/checkpoint starting: immediate|checkpoint starting: .*fast/, 'D23: it asks for a fast one');
unlike(slurp_file($replica->data_dir . '/postgresql.auto.conf'), qr/\Q$password\E/,
	'D20: the password is not in postgresql.auto.conf');

# Between the end of the clone and the first start, WAL may go, but not ours.
move_on();
($code, $out, $err) = run_script($script, \%env, @args);
is($code, 0, 'D3: WAL written before the first start is still there') or diag($err);
adopt_replica($replica);
ok($primary->poll_query_until('postgres', q{SELECT state = 'streaming' FROM replica_kit.status() WHERE name = 'replica1'}),
	'D3: the replica streams');
is(sql('SHOW max_connections', $replica), '120', 'D26: what the replica may not have lower, it has not');

# ----------------------------------------------------------------------
# Verify, watch
# ----------------------------------------------------------------------

sql(q{INSERT INTO t SELECT generate_series(1, 1000)});
$primary->wait_for_catchup('replica1');
is(sql(<<~'SQL'), 't', 'D14: WAL held by a slot is a column, not a query that is cut off');
	SELECT retained_bytes BETWEEN 0 AND pg_wal_lsn_diff(pg_current_wal_lsn(), restart_lsn)
	  FROM replica_kit.status() WHERE name = 'replica1'
	SQL
my $receiver_dir = $primary->basedir . '/wal';
mkdir $receiver_dir;
my $receiver = IPC::Run::start(
	[ 'pg_receivewal', '-D', $receiver_dir, '-d', $primary->connstr('postgres') . ' application_name=slotless' ],
	'>', \my $receiver_out, '2>', \my $receiver_err);
$primary->poll_query_until('postgres', q{SELECT count(*) = 1 FROM replica_kit.status() WHERE name = 'slotless' AND state = 'streaming'})
  or die 'pg_receivewal does not stream';
is(sql(q{SELECT name, state FROM replica_kit.status() ORDER BY 1}),
	"replica1|streaming\nreplica2|disconnected\nslotless|streaming",
	'D16: neither a slot without a replica nor a replica without a slot is left out');
$primary->poll_query_until('postgres', q{SELECT lag_bytes >= 0 FROM replica_kit.status() WHERE name = 'slotless'})
  or die 'pg_receivewal never reports';
is(sql(q{SELECT lag_bytes IS NOT NULL, replay_lsn IS NULL FROM replica_kit.status() WHERE name = 'slotless'}),
	't|t', 'D17: one that does not replay has a lag');
is(sql(q{SET ROLE pg_monitor; SELECT lag_bytes IS NOT NULL FROM replica_kit.status() WHERE name = 'replica1'}),
	't', 'D17: a monitor sees it');
is(sql(q{SELECT count(*) FROM replica_kit.status()}, $replica), '0', 'D17: and the query works on a standby');
$receiver->signal('INT');
$receiver->finish;

# ----------------------------------------------------------------------
# A replica that has fallen out of sync
# ----------------------------------------------------------------------

# The primary may not know yet that the replica is gone.
sub wait_until_unused
{
	$primary->poll_query_until('postgres', q{SELECT NOT active FROM pg_replication_slots WHERE slot_name = 'replica1'})
	  or die 'the slot is still in use';
	return;
}

$replica->stop;
wait_until_unused();
move_on();
is(sql(q{SELECT state, retained_bytes > 0 FROM replica_kit.status() WHERE name = 'replica1'}), 'disconnected|t',
	'D21: what a dead replica holds back is seen');
sql(q{SELECT replica_kit.deprovision('replica2')});
sql(q{SELECT pg_drop_replication_slot('replica1')});
move_on();
sql(q{SELECT replica_kit.provision('replica1', '127.0.0.1')});
($code, $out, $err) = run_script($script, \%env, @args);
is($code, 13, 'D5: a replica that only seems to stream is told');
unlike($out, qr/replica "replica1" streams/, 'D5: and not called a success');
like($err, qr/has already been removed/, 'D5: the reason is shown');
like(slurp_file("@{[ $replica->data_dir ]}.pg_replica_kit/server.log"), qr/started streaming WAL from primary/,
	'D5: although the server has logged the line that a reader would take for success');
adopt_replica($replica);
$replica->stop;

# A rebuild through a slot that has lost its WAL: it is made anew.
sql(q{ALTER SYSTEM SET max_slot_wal_keep_size = '16MB'; SELECT pg_reload_conf()});
sql(q{INSERT INTO t VALUES (1); SELECT pg_switch_wal(); CHECKPOINT}) for 1 .. 3;
$primary->poll_query_until('postgres', q{SELECT state = 'lost' AND health = 'critical' FROM replica_kit.status() WHERE name = 'replica1'})
  or die 'the slot is not lost';
pass('D22: a lost slot is critical');
my $rebuilt = new_replica('rebuilt');
($code, $out, $err) = run_script($script, \%env, '--pgdata', $rebuilt->data_dir, '--port', $rebuilt->port);
is($code, 0, 'D22: a rebuild makes it anew') or diag($err);
adopt_replica($rebuilt);
ok($primary->poll_query_until('postgres', q{SELECT state = 'streaming' AND wal_status = 'reserved' FROM replica_kit.status() WHERE name = 'replica1'}),
	'D22: and it holds WAL again');
$rebuilt->stop;
wait_until_unused();

# ----------------------------------------------------------------------
# D25 is in the refusals of the script, D27 in its test on a Debian cluster,
# D28 in the test of the README.
# ----------------------------------------------------------------------

sql(q{SELECT replica_kit.deprovision('replica1')});
is(slurp_file($hba), $hba_before, 'in the end pg_hba.conf is as it was');
$primary->stop;
done_testing();
