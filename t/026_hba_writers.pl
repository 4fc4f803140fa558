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

$node->stop;
done_testing();
