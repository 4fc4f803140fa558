/*-------------------------------------------------------------------------
 *
 * clock.c
 *	  The LSN clock: when was the primary where?
 *
 * Pairs of time and WAL position answer how old the WAL behind a position
 * is: the time that has passed since the primary was first past it.  Nothing
 * is asked of the replica, so it works for one that is away, and no time of
 * another machine comes in.
 *
 * Two rings of fixed size: a fine one, which gets each pair, and a coarse one,
 * which gets a pair now and then and so reaches back further.  Both are in
 * the order of time, and positions never go back in them: when they do, the
 * WAL is another one, and all is forgotten.
 *
 * An idle primary gives pairs that differ in time only.  Of those the last
 * one counts, since a replica that stands at their position lacks what was
 * written after it.
 *
 * Pure functions over a struct that the caller owns, and whose times the
 * caller brings; clock_shared.c has the one in shared memory, clock_file.c
 * puts it into a file.
 *
 * IDENTIFICATION
 *	  src/clock/clock.c
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "datatype/timestamp.h"

#include "clock/clock.h"

/* Pairs nearer to each other than this are one. */
#define MIN_STEP		(USECS_PER_SEC / 2)

/*
 * As long as this after the last pair, it is fair to guess from it to the
 * present; later, somebody who should have added pairs has stopped doing so.
 */
#define MAX_GUESS		(10 * USECS_PER_SEC)

/* A rate over less than this is none to make forecasts of. */
#define MIN_RATE_TIME	(30 * USECS_PER_SEC)

/* The pair at an index, of which 0 is the oldest. */
static const PrkClockPair *
get_fine(const PrkClock *clock, uint32 index)
{
	return &clock->fine[(clock->fine_end + PRK_CLOCK_NFINE -
						 clock->nfine + index) %
						PRK_CLOCK_NFINE];
}

/* The pair of this age among the coarse ones; 0 is the oldest. */
static const PrkClockPair *
get_coarse(const PrkClock *clock, uint32 index)
{
	return &clock->coarse[(clock->coarse_end + PRK_CLOCK_NCOARSE -
						   clock->ncoarse + index) %
						  PRK_CLOCK_NCOARSE];
}

/* Adds a fine pair, which replaces the oldest once the ring is full. */
static void
push_fine(PrkClock *clock, int64 at, XLogRecPtr position)
{
	PrkClockPair *pair = &clock->fine[clock->fine_end];

	pair->at = at;
	pair->position = position;
	clock->fine_end = (clock->fine_end + 1) % PRK_CLOCK_NFINE;
	clock->nfine = Min(clock->nfine + 1, PRK_CLOCK_NFINE);
}

/* The same of a coarse one. */
static void
push_coarse(PrkClock *clock, int64 at, XLogRecPtr position)
{
	PrkClockPair *pair = &clock->coarse[clock->coarse_end];

	pair->at = at;
	pair->position = position;
	clock->coarse_end = (clock->coarse_end + 1) % PRK_CLOCK_NCOARSE;
	clock->ncoarse = Min(clock->ncoarse + 1, PRK_CLOCK_NCOARSE);
}

/* Forgets all pairs. */
void
prk_clock_clear(PrkClock *clock)
{
	memset(clock, 0, offsetof(PrkClock, fine));
}

/* The last pair added; false if there is none. */
bool
prk_clock_newest(const PrkClock *clock, PrkClockPair *pair)
{
	if (clock->nfine == 0)
		return false;
	*pair = *get_fine(clock, clock->nfine - 1);
	return true;
}

/*
 * Notes that the primary is at this position now.  A time that is not later
 * than the last one, or hardly, is ignored; a position before the last one
 * makes the clock begin again.
 */
void
prk_clock_add(PrkClock *clock, int64 at, XLogRecPtr position)
{
	PrkClockPair newest;

	if (prk_clock_newest(clock, &newest))
	{
		if (position < newest.position)
			prk_clock_clear(clock);
		else if (at < newest.at + MIN_STEP)
			return;
	}
	push_fine(clock, at, position);
	if (clock->ncoarse == 0 ||
		at >= get_coarse(clock, clock->ncoarse - 1)->at +
		PRK_CLOCK_COARSE_STEP)
		push_coarse(clock, at, position);
}

/*
 * To be called before the first pair of a server that was stopped: WAL since
 * the last pair was written while the server was being stopped, not during
 * the whole time that it was down.
 */
void
prk_clock_resume(PrkClock *clock, XLogRecPtr position)
{
	PrkClockPair newest;

	if (!prk_clock_newest(clock, &newest))
		return;
	if (position < newest.position)
		prk_clock_clear(clock);
	else if (position > newest.position)
		push_fine(clock, newest.at + 1, position);
}

/*
 * Forgets what is said of positions beyond this one: WAL that an upstream had
 * and that did not reach this server before it was promoted.
 */
void
prk_clock_cut(PrkClock *clock, XLogRecPtr position)
{
	while (clock->nfine > 0 &&
		   get_fine(clock, clock->nfine - 1)->position > position)
	{
		clock->nfine--;
		clock->fine_end = (clock->fine_end + PRK_CLOCK_NFINE - 1) %
			PRK_CLOCK_NFINE;
	}
	while (clock->ncoarse > 0 &&
		   get_coarse(clock, clock->ncoarse - 1)->position > position)
	{
		clock->ncoarse--;
		clock->coarse_end = (clock->coarse_end + PRK_CLOCK_NCOARSE - 1) %
			PRK_CLOCK_NCOARSE;
	}
	if (clock->nfine == 0)
		prk_clock_clear(clock);
}

/*
 * Forgets what was noted after this time, since it was not known then.
 */
void
prk_clock_forget(PrkClock *clock, int64 since)
{
	while (clock->nfine > 0 &&
		   get_fine(clock, clock->nfine - 1)->at > since)
	{
		clock->nfine--;
		clock->fine_end = (clock->fine_end + PRK_CLOCK_NFINE - 1) %
			PRK_CLOCK_NFINE;
	}
	while (clock->ncoarse > 0 &&
		   get_coarse(clock, clock->ncoarse - 1)->at > since)
	{
		clock->ncoarse--;
		clock->coarse_end = (clock->coarse_end + PRK_CLOCK_NCOARSE - 1) %
			PRK_CLOCK_NCOARSE;
	}
	if (clock->nfine == 0)
		prk_clock_clear(clock);
}

/*
 * How many pairs of a ring are not beyond a position?  Those are the ring's
 * first ones.
 */
static uint32
count_until(const PrkClock *clock,
			const PrkClockPair *(*get) (const PrkClock *, uint32),
			uint32 npairs, XLogRecPtr position)
{
	uint32		low = 0;
	uint32		high = npairs;

	while (low < high)
	{
		uint32		middle = low + (high - low) / 2;

		if (get(clock, middle)->position <= position)
			low = middle + 1;
		else
			high = middle;
	}
	return low;
}

/* The same by time. */
static uint32
count_before(const PrkClock *clock,
			 const PrkClockPair *(*get) (const PrkClock *, uint32),
			 uint32 npairs, int64 at)
{
	uint32		low = 0;
	uint32		high = npairs;

	while (low < high)
	{
		uint32		middle = low + (high - low) / 2;

		if (get(clock, middle)->at <= at)
			low = middle + 1;
		else
			high = middle;
	}
	return low;
}

/*
 * How long ago was the primary first past this position?  now and current
 * are the present, which the last pair may be a little short of.
 *
 * The time is interpolated between the last pair that is not beyond the
 * position and the next one.  It is not known, only that it is at least so
 * long, when the position is before all pairs, or after them and the last
 * pair is too old to tell.
 */
PrkClockAge
prk_clock_age(const PrkClock *clock, XLogRecPtr position,
			  int64 now, XLogRecPtr current)
{
	PrkClockAge result = {0};
	PrkClockPair before;
	PrkClockPair after;
	PrkClockPair present;
	uint32		count;

	present.at = now;
	present.position = current;
	if (prk_clock_newest(clock, &before))
		present.position = Max(present.position, before.position);
	if (position >= present.position)
	{
		result.known = true;
		return result;
	}
	if (clock->nfine == 0)
		return result;

	count = count_until(clock, get_fine, clock->nfine, position);
	if (count > 0)
	{
		before = *get_fine(clock, count - 1);
		after = count < clock->nfine ? *get_fine(clock, count) : present;
	}
	else
	{
		after = *get_fine(clock, 0);
		count = count_until(clock, get_coarse, clock->ncoarse, position);
		if (count < clock->ncoarse && get_coarse(clock, count)->at < after.at)
			after = *get_coarse(clock, count);
		if (count == 0)
		{
			result.age = Max(now - after.at, 0);
			return result;
		}
		before = *get_coarse(clock, count - 1);
	}

	if (after.at == now && now - before.at > MAX_GUESS)
		return result;
	result.known = true;
	result.age = now - before.at -
		(int64) ((double) (after.at - before.at) *
				 (double) (position - before.position) /
				 (double) (after.position - before.position));
	result.age = Max(result.age, 0);
	return result;
}

/*
 * How many bytes of WAL a second were written within a window of time that
 * ends now?  Over as much of it as is known; -1 if that is too little.
 */
double
prk_clock_rate(const PrkClock *clock, int64 now, XLogRecPtr current,
			   int64 window)
{
	int64		start = now - window;
	PrkClockPair first;
	PrkClockPair newest;
	uint32		count;

	if (!prk_clock_newest(clock, &newest) || now - newest.at > MAX_GUESS)
		return -1;
	current = Max(current, newest.position);

	count = count_before(clock, get_fine, clock->nfine, start);
	first = *get_fine(clock, count > 0 ? count - 1 : 0);
	if (count == 0)
	{
		count = count_before(clock, get_coarse, clock->ncoarse, start);
		if (count > 0)
			first = *get_coarse(clock, count - 1);
		else if (clock->ncoarse > 0 && get_coarse(clock, 0)->at < first.at)
			first = *get_coarse(clock, 0);
	}
	if (now - first.at < MIN_RATE_TIME)
		return -1;
	return (double) (current - first.position) * USECS_PER_SEC /
		(double) (now - first.at);
}
