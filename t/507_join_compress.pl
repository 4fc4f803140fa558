# --compress: what it passes to pg_basebackup, what "auto" chooses, and what it
# says where one side cannot do it.
use strict;
use warnings FATAL => 'all';

use FindBin;
use lib $FindBin::RealBin;

use IO::Select;
use IO::Socket::INET;
use JoinKit;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(sleep time);

my $scratch = PostgreSQL::Test::Utils::tempdir;
my $upstream = new_upstream('upstream', 'log_replication_commands = on',
	'max_replication_slots = 20');
my %env = (PGPASSWORD => 'secret-word-1');
my $configure = `pg_config --configure`;
my ($code, $out, $err);
my $number = 0;
my @relays;

# A provisioned replica, its script, and where it is to be.
sub scene
{
	my ($host, $port) = @_;
	my $name = 'replica' . ++$number;
	provision($upstream, $name, 'secret-word-1');
	my $replica = new_replica($name);
	return (
		$replica,
		write_script($upstream, $name, $host, $port),
		'--pgdata', $replica->data_dir, '--port', $replica->port);
}

# What the upstream has been asked for since $offset: the clones' compression.
sub asked
{
	my ($offset) = @_;
	my $log = substr slurp($upstream->logfile), $offset;
	return join ',',
	  map { /COMPRESSION '([^']*)'(?:, *COMPRESSION_DETAIL '([^']*)')?/ ? $1 . ($2 ? ":$2" : '') : 'none' }
	  grep { !/pg_replica_kit/ } $log =~ /received replication command: (BASE_BACKUP .*)/g;
}

# A copy of a script with what it takes for a fast link, and for worth the
# measuring, changed.
sub with_limits
{
	my ($file, $fast_link, $measured_size) = @_;
	my $content = slurp($file);
	$content =~ s/^fast_link=\d+$/fast_link=$fast_link/m or die;
	$content =~ s/^measured_size=\d+$/measured_size=$measured_size/m or die;
	my $copy = "$scratch/limits." . ++$number . '.sh';
	append_to_file($copy, $content);
	return $copy;
}

# A slow way to the upstream: so many bytes a second in each connection.
sub relay
{
	my ($rate) = @_;
	my $listener = IO::Socket::INET->new(
		Listen => 20,
		LocalAddr => '127.0.0.1') or die "listen: $!";
	my $port = $listener->sockport;
	my $pid = fork;
	die "fork: $!" unless defined $pid;
	if ($pid)
	{
		push @relays, $pid;
		return $port;
	}
	# prove waits for who holds these
	open STDOUT, '>', '/dev/null';
	open STDERR, '>', '/dev/null';
	$SIG{CHLD} = 'IGNORE';

	# not to die as a test does, which ends with a plan
	$SIG{TERM} = $SIG{INT} = sub { POSIX::_exit(0) };
	while (my $near = $listener->accept)
	{
		next if fork;
		my $far = IO::Socket::INET->new(
			PeerAddr => '127.0.0.1',
			PeerPort => $upstream->port) or POSIX::_exit(1);
		my $select = IO::Select->new($near, $far);
		my $due = time;
		while (1)
		{
			foreach my $from ($select->can_read)
			{
				sysread($from, my $data, 65536) or POSIX::_exit(0);
				syswrite($from == $near ? $far : $near, $data)
				  or POSIX::_exit(0);
				next if $from != $far;

				# what it slept too long it need not sleep the next time
				my $now = time;
				$due = $now - 0.05 if $due < $now - 0.05;
				$due += length($data) / $rate;
				sleep($due - $now) if $due > $now;
			}
		}
	}
	POSIX::_exit(0);
}

# A directory of PostgreSQL's programs, one of them with words of its own for
# what a pattern of the shell matches.
sub programs_with
{
	my ($program, $pattern, $words) = @_;
	my ($bindir) = `pg_config --bindir` =~ /(.*)/;
	my $dir = "$scratch/bin." . ++$number;
	mkdir $dir or die "mkdir: $!";
	foreach my $file (glob "$bindir/*")
	{
		my ($name) = $file =~ /([^\/]+)$/;
		symlink $file, "$dir/$name" if $name ne $program;
	}
	append_to_file("$dir/$program", <<"SH");
#!/bin/sh
case "\$*" in
	$pattern) echo "$words" >&2; exit 1 ;;
esac
exec "$bindir/$program" "\$@"
SH
	chmod 0755, "$dir/$program";
	return (%env, PATH => "$dir:$ENV{PATH}");
}

# ----------------------------------------------------------------------
# What is wrong is refused before anything is touched
# ----------------------------------------------------------------------
my ($replica, $script, @args) = scene();
my $before = tree($replica->basedir);

sub refused
{
	my ($what, $pattern, $env, @more) = @_;
	($code, $out, $err) = run_script($script, $env, @args, @more);
	is($code, 2, "$what: exit code 2");
	like($err, qr/\Apg_replica_kit: error: $pattern.*\n(hint: .*\n)?\z/,
		"$what: one line, and a hint");
	is(tree($replica->basedir), $before, "$what: nothing has been changed");
	return;
}

refused("\"$_\"", qr/"\Q$_\E" is not a method of compression/,
	\%env, "--compress=$_")
  foreach qw(bzip2 server-lz4 9 lz4: none:1 auto:1);
refused('a detail with a quote', qr/.*is not METHOD:DETAIL/, \%env,
	'--compress', "gzip:level='1'");
refused('a level that there is not',
	qr/no clone with --compress gzip:99: the upstream server: .*level between 1 and 9/,
	\%env, '--compress', 'gzip:99');
refused(
	'an option that there is not',
	qr/no clone with --compress gzip:speed=1: the upstream server: unrecognized compression option: "speed"/,
	\%env, '--compress', 'gzip:speed=1');
refused('with --set-password', qr/--set-password only sets/,
	\%env, '--set-password', '--compress', 'none');

# A build without a method says so in these words, on either side.
my $unable = 'invalid compression specification: this build does not support compression with LZ4';
my %poor_client = programs_with('pg_basebackup', '*-lz4*',
	"pg_basebackup: error: $unable");
my %poor_server = programs_with('psql', "*COMPRESSION\\ \\'lz4\\'*",
	"ERROR:  $unable");
refused('pg_basebackup without lz4',
	qr/no clone with --compress lz4: pg_basebackup here: this build does not support compression with LZ4/,
	\%poor_client, '--compress', 'lz4');
refused('an upstream without lz4',
	qr/no clone with --compress lz4: the upstream server: this build does not support compression with LZ4/,
	\%poor_server, '--compress', 'lz4');

# ----------------------------------------------------------------------
# Each method is passed on, and makes a replica that streams
# ----------------------------------------------------------------------
($code, $out) =
  run_script($script, \%env, @args, '--compress', 'gzip:1', '--dry-run');
is($code, 0, 'a dry run with a method succeeds');
like($out, qr/- clone .*, compressed with gzip:1$/m, 'it says so');
is(tree($replica->basedir), $before, 'it has changed nothing');

my $best = 'gzip';
foreach my $method ('none', 'gzip', 'zstd:level=1', 'lz4')
{
	my ($library) = $method =~ /^(lz4|zstd)/;
	if ($library && $configure !~ /--with-$library/)
	{
		note("this build has no $library");
		next;
	}
	$best = $method;
	my ($replica, $script, @args) = scene();
	my $offset = -s $upstream->logfile;
	($code, $out, $err) =
	  run_script($script, \%env, @args, "--compress=$method");
	is($code, 0, "$method: the replica is made");
	is(asked($offset), $method, "$method: the upstream is asked for it");
	adopt_replica($replica);
	is($replica->safe_psql('postgres', 'SELECT count(*) FROM filler'),
		1000, "$method: the rows are there");
	ok( $upstream->poll_query_until(
			'postgres',
			"SELECT state FROM pg_stat_replication WHERE application_name = '@{[$replica->name]}'",
			'streaming'),
		"$method: it streams");

	# The last of them once more, from its damaged data.
	if ($method eq 'lz4')
	{
		$replica->stop;
		unlink $replica->data_dir . '/base/1/PG_VERSION';
		$offset = -s $upstream->logfile;
		($code, $out, $err) = run_script($script, \%env, @args, '--rebuild',
			'--remove-old', '--compress', $method);
		is($code, 0, '--rebuild: the replica is back');
		is(asked($offset), $method, '--rebuild: the upstream is asked for it');
		adopt_replica($replica);
	}
	$replica->stop;
}

# ----------------------------------------------------------------------
# What "auto" chooses
# ----------------------------------------------------------------------

# auto(WHAT, METHOD, WORDS, SCRIPT, ENVIRONMENT, ARGUMENTS...)
sub auto
{
	my ($what, $method, $words, $file, $env, @arguments) = @_;
	my $offset = -s $upstream->logfile;
	($code, $out, $err) =
	  run_script($file, $env, @arguments, '--no-start');
	is($code, 0, "$what: the replica is made");
	is($err, '', "$what: there is nothing to complain of");
	like($out, qr/^pg_replica_kit: $words$/m, "$what: it says what it chose");
	is(asked($offset), $method, "$what: and does so");
	return;
}

auto('this machine', 'none',
	'not compressing: the upstream is on this machine',
	$script, \%env, @args);

SKIP:
{
	skip 'this build has no lz4', 25 if $configure !~ /--with-lz4/;

	# A way to write it that does not look like this machine.
	($replica, $script, @args) = scene('0x7f.1');
	auto('elsewhere', 'lz4', 'compressing with lz4', $script, \%env, @args);

	($replica, $script, @args) = scene('0x7f.1');
	auto('elsewhere, pg_basebackup without lz4', 'none',
		'not compressing: pg_basebackup here: this build does not support compression with LZ4',
		$script, \%poor_client, @args);

	($replica, $script, @args) = scene('0x7f.1');
	auto('elsewhere, an upstream without lz4', 'none',
		'not compressing: the upstream server: this build does not support compression with LZ4',
		$script, \%poor_server, @args);

	($replica, $script, @args) = scene('0x7f.1');
	auto('a fast link', 'none',
		'not compressing: the link carries \d+ MB/s',
		with_limits($script, 0, 0), \%env, @args);

	# While the machine has no time for the relay, the link is slower still.
	for (1 .. 5)
	{
		($replica, $script, @args) = scene('0x7f.1', relay(8e6));
		auto('a slow link', 'lz4',
			'compressing with lz4: the link carries [0-8] MB/s',
			with_limits($script, 200, 0), \%env, @args);
		last if $out =~ /the link carries [3-8] MB/;
	}
	like($out, qr/the link carries [3-8] MB\/s$/m, 'a slow link: as much as it does');
	ok( $upstream->poll_query_until(
			'postgres', 'SELECT count(*) = 0 FROM pg_stat_progress_basebackup'),
		'no backup is left');

	# Ended while it measures: by then it reads what the link brings.
	($replica, $script, @args) = scene('0x7f.1', relay(1e5));
	$before = tree($replica->basedir);
	my $run = start_script(with_limits($script, 200, 0), \%env, \$out, \$err, @args);
	$run->pump until $out =~ /measuring the link/ || !$run->pumpable;
	ok( $upstream->poll_query_until(
			'postgres',
			'SELECT count(*) = 1 FROM pg_stat_progress_basebackup WHERE backup_streamed > 0'
		),
		'interrupted: the link is being measured');
	$run->signal('TERM');
	$run->finish;
	is($run->full_result(0) >> 8, 143, 'interrupted: exit code 143');
	is(tree($replica->basedir) =~ s/(\S+ ){4}\S+$//mgr, $before =~ s/(\S+ ){4}\S+$//mgr,
		'interrupted: nothing is left behind');
	ok( $upstream->poll_query_until(
			'postgres', 'SELECT count(*) = 0 FROM pg_stat_progress_basebackup'),
		'interrupted: no backup is left');
}

$upstream->stop;
done_testing();

# However this test ends.
END
{
	local $?;
	kill 'TERM', @relays;
}
