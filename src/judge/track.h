/*-------------------------------------------------------------------------
 *
 * track.h
 *	  How fast does a replica move?
 *
 * IDENTIFICATION
 *	  src/judge/track.h
 *
 *-------------------------------------------------------------------------
 */
#ifndef PRK_TRACK_H
#define PRK_TRACK_H

#include "access/xlogdefs.h"

/* Points of each of the two windows of rates. */
#define PRK_TRACK_NPOINTS	17

/* Where things were at a time of prk_clock_now(). */
typedef struct PrkTrackPoint
{
	int64		at;
	int64		lag_bytes;		/* -1 not known */
	int64		retained_bytes; /* -1 not known */
} PrkTrackPoint;

typedef struct PrkTrackRing
{
	int			npoints;
	PrkTrackPoint points[PRK_TRACK_NPOINTS];	/* the oldest first */
} PrkTrackRing;

/* All zero at first. */
typedef struct PrkTrack
{
	PrkTrackRing near;			/* over the short window */
	PrkTrackRing far;			/* over the long one */
	PrkTrackPoint last;			/* at == 0: none yet */
	XLogRecPtr	last_position;
	bool		stalled;		/* did not move, though behind */
	int64		stalled_at;		/* since then */
	int64		moving_at;		/* set off again then; 0: never stood still */
} PrkTrack;

/* Bytes per second; meaningful where known. */
typedef struct PrkPace
{
	bool		has_gain;
	double		gain;			/* by which its lag shrinks */
	bool		has_growth;
	double		growth;			/* by which its slot's WAL grows, over the
								 * window in which that is less */
} PrkPace;

extern void prk_track_add(PrkTrack *track, int64 at, XLogRecPtr current,
						  int64 lag_bytes, int64 retained_bytes);
extern void prk_track_pace(const PrkTrack *track, PrkPace *pace);

#endif							/* PRK_TRACK_H */
