# --set-password: a replica whose role has a new password.
use strict;
use warnings FATAL => 'all';

use FindBin;
use lib $FindBin::RealBin;

use JoinKit;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $upstream =
  new_upstream('upstream', 'wal_retrieve_retry_interval = 100ms');
provision($upstream, 'replica1', 'secret-word-1');
my $script = write_script($upstream, 'replica1');
my $replica = new_replica('replica');
my $pgdata = $replica->data_dir;
my $passfile = "$pgdata.pg_replica_kit/passfile";
my @where = ('--pgdata', $pgdata);
my @args = (@where, '--set-password');
my ($code, $out, $err);

# The pid of the replica's walsender, if it streams.
sub walsender
{
	return $upstream->safe_psql('postgres',
		"SELECT pid FROM pg_stat_replication WHERE application_name = 'replica1' AND state = 'streaming'"
	);
}

# ----------------------------------------------------------------------
# Before there is a replica, and nonsense
# ----------------------------------------------------------------------
($code, $out, $err) =
  run_script($script, { PGPASSWORD => 'secret-word-1' }, @args);
is($code, 8, 'without a replica there is no password to set');
like($err, qr/does not hold replica "replica1"/, 'it says so');
ok(!-e "$pgdata.pg_replica_kit", 'and nothing is made');
foreach my $more ([ '--port', 5 ], ['--no-start'], [ '--start-command', 'x' ])
{
	($code, $out, $err) = run_script($script, {}, @args, @$more);
	is($code, 2, "with $more->[0] it is wrong usage");
}

($code) = run_script($script, { PGPASSWORD => 'secret-word-1' },
	@where, '--port', $replica->port);
is($code, 0, 'the replica is made');
adopt_replica($replica);

# ----------------------------------------------------------------------
# A password that is refused changes nothing
# ----------------------------------------------------------------------
my $before = tree("$pgdata.pg_replica_kit");
($code, $out, $err) = run_script($script, { PGPASSWORD => 'nonsense' }, @args);
is($code, 5, 'a wrong password is refused');
like($err, qr/password authentication failed/, 'it says so');
like($err, qr/^hint: .*rotate_password\(\)/m, 'and which it should be');
($code, $out, $err) = run_script($script, {}, @args);
is($code, 5, 'the password that it has does not count as the new one');
is(tree("$pgdata.pg_replica_kit"), $before, 'and nothing is changed');

# ----------------------------------------------------------------------
# While it streams
# ----------------------------------------------------------------------
my $notice = '';
$upstream->psql('postgres',
	"SELECT replica_kit.rotate_password('replica1', 'secret:word\\2')",
	stderr => \$notice);
like($notice, qr/--set-password/, 'rotate_password() names the option');
my $stream;
eventually(sub { ($stream = walsender()) ne '' });
like($stream, qr/^\d+$/, 'the stream goes on after rotate_password()');
($code, $out, $err) =
  run_script($script, { PGPASSWORD => 'secret:word\\2' }, @args, '--dry-run');
is($code, 0, 'a dry run finds the password right');
like(slurp($passfile), qr/secret-word-1/, 'but does not keep it');
($code, $out, $err) =
  run_script($script, { PGPASSWORD => 'secret:word\\2' }, @args);
is($code, 0, 'the new password is taken');
is($err, '', 'it has nothing to complain of');
unlike($out, qr/secret/, 'and does not show it');
is(walsender(), $stream, 'the stream was not interrupted');
is(sprintf('%o', (stat $passfile)[2] & 07777),
	'600', 'the passfile is its owner\'s alone');
like(slurp($passfile), qr/:secret\\:word\\\\2$/m, 'it holds the new password');
$replica->restart;
ok( $upstream->poll_query_until(
		'postgres',
		"SELECT count(*) = 1 FROM pg_stat_replication WHERE state = 'streaming'"
	),
	'after a restart it streams with it');

# ----------------------------------------------------------------------
# Too late: the replica has lost its connection
# ----------------------------------------------------------------------
$upstream->safe_psql('postgres',
	"SELECT replica_kit.rotate_password('replica1', 'secret-word-3')");
# In the midst of a long wait for the next attempt.
$replica->safe_psql('postgres',
	"ALTER SYSTEM SET wal_retrieve_retry_interval = '10min'");
$replica->restart;
ok( $replica->poll_query_until(
		'postgres', 'SELECT count(*) = 0 FROM pg_stat_wal_receiver'),
	'with the old password its restart ends the stream');
ok( $upstream->poll_query_until('postgres',
		'SELECT count(*) = 0 FROM pg_stat_replication'),
	'and it does not come back');
($code, $out, $err) = run_script($script, {}, @where);
is($code, 5, 'the password of the passfile is refused');
$upstream->safe_psql('postgres', 'INSERT INTO filler VALUES (-1, -1)');
($code, $out, $err) =
  run_script($script, { PGPASSWORD => 'secret-word-3' }, @args);
is($code, 0, 'with the new password the script succeeds');
like($out, qr/replica "replica1" streams from/, 'it says that it streams');
ok( $upstream->poll_query_until(
		'postgres',
		"SELECT state FROM pg_stat_replication WHERE application_name = 'replica1'",
		'streaming'),
	'the upstream sees it stream');
ok( $replica->poll_query_until(
		'postgres', 'SELECT count(*) = 1001 FROM filler'),
	'what it had missed has arrived');

# ----------------------------------------------------------------------
# A replica that does not run
# ----------------------------------------------------------------------
$replica->stop;
$upstream->safe_psql('postgres',
	"SELECT replica_kit.rotate_password('replica1', 'secret-word-4')");
($code, $out, $err) =
  run_script($script, { PGPASSWORD => 'secret-word-4' }, @args);
is($code, 0, 'a stopped replica takes a new password');
like($out, qr/not running; start it with: /, 'it says how to start it');
ok(!-e "$pgdata/postmaster.pid", 'but does not start it');
$replica->start;
ok( $upstream->poll_query_until(
		'postgres',
		"SELECT count(*) = 1 FROM pg_stat_replication WHERE state = 'streaming'"
	),
	'started, it streams');

$replica->stop;
$upstream->stop;
done_testing();
