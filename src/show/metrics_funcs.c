/*-------------------------------------------------------------------------
 *
 * metrics_funcs.c
 *	  SQL: metrics().
 *
 * IDENTIFICATION
 *	  src/show/metrics_funcs.c
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "lib/stringinfo.h"

#include "compat.h"
#include "show/metrics.h"
#include "sql.h"

static const PrkSignature metrics_signature = {
	.result = TEXTOID
};

PG_FUNCTION_INFO_V1(pg_replica_kit_metrics_1_0);

/*
 * metrics()
 *
 * No special permission is asked for: EXECUTE is the only gate.
 */
Datum
pg_replica_kit_metrics_1_0(PG_FUNCTION_ARGS)
{
	StringInfoData buf;

	prk_sql_check(fcinfo, &metrics_signature);

	/* with room for the header of a datum, since it may be megabytes */
	initStringInfo(&buf);
	appendStringInfoSpaces(&buf, VARHDRSZ);
	prk_metrics_write(&buf);
	SET_VARSIZE(buf.data, buf.len);
	PG_RETURN_TEXT_P((text *) buf.data);
}
