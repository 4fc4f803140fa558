# The judge and its words: each rule in a case where it holds and in one where
# it doesn't, which servers would take hours to produce.

use strict;
use warnings FATAL => 'all';

use File::Basename;
use File::Spec::Functions qw(rel2abs);
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $module = rel2abs(dirname(__FILE__) . '/../test/health_test.so');

my $node = PostgreSQL::Test::Cluster->new('judge');
$node->init;
$node->start;
my $level = $node->safe_psql('postgres', 'SHOW server_version_num') >= 190000 ? 'effective_wal_level' : 'wal_level';
$node->safe_psql('postgres', <<~SQL);
	CREATE FUNCTION health_test_size(bigint) RETURNS text
	AS '$module' LANGUAGE C STRICT;
	CREATE FUNCTION health_test_duration(bigint) RETURNS text
	AS '$module' LANGUAGE C STRICT;
	CREATE FUNCTION health_test_judge(text) RETURNS text
	AS '$module' LANGUAGE C STRICT;
	SQL

# ----------------------------------------------------------------------
# Sizes are pg_size_pretty()'s, at every limit and a step beside it.
# ----------------------------------------------------------------------

is( $node->safe_psql('postgres', <<~'SQL'),
	WITH limits AS (
		SELECT (f * 2::numeric ^ e)::numeric + d AS n
		FROM unnest(ARRAY[0, 1, 5, 10, 10.5, 9.999, 1023.5, 10239.5, 10240]) f,
			generate_series(0, 53) e, generate_series(-2, 2) d
		UNION VALUES (9223372036854775807), (-9223372036854775808)
	), numbers AS (
		SELECT trunc(s * n)::bigint AS n FROM limits, (VALUES (1), (-1)) s(s)
		WHERE trunc(s * n) BETWEEN -9223372036854775808 AND 9223372036854775807
	)
	SELECT count(*) > 1000,
		count(*) FILTER (WHERE health_test_size(n) IS DISTINCT FROM pg_size_pretty(n))
	FROM numbers
	SQL
	't|0',
	'sizes read as pg_size_pretty() has them');

my %durations = (
	'0' => '0 s',
	'-5000000' => '0 s',
	'999' => '0 s',
	'250000' => 'less than a second',
	'999999' => 'less than a second',
	'1000000' => '1 s',
	'1050000' => '1 s',
	'1500000' => '1 s',
	'9999999' => '9 s',
	'10900000' => '10 s',
	'59999999' => '59 s',
	'60000000' => '1 min',
	'74000000' => '1 min 14 s',
	'599000000' => '9 min 59 s',
	'905000000' => '15 min',
	'3600000000' => '1 h',
	'3900000000' => '1 h 5 min',
	'86399000000' => '23 h 59 min',
	'97200000000' => '1 d 3 h',
	'864000000000' => '10 d');
is($node->safe_psql('postgres', "SELECT health_test_duration($_)"),
	$durations{$_}, "$_ us reads as $durations{$_}")
  foreach sort { $a <=> $b } keys %durations;

# ----------------------------------------------------------------------
# Verdicts.
# ----------------------------------------------------------------------

my $MB = 1024 * 1024;
my $limit = 1000 * $MB;
my ($unreserved, $lost) = (3, 4);    # PrkWalStatus
my ($catchup, $startup) = (1, 3);    # PrkState

my @verdicts = (
	[ '', 'streaming ok - lasting 0: streaming, 0 bytes behind' ],

	# lag in bytes
	[
		'unreplayed=' . 20 * $MB,
		'streaming warning replay_slow lasting -1: replay is 20 MB behind'
	],
	[
		'unreplayed=' . 20 * $MB . ' replay_lag=4',
		'streaming ok - lasting 4: streaming, 20 MB behind'
	],
	[
		'unreplayed=' . 20 * $MB . ' replay_lag=5',
		'streaming warning replay_slow lasting 5: replay is 5 s and 20 MB behind'
	],
	[
		'unflushed=' . 300 * $MB . ' unreplayed=' . 20 * $MB,
		'streaming critical flush_slow lasting -1: flushing is 320 MB behind'
	],
	[
		'unwritten=' . 30 * $MB . ' unreplayed=' . 20 * $MB,
		'streaming warning network_slow lasting -1: receiving is 50 MB behind'
	],
	[
		"state=$catchup unsent=" . 30 * $MB . ' replay_lag=9',
		'catchup warning network_slow lasting 9: sending is 9 s and 30 MB behind'
	],
	[
		"state=$catchup unsent=" . 9 * $MB,
		'catchup ok - lasting -1: catching up, 9216 kB behind'
	],
	[
		'unreplayed=' . 300 * $MB . ' warning_lag=-1 replay_lag=6',
		'streaming critical replay_slow lasting 6: replay is 6 s and 300 MB behind'
	],
	[
		'unreplayed=' . 20 * $MB . ' warning_lag=-1',
		'streaming ok - lasting -1: streaming, 20 MB behind'
	],

	# lag in time
	[
		'unreplayed=100 replay_lag=74',
		'streaming warning replay_slow lasting 74: replay is 1 min 14 s and 100 bytes behind'
	],
	[
		'unreplayed=100 replay_lag=300',
		'streaming critical replay_slow lasting 300: replay is 5 min and 100 bytes behind'
	],
	[
		'unreplayed=0 replay_lag=300',
		'streaming ok - lasting 0: streaming, 0 bytes behind'
	],
	[
		'unreplayed=100 replay_lag=74 warning_lag_time=-1',
		'streaming ok - lasting 74: streaming, 100 bytes behind'
	],
	[
		'unflushed=100 flush_lag=61',
		'streaming warning flush_slow lasting 61: flushing is 1 min 1 s and 100 bytes behind'
	],

	# a measure that stands still: known to who watches
	[
		'unreplayed=100 replay_lag=0 stuck=70',
		'streaming warning replay_slow lasting 70: replay is 1 min 10 s and 100 bytes behind'
	],
	[
		'unreplayed=100 replay_lag=1 stuck=70 moved=8',
		'streaming ok - lasting 1: streaming, 100 bytes behind'
	],
	[
		'unwritten=100 replay_lag=0 stuck=70 silent=40',
		'streaming warning receiver_stalled lasting 70: no reply for 40 s, 100 bytes behind'
	],
	[
		'unwritten=100 replay_lag=0 stuck=70 silent=40 reply=90',
		'streaming warning network_slow lasting 70: receiving is 1 min 10 s and 100 bytes behind'
	],

	# and worthless without
	[
		'unwritten=100 replay_lag=0 reply=40',
		'streaming ok - lasting -1: streaming, 100 bytes behind'
	],
	[
		'unwritten=' . 20 * $MB . ' replay_lag=0 reply=40',
		'streaming warning receiver_stalled lasting -1: no reply for 40 s, 20 MB behind'
	],
	[
		'unwritten=' . 20 * $MB . ' replay_lag=0 reply=30',
		'streaming ok - lasting 0: streaming, 20 MB behind'
	],

	# absence
	[ 'gone=59', 'disconnected ok - lasting 0: disconnected for 59 s' ],
	[
		'gone=60',
		'disconnected warning replica_down at-once 0: disconnected for 1 min'
	],
	[
		'gone=900',
		'disconnected critical replica_down at-once 0: disconnected for 15 min'
	],
	[
		'gone=900 critical_disconnected=-1',
		'disconnected warning replica_down at-once 0: disconnected for 15 min'
	],
	[
		'gone=900 critical_disconnected=-1 warning_disconnected=-1',
		'disconnected ok - lasting 0: disconnected for 15 min'
	],
	[
		'gone=-1',
		'disconnected warning replica_down at-once 0: disconnected, not known since when'
	],
	[
		'gone=-1 critical_disconnected=-1 warning_disconnected=-1',
		'disconnected ok - lasting 0: disconnected, not known since when'
	],
	[
		'gone=-1 inactive=901',
		'disconnected critical replica_down at-once 0: disconnected for 15 min'
	],
	[
		'gone=3700 never=3700',
		'never connected ok - lasting 0: never connected, slot was made 1 h 1 min ago'
	],
	[
		'gone=86400 never=86400',
		'never connected warning replica_never_seen at-once 0: never connected, slot was made 1 d ago'
	],

	# the slot
	[
		"wal=$lost gone=10",
		'lost critical slot_lost at-once 0: slot is lost, the replica must be rebuilt'
	],
	[
		"wal=$lost gone=10 logical=1",
		'lost critical slot_lost at-once 0: slot is lost, the subscriber must be rebuilt'
	],
	[
		'cause=0',
		'lost critical slot_lost at-once 0: slot is lost, it streams without one: it held more WAL than max_slot_wal_keep_size allows'
	],
	[
		'cause=0 walsender=0',
		'lost critical slot_lost at-once 0: slot is lost, the replica must be rebuilt: it held more WAL than max_slot_wal_keep_size allows'
	],
	[
		'cause=0 gone=10',
		'lost critical slot_lost at-once 0: slot is lost, the replica must be rebuilt: it held more WAL than max_slot_wal_keep_size allows'
	],
	[
		'cause=1 gone=10 logical=1',
		'lost critical slot_lost at-once 0: slot is lost, the subscriber must be rebuilt: the primary removed rows that it needs'
	],
	[
		'cause=2 gone=10 logical=1',
		"lost critical slot_lost at-once 0: slot is lost, the subscriber must be rebuilt: the primary's $level is no longer logical"
	],
	[
		'cause=3 gone=10',
		'lost critical slot_lost at-once 0: slot is lost, the replica must be rebuilt: it was unused for longer than idle_replication_slot_timeout'
	],
	[
		'cause=4 gone=10',
		'lost critical slot_lost at-once 0: slot is lost, the replica must be rebuilt: of_tomorrow'
	],
	[
		"wal=$unreserved",
		'streaming critical slot_at_risk at-once 0: streaming, 0 bytes behind, slot will be lost at the next checkpoint'
	],
	[
		"limit=$limit safe=-1 gone=60",
		'disconnected critical slot_at_risk at-once 0: disconnected for 1 min, slot will be lost at the next checkpoint'
	],
	[
		"limit=$limit safe=" . 99 * $MB . ' gone=1000',
		'disconnected critical replica_down at-once 0: disconnected for 16 min, slot will be lost after 99 MB more'
	],
	[
		"limit=$limit safe=" . 100 * $MB,
		'streaming warning slot_at_risk lasting 0: streaming, 0 bytes behind, slot will be lost after 100 MB more'
	],
	[
		"limit=$limit safe=" . 334 * $MB,
		'streaming ok - lasting 0: streaming, 0 bytes behind'
	],
	[
		'gone=10 inactive=899 restart=1 idle_limit=1800 warning_forecast=14400',
		'disconnected ok - lasting 0: disconnected for 10 s'
	],
	[
		'gone=10 inactive=900 restart=1 idle_limit=1800 warning_forecast=14400',
		'disconnected warning slot_at_risk lasting 0: disconnected for 10 s, slot will be lost in 15 min by idle_replication_slot_timeout'
	],
	[
		'gone=10 inactive=900 restart=1 idle_limit=1800 critical_forecast=3600',
		'disconnected critical slot_at_risk lasting 0: disconnected for 10 s, slot will be lost in 15 min by idle_replication_slot_timeout'
	],
	[
		'gone=10 inactive=1800 restart=1 idle_limit=1800',
		'disconnected critical slot_at_risk at-once 0: disconnected for 10 s, slot will be lost at the next checkpoint by idle_replication_slot_timeout'
	],
	[
		"gone=10 inactive=300 restart=1 idle_limit=1800 warning_forecast=14400 limit=$limit safe=" . 100 * $MB,
		'disconnected warning slot_at_risk lasting 0: disconnected for 10 s, slot will be lost after 100 MB more'
	],
	[
		'gone=10 inactive=1800 idle_limit=1800',
		'disconnected ok - lasting 0: disconnected for 10 s'
	],
	[
		'gone=10 inactive=1800 restart=1 synced=1 idle_limit=1800',
		'disconnected ok - lasting 0: disconnected for 10 s'
	],
	[ 'limit=0 safe=1', 'streaming ok - lasting 0: streaming, 0 bytes behind' ],

	# a receiver that does not replay, and has not told yet how far it is
	[
		'unwritten=' . 300 * $MB . ' flush_lag=1000 started=14',
		'streaming ok - lasting -1: streaming, 300 MB behind'
	],
	[
		'unwritten=' . 300 * $MB . ' flush_lag=1000 started=16',
		'streaming critical network_slow lasting 1000: receiving is 16 min and 300 MB behind'
	],

	# what is not judged by lag, or not at all
	[
		'logical=1 unflushed=' . 300 * $MB . ' flush_lag=1000',
		'streaming ok - lasting 1000: streaming, 300 MB behind'
	],
	[
		'temporary=1 unflushed=' . 300 * $MB . " wal=$unreserved",
		'streaming ok - lasting -1: streaming, 300 MB behind'
	],
	[
		"wal=$lost temporary=1",
		'lost ok - lasting 0: slot is lost, it streams without one'
	],
	[
		"state=$startup unsent=" . 300 * $MB,
		'startup ok - lasting -1: starting to stream'
	],
	[
		"phase=3 total=1000 streamed=437 unsent=" . 300 * $MB,
		'backup ok - lasting -1: base backup 43 %'
	],
	[
		"phase=3 total=1000 streamed=1437",
		'backup ok - lasting 0: base backup 100 %'
	],
	[ 'phase=1', 'backup ok - lasting 0: base backup, waiting for a checkpoint' ],
	[
		'phase=3 total=-1 streamed=20480',
		'backup ok - lasting 0: base backup, 20 kB sent'
	],
	[
		"off=1 wal=$lost gone=10",
		'lost ok - lasting 0: slot is lost, the replica must be rebuilt, not judged'
	],
	[
		'off=1 gone=1000',
		'disconnected ok - lasting 0: disconnected for 16 min, not judged'
	]);

foreach my $case (@verdicts)
{
	my ($facts, $verdict) = @$case;

	is($node->safe_psql('postgres', "SELECT health_test_judge('$facts')"),
		$verdict, "judged as it should: $facts");
}

$node->stop;
done_testing();
