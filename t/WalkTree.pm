# The servers of a walk: a primary, two replicas of it, a cascade behind the
# first of them, a logical consumer; between any two a network that can be cut.
package WalkTree;

use strict;
use warnings FATAL => 'all';

use DiagKit qw(set_hba);
use File::Basename qw(dirname);
use File::Path qw(rmtree);
use File::Spec::Functions qw(rel2abs);
use POSIX qw(WNOHANG);
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use SlowNet;
use Time::HiRes qw(usleep);
use WireSession;

# Of whom each receives.
our %upstream = (replica1 => 'primary', replica2 => 'primary', cascade => 'replica1');
our @names = qw(primary replica1 replica2 cascade);

my $wall_clock = rel2abs(dirname(__FILE__) . '/../test/wall_clock.so');
my $user = scalar getpwuid $<;

# All that has to last is short.
my @conf = (
	q{listen_addresses = '127.0.0.1'}, 'wal_level = logical', 'autovacuum = off', 'checkpoint_timeout = 1h',
	'max_wal_size = 256MB', 'min_wal_size = 64MB', 'wal_keep_size = 64MB', 'max_wal_senders = 20', 'max_replication_slots = 20',
	'wal_sender_timeout = 3s', 'wal_receiver_timeout = 3s', 'wal_retrieve_retry_interval = 200ms', 'authentication_timeout = 3s',
	'max_standby_streaming_delay = -1', 'archive_mode = on', q{archive_command = '/bin/true'},
	q{shared_preload_libraries = 'pg_replica_kit'}, 'replica_kit.check_interval = 100ms', 'replica_kit.alert_after = 0',
	'replica_kit.warning_forecast = -1', 'replica_kit.critical_forecast = -1', 'replica_kit.warning_lag = 1MB', 'replica_kit.lag_grace = 1s',
	'replica_kit.warning_disconnected = 1s', 'replica_kit.critical_disconnected = 1h');

# Makes all, and keeps a copy of how it was at first.
sub new
{
	my ($class) = @_;
	my $self = bless { node => {}, net => {}, set => {}, frozen => {}, hba => {}, held => {} }, $class;
	my $primary = $self->{node}{primary} = PostgreSQL::Test::Cluster->new('primary');

	$primary->init(allows_streaming => 1, extra => [ '--wal-segsize', '1' ]);
	$primary->append_conf('postgresql.conf', join "\n", @conf, '');
	$self->start('primary');
	set_hba($primary);
	$primary->safe_psql('postgres', 'CREATE EXTENSION pg_replica_kit');
	foreach my $name (qw(replica1 replica2 cascade))
	{
		$primary->safe_psql('postgres', "CREATE TABLE lock_$name (i int); CREATE TABLE pin_$name AS SELECT i FROM generate_series(1, 10) i");
		$self->{login}{$name} = { user => $name, application_name => $name };
	}
	foreach my $name (qw(replica1 replica2))
	{
		$self->{login}{$name}{password} = $primary->safe_psql('postgres', "SELECT password FROM replica_kit.provision('$name', '127.0.0.1')");
		$self->add_standby($name);
	}

	# It shares the role of the one before it.
	$self->{login}{cascade} = { %{ $self->{login}{replica1} }, application_name => 'cascade' };
	$primary->wait_for_catchup('replica1');
	$self->{node}{replica1}->safe_psql('postgres', q{SELECT replica_kit.provision('cascade', '127.0.0.1', 'replica1')});
	$self->add_standby('cascade');
	$primary->safe_psql('postgres', q{SELECT pg_create_logical_replication_slot('consumer', 'test_decoding')});
	$self->save;
	return $self;
}

# A standby behind a network of its own.
sub add_standby
{
	my ($self, $name) = @_;
	my $upstream = $self->{node}{ $upstream{$name} };
	my $node = $self->{node}{$name} = PostgreSQL::Test::Cluster->new($name);

	$upstream->backup("for_$name");
	$node->init_from_backup($upstream, "for_$name", has_streaming => 1);
	$self->{net}{$name} = SlowNet->new($upstream->port);
	$self->set($name, primary_slot_name => $name);
	$self->set_login($name);
	$self->start($name);
	return;
}

sub save
{
	my ($self) = @_;

	$self->{saved_login} = { map { $_ => { %{ $self->{login}{$_} } } } keys %{ $self->{login} } };
	$self->stop_all('fast');
	foreach my $name (@names)
	{
		my $data = $self->{node}{$name}->data_dir;
		unlink "$data/postmaster.pid";
		system_or_bail('cp', '-a', $data, "$data.saved");
	}
	return;
}

# As it was at first, all of it running.
sub restore
{
	my ($self) = @_;

	$self->stop_all('immediate');
	@$self{qw(set frozen hba held session)} = ({}, {}, {}, {}, {});
	$self->{login} = { map { $_ => { %{ $self->{saved_login}{$_} } } } keys %{ $self->{saved_login} } };
	foreach my $name (@names)
	{
		my $data = $self->{node}{$name}->data_dir;
		rmtree($data);
		system_or_bail('cp', '-a', "$data.saved", $data);
		$self->{base}{$name} //= slurp_file("$data/postgresql.conf");
		$self->set_clock($name, 0);
		if ($upstream{$name})
		{
			$self->{net}{$name}->cut('');
			$self->{net}{$name}->tell(0, 0);
			$self->{set}{$name}{primary_slot_name} = $name;
			$self->{set}{$name}{primary_conninfo} = $self->conninfo($name);
		}
		$self->start($name);
	}
	$self->{consuming} = 1;
	return;
}

sub stop_all
{
	my ($self, $mode) = @_;

	$self->{consuming} = 0;
	$self->stop_consumer;
	$self->thaw($_) foreach keys %{ $self->{frozen} };
	$self->release($_) foreach keys %{ $self->{held} };
	$self->stop($_, $mode) foreach reverse @names;
	return;
}

# ----------------------------------------------------------------------
# A server
# ----------------------------------------------------------------------

sub start
{
	my ($self, $name) = @_;
	my $node = $self->{node}{$name} or die "no $name";

	return if $self->is_up($name);
	local $ENV{LD_PRELOAD} = $wall_clock;
	local $ENV{PRK_WALL_CLOCK} = $self->clock_file($name);
	$self->set_clock($name, 0) if !-f $self->clock_file($name);
	$node->start;
	return;
}

sub stop
{
	my ($self, $name, $mode) = @_;

	delete $self->{session}{$name};
	$self->{node}{$name}->stop($mode // 'fast') if $self->is_up($name);
	return;
}

sub is_up
{
	my ($self, $name) = @_;
	return $self->{node}{$name} && defined $self->{node}{$name}{_pid};
}

# Each process of it at once, as if the machine had gone.
sub kill
{
	my ($self, $name) = @_;
	my @pids = $self->processes($name);

	delete $self->{session}{$name};
	CORE::kill 'KILL', @pids;
	$self->{node}{$name}{_pid} = undef;

	# until whoever has inherited them has taken note
	foreach my $pid (@pids)
	{
		for (1 .. 1000)
		{
			last if !-d "/proc/$pid";
			usleep(10_000);
		}
	}
	return;
}

sub freeze
{
	my ($self, $name) = @_;
	my @pids = $self->processes($name);

	CORE::kill 'STOP', $pids[0];
	@pids = $self->processes($name);
	CORE::kill 'STOP', @pids;
	$self->{frozen}{$name} = \@pids;
	return;
}

sub thaw
{
	my ($self, $name) = @_;
	my $pids = delete $self->{frozen}{$name} or return;

	delete $self->{session}{$name};
	CORE::kill 'CONT', reverse @$pids;
	return;
}

# The postmaster and its children.
sub processes
{
	my ($self, $name) = @_;
	my $postmaster = $self->{node}{$name}{_pid} // die "$name does not run";

	return ($postmaster, grep { parent_of($_) == $postmaster } map { m{/(\d+)$} } glob '/proc/[0-9]*');
}

sub parent_of
{
	my ($pid) = @_;
	open my $in, '<', "/proc/$pid/stat" or return 0;
	my $line = <$in> // '';
	return $line =~ /\) \S (\d+) /s ? $1 : 0;
}

sub restart
{
	my ($self, $name) = @_;

	$self->stop($name);
	$self->start($name);
	return;
}

sub promote
{
	my ($self, $name) = @_;
	$self->{node}{$name}->promote;
	return;
}

# A standby made anew by its upstream's data, with the settings that it had.
sub clone
{
	my ($self, $name) = @_;
	my $upstream = $self->{node}{ $upstream{$name} };
	my $data = $self->{node}{$name}->data_dir;

	$self->stop($name, 'immediate');
	rmtree($data);
	$self->base_backup($upstream, $data);
	unlink "$data/postgresql.auto.conf";
	append_to_file("$data/postgresql.auto.conf", '');
	append_to_file("$data/standby.signal", '');
	$self->write_conf($name);
	$self->start($name);
	return;
}

sub base_backup
{
	my ($self, $from, $directory) = @_;
	system_or_bail('pg_basebackup', '-D', $directory, '-h', $from->host, '-p', $from->port, '-c', 'fast', '--no-sync');
	return;
}

# ----------------------------------------------------------------------
# Its files
# ----------------------------------------------------------------------

# Settings from now on; undef: no more.  A reload is the caller's.
sub set
{
	my ($self, $name, %settings) = @_;

	foreach my $setting (keys %settings)
	{
		if (defined $settings{$setting}) { $self->{set}{$name}{$setting} = $settings{$setting} }
		else { delete $self->{set}{$name}{$setting} }
	}
	$self->write_conf($name);
	return;
}

sub set_now
{
	my ($self, $name, %settings) = @_;

	$self->set($name, %settings);
	$self->reload($name);
	return;
}

sub write_conf
{
	my ($self, $name, @more) = @_;
	my $path = $self->{node}{$name}->data_dir . '/postgresql.conf';
	my $set = $self->{set}{$name};

	$self->{base}{$name} //= slurp_file($path);
	put($path, join "\n", $self->{base}{$name}, (map { "$_ = '" . $set->{$_} =~ s/'/''/gr . q{'} } sort keys %$set), @more, '');
	return;
}

sub reload
{
	my ($self, $name) = @_;
	CORE::kill 'HUP', $self->{node}{$name}{_pid} if $self->is_up($name);
	return;
}

sub put
{
	my ($path, $text) = @_;
	open my $out, '>', $path or die "$path: $!";
	print $out $text;
	close $out;
	return;
}

sub hba_path
{
	my ($self, $name) = @_;
	return $self->{node}{$name}->data_dir . '/pg_hba.conf';
}

# Another pg_hba.conf, until hba_back().
sub hba_edit
{
	my ($self, $name, $edit) = @_;
	my $text = $self->{hba}{$name} = slurp_file($self->hba_path($name));
	put($self->hba_path($name), $edit->($text));
	return;
}

sub hba_back
{
	my ($self, $name) = @_;
	put($self->hba_path($name), delete $self->{hba}{$name});
	$self->reload($name);
	return;
}

sub clock_file
{
	my ($self, $name) = @_;
	return "$PostgreSQL::Test::Utils::tmp_check/walk_clock_$name";
}

# By how many seconds its clock is ahead.  The file keeps its place.
sub set_clock
{
	my ($self, $name, $seconds) = @_;
	my $file = $self->clock_file($name);

	open my $out, -e $file ? '+<' : '>', $file or die "$file: $!";
	syswrite $out, pack 'q2', $seconds, 0;
	close $out;
	return;
}

# ----------------------------------------------------------------------
# Connections
# ----------------------------------------------------------------------

sub conninfo
{
	my ($self, $name) = @_;
	return DiagKit::conninfo($self->{node}{ $upstream{$name} }, %{ $self->{login}{$name} }, port => $self->{net}{$name}->port);
}

# What it connects with, as $self->{login} has it.
sub set_login
{
	my ($self, $name) = @_;
	$self->set_now($name, primary_conninfo => $self->conninfo($name));
	return;
}

# Rows of a statement, on a session that stays.  Dies if the server is gone.
sub ask
{
	my ($self, $name, $sql) = @_;
	my ($rows, $messages) = eval {
		$self->{session}{$name} //= $self->open_session($name);
		$self->{session}{$name}->query($sql);
	};
	if ($@)
	{
		my $error = $@;
		delete $self->{session}{$name};
		die $error;
	}
	die "$name: $messages\n$sql" if $messages =~ /^(?:ERROR|FATAL)/m;
	return @$rows;
}

sub open_session
{
	my ($self, $name) = @_;
	my $session = WireSession->new($self->{node}{$name}, $user, 10);
	$session->query('SET synchronous_commit = local');
	return $session;
}

# Statements, each in a transaction of its own.
sub run
{
	my ($self, $name, @statements) = @_;
	my @rows;
	foreach my $statement (@statements)
	{
		@rows = $self->ask($name, $statement);
	}
	return @rows ? $rows[0][0] : undef;
}

# Ends the connection of a replica to its upstream.
sub kick
{
	my ($self, $name) = @_;
	$self->run($upstream{$name}, "SELECT pg_terminate_backend(active_pid, 5000) FROM pg_replication_slots WHERE slot_name = '$name' AND active");
	return;
}

sub write_wal
{
	my ($self, $kilobytes) = @_;
	$self->run('primary', "SELECT count(pg_logical_emit_message(false, '', repeat('x', 10000))) FROM generate_series(1, $kilobytes / 10)", 'SELECT pg_switch_wal()');
	return;
}

# Waits for something on a server, doing something meanwhile; dies after long.
sub wait_until
{
	my ($self, $name, $condition, $meanwhile) = @_;
	for (1 .. 600)
	{
		$meanwhile->() if $meanwhile;
		return if ($self->run($name, "SELECT $condition") // '') eq 't';
		usleep(50_000);
	}
	die "$name: never $condition";
}

# Drops a slot as soon as it is free.
sub drop_slot
{
	my ($self, $name, $slot) = @_;
	$self->wait_until($name, "NOT EXISTS (SELECT FROM pg_replication_slots WHERE slot_name = '$slot' AND active)");
	$self->run($name, "SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots WHERE slot_name = '$slot'");
	return;
}

sub make_slot
{
	my ($self, $name, $slot) = @_;
	$self->run($name, "SELECT pg_create_physical_replication_slot('$slot', true) WHERE NOT EXISTS (SELECT FROM pg_replication_slots WHERE slot_name = '$slot')");
	return;
}

# A session of its own that holds what the statements take, until released.
sub hold
{
	my ($self, $name, @statements) = @_;
	my $session = $self->{held}{$name} = $self->open_session($name);
	foreach my $statement (@statements)
	{
		my (undef, $messages) = $session->query($statement);
		die "$messages\n$statement" if $messages =~ /^ERROR/m;
	}
	return;
}

sub release
{
	my ($self, $name) = @_;
	delete $self->{held}{$name};
	return;
}

# ----------------------------------------------------------------------
# Programs
# ----------------------------------------------------------------------

sub start_program
{
	my ($self, @command) = @_;
	my $pid = fork // die "fork: $!";
	return $pid if $pid;
	open STDIN, '<', '/dev/null';
	open STDOUT, '>', '/dev/null';
	open STDERR, '>', '/dev/null';
	exec @command or POSIX::_exit(1);
}

sub end_program
{
	my ($pid) = @_;
	return if !$pid;
	local $?;
	CORE::kill 'KILL', $pid;
	waitpid $pid, 0;
	return;
}

sub stop_consumer
{
	my ($self) = @_;
	end_program(delete $self->{consumer});
	return;
}

# To be called now and then: a consumer that has ended is started again.
sub tick
{
	my ($self) = @_;
	my $pid = $self->{consumer};
	local $?;

	delete $self->{consumer} if $pid && waitpid($pid, WNOHANG) == $pid;
	return if !$self->{consuming} || $self->{consumer} || !$self->is_up('primary') || $self->{frozen}{primary};
	$self->{consumer} = $self->start_program('pg_recvlogical', '-d', $self->{node}{primary}->connstr('postgres'),
		'-S', 'consumer', '--start', '-f', '-', '-s', 1, '-F', 1, '--no-loop');
	return;
}

sub receive_as
{
	my ($self, $name) = @_;
	my $upstream = $self->{node}{ $upstream{$name} };
	my $directory = PostgreSQL::Test::Utils::tempdir();
	$self->{program} = $self->start_program('pg_receivewal', '-D', $directory, '-h', $upstream->host, '-p', $upstream->port, '-S', $name, '-n', '-s', 1);
	return;
}

sub stop_receiving
{
	my ($self) = @_;
	end_program(delete $self->{program});
	return;
}

1;
