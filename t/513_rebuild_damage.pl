# --rebuild: slots that are gone, settings that are gone, damage of many
# kinds, and what becomes of the old data when things go wrong later.
use strict;
use warnings FATAL => 'all';

use FindBin;
use lib $FindBin::RealBin;

use File::Path qw(rmtree);
use JoinKit;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

# Without full pages in the WAL, replay needs the pages that it changes.
my $upstream = new_upstream(
	'upstream',
	'full_page_writes = off',
	'autovacuum = off',
	'wal_retrieve_retry_interval = 100ms');

# No checkpoint but those of this test takes WAL away.
$upstream->append_conf('postgresql.conf', "max_wal_size = 4GB\ncheckpoint_timeout = 1h");
$upstream->reload;
$upstream->safe_psql('postgres', 'CREATE TABLE still AS SELECT * FROM filler');
provision($upstream, 'replica1', 'secret-word-1');
my $script = write_script($upstream, 'replica1');
my $replica = new_replica('replica');
my $pgdata = $replica->data_dir;
my $state = "$pgdata.pg_replica_kit";
my @where = ('--pgdata', $pgdata);
my ($code, $out, $err);

sub slot
{
	return $upstream->safe_psql('postgres',
		"SELECT wal_status || '|' || active FROM pg_replication_slots WHERE slot_name = 'replica1'"
	);
}

# Drops the slot of a replica that was stopped, of which its walsender may not
# know yet.
sub drop_slot
{
	$upstream->poll_query_until('postgres',
		"SELECT NOT active FROM pg_replication_slots WHERE slot_name = 'replica1'")
	  or die 'the slot is still used';
	$upstream->safe_psql('postgres', "SELECT pg_drop_replication_slot('replica1')");
	return;
}

# WAL that nobody may hold back goes; perhaps it is copied before.
sub move_on
{
	my ($copy_to) = @_;
	# Twice: a checkpoint of the server's own may be earlier than ours.
	my $copy = sub {
		system('sh', '-c', 'cp "$1"/pg_wal/0* "$2"/pg_wal 2>/dev/null', 'sh',
			$upstream->data_dir, $copy_to)
		  if $copy_to;
	};
	$copy->();
	$upstream->safe_psql('postgres',
		"ALTER SYSTEM SET max_slot_wal_keep_size = '1MB'");
	$upstream->reload;
	$upstream->safe_psql('postgres',
		q{SELECT pg_logical_emit_message(false, '', ''); SELECT pg_switch_wal()})
	  for 1 .. 3;
	$copy->();
	$upstream->safe_psql('postgres', 'CHECKPOINT');
	$upstream->safe_psql('postgres',
		'ALTER SYSTEM RESET max_slot_wal_keep_size');
	$upstream->reload;
	return;
}

# The replica streams through its slot, and has all rows.
sub streams
{
	my ($what) = @_;
	adopt_replica($replica);
	$upstream->safe_psql('postgres', 'INSERT INTO filler VALUES (0, 0)');
	my $sum = $upstream->safe_psql('postgres',
		'SELECT count(*), sum(g) FROM filler');
	ok( $replica->poll_query_until(
			'postgres', "SELECT count(*) || '|' || sum(g) = '$sum' FROM filler"),
		"$what: all rows are there, and a new one");
	eventually(sub { slot() eq 'reserved|true' });
	is(slot(), 'reserved|true', "$what: through its slot");
	return;
}

sub rebuild
{
	my ($what, $expected, @more) = @_;
	($code, $out, $err) = run_script($script, {}, @where, '--rebuild', @more);
	is($code, $expected, "$what: exit code $expected");
	return;
}

($code, $out, $err) = run_script($script, { PGPASSWORD => 'secret-word-1' },
	@where, '--port', $replica->port);
is($code, 0, 'a replica is made');
streams('made');

# ----------------------------------------------------------------------
# The slot is gone, or is not used
# ----------------------------------------------------------------------
$replica->stop;
drop_slot();
rebuild('no slot', 0);
like($out, qr/slot "replica1" does not exist: making it/, 'no slot: it is made');
like($out, qr/a restart was enough/, 'no slot: a restart is enough');
streams('no slot');

$replica->safe_psql('postgres', 'ALTER SYSTEM RESET primary_slot_name');
$replica->reload;
$upstream->poll_query_until('postgres',
	"SELECT NOT active FROM pg_replication_slots WHERE slot_name = 'replica1'")
  or die 'the slot is still used';
rebuild('a slot that is not used', 0);
like($out, qr/setting primary_slot_name.*a restart was enough/s,
	'a slot that is not used: the setting and a restart are enough');
streams('a slot that is not used');

$replica->stop;
drop_slot();
move_on();
rebuild('neither slot nor WAL', 0, '--remove-old');
like($out, qr/a restart is not enough: .*removed.*cloning/s,
	'neither slot nor WAL: it is cloned');
streams('neither slot nor WAL');

# ----------------------------------------------------------------------
# A lost slot that was used again: 16 and 17 show it to nobody but SQL
# ----------------------------------------------------------------------
SKIP:
{
	skip 'here a lost slot comes to life, or cannot be used', 12
	  if $upstream->pg_version < 16 || $upstream->pg_version >= 18;
	foreach my $damage (0, 1)
	{
		my $what = $damage ? 'lost, used and damaged' : 'lost, used and WAL gone';
		$replica->stop;
		move_on($pgdata);
		$replica->start;
		ok( $upstream->poll_query_until(
				'postgres',
				"SELECT r.state = 'streaming' AND s.wal_status IN ('lost', 'unreserved') FROM pg_stat_replication r JOIN pg_replication_slots s ON s.active_pid = r.pid"
			),
			"$what: it streams through a slot that holds nothing");
		$replica->stop;
		if ($damage)
		{
			unlink "$pgdata/global/pg_filenode.map" or die "unlink: $!";
		}
		else
		{
			move_on();
		}
		rebuild($what, 0, '--remove-old');
		like($out, qr/re-creating it/, "$what: the slot is re-created");
		streams($what);
	}
}

# ----------------------------------------------------------------------
# Damage
# ----------------------------------------------------------------------
sub overwrite
{
	my ($file, $bytes) = @_;
	open my $fh, '>', $file or die "open $file: $!";
	print $fh $bytes;
	close $fh or die "close $file: $!";
	return;
}

my $filler = $upstream->safe_psql('postgres', "SELECT pg_relation_filepath('filler')");
my %damages = (
	'an empty control file' => sub { overwrite("$pgdata/global/pg_control", '') },
	'a control file of garbage' => sub { overwrite("$pgdata/global/pg_control", 'x' x 8192) },
	'no pg_wal' => sub { rmtree("$pgdata/pg_wal") },
	# replay comes upon it
	'no file of a table' => sub {
		unlink "$pgdata/$filler" or die "unlink: $!";
		$upstream->safe_psql('postgres', 'UPDATE filler SET g = g WHERE g = 1');
	});
foreach my $damage (sort keys %damages)
{
	$upstream->safe_psql('postgres', 'CHECKPOINT');
	$upstream->wait_for_catchup('replica1');
	$replica->stop;
	$damages{$damage}->();
	rebuild($damage, 0, '--remove-old');
	like($out, qr/a restart is not enough.*cloning/s, "$damage: it is cloned");
	streams($damage);
}

# What nobody has come upon yet, the replica streams with.
$replica->stop;
my $still = $upstream->safe_psql('postgres', "SELECT pg_relation_filepath('still')");
overwrite("$pgdata/$still", 'x' x 8192);
rebuild('a table of garbage', 0);
like($out, qr/a restart was enough/, 'a table of garbage: it streams');
rebuild('a table of garbage', 0);
like($out, qr/damaged nevertheless: stop it, and run .* --rebuild --no-start$/m,
	'a table of garbage: what to do is said');
adopt_replica($replica);
isnt($replica->psql('postgres', 'SELECT count(*) FROM still'),
	0, 'a table of garbage: cannot be read');
$replica->stop;
rebuild('a table of garbage, stopped', 0, '--no-start');
like($out, qr/cloning/, 'a table of garbage, stopped: it is cloned');
ok(-e "$state/old/$still", 'a table of garbage, stopped: the old data is kept');
rebuild('a table of garbage, cloned', 0, '--remove-old');
like($out, qr/a restart was enough/, 'a table of garbage, cloned: it is started');
streams('a table of garbage');
is($replica->safe_psql('postgres', 'SELECT count(*) FROM still'),
	'1000', 'a table of garbage: can be read again');
ok(!-e "$state/old", 'a table of garbage: the old data is removed');

# ----------------------------------------------------------------------
# --remove-old does not remove what may be needed
# ----------------------------------------------------------------------
$replica->stop;
unlink "$pgdata/base/1/PG_VERSION" or die "unlink: $!";
rebuild('no stream', 12, '--remove-old', '--start-command', 'false');
ok(-e "$state/old/global/pg_control", 'no stream: the old data is kept');
like($err, qr/the old data is in \Q$state\E\/old$/m, 'no stream: and named');
rebuild('no stream, run again', 0, '--remove-old');
unlike($out, qr/cloning/, 'no stream, run again: it is not cloned again');
ok(!-e "$state/old", 'no stream, run again: now the old data is removed');
streams('no stream, run again');
$replica->stop;

# ----------------------------------------------------------------------
# A disk that fills in the midst of the clone
# ----------------------------------------------------------------------
SKIP:
{
	my @apart = ('unshare', '-U', '-c', '--keep-caps', '-m');
	skip 'this system lets users make no mount of their own', 7
	  if system("@apart true 2>/dev/null") != 0;
	provision($upstream, 'small', 'secret-word-1');
	my $small = new_replica('small');
	my $log = PostgreSQL::Test::Utils::tempdir . '/seen';
	my $blind = edit_script(write_script($upstream, 'small'),
		prk_data_size => 1, prk_segment_size => 1);
	($code, $out, $err) = run_script(
		$blind, { PGPASSWORD => 'secret-word-1' },
		'--pgdata', $small->data_dir, '--port', $small->port,
		run_by => [
			@apart, 'sh', '-c',
			'mount -t tmpfs -o size=400m none "$1" && pgdata=$2 && log=$3 && shift 3 &&
			"$@" --no-start && rm "$pgdata/base/1/PG_VERSION" &&
			size=$(du -sm "$pgdata" | cut -f 1) &&
			mount -o remount,size=$((size + 20))m "${pgdata%/*}" &&
			(cd "$pgdata" && find . | sort) >"$log.before"
			"$@" --rebuild; echo "exit code $?" >"$log"
			(cd "$pgdata" && find . | sort) | cmp - "$log.before" && echo same >>"$log"
			mount -o remount,size=400m "${pgdata%/*}" &&
			"$@" --rebuild --remove-old && pg_ctl -s -w -D "$pgdata" stop',
			'sh', $small->basedir, $small->data_dir, $log ]);
	is($code, 0, 'a full disk: with room, the same command rebuilds it');
	like(slurp($log), qr/^exit code 9$/m, 'a full disk: exit code 9');
	like($err, qr/the clone failed: .*No space left/, 'a full disk: it says so');
	like($err, qr/the old data is back in place/, 'a full disk: and what became of the old data');
	like(slurp($log), qr/^same$/m, 'a full disk: every file of it');

	# That of a WAL directory of its own: another process finds it full.
	provision($upstream, 'narrow', 'secret-word-1');
	my $narrow = new_replica('narrow');
	$blind = edit_script(write_script($upstream, 'narrow'),
		prk_data_size => 1, prk_segment_size => 1);
	($code, $out, $err) = run_script(
		$blind, { PGPASSWORD => 'secret-word-1' },
		'--pgdata', $narrow->data_dir, '--port', $narrow->port,
		run_by => [
			@apart, 'sh', '-c',
			'wal=$1/wal && mkdir "$wal" && mount -t tmpfs -o size=400m none "$wal" &&
			pgdata=$2 && shift 2 && "$@" --no-start &&
			mv "$pgdata"/pg_wal/* "$wal" && rmdir "$pgdata/pg_wal" && ln -s "$wal" "$pgdata/pg_wal" &&
			rm "$pgdata/base/1/PG_VERSION" &&
			mount -o remount,size=$(($(du -sm "$wal" | cut -f 1) + 10))m "$wal" &&
			"$@" --rebuild',
			'sh', $narrow->basedir, $narrow->data_dir ]);
	is($code, 9, 'no room for WAL: exit code 9');
	like($err, qr/the clone failed: .*No space left/, 'no room for WAL: it says so');
}

$upstream->stop;
done_testing();
