/*-------------------------------------------------------------------------
 *
 * upstream.c
 *	  Does this server receive from an upstream, and does it stream?
 *
 * IDENTIFICATION
 *	  src/watch/upstream.c
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/twophase.h"
#include "access/xlog.h"
#include "access/xlogrecovery.h"
#include "catalog/pg_control.h"
#include "common/controldata_utils.h"
#include "miscadmin.h"
#include "postmaster/bgworker_internals.h"
#include "replication/walsender.h"
#include "storage/lock.h"
#include "storage/proc.h"
#include "utils/guc.h"
#include "utils/timestamp.h"
#include "utils/wait_event.h"

#include "clock/clock_shared.h"
#include "failures/failure_words.h"
#include "judge/absence.h"
#include "watch/upstream.h"

/* A receiver tries again each wal_retrieve_retry_interval, 5 s by default. */
#define RECENT			(120 * USECS_PER_SEC)

/* What is still on its way while all is well, in bytes. */
#define IN_FLIGHT		(1024 * 1024)

static bool waits_for_archive(void);
static int64 read_delay(void);
static bool has_low_parameter(void);
static void measure_bytes(PrkUpstream *upstream, const PrkReceiver *receiver);
static void measure_age(PrkUpstream *upstream, const PrkReceiver *receiver);
static void judge_stream(const PrkUpstream *upstream,
						 const PrkThresholds *thresholds,
						 TimestampTz gone_since, TimestampTz now,
						 PrkVerdict *verdict);

/*
 * Reads the states of wal receiver and replay, each under its spinlock, and
 * what the LSN clock knows of them.
 */
void
prk_upstream_read(PrkUpstream *upstream)
{
	PrkReceiverPast past;
	PrkReceiver receiver;

	memset(upstream, 0, sizeof(PrkUpstream));
	upstream->unreceived_bytes = -1;
	upstream->connecting = -1;
	upstream->still = -1;
	upstream->in_recovery = RecoveryInProgress();
	if (!upstream->in_recovery)
		return;
	upstream->wanted = PrimaryConnInfo != NULL && PrimaryConnInfo[0] != '\0';

	/* Before what is received, which it is not ahead of then. */
	upstream->replayed_lsn = GetXLogReplayRecPtr(&upstream->timeline);
	prk_clock_receiver_past(&past);
	prk_receiver_read(&receiver, &past);
	upstream->streaming = receiver.streaming;
	upstream->settled = receiver.settled;
	upstream->stalled = receiver.stalled;
	upstream->connecting = receiver.connecting;
	strlcpy(upstream->sender_host, receiver.sender_host, NI_MAXHOST);
	upstream->sender_port = receiver.sender_port;
	strlcpy(upstream->slot_name, receiver.slot_name, NAMEDATALEN);
	upstream->received_lsn = receiver.received_lsn;
	upstream->last_message_at = receiver.last_message_at;
	upstream->silence = receiver.silence;
	upstream->restores = !upstream->wanted && waits_for_archive();
	upstream->pause_state = GetRecoveryPauseState();
	if (upstream->pause_state != RECOVERY_NOT_PAUSED)
		upstream->cannot_resume = has_low_parameter();
	upstream->has_target = recoveryTarget != RECOVERY_TARGET_UNSET;
	upstream->keeps_timeline =
		recoveryTargetTimeLineGoal != RECOVERY_TARGET_TIMELINE_LATEST;
	upstream->apply_delay = read_delay();
	measure_bytes(upstream, &receiver);
	measure_age(upstream, &receiver);
}

/*
 * Adds for how long replay has stood still, from what was known before: where
 * it was, and since when, by prk_clock_now(); 0 not known.
 */
void
prk_upstream_follow(PrkUpstream *upstream, XLogRecPtr replayed_lsn,
					int64 still_since)
{
	if (still_since == 0)
		return;
	upstream->still = upstream->replayed_lsn == replayed_lsn ?
		prk_clock_now() - still_since : 0;
}

/*
 * Does the startup process run restore_command, or wait to run it again?  Read
 * without a lock, as pg_stat_get_activity() reads wait events; it is among the
 * auxiliary processes, behind the backends.
 */
static bool
waits_for_archive(void)
{
	for (uint32 i = MaxBackends; i < ProcGlobal->allProcCount; i++)
	{
		const PGPROC *proc = &ProcGlobal->allProcs[i];
		uint32		wait = *(volatile uint32 *) &proc->wait_event_info;
		const char *event = proc->pid != 0 && wait != 0 ?
		pgstat_get_wait_event(wait) : NULL;

		if (event != NULL &&
			(strcmp(event, "RestoreCommand") == 0 ||
			 strcmp(event, "RecoveryRetrieveRetryInterval") == 0))
			return true;
	}
	return false;
}

/* recovery_min_apply_delay, whose variable is the startup process's own. */
static int64
read_delay(void)
{
	const char *value = GetConfigOption("recovery_min_apply_delay", true,
										false);

	return value != NULL ? strtoll(value, NULL, 10) * 1000 : 0;
}

/*
 * What the primary had when it last told, by WAL: the control file has it.
 * Without a name: it can't be told.
 */
void
prk_upstream_parameters(PrkParameter parameters[PRK_NPARAMETERS])
{
	bool		crc_ok;
	ControlFileData *control = get_controlfile(DataDir, &crc_ok);
	const PrkParameter all[PRK_NPARAMETERS] = {
		{"max_connections", MaxConnections, control->MaxConnections},
		{"max_worker_processes", max_worker_processes,
		control->max_worker_processes},
		{"max_wal_senders", max_wal_senders, control->max_wal_senders},
		{"max_prepared_transactions", max_prepared_xacts,
		control->max_prepared_xacts},
		{"max_locks_per_transaction", max_locks_per_xact,
		control->max_locks_per_xact}
	};

	memset(parameters, 0, sizeof(all));
	if (crc_ok)
		memcpy(parameters, all, sizeof(all));
	pfree(control);
}

/* Is one of them lower here?  Then replay that is resumed ends the server. */
static bool
has_low_parameter(void)
{
	PrkParameter parameters[PRK_NPARAMETERS];

	prk_upstream_parameters(parameters);
	for (int i = 0; i < PRK_NPARAMETERS; i++)
	{
		if (parameters[i].name != NULL &&
			parameters[i].here < parameters[i].primary)
			return true;
	}
	return false;
}

/*
 * How far this standby is behind, in what it has received and in what it has not.
 */
static void
measure_bytes(PrkUpstream *upstream, const PrkReceiver *receiver)
{
	/* What was restored from an archive may be ahead of what was received. */
	XLogRecPtr	reached = Max(upstream->received_lsn, upstream->replayed_lsn);

	upstream->unreplayed_bytes = reached - upstream->replayed_lsn;
	if (!upstream->streaming || upstream->stalled ||
		XLogRecPtrIsInvalid(receiver->latest_end))
		return;
	upstream->unreceived_bytes = receiver->latest_end > reached ?
		(int64) (receiver->latest_end - reached) : 0;
	upstream->unflushed_bytes =
		Min(upstream->unreceived_bytes,
			(int64) (Max(receiver->written_lsn, reached) - reached));
	upstream->flushing = receiver->flushing;
}

/*
 * How old is the WAL that is replayed next, as far as any is known of?
 *
 * The LSN clock knows since when the upstream has it.  Without the clock there
 * is GetCurrentChunkReplayStartTime(): when replay began with what had come by
 * then.  It is of this server's clock, and unlike the time of the last
 * replayed commit it does not age while there is nothing to replay; but it
 * is too long ago when replay has not once been at the end since.
 */
static void
measure_age(PrkUpstream *upstream, const PrkReceiver *receiver)
{
	XLogRecPtr	end = Max(upstream->received_lsn, upstream->replayed_lsn);
	TimestampTz began = GetCurrentChunkReplayStartTime();
	PrkClockAge age;

	if (upstream->unreceived_bytes > 0)
		end += upstream->unreceived_bytes;
	upstream->contact_age = prk_clock_contact_age();
	prk_clock_ages(&upstream->replayed_lsn, &age, 1, prk_clock_now(), end);
	upstream->has_clock = age.known;
	if (upstream->replayed_lsn >= end)
		upstream->lag_age = 0;
	else if (age.known)
		upstream->lag_age = age.age;
	else
	{
		upstream->lag_age = began == 0 || upstream->unreplayed_bytes == 0 ?
			-1 : Max(GetCurrentTimestamp() - began, 0);

		/* Before all that the clock knows, it still knows how long that is. */
		if (age.age > 0)
			upstream->lag_age = Max(upstream->lag_age, age.age);
		else if (upstream->lag_age < 0 &&
				 upstream->unreceived_bytes <= IN_FLIGHT)
			upstream->lag_age = 0;
	}
}

/*
 * How far this standby is behind, in microseconds; -1 when not known.
 * gone_since is when the watcher, if there is one, first saw that the stream
 * is cut; the server itself doesn't keep that time, since each attempt to
 * connect resets it.
 */
int64
prk_upstream_lag_time(const PrkUpstream *upstream, TimestampTz gone_since,
					  TimestampTz now)
{
	if (!upstream->in_recovery)
		return -1;
	if (upstream->stalled)
		return Max(upstream->silence, upstream->lag_age);
	if (upstream->settled)
		return upstream->lag_age;

	/* Asked twice, an archive that has nothing says nothing of what there is. */
	if (!upstream->wanted)
		return upstream->restores &&
			(upstream->still < 0 ||
			 upstream->still > 2 * (int64) wal_retrieve_retry_interval * 1000) ?
			-1 : upstream->lag_age;

	/* Cut, or not long enough connected to know more than before. */
	if (upstream->contact_age >= 0)
		return Max(upstream->contact_age, upstream->lag_age);
	if (gone_since != 0)
		return Max(now - gone_since, upstream->lag_age);
	if (upstream->streaming)
		return upstream->lag_age;
	return upstream->lag_age > 0 ? upstream->lag_age : -1;
}

/*
 * The receiver's last failure, if it is recent: it would have tried again by
 * now.  One after which it has streamed is over, but not at once: it may begin
 * to stream each time that it tries.  Sets its kind.  NULL: none.
 */
const PrkFailure *
prk_upstream_failure(const PrkFailures *failures, PrkFailureKind *kind)
{
	const PrkFailure *failure = prk_failures_of_upstream(failures);

	if (failure == NULL || failure->age > RECENT ||
		(failure->over &&
		 failure->age > 2 * (int64) wal_retrieve_retry_interval * 1000))
		return NULL;
	*kind = prk_failure_kind(failure);
	return failure;
}

/*
 * Judges the upstream by the thresholds for absence, and while it streams
 * what this standby makes of the stream by those for lag.  kind is that of the
 * receiver's recent failure, NULL if there was none: a receiver that has just
 * connected is about to meet it again.  What no other attempt can mend is
 * critical at once.
 */
void
prk_upstream_judge(const PrkUpstream *upstream, const PrkFailureKind *kind,
				   const PrkThresholds *thresholds,
				   bool watched, TimestampTz gone_since,
				   TimestampTz now, PrkVerdict *verdict)
{
	bool		refused = upstream->wanted && !upstream->settled &&
	kind != NULL;

	prk_health_start(verdict, PRK_STATE_STREAMING);
	if (!upstream->in_recovery)
		verdict->fact = PRK_FACT_STREAMS;
	else if (upstream->wanted && (!upstream->streaming || refused))
	{
		PrkCode		code = refused ? prk_upstream_code(*kind) :
		PRK_CODE_UPSTREAM_UNREACHABLE;

		/* Just lost, until the watcher has noticed. */
		if (watched && gone_since == 0)
			gone_since = now;
		verdict->state = PRK_STATE_DISCONNECTED;
		if (upstream->connecting >= PRK_UPSTREAM_SLOW_CONNECT)
			verdict->connecting = upstream->connecting;
		verdict->lag_time = prk_upstream_lag_time(upstream, gone_since, now);
		prk_absence_judge_time(gone_since != 0 ?
							   Max(now - gone_since, 0) : -1,
							   thresholds, code, verdict);
		if (prk_code_info(code)->gravity == PRK_GRAVITY_CRITICAL)
		{
			verdict->level = PRK_CRITICAL;
			verdict->at_once = true;
			verdict->code = code;
		}
	}
	else
		judge_stream(upstream, thresholds, gone_since, now, verdict);
	prk_health_finish(thresholds, NULL, verdict);
}

/* What comes, and what this standby makes of it. */
static void
judge_stream(const PrkUpstream *upstream, const PrkThresholds *thresholds,
			 TimestampTz gone_since, TimestampTz now, PrkVerdict *verdict)
{
	PrkLag		lag = {0};
	PrkThresholds limits = *thresholds;

	lag.bytes = upstream->unreplayed_bytes;
	lag.stages[PRK_STAGE_REPLAY] = upstream->unreplayed_bytes;

	/*
	 * What has not come yet counts where it is known for how long: in a burst
	 * of writing some bytes are always on their way.
	 */
	if (upstream->has_clock && upstream->unreceived_bytes > 0)
	{
		lag.bytes += upstream->unreceived_bytes;
		lag.stages[PRK_STAGE_FLUSHING] = upstream->flushing ?
			upstream->unreceived_bytes : upstream->unflushed_bytes;
		lag.stages[PRK_STAGE_RECEIVING] = upstream->unreceived_bytes -
			lag.stages[PRK_STAGE_FLUSHING];
	}
	verdict->lag_time = prk_upstream_lag_time(upstream, gone_since, now);

	/* What is meant to be so late is late only beyond that. */
	if (upstream->apply_delay > 0)
	{
		limits.warning_lag = limits.critical_lag = -1;
		if (limits.warning_lag_time >= 0)
			limits.warning_lag_time += upstream->apply_delay / 1000;
		if (limits.critical_lag_time >= 0)
			limits.critical_lag_time += upstream->apply_delay / 1000;
	}
	prk_health_judge_lag(&lag, &limits, verdict);

	if (upstream->stalled)
	{
		verdict->fact = PRK_FACT_NOTHING_RECEIVED;
		verdict->since = upstream->silence;
		if (thresholds->critical_disconnected >= 0 &&
			verdict->since >= thresholds->critical_disconnected * 1000)
			verdict->level = PRK_CRITICAL;
		else
			verdict->level = Max(verdict->level, PRK_WARNING);
		verdict->at_once = true;
		verdict->code = PRK_CODE_RECEIVER_STALLED;
	}
	else if (upstream->pause_state != RECOVERY_NOT_PAUSED)
	{
		verdict->paused = true;
		if (upstream->cannot_resume)
		{
			verdict->level = PRK_CRITICAL;
			verdict->at_once = true;
			verdict->code = PRK_CODE_PARAMETERS_TOO_LOW;
		}
		else if (verdict->level != PRK_OK)
			verdict->code = upstream->has_target ?
				PRK_CODE_RECOVERY_TARGET_SET : PRK_CODE_REPLAY_PAUSED;
	}
	else if (!upstream->wanted && verdict->level == PRK_OK)
	{
		verdict->fact = PRK_FACT_ARCHIVE_ONLY;
		verdict->since = upstream->restores ? upstream->still : -1;

		/* An idle primary has nothing to archive, so it is never worse. */
		if (thresholds->critical_disconnected >= 0 &&
			verdict->since >= thresholds->critical_disconnected * 1000)
		{
			verdict->level = PRK_WARNING;
			verdict->at_once = true;
			verdict->code = PRK_CODE_RESTORE_STALLED;
		}
	}
}

/* Of which cause is a failure to connect to the upstream the evidence? */
PrkCode
prk_upstream_code(PrkFailureKind kind)
{
	switch (kind)
	{
		case PRK_FAILURE_HBA_NO_ENTRY:
			return PRK_CODE_HBA_NO_ENTRY;
		case PRK_FAILURE_HBA_REJECTS:
			return PRK_CODE_HBA_REJECTS;
		case PRK_FAILURE_AUTH_FAILED:
			return PRK_CODE_AUTH_FAILED;
		case PRK_FAILURE_NO_PASSWORD:
			return PRK_CODE_NO_PASSWORD;
		case PRK_FAILURE_ROLE_MISSING:
			return PRK_CODE_ROLE_MISSING;
		case PRK_FAILURE_ROLE_CANNOT_REPLICATE:
			return PRK_CODE_ROLE_CANNOT_REPLICATE;
		case PRK_FAILURE_TOO_MANY:
			return PRK_CODE_WALSENDERS_EXHAUSTED;
		case PRK_FAILURE_SLOT_MISSING:
			return PRK_CODE_SLOT_MISSING;
		case PRK_FAILURE_SLOT_TAKEN:
			return PRK_CODE_SLOT_TAKEN;
		case PRK_FAILURE_SLOT_LOST:
			return PRK_CODE_SLOT_LOST;
		case PRK_FAILURE_WAL_REMOVED:
			return PRK_CODE_WAL_REMOVED;
		case PRK_FAILURE_FILE:
			return PRK_CODE_UPSTREAM_FILE_UNREADABLE;
		case PRK_FAILURE_OWN_FILE:
			return PRK_CODE_FLUSH_SLOW;
		case PRK_FAILURE_OTHER_CLUSTER:
			return PRK_CODE_OTHER_CLUSTER;
		case PRK_FAILURE_OTHER_TIMELINE:
			return PRK_CODE_OTHER_TIMELINE;
		case PRK_FAILURE_NEWER_TIMELINE:
			return PRK_CODE_NEWER_TIMELINE_EXISTS;
		case PRK_FAILURE_TIMEOUT:
		case PRK_FAILURE_UNREACHABLE:
			return PRK_CODE_UPSTREAM_UNREACHABLE;
		case PRK_FAILURE_OTHER:
		case PRK_FAILURE_UPSTREAM:
		case PRK_FAILURE_NO_SLOT_FREE:
		case PRK_FAILURE_WAL_ENDED:
		case PRK_FAILURE_REFUSED:
			return PRK_CODE_UPSTREAM_REFUSED;
	}
	pg_unreachable();
}
