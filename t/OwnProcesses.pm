# The processes of a test: what others on the machine do is theirs.
package OwnProcesses;

use strict;
use warnings FATAL => 'all';

use Cwd qw(realpath);
use Exporter 'import';
use PostgreSQL::Test::Utils;

our @EXPORT = qw(own_processes);

# The pids of those that descend from this one, and of those that work in this
# test's directory, as servers do, which their starter leaves to init.
sub own_processes
{
	my $home = realpath($PostgreSQL::Test::Utils::tmp_check);
	my $name = quotemeta(($0 =~ m{([^/]+)\.pl$})[0]);
	my (%parent, %own);

	foreach my $pid (map { m{(\d+)$} } glob '/proc/[0-9]*')
	{
		open my $in, '<', "/proc/$pid/stat" or next;
		my $stat = <$in> // next;
		close $in;

		# the program's name may hold anything
		$parent{$pid} = $1 if $stat =~ /^.*\) \S (\d+) /s;
		$own{$pid} = 1
		  if $pid == $$
		  || (readlink("/proc/$pid/cwd") // '') =~ m{^\Q$home\E/(?:t_)?${name}_};
	}
	foreach my $pid (keys %parent)
	{
		my @line;
		for (my $at = $pid; $at && !$own{$at}; $at = $parent{$at})
		{
			push @line, $at;
			@line = (), last unless $parent{$at};
		}
		@own{@line} = (1) x @line;
	}
	return sort { $a <=> $b } keys %own;
}

1;
