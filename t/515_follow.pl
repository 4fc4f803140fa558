# --follow: a replica gets another upstream; and --demote of a former primary
# that needs no clone.  PRK_LONG_TESTS in the environment: killed at each of its
# steps, not at two.
use strict;
use warnings FATAL => 'all';

use FindBin;
use lib $FindBin::RealBin;

use IPC::Run ();
use JoinKit;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use SlowNet;
use Test::More;

my ($code, $out, $err);
my $first = new_upstream('first', 'wal_retrieve_retry_interval = 100ms', 'autovacuum = off', 'wal_keep_size = 64MB');
foreach my $name (qw(second third))
{
	provision($first, $name, "secret-of-$name");
}

# The node, as the script makes it.
sub make_replica
{
	my ($name) = @_;
	my $node = new_replica($name);
	my $script = write_script($first, $name);
	($code, $out, $err) = run_script($script, { PGPASSWORD => "secret-of-$name" },
		'--pgdata', $node->data_dir, '--port', $node->port);
	is($code, 0, "$name: made");
	adopt_replica($node);
	return ($node, $script);
}

my ($second) = make_replica('second');
my ($third, $script) = make_replica('third');
my $pgdata = $third->data_dir;
my $state = "$pgdata.pg_replica_kit";
my $copy = "$state/join.sh";

sub where
{
	my ($node) = @_;
	return '127.0.0.1:' . $node->port;
}

# What the replica's file says, as the port of its upstream.
sub upstream_port
{
	my ($port) = slurp("$pgdata/postgresql.auto.conf") =~ /^primary_conninfo = '.* port=(\d+) /m;
	return $port;
}

sub follow
{
	my ($what, $expected, @args) = @_;
	($code, $out, $err) = run_script($copy, {}, '--follow', @args);
	is($code, $expected, "$what: exit code $expected");
	return;
}

# The third streams from that node, and a new row of the primary arrives.
sub streams
{
	my ($what, $upstream, $primary) = @_;
	$primary //= $upstream;
	ok($upstream->poll_query_until('postgres',
			"SELECT count(*) = 1 FROM pg_stat_replication WHERE application_name = 'third' AND state = 'streaming'"),
		"$what: it streams");
	is($upstream->safe_psql('postgres', "SELECT active FROM pg_replication_slots WHERE slot_name = 'third'"),
		't', "$what: through its slot");
	$primary->safe_psql('postgres', 'INSERT INTO filler VALUES (0, 0)');
	my $rows = $primary->safe_psql('postgres', 'SELECT count(*) FROM filler');
	ok($third->poll_query_until('postgres', "SELECT count(*) = $rows FROM filler"), "$what: a new row arrives");
	return;
}

# Its upstream may not know yet that the third has gone elsewhere.
sub wait_until_left
{
	my ($upstream) = @_;
	$upstream->poll_query_until('postgres', q{SELECT NOT active FROM pg_replication_slots WHERE slot_name = 'third'})
	  or die 'the slot is still in use';
	return;
}

# ----------------------------------------------------------------------
# The copy that each run keeps
# ----------------------------------------------------------------------
is(sprintf('%o', (stat $copy)[2] & 07777), '600', 'each run keeps the script');
is(slurp($copy), slurp($script), 'as it is');
($code, $out, $err) = run_script($copy, {});
is($code, 0, 'the copy knows its directory');
like($out, qr/nothing to do/, 'and finds the replica');
($code, $out, $err) = run_script($script, {});
is($code, 2, 'another one does not');
foreach my $wrong ([''], ['a b'], ['10.0.0.1:x'], ['10.0.0.1:0'], ['-x'], [ '10.0.0.1', '--set-password' ],
	[ '10.0.0.1', '--demote' ], [ '10.0.0.1', '--port', '5' ], ["x'y"], ['::1;x'])
{
	($code) = run_script($copy, {}, '--follow', @$wrong);
	is($code, 2, "--follow @$wrong: wrong usage");
}

# ----------------------------------------------------------------------
# Refused, and nothing is changed
# ----------------------------------------------------------------------
sub all_of_it
{
	my $files = join "\n", grep { !/server\.log/ } split /\n/, tree($state);
	return $files . slurp("$pgdata/postgresql.auto.conf") . (-e "$pgdata/postmaster.pid" ? slurp("$pgdata/postmaster.pid") : '');
}
my $before = all_of_it();

sub unchanged
{
	my ($what) = @_;
	is(all_of_it(), $before, "$what: nothing is changed");
	return;
}

follow('a server without its slot', 7, where($second));
like($err, qr/^hint: On the upstream server run: SELECT \* FROM replica_kit\.provision\('third', '127\.0\.0\.1'\);/m,
	'a server without its slot: the statement that makes it');
unchanged('a server without its slot');
follow('itself', 8, where($third));
like($err, qr/is this replica itself/, 'itself: it says so');
unchanged('itself');
my $other = new_upstream('other');
$other->safe_psql('postgres', q{SELECT replica_kit.provision('third', '127.0.0.1', password => 'secret-of-third')});
follow('another cluster', 6, where($other));
unchanged('another cluster');
$other->stop;
$third->safe_psql('postgres', 'SELECT pg_wal_replay_pause()');
$second->safe_psql('postgres', q{SELECT replica_kit.provision('third', '127.0.0.1')});
follow('while replay is paused', 8, where($second));
unchanged('while replay is paused');
$third->safe_psql('postgres', 'SELECT pg_wal_replay_resume()');
follow('a dry run', 0, where($second), '--dry-run');
like($out, qr/set the replica's upstream to 127\.0\.0\.1, port ${\ $second->port} instead of/, 'a dry run: it says what it would do');
unchanged('a dry run');

# ----------------------------------------------------------------------
# A standby as upstream, and back
# ----------------------------------------------------------------------
my $session = $third->background_psql('postgres');
$session->query('BEGIN; SELECT 1');
follow('a standby', 0, where($second));
is($session->query('SELECT 2'), '2', 'a standby: sessions on the replica go on');
$session->quit;
streams('a standby', $second, $first);
my ($statement) = $out =~ /still has slot "third", which retains WAL; to remove it, run there: (SELECT .*;)$/m;
ok(defined $statement, 'a standby: the slot left on the old upstream is named') or diag($out);
wait_until_left($first);
$first->safe_psql('postgres', $statement // 'SELECT');
is($first->safe_psql('postgres', q{SELECT (SELECT count(*) FROM pg_replication_slots WHERE slot_name = 'third'), (SELECT count(*) FROM pg_roles WHERE rolname = 'third')}),
	'0|1', 'and its statement drops it, not the role');
is(scalar(() = slurp("$state/passfile") =~ /:third:secret-of-third$/mg), 2, 'the password is kept for both');
($code, $out, $err) = run_script($script, {}, '--pgdata', $pgdata);
is($code, 8, 'the script of the old upstream: refused');
like($err, qr/follows 127\.0\.0\.1, port ${\ $second->port}\nhint: .*--follow 127\.0\.0\.1:${\ $first->port}$/m,
	'the script of the old upstream: it says why, and the way');
($code, $out, $err) = run_script($script, { PGPASSWORD => 'secret-of-third' }, '--pgdata', $pgdata, '--set-password');
is($code, 0, 'the script of the old upstream: takes a new password all the same');
follow('once more', 0, where($second));
unlike($out, qr/restart|is told/, 'once more: nothing has to be done');
$first->safe_psql('postgres', q{SELECT replica_kit.provision('third', '127.0.0.1')});
($code, $out, $err) = run_script($script, {}, '--pgdata', $pgdata, '--follow', where($first));
is($code, 0, 'back, by the old script');
streams('back', $first);
wait_until_left($second);
$second->safe_psql('postgres', q{SELECT pg_drop_replication_slot('third')});
$first->safe_psql('postgres', q{SELECT replica_kit.provision('fourth', '127.0.0.1', password => 'secret-of-fourth')});

# ----------------------------------------------------------------------
# A switchover: nothing is cloned
# ----------------------------------------------------------------------
$first->safe_psql('postgres', q{SELECT pg_switch_wal()});
$first->stop;
$second->promote;
$second->safe_psql('postgres', q{SELECT replica_kit.provision('third', '127.0.0.1');
	SELECT replica_kit.provision('first', '127.0.0.1', password => 'secret-of-first')});
follow('the promoted one', 0, where($second));
unlike($out, qr/restart/, 'the promoted one: no restart');
streams('the promoted one', $second);
my $net = SlowNet->new($second->port);
my $of_first = write_script($second, 'first', '127.0.0.1', $net->port);
my @first = ('--pgdata', $first->data_dir, '--demote');
($code, $out, $err) = run_script($of_first, { PGPASSWORD => 'secret-of-first' }, @first);
is($code, 0, 'the former primary: it streams');
like($out, qr/nothing has been cloned/, 'the former primary: without a clone');
cmp_ok($net->carried, '<', 1_000_000, 'the former primary: less than 1 MB on the wire');
cmp_ok($net->carried, '>', 100, 'the former primary: which was measured');
foreach my $slot (qw(second third fourth))
{
	like($out, qr/^pg_replica_kit: note: slot "$slot" is left .*pg_drop_replication_slot\('$slot'\);$/m, "the former primary: its slot $slot is named");
}
adopt_replica($first);
$second->wait_for_catchup('first');
is($first->safe_psql('postgres', 'SELECT pg_is_in_recovery()'), 't', 'the former primary: it is a standby');
$first->safe_psql('postgres', 'SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots');

# Neither has the other any more; a ring would stream for ever, and bring nothing.
$third->safe_psql('postgres', q{SELECT replica_kit.provision('first', '127.0.0.1')});
my $of_first_kept = $first->data_dir . '.pg_replica_kit/join.sh';
($code, $out, $err) = run_script($of_first_kept, {}, '--follow', where($third));
is($code, 0, 'the former primary follows the third');
$first->safe_psql('postgres', q{SELECT replica_kit.provision('third', '127.0.0.1')});
follow('a ring', 8, where($first));
like($err, qr/receives from this replica itself/, 'a ring: it says so');
($code, $out, $err) = run_script($of_first_kept, {}, '--follow', where($second));
is($code, 0, 'the former primary follows the second again');

# ----------------------------------------------------------------------
# Killed at any of its steps, it is on the old upstream or on the new one
# ----------------------------------------------------------------------
my $programs = PostgreSQL::Test::Utils::tempdir;
my $count = "$programs/count";
foreach my $name (qw(mv rm pg_ctl))
{
	my ($real) = grep { -x } map { "$_/$name" } `pg_config --bindir` =~ s/\n//r, split /:/, $ENV{PATH};
	open my $fh, '>', "$programs/$name" or die "open: $!";
	print $fh <<~SH;
		#!/bin/sh
		read -r n <'$count' || n=0
		n=\$((n + 1))
		echo \$n >'$count'
		[ "\$n" != "\$PRK_AT" ] || @{[ kill_session() ]}
		case "\$PRK_AT \$*" in
			"start "*" start") @{[ kill_session() ]} ;;
		esac
		exec $real "\$@"
		SH
	close $fh;
	chmod 0755, "$programs/$name" or die "chmod: $!";
}
my ($bin) = `pg_config --bindir` =~ /(.*)/;
symlink $_, "$programs/" . s!.*/!!r foreach grep { !m!/pg_ctl$! } glob "$bin/*";
my %node = ($first->port => $first, $second->port => $second);
my ($from, $to) = ($second, $first);
foreach my $at ($ENV{PRK_LONG_TESTS} ? 1 .. 20 : (3, 7))
{
	open my $fh, '>', $count or die "open: $!";
	print $fh "0\n";
	close $fh;
	($code, $out, $err) = run_script($copy, { PATH => "$programs:$ENV{PATH}", PRK_AT => $at }, '--follow', where($to));
	my $came = slurp($count);
	ok($node{ upstream_port() }, "killed at $at of " . ($came + 0) . ": on the old upstream or on the new one") if $came >= $at;
	if ($came < $at)
	{
		is($code, 0, 'with no more steps it comes to its end');
		last;
	}
	ok($third->poll_query_until('postgres', q{SELECT pg_is_in_recovery()}), "killed at $at: the replica runs");
	($code, $out, $err) = run_script($copy, {}, '--follow', where($to));
	is($code, 0, "killed at $at: run again, it follows");
	is(upstream_port(), $to->port, "killed at $at: the new one");
	($from, $to) = ($to, $from);
}
follow('the second', 0, where($second));
streams('the second', $second);

# Between stop and start, where a setting of the new upstream takes a restart.
$first->safe_psql('postgres', 'ALTER SYSTEM SET max_worker_processes = 20');
$first->restart;
($code, $out, $err) = run_script($copy, { PATH => "$programs:$ENV{PATH}", PRK_AT => 'start' }, '--follow', where($first));
ok(!-e "$pgdata/postmaster.pid", 'killed between stop and start: it is down');
($code, $out, $err) = run_script($copy, {}, '--follow', where($first));
is($code, 0, 'killed between stop and start: run again, it follows');
streams('killed between stop and start', $first, $second);
follow('the second again', 0, where($second));
streams('the second again', $second);

# ----------------------------------------------------------------------
# The password that is kept is not the role's any more
# ----------------------------------------------------------------------
my $rotated = $second->safe_psql('postgres', q{SELECT replica_kit.rotate_password('third')});
$second->wait_for_catchup('first');
follow('the kept password refused', 5, where($first));
like($out, qr/the password that is kept here is refused/, 'the kept password refused: it says so');
is(upstream_port(), $second->port, 'the kept password refused: nothing is changed');
($code, $out, $err) = run_script($copy, { PGPASSWORD => $rotated }, '--follow', where($first));
is($code, 0, 'with the new one it follows');
streams('with the new one', $first, $second);

# ----------------------------------------------------------------------
# Ahead of the fork
# ----------------------------------------------------------------------
follow('back once more', 0, where($second));
$first->stop;
$second->safe_psql('postgres', 'CREATE TABLE lost AS SELECT 1');
$second->wait_for_catchup('third', 'flush');
$second->stop('immediate');
$first->start;
$first->promote;
$before = all_of_it();
follow('ahead of the fork', 15, where($first));
my $fork = $first->safe_psql('postgres', q{SELECT split_part(pg_read_file('pg_wal/00000003.history'), E'\t', 4)});
$fork =~ s!/0+!/!;
like($err, qr/has WAL up to [0-9A-F]+\/[0-9A-F]+ on timeline 2, and that server has left timeline 2 at \Q$fork\E$/m,
	'ahead of the fork: both positions');
unchanged('ahead of the fork');
$third->stop;
$before = all_of_it();
follow('stopped, ahead of the fork', 15, where($first));
unchanged('stopped, ahead of the fork');
my ($command) = $err =~ /^hint: .*run: (sh .*--rebuild)$/m;
like($command // '', qr/^sh \Q$copy\E --follow 127\.0\.0\.1:${\ $first->port} --rebuild$/, 'ahead of the fork: the next command');
($code, $out, $err) = run_script($copy, {}, '--follow', where($first), '--rebuild', '--remove-old');
is($code, 0, 'ahead of the fork, with --rebuild: a clone');
like($out, qr/it is kept/, 'ahead of the fork, with --rebuild: the old data is kept');
adopt_replica($third);
streams('ahead of the fork, with --rebuild', $first);
is($third->safe_psql('postgres', q{SELECT to_regclass('lost') IS NULL}), 't', 'what only the old one had is gone');

# A primary that has not been shut down cleanly is cloned.
$first->safe_psql('postgres', q{SELECT replica_kit.provision('second', '127.0.0.1')});
my $of_second = write_script($first, 'second');
($code, $out, $err) = run_script($of_second, { PGPASSWORD => 'secret-of-second' }, '--pgdata', $second->data_dir, '--demote');
is($code, 0, 'a primary that was killed: it becomes a replica');
like($out, qr/^pg_replica_kit: a restart is not enough .*: it was not shut down cleanly/m, 'a primary that was killed: it says what stands in the way');
like($out, qr/cloning/, 'a primary that was killed: by a clone');
adopt_replica($second);

$_->stop foreach $third, $second, $first;
done_testing();
