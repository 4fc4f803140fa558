/*-------------------------------------------------------------------------
 *
 * waker.c
 *	  The process that wakes sessions when their WAL is replayed.
 *
 * While somebody waits it looks every millisecond how far replay is, else it
 * sleeps.  It is not the sampler: a sample takes longer than a session should
 * wait.  The startup process has nothing to do with it.
 *
 * It is up with the first session of a standby.  On a primary there is nothing
 * to wait for: it ends, and stays away until the server is started again.
 *
 * IDENTIFICATION
 *	  src/reads/waker.c
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/xlog.h"
#include "access/xlogrecovery.h"
#include "miscadmin.h"
#include "postmaster/bgworker.h"
#include "postmaster/interrupt.h"
#include "storage/ipc.h"
#include "storage/latch.h"
#include "utils/wait_event.h"

#include "compat.h"
#include "reads/waiters.h"
#include "reads/waker.h"

#define WAKER_NAME			"pg_replica_kit waker"
#define RESTART_SECONDS		10

static void stop_on_exit(int code, Datum arg);

/*
 * Registers the process, unless the server itself wakes; to be called while
 * libraries are preloaded.
 */
void
prk_waker_register(void)
{
	BackgroundWorker worker = {0};

	if (prk_compat_has_replay_wait())
		return;
	strlcpy(worker.bgw_name, WAKER_NAME, BGW_MAXLEN);
	strlcpy(worker.bgw_type, WAKER_NAME, BGW_MAXLEN);
	strlcpy(worker.bgw_library_name, "pg_replica_kit", BGW_MAXLEN);
	strlcpy(worker.bgw_function_name, "prk_waker_main", BGW_MAXLEN);
	worker.bgw_flags = BGWORKER_SHMEM_ACCESS;
	worker.bgw_start_time = BgWorkerStart_ConsistentState;
	worker.bgw_restart_time = RESTART_SECONDS;
	RegisterBackgroundWorker(&worker);
}

/* The process: entry point and main loop. */
void
prk_waker_main(Datum arg)
{
	/* The default handler for SIGTERM would raise an error where it is. */
	pqsignal(SIGTERM, SignalHandlerForShutdownRequest);
	BackgroundWorkerUnblockSignals();

	before_shmem_exit(stop_on_exit, (Datum) 0);
	prk_waiters_set_waker(true);

	while (!ShutdownRequestPending)
	{
		bool		in_recovery = RecoveryInProgress();
		int			events = WL_LATCH_SET | WL_EXIT_ON_PM_DEATH;
		int			pause = prk_waiters_wake(in_recovery ?
											 GetXLogReplayRecPtr(NULL) :
											 PG_UINT64_MAX - 1);

		/* Exit code 0 tells the postmaster not to start it again. */
		if (!in_recovery)
			proc_exit(0);

		if (pause != PRK_WAITERS_IDLE)
			events |= WL_TIMEOUT;
		(void) WaitLatch(MyLatch, events, pause, PG_WAIT_EXTENSION);
		ResetLatch(MyLatch);
	}
	proc_exit(1);
}

/* before_shmem_exit callback: who waits has to look by itself. */
static void
stop_on_exit(int code, Datum arg)
{
	prk_waiters_set_waker(false);
}
