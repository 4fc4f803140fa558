# Are two clusters that were stopped at the same position the same, block by
# block?
#
# What may differ and means nothing is masked, and it is what PostgreSQL itself
# masks where it compares a page with its replay (wal_consistency_checking:
# src/backend/access/common/bufmask.c and the *_mask() functions of heap, nbtree,
# hash, gin, gist, spgist and brin, the same in 17 and 18) or less:
#
# - position, checksum, hints and prune_xid in page headers, and the hole between
#   pd_lower and pd_upper
# - hint bits and command numbers of tuples, padding behind them; dead marks of
#   index entries, hints of index pages
# - what is left on a page of GIN or of a hash index that is in use no more: it is
#   initialized when it is replayed (ginRedoDeleteListPages(), hash_mask())
#
# Two things go beyond that, since these two are never compared there.  SP-GiST's
# first page remembers where there was space, and SpGistUpdateMetaPage() writes
# that without WAL.  WAL has the number that a sequence will reach in 32 steps
# (nextval_internal()): so a copy may be ahead, but not behind.
#
# Free space maps have no WAL and are left out, so are unlogged tables.  A clone
# or replica may have fewer bits in visibility maps than its primary, but none
# more.
package ClusterCompare;

use strict;
use warnings FATAL => 'all';

use Exporter 'import';

our @EXPORT = qw(compare_clusters blocks_equal page_kind);

my $block_size = 8192;
my $zero = "\0" x $block_size;
my $page_header = 24;

# compare_clusters(COPY, MASTER): number of blocks, and a list of what differs.
# Both are data directories of stopped servers.
sub compare_clusters
{
	my ($copy, $master) = @_;
	my (%files, @unequal);
	my $blocks = 0;
	foreach my $side (0, 1)
	{
		my $dir = ($copy, $master)[$side];
		foreach my $path (map { glob "$dir/$_" } 'base/*/*', 'global/*', 'pg_tblspc/*/PG_*/*/*')
		{
			my $name = substr $path, 1 + length $dir;
			push @unequal, "$name is of a backup" if $name =~ m!/INCREMENTAL[.]!;
			next if $name !~ m!/\d+(?:_vm|_init)?(?:\.\d+)?\z|/pg_filenode\.map\z|/PG_VERSION\z!;
			$files{$name}[$side] = $path;
		}
	}
	foreach my $name (sort keys %files)
	{
		my $relation = $name =~ s/(?:_[a-z]+)?(?:\.\d+)?\z//r;
		my @paths = @{ $files{$name} }[ 0, 1 ];
		if ($name =~ /_init/)
		{
			push @unequal, "$name is on one side only" if grep { !defined } @paths;
		}
		elsif (exists $files{"${relation}_init"})
		{
			next;
		}
		my ($here, $there) = map { defined $_ ? content($_) : '' } @paths;
		if ($name !~ /\d\z|_vm|_init/)
		{
			push @unequal, $name if $here ne $there;
			next;
		}
		push @unequal, "$name: " . length($here) . ' bytes' if length($here) % $block_size;
		my $count = (sort { $b <=> $a } map { length } $here, $there)[0] / $block_size;
		$blocks += $count;
		next if $here eq $there;
		for my $number (0 .. $count - 1)
		{
			my @block = map { length $_ > $number * $block_size
				? substr $_, $number * $block_size, $block_size : $zero } $here, $there;
			push @unequal, "$name block $number" if !blocks_equal($name, $number, @block);
		}
	}
	return ($blocks, @unequal);
}

sub content
{
	my ($file) = @_;
	local $/;
	open my $in, '<:raw', $file or die "could not open \"$file\": $!";
	return scalar(<$in>) // '';
}

# blocks_equal(NAME, NUMBER, COPY, MASTER): two pages of a file by its name below
# the data directory, and the number of the block in it
sub blocks_equal
{
	my ($name, $number, @pages) = @_;
	return 1 if $pages[0] eq $pages[1];
	return is_subset(@pages) if $name =~ /_vm/;
	my $first = $number == 0 && $name !~ /\.\d+\z/;
	my @kinds = map { page_kind($_, $first) } @pages;
	return 0 if $kinds[0] ne $kinds[1];
	my @masked = map { masked($_, $kinds[0]) } @pages;
	return 0 if $masked[0] ne $masked[1];
	return 1 if $kinds[0] ne 'sequence';
	my ($copy, $master) = map { [ sequence_values($_) ] } @pages;
	return $copy->[0] > $master->[0] || $copy->[0] == $master->[0] && $copy->[1] >= $master->[1];
}

# Has the first visibility map no bit that the second has not?
sub is_subset
{
	my @bits = map { substr $_, $page_header } @_;
	return ($bits[0] | $bits[1]) eq $bits[1];
}

# page_kind(PAGE, FIRST): what a page is, from its special space; FIRST is true for
# the first block of a relation
sub page_kind
{
	my ($page, $first) = @_;
	my ($lower, $upper, $special) = unpack 'x12 vvv', $page;
	return 'empty' if $page eq $zero;
	return 'invalid'
	  if $lower < $page_header || $lower > $upper || $upper > $special || $special > $block_size - 8 && $special != $block_size;
	my $size = $block_size - $special;
	return 'heap' if $size == 0;
	my $last = unpack 'v', substr $page, -2;
	if ($size == 8)
	{
		return 'sequence' if $first && unpack('V', substr $page, $special, 4) == 0x1717;
		return (unpack('v', substr $page, $special, 2) & 0x01 ? 'spgist meta' : 'spgist') if $last == 0xFF82;
		return 'brin ' . { 0xF091 => 'meta', 0xF092 => 'revmap', 0xF093 => 'regular' }->{$last}
		  if $last >= 0xF091 && $last <= 0xF093;
		return 'gin'
		  . ($last & 0x04 ? ' deleted' : $last & 0x08 ? ' meta' : $last & 0x10 ? ' list' : $last & 0x01 ? ' posting' : ' entries')
		  if $last <= 0xFF;
	}
	elsif ($size == 16)
	{
		my $bits = unpack 'v', substr $page, $special + 12, 2;
		return 'gist' . ($bits & 0x02 ? ' deleted' : $bits & 0x01 ? ' leaf' : ' inner') if $last == 0xFF81;
		return 'hash'
		  . ($bits & 0x03 ? ' bucket' : $bits & 0x04 ? ' bitmap' : $bits & 0x08 ? ' meta' : ' unused')
		  if $last == 0xFF80;
		return 'btree' . ($bits & 0x08 ? ' meta' : $bits & 0x04 ? ' deleted' : $bits & 0x01 ? ' leaf' : ' inner')
		  if $last <= 0xFF7F;
	}
	return 'other';
}

# masked(PAGE, KIND): a page without what may differ
sub masked
{
	my ($page, $kind) = @_;
	return $page if $kind eq 'empty' || $kind eq 'invalid';
	my ($flags, $lower, $upper, $special) = unpack 'x10 vvvv', $page;
	substr($page, 0, 10) = "\0" x 10;
	substr($page, 10, 2) = pack 'v', $flags & ~0x07;
	substr($page, 20, 4) = "\0" x 4;
	if ($kind eq 'gin deleted' || $kind eq 'hash unused')
	{
		substr($page, 12, 4) = "\0" x 4;
		substr($page, $page_header) = "\0" x ($block_size - $page_header);
		return $page;
	}
	# These fill a page behind its header and leave pd_lower there.
	my $has_hole = $kind eq 'brin revmap' ? 0
	  : $kind =~ /\Agin|\Abrin meta/ ? $lower > $page_header
	  : 1;
	substr($page, $lower, $upper - $lower) = "\0" x ($upper - $lower) if $has_hole;
	mask_lines(\$page, $lower) if $kind =~ /\A(?:btree leaf|gist leaf|hash bucket)\z/;
	if ($kind eq 'heap' || $kind eq 'sequence')
	{
		mask_tuples(\$page, $lower);
	}
	elsif ($kind =~ /\Abtree/)
	{
		# garbage, the end of a split, and the number of a vacuum
		mask_bits(\$page, $special + 12, 0x60);
		mask_bits(\$page, $special + 14, 0xFFFF);
	}
	elsif ($kind =~ /\Ahash/)
	{
		mask_bits(\$page, $special + 12, 0x80);
	}
	elsif ($kind =~ /\Agist/)
	{
		mask_bits(\$page, $special + 12, 0x10);
	}
	elsif ($kind =~ /\Abrin/)
	{
		# that it is being evacuated
		mask_bits(\$page, $special + 4, 0x01);
	}
	elsif ($kind eq 'spgist meta')
	{
		# its cache of pages, behind the magic number
		substr($page, $page_header + 4, 64) = "\0" x 64;
	}
	return $page;
}

sub mask_bits
{
	my ($page, $offset, $bits) = @_;
	substr($$page, $offset, 2) = pack 'v', unpack('v', substr $$page, $offset, 2) & ~$bits;
	return;
}

# An index entry that was found dead is still there.
sub mask_lines
{
	my ($page, $lower) = @_;
	my @lines = unpack 'V*', substr $$page, $page_header, $lower - $page_header;
	foreach my $line (@lines)
	{
		$line &= ~0x10000 if ($line >> 15 & 3) == 3 && $line >> 17;
	}
	substr($$page, $page_header, 4 * @lines) = pack 'V*', @lines;
	return;
}

sub mask_tuples
{
	my ($page, $lower) = @_;
	foreach my $line (unpack 'V*', substr $$page, $page_header, $lower - $page_header)
	{
		my ($offset, $state, $length) = ($line & 0x7FFF, $line >> 15 & 3, $line >> 17);
		next if $length == 0 || $offset + $length > $block_size;
		my $padding = -$length & 7;
		substr($$page, $offset + $length, $padding) = "\0" x $padding if $padding && $offset + $length + $padding <= $block_size;
		next if $state != 1 || $length < 23;
		my $bits = unpack 'v', substr $$page, $offset + 20, 2;
		# frozen is no hint
		mask_bits($page, $offset + 20, ($bits & 0x0300) == 0x0300 ? 0x0C00 : 0x0F20);
		substr($$page, $offset + 8, 4) = "\0" x 4;
		# a sequence, whose tuple has no nulls
		substr($$page, $offset + 24, 17) = "\0" x 17
		  if unpack('x16 v', $$page) == $block_size - 8 && $length >= 41 && ord(substr $$page, $offset + 22, 1) == 24;
	}
	return;
}

# The last value of a sequence, and whether it was returned.
sub sequence_values
{
	my ($page) = @_;
	my $offset = (unpack('V', substr $page, $page_header, 4) & 0x7FFF) + 24;
	return (unpack('q<', substr $page, $offset, 8), unpack 'C', substr $page, $offset + 16, 1);
}

1;
