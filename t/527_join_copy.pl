# A copy of the upstream's data directory that was made while the upstream was
# shut down, as rsync makes it after pg_upgrade: --demote proves by the upstream's
# own WAL that it is one, and makes it the replica without a clone.
use strict;
use warnings FATAL => 'all';

use FindBin;
use lib $FindBin::RealBin;

use JoinKit;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my ($code, $out, $err);
my $upstream = new_upstream('upstream', 'autovacuum = off', 'wal_recycle = off', 'min_wal_size = 32MB');
provision($upstream, 'r1', 'secret');
my $script = write_script($upstream, 'r1');
my $replica = new_replica('r1');
my $pgdata = $replica->data_dir;

sub copy_upstream
{
	system_or_bail('rm', '-rf', $pgdata);
	system_or_bail('cp', '-a', $upstream->data_dir, $pgdata);
	return;
}

sub join_copy
{
	my ($what, $expected, $words, @args) = @_;
	($code, $out, $err) = run_script($script, { PGPASSWORD => 'secret' },
		'--pgdata', $pgdata, '--port', $replica->port, @args);
	is($code, $expected, "$what: exit code $expected");
	like($out . $err, $words, "$what: what it says");
	return;
}

# ----------------------------------------------------------------------
# What is no such copy is left alone
# ----------------------------------------------------------------------

copy_upstream();
unlink "$pgdata/postmaster.pid" or die "unlink: $!";
my $before = tree($pgdata);
join_copy('copied while the upstream ran', 8, qr/is not proved to be an unused copy .*: its control file says "in production", not "shut down"/, '--demote');
is(tree($pgdata), $before, 'nothing in it is touched');

# It has gone its own way, and the upstream is further by now.
$upstream->stop;
copy_upstream();
$replica->append_conf('postgresql.conf', 'port = ' . $replica->port);
$upstream->start;
$replica->start;
$replica->safe_psql('postgres', 'CREATE TABLE lost AS SELECT 1');
$replica->stop;
foreach my $n (1 .. 3)
{
	$upstream->safe_psql('postgres', "CREATE TABLE kept$n AS SELECT generate_series(1, 1000)");
}
$before = tree($pgdata);
join_copy('a copy that was a primary since', 8, qr/is not proved to be an unused copy .*: the upstream has other WAL at/, '--demote');
is(tree($pgdata), $before, 'nothing in it is touched');

# ----------------------------------------------------------------------
# One that is
# ----------------------------------------------------------------------

$upstream->stop;
copy_upstream();
$upstream->start;
$upstream->safe_psql('postgres', 'CREATE TABLE since AS SELECT 1 AS n');
join_copy('without --demote', 8, qr/is a primary's\nhint: .* add --demote/, '--rebuild');
join_copy('dry run', 0, qr/make this former primary a standby, without a clone/, '--demote', '--dry-run');
join_copy('the copy', 0, qr/replica "r1" streams from .*; nothing has been cloned/, '--demote');
adopt_replica($replica);
$upstream->wait_for_catchup('r1', 'replay');
is($replica->safe_psql('postgres', 'SELECT n FROM since'), '1', 'it has what came after the copy');
is($upstream->safe_psql('postgres', "SELECT state FROM replica_kit.status() WHERE name = 'r1'"),
	'streaming', 'through its slot');
$replica->stop;

# ----------------------------------------------------------------------
# One that is too old to be proved
# ----------------------------------------------------------------------

$upstream->stop;
copy_upstream();
$upstream->start;
$upstream->safe_psql('postgres', q{SELECT pg_drop_replication_slot('r1')});
foreach my $n (1 .. 3)
{
	$upstream->safe_psql('postgres', 'SELECT pg_switch_wal() FROM pg_logical_emit_message(false, $$$$, $$x$$)');
	$upstream->safe_psql('postgres', 'CHECKPOINT');
}
$upstream->safe_psql('postgres', q{SELECT replica_kit.provision('r1', '127.0.0.1')});
join_copy('after the WAL is gone', 8, qr/is not proved to be an unused copy .*: the upstream does not send its WAL at .* has already been removed/, '--demote');

# ----------------------------------------------------------------------
# The data of another major version
# ----------------------------------------------------------------------

open my $fh, '>', "$pgdata/PG_VERSION" or die "open: $!";
print $fh "14\n";
close $fh;
join_copy('data of another version', 8, qr/is of PostgreSQL 14, and this script is for \d+\nhint: pg_upgrade/, '--rebuild');

$upstream->stop;
done_testing();
