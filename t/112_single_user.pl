# In single-user mode there is no postmaster to signal, and nobody to ask.

use strict;
use warnings FATAL => 'all';

use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $node = PostgreSQL::Test::Cluster->new('primary');
$node->init(allows_streaming => 1);
$node->append_conf('postgresql.conf', "listen_addresses = '*'");
$node->start;
$node->safe_psql('postgres', 'CREATE EXTENSION pg_replica_kit');
my $hba = $node->data_dir . '/pg_hba.conf';
my $before = slurp_file($hba);
$node->stop;

# A process group of its own: a signal to "the postmaster" would hit all of it.
sub single_user
{
	my (@statements) = @_;
	my $input = join '', map { "$_\n" } @statements;
	my ($out, $err) = ('', '');

	IPC::Run::run(
		[ $^X, '-e', 'setpgrp; $SIG{HUP} = sub { print STDERR "hung up\n" }; system @ARGV; exit $? >> 8;',
			'postgres', '--single', '-D', $node->data_dir, 'postgres' ],
		'<', \$input, '>', \$out, '2>', \$err) or die "single-user mode failed: $err";
	return ($out, $err);
}

my ($out, $err) = single_user(q{SELECT * FROM replica_kit.provision('replica1', '10.0.0.5')}, 'SELECT name FROM replica_kit.status()');
unlike($err, qr/ERROR|FATAL|PANIC/, 'provision() works in single-user mode');
unlike($err, qr/hung up/, 'and signals nobody');
like($out, qr/name = "replica1"/, 'status() has the slot');

$node->start;
is($node->safe_psql('postgres', q{SELECT verdict FROM replica_kit.hba_match('replica1', '10.0.0.5')}), 'allow', 'the next start has the rule');
is($node->safe_psql('postgres', q{SELECT count(*) FROM pg_replication_slots WHERE slot_name = 'replica1' AND restart_lsn IS NOT NULL}),
	'1', 'and the slot');
$node->stop;

($out, $err) = single_user(q{SELECT * FROM replica_kit.deprovision('replica1')});
unlike($err, qr/ERROR|FATAL|PANIC|hung up/, 'deprovision() works in single-user mode, as a full disk may need it');
is(slurp_file($hba), $before, 'pg_hba.conf is as before');

$node->start;
is($node->safe_psql('postgres', q{SELECT (SELECT count(*) FROM pg_replication_slots) + (SELECT count(*) FROM pg_roles WHERE rolname = 'replica1')}),
	'0', 'slot and role are gone');
$node->stop;
done_testing();
