# The files in monitoring/ with the programs that they are for, Debian's own:
# what these tell Prometheus is what status(), unhealthy() and metrics() say.

use strict;
use warnings FATAL => 'all';

use FindBin;
use lib $FindBin::RealBin;

use DiagKit;
use Exposition;
use IPC::Run ();
use Outside;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Scenes;
use Test::More;
use Time::HiRes ();

my %programs = map { my $path = outside_program($_); defined $path ? ($_ => $path) : () }
  qw(prometheus-sql-exporter prometheus-node-exporter prometheus-postgres-exporter pg_exporter);
plan skip_all => 'no exporter here' if !%programs;

my $monitoring = "$FindBin::RealBin/../monitoring";
my $dir = $PostgreSQL::Test::Utils::tmp_check;

# A replica that is behind, one that is away, one that never came, a slot whose
# name needs no quotes and a receiver whose name does; then nothing moves.
my $primary = new_primary('primary', 'autovacuum = off', 'checkpoint_timeout = 1h', 'replica_kit.warning_lag = 1MB',
	'replica_kit.lag_grace = 0', 'replica_kit.alert_after = 0', 'replica_kit.warning_disconnected = 100ms');
my ($standby) = new_standby($primary, 'replica1');
my ($away) = new_standby($primary, 'away');
$primary->safe_psql('postgres', <<'SQL');
SELECT replica_kit.provision('never', '127.0.0.1');
CREATE ROLE watcher LOGIN IN ROLE pg_monitor;
SQL
$away->stop;
mkdir "$dir/received" or die "received: $!";
start_outside('receiver', 'pg_receivewal', '--no-loop', '-s', 1, '-D', "$dir/received", '-d',
	"host=@{[ $primary->host ]} port=@{[ $primary->port ]} application_name='x\"y\\\\z'");
$standby->safe_psql('postgres', 'SELECT pg_wal_replay_pause()');
$primary->safe_psql('postgres', q{SELECT count(pg_logical_emit_message(true, '', repeat('x', 1000000))) FROM generate_series(1, 3)});
$primary->poll_query_until('postgres', q{SELECT count(*) = 2 FROM replica_kit.unhealthy() WHERE level = 'warning'})
  or die 'nobody is unhealthy';

# What SQL says of each replica: figures that stand still, "NAME FIGURE VALUE".
my $said = <<'SQL';
SELECT string_agg(format('%s %s %s', name, figure, value), E'\n' ORDER BY name COLLATE "C", figure COLLATE "C")
  FROM (SELECT s.name, array_position('{ok,warning,critical}', s.health) - 1 AS health,
               array_position('{ok,warning,critical}', s.alert) - 1 AS alert,
               coalesce(array_position('{ok,warning,critical}', u.level) - 1, 0) AS unhealthy,
               (s.pid IS NOT NULL)::integer AS connections, s.lag_bytes, s.retained_bytes
          FROM replica_kit.status() s LEFT JOIN replica_kit.unhealthy() u ON u.name = s.name) s,
       LATERAL (VALUES ('health', health), ('alert', alert), ('unhealthy', unhealthy), ('connections', connections),
                       ('lag_bytes', lag_bytes), ('retained_bytes', retained_bytes)) AS f (figure, value)
 WHERE value IS NOT NULL
SQL
my @figures = qw(alert connections health lag_bytes retained_bytes unhealthy);

# Waits until an exporter says the same; $figures makes a hash of replica and
# figure of what it said, and leaves out what it does not know.
sub same_as_status
{
	my ($name, $port, $figures) = @_;
	my ($ours, $theirs) = ('', ' ');

	ok(reachable($port), "$name: it starts");
	for (1 .. 10 * $PostgreSQL::Test::Utils::timeout_default)
	{
		my $known = $figures->(scrape($port));

		$theirs = join "\n", map { my $replica = $_; map { defined $known->{$replica}{$_} ? sprintf('%s %s %d', $replica, $_, $known->{$replica}{$_}) : () } @figures } sort keys %$known;
		$ours = $primary->safe_psql('postgres', $said);
		last if $ours eq $theirs;
		Time::HiRes::usleep(100_000);
	}
	is($theirs, $ours, "$name: what it tells is what status() and unhealthy() say");
	return;
}

# doc/from_check_postgres.md: the series that take the place of postgres_exporter's
# are there, on the primary or on the standby.
my ($table) = slurp_file("$FindBin::RealBin/../doc/from_check_postgres.md") =~ /^\| postgres_exporter \| kit.*?\n\|[-|]+\n(.*?)\n\n/ms or die 'no table';
my @families = map { my ($families) = read_exposition($_->safe_psql('postgres', 'SELECT replica_kit.metrics()')); keys %$families } $primary, $standby;
foreach my $row (split /\n/, $table)
{
	my (undef, $theirs, $ours) = split / *\| */, $row;

	foreach my $name (grep { $_ ne 'stage' } $ours =~ /`([a-z_*]+)/g)
	{
		my $pattern = $name =~ s/\*/\\w+/r;
		ok(scalar(grep { /^replica_kit_$pattern$/ } @families), "from_check_postgres.md: replica_kit_$name, for $theirs");
	}
}

# A label of a series, among others that an exporter may add; none has a comma.
sub label
{
	my ($series, $name) = @_;

	return $series =~ /[\{,]$name=(.*?)(?=,\w+=|\}$)/ ? $1 : '';
}

# Series by metrics()' own names.
sub own_names
{
	my ($told) = @_;
	my %known;

	foreach my $series (grep { $told->{$_} !~ /nan/i } keys %$told)
	{
		my ($figure) = $series =~ /^replica_kit_replica_(\w+)\{/ or next;
		$known{ label($series, 'replica') }{$figure} += $told->{$series} if $figure ne 'state';
	}
	return \%known;
}

my $url = sub { my ($host) = @_; return "host=$host&port=" . $primary->port . '&sslmode=disable' };

SKIP:
{
	my $program = $programs{'prometheus-sql-exporter'} or skip 'no sql_exporter here', 1;
	my $port = PostgreSQL::Test::Cluster::get_free_port();
	my $config = slurp_file("$monitoring/sql_exporter.yml");

	$config =~ s/host=[^&]*&sslmode=disable/$url->($primary->host)/ge;
	$config =~ s/interval: '15s'/interval: '1s'/;
	append_to_file("$dir/sql_exporter.yml", $config);
	start_outside('sql_exporter', $program, '-config.file', "$dir/sql_exporter.yml", '-web.listen-address', "127.0.0.1:$port");
	same_as_status(
		'sql_exporter',
		$port,
		sub {
			my ($told) = @_;
			my %known;

			foreach my $series (grep { /^sql_replica_kit_replica\{/ && $told->{$_} != -1 } keys %$told)
			{
				$known{ label($series, 'replica') }{ label($series, 'col') } = $told->{$series};
			}
			return \%known;
		});
	my $told = scrape($port);
	is(join(' ', sort map { label($_, 'name') . " $told->{$_}" } grep { /^sql_replica_kit_server\{/ } keys %$told),
		'server 0 upstream 0', 'sql_exporter: the server and its upstream');
	stop_outside('sql_exporter');
}

foreach (
	[ 'postgres_exporter', 'prometheus-postgres-exporter', '--disable-default-metrics', '--disable-settings-metrics', '--extend.query-path' ],
	[ 'pg_exporter', 'pg_exporter', '--disable-intro', '--config' ])
{
	my ($name, $command, @options) = @$_;
	SKIP:
	{
		my $program = $programs{$command} or skip "no $name here", 1;
		my $port = PostgreSQL::Test::Cluster::get_free_port();
		my $conninfo = 'postgresql://watcher@:' . $primary->port . '/postgres?host=' . $primary->host . '&sslmode=disable';
		my @login = $name eq 'pg_exporter' ? ("--url=$conninfo") : ();

		local $ENV{DATA_SOURCE_NAME} = $conninfo;
		start_outside($name, $program, "--web.listen-address=127.0.0.1:$port", @login, @options, "$monitoring/postgres_exporter.yml");
		same_as_status($name, $port, \&own_names);

		my $told = scrape($port);
		my (undef, @families) = read_rules("$monitoring/replica_kit.rules.yml");
		is(join(' ', grep { my $family = $_; !grep { /^$family\{/ } keys %$told } grep { !/upstream/ } @families), '', "$name: all that the alert rules ask for is there");
		my ($state) = grep { /^replica_kit_replica_state\{/ && label($_, 'replica') eq 'away' && label($_, 'state') eq 'disconnected' } keys %$told;
		is($told->{ $state // '' }, 1, "$name: states are told");
		stop_outside($name);

		$port = PostgreSQL::Test::Cluster::get_free_port();
		s/:@{[ $primary->port ]}\// ':' . $standby->port . '\/' /e, s/host=[^&]*/'host=' . $standby->host/e foreach $ENV{DATA_SOURCE_NAME}, @login;
		start_outside($name, $program, "--web.listen-address=127.0.0.1:$port", @login, @options, "$monitoring/postgres_exporter.yml");
		ok(reachable($port), "$name: it starts for the standby");
		my @upstream;
		for (1 .. 10 * $PostgreSQL::Test::Utils::timeout_default)
		{
			my $series = scrape($port);

			@upstream = map { $series->{$_} } grep { /^replica_kit_upstream_unhealthy\{/ } keys %$series;
			last if "@upstream" eq '1';
			Time::HiRes::usleep(100_000);
		}
		is("@upstream", '1', "$name: a standby whose replay is behind is told");
		stop_outside($name);
	}
}

SKIP:
{
	my $program = $programs{'prometheus-node-exporter'} or skip 'no node_exporter here', 1;
	my $port = PostgreSQL::Test::Cluster::get_free_port();

	# What the unit of systemd starts, as its user, with its environment: which server
	# that is, is told from outside here.
	mkdir "$dir/textfile" or die "textfile: $!";
	my $unit = slurp_file("$monitoring/systemd/replica-kit-metrics.service");
	my ($user) = $unit =~ /^User=(.*)$/m;
	my ($start) = $unit =~ /^ExecStart=(.*)$/m;
	$start =~ s!/usr/local/lib/pg_replica_kit/!$monitoring/! or die 'no script';
	$start =~ s!/var/lib/prometheus/node-exporter/!$dir/textfile/! or die 'no directory';
	note "as " . getpwuid($<) . ", the unit says $user";
	command_ok([ 'env', '-i', 'PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin', 'PGHOST=' . $primary->host, 'PGPORT=' . $primary->port, split / /, $start ],
		'node_exporter: what the unit starts writes its file');
  SKIP:
	{
		my $analyze = outside_program('systemd-analyze') or skip 'no systemd-analyze here', 1;
		my ($out, $err);

		# it looks whether the program is there
		mkdir "$dir/units" or die "units: $!";
		append_to_file("$dir/units/replica-kit-metrics.service", $unit =~ s!/usr/local/lib/pg_replica_kit/!$monitoring/!r);
		append_to_file("$dir/units/replica-kit-metrics.timer", slurp_file("$monitoring/systemd/replica-kit-metrics.timer"));
		IPC::Run::run([ $analyze, 'verify', '--man=no', glob "$dir/units/*" ], '<', '/dev/null', '>', \$out, '2>', \$err);
		is("$out$err", '', 'systemd finds nothing wrong in the units');
	}
	start_outside('node_exporter', $program, "--web.listen-address=127.0.0.1:$port", '--collector.disable-defaults', '--collector.textfile', "--collector.textfile.directory=$dir/textfile");
	same_as_status('node_exporter', $port, \&own_names);

	my $told = scrape($port);
	is($told->{'node_textfile_scrape_error{}'}, 0, 'node_exporter: it reads the file');
	my @lines = grep { !/^#/ } split /\n/, slurp_file("$dir/textfile/replica_kit.prom");
	is(scalar(grep { /^replica_kit_/ } keys %$told), scalar @lines, 'node_exporter: it passes each series on');
}

done_testing();
