# What the script asks the running upstream before it clones: sizes, files that
# cannot be read, settings that cannot work on this machine, libraries.  Nothing
# of that is found after a clone, and what the script carried is old.
use strict;
use warnings FATAL => 'all';

use FindBin;
use lib $FindBin::RealBin;

use JoinKit;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $scratch = PostgreSQL::Test::Utils::tempdir;
my $upstream = new_upstream('upstream', 'shared_preload_libraries = pg_replica_kit');
my $pgdata = $upstream->data_dir;
provision($upstream, 'replica1', 'secret-word-1');
my $script = write_script($upstream, 'replica1');
my $replica = new_replica('replica');
my @args = ('--pgdata', $replica->data_dir, '--port', $replica->port);
my %env = (PGPASSWORD => 'secret-word-1');
my ($code, $out, $err);

# With these lines in a file of the upstream's, a dry run.
sub with_lines
{
	my ($file, $lines, @more) = @_;
	my $text = slurp("$pgdata/$file");
	append_to_file("$pgdata/$file", "$lines\n");
	($code, $out, $err) = run_script($script, \%env, @args, '--dry-run', @more);
	open my $fh, '>', "$pgdata/$file" or die "open: $!";
	print $fh $text;
	close $fh;
	return;
}

sub refused
{
	my ($what, $expected, $message, $hint) = @_;
	is($code, $expected, "$what: exit code $expected");
	like($err, qr/^pg_replica_kit: error: .*$message/m, "$what: it is named");
	like($err, qr/^hint: .*$hint/m, "$what: with what helps");
	return;
}

sub noted
{
	my ($what, $message) = @_;
	is("$code$err", '0', "$what: is no obstacle");
	like($out, qr/^pg_replica_kit: (?:note|warning): .*$message/m, "$what: is named");
	return;
}

# ----------------------------------------------------------------------
# Size and files
# ----------------------------------------------------------------------
with_lines('postgresql.conf', '');
is("$code$err", '0', 'a dry run with everything in order');
unlike($out, qr/note|warning/, 'has nothing to note');
my ($size) = $out =~ /clone (\d+) MB/;
mkdir "$pgdata/log";
append_to_file("$pgdata/log/core", 'x' x 40_000_000);
with_lines('postgresql.conf', '');
like($out, qr/clone (\d+) MB/, 'with a core file in the data directory');
cmp_ok(($out =~ /clone (\d+) MB/)[0], '>', $size + 30, 'its size is known');
open my $sparse, '>', "$pgdata/log/sparse" or die "open: $!";
truncate $sparse, 8e12 or die "truncate: $!";
with_lines('postgresql.conf', '');
refused('a file larger than the disk', 9, 'not enough disk space', 'Make room');
unlike($err, qr/The size is of/, 'the size is of now');
unlink "$pgdata/log/sparse";
SKIP:
{
	skip 'root reads everything', 3 if $> == 0;
	chmod 0, "$pgdata/log/core" or die "chmod: $!";
	with_lines('postgresql.conf', '');
	refused('an unreadable file', 16, 'cannot read files .*"log/core"', 'give them to');
}
unlink "$pgdata/log/core";

# ----------------------------------------------------------------------
# Settings
# ----------------------------------------------------------------------
with_lines('postgresql.conf', join "\n", "listen_addresses = '10.99.99.99'", 'huge_pages = on',
	"include_if_exists '$scratch/nosuch.conf'", 'logging_collector = on',
	"log_directory = '/nonexistent/log'", "lc_messages = 'xx_XX.UTF-8'", "unix_socket_group = 'nosuchgroup'");
noted('an address of another machine', 'names only 10\.99\.99\.99.*the replica gets listen_addresses = \'localhost\'');
noted('huge pages', 'huge_pages = on needs \d+ free huge pages.*the replica gets huge_pages = \'try\'')
  if slurp('/proc/meminfo') =~ /^HugePages_Free:\s+0$/m;
noted('an include that may be missing', "\"\Q$scratch\E/nosuch\\.conf\" is not on this machine");
noted('a log directory elsewhere', "log_directory = \"/nonexistent/log\".*gets log_directory = 'log'");
noted('a locale', "locale \"xx_XX\\.UTF-8\" is not installed here: the replica gets lc_messages = 'C'");
noted('a group', 'is in no group "nosuchgroup" .*the replica gets unix_socket_group = \'\'');
my ($mine) = getgrgid($));
with_lines('postgresql.conf', "unix_socket_group = '$mine'");
unlike($out, qr/the replica gets/, 'a group of the server\'s user is kept');
append_to_file("$scratch/there.conf", "work_mem = '5MB'\n");
with_lines('postgresql.conf', "listen_addresses = 'localhost, 10.99.99.99'\ninclude '$scratch/there.conf'");
noted('one among others', 'names 10\.99\.99\.99, which is no address');
unlike($out, qr/the replica gets/, 'which changes nothing');
with_lines('postgresql.conf', "include '$scratch/nosuch.conf'");
refused('an include elsewhere', 16, "includes \"\Q$scratch\E/nosuch\\.conf\"", 'Copy it');
append_to_file("$pgdata/server.crt", '');
with_lines('postgresql.conf', "ssl = on\nssl_key_file = '$scratch/nosuch.key'");
refused('a key elsewhere', 16, "ssl_key_file = \"\Q$scratch\E/nosuch\\.key\"", 'certificate and key of this machine');
symlink "$scratch/there.conf", "$pgdata/linked.key" or die "symlink: $!";
with_lines('postgresql.conf', "ssl = on\nssl_key_file = 'linked.key'");
refused('a symbolic link', 16, 'ssl_key_file = "linked\.key"', 'symbolic link');
unlink "$pgdata/linked.key", "$pgdata/server.crt";
# Of the upstream's word, since no server of this machine has so much.
my $memory = slurp('/proc/meminfo') =~ s/^(Mem|Swap)Total: .*/${1}Total:        1024 kB/gmr;
append_to_file("$scratch/meminfo", $memory);
my @apart = ('unshare', '-Urm', 'sh', '-c',
	"mount --bind $scratch/meminfo /proc/meminfo && exec unshare -U --map-user=54321 --map-group=54321 \"\$@\"", 'sh');
SKIP:
{
	skip 'this system lets users make no mount of their own', 2
	  if system("unshare -Urm unshare -U --map-user=54321 true >/dev/null 2>&1") != 0;
	with_lines('postgresql.conf', "shared_buffers = '8MB'\nio_method = io_uring", run_by => \@apart);
	noted('more shared memory than this machine has', 'has \d+ MB of shared memory, this machine 2 MB in all.*the replica gets shared_buffers = \'256kB\'');
}
SKIP:
{
	skip 'this version has no io_method', 2 if $upstream->pg_version < 18;
	mkdir "$scratch/without" or die "mkdir: $!";
	append_to_file("$scratch/without/ldd", "#!/bin/sh\n/usr/bin/ldd \"\$@\" | grep -v uring\n");
	chmod 0755, "$scratch/without/ldd";
	local $env{PATH} = "$scratch/without:$ENV{PATH}";
	with_lines('postgresql.conf', 'io_method = io_uring');
	noted('io_uring', 'io_method = io_uring is not possible on this machine.*the replica gets io_method = \'worker\'');
}
with_lines('postgresql.conf', "data_directory = '/nonexistent'");
refused('data_directory', 16, 'sets data_directory', 'Remove that line');
# ----------------------------------------------------------------------
# Libraries and tablespaces, after the script was made
# ----------------------------------------------------------------------
with_lines('postgresql.auto.conf', "shared_preload_libraries = 'pg_replica_kit, nosuch_library'");
refused('a library that the next start preloads', 10, 'not installed here: nosuch_library', 'Install the same');
unlike($err, qr/was made/, 'which is no matter of the script\'s age');
my $old = edit_script($script, prk_libraries => "nosuch_library\n", prk_data_size => '1' . '0' x 14);
($code, $out, $err) = run_script($old, \%env, @args, '--dry-run');
is("$code$err", '0', 'what the script carried does not count against an answer');
mkdir "$scratch/a sp%ce" or die "mkdir: $!";
$upstream->safe_psql('postgres', "CREATE TABLESPACE later LOCATION '$scratch/a sp%ce'");
with_lines('postgresql.conf', '');
refused('a tablespace that is newer than the script', 8, "\"\Q$scratch\E/a sp%ce\" is not empty", 'lie where');
$upstream->safe_psql('postgres', 'DROP TABLESPACE later');

# ----------------------------------------------------------------------
# Collations
# ----------------------------------------------------------------------
mkdir "$scratch/bin" or die "mkdir: $!";
append_to_file("$scratch/bin/getconf", "#!/bin/sh\necho glibc 2.17\n");
chmod 0755, "$scratch/bin/getconf";
$upstream->safe_psql('postgres',
	"CREATE DATABASE sorted TEMPLATE template0 LOCALE 'en_US.UTF-8'")
  if $upstream->safe_psql('postgres', "SELECT count(*) FROM pg_collation WHERE collname = 'en_US.utf8'");
{
	local $ENV{PATH} = "$scratch/bin:$ENV{PATH}";
	with_lines('postgresql.conf', '');
	my ($locale) = $upstream->safe_psql('postgres',
		"SELECT count(*) FROM pg_database WHERE datcollate NOT IN ('C', 'POSIX', 'C.UTF-8')");
	noted('another glibc', 'sorts text with glibc [\d.]+, this machine with glibc 2\.17') if $locale;
}

# ----------------------------------------------------------------------
# All of it, made
# ----------------------------------------------------------------------
append_to_file("$pgdata/postgresql.auto.conf",
	"listen_addresses = '10.99.99.99'\nunix_socket_directories = '/nonexistent/socket'\n");
($code, $out, $err) = run_script($script, \%env, @args);
is("$code$err", '0', 'a replica of an upstream that listens elsewhere is made');
adopt_replica($replica);
is($replica->safe_psql('postgres', 'SHOW listen_addresses', connstr => 'host=/tmp dbname=postgres port=' . $replica->port),
	'localhost', 'and listens here, also on a socket');
$replica->stop;

# ----------------------------------------------------------------------
# Not preloaded: what the script carried counts, and says how old it is
# ----------------------------------------------------------------------
$upstream->stop;
$upstream->append_conf('postgresql.conf', "shared_preload_libraries = ''");
my $conf = slurp("$pgdata/postgresql.auto.conf") =~ s/^(?:listen|unix)_.*\n//mgr;
unlink "$pgdata/postgresql.auto.conf";
append_to_file("$pgdata/postgresql.auto.conf", $conf);
$upstream->start;
provision($upstream, 'replica2', 'secret-word-1');
$script = write_script($upstream, 'replica2');
$args[1] .= '2';
with_lines('postgresql.conf', '');
noted('no kit there', 'does not preload this version.*are those of \d{4}-');
$script = edit_script($script, prk_data_size => '1' . '0' x 17);
with_lines('postgresql.conf', '');
refused('its size', 9, 'not enough disk space', 'The size is of \d{4}-');
$upstream->stop;
done_testing();
