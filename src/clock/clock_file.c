/*-------------------------------------------------------------------------
 *
 * clock_file.c
 *	  The LSN clock in a file.
 *
 * The file is written when a server is stopped, and read when it starts.  It
 * is of use to the server only that wrote it, on the machine on which it
 * did, and nothing depends on it: whatever doesn't fit is ignored.
 *
 * The clock's times are microseconds since the machine's boot, which a change
 * of the wall clock doesn't touch.  They are good until the next boot, told
 * by its identifier; over a boot the wall clock has to do, and where that
 * says that the file is of the future, the file is ignored.
 *
 * It is written beside its place, made durable and renamed.
 *
 * IDENTIFICATION
 *	  src/clock/clock_file.c
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include <unistd.h>

#include "port/pg_crc32c.h"
#include "storage/fd.h"

#include "clock/clock_file.h"

#define FILE_MAGIC		0x6B43526B
#define FILE_VERSION	1

typedef struct ClockFile
{
	uint32		magic;
	uint32		version;
	PrkClockMoment moment;
	PrkClock	clock;
	pg_crc32c	crc;			/* of all that is before it */
} ClockFile;

static pg_crc32c compute_crc(const ClockFile *file);
static const char *check(const ClockFile *file, const PrkClockMoment *moment);

/*
 * Writes the clock; moment is the present, by which its times are to be
 * understood.  Returns false, with the reason logged, if it could not.
 */
bool
prk_clock_file_write(const char *path, const PrkClock *clock,
					 const PrkClockMoment *moment)
{
	char	   *temp_path = psprintf("%s.tmp", path);
	ClockFile  *file = palloc0(sizeof(ClockFile));
	int			fd;

	file->magic = FILE_MAGIC;
	file->version = FILE_VERSION;
	file->moment = *moment;
	file->clock = *clock;
	file->crc = compute_crc(file);

	fd = OpenTransientFile(temp_path,
						   O_WRONLY | O_CREAT | O_TRUNC | PG_BINARY);
	if (fd < 0)
	{
		ereport(LOG,
				(errcode_for_file_access(),
				 errmsg("could not create file \"%s\": %m", temp_path)));
		pfree(file);
		return false;
	}

	errno = 0;
	if (write(fd, file, sizeof(ClockFile)) != sizeof(ClockFile))
	{
		int			save_errno = errno != 0 ? errno : ENOSPC;

		CloseTransientFile(fd);
		unlink(temp_path);
		errno = save_errno;
		ereport(LOG,
				(errcode_for_file_access(),
				 errmsg("could not write file \"%s\": %m", temp_path)));
		pfree(file);
		return false;
	}
	pfree(file);
	if (CloseTransientFile(fd) != 0)
	{
		int			save_errno = errno;

		unlink(temp_path);
		errno = save_errno;
		ereport(LOG,
				(errcode_for_file_access(),
				 errmsg("could not close file \"%s\": %m", temp_path)));
		return false;
	}
	/* durable_rename() makes the contents durable, and logs what fails. */
	return durable_rename(temp_path, path, LOG) == 0;
}

/*
 * Reads the clock, its times brought to the present boot.  Returns NULL, or
 * why the file is ignored; "" if there is none.  clock is overwritten in
 * either case, and empty in the latter.
 */
const char *
prk_clock_file_read(const char *path, PrkClock *clock,
					const PrkClockMoment *moment)
{
	ClockFile  *file;
	const char *problem = NULL;
	ssize_t		nread;
	int64		shift;
	int			fd;

	prk_clock_clear(clock);
	fd = OpenTransientFile(path, O_RDONLY | PG_BINARY);
	if (fd < 0)
		return errno == ENOENT ? "" : psprintf("could not open it: %m");
	file = palloc0(sizeof(ClockFile));
	nread = read(fd, file, sizeof(ClockFile));
	if (nread < 0)
		problem = psprintf("could not read it: %m");
	else if (nread != sizeof(ClockFile))
		problem = "it is damaged";
	else
		problem = check(file, moment);
	CloseTransientFile(fd);
	if (problem != NULL)
	{
		pfree(file);
		return problem;
	}

	if (strcmp(file->moment.boot_id, moment->boot_id) == 0 &&
		moment->boot_id[0] != '\0')
		shift = 0;
	else
		shift = (moment->boottime - file->moment.boottime) -
			(moment->wall - file->moment.wall);
	*clock = file->clock;
	for (int i = 0; i < PRK_CLOCK_NFINE; i++)
		clock->fine[i].at += shift;
	for (int i = 0; i < PRK_CLOCK_NCOARSE; i++)
		clock->coarse[i].at += shift;
	pfree(file);
	return NULL;
}

/* The checksum of all that stands before it. */
static pg_crc32c
compute_crc(const ClockFile *file)
{
	pg_crc32c	crc;

	INIT_CRC32C(crc);
	COMP_CRC32C(crc, file, offsetof(ClockFile, crc));
	FIN_CRC32C(crc);
	return crc;
}

/* Why can't this file be used at this moment?  NULL: it can. */
static const char *
check(const ClockFile *file, const PrkClockMoment *moment)
{
	const PrkClock *clock = &file->clock;

	if (file->magic != FILE_MAGIC || file->version != FILE_VERSION)
		return "it is of another version";
	if (!EQ_CRC32C(compute_crc(file), file->crc) ||
		clock->nfine > PRK_CLOCK_NFINE ||
		clock->fine_end >= PRK_CLOCK_NFINE ||
		clock->ncoarse > PRK_CLOCK_NCOARSE ||
		clock->coarse_end >= PRK_CLOCK_NCOARSE)
		return "it is damaged";
	if (file->moment.system_identifier != moment->system_identifier)
		return "it is of another database system";
	if (strcmp(file->moment.boot_id, moment->boot_id) == 0 &&
		moment->boot_id[0] != '\0')
	{
		if (moment->boottime < file->moment.boottime)
			return "it is from the future";
	}
	else if (moment->wall < file->moment.wall)
		return "it is from the future";
	return NULL;
}
