/*-------------------------------------------------------------------------
 *
 * watched.h
 *	  A replica as the worker watches it, from sample to sample.
 *
 * For alerts.c and learn.c only.
 *
 * IDENTIFICATION
 *	  src/watch/watched.h
 *
 *-------------------------------------------------------------------------
 */
#ifndef PRK_WATCHED_H
#define PRK_WATCHED_H

#include "judge/track.h"
#include "watch/board.h"
#include "watch/departed.h"

typedef struct PrkWatched
{
	PrkBoardEntry entry;		/* what is published */
	PrkReplica	last;			/* as last sampled */
	PrkVerdict	verdict;		/* of that sample */
	PrkTrack   *track;			/* how it moved, in the list's context */
	int64		there_since;	/* its walsender, by the sample's clock */
	XLogRecPtr	consumed_lsn;	/* confirmed when its slot was last unused */
	bool		stays;			/* that one has served it for a while */
	TimestampTz warning_since;	/* at or above warning since; 0: it is not */
	TimestampTz critical_since;
	TimestampTz said_at;		/* the last line about it */
	int64		lasted;			/* the trouble that is over, in microseconds */
	PrkCode		announced_code; /* none if ok, or only restored */
	bool		sampled;		/* last is set: not only restored */
	bool		matched;		/* scratch: found in the new sample */
} PrkWatched;

extern void prk_watched_begin(PrkWatched *watched, const PrkSample *sample,
							  const PrkReplica *replica, bool started);
extern void prk_watched_learn(PrkWatched *watched, const PrkSample *sample,
							  const PrkReplica *replica,
							  const PrkDepartures *departures,
							  MemoryContext context);

#endif							/* PRK_WATCHED_H */
