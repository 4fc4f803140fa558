# Paths at and around every limit: of PostgreSQL's own buffers (MAXPGPATH,
# 1024), of the file system's names (255) and paths (4095), of a socket's
# address (107).  Nothing is cut: it works, or is refused with the reason.

use strict;
use warnings FATAL => 'all';

use File::Basename;
use File::Spec::Functions qw(rel2abs);
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $test_dir = rel2abs(dirname(__FILE__) . '/../test');
my $node = PostgreSQL::Test::Cluster->new('paths');
$node->init(allows_streaming => 1);
$node->append_conf('postgresql.conf', "listen_addresses = '127.0.0.1'\n");
my $link = $node->data_dir . '/pg_hba.conf';
my $rules = "local all all trust\nlocal replication all trust\n";
$node->start;
$node->safe_psql('postgres', <<"SQL");
CREATE EXTENSION pg_replica_kit;
CREATE FUNCTION hba_test_replace(text, text, text, text)
	RETURNS text AS '$test_dir/hba_test.so' LANGUAGE C STRICT;
SQL

my $top = PostgreSQL::Test::Utils::tempdir;

sub put
{
	my ($name, $contents) = @_;

	open(my $fh, '>:raw', $name) or die "could not open $name: $!";
	print $fh $contents;
	close($fh) or die "could not write $name: $!";
	return;
}

# A new folder below which a file of this name has a path of so many bytes.
my $folders = 0;

sub folder_for
{
	my ($length, $name) = @_;
	my $folder = "$top/" . $folders++;

	mkdir $folder or die "could not make $folder: $!";
	while ((my $rest = $length - length("$folder/$name")) > 0)
	{
		my $step = $rest <= 201 ? $rest - 1 : $rest < 210 ? 100 : 200;
		die "no folder for a path of $length bytes" if $step < 1;
		$folder .= '/' . 'd' x $step;
		mkdir $folder or die "could not make a folder: $!";
	}
	return $folder;
}

# Have pg_hba.conf be a link to the file, by way of others.
sub point_to
{
	my (@links) = @_;

	unlink $link;
	symlink shift(@links), $link or die "could not link $link: $!";
	return;
}

sub beside
{
	my ($folder, $name) = @_;

	opendir(my $dir, $folder) or die "could not open a folder: $!";
	return join ' ', sort grep { !/^\.\.?$/ && $_ ne $name } readdir $dir;
}

# One call; what the client was told.
sub call
{
	my ($sql) = @_;
	my ($stdout, $stderr);

	$node->psql('postgres', $sql, stdout => \$stdout, stderr => \$stderr);
	return $stderr;
}

sub is_ok
{
	my ($what, $file, $folder, $name) = @_;

	# What is not ours may have any name that ours begins with.
	my @foreign = grep { length($_) <= 255 && length("$folder/$_") < 4096 }
	  map { $name . substr('.pg_replica_kit', 0, $_) } 1 .. 14;
	put("$folder/$_", 'foreign') foreach @foreign;

	is(call(q{SELECT FROM replica_kit.deprovision('nobody')}) =~ /ERROR|WARNING/,
		'', "$what: nothing to do");
	is(-e $file ? slurp_file($file) : 'gone', $rules, 'the file is there and unchanged');
	is(call(q{SELECT FROM replica_kit.provision('r', '127.0.0.1')}) =~ /ERROR|WARNING.*/ ? $& : '',
		'', 'provision');
	is(-e $file ? slurp_file($file) : 'gone',
		"${rules}host replication r 127.0.0.1/32 scram-sha-256  # pg_replica_kit: r\n",
		'adds the line');
	is(call(q{SELECT FROM replica_kit.deprovision('r')}) =~ /ERROR|WARNING.*/ ? $& : '',
		'', 'deprovision');
	is(-e $file ? slurp_file($file) : 'gone', $rules, 'removes it');
	is(beside($folder, $name), join(' ', sort @foreign),
		'no file beside has come or gone');
	unlink map { "$folder/$_" } @foreign;
	return;
}

foreach my $length (1008 .. 1010, 1016, 1022 .. 1026, 2048, 4060)
{
	my $folder = folder_for($length, 'pg_hba.conf');
	my $file = "$folder/pg_hba.conf";

	put($file, $rules);
	is(length $file, $length, "a path of $length bytes");
	point_to($file);
	is_ok("path of $length bytes", $file, $folder, 'pg_hba.conf');
}

# Too long for a name beside it.  The file is refused before anything is done.
foreach my $length (4081, 4095)
{
	my $folder = folder_for($length, 'pg_hba.conf');
	my $file = "$folder/pg_hba.conf";

	put($file, $rules);
	point_to($file);
	like(call(q{SELECT FROM replica_kit.provision('r', '127.0.0.1')}),
		qr/ERROR:  could not create file ".*": File name too long\n.*HINT:  Add this line to ".*" by hand, and use manage_hba => false: host replication r 127\.0\.0\.1/s,
		"path of $length bytes: provision is refused, with the line to add");
	is(slurp_file($file), $rules, 'the file is unchanged');
	is($node->safe_psql('postgres', 'SELECT count(*) FROM pg_replication_slots'), '0', 'there is no slot');
	is(beside($folder, 'pg_hba.conf'), '', 'nothing is left beside the file');
	is(call(q{SELECT FROM replica_kit.deprovision('nobody')}) =~ /ERROR|WARNING/, '', 'nothing to do');
	is(-e $file ? slurp_file($file) : 'gone', $rules, 'and the file is still there');
}

# The longest names.
foreach my $length (229 .. 231, 239 .. 241, 254, 255)
{
	my $name = 'h' x $length;
	my $folder = folder_for(length($top) + 300, $name);
	my $file = "$folder/$name";

	put($file, $rules);
	point_to($file);
	is_ok("name of $length bytes", $file, $folder, $name);

	# What somebody else writes to the old file meanwhile is kept.
	my $sql = "SELECT hba_test_replace('host replication r 10.0.0.1/32 md5', '', "
	  . "\$c\$cd $folder && for f in *; do test \$f = $name || echo '# theirs' >> \$f; done\$c\$, 'finish')";
	is($node->safe_psql('postgres', $sql), 'in place, not finished', 'an edit of the old file is noticed');
	my @kept = split / /, beside($folder, $name);
	is(@kept, 1, 'it is kept');
	is(slurp_file("$folder/$kept[0]"), "$rules# theirs\n", 'with what they wrote');
	call(q{SELECT FROM replica_kit.deprovision('nobody')});
	is(beside($folder, $name), $kept[0], 'and stays');
}

# Two files in one folder that differ in their last byte only have different
# names beside them.
{
	my $folder = folder_for(length($top) + 300, 'h' x 255);
	my @names = map { 'h' x 254 . $_ } 'x', 'y';
	my %seen;

	foreach my $name (@names)
	{
		put("$folder/$name", $rules);
		point_to("$folder/$name");
		$node->safe_psql('postgres',
			"SELECT hba_test_replace('# ours', \$c\$ls $folder > $top/seen\$c\$, '', 'undo')");
		$seen{$_}++ foreach grep { !/^h+[xy]$/ } split /\n/, slurp_file("$top/seen");
	}
	is(scalar(keys %seen), 2, 'no two files share a name beside them');
}

# Links, absolute and relative, one to the other, in folders of long paths.
{
	my $folder = folder_for(1023, 'pg_hba.conf');
	my $file = "$folder/pg_hba.conf";
	my $other = folder_for(1500, 'second');

	put($file, $rules);
	symlink '../' . basename($folder) . '/pg_hba.conf', dirname($folder) . '/first'
	  or die 'first link' if mkdir dirname($folder) . '/x';
	symlink dirname($folder) . '/x/../' . basename($folder) . '/pg_hba.conf', "$other/second" or die 'second link';
	symlink 'second', "$other/third" or die 'third link';
	point_to("$other/third");
	is_ok('three links', $file, $folder, 'pg_hba.conf');
	ok(-l "$other/third" && -l "$other/second" && -l $link, 'the links have stayed');

	my $data = $node->data_dir;
	my $up = join '/', ('..') x (() = $data =~ m!/!g);
	point_to("$up$file");
	is_ok('a relative link', $file, $folder, 'pg_hba.conf');
}

# The setting itself with so long a path.
{
	my $folder = folder_for(1023, 'pg_hba.conf');
	my $file = "$folder/pg_hba.conf";

	put($file, $rules);
	$node->stop;
	$node->append_conf('postgresql.conf', "hba_file = '$file'\n");
	$node->start;
	is_ok('hba_file of 1023 bytes', $file, $folder, 'pg_hba.conf');
	like($node->safe_psql('postgres', q{SELECT file_name FROM replica_kit.hba_match('postgres', '127.0.0.1')}),
		qr/^(?:\Q$file\E)?$/, 'hba_match() names the file');
	$node->stop;
	$node->adjust_conf('postgresql.conf', 'hba_file', "'$top/short'");
	put("$top/short", $rules);
	$node->start;
}

# Where the server is asked whether it has reloaded: at the last place of a
# long list, by a socket whose address is as long as one can be.
{
	my $port = $node->port;
	my $folder = PostgreSQL::Test::Utils::tempdir_short;

	$folder .= '/' . 's' x (107 - length("$folder//.s.PGSQL.$port"));
	mkdir $folder or die "could not make $folder: $!";
	is(length("$folder/.s.PGSQL.$port"), 107, 'a socket with a path of 107 bytes');
	my $long = $folder . 's';
	mkdir $long or die "could not make $long: $!";
	my $nowhere = join ', ', $long, map { "$top/no/" . 'n' x 200 . $_ } 1 .. 40;
	cmp_ok(length $nowhere, '>', 4096, 'after directories without one');
	my $hosts = join ', ', map { "240.0.0.$_" } 1 .. 100;
	cmp_ok(length $hosts, '>', 1024, 'and addresses that are not of this machine');

	$node->stop;
	$node->append_conf('postgresql.conf', "unix_socket_directories = '$nowhere, $folder'\nlisten_addresses = '$hosts, 127.0.0.1'");
	local $ENV{PGHOST} = $folder;
	system_or_bail('pg_ctl', '-s', '-w', '-D', $node->data_dir, '-l', $node->logfile, 'start');
	my $socket = "$folder/.s.PGSQL.$port";
	foreach my $case ([ 'a socket', '' ], [ 'an address', "\\! mv $socket $socket.away\n" ])
	{
		my ($what, $before) = @$case;
		my ($stdout, $stderr);

		put("$top/short", "${rules}host replication r 127.0.0.1/32 scram-sha-256  # pg_replica_kit: r\n");
		IPC::Run::run([ 'psql', '-XAtq', '-p', $port, '-d', 'postgres' ],
			'<', \"${before}SELECT replica_kit.revoke_address('r', '127.0.0.1');\n",
			'>', \$stdout, '2>', \$stderr);
		is("$stdout$stderr", "1\n", "$what is found at the end of a long list");
		is(slurp_file("$top/short"), $rules, 'and the line is gone');
	}
	system_or_bail('pg_ctl', '-s', '-w', '-m', 'fast', '-D', $node->data_dir, 'stop');
}

done_testing();
