# One voice: what diagnose(), status(), unhealthy() and assert_healthy() say of
# the same thing is the same, between two looks of the worker as well.

use strict;
use warnings FATAL => 'all';

use FindBin;
use lib $FindBin::RealBin;

use DiagKit;
use IPC::Run ();
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $primary = new_primary('primary', 'autovacuum = off', 'checkpoint_timeout = 1h', 'max_wal_size = 64MB', 'min_wal_size = 32MB',
	'replica_kit.warning_lag = 1MB', 'replica_kit.critical_lag = 2MB', 'replica_kit.lag_grace = 0', 'replica_kit.alert_after = 1h',
	'archive_mode = on', q{archive_command = '/bin/true'});
my ($standby, $password) = new_standby($primary, 'replica1');

# One more, of which this is the slot and the role.
sub new_twin
{
	my ($secret) = $primary->safe_psql('postgres', q{SELECT password FROM replica_kit.provision('twin', '127.0.0.1')});
	my $node = PostgreSQL::Test::Cluster->new('twin');
	$primary->backup('twin');
	$node->init_from_backup($primary, 'twin', has_streaming => 1);
	$node->append_conf('postgresql.conf', q{primary_slot_name = 'twin'});
	set_conninfo($node, $primary, user => 'twin', password => $secret, application_name => 'twin');
	return $node;
}

$primary->safe_psql('postgres', 'CREATE TABLE t (i int)');

# The levels that each mouth has of the replica, in one query.
my $mouths = q{SELECT (SELECT health FROM replica_kit.status() WHERE name = 'replica1'),
	(SELECT level FROM replica_kit.diagnose('replica1') WHERE name = 'replica1'),
	(SELECT level FROM replica_kit.unhealthy() WHERE name = 'replica1')};

# ----------------------------------------------------------------------
# What is asked at night can be asked, on either server
# ----------------------------------------------------------------------

my @asked = slurp_file("$FindBin::RealBin/../doc/3am.md") =~ /^\|[^|]*\|[^|]*?`(SELECT .*?)`/mg;
cmp_ok(scalar @asked, '>=', 15, 'the page for the night asks for each row');
foreach my $query (@asked)
{
	my $here = $query =~ s/'X'/'replica1'/r =~ s/ADDRESS/127.0.0.1/r =~ s/ \\gx$/;/r;
	is($primary->psql('postgres', $here), 0, "at night: $query");
	is($standby->psql('postgres', $here), 0, "at night, on the standby: $query") if $query !~ /replica1|'X'|assert_healthy/;
}

# ----------------------------------------------------------------------
# What has to last first
# ----------------------------------------------------------------------

$standby->safe_psql('postgres', 'SELECT pg_wal_replay_pause()');
$primary->safe_psql('postgres', q{SELECT count(pg_logical_emit_message(false, '', repeat('x', 100000))) FROM generate_series(1, 40)});
soon_is($primary, $mouths, 'critical|info|', 'a lag that has not lasted: critical in itself, worth an info, and no alarm');
is($primary->psql('postgres', 'SELECT replica_kit.assert_healthy()'), 0, 'a lag that has not lasted: no alarm for a scheduler');
$primary->safe_psql('postgres', 'ALTER SYSTEM SET replica_kit.alert_after = 0');
$primary->reload;
soon_is($primary, $mouths, 'critical|critical|critical', 'a lag that counts at once: critical everywhere');
isnt($primary->psql('postgres', 'SELECT replica_kit.assert_healthy()'), 0, 'a lag that counts at once: an alarm for a scheduler');
$standby->safe_psql('postgres', 'SELECT pg_wal_replay_resume()');
soon_is($primary, $mouths, 'ok||', 'replayed: nothing anywhere');

# ----------------------------------------------------------------------
# Commits that hang
# ----------------------------------------------------------------------

my $server = q{SELECT (SELECT level FROM replica_kit.diagnose('server')), (SELECT level FROM replica_kit.unhealthy() WHERE name = 'server')};
$primary->safe_psql('postgres', q{ALTER SYSTEM SET synchronous_standby_names = 'replica1'});
$primary->reload;
$standby->stop;
my $commit = IPC::Run::start([ 'psql', '-X', '-d', $primary->connstr('postgres'), '-c', 'INSERT INTO t VALUES (1)' ], '<', '/dev/null', '>', '/dev/null', '2>', '/dev/null');
$primary->poll_query_until('postgres', q{SELECT count(*) = 1 FROM pg_stat_activity WHERE wait_event = 'SyncRep'}) or die 'the commit does not wait';
soon_is($primary, $server, 'info|', 'a commit that waits: the restart of a standby is no alarm');
soon_is($primary, $server, 'critical|critical', 'a commit that hangs: critical everywhere');
isnt($primary->psql('postgres', 'SELECT replica_kit.assert_healthy()'), 0, 'a commit that hangs: an alarm for a scheduler');
$primary->safe_psql('postgres', q{SET synchronous_commit = local; SELECT replica_kit.silence('replica1')});
is($primary->safe_psql('postgres', $server), 'critical|critical', 'a commit that hangs: no silence of a replica mutes the server');
$primary->safe_psql('postgres', q{SELECT replica_kit.unsilence('replica1'), replica_kit.silence('server')});
is($primary->safe_psql('postgres', $server), 'critical|', 'a commit that hangs: its own silence does');
is($primary->psql('postgres', 'SELECT replica_kit.assert_healthy()'), 0, 'a commit that hangs: for a scheduler, too');
$primary->safe_psql('postgres', q{SELECT replica_kit.unsilence('server')});
is($primary->safe_psql('postgres', $server), 'critical|critical', 'a commit that hangs: and then not');
like($primary->safe_psql('postgres', q{SELECT evidence FROM replica_kit.diagnose('server')}), qr/^synchronous_standby_names = 'replica1': 0 of 1 connected;\s1 session waits for (?:[1-5]\d s|\d+ min.*)$/,
	'a commit that hangs: since when');
ok($primary->wait_for_log(qr/WARNING:  server critical: commits hang for .*: 0 of 1 synchronous standbys connected\n.*DETAIL:  synchronous_standby_names is "replica1"/), 'a commit that hangs: the worker says so');
$primary->safe_psql('postgres', q{SET synchronous_commit = local; ALTER SYSTEM SET synchronous_standby_names = ''});
$primary->reload;
$commit->finish;
soon_is($primary, $server, '|', 'done without: nothing anywhere');
ok($primary->wait_for_log(qr/LOG:  server ok: enough synchronous standbys are connected, after /), 'done without: the worker says so');
$standby->start;
soon_is($primary, $mouths, 'ok||', 'and back');

# ----------------------------------------------------------------------
# An archive that takes nothing
# ----------------------------------------------------------------------

# Sets the command of the archiver, and gives it something to do.
sub archive_by
{
	my ($command) = @_;
	$primary->safe_psql('postgres', "ALTER SYSTEM SET archive_command = '$command'");
	$primary->reload;
	$primary->safe_psql('postgres', 'INSERT INTO t VALUES (1); SELECT pg_switch_wal()');
	return;
}

$primary->safe_psql('postgres', q{ALTER SYSTEM SET replica_kit.overrides = 'server: warning_disconnected=1s critical_disconnected=2s'});
archive_by('/bin/false');
soon_is($primary, $server, 'critical|critical', 'an archive that fails: critical everywhere');
isnt($primary->psql('postgres', 'SELECT replica_kit.assert_healthy()'), 0, 'an archive that fails: an alarm for a scheduler');
ok($primary->wait_for_log(qr/WARNING:  server critical: nothing was archived for .*, \d+ MB of WAL waits\n.*DETAIL:  Files that wait: \d+; failures: \d+, the last at .* on \w{24}; .* free\./), 'an archive that fails: the worker says so');
soon_like($primary, q{SELECT code, finding, evidence FROM replica_kit.diagnose('server')},
	qr/^archive_failing\|Archiving fails, so WAL files cannot be removed\. None is lost\.\|\d+ failures?, (?:the last )?.* ago \(.*\) on \w{24};\snothing was archived for .*;\s.*slots retain .*: no replica is to blame$/s, 'an archive that fails: what, since when, and whose fault it is not');

my $gate = "$PostgreSQL::Test::Utils::tmp_check/archive_gate";
append_to_file("$gate.sh", "while test ! -e $gate; do sleep 0.1; done\n");
archive_by("sh $gate.sh");
soon_like($primary, q{SELECT code, finding FROM replica_kit.diagnose('server')}, qr/^archive_failing\|Archiving (?:fails|stands still),/, 'an archive command that does not end: the same');
append_to_file($gate, 'x');
archive_by('/bin/true');
soon_is($primary, $server, '|', 'mended: nothing anywhere');
ok($primary->wait_for_log(qr/LOG:  server ok: (?:no WAL waits to be archived|nothing was archived for .* of WAL waits), after /), 'mended: the worker says so');

# A file that is half written when it reloads has no command, for it alone.
$primary->safe_psql('postgres', q{ALTER SYSTEM SET archive_command = ''});
kill 'HUP', $primary->safe_psql('postgres', q{SELECT pid FROM pg_stat_activity WHERE backend_type = 'archiver'});
my $log_from = -s $primary->logfile;
$primary->safe_psql('postgres', 'INSERT INTO t VALUES (1); SELECT pg_switch_wal()');
ok($primary->wait_for_log(qr/archiving is not configured/, $log_from), 'an archiver that has read another file: it does nothing');
$primary->safe_psql('postgres', q{ALTER SYSTEM SET archive_command = '/bin/true'});
soon_like($primary, q{SELECT finding, advice FROM replica_kit.diagnose('server')}, qr/^Archiving stands still,.*"archiving is not configured".*reload/s, 'an archiver that has read another file: said what to do');
$primary->reload;
soon_is($primary, $server, '|', 'an archiver that has read another file: a reload mends it');

archive_by('');
soon_like($primary, q{SELECT level, finding FROM replica_kit.diagnose('server')}, qr/^critical\|Archiving is not configured,/, 'no archive command: critical as well');
archive_by('/bin/true');
soon_is($primary, $server, '|', 'one is set: nothing anywhere');
$primary->safe_psql('postgres', 'ALTER SYSTEM RESET replica_kit.overrides');
$primary->reload;
soon_is($primary, $mouths, 'ok||', 'and the replica is well');

# ----------------------------------------------------------------------
# A replica that is called as the server is
# ----------------------------------------------------------------------

$primary->safe_psql('postgres', q{SELECT pg_create_physical_replication_slot('server', true); ALTER SYSTEM SET replica_kit.overrides = 'server: off, *: warning_disconnected=0 critical_disconnected=-1'});
$primary->reload;
$primary->poll_query_until('postgres', q{SELECT reason ~ '^never connected' FROM replica_kit.status() WHERE name = 'server'}) or die 'not watched';
$primary->safe_psql('postgres', q{INSERT INTO t VALUES (1); SELECT pg_replication_slot_advance('server', pg_current_wal_lsn())});
soon_is($primary, q{SELECT name, level FROM replica_kit.unhealthy()}, '"server"|warning', 'a replica called server: in quotes, and not what is off');
soon_is($primary, q{SELECT name, level FROM replica_kit.diagnose('"server"')}, '"server"|warning', 'a replica called server: in diagnose() as well');
$primary->safe_psql('postgres', q{ALTER SYSTEM SET replica_kit.overrides = '"server": off'});
$primary->reload;
soon_is($primary, 'SELECT count(*) FROM replica_kit.unhealthy()', '0', 'a replica called server: off by its name in quotes');
drop_slot($primary, 'server');
$primary->safe_psql('postgres', 'ALTER SYSTEM RESET replica_kit.overrides');
$primary->reload;
soon_is($primary, $mouths, 'ok||', 'and gone');

# ----------------------------------------------------------------------
# What needs not last, long before the worker looks again
# ----------------------------------------------------------------------

$standby->stop;
$primary->safe_psql('postgres', q{ALTER SYSTEM SET max_slot_wal_keep_size = '32MB'; ALTER SYSTEM SET replica_kit.check_interval = '10min'});
$primary->reload;
$primary->safe_psql('postgres', 'INSERT INTO t VALUES (1); SELECT pg_switch_wal()') for 1 .. 8;
$primary->safe_psql('postgres', 'CHECKPOINT');
is($primary->safe_psql('postgres', $mouths), 'critical|critical|critical', 'a lost slot: critical everywhere at once');
isnt($primary->psql('postgres', 'SELECT replica_kit.assert_healthy()'), 0, 'a lost slot: an alarm for a scheduler');

# ----------------------------------------------------------------------
# A slot that somebody has dropped
# ----------------------------------------------------------------------

$primary->safe_psql('postgres', q{ALTER SYSTEM SET replica_kit.check_interval = '100ms'; ALTER SYSTEM RESET max_slot_wal_keep_size});
$primary->reload;
my $alive = new_twin();
$alive->start;
$primary->poll_query_until('postgres', q{SELECT count(*) = 1 FROM pg_stat_replication WHERE application_name = 'twin' AND state = 'streaming'}) or die 'the twin does not stream';
$primary->safe_psql('postgres', <<'SQL');
DO $$
BEGIN
	FOR i IN 1 .. 10000 LOOP
		BEGIN
			PERFORM pg_terminate_backend(active_pid) FROM pg_replication_slots WHERE slot_name = 'twin';
			PERFORM pg_drop_replication_slot('twin');
			RETURN;
		EXCEPTION WHEN object_in_use THEN
			PERFORM pg_sleep(0.002);
		END;
	END LOOP;
	RAISE 'the slot stays';
END $$;
SQL
my $dropped = q{SELECT (SELECT code || ' ' || level FROM replica_kit.diagnose('twin')), (SELECT level FROM replica_kit.unhealthy() WHERE name = 'twin')};
soon_is($primary, $dropped, 'slot_missing critical|critical', 'a slot that is dropped: critical everywhere');
ok($primary->wait_for_log(qr/WARNING:  replica "twin" critical: asks for a slot that does not exist/), 'a slot that is dropped: the worker says so');

# a role that may not replicate any more has not tried so yet
$alive->stop;
$primary->safe_psql('postgres', 'ALTER ROLE twin NOREPLICATION');
is($primary->safe_psql('postgres', $dropped), 'slot_missing critical|critical', 'a slot that is dropped, and the role changed: still the same everywhere');
$primary->safe_psql('postgres', 'ALTER ROLE twin REPLICATION');
$alive->start;
wait_for_diagnosis($primary, 'slot_lost,slot_missing');
do_remedies($primary);
soon_is($primary, q{SELECT count(*) FROM replica_kit.unhealthy() WHERE name = 'twin'}, '0', 'created again: nothing anywhere');
ok($primary->wait_for_log(qr/LOG:  replica "twin" ok: no longer refused, after /), 'created again: the worker says so');
$alive->stop;

# ----------------------------------------------------------------------
# A standby that no attempt can help
# ----------------------------------------------------------------------

$standby->start;
my $of_standby = q{SELECT (SELECT health || ' ' || state FROM replica_kit.standby_status()),
	(SELECT level FROM replica_kit.diagnose('upstream') WHERE level = 'critical'),
	(SELECT level FROM replica_kit.unhealthy('critical') WHERE name = 'upstream')};
soon_is($standby, $of_standby, 'critical disconnected|critical|critical', 'WAL that is gone: critical everywhere on the standby');
is($standby->safe_psql('postgres', join(';', ($of_standby) x 100)), join("\n", ('critical disconnected|critical|critical') x 100),
	'WAL that is gone: at each moment, whether it is just trying or not');

$standby->stop;
$primary->stop;
done_testing();
