# The comparer of clusters that the tests of a rebuild believe: in a page of each
# kind every change is seen, but for what PostgreSQL itself leaves out where it
# compares a page with its replay; and what differs between two clusters is named.
use strict;
use warnings FATAL => 'all';

use FindBin;
use lib $FindBin::RealBin;

use ClusterCompare;
use JoinKit;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $node = PostgreSQL::Test::Cluster->new('node');
$node->init;
$node->append_conf('postgresql.conf', "autovacuum = off\nallow_in_place_tablespaces = on");
$node->start;
$node->safe_psql('postgres', $_) foreach (
	"CREATE TABLESPACE space LOCATION ''",
	'CREATE TABLE rows AS SELECT g AS id, g % 50 AS few, ARRAY[g] AS list, point(g % 97, g % 89) AS place, md5(g::text) AS words FROM generate_series(1, 12000) g',
	'CREATE TABLE lists (list integer[])',
	'CREATE INDEX lists_gin ON lists USING gin (list)',
	'INSERT INTO lists SELECT ARRAY[1] FROM generate_series(1, 60000)',
	'VACUUM lists',
	(map { "CREATE INDEX rows_$_->[0] ON rows USING $_->[0] ($_->[1])" }
		[ 'btree', 'id' ], [ 'hash', 'few' ], [ 'gin', 'list' ], [ 'gist', 'place' ], [ 'spgist', 'place' ], [ 'brin', 'id' ]),
	'DELETE FROM rows WHERE id BETWEEN 3000 AND 9000',
	"DELETE FROM lists WHERE ctid BETWEEN '(60,0)' AND '(200,0)'",
	'VACUUM rows', 'VACUUM lists',
	'INSERT INTO rows SELECT g, g, ARRAY[g], point(g, g), md5(g::text) FROM generate_series(1, 200) g',
	'INSERT INTO rows SELECT g, g, ARRAY[g], point(g, g), md5(g::text) FROM generate_series(1, 200) g',
	q{UPDATE rows SET words = 'x' WHERE id < 50}, 'DELETE FROM rows WHERE id < 20', 'SELECT sum(id) FROM rows',
	'CREATE TABLE frozen AS SELECT g FROM generate_series(1, 500) g', 'VACUUM FREEZE frozen',
	'CREATE TABLE moved TABLESPACE space AS SELECT g FROM generate_series(1, 500) g',
	'CREATE UNLOGGED TABLE unlogged (id integer PRIMARY KEY)', 'INSERT INTO unlogged SELECT generate_series(1, 500)',
	'CREATE SEQUENCE numbers', q{SELECT nextval('numbers') FROM generate_series(1, 7)});
my %path = map { split /\|/ } split /\n/,
  $node->safe_psql('postgres', q{SELECT relname, pg_relation_filepath(oid) FROM pg_class WHERE relname ~ '^(rows|lists|frozen|moved|unlogged|numbers)' AND relkind <> 'I'});
$node->stop;
my $master = $node->data_dir;

# ----------------------------------------------------------------------
# Pages
# ----------------------------------------------------------------------

# One page of each kind.
my %pages;
foreach my $name (map({ $path{$_} } sort keys %path), "$path{unlogged_pkey}_init")
{
	my $content = slurp("$master/$name");
	foreach my $number (0 .. length($content) / 8192 - 1)
	{
		my $page = substr $content, 8192 * $number, 8192;
		my $kind = page_kind($page, $number == 0);
		next if $kind eq 'empty';
		$kind .= ' frozen' if $name eq $path{frozen};
		$pages{$kind} //= [ $name, $number, $page ];
	}
}
is(join(', ', sort keys %pages), join(', ', sort
		'heap', 'heap frozen', 'sequence', 'btree meta', 'btree inner', 'btree leaf', 'btree deleted',
		'hash meta', 'hash bucket', 'hash bitmap', 'hash unused',
		'gin meta', 'gin entries', 'gin posting', 'gin list', 'gin deleted', 'gist inner', 'gist leaf',
		'spgist meta', 'spgist', 'brin meta', 'brin revmap', 'brin regular'),
	'there is a page of each kind');

# may_differ(KIND, PAGE): for each byte, the bits that PostgreSQL's own comparison
# leaves out.
sub may_differ
{
	my ($kind, $page) = @_;
	my ($lower, $upper, $special) = unpack 'x12 vvv', $page;
	my @free = (0) x 8192;
	my $free = sub {
		my ($from, $to, $bits) = @_;
		$free[$_] |= $bits // 0xFF foreach $from .. $to - 1;
	};
	# mask_page_lsn_and_checksum(), mask_page_hint_bits()
	$free->(0, 10);
	$free->(10, 11, 0x07);
	$free->(20, 24);
	# mask_page_content()
	if ($kind eq 'gin deleted' || $kind eq 'hash unused')
	{
		$free->(12, 16);
		$free->(24, 8192);
		return @free;
	}
	# mask_unused_space()
	$free->($lower, $upper) if $kind ne 'brin revmap' && ($kind !~ /\Agin/ || $lower > 24);
	my @lines = unpack 'V*', substr $page, 24, $lower - 24;
	# mask_lp_flags()
	if ($kind =~ /\A(?:btree leaf|gist leaf|hash bucket)\z/)
	{
		$free->(25 + 4 * $_, 26 + 4 * $_, 0x80), $free->(26 + 4 * $_, 27 + 4 * $_, 0x01) foreach 0 .. $#lines;
	}
	# heap_mask()
	foreach my $line ($kind =~ /heap|sequence/ ? @lines : ())
	{
		my ($offset, $state, $length) = ($line & 0x7FFF, $line >> 15 & 3, $line >> 17);
		next if $length == 0;
		$free->($offset + $length, $offset + $length + (-$length & 7));
		my $is_frozen = (unpack('v', substr $page, $offset + 20, 2) & 0x0300) == 0x0300;
		$free->($offset + 8, $offset + 12);
		$free->($offset + 20, $offset + 21, 0xF0) if !$is_frozen;
		$free->($offset + 21, $offset + 22, $is_frozen ? 0x0C : 0xFF);
		$free->($offset + 24, $offset + 41) if $kind eq 'sequence';
	}
	# btree_mask(), hash_mask(), gist_mask(), brin_mask()
	$free->($special + 12, $special + 13, 0x60), $free->($special + 14, $special + 16) if $kind =~ /\Abtree/;
	$free->($special + 12, $special + 13, 0x80) if $kind =~ /\Ahash/;
	$free->($special + 12, $special + 13, 0x10) if $kind =~ /\Agist/;
	$free->($special + 4, $special + 5, 0x01) if $kind =~ /\Abrin/;
	# SpGistUpdateMetaPage()
	$free->(28, 92) if $kind eq 'spgist meta';
	return @free;
}

foreach my $kind (sort keys %pages)
{
	my ($name, $number, $page) = @{ $pages{$kind} };
	my ($lower, $upper, $special) = unpack 'x12 vvv', $page;
	my @free = may_differ($kind, $page);
	my %offsets = map { $_ => 1 } 0 .. 120, $lower .. $lower + 20, $upper - 20 .. $upper + 60, $special - 80 .. 8191,
	  map { 11 * $_ } 0 .. 744;
	my ($changed, @unseen) = (0);
	foreach my $offset (sort { $a <=> $b } grep { $_ >= 0 && $_ < 8192 } keys %offsets)
	{
		# each bit of a byte that may differ in part, any bit of another
		foreach my $bit ($free[$offset] ? 0 .. 7 : $offset % 8)
		{
			next if $free[$offset] & 1 << $bit;
			my $copy = $page;
			substr($copy, $offset, 1) = chr(ord(substr $page, $offset, 1) ^ 1 << $bit);
			$changed++;
			push @unseen, "$offset.$bit" if blocks_equal($name, $number, $copy, $page);
		}
	}
	is("@unseen", '', "$kind: each of $changed changed bits is seen");
	cmp_ok($changed, '>', 3, "$kind: some were changed");
	ok(blocks_equal($name, $number, "\1" x 10 . substr($page, 10), $page), "$kind: position and checksum mean nothing");
	ok(!blocks_equal($name, $number, "\0" x 8192, $page), "$kind: a page of zeros is seen");
}

# A sequence may be ahead, not behind.
my ($name, $number, $page) = @{ $pages{sequence} };
my $value = (unpack('V', substr $page, 24, 4) & 0x7FFF) + 24;
is(unpack('q<', substr $page, $value, 8), 7, 'a sequence: where it is');
foreach my $case ([ 8, 1, 'ahead' ], [ 6, 0, 'behind' ])
{
	my $copy = $page;
	substr($copy, $value, 8) = pack 'q<', $case->[0];
	is(blocks_equal($name, 0, $copy, $page) ? 1 : 0, $case->[1], "a sequence that is $case->[2]");
}

# A visibility map may have fewer bits, not more.
my $map = slurp("$master/$path{frozen}_vm");
is(unpack('x24 C', $map) & 1, 1, 'a visibility map: its first bit');
foreach my $case ([ 0x02, 1, 'fewer' ], [ 0x00, 1, 'none' ], [ 0xFF, 0, 'more' ])
{
	my $copy = $map;
	substr($copy, 24, 1) = chr $case->[0];
	is(blocks_equal("$path{frozen}_vm", 0, $copy, $map) ? 1 : 0, $case->[1], "a visibility map with $case->[2]");
}

# ----------------------------------------------------------------------
# Clusters
# ----------------------------------------------------------------------
my $copy = PostgreSQL::Test::Utils::tempdir . '/copy';

sub unequal
{
	my ($what, $change, @expected) = @_;
	system_or_bail('rm', '-rf', $copy);
	system_or_bail('cp', '-a', $master, $copy);
	$change->();
	my ($blocks, @unequal) = compare_clusters($copy, $master);
	cmp_ok($blocks, '>', 1000, "$what: blocks were compared");
	is(join("\n", @unequal), join("\n", @expected), "$what: what differs is named");
	return;
}

sub write_at
{
	my ($file, $offset, $bytes) = @_;
	open my $fh, '+<:raw', "$copy/$file" or die "open: $!";
	seek $fh, $offset, 0;
	print $fh $bytes;
	close $fh or die "close: $!";
	return;
}

unequal('a copy', sub { });
unequal('a byte', sub { write_at($path{rows}, 3 * 8192 + 8000, "\xA5") }, "$path{rows} block 3");
unequal('a byte in a tablespace', sub { write_at($path{moved}, 8192 + 8000, "\xA5") }, "$path{moved} block 1");
unequal('a short file', sub { truncate "$copy/$path{frozen}", 8192 or die "truncate: $!" },
	map { "$path{frozen} block $_" } 1 .. (-s "$master/$path{frozen}") / 8192 - 1);
unequal('a file with half a block', sub { append_to_file("$copy/$path{frozen}", "\0" x 100) }, "$path{frozen}: " . ((-s "$master/$path{frozen}") + 100) . ' bytes');
unequal('unused pages more', sub { append_to_file("$copy/$path{frozen}", "\0" x 8192) });
unequal('a missing file', sub { unlink "$copy/$path{frozen}" or die "unlink: $!" },
	map { "$path{frozen} block $_" } 0 .. (-s "$master/$path{frozen}") / 8192 - 1);
unequal('a file more', sub { append_to_file("$copy/base/5/99999", 'x' x 8192) }, 'base/5/99999 block 0');
unequal('an unlogged table', sub { write_at($path{unlogged}, 8000, 'xxxx') });
unequal('an initial fork', sub { unlink "$copy/$path{unlogged}_init" or die "unlink: $!" }, "$path{unlogged}_init is on one side only");
unequal('a map of files', sub { write_at('global/pg_filenode.map', 12, "\xA5") }, 'global/pg_filenode.map');
unequal('part of a backup', sub { append_to_file("$copy/base/5/INCREMENTAL.12345", 'x') }, 'base/5/INCREMENTAL.12345 is of a backup');

done_testing();
