# What PostgreSQL 19 has changed for those who look after replicas.

use strict;
use warnings FATAL => 'all';

use FindBin;
use lib $FindBin::RealBin;

use DiagKit;
use IO::Socket::INET;
use IPC::Run;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $primary = PostgreSQL::Test::Cluster->new('probe');
plan skip_all => 'not on a server before version 19' if ($primary->config_data('--version') =~ m{(\d+)})[0] < 19;

$primary = new_primary('primary', 'wal_level = replica', 'wal_log_hints = off', 'autovacuum = off', 'summarize_wal = on',
	'wal_sender_timeout = 60s', 'replica_kit.warning_disconnected = 1s', 'replica_kit.alert_after = 0');
my ($standby, $password) = new_standby($primary, 'replica1', 'hot_standby_feedback = on');

# What preflight() says in that check, as current|fix.
sub check
{
	my ($name) = @_;
	return "SELECT current, fix FROM replica_kit.preflight() WHERE check_name = '$name'";
}

# ----------------------------------------------------------------------
# log_min_messages has a level for each kind of process
# ----------------------------------------------------------------------

for my $case (
	[ 'warning', '' ],
	[ 'warning, archiver:fatal, walreceiver:error, backend:fatal', '' ],
	[ 'warning, walsender:fatal', 'warning, walsender:fatal: too high for walsender|warning' ],
	[ 'warning, archiver:debug1, BACKEND:panic, walreceiver:fatal, bgworker:log',
		'warning, BACKEND:panic, archiver:debug1, bgworker:log, walreceiver:fatal: too high for backend, bgworker, walreceiver|warning, archiver:debug1' ],
	[ 'log', 'log: too high for bgworker, walsender|warning' ],
	[ 'fatal, walsender:error, startup:log', 'fatal, startup:log, walsender:error: too high for bgworker, walreceiver|warning, startup:log, walsender:error' ])
{
	my ($setting, $found) = @$case;
	$found =~ s/\|(.*)/|ALTER SYSTEM SET log_min_messages = '$1'/;
	$primary->safe_psql('postgres', "ALTER SYSTEM SET log_min_messages = '$setting'");
	$primary->reload;
	soon_is($primary, check('log_min_messages'), $found, "log_min_messages = '$setting'");
	next if $found eq '';
	$primary->safe_psql('postgres', $primary->safe_psql('postgres', q{SELECT fix FROM replica_kit.preflight() WHERE check_name = 'log_min_messages'}));
	$primary->reload;
	soon_is($primary, check('log_min_messages'), '', 'is mended by its fix');
}

# What the walsenders log is seen, though nothing else is logged.
$primary->safe_psql('postgres', q{ALTER SYSTEM SET log_min_messages = 'panic, walsender:error'});
$primary->reload;
my $other = conninfo($primary, user => 'replica1', password => $password, application_name => 'replica1', replication => 'true');
isnt(IPC::Run::run([ 'psql', '-XAtq', '-d', $other, '-c', 'START_REPLICATION SLOT replica1 PHYSICAL 0/3000000' ], '>', \my $out, '2>', \my $err), 1, 'a second client of a slot is refused');
soon_is($primary, q{SELECT count(*) FROM replica_kit.connection_errors() WHERE slot_name = 'replica1' AND message ~ 'is active for PID'}, '1', 'and seen by way of the level of walsenders');
$primary->safe_psql('postgres', 'ALTER SYSTEM RESET log_min_messages');
$primary->reload;

# ----------------------------------------------------------------------
# pg_stat_recovery shows what standby_status() does
# ----------------------------------------------------------------------

$primary->safe_psql('postgres', 'CREATE TABLE t AS SELECT generate_series(1, 1000)');
$primary->wait_for_catchup('replica1', 'replay', $primary->lsn('insert'));
my $agree = q{SELECT s.replayed_lsn = r.last_replayed_end_lsn, s.timeline = r.last_replayed_tli, s.replay_pause_state = r.pause_state, s.replay_pause_state
	FROM replica_kit.standby_status() s, pg_stat_recovery r};
soon_is($standby, $agree, 't|t|t|not paused', 'pg_stat_recovery has the figures of standby_status()');
$standby->safe_psql('postgres', 'SELECT pg_wal_replay_pause()');
soon_is($standby, $agree, 't|t|t|paused', 'also when replay is paused');
$standby->safe_psql('postgres', 'SELECT pg_wal_replay_resume()');

# ----------------------------------------------------------------------
# A walreceiver that is connecting
# ----------------------------------------------------------------------

# Who accepts no connection keeps it in its queue: libpq waits for an answer.
my $silent = IO::Socket::INET->new(Listen => 5, LocalAddr => '127.0.0.1') or die "listen: $!";
set_conninfo($standby, $primary, port => $silent->sockport, user => 'replica1', password => $password);
soon_is($standby, 'SELECT status FROM pg_stat_wal_receiver', 'connecting', 'a walreceiver is connecting');
soon_like($standby, q{SELECT state || ': ' || reason FROM replica_kit.standby_status()},
	qr/^disconnected: .*, connecting for \d+(?:\.\d)? s/, 'standby_status() says for how long');
is($standby->safe_psql('postgres', 'SELECT sender_host, sender_port FROM replica_kit.standby_status()'), '|', 'it has no upstream yet');
soon_is($standby, q{SELECT code, finding FROM replica_kit.diagnose()},
	q{upstream_unreachable|This standby does not stream: its WAL receiver waits for the upstream to answer.}, 'and diagnose() whom it waits for');
set_conninfo($standby, $primary, user => 'replica1', password => $password, application_name => 'replica1');
close $silent;
soon_like($standby, 'SELECT state, sender_port, reason FROM replica_kit.standby_status()', qr/^streaming\|${\ $primary->port }\|streaming/, 'until it streams again');

# ----------------------------------------------------------------------
# An incremental backup has no percentage
# ----------------------------------------------------------------------

my $backups = $primary->backup_dir;
$primary->backup('full');
$primary->safe_psql('postgres', 'CREATE TABLE big AS SELECT i, repeat(md5(i::text), 30) AS filler FROM generate_series(1, 30000) i');
my $backup = IPC::Run::start(
	[ 'pg_basebackup', '-h', $primary->host, '-p', $primary->port, '-D', "$backups/more", '--no-sync', '--checkpoint=fast', '--max-rate=4M', '--incremental', "$backups/full/backup_manifest" ],
	'<', \undef, '>', \$out, '2>', \$err);
my $kinds = q{SELECT s.reason ~ '^incremental base backup, [0-9.]+ [kM]B sent$', p.backup_type
	FROM replica_kit.status() s, pg_stat_progress_basebackup p WHERE s.state = 'backup'};
soon_is($primary, $kinds, 't|incremental', 'an incremental backup tells what it is, and what it has sent');
$backup->finish;
is($err, '', 'and gets through');
$backup = IPC::Run::start(
	[ 'pg_basebackup', '-h', $primary->host, '-p', $primary->port, '-D', "$backups/again", '--no-sync', '--wal-method=none', '--checkpoint=fast', '--max-rate=4M' ],
	'<', \undef, '>', \$out, '2>', \$err);
$kinds =~ s/incremental base backup.*\$/base backup \\d+ %\$/;
soon_is($primary, $kinds, 't|full', 'a full one has its percentage');
$backup->kill_kill;

# ----------------------------------------------------------------------
# Copies of slots that were not synchronized
# ----------------------------------------------------------------------

# The slot needs WAL that the standby, which is younger, does not keep.
$primary->safe_psql('postgres', q{SELECT pg_create_logical_replication_slot('copied', 'pgoutput', failover => true)});
is($primary->safe_psql('postgres', 'SHOW wal_level; SHOW effective_wal_level'), "replica\nlogical", 'a logical slot raises effective_wal_level');
$primary->safe_psql('postgres', 'CHECKPOINT; SELECT pg_switch_wal(); CHECKPOINT');
$primary->wait_for_catchup('replica1', 'replay', $primary->lsn('insert'));
$standby->safe_psql('postgres', 'CHECKPOINT');
set_conninfo($standby, $primary, user => 'replica1', password => $password, application_name => 'replica1', dbname => 'postgres');
set_hba($primary, 'host all,replication replica1 127.0.0.1/32 scram-sha-256');
$standby->append_conf('postgresql.conf', 'sync_replication_slots = on');
$standby->reload;
soon_is($standby, q{SELECT s.reason = 'copy of the primary''s slot, not synchronized: ' || v.slotsync_skip_reason, s.health
	FROM replica_kit.status() s JOIN pg_replication_slots v ON v.slot_name = s.slot_name WHERE v.synced}, 't|ok', 'a slot that is not synchronized is shown with the reason');
$standby->append_conf('postgresql.conf', 'sync_replication_slots = off');
$standby->reload;
soon_is($standby, 'SELECT count(*) FROM pg_replication_slots', '0', 'a copy that was never complete goes with its worker');

# ----------------------------------------------------------------------
# effective_wal_level falls, and wal_level stays as it was
# ----------------------------------------------------------------------

my ($made, $said) = ('', '');
my $session = IPC::Run::start([ 'psql', '-XAtq', '-d', $standby->connstr('postgres'), '-c', q{SELECT slot_name FROM pg_create_logical_replication_slot('feed', 'test_decoding')} ],
	'<', \undef, '>', \$made, '2>', \$said);
$standby->poll_query_until('postgres', q{SELECT restart_lsn IS NOT NULL FROM pg_replication_slots WHERE slot_name = 'feed'})
  or die 'no slot';
$primary->safe_psql('postgres', 'SELECT pg_log_standby_snapshot()');
$session->finish;
is($made . $said, "feed\n", 'a standby has a logical slot');
$primary->safe_psql('postgres', q{SELECT pg_drop_replication_slot('copied')});
soon_is($primary, 'SHOW effective_wal_level', 'replica', 'the last logical slot of the primary is gone');
soon_like($standby, q{SELECT reason FROM replica_kit.status() WHERE name = 'feed'},
	qr/the subscriber must be rebuilt: the primary's effective_wal_level is no longer logical/, 'which costs the standby its own, and the reason names the setting');
$standby->safe_psql('postgres', q{SELECT pg_drop_replication_slot('feed')});

# ----------------------------------------------------------------------
# Settings that preflight() knows
# ----------------------------------------------------------------------

is($primary->safe_psql('postgres', check('wal_sender_shutdown_timeout')), '', 'by default a stop waits for the replicas');
$primary->safe_psql('postgres', q{ALTER SYSTEM SET wal_sender_shutdown_timeout = '10s'});
$primary->reload;
soon_is($primary, check('wal_sender_shutdown_timeout'), '10s|ALTER SYSTEM SET wal_sender_shutdown_timeout = -1', 'one that does not is told');
$primary->safe_psql('postgres', $primary->safe_psql('postgres', q{SELECT fix FROM replica_kit.preflight() WHERE check_name = 'wal_sender_shutdown_timeout'}));
$primary->reload;
soon_is($primary, check('wal_sender_shutdown_timeout'), '', 'and is mended by its fix');

# The beta versions of 19 could do that while the server runs; a session with a
# temporary table keeps it from being complete.
SKIP:
{
	skip 'data checksums are not switched while the server runs', 7
	  if $primary->safe_psql('postgres', q{SELECT count(*) FROM pg_proc WHERE proname = 'pg_enable_data_checksums'}) eq '0';

	my $rewind = 'neither data checksums nor wal_log_hints|ALTER SYSTEM SET wal_log_hints = on';
	$primary->safe_psql('postgres', 'SELECT pg_disable_data_checksums()');
	soon_is($primary, 'SHOW data_checksums', 'off', 'checksums are off');
	is($primary->safe_psql('postgres', check('pg_rewind')), $rewind, 'without checksums there is no pg_rewind');
	my $holder = $primary->background_psql('postgres');
	$holder->query_safe('CREATE TEMP TABLE held (i int)');
	$primary->safe_psql('postgres', 'SELECT pg_enable_data_checksums()');
	soon_is($primary, 'SHOW data_checksums', 'inprogress-on', 'checksums are being switched on');
	is($primary->safe_psql('postgres', check('pg_rewind')), $rewind, 'which is not enough');
	$holder->quit;
	soon_is($primary, 'SHOW data_checksums', 'on', 'checksums are on');
	is($primary->safe_psql('postgres', check('pg_rewind')), '', 'then it works');
	soon_is($standby, 'SELECT state FROM replica_kit.standby_status()', 'streaming', 'and the standby has followed');
}

# ----------------------------------------------------------------------
# RADIUS is no method any more
# ----------------------------------------------------------------------

my $hba = $primary->data_dir . '/pg_hba.conf';
my $good = slurp_file($hba);
append_to_file($hba, qq{host all all 10.0.0.0/8 radius radiusservers="10.0.0.1" radiussecrets="geheim4711"\n});
my ($status, $stdout, $stderr) = $primary->psql('postgres', q{SELECT replica_kit.provision('replica2', '127.0.0.2')});
my $line = () = slurp_file($hba) =~ /\n/g;
like($stderr, qr/Line $line of file/, 'a rule with RADIUS is an error of its line');
unlike($stderr . $stdout, qr/geheim/, 'whose secret is not quoted');
unlink $hba;
append_to_file($hba, $good);

# ----------------------------------------------------------------------
# pg_hosts.conf: which certificate for which name
# ----------------------------------------------------------------------

SKIP:
{
	my $data = $primary->data_dir;
	skip 'no openssl', 4
	  if $primary->config_data('--configure') !~ /--with-(?:openssl|ssl=openssl)/
	  || system("openssl req -new -x509 -days 30 -nodes -subj /CN=localhost -keyout $data/server.key -out $data/server.crt >/dev/null 2>&1 && chmod 600 $data/server.key") != 0;

	# Only who names the host by which it connects gets a certificate.
	append_to_file("$data/pg_hosts.conf", "localhost server.crt server.key\n");
	$primary->safe_psql('postgres', $_) for 'ALTER SYSTEM SET ssl = on', 'ALTER SYSTEM SET ssl_sni = on';
	$primary->restart;
	is($primary->safe_psql('postgres', 'SHOW ssl_sni'), 'on', 'the server has hosts');
	my $secret = $primary->safe_psql('postgres', q{SELECT password FROM replica_kit.provision('replica2', '127.0.0.0/8', require_ssl => true)});
	isnt($secret, '', 'a rule is written, and its reload proved, by a connection that ends before TLS');
	my %login = (user => 'replica2', password => $secret, sslmode => 'require', replication => 'true');
	for my $case ([ 'localhost', 1 ], [ '127.0.0.1', 0 ])
	{
		my ($host, $good) = @$case;
		my ($out, $err) = ('', '');
		my $ok = IPC::Run::run([ 'psql', '-XAtq', '-d', conninfo($primary, %login, host => $host), '-c', 'IDENTIFY_SYSTEM' ], '>', \$out, '2>', \$err);
		is($ok ? 1 : 0, $good, "TLS by the host $host " . ($good ? 'works' : 'is refused'));
		note $err;
	}
}

$standby->stop;
$primary->stop;

done_testing();
