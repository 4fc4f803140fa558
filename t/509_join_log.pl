# What the script says of a server that fails: the server's own words, since it
# was started, wherever it writes them and in whatever language; and words of
# its own where a program stands still.
use strict;
use warnings FATAL => 'all';
use utf8;

use FindBin;
use lib $FindBin::RealBin;

use File::Temp qw(tempdir);
use JoinKit;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $old = 'FATAL:  requested WAL segment 00000001000000000000000A has already been removed';
my $upstream = new_upstream('upstream', 'logging_collector = on',
	"log_filename = 'server.log'");
provision($upstream, 'replica1', 'secret-word-1');
append_to_file($upstream->data_dir . '/log/old.log', "$old\n");
my $script = write_script($upstream, 'replica1');
my $replica = new_replica('replica');
my $pgdata = $replica->data_dir;
my $state = "$pgdata.pg_replica_kit";
my @where = ('--pgdata', $pgdata, '--port', $replica->port);
my ($code, $out, $err);

sub join_it
{
	my ($what, $expected, $file, @more) = @_;
	($code, $out, $err) =
	  run_script($file, { PGPASSWORD => 'secret-word-1' }, @where, @more);
	is($code, $expected, "$what: exit code $expected");
	return;
}

# A copy of the script that waits for so many seconds.
sub impatient
{
	my (%seconds) = @_;
	my $text = slurp($script);
	foreach my $what (keys %seconds)
	{
		$text =~ s/^${what}_seconds=\d+$/${what}_seconds=$seconds{$what}/m
		  or die "no ${what}_seconds";
	}
	my $copy = tempdir(CLEANUP => 1) . '/join.sh';
	append_to_file($copy, $text);
	return $copy;
}

# ----------------------------------------------------------------------
# The upstream's log is none of the replica's
# ----------------------------------------------------------------------
# With su as the last way to become the server's user, setsid goes into the
# background and ends at once: that is not the end of the clone.
my $tools = tempdir(CLEANUP => 1);
append_to_file("$tools/setsid", "#!/bin/sh\nexec /usr/bin/setsid --fork \"\$\@\"\n");
chmod 0755, $tools, "$tools/setsid";
join_it('a clone', 0, $script, '--no-start', '--verify',
	run_by => [ 'env', "PATH=$tools:$ENV{PATH}" ]);
like($out, qr/^pg_replica_kit: the clone is verified$/m,
	'a clone: --verify has read it');
is_deeply([ glob "$pgdata/log/*" ], [], 'a clone: it begins with an empty log');

# ----------------------------------------------------------------------
# Each destination
# ----------------------------------------------------------------------
my $auto = slurp("$pgdata/postgresql.auto.conf");
my %file = (stderr => 'server.log', csvlog => 'server.csv', jsonlog => 'server.json');
foreach my $destination (sort keys %file)
{
	my $conf = "$pgdata/postgresql.auto.conf";
	unlink $conf or die "unlink: $!";
	append_to_file($conf,
		$auto . "log_destination = '$destination'\nmax_wal_senders = 2\n");
	# What an earlier server has left there.
	append_to_file("$pgdata/log/$file{$destination}",
		  $destination eq 'csvlog'  ? qq{2020-01-01 00:00:00.000 UTC,,,1,,1,1,,,,,FATAL,58P01,"$old",,,,,,,,,"",""\n}
		: $destination eq 'jsonlog' ? qq({"timestamp":"2020-01-01 00:00:00.000 UTC","pid":1,"error_severity":"FATAL","message":"$old"}\n)
		:                             "$old\n");
	join_it($destination, 12, $script);
	like($err, qr/^  .* FATAL: .*insufficient parameter settings$/m,
		"$destination: the failure is shown");
	like($err, qr/DETAIL:  max_wal_senders = 2 is a lower setting/m,
		"$destination: and its detail");
	like($err, qr/^hint: Raise the setting/m, "$destination: and explained");
	unlike($err, qr/already been removed/,
		"$destination: what is older than our start is not its word");
	unlink "$pgdata/log/$file{$destination}" or die "unlink: $!";
}

# ----------------------------------------------------------------------
# In another language; and where the script cannot read
# ----------------------------------------------------------------------
SKIP:
{
	skip 'no messages in German here', 3
	  unless glob('/usr/share/locale/de/LC_MESSAGES/postgres-*.mo');
	unlink "$pgdata/postgresql.auto.conf" or die "unlink: $!";
	append_to_file("$pgdata/postgresql.auto.conf",
		$auto . "lc_messages = 'de_DE.UTF-8'\n");
	$upstream->append_conf('postgresql.conf', "lc_messages = 'de_DE.UTF-8'");
	$upstream->reload;
	$upstream->safe_psql('postgres', "SELECT pg_drop_replication_slot('replica1')");
	system_or_bail('pg_ctl', '-s', '-w', '-D', $pgdata, '-l', $replica->logfile, 'start');
	adopt_replica($replica);
	join_it('German', 13, impatient(stream => 10));
	utf8::decode($err);
	like($err, qr/^  .*»replica1« existiert nicht/m,
		'German: the words are shown as they are');
	like($err, qr/^hint: Replication slot "replica1" does not exist: .*--rebuild/m,
		'German: and explained by the upstream');
	$replica->stop;
	$upstream->append_conf('postgresql.conf', "lc_messages = 'C'");
	$upstream->reload;
	$upstream->safe_psql('postgres',
		"SELECT pg_create_physical_replication_slot('replica1', true)");
}
unlink "$pgdata/postgresql.auto.conf" or die "unlink: $!";
append_to_file("$pgdata/postgresql.auto.conf",
	$auto . "log_destination = syslog\nsyslog_ident = thisone\nmax_wal_senders = 2\n");
join_it('syslog', 12, $script);
like($err, qr/the server logs to syslog, as "thisone"/,
	'syslog: it says that it cannot read that');
system('rm', '-rf', $pgdata, $state);

# ----------------------------------------------------------------------
# Programs that stand still, each in turn
# ----------------------------------------------------------------------
my ($bin) = `pg_config --bindir` =~ /(.*)/;
foreach my $case (
	[ 'psql', 1, qr/program "psql" did not end within 5 seconds/ ],
	[ 'pg_basebackup', 11, qr/has sent nothing for 5 seconds/ ],
	[ 'pg_verifybackup', 11, qr/pg_verifybackup .* done nothing for 10 seconds/ ],
	[ 'mv', 8, qr/could not write/ ],
	[ 'rm', 1, qr/could not make a temporary file/ ],
	[ 'mkdir', 8, qr/could not make directory/ ],
	[ 'pg_ctl', 12, qr/the replica's server did not start/ ])
{
	my ($program, $expected, $words) = @$case;
	my $dir = tempdir(CLEANUP => 1);
	foreach my $file (glob "$bin/*")
	{
		my ($name) = $file =~ m!([^/]+)$!;
		symlink $file, "$dir/$name" if $name ne $program;
	}
	append_to_file("$dir/$program", "#!/bin/sh\nkill -STOP \$\$\n");
	chmod 0755, $dir, "$dir/$program";
	local $ENV{PATH} = "$dir:$ENV{PATH}";
	join_it("$program stands still",
		$expected,
		impatient(
			answer => $program eq 'psql' ? 5 : 20,
			clone => $program eq 'pg_basebackup' ? 5 : $program eq 'pg_verifybackup' ? 10 : 600,
			program => $program eq 'psql' ? 5 : 30,
			work => $program =~ /^(mv|rm|mkdir)$/ ? 4 : 3600,
			start => 1),
		'--verify');
	like($err, $words, "$program stands still: the script says so");
	ok(eventually(sub { `pgrep -f '^/bin/sh $dir'` eq '' }), "$program stands still: nothing is left of it");
	next if $program eq 'pg_ctl';
	ok(!-e "$pgdata/global/pg_control", "$program stands still: and nothing of a clone");
}
join_it('everything runs', 0, $script);
adopt_replica($replica);

# ----------------------------------------------------------------------
$replica->stop;
$upstream->stop;
done_testing();
