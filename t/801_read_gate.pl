# The read gate: a standby that is too far behind refuses new sessions after
# their password was checked, and libpq goes on to the next host; who is exempt
# gets in; a stream that is cut does not close it, unless told so; promotion
# opens it.

use strict;
use warnings FATAL => 'all';

use FindBin;
use lib $FindBin::RealBin;

use DiagKit;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $primary = new_primary('primary', 'autovacuum = off', 'checkpoint_timeout = 1h', "password_encryption = 'scram-sha-256'");
$primary->safe_psql('postgres', <<'SQL');
CREATE ROLE app LOGIN PASSWORD 'secret';
CREATE ROLE batch LOGIN PASSWORD 'secret';
CREATE ROLE boss LOGIN SUPERUSER PASSWORD 'secret';
CREATE ROLE watchers IN ROLE pg_monitor;
CREATE ROLE watcher LOGIN PASSWORD 'secret' IN ROLE watchers;
CREATE ROLE owner LOGIN PASSWORD 'secret';
CREATE ROLE web;
CREATE ROLE page LOGIN PASSWORD 'secret' IN ROLE web;
CREATE ROLE lb_check NOLOGIN;
CREATE DATABASE owned OWNER owner;
SQL
set_hba($primary, 'host all lb_check 127.0.0.1/32 trust', 'host all all 127.0.0.1/32 scram-sha-256');

# The gate opens by itself where the worker has not looked three times, which a slow
# machine is not to bring about; it looks at each reload.
my ($standby, $password) = new_standby($primary, 'replica1', "listen_addresses = '127.0.0.1'", 'replica_kit.read_gate_lag = 1MB', 'replica_kit.check_interval = 3s');

sub tcp
{
	my ($node, $role, $more) = @_;

	return "host=127.0.0.1 port=@{[ $node->port ]} dbname=postgres user=$role password=secret" . ($more // '');
}

# What a session says, or why there is none.
sub session
{
	my ($conninfo, $sql) = @_;
	my ($out, $err) = ('', '');

	IPC::Run::run([ 'psql', '-X', '-q', '-A', '-t', '-w', '-v', 'VERBOSITY=verbose', '-d', $conninfo, '-c', $sql // 'SELECT pg_is_in_recovery()' ], '>', \$out, '2>', \$err);
	chomp $out;
	return $out eq '' ? $err : $out;
}

sub gate_is
{
	my ($state, $name) = @_;

	ok($standby->poll_query_until('postgres', "SELECT read_gate = '$state' AND read_gate_since <= now() FROM pg_reload_conf(), replica_kit.standby_status()"), "$name: $state");
	return;
}

sub set_gate
{
	my (@settings) = @_;

	foreach (@settings)
	{
		$standby->safe_psql('postgres', "ALTER SYSTEM SET replica_kit.read_gate_$_");
	}
	$standby->reload;
	return;
}

sub ready
{
	my ($role) = @_;

	return system('pg_isready', '-q', '-h', '127.0.0.1', '-p', $standby->port, '-U', $role) >> 8;
}

my $refused = qr/FATAL:  the read gate of this standby is closed\nDETAIL:  .*\nHINT:  Connect to another server\./;
my $to = '127.0.0.1,127.0.0.1 port=' . $standby->port . ',' . $primary->port;
my $owner = tcp($standby, 'owner') =~ s/dbname=postgres/dbname=owned/r;
my $both = "host=$to dbname=postgres user=app password=secret";

# ----------------------------------------------------------------------
# Open
# ----------------------------------------------------------------------

is($primary->safe_psql('postgres', 'SELECT count(*) FROM replica_kit.standby_status()'), '0', 'a primary has no gate');
gate_is('open', 'a standby that has caught up');
is(session(tcp($standby, 'app')), 't', 'it lets in');
is(session($both), 't', 'also with two hosts');
is(ready('lb_check'), 0, 'pg_isready with the role of checks: accepts');

# ----------------------------------------------------------------------
# Closed
# ----------------------------------------------------------------------

my $pooled = $standby->background_psql('postgres');
$standby->safe_psql('postgres', 'SELECT pg_wal_replay_pause()');
$primary->safe_psql('postgres', q{SELECT count(pg_logical_emit_message(true, '', repeat('x', 1000000))) FROM generate_series(1, 3)});
gate_is('closed', 'too far behind');
like(session(tcp($standby, 'app')), $refused, 'a new session is refused');
like(session(tcp($standby, 'app') =~ s/secret/wrong/r), qr/FATAL:  password authentication failed/, 'but not before its password was checked');
is(session($both), 'f', 'libpq goes on to the next host');
is(session("$both target_session_attrs=prefer-standby"), 'f', 'also where it would prefer a standby');
is(ready('lb_check'), 1, 'pg_isready with the role of checks: rejects');
is(ready('app'), 0, 'with another it does not log in, and sees nothing');
like(session(tcp($standby, 'lb_check')), $refused, 'the role of checks is told the same');
is(session(tcp($standby, 'boss')), 't', 'a superuser gets in');
is(session(tcp($standby, 'watcher')), 't', 'so does a monitor, also by another role');
is($standby->safe_psql('postgres', 'SELECT 1', extra_params => [ '-U', 'app' ]), '1', 'and who comes by a Unix socket');
is($pooled->query_safe('SELECT 1'), '1', 'a session that is there stays');
like(session("host=127.0.0.1 port=@{[ $standby->port ]} user=replica1 password=$password replication=true", 'IDENTIFY_SYSTEM'), qr/^\d+\|1\|/, 'and a replica');
eval { $pooled->quit };

# A flood is one line.
command_ok([ 'sh', '-c', 'seq 200 | xargs -P 8 -I{} psql -XAtw -c "SELECT {}" -d "$1" 2>&1 | grep -c "read gate" | grep -x 200 >/dev/null', 'sh', tcp($standby, 'app') ], 'of a flood each is refused');
my @lines = grep { /FATAL:  the read gate of this standby is closed/ } split /\n/, slurp_file($standby->logfile);
cmp_ok(scalar(@lines), '<=', 2, 'refusals are one line a minute in the log');
cmp_ok(scalar(@lines), '>=', 1, 'which is there');

# ----------------------------------------------------------------------
# Which roles
# ----------------------------------------------------------------------

set_gate("roles = 'batch, web'");
$standby->poll_query_until('postgres', q{SELECT current_setting('replica_kit.read_gate_roles') = 'batch, web'}) or die 'no reload';
is(session(tcp($standby, 'app')), 't', 'a role that is not named gets in');
is(session($owner, q{SELECT has_schema_privilege('public', 'CREATE')}), 't', 'and what the gate has read of its roles is not kept: the owner of a database is its owner');
like(session(tcp($standby, 'batch')), $refused, 'one that is does not');
like(session(tcp($standby, 'page')), $refused, 'nor a member');
set_gate("roles = '*'");

# ----------------------------------------------------------------------
# Open again
# ----------------------------------------------------------------------

$standby->safe_psql('postgres', 'SELECT pg_wal_replay_resume()');
gate_is('open', 'caught up');
is(session(tcp($standby, 'app')), 't', 'it lets in again');
$standby->wait_for_log(qr/LOG:  read gate open: replay is .*\n/);
my @changes = map { s/.*(?=read gate)//r } grep { /(?:WARNING|LOG):  read gate / } split /\n/, slurp_file($standby->logfile);
like($changes[-2], qr/^read gate closed: replay is .* and \d.* behind$/, 'one line when it is closed');
like($changes[-1], qr/^read gate open: replay is .* behind, after /, 'and one when it is opened');

# ----------------------------------------------------------------------
# A stream that is cut, a start, a promotion
# ----------------------------------------------------------------------

set_gate(q{lag = '1000GB'});
$standby->safe_psql('postgres', 'SELECT pg_wal_replay_pause()');
$primary->safe_psql('postgres', q{SELECT pg_logical_emit_message(true, '', 'x')});
set_gate(q{lag_time = '100ms'});
gate_is('closed', 'too late');
like(session($owner), $refused, 'the owner is refused');
$standby->safe_psql('postgres', 'SELECT pg_wal_replay_resume()');
gate_is('open', 'no longer too late');
$primary->stop;
$standby->poll_query_until('postgres', q{SELECT state <> 'streaming' AND lag_time > '1 s' FROM replica_kit.standby_status()}) or die 'the stream is not cut';
gate_is('open', 'a dead primary');
set_gate('when_cut = on');
gate_is('closed', 'a dead primary, told so');
like(session(tcp($standby, 'app')), $refused, 'it refuses');
$standby->restart;
gate_is('closed', 'after a start, until the upstream says where it is');
like(session(tcp($standby, 'app')), $refused, 'it refuses then');
$standby->promote;
$standby->poll_query_until('postgres', 'SELECT NOT pg_is_in_recovery()') or die 'no promotion';
is(session(tcp($standby, 'app')), 'f', 'a promotion opens it');
is(session($owner, q{CREATE TABLE t AS SELECT 1; SELECT 'made'}), 'made', 'and the owner of a database can use it');

$standby->stop;
done_testing();
