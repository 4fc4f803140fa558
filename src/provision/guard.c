/*-------------------------------------------------------------------------
 *
 * guard.c
 *	  Run what may fail where an error is not allowed.
 *
 * After the commit record an error is a PANIC of the whole server, because
 * the transaction can't abort any more (RecordTransactionAbort); while
 * aborting it would recurse.
 *
 * A process that exits aborts its transaction, too, and there errstart() makes
 * each ERROR a FATAL, which nobody catches: the exit goes on where it is, and
 * the transaction's locks stay in shared memory, with a process that is gone.
 * So a guard takes the mark of an exit away for so long.
 *
 * IDENTIFICATION
 *	  src/provision/guard.c
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "miscadmin.h"
#include "replication/slot.h"
#include "storage/condition_variable.h"
#include "storage/ipc.h"
#include "storage/lwlock.h"
#include "utils/resowner.h"

#include "provision/guard.h"

static void clean_up(void);
static bool warn(const char *what, const char *remedy, MemoryContext context);

/*
 * Run one step where an error is not allowed: true when it succeeded, else a
 * WARNING, with the statement that completes the work (NULL: none).
 */
bool
prk_guard_run(PrkGuardedStep step, void *arg, const char *what, const char *remedy)
{
	MemoryContext context = CurrentMemoryContext;
	ResourceOwner owner = CurrentResourceOwner;
	uint32		interrupt_holdoff = InterruptHoldoffCount;
	uint32		cancel_holdoff = QueryCancelHoldoffCount;
	bool		exiting = proc_exit_inprogress;
	volatile bool ok = false;

	proc_exit_inprogress = false;
	PG_TRY();
	{
		step(arg);
		ok = true;
	}
	PG_CATCH();
	{
		clean_up();

		/*
		 * errfinish has zeroed the count of interrupt holds that the end of
		 * the transaction will take back; without it the backend could never
		 * be cancelled again.
		 */
		InterruptHoldoffCount = interrupt_holdoff;
		QueryCancelHoldoffCount = cancel_holdoff;
		CurrentResourceOwner = owner;

		if (!warn(what, remedy, context))
		{
			InterruptHoldoffCount = interrupt_holdoff;
			QueryCancelHoldoffCount = cancel_holdoff;
			ereport(LOG_SERVER_ONLY,
					(errmsg_internal("%s", what),
					 remedy ? errdetail_internal("Run: %s", remedy) : 0));
		}
	}
	PG_END_TRY();
	proc_exit_inprogress = exiting;

	return ok;
}

/*
 * An error unwinds out of the step, so what PostgresMain would have cleaned
 * up is cleaned up here.
 */
static void
clean_up(void)
{
	LWLockReleaseAll();
	ConditionVariableCancelSleep();
	if (MyReplicationSlot != NULL)
		ReplicationSlotRelease();
}

/*
 * Turn the error that was caught into a WARNING.  False when that failed: the
 * client's encoding may lack what the message needs.
 */
static bool
warn(const char *what, const char *remedy, MemoryContext context)
{
	volatile bool ok = false;

	PG_TRY();
	{
		ErrorData  *error;

		MemoryContextSwitchTo(context);
		error = CopyErrorData();
		FlushErrorState();

		ereport(WARNING,
				(errcode(error->sqlerrcode),
				 errmsg("%s: %s", what, error->message),
				 error->detail ? errdetail_internal("%s", error->detail) : 0,
				 remedy ? errhint("Run: %s", remedy) : 0));
		ok = true;
	}
	PG_CATCH();
	{
		MemoryContextSwitchTo(context);
		FlushErrorState();
	}
	PG_END_TRY();

	return ok;
}
