# Recordings of metrics() as promtool reads time series: scripts/record_scenes
# writes them, t/912_alert_rules.pl tests the alert rules with them.
package Scenes;

use strict;
use warnings FATAL => 'all';

use Exporter 'import';
use FindBin;

use Exposition;

our @EXPORT = qw(write_scene read_rules);

# Seconds between two samples
use constant STEP => 15;

sub slurp
{
	my ($path) = @_;

	open my $fh, '<', $path or die "$path: $!\n";
	local $/;
	return <$fh> // '';
}

# The alerts of a file of rules, and the families that they ask for.
sub read_rules
{
	my ($path) = @_;
	my $rules = slurp($path);
	my @alerts = $rules =~ /^ +- alert: (\w+)$/mg;
	my %families = map { $_ => 1 } map { /\b(replica_kit_\w+)/g } $rules =~ /^ +expr: (.*)$/mg;

	return (\@alerts, sort keys %families);
}

# Values as promtool has them: what repeats once with how often, what is not
# there "_", and "stale" where it ends.
sub notation
{
	my (@values) = @_;
	my @words;
	my $before = '_';

	foreach my $value (@values)
	{
		$value //= '_';
		my $word = $value eq '_' && $before ne '_' ? 'stale' : $value;

		if (@words && $words[-1][0] eq $word && $word ne 'stale')
		{
			$words[-1][1]++;
		}
		else
		{
			push @words, [ $word, 1 ];
		}
		$before = $value;
	}
	return join ' ', map { my ($word, $count) = @$_; $count == 1 ? $word : "${word}x" . ($count - ($word eq '_' ? 0 : 1)) } @words;
}

# Makes FILE of the samples in a directory: those of the families that the rules
# ask for.  Times become seconds since the first sample, as promtool begins at 0.
sub write_scene
{
	my ($dir, $file, $rules, $version) = @_;
	my (undef, @families) = read_rules($rules);
	my (%series, $zero, $last);
	my @samples = sort glob "$dir/*.prom";

	die "$dir: no samples\n" if !@samples || !-s $samples[0];
	foreach my $number (0 .. $#samples)
	{
		my $text = slurp($samples[$number]);
		$text = $last if $text eq '' && -e "$dir/textfile";
		$last = $text;
		next if $text eq '';
		my ($said, @faults) = read_exposition($text);
		die "$samples[$number]: @faults\n" if @faults;
		$zero //= $said->{replica_kit_sample_timestamp_seconds}{series}{''};
		foreach my $family (@families)
		{
			while (my ($labels, $value) = each %{ $said->{$family}{series} // {} })
			{
				my @labels = map { /^(\w+)=(.*)$/ ? qq{$1="$2"} : () } split /,(?=\w+=)/, $labels;

				next if $value eq 'NaN';
				$value = sprintf '%.0f', $value - $zero if $family =~ /_timestamp_seconds$/;
				$series{ "$family\{" . join(',', 'job="j"', 'instance="i"', @labels) . '}' }[$number] = $value;
			}
		}
	}

	open my $out, '>', $file or die "$file: $!\n";
	print $out "# What metrics() said each ", STEP, " seconds, recorded by scripts/record_scenes with\n# $version", "\n", slurp("$dir/notes");
	foreach my $name (sort keys %series)
	{
		$#{ $series{$name} } = $#samples;
		print $out "- series: '$name'\n  values: '", notation(@{ $series{$name} }), "'\n";
	}
	close $out or die "$file: $!\n";
	return;
}

1;
