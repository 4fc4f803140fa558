# provision() on a standby, whose replica is a cascade, after a failover, and
# over IPv6.

use strict;
use warnings FATAL => 'all';

use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $primary = PostgreSQL::Test::Cluster->new('primary');
$primary->init(allows_streaming => 1);
$primary->append_conf('postgresql.conf', <<~CONF);
	listen_addresses = '127.0.0.1, ::1'
	CONF
$primary->start;
$primary->safe_psql('postgres', 'CREATE EXTENSION pg_replica_kit');

my ($password4) = split /\|/, $primary->safe_psql('postgres',
	q{SELECT password FROM replica_kit.provision('replica1', '127.0.0.1')});

# A replica made by pg_basebackup over TCP, as its role.
sub clone
{
	my ($name, $upstream, $host, $slot, $password) = @_;
	my $node = PostgreSQL::Test::Cluster->new($name);

	local $ENV{PGPASSWORD} = $password;
	my $conninfo = "host=$host port=" . $upstream->port . " user=replica1 application_name=$slot";
	command_ok([ 'pg_basebackup', '-d', $conninfo, '-D', $node->data_dir, '-S', $slot, '-X', 'stream', '-c', 'fast' ],
		"$name is cloned over $host with its slot");
	$node->append_conf('postgresql.conf', <<~CONF);
		port = @{[ $node->port ]}
		primary_conninfo = '$conninfo password=$password'
		primary_slot_name = '$slot'
		CONF
	$node->set_standby_mode;
	$node->start;
	return $node;
}

my $standby = clone('standby', $primary, '127.0.0.1', 'replica1', $password4);
$primary->poll_query_until('postgres',
	q{SELECT state = 'streaming' FROM replica_kit.status() WHERE slot_name = 'replica1'})
  or die 'the replica does not stream';
$primary->safe_psql('postgres', 'CREATE TABLE t AS SELECT generate_series(1, 1000) i');
$primary->wait_for_catchup('replica1');
is($standby->safe_psql('postgres', 'SELECT count(*) FROM t'), '1000', 'rows arrive');

# ----------------------------------------------------------------------
# IPv6
# ----------------------------------------------------------------------

is($primary->safe_psql('postgres', q{SELECT hba_rule FROM replica_kit.provision('replica6', '::1', role => 'replica1')}),
	'host replication replica1 ::1/128 scram-sha-256', 'an IPv6 replica has a rule of its one address');
my $standby6 = clone('standby6', $primary, '::1', 'replica6', $password4);
$primary->poll_query_until('postgres',
	q{SELECT client_addr = '::1' FROM replica_kit.status() WHERE slot_name = 'replica6' AND state = 'streaming'})
  or die 'the IPv6 replica does not stream';
pass('a replica streams over IPv6');
$standby6->stop;
$primary->poll_query_until('postgres', q{SELECT NOT active FROM pg_replication_slots WHERE slot_name = 'replica6'})
  or die 'the slot is still in use';
is($primary->safe_psql('postgres', q{SELECT * FROM replica_kit.deprovision('replica6')}),
	'replica6|t|1|f', 'it goes without the role that it shares');

# ----------------------------------------------------------------------
# A cascade
# ----------------------------------------------------------------------

my $hba = $standby->data_dir . '/pg_hba.conf';
my $before = slurp_file($hba);

$standby->psql('postgres', q{SELECT replica_kit.provision('cascade', '127.0.0.1', role => 'nobody')}, stderr => \my $err);
like($err, qr/role "nobody" does not exist.*Roles cannot be created on a standby/s, 'a standby can make no role and says so');
unlike($err, qr/provision/i, 'and does not advise to provision on the primary: that would leave a slot there that nobody uses');
$standby->psql('postgres', q{SELECT * FROM replica_kit.provision('cascade', '127.0.0.1', role => 'replica1')}, stdout => \my $row, stderr => \$err);
like($row, qr/^cascade\|replica1\|cascade\|host replication replica1 127\.0\.0\.1\/32 scram-sha-256\|\|/,
	'a cascade uses a role of the primary');
is($standby->safe_psql('postgres', q{SELECT slot_name, wal_status FROM pg_replication_slots}), 'cascade|reserved',
	'its slot is made on the standby and reserves WAL');
my $cascade = clone('cascade', $standby, '127.0.0.1', 'cascade', $password4);
$standby->poll_query_until('postgres',
	q{SELECT state = 'streaming' FROM replica_kit.status() WHERE slot_name = 'cascade'})
  or die 'the cascade does not stream';
$primary->safe_psql('postgres', 'INSERT INTO t SELECT generate_series(1, 1000)');
$primary->wait_for_catchup('replica1');
$standby->wait_for_catchup('cascade', 'replay', $standby->lsn('replay'));
is($cascade->safe_psql('postgres', 'SELECT count(*) FROM t'), '2000', 'rows arrive through the standby');

$standby->psql('postgres', q{SELECT replica_kit.deprovision('cascade')}, stderr => \$err);
like($err, qr/replica "cascade" is connected.*HINT:.*force => true/s, 'a connected replica is not taken away');
$standby->psql('postgres', q{BEGIN; SELECT replica_kit.deprovision('cascade', force => true); ROLLBACK}, stderr => \$err);
is($standby->safe_psql('postgres', q{SELECT count(*) FROM pg_replication_slots}), '1', 'nor by a ROLLBACK');
is($standby->safe_psql('postgres', q{SELECT slot_dropped FROM replica_kit.deprovision('cascade', force => true)}),
	't', 'but it is with force');
is($standby->safe_psql('postgres', q{SELECT count(*) FROM pg_replication_slots}), '0', 'the slot is gone');
is(slurp_file($hba), $before, 'and pg_hba.conf of the standby as before');
$cascade->stop;

# ----------------------------------------------------------------------
# A failover: the new primary adopts the role that was replicated
# ----------------------------------------------------------------------

$primary->stop;
$standby->promote;
is($standby->safe_psql('postgres', <<~'SQL'), 'replica2|replica2|t', 'a new replica of the new primary');
	SELECT name, role_name, password IS NOT NULL FROM replica_kit.provision('replica2', '127.0.0.1')
	SQL
is($standby->safe_psql('postgres', q{SELECT name, role_name, password IS NULL FROM replica_kit.provision('replica1', '127.0.0.1')}),
	'replica1|replica1|t', 'the old one is adopted with its role and password');
is($standby->safe_psql('postgres', q{SELECT slot_name FROM pg_replication_slots ORDER BY 1}), "replica1\nreplica2",
	'both have slots');
is(() = slurp_file($hba) =~ /# pg_replica_kit: replica1$/mg, 1, 'the line that was cloned is not there twice');

$standby->stop;
done_testing();
