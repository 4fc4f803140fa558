# A server whose system calls can be made to fail, and sessions with it.  See
# fault.c for what can be done to them.

package Fault;

use strict;
use warnings FATAL => 'all';

use Errno ();
use File::Basename qw(dirname);
use File::Spec;
use IPC::Open3;
use IPC::Run;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use POSIX ();
use Test::More;
use Time::HiRes ();

# enum Action
my %actions = (
	count => 0,
	fail => 1,
	kill_before => 2,
	kill_after => 3,
	crash_before => 4,
	crash_after => 5,
	run_before => 6,
	run_after => 7);

# struct Control
my $control_format = 'l7 Z1024 Z64 Z65536';
my $control_size = length pack($control_format, (0) x 7, '', '', '');

# Compile the library; undef, with the reason printed, where that can't be.
sub build
{
	my ($directory) = @_;
	my $library = "$directory/fault.so";
	my $source = dirname(__FILE__) . '/fault.c';

	return undef if $^O ne 'linux';
	for my $cc (split(/\n/, qx(pg_config --cc 2>/dev/null)), 'cc', 'gcc')
	{
		return $library
		  if system("$cc -O1 -fPIC -shared -o '$library' '$source' -ldl >'$directory/fault.log' 2>&1") == 0;
	}
	diag slurp_file("$directory/fault.log");
	return undef;
}

# A new server, not started, with the kit's settings of these tests and with
# pg_hba.conf in a folder of its own.
sub new
{
	my ($class, $name, %options) = @_;
	my $directory = PostgreSQL::Test::Utils::tempdir;
	my $library = build($directory) or return undef;
	my $node = PostgreSQL::Test::Cluster->new($name);
	my $self = bless { node => $node, library => $library, control => "$directory/control" }, $class;

	$node->init(allows_streaming => 1);
	# In a folder whose name says whose it is, for the library to see it.
	$self->{folder} = $node->basedir . '/' . ($options{folder} // 'pg_hba.conf.d');
	$self->{hba} = "$self->{folder}/pg_hba.conf";
	mkdir $self->{folder} or die "could not make \"$self->{folder}\": $!";
	append_to_file($self->{hba}, <<~'HBA');
		# somebody's own
		local	all	all		trust
		host  all  "some one"  10.9.0.0/16	scram-sha-256
		HBA
	chmod 0640, $self->{hba} or die "could not chmod \"$self->{hba}\": $!";
	# of another group than a new file would be, where there is one
	my ($group) = grep { $_ != $) + 0 } split / /, $);
	chown -1, $group, $self->{hba} if defined $group;
	$node->append_conf('postgresql.conf', <<~CONF);
		hba_file = '$self->{hba}'
		listen_addresses = '127.0.0.1'
		max_wal_senders = 10
		max_replication_slots = 40
		log_line_prefix = '%m [%p] '
		fsync = on
		log_statement = none
		CONF
	$self->disarm;
	return $self;
}

# Start it; wrap => a command that runs pg_ctl in its own way.
sub start
{
	my ($self, %options) = @_;
	my $node = $self->{node};
	local $ENV{LD_PRELOAD} = $self->{library};
	local $ENV{PRK_FAULT} = $self->{control};

	return $node->start(%options) if !$options{wrap};

	local $ENV{PGAPPNAME} = undef;
	delete $ENV{PGAPPNAME};
	system(@{ $options{wrap} }, 'pg_ctl', '-s', '-w', '-D', $node->data_dir, '-l', $node->logfile,
		'-o', '--cluster-name=' . $node->name, 'start') == 0
	  or die 'could not start the server';
	$node->_update_pid(1);
	return 1;
}

# Start again what has been killed, as soon as its last process is gone.  False
# if it doesn't come up.
sub restart_crashed
{
	my ($self) = @_;
	my $node = $self->{node};
	my $directory = $node->data_dir;
	my $deadline = Time::HiRes::time() + 2 * $PostgreSQL::Test::Utils::timeout_default;
	my ($pid) = -e "$directory/postmaster.pid" ? slurp_file("$directory/postmaster.pid") =~ /^(\d+)/ : ();

	while (Time::HiRes::time() < $deadline)
	{
		if (has_ended($pid) && !grep { (readlink("$_/cwd") // '') eq $directory } glob '/proc/[0-9]*')
		{
			# Until somebody waits for the postmaster its number is in use.
			unlink "$directory/postmaster.pid", $node->host . '/.s.PGSQL.' . $node->port . '.lock';
			$node->{_pid} = undef;
			return 1 if $self->start(fail_ok => 1);

			# pg_ctl may have lost patience with one that still recovers.
			return $self->wait_until_up if defined $node->{_pid};
			diag('the server was refused its start once more');
		}
		Time::HiRes::usleep(100_000);
	}
	return 0;
}

# Is the process gone, but for the entry that its parent has to collect?
sub has_ended
{
	my ($pid) = @_;

	open my $in, '<', '/proc/' . ($pid // 'nobody') . '/stat' or return 1;
	return (<$in> // ') X') =~ /\) [ZX]/;
}

# Wait until the server lets sessions in, by a program that reads no input:
# one that is refused ends before it has read its query, at which IPC::Run
# dies.
sub wait_until_up
{
	my ($self) = @_;
	my @command = ('psql', '-XAtq', '-d', $self->{node}->connstr('postgres'), '-c', 'SELECT 1');

	for (1 .. 10 * $PostgreSQL::Test::Utils::timeout_default)
	{
		return 1 if IPC::Run::run(\@command, '<', File::Spec->devnull, '>', \my $out, '2>', \my $err);
		Time::HiRes::usleep(100_000);
	}
	return 0;
}

# ----------------------------------------------------------------------
# What shall happen
# ----------------------------------------------------------------------

# Have process $pid do $action at its call number $call.
sub arm
{
	my ($self, $pid, $action, $call, %options) = @_;

	open my $out, '+<', $self->{control} or die "could not open \"$self->{control}\": $!";
	binmode $out;
	# The pid last, the process looks at it first.
	my $text = pack($control_format, $pid, $actions{$action}, $call,
		$options{error} ? Errno->can($options{error})->() : 0,
		$options{from_then_on} ? 1 : 0,
		0, 0, $options{command} // '', $options{only} // '', '');
	substr($text, 0, 4) = pack('l', 0);
	print $out $text;
	$out->flush;
	seek $out, 0, 0;
	print $out pack('l', $pid);
	close $out;
	return;
}

sub disarm
{
	my ($self) = @_;

	if (!-e $self->{control})
	{
		open my $out, '>', $self->{control} or die "could not make \"$self->{control}\": $!";
		print $out "\0" x $control_size;
		close $out;
	}
	open my $out, '+<', $self->{control} or die "could not open \"$self->{control}\": $!";
	print $out pack('l', 0);
	close $out;
	return;
}

# What has happened: the number of calls, how often it acted, and the calls.
sub report
{
	my ($self) = @_;
	my (undef, undef, undef, undef, undef, $count, $hits, undef, undef, $trace) =
	  unpack $control_format, slurp_file($self->{control});

	return ($count, $hits, split /\n/, $trace);
}

#
# A failure to open or fsync a folder of slots, or a slot's file after it got
# its name, is a PANIC of PostgreSQL itself, as in
# pg_create_physical_replication_slot(): fsync_fname() raises what
# data_sync_elevel() says, and CreateSlotOnDisk(), SaveSlotToPath() and
# ReplicationSlotDropPtr() call it in a critical section.
#
sub is_panic_by_policy
{
	my ($call) = @_;

	return $call =~ m!^(?:open|fsync|close) (?:\S*/)?pg_replslot(?:/[xy](?:\.tmp)?(?:/state)?)?$!;
}

# Does the call change something on disk?
sub is_writing
{
	my ($call) = @_;

	return $call =~ m!^(?:write|rename|exchange|link|unlink|mkdir|rmdir|fchmod|fchown) ! ||
	  $call =~ m!^open .*(?:state\.tmp|\.pg_replica_kit)$!;
}

# ----------------------------------------------------------------------
# What there is
# ----------------------------------------------------------------------

# pg_hba.conf: owner, mode and every byte.
sub file_state
{
	my ($self) = @_;
	my @stat = stat $self->{hba};

	return join ' ', @stat[ 2, 4, 5 ], slurp_file($self->{hba});
}

# What lies beside it.
sub beside
{
	my ($self) = @_;

	return join ' ', grep { $_ ne $self->{hba} } glob "$self->{folder}/* $self->{folder}/.[!.]*";
}

# Roles with their comments, slots, and the folders of slots, with what a
# restart would make of them.
sub server_state
{
	my ($self, $session) = @_;
	my $state = $session->run(<<~'SQL');
		SELECT 'role ' || rolname || coalesce(' ' || pg_catalog.shobj_description(oid, 'pg_authid'), '')
		FROM pg_catalog.pg_authid WHERE rolname !~ '^pg_'
		UNION ALL
		SELECT 'slot ' || slot_name || ' ' || slot_type || CASE WHEN temporary THEN ' temporary' ELSE '' END ||
		       CASE WHEN active THEN ' active' ELSE '' END || CASE WHEN restart_lsn IS NULL THEN '' ELSE ' reserved' END
		FROM pg_catalog.pg_replication_slots
		ORDER BY 1;
		SQL
	return $state . join '', map { "$_\n" } $self->slots_on_disk;
}

# RestoreSlotFromDisk() removes a slot whose file says anything but persistent.
sub slots_on_disk
{
	my ($self) = @_;
	my @slots;

	for my $folder (sort glob $self->{node}->data_dir . '/pg_replslot/*')
	{
		my ($name) = $folder =~ m!([^/]+)$!;
		my $persistency = 3;

		if (open my $in, '<', "$folder/state")
		{
			local $/ = undef;
			$persistency = unpack 'x84 l', <$in>;
		}
		push @slots, "on disk $name " . qw(persistent ephemeral temporary incomplete) [$persistency];
	}
	return @slots;
}

# ----------------------------------------------------------------------
# Sessions
# ----------------------------------------------------------------------

sub connect
{
	my ($self, %options) = @_;
	my $node = $self->{node};
	my $pid = open3(my $in, my $out, undef, 'psql', '-XAtq', '-v', 'VERBOSITY=verbose',
		'-d', $options{connstr} // $node->connstr('postgres'));
	my $session = bless { in => $in, out => $out, psql => $pid, number => 0, text => '' }, 'Fault::Session';

	$in->autoflush(1);
	$session->run(q{SET client_min_messages = 'warning';}) if $options{quiet};
	($session->{pid}) = $session->run('SELECT pg_backend_pid();') =~ /^(\d+)$/m
	  or die 'could not connect';
	return $session;
}

package Fault::Session;

# Run, and return all that comes back; $session->{ended} is set when the
# connection is lost.
sub run
{
	my ($self, $sql, %options) = @_;

	$self->send($sql);
	return $self->wait;
}

sub send
{
	my ($self, $sql) = @_;
	my $mark = 'end of ' . ++$self->{number};

	local $SIG{PIPE} = 'IGNORE';
	print { $self->{in} } "$sql\n\\echo $mark\n\\warn $mark\n";
	return;
}

sub wait
{
	my ($self) = @_;
	my $mark = "end of $self->{number}";
	my $deadline = Time::HiRes::time() + $PostgreSQL::Test::Utils::timeout_default;

	# Both streams come by one pipe, each with its mark.
	until ($self->{text} =~ /^\Q$mark\E\n(?:.*\n)*?\Q$mark\E\n/m)
	{
		my $bits = '';

		vec($bits, fileno $self->{out}, 1) = 1;
		die 'a session does not answer' if Time::HiRes::time() > $deadline;
		next unless select $bits, undef, undef, 1;
		if (!sysread $self->{out}, $self->{text}, 65536, length $self->{text})
		{
			$self->{ended} = 1;
			last;
		}
	}
	my $text = $self->{text};
	$text =~ s/^\Q$mark\E\n//mg;
	$self->{text} = '';
	$self->{ended} = 1 if $text =~ /server closed the connection|connection to server was lost/;
	return $text;
}

sub quit
{
	my ($self) = @_;

	close $self->{in};
	close $self->{out};
	waitpid $self->{psql}, 0;
	return;
}

1;
