# Replacing pg_hba.conf as a whole: what stays, what is undone, and what
# happens when somebody else edits the file at the same time.
use strict;
use warnings FATAL => 'all';

use File::Basename;
use File::Spec;
use File::Spec::Functions qw(rel2abs);
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $test_dir = rel2abs(dirname(__FILE__) . '/../test');

# pg_hba.conf is a symbolic link to a file in a folder of its own.
my $node = PostgreSQL::Test::Cluster->new('file');
$node->init;
my $link = $node->data_dir . '/pg_hba.conf';
my $folder = PostgreSQL::Test::Utils::tempdir;
my $path = "$folder/real_hba.conf";
rename $link, $path or die "could not move $link: $!";
symlink $path, $link or die "could not link $link: $!";
$node->start;

my $original = slurp_file($path);
my $line = 'host replication r1 10.0.0.1/32 scram-sha-256';
my ($stdout, $stderr);

sub put
{
	my ($name, $contents) = @_;

	open(my $fh, '>:raw', $name) or die "could not open $name: $!";
	print $fh $contents;
	close($fh) or die "could not write $name: $!";
	return;
}

# Add the line; commands before and after the exchange; undo, finish, error.
sub replace
{
	my ($ending, %commands) = @_;
	my ($before, $after) = map { $_ // '' } @commands{qw(before after)};

	$node->psql(
		'postgres',
		"SELECT hba_test_replace('$line', \$c\$$before\$c\$, \$c\$$after\$c\$, '$ending')",
		stdout => \$stdout,
		stderr => \$stderr);
	return $stdout;
}

# What is in the folder besides the file.
sub others
{
	opendir(my $dir, $folder) or die "could not open $folder: $!";
	return join ' ', sort grep { !/^\./ && $_ ne basename($path) } readdir $dir;
}

sub reset_file
{
	unlink $path;
	put($path, $original);
	chmod 0640, $path;
	return;
}

foreach my $module ('hba_test', 'hba_test_link')
{
	my $way = $module eq 'hba_test' ? 'by exchange' : 'by link and rename';

	$node->safe_psql('postgres', <<"EOSQL");
CREATE OR REPLACE FUNCTION hba_test_replace(text, text, text, text)
	RETURNS text AS '$test_dir/$module.so' LANGUAGE C STRICT;
EOSQL

	# The good case.
	reset_file();
	chmod 0440, $path;
	my @before = stat $path;
	is(replace('finish'), 'in place, finished', "$way: the file is replaced");
	is(slurp_file($path), "$original$line\n", 'it has the new text');
	my @after = stat $path;
	is($after[2], $before[2], 'its mode has stayed, also one that is read-only');
	is("@after[4, 5]", "@before[4, 5]", 'its owner has stayed');
	isnt($after[1], $before[1], 'it is another file');
	ok(-l $link, 'the symbolic link has stayed');
	is(others(), '', 'nothing is left beside it');

	# Undo.
	reset_file();
	chmod 0604, $path;
	utime 1000000000, 1000000000, $path;
	@before = stat $path;
	is(replace('undo'), 'in place, undone', "$way: undo works");
	is(slurp_file($path), $original, 'the text is back');
	@after = stat $path;
	is("@after[1, 2, 4, 5, 7, 9]", "@before[1, 2, 4, 5, 7, 9]",
		'it is the same file, with its times');
	is(others(), '', 'nothing is left beside it');
	replace('error');
	like($stderr, qr/on purpose/, 'an error after the exchange is reported');
	is((stat $path)[1], $before[1], 'and the old file is back');
	is(others(), '', 'nothing is left beside it');
	replace('finish', before => 'false');
	like($stderr, qr/command failed/, 'an error before the exchange, too');
	is((stat $path)[1], $before[1], 'and the old file is untouched');
	is(others(), '', 'nothing is left beside it');

	# A crash left files behind.
	reset_file();
	put("$path.pg_replica_kit", 'left');
	put("$path.pg_replica_kit.old", 'left');
	is(replace('finish'), 'in place, finished',
		"$way: leftovers are no obstacle");
	is(others(), '', 'and are gone');

	# The new file beside does not look like a configuration file.
	reset_file();
	is( replace('undo', before => "ls $folder > $folder.seen"),
		'in place, undone', "$way: look at the folder");
	is( slurp_file("$folder.seen"),
		"real_hba.conf\nreal_hba.conf.pg_replica_kit\n",
		'only the new file is beside, by its fixed name');

	# Somebody edits between reading and exchange.
	my %edit = (
		'an edit in place' => "echo '# theirs' >> $path",
		'an edit of the same size' => "sed 's/Client/client/' $path > $folder/x && cat $folder/x > $path && rm $folder/x",
		'a new file' => "cp $path $folder/x && echo '# theirs' >> $folder/x && mv $folder/x $path",
		'a new file with the same text' => "cp $path $folder/x && mv $folder/x $path",
		'a new mode' => "chmod 0600 $path");
	foreach my $edit (sort keys %edit)
	{
		reset_file();
		my $saved = "cp $path $folder.theirs";
		is(replace('finish', before => "$edit{$edit} && $saved"),
			'changed', "$way: $edit is noticed");
		is(slurp_file($path), slurp_file("$folder.theirs"),
			'and theirs stays');
		is(others(), '', 'nothing is left beside it');
	}

	# Somebody edits between exchange and undo.
	foreach my $edit (sort keys %edit)
	{
		reset_file();
		my $saved = "cp $path $folder.theirs";
		like(replace('undo', after => "$edit{$edit} && $saved"),
			qr/not undone$/, "$way: $edit after the exchange is not undone");
		is(slurp_file($path), slurp_file("$folder.theirs"),
			'and theirs stays');
		is(others(), '', 'nothing is left beside it');
	}
	reset_file();
	is( replace(
			'finish', after => "cp $path $folder/x && mv $folder/x $path"),
		'not in place, finished', "$way: a later file is told from ours");

	# What can't be done is said, with what to do instead.
	reset_file();
	chmod 0555, $folder;
	replace('finish');
	chmod 0755, $folder;
	like(
		$stderr,
		qr/could not create file "\Q$path\E\.pg_replica_kit": Permission denied/,
		"$way: a folder that is closed is an error");
	like(
		$stderr,
		qr/HINT:  Add this line to "\Q$path\E" by hand, and use manage_hba => false: \Q$line\E/,
		'with the line to add');
	put($path, "local all all trust\n\0\n");
	replace('finish');
	like($stderr, qr/contains a zero byte/, 'a zero byte is refused');
	is(others(), '', 'nothing is left beside it');
}

# Access lists.
SKIP:
{
	reset_file();
	skip 'no access lists here', 1
	  if !grep({ -x "$_/setfacl" } File::Spec->path)
	  || system_log('setfacl', '-m', 'u:1:r', $path);
	replace('finish');
	my ($acl) = run_command([ 'getfacl', '-c', $path ]);
	like($acl, qr/^user:[^:]+:r--$/m, 'the access list has stayed');
}

$node->stop;
done_testing();
