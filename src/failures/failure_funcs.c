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

#include "fmgr.h"
#include "funcapi.h"
#include "utils/builtins.h"
#include "utils/timestamp.h"
#include "utils/tuplestore.h"

#include "failures/failure_table.h"
#include "failures/failures.h"
#include "format.h"

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

PG_FUNCTION_INFO_V1(pg_replica_kit_connection_errors);

static void put_words(Datum *values, bool *nulls, FailureColumn column,
					  const char *words);

/*
 * connection_errors() - one row per distinct failure, the newest first.
 *
 * Who connects chooses the bytes of most columns, and no encoding is known
 * where they are noted.
 */
Datum
pg_replica_kit_connection_errors(PG_FUNCTION_ARGS)
{
	ReturnSetInfo *rsinfo = (ReturnSetInfo *) fcinfo->resultinfo;
	PrkFailures *failures;

	InitMaterializedSRF(fcinfo, 0);
	Assert(rsinfo->setDesc->natts == FAILURE_NCOLS);

	failures = prk_failures_read();
	if (!failures->exist)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("pg_replica_kit must be loaded via shared_preload_libraries"),
				 errdetail("Only then connection failures are noted.")));

	for (int i = 0; i < failures->nfailures; i++)
	{
		const PrkFailure *failure = &failures->failures[i];
		Datum		values[FAILURE_NCOLS] = {0};
		bool		nulls[FAILURE_NCOLS] = {0};
		char		host[NI_MAXHOST];

		values[FAILURE_FIRST_AT] = TimestampTzGetDatum(failure->first_at);
		values[FAILURE_LAST_AT] = TimestampTzGetDatum(failure->last_at);
		values[FAILURE_COUNT] = Int64GetDatum(failure->count);
		values[FAILURE_DIRECTION] =
			CStringGetTextDatum(failure->outgoing ? "out" : "in");
		put_words(values, nulls, FAILURE_ROLE_NAME, failure->role_name);
		if (prk_failures_address(failure, host, sizeof(host)) != NULL)
			values[FAILURE_CLIENT_ADDR] =
				DirectFunctionCall1(inet_in, CStringGetDatum(host));
		else
			nulls[FAILURE_CLIENT_ADDR] = true;
		put_words(values, nulls, FAILURE_APPLICATION_NAME,
				  failure->application_name);
		put_words(values, nulls, FAILURE_SLOT_NAME, failure->slot_name);
		values[FAILURE_SQLSTATE] =
			CStringGetTextDatum(unpack_sql_state(failure->sqlerrcode));
		put_words(values, nulls, FAILURE_MESSAGE, failure->message);
		tuplestore_putvalues(rsinfo->setResult, rsinfo->setDesc,
							 values, nulls);
	}
	return (Datum) 0;
}

/* Empty stands for SQL's NULL. */
static void
put_words(Datum *values, bool *nulls, FailureColumn column, const char *words)
{
	if (words[0] == '\0')
		nulls[column] = true;
	else
		values[column] = CStringGetTextDatum(prk_format_foreign(words));
}
