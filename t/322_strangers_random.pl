# Whatever strangers send, nothing that the kit says changes by it: random bytes
# and known tricks as user, database, application name and options, with wrong
# passwords and without, against a primary with a healthy, an absent, a lost and
# a foreign replica.
#
# Goes on for PRK_FUZZ_SECONDS, or for PRK_FUZZ_CONNECTIONS connections, in
# PRK_FUZZ_PROCESSES at a time, from PRK_FUZZ_SEED on; scripts/proof strangers
# runs it for long.

use strict;
use warnings FATAL => 'all';

use FindBin;
use lib $FindBin::RealBin;

use DiagKit;
use Encode qw(decode FB_CROAK LEAVE_SRC);
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Strangers;
use Test::More;
use Time::HiRes qw(time usleep);

my $seed = $ENV{PRK_FUZZ_SEED} || int(time);
my $connections = $ENV{PRK_FUZZ_CONNECTIONS};
my $seconds = $ENV{PRK_FUZZ_SECONDS} || 25;
my $processes = $ENV{PRK_FUZZ_PROCESSES} || 2;
note "PRK_FUZZ_SEED=$seed";

# ----------------------------------------------------------------------
# The mouths: each function and view of the schema, with a query that says all
# that it says, or why none is asked.  A new one has to be added here.
# ----------------------------------------------------------------------

my %silent = map { $_ => 1 } qw(
  join_script rotate_password revoke_address deprovision provision
  allow_rewind revoke_rewind end_rewind
  preflight_facts preflight_accepts history lag_graph
  wait_for_lsn silence unsilence help);
my %mouths = (
	# what the time changes is left out
	status => q{SELECT to_jsonb(s) - '{lag_time,reply_time,catch_up_in,lost_in,disk_full_in}'::text[] FROM replica_kit.status() s},
	standby_status => q{SELECT * FROM replica_kit.standby_status()},
	summary => q{SELECT name, state, health, lag, retained, reason FROM replica_kit.summary},
	diagnose => q{SELECT * FROM replica_kit.diagnose()},
	unhealthy => q{SELECT * FROM replica_kit.unhealthy()},
	assert_healthy => q{SELECT replica_kit.assert_healthy('warning')},
	preflight => q{SELECT * FROM replica_kit.preflight() WHERE check_name NOT IN ('wal_disk', 'max_slot_wal_keep_size', 'max_wal_senders')},
	hba_match => q{SELECT * FROM replica_kit.hba_match('absent', '127.0.0.66')},
	metrics => q{SELECT line FROM regexp_split_to_table(replica_kit.metrics(), E'\n') line WHERE line !~ '^replica_kit_\w+_(?:seconds|total|free_bytes)\M'},
	silences => q{SELECT * FROM replica_kit.silences()},
	connection_errors => undef);

# ----------------------------------------------------------------------
# The scene
# ----------------------------------------------------------------------

my $primary = new_primary('primary', 'max_wal_senders = 50', 'max_connections = 100', 'max_slot_wal_keep_size = 32MB',
	'autovacuum = off', 'checkpoint_timeout = 1h', 'log_connections = off', 'log_min_messages = warning',
	'replica_kit.warning_disconnected = 100ms', 'replica_kit.critical_disconnected = 200ms', 'replica_kit.alert_after = 0',

	# what time alone would change
	'replica_kit.warning_lag_time = -1', 'replica_kit.critical_lag_time = -1');
$primary->safe_psql('postgres', <<'SQL');
SELECT replica_kit.provision('lost', '127.0.0.1');
SELECT pg_logical_emit_message(false, '', repeat('x', 1000000)) FROM generate_series(1, 64);
SELECT pg_switch_wal();
CHECKPOINT;
CREATE ROLE foreign_role LOGIN REPLICATION PASSWORD 'secret';
CREATE ROLE app LOGIN PASSWORD 'secret';
SQL
$primary->safe_psql('postgres', "CREATE DATABASE $_ TEMPLATE template0 ENCODING '$_' LOCALE 'C'") foreach qw(latin1 sql_ascii);
$primary->safe_psql($_, 'CREATE EXTENSION pg_replica_kit') foreach qw(latin1 sql_ascii);
my ($healthy) = new_standby($primary, 'healthy');
my ($absent) = new_standby($primary, 'absent');
$primary->poll_query_until('postgres', q{SELECT count(*) = 2 FROM replica_kit.status() WHERE state = 'streaming' AND alert IS NOT NULL})
  or die 'the standbys do not stream';
$absent->stop;
$primary->safe_psql('postgres', q{SELECT pg_create_physical_replication_slot('foreign', true)});
append_to_file($primary->data_dir . '/pg_hba.conf',
	"host all,replication all 127.0.0.64/26 scram-sha-256\n");
$primary->reload;

# What the mouths say, with neither durations nor times.
sub all_words
{
	my %said;
	foreach my $mouth (grep { defined $mouths{$_} } keys %mouths)
	{
		my ($stdout, $stderr) = ('', '');
		next if $primary->safe_psql('postgres', "SELECT count(*) FROM pg_proc WHERE pronamespace = 'replica_kit'::regnamespace AND proname = '$mouth'") eq '0'
		  && $mouth ne 'summary';
		$primary->psql('postgres', $mouths{$mouth}, stdout => \$stdout, stderr => \$stderr);
		my $words = "$stdout\n$stderr";
		$words =~ s/(?:less than a second|\d+(?:\.\d+)? (?:ms|s|min|h|d)(?: \d+ (?:s|min|h))?)\b/TIME/g;
		$words =~ s/\d{4}-\d\d-\d\d[ T]\d\d:\d\d:\d\d[.\d]*(?:\+\d\d(?::\d\d)?| UTC)?/TIME/g;
		$words =~ s/psql:<stdin>:\d+: //g;
		$said{$mouth} = $words;
	}
	return \%said;
}

# Settled: what an absence alone changes has changed.
$primary->poll_query_until('postgres', q{SELECT count(*) = 2 FROM replica_kit.status() WHERE name IN ('absent', 'lost') AND alert = 'critical'})
  or die 'no alerts';
is($primary->safe_psql('postgres', q{SELECT string_agg(name || ' ' || state, ', ' ORDER BY name) FROM replica_kit.status()}),
	'absent disconnected, foreign never connected, healthy streaming, lost lost', 'the scene is set');

# What the server itself still writes after all this (pages pruned by the very
# queries, a snapshot for standbys 15 s after the last change) moves positions:
# wait until that has come to an end.
my $before;
for (1 .. 20)
{
	$before = all_words();
	my $until = time + 17;
	usleep(200_000) while time < $until;
	my $again = all_words();
	last if join("\0", map { $before->{$_} } sort keys %$before) eq join("\0", map { $again->{$_} } sort keys %$again);
}
my $log = -s $primary->logfile;

# ----------------------------------------------------------------------
# The strangers
# ----------------------------------------------------------------------

my @names = (qw(healthy absent lost foreign foreign_role app postgres replication all server upstream
	pg_replica_kit-script pg_basebackup_1 walreceiver), '');
my @tricks = (
	"x\nALTER ROLE app SUPERUSER; --", "'; ALTER ROLE app SUPERUSER; --", '"; DROP TABLE t; --', '$$x$$', q{\\gexec},
	"\\x00", '\\x41bsent', "absent'", 'absent"', 'absent ', ' absent', "absent\n", "absent\r\nhealthy", "ABSENT",
	"e\xff\xfe", "\xc3\xa9", "\xc3", "\xe9", "\xf0\x9f\x92\xa9", "\xe2\x80\xae" . 'tnesba', "\xd0\xaf", "\xed\xa0\x80", "\xc0\x80",
	"\e[2J\e[31m", "\a\b\f\x7f", "\t", '%s%n%d', '%', '\\', 'a' x 63, 'a' x 64, 'a' x 200, "\xc3\xa9" x 32, 'x' . "\xc3\xa9" x 31,
	'"', "'", '#', '@', '/.*', '+all', '<script>alert(1)</script>', '{"a":1}', 'a=b c=d', '$(id)', '`id`',
	'host replication all all trust', '# pg_replica_kit: absent', 'SELECT pg_reload_conf();',
	'slot_lost', 'last error: password authentication failed for user "absent"');

sub word
{
	my $kind = rand;
	return $names[ rand @names ] if $kind < 0.4;
	return $tricks[ rand @tricks ] if $kind < 0.8;
	my $word = join '', map { chr(1 + int rand 255) } 1 .. 1 + rand($kind < 0.95 ? 70 : 2000);
	return $word;
}

sub stranger
{
	my @parameters = (user => word() || 'x');
	push @parameters, replication => rand() < 0.6 ? 'true' : rand() < 0.7 ? 'database' : word() || 'x' if rand() < 0.95;
	push @parameters, database => word() || 'x' if rand() < 0.6;
	push @parameters, application_name => word() if rand() < 0.9;
	push @parameters, options => rand() < 0.5 ? word() : '-c ' . word() . '=' . word() if rand() < 0.3;
	push @parameters, word() || 'x', word() if rand() < 0.1;
	return knock($primary, '127.0.0.' . (rand() < 0.7 ? 66 : 130), @parameters);
}

my $started = time;
my @pids;
foreach my $process (0 .. $processes - 1)
{
	my $pid = fork // die "fork: $!";
	if ($pid == 0)
	{
		my $count = 0;
		my $let_in = 0;
		srand($seed * 10 + $process);
		while (defined $connections ? $count < $connections / $processes : time < $started + $seconds)
		{
			$let_in++ if stranger() eq 'let in';
			$count++;
		}
		open my $out, '>', $primary->basedir . "/count.$process" or die $!;
		print $out $count;
		close $out;
		require POSIX;
		POSIX::_exit($let_in ? 1 : 0);
	}
	push @pids, $pid;
}
my $let_in = 0;
foreach my $pid (@pids)
{
	waitpid $pid, 0;
	$let_in++ if $?;
}
my $count = 0;
$count += slurp_file($primary->basedir . "/count.$_") foreach 0 .. $processes - 1;
is($let_in, 0, 'no stranger was let in');
cmp_ok($count, '>=', $connections // 100, "$count connections of strangers");
note sprintf '%d connections in %d s', $count, time - $started;

# ----------------------------------------------------------------------
# Nothing has changed
# ----------------------------------------------------------------------

my $after = all_words();
is($after->{$_}, $before->{$_}, "$_() says what it said before") foreach sort keys %$before;
cmp_ok($primary->safe_psql('postgres', 'SELECT count(*) FROM replica_kit.connection_errors()'), '<=', 128,
	'connection_errors() is bounded');
cmp_ok($primary->safe_psql('postgres', 'SELECT sum(count) FROM replica_kit.connection_errors()'), '>', 0, 'and was written');
cmp_ok($primary->safe_psql('postgres', 'SELECT max(octet_length(message)), max(octet_length(role_name)) FROM replica_kit.connection_errors()') =~ /^(\d+)/ ? $1 : 9999,
	'<', 640, 'no row is long');
is($primary->safe_psql('postgres', q{SELECT rolsuper FROM pg_roles WHERE rolname = 'app'}), 'f', 'nobody has become superuser');

# Each remedy is one statement of a form that is known, and can be parsed.
my $text = qr/'(?:[^'\\]|'')*'/;
my $form = qr/^(?:SELECT\ pg_reload_conf\(\)
	| SELECT\ \*\ FROM\ replica_kit\.provision\($text,\ $text(?:,\ $text)?\)
	| SELECT\ pg_create_physical_replication_slot\($text,\ true\)
	| SELECT\ pg_terminate_backend\(active_pid\)\ FROM\ pg_replication_slots\ WHERE\ slot_name\ =\ $text\ AND\ active_pid\ =\ \d+
	| ALTER\ SYSTEM\ SET\ [a-z_.]+\ =\ $text);$/x;
foreach my $remedy (split /\0/, $primary->safe_psql('postgres', q{SELECT string_agg(remedy, E'\001') FROM replica_kit.diagnose()}) =~ tr/\001/\0/r)
{
	like($remedy, $form, 'a remedy has a form that is known');
	is($primary->psql('postgres', "BEGIN; CREATE FUNCTION pg_temp.remedy() RETURNS void LANGUAGE sql AS \$r\$$remedy\$r\$; ROLLBACK"), 0,
		'and is a statement');
}

# All that is said can be read in each encoding, and is text.
foreach my $database ('postgres', 'latin1', 'sql_ascii')
{
	foreach my $client ('UTF8', 'LATIN1', 'SQL_ASCII')
	{
		foreach my $mouth (sort keys %$before, 'connection_errors')
		{
			my $query = $mouths{$mouth} // 'SELECT * FROM replica_kit.connection_errors()';
			my ($stdout, $stderr) = ('', '');
			my $code = $primary->psql($database, "SET client_encoding = $client; $query", stdout => \$stdout, stderr => \$stderr);
			my $words = "$stdout\n$stderr";
			my $good = ($code == 0 || $mouth eq 'assert_healthy')
			  && $words !~ /[^\n\t\x20-\x7e\x80-\xff]/
			  && defined eval { decode($client eq 'LATIN1' ? 'iso-8859-1' : 'UTF-8', $words, FB_CROAK | LEAVE_SRC) };
			ok($good, "$mouth() in database $database for a client of $client") or diag $words;
		}
	}
}

# The log says nothing of theirs but in the server's own lines.
my $lines = slurp_file($primary->logfile, $log);
unlike($lines, qr/PANIC|TRAP|terminated by signal/, 'no process has died');
unlike($lines, qr/DETAIL:  (?:Last|Not) seen.*last error:/, 'no alert quotes a stranger');

my $known = join ',', sort keys(%silent), keys %mouths;
is($primary->safe_psql('postgres', qq{
	SELECT string_agg(name, ' ' ORDER BY name)
	  FROM (SELECT proname AS name FROM pg_proc WHERE pronamespace = 'replica_kit'::regnamespace
	        UNION SELECT relname FROM pg_class WHERE relnamespace = 'replica_kit'::regnamespace AND relkind = 'v') m
	 WHERE name <> ALL ('{$known}')}),
	'', 'no function and no view is missing among the mouths');

$healthy->stop;
$primary->stop;
done_testing();
