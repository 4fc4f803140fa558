# Are two clusters that were stopped at the same position the same, block by
# block?
#
# What may differ and means nothing is masked: positions, checksums and hints in
# page headers, hint bits, command numbers, killed index entries, pages of indexes
# that were deleted, and space that nothing refers to.  Free space maps have no WAL and are left out, so are
# unlogged tables, and the tuple of a sequence, of which the WAL is ahead.  A
# clone or replica may have fewer bits in visibility maps than its primary, but
# none more.
package ClusterCompare;

use strict;
use warnings FATAL => 'all';

use Exporter 'import';

our @EXPORT = qw(compare_clusters);

my $block_size = 8192;
my $zero = "\0" x $block_size;

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
			next if $name !~ m!/\d+(?:_vm|_init)?(?:\.\d+)?\z|/pg_filenode\.map\z|/PG_VERSION\z!;
			$files{$name}[$side] = $path;
		}
	}
	foreach my $name (sort keys %files)
	{
		my $relation = $name =~ s/(?:_[a-z]+)?(?:\.\d+)?\z//r;
		next if $name !~ /_init/ && exists $files{"${relation}_init"};
		my ($here, $there) = map { defined $_ ? content($_) : '' } @{ $files{$name} }[ 0, 1 ];
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
			next if $block[0] eq $block[1];
			next if $name =~ /_vm/ ? is_subset(@block) : masked($block[0]) eq masked($block[1]);
			push @unequal, "$name block $number";
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

# Has the first visibility map no bit that the second has not?
sub is_subset
{
	my @bits = map { substr $_, 24 } @_;
	return ($bits[0] | $bits[1]) eq $bits[1];
}

# A page without what may differ.
sub masked
{
	my ($page) = @_;
	my (undef, undef, undef, $flags, $lower, $upper, $special) = unpack 'VVvvvvv', $page;
	return $page if $lower < 24 || $lower > $upper || $upper > $special || $special > $block_size;
	my $tail = substr $page, $special;
	my $last = $special < $block_size ? unpack 'v', substr $page, -2 : 0;
	my $size = $block_size - $special;
	# a sequence: its only tuple
	return 'sequence' if $size == 8 && unpack('V', $tail) == 0x1717;
	my $kind =
	    $size == 0 ? 'heap'
	  : $size == 16 && $last == 0xFF81 ? 'gist'
	  : $size == 8 && $last == 0xFF82 ? 'spgist'
	  : $size == 16 && $last == 0xFF80 ? 'hash'
	  : $size == 16 && $last <= 0xFF7F ? 'btree'
	  : 'other';
	# what is left on a page of GIN that was deleted, replay does not keep
	return 'deleted' if $size == 8 && $kind eq 'other' && unpack('v', substr $tail, 6, 2) & 0x04;
	# SP-GiST's first page remembers, without WAL, where there was space
	return 'spgist' if $kind eq 'spgist' && unpack('v', $tail) & 0x01;
	my $items = $kind eq 'heap' || $kind eq 'gist';
	if ($kind eq 'btree')
	{
		my $bits = unpack 'v', substr $tail, 12, 2;
		$items = !($bits & 0x08);
		return 'deleted' if $bits & 0x04;
		# hints, and the number of a vacuum
		substr($tail, 12, 4) = pack 'vv', $bits & ~0x60, 0;
	}
	elsif ($kind eq 'hash')
	{
		my $bits = unpack 'v', substr $tail, 12, 2;
		return 'deleted' if !($bits & 0x0F);
		$items = $bits & 0x03;
		substr($tail, 12, 2) = pack 'v', $bits & ~0x80;
	}
	elsif ($kind eq 'gist')
	{
		my $bits = unpack 'v', substr $tail, 12, 2;
		substr($tail, 12, 2) = pack 'v', $bits & ~0x10;
	}
	my $head = substr($page, 12, 8);
	return $head . substr($page, 24, $lower - 24) . substr($page, $upper, $special - $upper) . $tail
	  if !$items;
	my @lines = unpack 'V*', substr $page, 24, $lower - 24;
	my $result = $head . $tail;
	foreach my $line (@lines)
	{
		my ($offset, $state, $length) = ($line & 0x7FFF, $line >> 15 & 3, $line >> 17);
		# an index entry that was found dead is still there
		$state = 1 if $state == 3 && $length > 0;
		$result .= pack 'vCv', $offset, $state, $length;
		next if $length == 0 || $offset + $length > $block_size;
		my $tuple = substr $page, $offset, $length;
		if ($kind eq 'heap' && $length >= 23)
		{
			my $bits = unpack 'v', substr $tuple, 20, 2;
			substr($tuple, 20, 2) = pack 'v', $bits & ~0x0F20;
			substr($tuple, 8, 4) = "\0" x 4;
		}
		$result .= $tuple;
	}
	return $result;
}

1;
