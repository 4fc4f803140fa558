# Coverage-guided fuzzing of what reads bytes that somebody else wrote: the
# text of pg_hba.conf and the names of roles, with the server's own tokenizer
# and parser as the judge; the clock's file; the words of an upstream.  See
# test/fuzz.c.
#
# PRK_FUZZ_SECONDS is for how long, all targets together.  An input that fails
# is kept, and the test says where; PRK_FUZZ_INPUT=TARGET:FILE repeats it.
# PRK_FUZZ_CORPUS is a folder with more inputs, which takes those that are new.

use strict;
use warnings FATAL => 'all';

use Cwd qw(cwd);
use IPC::Run;
use MIME::Base64 qw(decode_base64);
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $seconds = $ENV{PRK_FUZZ_SECONDS} || 30;
my %share = (hba => 0.4, role => 0.1, clock => 0.15, words => 0.2, foreign => 0.15);
my $top = cwd;

my ($runtime) = run_command([ 'sh', '-c', 'clang --print-file-name=libclang_rt.fuzzer_no_main-$(uname -m).a 2>&1' ]);
plan skip_all => "needs clang and libFuzzer: $runtime" if !-f $runtime;

my $node = PostgreSQL::Test::Cluster->new('fuzz');
$node->init(extra => [ '--encoding', 'UTF8' ]);
plan skip_all => 'is run with PostgreSQL 15' if $node->pg_version >= 16 && !$ENV{PRK_FUZZ_ANY_VERSION};

is(system_log('make', '-s', '-C', $top, 'with_llvm=no', 'test/fuzz.so'), 0, 'the fuzzers are compiled')
  or BAIL_OUT('clang does not compile test/fuzz.c');

$node->append_conf('postgresql.conf', "lc_messages = 'de_DE.UTF-8'");
$node->start;
$node->safe_psql('postgres', "CREATE FUNCTION fuzz_run(text, text[]) RETURNS integer AS '$top/test/fuzz.so' LANGUAGE C STRICT");
$node->stop;

# Run a target in single-user mode; how it ended, and all that it said.
sub fuzz
{
	my ($target, @options) = @_;
	my $options = join ', ', map { "'$_'" } @options;
	my $output = '';

	IPC::Run::run([ 'postgres', '--single', '-D', $node->data_dir, 'postgres' ],
		'<', \"SELECT fuzz_run('$target', ARRAY[$options])\n", '>&', \$output);
	return ($?, $output);
}

# Signals that are the server's own business, and threads, which a backend has
# none of.
my @always = (
	'-rss_limit_mb=0', '-malloc_limit_mb=0', '-detect_leaks=0', '-timeout=60',
	'-handle_int=0', '-handle_term=0', '-handle_usr1=0', '-handle_usr2=0', '-handle_xfsz=0');

if (my ($target, $base64) = ($ENV{PRK_FUZZ_INPUT} // '') =~ /^(\w+):(.*)$/)
{
	my $file = PostgreSQL::Test::Utils::tempdir . '/input';

	append_to_file($file, decode_base64($base64));
	my ($status, $output) = fuzz($target, @always, $file);

	is($status, 0, "$target, the one input") or diag($output);
	done_testing();
	exit;
}

foreach my $target (sort keys %share)
{
	# what is new goes to the first
	my @corpus = (PostgreSQL::Test::Utils::tempdir, "$top/test/fuzz_corpus/$target");
	my $kept = PostgreSQL::Test::Utils::tempdir;
	my $dict = "$top/test/fuzz_corpus/$target.dict";
	my @dict = -f $dict ? "-dict=$dict" : ();

	# Every input of the tree once, with nothing made from them.
	my ($status, $output) = fuzz($target, @always, "-artifact_prefix=$kept/", sort glob "$top/test/fuzz_corpus/$target/*");
	is($status, 0, "$target: the inputs in the tree") or diag($output);

	my $limit = int($seconds * $share{$target}) || 1;
	($status, $output) = fuzz($target, @always, @dict, "-max_total_time=$limit", '-max_len=2048',
		'-print_final_stats=1', "-artifact_prefix=$kept/", @corpus);
	my ($runs) = $output =~ /stat::number_of_executed_units:\s+(\d+)/;
	my ($cov) = $output =~ /.*\bcov: (\d+)/s;
	is($status, 0, "$target: $limit s of made inputs")
	  or diag(substr $output, -4000);
	cmp_ok($runs // 0, '>', 50, 'libFuzzer has run');
	note "$target: ", $runs // '?', ' inputs, ', $cov // '?', ' places reached';
}

done_testing();
