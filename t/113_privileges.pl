# Who may call what, and that nobody is told more by a detour: each function by
# a role with EXECUTE on that function alone, directly, through a view, a
# security definer function, an index expression and a materialized view, where
# a superuser's statement makes it run.  The tables in doc/reference.md and
# doc/security.md are made from the same.

use strict;
use warnings FATAL => 'all';

use FindBin;
use lib $FindBin::RealBin;

use DiagKit;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

# How each function is called here; undef: it changes something, and whoever may
# do that may do the whole job.
my %calls = (
	'allow_rewind' => undef,
	'assert_healthy' => q{replica_kit.assert_healthy()},
	'connection_errors' => q{replica_kit.connection_errors()},
	'deprovision' => undef,
	'diagnose' => q{replica_kit.diagnose()},
	'end_rewind' => undef,
	'hba_match' => q{replica_kit.hba_match('replica1', '127.0.0.1')},
	'help' => q{replica_kit.help()},
	'history' => q{replica_kit.history()},
	'join_script' => undef,
	'lag_graph' => q{replica_kit.lag_graph('replica1')},
	'metrics' => q{replica_kit.metrics()},
	'preflight' => q{replica_kit.preflight()},
	'preflight_accepts' => q{replica_kit.preflight_accepts('wal_level', 'replica')},
	'preflight_facts' => q{replica_kit.preflight_facts('')},
	'provision' => undef,
	'revoke_address' => undef,
	'revoke_rewind' => undef,
	'rotate_password' => undef,
	'silence' => undef,
	'silences' => q{replica_kit.silences()},
	'standby_status' => q{replica_kit.standby_status()},
	'status' => q{replica_kit.status()},
	'unhealthy' => q{replica_kit.unhealthy()},
	'unsilence' => undef,
	'wait_for_lsn' => undef);

my $node = new_primary('primary');
my $secret = 'ldapbindpasswd=verysecret';
$node->safe_psql('postgres', <<'SQL');
SELECT replica_kit.provision('replica1', '127.0.0.1');
CREATE ROLE watcher LOGIN IN ROLE pg_monitor;
CREATE ROLE anybody LOGIN;
GRANT CREATE ON SCHEMA public TO PUBLIC;
SQL
append_to_file($node->data_dir . '/pg_hba.conf',
	"host replication replica1 127.0.0.2/32 scram-sha-256  # verysecret\n");

# What psql says: rows, or the error.
sub answer
{
	my ($role, $sql) = @_;
	my ($stdout, $stderr) = ('', '');
	$node->psql('postgres', $sql, stdout => \$stdout, stderr => \$stderr, extra_params => [ '-U', $role ]);
	$stderr =~ s/psql:<stdin>:\d+: //g;
	return "$stdout\n$stderr";
}

# ----------------------------------------------------------------------
# Role by function
# ----------------------------------------------------------------------

my @functions = split /\n/, $node->safe_psql('postgres',
	q{SELECT DISTINCT proname FROM pg_proc WHERE pronamespace = 'replica_kit'::regnamespace ORDER BY 1});
is(join(' ', grep { !exists $calls{$_} } @functions), '', 'this test knows each function');

my @roles = qw(postgres watcher replica1 anybody);
my @matrix = ('| function | superusers | `pg_monitor` | a replica\'s role | anybody else |', '|---|---|---|---|---|');
my %of_role = map { $_ => [] } @roles;
foreach my $function (@functions)
{
	my %may = map {
		$_ => $node->safe_psql('postgres', "SELECT bool_and(has_function_privilege('$_', oid, 'EXECUTE')) FROM pg_proc WHERE pronamespace = 'replica_kit'::regnamespace AND proname = '$function'") eq 't'
	} @roles;
	push @matrix, "| `$function` | " . join(' | ', map { $may{$_} ? 'yes' : 'no' } @roles) . ' |';
	push @{ $of_role{$_} }, "`$function`" foreach grep { $may{$_} } @roles;
	ok($may{postgres}, "$function: superusers may");
	ok(!$may{watcher}, "$function: what changes something is not for pg_monitor") if !defined $calls{$function} && $function ne 'wait_for_lsn';
	next if $function =~ /^wait_for_lsn$/;
	ok(!$may{replica1} && !$may{anybody}, "$function: neither a replica's role nor anybody else may");
	like(answer('anybody', "SELECT * FROM $calls{$function}"), qr/permission denied for function/, "$function: and is refused") if defined $calls{$function};
}

# In a page, between two marks.
sub table_of
{
	my ($page) = @_;
	return slurp_file("$FindBin::RealBin/../$page") =~ /<!-- privileges -->\n\n(.*?)\n\n<!-- end -->/s ? $1 : '';
}
is(table_of('doc/security.md'), join("\n", @matrix), 'doc/security.md has this table');
is(table_of('doc/reference.md'), join("\n", '| who | may call |', '|---|---|', '| superusers | everything |',
		'| members of `pg_monitor` | ' . join(', ', @{ $of_role{watcher} }) . ' |',
		'| anybody else, also a replica\'s role | ' . join(', ', @{ $of_role{anybody} }) . ', and nothing else until granted `EXECUTE` on a function; that is the only gate |'),
	'doc/reference.md has it by role');

# ----------------------------------------------------------------------
# By a detour
# ----------------------------------------------------------------------

# Which rule it is may be told, its text only to whoever may read it.
like(answer('postgres', "SELECT rule FROM $calls{hba_match}"), qr/^host replication replica1 127\.0\.0\.1\/32 scram-sha-256$/m,
	'a superuser is told the rule');

foreach my $function (grep { defined $calls{$_} } @functions)
{
	my $call = $calls{$function};
	my $role = "only_$function";
	my $to_text = "SELECT string_agg(x::text, E'\\n') FROM $call x";

	$node->safe_psql('postgres', "CREATE ROLE $role LOGIN");
	$node->safe_psql('postgres', $_) foreach split /\n/, $node->safe_psql('postgres',
		"SELECT format('GRANT EXECUTE ON FUNCTION %s TO $role', oid::regprocedure) FROM pg_proc WHERE pronamespace = 'replica_kit'::regnamespace AND proname = '$function'");

	unlike(answer($role, "SELECT * FROM $call"), qr/permission denied for function $function/, "$function: EXECUTE is enough");
	is(answer($role, 'SELECT * FROM replica_kit.provision(NULL, NULL)') =~ /permission denied/ ? 'refused' : 'let in', 'refused',
		"$function: and no more than for this");

	# What it does for them, a superuser starts.  An error is told, too.
	answer($role, <<"SQL");
CREATE FUNCTION ${role}_words() RETURNS text LANGUAGE plpgsql AS \$\$
BEGIN
	RETURN coalesce(($to_text), '') || ' told';
EXCEPTION WHEN OTHERS THEN RETURN SQLERRM || ' told';
END \$\$;
CREATE FUNCTION ${role}_index(integer) RETURNS text LANGUAGE plpgsql IMMUTABLE AS \$\$
BEGIN
	RETURN right(public.${role}_words(), 900);
END \$\$;
CREATE FUNCTION ${role}_definer() RETURNS text LANGUAGE sql SECURITY DEFINER AS 'SELECT public.${role}_words()';
CREATE TABLE ${role}_table AS SELECT 1 AS i FROM generate_series(1, 10);
CREATE INDEX ${role}_expression ON ${role}_table (${role}_index(i));
CREATE MATERIALIZED VIEW ${role}_mv AS SELECT ${role}_words() AS words WITH NO DATA;
CREATE VIEW ${role}_view AS SELECT * FROM $call x;
SQL
	my $told = answer('postgres', "REFRESH MATERIALIZED VIEW ${role}_mv; SELECT words FROM ${role}_mv")
	  . answer('postgres', "SELECT ${role}_definer()")
	  . answer('postgres', "REINDEX INDEX ${role}_expression; ANALYZE ${role}_table")
	  . answer($role, "SELECT most_common_vals::text, histogram_bounds::text FROM pg_stats WHERE tablename = '${role}_expression'")
	  . answer($role, "SELECT * FROM ${role}_view");

	# A file whose every line would be told to superusers only.
	unlike($told, qr/host replication|scram-sha-256  #|verysecret|host all/, "$function: no line of pg_hba.conf is told");
	unlike($told, qr/SCRAM-SHA-256\$/, "$function: no secret is");
	cmp_ok(scalar(() = $told =~ / told$/mg), '>=', 2, "$function: the detours were really taken");
	like($told, qr/\{.* told"?\}/s, "$function: also that by the index");
}

# What reads files as the server does finds the same, whoever asks.
$node->append_conf('postgresql.conf', "work_mem = 'nonsense'");
append_to_file($node->data_dir . '/pg_hba.conf', "host all all 127.0.0.3/32 ldap ldapserver=x ldapbindpasswd=verysecret nonsense=1\n");
foreach my $case ([ 'diagnose', 'code' ], [ 'preflight', 'check_name' ])
{
	my ($function, $column) = @$case;
	my $sql = "SELECT $column, count(*) FROM $calls{$function} GROUP BY 1 ORDER BY 1";

	like(answer('postgres', $sql), qr/restart_would_fail/, "$function: what a restart would refuse");
	is(answer("only_$function", $sql), answer('postgres', $sql), "$function: the same for a role with EXECUTE only");
	unlike(answer("only_$function", "SELECT * FROM $calls{$function}"), qr/verysecret/, "$function: without the secret of a line that is wrong");
}

$node->stop;
done_testing();
