# The servers of a walk: a primary, two replicas of it, a cascade behind the
# first of them, a logical consumer; between any two a network that can be cut.
package WalkTree;

use strict;
use warnings FATAL => 'all';

use DiagKit qw(set_hba);
use File::Basename qw(dirname);
use File::Path qw(rmtree);
use File::Spec::Functions qw(rel2abs);
use IO::Socket::IP;
use JoinKit ();
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
	'max_wal_size = 256MB', 'min_wal_size = 64MB', 'wal_keep_size = 64MB', 'max_wal_senders = 9', 'max_replication_slots = 10',
	'max_connections = 40', 'autovacuum_freeze_max_age = 100000',
	'wal_sender_timeout = 3s', 'wal_receiver_timeout = 3s', 'wal_receiver_status_interval = 1s', 'wal_retrieve_retry_interval = 100ms', 'authentication_timeout = 2s',
	'max_standby_streaming_delay = -1', 'archive_mode = on', q{archive_command = '/bin/true'},
	q{shared_preload_libraries = 'pg_replica_kit'}, 'replica_kit.check_interval = 100ms', 'replica_kit.alert_after = 0',
	'replica_kit.warning_forecast = -1', 'replica_kit.critical_forecast = -1', 'replica_kit.warning_lag = 1MB', 'replica_kit.lag_grace = 500ms',
	'replica_kit.warning_disconnected = 500ms', 'replica_kit.critical_disconnected = 1h');

# Makes all, and keeps a copy of how it was at first.  What is before the names of
# the servers tells several trees apart.
sub new
{
	my ($class, $prefix) = @_;
	my $self = bless { prefix => $prefix // '', node => {}, net => {}, set => {}, frozen => {}, hba => {}, held => {}, level => 0 }, $class;
	my $primary = $self->{node}{primary} = PostgreSQL::Test::Cluster->new("$self->{prefix}primary");

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
	my $node = $self->{node}{$name} = PostgreSQL::Test::Cluster->new("$self->{prefix}$name");

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
	@$self{qw(set nonsense frozen hba held session crowd level)} = ({}, {}, {}, {}, {}, {}, {}, 0);
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
	$self->disperse($_) foreach keys %{ $self->{crowd} };
	$self->stop_receiving;
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
	$node->start(fail_ok => 1) || die "$name does not start";
	return;
}

sub stop
{
	my ($self, $name, $mode) = @_;

	delete $self->{session}{$name};
	return if !$self->is_up($name);
	$self->{node}{$name}->stop($mode // 'fast', fail_ok => 1) || die "$name does not stop";
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

# Waits until a standby has replayed all that its upstream has.
sub catch_up
{
	my ($self, $name) = @_;
	my $upstream = $upstream{$name};
	my $lsn = $self->run($upstream, 'SELECT CASE WHEN pg_is_in_recovery() THEN pg_last_wal_replay_lsn() ELSE pg_current_wal_lsn() END');
	$self->wait_until($name, "pg_last_wal_replay_lsn() >= '$lsn'");
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

# A standby that was promoted becomes one again, by its upstream's script.  Past the
# network, which waits for a reader of one connection before it opens the next.
sub demote
{
	my ($self, $name) = @_;
	my $node = $self->{node}{$name};
	my $script = JoinKit::write_script($self->{node}{ $upstream{$name} }, $name, '127.0.0.1', $self->{node}{ $upstream{$name} }->port);

	$self->stop($name);

	# what the last one has kept, since nobody else has it
	rmtree($node->data_dir . '.pg_replica_kit');
	local $ENV{LD_PRELOAD} = $wall_clock;
	local $ENV{PRK_WALL_CLOCK} = $self->clock_file($name);
	my ($code, $out, $err) = JoinKit::run_script($script, { PGPASSWORD => $self->{login}{$name}{password} }, '--pgdata', $node->data_dir, '--demote', '--remove-old');
	die "--demote: $code\n$out$err" if $code != 0;
	JoinKit::adopt_replica($node);

	# what was set before, and nothing else
	put($node->data_dir . '/postgresql.auto.conf', '');
	$self->write_conf($name);
	$self->reload($name);
	return;
}

# More connections than were allowed on any of these servers so far; for the
# primary first.
sub raise
{
	my ($self, $name) = @_;
	$self->{level}++ if $name eq 'primary';
	$self->set($name, max_connections => 40 + $self->{level});
	$self->restart($name);
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
	my ($self, $name) = @_;
	my $path = $self->{node}{$name}->data_dir . '/postgresql.conf';
	my $set = $self->{set}{$name};

	$self->{base}{$name} //= slurp_file($path);
	put($path, join "\n", $self->{base}{$name}, (map { "$_ = '" . $set->{$_} =~ s/'/''/gr . q{'} } sort keys %$set), $self->{nonsense}{$name} // '', '');
	return;
}

# A line that no server can start with, or none.
sub set_nonsense
{
	my ($self, $name, $line) = @_;
	$self->{nonsense}{$name} = $line;
	$self->write_conf($name);
	return;
}

sub reload
{
	my ($self, $name) = @_;
	CORE::kill 'HUP', $self->{node}{$name}{_pid} if $self->is_up($name);
	return;
}

# Whole or not at all: a server that is still reloading would take what is not
# there yet for unset.
sub put
{
	my ($path, $text) = @_;
	open my $out, '>', "$path.new" or die "$path: $!";
	print $out $text;
	close $out;
	rename "$path.new", $path or die "$path: $!";
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
	return "$PostgreSQL::Test::Utils::tmp_check/walk_clock_$self->{prefix}$name";
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

# May it create segments of WAL?
sub room
{
	my ($self, $name, $may) = @_;
	chmod $may ? 0700 : 0500, $self->{node}{$name}->data_dir . '/pg_wal' or die "$name: chmod: $!";
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

# Connections that take all of a server's walsenders, or some that hang at the
# password, as long as they are kept.
sub crowd
{
	my ($self, $name) = @_;
	my $node = $self->{node}{$name};

	for (1 .. 50)
	{
		my $socket = WireSession::unix_socket($node);
		WireSession::send_startup($socket, user => $user, replication => 'true', application_name => 'crowd');
		my $type = 'E';
		while (($type) = WireSession::message($socket))
		{
			last if $type eq 'Z' || $type eq 'E';
		}
		return if ($type // 'E') eq 'E';
		push @{ $self->{crowd}{$name} }, $socket;
	}
	die "$name: there is always another walsender";
}

sub disperse
{
	my ($self, $name) = @_;
	delete $self->{crowd}{$name};
	return;
}

# Logins to the upstream of a standby, under its name, that say nothing when they
# are asked for the password.
sub hang_at_login
{
	my ($self, $name) = @_;
	my $node = $self->{node}{ $upstream{$name} };

	foreach (1 .. 3)
	{
		my $socket = IO::Socket::IP->new(PeerHost => '127.0.0.1', PeerPort => $node->port, Proto => 'tcp') or die "could not connect: $@";
		WireSession::send_startup($socket, user => $self->{login}{$name}{user}, replication => 'true', application_name => $name);
		my ($type) = WireSession::message($socket);
		die "$name: not asked for a password" if ($type // '') ne 'R';
		push @{ $self->{crowd}{"login of $name"} }, $socket;
	}
	return;
}

# ----------------------------------------------------------------------
# What the logs say
# ----------------------------------------------------------------------

# Lines in the servers' logs since this was last asked that no event explains: a
# server that falls, a process that is ended by a signal.
sub bad_log_lines
{
	my ($self) = @_;
	my @lines;

	foreach my $name (@names)
	{
		open my $in, '<', $self->{node}{$name}->logfile or next;
		seek $in, $self->{read}{$name} // 0, 0;
		while (my $line = <$in>)
		{
			chomp $line;
			push @lines, "$name: $line" if $line =~ /PANIC: |TRAP: |was terminated by signal/;
		}
		$self->{read}{$name} = tell $in;
	}
	return @lines;
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
		'-S', 'consumer', '--start', '-f', '-', '-s', 1, '-F', 1, '--no-loop', $self->{consuming} eq 'leaves' ? ('--endpos', '0/1') : ());
	return;
}

# In vain, if there is none left.
sub ask_for_slot
{
	my ($self, $name) = @_;
	my $node = $self->{node}{$name};

	# not as the consumer, whose next stream would say that there is one by now
	local $ENV{PGAPPNAME} = 'one_more';
	my $pid = $self->start_program('pg_receivewal', '-h', $node->host, '-p', $node->port, '-S', 'one_more', '--create-slot');
	local $?;
	waitpid $pid, 0;
	die "$name: there was a slot left" if $? == 0;
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
