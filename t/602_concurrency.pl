# Many sessions provision and deprovision at once while somebody edits
# pg_hba.conf: no line is lost, none is there twice, and nobody gets an error
# that is not clean.  And a replica that reconnects at once can't keep its slot.

use strict;
use warnings FATAL => 'all';

use IPC::Run;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use POSIX ();
use Test::More;
use Time::HiRes qw(time usleep);

my $seconds = $ENV{PRK_TEST_SECONDS} // 12;
my $sessions = 20;

my $node = PostgreSQL::Test::Cluster->new('busy');
$node->init(allows_streaming => 1);
$node->append_conf('postgresql.conf', <<~CONF);
	listen_addresses = '127.0.0.1'
	max_connections = 60
	max_wal_senders = 40
	max_replication_slots = 60
	deadlock_timeout = '100ms'
	log_statement = none
	fsync = off
	CONF
my $hba = $node->data_dir . '/pg_hba.conf';
unlink $hba;
append_to_file($hba, "# head\nlocal all all trust\nhost all all 127.0.0.1/32 trust\n# tail\n");
$node->start;
$node->safe_psql('postgres', 'CREATE EXTENSION pg_replica_kit');
my $before = slurp_file($hba);

# ----------------------------------------------------------------------
# 20 sessions: some on replicas of their own, some on shared ones, some on
# replicas that share a role
# ----------------------------------------------------------------------

my %scripts = (
	own => <<~'SQL',
		SELECT replica_kit.provision('own' || :client_id, '127.0.0.1');
		SELECT replica_kit.provision('own' || :client_id, '127.0.0.2');
		SELECT replica_kit.revoke_address('own' || :client_id, '127.0.0.2');
		SELECT replica_kit.deprovision('own' || :client_id);
		SQL
	shared => <<~'SQL',
		\set n random(1, 3)
		SELECT replica_kit.provision('shared' || :n, '127.0.0.3');
		\set n random(1, 3)
		SELECT replica_kit.deprovision('shared' || :n);
		SQL
	role => <<~'SQL',
		SELECT replica_kit.provision('role' || :client_id, '127.0.0.4', role => 'together');
		SELECT replica_kit.rotate_password('role' || :client_id);
		SELECT replica_kit.deprovision('role' || :client_id);
		SQL
	undone => <<~'SQL');
		BEGIN;
		SELECT replica_kit.provision('undone' || :client_id, '127.0.0.5');
		SAVEPOINT a;
		SELECT replica_kit.provision('undone' || :client_id, '127.0.0.6');
		ROLLBACK TO a;
		ROLLBACK;
		SQL
my @files;
for my $name (sort keys %scripts)
{
	my $file = PostgreSQL::Test::Utils::tempdir . "/$name.sql";

	# what each call says to the client is not looked at
	append_to_file($file, "SET client_min_messages = 'error';\n$scripts{$name}");
	push @files, '-f', $file;
}

# As every editor that looks before it saves: false if somebody else has changed
# the file meanwhile.
sub replace_file
{
	my ($line) = @_;
	my @stat = stat $hba;
	my $text = slurp_file($hba) . "# renamed $line\n";

	open my $out, '>', "$hba.edited" or POSIX::_exit(1);
	print $out $text;
	close $out;
	my @now = stat $hba;
	return 0 if "@stat[1, 7, 9]" ne "@now[1, 7, 9]";
	rename "$hba.edited", $hba or POSIX::_exit(1);
	return 1;
}

# The other program: it adds and removes lines of its own, as an editor does,
# by a new file under the old name, and as a shell does, in place.
my $stop = PostgreSQL::Test::Utils::tempdir . '/stop';
my $editor = fork // die "could not fork: $!";
if ($editor == 0)
{
	my $line = 0;

	while (!-e $stop)
	{
		$line++;
		if ($line % 2)
		{
			open my $out, '>>', $hba or POSIX::_exit(1);
			syswrite $out, "# in place $line\n";
			close $out;
		}
		else
		{
			1 until replace_file($line);
		}
		open my $count, '>', "$stop.count" or POSIX::_exit(1);
		print $count $line;
		close $count;
		usleep(20_000 + rand 30_000);
	}
	unlink "$hba.edited";
	POSIX::_exit(0);
}

my @command = ('pgbench', '-n', '-c', $sessions, '-j', 2, '-T', $seconds, '--max-tries=1', '--failures-detailed', @files,
	$node->connstr('postgres'));
my ($stdout, $stderr) = ('', '');
my $ok = IPC::Run::run(\@command, '>', \$stdout, '2>', \$stderr, IPC::Run::timeout(10 * $PostgreSQL::Test::Utils::timeout_default));
append_to_file($stop, '');
waitpid $editor, 0;
is($?, 0, 'the other program could always edit the file');

my ($transactions) = $stdout =~ /transactions actually processed: (\d+)/;
my $edits = slurp_file("$stop.count");
note $stdout, $stderr;
cmp_ok($transactions // 0, '>', 100, "$sessions sessions have done something");
cmp_ok($edits, '>', 20, "the other program has made edits");

my $log = slurp_file($node->logfile);
my %errors;
$errors{$1}++ while $log =~ /(?:ERROR|FATAL|PANIC):  (.*)/g;
note map { "$errors{$_}: $_\n" } sort keys %errors;
is(join("\n", grep { !/^(?:file ".*" is repeatedly changed by another program|could not put back file)/ } sort keys %errors),
	'', 'no session gets an error, but for what the other program did at that moment');
is($ok || $stderr =~ /repeatedly changed|could not put back file/, !!1, 'pgbench ends as it should');
unlike($log, qr/deadlock detected/, 'there is no deadlock');

my $text = slurp_file($hba);
# Two edits that fall between two system calls of the kit can't be merged: then
# one of them is in a file whose name the error tells.
my @mine = $text =~ /^# (?:in place|renamed) (\d+)$/mg;
for my $saved (glob "$hba.edited.*")
{
	like($log, qr/\Q$saved\E/, 'a version that could not be merged is named in the log');
	my %there = map { $_ => 1 } @mine;
	push @mine, grep { !$there{$_}++ } slurp_file($saved) =~ /^# (?:in place|renamed) (\d+)$/mg;
	unlink $saved;
}
is("@{[ sort { $a <=> $b } @mine ]}", join(' ', 1 .. $edits), 'no edit of the other program is lost, none is there twice');
is($node->safe_psql('postgres', 'SELECT count(*) FROM pg_hba_file_rules WHERE error IS NOT NULL'), '0', 'the file has no error');
my %times;
$times{$_}++ for $text =~ /^(host.*# pg_replica_kit: .*)$/mg;
is(join(' ', grep { $times{$_} > 1 } keys %times), '', 'no line is there twice');
is($text =~ s/^(?:host .* # pg_replica_kit: \w+|# (?:in place|renamed) \d+)\n//mgr, $before, 'all other lines are as before');

# What is there belongs together; and all of it can be removed.
is( $node->safe_psql('postgres', <<~'SQL'), '', 'each slot has its role');
	SELECT slot_name FROM pg_replication_slots
	WHERE NOT EXISTS (SELECT FROM pg_authid a, regexp_split_to_table(substr(shobj_description(a.oid, 'pg_authid'), 17), ', ') name
	                  WHERE name = slot_name)
	SQL
$node->safe_psql('postgres', "SET client_min_messages = 'error'; SELECT replica_kit.deprovision('$_')")
  for (map { ("own$_", "role$_", "undone$_") } 0 .. $sessions - 1), map { "shared$_" } 1 .. 3;
is( $node->safe_psql('postgres', q{SELECT rolname FROM pg_authid WHERE rolname !~ '^pg_' UNION ALL SELECT slot_name FROM pg_replication_slots}),
	$node->safe_psql('postgres', 'SELECT current_user'),
	'and nothing is left');
unlike(slurp_file($hba), qr/pg_replica_kit/, 'in the file neither');
is(join(' ', glob "$hba*"), $hba, 'nor beside it');

# ----------------------------------------------------------------------
# A replica that reconnects at once, behind a rule that lets everybody in
# ----------------------------------------------------------------------

# Its role is not the kit's, so it stays; when the kit's line has gone, the
# other rule still lets the replica in.
append_to_file($hba, "host replication all samehost trust\n");
$node->safe_psql('postgres', q{CREATE ROLE regress_receiver LOGIN REPLICATION PASSWORD 'secret'});
$node->reload;
$ENV{PGPASSWORD} = 'secret';
my $receiving = PostgreSQL::Test::Utils::tempdir . '/receiving';
mkdir $receiving or die "could not make \"$receiving\": $!";
my $connstr = $node->connstr('') =~ s/host=\S+/host=127.0.0.1/r . ' user=regress_receiver';

# Several at a time, each again as soon as it has been ended.
my @receivers;
for my $n (1 .. 3)
{
	my $pid = fork // die "could not fork: $!";

	if ($pid == 0)
	{
		open STDOUT, '>', '/dev/null';
		open STDERR, '>', '/dev/null';
		mkdir "$receiving/$n";
		while (!-e "$stop.receivers")
		{
			system('pg_receivewal', '--no-loop', '--synchronous', '-D', "$receiving/$n", '-S', 'receiver', '-d', $connstr);
			usleep(1000);
		}
		POSIX::_exit(0);
	}
	push @receivers, $pid;
}

my ($gone, $was_active, $slowest) = (0, 0, 0);
my @failures;
for my $try (1 .. 100)
{
	my ($rc, $out, $err) = $node->psql('postgres', <<~'SQL', on_error_stop => 0);
		SET client_min_messages = 'error';
		SELECT replica_kit.provision('receiver', '127.0.0.1', role => 'regress_receiver') IS NOT NULL;
		DO $$
		BEGIN
			FOR i IN 1 .. 20000 LOOP
				EXIT WHEN (SELECT active FROM pg_replication_slots WHERE slot_name = 'receiver');
				PERFORM pg_sleep(0.003);
			END LOOP;
		END $$;
		SELECT 'active ' || active FROM pg_replication_slots WHERE slot_name = 'receiver';
		SELECT clock_timestamp() AS begin \gset
		SELECT 'dropped ' || slot_dropped FROM replica_kit.deprovision('receiver', force => true);
		SELECT 'slots ' || count(*) FROM pg_replication_slots;
		SELECT 'seconds ' || extract(epoch FROM clock_timestamp() - :'begin'::timestamptz);
		SQL

	$was_active++ if $out =~ /^active true$/m;
	$gone++ if $out =~ /^slots 0$/m;
	push @failures, $err if $err ne '' || $out !~ /^dropped true$/m;
	my ($time) = $out =~ /^seconds (.*)$/m;
	$slowest = $time if defined $time && $time > $slowest;
}
append_to_file("$stop.receivers", '');
waitpid $_, 0 for @receivers;
note sprintf 'the slowest took %.3f s', $slowest;
is(join("\n", @failures), '', 'deprovision(force) succeeds each time');
is($was_active, 100, 'the replica was connected 100 times');
is($gone, 100, 'and its slot was gone 100 times');
unlike(slurp_file($node->logfile), qr/PANIC|terminated by signal/, 'no process has crashed');

$node->stop;
done_testing();
