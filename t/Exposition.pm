# A strict reader of the Prometheus text exposition format, version 0.0.4:
# https://prometheus.io/docs/instrumenting/exposition_formats/
package Exposition;

use strict;
use warnings FATAL => 'all';

use Exporter 'import';
use IPC::Run ();

our @EXPORT = qw(read_exposition promtool);

my $name = qr/[a-zA-Z_:][a-zA-Z0-9_:]*/;
my $label = qr/[a-zA-Z_][a-zA-Z0-9_]*/;
my $number = qr/NaN|[-+]?Inf|[-+]?\d+(?:\.\d+)?/;

# What it says, as family => { type, help, series => { labels => value } }, and
# what is wrong with it, a list of words.  Labels are joined as NAME=VALUE by
# commas, unescaped, in their order.
sub read_exposition
{
	my ($text) = @_;
	my (%families, @faults, $family);

	push @faults, 'the last line does not end' if $text !~ /\n\z/;
	push @faults, 'it is not ASCII' if $text =~ /[^\x20-\x7e\n]/;
	foreach my $line (split /\n/, $text)
	{
		if ($line =~ /^# HELP ($name) (\S.*)$/)
		{
			my ($new, $help) = ($1, $2);

			push @faults, "$new begins twice" if $families{$new};
			push @faults, "the help of $new has a wrong escape" if $help =~ /\\(?![\\n])/;
			$family = $new;
			$families{$family} = { help => $help, series => {} };
		}
		elsif ($line =~ /^# TYPE ($name) (gauge|counter)$/)
		{
			my ($of, $type) = ($1, $2);

			push @faults, "the type of $of does not follow its help" if !defined $family || $family ne $of || keys %{ $families{$of}{series} };
			$families{$of}{type} = $type;
			push @faults, "$of: only counters end in _total" if ($type eq 'counter') != ($of =~ /_total$/);
		}
		elsif ($line =~ /^($name)(?:\{(.*)\})? ($number)$/)
		{
			my ($of, $labels, $value) = ($1, $2 // '', $3);
			my (@labels, %seen);

			push @faults, "$line: not within its family" if !defined $family || $family ne $of || !$families{$of}{type};
			while ($labels ne '')
			{
				if ($labels !~ s/^($label)="((?:[^\\"\n]|\\[\\"n])*)"(?:,(?=.)|$)//)
				{
					push @faults, "$line: wrong labels";
					last;
				}
				my ($key, $word) = ($1, $2);
				push @faults, "$line: a label twice" if $seen{$key}++;
				$word =~ s/\\(.)/$1 eq 'n' ? "\n" : $1/ge;
				push @labels, "$key=$word";
			}
			push @faults, "$line: a series twice" if exists $families{$of}{series}{ join ',', @labels };
			push @faults, "$line: a counter is no such number" if ($families{$of}{type} // '') eq 'counter' && $value !~ /^\d/;
			$families{$of}{series}{ join ',', @labels } = $value;
		}
		else
		{
			push @faults, "$line: no line of this format";
		}
	}
	return (\%families, @faults);
}

# What promtool has against a text, or undef where there is no promtool.
sub promtool
{
	my ($text, @command) = @_;
	my ($out, $err) = ('', '');

	return undef if !grep { -x "$_/promtool" } split /:/, $ENV{PATH};
	my $good = IPC::Run::run([ 'promtool', @command ], '<', \$text, '>', \$out, '2>', \$err);
	return $good && $out !~ /FAILED/ ? $err : "$out$err exit";
}

1;
