/*-------------------------------------------------------------------------
 *
 * forecast.h
 *	  When will a replica have caught up, and when will its slot be lost?
 *
 * IDENTIFICATION
 *	  src/judge/forecast.h
 *
 *-------------------------------------------------------------------------
 */
#ifndef PRK_FORECAST_H
#define PRK_FORECAST_H

#include "judge/track.h"
#include "sample/sample.h"

/* Times in microseconds from the sample on. */
typedef struct PrkForecast
{
	bool		has_catch_up;	/* it is known whether it catches up */
	int64		catch_up_in;	/* -1: never, as things go */
	bool		has_growth;
	double		growth;			/* bytes per second by which what the slot
								 * holds grows */
	int64		lost_in;		/* -1: never, as things go, or not known */
	int64		idle_left;		/* that long it may stay unused; 0: no longer;
								 * -1: for ever, or it is in use */
} PrkForecast;

extern void prk_forecast_replica(const PrkSample *sample,
								 const PrkReplica *replica,
								 const PrkPace *pace, int64 away,
								 PrkForecast *forecast);
extern int64 prk_forecast_time(int64 bytes, double rate);

#endif							/* PRK_FORECAST_H */
