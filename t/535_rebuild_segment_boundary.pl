# --rebuild where a standby was promoted exactly at the boundary of two WAL segments:
# its WAL summaries begin behind the header of the segment, so its incremental backups
# are refused, and everything is cloned, with that reason.
use strict;
use warnings FATAL => 'all';

use FindBin;
use lib $FindBin::RealBin;

use ClusterCompare;
use JoinKit;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $primary = PostgreSQL::Test::Cluster->new('primary');
plan skip_all => 'incremental backups begin with PostgreSQL 17'
  if $primary->pg_version < 17;
$primary->init(allows_streaming => 1, extra => ['--data-checksums']);
$primary->append_conf('postgresql.conf', <<~CONF);
	listen_addresses = '127.0.0.1'
	shared_preload_libraries = 'pg_replica_kit'
	summarize_wal = on
	autovacuum = off
	wal_retrieve_retry_interval = 100ms
	CONF
$primary->start;
$primary->safe_psql('postgres', $_) foreach
  'CREATE EXTENSION pg_replica_kit',
  q{CREATE TABLE changed AS SELECT g AS id, repeat('x', 900) AS words FROM generate_series(1, 20000) g};
provision($primary, 'replica1', 'secret-word-1');
my $replica = new_replica('replica');
my @where = ('--pgdata', $replica->data_dir, '--port', $replica->port);
my ($code, $out, $err) = run_script(write_script($primary, 'replica1'), { PGPASSWORD => 'secret-word-1' }, @where);
is($code, 0, 'a replica is made');
adopt_replica($replica);
my $other = PostgreSQL::Test::Cluster->new('other');
$primary->backup('b');
$other->init_from_backup($primary, 'b', has_streaming => 1);
$other->start;
$primary->wait_for_catchup('replica1', 'replay');
$replica->stop;

$primary->safe_psql('postgres', 'UPDATE changed SET words = NULL WHERE id % 100 = 0');

# The background writer writes WAL every 15 s; the immediate shutdown ends it.
kill 'STOP', $primary->safe_psql('postgres', q{SELECT pid FROM pg_stat_activity WHERE backend_type = 'background writer'});
my $lsn = $primary->safe_psql('postgres', 'SELECT pg_switch_wal()');
$other->poll_query_until('postgres', "SELECT pg_last_wal_replay_lsn() >= '$lsn'") or die 'no replay';
$primary->stop('immediate');
$other->promote;
like(slurp($other->data_dir . '/pg_wal/00000002.history'), qr!^1\t[0-9A-F]+/[0-9A-F]{0,2}000000\t!m, 'the fork is on the boundary');
$other->safe_psql('postgres', $_) foreach
  q{SELECT replica_kit.provision('replica1', '127.0.0.1')},
  'UPDATE changed SET words = NULL WHERE id % 100 = 1', "ALTER SYSTEM SET max_slot_wal_keep_size = '1MB'", 'SELECT pg_reload_conf()',
  ("SELECT pg_logical_emit_message(true, 'x', 'x'); SELECT pg_switch_wal(); CHECKPOINT") x 3;
remove_wal($other);
$other->safe_psql('postgres', $_) foreach 'ALTER SYSTEM RESET max_slot_wal_keep_size', 'SELECT pg_reload_conf()';
($code, $out, $err) = run_script(write_script($other, 'replica1'), { PGPASSWORD => 'secret-word-1' }, @where, '--rebuild', '--remove-old');
is($code, 0, 'rebuilt');
like($out, qr/^pg_replica_kit: not possible with the changed blocks only: the upstream server has no WAL summaries from [0-9A-F]+\/[0-9A-F]{0,2}000000 to [0-9A-F]+\/[0-9A-F]{0,2}000028: timeline 2 begins exactly with a WAL segment, behind whose header the summaries begin: cloning everything$/m,
	'the reason');
adopt_replica($replica);
$other->stop;
my ($control) = run_command([ 'pg_controldata', '-D', $other->data_dir ]);
my ($end) = $control =~ /^Latest checkpoint location: +(\S+)$/m;
$replica->poll_query_until('postgres', "SELECT pg_last_wal_replay_lsn() > '$end'") or die 'no replay';
$replica->stop;
my ($blocks, @unequal) = compare_clusters($replica->data_dir, $other->data_dir);
cmp_ok($blocks, '>', 1000, 'blocks were compared');
is(join("\n", @unequal), '', 'none is unequal');
done_testing();
