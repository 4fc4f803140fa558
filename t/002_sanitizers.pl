# Under scripts/sanitize: the sanitizers report what they are there for.
use strict;
use warnings FATAL => 'all';

use File::Basename;
use File::Spec::Functions qw(rel2abs);
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $reports = $ENV{PRK_SANITIZE}
  or plan skip_all => 'not run by scripts/sanitize';
my $module = rel2abs(dirname(__FILE__) . '/../test/sanitize_test.so');

my $node = PostgreSQL::Test::Cluster->new('mistakes');
$node->init;
$node->start;
$node->safe_psql('postgres',
	"CREATE FUNCTION sanitize_test(text) RETURNS boolean AS '$module' LANGUAGE C STRICT");

my %report = (
	'behind' => qr/AddressSanitizer: use-after-poison|heap-buffer-overflow/,
	'before' => qr/AddressSanitizer: use-after-poison/,
	'before a StringInfo' => qr/AddressSanitizer: use-after-poison/,
	'freed' => qr/AddressSanitizer: heap-use-after-free/,

	# the server is built with -fwrapv, so that overflows are not undefined
	'shift' => qr/runtime error: shift exponent 2147483647 is too large/);

foreach my $mistake (sort keys %report)
{
	my %before = map { $_ => 1 } glob("$reports/*");

	$node->psql('postgres', "SELECT sanitize_test('$mistake')");

	# They are wanted, so they don't count.
	my @new = grep { !$before{$_} } glob("$reports/*");
	like(join('', map { slurp_file($_) } @new, $node->logfile),
		$report{$mistake}, "a mistake is reported: $mistake");
	unlink @new;
}
$node->stop;
done_testing();
