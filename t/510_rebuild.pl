# --rebuild: replicas that a restart mends, and replicas that it doesn't.
use strict;
use warnings FATAL => 'all';

use FindBin;
use lib $FindBin::RealBin;

use File::Path qw(rmtree);
use JoinKit;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $upstream = new_upstream(
	'upstream',
	'max_slot_wal_keep_size = -1',
	'wal_retrieve_retry_interval = 100ms');
provision($upstream, 'replica1', 'secret-word-1');
my $script = write_script($upstream, 'replica1');
my $replica = new_replica('replica');
my $pgdata = $replica->data_dir;
my $state = "$pgdata.pg_replica_kit";
my @where = ('--pgdata', $pgdata);
my ($code, $out, $err);

# The upstream throws the WAL away that the slot holds.
sub lose_slot
{
	$upstream->safe_psql('postgres',
		"ALTER SYSTEM SET max_slot_wal_keep_size = '1MB'");
	$upstream->reload;
	foreach (1 .. 3)
	{
		$upstream->safe_psql('postgres',
			"CREATE TABLE IF NOT EXISTS wal (); SELECT pg_switch_wal(); CHECKPOINT"
		);
	}
	$upstream->safe_psql('postgres',
		'ALTER SYSTEM RESET max_slot_wal_keep_size');
	$upstream->reload;
	return slot();
}

sub slot
{
	return $upstream->safe_psql('postgres',
		"SELECT wal_status || '|' || active FROM pg_replication_slots WHERE slot_name = 'replica1'"
	);
}

# The replica streams, and new rows arrive.
sub streams
{
	my ($what) = @_;
	adopt_replica($replica);
	$upstream->safe_psql('postgres', 'INSERT INTO filler VALUES (0, 0)');
	my $rows = $upstream->safe_psql('postgres', 'SELECT count(*) FROM filler');
	ok( $replica->poll_query_until(
			'postgres', "SELECT count(*) = $rows FROM filler"),
		"$what: a new row arrives");
	is(slot(), 'reserved|true', "$what: through its slot");
	ok(!-e "$pgdata/pg_replica_kit.clone",
		"$what: no directory of a clone is left");
	return;
}

sub rebuild
{
	my ($what, $expected, @more) = @_;
	($code, $out, $err) = run_script($script, {}, @where, '--rebuild', @more);
	is($code, $expected, "$what: exit code $expected");
	return;
}

# ----------------------------------------------------------------------
# Usage; a replica that isn't there yet
# ----------------------------------------------------------------------
foreach my $wrong (
	['--remove-old'],
	[ '--rebuild', '--set-password' ],
	[ '--rebuild', '--remove-old', '--no-start' ])
{
	($code) = run_script($script, {}, @where, @$wrong);
	is($code, 2, "@$wrong is wrong usage");
}
($code, $out, $err) = run_script(
	$script, { PGPASSWORD => 'secret-word-1' },
	@where, '--port', $replica->port, '--rebuild');
is($code, 0, 'where there is nothing, --rebuild makes the replica');
streams('made');

# ----------------------------------------------------------------------
# What needs no clone
# ----------------------------------------------------------------------
my $pid = slurp("$pgdata/postmaster.pid");
rebuild('a healthy replica', 0);
like($out, qr/there is nothing to rebuild/, 'a healthy replica: it says so');
is(slurp("$pgdata/postmaster.pid"), $pid, 'and is not restarted');
$replica->stop;
rebuild('a stopped replica', 0, '--dry-run');
like($out, qr/restart the server, and stop there if it streams/,
	'a stopped replica: a dry run says what would be tried first');
ok(!-e "$pgdata/postmaster.pid", 'and starts nothing');
rebuild('a stopped replica', 0);
like($out, qr/a restart was enough/, 'a stopped replica: a restart is enough');
unlike($out, qr/cloning/, 'and it is not cloned');
streams('a stopped replica');
my $auto = slurp("$pgdata/postgresql.auto.conf");
$replica->safe_psql('postgres', "ALTER SYSTEM SET primary_slot_name = 'nosuch'");
$replica->reload;
ok( $upstream->poll_query_until('postgres',
		"SELECT NOT active FROM pg_replication_slots WHERE slot_name = 'replica1'"
	),
	'a replica is told to use another slot');
rebuild('another slot', 8);
like($err, qr/another standby's: it uses slot "nosuch"/,
	'another slot: it is not this replica\'s directory');
$replica->stop;
unlink "$pgdata/postgresql.auto.conf";
append_to_file("$pgdata/postgresql.auto.conf", $auto);
$replica->start;

# ----------------------------------------------------------------------
# A lost slot, and WAL that is gone
# ----------------------------------------------------------------------
$replica->stop;
is(lose_slot(), 'lost|false', 'the slot is lost');
append_to_file("$pgdata/precious", "data\n");
my ($big) = edit_script($script, prk_data_size => '999999999999999');
my $before = tree($replica->basedir);
($code, $out, $err) =
  run_script($big, {}, @where, '--rebuild', '--no-start');
is($code, 9, 'too little space for both: exit code 9');
like($err, qr/beside the old data: .* needs/,
	'too little space for both: it says so');
is( tree($pgdata),
	join("\n", grep { m!\Q$pgdata\E[ /]! } split /\n/, $before),
	'and has touched nothing');
rebuild('a lost slot', 0);
like($out, qr/trying first whether a restart is enough/,
	'a lost slot: a restart is tried');
like($out, qr/a restart is not enough: .*removed$/m,
	'a lost slot: it says why it was not enough');
like($out, qr/moving the old data aside, to \Q$state\E\/old$/m,
	'a lost slot: it says where the old data goes');
like($out, qr/the old data is in \Q$state\E\/old; if nobody needs it, run: rm -rf /,
	'a lost slot: and that it is there');
is($replica->safe_psql('postgres', 'SHOW port'),
	$replica->port, 'the replica has the port that it had');
streams('a lost slot');
ok(-e "$state/old/precious", 'the old data is there');
ok(!-e "$pgdata/precious", 'and not in the new directory');

# Again, with the old data still there.
$replica->stop;
lose_slot();
rebuild('old data in the way', 8);
like($err, qr/the old data of an earlier rebuild is still there/,
	'old data in the way: it says so');
like($err, qr/^hint: .*rm -rf \Q$state\E\/old \Q$state\E\/kept$/m,
	'old data in the way: the command that removes it is given');
ok(-e "$pgdata/global/pg_control", 'old data in the way: nothing is moved');
system($err =~ /(rm -rf .*)$/m ? $1 : 'false') == 0 or die "rm: $?";
rebuild('old data removed', 0, '--remove-old');
streams('old data removed');
ok(!-e "$state/old", 'with --remove-old the old data is removed');

# ----------------------------------------------------------------------
# Damage
# ----------------------------------------------------------------------
# Without "base" it would start, and stream.
foreach my $damage ('base', 'postgresql.conf', 'PG_VERSION')
{
	# pg_ctl knows no server in a directory without PG_VERSION.
	$replica->stop if $damage ne 'PG_VERSION';
	rmtree("$pgdata/$damage");
	ok(!-e "$pgdata/$damage", "$damage is removed");
	rebuild("without $damage", 0, '--remove-old');
	streams("without $damage");
	ok(!-e "$state/old", "without $damage: the old data is removed");
}

# ----------------------------------------------------------------------
# Promoted by mistake
# ----------------------------------------------------------------------
$replica->promote;
$replica->safe_psql('postgres', "CREATE TABLE mistake AS SELECT 'row only here'");
rebuild('promoted and running', 8);
like($err, qr/is running in .*, as a primary/,
	'promoted and running: it says so');
$replica->stop;
($code, $out, $err) = run_script($script, {}, @where);
is($code, 8, 'promoted, without --rebuild: refused');
like($err, qr/^hint: If it was promoted by mistake.*--rebuild/m,
	'promoted, without --rebuild: the hint names it');
rebuild('promoted', 0, '--remove-old');
streams('promoted');
unlike($out, qr/whether a restart/, 'promoted: a restart is not tried');
like($out, qr/may hold changes that no other server has: it is kept/,
	'promoted: the old data is kept in spite of --remove-old');
is($replica->safe_psql('postgres', "SELECT to_regclass('mistake') IS NULL"),
	't', 'promoted: what was written by mistake is not in the replica');
ok(-e "$state/old/global/pg_control", 'but in the old data');
rebuild('asked a second time', 0, '--remove-old');
like($out, qr/nothing to rebuild/, 'asked a second time: it streams');
ok(!-e "$state/old", 'and the old data is removed');

$replica->stop;
$upstream->stop;
done_testing();
