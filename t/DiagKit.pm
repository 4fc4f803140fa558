# What the tests of diagnoses share: a primary and its standby that connect
# over TCP with a password, and connections that are made to fail.
package DiagKit;

use strict;
use warnings FATAL => 'all';

use Exporter 'import';
use IO::Socket::INET;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

our @EXPORT = qw(new_primary new_standby set_hba set_conninfo conninfo
  attempt diagnoses wait_for_diagnosis remedy errors_like renew_slot);

# Rules that let the tests' own sessions in, and nobody over TCP.
my $local_rules = "local all all trust\nlocal replication all trust\n";

# A primary with the kit preloaded that is reached over TCP.
sub new_primary
{
	my ($name, @conf) = @_;
	my $node = PostgreSQL::Test::Cluster->new($name);
	$node->init(allows_streaming => 1);
	$node->append_conf(
		'postgresql.conf',
		join("\n",
			"listen_addresses = '127.0.0.1'",
			"shared_preload_libraries = 'pg_replica_kit'",
			'replica_kit.check_interval = 100ms',
			'wal_retrieve_retry_interval = 200ms',

			# what else fills the disk meanwhile is no business of these tests
			'replica_kit.warning_forecast = -1',
			'replica_kit.critical_forecast = -1',
			@conf,
			''));
	$node->start;
	$node->safe_psql('postgres', 'CREATE EXTENSION pg_replica_kit');
	return $node;
}

# What the script with --rebuild does to a slot that is lost.
sub renew_slot
{
	my ($node, $name) = @_;
	$node->safe_psql('postgres', qq{SELECT pg_drop_replication_slot('$name')});
	$node->safe_psql('postgres', qq{SELECT pg_create_physical_replication_slot('$name', true)});
	return;
}

# pg_hba.conf of these lines only, besides those for the tests themselves.
sub set_hba
{
	my ($node, @lines) = @_;
	open my $fh, '>', $node->data_dir . '/pg_hba.conf' or die "pg_hba.conf: $!";
	print $fh $local_rules, map { "$_\n" } @lines;
	close $fh;
	$node->reload;

	# The postmaster reads the file before it lets the next session in.
	$node->safe_psql('postgres', 'SELECT 1');
	return;
}

sub conninfo
{
	my ($node, %with) = @_;
	my %options = (host => '127.0.0.1', port => $node->port, sslmode => 'disable', %with);
	return join ' ', map { "$_='$options{$_}'" } sort keys %options;
}

# What the standby connects with from now on.
sub set_conninfo
{
	my ($standby, $primary, %with) = @_;
	my $conninfo = conninfo($primary, %with);
	$conninfo =~ s/'/''/g;
	$standby->append_conf('postgresql.conf', "primary_conninfo = '$conninfo'");
	$standby->reload if -f $standby->data_dir . '/postmaster.pid';
	return;
}

# A provisioned standby, streaming.
sub new_standby
{
	my ($primary, $name, @conf) = @_;
	my $password = $primary->safe_psql('postgres',
		"SELECT password FROM replica_kit.provision('$name', '127.0.0.1')");
	my $standby = PostgreSQL::Test::Cluster->new($name);
	my $backup = "for_$name";
	$primary->backup($backup);
	$standby->init_from_backup($primary, $backup, has_streaming => 1);
	$standby->append_conf('postgresql.conf', join("\n", "primary_slot_name = '$name'", @conf, ''));
	set_conninfo($standby, $primary, user => $name, password => $password, application_name => $name);
	$standby->start;
	$primary->wait_for_catchup($name);
	return ($standby, $password);
}

# Asks for a replication connection by a startup packet alone, as role and
# application; the server's answer, which is the error if it refuses at once.
sub attempt
{
	my ($node, $user, $application) = @_;
	my $socket = IO::Socket::INET->new(
		PeerAddr => '127.0.0.1',
		PeerPort => $node->port,
		Timeout => 30) or die "could not connect: $!";
	my $body = pack('N', 196608)
	  . join('', map { "$_\0" } user => $user, replication => 'true',
		application_name => $application)
	  . "\0";
	$socket->send(pack('N', length($body) + 4) . $body);
	my $answer = '';
	$socket->read($answer, 5);
	my ($type, $length) = unpack 'aN', $answer;
	$socket->read($answer, $length - 4) if $type eq 'E';
	close $socket;
	return $answer;
}

# Code, name and level of what diagnose() finds, one a line.
sub diagnoses
{
	my ($node) = @_;
	return $node->safe_psql('postgres',
		q{SELECT code, coalesce(name, '-'), level FROM replica_kit.diagnose() ORDER BY 1, 2});
}

# Waits until diagnose() finds that and nothing else; what it finds at last.
sub wait_for_diagnosis
{
	my ($node, $wanted) = @_;
	return $wanted
	  if $node->poll_query_until('postgres',
		q{SELECT coalesce(string_agg(code, ',' ORDER BY code), '') FROM replica_kit.diagnose()},
		$wanted);
	return $node->safe_psql('postgres',
		q{SELECT coalesce(string_agg(code, ',' ORDER BY code), '') FROM replica_kit.diagnose()});
}

# What the only finding is to be mended with, as it is printed.
sub remedy
{
	my ($node) = @_;
	my $remedy = $node->safe_psql('postgres', q{SELECT remedy FROM replica_kit.diagnose()});
	note $remedy;
	return $remedy;
}

# How often connection_errors() has counted such a failure, as rows|count.
sub errors_like
{
	my ($node, $condition) = @_;
	return $node->safe_psql('postgres',
		"SELECT count(*), coalesce(sum(count), 0) FROM replica_kit.connection_errors() WHERE $condition");
}

1;
