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

our @EXPORT = qw(take_walk also_wrong shrink_walk histogram);

# How long a server may take to say what is true, in seconds.
my $patience = $ENV{PRK_FUZZ_PATIENCE} || 60;

# All mouths at once.
my $mouths = q{SELECT json_build_object(
	'diagnose', (SELECT coalesce(json_agg(d), '[]') FROM replica_kit.diagnose() d),
	'unhealthy', (SELECT coalesce(json_agg(u), '[]') FROM replica_kit.unhealthy() u),
	'status', (SELECT coalesce(json_agg(s), '[]') FROM (SELECT name, state, health, alert, reason FROM replica_kit.status() WHERE slot_type IS DISTINCT FROM 'logical') s))};

# What comes and goes while connections do; and an archiver that a busy machine
# lets wait for the half second that is allowed.  All else is never to be seen of what
# has not happened, not for an instant.
my %fleeting = map { $_ => 1 } qw(archive_failing flush_slow network_slow receiver_stalled reload_needed replay_slow replica_down replica_unresponsive slot_taken upstream_refused
  upstream_unreachable worker_stale);

# Has a server limits that its files don't give it any more?
my $at_restart = q{SELECT bool_or(current_setting(n) <> (SELECT setting FROM pg_file_settings WHERE name = n ORDER BY seqno DESC LIMIT 1)) FROM unnest('{max_replication_slots,max_wal_senders}'::text[]) n};

my %rank = (ok => 0, info => 0, warning => 1, critical => 2);

# Plays the steps from the tree's first state on, for so many seconds at most
# (then it goes back to where nothing is wrong).  Returns how many steps were
# done, and what was wrong at the last of them, '' if nothing was.
sub take_walk
{
	my ($tree, $steps, $seconds, $done) = @_;
	my @active;
	my @steps = @$steps;
	my $count = 0;

	eval { $tree->restore; 1 } or return (0, "before the first step: $@");
	my $wrong = settle($tree, []);
	return (0, "before the first step: $wrong") if $wrong ne '';

	# How long it takes to begin is another matter.
	my $until = $seconds ? time + $seconds : undef;
	while (@steps)
	{
		# What is done at once.
		my @now;
		do { push @now, shift @steps } while $now[-1]{more} && @steps;

		# The time is over: only what undoes is still done.
		@now = grep { $_->{undo} && is_in($_->{event}, @active) } @now if $until && time > $until;
		next if !@now;

		$count += @now;
		my $began = time;
		$wrong = take_steps($tree, \@now, \@active);
		return ($count, "step $count (" . join(', ', map { describe($_) } @now) . '; with ' . (join(', ', map { describe({ event => $_ }) } @active) || 'nothing') . "): $wrong")
		  if $wrong ne '';
		$done->{ $_->{event}{counts} // $_->{event}{kind} }++ foreach grep { !$_->{undo} } @now;
		Test::More::note(sprintf '%4.1f s  %s; %s', time - $began, join(', ', map { describe($_) } @now), join '; ', map { "$_: $tree->{found}{$_}" } grep { $tree->{found}{$_} } sort keys %{ $tree->{found} });
	}
	return ($count, '');
}

# What was wrong besides, since this was last asked: seen for an instant, or in the
# servers' logs.
sub also_wrong
{
	my ($tree) = @_;
	return (@{ delete $tree->{instants} // [] }, map { "in the log of $_" } $tree->bad_log_lines);
}

sub is_in
{
	my ($event, @events) = @_;
	return scalar grep { $_ == $event } @events;
}

# Some events at once, and the end of others; what is wrong then, or ''.
sub take_steps
{
	my ($tree, $now, $active) = @_;

	foreach my $step (@$now)
	{
		eval { WalkModel::perform($tree, $step); 1 } or return describe($step) . " could not be done: $@";
		if ($step->{undo}) { @$active = grep { $_ != $step->{event} } @$active }
		else { push @$active, $step->{event} }
	}
	my $wrong = settle($tree, $active, map { $_->{event} } grep { $_->{undo} } @$now);
	my $never = delete $tree->{never} // {};
	push @{ $tree->{instants} }, map { "for an instant, after " . join(', ', map { describe($_) } @$now) . ": $_ ($never->{$_})" } sort keys %$never;
	return $wrong if $wrong ne '' || !grep { !$_->{undo} && !$_->{event}{plain} } @$now;

	# What was mended is not to be found any more, and nothing else comes of it.
	my $count = eval { run_remedies($tree, $active, \$wrong) } // return "remedies: $@";
	return '' if !$count;
	return $wrong if $wrong ne '';
	$wrong = settle($tree, $active);
	return $wrong eq '' ? '' : "after the remedies: $wrong";
}

# Waits until each server says what is true, and all of its mouths the same; what
# has just ended may be seen until then.
sub settle
{
	my ($tree, $active, @ended) = @_;
	my $expected = expected($active);
	my $allowed = expected([ @$active, @ended ], 'passing');
	my $until = time + $patience;
	my @all = sort keys %$expected;
	my @asked = @all;
	my %wrong;

	forget_remedies($tree) if !@$active;

	# Who is right is not asked again before the others are: then all once more.
	while (1)
	{
		$tree->tick;
		%wrong = map { $_ => look($tree, $_, $expected->{$_}, $active, $allowed) } @asked;
		delete @wrong{ grep { $wrong{$_} eq '' } keys %wrong };
		return '' if !%wrong && @asked == @all;
		last if time > $until;
		usleep(60_000) if %wrong;
		@asked = %wrong ? sort keys %wrong : @all;
	}
	return join '; ', map { "$_: $wrong{$_}" } sort keys %wrong;
}

# What is not as expected on a server, or ''.
sub look
{
	my ($tree, $node, $expected, $active, $allowed) = @_;
	my $said = eval { JSON::PP->new->decode($tree->run($node, $mouths)) };
	return 'cannot be asked: ' . $@ =~ s/\s+\z//r if !$said;
	my %found = map { $_->{code} eq 'reload_needed' ? () : ("$_->{code}:$_->{name}" => $_) } @{ $said->{diagnose} };
	my @wrong;

	$tree->{found}{$node} = join ' ', sort keys %found;
	foreach my $row (grep { !$fleeting{ $_->{code} } && $allowed->{$node} && !$allowed->{$node}{may}{"$_->{code}:$_->{name}"} } @{ $said->{diagnose} })
	{
		$tree->{never}{"$node has $row->{code}:$row->{name}"} //= "$row->{finding}; " . ($row->{evidence} // '');
	}
	foreach my $alternatives (@{ $expected->{must} })
	{
		push @wrong, 'lacks ' . join ' or ', @$alternatives if !grep { $found{$_} } @$alternatives;
	}
	my $told = told($active)->{$node} // {};
	push @wrong, map { "says of $_: $found{$_}{finding}" } grep { $found{$_} && $found{$_}{finding} !~ $told->{$_} } sort keys %$told;
	push @wrong, map { "has $_ ($found{$_}{finding}; " . ($found{$_}{evidence} // '') . ')' } grep { !$expected->{may}{$_} } sort keys %found;
	push @wrong, contradictions($said);
	push @wrong, eval { is_whole($tree, $node) } // 'cannot be asked any more' if !@wrong && !@$active;
	return join ', ', grep { $_ ne '' } @wrong;
}

# What diagnose() and unhealthy() say otherwise, and status().  An alert that is
# not taken back yet is no excuse: there was time for that.
sub contradictions
{
	my ($said) = @_;
	my (%worst, %unhealthy, @wrong);

	foreach my $row (@{ $said->{diagnose} })
	{
		$worst{ $row->{name} } = $rank{ $row->{level} } if ($worst{ $row->{name} } // -1) < $rank{ $row->{level} };
	}
	$unhealthy{ $_->{name} } = $_ foreach @{ $said->{unhealthy} };
	foreach my $name (sort keys %worst)
	{
		push @wrong, "$name is critical in diagnose(), not in unhealthy()"
		  if $worst{$name} == 2 && (!$unhealthy{$name} || $unhealthy{$name}{level} ne 'critical');
	}
	foreach my $name (sort keys %unhealthy)
	{
		push @wrong, "unhealthy() has $name as $unhealthy{$name}{level} ($unhealthy{$name}{reason}), diagnose() not"
		  if ($worst{$name} // -1) < $rank{ $unhealthy{$name}{level} };
	}
	foreach my $row (@{ $said->{status} })
	{
		push @wrong, "status() has $row->{name} as $row->{health} ($row->{reason}), diagnose() has nothing"
		  if $row->{health} ne 'ok' && !defined $worst{ $row->{name} };
		push @wrong, "$row->{name} is still announced as $row->{alert} ($row->{reason})"
		  if $rank{ $row->{alert} // 'ok' } > ($worst{ $row->{name} } // 0);
	}
	return @wrong;
}

# Where nothing is wrong all stream, and the worker has seen where from; what does
# not, or nothing.
sub is_whole
{
	my ($tree, $node) = @_;
	my @wanted = sort grep { $WalkTree::upstream{$_} eq $node } keys %WalkTree::upstream;
	my $streaming = $tree->run($node, q{SELECT string_agg(name, ' ' ORDER BY name) FROM replica_kit.status() WHERE state = 'streaming' AND slot_type = 'physical' AND alert IS NOT NULL}) // '';
	push @wanted, 'consumer' if $node eq 'primary';
	$streaming .= ' consumer' if $node eq 'primary' && ($tree->run($node, q{SELECT active FROM pg_replication_slots WHERE slot_name = 'consumer'}) // '') eq 't';
	return $streaming eq "@wanted" ? '' : "only \"$streaming\" stream";
}

# Runs the remedies as they are printed, unseen.  Returns how many there were;
# the events of which they are know of it.
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
			$_->{remedied} = 1 foreach grep { is_of($_, $node, "$row->[0]:$row->[1]") } @$active;
		}
		local $ENV{PGOPTIONS} = '-c synchronous_commit=local';
		my ($out, $err);
		my $rc = $tree->{node}{$node}->psql('postgres', qq{SELECT remedy FROM replica_kit.diagnose() WHERE remedy IS NOT NULL \\gexec\n}, stdout => \$out, stderr => \$err);
		$$wrong = "$node: a remedy fails: $err\n" . join "\n", map { $_->[2] } @rows if $rc != 0;
		$tree->{remedied}{$node} = 1;
	}
	return $count;
}

# What remedies have set by ALTER SYSTEM is not there for the next event, nor in
# force in a server that was started meanwhile.
sub forget_remedies
{
	my ($tree) = @_;

	foreach my $node (keys %{ $tree->{remedied} })
	{
		my $other = eval { $tree->run($node, 'ALTER SYSTEM RESET ALL', 'SELECT pg_reload_conf()', $at_restart) } // next;
		delete $tree->{remedied}{$node};
		$tree->restart($node) if $other eq 't';
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
