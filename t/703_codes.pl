# The table of codes, its page and the rules agree; nothing goes by words.

use strict;
use warnings FATAL => 'all';

use FindBin;
use lib $FindBin::RealBin;

use DiagKit;
use Test::More;

sub slurp
{
	my ($path) = @_;
	open my $in, '<', $path or die "could not open \"$path\": $!";
	local $/ = undef;
	return scalar <$in>;
}

my $doc = slurp('doc/codes.md');
my $header = slurp('src/judge/codes.h');
my $source = slurp('src/judge/codes.c');

# ----------------------------------------------------------------------
# The table
# ----------------------------------------------------------------------

my %side = (
	PRK_SIDE_SERVER => 'any server, of itself',
	PRK_SIDE_UPSTREAM => 'the server that the replica receives from',
	PRK_SIDE_STANDBY => 'the standby');
my (@known, %told);
while ($source =~ /\[PRK_CODE_(\w+)\] = \{"(\w+)", PRK_GRAVITY_(\w+),\s*([A-Z_ |]+), (true|false)\}/g)
{
	my ($symbol, $name, $gravity, $sides, $remedy) = ($1, $2, $3, $4, $5);
	is($symbol, uc $name, "$name has the symbol of its name");
	push @known, $name;
	$told{$name} = '*Level* ' . lc($gravity) . '. *Known to* ' . join('; ', map { $side{$_} } split / \| /, $sides)
	  . '. *Remedy* ' . ($remedy eq 'true' ? 'in some cases' : 'none') . '.';
}
my ($enum) = $header =~ /typedef enum PrkCode\n\{(.*?)\}/s;
is_deeply([ $enum =~ /PRK_CODE_(\w+)/g ], [ 'NONE', map { uc } @known ], 'the enum and the table have the same codes, in the same order');
is_deeply(\@known, [ sort @known ], 'which is that of their names');

# ----------------------------------------------------------------------
# The page
# ----------------------------------------------------------------------

my %section = $doc =~ /^### (\w+)\n(.*?)\n(?=##|\z)/msg;
is_deeply([ sort keys %section ], \@known, 'every code is described, and nothing else');
foreach my $name (@known)
{
	my ($facts, $text) = ($section{$name} // '') =~ /\A(.*?)\n\n(.*)/s;
	is($facts, $told{$name}, "$name: the page tells what the table does");
	like($text, qr/\.$/m, "$name: and what it is");
}

# ----------------------------------------------------------------------
# The page for the night: its rows name codes that there are, and a test makes
# what each shows
# ----------------------------------------------------------------------

my %shown = (
	'anything, and you' => [ '700_diagnose_connect', 'wait_for_diagnosis' ],
	'replica "X" warning: disconnected' => [ '310_worker', 'disconnected for' ],
	'upstream warning: disconnected' => [ '318_standby_status', 'upstream warning: disconnected for' ],
	'requested WAL segment' => [ '708_diagnose_cascade', 'wal_removed' ],
	'password authentication failed' => [ '700_diagnose_connect', 'auth_failed' ],
	'no pg_hba.conf entry' => [ '700_diagnose_connect', 'hba_no_entry' ],
	'applications hang in COMMIT' => [ '713_one_voice', 'commits hang' ],
	'server critical: nothing was archived' => [ '713_one_voice', 'server critical: nothing was archived' ],
	'disk of pg_wal will be full' => [ '706_diagnose_after_a_day', 'disk_filling' ],
	'a replica\'s data is old' => [ '714_replay_causes', 'replay_conflict' ],
	'canceling statement due to conflict' => [ '714_replay_causes', 'max_standby_streaming_delay' ],
	'logical subscribers get nothing' => [ '715_two_causes', 'slot_held_by_transaction' ],
	'the primary is dead' => [ '712_failover', 'replica_not_attached' ],
	'two servers accept writes' => [ '712_failover', 'newer_timeline_exists' ],
	'a replica was promoted by mistake' => [ '712_failover', 'by mistake' ],
	'all is green' => [ '312_not_preloaded', 'too few replicas are streaming' ]);
my @nights = grep { /^\| / && !/^\| you see/ } split /\n/, slurp('doc/3am.md');
is(scalar @nights, scalar keys %shown, 'each row of the page for the night is known here');
foreach my $night (@nights)
{
	my ($row) = grep { $night =~ /^\| `?\Q$_\E/ } keys %shown;
	ok(defined $row, "the night: $night") or next;
	my ($test, $words) = @{ $shown{$row} };
	like(slurp("t/$test.pl"), qr/\Q$words\E/, "the night: \"$row\" is shown by t/$test.pl");
	my ($do) = $night =~ /\|([^|]*)\|$/;
	ok($section{$_}, "the night: \"$row\" names a code: $_") foreach grep { !/^(?:wal_status|pg_wal|deprovision|provision|max_\w+|hot_\w+|synchronous_\w+)$/ } $do =~ /`([a-z]+_[a-z_]+)`/g;
}

# ----------------------------------------------------------------------
# The code
# ----------------------------------------------------------------------

my @rules = (glob('src/diagnose/diagnose*.c'), 'src/judge/health.c', 'src/judge/server.c', 'src/watch/upstream.c');
my @words = glob('src/diagnose/words*.c');
my %given = map { lc($_) => 1 } map { slurp($_) =~ /PRK_CODE_(\w+)/g } @rules;
is_deeply([ grep { !$given{$_} } @known ], [], 'every code is given by some rule');

foreach my $file (glob('*.c'), glob('src/*.c'), glob('src/*/*.c'))
{
	my $text = slurp($file);
	my @as_text = grep { $file ne 'src/judge/codes.c' && $text =~ /str(?:case)?n?cmp\([^;]*"\Q$_\E"/ } @known;

	# preflight() has names of its own for its checks.
	is("@as_text", '', "$file compares no code as text") if $file !~ m!/preflight!;
	unlike($text, qr/strstr\([^;]*(?:reason|finding|evidence|remedy|advice)\b/, "$file does not search in its own words");
	unlike($text, qr/\bquote_(?:literal|identifier)|"SELECT |"ALTER /, "$file has neither SQL nor quoting: it is a rule")
	  if $file =~ m!^src/diagnose/(?:diagnose|findings|evidence)! && $file !~ /_funcs\.c$/;
	unlike($text, qr/->remedy = (?!psprintf|"SELECT pg_reload_conf\(\);")/, "$file makes remedies in one place")
	  if $file =~ m!^src/diagnose/words!;
	unlike($text, qr/->remedy =/, "$file leaves remedies to words.c")
	  if $file =~ m!^src/! && $file ne 'src/diagnose/words.c';
}

# ----------------------------------------------------------------------
# What the other tests look for in each row
# ----------------------------------------------------------------------

foreach my $remedy (
	undef,
	'SELECT pg_reload_conf();',
	q{ALTER SYSTEM SET max_slot_wal_keep_size = '64MB';},
	q{SELECT * FROM replica_kit.provision('it''s', '10.0.0.5/32', E'back\\\\slash');})
{
	is(remedy_fault({ code => 'slot_missing', remedy => $remedy }), '', 'a remedy: ' . ($remedy // 'none'));
}
foreach my $remedy (
	'',
	'-- Start the replica.',
	"SELECT pg_reload_conf();\n",
	'SELECT pg_reload_conf(); SELECT 1;',
	q{SELECT pg_drop_replication_slot('r');},
	q{SELECT * FROM replica_kit.deprovision('r');},
	q{SELECT replica_kit.rotate_password('r');},
	'SELECT pg_terminate_backend(1);',
	'SELECT pg_wal_replay_resume();',
	q{SELECT * FROM replica_kit.provision('a'); DROP TABLE t; --', '10.0.0.5');},
	q{ALTER SYSTEM SET work_mem = 'a'';})
{
	isnt(remedy_fault({ code => 'slot_missing', remedy => $remedy }), '', "no remedy: $remedy");
}
isnt(remedy_fault({ code => 'replica_down', remedy => 'SELECT pg_reload_conf();' }), '', 'a code that has no remedy gets none');

# ----------------------------------------------------------------------
# The log
# ----------------------------------------------------------------------

foreach my $line (
	'the database system is in recovery mode',
	'entering standby mode',
	'redo starts at',
	'the database system is starting up',
	'consistent recovery state reached',
	'database system is ready to accept read only connections',
	'invalid resource manager ID',
	'started streaming WAL from primary',
	'has already been removed')
{
	like($doc, qr/^\| `.*\Q$line\E.*` \| (?:harmless|\*\*the cause\*\*)/m, qq{the log's "$line" is explained});
}

done_testing();
