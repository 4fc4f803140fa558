# Whoever answers at the upstream's address: each question of the script gets
# each of a list of hostile answers, under several shells and in each mode.
# Nothing of it runs, nothing hangs, no password leaves, and exit code and words
# are the script's own.
#
# Each pair of question and answer is tried once, with shells and modes in turn:
# every other pair before PostgreSQL 17, the rest from then on, so that the
# oldest and the newest version together try all.  With PRK_LONG_TESTS=1 all
# combinations are.
use strict;
use warnings FATAL => 'all';

use FindBin;
use lib $FindBin::RealBin;

use File::Copy qw(copy);
use HostileUpstream;
use IPC::Run qw(start timer);
use JoinKit;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(time);

my $scratch = PostgreSQL::Test::Utils::tempdir;
my $canary = "$scratch/canary";
my $password = 'Sesame-open-4711';
my %env = (PGPASSWORD => $password);
my $limit = 120;

# ----------------------------------------------------------------------
# Shells, as sh and as what the script finds under that name
# ----------------------------------------------------------------------
my @shells;
foreach my $shell ([ 'dash', 'dash' ], [ 'bash', 'bash' ],
	[ 'ash', 'busybox', qw(awk cut find grep head sed tail timeout tr) ])
{
	my ($name, $program, @tools) = @$shell;
	my ($path) = grep { -x } map { "$_/$program" } split /:/, $ENV{PATH};
	next unless $path;
	mkdir "$scratch/$name" or die "mkdir: $!";
	foreach my $tool ('sh', @tools)
	{
		symlink $path, "$scratch/$name/$tool" or die "symlink: $!";
	}
	push @shells, $name;
}
is("@shells", 'dash bash ash', 'all shells are there');

# ----------------------------------------------------------------------
# An upstream, somebody before it, and what each mode works on
# ----------------------------------------------------------------------
my $upstream = new_upstream('upstream', 'max_wal_senders = 20',
	'wal_retrieve_retry_interval = 100ms');
my $has_delta = $upstream->pg_version >= 17;
if ($has_delta)
{
	$upstream->safe_psql('postgres', 'ALTER SYSTEM SET summarize_wal = on');
	$upstream->reload;
}
my $hostile = HostileUpstream->new('127.0.0.1', $upstream->port);

# The script of a replica, for the port where somebody else answers.
sub hostile_script
{
	my ($name) = @_;
	provision($upstream, $name, $password);
	return edit_script(write_script($upstream, $name),
		prk_port => $hostile->port);
}

# A copy of it with less patience: seconds by name.
sub hurried
{
	my ($file, %seconds) = @_;
	my $text = slurp($file);
	while (my ($name, $number) = each %seconds)
	{
		$text =~ s/^${name}_seconds=\d+$/${name}_seconds=$number/m;
	}
	my $copy = "$scratch/" . join('.', (split m!/!, $file)[-2], %seconds);
	open my $out, '>', $copy or die "open: $!";
	print $out $text;
	close $out;
	return $copy;
}

my %replica;
foreach my $name (qw(absent running stopped closed), $has_delta ? 'lost' : ())
{
	my $node = new_replica($name);
	my $script = hostile_script($name);
	my @args = ('--pgdata', $node->data_dir, '--port', $node->port);
	my @hurry = (connect => 2, answer => 3, stream => 2);
	$replica{$name} = {
		node => $node,
		script => $script,
		hurried => hurried($script, @hurry),
		impatient => hurried($script, @hurry, clone => 8),
		args => \@args };
	next if $name eq 'absent';
	my ($code) = run_script($script, \%env, @args,
		$name eq 'running' || $name eq 'lost' ? () : '--no-start');
	is($code, 0, "an honest upstream: replica \"$name\" is made");
	adopt_replica($node) if $name eq 'running' || $name eq 'lost';
	$node->stop if $name eq 'lost';
}
append_to_file($replica{closed}{node}->data_dir . '/postgresql.auto.conf',
	"hot_standby = off\n");
$replica{closed}{node}->start;

my %modes = (
	'join' => [ 'absent', '--no-start' ],
	'start' => ['absent'],
	'dry run' => [ 'absent', '--dry-run' ],
	'compress' => [ 'absent', '--dry-run', '--compress', 'lz4' ],
	'set password' => [ 'running', '--set-password' ],
	'again' => ['running'],
	'rebuild' => [ 'stopped', '--rebuild', '--no-start' ],
	'changed blocks' => [ 'lost', '--rebuild', '--dry-run' ],
	'no login' => ['closed']);

# Leaves things as the next case wants to find them.
sub tidy
{
	my ($mode) = @_;
	my $node = $replica{ $modes{$mode}[0] }{node};
	$hostile->be_hostile();
	if ($modes{$mode}[0] eq 'absent')
	{
		system('pg_ctl', '-s', '-D', $node->data_dir, '-m', 'immediate', 'stop')
		  if -e $node->data_dir . '/postmaster.pid';
		system('rm', '-rf', $node->data_dir,
			$node->data_dir . '.pg_replica_kit');
	}
	unlink $canary;
	return;
}

# ----------------------------------------------------------------------
# Questions, answers, and what may come of them
# ----------------------------------------------------------------------
my @early = ('join', 'dry run', 'set password', 'again', 'rebuild');
my @questions = (
	[ 'system identifier', 'identify', 1, @early ],
	[ 'position', 'identify', 3, 'set password', 'again', 'no login' ],
	[ 'position after a clone', 'identify', 3, 'start' ],
	[ 'version', 'version', 1, @early ],
	[ 'kind of slot', 'slot', 1, 'join', 'dry run', 'rebuild' ],
	[ 'position of slot', 'slot', 2, 'no login', 'join', 'dry run', 'rebuild' ],
	[ 'setting', 'setting', 1, 'join', 'rebuild' ]);

my @values = (
	[ 'quotes', q{x' "y} ],
	[ 'substitution', "\$(touch $canary)" ],
	[ 'backticks', "`touch $canary`" ],
	[ 'arithmetic', "a[\$(touch $canary)]" ],
	[ 'arithmetic in a position', "0/0+a[\$(touch $canary)]" ],
	[ 'SQL',
		"0/0', false) FROM pg_stat_wal_receiver r; COPY (SELECT 1) TO PROGRAM \$a\$touch $canary\$a\$; SELECT \$z\$, --"
	],
	[ 'a command of psql', "0/0\n\\! touch $canary" ],
	[ 'a newline', "0/1\n0/2" ],
	[ 'NUL', "x\0001" ],
	[ '1 MB', '9' x 1_000_000 ],
	[ '40 digits', '9' x 40 ],
	[ 'negative', '-1' ],
	[ 'hexadecimal', '0x7f' ],
	[ 'a position of 20 digits', 'FFFFFFFFFF/FFFFFFFFFF' ],
	[ 'empty', '' ],
	[ 'NULL', undef ],
	[ 'another encoding', "\xff\xfe\xe9/\xe9" ],
	[ 'control characters', "\e]0;x\a\e[2J0/1" ],
	[ 'a format', '%s%n%1000000d' ],
	[ 'a pattern', '*/*' ],
	[ 'an option', '-v/-v' ]);

my $words = "\e[2J\e]0;x\a \$(touch $canary) `touch $canary` ' \" \\\r\nsecond line\xff "
  . 'z' x 100_000;
my @acts = (
	[ 'no answer', 'silence' ],
	[ 'the end', 'close' ],
	[ 'hostile words', 'error', words => $words ],
	[ 'no row', 'no_rows' ],
	[ 'two rows', 'two_rows' ],
	[ 'endless rows', 'endless_rows' ],
	[ 'an endless row', 'endless_row' ],
	[ 'endless notices', 'endless_notices' ],
	[ 'endless copy', 'endless_copy' ],
	[ 'garbage', 'garbage' ]);

my @startup = (
	[ 'no answer', 'silence' ],
	[ 'the end', 'close' ],
	[ 'hostile words', 'error', words => $words ],
	[ 'endless notices', 'endless_notices' ],
	[ 'garbage', 'garbage' ],
	[ 'a wrong signature', 'signature' ],
	[ 'an hour of iterations', 'iterations' ],
	[ 'GSSAPI', 'gss' ]);

# Those that only a client that insists on SCRAM refuses.
my @weak = (
	[ 'a clear-text password', 'clear_text' ],
	[ 'MD5', 'md5' ],
	[ 'lets in', 'let_in', words => "a[\$(touch $canary)]" ]);

# try_case(QUESTION, ANSWER, SHELL, MODE, ITEM...): one line of the table
my ($tried, %verdicts) = (0);
sub try_case
{
	my ($question, $answer, $shell, $mode, @case) = @_;
	my ($name, @options) = @{ $modes{$mode} };
	my $what = "$question: $answer, $shell, $mode";
	my ($code, $out, $err, @wrong);

	$hostile->be_hostile(@case);
	my $began = time;
	{
		local $ENV{PATH} = "$scratch/$shell:$ENV{PATH}";
		my @args = @{ $replica{$name}{args} };
		@args = @args[ 0, 1 ] if $mode eq 'set password';
		($code, $out, $err) = run_bounded("$scratch/$shell/sh",
			$replica{$name}{ $case[0]{question} eq 'any_backup' ? 'impatient' : 'hurried' },
			@args, @options);
	}
	my $seconds = time - $began;
	my $asked = $hostile->asked;
	push @wrong, 'hangs' unless defined $code;
	push @wrong, 'a command ran' if -e $canary;
	# what the upstream has to say of compression decides nothing else, and
	# whether it has a kit that answers decides nothing
	push @wrong, "exit code $code"
	  if defined $code
	  && ($code > 16
		|| ($asked && $code == 0 && $mode ne 'compress' && $case[0]{question} ne 'answer'));
	push @wrong, 'the password left'
	  if $hostile->heard =~ /\Q$password\E/;
	push @wrong, 'foreign words'
	  if grep { !/^(?:\r?pg_replica_kit: |hint: |  )/ } split /\n/, $out . $err;
	push @wrong, 'control characters' if ($out . $err) =~ /[^\n\x20-\x7e]/;
	push @wrong, 'many words' if length($out . $err) > 10_000;
	push @wrong, 'the password is shown' if ($out . $err) =~ /\Q$password\E/;
	push @wrong, 'no error' if $code && $err !~ /^pg_replica_kit: error: /m;

	printf "| %s | %s | %s | %s | %s | %.1f s | %s |\n", $question, $answer,
	  $shell, $mode, $code // '-', $seconds,
	  @wrong ? join(', ', @wrong)
	  : !$asked ? 'not asked'
	  : $code ? 'refused'
	  : 'ignored';
	$tried++;
	if (@wrong)
	{
		fail($what);
		diag(join(', ', @wrong) . ": $what\n",
			join '', map { substr("  $_", 0, 300) . "\n" } grep { defined }
			  (split /\n/, $out . $err)[ 0 .. 9 ]);
	}
	$verdicts{$question} += $asked ? 1 : 0;
	tidy($mode);
	return $code;
}

# The script's end, or no exit code if it does not come.
sub run_bounded
{
	my (@command) = @_;
	my ($out, $err) = ('', '');
	local %ENV = (%ENV, %env, HOME => $scratch);
	delete @ENV{qw(PGHOST PGPORT PGDATABASE PGAPPNAME)};
	my $timer = timer($limit);
	# should it not be bounded in size: not all of this machine's memory
	my $run = start [ 'setsid', 'prlimit', '--as=4000000000', @command, risk() ], '<', \'', '>', \$out,
	  '2>', \$err, $timer;
	while ($run->pumpable && !$timer->is_expired) { $run->pump }
	if ($timer->is_expired)
	{
		$run->kill_kill;
		return (undef, $out, $err);
	}
	$run->finish;
	my $status = $run->full_result(0);
	return ($status & 127 ? 128 + ($status & 127) : $status >> 8, $out, $err);
}

# What is true of each combination is tried with all in turn, or all of them.
my ($next_pair, $next_shell, %next_mode) = (0, 0);
sub try_all
{
	my ($question, $answer, $modes, @case) = @_;
	my @combinations;
	if ($ENV{PRK_LONG_TESTS})
	{
		foreach my $shell (@shells)
		{
			push @combinations, map { [ $shell, $_ ] } @$modes;
		}
	}
	else
	{
		# shells and modes must not go in step
		my $turn = $next_mode{"@$modes"}++;
		@combinations = [
			$shells[ $next_shell++ % @shells ],
			$modes->[ ($turn + int($turn / @$modes)) % @$modes ] ];
		return if $next_pair++ % 2 == ($upstream->pg_version >= 17 ? 0 : 1);
	}
	try_case($question, $answer, @$_, @case) foreach @combinations;
	return;
}

print "| question | answer | shell | mode | exit code | time | |\n";

# What was possible once is tried where it was, whoever's turn it is.
my %value = map { $_->[0] => $_->[1] } @values;
try_case('version', 'arithmetic', 'bash', $_,
	{ question => 'version', column => 1, value => $value{arithmetic} })
  foreach ('dry run', 'set password');
try_case('position', 'SQL', $_, 'set password',
	{ question => 'identify', column => 3, value => $value{SQL} })
  foreach @shells;
try_case('position of slot', 'arithmetic in a position', 'bash', 'no login',
	{ question => 'slot', column => 2, value => $value{'arithmetic in a position'} });

foreach my $question (@questions)
{
	my ($name, $key, $column, @modes) = @$question;
	foreach my $value (@values)
	{
		my ($answer, $bytes) = @$value;
		# a slot that has lost its WAL, one that is not there
		next if !length($bytes // '') && $key eq 'slot';
		# behind a clone, which takes its time: some of them
		next
		  if !$ENV{PRK_LONG_TESTS}
		  && ($key eq 'setting' || $modes[0] eq 'start')
		  && $answer !~ /^(?:substitution|arithmetic|SQL|negative|NULL|1 MB)$/;
		try_all($name, $answer, \@modes,
			{ question => $key, column => $column, value => $bytes });
	}
}
foreach my $question (
	[ 'IDENTIFY_SYSTEM', 'identify', @early, 'no login' ],
	[ 'SHOW', 'version', @early ],
	[ 'SHOW of a setting', 'setting', 'join', 'rebuild' ],
	[ 'READ_REPLICATION_SLOT', 'slot', 'join', 'dry run', 'rebuild' ],
	[ 'START_REPLICATION', 'start', 'join', 'dry run', 'rebuild' ],
	[ 'BASE_BACKUP', 'any_backup', 'join', 'rebuild' ],
	[ 'BASE_BACKUP to no end', 'backup', 'compress' ])
{
	my ($name, $key, @modes) = @$question;
	foreach my $act (@acts)
	{
		my ($answer, $does, @more) = @$act;
		try_all($name, $answer, \@modes,
			{ question => $key, act => $does, @more });
	}
}
# The kit's answers: each is asked for only after the one before was good.
my @answers = (
	data_directory => 'data_directory|30000000|t|0',
	tablespaces => 'tablespaces|t',
	libraries => 'libraries|pg_replica_kit',
	settings => 'settings',
	collations => 'collations|2.36|72.1|libc en_US.UTF-8',
	slot => 'slot|t|f|reserved|',
	limits => 'limits|0/5000000|t||100000|0');
my @forms = (
	[ data_directory => 'data_directory|%s|t|0' ],
	[ data_directory => 'data_directory|5|t|1|%s' ],
	[ data_directory => 'data_directory|5|t|%s|' ],
	[ tablespaces => 'tablespaces|t|1 %s' ],
	[ tablespaces => 'tablespaces|t|1 /%s' ],
	[ tablespaces => 'tablespaces|t|%s /x' ],
	[ libraries => 'libraries|%s' ],
	[ libraries => 'libraries|%%24(touch%%20%s)' ],
	[ settings => 'settings|%s' ],
	[ settings => 'settings|listen_addresses auto - %s' ],
	[ settings => 'settings|ssl_key_file auto out %s' ],
	[ settings => 'settings|include main out %s' ],
	[ settings => 'settings|lc_messages auto - %s' ],
	[ settings => 'settings|huge_pages auto - on|shared_memory_size_in_huge_pages - - %s' ],
	[ settings => 'settings|unix_socket_directories auto - %s' ],
	[ collations => 'collations|%s|%1$s|libc %1$s' ],
	[ slot => 'slot|%s|f|reserved|' ],
	[ slot => 'slot|t|f|%s|%1$s' ],
	[ limits => 'limits|%s|t||1|0' ],
	[ limits => 'limits|0/5000000|t|%s|1|0' ],
	[ limits => 'limits|0/5000000|t||%s|%1$s' ],
	[ limits => 'limits|0/5000000|t||1|1|%s' ],
	[ limits => 'limits|0/5000000|t||1|2|1663 5 16400 0 0|1663 5 %s 0 0' ],
	[ limits => 'limits|0/5000000|t||1|1|1663 5 16400 0 0 1 %s' ]);
my $next_value = 0;
foreach my $form (@forms, $ENV{PRK_LONG_TESTS} ? (@forms) x $#values : ())
{
	my ($question, $format) = @$form;
	next if $question eq 'limits' && !$has_delta;
	my $value = $values[ $next_value++ % @values ];
	no warnings 'redundant';
	try_all("answer to $question", $value->[0], [ $question eq 'limits' ? 'changed blocks' : 'dry run' ],
		map { { question => 'answer', asks => $answers[ 2 * $_ ], act => 'say',
				words => $answers[ 2 * $_ ] eq $question
				  ? sprintf($format, $value->[1] // '') : $answers[ 2 * $_ + 1 ] } }
		  0 .. $#answers / 2);
}
foreach my $act (@acts)
{
	my ($answer, $does, @more) = @$act;
	try_all('SHOW of an answer', $answer, ['dry run'],
		{ question => 'answer', act => $does, @more });
}
# and one that is believed and runs nothing
try_case('answer to settings', $_->[0], $shells[1], 'dry run',
	map { { question => 'answer', asks => $answers[ 2 * $_ ], act => 'say',
			words => $answers[ 2 * $_ ] eq 'settings'
			  ? "settings|listen_addresses auto - a[\$(touch $canary)]|lc_time auto - \$(touch $canary)" : $answers[ 2 * $_ + 1 ] } }
	  0 .. $#answers / 2) foreach [ 'a command', '' ];
foreach my $act (@acts)
{
	my ($answer, $does, @more) = @$act;
	my @missing = map { { question => 'slot', column => $_, value => undef } } 1, 2;
	next if $does eq 'no_rows';
	try_all('CREATE_REPLICATION_SLOT', $answer, ['rebuild'],
		$missing[0], { question => 'create', act => $does, @more });
	try_all('DROP_REPLICATION_SLOT', $answer, [ 'join', 'rebuild' ],
		$missing[1], { question => 'drop', act => $does, @more });
}
foreach my $act (@startup)
{
	my ($answer, $does, @more) = @$act;
	try_all('startup', $answer, \@early,
		{ question => 'startup', act => $does, @more });
}
foreach my $act (@weak)
{
	my ($answer, $does, @more) = @$act;
	local $JoinKit::allow_risk = 0;
	foreach my $mode (@early)
	{
		try_all('startup', $answer, [$mode],
			{ question => 'startup', act => $does, @more });
	}
}
print "| $tried tried |\n";
foreach my $question (sort keys %verdicts)
{
	ok($verdicts{$question}, "$question is asked, and no answer does harm");
}

# After all that, an honest upstream is still enough.
foreach my $mode ('set password', 'again', 'dry run')
{
	my ($name, @options) = @{ $modes{$mode} };
	my @args = @{ $replica{$name}{args} };
	@args = @args[ 0, 1 ] if $mode eq 'set password';
	my ($code) = run_script($replica{$name}{script}, \%env, @args, @options);
	is($code, 0, "an honest upstream, $mode: exit code 0");
}

$replica{running}{node}->stop;
$replica{closed}{node}->stop;
$hostile->stop;
$upstream->stop;
done_testing();
