# silence(): planned work mutes the log, unhealthy() and assert_healthy() of one
# name, and nothing else; what is still wrong afterwards is told then, and what
# cannot be undone at once.

use strict;
use warnings FATAL => 'all';

use FindBin;
use lib $FindBin::RealBin;

use DiagKit;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $primary = new_primary('primary', 'autovacuum = off', 'checkpoint_timeout = 1h', 'max_wal_size = 64MB', 'min_wal_size = 32MB', q{timezone = 'UTC'},
	'replica_kit.alert_after = 0', 'replica_kit.warning_disconnected = 0', 'replica_kit.critical_disconnected = 1h');
my ($standby) = new_standby($primary, 'replica1', 'replica_kit.warning_disconnected = 0', 'replica_kit.alert_after = 0');
my $user = $primary->safe_psql('postgres', 'SELECT session_user');

# What the call says: rows, or the error.
sub answer
{
	my ($node, $sql, @params) = @_;
	my ($stdout, $stderr) = ('', '');
	$node->psql('postgres', $sql, stdout => \$stdout, stderr => \$stderr, extra_params => \@params);
	return $stdout . $stderr;
}

# The lines about a replica, without their times.
sub lines_since
{
	my ($node, $offset) = @_;
	return join ' ', map { /(?:WARNING|LOG):  (?:replica "replica1"|upstream|server) (\w+)/ } split /\n/, slurp_file($node->logfile, $offset);
}

# The replica as each mouth has it: unhealthy(), the level of diagnose(), health
# and alert of status().
my $mouths = q{SELECT (SELECT level FROM replica_kit.unhealthy() WHERE name = 'replica1'),
	(SELECT level FROM replica_kit.diagnose('replica1') WHERE name = 'replica1'),
	(SELECT health || ' ' || alert FROM replica_kit.status() WHERE name = 'replica1')};
soon_is($primary, $mouths, '||ok ok', 'all is well');

# ----------------------------------------------------------------------
# Arguments, and who may
# ----------------------------------------------------------------------

like(answer($primary, qq{SELECT replica_kit.silence('nosuch')}), qr/ERROR:  replica "nosuch" does not exist\n.*HINT:  Replicas are listed by replica_kit\.status\(\)/s,
	'an unknown name is an error');
like(answer($primary, qq{SELECT replica_kit.unsilence('nosuch')}), qr/ERROR:  replica "nosuch" does not exist/, 'to unsilence(), too');
is(answer($primary, q{SELECT replica_kit.unsilence('replica1')}), 'f', 'what is not silenced can be asked for');
like(answer($primary, "SELECT replica_kit.silence('replica1', '$_')"), qr/ERROR:  duration must be at most a day/, "$_ is too long")
  foreach '1 day 1 second', '1 month', '178000000 years', '24:00:01';
like(answer($primary, "SELECT replica_kit.silence('replica1', '$_')"), qr/ERROR:  duration must be greater than zero/, "$_ is none")
  foreach '0', '-1 hour', '1 day -25 hours', '-178000000 years';
like(answer($primary, q{SELECT replica_kit.silence('replica1', reason => repeat('x', 160))}), qr/ERROR:  argument "reason" is too long/, 'a reason has a limit');
like(answer($primary, q{SELECT replica_kit.silence(repeat('x', 300))}), qr/ERROR:  argument "name" is too long/, 'a name, too');
like(answer($primary, 'SELECT replica_kit.silence(NULL)'), qr/ERROR:  argument "name" must not be null/, 'and is needed');
like(answer($primary, q{SELECT replica_kit.silence('replica1', NULL)}), qr/ERROR:  argument "duration" must not be null/, 'a duration, too');

# A name that is text for no terminal, and a reason that would be a line of its own.
$primary->safe_psql('postgres', qq{CREATE ROLE "al\tice" LOGIN; GRANT USAGE ON SCHEMA replica_kit TO "al\tice"});
like(answer($primary, q{SELECT replica_kit.silence('replica1')}, '-U', "al\tice"), qr/ERROR:  permission denied for function silence/, 'not everybody may');
$primary->safe_psql('postgres', qq{GRANT EXECUTE ON FUNCTION replica_kit.silence TO "al\tice"});
my $offset = -s $primary->logfile;
like(answer($primary, q{BEGIN; SELECT replica_kit.silence('server', '1 hour', E'x\nWARNING:  all is lost\x1b[2J'); ROLLBACK}, '-U', "al\tice"), qr/^\d{4}-[-\d :+]+$/,
	'whoever is granted EXECUTE may');
is(answer($primary, q{SELECT name, role_name, reason FROM replica_kit.silences()}), 'server|al\x09ice|x\x0aWARNING:  all is lost\x1b[2J',
	'what they are called, and say, is shown as text; a rollback changes nothing');
like(slurp_file($primary->logfile, $offset), qr/LOG:  replica_kit: user "al\\x09ice" silenced server until \d{4}-\d\d-\d\d \d\d:\d\d:\d\d \w+: x\\x0aWARNING:  all is lost\\x1b\[2J\n/,
	'and logged so');
unlike(slurp_file($primary->logfile, $offset), qr/^WARNING|\e/m, 'on one line');

# ----------------------------------------------------------------------
# Mute
# ----------------------------------------------------------------------

$offset = -s $primary->logfile;
is(answer($primary, q{SELECT u BETWEEN now() + interval '1 h' AND now() + interval '1 h 1 min' FROM replica_kit.silence('replica1', reason => 'kernel') u}), 't',
	'silence() returns when it ends');
my $until = answer($primary, q{SELECT until FROM replica_kit.silences() WHERE name = 'replica1'});
is(answer($primary, q{SELECT name, since BETWEEN now() - interval '1 min' AND now() + interval '1 s', until - since BETWEEN '59 min 58 s' AND '1 h 2 s', role_name, reason FROM replica_kit.silences() WHERE name <> 'server'}),
	"replica1|t|t|$user|kernel", 'silences() lists it');
my ($at) = $until =~ / (\d\d:\d\d)/;
like(answer($primary, q{SELECT reason FROM replica_kit.status()}), qr/^streaming, .*, silenced until $at by \Q$user\E: kernel$/, 'status() says so');
$standby->stop;
soon_is($primary, $mouths, '|warning|warning warning', 'a replica that is away: judged as ever, and muted');
is($primary->psql('postgres', q{SELECT replica_kit.assert_healthy('warning')}), 0, 'muted for schedulers');
like(answer($primary, q{SELECT evidence FROM replica_kit.diagnose('replica1')}), qr/;\ssilenced until $at by \Q$user\E: kernel$/, 'diagnose() says that it is silenced');
is(lines_since($primary, $offset), '', 'the log has no line');
is(answer($primary, q{SELECT replica_kit.unsilence('server')}), 't', 'the silence of another name ends');
is(answer($primary, $mouths), '|warning|warning warning', 'which changes nothing for this one');

# ----------------------------------------------------------------------
# A clean restart keeps it
# ----------------------------------------------------------------------

$primary->restart;
$standby->start;
soon_is($primary, $mouths, '||ok ok', 'after a restart: the replica is back');
$standby->stop;
soon_is($primary, $mouths, '|warning|warning warning', 'and away again: still muted');
is(answer($primary, q{SELECT until, role_name, reason FROM replica_kit.silences()}), "$until|$user|kernel", 'and for as long');
is(lines_since($primary, $offset), '', 'the log has no line');

# What is still so when it ends is told then.
is(answer($primary, q{SELECT replica_kit.unsilence('replica1')}), 't', 'the silence ends');
ok($primary->wait_for_log(qr/WARNING:  replica "replica1" warning: disconnected for /, $offset), 'what is still so is told');
like(slurp_file($primary->logfile, $offset), qr/LOG:  replica_kit: user "\Q$user\E" ended the silence of replica "replica1"\n/, 'its end is logged');
soon_is($primary, $mouths, 'warning|warning|warning warning', 'each mouth has it again');
isnt($primary->psql('postgres', q{SELECT replica_kit.assert_healthy('warning')}), 0, 'schedulers, too');

# A recovery is told when the log had it otherwise.
$offset = -s $primary->logfile;
is(answer($primary, q{SELECT replica_kit.silence('replica1', '1 day') > now() + interval '23 h'}), 't', 'a day is not too long');
$standby->start;
soon_is($primary, $mouths, '||ok ok', 'a replica that comes back');
is(lines_since($primary, $offset), '', 'in a silence: without a line');
is(answer($primary, q{SELECT extract(epoch FROM replica_kit.silence('replica1', '1 s') - now()) BETWEEN 1 AND 60}), 't', 'a second silence takes the place of the first');
ok($primary->wait_for_log(qr/LOG:  replica_kit: silence of "replica1" has ended\n(?:.*\n)*.*LOG:  replica "replica1" ok: streaming, .* after /, $offset), 'told when the time is over');
is(answer($primary, q{SELECT count(*) FROM replica_kit.silences()}), '0', 'which is the end of it');

# ----------------------------------------------------------------------
# A crash does not
# ----------------------------------------------------------------------

$offset = -s $primary->logfile;
$primary->safe_psql('postgres', q{SELECT replica_kit.silence('upstream', reason => 'nothing comes from there')});
$primary->stop('immediate');
$primary->start;
ok($primary->wait_for_log(qr/LOG:  replica_kit: silences are gone, because the server was not shut down cleanly/, $offset), 'after a crash one line says that it is gone');
is(answer($primary, q{SELECT count(*) FROM replica_kit.silences()}), '0', 'and so it is');
$offset = -s $primary->logfile;
$primary->restart;
$primary->wait_for_log(qr/replica_kit worker started/, $offset);
unlike(slurp_file($primary->logfile, $offset), qr/silences are gone/, 'but not the next time');

# ----------------------------------------------------------------------
# On a standby
# ----------------------------------------------------------------------

my $on_standby = q{SELECT (SELECT level FROM replica_kit.unhealthy() WHERE name = 'upstream'), health, reason ~ 'silenced until \d\d:\d\d by .*: switch$' FROM replica_kit.standby_status()};
soon_is($standby, $on_standby, '|ok|f', 'the standby streams');
$standby->safe_psql('postgres', q{SELECT replica_kit.silence('upstream', '2 h', 'switch')});
$primary->stop;
soon_is($standby, $on_standby, '|warning|t', 'an upstream that is away is muted on a standby');
$standby->safe_psql('postgres', q{SELECT replica_kit.unsilence('upstream')});
soon_is($standby, $on_standby, 'warning|warning|f', 'and then not');
$primary->start;
soon_is($standby, $on_standby, '|ok|f', 'the standby streams again');

# ----------------------------------------------------------------------
# What cannot be undone
# ----------------------------------------------------------------------

$standby->stop;
$primary->safe_psql('postgres', q{SELECT replica_kit.silence('replica1'); ALTER SYSTEM SET max_slot_wal_keep_size = '32MB'; CREATE TABLE w (i int)});
$primary->reload;
$offset = -s $primary->logfile;
$primary->safe_psql('postgres', 'INSERT INTO w VALUES (1); SELECT pg_switch_wal()') for 1 .. 8;
$primary->safe_psql('postgres', 'CHECKPOINT');
soon_is($primary, $mouths, 'critical|critical|critical critical', 'a lost slot breaks through');
ok($primary->wait_for_log(qr/WARNING:  replica "replica1" critical: slot is lost/, $offset), 'in the log, too');

# ----------------------------------------------------------------------
# As many as there is room for
# ----------------------------------------------------------------------

append_to_file($primary->data_dir . '/pg_hba.conf', join '', map { "host replication m$_ 10.0.0.1/32 scram-sha-256  # pg_replica_kit: m$_\n" } 1 .. 128);
$primary->safe_psql('postgres', join ';', map { "SELECT replica_kit.silence('m$_', reason => 'many')" } 1 .. 127);
like(answer($primary, q{SELECT replica_kit.silence('m128')}), qr/ERROR:  too many names are silenced\nDETAIL:  There is room for 128\.\nHINT:  .*unsilence/, 'there is room for so many');
is(answer($primary, q{SELECT count(replica_kit.silence('m127', '1 s'))}), '1', 'one of those can be set again');
soon_is($primary, q{SELECT count(*) FROM replica_kit.silences()}, '127', 'its end makes room');
ok($primary->poll_query_until('postgres', q{SELECT count(replica_kit.silence('m128')) = 1}), 'for another one');
is(answer($primary, q{SELECT count(*) FILTER (WHERE replica_kit.unsilence(name)) FROM replica_kit.silences()}), '128', 'all can be ended at once');

$primary->stop;
done_testing();
