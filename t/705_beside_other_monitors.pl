# Beside check_postgres and repmgr, which judge replicas too: in each scene the
# kit's judgement is what it should be, and not milder than theirs.  Their
# limits are set as the kit's.

use strict;
use warnings FATAL => 'all';

use FindBin;
use lib $FindBin::RealBin;

use DiagKit;
use IPC::Run;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my ($check_postgres) = grep { -x } '/usr/bin/check_postgres', '/usr/bin/check_postgres.pl';
my $repmgr = `${\($ENV{PG_CONFIG} // 'pg_config')} --bindir`;
chomp $repmgr;
$repmgr .= '/repmgr';
$repmgr = undef if !-x $repmgr;

my @levels = qw(ok warning critical);
my %rank = map { $levels[$_] => $_ } 0 .. $#levels;

my $primary = new_primary('primary', 'max_wal_size = 64MB', 'min_wal_size = 32MB', 'checkpoint_timeout = 1h', 'autovacuum = off',
	'replica_kit.check_interval = 500ms',
	'replica_kit.alert_after = 0', 'replica_kit.lag_grace = 1s',
	'replica_kit.warning_lag = 1MB', 'replica_kit.critical_lag = 2MB',
	'replica_kit.warning_lag_time = 3s', 'replica_kit.critical_lag_time = 6s',
	'replica_kit.warning_disconnected = 1s', 'replica_kit.critical_disconnected = 3s');
my ($standby, $password) = new_standby($primary, 'replica1');
my $user = $primary->safe_psql('postgres', 'SELECT current_user');
$primary->safe_psql('postgres', 'CREATE TABLE t (x text)');

# ----------------------------------------------------------------------
# The peers
# ----------------------------------------------------------------------

# Runs a program; what it says.
sub output_of
{
	my (@command) = @_;
	my $out = '';

	IPC::Run::run(\@command, '<', '/dev/null', '>', \$out, '2>&1',
		IPC::Run::timeout($PostgreSQL::Test::Utils::timeout_default));
	chomp $out;
	return $out;
}

sub check_postgres
{
	my ($action, $options, @nodes) = @_;

	return output_of($check_postgres, "--action=$action",
		'--host=' . join(',', map { $_->host } @nodes),
		'--port=' . join(',', map { $_->port } @nodes),
		'--dbname=postgres', "--dbuser=$user", @$options);
}

sub repmgr_of
{
	my ($node, @command) = @_;

	return output_of($repmgr, '-f', "$PostgreSQL::Test::Utils::tmp_check/repmgr_" . $node->name . '.conf', @command);
}

if (defined $repmgr)
{
	my $id = 0;

	$primary->safe_psql('postgres', 'CREATE DATABASE repmgr');
	foreach my $node ($primary, $standby)
	{
		$id++;
		append_to_file("$PostgreSQL::Test::Utils::tmp_check/repmgr_" . $node->name . '.conf', <<~CONF);
			node_id=$id
			node_name='@{[ $node->name ]}'
			conninfo='host=@{[ $node->host ]} port=@{[ $node->port ]} user=$user dbname=repmgr connect_timeout=5'
			data_directory='@{[ $node->data_dir ]}'
			pg_bindir='@{[ $repmgr =~ s{/repmgr$}{}r ]}'
			use_replication_slots=true
			replication_lag_warning=3
			replication_lag_critical=6
			CONF
	}
	note repmgr_of($primary, 'primary', 'register');
	$primary->wait_for_catchup('replica1');
	note repmgr_of($standby, 'standby', 'register', '--upstream-node-id=1', '--force');
	$primary->wait_for_catchup('replica1');
}

# What the peers say of the pair, as far as they are installed: rows of who and
# their words.
sub peers
{
	my ($primary_is_up, $standby_is_up) = @_;
	my @said;

	if (defined $check_postgres)
	{
		push @said, [ 'check_postgres replication_slots', check_postgres('replication_slots', [ '--warning=1MB', '--critical=2MB' ], $primary) ]
		  if $primary_is_up;
		push @said, [ 'check_postgres hot_standby_delay', check_postgres('hot_standby_delay', [ '--warning=1048576 and 3 s', '--critical=2097152 and 6 s' ], $primary, $standby) ];
	}
	if (defined $repmgr)
	{
		push @said, map { [ "repmgr node check $_ on the primary", repmgr_of($primary, 'node', 'check', $_) ] } '--slots', '--downstream'
		  if $primary_is_up;
		push @said, map { [ "repmgr node check $_ on the standby", repmgr_of($standby, 'node', 'check', $_) ] } '--replication-lag', '--upstream'
		  if $standby_is_up;
	}

	return @said;
}

# ----------------------------------------------------------------------
# Scenes
# ----------------------------------------------------------------------

# How often a peer has said what.
my %said;

# In this scene the server's judgement becomes that, and no peer says worse.
sub scene
{
	my ($name, $level, $node) = @_;
	my $other = $node == $primary ? $standby : $primary;
	my $other_is_up = -f $other->data_dir . '/postmaster.pid';

	ok( $node->poll_query_until('postgres', q{SELECT coalesce(max(level), 'ok') FROM (SELECT DISTINCT level COLLATE "C" AS level FROM replica_kit.unhealthy()) l}, $level),
		"$name: the kit says $level");

	# What is just below the kit's limits now may be above a peer's, whose
	# measures are others.
	$primary->wait_for_catchup('replica1') if $level eq 'ok';
	foreach my $peer (peers($node == $primary || $other_is_up, $node == $standby || $other_is_up))
	{
		my ($who, $words) = @$peer;

		# No judgement is not a mild one: one of the servers cannot be asked.
		my ($verdict) = grep { defined } $words =~ /^POSTGRES_\w+ (OK|WARNING|CRITICAL):|^(OK|WARNING|CRITICAL) \(/m;
		note "$who: $words";
		next if !defined $verdict;
		$said{ $who =~ s/ .*//r }{ lc $verdict }++;
		cmp_ok($rank{ lc $verdict }, '<=', $rank{$level}, "$name: $who says no worse");
	}
}

# Some WAL that the replica has to replay.
sub write_wal
{
	my ($megabytes) = @_;

	$primary->safe_psql('postgres', "INSERT INTO t SELECT repeat('x', 1000) FROM generate_series(1, 1000 * $megabytes)");
}

scene('a healthy pair', 'ok', $primary);
scene('its standby', 'ok', $standby);

$standby->safe_psql('postgres', 'SELECT pg_wal_replay_pause()');
$standby->poll_query_until('postgres', q{SELECT pg_get_wal_replay_pause_state() = 'paused'}) or die 'replay is not paused';
write_wal(5);
scene('replay is paused', 'critical', $primary);
$standby->safe_psql('postgres', 'SELECT pg_wal_replay_resume()');
scene('replay goes on', 'ok', $primary);

my $receiver = $standby->safe_psql('postgres', 'SELECT pid FROM pg_stat_wal_receiver');
kill 'STOP', $receiver;
write_wal(5);
scene('the receiver is stalled', 'critical', $primary);
kill 'CONT', $receiver;
scene('the receiver goes on', 'ok', $primary);

# What is far below any limit in bytes, and no WAL is written.
$standby->stop;
scene('the replica is dead, the primary idle', 'critical', $primary);
write_wal(5);
scene('the replica is dead, the primary writes', 'critical', $primary);

$primary->safe_psql('postgres', q{ALTER SYSTEM SET max_slot_wal_keep_size = '32MB'});
$primary->reload;
$primary->safe_psql('postgres', q{INSERT INTO t VALUES (''); SELECT pg_switch_wal()}) foreach 1 .. 8;
$primary->safe_psql('postgres', 'CHECKPOINT');
is($primary->safe_psql('postgres', 'SELECT wal_status FROM pg_replication_slots'), 'lost', 'the slot is lost');
scene('a lost slot', 'critical', $primary);
soon_is($primary, 'SELECT reason FROM replica_kit.unhealthy()',
	'slot is lost, the replica must be rebuilt: it held more WAL than max_slot_wal_keep_size allows', 'a lost slot: the kit says that it is lost, and what it needs');

# Its standby still lets sessions in, and says streaming now and then.
$standby->start;
scene('the standby of a lost slot', 'critical', $standby);
$primary->stop;
scene('the standby of a dead primary', 'critical', $standby);

# Or nothing was compared.
foreach my $peer ([ 'check_postgres', $check_postgres ], [ 'repmgr', $repmgr ])
{
  SKIP:
	{
		my ($name, $program) = @$peer;

		skip "$name is not installed", 1 if !defined $program;
		ok($said{$name}{ok} && $said{$name}{critical}, "$name has said both ok and critical");
	}
}

$standby->stop;
done_testing();
