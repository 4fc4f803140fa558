# What the tests of how-to pages share: Debian clusters of this machine that stand
# for the machines of a page, and its blocks, run on them as they stand.  A block
# is for a machine if it is one of "sh on 10.0.0.N" (as root in a shell) and "sql on
# 10.0.0.N" (as superuser in psql).
package PageKit;

use strict;
use warnings FATAL => 'all';

use Exporter 'import';
use FindBin;
use IPC::Run ();
use JoinKit;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

our @EXPORT = qw($major @at %said %instead cannot_run new_machines make_primary stop_machine on sql poll run_page);

our ($major) = `pg_config --version` =~ /(\d+)/;

# What the page calls 10.0.0.1, 10.0.0.2 and so on; and what each section said.
our @at;
our %said;

# What stands on a page for something that is known only here.
our %instead;

my @machines;
my %password;

# Why Debian clusters cannot be made here, or nothing.
sub cannot_run
{
	return 'postgresql-common is not installed' if system('pg_lsclusters -h >/dev/null 2>&1') != 0;
	foreach my $dir ("/etc/postgresql/$major", "/var/lib/postgresql/$major")
	{
		my $parent = $dir =~ s!/[^/]*$!!r;
		return "$dir cannot be written to" unless -d $dir ? -w $dir : -w $parent;
	}
	return;
}

# A machine is a cluster's name, its port, and where its root's files are.
sub new_machines
{
	my ($number) = @_;
	my $work = PostgreSQL::Test::Utils::tempdir;

	foreach (1 .. $number)
	{
		mkdir "$work/$_" or die "mkdir: $!";
		push @machines, { cluster => "regress_prk_${$}_$_", port => PostgreSQL::Test::Cluster::get_free_port(), home => "$work/$_" };
	}
	@at = @machines;
	return @machines;
}

END
{
	my $status = $?;
	foreach my $machine (@machines)
	{
		my $cluster = $machine->{cluster};
		system("pg_dropcluster --stop $major $cluster >/dev/null 2>&1");
		system('rm', '-rf', glob "/var/lib/postgresql/$major/$cluster.*");
	}
	$? = $status;
}

# The page's text as it is on this machine, for a block on the machine.
sub here
{
	my ($text, $machine) = @_;
	$text =~ s!\b15/main\b!$major/$machine->{cluster}!g;
	$text =~ s!\b15 main\b!$major $machine->{cluster}!g;
	$text =~ s!\b15/bin\b!$major/bin!g;
	$text =~ s!^scp -q (\S+) root\@10\.0\.0\.(\d):$!"cp $1 $at[ $2 - 1 ]{home}/"!mge;
	$text =~ s!(--follow) 10\.0\.0\.(\d)\b!"$1 127.0.0.1:" . $at[ $2 - 1 ]{port}!ge;
	$text =~ s!\b10\.0\.0\.\d\b!127.0.0.1!g;
	$text =~ s!\b10\.0\.0\.33\b!127.0.0.0/8!g;
	$text =~ s!\brunuser -u postgres -- !!g;
	$text =~ s/\Q$_\E/$instead{$_}/g foreach keys %instead;
	# without TLS, libpq 15 cannot prove who answers
	$text =~ s!^((?:PG\S+ )*sh .*)!join ' ', $1, risk()!mge unless $text =~ /^PGSSLMODE=/m;
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

# A primary that lets in over TCP, with the kit and these settings.
sub make_primary
{
	my ($machine, @settings) = @_;
	system("pg_createcluster $major $machine->{cluster} -p $machine->{port} -- --no-sync >/dev/null") == 0 or die 'no cluster';
	foreach my $setting ('wal_retrieve_retry_interval 100ms', 'fsync off', "listen_addresses '*'", @settings)
	{
		system("pg_conftool $major $machine->{cluster} set $setting") == 0 or die 'no setting';
	}
	system("pg_ctlcluster $major $machine->{cluster} start") == 0 or die 'no server';
	sql($machine, 'CREATE EXTENSION pg_replica_kit; CREATE TABLE rows AS SELECT 1 AS n');
	return;
}

sub stop_machine
{
	my ($machine, @options) = @_;
	system("pg_ctlcluster $major $machine->{cluster} stop @options") == 0 or die 'no stop';
	return;
}

# Runs the page's blocks from heading to heading, after what BEFORE has for a
# heading; sets what each said.  A script for one machine that another has made is
# brought there; and its password, shown before, is the one that it is given.
sub run_page
{
	my ($page, %before) = @_;
	my $section = '';
	%said = ();
	foreach my $part (split /(^```[^\n]*\n.*?^```\n)/ms, slurp("$FindBin::RealBin/../doc/$page"))
	{
		if ($part !~ /^```/)
		{
			foreach my $heading ($part =~ /^#+ (.*)$/mg)
			{
				$section = $heading;
				delete($before{$section})->() if $before{$section};
			}
			next;
		}
		next if $part !~ /^```(\w+) on 10\.0\.0\.(\d)\n(.*)^```\n\z/ms;
		my ($kind, $number, $text) = ($1, $2, $3);
		my $machine = $at[ $number - 1 ];
		# --follow asks for none, unless the standby has never had one
		my $needs = $text =~ /^(?:PG\S+ )*sh .*(?:--demote|--set-password|--cluster)/m
		  && ($text !~ /--follow/ || $page eq 'from_repmgr.md');
		$text = here($text, $machine);
		print "# $page, $section, on 10.0.0.$number:\n$text";
		my @command = $kind eq 'sql' ? ('psql', '-X', '-v', 'ON_ERROR_STOP=1') : ('dash', '-ec', $text);
		my @port = $text =~ /--cluster/ && $text !~ /--port|--follow|--demote|--set-password/ ? ("--port $machine->{port}") : ();
		$command[-1] =~ s/(--cluster \S+)/$1 @port/ if @port;
		my $secret = $password{ $text =~ /join_(\w+)\.sh/ ? $1 : '' } // $password{''};
		my ($code, $out) = on($machine, $needs && $secret ? { PGPASSWORD => $secret } : {}, $kind eq 'sql' ? $text : '', @command);
		ok($code == 0 || ($text =~ /disabled/ && $out =~ /not running/), "$page: $section, on 10.0.0.$number: $kind");

		# a column with names, or the only one meant
		while ($out =~ /^ (?:(\w+) +\| (?:.* \| )?|.* \| )?([A-Za-z0-9]{32})$/mg)
		{
			my ($name, $new) = ($1, $2);
			%password = () unless defined $name;
			$password{ $name // '' } = $new;
		}
		$said{$section} .= $out;
		foreach my $script (glob "$machine->{home}/join_*.sh")
		{
			my ($name) = $script =~ m!([^/]*)$!;
			next if $text !~ /> $name/;
			system('cp', $script, $_->{home}) foreach grep { $_ != $machine } @at;
		}
	}
	is(join(', ', keys %before), '', "$page: has the headings that the test knows");
	return;
}

1;
