# Questions over the replication right: what a replica's role, which runs no
# SQL, may ask a server that preloads the kit, and what nobody is told.
use strict;
use warnings FATAL => 'all';

use FindBin;
use lib $FindBin::RealBin;

use IPC::Run qw(run);
use JoinKit;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $scratch = PostgreSQL::Test::Utils::tempdir;
my $spaces = "$scratch/a space";
mkdir $spaces or die "mkdir: $!";
my @secrets = ('topsecret-conninfo', 'topsecret-phrase', 'topsecret-command');

# a snapshot of autovacuum's would keep VACUUM from truncating a table
my $upstream = new_upstream('upstream', 'shared_preload_libraries = pg_replica_kit', 'autovacuum = off',
	'max_locks_per_transaction = 77',
	"primary_conninfo = 'host=nowhere password=$secrets[0]'",
	"ssl_passphrase_command = 'echo $secrets[1]'",
	"archive_cleanup_command = 'rm $secrets[2]'",
	"include_if_exists '$scratch/elsewhere.conf'",
	'wal_level = logical');
my $pgdata = $upstream->data_dir;
my $port = $upstream->port;
provision($upstream, 'replica1', 'secret-word-1');
$upstream->safe_psql('postgres', "CREATE ROLE bob LOGIN PASSWORD 'secret-word-1'");
append_to_file("$pgdata/pg_hba.conf",
	"host all,replication bob 127.0.0.1/32 trust\nhost postgres replica1 127.0.0.1/32 trust\n");
$upstream->reload;

# What a connection is told: exit code, answer, errors.
sub answer
{
	my ($question, %options) = @_;
	my $user = $options{user} // 'replica1';
	my $mode = $options{mode} // 'replication=true';
	local %ENV = (%ENV, PGPASSWORD => 'secret-word-1');
	delete @ENV{qw(PGHOST PGPORT PGDATABASE PGOPTIONS PGAPPNAME)};
	local $ENV{PGOPTIONS} = '-c replica_kit.ask=' . $question =~ s/([\\ ])/\\$1/gr
	  if defined $question;
	my ($out, $err) = ('', '');
	run [ 'psql', '-XAtq', '-d', "host=127.0.0.1 port=$port user=$user $mode",
		map { ('-c', $_) } @{ $options{commands} // ['SHOW replica_kit.answer'] } ],
	  '<', \'', '>', \$out, '2>', \$err;
	chomp $out;
	unlike($out, qr/topsecret|secret-word/, 'no secret in an answer');
	like($out, qr/\A[\n\x20-\x7e]*\z/, 'and nothing but printable ASCII');
	cmp_ok(length $out, '<', 6100, 'of bounded size');
	return ($? >> 8, $out, $err);
}

# ----------------------------------------------------------------------
# Size, files, tablespaces
# ----------------------------------------------------------------------
my ($code, $out, $err) = answer('data_directory');
is("$code$err", '0', 'a role with nothing but REPLICATION gets an answer');
my @size = split /\|/, $out;
is("@size[0, 2, 3]", 'data_directory t 0', 'all of the directory, and nothing unreadable');
my $backup = "$scratch/backup";
mkdir "$pgdata/log";
append_to_file("$pgdata/log/core", 'x' x 20_000_000);
append_to_file("$pgdata/pg_wal/not_sent", 'x' x 9_000_000);
append_to_file("$pgdata/base/pgsql_tmp_not_sent", 'x' x 9_000_000);
$upstream->safe_psql('postgres', <<~SQL);
	CREATE UNLOGGED TABLE not_sent AS SELECT repeat('x', 500) FROM generate_series(1, 40000);
	CREATE TABLESPACE aside LOCATION '$spaces';
	CREATE TABLE in_aside TABLESPACE aside AS SELECT repeat('x', 500) FROM generate_series(1, 10000);
	CHECKPOINT;
	SQL
($code, $out, $err) = answer('data_directory');
my $grown = (split /\|/, $out)[1] - $size[1];
cmp_ok($grown, '>=', 20_000_000, 'a core file counts');
cmp_ok($grown, '<', 25_000_000,
	'WAL, temporary files, unlogged and other tablespaces\' tables do not');

my $moved = "$scratch/moved";
$upstream->backup('b', backup_options => ['-T', "$spaces=$moved"]);
chomp(my $sent = `du -s --apparent-size -B1 --exclude=pg_wal --exclude=backup_manifest \Q${\ $upstream->backup_dir}/b\E | cut -f1`);
my $told = (split /\|/, (answer('data_directory'))[1])[1];
cmp_ok(abs($told - $sent) / $sent, '<', 0.05, "as much as a base backup has ($told, $sent)");
($code, $out, $err) = answer('tablespaces');
like($out, qr/\Atablespaces\|t\|(\d+) \Q$spaces\E\z/, 'a tablespace with its size');
cmp_ok((split /[| ]/, $out)[2], '>', 5_000_000, 'which is about right');

chmod 0, "$pgdata/log/core" or die "chmod: $!";
append_to_file("$pgdata/a|b%\n\xffc", 'x');
chmod 0, "$pgdata/a|b%\n\xffc";
SKIP:
{
	skip 'run by root', 2 if $> == 0;
	($code, $out, $err) = answer('data_directory');
	like($out, qr/\|2\|/, 'both unreadable files are counted');
	like($out, qr!\|log/core(\||\z)!, 'and named');
	like($out, qr/\|a%7Cb%25%0A%FFc(\||\z)/, 'whatever their names are');
}
unlink "$pgdata/log/core", "$pgdata/a|b%\n\xffc", "$pgdata/base/pgsql_tmp_not_sent",
  "$pgdata/pg_wal/not_sent";

# ----------------------------------------------------------------------
# Settings, libraries, collations, slot
# ----------------------------------------------------------------------
mkdir "$pgdata/more.d";
append_to_file("$pgdata/more.d/a.conf",
	"huge_pages = try\ninclude_if_exists = '/nonexistent/b.conf' # c\n");
append_to_file("$scratch/elsewhere.conf", "log_directory = '/elsewhere'\n");
append_to_file("$scratch/elsewhere.key", '');
symlink "$scratch/elsewhere.key", "$pgdata/linked.key";
$upstream->append_conf('postgresql.conf', "ssl_key_file = 'linked.key'\nssl = off\nssl = 'on'\ninclude_dir 'more.d'");
$upstream->safe_psql('postgres', "ALTER SYSTEM SET recovery_target_name = 'a b|c'");
($code, $out, $err) = answer('settings');
my %settings = map { /^(\S+) (.*)/s ? ($1 => $2) : () } split /\|/, $out;
is($settings{max_locks_per_transaction}, '- - 77', 'a setting of the running server');
is($settings{listen_addresses}, 'main - 127.0.0.1', 'one of the file that is cloned');
is($settings{huge_pages}, 'main - try', 'one of an included directory that is cloned');
is($settings{log_directory}, undef, 'none of a file that is not cloned');
is($settings{recovery_target_name}, 'auto - a b%7Cc', 'one of postgresql.auto.conf');
is($settings{ssl_key_file}, 'main out linked.key', 'a symbolic link is not cloned');
is($settings{primary_conninfo}, 'main - ', 'a connection is told without its value');
is($settings{archive_cleanup_command}, 'main - ', 'and a command');
is($settings{ssl_passphrase_command}, undef, 'and a passphrase not at all');
like($out, qr!\|include_if_exists main out /nonexistent/b\.conf(\||\z)!,
	'an include elsewhere, in an included file');
like($out, qr!\|include_if_exists main out \Q$scratch\E/elsewhere\.conf(\||\z)!,
	'and in the file itself');
is((answer('libraries'))[1], 'libraries|pg_replica_kit', 'preloaded libraries');
($code, $out, $err) = answer('collations');
like($out, qr/\Acollations\|\d+\.\d+\|[0-9.]+(\||\z)/, 'versions of glibc and ICU');
$upstream->safe_psql('postgres',
	"CREATE DATABASE icu TEMPLATE template0 LOCALE_PROVIDER icu ICU_LOCALE 'de-DE'");
like((answer('collations'))[1], qr/\|icu de-DE(\||\z)/, 'the locale of a database');
is((answer('slot replica1'))[1], 'slot|t|f|reserved|', 'a slot');
is((answer('slot nosuch'))[1], 'slot|f', 'and one that does not exist');

# ----------------------------------------------------------------------
# What changed in a range of WAL
# ----------------------------------------------------------------------
sub redo_position { return $upstream->safe_psql('postgres', 'CHECKPOINT; SELECT redo_lsn FROM pg_control_checkpoint()') =~ s/.*\n//sr }

if ($upstream->pg_version < 17)
{
	is((answer('limits 1 0/1 0/2000000 0'))[1], '', 'before 17 nothing is summarized');
}
else
{
	$upstream->safe_psql('postgres', 'ALTER SYSTEM SET summarize_wal = on');
	$upstream->safe_psql('postgres', 'CREATE TABLE cut AS SELECT g FROM generate_series(1, 20000) g');
	$upstream->reload;
	my $from = redo_position();
	$upstream->safe_psql('postgres', $_) foreach
	  'DELETE FROM cut WHERE g > 10000', 'VACUUM cut', 'UPDATE cut SET g = 1 WHERE g = 5';
	my $to = redo_position();
	$upstream->poll_query_until('postgres',
		"SELECT bool_or(end_lsn >= '$to') FROM pg_available_wal_summaries()") or die 'no summary';
	my $oids = $upstream->safe_psql('postgres',
		"SELECT '1663 ' || (SELECT oid FROM pg_database WHERE datname = 'postgres') || ' ' || pg_relation_filenode('cut') || ' 0 0'");
	my @columns = split /\|/, (answer("limits 1 $from $to 0"))[1], -1;
	my $bytes = splice @columns, 4, 1;
	my ($high, $low) = split m!/!, $to;
	$to = sprintf '%s/%X', $high, hex $low;
	is("@columns", "limits $to t  1 $oids", 'a truncated table');
	cmp_ok($bytes, '>', 300_000, 'and how much would be sent');
	cmp_ok($bytes, '<', 3_000_000, 'which is not everything');
	like((answer("limits 1 $from $to 1"))[1], qr/\|1\z/, 'from the next on, none');
	like((answer("limits 1 0/1 $to 0"))[1], qr!\Alimits\|0/1\|t\|[0-9A-F]+/[0-9A-F]+\|!, 'a gap in the beginning is told');
	like((answer("limits 2 $from $to 0"))[1], qr!\Alimits\|[0-9A-F/]+\|t\|\|0\|0\z!, 'of another timeline there are none');
}

# ----------------------------------------------------------------------
# Who is told nothing
# ----------------------------------------------------------------------
my $superuser = $upstream->safe_psql('postgres', 'SELECT current_user');
append_to_file("$pgdata/pg_hba.conf", "host all,replication $superuser 127.0.0.1/32 trust\n");
$upstream->reload;
foreach my $user ('replica1', $superuser)
{
	foreach my $mode ('dbname=postgres', 'dbname=postgres replication=database')
	{
		($code, $out, $err) = answer('libraries', user => $user, mode => $mode);
		is("$code|$out", '0|', "nothing for $user with $mode");
	}
}
($code, $out, $err) = answer('libraries', user => 'bob');
isnt($code, 0, 'a role without REPLICATION does not get so far');
is($upstream->safe_psql('postgres',
		"SELECT count(*) FROM pg_settings WHERE name IN ('replica_kit.ask', 'replica_kit.answer')"),
	'0', 'neither is listed');
foreach my $statement ("SET replica_kit.answer = 'x'", "SET replica_kit.ask = 'x'",
	"ALTER SYSTEM SET replica_kit.answer = 'x'", "ALTER SYSTEM SET replica_kit.ask = 'libraries'")
{
	isnt($upstream->psql('postgres', $statement), 0, "refused: $statement");
}

# ----------------------------------------------------------------------
# Questions that nobody would ask
# ----------------------------------------------------------------------
foreach my $question (undef, '', 'nosuch', 'librariesx', 'libraries ', 'LIBRARIES',
	'data_directory /etc', 'slot', "slot '; DROP TABLE filler; --", 'slot ' . 'x' x 5000,
	'../../etc/passwd', '%s%n%n', "slot \x01\xff\n", '$(id)', 'slot a|b', 'limits', 'limits 1', 'limits 1 0/2 0/1 0', 'limits 1 0/1 0/2 0 x', 'limits 1 0/1 0/2 -1')
{
	($code, $out, $err) = answer($question);
	is("$code$err", '0', 'no error');
	like($out, qr/\A(slot\|f)?\z/, 'and nothing told');
}
($code, $out, $err) = answer('libraries', commands =>
	  [ 'SHOW replica_kit.answer', 'SHOW nosuch', 'IDENTIFY_SYSTEM', 'SHOW replica_kit.answer' ]);
like($out, qr/\Alibraries\|\S+\n\d+\|.*\nlibraries\|\S+\z/s, 'the connection goes on');
$upstream->stop;
done_testing();
