# monitoring/replica_kit.rules.yml: promtool finds nothing wrong in it, and in
# recordings of metrics() each alert fires in time and ends in time, and none
# fires where all is well, nor in a burst or planned work.

use strict;
use warnings FATAL => 'all';

use FindBin;
use lib $FindBin::RealBin;

use Exposition;
use PostgreSQL::Test::Utils;
use Scenes;
use Test::More;

my $rules = "$FindBin::RealBin/../monitoring/replica_kit.rules.yml";
my $words = promtool('', 'check', 'rules', $rules);
plan skip_all => 'no promtool here: Debian has it in prometheus' if !defined $words;
is($words, '', 'promtool has nothing against the rules');

# What fires at so many seconds: the alerts, each with its replica if it has one.
# What was done when stands in each recording.  A replica that is away is unhealthy
# after warning_disconnected (1 min); the worker sees it within 10 s, metrics() is
# asked each 15 s, and the rules are evaluated each 15 s, too.
my $warning = 'ReplicaWarning replica1';
my $critical = 'ReplicaCritical replica1';
my %scenes = (
	healthy => [ map { [ 15 * $_ ] } 0 .. 20 ],
	idle => [ map { [ 15 * $_ ] } 0 .. 20 ],
	burst => [ map { [ 15 * $_ ] } 0 .. 20 ],
	restarts => [ map { [ 15 * $_ ] } 0 .. 20 ],
	planned => [ map { [ 15 * $_ ] } 0 .. 28 ],
	stopped => [ [45], [105], [ 165, $warning ], [ 225, $warning ], [ 285, $critical ], [ 330, $critical ], [375], [420] ],
	lost => [ [60], [ 105, 'ReplicaSlotLost replica1' ], [ 210, 'ReplicaSlotLost replica1' ], [255], [330] ],
	paused => [ [60], [ 150, $warning ], [ 240, $warning ], [330], [360] ],
	stalled => [ [60], [ 165, $warning ], [ 210, $warning ], [300], [330] ],
	password => [ [60], [ 165, $warning ], [ 240, $warning ], [285], [330] ],
	dropped => [ [60], [ 90, $critical ], [ 210, $critical ], [255], [330] ],
	synchronous => [ [60], [ 105, 'ReplicationServerCritical' ], [ 165, $warning, 'ReplicationServerCritical' ], [255], [330] ],
	archive => [ [60], [ 165, 'ReplicationServerWarning' ], [ 300, 'ReplicationServerCritical' ], [ 330, 'ReplicationServerCritical' ], [405] ],
	unattached => [ [600], [ 705, 'ReplicaNotAttached replica1' ], [ 780, 'ReplicaNotAttached replica1' ], [825] ],
	upstream => [ [60], [105], [ 165, 'StandbyWarning' ], [ 285, 'StandbyCritical' ], [ 330, 'StandbyCritical' ], [405] ],
	unwatched => [ [360], [ 405, 'ReplicaKitWorkerDown' ], [ 450, 'ReplicaKitWorkerDown' ], [495] ],
	down => [ [345], [ 390, 'ReplicaKitMetricsStale' ], [ 510, 'ReplicaKitMetricsStale' ], [555] ],
	gone => [ [720], [1800], [ 2145, 'ReplicaKitMetricsAbsent' ], [ 2250, 'ReplicaKitMetricsAbsent' ] ]);

my ($alerts, @families) = read_rules($rules);
my %fired;
my $recorded = '';

foreach my $scene (sort keys %scenes)
{
	my $recording = slurp_file("$FindBin::RealBin/scenes/$scene.yml");
	my $file = "$PostgreSQL::Test::Utils::tmp_check/$scene.yml";
	my $yaml = "rule_files: ['$rules']\nevaluation_interval: 15s\ntests:\n- interval: 15s\n  input_series:\n"
	  . join('', map { "  $_\n" } split /\n/, $recording)
	  . "  promql_expr_test:\n";

	$recorded .= $recording;
	foreach my $moment (@{ $scenes{$scene} })
	{
		my ($at, @firing) = @$moment;

		$yaml .= "  - expr: count by (alertname, replica) (ALERTS{alertstate=\"firing\"})\n    eval_time: ${at}s\n    exp_samples:" . (@firing ? "\n" : " []\n");
		foreach (@firing)
		{
			my ($alert, $replica) = split / /;
			$fired{$alert} = 1;
			$yaml .= "    - labels: '{alertname=\"$alert\"" . (defined $replica ? ",replica=\"$replica\"" : '') . "}'\n      value: 1\n";
		}
	}
	unlink $file;
	append_to_file($file, $yaml);
	is(promtool('', 'test', 'rules', $file), '', "$scene: " . (join(', ', map { my ($at, @firing) = @$_; @firing ? "@firing at $at s" : () } @{ $scenes{$scene} }) || 'no alert'));
}

is(join(' ', grep { !$fired{$_} } @$alerts), '', 'each alert fires in a recording');
is(join(' ', grep { $recorded !~ /^- series: '$_\{/m } @families), '', 'each family that the rules ask for is in the recordings');
is(join(' ', map { m{([^/]+)\.yml$} } grep { my ($name) = m{([^/]+)\.yml$}; !$scenes{$name} } glob "$FindBin::RealBin/scenes/*.yml"), '', 'each recording is used');

done_testing();
