# Settings that only a standby heeds: what a clone brings along is reset or
# kept, and named, and no replica that would leave recovery counts as one.
use strict;
use warnings FATAL => 'all';

use FindBin;
use lib $FindBin::RealBin;

use JoinKit;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $scratch = PostgreSQL::Test::Utils::tempdir;
my $archive = "$scratch/archive";
mkdir $archive or die "mkdir: $!";
my $upstream = new_upstream('upstream', 'archive_mode = on',
	"archive_command = 'cp \"%p\" \"$archive/%f\"'");
provision($upstream, 'replica1', 'secret-word-1');
my $script = write_script($upstream, 'replica1');
my $replica = new_replica('replica');
my $pgdata = $replica->data_dir;
my $state = "$pgdata.pg_replica_kit";
my @where = ('--pgdata', $pgdata, '--port', $replica->port);
my ($code, $out, $err);

sub join_it
{
	my ($what, $expected, @more) = @_;
	($code, $out, $err) =
	  run_script($script, { PGPASSWORD => 'secret-word-1' }, @where, @more);
	is($code, $expected, "$what: exit code $expected");
	return;
}

# A new row arrives, and the replica stays one.
sub goes_on
{
	my ($what) = @_;
	adopt_replica($replica);
	$upstream->safe_psql('postgres', 'INSERT INTO filler VALUES (0, 0)');
	my $rows = $upstream->safe_psql('postgres', 'SELECT count(*) FROM filler');
	ok( $replica->poll_query_until(
			'postgres',
			"SELECT count(*) = $rows AND pg_is_in_recovery() FROM filler"),
		"$what: it goes on past the next commit, as a standby");
	return;
}

sub set_upstream
{
	my (%settings) = @_;
	$upstream->safe_psql('postgres', 'ALTER SYSTEM RESET ALL');
	$upstream->safe_psql('postgres', "ALTER SYSTEM SET $_ = '$settings{$_}'")
	  foreach sort keys %settings;
	return;
}

# What the replica's own files say.
sub setting
{
	my ($name) = @_;
	return `postgres -D '$pgdata' -C $name` =~ s/\n\z//r;
}

# ----------------------------------------------------------------------
# What an old recovery has left on the primary
# ----------------------------------------------------------------------
set_upstream(
	recovery_target_time => '2020-01-01',
	recovery_target_action => 'promote',
	archive_cleanup_command => "echo >$scratch/cleaned",
	recovery_end_command => "echo >$scratch/ended",
	restore_command => "echo >$scratch/restored; false");
# Another target in another file: two of them are an error when a server starts.
$upstream->append_conf('postgresql.conf', "recovery_target_xid '12345'");
join_it('an old recovery', 0);
like(
	$out,
	qr/are reset: recovery_target_time, recovery_target_xid, recovery_target_action, restore_command, archive_cleanup_command, recovery_end_command$/m,
	'an old recovery: what is reset is named');
goes_on('an old recovery');
is(setting($_), '', "an old recovery: $_ is reset")
  foreach
  qw(recovery_target_time recovery_target_xid restore_command archive_cleanup_command recovery_end_command);
is(setting('recovery_target_action'), 'pause',
	'an old recovery: recovery_target_action is the default');
unlike(slurp("$pgdata/postgresql.auto.conf"), qr/recovery_target_time/,
	'an old recovery: a line of postgresql.auto.conf alone is removed');
$upstream->safe_psql('postgres', 'CHECKPOINT');
$replica->safe_psql('postgres', 'CHECKPOINT');
ok(!-e "$scratch/$_", "an old recovery: no command of its has run: $_")
  foreach qw(cleaned ended restored);
$upstream->adjust_conf('postgresql.conf', 'recovery_target_xid', undef);
set_upstream();

# ----------------------------------------------------------------------
# The same in the replica's own files, and a restart
# ----------------------------------------------------------------------
$replica->append_conf('postgresql.conf', 'recovery_target_name = never');
$replica->adjust_conf($_, 'recovery_target_xid', undef)
  foreach qw(postgresql.conf postgresql.auto.conf);
$replica->restart;
join_it('a target in force', 13);
like($err, qr/streams, but recovery_target_name is set: its recovery will end there/,
	'a target in force: that is no proof');
$replica->stop;
my $before = slurp("$pgdata/postgresql.auto.conf");
join_it('a target in the files', 12);
like($err, qr/recovery_target_name is set.*^hint: .*--rebuild; .*--keep-recovery-settings/ms,
	'a target in the files: it is not started, and says how');
is(slurp("$pgdata/postgresql.auto.conf"), $before,
	'a target in the files: nothing is changed');
$replica->start;
join_it('a target, rebuilt', 0, '--rebuild');
like($out, qr/are reset: recovery_target_name\n.*a restart was enough/ms,
	'a target, rebuilt: it is reset, and a restart is enough');
goes_on('a target, rebuilt');

# ----------------------------------------------------------------------
# On the command line nothing can be reset
# ----------------------------------------------------------------------
$replica->stop;
$replica->adjust_conf($_, 'recovery_target_name', undef)
  foreach qw(postgresql.conf postgresql.auto.conf);
my @start = ('pg_ctl', '-s', '-w', '-D', $pgdata, '-l', $replica->logfile);
join_it('--start-command', 12, '--start-command',
	"@start -o '--recovery-target-xid=99999999' start");
like($err, qr/--start-command sets recovery_target_xid on the server's command line, which wins/,
	'--start-command: a target on the command line is refused');
ok(!-e "$pgdata/postmaster.pid", '--start-command: nothing is started');
system_or_bail(@start, '-o', '-c recovery_target_xid=99999999', 'start');
adopt_replica($replica);
join_it('the command line', 13);
like($err, qr/streams, but recovery_target_xid is set/,
	'the command line: that is no proof');
$replica->stop;
join_it('the command line, empty', 0, '--start-command',
	"@start -o '-c recovery_target_xid= -c wal_retrieve_retry_interval=1s' start >/dev/null");
goes_on('the command line, empty');
$replica->stop;

# ----------------------------------------------------------------------
# Promoted all the same
# ----------------------------------------------------------------------
join_it('promoted', 13, '--start-command',
	"@start start >/dev/null; pg_ctl -s -w -D $pgdata promote");
like($err, qr/has been promoted: it is no standby any more.*--rebuild/s,
	'promoted: it says so');
adopt_replica($replica);
$replica->stop;
system('rm', '-rf', $pgdata, $state);
# It archived its timeline.
unlink glob "$archive/00000002*";

# ----------------------------------------------------------------------
# Kept; and a restore_command, if it fetches
# ----------------------------------------------------------------------
set_upstream(
	recovery_min_apply_delay => '10min',
	recovery_end_command => 'true',
	restore_command => 'false');
join_it('nothing that fetches', 2, '--restore-command', 'exit 3');
like($err, qr/does not fetch WAL segment [0-9A-F]{24}: it ended with status 3$/m,
	'nothing that fetches: it says what was tried');
ok(!-e $pgdata, 'nothing that fetches: before anything is made');
join_it('an empty file', 2, '--restore-command', 'touch %p');
like($err, qr/status 0, but the file has 0 bytes/, 'an empty file: is no segment');
$upstream->safe_psql('postgres', 'SELECT pg_switch_wal()');
ok( $upstream->poll_query_until(
		'postgres', 'SELECT last_archived_wal IS NOT NULL FROM pg_stat_archiver'),
	'a segment is archived');
my $restore = "cp '$archive'/%f \"%p\"";
join_it('kept', 0, '--keep-recovery-settings', '--restore-command', $restore);
like($out, qr/^pg_replica_kit: restore_command is set: it fetches WAL on this machine$/m,
	'kept: a restore_command that fetches is set');
like($out, qr/are reset: recovery_end_command$/m,
	'kept: recovery_end_command is reset all the same');
like($out, qr/are kept, as --keep-recovery-settings asks: recovery_min_apply_delay$/m,
	'kept: what is kept is named');
is(setting('restore_command'), $restore, 'kept: restore_command is that of the option');
is(setting('recovery_min_apply_delay'), '600000', 'kept: the delay is there');
adopt_replica($replica);
join_it('rebuilt without', 0, '--rebuild');
like($out, qr/there is nothing to rebuild/, 'rebuilt without: a delay is no reason to restart');
$replica->stop;
join_it('rebuilt without', 0, '--rebuild');
like($out, qr/are reset: recovery_min_apply_delay$/m,
	'rebuilt without: a restart resets the delay');
is(setting('restore_command'), $restore,
	'rebuilt without: the restore_command still fetches, and stays');
adopt_replica($replica);
$replica->stop;
rename $archive, "$archive.gone" or die "rename: $!";
join_it('an archive that is gone', 0, '--rebuild');
like($out, qr/restore_command does not fetch WAL segment [0-9A-F]{24} on this machine, and is reset: it ended with status 1/,
	'an archive that is gone: its command is reset');
is(setting('restore_command'), '', 'an archive that is gone: and no longer there');
goes_on('an archive that is gone');
rename "$archive.gone", $archive or die "rename: $!";
$replica->stop;
system('rm', '-rf', $pgdata, $state);

# ----------------------------------------------------------------------
# Files that the server cannot read are no reason to clone again
# ----------------------------------------------------------------------
set_upstream();
mkdir "$scratch/etc" or die "mkdir: $!";
$upstream->append_conf('postgresql.conf', "include_dir = '$scratch/etc'");
$upstream->reload;
$upstream->safe_psql('postgres', 'SELECT 1');
my $walsenders = $upstream->safe_psql('postgres', 'SHOW max_wal_senders');
rename "$scratch/etc", "$scratch/etc.elsewhere" or die "rename: $!";
join_it('an include of another machine', 12);
like($err, qr/configuration cannot be read: .*\Q$scratch\E\/etc/,
	'an include of another machine: it is named');
like($out, qr/cannot be read here: whatever recovery would read is reset$/m,
	'an include of another machine: what it may set is reset');
like($err, qr/^hint: The clone is complete/m,
	'an include of another machine: the clone is kept');
mkdir "$scratch/etc" or die "mkdir: $!";
join_it('an include, once there', 0);
like($out, qr/it is not cloned again/, 'an include, once there: it is used');
goes_on('an include, once there');

# ----------------------------------------------------------------------
# Tablespaces: those of a replica that is there are its own; and none can lie in
# what a clone is moved up to
# ----------------------------------------------------------------------
$replica->stop;
mkdir "$scratch/ts" or die "mkdir: $!";
append_to_file("$scratch/ts/PG_VERSION", "data\n");
($code, $out, $err) = run_script(
	edit_script($script, prk_tablespaces => "1 $scratch/ts\n"), {}, @where);
is($code, 0, 'a replica with tablespaces: it is started again');
adopt_replica($replica);
$replica->stop;
system('rm', '-rf', $pgdata, $state);
foreach my $nested (["$pgdata/ts", 'lies inside the data directory'],
	[ $replica->basedir, 'lies inside tablespace directory' ])
{
	($code, $out, $err) = run_script(
		edit_script($script, prk_tablespaces => "1 $nested->[0]\n"),
		{ PGPASSWORD => 'secret-word-1' }, @where);
	is($code, 8, "nested directories, $nested->[1]: refused");
	like($err, qr/\Q$nested->[1]\E/, "nested directories, $nested->[1]: it says so");
	unlike($err, qr/empty/, "nested directories, $nested->[1]: no hint that loses data");
}
SKIP:
{
	my @apart = ('unshare', '-U', '-c', '--keep-caps', '-m');
	skip 'this system lets users make no mount of their own', 2
	  if system("@apart true 2>/dev/null") != 0;
	mkdir $_ or die "mkdir: $!" foreach $pgdata, "$pgdata/ts";
	$upstream->safe_psql('postgres', "CREATE TABLESPACE ts LOCATION '$pgdata/ts'");
	($code, $out, $err) = run_script(
		$script,
		{ PGPASSWORD => 'secret-word-1' },
		@where,
		run_by => [
			@apart, 'sh', '-c',
			'mount -t tmpfs none "$1" && shift && exec "$@"', 'sh', $replica->basedir ]);
	is($code, 8, 'a tablespace younger than the script, nested: refused');
	like($err, qr/"\Q$pgdata\E\/ts" lies inside.*younger than this script/s,
		'a tablespace younger than the script, nested: it says so');
	$upstream->safe_psql('postgres', 'DROP TABLESPACE ts');
}
$upstream->stop;
done_testing();
