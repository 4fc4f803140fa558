/*-------------------------------------------------------------------------
 *
 * upstream.c
 *	  Does this server receive from an upstream, and does it stream?
 *
 * IDENTIFICATION
 *	  src/upstream.c
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include <time.h>

#include "access/xlog.h"
#include "access/xlogrecovery.h"
#include "replication/walreceiver.h"
#include "storage/spin.h"
#include "utils/timestamp.h"

#include "format.h"
#include "upstream.h"

/* What a connection that fails at once does not live for, in seconds. */
#define SETTLED_AFTER	2

/*
 * After half of wal_receiver_timeout without a word the receiver asks for
 * one; whoever has not answered this many milliseconds later is not there.
 */
#define ANSWER_GRACE	3000

/* Without that timeout: how often the upstream speaks unasked, by default. */
#define UNASKED			30000

/* What is still on its way while all is well, in bytes. */
#define IN_FLIGHT		(1024 * 1024)

static void read_receiver(PrkUpstream *upstream, XLogRecPtr *latest_end);
static void read_replay(PrkUpstream *upstream);

/*
 * Reads the states of wal receiver and replay, each under its spinlock.
 *
 * The receiver calls itself streaming before it has connected; only then is
 * its connection string ready to be shown (WalReceiverMain() in
 * src/backend/replication/walreceiver.c).  An attempt that connects and is
 * refused looks like streaming for some milliseconds: whoever keeps count of
 * time goes by "settled".  And it goes on to call itself so when nothing
 * comes any more, until its timeout: that is what "stalled" is for.
 */
void
prk_upstream_read(PrkUpstream *upstream)
{
	XLogRecPtr	latest_end;
	XLogRecPtr	reached;

	memset(upstream, 0, sizeof(PrkUpstream));
	upstream->unreceived_bytes = -1;
	upstream->in_recovery = RecoveryInProgress();
	if (!upstream->in_recovery)
		return;
	upstream->wanted = PrimaryConnInfo != NULL && PrimaryConnInfo[0] != '\0';

	read_receiver(upstream, &latest_end);
	read_replay(upstream);

	/* What was restored from an archive may be ahead of what was received. */
	reached = Max(upstream->received_lsn, upstream->replayed_lsn);
	upstream->unreplayed_bytes = reached - upstream->replayed_lsn;
	if (upstream->unreplayed_bytes == 0)
		upstream->replay_age = 0;
	if (upstream->streaming && !upstream->stalled &&
		!XLogRecPtrIsInvalid(latest_end))
		upstream->unreceived_bytes =
			latest_end > reached ? (int64) (latest_end - reached) : 0;
}

static void
read_receiver(PrkUpstream *upstream, XLogRecPtr *latest_end)
{
	WalRcvState state;
	bool		ready;
	pg_time_t	started;
	int64		patience;

	SpinLockAcquire(&WalRcv->mutex);
	state = WalRcv->walRcvState;
	ready = WalRcv->ready_to_display;
	started = WalRcv->startTime;
	upstream->received_lsn = WalRcv->flushedUpto;
	upstream->last_message_at = WalRcv->lastMsgReceiptTime;
	*latest_end = WalRcv->latestWalEnd;
	if (ready)
	{
		strlcpy(upstream->sender_host, WalRcv->sender_host, NI_MAXHOST);
		upstream->sender_port = WalRcv->sender_port;
	}
	strlcpy(upstream->slot_name, WalRcv->slotname, NAMEDATALEN);
	SpinLockRelease(&WalRcv->mutex);

	upstream->streaming = state == WALRCV_STREAMING && ready;
	upstream->settled = upstream->streaming &&
		(pg_time_t) time(NULL) - started >= SETTLED_AFTER;

	/* Not connected, the time is that of the attempt, not of a message. */
	if (!upstream->streaming)
		upstream->last_message_at = 0;
	patience = wal_receiver_timeout > 0 ? wal_receiver_timeout / 2 : UNASKED;
	upstream->stalled = upstream->streaming &&
		TimestampDifferenceExceeds(upstream->last_message_at,
								   GetCurrentTimestamp(),
								   patience + ANSWER_GRACE);
}

/*
 * GetCurrentChunkReplayStartTime() is when replay began with what had come by
 * then.  It is of this server's clock, and unlike the time of the last
 * replayed commit it does not age while there is nothing to replay.
 */
static void
read_replay(PrkUpstream *upstream)
{
	TimestampTz began = GetCurrentChunkReplayStartTime();

	upstream->replayed_lsn = GetXLogReplayRecPtr(&upstream->timeline);
	upstream->pause_state = GetRecoveryPauseState();
	upstream->replay_age =
		began == 0 ? -1 : Max(GetCurrentTimestamp() - began, 0);
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
	int64		away = 0;

	if (!upstream->in_recovery || upstream->replay_age < 0)
		return -1;
	if (upstream->stalled)
		away = Max(now - upstream->last_message_at, 0);
	else if (gone_since != 0 && !upstream->settled)
		away = Max(now - gone_since, 0);
	else if (!upstream->streaming ||
			 upstream->unreceived_bytes > IN_FLIGHT)
		return upstream->replay_age > 0 ? upstream->replay_age : -1;
	return Max(away, upstream->replay_age);
}

/*
 * Judges the upstream by the thresholds for absence, and while it streams
 * what this standby makes of the stream by those for lag.
 */
void
prk_upstream_judge(const PrkUpstream *upstream,
				   const PrkThresholds *thresholds,
				   bool watched, TimestampTz gone_since,
				   TimestampTz now, PrkVerdict *verdict)
{
	PrkReplica	replica = {0};
	PrkSample	sample = {0};
	PrkKnown	known = {0};
	char		time[PRK_FORMAT_LEN];

	memset(verdict, 0, sizeof(PrkVerdict));
	verdict->state = PRK_STATE_STREAMING;
	verdict->lag_time = -1;
	sample.taken_at = now;
	sample.slot_keep_limit = -1;
	if (!upstream->in_recovery)
	{
		strlcpy(verdict->reason, "streaming", PRK_REASON_LEN);
		return;
	}

	if (upstream->wanted && !upstream->streaming)
	{
		/* Absent like a replica; just lost, until the watcher has noticed. */
		replica.state = PRK_STATE_DISCONNECTED;
		replica.lag_bytes = -1;
		known.watched = watched;
		known.gone_since = watched && gone_since == 0 ? now : gone_since;
		prk_health_judge(&sample, &replica, thresholds, &known, verdict);
		if (verdict->level != PRK_OK)
			strlcpy(verdict->code, "upstream_unreachable", PRK_CODE_LEN);
		verdict->lag_time = prk_upstream_lag_time(upstream, gone_since, now);
		return;
	}

	/* Behind like a replica whose walsender knows it all. */
	replica.state = PRK_STATE_STREAMING;
	replica.has_walsender = true;
	replica.replay_lsn = upstream->replayed_lsn;
	replica.lag_bytes = upstream->unreplayed_bytes;
	replica.unreplayed_bytes = upstream->unreplayed_bytes;
	replica.replay_lag = prk_upstream_lag_time(upstream, gone_since, now);
	prk_health_judge(&sample, &replica, thresholds, &known, verdict);
	verdict->lag_time = replica.replay_lag;

	if (upstream->stalled && !thresholds->off)
	{
		int64		silence = now - upstream->last_message_at;

		if (thresholds->critical_disconnected >= 0 &&
			silence >= thresholds->critical_disconnected * 1000)
			verdict->level = PRK_CRITICAL;
		else
			verdict->level = Max(verdict->level, PRK_WARNING);
		verdict->at_once = true;
		strlcpy(verdict->code, "receiver_stalled", PRK_CODE_LEN);
		snprintf(verdict->reason, PRK_REASON_LEN,
				 "nothing received for %s although connected",
				 prk_format_duration(time, silence));
	}
	else if (upstream->pause_state != RECOVERY_NOT_PAUSED)
	{
		char		reason[PRK_REASON_LEN];

		strlcpy(reason, verdict->reason, sizeof(reason));
		snprintf(verdict->reason, PRK_REASON_LEN, "replay is paused, %s",
				 reason);
		if (verdict->level != PRK_OK)
			strlcpy(verdict->code, "replay_paused", PRK_CODE_LEN);
	}
	else if (!upstream->wanted && verdict->level == PRK_OK)
		strlcpy(verdict->reason, "replaying from the archive only",
				PRK_REASON_LEN);
}
