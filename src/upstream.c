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

#include "format.h"
#include "upstream.h"

/* What a connection that fails at once does not live for, in seconds. */
#define SETTLED_AFTER	2

/*
 * Reads the wal receiver's state, under its spinlock.
 *
 * The receiver calls itself streaming before it has connected; only then is
 * its connection string ready to be shown (WalReceiverMain() in
 * src/backend/replication/walreceiver.c).  An attempt that connects and is
 * refused looks like streaming for some milliseconds: whoever keeps count of
 * time goes by "settled".
 */
void
prk_upstream_read(PrkUpstream *upstream)
{
	WalRcvState state;
	bool		ready;
	pg_time_t	started;

	memset(upstream, 0, sizeof(PrkUpstream));
	upstream->wanted = RecoveryInProgress() &&
		PrimaryConnInfo != NULL && PrimaryConnInfo[0] != '\0';

	SpinLockAcquire(&WalRcv->mutex);
	state = WalRcv->walRcvState;
	ready = WalRcv->ready_to_display;
	started = WalRcv->startTime;
	SpinLockRelease(&WalRcv->mutex);

	upstream->streaming = state == WALRCV_STREAMING && ready;
	upstream->settled = upstream->streaming &&
		(pg_time_t) time(NULL) - started >= SETTLED_AFTER;
}

/*
 * Judges the upstream by the thresholds for absence.  gone_since is when the
 * watcher, if there is one, first saw that it doesn't stream; the server
 * itself doesn't keep that time, since each attempt to connect resets it.
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

	memset(verdict, 0, sizeof(PrkVerdict));
	verdict->state = PRK_STATE_STREAMING;
	verdict->lag_time = -1;
	if (!upstream->wanted || upstream->streaming)
	{
		strlcpy(verdict->reason, "streaming", PRK_REASON_LEN);
		return;
	}

	/* Absent like a replica; just lost, until the watcher has noticed. */
	replica.state = PRK_STATE_DISCONNECTED;
	replica.lag_bytes = -1;
	sample.taken_at = now;
	sample.slot_keep_limit = -1;
	known.watched = watched;
	known.gone_since = watched && gone_since == 0 ? now : gone_since;
	prk_health_judge(&sample, &replica, thresholds, &known, verdict);
	if (verdict->level != PRK_OK)
		strlcpy(verdict->code, "upstream_unreachable", PRK_CODE_LEN);
}
