# A rewind where not all is in a plain data directory: a WAL directory and a
# tablespace of their own, TLS, a Debian cluster.  What it overwrites is kept,
# and with that the data of before can be put together; where it cannot be done,
# or is cut off, no server gets what is half done.
use strict;
use warnings FATAL => 'all';

use FindBin;
use lib $FindBin::RealBin;

use File::Temp qw(tempdir);
use JoinKit;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $scratch = tempdir(CLEANUP => 1);
my $location = "$scratch/table space";
my $primary = new_upstream(
	'primary', 'wal_log_hints = on', 'autovacuum = off', 'wal_retrieve_retry_interval = 100ms',
	'wal_keep_size = 64MB', 'checkpoint_timeout = 1h');
enable_tls($primary);
system_or_bail('cp', $primary->data_dir . '/server.crt', "$scratch/root.crt");
provision($primary, 'replica1', 'secret-word-1');
my $replica = new_replica('replica');
my $pgdata = $replica->data_dir;
my $state = "$pgdata.pg_replica_kit";
my $wal = $replica->basedir . '/wal';
my ($code, $out, $err);

# The replica's tablespace lies where the primary's does: in a mount namespace of
# its own, which somebody has to keep.
my @inside = ();
my $keeper;
if (system("unshare -U -c --keep-caps -m true 2>/dev/null") == 0)
{
	mkdir $location or die "mkdir: $!";
	$keeper = IPC::Run::start(
		[ 'unshare', '-U', '-c', '--keep-caps', '-m', 'sh', '-c',
			'mount -t tmpfs none "$1" && echo there && exec cat', 'sh', $location ],
		'<pipe', \*KEEPER, '>', \my $there, '2>&1');
	$keeper->pump until ($there // '') =~ /there/;
	@inside = ('nsenter', '--preserve-credentials', '-U', '-m', '-t', $keeper->{KIDS}[0]{PID});
	$primary->safe_psql('postgres', "CREATE TABLESPACE ts LOCATION '$location'");
}
my $space = @inside ? 'TABLESPACE ts' : '';
$primary->safe_psql('postgres', $_) foreach (
	"CREATE TABLE changed $space AS SELECT g AS id, repeat('x', 500) AS words FROM generate_series(1, 3000) g",
	'CREATE TABLE grown AS SELECT * FROM changed', 'CREATE TABLE grown_there AS SELECT * FROM changed',
	'CREATE TABLE dropped AS SELECT * FROM changed', 'CHECKPOINT');
my $script = write_script($primary, 'replica1');

sub join_it
{
	my ($what, $expected, $env, $file, @args) = @_;
	($code, $out, $err) = run_script($file, $env, '--pgdata', $pgdata, @args,
		@inside ? (run_by => [@inside]) : ());
	is($code, $expected, "$what: exit code $expected");
	return;
}

# Fork: the replica is promoted; each side goes its way, and it stops.
sub part
{
	my (@statements) = @_;
	$primary->safe_psql('postgres', 'CHECKPOINT');
	$primary->wait_for_catchup('replica1');
	$replica->promote;
	$replica->safe_psql('postgres', $_) foreach @statements;
	$replica->stop;
	return;
}

sub allow
{
	my ($duration) = @_;
	$primary->safe_psql('postgres', "SELECT replica_kit.allow_rewind('replica1', '@{[$duration // '1 hour']}')");
	return;
}

# The files of the server's own, by name, with their contents' sums.
sub contents
{
	my ($dir) = @_;
	my %sum;
	my ($list) = run_command([ @inside, 'sh', '-c',
		'cd "$1" && find -L base global pg_xact pg_multixact pg_tblspc -type f ! -name "pg_internal.init*" -exec md5sum {} +',
		'sh', $dir ]);
	foreach my $line (split /\n/, $list)
	{
		my ($sum, $name) = split ' ', $line, 2;
		$sum{$name} = $sum;
	}
	return %sum;
}

# ----------------------------------------------------------------------
# A replica that is promoted by mistake
# ----------------------------------------------------------------------
my %env = (PGPASSWORD => 'secret-word-1', PGSSLMODE => 'verify-full', PGSSLROOTCERT => "$scratch/root.crt");
join_it('a replica', 0, \%env, $script, '--port', $replica->port, '--waldir', $wal);
adopt_replica($replica);
mkdir "$pgdata/pg_own" or die "mkdir: $!";
append_to_file("$pgdata/pg_own/own.conf", "log_min_duration_statement = 4711\n");
append_to_file("$pgdata/postgresql.conf", "include = 'pg_own/own.conf'\n");
append_to_file("$pgdata/pg_hba.conf", "# the replica's own\n");
{
	my $conf = slurp("$pgdata/postgresql.auto.conf");
	$conf =~ s/^(primary_conninfo = '.*)'$/$1 keepalives_idle=77'/m or die 'no primary_conninfo';
	open my $fh, '>', "$pgdata/postgresql.auto.conf" or die "open: $!";
	print $fh $conf;
}
my ($conninfo) = slurp("$pgdata/postgresql.auto.conf") =~ /^(primary_conninfo = .*)$/m;
like($conninfo, qr/sslmode=''verify-full''.*keepalives_idle=77/, 'its connection verifies the primary, and has something of its own');
my %own = map { $_ => slurp("$pgdata/$_") } qw(postgresql.conf pg_hba.conf pg_own/own.conf);
my ($rc, undef, $refusal) = $replica->psql('postgres', q{SELECT replica_kit.allow_rewind('replica1', '1 hour')});
like($refusal, qr/cannot execute replica_kit\.allow_rewind\(\) (?:during recovery|in a read-only transaction)/, 'allow_rewind() on a standby: refused');

part(
	'UPDATE changed SET words = upper(words) WHERE id % 700 = 0',
	'INSERT INTO grown SELECT * FROM changed', 'DROP TABLE dropped',
	'CREATE TABLE only_here AS SELECT * FROM changed', 'UPDATE grown_there SET words = NULL WHERE id = 5');
$primary->safe_psql('postgres', $_) foreach (
	'INSERT INTO grown_there SELECT * FROM changed', 'CREATE TABLE only_there AS SELECT 1 AS g', 'DELETE FROM changed WHERE id = 9');

# Without the right, or when its time is over
allow('1 second');
ok($primary->poll_query_until('postgres', q{SELECT rolvaliduntil < clock_timestamp() FROM pg_roles WHERE rolname = 'replica1_rewind'}), 'the time passes');
my @rebuild = ('--rebuild', '--discard-diverged');
join_it('the time is over', 0, {}, $script, @rebuild, '--dry-run');
like($out, qr/^pg_replica_kit: not by rewind: role "replica1_rewind" may not read files on the upstream; .* run there, in database "postgres": SELECT replica_kit\.allow_rewind\('replica1', '1 hour'\);$/m,
	'the time is over: the statement that gives the right');
like($out, qr/^pg_replica_kit: step: full clone$/m, 'the time is over: it would be a clone');

# A program that stands still, one that is refused before it has begun, no room: a
# clone, for which there is no room in these runs, would be next; nothing is lost.
my $no_room = edit_script($script, prk_data_size => '999999999999999');
my $bindir = `pg_config --bindir` =~ s/\n//r;
my $programs = tempdir(CLEANUP => 1);
symlink $_, $programs . '/' . s!.*/!!r for grep { !/pg_rewind$/ } glob "$bindir/*";
unlink "$programs/postgres";
system_or_bail('cp', "$bindir/postgres", "$programs/postgres");
sub fake_rewind
{
	my ($body) = @_;
	unlink "$programs/pg_rewind";
	append_to_file("$programs/pg_rewind", "#!/bin/sh\n[ \"\$1\" != --version ] || exit 0\n$body");
	chmod 0755, $programs, "$programs/pg_rewind" or die "chmod: $!";
	return;
}
my $plan_only = "case \" \$* \" in *' -n '*) exec '$bindir/pg_rewind' \"\$@\" ;; esac\n";
foreach my $case (
	[ 'a plan without end', "kill -STOP \$\$\n", qr/pg_rewind did not end within 8 seconds/ ],
	[ 'a rewind that stands still', "${plan_only}kill -STOP \$\$\n", qr/pg_rewind has done nothing for 8 seconds/ ],
	[ 'a rewind that is refused', "${plan_only}echo 'pg_rewind: error: no connection' >&2; exit 1\n", qr/no connection/ ],
	[ 'no room', "exec '$bindir/pg_rewind' \"\$@\"\n", qr/not enough disk space: it needs \d+ MB in "\Q$pgdata\E", there are 1 MB/ ])
{
	my ($what, $body, $words) = @$case;
	fake_rewind($body);
	allow();
	if ($what eq 'no room')
	{
		append_to_file("$programs/df", "#!/bin/sh\necho head\necho 'none 1 1 1024 1% /'\n");
		chmod 0755, "$programs/df";
	}
	my $impatient = "$programs/join.sh";
	unlink $impatient;
	append_to_file($impatient, slurp($no_room) =~ s/^clone_seconds=\d+$/clone_seconds=8/mr);
	join_it($what, 9, { PATH => "$programs:$ENV{PATH}" }, $impatient, @rebuild);
	like($out, qr/^pg_replica_kit: not by rewind: $words/m, "$what: it says why");
	ok(!-e "$state/rewinding" && slurp("$pgdata/PG_VERSION") =~ /^\d+$/, "$what: the data is as before");
	is(join(' ', glob "$state/diverged/*"), '', "$what: no copy is left");
	ok(eventually(sub { `pgrep -f '^/bin/sh $programs/pg_rewind'` eq '' }), "$what: nothing runs on");
	unlink "$programs/df";
}

# The right is there: it is rewound, and what it has overwritten is kept.
my %before = contents($pgdata);
my $size_of_wal = -s "$pgdata/pg_wal";
allow();
join_it('promoted', 0, {}, $script, @rebuild, '--no-start');
my ($kept) = $out =~ /are kept in (\S+)$/m;
like($out, qr/the replica is ready/, 'promoted: it is rewound');
my %after = contents($pgdata);
cmp_ok(scalar(grep { ($after{$_} // '') ne $before{$_} } keys %before), '>', 20, 'promoted: many files are others now');
is((slurp("$pgdata/postgresql.auto.conf") =~ /^(primary_conninfo = .*)$/m)[0], $conninfo, 'promoted: the connection is as before');
is(slurp("$pgdata/$_"), $own{$_}, "promoted: $_ is as before") foreach sort keys %own;
is(readlink("$pgdata/pg_wal"), $wal, 'promoted: the WAL lies where it did');

# The old data, put together in a copy.
my $undone = "$scratch/undone";
system_or_bail(@inside, 'sh', '-c', 'cp -aL "$1" "$2" && cd "$3/data" && find base global pg_xact pg_multixact pg_tblspc -type f 2>/dev/null >"$2.files";
	while read -r file; do mkdir -p "$2/$(dirname "$file")" && cp -p "$file" "$2/$file"; done <"$2.files"', 'sh', $pgdata, $undone, $kept);
my ($file, %blocks);
foreach my $line (split /\n/, slurp("$kept/plan"))
{
	push @{ $blocks{$file} }, $1 if $line =~ /^pg_rewind: block (\d+)$/;
	$file = $1 if $line =~ /^pg_rewind: (.*) \([A-Z_]+\)$/;
	unlink "$undone/$1" if $line =~ /^pg_rewind: (.*) \(COPY\)$/ && !-e "$kept/data/$1";
}
cmp_ok(scalar(map { @$_ } values %blocks), '>', 5, 'promoted: blocks were overwritten');
foreach my $name (split /\n/, `cd '$kept/blocks' && find * -type f`)
{
	open my $from, '<:raw', "$kept/blocks/$name" or die "open: $!";
	open my $to, '+<:raw', "$undone/$name" or die "open: $!";
	foreach my $block (@{ $blocks{$name} // [] })
	{
		seek $from, $block * 8192, 0;
		seek $to, $block * 8192, 0;
		is(read($from, my $bytes, 8192), 8192, "promoted: block $block of $name is kept") or last;
		print $to $bytes;
	}
	close $to;
	truncate "$undone/$name", -s "$kept/blocks/$name" or die "truncate: $!";
}
my %undone = contents($undone);
is(join(' ', grep { ($undone{$_} // '') ne ($before{$_} // '') } sort keys %{ { %undone, %before } }), '',
	'promoted: with what is kept, the old data can be put together');

join_it('promoted, to run', 0, {}, $script);
adopt_replica($replica);
sub is_streaming
{
	my ($what) = @_;
	$primary->wait_for_catchup('replica1');
	is($replica->safe_psql('postgres', q{SELECT pg_is_in_recovery(), to_regclass('only_here') IS NULL, to_regclass('only_there') IS NOT NULL,
		(SELECT count(*) FROM changed), current_setting('log_min_duration_statement'), current_setting('port')}),
		't|t|t|2999|4711ms|' . $replica->port, "$what: a standby of the primary, with its own settings");
	is($primary->safe_psql('postgres', q{SELECT ssl, slot_name FROM pg_stat_ssl JOIN pg_stat_replication USING (pid)
		JOIN pg_replication_slots ON active_pid = pid}), 't|replica1', "$what: over TLS, through its slot");
	return;
}
is_streaming('promoted');

# ----------------------------------------------------------------------
# Killed in its midst: the upstream's configuration is there already, and
# pg_rewind runs on
# ----------------------------------------------------------------------
part('CREATE TABLE only_here AS SELECT 1');
allow();
fake_rewind("$plan_only'$bindir/pg_rewind' \"\$@\"\n: >'$programs/done'\nkill -STOP \$\$\n");
$primary->append_conf('postgresql.conf', 'log_min_duration_statement = 1234');
{
	local @JoinKit::shell = (@inside, 'dash');
	my $run = IPC::Run::start([ 'setsid', 'env', "PATH=$programs:$ENV{PATH}", @JoinKit::shell, $script, risk(), '--pgdata', $pgdata, @rebuild ],
		'<', \'', '>', \my $words, '2>&1');
	ok(eventually(sub { $run->pump_nb; -e "$programs/done" }), 'a rewind is under way');
	my ($killed) = split /\n/, `pgrep -f '^dash $script '`;
	kill 'KILL', $killed;
	$run->kill_kill;
}
isnt(slurp("$pgdata/postgresql.conf"), $own{'postgresql.conf'}, 'killed: the configuration is the upstream\'s');
foreach my $args ([], [ '--no-start' ], [ '--follow', '127.0.0.1:' . $primary->port ])
{
	join_it("killed, @$args", 8, {}, $script, @$args);
	like($err, qr/a rewind of "\Q$pgdata\E" was interrupted, and no server can use that data.*^hint: .*--rebuild/ms, "killed, @$args: it says so");
}
isnt(system("$bindir/pg_ctl", '-D', $pgdata, '-s', '-w', '-t', '5', '-l', "$programs/log", 'start'), 0, 'killed: no server starts with that data');
join_it('killed, --rebuild', 0, {}, $script, '--rebuild', '--remove-old');
like($out, qr/^pg_replica_kit: ending the pg_rewind \(pid \d+\) of an interrupted run$/m, 'killed, --rebuild: what runs on is ended');
like($out, qr/an earlier rewind was interrupted.*^pg_replica_kit: cloning /ms, 'killed, --rebuild: everything is cloned');
ok(eventually(sub { `pgrep -f '^/bin/sh $programs/pg_rewind'` eq '' }), 'killed, --rebuild: nothing runs on');
adopt_replica($replica);
is($replica->safe_psql('postgres', 'SHOW port'), $replica->port, 'killed, --rebuild: at its own port');
like(slurp("$pgdata/postgresql.auto.conf"), qr/^primary_conninfo = .*passfile=''\Q$state\E\/passfile''.*sslmode=''verify-full''/m,
	'killed, --rebuild: with its own connection');

# ----------------------------------------------------------------------
# A Debian cluster
# ----------------------------------------------------------------------
my ($major) = `pg_config --version` =~ /(\d+)/;
my $cluster = "regress_prk_531_$$";
SKIP:
{
	skip 'no Debian clusters can be made here', 9
	  if system('pg_lsclusters -h >/dev/null 2>&1') != 0
	  || grep { my $parent = s!/[^/]*$!!r; !(-d $_ ? -w $_ : -w $parent) } "/etc/postgresql/$major", "/var/lib/postgresql/$major";
	$primary->safe_psql('postgres', 'DROP TABLE changed; DROP TABLE IF EXISTS late');
	$primary->safe_psql('postgres', 'DROP TABLESPACE ts') if @inside;
	provision($primary, 'replica2', 'secret-word-2');
	my $script2 = write_script($primary, 'replica2');
	my $port = PostgreSQL::Test::Cluster::get_free_port();
	my $data = "/var/lib/postgresql/$major/$cluster";
	my @cluster = ('--cluster', "$major/$cluster");
	($code, $out, $err) = run_script($script2, { PGPASSWORD => 'secret-word-2' }, @cluster, '--port', $port);
	is($code, 0, 'a cluster: made');
	append_to_file("/etc/postgresql/$major/$cluster/conf.d/own.conf", "work_mem = '7MB'\nwal_log_hints = on\n");
	system_or_bail('pg_ctlcluster', $major, $cluster, 'restart');
	chomp(my $socket = `pg_conftool -s $major $cluster show unix_socket_directories`);
	my $sql = "psql -XAt -h $socket -p $port -d postgres -c";
	$primary->safe_psql('postgres', 'CHECKPOINT');
	$primary->wait_for_catchup('replica2');
	system_or_bail('pg_ctlcluster', $major, $cluster, 'promote');
	ok(eventually(sub { `$sql 'SELECT pg_is_in_recovery()'` eq "f\n" }), 'a cluster: promoted');
	system_or_bail('sh', '-c', "$sql 'CREATE TABLE only_here AS SELECT 1' >/dev/null");
	system_or_bail('pg_ctlcluster', $major, $cluster, 'stop');
	my $etc = tree("/etc/postgresql/$major/$cluster");
	my $auto = slurp("$data/postgresql.auto.conf");
	my $unused = slurp("$data/postgresql.conf");
	$primary->append_conf('postgresql.conf', '# what comes along');
	$primary->safe_psql('postgres', q{SELECT replica_kit.allow_rewind('replica2', '1 hour')});
	($code, $out, $err) = run_script($script2, {}, @cluster, @rebuild);
	is($code, 0, 'a cluster, promoted by mistake: exit code 0');
	like($out, qr/it was rewound, nothing has been cloned/, 'a cluster, promoted by mistake: it was rewound');
	is(tree("/etc/postgresql/$major/$cluster"), $etc, 'a cluster: its configuration is untouched');
	is(join("\n", sort split /\n/, slurp("$data/postgresql.auto.conf")), join("\n", sort split /\n/, $auto), 'a cluster: so is postgresql.auto.conf');
	is(slurp("$data/postgresql.conf"), $unused, 'a cluster: nothing of the upstream\'s has come along');
	is(`$sql "SELECT pg_is_in_recovery(), to_regclass('only_here') IS NULL, current_setting('work_mem'), slot_name FROM pg_stat_wal_receiver"`,
		"t|t|7MB|replica2\n", 'a cluster: it streams through its slot, with its own settings');
	is((split ' ', `pg_lsclusters -h | grep ' $cluster '`)[2], $port, 'a cluster: at its port');
	system("pg_dropcluster --stop $major $cluster >/dev/null 2>&1");
	$primary->safe_psql('postgres', q{SELECT replica_kit.deprovision('replica2', force => true)});
}

# ----------------------------------------------------------------------
# A former primary without commits after the fork
# ----------------------------------------------------------------------
$primary->wait_for_catchup('replica1');
$replica->promote;
$primary->safe_psql('postgres', 'CHECKPOINT');
$primary->stop;
$replica->safe_psql('postgres', q{SELECT replica_kit.provision('old1', '127.0.0.1', password => 'secret-of-old1');
	SELECT replica_kit.allow_rewind('old1', '1 hour')});
($code, $out, $err) = run_script(write_script($replica, 'old1'),
	{ PGPASSWORD => 'secret-of-old1', PGSSLMODE => 'verify-full', PGSSLROOTCERT => "$scratch/root.crt" },
	'--pgdata', $primary->data_dir, '--demote');
is($code, 0, 'a former primary without commits: no option has to give them up');
like($out, qr/it was rewound, nothing has been cloned/, 'a former primary without commits: it was rewound');
adopt_replica($primary);
$replica->wait_for_catchup('old1');
is($primary->safe_psql('postgres', 'SELECT pg_is_in_recovery(), ssl_in_use FROM (SELECT conninfo ~ \'verify-full\' AS ssl_in_use FROM pg_stat_wal_receiver) w'),
	't|t', 'a former primary without commits: a standby, over TLS');

$primary->stop;
$replica->stop;
if ($keeper)
{
	close KEEPER;
	$keeper->finish;
}
END
{
	my $status = $?;
	system("pg_dropcluster --stop $major $cluster >/dev/null 2>&1; rm -rf '/var/lib/postgresql/$major/$cluster.pg_replica_kit'") if $cluster;
	$? = $status;
}
done_testing();
