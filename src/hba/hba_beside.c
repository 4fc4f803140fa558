/*-------------------------------------------------------------------------
 *
 * hba_beside.c
 *	  Files beside pg_hba.conf: their names, and the attributes they take.
 *
 * Names and attributes are as long as the file system lets them be: a path
 * that is cut names another file.
 *
 * IDENTIFICATION
 *	  src/hba/hba_beside.c
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include <sys/stat.h>
#include <unistd.h>
#ifdef __linux__
#include <sys/xattr.h>
#endif

#include "common/hashfn.h"

#include "hba/hba_beside.h"

/* Of a file system that does not tell its longest name. */
#define USUAL_NAME_MAX	255

/* A dot and 8 digits, in the place of what does not fit. */
#define DIGEST_LEN		9

#ifdef __linux__
static bool copy_xattr(const char *path, const char *name, int fd);
#endif

/*
 * The path of a file beside the one at path (absolute, without symbolic
 * links), whose name is that file's with the suffix; palloc'd.  Always the
 * same for the same path, so that the next call finds what a crash has left.
 *
 * Where the file system does not take so long a name, a hash takes the place
 * of the name's end, so that two files in a directory don't share one.
 */
char *
prk_hba_beside(const char *path, const char *suffix)
{
	const char *name = last_dir_separator(path);
	char	   *directory;
	long		name_max;
	int			keep;

	name = name == NULL ? path : name + 1;
	directory = pnstrdup(path, name - path);
	name_max = pathconf(directory[0] ? directory : ".", _PC_NAME_MAX);
	pfree(directory);
	if (name_max <= 0)
		name_max = USUAL_NAME_MAX;

	keep = (int) (name_max - strlen(suffix) - DIGEST_LEN);
	if (strlen(name) + strlen(suffix) <= (size_t) name_max || keep <= 0)
		return psprintf("%s%s", path, suffix);

	return psprintf("%.*s.%08x%s", (int) (name - path) + keep, path,
					hash_bytes((const unsigned char *) name, strlen(name)),
					suffix);
}

/*
 * Can there be a file of that name?  False with errno: it is too long for the
 * system, or its directory can't be searched.  Looks at the file system only.
 */
bool
prk_hba_beside_is_possible(const char *path)
{
	struct stat st;

	return lstat(path, &st) == 0 || errno == ENOENT;
}

/*
 * Give the open file the owner, mode and access list of the one at path, whose
 * stat is given.  False, with errno, if that is not possible: then others
 * could read the new file than the old one.
 *
 * What users have attached is copied, too, as far as that is possible.  Labels
 * of security modules are left to the policy, which gives one to each file
 * that is created in the directory.
 *
 * Allocates as much as the attributes take; raises nothing else.
 */
bool
prk_hba_beside_attributes(const char *path, const struct stat *old, int fd)
{
	struct stat now;

	if (fstat(fd, &now) != 0 ||
		((now.st_uid != old->st_uid || now.st_gid != old->st_gid) &&
		 fchown(fd, old->st_uid, old->st_gid) != 0) ||
		fchmod(fd, old->st_mode & 07777) != 0)
		return false;

#ifdef __linux__
	if (!copy_xattr(path, "system.posix_acl_access", fd))
		return false;
	else
	{
		ssize_t		size = listxattr(path, NULL, 0);
		char	   *names = size > 0 ? palloc(size) : NULL;
		ssize_t		len = size > 0 ? listxattr(path, names, size) : 0;

		for (char *name = names; len > 0 && name < names + len;
			 name += strlen(name) + 1)
		{
			if (strncmp(name, "user.", strlen("user.")) == 0 &&
				!copy_xattr(path, name, fd))
				ereport(DEBUG1,
						(errmsg_internal("could not copy attribute \"%s\" of file \"%s\": %m",
										 name, path)));
		}
		if (names != NULL)
			pfree(names);
	}
#endif
	return true;
}

#ifdef __linux__
/*
 * Copy one attribute of the file at path to the open file.  True also if it
 * has none of that name.
 */
static bool
copy_xattr(const char *path, const char *name, int fd)
{
	for (;;)
	{
		ssize_t		size = getxattr(path, name, NULL, 0);
		char	   *value;
		ssize_t		len;
		bool		done;
		int			save_errno;

		if (size < 0)
			return errno == ENODATA || errno == ENOTSUP;
		value = palloc(size + 1);
		len = getxattr(path, name, value, size + 1);
		done = len >= 0 && fsetxattr(fd, name, value, len, 0) == 0;
		save_errno = errno;
		pfree(value);
		errno = save_errno;

		/* it may have grown between the two calls */
		if (len >= 0 || errno != ERANGE)
			return done;
	}
}
#endif
