/*-------------------------------------------------------------------------
 *
 * hba_file.c
 *	  Replace pg_hba.conf as a whole, so that it can be put back.
 *
 * The new file is written beside the old one, with its owner and mode, and
 * synced; then both exchange their names in one system call.  So
 *
 * - at every instant there is a complete file under the name, also after a
 *   crash;
 *
 * - the file that was displaced is at hand and can be compared with what was
 *   read, so that nobody's edit in between is lost;
 *
 * - to undo is to exchange the names again: it takes no space, and gives back
 *   the very file that was there, with its owner, mode and times.
 *
 * Where the names can't be exchanged (an old kernel, some file systems), a
 * second name is given to the old file first, and the new one renamed over
 * it; an edit in the instant between these two calls would be lost.
 *
 * durable_rename() is not used: it opens the target for writing, which a
 * file of mode 0440 refuses, and may raise an error after it has renamed.
 *
 * The files beside have fixed names, for one that a crash left behind to be
 * found and removed the next time.  They do not end in ".conf", or
 * include_dir could pick them up.
 *
 * IDENTIFICATION
 *	  src/hba/hba_file.c
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>
#ifdef __linux__
#include <sys/syscall.h>
#endif

#include "miscadmin.h"
#include "storage/fd.h"
#include "utils/guc.h"
#include "utils/memutils.h"

#include "hba/hba_beside.h"
#include "hba/hba_file.h"
#include "hba/hba_same.h"

#ifndef RENAME_EXCHANGE
#define RENAME_EXCHANGE	(1 << 1)
#endif

/* How far it has got; says what undo and finish have to do. */
typedef enum PrkHbaFileStage
{
	PRK_HBA_FILE_UNTOUCHED,		/* nothing of ours is on disk */
	PRK_HBA_FILE_PREPARED,		/* the new file is beside */
	PRK_HBA_FILE_EXCHANGED		/* the new file is in place, the old beside */
} PrkHbaFileStage;

struct PrkHbaFile
{
	MemoryContext context;		/* all members are in it */
	PrkHbaFileStage stage;
	char	   *path;			/* HbaFileName without symbolic links */
	char	   *directory;		/* the one that path is in */
	char	   *new_path;		/* the new file, until the exchange */
	char	   *old_path;		/* second name of the old file, if needed */
	char	   *saved_path;		/* for an old file that somebody has edited */
	const char *saved;			/* where that is now; NULL: nowhere */
	const char *displaced;		/* where the old file is after it */
	char	   *contents;		/* as read, zero-terminated */
	off_t		len;
	struct stat old_stat;		/* of what was read */
	char	   *new_contents;	/* as written */
	off_t		new_len;
	struct stat new_stat;		/* of what was written */
	char	   *rule;			/* for messages; may be NULL */
};

static void read_bytes(PrkHbaFile *file);
static int	create_new(PrkHbaFile *file);
static void keep_attributes(PrkHbaFile *file, int fd);
static void give_up_new(PrkHbaFile *file, int fd);
static int	exchange_names(const char *one, const char *other);
static bool displace_by_link(PrkHbaFile *file);
static bool is_what_was_read(const PrkHbaFile *file, const char *path);
static bool is_ours(const PrkHbaFile *file, const char *path);
static bool put_back(PrkHbaFile *file);
static bool remove_displaced(PrkHbaFile *file);
static void save_displaced(PrkHbaFile *file);
static bool sync_directory(const PrkHbaFile *file);
static int	errdetail_replace(int errnum);
static int	errhint_by_hand(const PrkHbaFile *file);

/*
 * Read pg_hba.conf, following symbolic links.  The result lives in the given
 * context, which must outlive the calls of undo and finish.
 */
PrkHbaFile *
prk_hba_file_read(MemoryContext context)
{
	MemoryContext oldcontext = MemoryContextSwitchTo(context);
	PrkHbaFile *file = palloc0_object(PrkHbaFile);
	char	   *resolved = realpath(HbaFileName, NULL);

	if (resolved == NULL)
		ereport(ERROR,
				(errcode_for_file_access(),
				 errmsg("could not find file \"%s\": %m", HbaFileName)));
	file->context = context;
	file->path = pstrdup(resolved);
	free(resolved);
	file->directory = pstrdup(file->path);
	get_parent_directory(file->directory);
	file->new_path = prk_hba_beside(file->path, PRK_HBA_FILE_NEW);
	file->old_path = prk_hba_beside(file->path, PRK_HBA_FILE_OLD);
	file->saved_path = prk_hba_beside(file->path,
									  psprintf(".edited.%d.%ld", MyProcPid,
											   (long) time(NULL)));
	read_bytes(file);

	MemoryContextSwitchTo(oldcontext);
	return file;
}

/*
 * The rule that is to be added, without mark, for the hint of errors: what to
 * add by hand.  Without it the hint is about removing.
 */
void
prk_hba_file_set_rule(PrkHbaFile *file, const char *rule)
{
	file->rule = MemoryContextStrdup(file->context, rule);
}

/* What was read. */
const char *
prk_hba_file_text(const PrkHbaFile *file)
{
	return file->contents;
}

/* The file itself, symbolic links resolved. */
const char *
prk_hba_file_path(const PrkHbaFile *file)
{
	return file->path;
}

/*
 * Write the new file beside the old one, complete and synced, with the same
 * owner, mode and access list.  An error leaves nothing behind.
 */
void
prk_hba_file_prepare(PrkHbaFile *file, const char *contents)
{
	int			fd;

	Assert(file->stage == PRK_HBA_FILE_UNTOUCHED);

	file->new_contents = MemoryContextStrdup(file->context, contents);
	file->new_len = strlen(contents);
	fd = create_new(file);
	keep_attributes(file, fd);

	errno = 0;
	for (off_t done = 0; done < file->new_len;)
	{
		ssize_t		written = write(fd, contents + done,
									file->new_len - done);

		if (written < 0 && errno == EINTR)
			continue;
		if (written <= 0)
		{
			/* if write didn't set errno, assume problem is no disk space */
			if (errno == 0)
				errno = ENOSPC;
			give_up_new(file, fd);
			prk_hba_file_refuse(file, "write to",
								file->new_path);
		}
		done += written;
	}

	if (pg_fsync(fd) != 0 || fstat(fd, &file->new_stat) != 0)
	{
		give_up_new(file, fd);
		prk_hba_file_refuse(file, "fsync",
							file->new_path);
	}
	if (CloseTransientFile(fd) != 0)
	{
		give_up_new(file, -1);
		prk_hba_file_refuse(file, "close",
							file->new_path);
	}
	file->stage = PRK_HBA_FILE_PREPARED;
}

/* Where the new file is between prepare and exchange. */
const char *
prk_hba_file_candidate(const PrkHbaFile *file)
{
	return file->new_path;
}

/*
 * Put the new file in the place of the old one.  False if the old one is no
 * longer what was read; then nothing has changed, and the caller reads again.
 *
 * An error may come after the exchange, too: the caller answers any error
 * with undo.
 */
bool
prk_hba_file_exchange(PrkHbaFile *file)
{
	Assert(file->stage == PRK_HBA_FILE_PREPARED);

	/* so that a reader rarely sees our version and then the old one again */
	if (!is_what_was_read(file, file->path))
	{
		prk_hba_file_undo(file);
		return false;
	}

	if (exchange_names(file->new_path, file->path) == 0)
	{
		file->stage = PRK_HBA_FILE_EXCHANGED;
		file->displaced = file->new_path;
		if (!is_what_was_read(file, file->displaced))
		{
			if (!put_back(file) &&
				(file->saved || file->stage != PRK_HBA_FILE_UNTOUCHED))
				ereport(ERROR,
						(errcode(ERRCODE_OBJECT_IN_USE),
						 errmsg("could not put back file \"%s\"", file->path),
						 errdetail("Somebody else has changed the file at the same time; their version is in \"%s\".",
								   file->saved ? file->saved :
								   file->displaced)));
			return false;
		}
	}
	else if (errno == ENOSYS || errno == EINVAL || errno == EPERM)
	{
		if (!displace_by_link(file))
		{
			prk_hba_file_undo(file);
			return false;
		}
	}
	else
		prk_hba_file_refuse(file, "replace",
							file->path);

	if (!sync_directory(file))
		ereport(ERROR,
				(errcode_for_file_access(),
				 errmsg("could not fsync directory \"%s\": %m",
						file->directory)));
	return true;
}

/* Is the file that we put there still the one in place, and unchanged? */
bool
prk_hba_file_in_place(const PrkHbaFile *file)
{
	return file->stage == PRK_HBA_FILE_EXCHANGED && is_ours(file, file->path);
}

/*
 * Is the old file still open for writing in a process that opened it before
 * the exchange?  What that process writes is still to come; nobody else can
 * open the file, since it has no name any more.
 */
bool
prk_hba_file_old_awaits(const PrkHbaFile *file)
{
	return file->stage == PRK_HBA_FILE_EXCHANGED &&
		prk_hba_same_awaits(file->displaced);
}

/* Is the old one still what was read? */
bool
prk_hba_file_old_untouched(const PrkHbaFile *file)
{
	return file->stage == PRK_HBA_FILE_EXCHANGED &&
		is_what_was_read(file, file->displaced);
}

/*
 * Undo what has been done so far, at whatever stage.  False if that could not
 * be done: somebody else has edited or replaced the file since (then theirs
 * stays), or the file system refuses.  Never raises an error.
 */
bool
prk_hba_file_undo(PrkHbaFile *file)
{
	bool		done = true;

	switch (file->stage)
	{
		case PRK_HBA_FILE_UNTOUCHED:
			break;
		case PRK_HBA_FILE_PREPARED:
			done = unlink(file->new_path) == 0 || errno == ENOENT;
			file->stage = PRK_HBA_FILE_UNTOUCHED;
			break;
		case PRK_HBA_FILE_EXCHANGED:
			done = put_back(file);
			break;
	}
	return done;
}

/*
 * The change stays: remove the old file.  False if it is still there, or if
 * that is not known to be on disk.  Never raises an error.
 */
bool
prk_hba_file_finish(PrkHbaFile *file)
{
	bool		done;

	if (file->stage != PRK_HBA_FILE_EXCHANGED)
		return prk_hba_file_undo(file);

	done = remove_displaced(file);
	file->stage = PRK_HBA_FILE_UNTOUCHED;
	return sync_directory(file) && done;
}

/* After finish or undo: where an edit by somebody else is kept, or NULL. */
const char *
prk_hba_file_saved(const PrkHbaFile *file)
{
	return file->saved;
}

/* Fill in text, len and old_stat. */
static void
read_bytes(PrkHbaFile *file)
{
	int			fd = OpenTransientFile(file->path, O_RDONLY | PG_BINARY);
	off_t		done = 0;
	char	   *contents;

	if (fd < 0 || fstat(fd, &file->old_stat) != 0)
		ereport(ERROR,
				(errcode_for_file_access(),
				 errmsg("could not open file \"%s\": %m", file->path)));
	if (!S_ISREG(file->old_stat.st_mode))
		ereport(ERROR,
				(errcode(ERRCODE_WRONG_OBJECT_TYPE),
				 errmsg("\"%s\" is not a regular file", file->path)));
	if (file->old_stat.st_size >= (off_t) (MaxAllocSize / 2))
		ereport(ERROR,
				(errcode(ERRCODE_PROGRAM_LIMIT_EXCEEDED),
				 errmsg("file \"%s\" is too large", file->path)));

	contents = palloc(file->old_stat.st_size + 1);
	while (done < file->old_stat.st_size)
	{
		ssize_t		got = read(fd, contents + done,
							   file->old_stat.st_size - done);

		if (got < 0 && errno == EINTR)
			continue;
		if (got < 0)
			ereport(ERROR,
					(errcode_for_file_access(),
					 errmsg("could not read file \"%s\": %m", file->path)));
		if (got == 0)
			break;				/* cut meanwhile: the exchange will notice */
		done += got;
	}
	contents[done] = '\0';
	file->contents = contents;
	file->len = done;
	CloseTransientFile(fd);

	if (strlen(contents) != (size_t) done)
		ereport(ERROR,
				(errcode(ERRCODE_CONFIG_FILE_ERROR),
				 errmsg("file \"%s\" contains a zero byte", file->path),
				 errdetail("The server ignores what follows a zero byte in its line, so the file cannot be edited safely.")));
}

/*
 * Create the new file, empty and closed to all others; a transient file.  All
 * names that may be needed later are tried now, while nothing has been done.
 */
static int
create_new(PrkHbaFile *file)
{
	int			fd = -1;

	if (prk_hba_beside_is_possible(file->saved_path) &&
		(unlink(file->new_path) == 0 || errno == ENOENT) &&
		(unlink(file->old_path) == 0 || errno == ENOENT))
		fd = OpenTransientFilePerm(file->new_path,
								   O_CREAT | O_EXCL | O_WRONLY | PG_BINARY,
								   S_IRUSR | S_IWUSR);
	if (fd < 0)
		prk_hba_file_refuse(file, "create",
							file->new_path);
	return fd;
}

/*
 * Give the new file the old one's owner, mode and access list, or refuse:
 * who could read the file before must be able to read it afterwards, and
 * nobody else.
 */
static void
keep_attributes(PrkHbaFile *file, int fd)
{
	const struct stat *old = &file->old_stat;

	if (!prk_hba_beside_attributes(file->path, old, fd))
	{
		int			save_errno = errno;

		give_up_new(file, fd);
		errno = save_errno;
		ereport(ERROR,
				(errcode_for_file_access(),
				 errmsg("could not keep owner and mode of file \"%s\": %m",
						file->path),
				 errdetail("The file belongs to user ID %u and group ID %u, the server runs as user ID %u.",
						   (unsigned int) old->st_uid,
						   (unsigned int) old->st_gid,
						   (unsigned int) geteuid()),
				 errhint_by_hand(file)));
	}
}

/* Close (not -1) and remove the new file, before an error is raised. */
static void
give_up_new(PrkHbaFile *file, int fd)
{
	int			save_errno = errno;

	if (fd >= 0)
		CloseTransientFile(fd);
	unlink(file->new_path);
	errno = save_errno;
}

/*
 * Raise an error about a file, errno's, that says what to do instead.  action
 * is what failed, as in "could not write to file".
 */
void
prk_hba_file_refuse(const PrkHbaFile *file, const char *action, const char *path)
{
	int			save_errno = errno;

	ereport(ERROR,
			(errcode_for_file_access(),
			 errmsg("could not %s file \"%s\": %m", action, path),
			 errdetail_replace(save_errno),
			 errhint_by_hand(file)));
}

/*
 * Let two files exchange their names.  As rename(): 0, or -1 and errno, which
 * is ENOSYS where that does not exist.
 */
static int
exchange_names(const char *one, const char *other)
{
#ifdef SYS_renameat2
	return syscall(SYS_renameat2, AT_FDCWD, one, AT_FDCWD, other,
				   RENAME_EXCHANGE);
#else
	errno = ENOSYS;
	return -1;
#endif
}

/*
 * The second best to exchange_names().  False if the file is no longer what
 * was read.
 */
static bool
displace_by_link(PrkHbaFile *file)
{
	int			save_errno;

	if (link(file->path, file->old_path) == 0)
	{
		if (!is_what_was_read(file, file->old_path))
		{
			unlink(file->old_path);
			return false;
		}
		if (rename(file->new_path, file->path) == 0)
		{
			file->stage = PRK_HBA_FILE_EXCHANGED;
			file->displaced = file->old_path;
			return true;
		}
	}

	save_errno = errno;
	unlink(file->old_path);
	errno = save_errno;
	prk_hba_file_refuse(file, "replace",
						file->path);
	return false;				/* silence compiler */
}

/* Is that the file that was read, unchanged? */
static bool
is_what_was_read(const PrkHbaFile *file, const char *path)
{
	return prk_hba_same(path, &file->old_stat, file->contents, file->len);
}

/* Is that the file that we wrote, unchanged? */
static bool
is_ours(const PrkHbaFile *file, const char *path)
{
	return prk_hba_same(path, &file->new_stat, file->new_contents, file->new_len);
}

/*
 * After the exchange: put the old file back in its place.  If somebody else
 * has put a file of theirs there, or has edited ours, that one stays, and the
 * old file goes: theirs was made after it.  True if the old file is back.
 * Raises nothing.
 */
static bool
put_back(PrkHbaFile *file)
{
	bool		done = false;

	if (is_ours(file, file->path))
	{
		if (file->displaced == file->new_path &&
			exchange_names(file->new_path, file->path) == 0)
		{
			done = is_ours(file, file->new_path);

			/* Theirs came between the look and the exchange. */
			if (!done)
				exchange_names(file->new_path, file->path);
		}
		else
			done = rename(file->displaced, file->path) == 0;

		/* Nobody has touched it, and it won't go: leave both as they are. */
		if (!done && is_ours(file, file->path))
			return false;
	}
	/* Ours is there now, and may have been opened by its name meanwhile. */
	if (done && prk_hba_same_awaits(file->displaced))
		save_displaced(file);
	else if (done)
		unlink(file->displaced);
	else
		remove_displaced(file);
	file->stage = PRK_HBA_FILE_UNTOUCHED;
	sync_directory(file);
	return done;
}

/*
 * Remove the old file, unless somebody has edited it since it was read: then
 * it is kept under another name.  Raises nothing; false if it is still there.
 */
static bool
remove_displaced(PrkHbaFile *file)
{
	const struct stat *old = &file->old_stat;
	struct stat now;

	if (lstat(file->displaced, &now) == 0 &&
		(now.st_size != old->st_size ||
		 memcmp(&now.st_mtim, &old->st_mtim, sizeof(now.st_mtim)) != 0))
	{
		save_displaced(file);
		return false;
	}
	return unlink(file->displaced) == 0 || errno == ENOENT;
}

/*
 * Keep what somebody else wrote under a name that no call removes; where the
 * file system refuses, it stays where it is.
 */
static void
save_displaced(PrkHbaFile *file)
{
	file->saved = rename(file->displaced, file->saved_path) == 0 ?
		file->saved_path : file->displaced;
}

/*
 * Make the names durable.  Raises nothing; false, with errno, if it failed.
 * File systems that cannot sync directories do not count as failing, as in
 * fsync_fname().
 */
static bool
sync_directory(const PrkHbaFile *file)
{
	int			fd = open(file->directory, O_RDONLY, 0);
	int			save_errno;
	int			result;

	if (fd < 0)
		return errno == EISDIR || errno == EACCES;
	result = pg_fsync(fd);
	save_errno = errno;
	close(fd);
	errno = save_errno;
	return result == 0 || errno == EBADF || errno == EINVAL;
}

/* What a failure to replace the file means. */
static int
errdetail_replace(int errnum)
{
	switch (errnum)
	{
		case EBUSY:
		case EXDEV:
			return errdetail("The file is mounted on its own, so it cannot be replaced from here.");
		case EROFS:
			return errdetail("The file system is read-only for the server.");
		case ENAMETOOLONG:
			return errdetail("The file that the server would write beside it has a longer name.  The file is unchanged.");
		case EACCES:
		case EPERM:
			return errdetail("The server must be able to write in the file's directory: it replaces the file as a whole.");
		default:
			return errdetail("The file is unchanged.");
	}
}

/* What to do instead. */
static int
errhint_by_hand(const PrkHbaFile *file)
{
	if (file->rule != NULL)
		return errhint("Add this line to \"%s\" by hand, and use manage_hba => false: %s",
					   file->path, file->rule);
	return errhint("Remove the lines that are no longer wanted from \"%s\" by hand, and try again.",
				   file->path);
}
