# Whoever answers at the upstream's address.  Listens on a port of its own and
# speaks the frontend/backend protocol, version 3: what it is not told to answer
# itself it passes on to a real server, and back, as somebody between the two
# does.  SCRAM without channel binding does not keep such a one out.
#
# A case is a list of what to answer: { question => ..., column => N, value =>
# BYTES } puts BYTES (undef: NULL) into that column of the real answer; { question
# => ..., act => NAME } does what %acts has under that name.  Only connections of
# the script's own psql (replication=1) get hostile answers, except for questions
# that begin with "any_".  { asks => QUESTION } limits an item to connections that
# ask the kit that.
package HostileUpstream;

use strict;
use warnings FATAL => 'all';

use File::Temp qw(tempdir);
use IO::Select;
use IO::Socket::INET;
use POSIX qw(_exit);
use Storable qw(nstore retrieve);

my %questions = (
	identify => qr/^\s*IDENTIFY_SYSTEM/i,
	version => qr/^\s*SHOW\s+"?server_version_num/i,
	setting => qr/^\s*SHOW\s+"?max_/i,
	answer => qr/^\s*SHOW\s+replica_kit\.answer/i,
	slot => qr/^\s*READ_REPLICATION_SLOT/i,
	start => qr/^\s*START_REPLICATION/i,
	drop => qr/^\s*DROP_REPLICATION_SLOT/i,
	create => qr/^\s*CREATE_REPLICATION_SLOT/i,
	backup => qr/^\s*BASE_BACKUP/i);

# What a hostile server does instead of an answer.  Each gets the client's
# socket and the case's words.
my %acts = (
	# until the client gives up: its walsender would not end before
	silence => sub {
		my ($socket) = @_;
		1 while IO::Select->new($socket)->can_read(600) && sysread $socket, my $bytes, 65536;
	},
	close => sub { },
	error => sub {
		my ($socket, $words) = @_;
		put($socket, error_message($words), ready());
		pass_time($socket);
	},
	no_rows => sub {
		my ($socket) = @_;
		put($socket, row_description(), complete(), ready());
		pass_time($socket);
	},
	say => sub {
		my ($socket, $words) = @_;
		put($socket, row_description(), data_row($words), complete(), ready());
		pass_time($socket);
	},
	two_rows => sub {
		my ($socket) = @_;
		put($socket, row_description(), (data_row('physical')) x 2, complete(),
			ready());
		pass_time($socket);
	},
	endless_rows => sub {
		my ($socket) = @_;
		put($socket, row_description());
		flood($socket, data_row('x' x 1000));
	},
	endless_row => sub {
		my ($socket) = @_;
		put($socket, row_description(), 'D', pack('NnN', 0x7ffffff0, 1, 0x7fffff00));
		flood($socket, 'x' x 1000);
	},
	endless_notices => sub {
		my ($socket) = @_;
		flood($socket, notice('x' x 1000));
	},
	endless_copy => sub {
		my ($socket) = @_;
		put($socket, message_of('H', pack('Cn', 0, 0)));
		flood($socket, message_of('d', 'x' x 1000));
	},
	garbage => sub {
		my ($socket) = @_;
		put($socket, join '', map { chr(255 - $_ % 256) } 1 .. 100_000);
		pass_time($socket);
	},
	# the following are answers to the startup message
	clear_text => sub {
		my ($socket) = @_;
		put($socket, message_of('R', pack('N', 3)));
		pass_time($socket);
	},
	md5 => sub {
		my ($socket) = @_;
		put($socket, message_of('R', pack('Na4', 5, 'salt')));
		pass_time($socket);
	},
	gss => sub {
		my ($socket) = @_;
		put($socket, message_of('R', pack('N', 7)));
		pass_time($socket);
	},
	# lets everybody in, and answers each question with the case's words
	let_in => sub {
		my ($socket, $words) = @_;
		put($socket, message_of('R', pack('N', 0)),
			message_of('S', "server_version\0" . "15.0\0"),
			message_of('S', "client_encoding\0UTF8\0"), ready());
		while (my ($type) = message($socket))
		{
			last if $type eq 'X';
			put($socket, row_description(), data_row($words), complete(),
				ready())
			  if $type eq 'Q';
		}
	},
	# makes the client calculate for an hour
	iterations => sub {
		my ($socket) = @_;
		put($socket, message_of('R', pack('N', 10) . "SCRAM-SHA-256\0\0"));
		my (undef, $body) = message($socket);
		my ($nonce) = ($body // '') =~ /r=([^,]*)/;
		put($socket,
			message_of('R',
				pack('N', 11) . "r=${nonce}x,s=c2FsdHNhbHQ=,i=2147483647"));
		pass_time($socket);
	});

# A hostile server before the one at HOST and PORT.
sub new
{
	my ($class, $host, $port) = @_;
	my $listener = IO::Socket::INET->new(
		LocalAddr => '127.0.0.1',
		Listen => 20,
		ReuseAddr => 1) or die "could not listen: $@";
	my $self = bless {
		port => $listener->sockport,
		upstream => [ $host, $port ],
		directory => tempdir(CLEANUP => 1),
		parent => $$ }, $class;
	$self->be_hostile();
	my $pid = fork() // die "fork: $!";
	if ($pid == 0)
	{
		setpgrp(0, 0);
		$self->serve($listener);
		_exit(0);
	}
	$self->{pid} = $pid;
	return $self;
}

sub port { my ($self) = @_; return $self->{port}; }

# From now on new connections meet this case; without one, an honest server.
sub be_hostile
{
	my ($self, @case) = @_;
	unlink glob "$self->{directory}/asked.* $self->{directory}/heard.*";
	nstore(\@case, "$self->{directory}/case.new");
	rename "$self->{directory}/case.new", "$self->{directory}/case"
	  or die "rename: $!";
	return;
}

# How often has the case's question been asked since?
sub asked
{
	my ($self) = @_;
	my @files = glob "$self->{directory}/asked.*";
	return scalar @files;
}

# All that clients have sent since, before what was passed on.
sub heard
{
	my ($self) = @_;
	my $all = '';
	foreach my $file (glob "$self->{directory}/heard.*")
	{
		open my $in, '<:raw', $file or next;
		local $/;
		$all .= <$in> // '';
	}
	return $all;
}

sub stop
{
	my ($self) = @_;
	return unless $self->{pid};
	kill 'KILL', -$self->{pid};
	waitpid $self->{pid}, 0;
	delete $self->{pid};
	return;
}

sub DESTROY
{
	my ($self) = @_;
	local $?;
	$self->stop if $self->{parent} == $$;
	return;
}

# ----------------------------------------------------------------------
# The server's process, and one for each connection
# ----------------------------------------------------------------------
sub serve
{
	my ($self, $listener) = @_;
	local $SIG{CHLD} = 'IGNORE';
	local $SIG{PIPE} = 'IGNORE';
	while (1)
	{
		my $client = $listener->accept or next;
		my $pid = fork();
		if (defined $pid && $pid == 0)
		{
			eval { $self->connection($client) };
			_exit(0);
		}
		close $client;
	}
	return;
}

my $number = 0;

sub note_asked
{
	my ($self) = @_;
	$number++;
	open my $out, '>', "$self->{directory}/asked.$$.$number";
	return;
}

sub note_heard
{
	my ($self, $bytes) = @_;
	open my $out, '>>:raw', "$self->{directory}/heard.$$" or return;
	print $out $bytes;
	return;
}

sub connection
{
	my ($self, $client) = @_;
	my $startup;

	# No TLS, no GSSAPI encryption here.
	while (1)
	{
		my $head = received($client, 4) // return;
		$startup = $head . (received($client, unpack('N', $head) - 4) // return);
		my $code = unpack 'x4N', $startup;
		last if $code != 80877103 && $code != 80877104;
		put($client, 'N');
	}
	$self->note_heard($startup);
	$self->{startup} = $startup;
	my @case = @{ retrieve("$self->{directory}/case") };
	my $ours = $startup =~ /\0replication\0001\0/;
	foreach my $item (@case)
	{
		next
		  unless $item->{question} eq 'any_startup'
		  || ($ours && $item->{question} eq 'startup');
		$self->note_asked();
		last if $item->{act} eq 'signature';
		$self->{client} = $client;
		$acts{ $item->{act} }->($client, $item->{words});
		while (defined(my $bytes = received($client, 1, 1)))
		{
			$self->note_heard($bytes);
		}
		return;
	}
	my $server = IO::Socket::INET->new(
		PeerAddr => $self->{upstream}[0],
		PeerPort => $self->{upstream}[1]) or return;
	put($server, $startup);
	$self->relay($client, $server, $ours ? @case : grep { $_->{question} =~ /^any/ } @case);
	return;
}

# Passes messages both ways, but for what the case says.
sub relay
{
	my ($self, $client, $server, @case) = @_;
	my $select = IO::Select->new($client, $server);
	my ($signature) = grep { ($_->{act} // '') eq 'signature' } @case;
	@case = grep { !$_->{asks} || index($self->{startup}, "ask=$_->{asks}") >= 0 } @case;
	my ($change, $plain);

	while (my @ready = $select->can_read())
	{
		foreach my $socket (@ready)
		{
			# once it streams there is nothing to look at any more
			if ($plain)
			{
				sysread($socket, my $bytes, 65536) or return;
				put($socket == $client ? $server : $client, $bytes);
				next;
			}
			my ($type, $body) = message($socket) or return;
			if ($socket == $client)
			{
				$self->note_heard($type . $body);
				foreach my $item ($type eq 'Q' ? @case : ())
				{
					my $pattern = $questions{ $item->{question} =~ s/^any_//r }
					  // next;
					next unless $body =~ $pattern;
					$self->note_asked();
					if ($item->{act})
					{
						$acts{ $item->{act} }->($client, $item->{words});
						return;
					}
					$change = $item;
				}
				put($server, message_of($type, $body));
				next;
			}
			$plain = 1 if $type eq 'W' || $type eq 'H';
			if ($type eq 'D' && $change)
			{
				my @columns = columns($body);
				$columns[ $change->{column} - 1 ] = $change->{value};
				$body = substr data_row(@columns), 5;
			}
			elsif ($type eq 'R' && $signature && unpack('N', $body) == 12)
			{
				$body = pack('N', 12) . 'v=' . 'A' x 43 . '=';
			}
			undef $change if $type eq 'Z';
			put($client, message_of($type, $body));
		}
	}
	return;
}

# ----------------------------------------------------------------------
# Messages
# ----------------------------------------------------------------------
sub put
{
	my ($socket, @messages) = @_;
	my $bytes = join '', @messages;
	my $done = 0;
	while ($done < length $bytes)
	{
		my $written = syswrite $socket, $bytes, length($bytes) - $done, $done;
		die "gone" unless $written;
		$done += $written;
	}
	return;
}

sub flood
{
	my ($socket, $message) = @_;
	my $many = $message x 100;
	put($socket, $many) while 1;
	return;
}

# Lets the client go on as it likes, without another answer.
sub pass_time
{
	my ($socket) = @_;
	IO::Select->new($socket)->can_read(600);
	return;
}

sub message_of { my ($type, $body) = @_; return $type . pack('N', length($body) + 4) . $body; }
sub ready { return message_of('Z', 'I'); }
sub complete { return message_of('C', "SELECT 1\0"); }

sub error_message
{
	my ($words) = @_;
	return message_of('E', "SERROR\0VERROR\0C28000\0M$words\0\0");
}

sub notice
{
	my ($words) = @_;
	return message_of('N', "SWARNING\0VWARNING\0C01000\0M$words\0\0");
}

sub row_description
{
	return message_of('T',
		pack('n', 1) . "x\0" . pack('NnNnNn', 0, 0, 25, 65535, 4294967295, 0));
}

sub data_row
{
	my (@columns) = @_;
	return message_of(
		'D',
		pack('n', scalar @columns) . join '',
		map { defined $_ ? pack('N', length $_) . $_ : pack('N', 4294967295) }
		  @columns);
}

sub columns
{
	my ($body) = @_;
	my $count = unpack 'n', $body;
	my ($position, @columns) = (2);
	foreach (1 .. $count)
	{
		my $length = unpack 'l>', substr($body, $position, 4);
		push @columns,
		  $length < 0 ? undef : substr($body, $position + 4, $length);
		$position += 4 + ($length < 0 ? 0 : $length);
	}
	return @columns;
}

sub message
{
	my ($socket) = @_;
	my $head = received($socket, 5) // return;
	my ($type, $length) = unpack 'aN', $head;
	my $body = received($socket, $length - 4) // return;
	return ($type, $body);
}

# So many bytes, or up to so many; undef at the end.
sub received
{
	my ($socket, $length, $any) = @_;
	my $bytes = '';
	if ($any)
	{
		return sysread($socket, $bytes, 65536) ? $bytes : undef;
	}
	while (length($bytes) < $length)
	{
		sysread($socket, $bytes, $length - length($bytes), length $bytes)
		  or return;
	}
	return $bytes;
}

1;
