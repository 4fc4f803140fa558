# What a stranger on the network says decides nothing: who has proved nothing is
# listed by connection_errors(), and by nothing else.  A failure counts where
# the replica is known to be, and only until the replica is back.

use strict;
use warnings FATAL => 'all';

use FindBin;
use lib $FindBin::RealBin;

use DiagKit;
use IPC::Run;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Strangers;
use Test::More;

my $primary = new_primary('primary', 'max_wal_senders = 5', 'max_slot_wal_keep_size = 64MB',
	'autovacuum = off', 'checkpoint_timeout = 1h');
my ($standby, $password) = new_standby($primary, 'replica1');

# Provisioned for elsewhere, and not there.  The last one the kit did not make.
$primary->safe_psql('postgres', <<'SQL');
SELECT replica_kit.provision('absent', '127.0.0.2');
SELECT pg_create_physical_replication_slot('foreign', true);
CREATE ROLE bob LOGIN;
SQL

# What is found, times aside.
sub found
{
	return $primary->safe_psql('postgres',
		q{SELECT level, code, name, remedy FROM replica_kit.diagnose() ORDER BY level, code, name});
}

sub status
{
	return $primary->safe_psql('postgres',
		q{SELECT name, state, health, last_error, last_error_at FROM replica_kit.status() ORDER BY name});
}

my $before = found();
my $status = status();

# ----------------------------------------------------------------------
# Without a rule
# ----------------------------------------------------------------------

foreach my $name ('absent', 'foreign', 'replica1')
{
	my $sql = "x\nALTER ROLE bob SUPERUSER; --";
	is(knock($primary, $stranger, user => $sql, replication => 'true', application_name => $name),
		'28000', "$name: a statement as the name of a role is refused");
	is(found(), $before, "$name: it is in no remedy, and no cause of anything");
}
is(errors_like($primary, q{role_name = 'x\x0aALTER ROLE bob SUPERUSER; --' AND strpos(message, '"x\x0aALTER ROLE bob SUPERUSER; --"') > 0}),
	'3|3', 'it is listed, on one line');

knock($primary, $stranger, user => "e\xff\xfe", replication => 'true', application_name => 'foreign');
knock($primary, $stranger, user => "\xd0\xaf", replication => 'true', application_name => "foreign\e[2J");
is(found(), $before, 'bytes that are no text are no cause');
is(errors_like($primary, q{role_name IN ('e\xff\xfe', '\xd0\xaf')}), '2|2', 'they are listed as escapes');
foreach my $encoding ('LATIN1', 'UTF8', 'SQL_ASCII')
{
	my ($stdout, $stderr) = ('', '');
	is($primary->psql('postgres', "SET client_encoding = $encoding; SELECT * FROM replica_kit.connection_errors(); SELECT * FROM replica_kit.diagnose()",
			stdout => \$stdout, stderr => \$stderr), 0, "a client of $encoding can read all") or diag $stderr;
	unlike($stdout, qr/[^\n\x20-\x7e]/, "and gets printable characters in $encoding");
}

# ----------------------------------------------------------------------
# Near the limit of its slot: that is what counts
# ----------------------------------------------------------------------

$primary->safe_psql('postgres', q{SELECT pg_logical_emit_message(false, '', repeat('x', 1000000)) FROM generate_series(1, 56)});
$primary->wait_for_catchup('replica1');
my $at_risk = q{SELECT count(*) FROM replica_kit.diagnose('absent') WHERE code = 'slot_at_risk'};
is($primary->safe_psql('postgres', $at_risk), '1', 'a slot is about to be lost');
knock($primary, $stranger, user => 'zz', replication => 'true', application_name => 'absent');
is($primary->safe_psql('postgres', $at_risk), '1', 'one connection under its name does not hide that');
is($primary->safe_psql('postgres', q{SELECT last_error IS NULL FROM replica_kit.status() WHERE name = 'absent'}), 't',
	'nor is it the last error of the replica');

# ----------------------------------------------------------------------
# A wrong password
# ----------------------------------------------------------------------

# From where a rule asks for it, which is not the replica's.
append_to_file($primary->data_dir . '/pg_hba.conf', "host replication all 127.0.0.64/26 scram-sha-256\n");
$primary->reload;
$primary->safe_psql('postgres', 'SELECT 1');
$before = found();
is(knock($primary, $stranger, user => 'absent', replication => 'true', application_name => 'absent'),
	'28P01', 'a wrong password is refused');
is(found(), $before, 'and no cause: it did not come from where the replica is');
is(errors_like($primary, q{role_name = 'absent' AND sqlstate = '28P01'}), '1|1', 'it is listed');
is(knock($primary, $stranger, user => 'replica1', replication => 'true', application_name => 'replica1'),
	'28P01', 'also under the name of a replica that streams');
is(found(), $before, 'which is healthy as before');
is($primary->safe_psql('postgres', q{SELECT count(*) FROM replica_kit.status() WHERE last_error IS NOT NULL}), '0',
	'and no replica has a last error');

# From where the replica is, it counts.
$standby->stop;
is(knock($primary, '127.0.0.1', user => 'replica1', replication => 'true', application_name => 'replica1'),
	'28P01', 'the same from the address of the replica');
soon_is($primary, q{SELECT code FROM replica_kit.diagnose('replica1')}, 'auth_failed', 'is a cause');
soon_like($primary, q{SELECT last_error FROM replica_kit.status() WHERE name = 'replica1'},
	qr/^password authentication failed for user "replica1"/, 'and its last error');

# ----------------------------------------------------------------------
# It is over when the replica has streamed since
# ----------------------------------------------------------------------

$standby->start;
$primary->poll_query_until('postgres', q{SELECT health = 'ok' AND state = 'streaming' FROM replica_kit.status() WHERE name = 'replica1'})
  or die 'the standby does not return';
soon_is($primary, q{SELECT count(*) FROM replica_kit.diagnose('replica1')}, '0', 'back again: nothing is wrong');

# ... however long ago: at once when it goes again.
my $cycles = $primary->safe_psql('postgres', q{SELECT max(sampled_at) FROM replica_kit.history('replica1')});
$primary->poll_query_until('postgres', "SELECT count(*) >= 2 FROM replica_kit.history('replica1') WHERE sampled_at > '$cycles' AND state = 'streaming'")
  or die 'the worker does not see it';
$standby->stop;
$primary->poll_query_until('postgres', q{SELECT state = 'disconnected' FROM replica_kit.status() WHERE name = 'replica1'})
  or die 'it does not go';
unlike($primary->safe_psql('postgres', q{SELECT code FROM replica_kit.diagnose('replica1')}), qr/auth_failed/,
	'gone once more: the old failure is not the cause');

# ----------------------------------------------------------------------
# Only what ends a connection
# ----------------------------------------------------------------------

$primary->safe_psql('postgres', q{ALTER SYSTEM SET temp_file_limit = '64kB'});
$primary->safe_psql('postgres', q{ALTER SYSTEM SET work_mem = '64kB'});
$primary->reload;
my ($out, $err) = ('', '');
IPC::Run::run([ 'psql', '-XAtq', '-d', $primary->connstr('postgres') . ' replication=database', '-c',
		q{SELECT count(*) FROM (SELECT i FROM generate_series(1, 100000) i ORDER BY -i OFFSET 10) s} ],
	'<', '/dev/null', '>', \$out, '2>', \$err);
like($err, qr/temporary file size exceeds/, 'SQL in a walsender fails');
is(errors_like($primary, q{sqlstate = '53400'}), '0|0', 'that is no failed connection');

$primary->stop;
done_testing();
