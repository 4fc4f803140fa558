# A walk: events that nobody chose by hand, each followed by what the model of
# the truth says of it; and the shortest walk that fails as it did.
package Walk;

use strict;
use warnings FATAL => 'all';

use Exporter 'import';
use DiagKit ();
use JSON::PP ();
use PostgreSQL::Test::Utils;
use Time::HiRes qw(time usleep);
use WalkModel;
use WalkTree;

our @EXPORT = qw(take_walk shrink_walk histogram);

# How long a server may take to say what is true, in seconds.
my $patience = $ENV{PRK_WALK_PATIENCE} || 60;

# All mouths at once.
my $mouths = q{SELECT json_build_object(
	'diagnose', (SELECT coalesce(json_agg(d), '[]') FROM replica_kit.diagnose() d),
	'unhealthy', (SELECT coalesce(json_agg(u), '[]') FROM replica_kit.unhealthy() u),
	'status', (SELECT coalesce(json_agg(s), '[]') FROM (SELECT name, state, health, alert, reason FROM replica_kit.status() WHERE slot_type IS DISTINCT FROM 'logical') s))};

my %rank = (ok => 0, info => 0, warning => 1, critical => 2);

# Plays the steps from the tree's first state on, for so many seconds at most
# (then it goes back to where nothing is wrong).  Returns how many steps were
# done, and what was wrong at the last of them, '' if nothing was.
sub take_walk
{
	my ($tree, $steps, $seconds, $done) = @_;
	my $until = $seconds ? time + $seconds : undef;
	my @active;
	my @steps = @$steps;
	my $count = 0;

	$tree->restore;
	my $wrong = settle($tree, []);
	return (0, "before the first step: $wrong") if $wrong ne '';
	while (my $step = shift @steps)
	{
		# The time is over: only what undoes is still done.
		next if $until && time > $until && !($step->{undo} && grep { $_ == $step->{event} } @active);

		$count++;
		my $began = time;
		$wrong = take_step($tree, $step, \@active);
		return ($count, "step $count (" . describe($step) . '; with ' . (join(', ', map { describe({ event => $_ }) } @active) || 'nothing') . "): $wrong")
		  if $wrong ne '';
		$done->{ $step->{event}{kind} }++ if !$step->{undo};
		note_step($step, time - $began);
	}
	return ($count, '');
}

sub note_step
{
	my ($step, $seconds) = @_;
	Test::More::note(sprintf '%4.1f s  %s', $seconds, describe($step));
	return;
}

# One event, or its end; what is wrong then, or ''.
sub take_step
{
	my ($tree, $step, $active) = @_;

	eval { WalkModel::perform($tree, $step) };
	return "could not be done: $@" if $@;
	if ($step->{undo})
	{
		@$active = grep { $_ != $step->{event} } @$active;
	}
	else
	{
		push @$active, $step->{event};
	}
	my $wrong = settle($tree, $active);
	return $wrong if $wrong ne '' || $step->{undo};

	# What was mended is not to be found any more, and nothing else comes of it.
	my $count = eval { run_remedies($tree, $active, \$wrong) } // return "remedies: $@";
	return '' if !$count;
	return $wrong if $wrong ne '';
	$_->{remedied} = 1 foreach @$active;
	$wrong = settle($tree, $active);
	return $wrong eq '' ? '' : "after the remedies: $wrong";
}

# Waits until each server says what is true, and all of its mouths the same.
sub settle
{
	my ($tree, $active) = @_;
	my $remedied = grep { $_->{remedied} } @$active;
	my $expected = expected($active, $remedied);
	my $until = time + $patience;
	my %wrong;

	forget_remedies($tree) if !@$active;
	while (1)
	{
		$tree->tick;
		%wrong = map { $_ => look($tree, $_, $expected->{$_}, $active) } sort keys %$expected;
		delete @wrong{ grep { $wrong{$_} eq '' } keys %wrong };
		return '' if !%wrong;
		last if time > $until;
		usleep(50_000);
	}
	return join '; ', map { "$_: $wrong{$_}" } sort keys %wrong;
}

# What is not as expected on a server, or ''.
sub look
{
	my ($tree, $node, $expected, $active) = @_;
	my $said = eval { JSON::PP->new->decode($tree->run($node, $mouths)) };
	return 'cannot be asked: ' . $@ =~ s/\s+\z//r if !$said;
	my %found = map { $_->{code} eq 'reload_needed' ? () : ("$_->{code}:$_->{name}" => $_) } @{ $said->{diagnose} };
	my @wrong;

	foreach my $alternatives (@{ $expected->{must} })
	{
		push @wrong, 'lacks ' . join ' or ', @$alternatives if !grep { $found{$_} } @$alternatives;
	}
	push @wrong, map { "has $_ ($found{$_}{finding}; " . ($found{$_}{evidence} // '') . ')' } grep { !$expected->{may}{$_} } sort keys %found;
	push @wrong, contradictions($said);
	push @wrong, eval { is_whole($tree, $node) } // 'cannot be asked any more' if !@wrong && !@$active;
	return join ', ', grep { $_ ne '' } @wrong;
}

# What diagnose() and unhealthy() say otherwise, and status().
sub contradictions
{
	my ($said) = @_;
	my (%worst, %unhealthy, @wrong);
	my %alert = map { $_->{name} => $rank{ $_->{alert} // 'ok' } } @{ $said->{status} };

	foreach my $row (@{ $said->{diagnose} })
	{
		$worst{ $row->{name} } = $rank{ $row->{level} } if ($worst{ $row->{name} } // -1) < $rank{ $row->{level} };
	}
	$unhealthy{ $_->{name} } = $_ foreach @{ $said->{unhealthy} };
	foreach my $name (sort keys %worst)
	{
		push @wrong, "$name is critical in diagnose(), not in unhealthy()"
		  if $worst{$name} == 2 && ($unhealthy{$name}{level} // '') ne 'critical';
	}
	foreach my $name (sort keys %unhealthy)
	{
		# announced, and not yet taken back
		next if $rank{ $unhealthy{$name}{level} } <= ($alert{$name} // 0);
		push @wrong, "unhealthy() has $name as $unhealthy{$name}{level} ($unhealthy{$name}{reason}), diagnose() not"
		  if ($worst{$name} // -1) < $rank{ $unhealthy{$name}{level} };
	}
	foreach my $row (@{ $said->{status} })
	{
		push @wrong, "status() has $row->{name} as $row->{health} ($row->{reason}), diagnose() has nothing"
		  if $row->{health} ne 'ok' && !defined $worst{ $row->{name} };
	}
	return @wrong;
}

# Where nothing is wrong all stream; what does not, or nothing.
sub is_whole
{
	my ($tree, $node) = @_;
	my @wanted = sort grep { $WalkTree::upstream{$_} eq $node } keys %WalkTree::upstream;
	my $streaming = $tree->run($node, q{SELECT string_agg(name, ' ' ORDER BY name) FROM replica_kit.status() WHERE state = 'streaming' AND slot_type = 'physical'}) // '';
	push @wanted, 'consumer' if $node eq 'primary';
	$streaming .= ' consumer' if $node eq 'primary' && ($tree->run($node, q{SELECT active FROM pg_replication_slots WHERE slot_name = 'consumer'}) // '') eq 't';
	return $streaming eq "@wanted" ? '' : "only \"$streaming\" stream";
}

# Runs the remedies as they are printed, unseen.  Returns how many there were.
sub run_remedies
{
	my ($tree, $active, $wrong) = @_;
	my $count = 0;

	foreach my $node (asked($active))
	{
		my @rows = $tree->ask($node, q{SELECT code, name, remedy FROM replica_kit.diagnose() WHERE remedy IS NOT NULL});
		next if !@rows;
		$count += @rows;
		foreach my $row (@rows)
		{
			my $fault = DiagKit::remedy_fault({ code => $row->[0], remedy => $row->[2] });
			$$wrong = "$node: $fault" if $fault ne '';
		}
		local $ENV{PGOPTIONS} = '-c synchronous_commit=local';
		my ($out, $err);
		my $rc = $tree->{node}{$node}->psql('postgres', qq{SELECT remedy FROM replica_kit.diagnose() WHERE remedy IS NOT NULL \\gexec\n}, stdout => \$out, stderr => \$err);
		$$wrong = "$node: a remedy fails: $err\n" . join "\n", map { $_->[2] } @rows if $rc != 0;
		$tree->{remedied}{$node} = 1;
	}
	return $count;
}

# What remedies have set by ALTER SYSTEM is not there for the next event.
sub forget_remedies
{
	my ($tree) = @_;

	foreach my $node (keys %{ $tree->{remedied} })
	{
		eval { $tree->run($node, 'ALTER SYSTEM RESET ALL', 'SELECT pg_reload_conf()') };
		delete $tree->{remedied}{$node} if !$@;
	}
	return;
}

# ----------------------------------------------------------------------
# The shortest walk that fails
# ----------------------------------------------------------------------

# Fewer steps that fail, too, looked for during so many seconds: first what was
# going on alone, then without one event after the other.
sub shrink_walk
{
	my ($tree, $steps, $why, $seconds) = @_;
	my $until = time + $seconds;
	my @best = @$steps;
	my %ended = map { $_->{event}{number} => 1 } grep { $_->{undo} } @best;
	my %last = map { $_->{event}{number} => 1 } grep { !$ended{ $_->{event}{number} } } @best;
	$last{ $best[-1]{event}{number} } = 1;

	my @try = map { clean($_) } grep { $last{ $_->{event}{number} } } @best;
	if (@try < @best)
	{
		my ($count, $wrong) = take_walk($tree, \@try, 0, {});
		if ($wrong ne '' && $count > 0)
		{
			@best = @try[ 0 .. $count - 1 ];
			$why = $wrong;
		}
	}
	my $size = int(@best / 2) || 1;
	while ($size >= 1 && time < $until)
	{
		my @numbers = unique(map { $_->{event}{number} } @best);
		my $found = 0;
		for (my $first = 0; $first < @numbers && time < $until; $first += $size)
		{
			my %left_out = map { $_ => 1 } grep { defined } @numbers[ $first .. $first + $size - 1 ];
			my @fewer = map { clean($_) } grep { !$left_out{ $_->{event}{number} } } @best;
			next if !@fewer;
			my ($count, $wrong) = take_walk($tree, \@fewer, 0, {});
			next if $wrong eq '' || $count == 0;
			@best = @fewer[ 0 .. $count - 1 ];
			$why = $wrong;
			$found = 1;
			last;
		}
		next if $found;
		last if $size == 1;
		$size = int($size / 2);
	}
	return (\@best, $why);
}

# As it was before it was played.
sub clean
{
	my ($step) = @_;
	delete $step->{event}{remedied};
	return $step;
}

sub unique
{
	my %seen;
	return grep { !$seen{$_}++ } @_;
}

# How often each kind was done.
sub histogram
{
	my ($done) = @_;
	return map { sprintf '%5d  %s', $done->{$_} // 0, $_ } walk_kinds();
}

1;
