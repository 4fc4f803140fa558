# The real pg_cron runs assert_healthy(): a healthy replica's run is
# "succeeded"; when the replica is stopped it is "failed", with the reason.  And
# jobs that set up a replica, fail after that, and take it away; and those of
# doc/monitoring.md, which writes metrics() to a file, and of doc/alerting.md.

use strict;
use warnings FATAL => 'all';

use FindBin;
use lib $FindBin::RealBin;

use Exposition;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $sharedir = `pg_config --sharedir`;
chomp $sharedir;
plan skip_all => 'pg_cron is not installed'
  unless -f "$sharedir/extension/pg_cron.control";

my $primary = PostgreSQL::Test::Cluster->new('primary');
$primary->init(allows_streaming => 1);
$primary->append_conf('postgresql.conf', <<~CONF);
	shared_preload_libraries = 'pg_replica_kit, pg_cron'
	listen_addresses = '127.0.0.1'
	cron.database_name = 'postgres'
	cron.use_background_workers = on
	replica_kit.check_interval = '200ms'
	replica_kit.warning_disconnected = '500ms'
	replica_kit.critical_disconnected = '1s'
	CONF
$primary->start;
$primary->safe_psql('postgres', <<~SQL);
	CREATE EXTENSION pg_replica_kit;
	CREATE EXTENSION pg_cron;
	SELECT pg_create_physical_replication_slot('r1', true);
	SQL

$primary->backup('one');
my $standby = PostgreSQL::Test::Cluster->new('standby');
$standby->init_from_backup($primary, 'one', has_streaming => 1);
$standby->append_conf('postgresql.conf', "primary_slot_name = 'r1'");
$standby->start;
$primary->wait_for_catchup($standby);
$primary->poll_query_until('postgres',
	"SELECT alert = 'ok' AND state = 'streaming' FROM replica_kit.status()")
  or die 'the replica does not stream';

# Seconds came with pg_cron 1.5; before, a run begins with a minute.
my $version = $primary->safe_psql('postgres',
	"SELECT extversion FROM pg_extension WHERE extname = 'pg_cron'");
my $schedule = $version =~ /^1\.[0-4]\b/ ? '* * * * *' : '5 seconds';
my $job = $primary->safe_psql('postgres',
	"SELECT cron.schedule('replicas', '$schedule', 'SELECT replica_kit.assert_healthy(min_streaming => 1)')"
);

# The first run that has ended after the given one.  That one begins is read
# off the log, which is cheap to wait for.
sub next_run
{
	my ($after, $offset) = @_;
	my $runs = "cron.job_run_details WHERE jobid = $job AND runid > $after"
	  . " AND status IN ('succeeded', 'failed')";

	$primary->wait_for_log(qr/cron job $job starting/, $offset);
	$primary->poll_query_until('postgres', "SELECT count(*) > 0 FROM $runs")
	  or die 'pg_cron did not run the job';
	return split /\|/,
	  $primary->safe_psql('postgres',
		"SELECT runid, status, return_message FROM $runs ORDER BY runid LIMIT 1"
	  );
}

my ($run, $status, $message) = next_run(0, 0);
is($status, 'succeeded', 'the run with a healthy replica has succeeded');

# A run that begins before the worker has called it critical proves nothing.
$standby->stop;
$primary->poll_query_until('postgres',
	"SELECT alert = 'critical' FROM replica_kit.status()")
  or die 'the replica is not critical';
$primary->safe_psql('postgres', <<~SQL);
	SELECT cron.schedule('make', '$schedule', \$\$SELECT FROM replica_kit.provision('made', '127.0.0.1')\$\$);
	SELECT cron.schedule('fail', '$schedule', \$\$SELECT FROM replica_kit.provision('failed', '127.0.0.1'); SELECT 1/0\$\$);
	SQL

# The jobs of the pages, as they stand; and somebody who listens.
my $prom = "$PostgreSQL::Test::Utils::tmp_check/replica_kit_cron.prom";
my $alerting = slurp_file("$FindBin::RealBin/../doc/alerting.md");
my ($write) = slurp_file("$FindBin::RealBin/../doc/monitoring.md") =~ /^(SELECT cron\.schedule\('replica_kit metrics'.*?^\$cron\$\);)$/ms or die 'no job that writes';
my ($tell) = $alerting =~ /^(CREATE FUNCTION tell_unhealthy\(\).*?)^```$/ms or die 'no job that tells';
my ($look) = $alerting =~ /^(SELECT start_time, return_message FROM cron\.job_run_details.*?;)$/ms or die 'no query';
$write =~ s/f=\S+\.prom/f=$prom/ or die 'no file';
s/'\* \* \* \* \*'/'$schedule'/ or die 'no schedule' foreach $write, $tell;
my $listener = $primary->background_psql('postgres', on_error_stop => 1);
$listener->query_safe('LISTEN replicas');
$primary->safe_psql('postgres', $_) foreach $write, $tell;
my $offset = -s $primary->logfile;
$run = $primary->safe_psql('postgres',
	'SELECT coalesce(max(runid), 0) FROM cron.job_run_details');

($run, $status, $message) = next_run($run, $offset);
is($status, 'failed', 'the run without it has failed');
like(
	$message,
	qr/replica "r1" critical: disconnected for \d/,
	'and its message has the reason');

like($primary->safe_psql('postgres', $look), qr/replica "r1" critical: disconnected for \d/, 'the query of the page finds it');

# ----------------------------------------------------------------------
# Setting up
# ----------------------------------------------------------------------

sub job_has_ended
{
	my ($name, $end) = @_;
	my $id = $primary->safe_psql('postgres', "SELECT jobid FROM cron.job WHERE jobname = '$name'");

	$primary->wait_for_log(qr/cron job $id starting/, $offset);
	return $primary->poll_query_until('postgres',
		"SELECT count(*) > 0 FROM cron.job_run_details JOIN cron.job USING (jobid) WHERE jobname = '$name' AND status = '$end'");
}

sub replicas
{
	return $primary->safe_psql('postgres', <<~'SQL');
		SELECT 'role ' || rolname FROM pg_roles WHERE rolname IN ('made', 'failed')
		UNION ALL SELECT 'slot ' || slot_name FROM pg_replication_slots WHERE slot_name IN ('made', 'failed')
		UNION ALL SELECT 'rule of ' || user_name[1] FROM pg_hba_file_rules WHERE user_name[1] IN ('made', 'failed')
		ORDER BY 1
		SQL
}
ok(job_has_ended('make', 'succeeded'), 'a job that provisions succeeds');
ok(job_has_ended('fail', 'failed'), 'one with an error after that fails');
is(replicas(), "role made\nrule of made\nslot made", 'and only the first has made something');

# ----------------------------------------------------------------------
# The jobs of the pages
# ----------------------------------------------------------------------

ok(job_has_ended('replica_kit metrics', 'succeeded'), 'the job that writes metrics() succeeds');
my ($families, @faults) = read_exposition(slurp_file($prom));
is("@faults", '', 'what it has written is in the format');
my @levels = qw(ok warning critical);
my $told = join '|', $levels[ $families->{replica_kit_replica_health}{series}{'replica=r1'} // 3 ] // '',
  map { $families->{"replica_kit_$_"}{series}{$_ eq 'replica_state' ? 'replica=r1,state=disconnected' : 'replica=r1'} // '' } qw(replica_state replica_connections replica_unhealthy);
is($told, $primary->safe_psql('postgres', q{SELECT health, 1, count(pid), 2 FROM replica_kit.status() WHERE name = 'r1' AND state = 'disconnected' GROUP BY health}),
	'and says of the replica what status() does');

ok(job_has_ended('tell of replicas', 'succeeded'), 'the job that tells succeeds');
like($listener->query_safe('SELECT 1'), qr/Asynchronous notification "replicas" with payload "r1 critical: disconnected for /, 'who listens is told');
$listener->quit;

# ----------------------------------------------------------------------
# Taking away
# ----------------------------------------------------------------------

$primary->safe_psql('postgres', <<~SQL);
	SELECT cron.unschedule(jobname) FROM cron.job;
	SELECT cron.schedule('take', '$schedule', \$\$SELECT FROM replica_kit.deprovision('made')\$\$);
	SQL
ok(job_has_ended('take', 'succeeded'), 'a job that deprovisions succeeds');
is(replicas(), '', 'and nothing is left');

$primary->stop;
done_testing();
