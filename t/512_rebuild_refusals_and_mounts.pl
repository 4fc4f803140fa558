# --rebuild: what it refuses, a former primary, tablespaces and mount points.
use strict;
use warnings FATAL => 'all';

use FindBin;
use lib $FindBin::RealBin;

use JoinKit;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $scratch = PostgreSQL::Test::Utils::tempdir;
my $upstream =
  new_upstream('upstream', 'wal_retrieve_retry_interval = 100ms',
	'autovacuum = off');
my %env = (PGPASSWORD => 'secret-word-1');
provision($upstream, 'replica1', 'secret-word-1');
my $script = write_script($upstream, 'replica1');
my ($code, $out, $err);

# A directory that --rebuild refuses, and leaves as it is.
sub refused
{
	my ($what, $pattern, $pgdata, @more) = @_;
	my $before = files($pgdata);
	($code, $out, $err) = run_script($script, \%env, '--pgdata', $pgdata,
		'--port', 1, '--rebuild', @more);
	is($code, 8, "$what: exit code 8");
	like($err, $pattern, "$what: it says so");
	is(files($pgdata), $before, "$what: nothing is moved");
	return;
}

# The names below a directory.
sub files
{
	my ($dir) = @_;
	return join "\n", map { s/ .*//sr } split /\n/, tree($dir);
}

# ----------------------------------------------------------------------
# Directories that are not this replica's
# ----------------------------------------------------------------------
refused(
	'the upstream itself', qr/is the upstream server's own data directory/,
	$upstream->data_dir, '--demote');

my $other = PostgreSQL::Test::Cluster->new('other');
$other->init;
refused('another cluster', qr/is another cluster's: its system identifier/,
	$other->data_dir, '--demote');

mkdir "$scratch/files";
append_to_file("$scratch/files/precious", "data\n");
refused('no database at all', qr/cannot tell which server .* is of/,
	"$scratch/files", '--demote');

$upstream->backup('copy');
my $copy = PostgreSQL::Test::Cluster->new('copy');
$copy->init_from_backup($upstream, 'copy');
refused('a copy of the upstream', qr/is a primary's/, $copy->data_dir);
like($err, qr/^hint: .*add --demote/m,
	'a copy of the upstream: the hint names the option');
refused('a copy of the upstream, with --demote',
	qr/own data directory, or a copy of it/,
	$copy->data_dir, '--demote');

my $second = PostgreSQL::Test::Cluster->new('second');
$second->init_from_backup($upstream, 'copy', has_streaming => 1);
$second->append_conf('postgresql.conf', "primary_slot_name = 'replica2'");
refused('another replica', qr/another standby's: it uses slot "replica2"/,
	$second->data_dir);

# ----------------------------------------------------------------------
# A standby that somebody else has made, for this slot
# ----------------------------------------------------------------------
$second->append_conf('postgresql.conf',
	"primary_slot_name = 'replica1'\nprimary_conninfo = 'host=nowhere.invalid'");
$second->start;
refused('while it is running', qr/is running in/, $second->data_dir);
$second->stop;
($code, $out, $err) = run_script($script, \%env,
	'--pgdata', $second->data_dir, '--rebuild', '--port', $second->port);
is($code, 0, 'a standby that somebody else has made is brought back');
adopt_replica($second);
ok( $upstream->poll_query_until(
		'postgres',
		"SELECT state FROM pg_stat_replication WHERE application_name = 'replica1'",
		'streaming'),
	'it streams');

# ----------------------------------------------------------------------
# One that was running runs again when its rebuild fails
# ----------------------------------------------------------------------
system('rm', '-rf', map { $second->data_dir . ".pg_replica_kit/$_" } qw(old kept));
$second->stop;
# Without a stream, as the password is wrong to libpq.
$second->append_conf('postgresql.auto.conf',
	"primary_conninfo = '@{[conninfo_of($second)]} password=wrong'");
$second->start;
($code, $out, $err) = run_script(
	edit_script($script, prk_data_size => '999999999999999'),
	{}, '--pgdata', $second->data_dir, '--rebuild');
is($code, 9, 'too little space for both: exit code 9');
like($out, qr/stopping the server/, 'it had been stopped');
like($err, qr/beside the old data/, 'it says what there is too little for');
ok(-e $second->data_dir . '/postmaster.pid', 'but runs again');
adopt_replica($second);
is($second->safe_psql('postgres', 'SELECT pg_is_in_recovery()'),
	't', 'as it did before');

# Damaged, it could not be started again: it is not stopped in vain.
unlink $second->data_dir . '/base/1/PG_VERSION' or die "unlink: $!";
my $running = slurp($second->data_dir . '/postmaster.pid');
($code, $out, $err) = run_script(
	edit_script($script, prk_data_size => '999999999999999'),
	{}, '--pgdata', $second->data_dir, '--rebuild');
is($code, 9, 'damaged and running, too little space for both: exit code 9');
is(slurp($second->data_dir . '/postmaster.pid'),
	$running, 'and it runs on');
($code, $out, $err) = run_script($script, {}, '--pgdata', $second->data_dir,
	'--rebuild', '--remove-old');
is($code, 0, 'with enough space it is rebuilt');
like($out, qr/"[^"]*\/base\/1\/PG_VERSION" is missing/,
	'without a restart, for what is missing');
adopt_replica($second);

# The last primary_conninfo that the script has written.
sub conninfo_of
{
	my ($node) = @_;
	my ($value) = slurp($node->data_dir . '/postgresql.auto.conf') =~
	  /^primary_conninfo = '(.*)'$/m;
	return $value;
}

# ----------------------------------------------------------------------
# A slot that another one uses is not taken away
# ----------------------------------------------------------------------
$second->stop;
unlink $second->data_dir . '/base/1/PG_VERSION';

# Its walsender may not know yet; pg_receivewal would wait before it tries again.
ok($upstream->poll_query_until('postgres', "SELECT NOT active FROM pg_replication_slots WHERE slot_name = 'replica1'"),
	'the slot is free');
my $taker = IPC::Run::start(
	[
		'pg_receivewal', '-D', $scratch, '-S', 'replica1', '-d',
		$upstream->connstr ],
	'>', \my $ignored, '2>&1');
ok( $upstream->poll_query_until('postgres',
		"SELECT active FROM pg_replication_slots WHERE slot_name = 'replica1'"),
	'another connection uses the slot');
my $before = tree($second->data_dir);
($code, $out, $err) =
  run_script($script, {}, '--pgdata', $second->data_dir, '--rebuild');
is($code, 7, 'a slot in use: exit code 7');
is(tree($second->data_dir), $before, 'a slot in use: nothing is changed');
$taker->signal('INT');
$taker->finish;

# ----------------------------------------------------------------------
# After a failover, the former primary becomes a replica
# ----------------------------------------------------------------------
($code) = run_script($script, {}, '--pgdata', $second->data_dir, '--rebuild',
	'--remove-old');
is($code, 0, 'with the slot free, the replica is brought back');
adopt_replica($second);
$upstream->wait_for_catchup('replica1', 'replay', $upstream->lsn('write'));
$upstream->stop('immediate');
$second->promote;
$second->safe_psql('postgres', 'CHECKPOINT');
provision($second, 'former', 'secret-word-2');
my $former = write_script($second, 'former');
my @args = ('--pgdata', $upstream->data_dir, '--port', $upstream->port,
	'--rebuild');
%env = (PGPASSWORD => 'secret-word-2');
($code, $out, $err) = run_script($former, \%env, @args);
is($code, 8, 'a former primary: refused');
like($err, qr/is a primary's/, 'a former primary: it says so');
($code, $out, $err) =
  run_script($former, \%env, @args, '--demote', '--remove-old');
is($code, 0, 'a former primary, with --demote: it becomes a replica');
like($out, qr/it is kept/, 'a former primary: its data is kept');
ok(-e $upstream->data_dir . '.pg_replica_kit/old/global/pg_control',
	'a former primary: in the old directory');
adopt_replica($upstream);
is($upstream->safe_psql('postgres', 'SELECT pg_is_in_recovery()'),
	't', 'a former primary: it is a standby');
$upstream->stop;

# ----------------------------------------------------------------------
# A mount point as data directory, and tablespaces
# ----------------------------------------------------------------------
SKIP:
{
	my @apart = ('unshare', '-U', '-c', '--keep-caps', '-m');
	skip 'this system lets users make no mount of their own', 9
	  if system("@apart true 2>/dev/null") != 0;
	my $location = "$scratch/a table space";
	mkdir $location or die "mkdir: $!";
	$second->safe_psql('postgres', "CREATE TABLESPACE ts LOCATION '$location'");
	$second->safe_psql('postgres',
		'CREATE TABLE there TABLESPACE ts AS SELECT generate_series(1, 99) AS g');
	provision($second, 'mounted', 'secret-word-2');
	$script = write_script($second, 'mounted');
	my $mounted = new_replica('mounted');
	mkdir $mounted->data_dir;
	my $log = "$scratch/seen";
	# Made, damaged, and rebuilt, where both have file systems of their own;
	# and once more when the upstream has no such tablespace any more.
	($code, $out, $err) = run_script(
		$script, \%env,
		'--pgdata', $mounted->data_dir,
		'--port', $mounted->port,
		run_by => [
			@apart, 'sh', '-c',
			'mount -t tmpfs none "$1" && mount -t tmpfs none "$2" &&
			location=$1 && pgdata=$2 && log=$3 && host=$4 && port=$5 && upstream=$6 && script=$7 && shift 7 &&
			"$@" && pg_ctl -s -w -D "$pgdata" stop &&
			rm "$pgdata/base/1/PG_VERSION" && touch "$pgdata/precious" &&
			"$@" --rebuild &&
			{ ls "$pgdata/pg_replica_kit.old" "$location"; } >"$log" &&
			"$@" --rebuild --remove-old &&
			psql -XAt -h "$host" -p "$port" -d postgres -c "SELECT count(*) AS there FROM there" >>"$log" &&
			pg_ctl -s -w -D "$pgdata" stop &&
			rm "$pgdata/base/1/PG_VERSION" &&
			psql -Xq -h "$host" -p "$upstream" -d postgres -c "DROP TABLE there" -c "DROP TABLESPACE ts" &&
			psql -XAt -h "$host" -p "$upstream" -d postgres -o "$script" \
				-c "SELECT replica_kit.join_script(\'mounted\', \'127.0.0.1\')" &&
			"$@" --rebuild &&
			(cd "$location" && ls -d * pg_replica_kit.old/PG_* | sed "s/^/dropped: /") >>"$log" &&
			"$@" --rebuild --remove-old &&
			echo "left: $(ls -A "$location")" >>"$log" &&
			pg_ctl -s -w -D "$pgdata" stop',
			'sh', $location, $mounted->data_dir, $log, $second->host,
			$mounted->port, $second->port, $script ]);
	is($code, 0, 'a mount point and tablespaces: rebuilt');
	# its files, and with them its postmaster.pid, went with that file system
	like(slurp($log), qr/^99$/m, 'the tablespace is there');
	like($out, qr/moving the old data aside, to \S*pgdata\/pg_replica_kit\.old/,
		'a mount point: the old data is moved inside');
	like(slurp($log), qr/^precious$/m, 'all of it');
	like(slurp($log), qr/^pg_replica_kit\.old$/m,
		'a tablespace: its old data is beside');
	like($out, qr/removing the old data/, 'all that is removed at last');
	like(slurp($log), qr/^dropped: pg_replica_kit\.old\ndropped: pg_replica_kit\.old\/PG_\d\S*\nleft/m,
		'a tablespace that the upstream has dropped: its old data is beside, too');
	is( scalar(() = $out =~ /if nobody needs it, run: rm -rf .*a table space\/pg_replica_kit\.old/g),
		2, 'it is named each time');
	like(slurp($log), qr/^left: $/m, 'it is removed, too');
}

$second->stop;
done_testing();
