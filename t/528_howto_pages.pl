# How-to pages: TLS, cascading, delayed and synchronous replicas, logical consumers,
# backups, coming from the guide and from check_postgres, and taking over a standby
# of repmgr's.  Their blocks, run as they stand, on three Debian clusters of this
# machine that stand for the pages' machines.
use strict;
use warnings FATAL => 'all';

use FindBin;
use lib $FindBin::RealBin;

use JoinKit;
use PageKit;
use PostgreSQL::Test::Utils;
use Test::More;

my $cannot = cannot_run();
plan skip_all => $cannot if $cannot;
my ($primary, $replica, $third) = new_machines(3);
make_primary($primary, 'wal_level logical');

# ----------------------------------------------------------------------
# A replica that proves its upstream by a certificate
# ----------------------------------------------------------------------
run_page(
	'tls.md',
	'The replica' => sub { poll($primary, q{SELECT current_setting('ssl') = 'on'}, 'tls.md: the reload is over') });
like($said{'The replica'}, qr/hostssl replication replica1 .*streams from/s, 'tls.md: the replica is made');
like($said{'See it'}, qr/sslmode=.verify-full. sslrootcert=\S+\.ca\.crt.*replica1 +\| t +\| TLSv1\.[23]/s, 'tls.md: it verifies the server');

# A certificate of somebody else's is refused.
my $certificate = "/etc/postgresql/$major/$primary->{cluster}/server.crt";
on($primary, {}, '', 'sh', '-ec',
	"openssl req -new -x509 -nodes -subj /CN=127.0.0.1 -addext subjectAltName=IP:127.0.0.1 -keyout other.key -out other.crt 2>/dev/null
	cp server.crt kept.crt; cp server.key kept.key; cp other.crt $certificate; cp other.key ${certificate}x; mv ${certificate}x /etc/postgresql/$major/$primary->{cluster}/server.key
	pg_ctlcluster $major $primary->{cluster} reload");
sql($primary, q{SELECT pg_terminate_backend(pid) FROM pg_stat_replication});
my $log = "/var/log/postgresql/postgresql-$major-$replica->{cluster}.log";
ok(eventually(sub { slurp($log) =~ /certificate verify failed/ }), 'tls.md: a server with another certificate gets nothing');
on($primary, {}, '', 'sh', '-ec', "cp kept.crt $certificate; cp kept.key /etc/postgresql/$major/$primary->{cluster}/server.key; pg_ctlcluster $major $primary->{cluster} reload");
poll($primary, q{SELECT count(*) = 1 FROM pg_stat_replication WHERE state = 'streaming'}, 'tls.md: the right one is let in again');

# ----------------------------------------------------------------------
# Synchronous, and away
# ----------------------------------------------------------------------
my $waits;
run_page(
	'synchronous.md',
	'See it' => sub { poll($primary, q{SELECT sync_state = 'sync' FROM pg_stat_replication}, 'synchronous.md: the reload is over') },
	'When it is away' => sub {
		like($said{'See it'}, qr/replica1 \| streaming \| sync/, 'synchronous.md: it becomes synchronous');
		stop_machine($replica);
		my @commit = ('psql', '-X', '-h', $primary->{socket}, '-p', $primary->{port}, '-d', 'postgres', '-c', 'INSERT INTO rows VALUES (2)');
		$waits = IPC::Run::start(\@commit, '<', \'', '>', \my $out, '2>', \my $err);
		poll($primary, q{SELECT count(*) = 1 FROM replica_kit.diagnose('server') WHERE code = 'sync_standby_missing'}, 'synchronous.md: a commit that hangs is told');
	});
like($said{'When it is away'}, qr/critical.*sync_standby_missing.*synchronous_standby_names/s, 'synchronous.md: with what to do');
like($said{'Remove one'}, qr/1/, 'synchronous.md: the dry run');
ok($waits->finish, 'synchronous.md: the session that waited goes on');
system("pg_ctlcluster $major $replica->{cluster} start") == 0 or die 'no start';

# ----------------------------------------------------------------------
# A replica of the replica, delayed
# ----------------------------------------------------------------------
system("pg_conftool $major $replica->{cluster} set listen_addresses '*'") == 0 or die 'no setting';
system("pg_ctlcluster $major $replica->{cluster} restart") == 0 or die 'no restart';
run_page(
	'cascading.md',
	'Watch it' => sub {
		poll($replica, q{SELECT state = 'streaming' AND health = 'ok' FROM replica_kit.status() WHERE name = 'replica2'}, 'cascading.md: the standby has it stream');
		poll($third, q{SELECT state = 'streaming' FROM replica_kit.standby_status()}, 'cascading.md: and so says the replica');
	});
like($said{'Watch it'}, qr/replica2 \| streaming +\| ok.*streaming \| 127\.0\.0\.1/s, 'cascading.md: it streams from the standby');
like($said{'When the one in the middle goes'}, qr/streams from 127\.0\.0\.1, port $primary->{port}/, 'cascading.md: and from the primary');
poll($replica, q{SELECT NOT active FROM pg_replication_slots WHERE slot_name = 'replica2'}, 'cascading.md: its old slot is free');
sql($replica, q{SELECT FROM replica_kit.deprovision('replica2', keep_role => true)});

run_page(
	'delayed.md',
	'What the kit says' => sub {
		sql($primary, 'INSERT INTO rows VALUES (3)');
		poll($third, q{SELECT count(*) = 1 FROM replica_kit.diagnose('upstream')}, 'delayed.md: replay waits');
	},
	'Rows that were deleted or changed' => sub {
		like($said{'What the kit says'}, qr/code +\| replay_delayed/, 'delayed.md: the kit knows that it is delayed');
		sql($primary, 'DELETE FROM rows WHERE n < 3');
	},
	'A table that was dropped or truncated' => sub {
		is(slurp("$third->{home}/rows.txt"), "1\n2\n", 'delayed.md: rows that were deleted are there');
		$instead{'2026-11-22 14:59:59+00'} = sql($primary, 'SELECT clock_timestamp()');
		sql($primary, 'DROP TABLE rows');
	});
is(sql($primary, 'SELECT string_agg(n::text, $$,$$) FROM rows'), '3', 'delayed.md: the table is back, as it was before');
poll($third, 'SELECT pg_is_in_recovery() AND count(*) = 1 FROM rows', 'delayed.md: and the replica is one again');

# ----------------------------------------------------------------------
# Backups, logical consumers
# ----------------------------------------------------------------------
run_page('backups.md');
like($said{'Start it as a server of its own'}, qr/^ 00000002\w{16}$/m, 'backups.md: the copy is a primary, on a timeline of its own');
like($said{'What of the kit is in it'}, qr/orphan_role \| replica1.*orphan_role \| replica2.*^ t$/ms, 'backups.md: and has the roles of the replicas');
is(sql($primary, q{SELECT state FROM replica_kit.status() WHERE name = 'replica1'}), 'streaming', 'backups.md: the replica streams on');

run_page('logical_beside.md');
like($said{'What is watched'}, qr/debezium_shop \| logical/, 'logical_beside.md: the slot is a row');

# ----------------------------------------------------------------------
# Coming from check_postgres and from the guide
# ----------------------------------------------------------------------
sql($primary, q{SELECT FROM replica_kit.deprovision('replica2', force => true)});
SKIP:
{
	skip 'from_check_postgres.md: check_postgres is not installed', 1 if system('check_postgres --version >/dev/null 2>&1') != 0;

	local $ENV{PATH} = "$FindBin::RealBin/../monitoring:$ENV{PATH}";
	run_page('from_check_postgres.md');
	like($said{'Side by side'}, qr/^POSTGRES_REPLICATION_SLOTS OK: .*^REPLICAS OK - 1 of 1 streaming /ms, 'from_check_postgres.md: both say that all is well');
}

# Each statement of the table, in its order, and the command.
my $guide = slurp("$FindBin::RealBin/../doc/from_the_guide.md");
my @statements = map { s/10\.0\.0\.5/127.0.0.1/r } $guide =~ /^\| [^|]*\|.*?`(SELECT \* FROM replica_kit\.[^`]*;)`/mg;
is(scalar @statements, 3, 'from_the_guide.md: statements to be run');
my ($command) = $guide =~ /`sh (join_replica1\.sh --cluster 15\/main --rebuild)`/ or die 'no command';
my ($code, $out) = on($replica, { PGSSLMODE => 'verify-full', PGSSLROOTCERT => "$replica->{home}/ca.crt" }, '', 'dash', split / /, $command =~ s/15\/main/$major\/$replica->{cluster}/r);
is($code, 0, 'from_the_guide.md: the command');
like($out, qr/nothing to rebuild/, 'from_the_guide.md: says that this replica needs nothing');
foreach my $statement (@statements)
{
	like(sql($primary, $statement), qr/\breplica1\b/, "from_the_guide.md: $statement");
}

# ----------------------------------------------------------------------
# A standby that repmgr made
# ----------------------------------------------------------------------
system("pg_dropcluster --stop $major $replica->{cluster}") == 0 or die 'no drop';
system('rm', '-rf', glob "/var/lib/postgresql/$major/$replica->{cluster}.*");
my $data = "/var/lib/postgresql/$major/$replica->{cluster}";
system("pg_createcluster $major $replica->{cluster} -p $replica->{port} -- --no-sync >/dev/null && rm -r $data") == 0 or die 'no cluster';
foreach my $machine ($primary, $replica)
{
	# before the lines that ask for a password
	system('sed', '-i', '1i host all,replication repmgr 127.0.0.1/32 trust', "/etc/postgresql/$major/$machine->{cluster}/pg_hba.conf") == 0 or die 'no rule';
}
system("pg_ctlcluster $major $primary->{cluster} reload") == 0 or die 'no reload';
sql($primary, 'CREATE ROLE repmgr LOGIN SUPERUSER');
chomp(my $bin = `pg_config --bindir`);
my $has_repmgr = -x "$bin/repmgr";

# repmgr ARGUMENT...: as on the machine
sub repmgr
{
	my ($machine, @arguments) = @_;
	my ($code) = on($machine, {}, '', "$bin/repmgr", '-f', 'repmgr.conf', @arguments);
	return $code;
}
if ($has_repmgr)
{
	sql($primary, 'CREATE DATABASE repmgr OWNER repmgr');
	foreach my $number (1, 2)
	{
		my $machine = $at[ $number - 1 ];
		append_to_file("$machine->{home}/repmgr.conf", <<~CONF);
			node_id=$number
			node_name='node$number'
			conninfo='host=127.0.0.1 port=$machine->{port} user=repmgr dbname=repmgr connect_timeout=5'
			data_directory='/var/lib/postgresql/$major/$machine->{cluster}'
			pg_bindir='$bin'
			use_replication_slots=true
			CONF
	}
	is(repmgr($primary, 'primary', 'register'), 0, 'from_repmgr.md: repmgr registers the primary');
	is(repmgr($replica, '-h', '127.0.0.1', '-p', $primary->{port}, '-U', 'repmgr', '-d', 'repmgr', 'standby', 'clone', '--fast-checkpoint'), 0, 'from_repmgr.md: and clones the standby');
}
else
{
	sql($primary, q{SELECT pg_create_physical_replication_slot('repmgr_slot_2')});
	system("pg_basebackup -h 127.0.0.1 -p $primary->{port} -U repmgr -S repmgr_slot_2 -R -D $data") == 0 or die 'no clone';
}
system("pg_ctlcluster $major $replica->{cluster} start") == 0 or die 'no start';
is(repmgr($replica, 'standby', 'register'), 0, 'from_repmgr.md: and registers it') if $has_repmgr;
poll($primary, q{SELECT active FROM pg_replication_slots WHERE slot_name = 'repmgr_slot_2'}, 'from_repmgr.md: the standby streams');
run_page(
	'from_repmgr.md',
	'What is left of repmgr' => sub {
		poll($primary, q{SELECT count(*) = 1 AND min(slot_name) = 'replica1' AND (SELECT count(*) = 1 FROM pg_stat_replication) FROM pg_replication_slots WHERE active}, 'from_repmgr.md: the standby uses the new slot');
		is(sql($primary, 'SELECT usename FROM pg_stat_replication'), 'replica1', 'from_repmgr.md: and the new role');
	});
like($said{'Take over a standby that repmgr made, without a clone'}, qr/streams from/, 'from_repmgr.md: it is taken over');
unlike($said{'Take over a standby that repmgr made, without a clone'}, qr/cloning|restart/, 'from_repmgr.md: without clone and restart');
is(sql($primary, q{SELECT string_agg(name || ' ' || state, ', ') FROM replica_kit.status()}), 'replica1 streaming', 'from_repmgr.md: its slot alone is left');

done_testing();
