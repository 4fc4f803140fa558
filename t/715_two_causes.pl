# diagnose(), of replicas that stream and could not come back, and of two things
# that are wrong at once.

use strict;
use warnings FATAL => 'all';

use FindBin;
use lib $FindBin::RealBin;

use DiagKit;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $primary = new_primary('primary', 'autovacuum = off', 'checkpoint_timeout = 1h', 'max_wal_size = 64MB', 'min_wal_size = 32MB',
	'replica_kit.warning_disconnected = 1s', 'replica_kit.critical_disconnected = 1h');
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

# ----------------------------------------------------------------------
# Two at once
# ----------------------------------------------------------------------

$standby->stop;
$primary->safe_psql('postgres', q{ALTER SYSTEM SET max_slot_wal_keep_size = '32MB'; CREATE TABLE w (i int)});
$primary->reload;
$primary->safe_psql('postgres', 'INSERT INTO w VALUES (1); SELECT pg_switch_wal()') for 1 .. 8;
$primary->safe_psql('postgres', 'CHECKPOINT');
found('lost', 'slot_lost');
$primary->safe_psql('postgres', q{ALTER ROLE replica1 PASSWORD 'another'});
$standby->start;
found('lost, and the password wrong', 'auth_failed,slot_lost');
$standby->stop;
$primary->safe_psql('postgres', 'DROP ROLE replica1');
$standby->start;
found('lost, and the role gone', 'role_missing,slot_lost');

$_->stop foreach $standby, $primary;
done_testing();
