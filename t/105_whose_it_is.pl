# Hostile functions and operators in front of PostgreSQL's own, wrappers that
# hand the job on, and what belongs to somebody else although it is called like
# a replica.

use strict;
use warnings FATAL => 'all';

use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $node = PostgreSQL::Test::Cluster->new('primary');
$node->init(allows_streaming => 1);
$node->append_conf('postgresql.conf', <<~CONF);
	listen_addresses = '127.0.0.1'
	wal_level = logical
	shared_preload_libraries = 'pg_replica_kit'
	CONF
my $hba = $node->data_dir . '/pg_hba.conf';
unlink $hba;
append_to_file($hba, "local all all trust\n# tail\n");
$node->start;
$node->safe_psql('postgres', 'CREATE EXTENSION pg_replica_kit');
my $rules = slurp_file($hba);

sub state_now
{
	return $node->safe_psql('postgres', <<~'SQL') . "\n" . slurp_file($hba);
		SELECT 'role ' || rolname || ' ' || coalesce(rolpassword, '') || ' ' || coalesce(shobj_description(oid, 'pg_authid'), '')
		FROM pg_authid WHERE rolname !~ '^pg_'
		UNION ALL SELECT 'slot ' || slot_name || ' ' || slot_type FROM pg_replication_slots
		ORDER BY 1
		SQL
}

sub connects
{
	my ($role, $password) = @_;
	my ($out, $err);

	local $ENV{PGPASSWORD} = $password;
	return 'in'
	  if run_log([ 'psql', '-XAtq', '-c', 'IDENTIFY_SYSTEM', '-d', "host=127.0.0.1 user=$role replication=1 port=" . $node->port ],
		'>', \$out, '2>', \$err);
	return $err;
}

# ----------------------------------------------------------------------
# Each function and operator of PostgreSQL has a namesake in front of it
# ----------------------------------------------------------------------

$node->safe_psql('postgres', <<~'SQL');
	SET client_min_messages = 'error';
	CREATE SCHEMA evil;
	DO $$
	DECLARE
		r record;
		n integer := 0;
	BEGIN
		FOR r IN
			SELECT DISTINCT p.proname, pg_get_function_identity_arguments(p.oid) AS args, format_type(p.prorettype, NULL) AS result
			FROM pg_proc p JOIN pg_type t ON t.oid = p.prorettype
			WHERE p.pronamespace = 'pg_catalog'::regnamespace AND p.prokind = 'f' AND NOT p.proretset AND p.provariadic = 0
			AND t.typtype <> 'p' AND NOT EXISTS (SELECT FROM unnest(p.proargtypes) a JOIN pg_type u ON u.oid = a WHERE u.typtype = 'p')
			AND p.proallargtypes IS NULL
		LOOP
			EXECUTE format('CREATE FUNCTION evil.%I(%s) RETURNS %s LANGUAGE plpgsql AS %L', r.proname, r.args, r.result,
						   'BEGIN RAISE ''hijacked by a function''; END');
		END LOOP;
		FOR r IN
			SELECT o.oprname, o.oprkind, o.oprleft, format_type(o.oprleft, NULL) AS l, format_type(o.oprright, NULL) AS r, format_type(o.oprresult, NULL) AS result
			FROM pg_operator o
			WHERE o.oprnamespace = 'pg_catalog'::regnamespace
			AND NOT EXISTS (SELECT FROM pg_type WHERE oid IN (o.oprleft, o.oprright, o.oprresult) AND typtype = 'p')
		LOOP
			n := n + 1;
			EXECUTE format('CREATE FUNCTION evil.op_%s(%s%s) RETURNS %s LANGUAGE plpgsql AS %L', n,
						   CASE WHEN r.oprleft <> 0 THEN r.l || ', ' END, r.r, r.result, 'BEGIN RAISE ''hijacked by an operator''; END');
			EXECUTE format('CREATE OPERATOR evil.%s (%s rightarg = %s, function = evil.op_%s)', r.oprname,
						   CASE WHEN r.oprleft <> 0 THEN 'leftarg = ' || r.l || ',' END, r.r, n);
		END LOOP;
	END $$;
	SQL
cmp_ok($node->safe_psql('postgres', q{SELECT count(*) FROM pg_operator WHERE oprnamespace = 'evil'::regnamespace}), '>', 600, 'operators');
cmp_ok($node->safe_psql('postgres', q{SELECT count(*) FROM pg_proc WHERE pronamespace = 'evil'::regnamespace}), '>', 2000, 'and functions are in front');

# What a statement says with them in front.
sub in_front
{
	my ($sql, $path) = @_;
	my ($rc, $out, $err) = $node->psql('postgres', 'SET search_path = ' . ($path // 'evil, pg_catalog') . "; $sql");

	return ($out, $err);
}
like((in_front(q{SELECT 'a'::text = 'b'::text}))[1], qr/hijacked by an operator/, 'an operator is hijacked');
like((in_front('SELECT now()'))[1], qr/hijacked by a function/, 'and a function');

my @calls = (
	q{SELECT * FROM replica_kit.preflight()},
	q{SELECT name FROM replica_kit.provision('x', '127.0.0.1', dry_run => true)},
	q{SELECT name FROM replica_kit.provision('x', '127.0.0.1')},
	q{SELECT name FROM replica_kit.provision('x', '127.0.0.2')},
	q{SELECT replica_kit.join_script('x', '127.0.0.1')},
	q{SELECT replica_kit.rotate_password('x')},
	q{SELECT replica_kit.revoke_address('x', '127.0.0.2')},
	q{SELECT * FROM replica_kit.hba_match('x', '127.0.0.1')},
	q{SELECT * FROM replica_kit.status()},
	q{SELECT * FROM replica_kit.summary},
	q{SELECT * FROM replica_kit.standby_status()},
	q{SELECT * FROM replica_kit.history()},
	q{SELECT replica_kit.lag_graph('x')},
	q{SELECT * FROM replica_kit.connection_errors()},
	q{SELECT * FROM replica_kit.diagnose()},
	q{SELECT * FROM replica_kit.unhealthy()},
	q{SELECT * FROM replica_kit.help()},
	q{SELECT replica_kit.assert_healthy()},
	q{SELECT replica_kit.metrics()},
	q{SELECT replica_kit.silence('server', '1 min', 'kernel')},
	q{SELECT * FROM replica_kit.silences()},
	q{SELECT replica_kit.unsilence('server')},
	q{CALL replica_kit.wait_for_lsn('0/1')},
	q{SELECT replica_kit.allow_rewind('x', '1 hour')},
	q{SELECT replica_kit.revoke_rewind('x')},
	q{SELECT * FROM replica_kit.deprovision('x', dry_run => true)},
	q{SELECT * FROM replica_kit.deprovision('x')});
my %public = map { $_ => 1 } split /\n/, $node->safe_psql('postgres', <<~'SQL');
	SELECT proname FROM pg_proc WHERE pronamespace = 'replica_kit'::regnamespace AND obj_description(oid, 'pg_proc') NOT LIKE 'Internal:%'
	SQL

# for the role of allow_rewind() alone: t/115_allow_rewind.pl
delete $public{end_rewind};
for my $path ('evil, pg_catalog', 'evil, public', q{''})
{
	for my $sql (@calls)
	{
		my ($out, $err) = in_front($sql, $path);

		ok("$out $err" !~ /hijacked/ && $err !~ /ERROR: /, "search_path $path: $sql") or diag $err;
		delete $public{$1} if $sql =~ /replica_kit\.(\w+)/;
	}
}
is(join(' ', sort keys %public), '', 'no function was left out');
is(slurp_file($hba), $rules, 'and in the end pg_hba.conf is as before');
$node->safe_psql('postgres', "SET client_min_messages = 'error'; DROP SCHEMA evil CASCADE");

# ----------------------------------------------------------------------
# Wrappers
# ----------------------------------------------------------------------

$node->safe_psql('postgres', <<~'SQL');
	CREATE ROLE app LOGIN;
	CREATE ROLE nobody LOGIN;
	CREATE SCHEMA wrap;
	GRANT USAGE ON SCHEMA wrap TO app, nobody;
	CREATE FUNCTION wrap.make(text, inet) RETURNS text LANGUAGE sql SECURITY DEFINER
		SET search_path = pg_catalog, pg_temp AS 'SELECT password FROM replica_kit.provision($1, $2)';
	CREATE FUNCTION wrap.take(text) RETURNS boolean LANGUAGE sql SECURITY DEFINER
		SET search_path = pg_catalog, pg_temp AS 'SELECT slot_dropped FROM replica_kit.deprovision($1)';
	CREATE FUNCTION wrap.invoker(text, inet) RETURNS text LANGUAGE sql
		AS 'SELECT password FROM replica_kit.provision($1, $2)';
	REVOKE EXECUTE ON ALL FUNCTIONS IN SCHEMA wrap FROM PUBLIC;
	GRANT EXECUTE ON ALL FUNCTIONS IN SCHEMA wrap TO app;
	SQL
my $before = state_now();

sub as
{
	my ($role, $sql) = @_;
	my ($rc, $out, $err) = $node->psql('postgres', $sql, extra_params => [ '-U', $role ]);

	return "$out$err";
}
like(as('nobody', q{SELECT wrap.make('x', '127.0.0.1')}), qr/permission denied/, 'a wrapper is for whom it was granted to');
like(as('app', q{SELECT wrap.invoker('x', '127.0.0.1')}), qr/permission denied/, 'one with the rights of its caller gives none');
like(as('app', q{SELECT replica_kit.provision('x', '127.0.0.1')}), qr/permission denied/, 'nor is there another way');
is(state_now(), $before, 'nothing was made');
like(as('app', q{SELECT wrap.make('x', '127.0.0.1')}), qr/^[A-Za-z0-9]{32}$/, 'one with the rights of a superuser provisions');
like(slurp_file($node->logfile), qr/LOG:  replica_kit: user "app" created role "x"/, 'the log names who it was');
like(as('app', q{SELECT * FROM replica_kit.deprovision('x')}), qr/permission denied/, 'who took a way in has got no other');
is(as('app', q{BEGIN; SELECT wrap.take('x'); ROLLBACK}), 't', 'a wrapper can be rolled back');
like(state_now(), qr/^slot x physical$/m, 'which undoes it');
is(as('app', q{SELECT wrap.take('x')}), 't', 'or not');
is(state_now(), $before, 'and all is as before');
$node->safe_psql('postgres', 'DROP OWNED BY app, nobody; DROP ROLE app, nobody; DROP SCHEMA wrap CASCADE');

# ----------------------------------------------------------------------
# What is called like a replica and is not the kit's
# ----------------------------------------------------------------------

sub sql
{
	my ($sql) = @_;
	my ($rc, $out, $err) = $node->psql('postgres', $sql);

	return "$out$err";
}

# A role, with a comment of its own, and a line.
$node->safe_psql('postgres', q{CREATE ROLE x LOGIN REPLICATION PASSWORD 'theirs'; COMMENT ON ROLE x IS 'theirs'});
my $line = 'host replication x 127.0.0.1/32 scram-sha-256';
append_to_file($hba, "$line\n$line # theirs\n");
$node->reload;
$before = state_now();
unlike(sql(q{SELECT name FROM replica_kit.provision('x', '127.0.0.1')}), qr/ERROR/, 'a role of that name is used');
is(connects('x', 'theirs'), 'in', 'with its password');
like(sql(q{SELECT replica_kit.rotate_password('x')}), qr/ERROR: .*was not made by pg_replica_kit/, 'which is not changed');
is(sql(q{SELECT * FROM replica_kit.deprovision('x')}), 'x|t|1|f', 'the replica goes');
is(state_now(), $before, 'and the role, its comment and their lines stay');
is(connects('x', 'theirs'), 'in', 'and are in force');
is(sql(q{SELECT replica_kit.revoke_address('x', '127.0.0.1')}), '0', 'lines that are not marked are nobody\'s to revoke');
like(sql(q{SELECT * FROM replica_kit.deprovision('x')}), qr/^x\|f\|0\|f.*not provisioned, nothing to do/s, 'nor to remove');
is(state_now(), $before, 'and all is as before');
$node->safe_psql('postgres', 'DROP ROLE x');
unlink $hba;
append_to_file($hba, $rules);
$node->reload;

# Slots: a logical one and a temporary one before, a logical one instead.
$before = state_now();
$node->safe_psql('postgres', q{SELECT pg_create_logical_replication_slot('x', 'pgoutput')});
my $with_slot = state_now();
like(sql(q{SELECT replica_kit.provision('x', '127.0.0.1')}), qr/ERROR: .*already exists.*It is a logical slot/s, 'a logical slot of that name is in the way');
like(sql(q{SELECT replica_kit.deprovision('x', force => true)}), qr/ERROR: .*was not made by pg_replica_kit/, 'and is not dropped');
is(state_now(), $with_slot, 'and nothing has changed');
$node->safe_psql('postgres', q{SELECT pg_drop_replication_slot('x')});
like(sql(q{SELECT pg_create_physical_replication_slot('x', false, true) IS NULL; SELECT replica_kit.provision('x', '127.0.0.1')}),
	qr/ERROR: .*already exists.*It is a temporary slot/s, 'so is a temporary one');
is(state_now(), $before, 'and nothing has changed');
$node->safe_psql('postgres', <<~'SQL');
	SELECT FROM replica_kit.provision('x', '127.0.0.1');
	SELECT pg_drop_replication_slot('x');
	SELECT pg_create_logical_replication_slot('x', 'pgoutput');
	SQL
is(sql(q{SELECT * FROM replica_kit.deprovision('x', force => true)}), 'x|f|1|t', 'a logical slot in the place of the replica\'s');
is(state_now(), $with_slot, 'stays');
$node->safe_psql('postgres', q{SELECT pg_drop_replication_slot('x')});
is(state_now(), $before, 'and all is as before');

# ----------------------------------------------------------------------
# Two replicas with one address, and with one role
# ----------------------------------------------------------------------

my $a = sql(q{SELECT password FROM replica_kit.provision('a', '127.0.0.1')});
my $b = sql(q{SELECT password FROM replica_kit.provision('b', '127.0.0.1')});
is(sql(q{SELECT * FROM replica_kit.deprovision('a')}), 'a|t|1|t', 'of two replicas with one address one goes');
is(connects('b', $b), 'in', 'the other gets in');
sql(q{SELECT FROM replica_kit.provision('a', '127.0.0.1')});
is(sql(q{SELECT replica_kit.revoke_address('a', '127.0.0.1')}), '1', 'the address of one is revoked');
is(connects('b', $b), 'in', 'and not of the other');
sql(q{SELECT FROM replica_kit.deprovision('a')});

unlike(sql(q{SELECT name FROM replica_kit.provision('c', '127.0.0.1', role => 'b')}), qr/ERROR/, 'two replicas with one role and one address');
is(() = slurp_file($hba) =~ /^host replication b 127\.0\.0\.1\/32 .*# pg_replica_kit: [bc]$/mg, 2, 'each has its line');
is(sql(q{SELECT * FROM replica_kit.deprovision('b')}), 'b|t|1|f', 'one goes, the role stays');
is(connects('b', $b), 'in', 'by which the other gets in');
my $rotated = sql(q{SELECT replica_kit.rotate_password('c')});
like($rotated, qr/replica "c" will not reconnect/, 'a new password is told of the one that is left');
unlike($rotated, qr/replica "b" /, 'and not of the one that has gone');
my ($new) = $rotated =~ /^([A-Za-z0-9]{32})$/m;
sql(q{SELECT FROM replica_kit.provision('d', '127.0.0.2', role => 'b')});
like(sql(q{SELECT replica_kit.rotate_password('d')}), qr/replica "c" will not reconnect(?:.*\n)*.*replica "d" will not reconnect/, 'of two it is told of both');
is(sql(q{SELECT replica_kit.revoke_address('c', '127.0.0.1')}), '1', 'the address of one is revoked');
like(slurp_file($hba), qr/# pg_replica_kit: d$/m, 'the other has its line');
is(sql(q{SELECT role_dropped FROM replica_kit.deprovision('c')}), 'f', 'one goes');
is(sql(q{SELECT role_dropped FROM replica_kit.deprovision('d')}), 't', 'and with the last one the role');
is(state_now(), $before, 'and all is as before');

$node->stop;
done_testing();
