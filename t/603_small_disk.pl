# A disk that is really full, a file that is mounted on its own, a network of
# which another rule has a part, and options of other rules that hold secrets.

use strict;
use warnings FATAL => 'all';

use FindBin;
use lib "$FindBin::RealBin/fault";
use Fault;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $server = Fault->new('small');
plan skip_all => 'needs Linux and a C compiler' if !defined $server;

my $node = $server->{node};
my $rules = slurp_file($server->{hba});
my ($session, $nothing);

sub put
{
	my ($contents) = @_;

	open my $out, '>', $server->{hba} or die "could not open \"$server->{hba}\": $!";
	print $out $contents;
	close $out;
	return;
}

sub state_now
{
	return $server->server_state($session) . $server->file_state;
}

$server->start;
$node->safe_psql('postgres', 'CREATE EXTENSION pg_replica_kit');

# ----------------------------------------------------------------------
# Other rules for a part of the replica's network
# ----------------------------------------------------------------------

# With which verdict the address is let in.
sub verdict
{
	my ($address) = @_;

	return $node->safe_psql('postgres', qq{SELECT verdict || ' ' || auth_method FROM replica_kit.hba_match('x', '$address')});
}

sub provision_network
{
	my ($network, @lines) = @_;

	put(join('', map { "$_\n" } @lines) . $rules);
	my ($rc, $stdout, $stderr) =
	  $node->psql('postgres', qq{SELECT FROM replica_kit.provision('x', '$network')}, on_error_stop => 1);
	return $stderr;
}

my $reject = 'host replication all 127.1.0.7/32 reject';
my $md5 = 'host replication all 127.1.0.64/26 md5';

like(provision_network('127.1.0.0/24', $md5), qr/NOTICE: .*goes before line 1 of .*pg_hba\.conf"\nDETAIL: .*"md5"/,
	'a rule of another method for a part of the network is told');
is(verdict('127.1.0.70'), 'allow scram-sha-256', 'and does not win');
is(verdict('127.1.0.0'), 'allow scram-sha-256', 'nor for the rest of it');
$node->safe_psql('postgres', q{SELECT replica_kit.deprovision('x')});
is($server->file_state =~ s/^\S+ \S+ \S+ //r, "$md5\n$rules", 'the file comes back');

like(provision_network('127.1.0.0/24', $reject), qr/WARNING: .*line 1 of .*pg_hba\.conf" rejects some of the addresses/,
	'a rule that rejects a part of the network is told');
is(verdict('127.1.0.7'), 'reject reject', 'and stays in force');
is(verdict('127.1.0.8'), 'allow scram-sha-256', 'the others get in');
$node->safe_psql('postgres', q{SELECT replica_kit.deprovision('x')});

like(provision_network('127.1.0.0/24', 'host replication all 127.1.0.0/25 reject'), qr/WARNING: .*rejects some/, 'so is one at its edge');
is(verdict('127.1.0.200'), 'allow scram-sha-256', 'and the others get in');
$node->safe_psql('postgres', q{SELECT replica_kit.deprovision('x')});

like(provision_network('127.1.0.0/24', $md5, $reject), qr/ERROR: .*rejects .*\nDETAIL:  Line 2 of /,
	'our rule would let in whom another rejects: refused');
is(slurp_file($server->{hba}), "$md5\n$reject\n$rules", 'and nothing is changed');
like(provision_network('127.1.0.7', 'host replication all 127.1.0.0/24 reject'), qr/ERROR: .*rejects /, 'an address in a rejected network is refused');
is(provision_network('127.1.0.0/24', 'host replication all 127.1.0.64/26 scram-sha-256'), '', 'one of the same method for a part is fine');
is(verdict('127.1.0.1'), 'allow scram-sha-256', 'for the others our line counts');
$node->safe_psql('postgres', q{SELECT replica_kit.deprovision('x')});
like(provision_network('127.1.0.0/24', 'host all x samehost trust', 'host replication x samehost trust'),
	qr/^(?!.*ERROR)/s, 'one for this host alone is no obstacle');
is(verdict('127.1.0.9'), 'allow scram-sha-256', 'for another address');
$node->safe_psql('postgres', q{SELECT replica_kit.deprovision('x')});

# ----------------------------------------------------------------------
# Options that hold secrets
# ----------------------------------------------------------------------

my $secret = 'geheim4711';
my $ldap = qq{host replication all 127.0.0.0/8 ldap ldapserver=localhost ldapbasedn="dc=x" ldapbinddn="cn=y" ldapbindpasswd="$secret"};
my $said = '';
$node->safe_psql('postgres', q{ALTER SYSTEM SET log_min_messages = 'debug5'});
for my $line ($ldap, "$ldap nonsense", "$ldap nonsense=$secret", "host replication all 127.0.0.0/8 ldap ldapserver=localhost ldapprefix=a ldapbindpasswd=$secret ldapport=x$secret")
{
	put("$line\n$rules");
	for my $sql (
		q{SELECT * FROM replica_kit.provision('x', '127.0.0.1', dry_run => true)},
		q{SELECT role_name, hba_rule FROM replica_kit.provision('x', '127.0.0.1')},
		q{SELECT * FROM replica_kit.hba_match('x', '127.0.0.1')},
		q{SELECT * FROM replica_kit.deprovision('x')})
	{
		my ($rc, $stdout, $stderr) = $node->psql('postgres', "SET client_min_messages = 'debug5'; $sql");
		$said .= "$stdout\n$stderr\n";
	}
}
like($said, qr/error with which the server does not load it/, 'a broken line is refused');
unlike($said, qr/$secret/, 'no message and no row quotes an option');
unlike(slurp_file($node->logfile), qr/\[\d+\] (?!LOG|CONTEXT).*$secret/, 'nor does the log');
put($rules);
$node->safe_psql('postgres', 'ALTER SYSTEM RESET log_min_messages');
$node->reload;

# ----------------------------------------------------------------------
# In a namespace where the test may mount
# ----------------------------------------------------------------------

my $slots = $node->data_dir . '/pg_replslot';
my $ids = "--map-user=$< --map-group=" . ($( + 0);

$node->stop;
SKIP:
{
	skip 'this system lets nobody but root mount', 1
	  if system("unshare -Urm sh -c 'mount -t tmpfs none /mnt && exec unshare -U $ids true' >/dev/null 2>&1") != 0;

	# pg_hba.conf and the slots each on a disk of their own, of a few pages.
	my $mount = "mount -t tmpfs -o size=64k,mode=700 none $slots";
	my $keep = PostgreSQL::Test::Utils::tempdir . '/pg_hba.conf';
	append_to_file($keep, $rules);
	chmod 0640, $keep;
	$mount .= " && mount -t tmpfs -o size=64k,mode=700 none $server->{folder} && cp -p $keep $server->{hba}";
	$server->start(wrap => [ 'unshare', '-Urm', 'sh', '-c', "$mount && exec unshare -U $ids \"\$@\"", 'sh' ]);
	$session = $server->connect;

	# What the server sees there the test does not.
	my $look = sub {
		return $session->run(
			qq{SELECT pg_read_file('$server->{hba}'); SELECT string_agg(f, ' ') FROM pg_ls_dir('$server->{folder}') f;
			SELECT string_agg(slot_name || temporary, ' ') FROM pg_replication_slots; SELECT string_agg(f, ' ') FROM pg_ls_dir('pg_replslot') f;
			SELECT string_agg(rolname, ' ') FROM pg_roles WHERE rolname !~ '^pg_';});
	};
	my $before = $look->();
	my $fill = sub { return "dd if=/dev/zero of=$_[0]/filler bs=4k count=100 2>/dev/null; true" };
	my $program = sub { return "COPY (SELECT) TO PROGRAM '$_[0]';" };

	for ([ $server->{folder}, 'pg_hba.conf' ], [ $slots, 'the slots' ])
	{
		my ($folder, $what) = @$_;
		my (@wrong, $rule);

		$session->run($program->($fill->($folder)));
		for my $try (1 .. 50)
		{
			my $answer = $session->run(q{SELECT FROM replica_kit.provision('x', '127.0.0.1');});

			push @wrong, $answer if $answer !~ /^ERROR: .*No space left on device/m;
			$rule = 1 if $answer =~ /manage_hba => false: host replication x 127\.0\.0\.1/;
		}
		is(join('', @wrong), '', "the disk of $what is full: 50 errors");
		ok($rule, 'that give the line to add by hand') if $folder eq $server->{folder};
		$session->run($program->("rm $folder/filler"));
		is($look->(), $before, 'and all is as before');
	}

	# Full from the commit record on.
	my @wrong;
	my $warnings = 0;
	my $filled = $fill->($slots);
	for my $try (1 .. 50)
	{
		$server->arm($session->{pid}, 'count', 0, only => 'open');
		my $answer = $session->run(q{SELECT FROM replica_kit.provision('x', '127.0.0.1');});
		my (undef, undef, @calls) = $server->report;
		my ($last) = grep { $calls[ $_ - 1 ] =~ m!pg_replslot/x/state\.tmp$! } 1 .. @calls;

		$session->run(q{SELECT FROM replica_kit.deprovision('x');});
		$server->arm($session->{pid}, 'run_before', $last, only => 'open', command => $filled);
		$answer = $session->run(q{SELECT FROM replica_kit.provision('x', '127.0.0.1');});
		$server->disarm;
		$warnings++ if $answer =~ /^WARNING: .*is not saved on disk yet: .*No space left.*\nHINT:  Run: CHECKPOINT;/m;
		push @wrong, $answer if $answer =~ /ERROR|PANIC/;
		$session->run($program->("rm -f $slots/filler"));
		$session->run('CHECKPOINT;');
		push @wrong, $session->run(q{SELECT pg_read_binary_file('pg_replslot/x/state', 84, 4);})
		  if $session->run(q{SELECT pg_read_binary_file('pg_replslot/x/state', 84, 4) = '\x00000000';}) !~ /^t$/m;
		$session->run(q{SELECT FROM replica_kit.deprovision('x');});
	}
	is($warnings, 50, 'the disk of the slots is full after the commit record: 50 warnings');
	is(join('', @wrong), '', 'and a checkpoint saves the slot each time');

	# The folder of the slot gone, and gone before it is dropped.
	$server->arm($session->{pid}, 'run_before', 2, only => 'open', command => 'true');
	for my $try (1 .. 50)
	{
		$server->arm($session->{pid}, 'run_after', 1, only => 'exchange', command => "rm -r $slots/x");
		my $answer = $session->run(q{SELECT FROM replica_kit.provision('x', '127.0.0.1');});
		push @wrong, "provision: $answer" if $answer =~ /ERROR|PANIC|WARNING/;
		push @wrong, 'not saved'
		  if $session->run(q{SELECT pg_read_binary_file('pg_replslot/x/state', 84, 4) = '\x00000000';}) !~ /^t$/m;

		$session->run($program->("rm -r $slots/x"));
		$answer = $session->run(q{SELECT FROM replica_kit.deprovision('x');});
		push @wrong, "deprovision: $answer" if $answer !~ /^WARNING: .*could not be dropped/m || $session->{ended};
		$session->run($program->("mkdir $slots/x"));
		$session->run($_) for $answer =~ /^HINT:  Run: (.*)$/mg;
	}
	$server->disarm;
	is(join('', @wrong), '', 'the folder of a slot is taken away, 50 times');
	is($look->(), $before, 'and in the end all is as before');
	$session->quit;
	$node->stop;

	# A file that is mounted on its own can't be replaced.
	my $mounted = PostgreSQL::Test::Utils::tempdir . '/mounted';
	append_to_file($mounted, $rules);
	$server->start(wrap => [ 'unshare', '-Urm', 'sh', '-c', "mount --bind $mounted $server->{hba} && exec unshare -U $ids \"\$@\"", 'sh' ]);
	my ($rc, $stdout, $stderr) = $node->psql('postgres', q{SELECT FROM replica_kit.provision('x', '127.0.0.1')}, on_error_stop => 1);
	like($stderr, qr/ERROR: .*could not replace file.*\nDETAIL:  The file is mounted on its own.*\nHINT: .*manage_hba => false: host replication x 127\.0\.0\.1/,
		'a file that is mounted on its own is refused with the line to add');
	is(slurp_file($mounted), $rules, 'and not touched');
	is($server->beside, '', 'nothing is left beside it');
	is($node->safe_psql('postgres', 'SELECT count(*) FROM pg_replication_slots'), '0', 'nor a slot');
	is($node->psql('postgres', q{SELECT FROM replica_kit.provision('x', '127.0.0.1', manage_hba => false)}), 0, 'manage_hba => false works');
	$node->stop;
}
unlike(slurp_file($node->logfile), qr/PANIC|terminated by signal/, 'no process has crashed');

done_testing();
