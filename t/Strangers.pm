# Connections of those who have no business here: startup packets of any bytes,
# from an address of their own, and wrong passwords.
package Strangers;

use strict;
use warnings FATAL => 'all';

use Exporter 'import';
use IO::Socket::INET;
use MIME::Base64 qw(encode_base64);

our @EXPORT = qw($stranger knock);

# Where strangers come from; the replicas of the tests are at 127.0.0.1.
our $stranger = '127.0.0.66';

# One connection to the node from that address with these parameters, in order;
# where the server asks for a password, it gets a wrong one.  Returns the
# SQLSTATE of the server's error, or '' if it just hangs up.
sub knock
{
	my ($node, $address, @parameters) = @_;
	my $socket = IO::Socket::INET->new(
		LocalAddr => $address,
		PeerAddr => '127.0.0.1',
		PeerPort => $node->port,
		Timeout => 60) or die "could not connect: $!";
	my $body = pack('N', 196608) . join('', map { "$_\0" } @parameters) . "\0";
	my $nonce = 'n' x 18;

	print {$socket} pack('N', length($body) + 4) . $body;
	while (1)
	{
		my ($type, $answer) = message($socket) or return '';
		return $answer =~ /(?:^|\0)C(\w{5})\0/ ? $1 : '?' if $type eq 'E';
		next if $type ne 'R';

		my $kind = unpack 'N', $answer;
		return 'let in' if $kind == 0;
		if ($kind == 10)
		{
			my $first = "n,,n=,r=$nonce";
			say_to($socket, "SCRAM-SHA-256\0" . pack('N', length $first) . $first);
		}
		elsif ($kind == 11)
		{
			my ($whole) = $answer =~ /r=([^,]*),/;
			say_to($socket, "c=biws,r=$whole,p=" . encode_base64('x' x 32, ''));
		}
		else
		{
			say_to($socket, "wrong\0");
		}
	}
}

sub say_to
{
	my ($socket, $body) = @_;
	print {$socket} 'p' . pack('N', length($body) + 4) . $body;
	return;
}

# One message of the server: its type and contents; nothing at the end.
sub message
{
	my ($socket) = @_;
	my $read = read($socket, my $head, 5);
	return if ($read // 0) < 5;
	my ($type, $length) = unpack 'aN', $head;
	my $body = '';
	return if $length > 4 && (read($socket, $body, $length - 4) // 0) < $length - 4;
	return ($type, $body);
}

1;
