# doc/failover.md and doc/switchover.md: their blocks, run as they stand, on
# three Debian clusters of this machine that stand for the page's machines.
use strict;
use warnings FATAL => 'all';

use FindBin;
use lib $FindBin::RealBin;

use File::Copy qw(copy);
use IPC::Run ();
use JoinKit;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my ($major) = `pg_config --version` =~ /(\d+)/;
plan skip_all => 'postgresql-common is not installed'
  if system('pg_lsclusters -h >/dev/null 2>&1') != 0;
foreach my $dir ("/etc/postgresql/$major", "/var/lib/postgresql/$major")
{
	my $parent = $dir =~ s!/[^/]*$!!r;
	plan skip_all => "$dir cannot be written to"
	  unless -d $dir ? -w $dir : -w $parent;
}

# The machines: a cluster's name, its port, and where its root's files are.
my $work = PostgreSQL::Test::Utils::tempdir;
my @machine = map {
	mkdir "$work/$_" or die "mkdir: $!";
	{ cluster => "regress_prk_${$}_$_", port => PostgreSQL::Test::Cluster::get_free_port(), home => "$work/$_" }
} 1 .. 3;

END
{
	my $status = $?;
	foreach my $machine (@machine)
	{
		my $cluster = $machine->{cluster};
		system("pg_dropcluster --stop $major $cluster >/dev/null 2>&1");
		system('rm', '-rf', "/var/lib/postgresql/$major/$cluster.pg_replica_kit");
	}
	$? = $status;
}

# What the page calls 10.0.0.1, 10.0.0.2 and 10.0.0.3.
my @at = @machine;
my $password;

# The page's text as it is on this machine, for a block on the machine.
sub here
{
	my ($text, $machine) = @_;
	$text =~ s!\b15/main\b!$major/$machine->{cluster}!g;
	$text =~ s!\b15 main\b!$major $machine->{cluster}!g;
	$text =~ s!(--follow) 10\.0\.0\.([123])\b!"$1 127.0.0.1:" . $at[ $2 - 1 ]{port}!ge;
	$text =~ s!\b10\.0\.0\.[123]\b!127.0.0.1!g;
	$text =~ s!\b10\.0\.0\.33\b!127.0.0.0/8!g;
	$text =~ s!^runuser -u postgres -- !!mg;
	$text =~ s!^(sh .*)!join ' ', $1, risk()!mge;
	return $text;
}

# Runs something on a machine: exit code, and all that it said.
sub on
{
	my ($machine, $env, $input, @command) = @_;
	my $out = '';
	chomp($machine->{socket} //= `pg_conftool -s $major $machine->{cluster} show unix_socket_directories`);
	local %ENV = (%ENV, HOME => $machine->{home}, PGHOST => $machine->{socket}, PGPORT => $machine->{port},
		PGDATABASE => 'postgres', %$env);
	delete $ENV{PGAPPNAME};
	my $harness = IPC::Run::start([ 'sh', '-c', 'cd "$HOME" && exec setsid "$@"', 'sh', @command ],
		'<', \$input, '>', \$out, '2>&1', IPC::Run::timeout($PostgreSQL::Test::Utils::timeout_default));
	$harness->finish;
	print map { "#   $_\n" } split /\n/, $out;
	return ($harness->full_result(0) >> 8, $out);
}

sub sql
{
	my ($machine, $sql) = @_;
	my ($code, $out) = on($machine, {}, $sql, 'psql', '-XAtq', '-v', 'ON_ERROR_STOP=1');
	chomp $out;
	return $out;
}

sub poll
{
	my ($machine, $sql, $what) = @_;
	ok(eventually(sub { sql($machine, $sql) eq 't' }), $what);
	return;
}

# Runs the page's blocks from heading to heading; what each said.
my %said;

sub run_page
{
	my ($page, %before) = @_;
	my $section = '';
	%said = ();
	foreach my $part (split /^(?=#)/m, slurp("$FindBin::RealBin/../doc/$page"))
	{
		$section = $1 if $part =~ /^#+ (.*)$/m;
		$before{$section}->() if $before{$section};
		while ($part =~ /^```(\w+) on 10\.0\.0\.([123])\n(.*?)^```$/msg)
		{
			my ($kind, $number, $text) = ($1, $2, $3);
			my $machine = $at[ $number - 1 ];
			my $needs = $text =~ /--demote|--set-password/;
			$text = here($text, $machine);
			print "# $page, $section, on 10.0.0.$number:\n$text";
			my @command = $kind eq 'sql' ? ('psql', '-X', '-v', 'ON_ERROR_STOP=1') : ('dash', '-ec', $text);
			my ($code, $out) = on($machine, $needs ? { PGPASSWORD => $password } : {}, $kind eq 'sql' ? $text : '', @command);
			ok($code == 0 || ($text =~ /disabled/ && $out =~ /not running/), "$page: $section, on 10.0.0.$number: $kind");
			$password = $1 if $out =~ /^ (?:replica2 +\| )?([A-Za-z0-9]{32})$/m;
			$said{$section} .= $out;
			foreach my $script (glob "$machine->{home}/join_*.sh")
			{
				my ($name) = $script =~ m!([^/]*)$!;
				next if $text !~ /> $name/;
				copy($script, "$_->{home}/$name") foreach grep { $_ != $machine } @at;
			}
		}
	}
	return;
}

# ----------------------------------------------------------------------
# A primary and two replicas, as the README makes them
# ----------------------------------------------------------------------
my ($old, $new, $third) = @machine;
system("pg_createcluster $major $old->{cluster} -p $old->{port} -- --no-sync >/dev/null") == 0 or die 'no cluster';
foreach my $setting ('wal_retrieve_retry_interval 100ms', 'fsync off', "listen_addresses '*'", 'max_replication_slots 15', 'max_wal_senders 15')
{
	system("pg_conftool $major $old->{cluster} set $setting") == 0 or die 'no setting';
}
system("pg_ctlcluster $major $old->{cluster} start") == 0 or die 'no server';
sql($old, 'CREATE EXTENSION pg_replica_kit; CREATE TABLE rows AS SELECT 1 AS n');
foreach my $number (1, 2)
{
	my $machine = $machine[$number];
	my $name = "replica$number";
	my ($secret) = sql($old, "SELECT password FROM replica_kit.provision('$name', '127.0.0.1')");
	my $script = sql($old, "SELECT replica_kit.join_script('$name', '127.0.0.1')");
	open my $fh, '>', "$machine->{home}/join_$name.sh" or die "open: $!";
	print $fh $script, "\n";
	close $fh;
	my ($code) = on($machine, { PGPASSWORD => $secret }, '', 'dash', "join_$name.sh", risk(),
		'--cluster', "$major/$machine->{cluster}", '--port', $machine->{port});
	is($code, 0, "$name is made");
}

# ----------------------------------------------------------------------
# The primary crashes
# ----------------------------------------------------------------------
system("pg_ctlcluster $major $old->{cluster} stop -m immediate") == 0 or die 'no stop';
run_page(
	'failover.md',
	'2. Find the replica that has most' => sub {
		isnt(system("pg_ctlcluster $major $old->{cluster} start >/dev/null 2>&1"), 0, 'failover.md: the fenced primary does not start');
	},
	'6. See that all are there' => sub {
		sql($new, 'INSERT INTO rows VALUES (2)');
		poll($third, 'SELECT count(*) = 2 FROM rows', 'failover.md: the other one has what the new primary writes');
	});
like($said{'3. Promote it'}, qr/replica_not_attached.*replica2/s, 'failover.md: diagnose() names the replica that is missing');
like($said{'5. Let them follow'}, qr/streams from 127\.0\.0\.1, port $new->{port}/, 'failover.md: the other one follows');
unlike($said{'5. Let them follow'}, qr/cloning|assword|restart/, 'failover.md: without clone, password and restart');
like($said{'8. The old primary becomes a replica'}, qr/not shut down cleanly.*cloning.*the old data is in/s, 'failover.md: the old primary is cloned, and its data kept');
poll($old, 'SELECT pg_is_in_recovery() AND count(*) = 2 FROM rows', 'failover.md: the old primary is a replica');

# ----------------------------------------------------------------------
# And back, as it was planned
# ----------------------------------------------------------------------
@at = ($new, $old, $third);
run_page(
	'switchover.md',
	'6. See that all are there' => sub {
		sql($old, 'INSERT INTO rows VALUES (3)');
		poll($_, 'SELECT count(*) = 3 FROM rows', 'switchover.md: a replica has what the new primary writes') foreach $new, $third;
		poll($old, q{SELECT count(*) = 2 FROM pg_stat_replication WHERE state = 'streaming'}, 'switchover.md: both stream');
	});
like($said{'5. Let them follow'}, qr/streams from .*streams from .*nothing has been cloned/s, 'switchover.md: both follow, without a clone');
unlike($said{'5. Let them follow'}, qr/pg_replica_kit: cloning/, 'switchover.md: nothing is cloned');
is(sql($new, 'SELECT count(*) FROM pg_replication_slots'), '0', 'switchover.md: no slot is left on the old primary');
like($said{'Move a replica to another address'}, qr/^ +1$/m, 'switchover.md: the old address of the replica goes');
is(scalar(() = $said{'More replicas: from one to ten'} =~ /^ reader\d +\| \w{32}$/mg), 9, 'switchover.md: nine more replicas, each with its password');
is(scalar(() = $said{'Rotate the passwords of all replicas'} =~ /^ replica\d +\| \w{32}$/mg), 2, 'switchover.md: two new passwords');

done_testing();
