# The script on a Debian cluster: configuration in /etc/postgresql, started
# by pg_ctlcluster.
use strict;
use warnings FATAL => 'all';

use FindBin;
use lib $FindBin::RealBin;

use JoinKit;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my ($major) = `pg_config --version` =~ /(\d+)/;
my $name = "regress_prk_$$";

plan skip_all => 'postgresql-common is not installed'
  if system('pg_lsclusters -h >/dev/null 2>&1') != 0;
foreach my $dir ("/etc/postgresql/$major", "/var/lib/postgresql/$major")
{
	my $parent = $dir =~ s!/[^/]*$!!r;
	plan skip_all => "$dir cannot be written to"
	  unless -d $dir ? -w $dir : -w $parent;
}

my @made;

# Whatever happens, no cluster of ours stays.
sub drop_clusters
{
	foreach my $cluster (@made)
	{
		system("pg_dropcluster --stop $major $cluster >/dev/null 2>&1");
		system('rm', '-rf',
			"/var/lib/postgresql/$major/$cluster.pg_replica_kit");
	}
	@made = ();
	return;
}

END
{
	my $status = $?;
	drop_clusters();
	$? = $status;
}

# What pg_lsclusters says of a cluster: port, status, owner, directory.
sub lscluster
{
	my ($cluster) = @_;
	foreach my $line (split /\n/, `pg_lsclusters -h`)
	{
		my @word = split ' ', $line;
		return join ' ', @word[ 2 .. 5 ]
		  if $word[0] eq $major && $word[1] eq $cluster;
	}
	return '';
}

my $upstream =
  new_upstream('upstream', 'max_connections = 123', 'max_wal_senders = 20');
provision($upstream, 'replica1', 'secret-word-1');
my $script = write_script($upstream, 'replica1');
my $port = PostgreSQL::Test::Cluster::get_free_port();
my $user = getpwuid($>);
my $pgdata = "/var/lib/postgresql/$major/$name";
my @args = ('--cluster', "$major/$name", '--port', $port);
my %env = (PGPASSWORD => 'secret-word-1');

my ($code, $out, $err) = run_script($script, \%env, @args, '--dry-run');
is($code, 0, 'a dry run for a new cluster succeeds');
like($out, qr/make Debian cluster/, 'it says that it would make the cluster');
is(lscluster($name), '', 'but has not');

# Programs of postgresql-common that stand still.
my $frozen = PostgreSQL::Test::Utils::tempdir;
foreach my $program (qw(pg_createcluster pg_conftool))
{
	my $impatient = "$frozen/join.sh";
	append_to_file($impatient,
		slurp($script) =~ s/^(start|program)_seconds=\d+$/$1_seconds=2/gmr);
	append_to_file("$frozen/$program", "#!/bin/sh\nkill -STOP \$\$\n");
	chmod 0755, $frozen, "$frozen/$program";
	my ($code, undef, $err) = run_script($impatient,
		{ %env, PATH => "$frozen:$ENV{PATH}" }, @args);
	is($code, 8, "$program stands still: exit code 8");
	is(lscluster($name), '', "$program stands still: no cluster is left");
	unlink $impatient, "$frozen/$program";
}

# Without --port it gets the one that pg_createcluster would take.  Clusters of
# others may come and go meanwhile.
my %taken;
foreach (1 .. 100)
{
	my $ports = join ' ', map { (split)[2] } `pg_lsclusters -h`;
	($code, $out, $err) =
	  run_script($script, \%env, '--cluster', "$major/$name", '--dry-run');
	my @now = map { (split)[2] } `pg_lsclusters -h`;
	%taken = map { $_ => 1 } @now;
	last if $ports eq "@now";
}
my ($free) = grep { !$taken{$_} } 5432 .. 65535;
like($out, qr/make Debian cluster $major\/$name, port $free$/m,
	'by default it gets the next free port');

# pg_createcluster goes on when the script has been killed.
push @made, $name;
my ($real) = grep { -x } map { "$_/pg_createcluster" } split /:/, $ENV{PATH};
append_to_file("$frozen/pg_createcluster",
	"#!/bin/sh\nuntil [ -e '$frozen/go' ]; do sleep 0.1; done\nexec $real \"\$\@\"\n");
chmod 0755, "$frozen/pg_createcluster";
my $run = start_script($script, { %env, PATH => "$frozen:$ENV{PATH}" },
	\$out, \$err, @args);
my $tries = 0;
until (-e "$pgdata.pg_replica_kit/creating")
{
	last if ++$tries > 100 * $PostgreSQL::Test::Utils::timeout_default;
	select undef, undef, undef, 0.01;
}
$run->signal('KILL');
ok(-e "$pgdata.pg_replica_kit/creating",
	'a run is killed while pg_createcluster is at work');
append_to_file("$frozen/go", '');
($code, $out, $err) = run_script($script, \%env, @args);
$run->kill_kill;
is($code, 0, 'the script makes cluster and replica');
is($err, '', 'it has nothing to complain of');
is( lscluster($name),
	"$port online,recovery $user $pgdata",
	'pg_lsclusters shows it running, as a standby, at its port');
chomp(my $socket =
	  `pg_conftool -s $major $name show unix_socket_directories`);
my $sql = "psql -XAt -h $socket -p $port -d postgres -c";
like($out, qr/raising max_connections from \d+ to the upstream's 123/,
	'a lower setting is raised');
is(`$sql 'SHOW max_connections'`,
	"123\n", 'and is in force');
is( `$sql 'SELECT status, slot_name FROM pg_stat_wal_receiver'`,
	"streaming|replica1\n",
	'it streams through its slot');
is(`$sql 'SHOW hba_file'`, "/etc/postgresql/$major/$name/pg_hba.conf\n",
	'its configuration is in /etc/postgresql');
is(`pg_conftool -s $major $name show data_directory`,
	"$pgdata\n", 'which names the data directory');
ok(!-e "$pgdata.pg_replica_kit/initial",
	'nothing is left of the database that pg_createcluster made');
$upstream->safe_psql('postgres', 'CREATE TABLE late AS SELECT 1');
my $lsn = $upstream->lsn('write');
$tries = 0;
until (`$sql "SELECT pg_last_wal_replay_lsn() >= '$lsn'"` eq "t\n")
{
	last if ++$tries > 300;
	select undef, undef, undef, 0.1;
}
is(`$sql 'SELECT count(*) FROM late'`, "1\n", 'a new row arrives');

($code, $out, $err) = run_script($script, \%env, @args);
is($code, 0, 'another run succeeds');
like($out, qr/nothing to do/, 'it says that there is nothing to do');
($code, $out, $err) =
  run_script($script, \%env, '--pgdata', $pgdata);
like($out, qr/nothing to do/, 'also when asked by the data directory');

system("pg_ctlcluster $major $name stop") == 0
  or die "could not stop the cluster";
($code, $out, $err) = run_script($script, {}, '--pgdata', $pgdata);
is($code, 0, 'the stopped replica is started again');
like($out, qr/pg_ctlcluster $major $name start/, 'by pg_ctlcluster');

# Damaged, it is rebuilt with the configuration that it has.
unlink "$pgdata/base/1/PG_VERSION" or die "unlink: $!";
my $conf = tree("/etc/postgresql/$major/$name");
($code, $out, $err) =
  run_script($script, {}, @args[ 0, 1 ], '--rebuild', '--remove-old');
is($code, 0, 'a damaged cluster is rebuilt');
like($out, qr/stopping the server/, 'for which it is stopped');
is( lscluster($name),
	"$port online,recovery $user $pgdata",
	'pg_lsclusters shows it running again');
is(tree("/etc/postgresql/$major/$name"),
	$conf, 'nothing is changed in its configuration');
ok(!-e "$pgdata.pg_replica_kit/old", 'the old data is removed');

# A cluster with data in it is somebody's.
my $other = "${name}_other";
push @made, $other;
system("pg_createcluster $major $other -p "
	  . PostgreSQL::Test::Cluster::get_free_port()
	  . ' >/dev/null 2>&1') == 0
  or die "could not make a cluster";
my $before = tree("/var/lib/postgresql/$major/$other")
  . tree("/etc/postgresql/$major/$other");
provision($upstream, 'replica2', 'secret-word-2');
my $script2 = write_script($upstream, 'replica2');
($code, $out, $err) = run_script($script2, { PGPASSWORD => 'secret-word-2' },
	'--cluster', "$major/$other");
is($code, 8, 'a cluster that holds a database is refused');
like($err, qr/^hint: .*pg_dropcluster $major $other;/m,
	'with the command that makes room');
is( tree("/var/lib/postgresql/$major/$other")
	  . tree("/etc/postgresql/$major/$other"),
	$before,
	'nothing has been changed');

system("pg_ctlcluster $major $other start") == 0
  or die "could not start the cluster";
($code, $out, $err) = run_script($script2, { PGPASSWORD => 'secret-word-2' },
	'--cluster', "$major/$other");
is($code, 8, 'so is one that runs');
like($err, qr/^hint: .*pg_dropcluster --stop $major $other;/m,
	'with the command that stops and removes it');
system("pg_ctlcluster $major $other stop") == 0
  or die "could not stop the cluster";

# An empty one is taken with the configuration that it has.
system("rm -rf /var/lib/postgresql/$major/$other/*");
($code, $out, $err) = run_script($script2, { PGPASSWORD => 'secret-word-2' },
	'--cluster', "$major/$other");
is($code, 0, 'an existing cluster without data is filled');
like(lscluster($other), qr/online,recovery/, 'and runs as a standby');

drop_clusters();
$upstream->stop;
done_testing();
