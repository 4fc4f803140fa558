# What the script demands of whoever answers: the rule that the kit has made
# asks for SCRAM, so nothing else gets a password; and TLS, where it was said.
use strict;
use warnings FATAL => 'all';

use FindBin;
use lib $FindBin::RealBin;

use HostileUpstream;
use JoinKit;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my %env = (PGPASSWORD => 'secret-word-1');
my ($code, $out, $err);
my $number = 0;
$JoinKit::allow_risk = 0;

my $tls = new_upstream('with_tls', 'wal_retrieve_retry_interval = 100ms');
enable_tls($tls);
my $plain = new_upstream('without_tls');

# What the script of a replica says of it.
sub facts
{
	my ($node, $name) = @_;
	return join ' ', slurp(write_script($node, $name)) =~ /^(prk_(?:auth|tls)='.*')$/mg;
}

# The primary_conninfo in a replica's directory.
sub primary_conninfo
{
	my ($node) = @_;
	my ($line) = slurp($node->data_dir . '/postgresql.auto.conf') =~ /^primary_conninfo = (.*)$/m;
	return $line;
}

# Makes a replica: its node; exit code and words as run_script() has them.
sub make
{
	my ($upstream, $name, $environment, @args) = @_;
	my $replica = new_replica($name . '_' . ++$number);
	($code, $out, $err) = run_script(write_script($upstream, $name),
		$environment, '--pgdata', $replica->data_dir, '--port',
		$replica->port, @args);
	return $replica;
}

# ----------------------------------------------------------------------
# What the script knows
# ----------------------------------------------------------------------
$tls->safe_psql('postgres', q{
	SELECT replica_kit.provision('secure', '127.0.0.1', password => 'secret-word-1', require_ssl => true);
	SELECT replica_kit.provision('either', '127.0.0.1', password => 'secret-word-1');
	SELECT replica_kit.provision('foreign', '127.0.0.1', password => 'secret-word-1', manage_hba => false);
	SELECT replica_kit.provision('both', '127.0.0.1', password => 'secret-word-1', require_ssl => true);
	SELECT replica_kit.provision('both', '127.0.0.2')});
is(facts($tls, 'secure'), q{prk_auth='scram-sha-256' prk_tls='require'},
	'require_ssl: SCRAM over TLS is demanded');
is(facts($tls, 'either'), q{prk_auth='scram-sha-256' prk_tls=''},
	'without it: SCRAM');
is(facts($tls, 'both'), q{prk_auth='scram-sha-256' prk_tls=''},
	'with both kinds of lines: SCRAM');
is(facts($tls, 'foreign'), q{prk_auth='' prk_tls=''},
	'somebody else\'s rule: nothing');

# A line that wins over ours, for one of its addresses.
my $hba = $tls->data_dir . '/pg_hba.conf';
my $text = slurp($hba);
foreach my $line ('host replication either 127.0.0.0/24 md5',
	'hostssl replication all 127.0.0.1/32 cert')
{
	unlink $hba;
	append_to_file($hba, "$line\n$text");
	is(facts($tls, 'either'), q{prk_auth='' prk_tls=''},
		"below \"$line\": nothing");
}
unlink $hba;
append_to_file($hba, "hostnossl all all 0.0.0.0/0 reject\n$text");
is(facts($tls, 'either'), q{prk_auth='scram-sha-256' prk_tls=''},
	'below a line that rejects: SCRAM');
unlink $hba;
append_to_file($hba, $text);

# ----------------------------------------------------------------------
# With TLS
# ----------------------------------------------------------------------
my $secure = make($tls, 'secure', { %env, PGSSLMODE => 'prefer' });
is($code, 0, 'over TLS the replica is made, without any option');
adopt_replica($secure);
like(primary_conninfo($secure), qr/ sslmode=''require'' channel_binding=''require''/,
	'its own connection demands TLS, and the server\'s proof, whatever weaker thing the environment says');
is( $tls->safe_psql('postgres',
		"SELECT ssl FROM pg_stat_ssl JOIN pg_stat_replication USING (pid) WHERE application_name = 'secure'"),
	't', 'it streams over TLS');
is(primary_conninfo($secure) =~ / require_auth=''scram-sha-256''/ ? 1 : 0,
	knows_require_auth(), 'it demands SCRAM where libpq can');

my $either = make($tls, 'either', \%env, '--no-start');
is($code, 0, 'where TLS is not demanded, the replica is made over TLS, too');
like(primary_conninfo($either),
	knows_require_auth() ? qr/ require_auth=''scram-sha-256''/ : qr/ channel_binding=''require''/,
	'what it demands is SCRAM');
unlike(primary_conninfo($either), qr/sslmode/, 'and TLS is not');

my $both = make($tls, 'both',
	{ %env, PGSSLMODE => 'verify-ca', PGSSLROOTCERT => $tls->data_dir . '/server.crt' }, '--no-start');
is($code, 0, 'with a stronger sslmode in the environment it is made');
like(primary_conninfo($both), qr/ sslmode=''verify-ca''/, 'and keeps that');

# Its WAL receiver meets one who asks for the password in clear text.
my $hostile = HostileUpstream->new('127.0.0.1', $tls->port);
$secure->stop;
my $auto = slurp($secure->data_dir . '/postgresql.auto.conf');
$auto =~ s/port=\d+/port=@{[ $hostile->port ]}/;
$auto =~ s/sslmode=''require''/sslmode=''prefer''/;
unlink $secure->data_dir . '/postgresql.auto.conf';
append_to_file($secure->data_dir . '/postgresql.auto.conf', $auto);
$hostile->be_hostile({ question => 'any_startup', act => 'clear_text' });
$secure->start;
ok($secure->wait_for_log(qr/FATAL:  (?:streaming replication receiver "\w+" )?could not connect to the primary server: .*(?:channel binding required|authentication method requirement)/),
	'the WAL receiver refuses to send it');
unlike($hostile->heard, qr/secret-word/, 'and has not sent it');
$secure->stop('immediate');
$hostile->stop;

# ----------------------------------------------------------------------
# Without TLS
# ----------------------------------------------------------------------
$plain->safe_psql('postgres',
	"SELECT replica_kit.provision('plain', '127.0.0.1', password => 'secret-word-1')");
if (knows_require_auth())
{
	my $replica = make($plain, 'plain', \%env, '--no-start');
	is($code, 0, 'without TLS: made, since libpq insists on SCRAM');
	like(primary_conninfo($replica), qr/ require_auth=''scram-sha-256''/,
		'its own connection does');
	unlike(primary_conninfo($replica), qr/channel_binding/,
		'and asks for no channel binding');
}
else
{
	my $replica = make($plain, 'plain', \%env, '--no-start');
	is($code, 5, 'without TLS: refused, since libpq 15 cannot insist on SCRAM');
	like($err, qr/^hint: .*ssl .*libpq 16.*--allow-cleartext-risk/m,
		'the hint names the ways out');
	ok(!-e $replica->data_dir, 'nothing is made');
	($code, $out, $err) = run_script(write_script($plain, 'plain'), \%env,
		'--pgdata', $replica->data_dir, '--port', $replica->port,
		'--no-start', '--allow-cleartext-risk');
	is($code, 0, 'with --allow-cleartext-risk: made');
	unlike(primary_conninfo($replica), qr/channel_binding|require_auth/,
		'its own connection takes that risk, too');
	make($tls, 'foreign', { %env, PGREQUIREAUTH => 'scram-sha-256' }, '--dry-run');
	is($code, 3, 'PGREQUIREAUTH is not ignored');
	like($err, qr/PGREQUIREAUTH is set, but libpq here does not know it/, 'it says so');
}
make($tls, 'foreign', \%env, '--dry-run');
is($code, 0, 'somebody else\'s rule: nothing is demanded');

$tls->stop;
$plain->stop;
done_testing();
