# Programs that scripts/test has unpacked for the tests, without installing them:
# exporters, drivers, a pooler and a load balancer.  What is not there is skipped.
# And the other ends of mail and chat.
package Outside;

use strict;
use warnings FATAL => 'all';

use Exporter 'import';
use HTTP::Tiny ();
use IO::Socket::INET ();
use IPC::Run ();
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes ();

our @EXPORT = qw(outside_program outside_file run_java start_outside stop_outside start_mailbox start_webhook reachable scrape);

my %running;

# Where a program is, or undef.
sub outside_program
{
	my ($name) = @_;
	my ($dir) = grep { -x "$_/$name" } split(/:/, $ENV{PATH}), '/usr/sbin';

	return defined $dir ? "$dir/$name" : undef;
}

# The first file that is there: unpacked or installed; undef: none.
sub outside_file
{
	my ($pattern) = @_;
	my ($file) = map { glob } map { "$_$pattern" } $ENV{PRK_OUTSIDE} // (), '';

	return defined $file && -e $file ? $file : undef;
}

# Runs a Java program, whose first class has main(), with a driver and arguments;
# what it says goes to $$said.  Is there a Java that can, and did it?
sub run_java
{
	my ($program, $said, $driver, @arguments) = @_;
	my $java = outside_program('java') // return 0;
	my $file = PostgreSQL::Test::Utils::tempdir . "/Program.java";
	my $out = '';

	append_to_file($file, $program);
	my $good = IPC::Run::run([ $java, '-XX:TieredStopAtLevel=1', '-XX:+UseSerialGC', '-cp', $driver, $file, @arguments ], '<', \undef, '>', \$out, '2>&1', IPC::Run::timeout(180));
	$$said = $out if defined $said;
	return $good;
}

# Starts a server, which finds libraries that were unpacked with it; what it says
# goes to a file.
sub start_outside
{
	my ($name, @command) = @_;
	my $log = "$PostgreSQL::Test::Utils::log_path/$name.log";
	my ($libraries) = map { "$_/usr/lib" } $ENV{PRK_OUTSIDE} // '';

	local $ENV{LD_LIBRARY_PATH} = join ':', glob "$libraries/*-linux-gnu*";
	note join ' ', map { /\n/ ? '...' : $_ } @command;
	$running{$name} = IPC::Run::start(\@command, '<', \undef, '>', $log, '2>&1');
	return;
}

sub stop_outside
{
	my ($name) = @_;

	(delete $running{$name})->kill_kill;
	return;
}

# The other end of a mail: takes what comes by SMTP, and appends it to a file.
my $mailbox = <<'PERL';
use strict;
use warnings;
use IO::Handle;
use IO::Socket::INET;

my ($port, $file) = @ARGV;
my $server = IO::Socket::INET->new(LocalAddr => '127.0.0.1', LocalPort => $port, Listen => 5, ReuseAddr => 1) or die "port $port: $!";
open my $out, '>>', $file or die "$file: $!";
$out->autoflush;
while (my $client = $server->accept)
{
	my $in_data = 0;
	print $client "220 mailbox ESMTP\r\n";
	while (my $line = <$client>)
	{
		$line =~ s/\r?\n\z/\n/;
		if ($in_data && $line eq ".\n")
		{
			$in_data = 0;
			print $client "250 taken\r\n";
		}
		elsif ($in_data)
		{
			print $out $line;
		}
		elsif ($line =~ /^DATA/i)
		{
			$in_data = 1;
			print $client "354 go on\r\n";
		}
		elsif ($line =~ /^QUIT/i)
		{
			print $client "221 bye\r\n";
			last;
		}
		else
		{
			print $out $line;
			print $client "250 mailbox\r\n";
		}
	}
	close $client;
}
PERL

sub start_mailbox
{
	my ($name, $port, $file) = @_;

	start_outside($name, $^X, '-e', $mailbox, $port, $file);
	return;
}

# The other end of a webhook: appends path and body of what is posted to a file.
my $webhook = <<'PERL';
use strict;
use warnings;
use IO::Handle;
use IO::Socket::INET;

my ($port, $file) = @ARGV;
my $server = IO::Socket::INET->new(LocalAddr => '127.0.0.1', LocalPort => $port, Listen => 5, ReuseAddr => 1) or die "port $port: $!";
open my $out, '>>', $file or die "$file: $!";
$out->autoflush;
while (my $client = $server->accept)
{
	my ($request, $length, $body) = (scalar <$client> // '', 0, '');
	while (my $line = <$client>)
	{
		last if $line =~ /^\r?\n\z/;
		$length = $1 if $line =~ /^Content-Length: *(\d+)/i;
	}
	read $client, $body, $length;
	print $out $request =~ s/\r?\n//r, " $body\n";
	print $client "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok";
	close $client;
}
PERL

sub start_webhook
{
	my ($name, $port, $file) = @_;

	start_outside($name, $^X, '-e', $webhook, $port, $file);
	return;
}

END
{
	my $status = $?;

	$_->kill_kill foreach values %running;
	$? = $status;
}

# Waits until somebody listens at a port of this machine.
sub reachable
{
	my ($port) = @_;

	for (1 .. 10 * $PostgreSQL::Test::Utils::timeout_default)
	{
		return 1 if IO::Socket::INET->new(PeerAddr => '127.0.0.1', PeerPort => $port);
		Time::HiRes::usleep(100_000);
	}
	return 0;
}

# What an exporter there tells: NAME{LABELS}, sorted as NAME=VALUE and unescaped,
# joined by commas, => value.
sub scrape
{
	my ($port) = @_;
	my $answer = HTTP::Tiny->new(timeout => 10)->get("http://127.0.0.1:$port/metrics");
	my %series;

	return {} if !$answer->{success};
	foreach my $line (split /\n/, $answer->{content})
	{
		my ($name, $labels, $value) = $line =~ /^(\w+)(?:\{(.*)\})? (\S+)$/ or next;
		my @labels;

		push @labels, "$1=" . ($2 =~ s/\\(.)/$1/gr) while ($labels // '') =~ /(\w+)="((?:[^"\\]|\\.)*)"/g;
		$series{"$name\{" . join(',', sort @labels) . '}' } = $value;
	}
	return \%series;
}

1;
