# The script for the replica's machine, on a plain data directory.
use strict;
use warnings FATAL => 'all';

use FindBin;
use lib $FindBin::RealBin;

use JoinKit;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $upstream = new_upstream('upstream', 'log_connections = on');
provision($upstream, 'replica1', 'secret-word-1', 'Rep"l \'ica');
my $script = write_script($upstream, 'replica1');
my $replica = new_replica('replica');
my $pgdata = $replica->data_dir;
my $state = "$pgdata.pg_replica_kit";
my @args = ('--pgdata', $pgdata, '--port', $replica->port);
my %env = (PGPASSWORD => 'secret-word-1');

unlike(slurp($script), qr/secret-word/, 'the script holds no password');

# The library holds the script of this tree, byte by byte.
my $source = slurp("$FindBin::RealBin/../pg_replica_kit_join.sh");
my ($values) = slurp($script) =~
  /^(\n\# Made by replica_kit\.join_script\(\).*?^prk_tablespaces='.*?'\n)/ms;
ok(defined $values, 'the script shows which values were put into it');
my $rest = slurp($script) =~ s/\Q$values\E//r;
s/\n+\z// foreach $rest, $source;
ok($rest eq $source, 'the rest is as in the source');

SKIP:
{
	skip 'shellcheck is not installed', 2
	  if system('shellcheck --version >/dev/null 2>&1') != 0;
	my $findings = `shellcheck -s sh $FindBin::RealBin/../pg_replica_kit_join.sh 2>&1`;
	is($findings, '', 'shellcheck finds nothing in the file');
	$findings = `shellcheck -s sh $script 2>&1`;
	is($findings, '', 'shellcheck finds nothing in the script with its values');
}

my ($code, $out, $err) = run_script($script, {}, '--help');
is($code, 0, '--help succeeds');
like($out, qr/Exit codes:/, '--help lists the exit codes');

($code, $out, $err) = run_script($script, {}, '--version');
is($code, 0, '--version succeeds');
is( $out,
	'pg_replica_kit '
	  . $upstream->safe_psql('postgres',
		"SELECT extversion FROM pg_extension WHERE extname = 'pg_replica_kit'")
	  . "\n",
	'--version says the version of the extension');

# A dry run makes every check and changes nothing.
my $before = tree($replica->basedir);
($code, $out, $err) = run_script($script, \%env, @args, '--dry-run');
is($code, 0, 'a dry run with everything in order succeeds');
like($out, qr/all checks passed/, 'it says that all checks passed');
is(tree($replica->basedir), $before, 'it has changed nothing');

# The real run.
($code, $out, $err) = run_script($script, \%env, @args);
is($code, 0, 'the script makes the replica');
is($err, '', 'it has nothing to complain of');
like($out, qr/replica "replica1" streams from/, 'it says that it streams');
my $log = slurp("$state/server.log");
like($log, qr/connection authorized: .*database=postgres/, 'it asks the new server in database postgres');
unlike($log, qr/database=template/,
	'and in no template, which replay of a CREATE DATABASE may copy at any moment');
adopt_replica($replica);
ok( $upstream->poll_query_until(
		'postgres',
		"SELECT application_name, state FROM pg_stat_replication r JOIN pg_replication_slots s ON s.active_pid = r.pid WHERE slot_name = 'replica1'",
		'replica1|streaming'),
	'the upstream sees it streaming, by its name and slot');
is($replica->safe_psql('postgres', 'SELECT count(*) FROM filler'),
	'1000', 'the rows of the clone are there');
$upstream->safe_psql('postgres', 'INSERT INTO filler VALUES (0, 0)');
ok( $replica->poll_query_until(
		'postgres', 'SELECT count(*) = 1001 FROM filler'),
	'a new row arrives');

# What it wrote.
my $auto = slurp("$pgdata/postgresql.auto.conf");
unlike($auto, qr/secret-word/, 'postgresql.auto.conf holds no password');
like($auto, qr/^primary_conninfo = .*passfile=/m,
	'but the name of the passfile');
like($auto, qr/^primary_slot_name = 'replica1'$/m, 'and of the slot');
is(sprintf('%o', (stat "$state/passfile")[2] & 07777),
	'600', 'the passfile is its owner\'s alone');
is(sprintf('%o', (stat $state)[2] & 07777),
	'700', 'and so is the directory that it lies in');
like(slurp("$state/passfile"), qr/secret-word-1/, 'it holds the password');
ok(!-e "$pgdata/pg_replica_kit.clone", 'no directory of the clone is left');
is($replica->safe_psql('postgres', 'SHOW port'),
	$replica->port, 'the port is kept in its configuration');

# Once more.
($code, $out, $err) = run_script($script, \%env, @args);
is($code, 0, 'another run on a running replica succeeds');
like($out, qr/nothing to do/, 'it says that there is nothing to do');
$replica->stop;
($code, $out, $err) = run_script($script, { PGPASSWORD => undef }, @args);
is($code, 0, 'a run on the stopped replica starts it, with the password that it has');
like($out, qr/not cloned again/, 'it says that it does not clone again');
adopt_replica($replica);

# --no-start and --start-command.
provision($upstream, 'replica2', 'secret-word-2');
my $replica2 = new_replica('replica2');
my $script2 = write_script($upstream, 'replica2');
my @args2 = ('--pgdata', $replica2->data_dir, '--port', $replica2->port);
($code, $out, $err) = run_script(
	$script2,
	{ PGPASSWORD => 'secret-word-2', PGSSLMODE => 'disable' },
	@args2, '--no-start');
is($code, 0, '--no-start makes the replica');
like($out, qr/start it with: \S*pg_ctl/, 'it says how to start it');
ok(!-e $replica2->data_dir . '/postmaster.pid', 'nothing has been started');
like(slurp($replica2->data_dir . '/postgresql.auto.conf'),
	qr/^primary_conninfo = .* sslmode=''disable''(?: require_auth=''scram-sha-256'')?'$/m,
	'what the environment says of TLS is kept');
my $start = sprintf "pg_ctl -D '%s' -l '%s' -w start >/dev/null",
  $replica2->data_dir, $replica2->logfile;
($code, $out, $err) =
  run_script($script2, {}, @args2, '--start-command', $start);
is($code, 0, '--start-command starts it, and it streams');
adopt_replica($replica2);
is($replica2->safe_psql('postgres', 'SELECT pg_is_in_recovery()'),
	't', 'it is a standby');

$replica->stop;
$replica2->stop;
$upstream->stop;
done_testing();
