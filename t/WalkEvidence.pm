# What the servers of a walk said themselves when something was wrong: their own
# views, the files that wait for the archiver, the end of their logs.
package WalkEvidence;

use strict;
use warnings FATAL => 'all';

use Exporter 'import';
use List::Util qw(min);
use Time::HiRes qw(stat time);
use WalkTree;

our @EXPORT = qw(evidence);

# So much at most: rows and files of each, lines of a log, characters of a line.
my $most_rows = 12;
my $most_lines = 20;
my $most_characters = 400;

# How much of the end of a log is read.
my $most_bytes = 1 << 18;

# Each view as lines, what is not set left out.
my %views = (
	pg_stat_archiver => 'SELECT * FROM pg_stat_archiver',
	pg_stat_replication => 'SELECT * FROM pg_stat_replication',
	pg_stat_wal_receiver => 'SELECT * FROM pg_stat_wal_receiver',
	pg_replication_slots => 'SELECT slot_name, active_pid, xmin, catalog_xmin, restart_lsn, wal_status FROM pg_replication_slots',
	processes => q{SELECT pid, backend_type, backend_start, wait_event_type, wait_event FROM pg_stat_activity WHERE backend_type NOT IN ('client backend', 'io worker', 'background writer')},
	settings => q{SELECT name, setting FROM pg_settings WHERE name IN ('archive_command', 'archive_library', 'synchronous_standby_names', 'wal_keep_size', 'max_slot_wal_keep_size')},
	pg_file_settings => 'SELECT sourcefile, sourceline, name, error FROM pg_file_settings WHERE error IS NOT NULL');

# Lines of what each server said.
sub evidence
{
	my ($tree) = @_;
	my @lines;

	foreach my $name (@WalkTree::names)
	{
		push @lines, "=== $name, by its clock " . (of_server($tree, $name, 'SELECT now()::text'))[0];
		foreach my $view (sort keys %views)
		{
			my @rows = of_server($tree, $name, "SELECT json_strip_nulls(row_to_json(v))::text FROM ($views{$view}) v");
			push @lines, map { "$view: $_" } some(@rows);
		}
		push @lines, waiting($tree, $name), log_end($tree->{node}{$name}->logfile);
	}
	return map { length > $most_characters ? substr($_, 0, $most_characters) . ' ...' : $_ } @lines;
}

# The first column of what a server answers; why it doesn't, if it can't.
sub of_server
{
	my ($tree, $name, $sql) = @_;

	return '(it is down)' if !$tree->is_up($name);
	return '(it is frozen)' if $tree->{frozen}{$name};
	my @rows = eval { map { $_->[0] // '' } $tree->ask($name, $sql) };
	return $@ ? '(it does not answer: ' . $@ =~ s/\s+/ /gr . ')' : @rows;
}

# The files that wait for its archiver, or for nobody any more.
sub waiting
{
	my ($tree, $name) = @_;
	my $directory = $tree->{node}{$name}->data_dir . '/pg_wal/archive_status';
	opendir my $in, $directory or return "archive_status: $!";
	my @files = sort grep { !/^\./ } readdir $in;
	my @ready = grep { /\.ready$/ } @files;

	return ('archive_status: ' . @ready . ' of ' . @files . ' wait', map { "archive_status: $_" . (-e "$directory/$_" ? sprintf ', %.1f s old', time - (stat "$directory/$_")[9] : '') } some(@ready));
}

# The last lines of a log, but for the statements, which are the test's.
sub log_end
{
	my ($file) = @_;
	open my $in, '<', $file or return "its log: $!";
	my $from = (-s $in) - $most_bytes;

	seek $in, $from, 0 if $from > 0;
	my (@lines, $is_statement);
	while (my $line = <$in>)
	{
		chomp $line;
		$is_statement = $line =~ / LOG:  (?:statement|duration|connection \w+): / if $line !~ /^\t/;
		push @lines, $line if !$is_statement;
	}
	return map { "log: $_" } @lines[ -min($most_lines, scalar @lines) .. -1 ];
}

# The first of many, and how many more there are.
sub some
{
	my @all = @_;
	return @all if @all <= $most_rows;
	return (@all[ 0 .. $most_rows - 1 ], '... and ' . (@all - $most_rows) . ' more');
}

1;
