# doc/alerting.md: a replica that stops is told by mail and chat, through Debian's
# own node exporter, Prometheus and Alertmanager with the files in monitoring/, and
# by the page's command that follows the server's log.  The other ends of mail and
# chat are the test's.

use strict;
use warnings FATAL => 'all';

use FindBin;
use lib $FindBin::RealBin;

use DiagKit;
use Outside;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes ();

my $monitoring = "$FindBin::RealBin/../monitoring";
my $page = slurp_file("$FindBin::RealBin/../doc/alerting.md");
# a directory of its own, since others have files of these names
my $dir = PostgreSQL::Test::Utils::tempdir;

my ($prefix) = $page =~ /^(log_line_prefix = .*)$/m or die 'no prefix';
my $primary = new_primary('primary', 'autovacuum = off', $prefix, 'replica_kit.warning_disconnected = 500ms', 'replica_kit.critical_disconnected = 3s');
my ($standby) = new_standby($primary, 'replica1');
$primary->safe_psql('postgres', 'CREATE ROLE watcher LOGIN IN ROLE pg_monitor');
soon_is($primary, q{SELECT alert FROM replica_kit.status()}, 'ok', 'the worker watches the replica');

# Waits until a file has that.
sub comes
{
	my ($file, $pattern, $what, $meanwhile) = @_;

	for (1 .. 5 * $PostgreSQL::Test::Utils::timeout_default)
	{
		last if -e $file && slurp_file($file) =~ $pattern;
		$meanwhile->() if $meanwhile;
		Time::HiRes::usleep(200_000);
	}
	like(-e $file ? slurp_file($file) : '', $pattern, $what);
	return;
}

# ----------------------------------------------------------------------
# The log
# ----------------------------------------------------------------------

# What stands for mail(1) says what it was called with, and what it got.
my $mails = "$dir/mails";
mkdir "$dir/bin" or die "bin: $!";
append_to_file("$dir/bin/mail", "#!/bin/sh\n{ echo \"mail \$*\"; cat; } >>'$mails'\n");
chmod 0755, "$dir/bin/mail" or die "mail: $!";
my ($follow) = $page =~ /^```sh\n(tail .*?)^```$/ms or die 'no command';
$follow =~ s!/var/log/postgresql/postgresql-15-main\.log!$primary->logfile!e or die 'no log';
my $follower = fork // die "fork: $!";
if ($follower == 0)
{
	setpgrp;
	$ENV{PATH} = "$dir/bin:$ENV{PATH}";
	exec 'sh', '-c', $follow or exit 127;
}

END
{
	my $status = $?;

	kill 'KILL', -$follower if $follower;
	$? = $status;
}

# Does tail have the log open?  It begins at the end, so nothing may come before.
sub follows
{
	my ($log) = @_;

	for (1 .. 10 * $PostgreSQL::Test::Utils::timeout_default)
	{
		foreach my $link (glob '/proc/[0-9]*/fd/[0-9]*')
		{
			next if (readlink($link) // '') ne $log;
			my ($process) = $link =~ m!^(/proc/\d+)!;
			return 1 if (readlink("$process/exe") // '') =~ /tail$/;
		}
		Time::HiRes::usleep(100_000);
	}
	return 0;
}
ok(follows($primary->logfile), 'the log: the command follows it');

# ----------------------------------------------------------------------
# Prometheus and Alertmanager
# ----------------------------------------------------------------------

my %programs = map { my $path = outside_program($_); defined $path ? ($_ => $path) : () }
  qw(prometheus-node-exporter prometheus prometheus-alertmanager amtool);
# the package of Debian knows its template by this name alone
my $have_all = keys %programs == 4 && -e '/usr/share/prometheus/alertmanager/default.tmpl';
my ($mailbox, $chat, $textfile) = ("$dir/mailbox", "$dir/chat", "$dir/textfile/replica_kit.prom");
my $alertmanager;

# What the timer does.
sub write_textfile
{
	system_or_bail("$monitoring/replica_kit_textfile", $textfile, '-d', $primary->connstr('postgres'), '-U', 'watcher');
	return;
}

if ($have_all)
{
	my %port = map { $_ => PostgreSQL::Test::Cluster::get_free_port() } qw(mail chat node prometheus alertmanager);
	$alertmanager = $port{alertmanager};
	start_mailbox('mailbox', $port{mail}, $mailbox);
	start_webhook('webhook', $port{chat}, $chat);

	# The file as it is, but for addresses and patience.
	my $config = slurp_file("$monitoring/alertmanager.yml");
	foreach (
		[ qr/mail\.example\.com:25/, "127.0.0.1:$port{mail}" ],
		[ qr!https://chat\.example\.com/!, "http://127.0.0.1:$port{chat}/" ],
		[ qr/require_tls: true/, 'require_tls: false' ],
		[ qr/group_wait: 10s/, 'group_wait: 1s' ],
		[ qr/group_interval: 1m/, 'group_interval: 1s' ])
	{
		my ($from, $to) = @$_;
		($config =~ s/$from/$to/) == 1 or die "alertmanager.yml: no $from";
	}
	append_to_file("$dir/alertmanager.yml", $config);
	command_ok([ $programs{amtool}, 'check-config', $_ ], 'Alertmanager: amtool finds nothing wrong') foreach "$monitoring/alertmanager.yml", "$dir/alertmanager.yml";
	start_outside('alertmanager', $programs{'prometheus-alertmanager'}, "--config.file=$dir/alertmanager.yml", "--storage.path=$dir/alertmanager",
		"--web.listen-address=127.0.0.1:$port{alertmanager}", '--cluster.listen-address=');

	mkdir "$dir/textfile" or die "textfile: $!";
	write_textfile();
	start_outside('node_exporter', $programs{'prometheus-node-exporter'}, "--web.listen-address=127.0.0.1:$port{node}", '--collector.disable-defaults',
		'--collector.textfile', "--collector.textfile.directory=$dir/textfile");

	my ($settings) = $page =~ /^```\n(rule_files:.*?)^```$/ms or die 'no settings of Prometheus';
	$settings =~ s!/etc/prometheus/(replica_kit\.rules\.yml)!$monitoring/$1! or die 'no rules';
	$settings =~ s/localhost:9093/127.0.0.1:$port{alertmanager}/ or die 'no address';
	append_to_file("$dir/prometheus.yml", <<~"YAML");
		global:
		  scrape_interval: 1s
		  evaluation_interval: 1s
		scrape_configs:
		  - job_name: node
		    static_configs:
		      - targets: ['127.0.0.1:$port{node}']
		$settings
		YAML
	start_outside('prometheus', $programs{prometheus}, "--config.file=$dir/prometheus.yml", "--storage.tsdb.path=$dir/prometheus",
		"--web.listen-address=127.0.0.1:$port{prometheus}");
	ok(reachable($port{$_}), "Prometheus and Alertmanager: $_ starts") foreach qw(alertmanager node prometheus);
}

# ----------------------------------------------------------------------
# A replica stops, and comes back
# ----------------------------------------------------------------------

# Work that is announced is not told by anybody.
$primary->safe_psql('postgres', q{SELECT replica_kit.silence('replica1')});
$standby->stop;
soon_is($primary, q{SELECT health FROM replica_kit.status()}, 'critical', 'the replica is away for too long');
write_textfile() if $have_all;
is(-e $mails ? slurp_file($mails) : '', '', 'the log: nothing of a replica that is silenced');
$primary->safe_psql('postgres', q{SELECT replica_kit.unsilence('replica1')});

comes($mails, qr/^mail -s PostgreSQL replica dba\@example\.com\n\S+ \S+ \S+ \[\d+\] RK00[12] WARNING:  replica "replica1" (?:warning|critical): disconnected for .*\n.* DETAIL:  Last seen .*\n.* HINT:  Run: SELECT \* FROM replica_kit\.diagnose\('replica1'\);$/m,
	'the log: a mail with the line, its DETAIL and its HINT');

SKIP:
{
	skip 'no Prometheus, node exporter and Alertmanager here', 5 if !$have_all;

	comes($mailbox, qr/^RCPT TO:<dba\@example\.com>.*^Subject: .*FIRING.*Replica replica1 is in a critical state/ms, 'Alertmanager: a mail tells of it', \&write_textfile);
	comes($chat, qr/^POST \/hooks\/REPLACE_ME .*"#databases".*ReplicaCritical replica1.*diagnose\('replica1'\)/m, 'Alertmanager: and the chat', \&write_textfile);

	# The page's own test of the ways.
	my ($add) = $page =~ /^(amtool --alertmanager\.url=.*?)\n```/ms or die 'no test alert';
	$add =~ s/^amtool/$programs{amtool}/;
	$add =~ s/localhost:9093/127.0.0.1:$alertmanager/ or die 'no address';
	command_ok([ 'sh', '-c', $add ], 'Alertmanager: the page\'s test alert is taken');
	comes($mailbox, qr/This is a test/, 'Alertmanager: it comes by mail');
	comes($chat, qr/ReplicaCritical test.*This is a test/, 'Alertmanager: and in the chat');
}

$standby->start;
comes($mails, qr/ RK000 LOG:  replica "replica1" ok: streaming/, 'the log: a mail when it is over');
comes($mailbox, qr/^Subject: .*RESOLVED/m, 'Alertmanager: and one of its', \&write_textfile) if $have_all;
done_testing();
