# What can happen in a walk, and what is true then: for each kind of event how it
# is done and undone, which diagnoses must be found and which may.
package WalkModel;

use strict;
use warnings FATAL => 'all';

use Exporter 'import';

our @EXPORT = qw(walk_kinds all_events make_walk expected told is_of asked describe);

my %upstream = (replica1 => 'primary', replica2 => 'primary', cascade => 'replica1');
my @nodes = qw(primary replica1 replica2 cascade);
my @standbys = qw(replica1 replica2 cascade);
my %below = (primary => [qw(replica1 replica2)], replica1 => ['cascade'], replica2 => [], cascade => []);
my @cut_off = qw(upstream_unreachable receiver_stalled);

# Each kind is a hash:
#   targets   what it may happen to; with "args", and in which way
#   touches   what no other event may touch meanwhile; '*': it is alone
#   silent    the servers that cannot be asked until it is undone
#   must      by server, the codes that are found: "code:name", with "|" between
#             those of which one is enough; a name that is left out is "server"
#   may       those that may be found besides
#   after     those that may be found once the remedies were run
#   passing   those that may be found until the servers have settled
#   told      of codes that are found, what the finding has to say
#   do, undo  given the tree, the target and the argument
# All but the names of targets and args are functions of target and argument.
my %kinds;

# Of a replica and the way to it.
sub link_of
{
	my ($target) = @_;
	return ("node:$target", map { "link:$_" } $target, @{ $below{$target} });
}

# What a standby says of its upstream, one of these.
sub of_upstream
{
	return join '|', map { "$_:upstream" } @_;
}

# What a replica that is away means to both of its sides.
sub away
{
	my ($target, $code, @of_it) = @_;
	my %must = ($upstream{$target} => ["$code:$target"]);
	$must{$target} = [ of_upstream(@of_it) ];
	return \%must;
}

# The codes of those below a server that is gone.
sub below_cut
{
	my ($target, $must) = @_;
	$must->{$_} = [ of_upstream(@cut_off) ] foreach @{ $below{$target} };
	return $must;
}

sub both_cut
{
	my ($target, $code) = @_;
	return +{ $upstream{$target} => ["$code:$target"], $target => [ of_upstream(@cut_off) ] };
}

sub gone
{
	my ($target, $code) = @_;
	return below_cut($target, $upstream{$target} ? { $upstream{$target} => ["$code:$target"] } : {});
}

# ----------------------------------------------------------------------
# Servers and networks
# ----------------------------------------------------------------------

foreach my $how (qw(stop kill freeze))
{
	$kinds{$how} = {
		targets => \@nodes,
		touches => sub { $_[0] eq 'primary' ? '*' : link_of($_[0]) },
		silent => sub { $_[0] },
		must => sub { gone($_[0], $how eq 'freeze' ? 'replica_unresponsive' : 'replica_down') },
		do => sub { my ($t, $x) = @_; $t->$how($x) },
		undo => sub { my ($t, $x) = @_; $how eq 'freeze' ? $t->thaw($x) : $t->start($x) } };
}

$kinds{cut} = {
	targets => \@standbys,
	args => [qw(both up down)],
	touches => sub { ("node:$_[0]", "link:$_[0]") },

	# A standby whose words do arrive says good-bye, comes again, and does not answer
	# when asked for its password.
	must => sub { both_cut($_[0], 'replica_unresponsive') },
	do => sub { my ($t, $x, $way) = @_; $t->{net}{$x}->cut($way) },
	undo => sub { my ($t, $x) = @_; $t->{net}{$x}->cut('') } };

# All that streams, and what would write WAL.
sub all_streams
{
	return ('wal', 'xmin', 'consumer', 'archive', map { ("node:$_", "link:$_", "slots:$_", "senders:$_") } @nodes);
}

$kinds{throttle} = {
	targets => \@standbys,
	touches => sub { all_streams() },
	must => sub { +{ $upstream{ $_[0] } => ["network_slow:$_[0]"] } },

	# what is on its way tells the standby of no more than there was when it was sent
	may => sub { +{ $_[0] => ['network_slow:upstream'] } },
	do => sub {
		my ($t, $x) = @_;
		$t->set_now($upstream{$x}, wal_sender_timeout => '1min');
		$t->set_now($x, wal_receiver_timeout => '1min');
		$t->{net}{$x}->tell(200_000, 0);
		$t->write_wal(12_000);
	},
	undo => sub {
		my ($t, $x) = @_;
		$t->{net}{$x}->tell(0, 0);
		$t->set_now($_, wal_sender_timeout => undef, wal_receiver_timeout => undef) foreach $upstream{$x}, $x;
	} };

$kinds{wrong_port} = {
	targets => \@standbys,
	touches => sub { ("node:$_[0]", "link:$_[0]") },

	# where the machine is slow, a timeout may have ended its connection before
	must => sub { +{ $upstream{ $_[0] } => ["replica_down:$_[0]|replica_unresponsive:$_[0]"], $_[0] => ['upstream_unreachable:upstream'] } },
	do => sub { my ($t, $x) = @_; $t->set_now($x, primary_conninfo => $t->conninfo($x) =~ s/port='\d+'/port='1'/r) },
	undo => sub { my ($t, $x) = @_; $t->set_login($x) } };

$kinds{promote} = {
	targets => [qw(replica2 cascade)],
	touches => sub { ('login:replica1', 'login:replica2', "hba:$upstream{$_[0]}", "slots:$upstream{$_[0]}", "senders:$upstream{$_[0]}", link_of($_[0]), "link:$upstream{$_[0]}") },
	must => sub { +{ $upstream{ $_[0] } => ["replica_down:$_[0]"], $_[0] => ['promoted'] } },
	may => sub { my ($x) = @_; return { $x => [ map { "replica_not_attached:$_" } @standbys ] } },
	after => sub { my ($x) = @_; return { $x => [ map { ("replica_never_seen:$_", "replica_not_attached:$_") } @standbys ] } },
	do => sub { my ($t, $x) = @_; $t->catch_up($x); $t->promote($x) },
	undo => sub { my ($t, $x) = @_; $t->clone($x) } };

foreach my $how (qw(restart kick))
{
	$kinds{$how} = {
		targets => $how eq 'kick' ? \@standbys : \@nodes,
		touches => sub { $_[0] eq 'primary' ? '*' : link_of($_[0]) },
		do => sub { my ($t, $x) = @_; $t->$how($x) } };
}

$kinds{reload} = {
	targets => \@nodes,
	touches => sub { "node:$_[0]" },
	do => sub { my ($t, $x) = @_; $t->reload($x) } };

$kinds{not_preloaded} = {
	targets => \@nodes,
	touches => sub { $_[0] eq 'primary' ? '*' : link_of($_[0]) },
	do => sub { my ($t, $x) = @_; $t->set($x, shared_preload_libraries => ''); $t->restart($x) },
	undo => sub { my ($t, $x) = @_; $t->set($x, shared_preload_libraries => undef); $t->restart($x) } };

$kinds{clock} = {
	targets => \@nodes,
	args => [ -86400, -3600, -60, 60, 3600, 86400 ],
	touches => sub { my ($x) = @_; return ("node:$x", "clock:$x", 'archive', 'sync', map { "link:$_" } $x, @{ $below{$x} }) },
	do => sub { my ($t, $x, $seconds) = @_; $t->set_clock($x, $seconds) },
	undo => sub { my ($t, $x) = @_; $t->set_clock($x, 0) } };

# Back by the script for its machine, which finds what it has lost.
$kinds{promote_and_demote} = {
	%{ $kinds{promote} },
	targets => ['replica2'],
	do => sub { my ($t, $x) = @_; $t->catch_up($x); $t->promote($x); $t->run($x, 'CREATE TABLE only_here (i int)') },
	undo => sub { my ($t, $x) = @_; $t->demote($x) } };

# More is allowed on the primary than on its standbys, each time.
$kinds{parameters} = {
	targets => ['primary'],
	touches => sub { all_streams() },
	must => sub { +{ map { $_ => ['parameters_too_low:upstream'] } @standbys } },
	may => sub { +{ map { $_ => [ map { "replay_slow:$_" } @{ $below{$_} } ] } keys %below } },
	do => sub { my ($t) = @_; $t->raise('primary'); $t->write_wal(3000) },
	undo => sub { my ($t) = @_; $t->raise($_) foreach @standbys } };

$kinds{walsenders} = {
	targets => \@standbys,
	touches => sub { ('consumer', "node:$_[0]", "link:$_[0]", "senders:$upstream{$_[0]}", map { "link:$_" } @{ $below{ $upstream{ $_[0] } } }, @{ $below{ $_[0] } }) },
	must => sub { +{ $upstream{ $_[0] } => [ 'walsenders_exhausted', "walsenders_exhausted:$_[0]" ], $_[0] => ['walsenders_exhausted:upstream'] } },
	do => sub {
		my ($t, $x) = @_;
		$t->stop($x);
		$t->crowd($upstream{$x});
		$t->start($x);
	},
	undo => sub { my ($t, $x) = @_; $t->disperse($upstream{$x}) } };

$kinds{xmin} = {
	targets => \@standbys,
	touches => sub { ('wal', 'xmin', 'consumer', map { ("node:$_", "link:$_") } $_[0] eq 'cascade' ? qw(replica1 cascade) : $_[0]) },
	must => sub { my ($x) = @_; return { primary => [ 'xmin_held_back:' . ($x eq 'cascade' ? 'replica1' : $x) ], $x eq 'cascade' ? (replica1 => ['xmin_held_back:cascade']) : () } },
	passing => sub { +{ primary => ['xmin_held_back:consumer'] } },
	do => sub {
		my ($t, $x) = @_;
		$t->set_now($x, hot_standby_feedback => 'on');
		$t->set_now('replica1', hot_standby_feedback => 'on') if $x eq 'cascade';
		$t->hold($x, 'BEGIN ISOLATION LEVEL REPEATABLE READ', 'SELECT count(*) FROM pg_class');
		$t->wait_until('primary', "(SELECT xmin IS NOT NULL FROM pg_replication_slots WHERE slot_name = '" . ($x eq 'cascade' ? 'replica1' : $x) . "')");
		$t->run('primary', 'SET synchronous_commit = off', 'DO $$ BEGIN FOR i IN 1 .. 26000 LOOP PERFORM pg_current_xact_id(); COMMIT; END LOOP; END $$', 'SET synchronous_commit = local');

		# A logical slot moves on where it has seen the running transactions, which an
		# idle server does not write down by itself.
		$t->wait_until('primary', q{NOT EXISTS (SELECT FROM pg_replication_slots WHERE slot_name = 'consumer' AND age(catalog_xmin) > 20000)},
			sub { $t->tick; $t->run('primary', 'CHECKPOINT') });
	},
	undo => sub {
		my ($t, $x) = @_;
		$t->release($x);
		$t->set_now($_, hot_standby_feedback => undef) foreach $x, $x eq 'cascade' ? 'replica1' : ();
	} };

# ----------------------------------------------------------------------
# Who may come in
# ----------------------------------------------------------------------

# Those that share the role of a replica.
sub sharers
{
	my ($target) = @_;
	return $target eq 'replica1' ? qw(replica1 cascade) : $target;
}

# What a change of a role concerns.
sub role_of
{
	my ($target) = @_;
	return ("login:$target", map { ("node:$_", "link:$_") } sharers($target));
}

$kinds{rotate_password} = {
	targets => [qw(replica1 replica2)],
	touches => sub { role_of($_[0]) },
	must => sub { away($_[0], 'auth_failed', 'auth_failed') },

	# the cascade has the new password before the server that it asks
	passing => sub { +{ replica1 => ['auth_failed:cascade'], cascade => ['auth_failed:upstream'] } },
	do => sub {
		my ($t, $x) = @_;
		my $password = $t->run('primary', "SELECT replica_kit.rotate_password('$x')");
		$t->{login}{$_}{password} = $password foreach sharers($x);
		$t->kick($x);
	},
	undo => sub { my ($t, $x) = @_; $t->set_login($_) foreach sharers($x) } };

# What a change of the rules for a replica concerns.
sub way_of
{
	my ($target) = @_;
	return ("link:$target", "node:$target", "hba:$upstream{$target}", "login:$target", "slots:$upstream{$target}", "senders:$upstream{$target}");
}

sub provision_again
{
	my ($t, $x) = @_;
	$t->run($upstream{$x}, "SELECT * FROM replica_kit.provision('$x', '127.0.0.1'" . ($x eq 'cascade' ? q{, 'replica1')} : ')'));
	return;
}

# Not of the cascade, whose role has another line: the one that came with the clone.
$kinds{revoke_address} = {
	targets => [qw(replica1 replica2)],
	touches => \&way_of,
	must => sub { +{ $upstream{ $_[0] } => ["reconnect_would_fail:$_[0]"] } },
	do => sub { my ($t, $x) = @_; $t->run($upstream{$x}, "SELECT replica_kit.revoke_address('$x', '127.0.0.1')") },
	undo => \&provision_again };

$kinds{revoke_and_kick} = {
	%{ $kinds{revoke_address} },
	must => sub { away($_[0], 'hba_no_entry', 'hba_no_entry') },
	do => sub { my ($t, $x) = @_; $kinds{revoke_address}{do}->($t, $x); $t->kick($x) } };

$kinds{hba_error} = {
	targets => \@nodes,
	touches => sub { ("node:$_[0]", "hba:$_[0]") },
	must => sub { +{ $_[0] => ['hba_error'] } },
	do => sub { my ($t, $x) = @_; $t->hba_edit($x, sub { "$_[0]host all all nonsense\n" }) },
	undo => sub { my ($t, $x) = @_; $t->hba_back($x) } };

sub no_way_back
{
	my ($target) = @_;
	return { $target => [ map { "reconnect_would_fail:$_" } @{ $below{$target} } ] };
}

$kinds{hba_rewritten} = {
	targets => [qw(primary replica1)],
	touches => sub { ("hba:$_[0]", map { ("link:$_", "node:$_") } @{ $below{ $_[0] } }) },
	must => \&no_way_back,
	do => sub { my ($t, $x) = @_; $t->hba_edit($x, sub { join '', grep { !/pg_replica_kit/ } split /(?<=\n)/, $_[0] }); $t->reload($x) },
	undo => sub { my ($t, $x) = @_; $t->hba_back($x) } };

$kinds{hba_rejects} = {
	%{ $kinds{hba_rewritten} },
	do => sub { my ($t, $x) = @_; $t->hba_edit($x, sub { "host replication all 127.0.0.1/32 reject\n$_[0]" }); $t->reload($x) } };

$kinds{no_login} = {
	targets => [qw(replica1 replica2)],
	touches => sub { role_of($_[0]) },
	must => sub {
		my ($x) = @_;
		return { map { $upstream{$_} => ["reconnect_would_fail:$_"] } sharers($x) };
	},
	do => sub { my ($t, $x) = @_; $t->run('primary', "ALTER ROLE $x NOLOGIN") },
	undo => sub { my ($t, $x) = @_; $t->run('primary', "ALTER ROLE $x LOGIN") } };

$kinds{no_replication} = {
	targets => ['replica2'],
	touches => sub { role_of($_[0]) },
	must => sub { away($_[0], 'role_cannot_replicate', 'role_cannot_replicate') },
	do => sub { my ($t, $x) = @_; $t->run('primary', "ALTER ROLE $x NOREPLICATION"); $t->kick($x) },
	undo => sub { my ($t, $x) = @_; $t->run('primary', "ALTER ROLE $x REPLICATION") } };

$kinds{role_dropped} = {
	targets => ['replica2'],
	touches => sub { (role_of($_[0]), 'hba:primary', 'slots:primary', 'senders:primary') },
	must => sub { away($_[0], 'role_missing', 'auth_failed', 'role_missing') },
	after => sub { +{ primary => ["auth_failed:$_[0]"] } },

	# before it comes; and when the role is back, before its password is
	passing => sub { +{ primary => [ "orphan_slot:$_[0]", "auth_failed:$_[0]" ] } },
	do => sub { my ($t, $x) = @_; $t->run('primary', "DROP ROLE $x"); $t->kick($x) },
	undo => sub {
		my ($t, $x) = @_;
		$t->run('primary', "SELECT * FROM replica_kit.provision('$x', '127.0.0.1')", "ALTER ROLE $x PASSWORD '$t->{login}{$x}{password}'");
	} };

$kinds{no_password} = {
	targets => \@standbys,
	touches => sub { ("node:$_[0]", "link:$_[0]") },
	must => sub { away($_[0], 'replica_down', 'no_password') },
	do => sub { my ($t, $x) = @_; $t->set_now($x, primary_conninfo => $t->conninfo($x) =~ s/password='[^']*'//r) },
	undo => sub { my ($t, $x) = @_; $t->set_login($x) } };

# Somebody's logins from the replica's own address, while it streams.
$kinds{login_hangs} = {
	targets => \@standbys,
	touches => \&way_of,
	do => sub { my ($t, $x) = @_; $t->hang_at_login($x) },
	undo => sub { my ($t, $x) = @_; $t->disperse("login of $x") } };

$kinds{hba_shadowed} = {
	targets => [qw(replica1 replica2)],
	touches => \&way_of,
	must => sub { away($_[0], 'hba_shadowed', 'auth_failed', 'upstream_refused') },
	do => sub {
		my ($t, $x) = @_;
		$t->hba_edit($upstream{$x}, sub { "host replication $x 127.0.0.1/32 ident\n$_[0]" });
		$t->reload($upstream{$x});
		$t->kick($x);
	},
	undo => sub { my ($t, $x) = @_; $t->hba_back($upstream{$x}) } };

# ----------------------------------------------------------------------
# Slots
# ----------------------------------------------------------------------

$kinds{drop_slot} = {
	targets => \@standbys,
	touches => sub { ("slots:$upstream{$_[0]}", link_of($_[0])) },
	must => sub { away($_[0], 'slot_missing', 'slot_missing') },
	passing => sub { +{ $upstream{ $_[0] } => ["replica_not_attached:$_[0]"] } },
	do => sub {
		my ($t, $x) = @_;
		$t->stop($x);
		$t->drop_slot($upstream{$x}, $x);
		$t->start($x);
	},
	undo => sub { my ($t, $x) = @_; $t->make_slot($upstream{$x}, $x) } };

$kinds{slot_taken} = {
	targets => \@standbys,
	touches => sub { link_of($_[0]) },
	must => sub { away($_[0], 'slot_taken', 'slot_taken') },
	do => sub {
		my ($t, $x) = @_;
		$t->stop($x);
		$t->receive_as($x);
		$t->wait_until($upstream{$x}, "(SELECT active FROM pg_replication_slots WHERE slot_name = '$x')");
		$t->start($x);
	},
	after => sub { +{ $upstream{ $_[0] } => ["replica_down:$_[0]"] } },
	undo => sub { my ($t) = @_; $t->stop_receiving } };

my %no_limit = (max_slot_wal_keep_size => undef, wal_keep_size => undef);

# A slot retains more than is allowed, and no other does: a logical one moves on
# where it has seen the running transactions, which a checkpoint writes down.
sub exceed_limit
{
	my ($t, $x) = @_;
	$t->stop($x);
	$t->write_wal(6000);
	my $lsn = $t->run('primary', 'CHECKPOINT', 'SELECT pg_current_wal_lsn()');
	$t->wait_until('primary', "NOT EXISTS (SELECT FROM pg_replication_slots WHERE slot_name <> '$x' AND restart_lsn < '$lsn')",
		sub { $t->tick; $t->run('primary', 'CHECKPOINT') });
	$t->set_now('primary', max_slot_wal_keep_size => '2MB', wal_keep_size => '0');

	# a remedy may have set one of them, while something else was wrong
	$t->run('primary', 'ALTER SYSTEM RESET max_slot_wal_keep_size', 'ALTER SYSTEM RESET wal_keep_size');
	$t->wait_until('primary', q{current_setting('wal_keep_size') = '0' AND current_setting('max_slot_wal_keep_size') = '2MB'}, sub { $t->reload('primary') });
	return;
}

$kinds{slot_at_risk} = {
	targets => ['replica2'],
	touches => sub { grep { $_ ne 'node:primary' } all_streams() },
	silent => sub { $_[0] },
	must => sub { +{ primary => ["slot_at_risk:$_[0]"] } },
	after => sub { +{ primary => [ "replica_down:$_[0]" ] } },
	do => sub {
		my ($t, $x) = @_;
		exceed_limit($t, $x);
	},
	undo => sub { my ($t, $x) = @_; $t->set_now('primary', %no_limit); $t->start($x) } };

$kinds{slot_lost} = {
	%{ $kinds{slot_at_risk} },

	# a clone has the rules of the server that it is of
	touches => sub { ('hba:primary', $kinds{slot_at_risk}{touches}->()) },
	silent => sub { () },
	must => sub { away($_[0], 'slot_lost', 'slot_lost', 'wal_removed') },

	# the new slot is too late for what asked last, until the clone connects
	passing => sub { +{ primary => ["wal_removed:$_[0]"] } },
	do => sub {
		my ($t, $x) = @_;
		exceed_limit($t, $x);

		# the checkpointer may take note of the limit later than others
		$t->wait_until('primary', "(SELECT wal_status = 'lost' FROM pg_replication_slots WHERE slot_name = '$x')", sub { $t->run('primary', 'CHECKPOINT') });
		$t->start($x);
	},
	undo => sub {
		my ($t, $x) = @_;
		$t->set_now('primary', %no_limit);
		$t->stop($x);
		$t->drop_slot('primary', $x);
		$t->make_slot('primary', $x);
		$t->clone($x);
	} };

$kinds{consumer_stopped} = {
	targets => ['consumer'],
	touches => sub { 'consumer' },
	must => sub { +{ primary => ['replica_down:consumer'] } },
	do => sub {
		my ($t) = @_;

		# a slot that was created again is not missed before it was used
		$t->wait_until('primary', q{(SELECT active FROM pg_replication_slots WHERE slot_name = 'consumer')}, sub { $t->tick });
		$t->{consuming} = 0;
		$t->stop_consumer;
	},
	undo => sub { my ($t) = @_; $t->{consuming} = 1 } };

my $leaves = qr/ is let in and leaves again by itself: /;

$kinds{consumer_leaves} = {
	%{ $kinds{consumer_stopped} },
	told => sub { +{ primary => { 'replica_down:consumer' => $leaves } } },
	do => sub { my ($t, $x) = @_; $kinds{consumer_stopped}{do}->($t, $x); $t->{consuming} = 'leaves' } };

# It cannot create the next segment.
$kinds{no_room} = {
	targets => \@standbys,
	touches => \&replay_touches,
	must => sub { away($_[0], 'replica_down', 'flush_slow') },
	told => sub { +{ $upstream{ $_[0] } => { "replica_down:$_[0]" => $leaves } } },
	do => sub {
		my ($t, $x) = @_;
		$t->room($x, 0);
		$t->wait_until($x, q{NOT EXISTS (SELECT FROM pg_stat_wal_receiver WHERE status = 'streaming')}, sub { $t->write_wal(10) });
	},
	undo => sub { my ($t, $x) = @_; $t->room($x, 1) } };

$kinds{consumer_without_slot} = {
	targets => ['consumer'],
	touches => sub { ('consumer', 'slots:primary') },
	must => sub { +{ primary => ['slot_missing:consumer'] } },
	do => sub { my ($t) = @_; $t->stop_consumer; $t->drop_slot('primary', 'consumer') },
	undo => sub { my ($t) = @_; $t->run('primary', q{SELECT pg_create_logical_replication_slot('consumer', 'test_decoding')}) } };

# All slots that there may be, and somebody asks for one more.
$kinds{slots} = {
	targets => [qw(primary replica1)],
	touches => sub { ("node:$_[0]", "slots:$_[0]", "senders:$_[0]", "hba:$_[0]") },
	must => sub { +{ $_[0] => ['slots_exhausted'] } },
	do => sub {
		my ($t, $x) = @_;
		$t->run($x, q{SELECT count(pg_create_physical_replication_slot('filler_' || i)) FROM generate_series(1, current_setting('max_replication_slots')::int - (SELECT count(*) FROM pg_replication_slots)) i});
		$t->ask_for_slot($x);
	},
	undo => sub { my ($t, $x) = @_; $t->run($x, q{SELECT count(pg_drop_replication_slot(slot_name)) FROM pg_replication_slots WHERE slot_name LIKE 'filler_%'}) } };

# ----------------------------------------------------------------------
# Replay
# ----------------------------------------------------------------------

# Replay of a standby stands still, and WAL is written, which has to get there.
sub replay_touches
{
	my ($target) = @_;
	return ('wal', map { ("node:$_", "link:$_") } $target eq 'cascade' ? qw(replica1 cascade) : $target);
}

$kinds{lock} = {
	targets => \@standbys,
	touches => \&replay_touches,
	must => sub { +{ $_[0] => ['replay_conflict:upstream'] } },
	may => sub { +{ $upstream{ $_[0] } => ["replay_slow:$_[0]"] } },
	do => sub {
		my ($t, $x) = @_;
		$t->hold($x, 'BEGIN', "SELECT count(*) FROM lock_$x");
		$t->run('primary', "BEGIN; LOCK TABLE lock_$x IN ACCESS EXCLUSIVE MODE; COMMIT");
	},
	undo => sub { my ($t, $x) = @_; $t->release($x) } };

$kinds{pin} = {
	%{ $kinds{lock} },
	do => sub {
		my ($t, $x) = @_;
		$t->run('primary', "INSERT INTO pin_$x SELECT i FROM generate_series(1, 10) i");
		my $lsn = $t->run('primary', 'SELECT pg_current_wal_insert_lsn()');
		$t->wait_until($x, "pg_last_wal_replay_lsn() >= '$lsn'");
		$t->hold($x, 'BEGIN', "DECLARE c CURSOR FOR SELECT i FROM pin_$x", 'FETCH c');
		$t->run('primary', "DELETE FROM pin_$x WHERE i % 2 = 0", "VACUUM pin_$x");
	} };

$kinds{pause} = {
	targets => \@standbys,
	touches => \&replay_touches,
	must => sub { +{ $upstream{ $_[0] } => ["replay_slow:$_[0]"], $_[0] => ['replay_paused:upstream'] } },
	do => sub { my ($t, $x) = @_; $t->run($x, 'SELECT pg_wal_replay_pause()'); $t->write_wal(3000) },
	undo => sub { my ($t, $x) = @_; $t->run($x, 'SELECT pg_wal_replay_resume()') } };

$kinds{delay} = {
	targets => \@standbys,
	touches => sub { (replay_touches($_[0]), 'clock:primary') },
	must => sub { +{ $_[0] => ['replay_delayed:upstream'] } },
	may => sub { +{ $upstream{ $_[0] } => ["replay_slow:$_[0]"] } },
	do => sub {
		my ($t, $x) = @_;
		$t->set_now($x, recovery_min_apply_delay => '1h');

		# the startup process may take note later than others
		$t->wait_until($x, q{EXISTS (SELECT FROM pg_stat_activity WHERE wait_event = 'RecoveryApplyDelay')}, sub { $t->run('primary', "INSERT INTO lock_$x VALUES (1)") });
	},
	undo => sub { my ($t, $x) = @_; $t->set_now($x, recovery_min_apply_delay => undef) } };

$kinds{target} = {
	targets => [qw(replica2 cascade)],
	touches => \&replay_touches,
	must => sub { +{ $_[0] => ['recovery_target_set:upstream'] } },
	may => sub { +{ $upstream{ $_[0] } => ["replay_slow:$_[0]"] } },
	do => sub { my ($t, $x) = @_; $t->set($x, recovery_target_name => 'walk'); $t->restart($x) },
	undo => sub { my ($t, $x) = @_; $t->set($x, recovery_target_name => undef); $t->restart($x) } };

# ----------------------------------------------------------------------
# The primary
# ----------------------------------------------------------------------

# The archiver reads its command before each file.
sub archive_by
{
	my ($t, $command) = @_;
	$t->set_now('primary', archive_command => $command);
	$t->wait_until('primary', "current_setting('archive_command') = '$command'", sub { $t->reload('primary') });
	$t->write_wal(10);
	return;
}

$kinds{archive_fails} = {
	targets => ['primary'],
	touches => sub { 'archive' },
	must => sub { +{ primary => ['archive_failing'] } },
	do => sub {
		my ($t) = @_;
		my $failed = $t->run('primary', 'SELECT failed_count FROM pg_stat_archiver');
		my $looks = 0;
		archive_by($t, '/bin/false');

		# the archiver may take note of it later than others
		$t->wait_until('primary', "(SELECT failed_count > $failed FROM pg_stat_archiver)", sub { $t->write_wal(10) if ++$looks % 20 == 0 });
	},
	undo => sub { my ($t) = @_; archive_by($t, '/bin/true') } };

$kinds{sync_names} = {
	targets => ['primary'],
	touches => sub { 'sync' },
	must => sub { +{ primary => ['sync_standby_missing'] } },
	do => sub { my ($t) = @_; $t->set_now('primary', synchronous_standby_names => 'nobody') },
	undo => sub { my ($t) = @_; $t->set_now('primary', synchronous_standby_names => undef) } };

$kinds{config_error} = {
	targets => \@nodes,
	touches => sub { "node:$_[0]" },
	must => sub { +{ $_[0] => ['restart_would_fail'] } },
	do => sub { my ($t, $x) = @_; $t->set_nonsense($x, q{port = 'nonsense'}) },
	undo => sub { my ($t, $x) = @_; $t->set_nonsense($x) } };

$kinds{orphan_role} = {
	targets => ['primary'],
	touches => sub { ('orphan', 'login:replica1', 'login:replica2') },
	must => sub { +{ primary => ['orphan_role:left_over'] } },
	do => sub { my ($t) = @_; $t->run('primary', 'CREATE ROLE left_over LOGIN REPLICATION', q{COMMENT ON ROLE left_over IS 'pg_replica_kit: left_over'}) },
	undo => sub { my ($t) = @_; $t->run('primary', 'DROP ROLE left_over') } };

# As after a failover: role and rule are there, and no slot.
$kinds{not_attached} = {
	targets => ['primary'],
	touches => sub { ('orphan', 'login:replica1', 'login:replica2', 'hba:primary', 'slots:primary', 'senders:primary') },
	must => sub { +{ primary => ['replica_not_attached:away'] } },
	do => sub {
		my ($t) = @_;
		$t->run('primary', q{SELECT * FROM replica_kit.provision('away', '127.0.0.1')});
		$t->run('primary', q{SELECT pg_drop_replication_slot('away')});
	},
	undo => sub { my ($t) = @_; $t->run('primary', q{SELECT * FROM replica_kit.deprovision('away', force => true)}) } };

$kinds{orphan_rule} = {
	targets => ['primary'],
	touches => sub { 'hba:primary' },
	must => sub { +{ primary => ['orphan_rule:gone'] } },
	do => sub { my ($t, $x) = @_; $t->hba_edit($x, sub { "$_[0]host replication gone 127.0.0.1/32 scram-sha-256  # pg_replica_kit: gone\n" }); $t->reload($x) },
	undo => sub { my ($t, $x) = @_; $t->hba_back($x) } };

$kinds{switch_wal} = {
	targets => ['primary'],
	touches => sub { 'wal' },
	do => sub { my ($t) = @_; $t->write_wal(10) foreach 1 .. 5 } };

$kinds{burst} = {
	targets => ['primary'],
	touches => sub { 'wal' },
	do => sub { my ($t) = @_; $t->write_wal(10_000) } };

$kinds{clone} = {
	targets => [qw(primary replica1)],
	touches => sub { ("node:$_[0]", "senders:$_[0]", "slots:$_[0]") },
	do => sub {
		my ($t, $x) = @_;
		my $directory = PostgreSQL::Test::Utils::tempdir() . '/clone';
		$t->base_backup($t->{node}{$x}, $directory);
		File::Path::rmtree($directory);
	} };

sub walk_kinds
{
	return sort keys %kinds;
}

# Each kind of event in every way, { kind, target, arg }.
sub all_events
{
	my @events;
	foreach my $kind (walk_kinds())
	{
		foreach my $target (@{ $kinds{$kind}{targets} })
		{
			push @events, map { +{ kind => $kind, target => $target, arg => $_ } } @{ $kinds{$kind}{args} // [''] };
		}
	}
	return @events;
}

# ----------------------------------------------------------------------
# A walk
# ----------------------------------------------------------------------

# Random numbers of our own, the same everywhere for a seed.
{
	my $state;

	sub seed
	{
		$state = $_[0] % 2147483647 || 1;
		pick(1) for 1 .. 10;
		return;
	}

	# One of 0 .. n - 1
	sub pick
	{
		my ($n) = @_;
		$state = $state * 48271 % 2147483647;
		return int($state / 2147483647 * $n);
	}
}

# A function of the table for an event.
sub of
{
	my ($event, $what) = @_;
	my $function = $kinds{ $event->{kind} }{$what} or return;
	return $function->(@$event{qw(target arg)});
}

sub meet
{
	my ($one, $other) = @_;
	my @one = of($one, 'touches');
	my %other = map { $_ => 1 } of($other, 'touches');

	return $other{'*'} || grep { $_ eq '*' || $other{$_} } @one;
}

# Steps, each { event, undo, more }: that many events, each kind as often as any
# other, no more than two at a time; kinds, separated by commas, may be chosen.
# After a step with "more" the next one follows at once: some end when others
# begin, which do not touch what they have touched.
sub make_walk
{
	my ($seed, $count, $kinds) = @_;
	my (@steps, @active, @bag);
	my $made = 0;

	seed($seed);
	while ($made < $count || @active)
	{
		my (@ended, @begun, @left);

		push @{ pick(2) ? \@ended : \@left }, $_ foreach @active;
		@ended = splice @left, 0, 1 if !@ended && (@left == 2 || $made >= $count);
		while ($made + @begun < $count && @left + @begun < 2 && pick(4))
		{
			# What does not go with what there is has to wait.
			my $event = from_bag(\@bag, $kinds, @active, @begun) // last;
			push @begun, $event;
		}
		$_->{number} = ++$made foreach @begun;
		my @now = ((map { +{ event => $_, undo => 1 } } @ended), map { +{ event => $_ } } @begun);
		$_->{more} = 1 foreach @now[ 0 .. $#now - 1 ];
		push @steps, @now;
		@active = (@left, @begun);
	}
	return @steps;
}

# The first in the bag that touches nothing of what others do, or nothing.
sub from_bag
{
	my ($bag, $kinds, @others) = @_;

	foreach my $round (1 .. 2)
	{
		foreach my $i (0 .. $#$bag)
		{
			next if grep { meet($bag->[$i], $_) } @others;
			return splice @$bag, $i, 1;
		}
		last if @$bag > 5;
		push @$bag, new_bag($kinds);
	}
	return undef;
}

# One of each kind, in any order.
sub new_bag
{
	my ($kinds) = @_;
	my @bag;
	foreach my $kind ($kinds ? split /,/, $kinds : walk_kinds())
	{
		my $targets = $kinds{$kind}{targets};
		my $args = $kinds{$kind}{args} // [''];
		my $event = { kind => $kind, target => $targets->[ pick(scalar @$targets) ], arg => $args->[ pick(scalar @$args) ] };

		splice @bag, pick(@bag + 1), 0, $event;
	}
	return @bag;
}

# Does it, or undoes it.
sub perform
{
	my ($tree, $step) = @_;
	my $event = $step->{event};
	my $action = $kinds{ $event->{kind} }{ $step->{undo} ? 'undo' : 'do' } or return;

	$action->($tree, $event->{target}, $event->{arg});
	return;
}

# What is expected of each server: { must => [ alternatives ], may => { code => 1 } }
sub expected
{
	my ($active, @more) = @_;
	my %expected = map { $_ => { must => [], may => {} } } asked($active);

	foreach my $event (@$active)
	{
		my $remedied = $event->{remedied};
		foreach my $what ('must', 'may', $remedied ? 'after' : (), @more)
		{
			my $codes = of($event, $what) or next;
			foreach my $node (grep { $expected{$_} } keys %$codes)
			{
				foreach my $wanted (@{ $codes->{$node} })
				{
					my @names = named($wanted);
					push @{ $expected{$node}{must} }, \@names if $what eq 'must' && !$remedied;
					$expected{$node}{may}{$_} = 1 foreach @names;
				}
			}
		}
	}
	return \%expected;
}

# Is the code of a name, on a server, the event's?
sub is_of
{
	my ($event, $node, $code) = @_;
	return scalar grep { $_ eq $code } map { named($_) } map { @{ ($_ // {})->{$node} // [] } } map { of($event, $_) // {} } 'must', 'may';
}

# The codes of an alternative, each with a name.
sub named
{
	my ($wanted) = @_;
	return map { /:/ ? $_ : "$_:server" } split /\|/, $wanted;
}

# By server and code what the finding has to say.
sub told
{
	my ($active) = @_;
	my %told;

	foreach my $words (map { of($_, 'told') // {} } @$active)
	{
		$told{$_} = { %{ $told{$_} // {} }, %{ $words->{$_} } } foreach keys %$words;
	}
	return \%told;
}

# The servers that can be asked.
sub asked
{
	my ($active) = @_;
	my %silent = map { $_ => 1 } map { of($_, 'silent') } @$active;
	return grep { !$silent{$_} } @nodes;
}

sub describe
{
	my ($step) = @_;
	my $event = $step->{event};
	return join ' ', $step->{undo} ? 'undo' : (), $event->{kind}, $event->{target}, $event->{arg} ne '' ? $event->{arg} : ();
}

1;
