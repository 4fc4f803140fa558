# diagnose() on a standby whose replay stands still: for a lock, for a page, on
# purpose, at a target, at the end of a timeline.  Each has its own cause, and
# what would make it worse is not proposed.

use strict;
use warnings FATAL => 'all';

use FindBin;
use lib $FindBin::RealBin;

use DiagKit;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $primary = new_primary('primary', 'autovacuum = off', 'checkpoint_timeout = 1h', 'replica_kit.warning_lag = 1MB',
	'replica_kit.lag_grace = 1s', 'replica_kit.alert_after = 0', 'replica_kit.warning_disconnected = 1s', 'replica_kit.critical_disconnected = 1h');
my ($standby, $password) = new_standby($primary, 'replica1', 'max_standby_streaming_delay = -1');
my ($second, $password2) = new_standby($primary, 'second');
$primary->safe_psql('postgres', q{CREATE TABLE t AS SELECT i, repeat('x', 500) AS filler FROM generate_series(1, 100) i; DELETE FROM t WHERE i % 2 = 0});
$primary->wait_for_catchup('replica1');

sub found
{
	my ($name, $wanted) = @_;
	is(wait_for_diagnosis($standby, $wanted), $wanted, "$name: the standby says " . ($wanted || 'nothing'));
	return;
}

sub write_wal
{
	$primary->safe_psql('postgres', q{SELECT count(pg_logical_emit_message(false, '', repeat('x', 100000))) FROM generate_series(1, 30); CREATE TEMP TABLE x (i int)});
	return;
}

# ----------------------------------------------------------------------
# A session that has a lock and no snapshot
# ----------------------------------------------------------------------

my $reader = $standby->background_psql('postgres');
$reader->query_safe('BEGIN; SELECT count(*) FROM t');
$primary->safe_psql('postgres', 'ALTER TABLE t ADD COLUMN j int');
write_wal();
found('a lock', 'replay_conflict');
my ($pid) = split /\|/, $reader->query_safe('SELECT 1') =~ /1/ ? $standby->safe_psql('postgres', q{SELECT pid FROM pg_stat_activity WHERE state = 'idle in transaction'}) : '';
like($standby->safe_psql('postgres', q{SELECT evidence FROM replica_kit.diagnose('upstream')}),
	qr/^replay wants AccessExclusiveLock on relation "t" of database "postgres";\spid $pid \(role "\w+", idle in transaction for .*\) holds it;/, 'a lock: on what, and who holds it');
like($standby->safe_psql('postgres', q{SELECT evidence FROM replica_kit.diagnose('upstream')}), qr/max_standby_streaming_delay = -1: replay waits without limit/, 'a lock: for how long');
is(remedy($standby), '', 'a lock: nobody is ended unseen');
do_advised($standby, qr/pg_terminate_backend\($pid\)/);
found('the session ended', '');
eval { $reader->quit };

# ----------------------------------------------------------------------
# A cursor on a page
# ----------------------------------------------------------------------

$reader = $standby->background_psql('postgres');
$reader->query_safe('BEGIN; DECLARE c CURSOR FOR SELECT i FROM t; FETCH c');
$primary->safe_psql('postgres', 'VACUUM t');
write_wal();
found('a page', 'replay_conflict');
like($standby->safe_psql('postgres', q{SELECT evidence FROM replica_kit.diagnose('upstream')}), qr/^startup waits for Buffer(?:Pin|Cleanup) since .*;\soldest snapshot: pid \d+ \(role /, 'a page: who it probably is');
do_advised($standby, qr/pg_terminate_backend/);
found('the cursor closed', '');
eval { $reader->quit };

# ----------------------------------------------------------------------
# On purpose
# ----------------------------------------------------------------------

$standby->safe_psql('postgres', q{ALTER SYSTEM SET recovery_min_apply_delay = '10min'});
$standby->reload;
write_wal();
$primary->safe_psql('postgres', 'INSERT INTO t VALUES (1)');
found('delayed', 'replay_delayed');
is($standby->safe_psql('postgres', q{SELECT level, name FROM replica_kit.diagnose()}), 'info|upstream', 'delayed: worth an info');
is($standby->safe_psql('postgres', q{SELECT (SELECT health FROM replica_kit.standby_status()), (SELECT count(*) FROM replica_kit.unhealthy())}), 'ok|0', 'delayed: and nothing else');
ok($primary->poll_query_until('postgres', q{SELECT health <> 'ok' FROM replica_kit.status() WHERE name = 'replica1'}), 'delayed: the primary cannot know, and warns');
my ($overrides) = advice($standby) =~ /^  ('replica1: warning_lag=.*')$/m;
$primary->safe_psql('postgres', "ALTER SYSTEM SET replica_kit.overrides = $overrides");
$primary->reload;
soon_is($primary, q{SELECT health FROM replica_kit.status() WHERE name = 'replica1'}, 'ok', 'delayed: with the overrides that the advice prints it does not');
$primary->safe_psql('postgres', 'ALTER SYSTEM RESET replica_kit.overrides');
$primary->reload;
$standby->safe_psql('postgres', 'ALTER SYSTEM RESET recovery_min_apply_delay');
$standby->reload;
found('delayed no more', '');

# ----------------------------------------------------------------------
# A target that somebody left behind
# ----------------------------------------------------------------------

my $target = $primary->safe_psql('postgres', 'SELECT pg_current_wal_insert_lsn() + 100000');
$standby->safe_psql('postgres', "ALTER SYSTEM SET recovery_target_lsn = '$target'");
$standby->restart;
found('a target ahead', 'recovery_target_set');
write_wal();
$standby->poll_query_until('postgres', q{SELECT pg_get_wal_replay_pause_state() = 'paused'}) or die 'not paused';
found('a target reached', 'recovery_target_set');
unlike(remedy($standby) . advice($standby), qr/replay_resume/, 'a target reached: to resume would promote, so nothing proposes it');
like($standby->safe_psql('postgres', q{SELECT finding, evidence FROM replica_kit.diagnose('upstream')}), qr/Do not resume it: that would promote this server\.\|recovery_target_lsn = '\Q$target\E';/, 'a target reached: that is said');
do_advised($standby, qr/^ALTER SYSTEM RESET recovery_target_lsn;$/);
$standby->restart;
found('the target taken away', '');

# ----------------------------------------------------------------------
# An upstream that was promoted, and is not followed
# ----------------------------------------------------------------------

$standby->safe_psql('postgres', q{SELECT replica_kit.provision('second', '127.0.0.1')});
set_conninfo($second, $standby, user => 'second', password => $password2, application_name => 'second');
$second->append_conf('postgresql.conf', "recovery_target_timeline = 'current'");
$second->restart;
$standby->poll_query_until('postgres', q{SELECT count(*) = 1 FROM pg_stat_replication WHERE state = 'streaming'}) or die 'the second does not stream';
$standby->promote;
is(wait_for_diagnosis($second, 'timeline_not_followed'), 'timeline_not_followed', 'a timeline that is not followed: the standby knows why');
soon_is($second, q{SELECT name, remedy FROM replica_kit.diagnose() WHERE code <> 'reload_needed'}, "upstream|ALTER SYSTEM SET recovery_target_timeline = 'latest';", 'a timeline that is not followed: the setting is the remedy');
do_remedies($second);
$second->restart;
is(wait_for_diagnosis($second, ''), '', 'followed: nothing is wrong');

$_->stop foreach $second, $standby, $primary;
done_testing();
