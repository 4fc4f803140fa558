/*-------------------------------------------------------------------------
 *
 * replay.c
 *	  What replay waits for on this standby, and for whom.
 *
 * Replay stands still in four ways, each a wait event of the startup process
 * (src/backend/storage/ipc/standby.c): for a lock that a session holds, which
 * need not have a snapshot and is no blocker for pg_blocking_pids(); for a
 * snapshot that is too old; for a pin on a page; and for
 * recovery_min_apply_delay.  Who has a pin only its own process knows; most
 * likely it has the oldest snapshot, as an open cursor has one.
 *
 * IDENTIFICATION
 *	  src/diagnose/replay.c
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/transam.h"
#include "miscadmin.h"
#include "storage/proc.h"
#include "utils/backend_status.h"
#include "utils/wait_event.h"

#include "compat.h"
#include "diagnose/replay.h"

static int	find_wait(PrkReplay *replay);
static void find_oldest(PrkReplay *replay);
static void find_holder(PrkReplay *replay, int startup_pid);
static void describe_session(PrkReplay *replay);

/*
 * Reads wait events without a lock, as pg_stat_get_activity() does, and where
 * replay waits for a lock, the lock table (all its partitions' locks, shared,
 * one after the other, as pg_locks takes them).  palloc's.
 */
void
prk_replay_read(PrkReplay *replay)
{
	int			startup_pid;

	memset(replay, 0, sizeof(PrkReplay));
	startup_pid = find_wait(replay);
	switch (replay->wait)
	{
		case PRK_REPLAY_WAIT_NONE:
		case PRK_REPLAY_WAIT_DELAY:
			return;
		case PRK_REPLAY_WAIT_LOCK:
			find_holder(replay, startup_pid);
			break;
		case PRK_REPLAY_WAIT_CONFLICT:
		case PRK_REPLAY_WAIT_PIN:
			find_oldest(replay);
			break;
	}
	if (replay->pid != 0)
		describe_session(replay);
}

/*
 * What the startup process waits for, and its pid.  Auxiliary processes are
 * behind the backends; of these only it waits for locks and pins.
 */
static int
find_wait(PrkReplay *replay)
{
	for (uint32 i = MaxBackends; i < ProcGlobal->allProcCount; i++)
	{
		const PGPROC *proc = &ProcGlobal->allProcs[i];
		uint32		wait = *(volatile uint32 *) &proc->wait_event_info;
		uint32		class = wait & 0xFF000000;
		int			pid = proc->pid;
		const char *event;

		if (pid == 0 || wait == 0)
			continue;
		event = pgstat_get_wait_event(wait);
		if (event == NULL)
			continue;
		if (class == PG_WAIT_LOCK)
			replay->wait = PRK_REPLAY_WAIT_LOCK;
		else if (strcmp(event, "BufferPin") == 0 ||
				 strcmp(event, "BufferCleanup") == 0)
			replay->wait = PRK_REPLAY_WAIT_PIN;
		else if (strncmp(event, "RecoveryConflict", 16) == 0)
			replay->wait = PRK_REPLAY_WAIT_CONFLICT;
		else if (strcmp(event, "RecoveryApplyDelay") == 0)
			replay->wait = PRK_REPLAY_WAIT_DELAY;
		else
			continue;
		replay->event = event;
		return pid;
	}
	return 0;
}

/* The session with the oldest snapshot. */
static void
find_oldest(PrkReplay *replay)
{
	for (int i = 0; i < MaxBackends; i++)
	{
		const PGPROC *proc = &ProcGlobal->allProcs[i];
		TransactionId xmin = *(volatile TransactionId *) &proc->xmin;
		int			pid = proc->pid;

		if (pid == 0 || pid == MyProcPid || !TransactionIdIsNormal(xmin) ||
			(replay->pid != 0 && !TransactionIdPrecedes(xmin, replay->xmin)))
			continue;
		replay->pid = pid;
		replay->xmin = xmin;
	}
}

/* What lock replay wants, and one session that has it in another mode. */
static void
find_holder(PrkReplay *replay, int startup_pid)
{
	LockData   *data = GetLockStatusData();
	const		LockInstanceData *wanted = NULL;

	for (int i = 0; i < data->nelements; i++)
	{
		if (data->locks[i].pid == startup_pid &&
			data->locks[i].waitLockMode != NoLock)
			wanted = &data->locks[i];
	}
	if (wanted == NULL)
		return;
	replay->tag = wanted->locktag;
	replay->mode = wanted->waitLockMode;
	for (int i = 0; i < data->nelements && replay->pid == 0; i++)
	{
		const		LockInstanceData *lock = &data->locks[i];

		if (lock->pid == startup_pid ||
			memcmp(&lock->locktag, &wanted->locktag, sizeof(LOCKTAG)) != 0)
			continue;
		for (LOCKMODE mode = 1; mode < MAX_LOCKMODES; mode++)
		{
			if ((lock->holdMask & LOCKBIT_ON(mode)) &&
				DoLockModesConflict(mode, wanted->waitLockMode))
				replay->pid = lock->pid;
		}
	}
}

/* Whose session it is, and what it does. */
static void
describe_session(PrkReplay *replay)
{
	int			count = pgstat_fetch_stat_numbackends();

	for (int i = 1; i <= count; i++)
	{
		LocalPgBackendStatus *local = pgstat_get_local_beentry_by_index(i);
		PgBackendStatus *status = local != NULL ? &local->backendStatus : NULL;

		if (status == NULL || status->st_procpid != replay->pid)
			continue;
		replay->userid = status->st_userid;
		replay->in_transaction = status->st_state == STATE_IDLEINTRANSACTION ||
			status->st_state == STATE_IDLEINTRANSACTION_ABORTED;
		replay->since = status->st_state_start_timestamp;
	}
}
