# Which two codes one server can say at a time, and why not the others: a matrix
# for doc/codes.md, which the walk's model fills.
package CodePairs;

use strict;
use warnings FATAL => 'all';

use Exporter 'import';
use FindBin;
use PostgreSQL::Test::Utils;
use WalkModel;

our @EXPORT = qw(all_codes unknown_codes why_never why_of_two staged_pairs pair_matrix);

# What one server can't say at a time, whatever of: each letter with its reason,
# and lists of which two codes of two lists, or any two of one, exclude each other.
my @on_primaries = qw(logical_waits_for_standby orphan_role orphan_rule promoted replica_not_attached slot_held_by_transaction sync_standby_missing);
my @on_standbys = qw(collation_version_mismatch no_password other_cluster parameters_too_low recovery_target_set replay_conflict replay_delayed replay_paused
  restore_stalled slot_left_behind timeline_not_followed upstream_unreachable);
our %never = (
	a => [ 'one is of a primary, the other of a standby', [ \@on_primaries, \@on_standbys ] ],
	b => [ 'a standby has one upstream, and one reason why nothing comes from it',
		[ [qw(no_password other_cluster restore_stalled timeline_not_followed upstream_unreachable)] ] ],
	c => [ 'replay waits for one thing: a pause, a delay or a session; that settings are too low, or a target is set, explains its pause',
		[ [qw(parameters_too_low replay_conflict replay_delayed replay_paused)] ],
		[ ['recovery_target_set'], [qw(parameters_too_low replay_paused)] ] ],
	d => [ '`reload_needed` is no cause: it is the last row where a remedy is a setting', [ ['reload_needed'], undef ] ]);

# What can't be of one replica, but of two of them: for these reasons.
our @of_two = (
	[ 'it is connected or not',
		[qw(flush_slow network_slow receiver_stalled reconnect_would_fail replay_slow slot_held_by_transaction checkpoint_blocked)],
		[qw(auth_failed hba_no_entry hba_rejects hba_shadowed orphan_slot replica_down replica_never_seen replica_unresponsive role_cannot_replicate role_missing
			slot_unused tls_required)] ],
	[ 'it has a slot here or not',
		[qw(orphan_slot slot_at_risk slot_lost slot_taken slot_unused replica_never_seen checkpoint_blocked)],
		[qw(replica_not_attached orphan_role orphan_rule slot_missing)] ],
	[ 'the one explains the other',
		[qw(auth_failed hba_no_entry hba_rejects hba_shadowed replica_down replica_never_seen replica_unresponsive role_cannot_replicate role_missing slot_taken
			slot_unused tls_required)] ],
	[ 'the one explains the other', [qw(flush_slow network_slow receiver_stalled replay_slow)] ],
	[ 'the one explains the other', [qw(orphan_role orphan_rule replica_not_attached)] ]);

# Every code, in the order of its name.
sub all_codes
{
	return slurp_file("$FindBin::RealBin/../src/judge/codes.c") =~ /\{"(\w+)", PRK_GRAVITY/g;
}

sub among
{
	my ($code, $list) = @_;
	return !defined $list || scalar grep { $_ eq $code } @$list;
}

# Those that the lists name and that there are not.
sub unknown_codes
{
	my %is_code = map { $_ => 1 } all_codes();
	my @lists = ((map { @$_[ 1 .. $#$_ ] } @of_two), map { map { @$_ } @$_[ 1 .. $#$_ ] } values %never);
	return grep { !$is_code{$_} } map { @{ $_ // [] } } @lists;
}

# Is one of the codes in the first list and the other in the second, or both in the
# only one?
sub excludes
{
	my ($one, $other, @lists) = @_;
	my ($these, $those) = @lists == 1 ? @lists[ 0, 0 ] : @lists;
	return among($one, $these) && among($other, $those) || among($other, $these) && among($one, $those);
}

# The letter of why one server never says both, or nothing.
sub why_never
{
	my ($one, $other) = @_;
	foreach my $letter (sort keys %never)
	{
		my (undef, @exclusions) = @{ $never{$letter} };
		return $letter if grep { excludes($one, $other, @$_) } @exclusions;
	}
	return;
}

# Why one replica never has both, or nothing.
sub why_of_two
{
	my ($one, $other) = @_;
	foreach my $exclusion (@of_two)
	{
		my ($reason, @lists) = @$exclusion;
		return $reason if excludes($one, $other, @lists);
	}
	return;
}

# The pairs of codes that two events bring about on one server, sorted: "one other"
# => the possible [ event, event ].
sub staged_pairs
{
	my @events = all_events();
	my %pairs;

	foreach my $i (0 .. $#events)
	{
		foreach my $j ($i + 1 .. $#events)
		{
			my ($one, $other) = @events[ $i, $j ];
			next if WalkModel::meet($one, $other);
			my %silent = map { $_ => 1 } map { WalkModel::of($_, 'silent') } $one, $other;
			my ($of_one, $of_other) = map { sure_codes($_) } $one, $other;
			foreach my $node (grep { !$silent{$_} && $of_other->{$_} } keys %$of_one)
			{
				foreach my $code (@{ $of_one->{$node} })
				{
					push @{ $pairs{ join ' ', sort $code, $_ } }, [ $one, $other ] foreach grep { $_ ne $code } @{ $of_other->{$node} };
				}
			}
		}
	}
	return \%pairs;
}

# What an event brings about for sure: by server, its codes without names.
sub sure_codes
{
	my ($event) = @_;
	my $must = WalkModel::of($event, 'must') // {};
	return { map { my $node = $_; $node => [ map { s/:.*//r } grep { !/\|/ } @{ $must->{$node} } ] } keys %$must };
}

# The matrix as text: a line for each code, up to its own column.
sub pair_matrix
{
	my @codes = all_codes();
	my $staged = staged_pairs();
	my @lines;

	foreach my $i (0 .. $#codes)
	{
		my $line = sprintf '%2d %-27s', $i + 1, $codes[$i];
		foreach my $j (0 .. $i - 1)
		{
			my @pair = @codes[ $j, $i ];
			my $letter = why_never(@pair);
			my $done = $staged->{ join ' ', sort @pair };
			$line .= defined $letter ? $letter : why_of_two(@pair) ? ($done ? 'T' : 't') : $done ? 'O' : 'o';
		}
		push @lines, "$line\\";
	}
	my $tens = join '', map { $_ % 10 == 0 ? $_ / 10 : ' ' } 1 .. @codes;
	my $ones = join '', map { $_ % 10 } 1 .. @codes;
	return join "\n", @lines, ' ' x 30 . $tens =~ s/ +\z//r, ' ' x 30 . $ones, '';
}

1;
