# diagnose(), of replicas that stream and could not come back, and of two things
# that are wrong at once.

use strict;
use warnings FATAL => 'all';

use FindBin;
use lib $FindBin::RealBin;

use CodePairs;
use DiagKit;
use IPC::Run ();
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $primary = new_primary('primary', 'autovacuum = off', 'checkpoint_timeout = 1h', 'max_wal_size = 64MB', 'min_wal_size = 32MB',
	'replica_kit.warning_disconnected = 1s', 'replica_kit.critical_disconnected = 1h', 'wal_level = logical');
my ($standby, $password) = new_standby($primary, 'replica1');
my $rule = slurp_file($primary->data_dir . '/pg_hba.conf') =~ /^(host.*# pg_replica_kit: replica1)$/m ? $1 : die 'no rule';

sub found
{
	my ($name, $wanted) = @_;
	is(wait_for_diagnosis($primary, $wanted), $wanted, "$name: " . ($wanted || 'silent'));
	return;
}

# ----------------------------------------------------------------------
# While it streams
# ----------------------------------------------------------------------

found('healthy', '');
set_hba($primary);
found('the file was rewritten', 'reconnect_would_fail');
is(remedy($primary), q{SELECT * FROM replica_kit.provision('replica1', '127.0.0.1');}, 'the file was rewritten: the remedy is its line, from where it streams');
do_remedies($primary);
found('the line is back', '');

set_hba($primary, 'host replication all 127.0.0.1/32 reject', $rule);
found('a rule rejects it', 'reconnect_would_fail');
is(remedy($primary), '', 'a rule rejects it: that is somebody\'s policy');
set_hba($primary, $rule);
found('no more', '');

foreach my $change ('NOREPLICATION', 'NOLOGIN', 'PASSWORD NULL', q{VALID UNTIL '2000-01-01'})
{
	$primary->safe_psql('postgres', "ALTER ROLE replica1 $change");
	found($change, 'reconnect_would_fail');
	is(remedy($primary), '', "$change: somebody may have meant it");
	$primary->safe_psql('postgres', "ALTER ROLE replica1 REPLICATION LOGIN VALID UNTIL 'infinity'");
	last if $change eq 'PASSWORD NULL';
	found("$change taken back", '');
}
$primary->safe_psql('postgres', "ALTER ROLE replica1 PASSWORD '$password'");
found('a password again', '');


# Each two of those that can come about alone
# ----------------------------------------------------------------------

# How each is made and ended: a line of a file, or a statement.  Nothing of them
# is reloaded but the setting, so that sessions get in all the same.
my %files = map { $_ => slurp_file($primary->data_dir . "/$_") } 'pg_hba.conf', 'postgresql.conf';
my %causes = (
	hba_error => { file => 'pg_hba.conf', line => 'host all all nonsense' },
	restart_would_fail => { file => 'postgresql.conf', line => q{port = 'nonsense'} },
	orphan_rule => { file => 'pg_hba.conf', line => 'host replication gone 127.0.0.1/32 scram-sha-256  # pg_replica_kit: gone' },
	orphan_role => {
		on => q{CREATE ROLE left_over LOGIN REPLICATION; COMMENT ON ROLE left_over IS 'pg_replica_kit: left_over'},
		off => 'DROP ROLE left_over' },
	replica_not_attached => {
		file => 'pg_hba.conf',
		line => 'host replication away 127.0.0.1/32 scram-sha-256  # pg_replica_kit: away',
		on => q{CREATE ROLE away LOGIN REPLICATION; COMMENT ON ROLE away IS 'pg_replica_kit: away'},
		off => 'DROP ROLE away' },
	sync_standby_missing => {
		on => q{ALTER SYSTEM SET synchronous_standby_names = 'nobody'},
		off => 'ALTER SYSTEM RESET synchronous_standby_names',
		reload => 1 });

# On from now on: those, and no others.
my @on;

sub stage
{
	my (@wanted) = @_;
	my %wanted = map { $_ => 1 } @wanted;
	my %was = map { $_ => 1 } @on;
	my @changed = grep { ($wanted{$_} // 0) != ($was{$_} // 0) } sort keys %causes;
	my @sql = ('SET synchronous_commit = local', grep { defined } map { $causes{$_}{ $wanted{$_} ? 'on' : 'off' } } @changed);

	# A file with an error is not reloaded, so what is to be reloaded comes first.
	foreach my $file (keys %files)
	{
		open my $out, '>', $primary->data_dir . "/$file" or die "$file: $!";
		print $out $files{$file};
		close $out;
	}
	push @sql, 'SELECT pg_reload_conf()' if grep { $causes{$_}{reload} } @changed;
	$primary->safe_psql('postgres', join ";\n", @sql);
	if (grep { $_ eq 'sync_standby_missing' } @changed)
	{
		my $names = $wanted{sync_standby_missing} ? 'nobody' : '';
		$primary->poll_query_until('postgres', "SELECT current_setting('synchronous_standby_names') = '$names'") or die 'no reload';
	}
	append_to_file($primary->data_dir . "/$causes{$_}{file}", "$causes{$_}{line}\n") foreach grep { defined $causes{$_}{file} } @wanted;
	@on = @wanted;
	return;
}

# Those alone, and beside what is there already.
sub pairs_beside
{
	my ($what, @there) = @_;
	my @names = sort keys %causes;

	foreach my $cause (@names)
	{
		stage($cause);
		note "$what and $cause: of two replicas" if grep { defined why_of_two($_, $cause) } @there;
		found("$what and $cause", join ',', sort @there, $cause);
	}
	stage();
	found("$what alone again", join ',', sort @there);
	return;
}

my @names = sort keys %causes;
foreach my $i (0 .. $#names)
{
	foreach my $j ($i + 1 .. $#names)
	{
		stage(@names[ $i, $j ]);

		# of two replicas, where one could not have both
		found("$names[$i] and $names[$j]", "$names[$i],$names[$j]");
	}
}
stage(@names);
found('all of them', join ',', @names);
stage();
found('none of them', '');

$primary->safe_psql('postgres', 'ALTER ROLE replica1 NOLOGIN');
found('a replica that could not come back', 'reconnect_would_fail');
pairs_beside('a replica that could not come back', 'reconnect_would_fail');
$primary->safe_psql('postgres', 'ALTER ROLE replica1 LOGIN');
$standby->stop;
found('a replica that is away', 'replica_down');
pairs_beside('a replica that is away', 'replica_down');
$standby->start;
found('a replica that is back', '');

# ----------------------------------------------------------------------
# A logical slot that somebody else's transaction holds back
# ----------------------------------------------------------------------

my @subscriber = ('pg_recvlogical', '-d', $primary->connstr('postgres'), '-S', 'subscriber', '--start', '-f', '-', '-s', 1, '-F', 1, '--no-loop');
IPC::Run::run(\@subscriber, '<', '/dev/null', '>', '/dev/null', '2>', '/dev/null');
found('a logical slot that does not exist', 'slot_missing');
is(remedy($primary), '', 'a logical slot that does not exist: a physical one would be no remedy');
like(advice($primary), qr/^  SELECT pg_create_logical_replication_slot\('subscriber', 'pgoutput'\);$/m, 'a logical slot that does not exist: what would make one');
$primary->safe_psql('postgres', q{CREATE TABLE held (i int); SELECT pg_create_logical_replication_slot('subscriber', 'test_decoding')});
my $program = IPC::Run::start(\@subscriber,
	'<', '/dev/null', '>', '/dev/null', '2>', '/dev/null');
my $holder = $primary->background_psql('postgres');
my $pid = $holder->query_safe('BEGIN; INSERT INTO held VALUES (1); SELECT pg_backend_pid()');
$primary->safe_psql('postgres', q{ALTER SYSTEM SET max_slot_wal_keep_size = '200MB'});
$primary->reload;
$primary->safe_psql('postgres', q{INSERT INTO held VALUES (2); SELECT pg_switch_wal()}) for 1 .. 10;
found('a transaction that is open for long', 'slot_held_by_transaction');
soon_like($primary, q{SELECT name, evidence FROM replica_kit.diagnose() WHERE code = 'slot_held_by_transaction'},
	qr/^subscriber\|.*the subscriber has confirmed all but .*oldest transaction: \d+, pid $pid, role ".*", idle, begun .* ago/s, 'a transaction that is open for long: it is named');
like(advice($primary), qr/^  SELECT pg_terminate_backend\($pid\);$/m, 'a transaction that is open for long: how to end it');
unlike(advice($primary), qr/[Ss]tart/, 'a transaction that is open for long: nothing is to be started');
$holder->query_safe('ROLLBACK');
$holder->quit;
$primary->safe_psql('postgres', q{ALTER SYSTEM RESET max_slot_wal_keep_size});
$primary->reload;
found('ended', '');
$program->kill_kill;
drop_slot($primary, 'subscriber');
is($primary->safe_psql('postgres', q{SELECT code FROM replica_kit.diagnose() UNION ALL SELECT reason FROM replica_kit.unhealthy()}), '',
	'the slot dropped: that it was missing once is over, also when nothing of it is left');

# ----------------------------------------------------------------------
# A file that this server cannot read
# ----------------------------------------------------------------------

$standby->stop;
my $segment = $primary->safe_psql('postgres', 'SELECT pg_walfile_name(pg_current_wal_lsn())');
$primary->safe_psql('postgres', 'INSERT INTO held VALUES (3); SELECT pg_switch_wal()') for 1 .. 2;
my $file = $primary->data_dir . "/pg_wal/$segment";
chmod 0, $file or die "chmod: $!";
$standby->start;
found('an unreadable file', 'upstream_file_unreadable');
is(wait_for_diagnosis($standby, 'upstream_file_unreadable'), 'upstream_file_unreadable', 'an unreadable file: the standby knows as well');
soon_like($_, q{SELECT evidence FROM replica_kit.diagnose() WHERE code = 'upstream_file_unreadable'}, qr/could not open file "pg_wal\/$segment": Permission denied/,
	'an unreadable file: quoted by ' . $_->name) foreach $primary, $standby;
chmod 0600, $file or die "chmod: $!";
found('readable', '');
is(wait_for_diagnosis($standby, ''), '', 'readable: the standby is well, too');

# ----------------------------------------------------------------------
# Two at once
# ----------------------------------------------------------------------

$standby->stop;
$primary->safe_psql('postgres', q{ALTER SYSTEM SET max_slot_wal_keep_size = '32MB'; CREATE TABLE w (i int)});
$primary->reload;
$primary->safe_psql('postgres', 'INSERT INTO w VALUES (1); SELECT pg_switch_wal()') for 1 .. 8;
$primary->safe_psql('postgres', 'CHECKPOINT');
found('lost', 'slot_lost');
%files = map { $_ => slurp_file($primary->data_dir . "/$_") } keys %files;
pairs_beside('a slot that is lost', 'slot_lost');
$primary->safe_psql('postgres', q{ALTER ROLE replica1 PASSWORD 'another'});
$standby->start;
found('lost, and the password wrong', 'auth_failed,slot_lost');
pairs_beside('a slot that is lost and a wrong password', 'auth_failed', 'slot_lost');
$standby->stop;
$primary->safe_psql('postgres', 'DROP ROLE replica1');
$standby->start;
found('lost, and the role gone', 'role_missing,slot_lost');

$_->stop foreach $standby, $primary;
done_testing();
