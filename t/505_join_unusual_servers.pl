# The script where not everything is as usual: a lost slot, tablespaces, IPv6,
# a standby upstream, a terminal, a server that cannot start or stream.
use strict;
use warnings FATAL => 'all';

use FindBin;
use lib $FindBin::RealBin;

use IPC::Run qw(run timeout);
use JoinKit;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $scratch = PostgreSQL::Test::Utils::tempdir;
my %env = (PGPASSWORD => 'secret-word-1');
my $upstream = new_upstream(
	'upstream',
	'listen_addresses = \'127.0.0.1, ::1\'',
	'shared_preload_libraries = pg_replica_kit',
	'max_wal_senders = 20',
	'max_replication_slots = 20',
	'wal_retrieve_retry_interval = 100ms');
my ($code, $out, $err);
my $number = 0;

# A provisioned replica: its node and script.
sub scene
{
	my ($node) = @_;
	$number++;
	provision($node, "replica$number", 'secret-word-1');
	my $replica = new_replica("replica$number");
	return ($replica, write_script($node, "replica$number"),
		'--pgdata', $replica->data_dir, '--port', $replica->port);
}

# The upstream throws the WAL away that the slot holds.
sub lose_slot
{
	my ($slot) = @_;
	$upstream->safe_psql('postgres',
		"ALTER SYSTEM SET max_slot_wal_keep_size = '1MB'");
	$upstream->reload;
	foreach (1 .. 3)
	{
		$upstream->safe_psql('postgres',
			"CREATE TABLE IF NOT EXISTS wal (); SELECT pg_switch_wal(); CHECKPOINT"
		);
	}
	my $status = $upstream->safe_psql('postgres',
		"SELECT wal_status FROM pg_replication_slots WHERE slot_name = '$slot'");
	$upstream->safe_psql('postgres',
		'ALTER SYSTEM RESET max_slot_wal_keep_size');
	$upstream->reload;
	return $status;
}

# ----------------------------------------------------------------------
# A slot that is lost before the clone is made anew
# ----------------------------------------------------------------------
{
	my ($replica, $script, @args) = scene($upstream);
	is(lose_slot('replica1'), 'lost', 'the slot is lost');
	($code, $out, $err) = run_script($script, \%env, @args);
	is($code, 0, 'a lost slot: the replica is made all the same');
	like($out, qr/retains no WAL: re-creating it/, 'a lost slot: it says how');
	adopt_replica($replica);
	is( $upstream->safe_psql(
			'postgres',
			"SELECT wal_status, active FROM pg_replication_slots WHERE slot_name = 'replica1'"
		),
		'reserved|t',
		'a lost slot: it reserves WAL again');

	# Lost later, the data is of no use any more.
	$replica->stop;
	is(lose_slot('replica1'), 'lost', 'the slot is lost again');
	($code, $out, $err) = run_script($script, \%env, @args);
	is($code, 13, 'WAL gone: exit code 13');
	like($err, qr/^hint: .*cloned again/m, 'WAL gone: the hint says what is left to do');
	like($err, qr/^pg_replica_kit: the end of .*server\.log:$/m,
		'WAL gone: the end of the log is shown');
	adopt_replica($replica);
	$replica->stop('fast');
	$upstream->safe_psql('postgres',
		"SELECT replica_kit.deprovision('replica1', true)");
}

# ----------------------------------------------------------------------
# A server that cannot start, and what helps
# ----------------------------------------------------------------------
{
	my ($replica, $script, @args) = scene($upstream);
	$upstream->safe_psql('postgres',
		"ALTER SYSTEM SET shared_preload_libraries = '$scratch/gone'");
	($code, $out, $err) = run_script($script, \%env, @args);
	is($code, 10, 'a library that is not here: exit code 10, before the clone');
	unlike($out, qr/cloning/, 'a library that is not here: nothing is cloned');
	$upstream->safe_psql('postgres',
		'ALTER SYSTEM RESET shared_preload_libraries');
	$upstream->safe_psql('postgres',
		'ALTER SYSTEM SET ssl = on');
	foreach my $file (qw(server.crt server.key))
	{
		append_to_file($upstream->data_dir . "/$file", "none\n");
		chmod 0600, $upstream->data_dir . "/$file";
	}
	($code, $out, $err) = run_script($script, \%env, @args);
	is($code, 12, 'a server that does not start: exit code 12');
	like($err, qr/could not load server certificate file/,
		'a server that does not start: its log is shown');
	$upstream->safe_psql('postgres', 'ALTER SYSTEM RESET ssl');
	unlink map { $upstream->data_dir . "/server.$_" } qw(crt key);
	my $conf = slurp($replica->data_dir . '/postgresql.auto.conf');
	$conf =~ s/^ssl .*\n//m;
	unlink $replica->data_dir . '/postgresql.auto.conf';
	append_to_file($replica->data_dir . '/postgresql.auto.conf', $conf);
	($code, $out, $err) = run_script($script, \%env, @args);
	is($code, 0, 'with the cause mended, the same command completes it');
	unlike($out, qr/cloning/, 'without another clone');
	adopt_replica($replica);

	# ------------------------------------------------------------------
	# That replica as upstream of another
	# ------------------------------------------------------------------
	$upstream->safe_psql('postgres',
		q{CREATE ROLE cascaded LOGIN REPLICATION PASSWORD 'secret-word-1';
		COMMENT ON ROLE cascaded IS 'pg_replica_kit: cascaded'});
	$upstream->wait_for_catchup("replica$number", 'replay',
		$upstream->lsn('write'));
	$replica->safe_psql('postgres',
		"SELECT replica_kit.provision('cascaded', '127.0.0.1', 'cascaded')");
	my $cascaded = new_replica('cascaded');
	($code, $out, $err) = run_script(
		write_script($replica, 'cascaded'),
		\%env, '--pgdata', $cascaded->data_dir, '--port', $cascaded->port);
	is($code, 0, 'a standby: it can be the upstream of a replica');
	adopt_replica($cascaded);
	ok( $replica->poll_query_until(
			'postgres', 'SELECT application_name, state FROM pg_stat_replication',
			'cascaded|streaming'),
		'a standby: it sees its replica stream');
	$cascaded->stop;
	$replica->stop;
}

# ----------------------------------------------------------------------
# Where nobody may log in to the replica
# ----------------------------------------------------------------------
{
	my ($replica, $script, @args) = scene($upstream);
	$upstream->safe_psql('postgres', 'ALTER SYSTEM SET hot_standby = off');
	($code, $out, $err) = run_script($script, \%env, @args);
	is($code, 0, 'no login: the replica is made');
	like($out, qr/the upstream's slot confirms it/,
		'no login: the upstream\'s word is the proof');
	adopt_replica($replica);
	ok( $upstream->poll_query_until(
			'postgres',
			"SELECT state FROM pg_stat_replication WHERE application_name = 'replica$number'",
			'streaming'),
		'no login: it streams');
	is( $upstream->safe_psql(
			'postgres', "SELECT code, evidence FROM replica_kit.diagnose('replica$number')"),
		'',
		'no login: that the script asked whether the slot is in use is nobody\'s failure');
	is( $upstream->safe_psql(
			'postgres', "SELECT last_error FROM replica_kit.status() WHERE name = 'replica$number'"),
		'',
		'no login: nor the replica\'s last error');
	$replica->stop;
	$upstream->safe_psql('postgres', 'ALTER SYSTEM RESET hot_standby');
}

# ----------------------------------------------------------------------
# IPv6, and the address that the session itself has reached
# ----------------------------------------------------------------------
SKIP:
{
	skip 'there is no IPv6 here', 3
	  if $upstream->psql('postgres', 'SELECT 1',
		connstr => 'host=::1 dbname=postgres port=' . $upstream->port) != 0;
	provision($upstream, 'six', 'secret-word-1', undef, '::1');
	my $replica = new_replica('six');
	my $script = write_script($upstream, 'six', '::1');
	($code, $out, $err) = run_script($script, \%env,
		'--pgdata', $replica->data_dir, '--port', $replica->port);
	is($code, 0, 'IPv6: the replica is made');
	like(slurp($replica->data_dir . '.pg_replica_kit/passfile'),
		qr/^\\:\\:1:/, 'IPv6: the passfile has the colons escaped');
	adopt_replica($replica);
	is( $upstream->safe_psql(
			'postgres',
			"SELECT client_addr FROM pg_stat_replication WHERE application_name = 'six'"
		),
		'::1',
		'IPv6: it streams over it');
	$replica->stop;
}

# ----------------------------------------------------------------------
# The password from a terminal, unseen
# ----------------------------------------------------------------------
SKIP:
{
	skip 'script(1) is not installed', 4
	  if system('script --version >/dev/null 2>&1') != 0;
	my ($replica, $script, @args) = scene($upstream);
	delete local $ENV{PGPASSWORD};
	local $ENV{HOME} = $scratch;
	my ($in, $terminal) = ('', '');
	my $run = IPC::Run::start [
		'script', '-qec',
		join(' ', 'dash', $script, risk(), @args), '/dev/null' ],
	  '<', \$in, '>', \$terminal, '2>&1',
	  timeout($PostgreSQL::Test::Utils::timeout_default);
	$run->pump until $terminal =~ /Password of role "replica$number": /;
	$in .= "secret-word-1\n";
	$run->finish;
	is($run->full_result(0), 0, 'a terminal: the replica is made');
	unlike($terminal, qr/secret-word/, 'a terminal: the password is not shown');
	like($terminal, qr/\rpg_replica_kit: *\d+\/\d+ kB/,
		'a terminal: progress is shown in place')
	  if $terminal =~ / kB/;
	like($terminal, qr/replica "replica$number" streams/,
		'a terminal: it says that it streams');
	adopt_replica($replica);
	$replica->stop;
}

# ----------------------------------------------------------------------
# An upstream whose configuration is not in its data directory
# ----------------------------------------------------------------------
{
	my $apart = new_upstream('apart');
	provision($apart, 'apart1', 'secret-word-1');
	$apart->stop;
	mkdir "$scratch/etc" or die "mkdir: $!";
	foreach my $file (qw(postgresql.conf pg_hba.conf pg_ident.conf))
	{
		rename $apart->data_dir . "/$file", "$scratch/etc/$file"
		  or die "rename: $!";
	}
	append_to_file("$scratch/etc/postgresql.conf",
		"data_directory = '@{[$apart->data_dir]}'\n");
	system_or_bail('pg_ctl', '-s', '-w', '-D', "$scratch/etc", '-l',
		$apart->logfile, 'start');
	my $replica = new_replica('apart1');
	my $script = write_script($apart, 'apart1');
	($code, $out, $err) = run_script($script, \%env,
		'--pgdata', $replica->data_dir, '--port', $replica->port);
	is($code, 0, 'configuration elsewhere: the replica is made');
	like($out, qr/writing a plain one/,
		'configuration elsewhere: it says that it writes its own');
	like(slurp($replica->data_dir . '/pg_hba.conf'),
		qr/^local all all peer$/m,
		'configuration elsewhere: local logins are by peer');
	system_or_bail('pg_ctl', '-s', '-w', '-D', $replica->data_dir, 'stop');
	system_or_bail('pg_ctl', '-s', '-w', '-D', "$scratch/etc", 'stop');
}

# ----------------------------------------------------------------------
# Tablespaces, and a disk that fills: on file systems of the replica's own
# ----------------------------------------------------------------------
SKIP:
{
	my @apart = ('unshare', '-U', '-c', '--keep-caps', '-m');
	skip 'this system lets users make no mount of their own', 8
	  if system("@apart true 2>/dev/null") != 0;
	my $location = "$scratch/a table=space";
	mkdir $location or die "mkdir: $!";
	$upstream->safe_psql('postgres', "CREATE TABLESPACE ts LOCATION '$location'");
	$upstream->safe_psql('postgres',
		'CREATE TABLE there TABLESPACE ts AS SELECT generate_series(1, 99) AS g');
	my ($replica, $script, @args) = scene($upstream);

	# Runs the script where a file system of its own covers a directory.
	my $run_apart = sub {
		my ($directory, $size, $file) = @_;
		return run_script(
			$file, \%env, @args,
			run_by => [
				@apart, 'sh', '-c',
				'mount -t tmpfs -o size="$1" none "$2" && shift 2 && exec "$@"',
				'sh', $size, $directory ]);
	};

	# Without room for WAL: it goes elsewhere.
	($code, $out, $err) = $run_apart->($location, '8m', $script);
	is($code, 0, 'tablespaces: the replica is made');
	adopt_replica($replica);
	is($replica->safe_psql('postgres', 'SELECT count(*) FROM there'),
		'99', 'tablespaces: the data is there');
	my ($link) = glob $replica->data_dir . '/pg_tblspc/*';
	is(readlink $link, $location, 'tablespaces: the link is the upstream\'s');
	$replica->stop;
	$upstream->safe_psql('postgres', 'DROP TABLE there');
	$upstream->safe_psql('postgres', 'DROP TABLESPACE ts');

	($replica, $script, @args) = scene($upstream);
	my $parent = $replica->basedir;
	($code, $out, $err) = $run_apart->($parent, '30m', $script);
	is($code, 9, 'a small disk: refused');
	like($err, qr/not enough disk space: \Q$parent\E needs/,
		'a small disk: it says which');
	($code, $out, $err) =
	  $run_apart->($parent, '30m', edit_script($script, prk_data_size => 1,
		prk_segment_size => 1));
	is($code, 9, 'a disk that fills: exit code 9');
	like($err, qr/the clone failed: .*No space left/,
		'a disk that fills: it says so');
	($code, $out, $err) = run_script($script, \%env, @args);
	is($code, 0, 'with room, the same command makes the replica');
	adopt_replica($replica);
	$replica->stop;
}

$upstream->stop;
done_testing();
