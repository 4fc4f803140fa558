/*-------------------------------------------------------------------------
 *
 * absence.c
 *	  What it means that a replica is away, or was until this moment.
 *
 * Pure functions, as those of health.c.
 *
 * IDENTIFICATION
 *	  src/judge/absence.c
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "failures/departures.h"
#include "judge/absence.h"

/* How long a slot may wait for its first connection without a warning. */
#define NEVER_CONNECTED_GRACE	USECS_PER_DAY

/*
 * On a standby, is a slot of the time before its timeline began, and not used
 * since?  A primary that has become a standby has such, whose replicas follow
 * the new primary.
 */
bool
prk_absence_left_behind(const PrkSample *sample, const PrkReplica *replica,
						const PrkKnown *known)
{
	return sample->in_recovery && replica->pid == 0 && !replica->synced &&
		known->seen_at == 0 &&
		!XLogRecPtrIsInvalid(sample->timeline_begin) &&
		!XLogRecPtrIsInvalid(replica->restart_lsn) &&
		replica->restart_lsn <= sample->timeline_begin;
}

/*
 * Does a tool for failovers keep this slot on a standby, for a sibling that
 * receives from another server, and move it along?  Such a slot moves though
 * no connection to it was ever seen, and its position is not so old that a
 * replica there would count as absent.
 */
bool
prk_absence_kept(const PrkSample *sample, const PrkReplica *replica,
				 const PrkThresholds *thresholds, const PrkKnown *known,
				 int64 lag_time)
{
	int64		limit = thresholds->warning_disconnected >= 0 ?
	thresholds->warning_disconnected * 1000 : PG_INT64_MAX;

	if (!sample->in_recovery || replica->pid != 0 || known->seen_at != 0 ||
		known->moved_at == 0)
		return false;
	return sample->taken_at - known->moved_at < limit ||
		(lag_time >= 0 && lag_time < limit);
}

/*
 * For how long a replica is away, in microseconds; -1: not known, or it is
 * there.  Where the watcher has not noticed yet, it went after he last looked.
 * One that has never come is away since its slot was made.
 */
int64
prk_absence_measure(const PrkSample *sample, const PrkReplica *replica,
					const PrkKnown *known)
{
	TimestampTz since = known->gone_since;

	if (replica->pid != 0)
		return -1;
	if (since == 0)
		since = replica->inactive_since;
	if (since == 0)
		since = known->seen_at;
	if (since == 0 && known->never_connected)
		since = known->appeared_at;
	return since != 0 ? Max(sample->taken_at - since, 0) : -1;
}

/* Judges a replica that is not connected. */
void
prk_absence_judge(const PrkSample *sample, const PrkReplica *replica,
				  const PrkThresholds *thresholds, const PrkKnown *known,
				  PrkVerdict *verdict)
{
	prk_absence_judge_time(prk_absence_measure(sample, replica, known),
						   thresholds, PRK_CODE_REPLICA_DOWN, verdict);

	/* What it lacks is as old as it is, whether it is there or not. */
	if (!replica->logical && thresholds->warning_lag_time >= 0 &&
		verdict->lag_time >= thresholds->warning_lag_time * 1000)
		prk_verdict_raise(verdict, PRK_WARNING, false, PRK_CODE_REPLICA_DOWN);
}

/*
 * It has come this moment, after an absence that counts: that is over once it
 * stays.  One that leaves at once, again and again, would else be well each time
 * that somebody happens to look.  So what was announced of it stands meanwhile.
 */
void
prk_absence_judge_return(const PrkSample *sample, const PrkReplica *replica,
						 const PrkThresholds *thresholds, const PrkKnown *known,
						 PrkVerdict *verdict)
{
	PrkVerdict	away = {0};

	if (!replica->has_walsender || known->gone_since == 0 ||
		prk_absence_over(sample, replica, known))
		return;
	prk_absence_judge_time(Max(sample->taken_at - known->gone_since, 0),
						   thresholds, PRK_CODE_REPLICA_DOWN, &away);
	if (away.level <= verdict->level)
		return;
	prk_verdict_raise(verdict, away.level, false, away.code);
	verdict->fact = PRK_FACT_BACK;
	verdict->since = away.since;
}

/*
 * Has its walsender run for more than a moment?  Of one that was connected before
 * and did nothing, its watcher has to see that it streams now.
 */
bool
prk_absence_over(const PrkSample *sample, const PrkReplica *replica,
				 const PrkKnown *known)
{
	return replica->pid != known->idle_pid &&
		sample->taken_at - replica->backend_start >= PRK_STAYS;
}

/*
 * Judges a replica that has been away for this long (microseconds); -1: not
 * known for how long.  Then it is a warning: silence would hide a replica that
 * has been away for a week, and critical would be wrong after a second.
 */
void
prk_absence_judge_time(int64 away, const PrkThresholds *thresholds,
					   PrkCode code, PrkVerdict *verdict)
{
	verdict->fact = PRK_FACT_GONE;
	verdict->since = away;
	if (away < 0)
	{
		if (thresholds->warning_disconnected >= 0 ||
			thresholds->critical_disconnected >= 0)
			prk_verdict_raise(verdict, PRK_WARNING, true, code);
	}
	else if (thresholds->critical_disconnected >= 0 &&
			 away >= thresholds->critical_disconnected * 1000)
		prk_verdict_raise(verdict, PRK_CRITICAL, true, code);
	else if (thresholds->warning_disconnected >= 0 &&
			 away >= thresholds->warning_disconnected * 1000)
		prk_verdict_raise(verdict, PRK_WARNING, true, code);
}

/*
 * A slot that waits for its replica's first connection.  Forgotten, it holds
 * WAL like any other, but nothing that worked has stopped working.
 */
void
prk_absence_never_connected(const PrkSample *sample, TimestampTz made_at,
							PrkVerdict *verdict)
{
	int64		age = sample->taken_at - made_at;

	verdict->fact = PRK_FACT_NEVER_CONNECTED;
	verdict->since = Max(age, 0);
	if (age >= NEVER_CONNECTED_GRACE)
		prk_verdict_raise(verdict, PRK_WARNING, true, PRK_CODE_REPLICA_NEVER_SEEN);
}
