# The transcript of a guide for doing this by hand, through the kit: a replica
# is set up, falls out of sync, and is brought back by what diagnose() prints.
# Twice: WAL removed under a replica without a slot, and a slot that is lost.

use strict;
use warnings FATAL => 'all';

use FindBin;
use lib $FindBin::RealBin;

use DiagKit;
use JoinKit qw(enable_tls run_alone new_replica adopt_replica slurp);
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

# With new_primary() the kit is preloaded, on the replica too: its
# configuration comes with the clone.
my $primary = new_primary('primary', 'max_wal_size = 64MB', 'min_wal_size = 32MB', 'checkpoint_timeout = 1h', 'autovacuum = off');
enable_tls($primary);
my $replica = new_replica('replica');
my $pgdata = $replica->data_dir;
my $home = PostgreSQL::Test::Utils::tempdir;
my ($code, $out, $err);

sub sql
{
	my ($sql, $node) = @_;

	return ($node // $primary)->safe_psql('postgres', $sql);
}

# Neither server has anything to say, and what is written here arrives there.
my $rows = 0;

sub all_is_well
{
	my ($what) = @_;

	is(wait_for_diagnosis($primary, ''), '', "$what: diagnose() has no row on the primary");
	is(wait_for_diagnosis($replica, ''), '', "$what: nor on the replica");
	for my $node ($primary, $replica)
	{
		soon_is($node, q{SELECT * FROM replica_kit.unhealthy()}, '', "$what: nor has unhealthy(), on the " . $node->name);
	}
	soon_is($primary, <<~SQL, "127.0.0.1|streaming|replica1|t|reserved", "$what: the query of the guide shows it");
		SELECT client_addr, state, slot_name, active, wal_status
		  FROM pg_stat_replication JOIN pg_replication_slots ON active_pid = pid
		SQL
	sql(q{INSERT INTO t VALUES (1)});
	$rows++;
	ok($replica->poll_query_until('postgres', "SELECT count(*) = $rows FROM t"), "$what: a new row arrives");
	return;
}

# Away with the WAL that nobody holds.
sub move_on
{
	sql(q{INSERT INTO w VALUES (1); SELECT pg_switch_wal()}) for 1 .. 8;
	sql('CHECKPOINT');
	return;
}

# What one side finds: code, level and replica.  Waits for it.
sub finds
{
	my ($what, $node, $code, $name) = @_;

	is(wait_for_diagnosis($node, $code), $code, "$what: the " . $node->name . " says $code");
	soon_is($node, q{SELECT name, level, finding ~* '(Starting it|A restart) is not enough.*(rebuild it|must be rebuilt)' FROM replica_kit.diagnose()},
		"$name|critical|t", "$what: for whom, and that it must be rebuilt");
	is(remedy($node), '', "$what: that is nothing for a statement");
	return advice($node);
}

# The command in an advice, run as it is printed where the script was saved.
sub run_advice
{
	my ($what, $advice) = @_;
	my ($command) = $advice =~ /(sh join_replica1\.sh --(?:pgdata|cluster) \S+ --rebuild)(?: {2}|$)/m;

	ok(defined $command, "$what: the advice is one command") or return;
	$command =~ s/--pgdata DIR|--cluster \S+/--pgdata '$pgdata'/;
	($code, $out, $err) = run_alone({}, 'setsid', 'sh', '-c', "cd '$home' && $command");
	is($code, 0, "$what: which ends well");
	like($out, qr/a restart is not enough: .*(removed|no longer)/, "$what: it says that a restart was not enough");
	adopt_replica($replica);
	return;
}

# ----------------------------------------------------------------------
# Setup, as a person would
# ----------------------------------------------------------------------

sql('CREATE TABLE t (i int); CREATE TABLE w (i int)');
my $row = $primary->safe_psql('postgres', q{SELECT password, next_step FROM replica_kit.provision('replica1', '127.0.0.1')},
	connstr => 'host=127.0.0.1 dbname=postgres port=' . $primary->port);
my ($password, $next_step) = split /\|/, $row, 2;
my ($get_script) = $next_step =~ /^(psql .*) > join_replica1\.sh$/ or die $next_step;

($code, $out, $err) = run_alone({ PGPASSWORD => $password }, 'setsid', 'sh', '-c',
	"PGHOST='@{[ $primary->host ]}' $get_script | sh -s -- --pgdata '$pgdata' --port @{[ $replica->port ]}");
is($code, 0, 'the script, piped into a shell, makes the replica');
adopt_replica($replica);
all_is_well('set up');
is(system("cd '$home' && PGHOST='@{[ $primary->host ]}' $get_script > join_replica1.sh"), 0, 'or it is saved, as next_step has it');

# ----------------------------------------------------------------------
# WAL removed under a replica without a slot
# ----------------------------------------------------------------------

# As if the guide's step with the slot's name had been forgotten; the slot
# that nobody uses then is dropped by the guide's own statement.
sql('ALTER SYSTEM RESET primary_slot_name', $replica);
$replica->reload;
drop_slot($primary, 'replica1');
$replica->stop;
move_on();
$replica->append_conf('postgresql.conf', 'wal_retrieve_retry_interval = 10ms');
$replica->start;
my $advice = finds('no slot', $primary, 'wal_removed', 'replica1');
# Of one of its attempts: a line of somebody else's may come in between.
$replica->wait_for_log(qr/started streaming WAL from primary at .*\n.*requested WAL segment [0-9A-F]{24} has already been removed/);
like(slurp($replica->logfile), qr/started streaming WAL from primary at .*\n.*requested WAL segment [0-9A-F]{24} has already been removed/,
	'no slot: the log is that of the guide');
is(sql(q{SELECT code, advice LIKE '%sh join_replica1.sh %' FROM pg_sleep(0.002), replica_kit.diagnose();} x 500), join("\n", ('wal_removed|t') x 500),
	'no slot: diagnose() says so at any moment, whether the replica is just trying or not');
finds('no slot', $replica, 'wal_removed', 'upstream');
run_advice('no slot', $advice);
all_is_well('no slot');
is(system($out =~ /if nobody needs it, run: (rm -rf .*)$/m ? $1 : 'false'), 0, 'no slot: the old data is removed by the command that is printed');

# ----------------------------------------------------------------------
# A slot beyond max_slot_wal_keep_size
# ----------------------------------------------------------------------

$replica->stop;
sql(q{ALTER SYSTEM SET max_slot_wal_keep_size = '32MB'});
$primary->reload;
move_on();
$advice = finds('slot lost', $primary, 'slot_lost', 'replica1');
is(sql(q{SELECT slot_name, wal_status FROM pg_replication_slots}), 'replica1|lost', 'slot lost: it is');
$replica->start;

# Only from 18 on is a replica told that its slot is lost.
$advice = finds('slot lost', $replica, $primary->pg_version >= 18 ? 'slot_lost' : 'wal_removed', 'upstream');
like($advice, qr/ --pgdata \Q$pgdata\E /, 'slot lost: the replica knows its directory') if $pgdata !~ m![^A-Za-z0-9_./-]!;
finds('slot lost', $primary, 'slot_lost', 'replica1');
run_advice('slot lost', $advice);
all_is_well('slot lost');

# The new slot holds WAL; on 17 one that had been lost would not.
$replica->stop;
sql(q{INSERT INTO w VALUES (1); SELECT pg_switch_wal()});
sql('CHECKPOINT');
$replica->start;
all_is_well('after a pause');

$replica->stop;
$primary->stop;
done_testing();
