# What the tests of diagnoses share: a primary and its standby that connect
# over TCP with a password, and connections that are made to fail.
package DiagKit;

use strict;
use warnings FATAL => 'all';

use Exporter 'import';
use FindBin;
use IO::Socket::INET;
use JSON::PP ();
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(usleep);

our @EXPORT = qw(new_primary new_standby set_hba set_conninfo conninfo
  attempt diagnoses wait_for_diagnosis remedy advice do_remedies do_advised
  remedy_fault soon_is soon_like errors_like drop_slot renew_slot);

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

# Drops a slot, once its walsender has noticed that the replica is gone.
sub drop_slot
{
	my ($node, $name) = @_;
	$node->poll_query_until('postgres', qq{SELECT NOT active FROM pg_replication_slots WHERE slot_name = '$name'})
	  or die qq{slot "$name" is still used};
	$node->safe_psql('postgres', qq{SELECT pg_drop_replication_slot('$name')});
	return;
}

# What the script with --rebuild does to a slot that is lost.
sub renew_slot
{
	my ($node, $name) = @_;
	drop_slot($node, $name);
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

# A provisioned standby, streaming, as the worker has seen: where it comes from is
# known.
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
	$primary->poll_query_until('postgres', "SELECT count(*) > 0 FROM replica_kit.history('$name') WHERE state = 'streaming'")
	  or die "the worker does not see $name";
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

# Asks until the answer is good, or for too long; the last answer.
sub ask_until
{
	my ($node, $query, $good) = @_;
	my $answer = '';
	for (1 .. 10 * $PostgreSQL::Test::Utils::timeout_default)
	{
		$answer = $node->safe_psql('postgres', $query);
		last if $good->($answer);
		usleep(100_000);
	}
	return $answer;
}

# The closed list of forms that a remedy may have.  Each is one statement, in
# which nothing stands but names of settings, numbers and literals.
my $literal = qr/(?: ?E)?'(?:[^'\\]|''|\\\\)*'/;
my @remedy_forms = (
	qr/SELECT pg_reload_conf\(\);/,
	qr/ALTER SYSTEM SET [a-z_]+ = $literal;/,
	qr/SELECT \* FROM replica_kit\.provision\($literal, $literal(?:, $literal)?\);/,
	qr/SELECT pg_create_physical_replication_slot\($literal, true\);/,
	qr/SELECT pg_terminate_backend\(active_pid\) FROM pg_replication_slots WHERE slot_name = $literal AND active_pid = \d+;/);

# The codes that may have a remedy, by the table of codes.
my %mendable;

sub mendable
{
	my ($code) = @_;
	if (!%mendable)
	{
		my $table = slurp_file("$FindBin::RealBin/../src/judge/codes.c");
		%mendable = map { $_ => 1 } $table =~ /\{"(\w+)", [^}]*, true\}/g;
	}
	return $mendable{$code};
}

# What is wrong with the remedy of a row, or ''.
sub remedy_fault
{
	my ($row) = @_;
	my $remedy = $row->{remedy};
	return '' if !defined $remedy;
	return "$row->{code} is not to have a remedy: $remedy" if !mendable($row->{code});
	return "not one statement of a known form: $remedy" if !grep { $remedy =~ /\A$_\z/ } @remedy_forms;
	return '';
}

# Every row that is seen in a test is looked at: its remedy, its reload and how
# long its lines are (commands may be longer).
my %told;

sub check_rows
{
	my (@rows) = @_;
	my $sets = grep { ($_->{remedy} // '') =~ /^ALTER SYSTEM/ } @rows;
	foreach my $row (@rows)
	{
		my @faults = grep { $_ ne '' } remedy_fault($row);
		push @faults, "\"$_\" is too long" foreach grep { length($_) > 109 && !/^  / } split /\n/, "$row->{finding}\n" . ($row->{advice} // '');
		push @faults, "\"$row->{finding}\" is no sentence" if $row->{finding} !~ /^[A-Z"p].*\.$/s;
		push @faults, 'there is neither remedy nor advice' if !defined $row->{remedy} && !defined $row->{advice};
		fail("diagnosis $row->{code} of $row->{name}: $_") foreach grep { !$told{$_}++ } @faults;
	}
	fail('a reload is not the last row') if $sets && $rows[-1]->{code} ne 'reload_needed';
	fail('a reload is not needed') if !$sets && grep { $_->{code} eq 'reload_needed' } @rows;
	return;
}

# The rows of diagnose(), in order.  Bytes stay bytes.
sub rows_of
{
	my ($text) = @_;
	my @rows = @{ JSON::PP->new->decode($text) };
	check_rows(@rows);
	return @rows;
}

# Waits until diagnose() finds that and nothing else; what it finds at last.
# Its rows are kept: a replica that tries again and again may be seen in the
# midst of it when diagnose() is asked once more.  That a reload is needed is no
# finding of its own.
my %last_rows;

sub wait_for_diagnosis
{
	my ($node, $wanted) = @_;
	my ($found, @rows) = ('');
	ask_until(
		$node,
		q{SELECT coalesce(json_agg(d ORDER BY n), '[]') FROM replica_kit.diagnose() WITH ORDINALITY AS d (level, code, name, finding, evidence, remedy, advice, n)},
		sub {
			@rows = rows_of($_[0]);
			$found = join ',', sort grep { $_ ne 'reload_needed' } map { $_->{code} } @rows;
			return $found eq $wanted;
		});
	$last_rows{ $node->name } = \@rows;
	return $found;
}

# What is printed in a column of what was last waited for, a row a line.
sub printed
{
	my ($node, $column) = @_;
	my $text = join "\n", grep { defined } map { $_->{$column} } @{ $last_rows{ $node->name } };
	note "$column: $text";
	return $text;
}

sub remedy
{
	my ($node) = @_;
	return printed($node, 'remedy');
}

sub advice
{
	my ($node) = @_;
	return printed($node, 'advice');
}

# Runs the remedies that diagnose() has now as a person who does not look would.
sub do_remedies
{
	my ($node) = @_;
	return $node->safe_psql('postgres', qq{SELECT remedy FROM replica_kit.diagnose() WHERE remedy IS NOT NULL \\gexec\n});
}

# Runs the statements in the last advice that match, as they are printed.
sub do_advised
{
	my ($node, $pattern) = @_;
	my @statements = grep { $_ =~ $pattern } advice($node) =~ /((?:SELECT|ALTER) [^\n]*?;)(?=\s|$)/mg;
	die "no statement like $pattern in the advice" if !@statements;
	note join "\n", @statements;
	return $node->safe_psql('postgres', join "\n", @statements);
}

# The answer becomes that: what is asked right after another question may be of
# a moment at which the server is seen differently.
sub soon_is
{
	my ($node, $query, $wanted, $what) = @_;
	my $answer = ask_until($node, $query, sub { $_[0] eq $wanted });
	is($answer, $wanted, $what);
	return $answer;
}

# The same for a pattern.
sub soon_like
{
	my ($node, $query, $pattern, $what) = @_;
	my $answer = ask_until($node, $query, sub { $_[0] =~ $pattern });
	like($answer, $pattern, $what);
	return $answer;
}

# How often connection_errors() has counted such a failure, as rows|count.
sub errors_like
{
	my ($node, $condition) = @_;
	return $node->safe_psql('postgres',
		"SELECT count(*), coalesce(sum(count), 0) FROM replica_kit.connection_errors() WHERE $condition");
}

1;
