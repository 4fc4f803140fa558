# Why a slot was lost: in the reason, in the alert and in the diagnosis, for
# each cause that the server has.

use strict;
use warnings FATAL => 'all';

use FindBin;
use lib $FindBin::RealBin;

use DiagKit;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $primary = new_primary('primary', 'wal_level = logical', 'checkpoint_timeout = 1h', 'autovacuum = off',
	'max_wal_size = 64MB', 'min_wal_size = 32MB');
my ($standby, $password) = new_standby($primary, 'replica1', 'hot_standby_feedback = off',
	'wal_receiver_status_interval = 1');
my $version = $primary->safe_psql('postgres', 'SHOW server_version_num');

# The cause by name and in words, wherever the kit tells of a slot that is lost.
sub tells
{
	my ($node, $slot, $fate, $cause, $words) = @_;
	my $offset = $node->{_told}->{$slot} // 0;

	is($node->safe_psql('postgres', "SELECT state, health, reason FROM replica_kit.status() WHERE name = '$slot'"),
		"lost|critical|slot is lost, $fate: $words", "$cause: status() says why");

	# While the checkpointer has it, it is "unreserved", in the view as well.
	$node->wait_for_log(qr/WARNING:  replica "$slot" critical: slot is lost, $fate: \Q$words\E\n[^\n]*DETAIL:  [^\n]*wal_status "(?:lost|unreserved)", cause "$cause"/, $offset);
	pass("$cause: so does the alert");
	like($node->safe_psql('postgres', "SELECT code, evidence FROM replica_kit.diagnose('$slot')"),
		qr/^slot_lost\|wal_status is "lost";\scause "\Q$cause\E": \Q$words\E(?:;|$)/, "$cause: and the diagnosis");
	is($node->safe_psql('postgres', "SELECT invalidation_reason FROM pg_replication_slots WHERE slot_name = '$slot'"),
		$cause, "$cause: as the server has it")
	  if $version >= 170000;
	$node->{_told}->{$slot} = -s $node->logfile;
	return;
}

sub set
{
	my ($node, $name, $value) = @_;
	$node->safe_psql('postgres', "ALTER SYSTEM SET $name = '$value'");
	$node->reload;
	$node->poll_query_until('postgres', "SELECT current_setting('$name') = '$value'") or die "$name is not $value";
	return;
}

# ----------------------------------------------------------------------
# Not used for too long (18)
# ----------------------------------------------------------------------

SKIP:
{
	skip 'no slot is lost by not being used before version 18', 1 if $version < 180000;

	$standby->stop;
	set($primary, 'idle_replication_slot_timeout', '1min');
	ok($primary->poll_query_until('postgres', q{SELECT lost_in BETWEEN '1 s' AND '1 min' AND health = 'ok'
		FROM replica_kit.status() WHERE name = 'replica1'}), 'idle_timeout: it is foreseen');
	set($primary, 'idle_replication_slot_timeout', '1s');
	$primary->poll_query_until('postgres', q{SELECT reason LIKE '%slot will be lost at the next checkpoint by idle_replication_slot_timeout' AND health = 'critical' AND lost_in = '0'
		FROM replica_kit.status() WHERE name = 'replica1'}) or die 'the loss is not foreseen';
	is(wait_for_diagnosis($primary, 'slot_at_risk'), 'slot_at_risk', 'idle_timeout: diagnose() says that it is near');
	like(remedy($primary), qr/^ALTER SYSTEM SET idle_replication_slot_timeout = '\d+s';$/m, 'idle_timeout: and how there is more time');
	do_remedies($primary);
	is(wait_for_diagnosis($primary, 'replica_down'), 'replica_down', 'idle_timeout: which the remedy gives');
	set($primary, 'idle_replication_slot_timeout', '1s');
	foreach my $try (1 .. 10 * $PostgreSQL::Test::Utils::timeout_default)
	{
		$primary->safe_psql('postgres', 'CHECKPOINT');
		last if $primary->safe_psql('postgres', 'SELECT wal_status FROM pg_replication_slots') eq 'lost';
		select undef, undef, undef, 0.1;
	}
	tells($primary, 'replica1', 'the replica must be rebuilt', 'idle_timeout',
		'it was unused for longer than idle_replication_slot_timeout');
	set($primary, 'idle_replication_slot_timeout', '0');

	$standby->start;
	is(wait_for_diagnosis($standby, 'slot_lost'), 'slot_lost', 'idle_timeout: the standby knows, too');
	soon_like($primary, 'SELECT finding FROM replica_kit.diagnose()', qr/with a new slot a restart can be enough/,
		'idle_timeout: what it needs is not always a rebuild');
	soon_like($standby, 'SELECT evidence FROM replica_kit.diagnose()', qr/invalidated due to "idle_timeout"/,
		'idle_timeout: the standby quotes the cause');

	# The WAL is all there: of what the script does the new slot will do.
	soon_like($primary, q{SELECT advice FROM replica_kit.diagnose('replica1')}, qr/^  sh join_replica1\.sh --cluster \d+\/main --rebuild  /m,
		'idle_timeout: the advice is the script');
	renew_slot($primary, 'replica1');
	$standby->restart;
	$primary->wait_for_catchup('replica1');
	is(wait_for_diagnosis($primary, ''), '', 'idle_timeout: with a new slot a restart is enough, while the WAL is there');
}

# ----------------------------------------------------------------------
# Logical slots on a standby: rows removed, and wal_level (16)
# ----------------------------------------------------------------------

sub create_logical_slot
{
	my ($slot) = @_;
	my $sql = "SELECT pg_create_logical_replication_slot('$slot', 'test_decoding')";
	my ($out, $err) = ('', '');
	my $session = IPC::Run::start([ 'psql', '-XAtq', '-d', $standby->connstr('postgres'), '-c', $sql ],
		'<', \'', '>', \$out, '2>', \$err, IPC::Run::timeout($PostgreSQL::Test::Utils::timeout_default));

	# It begins where the primary says which transactions run.
	$standby->poll_query_until('postgres', "SELECT restart_lsn IS NOT NULL FROM pg_replication_slots WHERE slot_name = '$slot'")
	  or die "no slot $slot";
	$primary->safe_psql('postgres', 'SELECT pg_log_standby_snapshot()');
	$session->finish;
	is($err, '', "there is a logical slot $slot");
	return;
}

SKIP:
{
	skip 'a standby has no logical slots before version 16', 1 if $version < 160000;

	create_logical_slot('feed');
	$primary->safe_psql('postgres', 'CREATE TABLE t (a int); DROP TABLE t');
	$primary->safe_psql('postgres', 'VACUUM pg_class; VACUUM pg_attribute; VACUUM pg_type');
	$primary->wait_for_catchup('replica1', 'replay', $primary->lsn('insert'));
	tells($standby, 'feed', 'the subscriber must be rebuilt', 'rows_removed',
		'the primary removed rows that it needs');
	wait_for_diagnosis($standby, 'slot_lost');
	do_advised($standby, qr/pg_drop_replication_slot\('feed'\)/);

	create_logical_slot('feed2');
	$primary->append_conf('postgresql.conf', 'wal_level = replica');
	$primary->restart;
	$primary->wait_for_catchup('replica1', 'replay', $primary->lsn('insert'));
	tells($standby, 'feed2', 'the subscriber must be rebuilt', 'wal_level_insufficient',
		"the primary's ${\ ($version >= 190000 ? 'effective_wal_level' : 'wal_level') } is no longer logical");
	$standby->safe_psql('postgres', q{SELECT pg_drop_replication_slot('feed2')});
}

# ----------------------------------------------------------------------
# Too much WAL
# ----------------------------------------------------------------------

$standby->stop;
set($primary, 'max_slot_wal_keep_size', '32MB');
$primary->safe_psql('postgres', q{SELECT pg_logical_emit_message(false, '', 'x'); SELECT pg_switch_wal()}) for 1 .. 6;
$primary->safe_psql('postgres', 'CHECKPOINT');
tells($primary, 'replica1', 'the replica must be rebuilt', 'wal_removed',
	'it held more WAL than max_slot_wal_keep_size allows');

$primary->stop;
done_testing();
