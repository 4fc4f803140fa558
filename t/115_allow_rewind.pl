# allow_rewind(): a role that may read files for a time, from where the replica
# replicates; how it ends.
use strict;
use warnings FATAL => 'all';

use FindBin;
use lib $FindBin::RealBin;

use IPC::Run qw(run);
use JoinKit;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $node = new_upstream('primary');
my $hba = $node->data_dir . '/pg_hba.conf';
$node->safe_psql('postgres', 'CREATE DATABASE other');
provision($node, 'old1', 'secret-of-old1');
my $before = slurp($hba);

sub sql
{
	my ($sql) = @_;
	return $node->safe_psql('postgres', $sql);
}

sub error
{
	my ($sql) = @_;
	my ($rc, $out, $err) = $node->psql('postgres', $sql);
	return $rc ? $err : 'no error';
}

# What pg_rewind's role gets for a statement, by password over TCP.
sub as_rewinder
{
	my ($sql, $database) = @_;
	local $ENV{PGPASSWORD} = 'secret-of-old1';
	my ($out, $err) = ('', '');
	run [ 'psql', '-XAtqw', '-h', '127.0.0.1', '-p', $node->port, '-U', 'old1_rewind', '-d', $database // 'postgres', '-c', $sql ],
	  '<', \'', '>', \$out, '2>', \$err;
	chomp $out;
	# 19 warns of a password that expires soon
	$err =~ s/^(?:WARNING:  role password will expire soon|DETAIL:  The password for role .*)\n//mg;
	return $out . $err;
}

sub lines
{
	return join "\n", grep { /old1_rewind/ } split /\n/, slurp($hba);
}

sub traces
{
	return sql(q{SELECT (SELECT count(*) FROM pg_roles WHERE rolname = 'old1_rewind'),
		(SELECT count(*) FROM pg_proc WHERE proacl::text ~ 'old1_rewind'),
		(SELECT count(*) FROM pg_database WHERE datacl::text ~ 'old1_rewind')}) . '|' . lines();
}

# ----------------------------------------------------------------------
# Refused
# ----------------------------------------------------------------------
like(error(q{SELECT replica_kit.allow_rewind('nobody', '1 hour')}), qr/replica "nobody" is not provisioned/, 'a replica that is not provisioned');
foreach my $duration ('0', '-1 hour', '25 hours')
{
	like(error("SELECT replica_kit.allow_rewind('old1', '$duration')"), qr/duration must be greater than zero and at most one day/,
		"a duration of $duration");
}
my $long = 'x' x 60;
sql("SELECT replica_kit.provision('$long', '127.0.0.1')");
like(error("SELECT replica_kit.allow_rewind('$long', '1 hour')"), qr/is too long for pg_rewind.*--rebuild --full/s, 'a name that is too long');
sql("SELECT replica_kit.deprovision('$long')");
sql('CREATE ROLE old1_rewind LOGIN');
like(error(q{SELECT replica_kit.allow_rewind('old1', '1 hour')}), qr/role "old1_rewind" already exists and was not made by pg_replica_kit/, q{somebody's role});
is(sql(q{SELECT replica_kit.revoke_rewind('old1')}), 'f', q{somebody's role: nothing to revoke});
sql('DROP ROLE old1_rewind');
like(error('SELECT replica_kit.end_rewind()'), qr/the role of this session was not made by allow_rewind/, 'end_rewind() by somebody else');

# ----------------------------------------------------------------------
# Rolled back, nothing stays
# ----------------------------------------------------------------------
sql(q{BEGIN; SELECT replica_kit.allow_rewind('old1', '1 hour'); ROLLBACK});
is(traces(), '0|0|0|', 'rolled back: nothing is left');
like(error(q{BEGIN; SELECT replica_kit.allow_rewind('old1', '1 hour'); SELECT 1 / 0; COMMIT}), qr/division/, 'an error');
is(traces(), '0|0|0|', 'an error: nothing is left');
is(slurp($hba), $before, 'pg_hba.conf is as before');

# ----------------------------------------------------------------------
# Given and used
# ----------------------------------------------------------------------
is(sql(q{SELECT replica_kit.allow_rewind('old1', '1 hour') BETWEEN now() + '59 min' AND now() + '61 min'}), 't', 'it returns when it ends');
is(traces(), '1|5|1|host postgres old1_rewind 127.0.0.1/32 scram-sha-256  # pg_replica_kit: old1', 'a role, rights, a line');
is(sql(q{SELECT rolreplication OR rolsuper OR rolcreaterole OR rolcreatedb OR rolbypassrls FROM pg_roles WHERE rolname = 'old1_rewind'}), 'f', 'the role is nothing else');
is(as_rewinder(q{SELECT length(pg_read_binary_file('global/pg_control', 0, 8192, true))}), '8192', 'it reads a file');
like(as_rewinder(q{SELECT pg_read_file('PG_VERSION')}), qr/permission denied/, 'by the functions of pg_rewind only');
is(sql(q{SELECT (replica_kit.hba_match('old1_rewind', '127.0.0.1', 'other')).rule ~ 'old1_rewind'}), 'f', 'the line is for one database');
like(as_rewinder(q{SELECT pg_read_binary_file('PG_VERSION')}, 'other'), qr/permission denied/, 'so are the rights');
is(sql(q{SELECT (replica_kit.hba_match('old1', '127.0.0.1')).rule}), 'host replication old1 127.0.0.1/32 scram-sha-256', q{the replica's own line still counts});
my $once = slurp($hba);
sql(q{SELECT replica_kit.allow_rewind('old1', '2 hours')});
is(slurp($hba), $once, 'once more: one line');
like(slurp($node->logfile), qr/LOG:  replica_kit: user ".*" allowed role "old1_rewind" to read files for pg_rewind until /, 'an audit line');
unlike(slurp($node->logfile), qr/SCRAM-SHA-256\$/, 'no secret in the log');

# ----------------------------------------------------------------------
# Ended by the role itself, by revoke_rewind(), by deprovision()
# ----------------------------------------------------------------------
is(as_rewinder('SELECT replica_kit.end_rewind()'), '', 'the role ends it');
is(traces(), '1|0|0|', 'only the role is left');
is(sql(q{SELECT rolcanlogin FROM pg_roles WHERE rolname = 'old1_rewind'}), 'f', 'without LOGIN');
is(slurp($hba), $before, 'pg_hba.conf is as before allow_rewind()');
like(as_rewinder('SELECT 1'), qr/FATAL/, 'it cannot connect');
sql(q{SELECT replica_kit.allow_rewind('old1', '1 hour')});
is(as_rewinder('SELECT 1'), '1', 'given again: it can');
is(sql(q{SELECT replica_kit.revoke_rewind('old1')}), 't', 'revoked');
is(traces(), '0|0|0|', 'revoked: nothing is left');
is(sql(q{SELECT replica_kit.revoke_rewind('old1')}), 'f', 'revoked again: there was nothing');

# ----------------------------------------------------------------------
# When the time is over, the server refuses the role by itself
# ----------------------------------------------------------------------
sql(q{SELECT replica_kit.allow_rewind('old1', '1 hour')});
is(as_rewinder('SELECT 1'), '1', 'within the time it connects');
sql(q{SELECT replica_kit.allow_rewind('old1', '1 second')});
ok($node->poll_query_until('postgres', q{SELECT rolvaliduntil < clock_timestamp() FROM pg_roles WHERE rolname = 'old1_rewind'}), 'the time passes');
like(as_rewinder('SELECT 1'), qr/password authentication failed/, 'after it the role is refused');

# A session that has begun before goes on until the right is taken from it.
sql(q{SELECT replica_kit.allow_rewind('old1', '1 hour')});
{
	local $ENV{PGPASSWORD} = 'secret-of-old1';
	my ($in, $out) = ('', '');
	my $session = IPC::Run::start(
		[ 'psql', '-XAtqw', '-h', '127.0.0.1', '-p', $node->port, '-U', 'old1_rewind', '-d', 'postgres' ],
		'<', \$in, '>', \$out, '2>&1', IPC::Run::timeout($PostgreSQL::Test::Utils::timeout_default));
	my $read = q{SELECT 'length ' || length(pg_read_binary_file('PG_VERSION'));} . "\n";
	$in .= $read;
	$session->pump until $out =~ /length 3\n/;
	sql(q{SELECT replica_kit.allow_rewind('old1', '1 second')});
	ok($node->poll_query_until('postgres', q{SELECT rolvaliduntil < clock_timestamp() FROM pg_roles WHERE rolname = 'old1_rewind'}), 'the time passes meanwhile');
	$out = '';
	$in .= $read;
	$session->pump until $out =~ /\n/;
	like($out, qr/length 3/, 'a session that has begun before can come to its end');
	is(sql(q{SELECT replica_kit.revoke_rewind('old1')}), 't', 'a session that has begun before: the right is taken');
	$out = '';
	$in .= $read;
	$session->pump until $out =~ /\n/;
	like($out, qr/permission denied|does not exist/, 'a session that has begun before: it reads no more');
	$in .= "\\q\n";
	$session->finish;
}

# ----------------------------------------------------------------------
# Without the extension the server still ends it, and a new one finds the role
# ----------------------------------------------------------------------
sql(q{SELECT replica_kit.allow_rewind('old1', '1 hour')});
sql('SET client_min_messages = error; DROP EXTENSION pg_replica_kit CASCADE');
is(as_rewinder(q{SELECT length(pg_read_binary_file('PG_VERSION'))}), '3', 'the extension is dropped meanwhile: a rewind comes to its end');
like(as_rewinder('SELECT replica_kit.end_rewind()'), qr/schema "replica_kit" does not exist/, 'the extension is dropped meanwhile: the script says what it cannot end');
sql('CREATE EXTENSION pg_replica_kit');
is(sql(q{SELECT replica_kit.revoke_rewind('old1')}), 't', 'the extension is back: it can be revoked');
is(traces(), '0|0|0|', 'the extension is back: nothing is left');

# ----------------------------------------------------------------------
# deprovision() ends it, and a replica that is no more gets none
# ----------------------------------------------------------------------
sql(q{SELECT replica_kit.allow_rewind('old1', '1 hour')});
sql(q{SELECT replica_kit.deprovision('old1')});
is(traces(), '0|0|0|', 'deprovision() leaves nothing');
like(error(q{SELECT replica_kit.allow_rewind('old1', '1 hour')}), qr/replica "old1" is not provisioned/, 'a replica that was deprovisioned');
is(sql(q{SELECT count(*) FROM pg_roles WHERE rolname LIKE 'old1%'}), '0', 'nor the role of the replica');

$node->stop;
done_testing();
