/*-------------------------------------------------------------------------
 *
 * clock_file.h
 *	  The LSN clock in a file.
 *
 * IDENTIFICATION
 *	  src/clock/clock_file.h
 *
 *-------------------------------------------------------------------------
 */
#ifndef PRK_CLOCK_FILE_H
#define PRK_CLOCK_FILE_H

#include "clock/clock.h"
#include "datatype/timestamp.h"

/* Bytes; what is longer was not written by this code. */
#define PRK_CLOCK_MAX_ATTACHMENT	(16 * 1024 * 1024)

/* Which server, and when, by both kinds of clock. */
typedef struct PrkClockMoment
{
	uint64		system_identifier;
	TimestampTz wall;
	int64		boottime;		/* microseconds since the machine's boot */
	char		boot_id[40];	/* of that boot; "" not known */
} PrkClockMoment;

extern bool prk_clock_file_write(const char *path, const PrkClock *clock,
								 const PrkClockMoment *moment,
								 const void *attachment, Size size);
extern const char *prk_clock_file_read(const char *path, PrkClock *clock,
									   const PrkClockMoment *moment);
extern void *prk_clock_file_attachment(const char *path,
									   const PrkClockMoment *moment,
									   Size *size, int64 *shift);

#endif							/* PRK_CLOCK_FILE_H */
