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
 * It is written beside its place, made durable and renamed.  Behind the clock
 * stands what another room wants to keep for the next start (the attachment),
 * whose times are of the same kind.
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

/* What may follow; its bytes follow it. */
typedef struct AttachmentHead
{
	uint32		size;			/* of those */
	pg_crc32c	crc;			/* of those */
} AttachmentHead;

static pg_crc32c compute_crc(const ClockFile *file);
static bool write_all(int fd, const void *data, size_t size);
static const char *read_head(int fd, ClockFile *file,
							 const PrkClockMoment *moment);
static int64 shift_to(const ClockFile *file, const PrkClockMoment *moment);
static const char *check(const ClockFile *file, const PrkClockMoment *moment);

/*
 * Writes the clock, and the attachment if its size is not 0; moment is the
 * present, by which the times are to be understood.  Returns false, with the
 * reason logged, if it could not.
 */
bool
prk_clock_file_write(const char *path, const PrkClock *clock,
					 const PrkClockMoment *moment,
					 const void *attachment, Size size)
{
	AttachmentHead head = {0};
	char	   *temp_path = psprintf("%s.tmp", path);
	ClockFile  *file = palloc0(sizeof(ClockFile));
	int			fd;

	file->magic = FILE_MAGIC;
	file->version = FILE_VERSION;
	file->moment = *moment;
	file->clock = *clock;
	file->crc = compute_crc(file);
	head.size = size;
	INIT_CRC32C(head.crc);
	COMP_CRC32C(head.crc, attachment, size);
	FIN_CRC32C(head.crc);

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

	if (!write_all(fd, file, sizeof(ClockFile)) ||
		(size > 0 && (!write_all(fd, &head, sizeof(head)) ||
					  !write_all(fd, attachment, size))))
	{
		int			save_errno = errno;

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

/* Writes so many bytes; errno is set if it could not. */
static bool
write_all(int fd, const void *data, size_t size)
{
	errno = 0;
	if (write(fd, data, size) == (ssize_t) size)
		return true;
	if (errno == 0)
		errno = ENOSPC;
	return false;
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
	const char *problem;
	int64		shift;
	int			fd;

	prk_clock_clear(clock);
	fd = OpenTransientFile(path, O_RDONLY | PG_BINARY);
	if (fd < 0)
		return errno == ENOENT ? "" : psprintf("could not open it: %m");
	file = palloc0(sizeof(ClockFile));
	problem = read_head(fd, file, moment);
	CloseTransientFile(fd);
	if (problem != NULL)
	{
		pfree(file);
		return problem;
	}

	shift = shift_to(file, moment);
	*clock = file->clock;
	for (int i = 0; i < PRK_CLOCK_NFINE; i++)
		clock->fine[i].at += shift;
	for (int i = 0; i < PRK_CLOCK_NCOARSE; i++)
		clock->coarse[i].at += shift;
	pfree(file);
	return NULL;
}

/*
 * Reads what is attached, palloc'd, and how many bytes that are; NULL if the
 * file is ignored, or has none.  shift is what its times are to be moved by.
 */
void *
prk_clock_file_attachment(const char *path, const PrkClockMoment *moment,
						  Size *size, int64 *shift)
{
	ClockFile  *file;
	AttachmentHead head;
	char	   *result = NULL;
	int			fd = OpenTransientFile(path, O_RDONLY | PG_BINARY);

	*size = 0;
	*shift = 0;
	if (fd < 0)
		return NULL;
	file = palloc0(sizeof(ClockFile));
	if (read_head(fd, file, moment) == NULL &&
		read(fd, &head, sizeof(head)) == sizeof(head) &&
		head.size > 0 && head.size <= PRK_CLOCK_MAX_ATTACHMENT)
	{
		pg_crc32c	crc;

		result = palloc(head.size);
		INIT_CRC32C(crc);
		if (read(fd, result, head.size) == (ssize_t) head.size)
			COMP_CRC32C(crc, result, head.size);
		FIN_CRC32C(crc);
		if (!EQ_CRC32C(crc, head.crc))
		{
			pfree(result);
			result = NULL;
		}
		else
		{
			*size = head.size;
			*shift = shift_to(file, moment);
		}
	}
	CloseTransientFile(fd);
	pfree(file);
	return result;
}

/* Reads the clock's part of the file; why it is not good, or NULL. */
static const char *
read_head(int fd, ClockFile *file, const PrkClockMoment *moment)
{
	ssize_t		nread = read(fd, file, sizeof(ClockFile));

	if (nread < 0)
		return psprintf("could not read it: %m");
	if (nread != sizeof(ClockFile))
		return "it is damaged";
	return check(file, moment);
}

/*
 * What the file's times are to be moved by: within one boot by nothing, else
 * by what the wall clock says.
 */
static int64
shift_to(const ClockFile *file, const PrkClockMoment *moment)
{
	if (strcmp(file->moment.boot_id, moment->boot_id) == 0 &&
		moment->boot_id[0] != '\0')
		return 0;
	return (moment->boottime - file->moment.boottime) -
		(moment->wall - file->moment.wall);
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
