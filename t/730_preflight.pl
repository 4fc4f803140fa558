# preflight(): each check fires where it should and only there, and what it
# proposes mends it, applied as the README shows, and once more.

use strict;
use warnings FATAL => 'all';

use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $node = PostgreSQL::Test::Cluster->new('primary');
$node->init(allows_streaming => 1);
my $is_17 = $node->pg_version >= 17;
my $tablespace = $node->basedir . '/tablespace';
mkdir $tablespace or die "could not create \"$tablespace\": $!";

# A server of which preflight has nothing to say; no TLS where there is no
# certificate to be had.
my $certificate = $node->data_dir . '/server.crt';
my $key = $node->data_dir . '/server.key';
my $tls = $node->config_data('--configure') =~ /--with-(?:openssl|ssl=openssl)/
  && system("openssl req -new -x509 -days 9 -nodes -newkey rsa:2048 -subj /CN=localhost -out '$certificate' -keyout '$key' >/dev/null 2>&1 && chmod 600 '$key'") == 0;
my $good = <<~CONF;
	listen_addresses = '*'
	shared_preload_libraries = 'pg_replica_kit'
	max_slot_wal_keep_size = 1GB
	max_wal_size = 64MB
	max_replication_slots = 5
	max_wal_senders = 5
	wal_log_hints = on
	CONF
$good .= "ssl = on\n" if $tls;
$good .= "summarize_wal = on\n" if $is_17;
$node->append_conf('postgresql.conf', $good);
$node->start;
$node->safe_psql('postgres', 'CREATE EXTENSION pg_replica_kit');
my $conf = $node->data_dir . '/postgresql.conf';
my $hba = $node->data_dir . '/pg_hba.conf';
my ($good_conf, $good_hba) = (slurp_file($conf), slurp_file($hba));

sub sql
{
	my ($sql) = @_;

	return $node->safe_psql('postgres', $sql);
}

sub rows
{
	my ($where) = @_;

	return sql("SELECT check_name, level, needs_restart FROM replica_kit.preflight() WHERE $where");
}

# Waits until these are the rows; what they are at last.
sub wait_for_rows
{
	my ($where, $wanted) = @_;

	$node->poll_query_until('postgres',
		"SELECT coalesce(string_agg(concat_ws('|', check_name, level, substr(needs_restart::text, 1, 1)), E'\\n'), '') FROM replica_kit.preflight() WHERE $where",
		$wanted);
	return rows($where);
}

sub write_file
{
	my ($path, $text) = @_;

	open my $file, '>', $path or die "could not open \"$path\": $!";
	print $file $text;
	close $file or die "could not write \"$path\": $!";
	return;
}

# To the letter what the README shows; what it prints.
sub apply_fixes
{
	return sql('SELECT fix FROM replica_kit.preflight() WHERE fix IS NOT NULL \\gexec');
}

# As in the beginning.  The file first: it may forbid what follows.
sub reset_conf
{
	my ($restart) = @_;

	write_file($conf, $good_conf);
	if ($is_17)
	{
		$node->reload;
		$node->poll_query_until('postgres', q{SELECT current_setting('allow_alter_system') = 'on'}) or die 'ALTER SYSTEM is refused';
	}
	sql('ALTER SYSTEM RESET ALL');
	$restart ? $node->restart : $node->reload;
	return;
}

my $readme = slurp_file('README.md');
like($readme, qr/^SELECT fix FROM replica_kit\.preflight\(\) WHERE fix IS NOT NULL \\gexec$/m, 'the README shows how to apply the fixes');
is(rows('true'), $tls ? '' : 'ssl|info|f', 'of a good server it says nothing, or that it has no TLS');
is(apply_fixes(), '', 'and there is nothing to mend');

# A check, the configuration with which it fires, its row, and whether it has
# a fix.  Those that a reload brings are tried by one.
my @cases = (
	{ check => 'max_slot_wal_keep_size', conf => 'max_slot_wal_keep_size = -1', row => 'warning|f', fix => 1, reload => 1 },
	{ check => 'wal_sender_timeout', conf => 'wal_sender_timeout = 0', row => 'warning|f', fix => 1, reload => 1 },
	{ check => 'password_encryption', conf => 'password_encryption = md5', row => 'warning|f', fix => 1, reload => 1 },
	{ check => 'log_min_messages', conf => 'log_min_messages = fatal', row => 'warning|f', fix => 1, reload => 1 },
	$is_17 ? { check => 'summarize_wal', conf => 'summarize_wal = off', row => 'info|f', fix => 1, reload => 1 } : (),
	{ check => 'hot_standby', conf => 'hot_standby = off', row => 'warning|t', fix => 1 },
	{ check => 'pg_rewind', conf => 'wal_log_hints = off', row => 'info|t', fix => 1, unless => q{SELECT current_setting('data_checksums')} },
	{ check => 'worker', conf => q{shared_preload_libraries = ''}, row => 'info|t', fix => 1 },
	{ check => 'wal_level', conf => "wal_level = minimal\nmax_wal_senders = 0" . ($is_17 ? "\nsummarize_wal = off" : ''), row => 'critical|t', fix => 1 },
	{ check => 'max_wal_senders', conf => 'max_wal_senders = 1', row => 'critical|t', fix => 1 },
	{ check => 'max_replication_slots', conf => 'max_replication_slots = 0', row => 'critical|t', fix => 1 },
	{ check => 'listen_addresses', conf => q{listen_addresses = 'localhost, 127.0.0.1'}, row => 'critical|t', fix => 0 },
	{ check => 'synchronous_standby_names', conf => "synchronous_standby_names = 'ANY 1 (a, b)'\nsynchronous_commit = local", row => 'critical|f', fix => 0, reload => 1 },
	{ check => 'wal_disk', conf => 'max_wal_size = 100TB', row => 'critical|f', fix => 0, reload => 1 },
	{ check => 'libraries', conf => q{shared_preload_libraries = 'auto_explain, pg_replica_kit'}, row => 'info|f', fix => 0, library => 'auto_explain' });
push @cases, { check => 'ssl', conf => 'ssl = off', row => 'info|f', fix => 0, reload => 1 } if $tls;
push @cases,
  { check => 'restart_would_fail', conf => 'wal_level = minimal', row => 'critical|f', fix => 1, reload => 1 },
  { check => 'recovery_settings', conf => q{recovery_target_time = '2030-01-01 00:00:00'}, row => 'warning|f', fix => 1, reload => 1 },
  { check => 'recovery_settings', conf => q{recovery_target = immediate}, row => 'warning|f', fix => 1, reload => 1 },
  { check => 'recovery_settings', conf => q{restore_command = 'cp /nowhere/%f %p'}, row => 'info|f', fix => 0, reload => 1 },
  { check => 'recovery_settings', conf => 'recovery_min_apply_delay = 1h', row => 'info|f', fix => 0, reload => 1 },
  { check => 'recovery_settings', conf => 'recovery_target_action = promote', row => 'info|f', fix => 0, reload => 1 };
push @cases,
  { check => 'log_min_messages', conf => q{log_min_messages = 'warning, walsender:fatal'}, row => 'warning|f', fix => 1, reload => 1 },
  { check => 'log_min_messages', conf => q{log_min_messages = 'fatal, autovacuum:debug1'}, row => 'warning|f', fix => 1, reload => 1 }
  if $node->pg_version >= 19;
my $but_tls = $tls ? 'true' : q{check_name <> 'ssl'};

for my $case (@cases)
{
	my $check = $case->{check};
	my $restarts = $case->{row} =~ /t$/;

  SKIP:
	{
		skip "$check: not on this server", 1
		  if ($case->{unless} && sql($case->{unless}) eq 'on')
		  || ($case->{library} && !-e $node->config_data('--pkglibdir') . "/$case->{library}.so");

		append_to_file($conf, "$case->{conf}\n");
		$case->{reload} ? $node->reload : $node->restart;
		is(wait_for_rows("check_name = '$check'", "$check|$case->{row}"), "$check|$case->{row}", "$check fires");
		if ($case->{fix})
		{
			isnt(apply_fixes(), '', "$check has a fix");
			$node->restart if $restarts;
			is(wait_for_rows("check_name = '$check'", ''), '', "$check is mended by its fix");
			is(wait_for_rows(q{check_name = 'reload'}, ''), '', "$check: no fix is left");
			is(apply_fixes(), '', "$check: applied once more, it is silent" . ($restarts ? ', after the restart' : ''));
		}
		else
		{
			is(sql(q{SELECT count(fix) FROM replica_kit.preflight()}), '0', "$check proposes nothing that it would have to guess");
		}
		reset_conf(!$case->{reload});
		is(wait_for_rows($but_tls, ''), '', "$check does not fire otherwise");
	}
}

# ----------------------------------------------------------------------
# Where ALTER SYSTEM is refused
# ----------------------------------------------------------------------

if ($is_17)
{
	append_to_file($conf, "allow_alter_system = off\n");
	$node->reload;
	$node->poll_query_until('postgres', q{SELECT current_setting('allow_alter_system') = 'off'}) or die 'ALTER SYSTEM is not refused';
	is(rows($but_tls), '', 'that ALTER SYSTEM is refused matters only if there is something to set');

	my $off = $good_conf . "allow_alter_system = off\n";
	write_file($conf, $off . "wal_sender_timeout = 0\nmax_slot_wal_keep_size = -1\nshared_preload_libraries = 'auto_explain'\n");
	$node->restart;
	is(rows(q{check_name NOT IN ('ssl', 'libraries')}), <<~ROWS =~ s/\n\z//r, 'where ALTER SYSTEM is refused, a row says so');
		max_slot_wal_keep_size|warning|f
		wal_sender_timeout|warning|f
		worker|info|t
		allow_alter_system|info|f
		restart|info|t
		ROWS
	is(apply_fixes(), '', 'no fix is proposed that would be refused');
	my $lines = sql(q{SELECT substring(wanted FROM ', in its configuration: (.*)') FROM replica_kit.preflight() WHERE wanted LIKE '%, in its configuration: %'});
	like($lines, qr/^wal_sender_timeout = '1min'\nshared_preload_libraries = 'auto_explain, pg_replica_kit'$/m, 'but the lines for the configuration');
	write_file($conf, "$off$lines\n");
	$node->restart;
	is(rows(q{check_name NOT IN ('ssl', 'libraries')}), '', 'with which all is well');
	reset_conf(1);
}

# ----------------------------------------------------------------------
# pg_hba.conf
# ----------------------------------------------------------------------

append_to_file($hba, "host all all 127.0.0.1/32 nonsense\n");
is(rows(q{check_name IN ('pg_hba', 'pg_hba_owner')}), 'pg_hba|critical|f', 'pg_hba fires of a file that would not load');
like(sql(q{SELECT current FROM replica_kit.preflight() WHERE check_name = 'pg_hba'}),
	qr/Line \d+ of file "\Q$hba\E"/, 'and says where');
is(sql(q{SELECT count(fix) FROM replica_kit.preflight()}), '0', 'and guesses no fix');
command_fails([ 'pg_ctl', '-D', $node->data_dir, '-l', $node->logfile . '.refused', '-w', 'restart' ], 'a restart would have failed');
write_file($hba, $good_hba);
command_ok([ 'pg_ctl', '-D', $node->data_dir, '-l', $node->logfile, '-w', 'start' ], 'as it does not without that line');
$node->_update_pid(1);
is(rows(q{check_name IN ('pg_hba', 'pg_hba_owner')}), '', 'nor does pg_hba fire then');

for my $case (
	[ '# Do not edit this file manually!  It will be overwritten by Patroni!', 'Patroni' ],
	[ '# Ansible managed', 'Ansible' ],
	[ '# This file is managed by Puppet.  Changes will be lost.', 'Puppet' ])
{
	write_file($hba, "$case->[0]\n$good_hba");
	is(sql(q{SELECT level, current, fix FROM replica_kit.preflight() WHERE check_name IN ('pg_hba', 'pg_hba_owner')}),
		"warning|pg_hba.conf seems to be managed by $case->[1]|", "pg_hba_owner fires of a file that $case->[1] makes");
}
write_file($hba, "# rules for the machines that Ansible sets up\n$good_hba");
is(rows(q{check_name = 'pg_hba_owner'}), '', 'and not of a file that only mentions it');
write_file($hba, $good_hba);

# ----------------------------------------------------------------------
# What other things it takes
# ----------------------------------------------------------------------

sql("CREATE TABLESPACE regress_prk LOCATION '$tablespace'");
like(sql(q{SELECT level, current, fix IS NULL FROM replica_kit.preflight() WHERE check_name = 'tablespaces'}),
	qr/^info\|\Q$tablespace\E\|t$/, 'tablespaces fires with the directories');
sql('DROP TABLESPACE regress_prk');
is(rows(q{check_name = 'tablespaces'}), '', 'and not without one');

# One that receives WAL, without a slot, and confirms it at once.
my $wal = $node->basedir . '/received';
mkdir $wal;
my $receiver = IPC::Run::start([ 'pg_receivewal', '--synchronous', '-D', $wal, '-d', $node->connstr('postgres') . ' application_name=slotless' ],
	'>', \my $out, '2>', \my $err);
$node->poll_query_until('postgres', q{SELECT count(*) = 1 FROM replica_kit.preflight() WHERE check_name = 'wal_keep_size' AND current LIKE '%slotless'})
  or die 'wal_keep_size does not fire';
is(sql(q{SELECT level, fix IS NULL FROM replica_kit.preflight() WHERE check_name = 'wal_keep_size'}), 'warning|t', 'wal_keep_size fires of a replica without a slot');
append_to_file($conf, "wal_keep_size = 64MB\nsynchronous_standby_names = 'FIRST 1 (slotless, other)'\n");
$node->reload;
is(wait_for_rows(q{check_name IN ('wal_keep_size', 'synchronous_standby_names')}, ''), '',
	'and not where WAL is kept; nor does synchronous_standby_names where somebody answers');
append_to_file($conf, "synchronous_standby_names = '2 (slotless, other)'\nsynchronous_commit = local\n");
$node->reload;
is(wait_for_rows(q{check_name = 'synchronous_standby_names'}, 'synchronous_standby_names|critical|f'), 'synchronous_standby_names|critical|f',
	'but where one of two does');
like(sql(q{SELECT current FROM replica_kit.preflight() WHERE check_name = 'synchronous_standby_names'}), qr/: 1 of 2 connected$/, 'and says how many');
reset_conf();
$receiver->signal('INT');
$receiver->finish;

# ----------------------------------------------------------------------
# What the next restart would refuse
# ----------------------------------------------------------------------

sql(q{SELECT pg_create_physical_replication_slot('a' || i, true) FROM generate_series(1, 3) i});
for my $case (
	[ 'wal_level = minimal', qr/wal_level = minimal after a restart, with 3 replication slots/, 1 ],
	[ 'max_replication_slots = 2', qr/max_replication_slots = 2 after a restart, with 3 slots in use/, 1 ],
	[ q{shared_preload_libraries = 'pg_replica_kit, regress_prk_nonsuch'}, qr/library not found: regress_prk_nonsuch/, 0 ],
	[ 'work_mem = much', qr/work_mem: .*\(line \d+ of .*postgresql\.conf\)/, 0 ],
	[ 'no_such_setting = 1', qr/no_such_setting: .*\(line \d+ of .*postgresql\.conf\)/, 0 ])
{
	my ($line, $expected, $has_fix) = @$case;

	is(rows(q{check_name = 'restart_would_fail'}), '', "restart_would_fail does not fire without $line");
	append_to_file($conf, "$line\n");
	$node->reload;
	like(sql(q{SELECT current FROM replica_kit.preflight() WHERE check_name = 'restart_would_fail' AND level = 'critical'}),
		$expected, "restart_would_fail fires of $line");
	like(sql(q{SELECT evidence FROM replica_kit.diagnose() WHERE code = 'restart_would_fail'}),
		$expected, 'and diagnose() says the same');
	if ($has_fix)
	{
		apply_fixes();
		is(wait_for_rows(q{check_name = 'restart_would_fail'}, ''), '', 'and is mended by its fix');
		is(wait_for_rows(q{check_name = 'reload'}, ''), '', 'no other is left');
		is(apply_fixes(), '', 'which is silent when applied once more');
		$node->restart;
		pass('with which the server restarts');
		sql('ALTER SYSTEM RESET ALL');
	}
	else
	{
		is(sql(q{SELECT count(fix) FROM replica_kit.preflight()}), '0', 'and guesses no fix');
	}
	command_fails([ 'pg_ctl', '-D', $node->data_dir, '-l', $node->logfile . '.refused', '-w', 'restart' ],
		$has_fix ? 'without which it would not have' : 'and it would have');
	write_file($conf, $good_conf);
	command_ok([ 'pg_ctl', '-D', $node->data_dir, '-l', $node->logfile, '-w', 'start' ], 'as it starts without it');
	$node->_update_pid(1);
}

# Nor does a server archive or summarize WAL, where that is minimal.
sql(q{SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots});
for my $line ('archive_mode = on', $is_17 ? 'summarize_wal = on' : ())
{
	write_file($conf, "${good_conf}wal_level = minimal\nmax_wal_senders = 0\n$line\n");
	$node->reload;
	is(wait_for_rows(q{check_name = 'restart_would_fail'}, 'restart_would_fail|critical|f'), 'restart_would_fail|critical|f', "restart_would_fail fires of minimal WAL with $line");
	command_fails([ 'pg_ctl', '-D', $node->data_dir, '-l', $node->logfile . '.refused', '-w', 'restart' ], 'and it would have');
	write_file($conf, $good_conf);
	command_ok([ 'pg_ctl', '-D', $node->data_dir, '-l', $node->logfile, '-w', 'start' ], 'as it starts without them');
	$node->_update_pid(1);
}

# ----------------------------------------------------------------------
# Files that a base backup can't read
# ----------------------------------------------------------------------

my $secret = $node->data_dir . '/notes.txt';
mkdir $node->data_dir . '/old';
for my $path ($secret, $node->data_dir . '/old/10:20')
{
	my $name = $path =~ s/^\Q${\ $node->data_dir}\E.//r;

	write_file($path, "mine\n");
	is(rows(q{check_name = 'unreadable_files'}), '', "$name can be read");
	chmod 0, $path;
	is(sql(q{SELECT level, current, fix IS NULL FROM replica_kit.preflight() WHERE check_name = 'unreadable_files'}), qq{critical|"$name"|t}, 'unreadable_files names a file that the server cannot read');
	$node->command_fails([ 'pg_basebackup', '-D', $node->basedir . '/clone', '-X', 'none', '-c', 'fast', '-d', $node->connstr('postgres') ], 'with which a base backup fails');
	unlink $path;
}
mkdir $node->data_dir . '/pgsql_tmp_old', 0;
is(rows(q{check_name = 'unreadable_files'}), '', 'what a base backup leaves out is not looked at');
rmdir $node->data_dir . '/pgsql_tmp_old';

# ----------------------------------------------------------------------
# Several replicas
# ----------------------------------------------------------------------

$node->poll_query_until('postgres', 'SELECT count(*) = 0 FROM pg_stat_replication') or die 'the walsender of a backup stays';
is(sql(q{SELECT check_name, wanted, fix FROM replica_kit.preflight(4) WHERE check_name LIKE 'max_%'}), '', 'there is room for four');
is(sql(q{SELECT check_name, wanted, fix FROM replica_kit.preflight(5) WHERE check_name LIKE 'max_%'}),
	'max_wal_senders|6 free: a clone takes two|ALTER SYSTEM SET max_wal_senders = 14', 'of the fifth, no clone could be made');
is(sql(q{SELECT check_name, wanted, fix FROM replica_kit.preflight(6) WHERE check_name = 'max_replication_slots'}),
	'max_replication_slots|6 free|ALTER SYSTEM SET max_replication_slots = 15', 'nor a slot for the sixth');
for my $replicas (0, 1001, 'NULL')
{
	my ($status, $out, $err) = $node->psql('postgres', "SELECT replica_kit.preflight($replicas)");

	like($err, qr/ERROR:  argument "replicas" must /, "$replicas replicas are refused");
}

# ----------------------------------------------------------------------
# The restart
# ----------------------------------------------------------------------

append_to_file($conf, "max_wal_senders = 1\nwal_sender_timeout = 0\n");
$node->restart;
is(sql(q{SELECT string_agg(check_name, ' ') FROM replica_kit.preflight() WHERE check_name <> 'ssl'}),
	'max_wal_senders wal_sender_timeout reload restart', 'the last row is the restart');
my $command = sql(q{SELECT wanted FROM replica_kit.preflight() WHERE check_name = 'restart' AND fix IS NULL});
my $data = $node->data_dir;
like($command, qr!^/\S+/bin/pg_ctl -D \Q$data\E restart$!, 'whose command is the one for this server');
apply_fixes();
is(rows(q{check_name IN ('max_wal_senders', 'restart')}), "max_wal_senders|critical|t\nrestart|info|t", 'it stays until the server is restarted');
append_to_file($conf, "no_such_setting = 1\n");
like(sql(q{SELECT wanted FROM replica_kit.preflight() WHERE check_name = 'restart'}), qr/^first .*restart would refuse; then: \Q$command\E$/,
	'what a restart would refuse comes first');
write_file($conf, slurp_file($conf) =~ s/^no_such_setting.*\n//mr);
is(system("$command -l '" . $node->logfile . "' >'" . $node->logfile . ".restart' 2>&1"), 0, 'the command restarts the server');
$node->_update_pid(1);
is(rows(q{check_name IN ('max_wal_senders', 'restart')}), '', 'and then no restart is needed');
reset_conf(1);

# Everything at once, applied twice.
append_to_file($conf, "max_slot_wal_keep_size = -1\nwal_sender_timeout = 0\nmax_wal_senders = 1\n");
$node->restart;
like(sql(q{SELECT fix FROM replica_kit.preflight() WHERE fix IS NOT NULL}), qr/\nSELECT pg_reload_conf\(\)\z/, 'the reload is the last of the fixes');
apply_fixes();
$node->restart;
is(apply_fixes(), '', 'all at once, applied once more after the restart, it is silent');

$node->stop;
done_testing();
