# Passwords with everything that a shell, a passfile or a connection string
# could trip over; and where a password shows while the script runs.
use strict;
use warnings FATAL => 'all';
use utf8;

use FindBin;
use lib $FindBin::RealBin;

use Encode qw(encode_utf8);
use File::Temp qw(tempdir);
use JoinKit;
use OwnProcesses;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(usleep);

my $upstream = new_upstream('upstream', 'log_statement = none',
	'wal_retrieve_retry_interval = 100ms');

my @passwords = (
	[ 'single quotes', q{a'b''c'} ],
	[ 'double quotes', 'a"b""c"' ],
	[ 'backslashes', 'a\\b\\\\c\\' ],
	[ 'colons', ':a:b::c:' ],
	[ 'a hash', '#a#b' ],
	[ 'dollars and a substitution', '$HOME$(echo x)`echo y`${z}' ],
	[ 'blanks and tabs', " a  b\tc " ],
	[ 'an asterisk and patterns', '*?[a-z]~!' ],
	[ 'UTF-8', 'pässwörd-пароль-密码-🔑' ],
	[ 'all of it', q{ '"\\:#$ %s%n &;|<>(){}=@/+- é } ],
	[ '1000 characters', join('', map { chr(33 + $_ % 94) } 1 .. 1000) ]);

my $number = 0;
foreach my $case (@passwords)
{
	my ($what, $password) = @$case;
	$password = encode_utf8($password);
	$number++;
	provision($upstream, "replica$number", $password);
	my $script = write_script($upstream, "replica$number");
	my $replica = new_replica("replica$number");
	my ($code, $out, $err) =
	  run_script($script, { PGPASSWORD => $password },
		'--pgdata', $replica->data_dir, '--port', $replica->port);
	is($code, 0, "$what: the replica is made");
	adopt_replica($replica);

	# Not only once: its own connection comes back by the passfile.
	$upstream->safe_psql('postgres', q{
		SELECT pg_terminate_backend(pid, 60000) FROM pg_stat_replication});
	ok( $upstream->poll_query_until(
			'postgres',
			"SELECT count(*) = 1 FROM pg_stat_replication WHERE application_name = 'replica$number' AND state = 'streaming'"
		),
		"$what: it connects again");
	unlike(slurp($replica->data_dir . '/postgresql.auto.conf'),
		qr/\Q$password\E/, "$what: postgresql.auto.conf does not hold it");
	$replica->stop;
	$upstream->safe_psql('postgres',
		"SELECT replica_kit.deprovision('replica$number', true)");
}

# ----------------------------------------------------------------------
# Sources other than PGPASSWORD, through hostile roles
# ----------------------------------------------------------------------
my $role = q{ro'le:"x\\ #};
my $password = q{pa:ss\\wo'rd};
provision($upstream, 'sources', $password, $role);
my $script = write_script($upstream, 'sources');
my $replica = new_replica('sources');
my @args = ('--pgdata', $replica->data_dir, '--port', $replica->port);
my $home = tempdir(CLEANUP => 1);
my $passfile = "$home/passes";

sub write_passfile
{
	my ($file, $mode, @lines) = @_;
	unlink $file;
	append_to_file($file, join('', map { "$_\n" } @lines));
	chmod $mode, $file;
	return;
}

my ($escaped_role, $escaped_password) = ($role, $password);
s/([\\:])/\\$1/g for $escaped_role, $escaped_password;
my $port = $upstream->port;
my @lines = (
	"127.0.0.1:$port:*:somebody:wrong",
	"#127.0.0.1:$port:*:$escaped_role:wrong",
	"other:*:*:*:wrong",
	"127.0.0.1:$port:replication:$escaped_role:$escaped_password",
	"*:*:*:*:wrong");

write_passfile($passfile, 0600, @lines);
my ($code, $out, $err) =
  run_script($script, { PGPASSFILE => $passfile }, @args, '--dry-run');
is($code, 0, 'PGPASSFILE is read as libpq reads it');
chmod 0640, $passfile;
($code, $out, $err) =
  run_script($script, { PGPASSFILE => $passfile }, @args, '--dry-run');
is($code, 5, 'a passfile that others may read does not count');
like($err, qr/has group or world access/, 'and it is said why');
write_passfile("$home/.pgpass", 0600, "*:*:*:*:$escaped_password");
($code, $out, $err) =
  run_script($script, { HOME => $home }, @args, '--dry-run');
is($code, 0, '~/.pgpass is read');

# ----------------------------------------------------------------------
# Where it shows while the script runs
# ----------------------------------------------------------------------
$upstream->safe_psql('postgres', q{
	CREATE TABLE big AS SELECT g, repeat('x', 1000) FROM generate_series(1, 60000) g});
my $secret = 'Sesame-open-4711';
provision($upstream, 'watched', $secret);
$script = write_script($upstream, 'watched');
my $watched = new_replica('watched');
my ($shown, $seen, $runs) = ('', 0, 0);
($out, $err) = ('', '');
my $run = start_script($script, { PGPASSWORD => $secret },
	\$out, \$err, '--pgdata', $watched->data_dir, '--port', $watched->port);

# The arguments of its processes, and the environment of those that the
# script has started: its own is its caller's doing.
while ($run->pumpable)
{
	$run->pump_nb;
	$runs++;
	foreach my $pid (own_processes())
	{
		my ($arguments, $environment) = ('', '');
		foreach ([ 'cmdline', \$arguments ], [ 'environ', \$environment ])
		{
			open my $fh, '<', "/proc/$pid/$_->[0]" or next;
			local $/;
			${ $_->[1] } = <$fh> // '';
		}
		$seen++ if $arguments =~ /pg_basebackup/;
		$shown .= "argument of $arguments\n" if $arguments =~ /\Q$secret\E/;
		$shown .= "environment of $arguments\n"
		  if $environment =~ /\Q$secret\E/
		  && $arguments =~ /^[^\0]*(?:psql|pg_\w+|postgres)\0/;
	}
	usleep(5000);
}
$run->finish;
is($run->full_result(0) >> 8, 0, 'the watched replica is made');
adopt_replica($watched);
cmp_ok($seen, '>', 0, 'its processes were seen');
is($shown, '', 'the password was in no argument, and no program\'s environment');
unlike($out . $err, qr/\Q$secret\E/, 'the script does not show it');
$watched->stop;
my @found = split /\n/,
  `grep -rlF -e '$secret' '@{[$watched->basedir]}' '@{[$upstream->logfile]}'`;
is_deeply(\@found, [ $watched->data_dir . '.pg_replica_kit/passfile' ],
	'of all files and logs, only the passfile holds it');

$upstream->stop;
done_testing();
