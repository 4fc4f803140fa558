# metrics(): the format, and that no series of a replica vanishes while the
# replica is known: present, stopped, lost, without its slot, and after a restart
# of the server.

use strict;
use warnings FATAL => 'all';

use FindBin;
use lib $FindBin::RealBin;

use DiagKit;
use Exposition;
use IPC::Run ();
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes ();

my $primary = new_primary('primary', 'autovacuum = off', 'checkpoint_timeout = 1h', 'max_wal_size = 64MB', 'min_wal_size = 32MB',
	'replica_kit.warning_disconnected = 500ms', 'replica_kit.critical_disconnected = 1h');
my ($standby) = new_standby($primary, 'replica1');
$primary->safe_psql('postgres', <<'SQL');
SELECT replica_kit.provision('never', '127.0.0.1');
SELECT replica_kit.provision('slotless', '127.0.0.1');
SELECT pg_drop_replication_slot('slotless');
SELECT pg_create_physical_replication_slot('foreign', true);
CREATE ROLE evil REPLICATION;
COMMENT ON ROLE evil IS E'pg_replica_kit: a"b\\c\nd\u00e4';
CREATE ROLE evil_without_right;
COMMENT ON ROLE evil_without_right IS 'pg_replica_kit: nobody';
CREATE ROLE watcher LOGIN IN ROLE pg_monitor;
SQL

# Two receivers that have a name in common, and no slot.
my @receivers = map {
	my $dir = "$PostgreSQL::Test::Utils::tmp_check/receiver$_";
	mkdir $dir or die "$dir: $!";
	IPC::Run::start([ 'pg_receivewal', '--no-loop', '-s', 1, '-D', $dir, '-d',
			"host=@{[ $primary->host ]} port=@{[ $primary->port ]} application_name='x\"y\\\\z'" ], '<', \undef, '>', '/dev/null', '2>', '/dev/null')
} 1 .. 2;
$primary->poll_query_until('postgres', q{SELECT count(*) = 3 AND count(alert) = 3 FROM replica_kit.status() WHERE state = 'streaming'}) or die 'they do not stream';

# What metrics() says of a server; each time its format is looked at.
my $faults = '';

sub metrics
{
	my ($node) = @_;
	my ($families, @faults) = read_exposition($node->safe_psql('postgres', 'SELECT replica_kit.metrics()'));

	$faults .= join "\n", @faults, '' if @faults;
	return $families;
}

# The value of a series.
sub value
{
	my ($families, $family, $labels) = @_;

	return $families->{"replica_kit_$family"}{series}{ $labels // '' } // 'none';
}

# Waits until a series has this value.
sub value_soon
{
	my ($node, $wanted, $family, $labels) = @_;
	my $value = '';

	for (1 .. 10 * $PostgreSQL::Test::Utils::timeout_default)
	{
		$value = value(metrics($node), $family, $labels);
		last if $value eq $wanted;
		Time::HiRes::usleep(100_000);
	}
	return $value;
}

# Names of all series of replicas.
sub replicas
{
	my ($families) = @_;

	return join "\n", sort map { my $family = $_; map { "$family\{$_}" } keys %{ $families->{$family}{series} } } grep { /^replica_kit_replica_/ } keys %$families;
}

is_deeply([ sort keys %{ metrics($primary)->{replica_kit_server_health}{series} } ],
	[ map { "code=$_" } qw(archive_failing disk_filling sync_standby_missing worker_stale) ],
	'the server has a series for each of its causes');

# What is wrong with the alerts that monitoring/replica_kit.rules.yml raises when
# a server has said this for 20 minutes: those wanted are "NAME OF", sorted, OF
# being the replica or nothing.  undef: no promtool.
my $rules = "$FindBin::RealBin/../monitoring/replica_kit.rules.yml";

sub alerts_fault
{
	my ($families, @wanted) = @_;
	my $quote = sub { return '"' . $_[0] =~ s/(["\\])/\\$1/gr . '"' };
	my $file = "$PostgreSQL::Test::Utils::tmp_check/rules_test.yml";
	my $yaml = "rule_files: ['$rules']\nevaluation_interval: 1m\ntests:\n- interval: 1m\n  input_series:\n";

	foreach my $family (sort keys %$families)
	{
		# the tests' time begins at 0
		next if $family =~ /_timestamp_seconds$/;
		while (my ($labels, $value) = each %{ $families->{$family}{series} })
		{
			# there is no notation for it
			next if $value eq 'NaN';
			my @labels = map { /^(\w+)=(.*)$/ ? "$1=" . $quote->($2) : () } split /,(?=\w+=)/, $labels;
			my $series = "$family\{" . join(',', 'job="j"', 'instance="i"', @labels) . '}';
			$yaml .= "  - series: '" . $series =~ s/'/''/gr . "'\n    values: '${value}x20'\n";
		}
	}
	$yaml .= "  promql_expr_test:\n  - expr: count by (alertname, replica) (ALERTS{alertstate=\"firing\"})\n    eval_time: 15m\n    exp_samples:" . (@wanted ? "\n" : " []\n");
	foreach (@wanted)
	{
		my ($alert, $replica) = /^(\S+)(?: (.*))?$/;
		my $labels = "{alertname=\"$alert\"" . (defined $replica ? ',replica=' . $quote->($replica) : '') . '}';
		$yaml .= "    - labels: '$labels'\n      value: 1\n";
	}
	unlink $file;
	append_to_file($file, $yaml);
	return promtool('', 'test', 'rules', $file);
}

# The alerts on replicas by what unhealthy() says of them.
sub by_level
{
	my ($families) = @_;
	my %levels = %{ $families->{replica_kit_replica_unhealthy}{series} };

	return map {
		my ($replica) = /^replica=(.*)/;
		my $lost = value($families, 'replica_state', "$_,state=lost") eq '1';
		$levels{$_} ? (($levels{$_} == 1 ? 'ReplicaWarning' : $lost ? 'ReplicaSlotLost' : 'ReplicaCritical') . " $replica") : ()
	} sort keys %levels;
}

# The same as a test.
sub alerts_are
{
	my ($what, $families, @wanted) = @_;

	SKIP:
	{
		my $words = alerts_fault($families, @wanted);
		skip 'no promtool here', 1 if !defined $words;
		is($words, '', $what);
	}
	return;
}

# ----------------------------------------------------------------------
# The format
# ----------------------------------------------------------------------

my $text = $primary->safe_psql('postgres', 'SELECT replica_kit.metrics()', extra_params => [ '-U', 'watcher' ]);
my ($first, @faults) = read_exposition($text);
is("@faults", '', 'a monitor gets what the format allows, and nothing else');
SKIP:
{
	my $words = promtool($text, 'check', 'metrics');
	skip 'no promtool here', 1 if !defined $words;
	is($words, '', 'promtool has nothing against it');
}
is(join(' ', grep { !/^replica_kit_/ } keys %$first), '', 'every family has the prefix');
is(join(' ', grep { /_(?:ms|mb|kb|minutes|hours)(?:_|$)/ } keys %$first), '', 'and base units');
unlike($text, qr/\d\/[0-9A-F]{7}|\bpid=|\bport=/, 'no position, process or port is in it');
my %names = map { /^replica=(.*),/s ? ($1 => 1) : () } keys %{ $first->{replica_kit_replica_info}{series} };
my $spoilt = $primary->pg_version >= 16 ? 'x"y\\z' : 'x"y\\z';
is(join('|', sort keys %names), join('|', sort('replica1', 'never', 'slotless', 'foreign', 'a"b\\c\\x0ad\\xc3\\xa4', $spoilt)),
	'a series for each slot, each walsender and each role of ours, with whatever name');

my @without_slot = ('ReplicaNotAttached a"b\\c\\x0ad\\xc3\\xa4', 'ReplicaNotAttached slotless');
alerts_are('alerts: none but of roles without a slot', $first, @without_slot);

# Each in each family.
foreach my $family (grep { /^replica_kit_replica_/ } sort keys %$first)
{
	my %count;
	$count{ /^replica=(.*?)(?:,\w+=\w+(?: \w+)?)?$/s ? $1 : '' }++ foreach keys %{ $first->{$family}{series} };
	is(join('|', sort keys %count), join('|', sort keys %names), "$family has each of them");
}

# ----------------------------------------------------------------------
# The values
# ----------------------------------------------------------------------

is(value($first, 'replica_connections', "replica=$spoilt"), '2', 'walsenders that share a name are one series');
is(value($first, 'replica_info', 'replica=replica1,slot_type=physical'), '1', 'what a slot is, is told in words');
is(value($first, 'replica_slots', 'replica=slotless'), '0', 'that a slot is gone is told of a role that is left');
is(value($first, 'replica_health', 'replica=slotless'), 'NaN', 'which status() does not judge');
is(value($first, 'in_recovery'), '0', 'a primary is told');
is(value($first, 'upstream_health'), 'none', 'and has no upstream');
is(value($first, 'info', 'version=1.0'), '1', 'the version is told');
is(value($first, 'worker_up'), '1', 'the worker is at work');
ok(abs(value($first, 'sample_timestamp_seconds') - time) < 600, 'the sample is of now');
ok(abs(value($first, 'worker_sample_timestamp_seconds') - time) < 600, 'and so is the worker\'s');
my $state = join ' ', grep { value($first, 'replica_state', "replica=replica1,state=$_") eq '1' } 'streaming', 'catchup', 'backup', 'startup', 'stopping', 'disconnected', 'never connected', 'lost';
is($state, 'streaming', 'one state is 1');

# The same as status() says, once nothing moves.
$standby->safe_psql('postgres', 'SELECT pg_wal_replay_pause()');
$primary->safe_psql('postgres', q{SELECT pg_logical_emit_message(false, '', repeat('x', 100000))});
my ($ours, $theirs) = ('', ' ');
for (1 .. 10 * $PostgreSQL::Test::Utils::timeout_default)
{
	my $families = metrics($primary);
	my @stages = map { value($families, 'replica_lag_bytes', "replica=replica1,stage=$_") } qw(unsent unwritten unflushed unreplayed);

	$ours = join '|', @stages, eval { $stages[0] + $stages[1] + $stages[2] + $stages[3] } // '', value($families, 'replica_retained_bytes', 'replica=replica1');
	$theirs = $primary->safe_psql('postgres', q{SELECT unsent_bytes, unwritten_bytes, unflushed_bytes, unreplayed_bytes, lag_bytes, retained_bytes FROM replica_kit.status() WHERE name = 'replica1' AND unreplayed_bytes > 100000});
	last if $ours eq $theirs;
	Time::HiRes::usleep(100_000);
}
is($ours, $theirs, 'lag by stages, whose sum is the lag, and retained WAL are those of status()');
$standby->safe_psql('postgres', 'SELECT pg_wal_replay_resume()');

# ----------------------------------------------------------------------
# Failed connections, and what watching costs
# ----------------------------------------------------------------------

attempt($primary, 'stranger', "stranger $_") for 1 .. 40;
is(value_soon($primary, '40', 'connection_failures_total', 'direction=in,sqlstate=28000'), '40', 'each failed connection is counted');
is(errors_like($primary, q{sqlstate = '28000'}), '32|32', 'also those that connection_errors() no longer has room for');
my $samples = value(metrics($primary), 'worker_samples_total');
cmp_ok($samples, '>', 0, 'the worker counts its samples');
like(value(metrics($primary), 'worker_cpu_seconds_total'), qr/^\d+\.\d{6}$/, 'and tells its CPU time');
my $cpu = value(metrics($primary), 'worker_cpu_seconds_total');
$primary->safe_psql('postgres', 'ALTER SYSTEM SET replica_kit.worker = off');
$primary->reload;
is(value_soon($primary, '0', 'worker_up'), '0', 'a worker that is switched off is told');
is(value(metrics($primary), 'replica_alert', 'replica=replica1'), 'NaN', 'without it there is no alert');
is(value(metrics($primary), 'replica_unhealthy', 'replica=replica1'), '0', 'but a level');
cmp_ok(value(metrics($primary), 'worker_samples_total'), '>=', $samples, 'its samples stay counted');
cmp_ok(value(metrics($primary), 'worker_cpu_seconds_total'), '>=', $cpu, 'and so does its CPU time');
my $unwatched = metrics($primary);
alerts_are('alerts: no worker', $unwatched, 'ReplicaKitWorkerDown', by_level($unwatched), @without_slot);
$primary->safe_psql('postgres', 'ALTER SYSTEM SET replica_kit.worker = on');
$primary->reload;
is(value_soon($primary, '1', 'worker_up'), '1', 'and when it is on again');

# ----------------------------------------------------------------------
# For node exporter
# ----------------------------------------------------------------------

my $prom = "$PostgreSQL::Test::Utils::tmp_check/replica_kit.prom";
my @textfile = ("$FindBin::RealBin/../monitoring/replica_kit_textfile", $prom);
command_ok([ @textfile, '-d', $primary->connstr('postgres') ], 'the script writes a file');
(my $by_script, @faults) = read_exposition(slurp_file($prom));
is(replicas($by_script) . join(' ', @faults), replicas(metrics($primary)), 'with every series');
my $inode = (stat $prom)[1];
command_fails([ @textfile, '-d', $primary->connstr('nowhere') ], 'without an answer it fails');
is((stat $prom)[1], $inode, 'and leaves the file');
is(join(' ', glob "$prom.*"), '', 'and no other');
unlink $prom;
my ($copy) = slurp_file("$FindBin::RealBin/../doc/monitoring.md") =~ /(^COPY .*?)^\$cron\$/ms or die 'no statement';
$primary->safe_psql('postgres', $copy =~ s/f=\S+\.prom/f=$prom/r);
my ($by_copy, @copy_faults) = read_exposition(slurp_file($prom));
is(replicas($by_copy) . join(' ', @copy_faults), replicas($by_script), 'the statement for pg_cron writes the same');

# ----------------------------------------------------------------------
# On the standby
# ----------------------------------------------------------------------

my $there = metrics($standby);
is(value($there, 'in_recovery'), '1', 'a standby is told');
is(value_soon($standby, '1', 'upstream_streaming'), '1', 'and that it streams');
is(join(' ', map { value($there, $_) } qw(upstream_health upstream_unhealthy upstream_replay_paused)), '0 0 0', 'its upstream is judged');
is(replicas($there), '', 'its primary\'s replicas are not its own');
alerts_are('alerts: none of a standby that streams', $there);
my $upstream = join ' ', sort grep { /upstream/ } keys %$there;

# ----------------------------------------------------------------------
# No series vanishes
# ----------------------------------------------------------------------

# those of the receivers, who leave nothing behind, are not counted
sub lasting
{
	my ($families) = @_;

	return join "\n", grep { !/x"y/ } split /\n/, replicas($families);
}
my $all = lasting($first);
like($all, qr/^replica_kit_replica_health\{replica=replica1\}$/m, 'the series are compared by name');
$_->kill_kill foreach @receivers;
$standby->stop;
is(value_soon($primary, '1', 'replica_unhealthy', 'replica=replica1'), '1', 'a stopped replica is unhealthy');
my $stopped = metrics($primary);
alerts_are('alerts: a stopped replica', $stopped, @without_slot, 'ReplicaWarning replica1');
is(lasting($stopped), $all, 'a stopped replica has all its series');
is(value($stopped, 'replica_connections', 'replica=replica1') . value($stopped, 'replica_state', 'replica=replica1,state=disconnected'), '01', 'which tell that it is away');
cmp_ok(value($stopped, 'replica_disconnected_seconds', 'replica=replica1'), '>', 0, 'and for how long');

$primary->safe_psql('postgres', q{SELECT replica_kit.silence('replica1')});
is(join(' ', map { value(metrics($primary), "replica_$_", 'replica=replica1') } qw(silenced unhealthy health)), '1 0 1', 'while it is silenced it is not unhealthy');
$primary->safe_psql('postgres', q{SELECT replica_kit.unsilence('replica1')});
is(join(' ', map { value(metrics($primary), "replica_$_", 'replica=replica1') } qw(silenced unhealthy)), '0 1', 'and again when it is not');

$primary->safe_psql('postgres', q{ALTER SYSTEM SET max_slot_wal_keep_size = '32MB'});
$primary->reload;
$primary->safe_psql('postgres', q{SELECT pg_switch_wal() FROM pg_logical_emit_message(false, '', 'x')}) for 1 .. 8;
$primary->safe_psql('postgres', 'CHECKPOINT');
my $lost = metrics($primary);
alerts_are('alerts: a lost one', $lost, @without_slot, by_level($lost));
is(lasting($lost), $all, 'a lost one, too');
is(join(' ', map { value($lost, "replica_$_", 'replica=replica1') } qw(health unhealthy slots)) . ' ' . value($lost, 'replica_state', 'replica=replica1,state=lost'), '2 2 1 1',
	'which tell that it is lost, at once');

$primary->restart;
is(value_soon($primary, '1', 'worker_up'), '1', 'after a restart the worker is at work');
my $restarted = metrics($primary);
is(lasting($restarted), $all, 'after a restart of the server they are there');
is(value($restarted, 'replica_state', 'replica=replica1,state=lost'), '1', 'and say the same');

$primary->safe_psql('postgres', q{SELECT pg_drop_replication_slot('replica1'); SELECT pg_drop_replication_slot('foreign')});
my $dropped = metrics($primary);
is(value($dropped, 'replica_slots', 'replica=replica1'), '0', 'a slot that is dropped is told while the role is there');
is(value($dropped, 'replica_slots', 'replica=foreign'), 'none', 'what the kit did not make is gone with its slot');
$primary->safe_psql('postgres', q{SELECT replica_kit.deprovision('replica1')});
is(value(metrics($primary), 'replica_slots', 'replica=replica1'), 'none', 'deprovision() ends the series');

# A standby whose primary is gone.
$primary->stop('immediate');
$standby->start;
is(value_soon($standby, '0', 'upstream_streaming'), '0', 'a standby whose upstream is gone says so');
is(value_soon($standby, '1', 'worker_up'), '1', 'its worker has looked');
is(value_soon($standby, '1', 'upstream_unhealthy'), '1', 'and is unhealthy');
alerts_are('alerts: such a standby', metrics($standby), 'StandbyWarning');
is(join(' ', sort grep { /upstream/ } keys %{ metrics($standby) }), $upstream, 'with the same series');
$standby->stop;

is($faults, '', 'whatever it said was in the format');
done_testing();
