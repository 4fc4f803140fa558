/*-------------------------------------------------------------------------
 *
 * forecast.c
 *	  When will a replica have caught up, and when will its slot be lost?
 *
 * Both assume that the rates of the last minutes go on.  Pure
 * functions.
 *
 * IDENTIFICATION
 *	  src/judge/forecast.c
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "datatype/timestamp.h"

#include "clock/clock_shared.h"
#include "judge/forecast.h"

/* What is further away is never. */
#define FORECAST_LIMIT	(INT64CONST(365) * USECS_PER_DAY)

static int64 idle_left(const PrkSample *sample, const PrkReplica *replica);

/*
 * Forecasts for one replica of a sample, wholly overwritten.  pace is what a
 * watcher has measured; all zero if there is none.
 *
 * What an unused slot holds grows by all the WAL that is written since then,
 * which the LSN clock knows from before the watch.  away says for how long
 * it is unused, in microseconds, -1 if that is not known: what was written
 * before says nothing, so there is no forecast before the short window of the
 * clock's rates is past.
 */
void
prk_forecast_replica(const PrkSample *sample, const PrkReplica *replica,
					 const PrkPace *pace, int64 away,
					 PrkForecast *forecast)
{
	memset(forecast, 0, sizeof(PrkForecast));
	forecast->catch_up_in = -1;
	forecast->lost_in = -1;

	if (replica->lag_bytes == 0 && replica->has_walsender)
	{
		forecast->has_catch_up = true;
		forecast->catch_up_in = 0;
	}
	else if (replica->lag_bytes > 0 && replica->has_walsender &&
			 pace->has_gain)
	{
		forecast->has_catch_up = true;
		forecast->catch_up_in = prk_forecast_time(replica->lag_bytes,
												  pace->gain);
	}

	if (replica->has_slot && replica->retained_bytes >= 0)
	{
		if (replica->pid == 0)
		{
			forecast->has_growth = sample->has_wal_rate &&
				away >= PRK_WINDOW_SHORT;
			forecast->growth = Min(sample->wal_rate_short,
								   sample->wal_rate_long);
		}
		else
		{
			forecast->has_growth = pace->has_growth;
			forecast->growth = pace->growth;
		}
	}
	if (forecast->has_growth && replica->has_safe_wal_size &&
		replica->safe_wal_size > 0)
		forecast->lost_in = prk_forecast_time(replica->safe_wal_size,
											  forecast->growth);

	forecast->idle_left = idle_left(sample, replica);
	if (forecast->idle_left >= 0 &&
		(forecast->lost_in < 0 || forecast->idle_left < forecast->lost_in))
		forecast->lost_in = forecast->idle_left;
}

/*
 * A checkpoint invalidates what was unused for longer than
 * idle_replication_slot_timeout: CanInvalidateIdleSlot() in
 * src/backend/replication/slot.c.
 */
static int64
idle_left(const PrkSample *sample, const PrkReplica *replica)
{
	if (sample->slot_idle_limit < 0 || !replica->has_slot ||
		replica->inactive_since == 0 || replica->synced ||
		XLogRecPtrIsInvalid(replica->restart_lsn))
		return -1;
	return Max(replica->inactive_since + sample->slot_idle_limit -
			   sample->taken_at, 0);
}

/*
 * How long do these bytes last, at this many a second?  In microseconds; -1:
 * for ever.
 */
int64
prk_forecast_time(int64 bytes, double rate)
{
	double		seconds;

	if (rate <= 0)
		return -1;
	seconds = (double) bytes / rate;
	if (seconds >= (double) (FORECAST_LIMIT / USECS_PER_SEC))
		return -1;
	return (int64) (seconds * USECS_PER_SEC);
}
