/*-------------------------------------------------------------------------
 *
 * transaction.c
 *	  The oldest transaction that has written something.
 *
 * Logical decoding begins again, after a restart, where the oldest transaction
 * began that was open then (SnapBuildProcessRunningXacts() in
 * src/backend/replication/logical/snapbuild.c), of whatever database: until
 * that ends, every logical slot retains WAL from there on.
 *
 * IDENTIFICATION
 *	  src/diagnose/transaction.c
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/transam.h"
#include "storage/proc.h"
#include "utils/backend_status.h"

#include "compat.h"
#include "diagnose/transaction.h"

static void describe_session(PrkTransaction *transaction);

/*
 * Reads the processes' transaction IDs without a lock, as of no one moment;
 * prepared transactions have entries without a process.
 */
void
prk_transaction_oldest(PrkTransaction *transaction)
{
	memset(transaction, 0, sizeof(PrkTransaction));
	for (uint32 i = 0; i < ProcGlobal->allProcCount; i++)
	{
		const PGPROC *proc = &ProcGlobal->allProcs[i];
		TransactionId xid = *(volatile TransactionId *) &proc->xid;
		int			pid = proc->pid;

		if (!TransactionIdIsNormal(xid) ||
			(transaction->xid != InvalidTransactionId &&
			 !TransactionIdPrecedes(xid, transaction->xid)))
			continue;
		transaction->xid = xid;
		transaction->pid = pid;
	}
	if (transaction->pid != 0)
		describe_session(transaction);
}

/* Whose session it is, and since when. */
static void
describe_session(PrkTransaction *transaction)
{
	int			count = pgstat_fetch_stat_numbackends();

	for (int i = 1; i <= count; i++)
	{
		LocalPgBackendStatus *local = pgstat_get_local_beentry_by_index(i);
		PgBackendStatus *status = local != NULL ? &local->backendStatus : NULL;

		if (status == NULL || status->st_procpid != transaction->pid)
			continue;
		transaction->userid = status->st_userid;
		transaction->since = status->st_xact_start_timestamp;
		transaction->idle = status->st_state == STATE_IDLEINTRANSACTION ||
			status->st_state == STATE_IDLEINTRANSACTION_ABORTED;
	}
}
