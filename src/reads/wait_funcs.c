/*-------------------------------------------------------------------------
 *
 * wait_funcs.c
 *	  SQL: CALL wait_for_lsn().
 *
 * A procedure, because only CALL may give up its snapshot: a snapshot would
 * hold up the very replay that is waited for, where that removes rows.
 *
 * IDENTIFICATION
 *	  src/reads/wait_funcs.c
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/xact.h"
#include "executor/spi.h"
#include "nodes/parsenodes.h"
#include "tcop/pquery.h"
#include "utils/fmgrprotos.h"
#include "utils/pg_lsn.h"
#include "utils/portal.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"

#include "compat.h"
#include "format.h"
#include "reads/wait.h"
#include "sql.h"

/* No wait is longer, in microseconds: 100 years. */
#define MAX_TIMEOUT		(INT64CONST(36525) * USECS_PER_DAY)

static const PrkSignature wait_signature = {
	.args = {PG_LSNOID, INTERVALOID, INT4OID},
	.result = VOIDOID
};

PG_FUNCTION_INFO_V1(pg_replica_kit_wait_for_lsn_1_0);

static int64 timeout_arg(FunctionCallInfo fcinfo, int argno);
static void give_up_snapshot(FunctionCallInfo fcinfo);

/*
 * CALL wait_for_lsn(lsn, timeout, timeline)
 *
 * No special permission is asked for: as with pg_sleep(), whoever may log in
 * may wait.
 */
Datum
pg_replica_kit_wait_for_lsn_1_0(PG_FUNCTION_ARGS)
{
	int64		timeout;
	int32		timeline = 0;

	prk_sql_check(fcinfo, &wait_signature);
	if (PG_ARGISNULL(0))
		ereport(ERROR,
				(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
				 errmsg("argument \"%s\" must not be null", "lsn")));
	timeout = timeout_arg(fcinfo, 1);
	if (!PG_ARGISNULL(2))
	{
		timeline = PG_GETARG_INT32(2);
		if (timeline <= 0)
			ereport(ERROR,
					(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
					 errmsg("argument \"%s\" must be greater than 0",
							"timeline")));
	}

	give_up_snapshot(fcinfo);
	prk_wait_for_lsn(PG_GETARG_LSN(0), timeline, timeout);
	PG_RETURN_VOID();
}

/* The time in microseconds; a month is 30 days. */
static int64
timeout_arg(FunctionCallInfo fcinfo, int argno)
{
	Interval   *timeout = prk_arg_interval(fcinfo, argno, "timeout");
	double		microseconds;

	if (prk_compat_interval_is_infinite(timeout))
		microseconds = timeout->month > 0 ? MAX_TIMEOUT : -1;
	else
		microseconds = (timeout->month * (double) DAYS_PER_MONTH +
						timeout->day) * USECS_PER_DAY + timeout->time;
	if (microseconds < 0)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("argument \"%s\" must not be negative", "timeout")));
	return Min(microseconds, (double) MAX_TIMEOUT);
}

/*
 * Lets this session have no snapshot, or raises an error.
 *
 * What a CALL at top level has is the portal's, and PortalRunUtility() bears
 * that it is gone (for the sake of procedures that commit).  Whatever else runs
 * on behalf of a statement has pushed another one on top of it, or is a
 * procedural language's code outside of a transaction block, whose portal
 * would be left with a pointer to a snapshot that is gone.
 */
static void
give_up_snapshot(FunctionCallInfo fcinfo)
{
	if (fcinfo->context == NULL || !IsA(fcinfo->context, CallContext) ||
		ActivePortal == NULL || !ActiveSnapshotSet() ||
		ActivePortal->portalSnapshot != GetActiveSnapshot() ||
		SPI_inside_nonatomic_context())
		ereport(ERROR,
				(errcode(PRK_ERRCODE_WAIT_NOT_ALLOWED),
				 errmsg("wait_for_lsn() must be called by a statement of its own"),
				 errdetail("A function, procedure or DO block that calls it keeps a snapshot, which can hold up the replay that is waited for."),
				 errhint("Send CALL replica_kit.wait_for_lsn(...) as one statement, and then the query.")));

	/* It would be the snapshot of all that follows, too. */
	if (IsolationUsesXactSnapshot())
		ereport(ERROR,
				(errcode(PRK_ERRCODE_WAIT_NOT_ALLOWED),
				 errmsg("wait_for_lsn() cannot be called in a transaction of isolation level %s",
						IsolationIsSerializable() ? "serializable" : "repeatable read"),
				 errdetail("Such a transaction sees the data as of its first statement, and keeps that snapshot."),
				 errhint("Call it before BEGIN, in a session whose default_transaction_isolation is \"read committed\".")));

	ForgetPortalSnapshots();
	InvalidateCatalogSnapshot();
	if (HaveRegisteredOrActiveSnapshot())
		ereport(ERROR,
				(errcode(PRK_ERRCODE_WAIT_NOT_ALLOWED),
				 errmsg("wait_for_lsn() cannot be called while a snapshot is in use"),
				 errdetail("An open cursor or large object keeps a snapshot, which can hold up the replay that is waited for."),
				 errhint("Close it first, or call wait_for_lsn() before BEGIN.")));
}
