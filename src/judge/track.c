/*-------------------------------------------------------------------------
 *
 * track.c
 *	  How fast does a replica move?
 *
 * Points of the past minute and of the past quarter of an hour, from which
 * follows by how many bytes a second a replica's lag shrinks and the WAL that
 * its slot holds grows.
 *
 * The lag is taken over the last minute, but from when the replica last set
 * off: one that resumes after an hour's standstill moves as fast as it does
 * since, not as it did on average.
 *
 * What a slot holds grows in bursts that end by themselves, and a load that
 * has ended would still be seen in the long window; so the window counts in
 * which it grows less.  A slot in use always lags a little, now more, now
 * less, and grows only if that is more than some segments of WAL.
 *
 * Pure functions over a struct that the caller owns.
 *
 * IDENTIFICATION
 *	  src/judge/track.c
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/xlog.h"
#include "datatype/timestamp.h"

#include "clock/clock_shared.h"
#include "judge/track.h"

/* A window's points are this far apart. */
#define NEAR_STEP		(PRK_WINDOW_SHORT / (PRK_TRACK_NPOINTS - 1))
#define FAR_STEP		(PRK_WINDOW_LONG / (PRK_TRACK_NPOINTS - 1))

/* Over less than this nothing is said. */
#define MIN_GAIN_TIME	(3 * USECS_PER_SEC)
#define MIN_GROWTH_TIME (30 * USECS_PER_SEC)

/* A shorter stop is none. */
#define MIN_STALL		(3 * USECS_PER_SEC)

/* Growth up to this many segments is only the way a replica lags. */
#define NOISE_SEGMENTS	2

static bool measure_gain(const PrkTrack *track, double *gain);
static void push(PrkTrackRing *ring, const PrkTrackPoint *point);
static void push_after(PrkTrackRing *ring, const PrkTrackPoint *point,
					   int64 step);
static bool measure_growth(const PrkTrackRing *ring,
						   const PrkTrackPoint *last, double *growth);

/*
 * Adds a point.  Byte counts that are not known are -1.
 */
void
prk_track_add(PrkTrack *track, int64 at, XLogRecPtr current,
			  int64 lag_bytes, int64 retained_bytes)
{
	XLogRecPtr	position = current - Max(lag_bytes, 0);
	PrkTrackPoint point;

	if (lag_bytes >= 0 && track->last.at != 0)
	{
		if (position == track->last_position && lag_bytes > 0)
		{
			if (!track->stalled)
				track->stalled_at = track->last.at;
			track->stalled = true;
		}
		else
		{
			if (track->stalled && at - track->stalled_at >= MIN_STALL)
			{
				track->moving_at = track->last.at;
				push(&track->near, &track->last);
			}
			track->stalled = false;
		}
	}

	point.at = at;
	point.lag_bytes = lag_bytes;
	point.retained_bytes = retained_bytes;
	push_after(&track->near, &point, NEAR_STEP);
	push_after(&track->far, &point, FAR_STEP);
	track->last = point;
	track->last_position = position;
}

/* The rates up to the last point added. */
void
prk_track_pace(const PrkTrack *track, PrkPace *pace)
{
	const PrkTrackPoint *last = &track->last;
	double		near_growth;
	double		far_growth;

	memset(pace, 0, sizeof(PrkPace));
	pace->has_gain = measure_gain(track, &pace->gain);
	if (measure_growth(&track->near, last, &near_growth) &&
		measure_growth(&track->far, last, &far_growth))
	{
		pace->has_growth = true;
		pace->growth = Min(near_growth, far_growth);
	}
}

/*
 * How fast does the lag shrink?  From the time when it was greatest, if that
 * is past; before that it grew, and only the time since then counts.
 */
static bool
measure_gain(const PrkTrack *track, double *gain)
{
	const PrkTrackPoint *last = &track->last;
	const PrkTrackPoint *first = NULL;
	const PrkTrackPoint *peak = NULL;

	if (last->lag_bytes < 0)
		return false;
	if (track->stalled && last->at - track->stalled_at >= MIN_STALL)
	{
		*gain = 0;
		return true;
	}

	for (int i = 0; i < track->near.npoints; i++)
	{
		const PrkTrackPoint *point = &track->near.points[i];

		if (point->lag_bytes < 0 || point->at < track->moving_at ||
			point->at < last->at - PRK_WINDOW_SHORT - NEAR_STEP)
			continue;
		if (first == NULL)
			first = point;
		if (peak == NULL || point->lag_bytes > peak->lag_bytes)
			peak = point;
	}
	if (peak != NULL && last->at - peak->at >= MIN_GAIN_TIME)
		first = peak;
	if (first == NULL || last->at - first->at < MIN_GAIN_TIME)
		return false;
	*gain = (double) (first->lag_bytes - last->lag_bytes) *
		USECS_PER_SEC / (double) (last->at - first->at);
	return true;
}

/* Adds a point, for which the oldest one may have to go. */
static void
push(PrkTrackRing *ring, const PrkTrackPoint *point)
{
	if (ring->npoints > 0 && ring->points[ring->npoints - 1].at >= point->at)
		return;
	if (ring->npoints == PRK_TRACK_NPOINTS)
	{
		ring->npoints--;
		memmove(ring->points, ring->points + 1,
				ring->npoints * sizeof(PrkTrackPoint));
	}
	ring->points[ring->npoints++] = *point;
}

/* The same if the last one is as long ago as the step. */
static void
push_after(PrkTrackRing *ring, const PrkTrackPoint *point, int64 step)
{
	if (ring->npoints == 0 ||
		point->at >= ring->points[ring->npoints - 1].at + step)
		push(ring, point);
}

/* Growth from the first point that is known. */
static bool
measure_growth(const PrkTrackRing *ring, const PrkTrackPoint *last,
			   double *growth)
{
	for (int i = 0; i < ring->npoints; i++)
	{
		const PrkTrackPoint *first = &ring->points[i];
		int64		grown = last->retained_bytes - first->retained_bytes;

		if (first->retained_bytes < 0)
			continue;
		if (last->retained_bytes < 0 || last->at - first->at < MIN_GROWTH_TIME)
			return false;
		if (grown <= (int64) NOISE_SEGMENTS * wal_segment_size)
			grown = 0;
		*growth = (double) grown * USECS_PER_SEC /
			(double) (last->at - first->at);
		return true;
	}
	return false;
}
