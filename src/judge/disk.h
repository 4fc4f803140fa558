/*-------------------------------------------------------------------------
 *
 * disk.h
 *	  When will the disk of pg_wal be full, and who fills it?
 *
 * IDENTIFICATION
 *	  src/judge/disk.h
 *
 *-------------------------------------------------------------------------
 */
#ifndef PRK_DISK_H
#define PRK_DISK_H

#include "judge/forecast.h"
#include "sample/archive.h"

/* A slot that WAL is kept for. */
typedef struct PrkHolder
{
	const PrkReplica *replica;
	const PrkForecast *forecast;
} PrkHolder;

/* Who keeps WAL without limit. */
typedef enum PrkKeeper
{
	PRK_KEEPER_NONE,
	PRK_KEEPER_SLOT,
	PRK_KEEPER_ARCHIVER,
	PRK_KEEPER_SUMMARIZER
} PrkKeeper;

/* Files that wait to be archived. */
typedef struct PrkArchiving
{
	PrkArchive	archive;
	int64		waited;			/* microseconds since one was archived, or
								 * began to wait */
} PrkArchiving;

/* What is remembered of them; all zero at first. */
typedef struct PrkArchiveMark
{
	int64		looked_at;		/* by prk_clock_now(); 0: never */
	int64		since;			/* likewise; 0: nothing waits */
	int64		archived_count;
} PrkArchiveMark;

typedef struct PrkDisk
{
	bool		known;			/* the rest is meaningful */
	int64		free_bytes;		/* on the file system of pg_wal */
	int64		room;			/* how much more WAL that can take: with the
								 * files that are there and not needed */
	PrkKeeper	keeper;			/* who is furthest back */
	char		holder[NAMEDATALEN];	/* that is a slot: its name; else "" */
	bool		holder_logical;
	int64		held_bytes;		/* what it holds */
	double		growth;			/* of that, bytes per second; -1 not known */
	int64		full_in;		/* microseconds; -1: never, as things go, or
								 * not known */
} PrkDisk;

extern void prk_disk_forecast(const PrkSample *sample,
							  const PrkHolder *holder,
							  const PrkArchiving *archiving, PrkDisk *disk);
extern void prk_archiving_follow(PrkArchiveMark *mark, int64 now,
								 PrkArchiving *archiving);
extern int64 prk_disk_free_bytes(void);

#endif							/* PRK_DISK_H */
