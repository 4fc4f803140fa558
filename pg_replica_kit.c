/*-------------------------------------------------------------------------
 *
 * pg_replica_kit.c
 *	  The composition root: module magic, settings, hooks, worker.
 *
 * Nothing includes this file and it decides nothing: each module brings its
 * own part.  Loaded without shared_preload_libraries it only defines the
 * settings; all but the worker and what it keeps works that way.
 *
 * IDENTIFICATION
 *	  pg_replica_kit.c
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "fmgr.h"
#include "miscadmin.h"
#include "storage/ipc.h"

#include "ask/ask.h"
#include "clock/clock_shared.h"
#include "compat.h"
#include "failures/failure_table.h"
#include "failures/failures.h"
#include "provision/farewell.h"
#include "provision/slot.h"
#include "reads/gate.h"
#include "reads/waiters.h"
#include "reads/waker.h"
#include "sample/unused.h"
#include "settings.h"
#include "version.h"
#include "watch/board.h"
#include "watch/history.h"
#include "watch/silence.h"
#include "watch/worker.h"

PRK_COMPAT_MODULE_MAGIC(PRK_KIT_VERSION);

void		_PG_init(void);

static void request_shared_memory(void);
static void start_shared_memory(void);

static shmem_request_hook_type prev_shmem_request_hook = NULL;
static shmem_startup_hook_type prev_shmem_startup_hook = NULL;

/*
 * Called once in each process that loads the library: by the postmaster if it
 * is preloaded, else by the session that first uses a function of ours.
 */
void
_PG_init(void)
{
	prk_ask_init();
	prk_settings_init();
	prk_farewell_init();
	prk_slot_before_drop = prk_board_forget;

	if (!process_shared_preload_libraries_in_progress)
		return;

	prev_shmem_request_hook = shmem_request_hook;
	shmem_request_hook = request_shared_memory;
	prev_shmem_startup_hook = shmem_startup_hook;
	shmem_startup_hook = start_shared_memory;
	prk_failures_init();
	prk_gate_init();
	prk_worker_register();
	prk_waker_register();
}

/* shmem_request_hook: asks for what the preloaded library needs. */
static void
request_shared_memory(void)
{
	if (prev_shmem_request_hook)
		prev_shmem_request_hook();
	prk_board_shmem_request();
	prk_clock_shmem_request();
	prk_failures_shmem_request();
	prk_gate_shmem_request();
	prk_history_shmem_request();
	prk_silence_shmem_request();
	prk_waiters_shmem_request();
}

/*
 * shmem_startup_hook: attaches to it, and initializes it in the postmaster.
 */
static void
start_shared_memory(void)
{
	if (prev_shmem_startup_hook)
		prev_shmem_startup_hook();
	prk_board_shmem_startup();
	prk_clock_shmem_startup();
	prk_failures_shmem_startup();
	prk_gate_shmem_startup();
	prk_history_shmem_startup();
	prk_silence_shmem_startup();
	prk_unused_note_start();
	prk_waiters_shmem_startup();
}
