# The script's main ways under other shells than dash: bash, BusyBox ash with
# BusyBox' own tools, and mksh, which counts to 2^31 and passes on no file
# descriptor.
use strict;
use warnings FATAL => 'all';

use FindBin;
use lib $FindBin::RealBin;

use File::Temp qw(tempdir);
use JoinKit;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

# Where each program of PATH is.
sub which
{
	my ($program) = @_;
	foreach my $dir (split /:/, $ENV{PATH})
	{
		return "$dir/$program" if -x "$dir/$program";
	}
	return;
}

my $upstream = new_upstream('upstream');
my ($bin) = `pg_config --bindir` =~ /(.*)/;

# Nothing but BusyBox, PostgreSQL and what its other builds have.
my $only_busybox = tempdir(CLEANUP => 1);
chmod 0755, $only_busybox;
my $busybox = which('busybox');
if ($busybox)
{
	symlink $busybox, "$only_busybox/$_" foreach split ' ', `$busybox --list`;
	foreach my $program (qw(flock getent ldd))
	{
		symlink which($program), "$only_busybox/$program"
		  if !-e "$only_busybox/$program" && which($program);
	}
}
my %path = (
	bash => [ which('bash'), $ENV{PATH} ],
	'BusyBox ash' => [ $busybox, "$only_busybox:$bin" ],
	mksh => [ which('mksh'), $ENV{PATH} ]);

foreach my $shell (sort keys %path)
{
	my ($program, $path) = @{ $path{$shell} };
  SKIP:
	{
		skip "$shell is not installed", 9 if !$program;
		my $name = lc $shell =~ s/\W/_/gr;
		my %env = (PATH => $path, PGPASSWORD => "secret '\\ $shell");
		provision($upstream, $name, $env{PGPASSWORD});
		my $script = write_script($upstream, $name);
		my $replica = new_replica($name);
		my @where = ('--pgdata', $replica->data_dir, '--port', $replica->port);
		local @JoinKit::shell = ($program, $shell =~ /ash$/ && $shell ne 'bash' ? 'ash' : ());
		my ($code, $out, $err) = run_script($script, \%env, @where, '--dry-run');
		is($code, 0, "$shell: a dry run");
		($code, $out, $err) = run_script($script, \%env, @where);
		is($code, 0, "$shell: a clone");
		is($err, '', "$shell: without complaint");
		adopt_replica($replica);
		is($replica->safe_psql('postgres', 'SELECT count(*) FROM filler'),
			'1000', "$shell: the data is there");
		$replica->stop;
		$replica->append_conf('postgresql.conf', 'recovery_target_name = never');
		($code, $out, $err) = run_script($script, \%env, @where, '--rebuild');
		like($out, qr/are reset: recovery_target_name\n.*a restart was enough/s,
			"$shell: a restart mends it");
		adopt_replica($replica);
		$replica->stop;
		system('rm', '-rf', $replica->data_dir . '/base');
		($code, $out, $err) =
		  run_script($script, \%env, @where, '--rebuild', '--remove-old');
		is($code, 0, "$shell: a clone instead of the old data");
		ok(!-e $replica->data_dir . '.pg_replica_kit/old', "$shell: which is removed");
		$env{PGPASSWORD} = 'wrong';
		($code, $out, $err) = run_script($script, \%env, @where[ 0, 1 ], '--set-password');
		is($code, 5, "$shell: a wrong password");
		like($err, qr/^hint: Use the password/m, "$shell: with its hint");
		adopt_replica($replica);
		$replica->stop;
	}
}

$upstream->stop;
done_testing();
