# A role of ours that also serves a replica made by hand stays.

use strict;
use warnings FATAL => 'all';

use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $node = PostgreSQL::Test::Cluster->new('primary');
$node->init(allows_streaming => 1);
$node->append_conf('postgresql.conf', "listen_addresses = '127.0.0.1'");
$node->start;
$node->safe_psql('postgres', 'CREATE EXTENSION pg_replica_kit');

my $password = $node->safe_psql('postgres', q{SELECT password FROM replica_kit.provision('replica1', '127.0.0.1')});
$node->safe_psql('postgres', q{SELECT pg_create_physical_replication_slot('by_hand', true)});

sub receive
{
	my ($slot, $name) = @_;
	my $wal = $node->basedir . "/wal_$name";

	mkdir $wal or die "could not create \"$wal\": $!";
	local $ENV{PGPASSWORD} = $password;
	my $receiver = IPC::Run::start(
		[ 'pg_receivewal', '-D', $wal, '-S', $slot, '-d', 'host=127.0.0.1 port=' . $node->port . " user=replica1 application_name=$name" ],
		'>', \my $out, '2>', \my $err);
	$node->poll_query_until('postgres', "SELECT count(*) = 1 FROM replica_kit.status() WHERE slot_name = '$slot' AND state = 'streaming'")
	  or die "$slot does not stream";
	return $receiver;
}

my $own = receive('replica1', 'replica1');
my $other = receive('by_hand', 'other');

my ($rc, $out, $err) = $node->psql('postgres', q{SELECT role_dropped FROM replica_kit.deprovision('replica1', force => true, dry_run => true)});
is("$rc|$out", '0|f', 'dry_run says that the role stays');
($rc, $out, $err) = $node->psql('postgres', q{SELECT * FROM replica_kit.deprovision('replica1', force => true)});
is("$rc|$out", '0|replica1|t|1|f', 'slot and rule go, the role stays');
like($err, qr/role "replica1" stays.*\n.*DETAIL:  "by_hand" is connected with it \(PID \d+\)\./, 'and it says for whom');
is($node->safe_psql('postgres', q{SELECT count(*) FROM replica_kit.status() WHERE name = 'by_hand' AND state = 'streaming'}),
	'1', 'who streams on');
$other->signal('INT');
$other->finish;
$own->signal('INT');
$own->finish;

# The replica's own connections are no reason to keep its role.
$node->poll_query_until('postgres', q{SELECT NOT active FROM pg_replication_slots WHERE slot_name = 'by_hand'})
  or die 'the slot is still used';
$password = $node->safe_psql('postgres',
	q{SELECT pg_drop_replication_slot('by_hand'); DROP ROLE replica1; SELECT password FROM replica_kit.provision('replica1', '127.0.0.1')});
$password =~ s/^\s+//;
rename $node->basedir . '/wal_replica1', $node->basedir . '/wal_before';
$own = receive('replica1', 'anything');
is($node->safe_psql('postgres', q{SELECT * FROM replica_kit.deprovision('replica1', force => true)}),
	'replica1|t|1|t', 'without the other one the role goes');
$own->signal('INT');
$own->finish;

$node->stop;
done_testing();
