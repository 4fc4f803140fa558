# deprovision(force => true) against a real standby that reconnects at once,
# behind a rule that lets it in whatever the kit does: its slot is gone each
# time.  10 times; 100 with PRK_LONG_TESTS=1.

use strict;
use warnings FATAL => 'all';

use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $tries = $ENV{PRK_LONG_TESTS} ? 100 : 10;

my $primary = PostgreSQL::Test::Cluster->new('primary');
$primary->init(allows_streaming => 1);
$primary->append_conf('postgresql.conf', <<~CONF);
	listen_addresses = '127.0.0.1'
	wal_keep_size = '256MB'
	log_statement = none
	log_replication_commands = on
	CONF
my $hba = $primary->data_dir . '/pg_hba.conf';
unlink $hba;
append_to_file($hba, "local all,replication all trust\nhost replication all samehost trust\n");
$primary->start;

# Not the kit's, so it stays.
$primary->safe_psql('postgres', q{CREATE EXTENSION pg_replica_kit; CREATE ROLE regress_receiver LOGIN REPLICATION PASSWORD 'secret'});
my $provision = q{SELECT count(*) FROM replica_kit.provision('replica1', '127.0.0.1', role => 'regress_receiver')};
$primary->safe_psql('postgres', $provision);
my $state = q{SELECT slot_name, temporary FROM pg_replication_slots};

my $standby = PostgreSQL::Test::Cluster->new('standby');
$primary->backup('one');
$standby->init_from_backup($primary, 'one', has_streaming => 1);
$standby->append_conf('postgresql.conf', <<~CONF);
	primary_conninfo = 'host=127.0.0.1 port=@{[ $primary->port ]} user=regress_receiver password=secret application_name=replica1'
	primary_slot_name = 'replica1'
	wal_retrieve_retry_interval = '1ms'
	CONF
$standby->start;

my ($gone, $was_streaming, $slowest) = (0, 0, 0);
my @failures;
for my $try (1 .. $tries)
{
	$primary->safe_psql('postgres', $provision) if $try > 1;
	$was_streaming++
	  if $primary->poll_query_until('postgres', q{SELECT count(*) = 1 FROM replica_kit.status() WHERE slot_name = 'replica1' AND state = 'streaming'});
	my ($rc, $out, $err) = $primary->psql('postgres', <<~'SQL', on_error_stop => 0);
		SET client_min_messages = 'error';
		SELECT clock_timestamp() AS begin \gset
		SELECT 'dropped ' || slot_dropped FROM replica_kit.deprovision('replica1', force => true);
		SELECT 'slots ' || count(*) FROM pg_replication_slots;
		SELECT 'seconds ' || extract(epoch FROM clock_timestamp() - :'begin'::timestamptz);
		SQL

	$gone++ if $out =~ /^slots 0$/m;
	push @failures, "$try: $out $err" if $err ne '' || $out !~ /^dropped true$/m;
	my ($time) = $out =~ /^seconds (.*)$/m;
	$slowest = $time if defined $time && $time > $slowest;
}
note sprintf 'the slowest took %.3f s', $slowest;
is(join("\n", @failures), '', "deprovision(force) succeeds $tries times");
is($was_streaming, $tries, "the standby streamed $tries times");
is($gone, $tries, "and its slot was gone $tries times");
ok($standby->safe_psql('postgres', 'SELECT pg_is_in_recovery()'), 'the standby lives on');

# It really came back at once: while there was no slot, and each time.
my $log = slurp_file($primary->logfile);
my $refused = () = $log =~ /replication slot "replica1" does not exist/g;
my $attempts = () = $log =~ /received replication command: START_REPLICATION SLOT "replica1"/g;
note "$attempts attempts, of which $refused found no slot";
cmp_ok($attempts, '>', $tries, 'it has tried more often than that');
unlike($log, qr/no pg_hba\.conf entry/, 'and was let in each time');
is(slurp_file($hba), "local all,replication all trust\nhost replication all samehost trust\n", 'pg_hba.conf is as it was');
unlike($log, qr/PANIC|terminated by signal/, 'no process has crashed');

$standby->stop('immediate');
$primary->stop;
done_testing();
