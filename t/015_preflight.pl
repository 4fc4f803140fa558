# preflight(): each check fires where it should and only there, and what it
# proposes mends it, applied as the README shows.

use strict;
use warnings FATAL => 'all';

use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $node = PostgreSQL::Test::Cluster->new('primary');
$node->init(allows_streaming => 1);
my $tablespace = $node->basedir . '/tablespace';
mkdir $tablespace or die "could not create \"$tablespace\": $!";

# A server of which preflight has nothing to say, but that it has no TLS.
my $good = <<~CONF;
	listen_addresses = '*'
	shared_preload_libraries = 'pg_replica_kit'
	max_slot_wal_keep_size = 1GB
	max_wal_size = 64MB
	max_replication_slots = 5
	max_wal_senders = 5
	wal_log_hints = on
	CONF
$good .= "summarize_wal = on\n" if $node->pg_version >= 17;
$node->append_conf('postgresql.conf', $good);
$node->start;
$node->safe_psql('postgres', 'CREATE EXTENSION pg_replica_kit');
my $conf = $node->data_dir . '/postgresql.conf';
my $hba = $node->data_dir . '/pg_hba.conf';
my ($good_conf, $good_hba) = (slurp_file($conf), slurp_file($hba));

sub rows
{
	my ($where) = @_;

	return $node->safe_psql('postgres',
		"SELECT check_name, level, needs_restart FROM replica_kit.preflight() WHERE $where");
}

sub write_file
{
	my ($path, $text) = @_;

	open my $file, '>', $path or die "could not open \"$path\": $!";
	print $file $text;
	close $file or die "could not write \"$path\": $!";
	return;
}

# As the README shows.
sub apply_fixes
{
	my ($check) = @_;

	return $node->safe_psql('postgres',
		"SELECT fix FROM replica_kit.preflight() WHERE fix IS NOT NULL AND check_name IN ('$check', 'reload') \\gexec");
}

is(rows('true'), 'ssl|info|f', 'of a good server it says only that it has no TLS');

# A check, the configuration with which it fires, its row, whether it has a
# fix, and what else it takes.
my @cases = (
	{ check => 'max_slot_wal_keep_size', conf => 'max_slot_wal_keep_size = -1', row => 'warning|f', fix => 1 },
	{ check => 'wal_sender_timeout', conf => 'wal_sender_timeout = 0', row => 'warning|f', fix => 1 },
	{ check => 'password_encryption', conf => 'password_encryption = md5', row => 'warning|f', fix => 1 },
	{ check => 'log_min_messages', conf => 'log_min_messages = fatal', row => 'warning|f', fix => 1 },
	{ check => 'hot_standby', conf => 'hot_standby = off', row => 'warning|t', fix => 1 },
	{ check => 'pg_rewind', conf => 'wal_log_hints = off', row => 'info|t', fix => 1, unless => q{SELECT current_setting('data_checksums')} },
	{ check => 'worker', conf => q{shared_preload_libraries = ''}, row => 'info|t', fix => 1 },
	{ check => 'wal_level', conf => "wal_level = minimal\nmax_wal_senders = 0" . ($node->pg_version >= 17 ? "\nsummarize_wal = off" : ''), row => 'critical|t', fix => 1, also => 'max_wal_senders' },
	{ check => 'max_wal_senders', conf => 'max_wal_senders = 1', row => 'critical|t', fix => 1 },
	{ check => 'max_replication_slots', conf => 'max_replication_slots = 0', row => 'critical|t', fix => 1 },
	{ check => 'listen_addresses', conf => q{listen_addresses = 'localhost, 127.0.0.1'}, row => 'critical|t', fix => 0 },
	{ check => 'synchronous_standby_names', conf => "synchronous_standby_names = 'ANY 1 (a, b)'\nsynchronous_commit = local", row => 'critical|f', fix => 0 },
	{ check => 'wal_disk', conf => 'max_wal_size = 100TB', row => 'critical|f', fix => 0 },
	{ check => 'libraries', conf => q{shared_preload_libraries = 'auto_explain, pg_replica_kit'}, row => 'info|f', fix => 0, library => 'auto_explain' });
push @cases, { check => 'summarize_wal', conf => 'summarize_wal = off', row => 'info|f', fix => 1 }
  if $node->pg_version >= 17;

for my $case (@cases)
{
	my $check = $case->{check};

  SKIP:
	{
		skip "$check: not on this server", 1
		  if ($case->{unless} && $node->safe_psql('postgres', $case->{unless}) eq 'on')
		  || ($case->{library} && !-e $node->config_data('--pkglibdir') . "/$case->{library}.so");

		append_to_file($conf, "$case->{conf}\n");
		$node->restart;
		is(rows("check_name = '$check'"), "$check|$case->{row}", "$check fires");
		if ($case->{fix})
		{
			apply_fixes($_) for $check, $case->{also} // ();
			$node->restart if $case->{row} =~ /t$/;
			is(rows("check_name = '$check'"), '', "$check is mended by its fix");
		}
		else
		{
			is($node->safe_psql('postgres', "SELECT count(fix) FROM replica_kit.preflight() WHERE check_name = '$check'"),
				'0', "$check proposes nothing that it would have to guess");
		}
		write_file($conf, $good_conf);
		$node->safe_psql('postgres', 'ALTER SYSTEM RESET ALL');
		$node->restart;
		is(rows(q{check_name <> 'ssl'}), '', "$check does not fire otherwise");
	}
}

# ----------------------------------------------------------------------
# What other things it takes
# ----------------------------------------------------------------------

append_to_file($hba, "host all all 127.0.0.1/32 nonsense\n");
is(rows(q{check_name = 'pg_hba'}), 'pg_hba|critical|f', 'pg_hba fires of a file that would not load');
like($node->safe_psql('postgres', q{SELECT current FROM replica_kit.preflight() WHERE check_name = 'pg_hba'}),
	qr/Line \d+ of file "\Q$hba\E"/, 'and says where');
write_file($hba, "# This file is managed by Patroni.  Do not edit.\n$good_hba");
is(rows(q{check_name IN ('pg_hba', 'pg_hba_owner')}), 'pg_hba_owner|warning|f', 'pg_hba_owner fires of a file that is made by a program');
write_file($hba, $good_hba);

$node->safe_psql('postgres', "CREATE TABLESPACE regress_prk LOCATION '$tablespace'");
like($node->safe_psql('postgres', q{SELECT level, current FROM replica_kit.preflight() WHERE check_name = 'tablespaces'}),
	qr/^info\|\Q$tablespace\E$/, 'tablespaces fires with the directories');
$node->safe_psql('postgres', 'DROP TABLESPACE regress_prk');

my $wal = $node->basedir . '/received';
mkdir $wal;
my $receiver = IPC::Run::start([ 'pg_receivewal', '-D', $wal, '-d', $node->connstr('postgres') . ' application_name=slotless' ],
	'>', \my $out, '2>', \my $err);
$node->poll_query_until('postgres', q{SELECT count(*) = 1 FROM replica_kit.preflight() WHERE check_name = 'wal_keep_size' AND current LIKE '%slotless'})
  or die 'wal_keep_size does not fire';
pass('wal_keep_size fires of a replica without a slot');
$receiver->signal('INT');
$receiver->finish;

# ----------------------------------------------------------------------
# What the next restart would refuse
# ----------------------------------------------------------------------

$node->safe_psql('postgres', q{SELECT pg_create_physical_replication_slot('a' || i, true) FROM generate_series(1, 3) i});
for my $case (
	[ 'wal_level = minimal' . ($node->pg_version >= 17 ? "\nsummarize_wal = off" : ''), qr/wal_level = minimal after a restart, with 3 replication slots/, 1 ],
	[ 'max_replication_slots = 2', qr/max_replication_slots = 2 after a restart, with 3 slots in use/, 1 ],
	[ q{shared_preload_libraries = 'pg_replica_kit, regress_prk_nonsuch'}, qr/library not found: regress_prk_nonsuch/, 0 ],
	[ 'work_mem = much', qr/work_mem: .*\(line \d+ of .*postgresql\.conf\)/, 0 ],
	[ 'no_such_setting = 1', qr/no_such_setting: .*\(line \d+ of .*postgresql\.conf\)/, 0 ])
{
	my ($line, $expected, $has_fix) = @$case;

	append_to_file($conf, "$line\n");
	$node->reload;
	like($node->safe_psql('postgres', q{SELECT current FROM replica_kit.preflight() WHERE check_name = 'restart_would_fail' AND level = 'critical'}),
		$expected, "restart_would_fail fires of $line");
	if ($has_fix)
	{
		apply_fixes('restart_would_fail');
		is(rows(q{check_name = 'restart_would_fail'}), '', 'and is mended by its fix');
		$node->restart;
		pass('with which the server restarts');
	}
	else
	{
		command_fails([ 'pg_ctl', '-D', $node->data_dir, '-l', $node->logfile . '.refused', '-w', 'restart' ],
			'and it would have');
		write_file($conf, $good_conf);
		command_ok([ 'pg_ctl', '-D', $node->data_dir, '-l', $node->logfile, '-w', 'start' ], 'as it starts without it');
		$node->_update_pid(1);
	}
	write_file($conf, $good_conf);
	$node->safe_psql('postgres', 'ALTER SYSTEM RESET ALL');
	$node->restart;
}

# Everything at once, applied twice.
append_to_file($conf, "max_slot_wal_keep_size = -1\nwal_sender_timeout = 0\nmax_wal_senders = 1\n");
$node->restart;
my $fixes = $node->safe_psql('postgres', q{SELECT fix FROM replica_kit.preflight() WHERE fix IS NOT NULL});
like($fixes, qr/\ASELECT pg_reload_conf\(\)\z|\nSELECT pg_reload_conf\(\)\z/, 'the reload is the last of the fixes');
$node->safe_psql('postgres', q{SELECT fix FROM replica_kit.preflight() WHERE fix IS NOT NULL \gexec});
$node->restart;
is($node->safe_psql('postgres', q{SELECT fix FROM replica_kit.preflight() WHERE fix IS NOT NULL \gexec}), '',
	'applied once more, after the restart, it is silent');

$node->stop;
done_testing();
