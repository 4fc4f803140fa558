# --rebuild where a program of this machine stands still: the script ends by its
# own bound, names the program, leaves nothing running, and the data as it was.
use strict;
use warnings FATAL => 'all';

use FindBin;
use lib $FindBin::RealBin;

use File::Temp qw(tempdir);
use JoinKit;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $primary = PostgreSQL::Test::Cluster->new('primary');
$primary->init(allows_streaming => 1, extra => ['--data-checksums']);
my $changed = $primary->pg_version >= 17;
$primary->append_conf('postgresql.conf', "listen_addresses = '127.0.0.1'\nshared_preload_libraries = 'pg_replica_kit'\n"
	  . ($changed ? "summarize_wal = on\n" : ''));
$primary->start;
$primary->safe_psql('postgres', 'CREATE EXTENSION pg_replica_kit; CREATE TABLE filler AS SELECT generate_series(1, 1000) AS g');
provision($primary, 'replica1', 'secret-word-1');
my $script = write_script($primary, 'replica1');
my $replica = new_replica('replica');
my $pgdata = $replica->data_dir;
my $state = "$pgdata.pg_replica_kit";
my ($code, $out, $err) = run_script($script, { PGPASSWORD => 'secret-word-1' }, '--pgdata', $pgdata, '--port', $replica->port);
is($code, 0, 'a replica is made');
adopt_replica($replica);
$primary->safe_psql('postgres', 'INSERT INTO filler VALUES (0)');
$primary->wait_for_catchup('replica1');
$replica->safe_psql('postgres', 'CHECKPOINT');
$replica->stop;

# Its WAL is gone, as soon as it is summarized.
$primary->poll_query_until('postgres', q{SELECT NOT active FROM pg_replication_slots WHERE slot_name = 'replica1'});
my $segment = $primary->safe_psql('postgres', q{SELECT pg_walfile_name(restart_lsn) FROM pg_replication_slots WHERE slot_name = 'replica1'});
$primary->safe_psql('postgres', q{SELECT pg_drop_replication_slot('replica1')});
$primary->safe_psql('postgres', 'INSERT INTO filler VALUES (0); SELECT pg_switch_wal()') foreach 1 .. 3;
foreach (1 .. 10 * $PostgreSQL::Test::Utils::timeout_default)
{
	$primary->safe_psql('postgres', 'CHECKPOINT');
	last if !-e $primary->data_dir . "/pg_wal/$segment";
	select undef, undef, undef, 0.1;
}
ok(!-e $primary->data_dir . "/pg_wal/$segment", 'its WAL is gone');

my $bindir = `pg_config --bindir` =~ s/\n//r;
sub stands_still
{
	my ($program, $when, $expected, $words) = @_;
	my $programs = tempdir(CLEANUP => 1);
	symlink $_, $programs . '/' . s!.*/!!r foreach glob "$bindir/*";
	unlink "$programs/$program", "$programs/postgres";
	system_or_bail('cp', "$bindir/postgres", "$programs/postgres") if $program ne 'postgres';
	append_to_file("$programs/$program", "#!/bin/sh\ncase \" \$* \" in *' $when'*) kill -STOP \$\$ ;; esac\nexec '$bindir/$program' \"\$@\"\n");
	append_to_file("$programs/join.sh", slurp($script) =~ s/^(program|answer|clone)_seconds=\d+$/$1_seconds=4/gmr);
	chmod 0755, $programs, "$programs/$program" or die "chmod: $!";
	my $before = slurp("$pgdata/global/pg_control");
	($code, $out, $err) = run_script("$programs/join.sh", { PATH => "$programs:$ENV{PATH}" }, '--pgdata', $pgdata, '--rebuild');
	is($code, $expected, "$program stands still: exit code $expected");
	like($err, qr/^pg_replica_kit: error: $words/m, "$program stands still: it is named");
	ok(eventually(sub { `pgrep -f '^/bin/sh $programs'` eq '' }), "$program stands still: nothing is left of it");
	ok(!-e "$state/aside" && !-e "$state/old" && !-e "$pgdata/postmaster.pid" && -e "$pgdata/base/1", "$program stands still: the data is in its place");
	return $before eq slurp("$pgdata/global/pg_control");
}

foreach my $case (
	[ 'pg_controldata', '' ], [ 'pg_waldump', '' ], [ 'pg_receivewal', '' ], [ 'postgres', '-C' ])
{
	my ($program, $when) = @$case;
	ok(stands_still($program, $when, 1, qr/program "$program" did not end within 4 seconds, and was ended\n/), "$program stands still: no server was started");
	unlike($out, qr/trying first/, "$program stands still: nothing was tried");
}
if ($changed)
{
	stands_still('pg_checksums', '', 11, qr/pg_checksums has done nothing for 4 seconds/);
	stands_still('pg_combinebackup', '-o', 11, qr/pg_combinebackup has done nothing for 4 seconds/);
}
($code, $out, $err) = run_script($script, {}, '--pgdata', $pgdata, '--rebuild', '--remove-old');
is($code, 0, 'everything runs: exit code 0');
like($out, $changed ? qr/bringing back only what changed/ : qr/cloning /, 'everything runs: the step that there is');
adopt_replica($replica);
$replica->stop;
$primary->stop;
done_testing();
