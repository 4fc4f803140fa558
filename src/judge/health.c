/*-------------------------------------------------------------------------
 *
 * health.c
 *	  What a sample means: level, code and reason.  Pure functions.
 *
 * A replica is judged by four questions, each of which may raise the level:
 * is its slot lost or about to be, is it absent, is it behind.  The worst
 * answer gives level and code; the reason joins the words of all that were
 * given, so that one line says "disconnected for 15 min, slot has 212 MB
 * left".
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

#include "commands/progress.h"

#include "format.h"
#include "judge/health.h"

/* How long a slot that nobody has used yet is nobody's fault. */
#define NEVER_CONNECTED_GRACE	USECS_PER_DAY

/* Who has caught up so soon is not critical before. */
#define CATCH_UP_SOON			(5 * USECS_PER_MINUTE)

/* One question's answer is added to the verdict by these. */
static void raise_level(PrkVerdict *verdict, PrkLevel level, bool at_once,
						const char *code);
static void say(PrkVerdict *verdict, const char *fmt,...) pg_attribute_printf(2, 3);

static PrkState refine_state(const PrkReplica *replica,
							 const PrkKnown *known);
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
static void judge_absence(const PrkSample *sample, const PrkReplica *replica,
						  const PrkThresholds *thresholds,
						  const PrkKnown *known, PrkVerdict *verdict);
static void judge_never_connected(const PrkSample *sample,
								  const PrkKnown *known,
								  PrkVerdict *verdict);
static void judge_lag(const PrkSample *sample, const PrkReplica *replica,
					  const PrkThresholds *thresholds, const PrkKnown *known,
					  PrkVerdict *verdict);
static void foresee(const PrkReplica *replica,
					const PrkThresholds *thresholds, const PrkKnown *known,
					PrkVerdict *verdict);
static void judge_slot(const PrkSample *sample, const PrkReplica *replica,
					   const PrkThresholds *thresholds,
					   PrkVerdict *verdict);
static void describe_startup(const PrkReplica *replica, PrkVerdict *verdict);
static void describe_backup(const PrkReplica *replica, PrkVerdict *verdict);

/*
 * Judges one replica of a sample for the instant at which that was taken.
 * known may be all zero.  The verdict is wholly overwritten.
 */
void
prk_health_judge(const PrkSample *sample, const PrkReplica *replica,
				 const PrkThresholds *thresholds, const PrkKnown *known,
				 PrkVerdict *verdict)
{
	memset(verdict, 0, sizeof(PrkVerdict));
	verdict->level = PRK_OK;
	verdict->state = refine_state(replica, known);
	verdict->lag_time = measure_lag_time(sample, replica, thresholds, known);
	prk_forecast_replica(sample, replica, &known->pace, &verdict->forecast);

	if (verdict->state == PRK_STATE_LOST)
	{
		const char *cause = prk_health_cause(replica);

		/*
		 * From 17 on a walsender streams through an invalidated slot as if
		 * nothing were wrong, but no WAL is kept for it any more.
		 */
		say(verdict, "slot is lost, %s%s%s",
			prk_sample_in_use(replica) ? "it streams without one" :
			replica->logical ? "the subscriber must be built anew" :
			"the replica must be rebuilt",
			cause != NULL ? ": " : "", cause != NULL ? cause : "");
		if (!replica->temporary && !replica->synced)
			raise_level(verdict, PRK_CRITICAL, true, "slot_lost");
	}
	else
	{
		judge_state(sample, replica, thresholds, known, verdict);
		if (!replica->temporary && !replica->synced)
			judge_slot(sample, replica, thresholds, verdict);
	}

	if (thresholds->off)
	{
		verdict->level = PRK_OK;
		verdict->at_once = false;
		verdict->code[0] = '\0';
		verdict->outlook[0] = '\0';
		say(verdict, "not judged");
	}
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

/*
 * Why the server took a replica's slot away, as a clause; NULL when it didn't.
 * A cause that is newer than this is told by the server's name for it.
 */
const char *
prk_health_cause(const PrkReplica *replica)
{
	static const struct
	{
		const char *name;
		const char *clause;
	}			causes[] = {
		{"wal_removed", "it held more WAL than max_slot_wal_keep_size allows"},
		{"rows_removed", "the primary removed rows that it needs"},
		{"wal_level_insufficient", "the primary's wal_level is no longer logical"},
		{"idle_timeout", "it was unused for longer than idle_replication_slot_timeout"}
	};

	if (replica->invalidation == NULL)
		return NULL;
	for (int i = 0; i < (int) lengthof(causes); i++)
	{
		if (strcmp(replica->invalidation, causes[i].name) == 0)
			return causes[i].clause;
	}
	return replica->invalidation;
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

/* The worst level counts, and of two that are equal the one found first. */
static void
raise_level(PrkVerdict *verdict, PrkLevel level, bool at_once,
			const char *code)
{
	if (level <= verdict->level)
		return;
	verdict->level = level;
	verdict->at_once = at_once;
	strlcpy(verdict->code, code, PRK_CODE_LEN);
}

/* Adds a clause to the reason. */
static void
say(PrkVerdict *verdict, const char *fmt,...)
{
	size_t		len = strlen(verdict->reason);
	va_list		args;

	if (len > 0)
		len += strlcpy(verdict->reason + len, ", ", PRK_REASON_LEN - len);
	if (len >= PRK_REASON_LEN)
		return;
	va_start(args, fmt);
	vsnprintf(verdict->reason + len, PRK_REASON_LEN - len, fmt, args);
	va_end(args);
}

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
 * How old the first WAL is that the replica has not replayed, in
 * microseconds; 0 when it is at this server's position, -1 when unknown.
 *
 * The LSN clock knows, for those that are away too.  Where it doesn't, the
 * walsender's own measure counts while it is of the present; else the age of
 * the file that holds that WAL, which is written until the next one is begun
 * and so is too young rather than too old.
 */
static int64
measure_lag_time(const PrkSample *sample, const PrkReplica *replica,
				 const PrkThresholds *thresholds, const PrkKnown *known)
{
	int64		result = -1;

	if (replica->lag_bytes == 0)
		return 0;
	if (replica->lag_bytes < 0)
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
	switch (verdict->state)
	{
		case PRK_STATE_STREAMING:
		case PRK_STATE_CATCHUP:
			judge_lag(sample, replica, thresholds, known, verdict);
			break;
		case PRK_STATE_BACKUP:
			describe_backup(replica, verdict);
			break;
		case PRK_STATE_STARTUP:
			describe_startup(replica, verdict);
			break;
		case PRK_STATE_STOPPING:
			say(verdict, "stopping");
			break;
		case PRK_STATE_DISCONNECTED:
			judge_absence(sample, replica, thresholds, known, verdict);
			break;
		case PRK_STATE_NEVER_CONNECTED:
			judge_never_connected(sample, known, verdict);
			break;
		case PRK_STATE_LOST:
			break;
	}
}

static void
judge_absence(const PrkSample *sample, const PrkReplica *replica,
			  const PrkThresholds *thresholds, const PrkKnown *known,
			  PrkVerdict *verdict)
{
	TimestampTz since = known->gone_since;
	char		buf[PRK_FORMAT_LEN];
	int64		away;

	/* Where the watcher has not noticed yet, it went after he last looked. */
	if (since == 0)
		since = replica->inactive_since;
	if (since == 0)
		since = known->seen_at;
	if (since == 0)
	{
		/*
		 * Better a warning too many than silence about a replica that has
		 * been away for a week; it can't be more, since it may be a second.
		 */
		say(verdict, "disconnected, not known since when");
		if (thresholds->warning_disconnected >= 0 ||
			thresholds->critical_disconnected >= 0)
			raise_level(verdict, PRK_WARNING, true, "replica_down");
		return;
	}

	away = sample->taken_at - since;
	say(verdict, "disconnected for %s", prk_format_duration(buf, away));
	if (thresholds->critical_disconnected >= 0 &&
		away >= thresholds->critical_disconnected * 1000)
		raise_level(verdict, PRK_CRITICAL, true, "replica_down");
	else if (thresholds->warning_disconnected >= 0 &&
			 away >= thresholds->warning_disconnected * 1000)
		raise_level(verdict, PRK_WARNING, true, "replica_down");
}

/*
 * A slot that waits for its replica's first connection.  Forgotten, it holds
 * WAL like any other, but nothing that worked has stopped working.
 */
static void
judge_never_connected(const PrkSample *sample, const PrkKnown *known,
					  PrkVerdict *verdict)
{
	int64		age = sample->taken_at - known->appeared_at;
	char		buf[PRK_FORMAT_LEN];

	say(verdict, "never connected, slot was made %s ago",
		prk_format_duration(buf, age));
	if (age >= NEVER_CONNECTED_GRACE)
		raise_level(verdict, PRK_WARNING, true, "replica_never_seen");
}

/*
 * Is it behind?  Logical replicas are not asked: what a connector confirms
 * stands still for good reasons.
 *
 * Who is late but will soon have caught up needs no help: that is a warning
 * only.  Who stands still, or falls behind further, does.
 */
static void
judge_lag(const PrkSample *sample, const PrkReplica *replica,
		  const PrkThresholds *thresholds, const PrkKnown *known,
		  PrkVerdict *verdict)
{
	const struct
	{
		int64		bytes;
		const char *name;
		const char *code;
	}			stages[] = {
		{replica->unsent_bytes, "sending", "network_slow"},
		{replica->unwritten_bytes, "receiving", "network_slow"},
		{replica->unflushed_bytes, "flushing", "flush_slow"},
		{replica->unreplayed_bytes, "replay", "replay_slow"}
	};
	int64		lag = replica->lag_bytes;
	int64		lag_ms = verdict->lag_time / 1000;
	int64		quiet = measure_silence(sample, replica, known);
	bool		bytes_count;
	PrkLevel	level = PRK_OK;
	int			stage = 0;
	char		size[PRK_FORMAT_LEN];
	char		time[PRK_FORMAT_LEN];

	prk_format_size(size, Max(lag, 0));
	bytes_count = verdict->lag_time < 0 || lag_ms >= thresholds->lag_grace;
	if (replica->logical || replica->temporary || lag <= 0)
		level = PRK_OK;
	else if ((thresholds->critical_lag >= 0 && bytes_count &&
			  lag >= thresholds->critical_lag) ||
			 (thresholds->critical_lag_time >= 0 && verdict->lag_time >= 0 &&
			  lag_ms >= thresholds->critical_lag_time))
		level = PRK_CRITICAL;
	else if ((thresholds->warning_lag >= 0 && bytes_count &&
			  lag >= thresholds->warning_lag) ||
			 (thresholds->warning_lag_time >= 0 && verdict->lag_time >= 0 &&
			  lag_ms >= thresholds->warning_lag_time))
		level = PRK_WARNING;

	foresee(replica, thresholds, known, verdict);
	if (level == PRK_CRITICAL && !thresholds->strict &&
		verdict->forecast.catch_up_in >= 0 &&
		verdict->forecast.catch_up_in <= CATCH_UP_SOON)
		level = PRK_WARNING;

	if (level == PRK_OK)
	{
		if (lag < 0)
			say(verdict, "%s", prk_state_name(verdict->state));
		else
			say(verdict, "%s, %s behind",
				verdict->state == PRK_STATE_CATCHUP ? "catching up" :
				"streaming", size);
		return;
	}

	for (int i = 1; i < (int) lengthof(stages); i++)
	{
		if (stages[i].bytes > stages[stage].bytes)
			stage = i;
	}
	if (quiet > thresholds->stale_after * 1000)
	{
		say(verdict, "no reply for %s, %s behind",
			prk_format_duration(time, quiet), size);
		raise_level(verdict, level, false, "receiver_stalled");
		return;
	}
	if (verdict->lag_time >= 0)
		say(verdict, "%s is %s and %s behind", stages[stage].name,
			prk_format_duration(time, verdict->lag_time), size);
	else
		say(verdict, "%s is %s behind", stages[stage].name, size);
	raise_level(verdict, level, false, stages[stage].code);
}

/*
 * Says whether the replica will catch up, if it is behind for longer than is
 * usual and somebody watches.
 */
static void
foresee(const PrkReplica *replica, const PrkThresholds *thresholds,
		const PrkKnown *known, PrkVerdict *verdict)
{
	const PrkForecast *forecast = &verdict->forecast;
	char		time[PRK_FORMAT_LEN];

	if (!known->watched || replica->logical || replica->lag_bytes <= 0 ||
		(verdict->lag_time >= 0 &&
		 verdict->lag_time < thresholds->lag_grace * 1000))
		return;
	if (!forecast->has_catch_up)
		strlcpy(verdict->outlook, "too early to say when it will catch up",
				PRK_OUTLOOK_LEN);
	else if (forecast->catch_up_in >= 0)
		snprintf(verdict->outlook, PRK_OUTLOOK_LEN, "will catch up in %s",
				 prk_format_duration(time, forecast->catch_up_in));
	else
		strlcpy(verdict->outlook, "is not catching up", PRK_OUTLOOK_LEN);
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
	char		buf[PRK_FORMAT_LEN];

	if (replica->wal_status == PRK_WAL_UNRESERVED ||
		(replica->has_safe_wal_size && left <= 0) || idle_left == 0)
	{
		say(verdict, "slot will be lost at the next checkpoint%s",
			idle_left == 0 ? " by idle_replication_slot_timeout" : "");
		raise_level(verdict, PRK_CRITICAL, true, "slot_at_risk");
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

	if (lost_in >= 0)
		say(verdict, "slot will be lost in %s%s",
			prk_format_duration(buf, lost_in),
			idle ? " by idle_replication_slot_timeout" : "");
	else
		say(verdict, "slot will be lost after %s more",
			prk_format_size(buf, left));
	if (very_little)
		raise_level(verdict, PRK_CRITICAL, true, "slot_at_risk");
	else if (very_soon)
		raise_level(verdict, PRK_CRITICAL, false, "slot_at_risk");
	else
		raise_level(verdict, PRK_WARNING, false, "slot_at_risk");
}

/* A slot that is in use or kept for use, but streams nothing. */
static void
describe_startup(const PrkReplica *replica, PrkVerdict *verdict)
{
	if (replica->has_walsender)
		say(verdict, "starting to stream");
	else if (replica->synced)
		say(verdict, "copy of the primary's slot");
	else if (replica->pid != 0)
		say(verdict, "in use by pid %d", replica->pid);
	else
		say(verdict, "temporary slot, not in use");
}

/* A base backup says how far it is; it is never late. */
static void
describe_backup(const PrkReplica *replica, PrkVerdict *verdict)
{
	char		buf[PRK_FORMAT_LEN];

	if (replica->backup_phase == PROGRESS_BASEBACKUP_PHASE_WAIT_CHECKPOINT)
		say(verdict, "base backup, waiting for a checkpoint");
	else if (replica->backup_phase != 0 && replica->backup_total > 0)
		say(verdict, "base backup %d %%",
			(int) Min(replica->backup_streamed * 100.0 /
					  replica->backup_total, 100));
	else if (replica->backup_phase != 0 && replica->backup_streamed > 0)
		say(verdict, "base backup, %s sent",
			prk_format_size(buf, replica->backup_streamed));
	else
		say(verdict, "base backup");
}
