/*-------------------------------------------------------------------------
 *
 * failure_funcs.c
 *	  SQL: connection_errors().
 *
 * IDENTIFICATION
 *	  src/failures/failure_funcs.c
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include <netdb.h>

#include "utils/builtins.h"

#include "failures/failure_table.h"
#include "failures/failures.h"
#include "sql.h"

/* The columns of connection_errors(), in order. */
typedef enum FailureColumn
{
	FAILURE_FIRST_AT,
	FAILURE_LAST_AT,
	FAILURE_COUNT,
	FAILURE_DIRECTION,
	FAILURE_ROLE_NAME,
	FAILURE_CLIENT_ADDR,
	FAILURE_APPLICATION_NAME,
	FAILURE_SLOT_NAME,
	FAILURE_SQLSTATE,
	FAILURE_MESSAGE,
	FAILURE_NCOLS
} FailureColumn;

static const PrkSignature failures_signature = {
	.ncolumns = FAILURE_NCOLS,
	.columns = {
		[FAILURE_FIRST_AT] = TIMESTAMPTZOID,
		[FAILURE_LAST_AT] = TIMESTAMPTZOID,
		[FAILURE_COUNT] = INT8OID,
		[FAILURE_DIRECTION] = TEXTOID,
		[FAILURE_ROLE_NAME] = TEXTOID,
		[FAILURE_CLIENT_ADDR] = INETOID,
		[FAILURE_APPLICATION_NAME] = TEXTOID,
		[FAILURE_SLOT_NAME] = TEXTOID,
		[FAILURE_SQLSTATE] = TEXTOID,
		[FAILURE_MESSAGE] = TEXTOID
	}
};

PG_FUNCTION_INFO_V1(pg_replica_kit_connection_errors_1_0);

static void put_name(PrkRow *row, FailureColumn column,
					 const PrkForeign *name);

/*
 * connection_errors() - one row per distinct failure, the newest first, of
 * peers and strangers alike.
 */
Datum
pg_replica_kit_connection_errors_1_0(PG_FUNCTION_ARGS)
{
	PrkFailures *failures;
	PrkRow		row;

	prk_rows_begin(fcinfo, &failures_signature, &row);
	failures = prk_failures_read();
	if (!failures->exist)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("pg_replica_kit must be loaded via shared_preload_libraries"),
				 errdetail("Connection failures are recorded only then.")));

	for (int i = 0; i < failures->nfailures; i++)
	{
		const PrkFailure *failure = &failures->failures[i];
		char		host[NI_MAXHOST];

		prk_put_time(&row, FAILURE_FIRST_AT, failure->first_at);
		prk_put_time(&row, FAILURE_LAST_AT, failure->last_at);
		prk_put_int64(&row, FAILURE_COUNT, failure->count);
		prk_put_text(&row, FAILURE_DIRECTION,
					 failure->outgoing ? "out" : "in");
		put_name(&row, FAILURE_ROLE_NAME, &failure->role_name);
		if (prk_failures_address(failure, host, sizeof(host)) != NULL)
			prk_put(&row, FAILURE_CLIENT_ADDR,
					DirectFunctionCall1(inet_in, CStringGetDatum(host)));
		put_name(&row, FAILURE_APPLICATION_NAME, &failure->application_name);
		put_name(&row, FAILURE_SLOT_NAME, &failure->slot_name);
		prk_put_text(&row, FAILURE_SQLSTATE,
					 unpack_sql_state(failure->sqlerrcode));
		prk_put_text(&row, FAILURE_MESSAGE,
					 prk_foreign_show_words(&failure->message));
		prk_rows_add(&row);
	}
	return (Datum) 0;
}

/* Empty stands for SQL's NULL. */
static void
put_name(PrkRow *row, FailureColumn column, const PrkForeign *name)
{
	if (!prk_foreign_is_empty(name))
		prk_put_text(row, column, prk_foreign_show(name));
}
