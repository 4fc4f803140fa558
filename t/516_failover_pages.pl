# doc/failover.md and doc/switchover.md: their blocks, run as they stand, on
# three Debian clusters of this machine that stand for the page's machines.
use strict;
use warnings FATAL => 'all';

use FindBin;
use lib $FindBin::RealBin;

use JoinKit;
use PageKit;
use PostgreSQL::Test::Utils;
use Test::More;

my $cannot = cannot_run();
plan skip_all => $cannot if $cannot;
my @machine = new_machines(3);

# ----------------------------------------------------------------------
# A primary and two replicas, as the README makes them
# ----------------------------------------------------------------------
my ($old, $new, $third) = @machine;
make_primary($old, 'max_replication_slots 15', 'max_wal_senders 15');
foreach my $number (1, 2)
{
	my $machine = $machine[$number];
	my $name = "replica$number";
	my ($secret) = sql($old, "SELECT password FROM replica_kit.provision('$name', '127.0.0.1')");
	my $script = sql($old, "SELECT replica_kit.join_script('$name', '127.0.0.1')");
	open my $fh, '>', "$machine->{home}/join_$name.sh" or die "open: $!";
	print $fh $script, "\n";
	close $fh;
	my ($code) = on($machine, { PGPASSWORD => $secret }, '', 'dash', "join_$name.sh", risk(),
		'--cluster', "$major/$machine->{cluster}", '--port', $machine->{port});
	is($code, 0, "$name is made");
}

# ----------------------------------------------------------------------
# The primary crashes
# ----------------------------------------------------------------------
stop_machine($old, '-m immediate');
run_page(
	'failover.md',
	'2. Find the replica that has most' => sub {
		isnt(system("pg_ctlcluster $major $old->{cluster} start >/dev/null 2>&1"), 0, 'failover.md: the fenced primary does not start');
	},
	'6. See that all are there' => sub {
		sql($new, 'INSERT INTO rows VALUES (2)');
		poll($third, 'SELECT count(*) = 2 FROM rows', 'failover.md: the other one has what the new primary writes');
	});
like($said{'3. Promote it'}, qr/replica_not_attached.*replica2/s, 'failover.md: diagnose() names the replica that is missing');
like($said{'5. Let them follow'}, qr/streams from 127\.0\.0\.1, port $new->{port}/, 'failover.md: the other one follows');
unlike($said{'5. Let them follow'}, qr/cloning|assword|restart/, 'failover.md: without clone, password and restart');
like($said{'8. The old primary becomes a replica'}, qr/not shut down cleanly.*cloning.*the old data is in/s, 'failover.md: the old primary is cloned, and its data kept');
poll($old, 'SELECT pg_is_in_recovery() AND count(*) = 2 FROM rows', 'failover.md: the old primary is a replica');

# ----------------------------------------------------------------------
# And back, as it was planned
# ----------------------------------------------------------------------
@at = ($new, $old, $third);
run_page(
	'switchover.md',
	'6. See that all are there' => sub {
		sql($old, 'INSERT INTO rows VALUES (3)');
		poll($_, 'SELECT count(*) = 3 FROM rows', 'switchover.md: a replica has what the new primary writes') foreach $new, $third;
		poll($old, q{SELECT count(*) = 2 FROM pg_stat_replication WHERE state = 'streaming'}, 'switchover.md: both stream');
	});
like($said{'5. Let them follow'}, qr/streams from .*streams from .*nothing has been cloned/s, 'switchover.md: both follow, without a clone');
unlike($said{'5. Let them follow'}, qr/pg_replica_kit: cloning/, 'switchover.md: nothing is cloned');
is(sql($new, 'SELECT count(*) FROM pg_replication_slots'), '0', 'switchover.md: no slot is left on the old primary');
like($said{'Move a replica to another address'}, qr/^ +1$/m, 'switchover.md: the old address of the replica goes');
is(scalar(() = $said{'More replicas: from one to ten'} =~ /^ reader\d +\| \w{32}$/mg), 9, 'switchover.md: nine more replicas, each with its password');
is(scalar(() = $said{'Rotate the passwords of all replicas'} =~ /^ replica\d +\| \w{32}$/mg), 2, 'switchover.md: two new passwords');

done_testing();
