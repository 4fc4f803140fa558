# A primary and a replica of different minor versions, both ways round, with
# the same build of the kit on both.
#
# PRK_OTHER_MINOR is where the other one is installed: scripts/test gets it
# where Debian's archive has one.

use strict;
use warnings FATAL => 'all';

use FindBin;
use lib $FindBin::RealBin;

use JoinKit;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $other = $ENV{PRK_OTHER_MINOR};
plan skip_all => 'no second minor version of this PostgreSQL at hand'
  if !defined $other;

my @conf = (
	"listen_addresses = '127.0.0.1'",
	"shared_preload_libraries = 'pg_replica_kit'",
	'replica_kit.check_interval = 100ms',
	'replica_kit.warning_forecast = -1',
	'replica_kit.critical_forecast = -1',
	'');

sub new_node
{
	my ($name, $path) = @_;
	return PostgreSQL::Test::Cluster->new($name, defined $path ? (install_path => $path) : ());
}

# The whole of it: set up, joined by the script, streaming, watched, gone.
sub pair
{
	my ($what, $primary_path, $replica_path) = @_;
	my $primary = new_node("primary_$what", $primary_path);
	$primary->init(allows_streaming => 1);
	$primary->append_conf('postgresql.conf', join "\n", @conf);
	$primary->start;
	$primary->safe_psql('postgres', 'CREATE EXTENSION pg_replica_kit; CREATE TABLE t AS SELECT 1 AS a');
	provision($primary, 'replica1', 'secret-word-1');

	my $replica = new_node("replica_$what", $replica_path);
	mkdir $replica->basedir;
	my ($code, $out, $err) = run_script(
		write_script($primary, 'replica1'),
		{
			PGPASSWORD => 'secret-word-1',
			PATH => defined $replica_path ? "$replica_path/bin:$ENV{PATH}" : $ENV{PATH}
		},
		'--pgdata', $replica->data_dir, '--port', $replica->port);
	is($code, 0, "$what: the script makes the replica") or die $out, $err;
	adopt_replica($replica);

	my @versions = map { $_->safe_psql('postgres', 'SHOW server_version_num') } $primary, $replica;
	isnt($versions[0], $versions[1], "$what: minor versions differ");
	is(int($versions[0] / 10000), int($versions[1] / 10000), "$what: the major one is the same");
	note "primary $versions[0], replica $versions[1]";

	$primary->safe_psql('postgres', 'INSERT INTO t VALUES (2)');
	$primary->wait_for_catchup('replica1', 'replay', $primary->lsn('insert'));
	is($replica->safe_psql('postgres', 'SELECT count(*) FROM t'), '2', "$what: it streams");
	ok($primary->poll_query_until('postgres', q{SELECT state = 'streaming' AND health = 'ok' AND alert = 'ok' FROM replica_kit.status()}),
		"$what: the primary says so");
	ok($replica->poll_query_until('postgres', q{SELECT state = 'streaming' AND health = 'ok' FROM replica_kit.standby_status()}),
		"$what: the replica says so");
	foreach my $node ($primary, $replica)
	{
		ok($node->poll_query_until('postgres', 'SELECT count(*) = 0 FROM replica_kit.diagnose()'),
			"$what: nothing is wrong with " . $node->name)
		  or diag $node->safe_psql('postgres', 'SELECT * FROM replica_kit.diagnose()');
	}
	$replica->stop;
	is($primary->safe_psql('postgres', q{SELECT slot_dropped, hba_rules_removed, role_dropped FROM replica_kit.deprovision('replica1', force => true)}),
		't|1|t', "$what: it goes without a trace");
	$primary->stop;
	return @versions;
}

my ($here, $there) = pair('other_replica', undef, $other);
is(join(' ', pair('other_primary', $other, undef)), "$there $here", 'and the other way round');

done_testing();
