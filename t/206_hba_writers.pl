# Who had pg_hba.conf open to write when it was exchanged writes into the old
# file.  That is waited for, and not lost.

use strict;
use warnings FATAL => 'all';

use IPC::Run;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(usleep);

plan skip_all => 'only Linux tells who has a file open' if $^O ne 'linux';

my $node = PostgreSQL::Test::Cluster->new('primary');
$node->init(allows_streaming => 1);
$node->append_conf('postgresql.conf', "listen_addresses = '127.0.0.1'");
$node->start;
$node->safe_psql('postgres', 'CREATE EXTENSION pg_replica_kit');
my $hba = $node->data_dir . '/pg_hba.conf';
my $before = slurp_file($hba);
my @provision = ('psql', '-XAtq', '-c', q{SELECT FROM replica_kit.provision('r1', '127.0.0.1')}, $node->connstr('postgres'));

# It waits until the other has written, and takes that in.
my ($out, $err) = ('', '');
open my $writer, '>>', $hba or die "could not open \"$hba\": $!";
my $inode = (stat $writer)[1];
my $session = IPC::Run::start(\@provision, '<', \undef, '>', \$out, '2>', \$err);
usleep(10_000) until (stat $hba)[1] != $inode;
usleep(200_000);
ok($session->pumpable, 'provision() waits for who may still write to the old file');
syswrite $writer, "# written late\n";
close $writer;
ok($session->finish, 'and goes on when that one has closed it');
my $now = slurp_file($hba);
like($now, qr/^# written late$/m, 'what was written late is kept');
is(() = $now =~ /# pg_replica_kit: r1$/mg, 1, 'beside the rule, which is there once');
is($now =~ s/^(?:# written late|host .*# pg_replica_kit: r1)\n//mgr, $before, 'and all else');
is_deeply([ map { s/.*\///r } glob "$hba?*" ], [], 'no file is left beside');

# Who never closes it has the file for himself, and keeps it.
$node->safe_psql('postgres', q{SET client_min_messages = warning; SELECT FROM replica_kit.deprovision('r1')});
open $writer, '>>', $hba or die "could not open \"$hba\": $!";
$inode = (stat $writer)[1];
my ($rc, $stdout, $stderr) = $node->psql('postgres', $provision[3]);
isnt($rc, 0, 'provision() does not wait for ever');
like($stderr, qr/file ".*pg_hba\.conf" is open in another program, which may write to it\nHINT:  Try again when that has closed it\./, 'and says why');
is((stat $hba)[1], $inode, 'the file is the one that is open');
syswrite $writer, "# at last\n";
close $writer;
is(slurp_file($hba), "$before# written late\n# at last\n", 'what is written to it then is there, and nothing else');
is($node->safe_psql('postgres', q{SELECT (SELECT count(*) FROM pg_replication_slots), (SELECT count(*) FROM pg_roles WHERE rolname = 'r1')}),
	'0|0', 'nothing is left');
is($node->psql('postgres', $provision[3]), 0, 'it can be tried again');

# Once committed, deprovision() can't fail any more: it says what is left.
open $writer, '>>', $hba or die "could not open \"$hba\": $!";
$now = slurp_file($hba);
($rc, $stdout, $stderr) = $node->psql('postgres', q{SELECT role_dropped FROM replica_kit.deprovision('r1')});
is("$rc|$stdout", '0|t', 'deprovision() is done');
like($stderr, qr/WARNING:  pg_hba\.conf still has lines of the replica: file ".*" is open in another program.*\nHINT:  Run: SELECT \* FROM replica_kit\.deprovision\('r1'\);/,
	'but for the lines');
close $writer;
is(slurp_file($hba), $now, 'the file is as it was');
$node->safe_psql('postgres', q{SELECT * FROM replica_kit.deprovision('r1')});
is(slurp_file($hba), "$before# written late\n# at last\n", 'what it says removes them');

# A cancelled statement does not wait.  (statement_timeout does not count while
# a transaction commits.)
open $writer, '>>', $hba or die "could not open \"$hba\": $!";
$inode = (stat $writer)[1];
($out, $err) = ('', '');
$session = IPC::Run::start(\@provision, '<', \undef, '>', \$out, '2>', \$err);
usleep(10_000) until (stat $hba)[1] != $inode;
$node->safe_psql('postgres', q{SELECT pg_cancel_backend(pid) FROM pg_stat_activity WHERE query ~ 'provision' AND pid <> pg_backend_pid()});
$session->finish;
like($err, qr/ERROR:  canceling statement due to user request/, 'the wait can be cancelled');
is(slurp_file($hba), "$before# written late\n# at last\n", 'and the file is back');
close $writer;

# Who has opened the new file, which then is taken back, is not lost either.
open $writer, '>>', $hba or die "could not open \"$hba\": $!";
$inode = (stat $writer)[1];
($out, $err) = ('', '');
$session = IPC::Run::start(\@provision, '<', \undef, '>', \$out, '2>', \$err);
usleep(10_000) until (stat $hba)[1] != $inode;
open my $other, '>>', $hba or die "could not open \"$hba\": $!";
$session->finish;
like($err, qr/ERROR:  file ".*" is open in another program/, 'provision() gives up');
my ($saved) = $err =~ /WARNING:  pg_hba\.conf could not be put back: another program has edited it meanwhile, see file "(.*)"/;
ok(defined $saved, 'and says where the version is that somebody else may write to') or diag($err);
syswrite $other, "# to the new file\n";
close $_ foreach $writer, $other;
like(slurp_file($saved), qr/^# to the new file$/m, 'there it is') if defined $saved;
is(slurp_file($hba), "$before# written late\n# at last\n", 'the file is the old one');

$node->stop;
done_testing();
