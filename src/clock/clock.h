/*-------------------------------------------------------------------------
 *
 * clock.h
 *	  The LSN clock: when was the primary where?
 *
 * IDENTIFICATION
 *	  src/clock/clock.h
 *
 *-------------------------------------------------------------------------
 */
#ifndef PRK_CLOCK_H
#define PRK_CLOCK_H

#include "access/xlogdefs.h"

/* A pair a second for more than an hour, then one in 30 s for two days. */
#define PRK_CLOCK_NFINE			4096
#define PRK_CLOCK_NCOARSE		5760
#define PRK_CLOCK_COARSE_STEP	INT64CONST(30000000)	/* microseconds */

/*
 * All times are microseconds of a clock that only goes forward, at any zero;
 * they may be negative.
 */
typedef struct PrkClockPair
{
	int64		at;
	XLogRecPtr	position;		/* the primary was here then */
} PrkClockPair;

/* Pairs in the order of time, the oldest overwritten by the newest. */
typedef struct PrkClock
{
	uint32		fine_end;		/* where the next pair goes */
	uint32		nfine;			/* how many there are before it */
	uint32		coarse_end;
	uint32		ncoarse;
	PrkClockPair fine[PRK_CLOCK_NFINE];
	PrkClockPair coarse[PRK_CLOCK_NCOARSE];
} PrkClock;

/* How old is the WAL behind a position? */
typedef struct PrkClockAge
{
	int64		age;			/* microseconds; 0 at the primary's position */
	bool		known;			/* false: at least so old */
} PrkClockAge;

extern void prk_clock_clear(PrkClock *clock);
extern void prk_clock_add(PrkClock *clock, int64 at, XLogRecPtr position);
extern void prk_clock_resume(PrkClock *clock, XLogRecPtr position);
extern void prk_clock_cut(PrkClock *clock, XLogRecPtr position);
extern void prk_clock_forget(PrkClock *clock, int64 since);
extern bool prk_clock_newest(const PrkClock *clock, PrkClockPair *pair);
extern PrkClockAge prk_clock_age(const PrkClock *clock, XLogRecPtr position,
								 int64 now, XLogRecPtr current);
extern double prk_clock_rate(const PrkClock *clock, int64 now,
							 XLogRecPtr current, int64 window);

#endif							/* PRK_CLOCK_H */
