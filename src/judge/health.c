/*-------------------------------------------------------------------------
 *
 * health.c
 *	  What a sample means: level, code and reason.  Pure functions.
 *
 * A replica is judged by four questions, each of which may raise the level:
 * is its slot lost or about to be, is it absent, is it behind.  The worst
 * answer gives level and code.  The verdict keeps all answers in numbers;
 * reason.c joins them in words, so that one line says "disconnected for 15 min,
 * slot will be lost in 40 min".
 *

 * How far a replica is behind is told with the stage that holds most of the
 * bytes, in the order in which WAL passes them:
 *
 *		sending		not yet sent by this server			network_slow
 *		receiving	sent, not yet written by the other	network_slow
 *		flushing	written, not yet flushed			flush_slow
 *		replay		flushed, not yet replayed			replay_slow
 *
 * Nothing here reads a clock, a setting or shared memory: the same sample,
 * thresholds and knowledge always give the same verdict.
 *
 * IDENTIFICATION
 *	  src/judge/health.c
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "compat.h"
#include "judge/absence.h"
#include "judge/health.h"

/*
 * Lag limits are lowered to this share before an alert is taken back, those
 * for forecasts raised by as much.
 */
#define CLEAR_PERCENT		80

/*
 * pg_receivewal tells each 10 s, by default, how far it has got; until it has
 * for the first time nothing is known.
 */
#define FIRST_REPORT			(15 * USECS_PER_SEC)

/* A shorter stop is none. */
#define STAND_STILL				(3 * USECS_PER_SEC)

/* Who has caught up so soon is not critical before. */
#define CATCH_UP_SOON			(5 * USECS_PER_MINUTE)

static void lower_limit(int64 *limit);
static void raise_limit(int64 *limit);
static PrkState refine_state(const PrkReplica *replica,
							 const PrkKnown *known);
static bool has_not_told(const PrkSample *sample, const PrkReplica *replica);
static int64 measure_lag_time(const PrkSample *sample,
							  const PrkReplica *replica,
							  const PrkThresholds *thresholds,
							  const PrkKnown *known);
static int64 measure_reply_lag(const PrkSample *sample,
							   const PrkReplica *replica,
							   const PrkThresholds *thresholds,
							   const PrkKnown *known);
static int64 measure_silence(const PrkSample *sample,
							 const PrkReplica *replica,
							 const PrkKnown *known);
static void judge_state(const PrkSample *sample, const PrkReplica *replica,
						const PrkThresholds *thresholds,
						const PrkKnown *known, PrkVerdict *verdict);
static bool is_moving(const PrkSample *sample, const PrkReplica *replica,
					  const PrkKnown *known);
static void judge_lag(const PrkSample *sample, const PrkReplica *replica,
					  const PrkThresholds *thresholds, const PrkKnown *known,
					  PrkVerdict *verdict);
static void judge_slot(const PrkSample *sample, const PrkReplica *replica,
					   const PrkThresholds *thresholds,
					   PrkVerdict *verdict);

/*
 * Judges one replica of a sample for the instant at which that was taken.
 * known may be all zero.  The verdict is wholly overwritten.
 */
void
prk_health_judge(const PrkSample *sample, const PrkReplica *replica,
				 const PrkThresholds *thresholds, const PrkKnown *known,
				 PrkVerdict *verdict)
{
	prk_health_start(verdict, refine_state(replica, known));
	verdict->lag_time = measure_lag_time(sample, replica, thresholds, known);
	prk_forecast_replica(sample, replica, &known->pace,
						 prk_absence_measure(sample, replica, known),
						 &verdict->forecast);
	if (!is_moving(sample, replica, known))
		verdict->forecast.catch_up_in = -1;

	if (verdict->state == PRK_STATE_LOST)
	{
		verdict->fact = PRK_FACT_LOST;
		if (!replica->temporary && !replica->synced)
			prk_verdict_raise(verdict, PRK_CRITICAL, true, PRK_CODE_SLOT_LOST);
	}
	else
	{
		judge_state(sample, replica, thresholds, known, verdict);
		if (!replica->temporary && !replica->synced)
			judge_slot(sample, replica, thresholds, verdict);
	}
	prk_health_finish(thresholds, replica, verdict);
}

/* A verdict of nothing yet. */
void
prk_health_start(PrkVerdict *verdict, PrkState state)
{
	memset(verdict, 0, sizeof(PrkVerdict));
	verdict->level = PRK_OK;
	verdict->state = state;
	verdict->fact = PRK_FACT_NOT_JUDGED;
	verdict->since = -1;
	verdict->connecting = -1;
	verdict->lag_time = -1;
	verdict->lag_bytes = -1;
	verdict->forecast.catch_up_in = -1;
	verdict->forecast.lost_in = -1;
	verdict->forecast.idle_left = -1;
}

/*
 * Puts the verdict into words, after what the settings leave unjudged was
 * taken back.  replica is NULL for a standby's own upstream.
 */
void
prk_health_finish(const PrkThresholds *thresholds, const PrkReplica *replica,
				  PrkVerdict *verdict)
{
	if (thresholds->off)
	{
		verdict->level = PRK_OK;
		verdict->at_once = false;
		verdict->code = PRK_CODE_NONE;
		verdict->has_outlook = false;
		verdict->off = true;
	}
	prk_reason_write(replica, verdict);
}

/*
 * How far a replica has come, as its walsender knows: what it has replayed,
 * or flushed if it doesn't replay.  Invalid when it has told neither.
 */
XLogRecPtr
prk_health_position(const PrkReplica *replica)
{
	if (!XLogRecPtrIsInvalid(replica->replay_lsn))
		return replica->replay_lsn;
	return replica->flush_lsn;
}

/* Makes limits of those that what was announced must be better than. */
void
prk_health_lower(PrkThresholds *thresholds)
{
	lower_limit(&thresholds->warning_lag);
	lower_limit(&thresholds->critical_lag);
	lower_limit(&thresholds->warning_lag_time);
	lower_limit(&thresholds->critical_lag_time);
	raise_limit(&thresholds->warning_forecast);
	raise_limit(&thresholds->critical_forecast);
	thresholds->strict = true;
}

/* What has been announced ends only well below its limit. */
static void
lower_limit(int64 *limit)
{
	if (*limit >= 0)
		*limit = *limit * CLEAR_PERCENT / 100;
}

/* A forecast is taken back when what it warns of is further away. */
static void
raise_limit(int64 *limit)
{
	if (*limit >= 0)
		*limit = *limit * 100 / CLEAR_PERCENT;
}

/* A level in the words of SQL. */
const char *
prk_level_name(PrkLevel level)
{
	switch (level)
	{
		case PRK_OK:
			return "ok";
		case PRK_WARNING:
			return "warning";
		case PRK_CRITICAL:
			return "critical";
	}
	pg_unreachable();
}

/* The sampler's state, with what only the watcher knows. */
static PrkState
refine_state(const PrkReplica *replica, const PrkKnown *known)
{
	if (replica->invalidation != NULL || replica->wal_status == PRK_WAL_LOST)
		return PRK_STATE_LOST;
	if (replica->state == PRK_STATE_DISCONNECTED && known->never_connected)
		return PRK_STATE_NEVER_CONNECTED;
	return replica->state;
}

/*
 * Had a receiver that does not replay no time yet to tell how far it is?  Nor
 * has a standby in the instant before its first reply.  What its slot retains
 * says nothing of that.
 */
static bool
has_not_told(const PrkSample *sample, const PrkReplica *replica)
{
	return replica->has_walsender && !replica->logical &&
		XLogRecPtrIsInvalid(replica->replay_lsn) &&
		replica->backend_start != 0 &&
		sample->taken_at - replica->backend_start < FIRST_REPORT;
}

/*
 * How old the first WAL is that the replica has not replayed, in
 * microseconds; 0 when it is at this server's position, -1 when unknown.
 *
 * The LSN clock knows, for those that are away too.  Where it doesn't, the
 * walsender's own measure counts while it is of the present; else the age of
 * the file that holds that WAL, which is rather too small, since the file is
 * written until the next one is begun.
 */
static int64
measure_lag_time(const PrkSample *sample, const PrkReplica *replica,
				 const PrkThresholds *thresholds, const PrkKnown *known)
{
	int64		result = -1;

	if (replica->lag_bytes == 0)
		return 0;
	if (replica->lag_bytes < 0 || has_not_told(sample, replica))
		return -1;
	if (replica->has_lag_age)
		return replica->lag_age;
	if (replica->has_walsender)
		result = measure_reply_lag(sample, replica, thresholds, known);
	if (result < 0 && replica->has_segment_age)
		result = replica->segment_age;
	return result;
}

/*
 * The lag in time that a walsender and whoever watches it can tell; -1 when
 * they can't.
 *
 * Two measures, neither of which ever says too much about what it has seen.
 * The walsender's own is the time that passed between the writing of some
 * WAL and the reply that told of its replay; but without replies it stays as
 * it was, for ever (a stalled receiver), and without new WAL too (a paused
 * replay).  Whoever watches knows since when the replica has been behind at
 * the very position where it still is.  The longer of the two is nearer to
 * the truth.  Without a watcher a stale reply makes the walsender's measure
 * worthless.
 */
static int64
measure_reply_lag(const PrkSample *sample, const PrkReplica *replica,
				  const PrkThresholds *thresholds, const PrkKnown *known)
{
	int64		result;

	if (!XLogRecPtrIsInvalid(replica->replay_lsn))
		result = replica->replay_lag;
	else
		result = replica->flush_lag;

	if (known->stuck_since != 0 &&
		known->stuck_since < sample->taken_at &&
		known->stuck_at == prk_health_position(replica))
		result = Max(result, sample->taken_at - known->stuck_since);
	else if (!known->watched &&
			 measure_silence(sample, replica, known) >
			 thresholds->stale_after * 1000)
		result = -1;
	return result;
}

/*
 * How long the receiver has said nothing, in microseconds; 0 when unknown.
 * reply_time is the other server's clock, which may be wrong: who watches
 * goes by when he saw it change.
 */
static int64
measure_silence(const PrkSample *sample, const PrkReplica *replica,
				const PrkKnown *known)
{
	TimestampTz since = replica->reply_time;

	if (known->watched)
		since = replica->reply_time == known->reply_time ?
			known->reply_seen_at : 0;
	return since != 0 ? Max(sample->taken_at - since, 0) : 0;
}

/* What the replica is doing, judged where that can be wrong. */
static void
judge_state(const PrkSample *sample, const PrkReplica *replica,
			const PrkThresholds *thresholds, const PrkKnown *known,
			PrkVerdict *verdict)
{
	if ((verdict->state == PRK_STATE_DISCONNECTED ||
		 verdict->state == PRK_STATE_NEVER_CONNECTED) &&
		prk_absence_left_behind(sample, replica, known))
	{
		verdict->fact = PRK_FACT_LEFT_BEHIND;
		prk_verdict_raise(verdict, PRK_WARNING, true, PRK_CODE_SLOT_LEFT_BEHIND);
		return;
	}
	if (verdict->state == PRK_STATE_DISCONNECTED &&
		prk_absence_kept(sample, replica, thresholds, known, verdict->lag_time))
	{
		verdict->fact = PRK_FACT_KEPT;
		return;
	}
	if (verdict->state == PRK_STATE_DISCONNECTED && !known->watched &&
		replica->unused_since != 0)
	{
		prk_absence_never_connected(sample, replica->unused_since, verdict);
		return;
	}
	switch (verdict->state)
	{
		case PRK_STATE_STREAMING:
		case PRK_STATE_CATCHUP:
			judge_lag(sample, replica, thresholds, known, verdict);
			prk_absence_judge_return(sample, replica, thresholds, known, verdict);
			break;
		case PRK_STATE_DISCONNECTED:
			prk_absence_judge(sample, replica, thresholds, known, verdict);
			break;
		case PRK_STATE_NEVER_CONNECTED:
			prk_absence_never_connected(sample, known->appeared_at, verdict);
			break;
		case PRK_STATE_STARTUP:
			prk_absence_judge_return(sample, replica, thresholds, known, verdict);
			break;
		case PRK_STATE_BACKUP:
		case PRK_STATE_STOPPING:
		case PRK_STATE_LOST:
			break;
	}
}

/*
 * Has it moved lately?  What the watcher measured of a replica that has stood
 * still since is no forecast any more.
 */
static bool
is_moving(const PrkSample *sample, const PrkReplica *replica,
		  const PrkKnown *known)
{
	return !replica->has_walsender || replica->lag_bytes <= 0 ||
		known->stuck_since == 0 ||
		known->stuck_at != prk_health_position(replica) ||
		sample->taken_at - known->stuck_since < STAND_STILL;
}

/*
 * Is it behind?  Logical replicas are not asked: what a connector confirms
 * stands still for good reasons; and a receiver that does not replay only once
 * it had the time to tell.
 */
static void
judge_lag(const PrkSample *sample, const PrkReplica *replica,
		  const PrkThresholds *thresholds, const PrkKnown *known,
		  PrkVerdict *verdict)
{
	PrkLag		lag = {0};

	lag.bytes = replica->lag_bytes;
	if (replica->logical || replica->temporary ||
		has_not_told(sample, replica))
	{
		verdict->fact = PRK_FACT_STREAMS;
		verdict->lag_bytes = replica->lag_bytes;
		return;
	}
	lag.stages[PRK_STAGE_SENDING] = replica->unsent_bytes;
	lag.stages[PRK_STAGE_RECEIVING] = replica->unwritten_bytes;
	lag.stages[PRK_STAGE_FLUSHING] = replica->unflushed_bytes;
	lag.stages[PRK_STAGE_REPLAY] = replica->unreplayed_bytes;
	lag.silence = measure_silence(sample, replica, known);

	/* Asked where it is behind for longer than usual and somebody watches. */
	verdict->has_outlook = known->watched && replica->lag_bytes > 0 &&
		(verdict->lag_time < 0 ||
		 verdict->lag_time >= thresholds->lag_grace * 1000);
	prk_health_judge_lag(&lag, thresholds, verdict);
}

/*
 * Judges by how much something is behind, given verdict->lag_time and
 * forecast.
 *
 * A replica that is late but will soon have caught up needs no help: that is
 * a warning only.  One that stands still, or falls behind further, does.
 */
void
prk_health_judge_lag(const PrkLag *lag, const PrkThresholds *thresholds,
					 PrkVerdict *verdict)
{
	static const PrkCode codes[PRK_NSTAGES] = {
		[PRK_STAGE_SENDING] = PRK_CODE_NETWORK_SLOW,
		[PRK_STAGE_RECEIVING] = PRK_CODE_NETWORK_SLOW,
		[PRK_STAGE_FLUSHING] = PRK_CODE_FLUSH_SLOW,
		[PRK_STAGE_REPLAY] = PRK_CODE_REPLAY_SLOW
	};
	int64		lag_ms = verdict->lag_time / 1000;
	bool		time_known = verdict->lag_time >= 0;
	bool		bytes_count;
	PrkLevel	level = PRK_OK;

	verdict->fact = PRK_FACT_STREAMS;
	verdict->lag_bytes = lag->bytes;
	bytes_count = !time_known || lag_ms >= thresholds->lag_grace;
	if (lag->bytes <= 0)
		level = PRK_OK;
	else if ((thresholds->critical_lag >= 0 && bytes_count &&
			  lag->bytes >= thresholds->critical_lag) ||
			 (thresholds->critical_lag_time >= 0 && time_known &&
			  lag_ms >= thresholds->critical_lag_time))
		level = PRK_CRITICAL;
	else if ((thresholds->warning_lag >= 0 && bytes_count &&
			  lag->bytes >= thresholds->warning_lag) ||
			 (thresholds->warning_lag_time >= 0 && time_known &&
			  lag_ms >= thresholds->warning_lag_time))
		level = PRK_WARNING;

	if (level == PRK_CRITICAL && !thresholds->strict &&
		verdict->forecast.catch_up_in >= 0 &&
		verdict->forecast.catch_up_in <= CATCH_UP_SOON)
		level = PRK_WARNING;
	if (level == PRK_OK)
		return;

	for (int i = 1; i < PRK_NSTAGES; i++)
	{
		if (lag->stages[i] > lag->stages[verdict->stage])
			verdict->stage = i;
	}
	if (lag->silence > thresholds->stale_after * 1000)
	{
		verdict->fact = PRK_FACT_NO_REPLY;
		verdict->since = lag->silence;
		prk_verdict_raise(verdict, level, false, PRK_CODE_RECEIVER_STALLED);
		return;
	}
	verdict->fact = PRK_FACT_BEHIND;
	prk_verdict_raise(verdict, level, false, codes[verdict->stage]);
}

/*
 * Will the slot lose its WAL?  Under max_slot_wal_keep_size a slot may go
 * from "reserved" to "lost" without any state between, at a checkpoint; only
 * safe_wal_size tells how near that is.
 *
 * A slot at this server's own position has safe_wal_size of at least the
 * whole limit: its segment may be followed by as many as the limit has, and
 * what is left of its own comes on top (pg_get_replication_slots() in
 * src/backend/replication/slotfuncs.c).  So less than a third means that more
 * than two thirds of the limit are held back, which no healthy slot does.
 *
 * The forecast says it in time, where it is known how fast the slot falls
 * behind.  That it was not used for too long is told when more than half of
 * what idle_replication_slot_timeout allows is over.
 */
static void
judge_slot(const PrkSample *sample, const PrkReplica *replica,
		   const PrkThresholds *thresholds, PrkVerdict *verdict)
{
	int64		left = replica->safe_wal_size;
	int64		limit = sample->slot_keep_limit;
	int64		lost_in = verdict->forecast.lost_in;
	int64		idle_left = verdict->forecast.idle_left;
	bool		idle = false;
	bool		little;
	bool		very_little;
	bool		soon;
	bool		very_soon;

	if (replica->wal_status == PRK_WAL_UNRESERVED ||
		(replica->has_safe_wal_size && left <= 0) || idle_left == 0)
	{
		verdict->slot_end = PRK_SLOT_NEXT_CHECKPOINT;
		verdict->slot_idle = idle_left == 0;
		prk_verdict_raise(verdict, PRK_CRITICAL, true, PRK_CODE_SLOT_AT_RISK);
		return;
	}
	if (idle_left >= 0 && lost_in == idle_left)
	{
		idle = idle_left <= sample->slot_idle_limit / 2;
		if (!idle)
			lost_in = -1;
	}
	if (!idle && !replica->has_safe_wal_size)
		return;

	little = replica->has_safe_wal_size && limit >= 0 && left < limit / 3;
	very_little = replica->has_safe_wal_size && limit >= 0 &&
		left < limit / 10;
	soon = thresholds->warning_forecast >= 0 && lost_in >= 0 &&
		lost_in <= thresholds->warning_forecast * 1000;
	very_soon = thresholds->critical_forecast >= 0 && lost_in >= 0 &&
		lost_in <= thresholds->critical_forecast * 1000;
	if (!little && !soon && !very_soon)
		return;

	verdict->slot_end = lost_in >= 0 ? PRK_SLOT_IN_TIME : PRK_SLOT_AFTER_BYTES;
	verdict->slot_idle = idle;
	if (very_little)
		prk_verdict_raise(verdict, PRK_CRITICAL, true, PRK_CODE_SLOT_AT_RISK);
	else if (very_soon)
		prk_verdict_raise(verdict, PRK_CRITICAL, false, PRK_CODE_SLOT_AT_RISK);
	else
		prk_verdict_raise(verdict, PRK_WARNING, false, PRK_CODE_SLOT_AT_RISK);
}
