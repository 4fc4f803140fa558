# Programs that scripts/test has unpacked for the tests, without installing them:
# exporters, drivers, a pooler and a load balancer.  What is not there is skipped.
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

our @EXPORT = qw(outside_program outside_file run_java start_outside stop_outside reachable scrape);

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
	my $file = "$PostgreSQL::Test::Utils::tmp_check/Program.java";
	my $out = '';

	unlink $file;
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
	note "@command";
	$running{$name} = IPC::Run::start(\@command, '<', \undef, '>', $log, '2>&1');
	return;
}

sub stop_outside
{
	my ($name) = @_;

	(delete $running{$name})->kill_kill;
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
