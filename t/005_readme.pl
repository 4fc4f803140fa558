# The examples of README.md and doc/schedulers.md are run as they stand, in their
# order, with the addresses of this machine.  doc/reference.md names each function,
# column and setting.  No link of a page is dead, and a link leads to each page.

use strict;
use warnings FATAL => 'all';

use Digest::SHA qw(sha256_hex);
use File::Temp qw(tempdir);
use FindBin;
use lib $FindBin::RealBin;

use JoinKit;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $top = "$FindBin::RealBin/..";
my $readme = slurp_file("$top/README.md");

# Fenced blocks: what they hold, and their kind ('' for output).
sub blocks
{
	my ($text) = @_;
	my @blocks;

	while ($text =~ /^```([^\n]*)\n(.*?)^```$/msg)
	{
		push @blocks, { kind => $1, text => $2 };
	}
	return @blocks;
}

# Those of the other pages come before README.md's end, which removes the replica.
my @blocks = blocks($readme);
splice @blocks, -3, 0, grep { $_->{kind} =~ /^(conf|sql|sql pg_cron|sh)$/ }
  map { blocks(slurp_file("$top/doc/$_.md")) } qw(install reference schedulers);
cmp_ok(scalar @blocks, '>', 10, 'there are examples');
cmp_ok(scalar(my @lines = split(/\n/, $readme)), '<=', 150, 'README.md has at most 150 lines');

my $cron = `pg_config --sharedir` =~ s/\n//r . '/extension/pg_cron.control';
my $has_cron = -e $cron;
my $primary = PostgreSQL::Test::Cluster->new('primary');
$primary->init(allows_streaming => 1);
$primary->append_conf('postgresql.conf', "listen_addresses = '127.0.0.1'");

# What is to be set in postgresql.conf is there from the start.
for my $block (grep { $_->{kind} eq 'conf' } @blocks)
{
	$primary->append_conf('postgresql.conf', $block->{text});
}
if ($has_cron)
{
	$primary->append_conf('postgresql.conf',
		"shared_preload_libraries = 'pg_replica_kit, pg_cron'");
}
# as every Debian cluster has it
enable_tls($primary);
$primary->start;
is($primary->safe_psql('postgres', 'SELECT name, error FROM pg_file_settings WHERE error IS NOT NULL'),
	'', 'the settings shown are accepted');
$primary->safe_psql('postgres', 'CREATE EXTENSION pg_cron') if $has_cron;

my $replica = new_replica('replica');
my $dir = tempdir(CLEANUP => 1);
my ($password, $output) = ('', '');

# As the reader types it, in psql and in a shell.
sub run_sql
{
	my ($sql) = @_;

	my $result = run_log([ 'psql', '-X', '-v', 'ON_ERROR_STOP=1', '-d', $primary->connstr('postgres') ],
		'<', \$sql, '>', \my $out, '2>', \my $err);
	ok($result, "README: $sql") or diag($err);
	return $out;
}

# The names of the columns of the last statement in psql's output, lying or
# standing.
sub columns
{
	my ($out) = @_;

	return join ',', $out =~ /^(\w+) +\| /mg if $out =~ /^-\[ RECORD|^\w+ +\| /;
	my ($head) = $out =~ /.*^( [^\n]*)\n-[-+]*$/ms;
	return join ',', map { s/^\s+|\s+$//gr } split /\|/, $head // '';
}

# The script's commands; the replica is of this machine, so it needs a place and
# a port.
sub run_commands
{
	my ($commands) = @_;

	$commands =~ s/--cluster \S+/"--pgdata @{[ $replica->data_dir ]} --port @{[ $replica->port ]}"/eg
	  or die 'the example of the script has no --cluster';
	$commands =~ s/^runuser -u postgres -- |^scp .*\n//mg;
	local %ENV = (%ENV, PGHOST => $primary->host, PGPORT => $primary->port,
		PGDATABASE => 'postgres', PGPASSWORD => $password, HOME => $dir);
	my ($out, $err) = ('', '');
	ok(run_log([ 'sh', '-ec', "cd $dir\n$commands" ], '>', \$out, '2>', \$err), "README: $commands")
	  or diag($out, $err);
	adopt_replica($replica);
	like($out, qr/^pg_replica_kit: replica "replica1" streams from/m, 'the replica streams');
	$primary->poll_query_until('postgres',
		q{SELECT lag_bytes = 0 AND health = 'ok' FROM replica_kit.status() WHERE name = 'replica1'})
	  or die 'the replica does not stream';
	return;
}

# The replica goes, and the primary removes WAL that it needs.
sub lose_slot
{
	$replica->stop;
	$primary->safe_psql('postgres', q{ALTER SYSTEM SET max_slot_wal_keep_size = '16MB'; });
	$primary->reload;
	foreach (1 .. 20)
	{
		$primary->safe_psql('postgres', 'SELECT pg_switch_wal() FROM pg_logical_emit_message(false, $$$$, $$x$$)');
		$primary->safe_psql('postgres', 'CHECKPOINT');
		return if $primary->safe_psql('postgres', q{SELECT wal_status FROM replica_kit.status()}) eq 'lost';
	}
	die 'the slot is not lost';
}

# What stands in a row, without the alignment.
sub words
{
	my ($row) = @_;

	return $row =~ s/^-\[ RECORD.*\n//mr =~ s/\s*\+?$//mgr =~ s/^(\w*) *\|/$1|/mgr =~ s/: changed blocks, or a full clone/: a full clone/r =~ s/15\/main/VERSION/gr =~ s/\d\d\/main/VERSION/gr;
}

for my $i (0 .. $#blocks)
{
	my ($kind, $text) = @{ $blocks[$i] }{qw(kind text)};
	my $here = $text =~ s/10\.0\.0\.[15]/127.0.0.1/gr;
	my $next = $blocks[ $i + 1 ];
	my $shown = $next && $next->{kind} eq '' ? $next->{text} : '';

	if ($kind eq 'sql' || ($kind eq 'sql pg_cron' && $has_cron))
	{
		$output = run_sql($here);
		$password = $1 if $output =~ /^ replica1 .* (\w{32})$/m;
		is(columns($shown), columns($output), 'the output shown has the columns of the real one')
		  if $kind eq 'sql' && $shown =~ /^\s*\w+ +\| /;
	}
	elsif ($kind eq 'sql lost')
	{
		lose_slot();
		$output = run_sql($here);
		is(words($output), words($shown =~ s/10\.0\.0\.5/127.0.0.1/gr), 'it says what is shown');
		my ($command) = $output =~ /(sh join_replica1\.sh --cluster \S+ --rebuild) +does it/ or die 'no command';
		$primary->safe_psql('postgres', 'ALTER SYSTEM RESET max_slot_wal_keep_size');
		$primary->reload;
		run_commands($command);
	}
	elsif ($kind eq 'sh' && $here =~ /join_script\(/)
	{
		run_commands($here);
	}
	elsif ($kind eq 'sh' && $here =~ /assert_healthy/)
	{
		local %ENV = (%ENV, PGHOST => $primary->host, PGPORT => $primary->port, PGDATABASE => 'postgres');
		ok(run_log([ 'sh', '-ec', $here ]), 'a scheduler finds it healthy');
	}
}
is($primary->safe_psql('postgres', 'SELECT count(*) FROM replica_kit.status()'), '0',
	'after the last example nothing is left');

# ----------------------------------------------------------------------
# Nothing is left out
# ----------------------------------------------------------------------

my $objects = $primary->safe_psql('postgres', <<~'SQL');
	SELECT 'function ' || proname FROM pg_proc WHERE pronamespace = 'replica_kit'::regnamespace
	UNION ALL
	SELECT 'column ' || unnest(proargnames) FROM pg_proc WHERE pronamespace = 'replica_kit'::regnamespace
	UNION ALL
	SELECT 'column ' || attname FROM pg_attribute a JOIN pg_class c ON c.oid = attrelid
	 WHERE relnamespace = 'replica_kit'::regnamespace AND attnum > 0
	UNION ALL
	SELECT 'setting ' || name FROM pg_settings WHERE name LIKE 'replica\_kit.%'
	SQL
my $reference = slurp_file("$top/doc/reference.md");
my %seen;
for my $object (grep { !$seen{$_}++ } split /\n/, $objects)
{
	my ($name) = $object =~ / (.*)/;

	ok($reference =~ /`[^`\n]*\b\Q$name\E\b[^`\n]*`/, "doc/reference.md names the $object");
}

$replica->stop;
$primary->stop;

# ----------------------------------------------------------------------
# Links
# ----------------------------------------------------------------------

# An anchor as GitHub makes it of a heading.
sub anchors
{
	my ($text) = @_;
	my %anchors;

	$text =~ s/^```.*?^```$//msg;
	while ($text =~ /^#+ +(.*)$/mg)
	{
		my $anchor = lc $1;
		$anchor =~ s/[^\w\- ]//g;
		$anchor =~ s/ /-/g;
		$anchors{$anchor} = 1;
	}
	return \%anchors;
}

my @all = map { s/^\Q$top\E\///r } glob("$top/*.md $top/doc/*.md $top/src/*.md $top/src/*/*.md");
my %text = map { $_ => slurp_file("$top/$_") } @all;
my %linked = ('README.md' => 1);
foreach my $page (@all)
{
	my ($folder) = $page =~ /^(.*\/)?/;
	my @dead;

	while ($text{$page} =~ /\]\(([^)\s]+)\)/g)
	{
		my ($target, $anchor) = split /#/, $1;

		next if $target =~ /^https?:/;
		my $to = $target eq '' ? $page : ($folder // '') . $target;
		1 while $to =~ s/(^|\/)[^\/.]+\/\.\.\//$1/;
		push @dead, $1 if !-e "$top/$to" || (defined $anchor && !anchors($text{$to} // '')->{$anchor});
		$linked{$to} = 1 if $to ne $page;
	}
	is("@dead", '', "$page: no dead link");
}
is(join(' ', grep { !$linked{$_} } @all), '', 'a link leads to each page');

# The README's first screen ends with the limits.
my @screen = split /\n/, $text{"README.md"};
my ($limits) = grep { $screen[ $_ - 1 ] =~ /^Limits: / } 1 .. @screen;
cmp_ok($limits, '<=', 60, 'the first screen of the README has at most 60 lines');

# What a reader needs first: for whom the page is.
foreach my $page (grep { m!^doc/! } @all)
{
	like($text{$page}, qr/\A# .+\n\nFor \w/, "$page begins with its title and for whom it is");
}

# On which machine a block is to be run is seen on the page, too.
foreach my $page (@all)
{
	my @silent = grep { $_->{kind} =~ /^(?:sh|sql) .*on (\S+)$/ && $_->{text} !~ /^(?:#|--) on \Q$1\E$/m } blocks($text{$page});
	is(join("\n", map { $_->{text} } @silent), '', "$page: its blocks say where they are run");
}

# What psql shows fits on a terminal of 120 columns.
foreach my $page (@all)
{
	my @wide = grep { length > 120 } map { split /\n/, $_->{text} } grep { $_->{kind} eq '' && $_->{text} =~ /^-*\+-|^-\[ RECORD| +\| /m } blocks($text{$page});
	is(join("\n", @wide), '', "$page: psql's output is not wider than 120 columns");
}

# And so do commands.
foreach my $page (@all)
{
	my @wide = grep { length > 120 } map { split /\n/, $_->{text} } grep { $_->{kind} =~ /^(?:sh|sql|conf)\b/ } blocks($text{$page});
	is(join("\n", @wide), '', "$page: no command is wider than 120 columns");
}

# Drawings are of their sources.
foreach my $source (glob("$top/doc/drawings/*.dot"))
{
	my $drawing = $source =~ s/dot$/svg/r;
	my $sum = sha256_hex(slurp_file($source));
	like(slurp_file($drawing), qr/^<!-- source: \Q$sum\E -->$/m, "$drawing: drawn of its source, by make drawings");
}
done_testing();
