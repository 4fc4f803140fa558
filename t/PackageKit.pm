# Clean copies of the source, built and installed elsewhere.
package PackageKit;

use strict;
use warnings FATAL => 'all';

use Exporter 'import';
use File::Find;
use File::Path qw(make_path);
use File::Copy;
use FindBin;
use PostgreSQL::Test::Utils;

our @EXPORT = qw(pg_config source_files copy_source edit make_elsewhere
  files_below);

my $root = "$FindBin::RealBin/..";

# What the server was built with, such as 'libdir'.
sub pg_config
{
	my ($what) = @_;
	my $program = $ENV{PG_CONFIG} // 'pg_config';

	chomp(my $answer = `$program --$what`);
	return $answer;
}

# Paths of all files below a directory, relative to it.
sub files_below
{
	my ($dir) = @_;
	my @files;

	return unless -d $dir;
	# Other tests come and go in tmp_check.
	find(
		{
			no_chdir => 1,
			wanted => sub {
				return $File::Find::prune = 1 if m!/tmp_check$!;
				push @files, s!^\Q$dir\E/!!r if -f && !-l;
			}
		},
		$dir);
	@files = sort @files;
	return @files;
}

# The files of the source, without what has been built or run in its directory.
sub source_files
{
	return grep {
		!m!^(?:\.git|tmp_|log|results|output_iso|build-)! && !m!\.(?:o|so|bc|d|zip)$!
		  && !m!^(?:regression\.|pg_replica_kit_join\.|src/join/join_text\.inc)!
	} files_below($root);
}

# Those, copied to a new directory.
sub copy_source
{
	my ($to) = @_;

	foreach my $file (source_files())
	{
		make_path("$to/$file" =~ s!/[^/]*$!!r);
		copy("$root/$file", "$to/$file") or die "copy $file: $!";
		chmod +(stat "$root/$file")[2] & 07777, "$to/$file";
	}
	return;
}

# edit FILE, PATTERN, REPLACEMENT: one place of a file.
sub edit
{
	my ($file, $pattern, $replacement) = @_;
	my $text = slurp_file($file);

	($text =~ s/$pattern/$replacement/) == 1 or die "$file: no $pattern";
	open my $out, '>', $file or die "open $file: $!";
	print $out $text;
	close $out;
	return;
}

# make_elsewhere SOURCE, BUILD, DESTDIR: build out of the tree, and install
# below DESTDIR.  The optimizer has nothing to do with what is tested.
sub make_elsewhere
{
	my ($source, $build, $destdir) = @_;
	my @make = (
		'make', '-s', '-C', $build, '-f', "$source/Makefile", "VPATH=$source",
		'with_llvm=no', 'COPT=-O0');

	make_path($build);
	system_or_bail(@make, '-j2');
	system_or_bail(@make, 'install', "DESTDIR=$destdir");
	return;
}

1;
