/*-------------------------------------------------------------------------
 *
 * disk.h
 *	  When will the disk of pg_wal be full, and whose slot fills it?
 *
 * IDENTIFICATION
 *	  src/judge/disk.h
 *
 *-------------------------------------------------------------------------
 */
#ifndef PRK_DISK_H
#define PRK_DISK_H

#include "judge/forecast.h"

/* A slot that WAL is kept for. */
typedef struct PrkHolder
{
	const PrkReplica *replica;
	const PrkForecast *forecast;
} PrkHolder;

typedef struct PrkDisk
{
	bool		known;			/* the rest is meaningful */
	int64		free_bytes;		/* on the file system of pg_wal */
	int64		room;			/* how much more WAL that can take: with the
								 * files that are there and not needed */
	char		holder[NAMEDATALEN];	/* the slot that is furthest back; ""
										 * none */
	bool		holder_logical;
	int64		held_bytes;		/* what it holds */
	double		growth;			/* of that, bytes per second; -1 not known */
	int64		full_in;		/* microseconds; -1: never, as things go, or
								 * not known */
} PrkDisk;

extern void prk_disk_forecast(const PrkSample *sample,
							  const PrkHolder *holder, PrkDisk *disk);
extern int64 prk_disk_free_bytes(void);

#endif							/* PRK_DISK_H */
