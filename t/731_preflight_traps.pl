# preflight() where a file is wrong in ways that the views don't tell, and
# where a fix could do harm.

use strict;
use warnings FATAL => 'all';

use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $node = PostgreSQL::Test::Cluster->new('primary');
$node->init(allows_streaming => 1);
$node->append_conf('postgresql.conf', <<~CONF);
	listen_addresses = '*'
	max_connections = 20
	CONF
$node->start;
$node->safe_psql('postgres', 'CREATE EXTENSION pg_replica_kit');
my $conf = $node->data_dir . '/postgresql.conf';
my $good_conf = slurp_file($conf);

sub write_conf
{
	my ($text) = @_;

	open my $file, '>', $conf or die "could not open \"$conf\": $!";
	print $file $text;
	close $file or die "could not write \"$conf\": $!";
	return;
}

# What the file system has left for the server.
sub free_bytes
{
	my ($head, $free) = split /\n/, `df --output=avail -B 1 '${\ $node->data_dir}/pg_wal'`;

	return $free + 0;
}

sub refused
{
	return $node->safe_psql('postgres',
		q{SELECT current FROM replica_kit.preflight() WHERE check_name = 'restart_would_fail'});
}

# ----------------------------------------------------------------------
# What the next start would refuse, of settings that only a start can change
# ----------------------------------------------------------------------

is(refused(), '', 'nothing would keep a good server from starting');
for my $line ('max_connections = many', 'max_wal_senders = many', 'port = 70000', 'wal_level = nonsense', 'shared_buffers = 1zB')
{
	my ($name) = $line =~ /^(\w+)/;

	write_conf("$good_conf$line\n");
	like(refused(), qr/^$name: .*postgresql\.conf\)$/, "a start would refuse $line");
}
for my $line ('max_connections = 30', 'max_wal_senders = 0x14', 'Max_Connections = 30')
{
	write_conf("$good_conf$line\n");
	is(refused(), '', "it would accept $line");
}

write_conf($good_conf =~ s/^max_connections.*\n//mrg);
is(refused(), '', 'a line that was taken out is no error');

$node->safe_psql('postgres', q{SELECT pg_create_physical_replication_slot('held', true)});
write_conf("${good_conf}WAL_LEVEL = Minimal\n");
like(refused(), qr/wal_level = minimal after a restart, with 1 replication slots/, 'names and words are read as the server does, in any case');
write_conf($good_conf);

write_conf("${good_conf}listen_addresses = 'localhost'\n");
is($node->safe_psql('postgres', q{SELECT current, needs_restart FROM replica_kit.preflight() WHERE check_name = 'listen_addresses'}),
	q{'localhost' after a restart, port } . $node->port . '|f', 'it tells that a restart will shut replicas out');
write_conf($good_conf);

# ----------------------------------------------------------------------
# A limit for slots that is below what one holds would cost it its WAL
# ----------------------------------------------------------------------

for (1 .. 6)
{
	$node->safe_psql('postgres', 'CREATE TABLE t (); DROP TABLE t; SELECT pg_switch_wal()');
}

# As if the disk had nothing left: all that remains is what is held.
my $free_before = free_bytes();
my $limit = $node->safe_psql('postgres', <<~SQL);
	SELECT substring(p.fix FROM '= ''(.*)''') FROM replica_kit.preflight() p WHERE p.check_name = 'max_slot_wal_keep_size'
	SQL
my $free = free_bytes();

# What others do with the disk meanwhile does not count.
$free = $free_before if $free_before < $free;
my $held = $node->safe_psql('postgres', q{SELECT retained_bytes FROM replica_kit.status() WHERE name = 'held'});
cmp_ok($held, '>', 5 * 1024 * 1024, 'a slot holds WAL');
SKIP:
{
	skip 'the disk is so large that the proposal is rounded', 1 if $free >= 2**34;
	cmp_ok($node->safe_psql('postgres', "SELECT pg_size_bytes('$limit')"), '>', $free / 2 + $held / 2,
		'the proposed limit comes on top of what is held');
}

# ----------------------------------------------------------------------
# What is set on the command line
# ----------------------------------------------------------------------

$node->safe_psql('postgres', q{SELECT pg_drop_replication_slot('held')});
$node->stop;
command_ok([
		'pg_ctl', '-D', $node->data_dir, '-l', $node->logfile, '-w',
		'-o', '-c wal_level=minimal -c max_wal_senders=0 -c wal_sender_timeout=0', 'start'
	],
	'a server with a command line of its own');
$node->_update_pid(1);
is($node->safe_psql('postgres', <<~SQL),
	SELECT check_name, fix, wanted LIKE '%, on the command line of the server'
	  FROM replica_kit.preflight()
	 WHERE check_name IN ('wal_level', 'max_wal_senders', 'wal_sender_timeout')
	 ORDER BY 1
	SQL
	"max_wal_senders||t\nwal_level||t\nwal_sender_timeout||t",
	'for what the command line sets it proposes no ALTER SYSTEM, but says where it is set');
$node->stop;
$node->append_conf('postgresql.conf', 'max_wal_senders = 0');
command_ok([ 'pg_ctl', '-D', $node->data_dir, '-l', $node->logfile, '-w', '-o', '-c wal_level=minimal', 'start' ],
	'a server with minimal WAL on its command line');
$node->_update_pid(1);
is($node->safe_psql('postgres', q{SELECT fix FROM replica_kit.preflight() WHERE check_name = 'max_wal_senders'}),
	'', 'nor walsenders that would keep it from starting');
$node->safe_psql('postgres', q{SELECT fix FROM replica_kit.preflight() WHERE fix IS NOT NULL \gexec});
command_ok([ 'pg_ctl', '-D', $node->data_dir, '-l', $node->logfile, '-w', '-o', '-c wal_level=minimal', 'restart' ],
	'with all fixes applied it starts');
$node->_update_pid(1);

$node->stop;
done_testing();
