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

static int64 age_of(int64 wall_age, int64 value, const PrkReceiverSeen *seen,
					int64 looked_age);

/*
 * Reads the receiver's state, under its spinlock.
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
prk_receiver_read(PrkReceiver *receiver, const PrkReceiverPast *past)
{
	WalRcvState state;
	bool		ready;
	int64		patience;
	int64		unanswered;
	int64		wall_age;

	memset(receiver, 0, sizeof(PrkReceiver));
	SpinLockAcquire(&WalRcv->mutex);
	state = WalRcv->walRcvState;
	ready = WalRcv->ready_to_display;
	receiver->start = WalRcv->startTime;
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
	wall_age = ((int64) time(NULL) - receiver->start) * USECS_PER_SEC;
	receiver->start_age = age_of(wall_age, receiver->start, &past->start,
								 past->looked_age);
	receiver->settled = receiver->streaming &&
		(receiver->start_age >= SETTLED_AFTER * USECS_PER_SEC ||
		 wall_age < 0);
	receiver->connecting = prk_compat_receiver_connects(state) ?
		receiver->start_age : -1;

	/* Not connected, the time is that of the attempt, not of a message. */
	if (!receiver->streaming)
	{
		receiver->last_message_at = 0;
		return;
	}
	patience = wal_receiver_timeout > 0 ? wal_receiver_timeout / 2 : UNASKED;
	wall_age = GetCurrentTimestamp() - receiver->last_message_at;
	receiver->silence = age_of(wall_age, receiver->last_message_at,
							   &past->message, past->looked_age);
	receiver->flushing = receiver->written_lsn > receiver->received_lsn &&
		receiver->silence >= LONG_FLUSH;

	/* A clock that was set back puts off what the receiver asks, too. */
	if (receiver->silence - wall_age > PRK_MIN_JUMP)
		patience = Max(patience, UNASKED);
	unanswered = receiver->silence;
	if (prk_compat_reload_restarts_ping() && past->reload_age >= 0)
		unanswered = Min(unanswered, past->reload_age);
	receiver->stalled = unanswered >= (patience + ANSWER_GRACE) * 1000;
}

/*
 * For how long has it been as it is?  By the wall clock for wall_age; what was
 * seen already is that old, and what was not came after the last look.
 */
static int64
age_of(int64 wall_age, int64 value, const PrkReceiverSeen *seen,
	   int64 looked_age)
{
	wall_age = Max(wall_age, 0);
	if (looked_age < 0)
		return wall_age;
	return value == seen->value ? seen->age : Min(wall_age, looked_age);
}
