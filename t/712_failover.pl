# A failover, and a promotion by mistake: what the new primary says of itself,
# of the replicas that it knows and that are not attached to it; and what the
# old one says, running beside it or come back as a standby.

use strict;
use warnings FATAL => 'all';

use FindBin;
use lib $FindBin::RealBin;

use DiagKit;
use IPC::Run ();
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $primary = new_primary('primary', 'autovacuum = off', 'checkpoint_timeout = 1h', 'wal_keep_size = 128MB',
	'replica_kit.warning_disconnected = 1s', 'replica_kit.critical_disconnected = 1h');
my (%node, %login);
foreach my $name (qw(first second third))
{
	my ($standby, $password) = new_standby($primary, $name);
	$node{$name} = $standby;
	$login{$name} = { user => $name, password => $password, application_name => $name };
}
$primary->wait_for_catchup($_) foreach keys %node;

sub found
{
	my ($name, $node, $wanted) = @_;
	is(wait_for_diagnosis($node, $wanted), $wanted, "$name: " . $node->name . ' says ' . ($wanted || 'nothing'));
	return;
}

# ----------------------------------------------------------------------
# The second takes over.  Its pg_hba.conf is of before the third was.
# ----------------------------------------------------------------------

my $new = $node{second};
$primary->stop;
$new->promote;
$new->wait_for_log(qr/WARNING:  server warning: promoted, timeline 2 begins at/);
pass('promoted: the worker says so');
found('promoted', $new, 'promoted,replica_not_attached,replica_not_attached');
is($new->safe_psql('postgres', q{SELECT code, name, level, remedy FROM replica_kit.diagnose()}),
	"promoted|server|warning|\nreplica_not_attached|first|warning|SELECT * FROM replica_kit.provision('first', '127.0.0.1/32');\nreplica_not_attached|third|warning|",
	'promoted: the others are missed, not itself; what is known of their address is a remedy');
unlike(remedy($new) . advice($new), qr/deprovision|drop/i, 'promoted: nothing proposes to destroy');
my $port = $primary->port;
like($new->safe_psql('postgres', q{SELECT finding, evidence FROM replica_kit.diagnose('server')}),
	qr/^This server was promoted .* ago \(timeline 2\)\. 2 replicas are not attached to it yet\.\|it was replica "second" of 127\.0\.0\.1, port $port, until \d\d:\d\d:\d\d;\stimeline 2 begins at [0-9A-F]+\/[0-9A-F]+$/,
	'promoted: what it was, of whom, until when');
like($new->safe_psql('postgres', q{SELECT advice FROM replica_kit.diagnose('server')}), qr/^First make sure that 127\.0\.0\.1 is stopped/, 'promoted: the old primary comes first');

is(join(' ', $new->safe_psql('postgres', 'SELECT replica_kit.metrics()') =~ /^replica_kit_replica_slots\{replica="(\w+)"\} 0$/mg), 'first third',
	'promoted: metrics() has series of those that are missed');

do_remedies($new);
found('the remedies run', $new, 'promoted,replica_not_attached');
$new->safe_psql('postgres', advice($new) =~ /(SELECT \* FROM replica_kit\.provision\('third', 'ITS_ADDRESS'\);)/ ? $1 =~ s/ITS_ADDRESS/127.0.0.1/r : die 'no advice');
foreach my $name (qw(first third))
{
	set_conninfo($node{$name}, $new, %{ $login{$name} });
	ok($new->poll_query_until('postgres', qq{SELECT count(*) = 1 FROM pg_stat_replication WHERE application_name = '$name' AND state = 'streaming'}),
		"$name: follows, with its password");
}
found('attached', $_, '') foreach $new, $node{first}, $node{third};

# ----------------------------------------------------------------------
# The old primary comes back as a standby, with the slots that it had
# ----------------------------------------------------------------------

$new->safe_psql('postgres', q{SELECT * FROM replica_kit.provision('second', '127.0.0.1')});
$primary->append_conf('postgresql.conf', q{primary_slot_name = 'second'});
set_conninfo($primary, $new, %{ $login{second} });
append_to_file($primary->data_dir . '/standby.signal', '');
$primary->start;
ok($new->poll_query_until('postgres', q{SELECT count(*) = 1 FROM pg_stat_replication WHERE application_name = 'second' AND state = 'streaming'}),
	'as a standby: it follows the new primary');
found('as a standby', $primary, 'slot_left_behind,slot_left_behind,slot_left_behind');
is(remedy($primary), '', 'as a standby: to drop a slot is no remedy');
unlike(advice($primary), qr/Start|SELECT \* FROM replica_kit\.deprovision/, 'as a standby: nobody is to be started, no role dropped');
like($primary->safe_psql('postgres', q{SELECT reason FROM replica_kit.status() WHERE name = 'first'}), qr/^slot is left from before this server became a standby/, 'as a standby: status() says the same');
is($primary->safe_psql('postgres', q{SELECT count(*) FROM replica_kit.unhealthy('critical')}), '0', 'as a standby: nothing is critical');
do_advised($primary, qr/pg_drop_replication_slot/);
found('the slots dropped', $primary, '');
found('all attached', $new, '');

# ----------------------------------------------------------------------
# The third is promoted by mistake, and a replica follows it
# ----------------------------------------------------------------------

my $other = $node{third};
$other->promote;
found('by mistake', $other, 'promoted,replica_not_attached,replica_not_attached');
$other->safe_psql('postgres', q{SELECT * FROM replica_kit.provision('first', '127.0.0.1')});
set_conninfo($node{first}, $other, %{ $login{first} });
ok($other->poll_query_until('postgres', q{SELECT count(*) = 1 FROM pg_stat_replication WHERE application_name = 'first' AND state = 'streaming'}),
	'by mistake: a replica follows it');
$primary->stop;
found('all gone', $new, 'replica_down,replica_down,replica_down');
like(advice($new), qr/^Was one of them promoted\? Then stop this server before anything else\.$/m, 'all gone at once: one of them may have been promoted');

set_conninfo($node{first}, $new, %{ $login{first} });
found('back to the old one', $node{first}, 'newer_timeline_exists');
soon_is($node{first}, 'SELECT name, level FROM replica_kit.diagnose()', 'upstream|critical', 'back to the old one: the replica knows');

# Whoever receives from there may ask for what this one does not have.
IPC::Run::run([ 'psql', '-X', '-d', $new->connstr('postgres') . ' replication=true application_name=archive',
	'-c', 'START_REPLICATION PHYSICAL 0/3000000 TIMELINE 3' ], '<', '/dev/null', '>', '/dev/null', '2>', '/dev/null');
ok($new->poll_query_until('postgres', q{SELECT count(*) = 1 FROM replica_kit.diagnose('server') WHERE code = 'newer_timeline_exists' AND level = 'critical'}),
	'the old one knows when somebody asks for the newer timeline');

$_->stop foreach $new, $node{first}, $other;
done_testing();
