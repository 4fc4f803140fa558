/*-------------------------------------------------------------------------
 *
 * hba_same.c
 *	  Is a file on disk still the one that is remembered?
 *
 * Nothing here allocates or raises anything: it is called also where an error
 * is a PANIC.
 *
 * IDENTIFICATION
 *	  src/hba/hba_same.c
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include <fcntl.h>
#include <signal.h>
#include <unistd.h>

#include "hba/hba_same.h"

/* Of Linux, where <fcntl.h> has them for _GNU_SOURCE only. */
#ifdef __linux__
#ifndef F_SETSIG
#define F_SETSIG	10
#endif
#ifndef F_SETLEASE
#define F_SETLEASE	1024
#endif
#endif

/*
 * Is that the file with these marks and contents?  Times are not compared:
 * they are too coarse to tell two edits apart.
 */
bool
prk_hba_same(const char *path, const struct stat *wanted, const char *contents,
			 off_t len)
{
	int			fd = open(path, O_RDONLY | O_NOFOLLOW | O_NONBLOCK, 0);
	struct stat now;
	off_t		done = 0;
	bool		same;

	if (fd < 0)
		return false;
	same = fstat(fd, &now) == 0 &&
		now.st_dev == wanted->st_dev &&
		now.st_ino == wanted->st_ino &&
		now.st_uid == wanted->st_uid &&
		now.st_gid == wanted->st_gid &&
		now.st_mode == wanted->st_mode &&
		now.st_size == len;
	while (same && done < len)
	{
		char		chunk[4096];
		ssize_t		got = read(fd, chunk, sizeof(chunk));

		if (got < 0 && errno == EINTR)
			continue;
		same = got > 0 && got <= len - done &&
			memcmp(chunk, contents + done, got) == 0;
		done += got;
	}
	close(fd);
	return same;
}

/*
 * Has anybody the file open to write?  False also where that can't be known:
 * Linux refuses a read lease then with EAGAIN, and everything else, as the
 * lease of a file that is not our own or of a file system without leases,
 * with something else.
 *
 * A process that opens the file to write while the lease is held waits for its end, and
 * we get a signal.  It shall be one that is ignored: SIGIO would end us.
 */
bool
prk_hba_same_awaits(const char *path)
{
	bool		awaits = false;
#ifdef F_SETLEASE
	int			fd = open(path, O_RDONLY | O_NOFOLLOW | O_NONBLOCK, 0);

	if (fd < 0)
		return false;
	if (fcntl(fd, F_SETSIG, SIGWINCH) == 0)
	{
		if (fcntl(fd, F_SETLEASE, F_RDLCK) == 0)
			(void) fcntl(fd, F_SETLEASE, F_UNLCK);
		else
			awaits = errno == EAGAIN;
	}
	close(fd);
#endif
	return awaits;
}
