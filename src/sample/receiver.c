/*-------------------------------------------------------------------------
 *
 * receiver.c
 *	  The wal receiver: does it stream, and how far has it got?
 *
 * IDENTIFICATION
 *	  src/sample/receiver.c
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include <time.h>

#include "replication/walreceiver.h"
#include "storage/spin.h"
#include "utils/timestamp.h"

#include "compat.h"
#include "sample/receiver.h"

/* What a connection that fails at once does not live for, in seconds. */
#define SETTLED_AFTER	2

/*
 * After half of wal_receiver_timeout without a word the receiver asks for
 * one; whoever has not answered this many milliseconds later is not there.
 */
#define ANSWER_GRACE	3000

/*
 * The receiver flushes when it has read what there was, and reads no more
 * meanwhile.  A receiver that has heard nothing for this long (microseconds),
 * and has WAL that is not flushed, waits for the disk.
 */
#define LONG_FLUSH		100000

/* Without that timeout: how often the upstream speaks unasked, by default. */
#define UNASKED			30000

/*
 * Reads the receiver's state, under its spinlock.  reload_age is for how many
 * microseconds the server has had its settings; -1: not known.
 *
 * Before 19 it calls itself streaming before it has connected; only then is
 * its connection string ready to be shown (WalReceiverMain() in
 * src/backend/replication/walreceiver.c).  From 19 on it is "connecting" until
 * the upstream has agreed to stream, and the string is ready at once.  An
 * attempt that connects and is refused looks like streaming for some
 * milliseconds, also on 19 where the refusal comes after that agreement, as
 * for WAL that is gone: whoever keeps count of time goes by "settled".  And it
 * goes on to call itself so when nothing comes any more, until its timeout:
 * that is what "stalled" is for.  From 16 on a reload puts off what it asks.
 */
void
prk_receiver_read(PrkReceiver *receiver, int64 reload_age)
{
	WalRcvState state;
	bool		ready;
	pg_time_t	started;
	int64		patience;
	int64		unanswered;
	int64		elapsed;

	memset(receiver, 0, sizeof(PrkReceiver));
	SpinLockAcquire(&WalRcv->mutex);
	state = WalRcv->walRcvState;
	ready = WalRcv->ready_to_display;
	started = WalRcv->startTime;
	receiver->timeline = WalRcv->receivedTLI;
	receiver->received_lsn = WalRcv->flushedUpto;
	receiver->last_message_at = WalRcv->lastMsgReceiptTime;
	receiver->latest_end = WalRcv->latestWalEnd;
	if (ready)
	{
		strlcpy(receiver->sender_host, WalRcv->sender_host, NI_MAXHOST);
		receiver->sender_port = WalRcv->sender_port;
	}
	strlcpy(receiver->slot_name, WalRcv->slotname, NAMEDATALEN);
	SpinLockRelease(&WalRcv->mutex);
	receiver->written_lsn = Max(GetWalRcvWriteRecPtr(),
								receiver->received_lsn);

	receiver->streaming = state == WALRCV_STREAMING && ready;

	/* It cannot start in the future: the clock was set back since. */
	elapsed = (int64) time(NULL) - started;
	receiver->settled = receiver->streaming &&
		(elapsed >= SETTLED_AFTER || elapsed < 0);
	receiver->connecting = prk_compat_receiver_connects(state) ?
		Max((pg_time_t) time(NULL) - started, 0) * USECS_PER_SEC : -1;

	/* Not connected, the time is that of the attempt, not of a message. */
	if (!receiver->streaming)
	{
		receiver->last_message_at = 0;
		return;
	}
	patience = wal_receiver_timeout > 0 ? wal_receiver_timeout / 2 : UNASKED;
	receiver->silence = Max(GetCurrentTimestamp() - receiver->last_message_at,
							0);
	receiver->flushing = receiver->written_lsn > receiver->received_lsn &&
		receiver->silence >= LONG_FLUSH;
	unanswered = receiver->silence;
	if (prk_compat_reload_restarts_ping() && reload_age >= 0)
		unanswered = Min(unanswered, reload_age);
	receiver->stalled = unanswered >= (patience + ANSWER_GRACE) * 1000;
}
