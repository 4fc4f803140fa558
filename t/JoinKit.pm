# What the tests of join_script() share: an upstream with a provisioned
# replica, the script in a file, and running it.
package JoinKit;

use strict;
use warnings FATAL => 'all';

use Exporter 'import';
use File::Temp qw(tempdir);
use IPC::Run qw(run start timeout);
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(usleep);

our @EXPORT = qw(new_upstream enable_tls provision write_script edit_script run_script
  run_alone start_script eventually hold_clone new_replica adopt_replica slurp
  kill_session risk knows_require_auth tree remove_wal);

# The shell that runs the script.
our @shell = ('dash');

# May the script go on where neither TLS nor libpq proves who answers?  The
# servers of most tests have no TLS.
our $allow_risk = 1;

sub risk
{
	return $allow_risk && !knows_require_auth() ? '--allow-cleartext-risk' : ();
}

# Does libpq here know require_auth, as 16 and later do?
my $knows_require_auth;

sub knows_require_auth
{
	my ($err) = ('');
	$knows_require_auth //= do
	{
		run [ 'psql', '-XAtqw', '-d', 'host=/nonexistent require_auth=scram-sha-256', '-c', '' ],
		  '>', \my $out, '2>', \$err;
		$err !~ /invalid connection option/ ? 1 : 0;
	};
	return $knows_require_auth;
}

# An upstream server that lets replication in over TCP by password only.
sub new_upstream
{
	my ($name, @conf) = @_;
	my $node = PostgreSQL::Test::Cluster->new($name);
	$node->init(allows_streaming => 1);
	$node->append_conf('postgresql.conf',
		join("\n", "listen_addresses = '127.0.0.1'", @conf, ''));
	$node->start;
	$node->safe_psql('postgres', 'CREATE EXTENSION pg_replica_kit');
	$node->safe_psql('postgres',
		'CREATE TABLE filler AS SELECT g, md5(g::text) FROM generate_series(1, 1000) g'
	);
	return $node;
}

# A certificate of its own, and TLS from now on.
sub enable_tls
{
	my ($node) = @_;
	my ($key, $certificate) = map { $node->data_dir . "/server.$_" } qw(key crt);
	system_or_bail('openssl', 'req', '-new', '-x509', '-days', '10', '-nodes',
		'-subj', '/CN=127.0.0.1', '-keyout', $key, '-out', $certificate);
	chmod 0600, $key or die "chmod: $!";
	$node->append_conf('postgresql.conf', 'ssl = on');
	$node->reload if -e $node->data_dir . '/postmaster.pid';
	return;
}

# Role, slot and pg_hba line of a replica on this machine.
sub provision
{
	my ($node, $name, $password, $role, $address) = @_;
	$role //= $name;
	$address //= '127.0.0.1';
	s/'/''/g for $password, $role;
	$node->safe_psql('postgres',
		"SELECT replica_kit.provision('$name', '$address', '$role', '$password')"
	);
	return;
}

# The script for a replica, in a file of its own.
sub write_script
{
	my ($node, $name, $host, $port) = @_;
	$host //= '127.0.0.1';
	$port //= 'NULL';
	my $file = tempdir(CLEANUP => 1) . '/join.sh';
	my $text = $node->safe_psql('postgres',
		"SELECT replica_kit.join_script('$name', '$host', $port)");
	open my $fh, '>', $file or die "open $file: $!";
	print $fh $text, "\n";
	close $fh;
	return $file;
}

# A copy of a script with some of its values changed.
sub edit_script
{
	my ($file, %values) = @_;
	my $text = slurp($file);
	while (my ($variable, $value) = each %values)
	{
		$text =~ s/^\Q$variable\E='[^']*'$/$variable='$value'/m
		  or die "no $variable in $file";
	}
	my $copy = tempdir(CLEANUP => 1) . '/join.sh';
	open my $fh, '>', $copy or die "open $copy: $!";
	print $fh $text;
	close $fh;
	return $copy;
}

# Environment of a run: a home without a passfile, and what is asked for.
sub environment
{
	my (%env) = @_;
	my %result = (%ENV, HOME => tempdir(CLEANUP => 1), %env);
	delete @result{qw(PGHOST PGPORT PGDATABASE PGAPPNAME)};
	delete $result{$_} for grep { !defined $result{$_} } keys %result;
	return %result;
}

# A shell cannot trap a signal that was ignored when it began, as SIGINT is in
# what another shell runs in the background, and SIGHUP below nohup.  However
# these tests are run, the script gets what it gets from a terminal.
sub start_with_signals
{
	local @SIG{qw(HUP INT TERM)} = ('DEFAULT') x 3;
	return start(@_);
}

# Runs the script to its end: exit code, stdout, stderr.  Without a terminal,
# so that nothing can ask.  After the arguments may follow run_by => [COMMAND].
sub run_script
{
	my ($file, $env, @args) = @_;
	my @run_by = ('setsid');
	(undef, my $more) = splice @args, -2
	  if @args > 1 && $args[-2] eq 'run_by';
	push @run_by, @$more if $more;
	print "# join.sh @args\n";
	return run_alone($env, @run_by, @shell, $file, risk(), @args);
}

# Runs a command as one that has no server of its own: exit code, stdout,
# stderr.
sub run_alone
{
	my ($env, @command) = @_;
	my ($out, $err) = ('', '');
	local %ENV = environment(%$env);
	my $harness = start_with_signals \@command, '<', \'', '>', \$out,
	  '2>', \$err, timeout($PostgreSQL::Test::Utils::timeout_default);
	$harness->finish;
	print map { "#   $_\n" } split /\n/, $out . $err;
	return ($harness->full_result(0) >> 8, $out, $err);
}

# The WAL that no slot may retain goes at a checkpoint, and the slot with it; from 17
# on, only what is summarized.
sub remove_wal
{
	my ($node) = @_;
	$node->safe_psql('postgres', 'CHECKPOINT');
	return if $node->pg_version < 17 || $node->safe_psql('postgres', 'SHOW summarize_wal') eq 'off';
	$node->poll_query_until('postgres', 'SELECT summarized_lsn >= redo_lsn FROM pg_get_wal_summarizer_state(), pg_control_checkpoint()')
	  or die 'nothing is summarized';
	$node->safe_psql('postgres', 'CHECKPOINT');
	return;
}

# Begins to run the script; the caller finishes the harness.
sub start_script
{
	my ($file, $env, $out, $err, @args) = @_;
	local %ENV = environment(%$env);
	return start_with_signals [ 'setsid', 'dash', $file, risk(), @args ], '<', \'',
	  '>', $out, '2>', $err,
	  timeout($PostgreSQL::Test::Utils::timeout_default);
}

# What a program in place of another has to run to end the script that calls it,
# and all that it has begun, as a kill does: they are a session.
sub kill_session
{
	return 'kill -s KILL $(ps -o pid= -s $(ps -o sid= -p $$))';
}

# Waits until a condition holds; true if it came to hold.
sub eventually
{
	my ($condition) = @_;
	for (1 .. 100 * $PostgreSQL::Test::Utils::timeout_default)
	{
		return 1 if $condition->();
		usleep(10_000);
	}
	return 0;
}

# Stops the clone that begins in its midst; returns the walsender's pid.  The
# server itself looks for it and stops it, for a session each time could be too
# slow; and late enough for the first files to have arrived.
sub hold_clone
{
	my ($node) = @_;
	my $tries = 100 * $PostgreSQL::Test::Utils::timeout_default;
	my ($rc, $out, $err) = $node->psql('postgres', <<~SQL);
		SET client_min_messages = 'notice';
		DO \$\$
		DECLARE
			clone integer;
		BEGIN
			FOR try IN 1 .. $tries LOOP
				PERFORM pg_stat_clear_snapshot();
				SELECT pid INTO clone FROM pg_stat_progress_basebackup
				WHERE phase LIKE 'streaming database%' AND backup_streamed > 4000000;
				IF FOUND THEN
					EXECUTE format('COPY (SELECT) TO PROGRAM %L', 'cat >/dev/null; kill -STOP ' || clone);
					RAISE NOTICE 'stopped %', clone;
					RETURN;
				END IF;
				PERFORM pg_sleep(0.005);
			END LOOP;
		END \$\$;
		SQL
	my ($pid) = $err =~ /NOTICE:  stopped (\d+)/;
	ok(defined $pid, 'a clone is under way') or diag($err);
	return $pid;
}

# A port and a directory for a replica; nothing is made yet.
sub new_replica
{
	my ($name) = @_;
	my $node = PostgreSQL::Test::Cluster->new($name);
	mkdir $node->basedir;
	return $node;
}

# Let the test's node object know the server that the script has started.
sub adopt_replica
{
	my ($node) = @_;
	$node->_update_pid(1);
	return;
}

sub slurp
{
	my ($file) = @_;
	local $/;
	open my $fh, '<', $file or die "open $file: $!";
	return <$fh>;
}

# Everything below a directory, as text to compare.
sub tree
{
	my ($dir) = @_;
	my ($out, $err);
	run [ 'find', $dir, '-printf', '%p %y %m %u %s %T@\n' ], '>', \$out,
	  '2>', \$err;
	return join "\n", sort split /\n/, $out;
}

1;
