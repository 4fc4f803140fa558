# The LSN clock's arithmetic and its file, with times that no server would
# wait for: days, boots of the machine, jumps of its wall clock.

use strict;
use warnings FATAL => 'all';

use File::Basename;
use File::Spec::Functions qw(rel2abs);
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $module = rel2abs(dirname(__FILE__) . '/../test/clock_test.so');

my $node = PostgreSQL::Test::Cluster->new('clock');
$node->init;
$node->start;
$node->safe_psql('postgres', <<~SQL);
	CREATE FUNCTION clock_test_clear() RETURNS void AS '$module' LANGUAGE C;
	CREATE FUNCTION clock_test_add(at float8, pos bigint) RETURNS void AS '$module' LANGUAGE C STRICT;
	CREATE FUNCTION clock_test_resume(pos bigint) RETURNS void AS '$module' LANGUAGE C STRICT;
	CREATE FUNCTION clock_test_cut(pos bigint) RETURNS void AS '$module' LANGUAGE C STRICT;
	CREATE FUNCTION clock_test_forget(since float8) RETURNS void AS '$module' LANGUAGE C STRICT;
	CREATE FUNCTION clock_test_age(pos bigint, now float8, current bigint) RETURNS text
	AS '$module' LANGUAGE C STRICT;
	CREATE FUNCTION clock_test_rate(now float8, current bigint, win float8) RETURNS float8
	AS '$module' LANGUAGE C STRICT;
	CREATE FUNCTION clock_test_write(path text, wall float8, boot float8, id text, sys bigint)
	RETURNS boolean AS '$module' LANGUAGE C STRICT;
	CREATE FUNCTION clock_test_read(path text, wall float8, boot float8, id text, sys bigint)
	RETURNS text AS '$module' LANGUAGE C STRICT;
	SQL

# What the last of the statements returns, all in one session with a new clock.
sub run
{
	my (@statements) = @_;
	my $result = $node->safe_psql('postgres', join "\n", map { "$_;" } @statements);

	return (split /\n/, $result)[-1] // '';
}

sub add
{
	my ($from, $to, $position) = @_;

	return "SELECT count(clock_test_add(t, ($position)::bigint)) FROM generate_series($from, $to) t";
}

# ----------------------------------------------------------------------
# Ages
# ----------------------------------------------------------------------

is(run('SELECT clock_test_age(100, 50, 100)'), '0.0', 'a replica at the primary has no lag, on an empty clock too');
is(run('SELECT clock_test_age(99, 50, 100)'), '>= 0.0', 'an empty clock knows nothing else');
is(run(add(0, 100, 't * 10'), 'SELECT clock_test_age(500, 100.5, 1005)'),
	'50.5', 'the age of a pair is the time since');
is(run(add(0, 100, 't * 10'), 'SELECT clock_test_age(505, 100.5, 1005)'),
	'50.0', 'the age between two pairs is interpolated');
is(run(add(0, 100, 't * 10'), 'SELECT clock_test_age(1005, 101, 1010)'),
	'0.5', 'after the last pair the present counts');
is(run(add(0, 100, 't * 10'), 'SELECT clock_test_age(1005, 200, 1010)'),
	'>= 0.0', 'a clock that has stopped is not asked of what it has not seen');
is(run(add(0, 100, 't * 10'), 'SELECT clock_test_age(500, 200, 1010)'),
	'150.0', 'but of what it has seen');
is(run(add(50, 100, 't * 10'), 'SELECT clock_test_age(400, 100, 1000)'),
	'>= 50.0', 'before all pairs the age is at least that of the first');
is(run(add(0, 100, '1000'), add(101, 110, '2000'), 'SELECT clock_test_age(1000, 110, 2000)'),
	'10.0', 'after an idle time the age begins with the first new WAL');
is(run(add(0, 100, 't * 10'), add(101, 140, '1000'), 'SELECT clock_test_forget(100)', add(141, 145, '1410'), 'SELECT clock_test_age(1010, 145, 1410)'),
	'44.0', 'of a time that is forgotten it is not known that nothing was written');
is(run(add(0, 100, 't * 10'), 'SELECT clock_test_forget(-1)', 'SELECT clock_test_age(500, 100, 1000)'), '>= 0.0', 'all can be forgotten');
is(run(add(0, 100, '1000'), 'SELECT clock_test_age(1000, 100, 1000)'), '0.0', 'an idle primary makes nobody late');
is(run(add(0, 100, '1000'), 'SELECT clock_test_age(2000, 100, 1000)'), '0.0', 'nor is who is ahead');

# Two and a half days of WAL that comes in waves, one pair a second.  The true
# time of each position is the first second at which it was passed.
my $wave = '(t * 1000 + 500000 * sin(t / 700.0))';
my $days = 216000;
is( run(add(1, $days, "greatest($wave, 0)"), <<~SQL),
	WITH asked AS (
		SELECT t, greatest($wave, 0)::bigint AS pos
		FROM generate_series($days - 4000, $days, 7) t
	), answers AS (
		SELECT clock_test_age(pos, $days, greatest(${\($wave =~ s/\bt\b/$days/gr)}, 0)::bigint) AS age, $days - t AS truth
		FROM asked
	)
	SELECT count(*) > 500, count(*) FILTER (WHERE age LIKE '>=%' OR abs(age::float8 - truth) > 1.1) FROM answers
	SQL
	't|0',
	'within the last hour each age is true to a second');
is( run(add(1, $days, "greatest($wave, 0)"), <<~SQL),
	WITH asked AS (
		SELECT t, greatest($wave, 0)::bigint AS pos
		FROM generate_series($days - 172000, $days - 4200, 97) t
	), answers AS (
		SELECT clock_test_age(pos, $days, greatest(${\($wave =~ s/\bt\b/$days/gr)}, 0)::bigint) AS age, $days - t AS truth
		FROM asked
	)
	SELECT count(*) > 1500, count(*) FILTER (WHERE age LIKE '>=%' OR abs(age::float8 - truth) > 31) FROM answers
	SQL
	't|0',
	'within two days each age is true to half a minute');
like(run(add(1, $days, 't'), "SELECT clock_test_age(1000, $days, $days)"),
	qr/^>= 17\d{4}\.0$/, 'of older positions it knows that they are older than two days');

# ----------------------------------------------------------------------
# Positions that go back
# ----------------------------------------------------------------------

is(run(add(0, 100, '1000 + t'), 'SELECT clock_test_add(101, 500)', 'SELECT clock_test_age(400, 101, 500)'),
	'>= 0.0', 'a position that goes back makes the clock begin anew');
is(run(add(0, 100, '1000 + t'), 'SELECT clock_test_cut(1050)', add(101, 102, '1060'), 'SELECT clock_test_age(1049, 102, 1060)'),
	'53.0', 'a promotion leaves what was before it');
is(run(add(0, 100, '1000 + t'), 'SELECT clock_test_cut(1050)', 'SELECT clock_test_add(101, 1060)', 'SELECT clock_test_add(102, 1070)', 'SELECT clock_test_age(1060, 102, 1070)'),
	'1.0', 'and nothing of what an upstream had beyond');
is(run(add(0, 100, '1000 + t'), 'SELECT clock_test_cut(1)', 'SELECT clock_test_age(1049, 102, 1060)'),
	'>= 0.0', 'a promotion before all pairs leaves none');
is(run(add(0, 100, 't'), 'SELECT clock_test_add(50, 200)', 'SELECT clock_test_age(100, 103, 103)'),
	'3.0', 'a time that goes back is ignored');

# ----------------------------------------------------------------------
# Rates
# ----------------------------------------------------------------------

is(run('SELECT clock_test_rate(100, 1000, 60)'), '-1', 'an empty clock has no rate');
is(run(add(0, 29, 't * 10'), 'SELECT clock_test_rate(29, 290, 60)'), '-1', 'nor has one of half a minute');
is(run(add(0, 30, 't * 10'), 'SELECT clock_test_rate(30, 300, 60)'), '10', 'a short one uses what it has');
is(run(add(0, 1000, 't * 10'), add(1001, 1060, '10000 + (t - 1000) * 100'), 'SELECT clock_test_rate(1060, 16000, 60)'),
	'100', 'the short window sees the burst only');
is(run(add(0, 1000, 't * 10'), add(1001, 1060, '10000 + (t - 1000) * 100'), 'SELECT clock_test_rate(1060, 16000, 900)'),
	'16', 'the long window sees what was before');
is(run(add(0, 100, 't * 10'), 'SELECT clock_test_rate(200, 1000, 60)'), '-1', 'a clock that has stopped has no rate');

# ----------------------------------------------------------------------
# The file
# ----------------------------------------------------------------------

my $file = $node->data_dir . '/pg_stat_tmp/test.clock';
my $filled = add(0, 100, '1000 + t * 10');
my $write = "SELECT clock_test_write('$file', 50000, 100, 'boot1', 7)";

is(run("SELECT clock_test_read('$file', 50060, 160, 'boot1', 7)"), '', 'no file is no problem');
is(run($filled, $write), 't', 'a clock is written');
ok(!-e "$file.tmp", 'nothing else is left beside it');
is((stat $file)[2] & 0777, 0600, 'only its owner may read it');

is(run("SELECT clock_test_read('$file', 50060, 160, 'boot1', 7)", 'SELECT clock_test_age(1500, 160, 2000)'),
	'110.0', 'read a minute later, each age has grown by a minute');
is(run("SELECT clock_test_read('$file', 53660, 160, 'boot1', 7)", 'SELECT clock_test_age(1500, 160, 2000)'),
	'110.0', 'a wall clock that jumped an hour forward changes nothing');
is(run("SELECT clock_test_read('$file', 46460, 160, 'boot1', 7)", 'SELECT clock_test_age(1500, 160, 2000)'),
	'110.0', 'nor does one that jumped an hour back');
is(run("SELECT clock_test_read('$file', 50060, 5, 'boot2', 7)", 'SELECT clock_test_age(1500, 5, 2000)'),
	'110.0', 'after a boot the wall clock counts');
is(run("SELECT clock_test_read('$file', 50060, 160, '', 7)", 'SELECT clock_test_age(1500, 160, 2000)'),
	'110.0', 'where boots are not known too');
is(run("SELECT clock_test_read('$file', 50060, 160, 'boot1', 7)", 'SELECT clock_test_resume(2050)', 'SELECT clock_test_add(160, 2050)', 'SELECT clock_test_age(2025, 170, 2050)'),
	'70.0', 'what was written while the server stopped is as old as the stop');

is(run("SELECT clock_test_read('$file', 50060, 90, 'boot1', 7)"), 'it is from the future', 'a file of a later time of this boot is ignored');
is(run("SELECT clock_test_read('$file', 49999, 5, 'boot2', 7)"), 'it is from the future', 'a file of a later wall clock is ignored');
is(run("SELECT clock_test_read('$file', 50060, 160, 'boot1', 8)"), 'it is of another database system', 'a file of another system is ignored');

# Any byte that is wrong, and any that is missing.
my $good = slurp_file($file);
my @problems;
foreach my $offset (0, 4, 8, 20, 60, 90, 5000, length($good) - 5)
{
	my $bad = $good;
	substr($bad, $offset, 1) = chr(ord(substr($bad, $offset, 1)) ^ 0x10);
	unlink $file;
	append_to_file($file, $bad);
	push @problems, run($filled, "SELECT clock_test_read('$file', 50060, 160, 'boot1', 7)", 'SELECT clock_test_age(1500, 160, 2000)');
}
is("@problems", join(' ', ('>= 0.0') x 8), 'a file with one wrong bit is ignored, wherever it is');
@problems = ();
foreach my $length (0, 1, 100, length($good) - 1)
{
	unlink $file;
	append_to_file($file, substr($good, 0, $length));
	push @problems, run("SELECT clock_test_read('$file', 50060, 160, 'boot1', 7)");
}
is(join('|', @problems), join('|', ('it is damaged') x 4), 'a file that was cut is ignored');
is(run($filled, "SELECT clock_test_write('$file.d/x', 50000, 100, 'boot1', 7)"), 'f', 'a file that cannot be written is no error');

$node->stop;
done_testing();
