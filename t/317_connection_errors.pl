# Why connections failed, as connection_errors() tells: every way in which
# this server refuses a replica, each counted in one row, whatever crowd is at
# the door; and what our own receiver met.

use strict;
use warnings FATAL => 'all';

use FindBin;
use lib $FindBin::RealBin;

use DiagKit;
use IPC::Run;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $primary = new_primary('primary', 'max_wal_senders = 3',
	'replica_kit.warning_disconnected = 1s', 'replica_kit.critical_disconnected = 20s');
my ($standby, $password) = new_standby($primary, 'replica1');
$primary->safe_psql('postgres', <<'SQL');
CREATE ROLE stranger LOGIN PASSWORD 'strange';
CREATE ROLE rep LOGIN REPLICATION PASSWORD 'reply';
SELECT pg_create_physical_replication_slot('spare', true);
SQL

# A replication command by psql; what it says on stderr.  Its walsender, which
# may have something to say though psql has gone, is gone afterwards.
sub command
{
	my ($user, $secret, $sql) = @_;
	my $stderr = '';
	local $ENV{PGPASSWORD} = $secret;
	local $ENV{PGAPPNAME} = 'test';

	# not from its standard input, which it may have no time to read
	IPC::Run::run([ 'psql', '-XAtq', '-c', $sql, '-d',
			conninfo($primary, user => $user, replication => 'true', dbname => 'replication') ],
		'<', '/dev/null', '>', \my $stdout, '2>', \$stderr);
	$primary->poll_query_until('postgres', q{SELECT count(*) = 0 FROM pg_stat_activity WHERE backend_type = 'walsender' AND application_name <> 'replica1'})
	  or die 'a walsender stays';
	return $stderr;
}

# ----------------------------------------------------------------------
# To this server
# ----------------------------------------------------------------------

is(errors_like($primary, 'true'), '0|0', 'a replica that streams has left no failure');

my @rules = ('host replication replica1 127.0.0.1/32 scram-sha-256');
set_hba($primary, @rules);
command('rep', 'reply', 'IDENTIFY_SYSTEM') for 1 .. 2;
is(errors_like($primary, q{role_name = 'rep' AND client_addr = '127.0.0.1' AND sqlstate = '28000'
	AND application_name = 'test' AND direction = 'in' AND message LIKE 'no pg_hba.conf entry%'}),
	'1|2', 'no pg_hba.conf entry: one row, counted');

set_hba($primary, @rules, 'host replication rep 127.0.0.1/32 reject');
command('rep', 'reply', 'IDENTIFY_SYSTEM');
is(errors_like($primary, q{message LIKE 'pg_hba.conf rejects%'}), '1|1', 'rejected');

@rules = (@rules, 'host replication rep,stranger 127.0.0.1/32 scram-sha-256',
	'host replication nobody 127.0.0.1/32 trust');
set_hba($primary, @rules);
command('rep', 'not this one', 'IDENTIFY_SYSTEM');
is(errors_like($primary, q{sqlstate = '28P01' AND role_name = 'rep'}), '1|1', 'wrong password');
command('nobody', 'x', 'IDENTIFY_SYSTEM');
is(errors_like($primary, q{message = 'role "nobody" does not exist'}), '1|1', 'role missing');
command('stranger', 'strange', 'IDENTIFY_SYSTEM');
is(errors_like($primary, q{sqlstate = '42501' AND role_name = 'stranger'}), '1|1', 'role not allowed to replicate');

command('rep', 'reply', 'START_REPLICATION SLOT "nosuch" 0/3000000');
is(errors_like($primary, q{sqlstate = '42704' AND slot_name = 'nosuch'}), '1|1', 'slot missing, named');
command('rep', 'reply', 'START_REPLICATION SLOT replica1 0/3000000');
is(errors_like($primary, q{sqlstate = '55006' AND slot_name = 'replica1' AND role_name = 'rep'}),
	'1|1', 'slot active elsewhere, named');
$primary->safe_psql('postgres', 'SELECT pg_switch_wal(); CREATE TABLE t (i int); CHECKPOINT');
# psql leaves at once, often before the walsender has looked for the WAL
for (1 .. 200)
{
	command('rep', 'reply', 'START_REPLICATION SLOT "spare" 0/1000000');
	last if errors_like($primary, q{slot_name = 'spare'}) ne '0|0';
}
is(errors_like($primary, q{slot_name = 'spare' AND message LIKE 'requested WAL segment%already been removed'}),
	'1|1', 'WAL that is gone');
command('rep', 'reply', 'START_REPLICATION 0/3000000 TIMELINE 7');
my $before = errors_like($primary, 'true');
command('rep', 'reply', 'THIS IS NO COMMAND');
command('rep', 'reply', 'IDENTIFY_SYSTEM');
is(errors_like($primary, 'true'), $before, 'an error in another command, or none, is no failure to replicate');

is($primary->safe_psql('postgres', q{SELECT count(*) FROM replica_kit.connection_errors()
	WHERE message ~ 'reply|not this one|strange[^r]|scram'}), '0', 'no secret and no rule is quoted');
is($primary->safe_psql('postgres', q{SELECT last_error LIKE '%is active for PID%', last_error_at IS NOT NULL
	FROM replica_kit.status() WHERE name = 'replica1'}), 't|t', 'status() shows the last error that fits');

# ----------------------------------------------------------------------
# From this server
# ----------------------------------------------------------------------

is(errors_like($standby, q{direction = 'out'}), '0|0', 'of a stream that never broke there is nothing');
set_conninfo($standby, $primary, user => 'replica1', password => 'unguessable', application_name => 'replica1');
$standby->poll_query_until('postgres', q{SELECT sum(count) >= 3 FROM replica_kit.connection_errors() WHERE direction = 'out'})
  or die 'the standby has no failure';
is($standby->safe_psql('postgres', q{SELECT count(*), min(sqlstate), min(slot_name), bool_and(message LIKE '%password authentication failed for user "replica1"%')
	FROM replica_kit.connection_errors() WHERE direction = 'out'}), '1|08006|replica1|t',
	q{the receiver's failures are one row with the upstream's words});
$primary->poll_query_until('postgres', q{SELECT last_error LIKE 'password authentication failed%' FROM replica_kit.status() WHERE name = 'replica1'})
  or die 'the primary does not say why';
pass('the primary says why');
$primary->wait_for_log(qr/replica "replica1" (?:warning|critical): disconnected.*\n.*DETAIL:  Last seen at 127.0.0.1 .*; last error: password authentication failed for user "replica1"/);
pass('so does the worker');
is($standby->safe_psql('postgres', q{SELECT state, last_error LIKE '%password authentication failed%', receive_lag_bytes IS NULL, lag_time > '0' FROM replica_kit.standby_status()}),
	'disconnected|t|t|t', 'and standby_status() on the standby');

# What libpq cannot read it quotes, and with it a piece of the password.
set_conninfo($standby, $primary, user => 'replica1', password => q{half' of' the});
$standby->append_conf('postgresql.conf', q{primary_conninfo = 'host=127.0.0.1 password=secret andmore user=replica1'});
$standby->reload;
$standby->poll_query_until('postgres', q{SELECT count(*) = 1 FROM replica_kit.connection_errors() WHERE message LIKE '%only in the log'})
  or die 'the broken string is not noticed';
is(errors_like($standby, q{message LIKE '%secret%' OR message LIKE '%andmore%'}), '0|0', 'a piece of a password is not shown');

# More than one option holds a secret.
foreach my $broken (q{host=127.0.0.1 sslpassword=x user=replica1 password=hidden outmore},
	q{application_name=password host=127.0.0.1 password=hidden outmore user=replica1},
	q{postgresql://replica1@127.0.0.1/?sslpassword=x&host=127.0.0.1&password=%xzoutmore})
{
	my $log = -s $standby->logfile;
	$standby->append_conf('postgresql.conf', "primary_conninfo = '$broken'");
	$standby->reload;
	$standby->wait_for_log(qr/FATAL: .*outmore/, $log);
	$standby->poll_query_until('postgres', q{SELECT max(last_at) > clock_timestamp() - interval '1 s' FROM replica_kit.connection_errors() WHERE message LIKE '%only in the log'})
	  or die 'it is not noted';
	is(errors_like($standby, q{message LIKE '%outmore%' OR message LIKE '%hidden%'}), '0|0', "no piece of $broken");
}

# The startup process may have read the file before the server has: then the
# receiver's own primary_conninfo is not the one that it is told to use.
$standby->append_conf('postgresql.conf', q{primary_conninfo = 'host=127.0.0.1 password=covert evenmore user=replica1'});
my $log = -s $standby->logfile;
kill 'HUP', $standby->safe_psql('postgres', q{SELECT pid FROM pg_stat_activity WHERE backend_type = 'startup'});
$standby->wait_for_log(qr/missing "=" after "evenmore"/, $log);
is(errors_like($standby, q{message LIKE '%evenmore%'}), '0|0', 'nor one of which only the startup process knows');
is($standby->safe_psql('postgres', q{SELECT current_setting('primary_conninfo') LIKE '%evenmore%'}), 'f', 'as is so here');

# ----------------------------------------------------------------------
# A crowd at the door
# ----------------------------------------------------------------------

# All walsenders are taken: the standby, and two more.
set_conninfo($standby, $primary, user => 'replica1', password => $password, application_name => 'replica1');
$primary->poll_query_until('postgres', q{SELECT health = 'ok' FROM replica_kit.status() WHERE name = 'replica1'})
  or die 'the standby does not return';
$primary->poll_query_until('postgres', 'SELECT count(*) = 1 FROM pg_stat_replication') or die 'a walsender stays';
my @taken = map {
	my $session = $primary->background_psql('postgres', on_error_stop => 0,
		extra_params => [ '-d', conninfo($primary, user => 'rep', password => 'reply', replication => 'true', dbname => 'x') ]);
	$session;
} 1 .. 2;
attempt($primary, 'replica1', 'crowd') for 1 .. 2000;
is(errors_like($primary, q{sqlstate = '53300' AND application_name = 'crowd'}), '1|2000',
	'2000 attempts while all walsenders are taken are one row with its count');
is($primary->safe_psql('postgres', q{SELECT pg_is_in_recovery()}), 'f', 'the server is well');
unlike(slurp_file($primary->logfile), qr/PANIC/, 'and did not panic');

$_->quit for @taken;

# Strangers, each with a name of its own.
set_hba($primary, @rules);
$before = errors_like($primary, q{role_name = 'replica1' AND application_name = 'replica1' OR slot_name IS NOT NULL});
attempt($primary, "stranger$_", "app$_") for 1 .. 1000;
is(errors_like($primary, q{role_name = 'replica1' AND application_name = 'replica1' OR slot_name IS NOT NULL}), $before,
	'a crowd of strangers pushes nothing out that concerns a replica');
cmp_ok($primary->safe_psql('postgres', 'SELECT count(*) FROM replica_kit.connection_errors()'), '<=', 128,
	'nor does it make the table grow');
is(errors_like($primary, q{role_name = 'stranger1000'}), '1|1', 'the last of them is seen');

# A name in no encoding at all.
attempt($primary, "b\xff\xfed", 'x');
is(errors_like($primary, q{role_name = 'b\xff\xfed'}), '1|1', 'bytes that are no text are escaped');

$standby->stop;
$primary->stop;
done_testing();
