# What PostgreSQL allows works through to streaming: names that could mean
# something else, in slot, role, pg_hba.conf, connection string and passfile;
# and an address that is another one where the primary sees it.

use strict;
use warnings FATAL => 'all';
use utf8;

use FindBin;
use lib $FindBin::RealBin;

use Encode qw(encode_utf8);
use JoinKit;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $upstream = new_upstream('upstream', 'wal_retrieve_retry_interval = 100ms');
my $hba = $upstream->data_dir . '/pg_hba.conf';

# No other line lets a replica in over TCP.
my $local = join '', grep { /^local/ } split /^/m, slurp($hba);
unlink $hba or die "could not remove \"$hba\": $!";
append_to_file($hba, $local);
$upstream->reload;
my $before = slurp($hba);
my %env = (PGPASSWORD => 'secret-word-1');

# The replica is there, streams by its slot, and comes back by itself.
sub streams
{
	my ($what, $replica, $name) = @_;

	adopt_replica($replica);
	$upstream->safe_psql('postgres', 'SELECT pg_terminate_backend(pid, 60000) FROM pg_stat_replication');
	ok($upstream->poll_query_until('postgres',
			"SELECT count(*) = 1 FROM replica_kit.status() WHERE name = '$name' AND slot_name = '$name' AND application_name = '$name' AND state = 'streaming'"),
		"$what: it streams, and came back by its passfile");
	$replica->stop;
	$upstream->safe_psql('postgres', "SELECT replica_kit.deprovision('$name', true)");
	is(slurp($hba), $before, "$what: it goes without a trace");
	return;
}

my $number = 0;
foreach my $case (
	[ 'all', 'all' ],
	[ 'replication', 'replication' ],
	[ 'r1', '+all' ],
	[ 'r2', '@x' ],
	[ 'r3', '/.*' ],
	[ 'r4', '-Capital dash' ],
	[ 'r5', encode_utf8(q{é"'\\:#=,$%+@ {}é}) ])
{
	my ($name, $role) = @$case;
	my $what = "replica $name, role $role";

	provision($upstream, $name, 'secret-word-1', $role);
	my $replica = new_replica('node' . ++$number);
	my ($code, $out, $err) = run_script(write_script($upstream, $name), \%env,
		'--pgdata', $replica->data_dir, '--port', $replica->port);
	is($code, 0, "$what: the script makes it") or die $out, $err;
	streams($what, $replica, $name);
}

# ----------------------------------------------------------------------
# NAT: provisioned for the address that the replica has, and the primary
# sees another one.  What the hint says is enough.
# ----------------------------------------------------------------------

$upstream->append_conf('postgresql.conf', "listen_addresses = '*'");
$upstream->restart;
provision($upstream, 'nat', 'secret-word-1', undef, '10.0.0.5');
my $replica = new_replica('nat');
my @run = (write_script($upstream, 'nat'), \%env, '--pgdata', $replica->data_dir, '--port', $replica->port);
my ($code, $out, $err) = run_script(@run);
is($code, 5, 'NAT: exit code 5');
my ($hint) = $err =~ /^hint: On the upstream server run: (SELECT \* FROM replica_kit\.provision\('nat', '127\.0\.0\.1'\);) if that is an address of this machine there$/m;
ok(defined $hint, 'NAT: the hint has the address that the upstream saw') or die $err;
$upstream->safe_psql('postgres', $hint);
($code, $out, $err) = run_script(@run);
is($code, 0, 'NAT: with it the same command makes the replica') or die $out, $err;
streams('NAT', $replica, 'nat');

# ----------------------------------------------------------------------
# Programs that are missing
# ----------------------------------------------------------------------

provision($upstream, 'bare', 'secret-word-1');
my $script = write_script($upstream, 'bare');
my $bin = PostgreSQL::Test::Utils::tempdir;
foreach my $missing (qw(flock awk))
{
	foreach my $dir (split /:/, "$ENV{PATH}:/usr/bin:/bin")
	{
		foreach my $file (glob "$dir/*")
		{
			my ($program) = $file =~ /([^\/]+)$/;
			symlink $file, "$bin/$program" if $program ne $missing && !-l "$bin/$program";
		}
	}
	unlink "$bin/$missing";
	$replica = new_replica("bare_$missing");
	my $kept = tree($replica->basedir);
	($code, $out, $err) = run_script($script, { %env, PATH => $bin }, '--pgdata', $replica->data_dir);
	is($code, 3, "without $missing: exit code 3");
	is($err, "pg_replica_kit: error: program \"$missing\" is not installed\n", "without $missing: one line says so");
	is(tree($replica->basedir), $kept, "without $missing: nothing is changed");
}

$upstream->stop;
done_testing();
