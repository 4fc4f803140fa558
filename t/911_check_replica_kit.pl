# monitoring/check_replica_kit: all four states, under the shells that there are,
# by the rules that Nagios has for what plugins print.

use strict;
use warnings FATAL => 'all';

use Cwd ();
use FindBin;
use lib $FindBin::RealBin;

use DiagKit;
use IO::Socket::INET;
use IPC::Run ();
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(time usleep);

my $plugin = "$FindBin::RealBin/../monitoring/check_replica_kit";
my @shells = map { [ split / / ] } grep { my ($program) = /^(\w+)/; grep { -x "$_/$program" } split /:/, $ENV{PATH} } 'dash', 'busybox sh';
is(scalar(@shells), 2, 'dash and BusyBox are here');

my $primary = new_primary('primary', 'replica_kit.warning_disconnected = 200ms', 'replica_kit.critical_disconnected = 1h');
my ($standby) = new_standby($primary, 'replica1');
$primary->safe_psql('postgres', q{CREATE ROLE watcher LOGIN IN ROLE pg_monitor PASSWORD 'open sesame'; CREATE ROLE nobody LOGIN; CREATE DATABASE other});
$primary->poll_query_until('postgres', q{SELECT count(*) = 1 FROM replica_kit.status() WHERE state = 'streaming' AND alert = 'ok'}) or die 'it does not stream';

# ----------------------------------------------------------------------
# Nagios' rules
# ----------------------------------------------------------------------

my @words = qw(OK WARNING CRITICAL UNKNOWN);

# What is wrong with a plugin's line: https://nagios-plugins.org/doc/guidelines.html
sub line_faults
{
	my ($code, $out, $err) = @_;
	my @faults;

	push @faults, "exit code $code" if $code !~ /^[0-3]$/;
	push @faults, "it writes to stderr: $err" if $err ne '';
	push @faults, 'not one line' if $out !~ /\A[^\n]+\n\z/;
	push @faults, 'other than printable ASCII' if $out =~ /[^\x20-\x7e\n]/;
	push @faults, 'longer than 4 kB' if length $out > 4096;
	my ($text, @perf) = split / \| /, $out =~ s/\n\z//r;
	push @faults, 'more than one |' if ($out =~ tr/|//) > 1;
	push @faults, "the word is not that of exit code $code" if $text !~ /^REPLICAS \Q$words[$code]\E - \S/;
	my $perf = $perf[0] // '';
	while ($perf ne '')
	{
		if ($perf !~ s/^('(?:[^'=]|'')+'|[^'= ]+)=(U|-?[0-9.]+)(us|ms|s|%|B|KB|MB|TB|c)?(?:;([-0-9.:~@]*)){0,2}(?:;(-?[0-9.]*)){0,2}(?: |$)//)
		{
			push @faults, "no performance data: $perf";
			last;
		}
	}
	return @faults;
}
is(scalar(line_faults(0, "REPLICAS OK - good | a=1s;2;3;0;\n", '')), 0, 'a good line is none of the faults');
is(scalar(line_faults(0, "REPLICAS OK - good | a b=1\n", '')), 1, 'a bad one is noticed');

# The plugin under each shell: the same code, and lines in order.  Returns those
# of the last.
sub check
{
	my ($what, $wanted, @arguments) = @_;
	my ($out, $err);

	foreach my $shell (@shells)
	{
		IPC::Run::run([ @$shell, $plugin, @arguments ], '<', '/dev/null', '>', \$out, '2>', \$err);
		my $code = $? >> 8;

		is(join('; ', $code == $wanted ? () : "exit code $code: $out", line_faults($code, $out, $err)), '', "$what (@$shell)");
	}
	note $out;
	return $out;
}
my @to_primary = ('-H', $primary->host, '-p', $primary->port);
my @to_standby = ('-H', $standby->host, '-p', $standby->port);

# From a directory that its user may not read.
{
	my $dir = PostgreSQL::Test::Utils::tempdir();
	my $here = Cwd::getcwd();

	chdir $dir or die "chdir: $!";
	chmod 0, $dir or die "chmod: $!";
	check('in a directory that may not be read', 0, @to_primary);
	chmod 0700, $dir or die "chmod: $!";
	chdir $here or die "chdir: $!";
}

# ----------------------------------------------------------------------
# The states
# ----------------------------------------------------------------------

like(check('all is well', 0, @to_primary, '-m', 1, '-w', 3600, '-c', 7200, '-U', 'watcher'),
	qr/^REPLICAS OK - 1 of 1 streaming \| streaming=1;;1:;0;1 'replica1_lag'=[0-9.]+s;3600;7200;0; 'replica1_lag_bytes'=\d+B;;;0; 'replica1_retained'=\d+B;;;0;$/,
	'all is well: with numbers');
like(check('a standby', 0, @to_standby), qr/^REPLICAS OK - 1 of 1 streaming \| .*'upstream_lag'=/, 'a standby tells of its upstream');
check('of one replica', 0, @to_primary, '-n', 'replica1');
check('of the server', 0, @to_primary, '-n', 'server');
like(check('an unknown name', 3, @to_primary, '-n', "x'; DROP ROLE watcher; --|"), qr/nothing is known of that name: x'; DROP ROLE watcher; --\//, 'an unknown name is told');
like(check('too few', 2, @to_primary, '-m', 2), qr/server critical: 1 of at least 2 replicas streaming/, 'too few stream');
like(check('too late', 2, @to_primary, '-w', 0, '-c', 0), qr/replica1 critical: [0-9.]+ s behind/, 'its own limits count, too');
like(check('late', 1, @to_primary, '-w', 0), qr/replica1 warning: [0-9.]+ s behind/, 'one of them alone');

# Whoever may replicate names itself.
my $dir = PostgreSQL::Test::Utils::tempdir;
my $receiver = IPC::Run::start([ 'pg_receivewal', '--no-loop', '-s', 1, '-D', $dir, '-d',
		"host=@{[ $primary->host ]} port=@{[ $primary->port ]} application_name='a|b;c=\\'d\"e`\$(f)\\\\'" ], '<', \undef, '>', '/dev/null', '2>', '/dev/null');
$primary->poll_query_until('postgres', q{SELECT count(*) = 2 FROM pg_stat_replication}) or die 'it does not stream';
like(check('a hostile name', 0, @to_primary), qr/ 'a_b_c__d_e___f___lag'=/, 'a name that means something else is no longer one');
$receiver->kill_kill;

$standby->stop;
$primary->poll_query_until('postgres', q{SELECT count(*) = 0 FROM pg_stat_replication}) or die 'a walsender stays';
$primary->poll_query_until('postgres', q{SELECT count(*) = 1 FROM replica_kit.unhealthy()}) or die 'it is not noticed';
like(check('a stopped replica', 1, @to_primary), qr/^REPLICAS WARNING - replica1 warning: disconnected for .*\| streaming=0;/, 'a stopped replica is a warning');
check('of the server alone', 0, @to_primary, '-n', 'server');
$primary->safe_psql('postgres', q{ALTER SYSTEM SET replica_kit.critical_disconnected = '200ms'});
$primary->reload;
$primary->poll_query_until('postgres', q{SELECT count(*) = 1 FROM replica_kit.unhealthy('critical')}) or die 'it is not critical';
like(check('for long', 2, @to_primary), qr/^REPLICAS CRITICAL - replica1 critical: disconnected for /, 'for long it is critical');

# ----------------------------------------------------------------------
# No answer
# ----------------------------------------------------------------------

like(check('no extension', 3, @to_primary, '-d', 'other'), qr/schema "replica_kit" does not exist \(pg_replica_kit in database other\?\)/, 'without the extension nothing is known');
like(check('no right', 3, @to_primary, '-U', 'nobody'), qr/permission denied/, 'without the right, too');
check("no right, which is no silence", 3, @to_primary, '-U', 'nobody', '-C');
check('no server', 3, '-H', $primary->host, '-p', 1);
check('no server is critical', 2, '-C', '-H', $primary->host, '-p', 1);

# Somebody who listens and says nothing.
my $listener = IO::Socket::INET->new(Listen => 5, LocalAddr => '127.0.0.1') or die "listen: $!";
my $before = time;
like(check('silence', 3, '-H', '127.0.0.1', '-p', $listener->sockport, '-t', 1), qr/no (?:answer within 1 s|connection)/, 'silence ends in time');
cmp_ok(time - $before, '<', 15 * @shells, 'and not much later');
check('silence is critical', 2, '-C', '-H', '127.0.0.1', '-p', $listener->sockport, '-t', 1);

# A password that is asked for comes from a file, or there is no connection.
set_hba($primary, 'host all watcher 127.0.0.1/32 scram-sha-256');
my $passfile = "$PostgreSQL::Test::Utils::tmp_check/passfile";
append_to_file($passfile, "*:*:*:watcher:open sesame\n");
chmod 0600, $passfile or die "$passfile: $!";
my @with_password = ('-H', '127.0.0.1', '-p', $primary->port, '-U', 'watcher');
check('no password', 3, @with_password);
{
	local $ENV{PGPASSFILE} = $passfile;
	check('a password from a file', 2, @with_password);
}

# ----------------------------------------------------------------------
# Whoever answers may be somebody else
# ----------------------------------------------------------------------

$primary->safe_psql('other', <<'SQL');
CREATE SCHEMA replica_kit;
CREATE FUNCTION replica_kit.status(OUT name text, OUT state text, OUT slot_type text, OUT replay_lsn pg_lsn, OUT lag_time interval, OUT lag_bytes bigint, OUT retained_bytes bigint)
RETURNS SETOF record LANGUAGE sql AS $$ SELECT E'x|\ny''=1;2', 'streaming', 'physical', '0/1'::pg_lsn, '1 s'::interval, 1, 1 FROM generate_series(1, 50) $$;
CREATE FUNCTION replica_kit.standby_status(OUT state text, OUT lag_time interval, OUT receive_lag_bytes bigint, OUT replay_lag_bytes bigint)
RETURNS SETOF record LANGUAGE sql AS $$ SELECT 'streaming', '1 s'::interval, 1, 1 LIMIT 0 $$;
CREATE FUNCTION replica_kit.unhealthy(OUT name text, OUT level text, OUT reason text)
RETURNS SETOF record LANGUAGE sql AS $$ SELECT E'$(id)|\n`id`', 'warning', E'\x1b[31m' || repeat('x|y;', 5000) $$;
SQL
like(check('a hostile answer', 1, @to_primary, '-d', 'other'), qr/^REPLICAS WARNING - \$\(id\)\?\?`id` warning: \?\[31mx\?y;x/, 'a hostile answer is text, and not too much');
$primary->safe_psql('other', 'DROP FUNCTION replica_kit.status(); CREATE FUNCTION replica_kit.status() RETURNS text LANGUAGE plpgsql AS $$ BEGIN RAISE E\'|\n||OK\' USING ERRCODE = \'P0001\'; END $$');
check('a hostile error', 3, @to_primary, '-d', 'other');

# ----------------------------------------------------------------------
# Arguments
# ----------------------------------------------------------------------

check('a wrong number', 3, '-t', 'much');
check('no time at all', 3, '-t', 0);
check('a wrong port', 3, '-p', '5432;');
check('too many arguments', 3, 'postgres');
foreach my $conninfo ('postgresql://u:secret@host/db', 'dbname=postgres password=secret')
{
	unlike(check('a connection string', 3, '-d', $conninfo), qr/secret/, 'a connection string, which may hold a password, is refused');
}
my ($out, $err) = ('', '');
IPC::Run::run([ 'sh', $plugin, '-h' ], '>', \$out, '2>', \$err);
is($? >> 8, 0, 'it has a help');
like($out, qr/^  -H HOST.*^  -t SECONDS.*0 OK, 1 WARNING, 2 CRITICAL, 3 UNKNOWN/ms, 'with options and exit codes');
like(slurp_file("$FindBin::RealBin/../doc/metrics.md"), qr/`-\Q$_\E`/, "doc/metrics.md tells of -$_") foreach $out =~ /^  -(\w) /mg;

$primary->stop;
done_testing();
