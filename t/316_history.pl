# history() and lag_graph(): what the worker has sampled, as rows and as a
# picture.

use strict;
use warnings FATAL => 'all';

use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(time usleep);

my $primary = PostgreSQL::Test::Cluster->new('primary');
$primary->init(allows_streaming => 1);
$primary->append_conf('postgresql.conf', <<~CONF);
	shared_preload_libraries = 'pg_replica_kit'
	autovacuum = off
	max_replication_slots = 10
	max_wal_senders = 5
	replica_kit.check_interval = 200ms
	replica_kit.history_samples = 40
	CONF
$primary->start;
$primary->wait_for_log(qr/replica_kit worker started/);
$primary->safe_psql('postgres', <<~SQL);
	CREATE EXTENSION pg_replica_kit;
	CREATE ROLE regress_prk_monitor LOGIN;
	GRANT pg_monitor TO regress_prk_monitor;
	CREATE ROLE regress_prk_nobody LOGIN;
	SQL
is($primary->safe_psql('postgres', 'SELECT count(*) FROM replica_kit.history()'), '0', 'without replicas there are no rows');
is($primary->safe_psql('postgres', q{SELECT replica_kit.lag_graph('r1')}), 'r1: no samples of the last 1 h', 'and no picture');

# Of a slot that is there before it the worker cannot know who has used it.
$primary->wait_for_log(qr/replica_kit worker started/);
$primary->safe_psql('postgres', q{SELECT pg_create_physical_replication_slot('r1', true), pg_create_physical_replication_slot('r2', true)});
$primary->safe_psql('postgres', q{SELECT pg_logical_emit_message(true, '', repeat('x', 100000))});
ok( $primary->poll_query_until('postgres', q{SELECT count(DISTINCT sampled_at) > 5 FROM replica_kit.history('r1') WHERE lag_bytes >= 100000}),
	'each check adds a row');
is( $primary->safe_psql('postgres', <<~SQL),
	SELECT name, state, bool_and(lag_time >= '0'), bool_and(retained_bytes = lag_bytes), max(sampled_at) > now() - interval '30 s'
	FROM replica_kit.history(since => '1 min')
	WHERE lag_bytes >= 100000 AND state <> 'startup' -- in the hands of who makes it
	GROUP BY 1, 2 ORDER BY 1
	SQL
	"r1|never connected|t|t|t\nr2|never connected|t|t|t",
	'the columns are those of status()');
is( $primary->safe_psql('postgres', q{SELECT count(*) FILTER (WHERE sampled_at < before) FROM (SELECT sampled_at, lag(sampled_at) OVER () AS before FROM replica_kit.history('r1')) h}),
	'0', 'the rows come oldest first');

# A sample may be taken in the midst of the question.
ok($primary->poll_query_until('postgres', q{SELECT count(*) FROM replica_kit.history('r1', '0 s')}, '0'), 'since is followed');
is($primary->safe_psql('postgres', q{SELECT count(*) FROM replica_kit.history('r3')}), '0', 'a replica that is not there has no rows');

# The ring is full and goes round.
ok( $primary->poll_query_until('postgres', q{SELECT count(*) = 40 FROM replica_kit.history()}), 'it keeps as many rows as are set');
my $oldest = $primary->safe_psql('postgres', 'SELECT min(sampled_at) FROM replica_kit.history()');
ok( $primary->poll_query_until('postgres', "SELECT min(sampled_at) > '$oldest' AND count(*) = 40 FROM replica_kit.history()"),
	'then the oldest ones go');

# More names than there is room for, one after the other.
foreach my $round (1 .. 8)
{
	$primary->safe_psql('postgres', "SELECT pg_create_physical_replication_slot('round${round}_' || i) FROM generate_series(1, 8) i");
	$primary->poll_query_until('postgres', "SELECT count(DISTINCT name) = 8 FROM replica_kit.history() WHERE name LIKE 'round${round}\\_%'")
	  or die "round $round is not sampled";
	$primary->safe_psql('postgres', "SELECT pg_drop_replication_slot('round${round}_' || i) FROM generate_series(1, 8) i");
}
pass('names whose rows are gone make room for others');
ok( $primary->poll_query_until('postgres', q{SELECT count(*) = 40 AND count(*) FILTER (WHERE name NOT IN ('r1', 'r2')) = 0 FROM replica_kit.history()}),
	'and in the end all rows are of those who are there');

# The picture: what it shows, eight lines, an axis and its times
sub picture
{
	my ($arguments) = @_;
	my @lines = split /\n/, $primary->safe_psql('postgres', "SET timezone = 'UTC'; SELECT replica_kit.lag_graph($arguments)");
	note map { "$_\n" } @lines;
	return @lines;
}

# One of a moment at which the worker has just looked: a sample does not count for
# long where there is no next one.
my @lines;
for (1 .. 10 * $PostgreSQL::Test::Utils::timeout_default)
{
	@lines = picture(q{'r1', '20 s', 50});
	last if ($lines[1] // '') =~ /#$/;
	usleep(100_000);
}
is(scalar @lines, 11, 'a picture has a title, eight lines, and two of time');
like($lines[0], qr/^r1: lag over the last 20 s, at most \S+ \w+(?: \d+ s)?$/, 'the title says what it shows');
like($lines[1], qr/^ *\S+ \w+(?: \d+ s)? \|.*#$/, 'the greatest lag reaches the top');
like($lines[8], qr/^ *0 s \|[ #]{1,50}$/, 'the last line is the bottom');
my ($margin) = $lines[8] =~ /^(.* )\|/;
is(length $lines[9], length($margin) + 1 + 50, 'the axis is as wide as it was asked for');
like($lines[9], qr/^ +\+-[-+]*-$/, 'with a mark at its begin, and none that psql would have made');
my $time = qr/[0-2]\d:[0-5]\d:[0-5]\d/;
like($lines[10], qr/^ {${\ length($margin)}}$time(?: +$time)* +$time$/, 'below it stand times');
is(length $lines[10], length $lines[9], 'the last of which ends where it does');
cmp_ok(scalar(() = $lines[9] =~ /\+/g) + 1, '==', scalar(() = $lines[10] =~ /$time/g), 'each mark has one, and so has the end');
unlike("@lines", qr/ $/m, 'no line ends in blanks');

foreach my $case ([ "'2 h', 40", '\d\d:\d\d' ], [ "'3 days', 40", '\d\d-\d\d \d\d:\d\d' ])
{
	like((picture("'r1', $case->[0]"))[10], qr/^ +$case->[1](?: +$case->[1])+$/, "times are as exact as $case->[0] ask for");
}
@lines = picture(q{'r1', '1 day', 3});
is(scalar(() = $lines[10] =~ /\d\d-\d\d/g), 1, 'a narrow picture has one');

# 40 rows of two replicas are 20 samples.  Between them are holes where a slow
# machine has kept the worker from looking, until it has looked so often again.
my ($bars, $holes) = ('', 0);
for (1 .. 10 * $PostgreSQL::Test::Utils::timeout_default)
{
	my $bottom = (picture(q{'r1', '20 s', 400}))[8];
	$bottom =~ s/^.*\|//;
	$bars = $bottom =~ /(#.*#)/ ? $1 : '';
	$holes = () = $bars =~ / /g;
	last if $holes < length($bars) / 2;
	usleep(100_000);
}
cmp_ok($holes, '<', length($bars) / 2, 'a sample counts until the next one');

# psql shows each line as a row, without marks of its own for line breaks.
my ($stdout) = run_command([ 'psql', '-X', '-d', $primary->connstr('postgres'), '-c', q{SELECT replica_kit.lag_graph('r1', '20 s')} ]);
unlike($stdout, qr/\+ *$/m, 'psql adds nothing to a line');
like($stdout, qr/^\(11 rows\)$/m, 'which are rows');

# What is not sensible
foreach my $case (
	[ q{SELECT replica_kit.lag_graph('r1', width => 0)}, qr/width must be between 1 and 1000/ ],
	[ q{SELECT replica_kit.lag_graph('r1', width => NULL)}, qr/argument "width" must not be null/ ],
	[ q{SELECT replica_kit.lag_graph(NULL)}, qr/argument "name" must not be null/ ],
	[ q{SELECT replica_kit.lag_graph('r1', '0 s')}, qr/since must be greater than zero/ ],
	[ q{SELECT replica_kit.lag_graph('r1', '-1 h')}, qr/since must be greater than zero/ ],
	$primary->pg_version >= 17 ? [ q{SELECT replica_kit.lag_graph('r1', 'infinity')}, qr/since must be finite/ ] : (),
	[ q{SELECT * FROM replica_kit.history(since => NULL)}, qr/argument "since" must not be null/ ],
	[ q{SELECT * FROM replica_kit.history(repeat('x', 64))}, qr/argument "name" is too long/ ])
{
	my ($code, $out, $err) = $primary->psql('postgres', $case->[0]);
	like($err, qr/ERROR:  $case->[1]/, "refused: $case->[0]");
}

# Who may
my $asks = q{SELECT count(*) > 0 FROM replica_kit.history(); SELECT count(*) > 0 FROM replica_kit.lag_graph('r1')};
is($primary->safe_psql('postgres', "SET ROLE regress_prk_monitor; $asks"), "t\nt", 'pg_monitor may ask');
foreach my $statement (split /; /, $asks)
{
	my ($code, $out, $err) = $primary->psql('postgres', "SET ROLE regress_prk_nobody; $statement");
	like($err, qr/permission denied for/, "others may not: $statement");
}

# ----------------------------------------------------------------------
# Over a restart
# ----------------------------------------------------------------------

# After a start, which takes a sample, the worker takes none.
my $file = $primary->data_dir . '/pg_stat_tmp/pg_replica_kit.history';
my $rows = q{SELECT name, state, lag_bytes, lag_time, retained_bytes FROM replica_kit.history(since => '1 day')};
my $oldest_age = q{SELECT extract(epoch FROM clock_timestamp() - min(sampled_at)) FROM replica_kit.history(since => '1 day')};

sub samples_are
{
	my ($wanted, $what) = @_;
	ok($primary->poll_query_until('postgres', "SELECT count(DISTINCT sampled_at) = $wanted AND max(sampled_at) > pg_postmaster_start_time() FROM replica_kit.history(since => '1 day')"), $what);
	return;
}

# What it says when it starts comes after that sample.
sub wait_for_worker
{
	my ($offset) = @_;
	$primary->wait_for_log(qr/replica_kit worker started/, $offset);
	return slurp_file($primary->logfile, $offset) =~ /\[(\d+)\][^\n]*replica_kit worker started/ ? $1 : die 'no worker';
}

# How old the oldest sample is, as asked between when and when.
sub age_of_oldest
{
	my $from = time;
	my $age = $primary->safe_psql('postgres', $oldest_age);
	return ($from, $age, time);
}

$primary->append_conf('postgresql.conf', "replica_kit.check_interval = 1h\nreplica_kit.history_samples = 50");
my $offset = -s $primary->logfile;
$primary->restart;
wait_for_worker($offset);
my $before = $primary->safe_psql('postgres', $rows);
my ($asked, $age, $answered) = age_of_oldest();
$primary->stop;
ok(-s $file, 'a clean stop leaves a file');
is((stat $file)[2] & 0777, 0600, 'that its owner alone may read');
$primary->start;
samples_are(22, 'after it all samples are there, and a new one');
is($primary->safe_psql('postgres', "$rows LIMIT 42"), $before, 'which are the same');
my ($asked_then, $age_then, $answered_then) = age_of_oldest();
my $grown = $age_then - $age;
ok($grown >= $asked_then - $answered - 2 && $grown <= $answered_then - $asked + 2, 'and of the same time')
  or diag("older by $grown s, after " . ($asked_then - $answered) . ' to ' . ($answered_then - $asked) . ' s');
ok(!-e $file, 'the file is used up');
like($primary->safe_psql('postgres', q{SELECT replica_kit.lag_graph('r1', '10 min')}), qr/#/, 'they are drawn');

$primary->append_conf('postgresql.conf', 'replica_kit.history_samples = 10');
$primary->restart;
samples_are(5, 'of what is more than is to be kept the newest are taken');
is($primary->safe_psql('postgres', "$rows LIMIT 6"), join("\n", (split /\n/, $before)[ -6 .. -1 ]), 'in their order');

$primary->stop;
open my $fh, '+<', $file or die "$file: $!";
seek $fh, -20, 2;
print $fh "\xff";
close $fh;
$primary->start;
samples_are(1, 'a damaged file is ignored');
like(slurp_file($primary->logfile), qr/LOG:  ignoring file "pg_stat_tmp\/pg_replica_kit\.history": it is damaged$/m, 'which is told');

# Nor does a worker that is ended while the server goes on leave one that counts.
# The postmaster starts no other before that is seen.
$offset = -s $primary->logfile;
$primary->restart;
samples_are(2, 'a good one is not');
my $worker = wait_for_worker($offset);
my ($postmaster) = slurp_file($primary->data_dir . '/postmaster.pid') =~ /^(\d+)$/m;
kill 'STOP', $postmaster;
is(kill('TERM', $worker), 1, 'a worker is ended');
for (1 .. 10 * $PostgreSQL::Test::Utils::timeout_default)
{
	last if -s $file;
	usleep(100_000);
}
my $left = -s $file;
kill 'CONT', $postmaster;
die 'it leaves nothing' if !$left;
ok($primary->poll_query_until('postgres', q{SELECT pg_stat_file('pg_stat_tmp/pg_replica_kit.history', true) IS NULL}), 'the next one removes what it left');
samples_are(3, 'and goes on with what is in memory');
$primary->stop('immediate');
ok(!-e $file, 'a crash leaves none');
$primary->start;
samples_are(1, 'and so no samples');

# Without it
foreach my $settings ('replica_kit.history_samples = 0', "shared_preload_libraries = ''")
{
	$primary->append_conf('postgresql.conf', $settings);
	$primary->restart;
	my ($code, $out, $err) = $primary->psql('postgres', 'SELECT * FROM replica_kit.history()');
	like($err, qr/ERROR:  no history is kept\n.*HINT:/s, "it says so where no history is kept: $settings");
}
is($primary->safe_psql('postgres', q{SELECT count(*) FROM replica_kit.status()}), '2', 'all else works');

$primary->stop;
done_testing();
