/*-------------------------------------------------------------------------
 *
 * guard.c
 *	  Run what may fail where an error is not allowed.
 *
 * After the commit record an error is a PANIC of the whole server, because
 * the transaction can't abort any more (RecordTransactionAbort); while
 * aborting it would recurse.
 *
 * IDENTIFICATION
 *	  src/guard.c
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "miscadmin.h"
#include "replication/slot.h"
#include "storage/condition_variable.h"
#include "storage/lwlock.h"
#include "utils/resowner.h"

#include "guard.h"

/*
 * Run one step where an error is not allowed: true when it succeeded, else a
 * WARNING, with the statement that completes the work.
 *
 * An error unwinds out of the step, so what PostgresMain would have cleaned up
 * is cleaned up here: LWLocks, a condition variable, a slot acquired.  errfinish
 * has zeroed the count of interrupt holds that CommitTransaction will take
 * back; without putting it right the backend could never be cancelled again.
 */
bool
prk_guard_run(PrkGuardedStep step, void *arg, const char *what, const char *remedy)
{
	MemoryContext context = CurrentMemoryContext;
	ResourceOwner owner = CurrentResourceOwner;
	uint32		interrupt_holdoff = InterruptHoldoffCount;
	uint32		cancel_holdoff = QueryCancelHoldoffCount;
	volatile bool ok = false;

	PG_TRY();
	{
		step(arg);
		ok = true;
	}
	PG_CATCH();
	{
		ErrorData  *error;

		MemoryContextSwitchTo(context);
		CurrentResourceOwner = owner;
		error = CopyErrorData();
		FlushErrorState();

		LWLockReleaseAll();
		ConditionVariableCancelSleep();
		InterruptHoldoffCount = interrupt_holdoff;
		QueryCancelHoldoffCount = cancel_holdoff;
		if (MyReplicationSlot != NULL)
			ReplicationSlotRelease();

		ereport(WARNING,
				(errcode(error->sqlerrcode),
				 errmsg("%s: %s", what, error->message),
				 remedy ? errhint("Run: %s", remedy) : 0));
	}
	PG_END_TRY();

	return ok;
}
