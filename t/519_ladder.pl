# The ladder of --rebuild: losses, each of which takes its step; --dry-run names
# it first, and the run takes it.
use strict;
use warnings FATAL => 'all';

use FindBin;
use lib $FindBin::RealBin;

use File::Temp qw(tempdir);
use JoinKit;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $archive = tempdir(CLEANUP => 1);
my ($major) = `pg_config --version` =~ /(\d+)/;

# What takes the last two steps apart: whether the primary keeps summaries.
my $last_step = $major >= 17 ? 'changed blocks' : 'full clone';
my $at_last = $major >= 17 ? qr/bringing back only what changed/ : qr/cloning /;
my $primary = new_upstream(
	'primary', 'wal_log_hints = on', 'autovacuum = off', 'wal_retrieve_retry_interval = 100ms',
	'max_wal_size = 4GB', 'checkpoint_timeout = 1h', 'archive_mode = on',
	"archive_command = 'cp \"%p\" \"$archive/%f\"'",
	$major >= 17 ? ('summarize_wal = on', "shared_preload_libraries = 'pg_replica_kit'") : ());
provision($primary, 'replica1', 'secret-word-1');
my $script = write_script($primary, 'replica1');
my $replica = new_replica('replica');
my $pgdata = $replica->data_dir;
my $state = "$pgdata.pg_replica_kit";
my ($code, $out, $err);

sub drop_slot
{
	$primary->poll_query_until('postgres', q{SELECT NOT active FROM pg_replication_slots WHERE slot_name = 'replica1'})
	  or die 'the slot is still used';
	$primary->safe_psql('postgres', q{SELECT pg_drop_replication_slot('replica1')});
	return;
}

# WAL that no slot holds goes, and is in the archive before.
sub move_on
{
	my $last;
	$last = $primary->safe_psql('postgres', 'INSERT INTO filler VALUES (0, 0); SELECT pg_walfile_name(pg_switch_wal())') for 1 .. 3;
	$primary->poll_query_until('postgres', "SELECT last_archived_wal >= '$last' FROM pg_stat_archiver")
	  or die 'nothing is archived';
	remove_wal($primary);
	return;
}

# --dry-run names the step and changes nothing; then the run is made.
sub rebuild
{
	my ($what, $step, @more) = @_;
	my $before = slurp("$pgdata/postgresql.auto.conf") . (-e "$state/rewinding" ? 1 : 0);
	($code, $out, $err) = run_script($script, {}, '--pgdata', $pgdata, '--rebuild', @more, '--dry-run');
	is($code, 0, "$what, --dry-run: exit code 0") or diag($err);
	like($out, qr/^pg_replica_kit: step: $step$/m, "$what, --dry-run: the step is $step");
	is(slurp("$pgdata/postgresql.auto.conf") . (-e "$state/rewinding" ? 1 : 0), $before, "$what, --dry-run: nothing is changed");
	my $plan = $out;
	($code, $out, $err) = run_script($script, {}, '--pgdata', $pgdata, '--rebuild', @more);
	is($code, 0, "$what: exit code 0") or diag($err);
	($step eq 'full clone' ? \&like : \&unlike)->($out, qr/^pg_replica_kit: cloning /m, "$what: is it cloned?");
	adopt_replica($replica);
	$primary->safe_psql('postgres', 'INSERT INTO filler VALUES (0, 0)');
	my $rows = $primary->safe_psql('postgres', 'SELECT count(*) FROM filler');
	ok($replica->poll_query_until('postgres', "SELECT pg_is_in_recovery() AND count(*) = $rows FROM filler"),
		"$what: a new row arrives");
	is($primary->safe_psql('postgres', q{SELECT active FROM pg_replication_slots WHERE slot_name = 'replica1'}), 't',
		"$what: through the slot");
	is($replica->safe_psql('postgres', q{SELECT setting FROM pg_settings WHERE name = 'port'}), $replica->port, "$what: on its port");
	return $plan;
}

($code, $out, $err) = run_script($script, { PGPASSWORD => 'secret-word-1' }, '--pgdata', $pgdata, '--port', $replica->port);
is($code, 0, 'a replica is made');
adopt_replica($replica);

# ----------------------------------------------------------------------
# Restart, slot, archive
# ----------------------------------------------------------------------
$replica->stop;
rebuild('stopped', 'restart');

$replica->stop;
drop_slot();
rebuild('without its slot', 'slot');

$replica->stop;
drop_slot();
move_on();
system_or_bail('sh', '-c', 'gzip -k "$1"/????????????????????????', 'sh', $archive);
my $plan = rebuild('without its WAL, which an archive has', 'archive', '--restore-command', "gunzip -c <'$archive/%f.gz' >'%p'");
like($plan, qr/[34] WAL segments, \d+ MB, from the archive, in about \d+ s/, 'the archive: an estimate');
like($out, qr/a restart was enough.*from the archive/, 'the archive: it was enough');
like($out, qr/restore_command stays set, as --restore-command says/, 'the archive: what becomes of restore_command');

# An archive that has not all of it: the step down says which segment, and why.
$replica->stop;
drop_slot();
my ($hole, $middle) = split /\|/, $primary->safe_psql('postgres', q{SELECT pg_walfile_name(pg_current_wal_lsn()), pg_walfile_name(pg_current_wal_lsn() + 16777216)});
move_on();
my $impatient = tempdir(CLEANUP => 1) . '/join.sh';
append_to_file($impatient, slurp($script) =~ s/^restore_seconds=\d+$/restore_seconds=2/mr);
foreach my $case (
	[ 'nothing', 'exit 1', qr/WAL segment $hole is not there: it ended with status 1/ ],
	[ 'no command', 'exit 127', qr/restore_command fails for WAL segment $hole: it ended with status 127, with which a server stops; it is not used/ ],
	[ 'no end', "sleep 4711.$$", qr/restore_command fails for WAL segment $hole: it did not end within 2 seconds; it is not used/ ],
	[ 'a part', "{ head -c 1000 '$archive/%f' >'%p'; exit 0; }", qr/WAL segment $hole is not there: it ended with status 0, but the file has 1000 bytes/ ],
	[ 'another place', "{ cp '$archive/%f' /dev/null; exit 0; }", qr/WAL segment $hole is not there: it ended with status 0, but the file has 0 bytes/ ],
	[ 'another cluster', "{ head -c 16777216 /dev/zero >'%p'; exit 0; }", qr/WAL segment $hole is not there: it ended with status 0, but the file is of another cluster/ ])
{
	my ($what, $trick, $words) = @$case;
	($code, $out, $err) = run_script($impatient, {}, '--pgdata', $pgdata, '--rebuild', '--dry-run',
		'--restore-command', "[ '%f' != $hole ] || $trick; cp '$archive/%f' '%p'");
	is($code, 0, "an archive with $what: exit code 0");
	like($out, qr/^pg_replica_kit: not from the archive: $words$/m, "an archive with $what: which segment, and why");
	like($out, qr/^pg_replica_kit: step: $last_step$/m, "an archive with $what: the next step");
}
ok(eventually(sub { `pgrep -f '^sleep 4711\\.$$\$'` eq '' }), 'a command without end: it is ended');

# A hole in the middle is not looked for; the restart is not enough, and then it
# is named.
unlink "$archive/$middle" or die "unlink $middle: $!";
($code, $out, $err) = run_script($script, {}, '--pgdata', $pgdata, '--rebuild', '--remove-old', '--restore-command', "cp '$archive/%f' '%p'");
is($code, 0, 'a hole in the middle: exit code 0');
like($out, qr/^pg_replica_kit: the archive is not enough: WAL segment $middle is not there: it ended with status 1\n.*^pg_replica_kit: $at_last/ms,
	'a hole in the middle: it says which segment, and takes the next step');
adopt_replica($replica);

# No archive has anything.
if ($major >= 17)
{
	$replica->stop;
	drop_slot();
	move_on();
	unlink glob "$archive/*";
	rebuild('without its WAL', 'changed blocks', '--remove-old');
	like($out, qr/bringing back only what changed since/, 'without its WAL: by the changed blocks');
}

# ----------------------------------------------------------------------
# Damage
# ----------------------------------------------------------------------
$replica->stop;
unlink "$pgdata/global/pg_filenode.map" or die "unlink: $!";
rebuild('damaged', 'full clone', '--remove-old');
$replica->stop;
$primary->safe_psql('postgres', q{ALTER SYSTEM SET wal_keep_size = '256MB'});
$primary->reload;
rebuild('stopped, --full', 'full clone', '--full', '--remove-old');
like($out, qr/everything is cloned, as --full says/, '--full: it says so');

# ----------------------------------------------------------------------
# Promoted by mistake
# ----------------------------------------------------------------------
sub promote_and_stop
{
	my (@statements) = @_;
	$primary->safe_psql('postgres', 'CHECKPOINT');
	$primary->wait_for_catchup('replica1');
	$replica->promote;
	$replica->safe_psql('postgres', $_) for @statements;
	$replica->stop;
	return;
}

$replica->append_conf('postgresql.conf', "log_min_duration_statement = 12345");
$replica->append_conf('pg_hba.conf', '# the own file of the replica');
my %own = map { $_ => slurp("$pgdata/$_") } qw(postgresql.conf pg_hba.conf pg_ident.conf);
promote_and_stop();
($code, $out, $err) = run_script($script, {}, '--pgdata', $pgdata, '--rebuild', '--dry-run');
like($out, qr/^pg_replica_kit: step: full clone$/m, 'promoted, without the right: it would be a clone');
my ($statement) = $out =~ /^pg_replica_kit: not by rewind: role "replica1_rewind" may not read files on the upstream.*, in database "postgres": (SELECT .*;)$/m;
is($statement, q{SELECT replica_kit.allow_rewind('replica1', '1 hour');}, 'promoted, without the right: the statement that gives it');
$primary->safe_psql('postgres', $statement // 'SELECT');
rebuild('promoted by mistake', 'rewind');
like($out, qr/it was rewound, nothing has been cloned/, 'promoted by mistake: it was rewound');
foreach my $file (sort keys %own)
{
	is(slurp("$pgdata/$file"), $own{$file}, "promoted by mistake: $file is as before");
}
is($primary->safe_psql('postgres', q{SELECT rolcanlogin FROM pg_roles WHERE rolname = 'replica1_rewind'}), 'f',
	'promoted by mistake: the right is gone');
unlike(slurp($primary->data_dir . '/pg_hba.conf'), qr/replica1_rewind/, 'promoted by mistake: and the line of pg_hba.conf');
ok(!-e "$state/rewinding", 'promoted by mistake: no mark is left');

# With commits: asked for first.
promote_and_stop('CREATE TABLE only_here AS SELECT 1', 'INSERT INTO only_here VALUES (2)');
$primary->safe_psql('postgres', q{SELECT replica_kit.allow_rewind('replica1', '1 hour')});
my $before = tree($pgdata);
($code, $out, $err) = run_script($script, {}, '--pgdata', $pgdata, '--rebuild');
is($code, 15, 'promoted, with commits: exit code 15');
like($err, qr/commits: 2, made between \d{4}-\d\d-\d\d [\d:]+ \S+ and \d{4}-\d\d-\d\d [\d:]+ \S+$/m, 'promoted, with commits: how many, and when');
like($err, qr/^hint: .* --rebuild --discard-diverged\nhint: .* --rebuild --full$/m, 'promoted, with commits: both commands');
is(tree($pgdata), $before, 'promoted, with commits: nothing is changed');
rebuild('promoted, with commits', 'rewind', '--discard-diverged');
is($replica->safe_psql('postgres', q{SELECT to_regclass('only_here') IS NULL}), 't', 'promoted, with commits: they are gone');
my ($kept) = $out =~ /are kept in (\S+)$/m;
my ($fork) = slurp("$kept/data/pg_wal/00000002.history") =~ m!^1\t(\S+)!;
my ($lost) = run_command([ 'pg_waldump', '--rmgr=Transaction', '-p', "$kept/data/pg_wal", '-t', '2', '-s', $fork ]);
is(scalar(() = $lost =~ /desc: COMMIT/g), 2, 'promoted, with commits: their WAL is kept');

# One that fails, and one that is killed in its midst, leave neither the old data
# nor the new.
my $programs = tempdir(CLEANUP => 1);
my $bindir = `pg_config --bindir` =~ s/\n//r;
symlink $_, $programs . '/' . s!.*/!!r for grep { !/pg_rewind$/ } glob "$bindir/*";
open my $fh, '>', "$programs/pg_rewind" or die "open: $!";
print $fh <<~SH;
	#!/bin/sh
	case " \$* " in *' -n '* | *' --version '*) exec '$bindir/pg_rewind' "\$@" ;; esac
	echo 'pg_rewind: need to copy 1 MB (total source directory size is 1 MB)'
	[ -e '$programs/kill' ] || { echo 'pg_rewind: error: no space' >&2; exit 1; }
	p=\$\$
	while p=\$(awk '{ print \$4 }' "/proc/\$p/stat") && [ "\$p" -gt 1 ]; do
		! grep -F -q '/join.sh' "/proc/\$p/cmdline" || pids="\$pids \$p"
	done
	kill -s KILL \$pids \$\$
	SH
close $fh;
chmod 0755, "$programs/pg_rewind" or die "chmod: $!";
unlink "$programs/postgres";
system('cp', "$bindir/postgres", "$programs/postgres") == 0 or die 'cp';
my @discard = ('--pgdata', $pgdata, '--rebuild', '--discard-diverged', '--remove-old');
promote_and_stop('CREATE TABLE only_here AS SELECT 1');
$primary->safe_psql('postgres', q{SELECT replica_kit.allow_rewind('replica1', '1 hour')});
($code, $out, $err) = run_script($script, { PATH => "$programs:$ENV{PATH}" }, @discard);
is($code, 0, 'a rewind that fails: exit code 0');
like($out, qr/the rewind failed, and no server can use this data any more: no space\n.*^pg_replica_kit: cloning /ms, 'a rewind that fails: it is cloned');
adopt_replica($replica);
run_script($script, {}, @discard);
promote_and_stop('CREATE TABLE only_here AS SELECT 1');
$primary->safe_psql('postgres', q{SELECT replica_kit.allow_rewind('replica1', '1 hour')});
append_to_file("$programs/kill", '');
($code, $out, $err) = run_script($script, { PATH => "$programs:$ENV{PATH}" }, @discard);
ok(-e "$state/rewinding", 'a rewind that was killed: it is noted') or diag("$out$err");
isnt(system("$bindir/pg_ctl", '-D', $pgdata, '-s', '-w', '-t', '5', '-l', "$programs/log", 'start'), 0,
	'a rewind that was killed: no server starts with that data');
rebuild('a rewind that was killed', 'full clone', '--remove-old');
like($out, qr/an earlier rewind was interrupted/, 'a rewind that was killed: it says so');
ok(!-e "$state/rewinding", 'a rewind that was killed: the mark is gone with the clone');

# ----------------------------------------------------------------------
# A former primary
# ----------------------------------------------------------------------
$primary->wait_for_catchup('replica1');
$primary->safe_psql('postgres', 'ALTER SYSTEM SET log_min_duration_statement = 4711');
$replica->promote;
$primary->safe_psql('postgres', 'CREATE TABLE only_there AS SELECT 1');
$primary->stop('immediate');
$replica->safe_psql('postgres', q{SELECT replica_kit.provision('old1', '127.0.0.1', password => 'secret-of-old1');
	SELECT replica_kit.allow_rewind('old1', '1 hour')});
my $of_old = write_script($replica, 'old1');
my @old = ('--pgdata', $primary->data_dir, '--demote');
($code, $out, $err) = run_script($of_old, { PGPASSWORD => 'secret-of-old1' }, @old);
is($code, 15, 'a former primary that was killed: exit code 15');
($code, $out, $err) = run_script($of_old, { PGPASSWORD => 'secret-of-old1' }, @old, '--discard-diverged', '--dry-run');
like($out, qr/^pg_replica_kit: step: rewind$/m, 'a former primary that was killed, --dry-run: the step is rewind');
($code, $out, $err) = run_script($of_old, { PGPASSWORD => 'secret-of-old1' }, @old, '--discard-diverged');
is($code, 0, 'a former primary that was killed: exit code 0') or diag("$err");
like($out, qr/it was rewound, nothing has been cloned/, 'a former primary that was killed: it was rewound');
adopt_replica($primary);
$replica->wait_for_catchup('old1');
is($primary->safe_psql('postgres', q{SELECT pg_is_in_recovery(), to_regclass('only_there') IS NULL, current_setting('log_min_duration_statement'), current_setting('port')}),
	't|t|4711ms|' . $primary->port, 'a former primary that was killed: a standby, with its own settings');

$primary->stop;
$replica->stop;
done_testing();
