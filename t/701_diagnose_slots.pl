# diagnose(), of replicas that went away and of what they leave behind: slots
# at risk and lost, WAL that is gone, roles, rules and slots that nobody uses.

use strict;
use warnings FATAL => 'all';

use FindBin;
use lib $FindBin::RealBin;

use DiagKit;
use JoinKit ();
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $primary = new_primary('primary', 'max_wal_size = 64MB', 'min_wal_size = 32MB', 'checkpoint_timeout = 1h',
	'autovacuum = off', 'autovacuum_freeze_max_age = 100000',
	'replica_kit.warning_disconnected = 1s', 'replica_kit.critical_disconnected = 1h');
my ($standby, $password) = new_standby($primary, 'replica1');
my $hba = $primary->data_dir . '/pg_hba.conf';

sub found
{
	my ($name, $code) = @_;
	is(wait_for_diagnosis($primary, $code), $code, "$name: " . ($code || 'silent'));
	return $code eq '' ? '' : remedy($primary);
}

# Ends one WAL segment after another.
sub switch_wal
{
	my ($count) = @_;
	$primary->safe_psql('postgres', 'CREATE TABLE IF NOT EXISTS w (i int)');
	$primary->safe_psql('postgres', "INSERT INTO w VALUES (1); SELECT pg_switch_wal()") for 1 .. $count;
	return;
}

# A standby whose data are of now, in the old one's place.
sub rebuild
{
	my ($slot) = @_;
	$standby->stop if -f $standby->data_dir . '/postmaster.pid';
	my $file = JoinKit::write_script($primary, 'replica1');
	$standby->{_rebuilt} //= 0;
	my $replica = JoinKit::new_replica('rebuilt' . ++$standby->{_rebuilt});
	my $secret = (split /\n/, $primary->safe_psql('postgres', q{SELECT replica_kit.rotate_password('replica1')}))[0];
	my ($code, $out, $err) = JoinKit::run_script($file, { PGPASSWORD => $secret },
		'--pgdata', $replica->data_dir, '--port', $replica->port);
	is($code, 0, 'the script rebuilds the replica') or diag($out, $err);
	JoinKit::adopt_replica($replica);
	my $count = $standby->{_rebuilt};
	$standby = $replica;
	$standby->{_rebuilt} = $count;
	return;
}

found('a healthy pair', '');

# ----------------------------------------------------------------------
# Away
# ----------------------------------------------------------------------

$standby->stop;
my $remedy = found('stopped', 'replica_down');
$primary->poll_query_until('postgres', q{SELECT level = 'warning' FROM replica_kit.diagnose()}) or die 'no warning';
is($primary->safe_psql('postgres', q{SELECT finding ~ 'a restart of it is enough', evidence ~ '^disconnected .* ago .* from 127.0.0.1; no attempt since; slot retains .* without limit$' FROM replica_kit.diagnose()}), 't|t',
	'stopped: a restart is enough, since its WAL is here');
is($remedy, '', 'stopped: nothing that SQL here could do');
like(advice($primary), qr/^On 127\.0\.0\.1 start its PostgreSQL server\. .*\nIf it will never return, here: SELECT \* FROM replica_kit\.deprovision\('replica1'\);$/,
	'stopped: the advice says where it was, and what removes it');

switch_wal(6);
$primary->safe_psql('postgres', 'CHECKPOINT');
found('stopped, holding WAL without limit', 'replica_down,slot_unlimited');
is($primary->safe_psql('postgres', q{SELECT code, name, level FROM replica_kit.diagnose() OFFSET 2}), 'reload_needed|server|info', 'stopped, holding WAL without limit: the last row is a reload');
do_remedies($primary);
found('a limit was set', 'replica_down');
is($primary->safe_psql('postgres', q{SELECT state FROM replica_kit.status()}), 'disconnected', 'and costs no slot');

$primary->safe_psql('postgres', q{ALTER SYSTEM SET max_slot_wal_keep_size = '112MB'});
$primary->reload;
$remedy = found('the limit is near', 'slot_at_risk');
is($primary->safe_psql('postgres', q{SELECT level, finding ~ 'If it is started in time, it only has to catch up' FROM replica_kit.diagnose('replica1') WHERE code <> 'reload_needed'}), 'warning|t', 'the limit is near: a warning, and not lost yet');
$primary->safe_psql('postgres', $remedy);
found('more time', 'replica_down');

# Where it comes from is not known any more, so that none of its attempts would be.
$primary->stop('immediate');
$primary->start;
found('stopped, and the primary has crashed', 'replica_down');
like($primary->safe_psql('postgres', 'SELECT evidence FROM replica_kit.diagnose()'), qr/;\sno attempt since that is known to be its own;\sslot retains /, 'stopped, and the primary has crashed: of its attempts nothing is known');

$primary->safe_psql('postgres', q{ALTER SYSTEM SET max_slot_wal_keep_size = '32MB'});
$primary->reload;
$remedy = found('past the limit', 'slot_at_risk');
soon_is($primary, q{SELECT alert FROM replica_kit.status()}, 'critical', 'past the limit: announced as critical');
$primary->safe_psql('postgres', $remedy);
found('more time again', 'replica_down');
soon_is($primary, q{SELECT level, reason ~ '^disconnected for [^,]*$' FROM replica_kit.unhealthy()}, 'warning|t', 'more time again: what is left of the alarm is that it is away');
$standby->start;
found('back', '');

# ----------------------------------------------------------------------
# Lost
# ----------------------------------------------------------------------

$standby->stop;
$primary->safe_psql('postgres', q{ALTER SYSTEM SET max_slot_wal_keep_size = '32MB'});
$primary->reload;
switch_wal(8);
$primary->safe_psql('postgres', 'CHECKPOINT');
$remedy = found('lost', 'slot_lost');
is($primary->safe_psql('postgres', q{SELECT level, finding ~ 'Starting it is not enough, rebuild it' FROM replica_kit.diagnose()}), 'critical|t', 'lost: it says that a restart is not enough');
like(advice($primary), qr/^  sh join_replica1\.sh --cluster \d+\/main --rebuild  /m, 'lost: the advice is one command');
foreach my $summarize ($primary->safe_psql('postgres', 'SHOW server_version_num') >= 170000 ? (qw(on off)) : ('off'))
{
	if ($primary->safe_psql('postgres', 'SHOW server_version_num') >= 170000)
	{
		$primary->safe_psql('postgres', "ALTER SYSTEM SET summarize_wal = $summarize");
		$primary->reload;
		$primary->poll_query_until('postgres', q{SELECT current_setting('summarize_wal')}, $summarize);
	}
	found("lost, summarize_wal $summarize", 'slot_lost');
	my $step = $summarize eq 'on' ? 'changed blocks, or a full clone' : 'a full clone';
	like(advice($primary), qr/^The step there: $step, unless --restore-command fetches the WAL from an archive\.$/m, "lost, summarize_wal $summarize: the advice says which step there is");
}
$standby->start;
is(wait_for_diagnosis($standby, $standby->safe_psql('postgres', 'SHOW server_version_num') >= 180000 ? 'slot_lost' : 'wal_removed'),
	$standby->safe_psql('postgres', 'SHOW server_version_num') >= 180000 ? 'slot_lost' : 'wal_removed', 'lost: the standby says so, too');
soon_is($standby, q{SELECT level, finding ~ 'must be rebuilt' FROM replica_kit.diagnose()}, 'critical|t', 'lost: and what it needs');

$standby->stop;
is($remedy, '', 'lost: nothing is to be done on the primary');
renew_slot($primary, 'replica1');
rebuild();
found('lost and rebuilt', '');
is(wait_for_diagnosis($standby, ''), '', 'lost and rebuilt: the standby is silent');

# Without a slot the primary does not even know that there is a replica.
$standby->stop;
$standby->append_conf('postgresql.conf', "primary_slot_name = ''");
$standby->append_conf('postgresql.auto.conf', "primary_slot_name = ''");
drop_slot($primary, 'replica1');
switch_wal(8);
$primary->safe_psql('postgres', 'CHECKPOINT');
$standby->start;
found('no slot, and the WAL is gone', 'wal_removed');

# Between its connection and its refusal it has a walsender, for an instant;
# this one stays.
my ($in, $out) = ('', '');
my $attempt = IPC::Run::start([ 'psql', '-X', '-d', $primary->connstr . ' replication=1 application_name=replica1' ], '<', \$in, '>', \$out, '2>&1');
$primary->poll_query_until('postgres', q{SELECT count(*) = 1 FROM pg_stat_replication WHERE usename = current_user AND application_name = 'replica1'})
  or die 'no walsender';
is($primary->safe_psql('postgres', q{SELECT code FROM replica_kit.diagnose()}), 'wal_removed', 'no slot, and the WAL is gone: that is said also at the instant of an attempt');
$attempt->kill_kill;

soon_is($primary, q{SELECT level, name, finding ~ 'it has no slot.*rebuild it' FROM replica_kit.diagnose()}, 'critical|replica1|t', 'no slot, and the WAL is gone: that is said');
is(wait_for_diagnosis($standby, 'wal_removed'), 'wal_removed', 'no slot, and the WAL is gone: the standby knows');
$standby->stop;
$primary->safe_psql('postgres', q{SELECT * FROM replica_kit.provision('replica1', '127.0.0.1')});
rebuild();
found('rebuilt with a slot', '');

# ----------------------------------------------------------------------
# Held back, synchronous
# ----------------------------------------------------------------------

$standby->append_conf('postgresql.conf', "hot_standby_feedback = on\nwal_receiver_status_interval = 1");
$standby->reload;
my $holder = $standby->background_psql('postgres');
$holder->query_safe('BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT count(*) FROM pg_class');
$primary->poll_query_until('postgres', q{SELECT xmin IS NOT NULL FROM pg_replication_slots WHERE slot_name = 'replica1'}) or die 'no xmin';
$primary->safe_psql('postgres', q{DO $$ BEGIN FOR i IN 1 .. 30000 LOOP BEGIN INSERT INTO w VALUES (i); EXCEPTION WHEN division_by_zero THEN NULL; END; END LOOP; END $$});
found('an old snapshot', 'xmin_held_back');
$holder->query_safe('COMMIT');
$holder->quit;
found('the snapshot ended', '');

$primary->safe_psql('postgres', q{ALTER SYSTEM SET synchronous_standby_names = 'replica1'});
$primary->reload;
found('synchronous', '');
$standby->stop;
$remedy = found('synchronous and away', 'replica_down,sync_standby_missing');
is($primary->safe_psql('postgres', q{SELECT level FROM replica_kit.diagnose('server')}), 'info', 'synchronous and away: while no commit waits that is no alarm');
is($remedy, '', 'synchronous and away: to do without is a decision');
do_advised($primary, qr/synchronous_standby_names|reload/);
found('no longer synchronous', 'replica_down');
$standby->start;
found('back again', '');

# ----------------------------------------------------------------------
# What is left behind
# ----------------------------------------------------------------------

my $rule = slurp_file($hba) =~ /^(host.*# pg_replica_kit: replica1)$/m ? $1 : die 'no rule';
append_to_file($hba, ($rule =~ s/replica1/gone/gr) . "\n");
$primary->reload;
$remedy = found('a rule alone', 'orphan_rule');
is($primary->safe_psql('postgres', q{SELECT level, name FROM replica_kit.diagnose()}), 'info|gone', 'a rule alone: is worth an info');
is(wait_for_diagnosis($standby, ''), '', 'a rule alone: on a standby lines are no orphans');
do_advised($primary, qr/deprovision/);
found('the rule is gone', '');

$primary->safe_psql('postgres', q{SELECT replica_kit.provision('second', '127.0.0.1')});
found('a new one is no trouble for a day', '');
$primary->safe_psql('postgres', q{SELECT pg_drop_replication_slot('second')});
$remedy = found('a role without its slot', 'replica_not_attached');
is($remedy, q{SELECT * FROM replica_kit.provision('second', '127.0.0.1/32');}, 'a role without its slot: it is given one');
do_remedies($primary);
found('it has a slot', '');
$primary->safe_psql('postgres', q{SELECT pg_drop_replication_slot('second'); SELECT replica_kit.revoke_address('second', '127.0.0.1')});
$remedy = found('a role alone', 'orphan_role');
is($remedy, '', 'a role alone: nothing destroys it unseen');
do_advised($primary, qr/deprovision/);
found('the role is gone', '');

$primary->safe_psql('postgres', q{SELECT replica_kit.provision('second', '127.0.0.1')});
$primary->safe_psql('postgres', q{DROP ROLE second});
$remedy = found('a slot without its role', 'orphan_slot');
is($remedy, '', 'a slot without its role: nothing destroys it unseen');
do_advised($primary, qr/deprovision/);
found('the slot is gone', '');

# ----------------------------------------------------------------------
# The server itself
# ----------------------------------------------------------------------

my $conf = slurp_file($primary->data_dir . '/postgresql.conf');
append_to_file($primary->data_dir . '/postgresql.conf', "\nno_such_setting = 1\n");
$remedy = found('an error in the configuration', 'restart_would_fail');
like($primary->safe_psql('postgres', q{SELECT evidence FROM replica_kit.diagnose()}), qr/^no_such_setting: .*line \d+ of /, 'an error in the configuration: its line is named');
open my $fh, '>', $primary->data_dir . '/postgresql.conf' or die $!;
print $fh $conf;
close $fh;
do_advised($primary, qr/pg_reload_conf/);
found('the configuration is right again', '');
$primary->safe_psql('postgres', q{ALTER SYSTEM SET max_connections = 123});
$primary->reload;
found('a change that waits for a restart is no error', '');
$primary->safe_psql('postgres', q{ALTER SYSTEM RESET max_connections});
$primary->reload;

my $slots = $primary->safe_psql('postgres', q{SELECT current_setting('max_replication_slots')::int - count(*) FROM pg_replication_slots});
$primary->safe_psql('postgres', "SELECT pg_create_physical_replication_slot('full' || i) FROM generate_series(1, $slots) i");
$primary->command_fails([ 'pg_basebackup', '-d', $primary->connstr('postgres'), '-D', $primary->backup_dir . '/full', '-c', 'fast', '--no-sync' ], 'no slot is left for a base backup');
is($primary->safe_psql('postgres', q{SELECT code, level FROM replica_kit.diagnose('server') WHERE code <> 'reload_needed'}), 'slots_exhausted|warning', 'all slots used: is said when somebody went without');
$primary->safe_psql('postgres', q{SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots WHERE slot_name LIKE 'full%'});
found('slots are free', '');

my ($worker) = slurp_file($primary->logfile) =~ /.*\[(\d+)\] LOG:  replica_kit worker started/s or die 'no worker';
kill 'STOP', $worker;
$remedy = found('a worker that hangs', 'worker_stale');
like(advice($primary), qr/^  kill $worker$/m, 'a worker that hangs: the advice ends it');
kill 'TERM', $worker;
kill 'CONT', $worker;
found('it was started again', '');

$standby->stop;
$primary->stop;
done_testing();
