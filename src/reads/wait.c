/*-------------------------------------------------------------------------
 *
 * wait.c
 *	  Waiting until WAL is replayed on this standby.
 *
 * The session sleeps on its latch, which the waker sets, or from 19 on the
 * server itself; and looks by itself now and then, so that it works without
 * either.  A look is one spinlock.  The caller has no snapshot, and nothing
 * here takes one: no catalog is read.
 *
 * A session that sleeps on its latch is invisible to the deadlock detector.
 * Should replay want a lock that the session holds, both would wait for each
 * other, until max_standby_streaming_delay ends the session's query.
 *
 * IDENTIFICATION
 *	  src/reads/wait.c
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/timeline.h"
#include "access/xlog.h"
#include "access/xlog_internal.h"
#include "access/xlogrecovery.h"
#include "miscadmin.h"
#include "replication/walreceiver.h"
#include "storage/ipc.h"
#include "storage/latch.h"
#include "storage/lmgr.h"
#include "storage/lock.h"
#include "storage/proc.h"
#include "utils/wait_event.h"

#include "clock/clock_shared.h"
#include "compat.h"
#include "format.h"
#include "reads/wait.h"
#include "reads/waiters.h"

/* How often a waiter looks by itself, in milliseconds. */
#define LOOK_PAUSE			200

/* The same where nobody wakes it: a tenth of the time waited, from this on. */
#define MIN_LOOK_PAUSE		2

/* How often it looks whether replay waits for it, in microseconds. */
#define LOCK_LOOK			INT64CONST(1000000)

typedef struct Wait
{
	XLogRecPtr	asked;			/* as it was given */
	XLogRecPtr	target;
	TimeLineID	timeline;		/* 0: any */
	TimeLineID	checked;		/* the timeline whose history has the target */
	bool		in_recovery;	/* when the wait began */
} Wait;

static XLogRecPtr reachable(XLogRecPtr position);
static bool is_replayed(Wait *wait);
static bool is_written(Wait *wait);
static bool is_known_timeline(Wait *wait, TimeLineID current);
static void raise_unless_in_history(const Wait *wait, TimeLineID current);
static void sleep_until_woken(const Wait *wait, int64 waited, int64 left);
static void raise_if_blocking_replay(const Wait *wait);
static bool find_wanted_lock(LOCKTAG *tag);
static void raise_timeout(const Wait *wait, int64 timeout);
static void leave_on_error(int code, Datum arg);

/*
 * On a standby returns when that position is replayed, or raises an error
 * after timeout microseconds; on a primary returns or raises at once.  With a
 * timeline it is that timeline's WAL which has to be in this server's history.
 * To be called without a snapshot.
 */
void
prk_wait_for_lsn(XLogRecPtr target, TimeLineID timeline, int64 timeout)
{
	int64		start = prk_clock_now();
	int64		next_lock_look = start + LOCK_LOOK;
	Wait		wait = {0};

	wait.asked = target;
	wait.target = reachable(target);
	wait.timeline = timeline;
	wait.in_recovery = RecoveryInProgress();
	if (is_replayed(&wait))
		return;

	PG_ENSURE_ERROR_CLEANUP(leave_on_error, (Datum) 0);
	{
		do
		{
			int64		now = prk_clock_now();

			CHECK_FOR_INTERRUPTS();
			if (now - start >= timeout)
				raise_timeout(&wait, timeout);
			if (now >= next_lock_look)
			{
				raise_if_blocking_replay(&wait);
				next_lock_look = now + LOCK_LOOK;
			}
			sleep_until_woken(&wait, now - start, start + timeout - now);
		} while (!is_replayed(&wait));
	}
	PG_END_ENSURE_ERROR_CLEANUP(leave_on_error, (Datum) 0);
	prk_waiters_leave();
}

/* At an error, or at the end of the process: no waiter is left behind. */
static void
leave_on_error(int code, Datum arg)
{
	prk_waiters_leave();
}

/*
 * The position itself, or the start of its page if it lies in the page's
 * header.  The insert position of an idle server may be there, just behind the
 * header (XLogBytePosToRecPtr() in xlog.c), while replay ends where the last
 * record does, at the page's start.
 */
static XLogRecPtr
reachable(XLogRecPtr position)
{
	uint64		offset = position % XLOG_BLCKSZ;
	bool		is_first = XLogSegmentOffset(position, wal_segment_size) < XLOG_BLCKSZ;

	if (offset <= (is_first ? SizeOfXLogLongPHD : SizeOfXLogShortPHD))
		return position - offset;
	return position;
}

/*
 * Is the target replayed?  Raises an error if it never will be.
 *
 * What was replayed last stays known after a promotion.  Only that counts for
 * who began to wait before: what the new primary writes at the same positions
 * is other WAL.
 */
static bool
is_replayed(Wait *wait)
{
	bool		promoted = !RecoveryInProgress();
	TimeLineID	timeline;
	XLogRecPtr	replayed;

	if (!wait->in_recovery)
		return is_written(wait);

	replayed = GetXLogReplayRecPtr(&timeline);
	if (is_known_timeline(wait, timeline) && wait->target <= replayed)
		return true;
	if (promoted)
		ereport(ERROR,
				(errcode(PRK_ERRCODE_WAIT_LOST),
				 errmsg("this server was promoted without WAL position %X/%X",
						LSN_FORMAT_ARGS(wait->asked)),
				 errdetail("It had replayed the WAL of timeline %u up to %X/%X.",
						   timeline, LSN_FORMAT_ARGS(replayed)),
				 errhint("A write whose WAL ends at that position is not on this server.")));
	return false;
}

/* On a primary: is the target behind the insert position?  Else raises. */
static bool
is_written(Wait *wait)
{
	TimeLineID	timeline = GetWALInsertionTimeLine();
	XLogRecPtr	inserted = GetXLogInsertRecPtr();

	if (is_known_timeline(wait, timeline) &&
		wait->target <= inserted)
		return true;
	ereport(ERROR,
			(errcode(PRK_ERRCODE_WAIT_LOST),
			 errmsg("WAL position %X/%X is not on this primary",
					LSN_FORMAT_ARGS(wait->asked)),
			 errdetail("It has written the WAL of timeline %u up to %X/%X.",
					   timeline, LSN_FORMAT_ARGS(inserted)),
			 errhint("If there was a failover since the write, the write may be lost.")));
}

/*
 * Has this server, now on that timeline, got as far as the wanted timeline?
 * Raises an error if the target is not in its history.  A history is read when
 * the server's timeline is another than at the last call.
 */
static bool
is_known_timeline(Wait *wait, TimeLineID current)
{
	if (wait->timeline == 0 || wait->timeline == current)
		return true;
	if (wait->timeline > current)
		return false;
	if (wait->checked != current)
	{
		raise_unless_in_history(wait, current);
		wait->checked = current;
	}
	return true;
}

/* Raises an error unless the target lies in the history of that timeline. */
static void
raise_unless_in_history(const Wait *wait, TimeLineID current)
{
	List	   *history;

	if (!existsTimeLineHistory(current))
		ereport(ERROR,
				(errcode(PRK_ERRCODE_WAIT_LOST),
				 errmsg("the history of timeline %u is missing on this server",
						current),
				 errdetail("It is not known whether WAL position %X/%X of timeline %u belongs to it.",
						   LSN_FORMAT_ARGS(wait->asked), wait->timeline)));
	history = readTimeLineHistory(current);
	if (!tliInHistory(wait->timeline, history))
		ereport(ERROR,
				(errcode(PRK_ERRCODE_WAIT_LOST),
				 errmsg("timeline %u is not in the history of this server",
						wait->timeline),
				 errdetail("This server is on timeline %u.", current)));
	else
	{
		XLogRecPtr	end = tliSwitchPoint(wait->timeline, history, NULL);

		if (wait->target > end)
			ereport(ERROR,
					(errcode(PRK_ERRCODE_WAIT_LOST),
					 errmsg("WAL position %X/%X of timeline %u is not in the history of this server",
							LSN_FORMAT_ARGS(wait->asked), wait->timeline),
					 errdetail("This server is on timeline %u, whose history left timeline %u at %X/%X.",
							   current, wait->timeline, LSN_FORMAT_ARGS(end)),
					 errhint("A write whose WAL ends at that position is not on this server.")));
	}
	list_free_deep(history);
}

/*
 * Sleeps until the latch is set, or it is time to look again; both times in
 * microseconds.
 */
static void
sleep_until_woken(const Wait *wait, int64 waited, int64 left)
{
	int64		pause = Min(LOOK_PAUSE, left / 1000 + 1);

	/* what is replayed, but not of that timeline, wakes nobody */
	if (wait->target <= GetXLogReplayRecPtr(NULL))
		pause = Min(pause, LOOK_PAUSE / 4);
	else if (prk_compat_has_replay_wait())
	{
		prk_compat_wait_for_replay(wait->target,
								   Min(LOCK_LOOK / 1000, left / 1000 + 1));
		return;
	}
	else if (!prk_waiters_join(wait->target))
		pause = Min(pause, Max(MIN_LOOK_PAUSE, waited / 10 / 1000));
	else if (wait->target <= GetXLogReplayRecPtr(NULL))
		return;

	(void) WaitLatch(MyLatch, WL_LATCH_SET | WL_TIMEOUT | WL_EXIT_ON_PM_DEATH,
					 pause, PG_WAIT_EXTENSION);
	ResetLatch(MyLatch);
}

/*
 * Raises an error if replay waits for a lock that this process holds: neither
 * would go on.  Replay only ever takes access exclusive locks, so any lock on
 * the same object is in its way.
 */
static void
raise_if_blocking_replay(const Wait *wait)
{
	LOCKTAG		tag;
	StringInfoData object;

	if (!find_wanted_lock(&tag) || !prk_compat_lock_held(&tag))
		return;
	initStringInfo(&object);
	DescribeLockTag(&object, &tag);
	ereport(ERROR,
			(errcode(ERRCODE_T_R_DEADLOCK_DETECTED),
			 errmsg("replay waits for a lock that this transaction holds"),
			 errdetail("Replay needs an exclusive lock on %s before it can reach WAL position %X/%X.",
					   object.data, LSN_FORMAT_ARGS(wait->asked)),
			 errhint("Call wait_for_lsn() before the first query of the transaction, or before BEGIN.")));
}

/*
 * What the startup process waits to lock.  Auxiliary processes are behind the
 * backends; of these only it waits for locks.
 */
static bool
find_wanted_lock(LOCKTAG *tag)
{
	for (uint32 i = MaxBackends; i < ProcGlobal->allProcCount; i++)
	{
		PGPROC	   *proc = &ProcGlobal->allProcs[i];
		LOCK	   *volatile *wanted = (LOCK *volatile *) &proc->waitLock;
		LOCK	   *lock = *wanted;
		LWLock	   *partition;
		bool		found;

		if (lock == NULL)
			continue;

		/* It can cease to wait, and the lock be another's: look again. */
		*tag = lock->tag;
		partition = LockHashPartitionLock(LockTagHashCode(tag));
		LWLockAcquire(partition, LW_SHARED);
		found = *wanted == lock && memcmp(tag, &lock->tag, sizeof(LOCKTAG)) == 0;
		LWLockRelease(partition);
		if (found)
			return true;
	}
	return false;
}

/* The time is over. */
static void
raise_timeout(const Wait *wait, int64 timeout)
{
	TimeLineID	timeline;
	XLogRecPtr	replayed = GetXLogReplayRecPtr(&timeline);
	XLogRecPtr	received = GetWalRcvFlushRecPtr(NULL, NULL);
	char		span[PRK_FORMAT_LEN];
	char		size[PRK_FORMAT_LEN];

	prk_format_span(span, timeout);
	if (wait->target <= replayed)
		ereport(ERROR,
				(errcode(PRK_ERRCODE_WAIT_TIMEOUT),
				 errmsg("WAL position %X/%X of timeline %u was not replayed within %s",
						LSN_FORMAT_ARGS(wait->asked), wait->timeline, span),
				 errdetail("Replay is at %X/%X, and still on timeline %u.",
						   LSN_FORMAT_ARGS(replayed), timeline)));
	prk_format_size(size, wait->target - replayed);
	ereport(ERROR,
			(errcode(PRK_ERRCODE_WAIT_TIMEOUT),
			 errmsg("WAL position %X/%X was not replayed within %s",
					LSN_FORMAT_ARGS(wait->asked), span),
			 GetRecoveryPauseState() == RECOVERY_PAUSED ?
			 errdetail("Replay is paused at %X/%X, %s before that position.",
					   LSN_FORMAT_ARGS(replayed), size) :
			 received >= wait->target ?
			 errdetail("Replay is at %X/%X, %s before that position, whose WAL has arrived.",
					   LSN_FORMAT_ARGS(replayed), size) :
			 errdetail("Replay is at %X/%X, %s before that position, whose WAL has not arrived.",
					   LSN_FORMAT_ARGS(replayed), size)));
}
