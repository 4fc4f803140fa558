# A session that speaks the server's protocol itself: thousands of statements
# without a psql for each, bytes as they are, and what the server says of a
# statement apart from its rows.
package WireSession;

use strict;
use warnings FATAL => 'all';

use Errno ();
use IO::Socket::IP;
use IO::Socket::UNIX;
use Socket qw(SOL_SOCKET SO_RCVTIMEO);

# A session of a user on a node's Unix socket, which must not ask for a password.
# With seconds, a server that is silent for so long is as good as gone.
sub new
{
	my ($class, $node, $user, $seconds) = @_;
	my $self = bless { socket => unix_socket($node) }, $class;

	setsockopt $self->{socket}, SOL_SOCKET, SO_RCVTIMEO, pack('l!l!', $seconds, 0) if $seconds;
	send_startup($self->{socket}, user => $user, database => 'postgres');
	while (my ($type, $body) = message($self->{socket}))
	{
		return $self if $type eq 'Z';
		die 'no session: ' . words($body) if $type eq 'E';
	}
	die 'the server closed the connection';
}

# One statement.  Its rows, each an array, and its messages: notices, warnings
# and the error, as psql shows them.
sub query
{
	my ($self, $sql) = @_;
	my (@rows, @messages);

	send_message($self->{socket}, 'Q', "$sql\0");
	while (my ($type, $body) = message($self->{socket}))
	{
		return (\@rows, join("\n", @messages)) if $type eq 'Z';
		push @rows, [ columns($body) ] if $type eq 'D';
		push @messages, words($body) if $type eq 'N' || $type eq 'E';
	}
	die "the server closed the connection: @messages\n$sql";
}

# Has the server forked for a connection, so done what came before?
sub is_served
{
	my ($node) = @_;
	my $socket = unix_socket($node);

	syswrite($socket, pack('NN', 8, 80877103));
	return sysread($socket, my $answer, 1);
}

# What the server first asks of a replication connection over TCP, without TLS,
# from an address of this machine: the number of the request, or its error.
sub first_answer
{
	my ($node, $role, $address) = @_;
	my $socket = IO::Socket::IP->new(
		LocalHost => $address,
		PeerHost => $address =~ /:/ ? '::1' : '127.0.0.1',
		PeerPort => $node->port,
		Proto => 'tcp') or die "could not connect: $@";

	send_startup($socket, user => $role, replication => 'true');
	my ($type, $body) = message($socket) or die 'no answer';
	return $type eq 'R' ? unpack('N', $body) : words($body);
}

sub unix_socket
{
	my ($node) = @_;

	return IO::Socket::UNIX->new(
		Peer => $node->host . '/.s.PGSQL.' . $node->port)
	  || die "could not connect: $!";
}

sub send_startup
{
	my ($socket, @parameters) = @_;

	send_message($socket, '',
		pack('N', 196608) . join('', map { "$_\0" } @parameters) . "\0");
	return;
}

sub send_message
{
	my ($socket, $type, $body) = @_;

	syswrite($socket, $type . pack('N', length($body) + 4) . $body);
	return;
}

# One message of the server: its type and contents; nothing at the end.
sub message
{
	my ($socket) = @_;
	my $head = received($socket, 5) // return;
	my ($type, $length) = unpack 'aN', $head;
	my $body = received($socket, $length - 4) // return;

	return ($type, $body);
}

sub received
{
	my ($socket, $length) = @_;
	my $bytes = '';

	while (length($bytes) < $length)
	{
		my $got = sysread($socket, $bytes, $length - length($bytes), length($bytes));

		# a child that ends is no reason to give up
		return if !$got && !(!defined $got && $!{EINTR});
	}
	return $bytes;
}

sub columns
{
	my ($body) = @_;
	my ($count, @values) = unpack('n', $body);
	my $position = 2;

	foreach (1 .. $count)
	{
		my $length = unpack 'l>', substr($body, $position, 4);
		push @values,
		  $length < 0 ? undef : substr($body, $position + 4, $length);
		$position += 4 + ($length < 0 ? 0 : $length);
	}
	return @values;
}

sub words
{
	my ($body) = @_;
	my %field = map { substr($_, 0, 1) => substr($_, 1) } split /\0/, $body;

	return join "\n", "$field{V}:  $field{M}",
	  $field{D} ? "DETAIL:  $field{D}" : (),
	  $field{H} ? "HINT:  $field{H}" : ();
}

1;
