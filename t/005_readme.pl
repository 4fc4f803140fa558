# The examples of README.md are run as they stand, in their order, with the
# addresses of this machine; and it names each function, column and setting.

use strict;
use warnings FATAL => 'all';

use File::Temp qw(tempdir);
use FindBin;
use lib $FindBin::RealBin;

use JoinKit;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $readme = slurp_file("$FindBin::RealBin/../README.md");

# Fenced blocks: what they hold, and their kind ('' for output).
my @blocks;
while ($readme =~ /^```([^\n]*)\n(.*?)^```$/msg)
{
	push @blocks, { kind => $1, text => $2 };
}
cmp_ok(scalar @blocks, '>', 10, 'README.md has examples');

my $cron = `pg_config --sharedir` =~ s/\n//r . '/extension/pg_cron.control';
my $has_cron = -e $cron;
my $primary = PostgreSQL::Test::Cluster->new('primary');
$primary->init(allows_streaming => 1);
$primary->append_conf('postgresql.conf', "listen_addresses = '127.0.0.1'");

# What is to be set in postgresql.conf is there from the start.
for my $block (grep { $_->{kind} eq 'conf' } @blocks)
{
	$primary->append_conf('postgresql.conf', $block->{text});
}
if ($has_cron)
{
	$primary->append_conf('postgresql.conf',
		"shared_preload_libraries = 'pg_replica_kit, pg_cron'");
}
# as every Debian cluster has it
enable_tls($primary);
$primary->start;
is($primary->safe_psql('postgres', 'SELECT name, error FROM pg_file_settings WHERE error IS NOT NULL'),
	'', 'the settings shown are accepted');
$primary->safe_psql('postgres', 'CREATE EXTENSION pg_cron') if $has_cron;

my $replica = new_replica('replica');
my $dir = tempdir(CLEANUP => 1);
my ($password, $output) = ('', '');

# As the reader types it, in psql and in a shell.
sub run_sql
{
	my ($sql) = @_;

	my $result = run_log([ 'psql', '-X', '-v', 'ON_ERROR_STOP=1', '-d', $primary->connstr('postgres') ],
		'<', \$sql, '>', \my $out, '2>', \my $err);
	ok($result, "README: $sql") or diag($err);
	return $out;
}

# The names of the columns in psql's output, lying or standing.
sub columns
{
	my ($out) = @_;

	return join ',', $out =~ /^(\w+) +\| /mg if $out =~ /^-\[ RECORD|^\w+ +\| /;
	my ($head) = $out =~ /^( .*)$/m;
	return join ',', map { s/^\s+|\s+$//gr } split /\|/, $head // '';
}

for my $i (0 .. $#blocks)
{
	my ($kind, $text) = @{ $blocks[$i] }{qw(kind text)};
	my $here = $text =~ s/10\.0\.0\.[15]/127.0.0.1/gr;

	if ($kind eq 'sql' || ($kind eq 'sql pg_cron' && $has_cron))
	{
		$output = run_sql($here);
		$password = $1 if $output =~ /^password +\| (\S+)$/m;
		my $next = $blocks[ $i + 1 ];
		if ($kind eq 'sql' && $next && $next->{kind} eq '' && $next->{text} =~ /^\s*\w+ +\| /)
		{
			is(columns($next->{text}), columns($output), 'the output shown has the columns of the real one');
		}
	}
	elsif ($kind eq 'sh' && $here =~ /join_script/)
	{
		# The replica is of this machine, so it needs a place and a port.
		$here =~ s/--cluster \S+.*/"--pgdata @{[ $replica->data_dir ]} --port @{[ $replica->port ]}"/e
		  or die 'the example of the script has no --cluster';
		local %ENV = (%ENV, PGHOST => $primary->host, PGPORT => $primary->port,
			PGDATABASE => 'postgres', PGPASSWORD => $password, HOME => $dir);
		my ($out, $err) = ('', '');
		ok(run_log([ 'sh', '-ec', "cd $dir\n$here" ], '>', \$out, '2>', \$err), 'README: the script makes the replica')
		  or diag($out, $err);
		adopt_replica($replica);
		like($out, qr/^pg_replica_kit: replica "replica1" streams from/m, 'and says so in the words shown');
		$primary->poll_query_until('postgres',
			q{SELECT lag_bytes = 0 AND health = 'ok' FROM replica_kit.status() WHERE name = 'replica1'})
		  or die 'the replica does not stream';
	}
}
is($primary->safe_psql('postgres', 'SELECT count(*) FROM replica_kit.status()'), '0',
	'after the last example nothing is left');

# ----------------------------------------------------------------------
# Nothing is left out
# ----------------------------------------------------------------------

my $objects = $primary->safe_psql('postgres', <<~'SQL');
	SELECT 'function ' || proname FROM pg_proc WHERE pronamespace = 'replica_kit'::regnamespace
	UNION ALL
	SELECT 'column ' || unnest(proargnames) FROM pg_proc WHERE pronamespace = 'replica_kit'::regnamespace
	UNION ALL
	SELECT 'column ' || attname FROM pg_attribute a JOIN pg_class c ON c.oid = attrelid
	 WHERE relnamespace = 'replica_kit'::regnamespace AND attnum > 0
	UNION ALL
	SELECT 'setting ' || name FROM pg_settings WHERE name LIKE 'replica\_kit.%'
	SQL
my %seen;
for my $object (grep { !$seen{$_}++ } split /\n/, $objects)
{
	my ($name) = $object =~ / (.*)/;

	ok($readme =~ /`[^`\n]*\b\Q$name\E\b[^`\n]*`/, "README.md names the $object");
}

$replica->stop;
$primary->stop;
done_testing();
