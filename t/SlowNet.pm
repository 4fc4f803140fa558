# A network between two servers that a test can make slow or let die: a process
# that hands on what comes, at the pace and for those connections that the test
# says.
package SlowNet;

use strict;
use warnings FATAL => 'all';

use IO::Select;
use IO::Socket::INET;
use POSIX ();
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Socket;
use Time::HiRes ();

# A network to the port, which is there until the test ends.
sub new
{
	my ($class, $target) = @_;
	my $self = bless {
		port => PostgreSQL::Test::Cluster::get_free_port(),
		rate => 0,
		dead => 0,
		cut => '',
		owner => $$
	}, $class;
	$self->{file} = "$PostgreSQL::Test::Utils::tmp_check/slow_net_$self->{port}";
	my $listener = IO::Socket::INET->new(
		LocalAddr => '127.0.0.1',
		LocalPort => $self->{port},
		Listen => 16,
		ReuseAddr => 1) or die "could not listen: $!";

	$self->tell(0, 0);
	$self->{pid} = fork // die "could not fork: $!";
	if ($self->{pid} == 0)
	{
		eval { serve($listener, $target, $self->{file}) };
		POSIX::_exit(0);
	}
	close $listener;
	return $self;
}

sub port
{
	my ($self) = @_;
	return $self->{port};
}

# Bytes a second towards the standby, 0 for all that come; and whether the
# connections that there have been until now are dead.
sub tell
{
	my ($self, $rate, $dead) = @_;
	@$self{qw(rate dead)} = ($rate, $dead ? 1 : 0);
	$self->write_file;
	return;
}

# Nothing passes in a direction, 'up' to the primary, 'down' to the standby, or
# 'both'; '': it does.  That is so for new connections, too.
sub cut
{
	my ($self, $direction) = @_;
	$self->{cut} = $direction;
	$self->write_file;
	return;
}

sub write_file
{
	my ($self) = @_;
	open my $out, '>', "$self->{file}.new" or die "slow net: $!";
	print $out "$self->{rate} $self->{dead} $self->{cut}\n";
	close $out;
	rename "$self->{file}.new", $self->{file} or die "slow net: $!";
	return;
}

# The bytes that it has carried so far, both ways.
sub carried
{
	my ($self) = @_;
	return -s "$self->{file}.carried" // 0;
}

sub DESTROY
{
	my ($self) = @_;
	return if !$self->{pid} || $self->{owner} != $$;
	local $?;
	kill 'KILL', $self->{pid};
	waitpid $self->{pid}, 0;
	return;
}

# To the primary, with little room in between.
sub connect_to
{
	my ($port) = @_;
	socket my $socket, PF_INET, SOCK_STREAM, 0 or return undef;
	setsockopt $socket, SOL_SOCKET, SO_RCVBUF, pack('i', 65536);
	connect $socket, pack_sockaddr_in($port, INADDR_LOOPBACK) or return undef;
	return $socket;
}

sub serve
{
	my ($listener, $target, $file) = @_;
	my @links;
	my $last = Time::HiRes::time();
	my $budget = 0;
	my $dead_links = 0;
	my $carried = 0;

	# As large as what was carried, and empty.
	open my $counter, '>', "$file.carried" or return;
	local $SIG{PIPE} = 'IGNORE';
	while (getppid() != 1)
	{
		open my $in, '<', $file or last;
		my ($rate, $dead, $cut) = split ' ', <$in>;
		$cut //= '';
		close $in;

		# those that are gone need no place
		@links = grep { defined } @links if !$dead;
		$dead_links = !$dead ? 0 : $dead_links || @links;

		my $now = Time::HiRes::time();
		$budget = $rate == 0 ? 65536 : $budget + ($now - $last) * $rate;
		$budget = 65536 if $budget > 65536;
		$last = $now;

		my $select = IO::Select->new($listener);
		foreach my $number (0 .. $#links)
		{
			my $link = $links[$number] or next;
			next if $number < $dead_links;
			$select->add($link->{standby}) if $cut ne 'up' && $cut ne 'both';
			$select->add($link->{primary}) if $cut ne 'down' && $cut ne 'both' && $budget >= 1024;
		}
		foreach my $socket ($select->can_read($rate == 0 ? 0.1 : 0.02))
		{
			if ($socket == $listener)
			{
				my $standby = $listener->accept or next;
				my $primary = connect_to($target);
				push @links, defined $primary ? { standby => $standby, primary => $primary } : undef;
				next;
			}
			my ($link) = grep { $_ && ($_->{standby} == $socket || $_->{primary} == $socket) } @links;
			next if !$link;
			my $down = $socket == $link->{primary};
			my $size = $down && $rate != 0 && $budget < 65536 ? int $budget : 65536;
			my $got = $size > 0 ? sysread $socket, my $data, $size : undef;
			next if $size <= 0;
			my $peer = $down ? $link->{standby} : $link->{primary};
			if (!$got || !write_all($peer, $data))
			{
				close $_ for $socket, $peer;
				$_ && $_ == $link && ($_ = undef) for @links;
				next;
			}
			$budget -= $got if $down && $rate != 0;
			$carried += $got;
			truncate $counter, $carried;
		}
	}
	return;
}

sub write_all
{
	my ($socket, $data) = @_;
	while (length $data)
	{
		my $done = syswrite $socket, $data or return 0;
		substr $data, 0, $done, '';
	}
	return 1;
}

1;
