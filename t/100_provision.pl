# provision() and deprovision(): what they make, what they refuse, and that
# they leave nothing behind.

use strict;
use warnings FATAL => 'all';

use File::Basename;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $node = PostgreSQL::Test::Cluster->new('primary');
$node->init(allows_streaming => 1);
$node->append_conf('postgresql.conf', <<~CONF);
	listen_addresses = '127.0.0.1'
	max_replication_slots = 8
	max_wal_senders = 5
	log_statement = 'all'
	CONF

# A file with everything that an editor could break: comments, an odd order,
# blank lines, a line that continues.
my $hba = $node->data_dir . '/pg_hba.conf';
append_to_file($hba, <<~'HBA');
	# a remark # with marks
	host  all  "some one"  10.9.0.0/16 \
	      scram-sha-256

	local	all	all		trust   # the last
	HBA
chmod 0640, $hba or die "could not chmod \"$hba\": $!";
$node->start;
$node->safe_psql('postgres', 'CREATE EXTENSION pg_replica_kit');

# ----------------------------------------------------------------------
# What a test compares: the file with its mode, and what the server has.
# ----------------------------------------------------------------------

sub file_state
{
	my @stat = stat $hba;

	return join ' ', (map { $_ // '' } @stat[ 2, 4, 5, 7 ]), slurp_file($hba);
}

sub server_state
{
	return $node->safe_psql('postgres', <<~'SQL');
		SELECT 'role ' || rolname FROM pg_authid WHERE rolname !~ '^pg_'
		UNION ALL SELECT 'slot ' || slot_name FROM pg_replication_slots
		ORDER BY 1
		SQL
}

# Run, and return the error with detail and hint.
sub error_of
{
	my ($sql, %options) = @_;
	my ($rc, $stdout, $stderr) =
	  $node->psql('postgres', $sql, on_error_stop => 1, %options);

	isnt($rc, 0, "an error for: $sql");
	return $stderr;
}

my $file_before = file_state();
my $server_before = server_state();

sub is_untouched
{
	my ($what) = @_;

	is(file_state(), $file_before, "$what: pg_hba.conf is byte for byte as before, with its mode");
	is(server_state(), $server_before, "$what: roles and slots are as before");
	is(join(' ', glob("$hba*")), $hba, "$what: no file is left beside");
	return;
}

# ----------------------------------------------------------------------
# A replica and back
# ----------------------------------------------------------------------

$node->psql('postgres',
	q{SELECT * FROM replica_kit.provision('replica1', '127.0.0.1', dry_run => true)},
	stderr => \my $notices);
like($notices, qr/would create role "replica1".*would create replication slot "replica1".*would add pg_hba\.conf rule/s,
	'a dry run says what would be done');
is_untouched('a dry run');

my $row = $node->safe_psql('postgres',
	q{SELECT * FROM replica_kit.provision('replica1', '127.0.0.1')});
my ($name, $role, $slot, $rule, $password, $next) = split /\|/, $row;
is("$name $role $slot", 'replica1 replica1 replica1', 'provision names replica, role and slot');
is($rule, 'host replication replica1 127.0.0.1/32 scram-sha-256', 'and its rule');
like($password, qr/^[A-Za-z0-9]{24,}$/, 'and a password of at least 24 characters');
like($next, qr/join_script\('replica1'/, 'and the next step');

is($node->safe_psql('postgres', <<~'SQL'), 't|t|f|f|f|f|t|f', 'the role may log in and replicate, and nothing else');
	SELECT rolcanlogin, rolreplication, rolsuper, rolcreaterole, rolcreatedb,
	       rolbypassrls, rolpassword LIKE 'SCRAM-SHA-256$%',
	       EXISTS (SELECT FROM pg_auth_members WHERE member = a.oid)
	FROM pg_authid a WHERE rolname = 'replica1'
	SQL
is($node->safe_psql('postgres', <<~'SQL'), 'physical|f|f|t|reserved', 'the slot reserves WAL before the replica exists');
	SELECT slot_type, temporary, active, restart_lsn IS NOT NULL, wal_status
	FROM pg_replication_slots WHERE slot_name = 'replica1'
	SQL
is( $node->safe_psql('postgres', q{SELECT shobj_description(oid, 'pg_authid') FROM pg_authid WHERE rolname = 'replica1'}),
	'pg_replica_kit: replica1',
	'the role says whose it is');
like(slurp_file($hba), qr/^\Q$rule\E  # pg_replica_kit: replica1$/m, 'the line says whose it is');
is((stat $hba)[2] & 07777, 0640, 'pg_hba.conf keeps its mode');

# The rule is in force when COMMIT returns: the very next connection meets it.
$ENV{PGPASSWORD} = $password;
$node->command_ok(
	[ 'psql', '-X', '-d', $node->connstr('') =~ s/host=\S+/host=127.0.0.1/r . " user=replica1 replication=1", '-c', 'IDENTIFY_SYSTEM' ],
	'the replica can connect with the password');
$ENV{PGPASSWORD} = 'wrong';
$node->command_fails_like(
	[ 'psql', '-X', '-d', $node->connstr('') =~ s/host=\S+/host=127.0.0.1/r . " user=replica1 replication=1", '-c', 'IDENTIFY_SYSTEM' ],
	qr/password authentication failed/,
	'and not with another');
delete $ENV{PGPASSWORD};

# Again: nothing changes, and the password is not told twice.
my $provisioned = file_state();
is($node->safe_psql('postgres', q{SELECT password IS NULL FROM replica_kit.provision('replica1', '127.0.0.1')}),
	't', 'a repeated call returns no password');
is(file_state(), $provisioned, 'and leaves pg_hba.conf alone');

# Another address of the same replica
$node->safe_psql('postgres', q{SELECT replica_kit.provision('replica1', '127.0.0.128/25')});
is(() = slurp_file($hba) =~ /# pg_replica_kit: replica1$/mg, 2, 'a second address is a second line');
is($node->safe_psql('postgres', q{SELECT replica_kit.revoke_address('replica1', '127.0.0.128/25')}),
	'1', 'revoke_address counts what it removes');
is(file_state(), $provisioned, 'and gives back the file as it was');

my $log = slurp_file($node->logfile);
like($log, qr/LOG:  replica_kit: user "\S+" created role "replica1"/, 'the role is in the audit log');
like($log, qr/LOG:  replica_kit: user "\S+" created replication slot "replica1"/, 'and the slot');
like($log, qr/LOG:  replica_kit: user "\S+" added pg_hba\.conf rule: \Q$rule\E/, 'and the rule');
unlike($log, qr/\Q$password\E/, 'the password is in no log, although every statement is');

is( $node->safe_psql('postgres', q{SELECT * FROM replica_kit.deprovision('replica1', dry_run => true)}),
	'replica1|t|1|t', 'a dry run of deprovision says what would go');
is(file_state(), $provisioned, 'and changes nothing');
is($node->safe_psql('postgres', q{SELECT * FROM replica_kit.deprovision('replica1')}),
	'replica1|t|1|t', 'deprovision says what goes');
is_untouched('provision and deprovision');
is($node->safe_psql('postgres', q{SELECT * FROM replica_kit.deprovision('replica1')}),
	'replica1|f|0|f', 'deprovision of nothing does nothing');

# ----------------------------------------------------------------------
# All or nothing
# ----------------------------------------------------------------------

for my $end (
	[ 'ROLLBACK', 'ROLLBACK' ],
	[ 'SELECT 1/0', 'an error later on' ],
	[ q{SET LOCAL statement_timeout = '10ms'; SELECT pg_sleep(10)}, 'a timeout' ],
	[ 'SELECT pg_terminate_backend(pg_backend_pid())', 'a terminated backend' ],
	[ 'CREATE TEMP TABLE d (i int UNIQUE DEFERRABLE INITIALLY DEFERRED); INSERT INTO d VALUES (1), (1); COMMIT', 'a failed COMMIT' ],
	[ q{PREPARE TRANSACTION 'p'}, 'PREPARE TRANSACTION' ])
{
	my ($sql, $what) = @$end;

	$node->psql('postgres',
		"BEGIN; SELECT replica_kit.provision('gone', '127.0.0.1'); $sql");
	$node->poll_query_until('postgres',
		q{SELECT count(*) = 1 FROM pg_stat_activity WHERE backend_type = 'client backend'})
	  or die 'a backend stays';
	is_untouched($what);
}

is($node->safe_psql('postgres', <<~'SQL'), "kept\nkept2", 'savepoints undo one replica and keep the others');
	BEGIN;
	SELECT FROM replica_kit.provision('kept', '127.0.0.1');
	SAVEPOINT a;
	SELECT FROM replica_kit.provision('gone', '127.0.0.1');
	ROLLBACK TO a;
	SELECT FROM replica_kit.provision('kept2', '127.0.0.2');
	DO $$ BEGIN PERFORM replica_kit.provision('gone2', '127.0.0.3'); RAISE 'x';
	EXCEPTION WHEN raise_exception THEN NULL; END $$;
	COMMIT;
	SELECT slot_name FROM pg_replication_slots ORDER BY 1;
	SQL
unlike(slurp_file($hba), qr/gone/, 'and the lines follow');
$node->safe_psql('postgres', q{BEGIN; SELECT replica_kit.deprovision('kept'); ROLLBACK});
is($node->safe_psql('postgres', q{SELECT slot_name, active FROM pg_replication_slots ORDER BY 1}),
	"kept|f\nkept2|f", 'deprovision undone has dropped nothing and holds nothing');
$node->safe_psql('postgres', q{SELECT replica_kit.deprovision('kept')});
$node->safe_psql('postgres', q{SELECT replica_kit.deprovision('kept2')});
is_untouched('two deprovisions');

is($node->safe_psql('postgres', q{SELECT (replica_kit.provision('rows', '127.0.0.1')).*}) =~ tr/|//,
	5, 'a call expanded to one a column is one call');
$node->safe_psql('postgres', q{SELECT replica_kit.deprovision('rows')});

# ----------------------------------------------------------------------
# What is not ours stays, and is not used by mistake
# ----------------------------------------------------------------------

$node->safe_psql('postgres', <<~'SQL');
	CREATE ROLE regress_prk_ready LOGIN REPLICATION PASSWORD 'secret';
	CREATE ROLE regress_prk_nopassword LOGIN REPLICATION;
	CREATE ROLE regress_prk_norepl LOGIN PASSWORD 'secret';
	CREATE ROLE regress_prk_expired LOGIN REPLICATION PASSWORD 'secret' VALID UNTIL '2001-01-01';
	SET password_encryption = 'md5';
	CREATE ROLE regress_prk_md5 LOGIN REPLICATION PASSWORD 'secret';
	SELECT pg_create_physical_replication_slot('foreign');
	SQL
($file_before, $server_before) = (file_state(), server_state());

like(error_of(q{SELECT replica_kit.provision('x', '127.0.0.1', role => 'regress_prk_nopassword')}),
	qr/has no password.*HINT:  .*\\password regress_prk_nopassword/s, 'a role without password is refused');
like(error_of(q{SELECT replica_kit.provision('x', '127.0.0.1', role => 'regress_prk_norepl')}),
	qr/REPLICATION attribute.*HINT:  Run: ALTER ROLE regress_prk_norepl LOGIN REPLICATION/s, 'one that may not replicate too');
like(error_of(q{SELECT replica_kit.provision('x', '127.0.0.1', role => 'regress_prk_md5')}),
	qr/MD5 password.*HINT:  .*\\password regress_prk_md5/s, 'one with an MD5 password too');
like(error_of(q{SELECT replica_kit.provision('x', '127.0.0.1', role => 'regress_prk_expired')}),
	qr/expired.*HINT:  Run: ALTER ROLE regress_prk_expired VALID UNTIL/s, 'one whose password has expired too');
like(error_of(q{SELECT replica_kit.provision('x', '127.0.0.1', role => 'regress_prk_ready', password => 'y')}),
	qr/keeps its password/, 'an existing role keeps its password');
like(error_of(q{SELECT replica_kit.provision('foreign', '127.0.0.1')}),
	qr/slot "foreign" already exists and was not made by pg_replica_kit.*HINT:.*pg_drop_replication_slot\('foreign'\)/s,
	'a slot of somebody else is not taken');
like(error_of(q{SELECT replica_kit.deprovision('foreign')}),
	qr/was not made by pg_replica_kit/, 'nor dropped');
is_untouched('refusals');

$node->safe_psql('postgres', q{SELECT replica_kit.provision('x', '127.0.0.1', role => 'regress_prk_ready')});
is($node->safe_psql('postgres', q{SELECT * FROM replica_kit.deprovision('x')}),
	'x|t|1|f', 'a role that the kit did not make stays');
is_untouched('a replica of an existing role');

is($node->safe_psql('postgres', <<~'SQL'), 't|f|t', 'a role that two replicas share goes with the last one');
	SELECT FROM replica_kit.provision('s1', '127.0.0.1');
	SELECT FROM replica_kit.provision('s2', '127.0.0.2', role => 's1');
	SELECT (SELECT shobj_description(oid, 'pg_authid') FROM pg_authid WHERE rolname = 's1')
	         = 'pg_replica_kit: s1, s2',
	       (SELECT role_dropped FROM replica_kit.deprovision('s1')),
	       true;
	SQL
is($node->safe_psql('postgres', q{SELECT role_dropped FROM replica_kit.deprovision('s2')}),
	't', 'the last one drops it');
is_untouched('two replicas of one role');

$node->safe_psql('postgres', <<~'SQL');
	SELECT FROM replica_kit.provision('owner', '127.0.0.1');
	CREATE TABLE regress_prk_owned ();
	ALTER TABLE regress_prk_owned OWNER TO owner;
	SQL
$node->psql('postgres', q{SELECT * FROM replica_kit.deprovision('owner')}, stdout => \my $out, stderr => \my $err);
is($out, 'owner|t|1|f', 'a role that owns something stays');
like($err, qr/NOTICE:  role "owner" stays.*regress_prk_owned/s, 'and a NOTICE says what');
$node->safe_psql('postgres', q{DROP TABLE regress_prk_owned; DROP ROLE owner});
is_untouched('a role that owned something');

# ----------------------------------------------------------------------
# Who is granted the function can do the job, whatever is in his search_path
# ----------------------------------------------------------------------

$node->safe_psql('postgres', <<~'SQL');
	CREATE ROLE regress_prk_user LOGIN;
	GRANT EXECUTE ON FUNCTION replica_kit.provision(text, inet, text, text, boolean, boolean, boolean) TO regress_prk_user;
	GRANT EXECUTE ON FUNCTION replica_kit.deprovision(text, boolean, boolean, boolean) TO regress_prk_user;
	CREATE SCHEMA regress_prk_evil;
	CREATE FUNCTION regress_prk_evil.network(inet) RETURNS cidr LANGUAGE plpgsql AS $$ BEGIN RAISE 'hijacked'; END $$;
	GRANT USAGE ON SCHEMA regress_prk_evil TO regress_prk_user;
	SQL
is($node->safe_psql('postgres', <<~'SQL'), 'granted|granted|f', 'a granted user can provision');
	SET ROLE regress_prk_user;
	SET search_path = regress_prk_evil, pg_catalog;
	SELECT name, role_name, password IS NULL FROM replica_kit.provision('granted', '127.0.0.9');
	SQL
is($node->safe_psql('postgres', q{SET ROLE regress_prk_user; SELECT * FROM replica_kit.deprovision('granted')}),
	'granted|t|1|t', 'and deprovision');
$node->safe_psql('postgres', q{DROP SCHEMA regress_prk_evil CASCADE; DROP OWNED BY regress_prk_user; DROP ROLE regress_prk_user});

# ----------------------------------------------------------------------
# A server that can't feed a replica
# ----------------------------------------------------------------------

like(error_of(q{SELECT replica_kit.provision('x', '10.0.0.5')}),
	qr/does not listen for connections from 10\.0\.0\.5.*HINT:  Run: ALTER SYSTEM SET listen_addresses/s,
	'a server that listens on loopback only says so');
like(error_of(q{SELECT replica_kit.provision('x', '127.0.0.1', require_ssl => true)}),
	qr/ssl is off/, 'one without TLS too');
like(error_of(q{BEGIN READ ONLY; SELECT replica_kit.provision('x', '127.0.0.1')}),
	qr/cannot execute replica_kit\.provision\(\) in a read-only transaction/, 'a read-only transaction is refused');
$node->safe_psql('postgres', q{SELECT pg_create_physical_replication_slot('full' || i) FROM generate_series(1, 7) i});
like(error_of(q{SELECT replica_kit.provision('x', '127.0.0.1')}),
	qr/all replication slots are in use.*HINT:.*max_replication_slots/s, 'one without a free slot says so');
$node->safe_psql('postgres', q{SELECT pg_drop_replication_slot('full' || i) FROM generate_series(1, 7) i});
is_untouched('a server that cannot feed a replica');

append_to_file($hba, "host all all 127.0.0.9/32 nonsense\n");
my $broken = slurp_file($hba);
like(error_of(q{SELECT replica_kit.provision('x', '127.0.0.1')}),
	qr/pg_hba\.conf/, 'a file that the server would not load is refused');
is(slurp_file($hba), $broken, 'and left as it is');

$node->stop;
done_testing();
