/*-------------------------------------------------------------------------
 *
 * preflight_funcs.c
 *	  SQL: preflight().
 *
 * IDENTIFICATION
 *	  src/diagnose/preflight_funcs.c
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "diagnose/preflight.h"
#include "foreign.h"
#include "format.h"
#include "sql.h"

/* Nobody clones more at once; a plain limit for the arithmetic. */
#define MAX_REPLICAS	1000

/* The columns of preflight(), in order. */
typedef enum PreflightColumn
{
	PREFLIGHT_CHECK_NAME,
	PREFLIGHT_LEVEL,
	PREFLIGHT_CURRENT,
	PREFLIGHT_WANTED,
	PREFLIGHT_NEEDS_RESTART,
	PREFLIGHT_FIX,
	PREFLIGHT_NCOLS
} PreflightColumn;

static const PrkSignature preflight_signature = {
	.args = {INT4OID},
	.ncolumns = PREFLIGHT_NCOLS,
	.columns = {
		[PREFLIGHT_CHECK_NAME] = TEXTOID,
		[PREFLIGHT_LEVEL] = TEXTOID,
		[PREFLIGHT_CURRENT] = TEXTOID,
		[PREFLIGHT_WANTED] = TEXTOID,
		[PREFLIGHT_NEEDS_RESTART] = BOOLOID,
		[PREFLIGHT_FIX] = TEXTOID
	}
};

PG_FUNCTION_INFO_V1(pg_replica_kit_preflight_1_0);

/*
 * preflight(replicas integer) - a row for each thing that needs attention
 * before that many more replicas are made.
 *
 * EXECUTE is the gate: the server reads settings and files, whoever asks.
 */
Datum
pg_replica_kit_preflight_1_0(PG_FUNCTION_ARGS)
{
	int			replicas;
	ListCell   *cell;
	PrkRow		row;

	prk_rows_begin(fcinfo, &preflight_signature, &row);
	replicas = prk_arg_int32(fcinfo, 0, "replicas");
	if (replicas < 1 || replicas > MAX_REPLICAS)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("argument \"%s\" must be between 1 and %d",
						"replicas", MAX_REPLICAS)));

	foreach(cell, prk_preflight(prk_preflight_gather(), replicas))
	{
		const PrkPreflightRow *found = lfirst(cell);

		prk_put_text(&row, PREFLIGHT_CHECK_NAME, found->check_name);
		prk_put_text(&row, PREFLIGHT_LEVEL, found->level);
		prk_put_text(&row, PREFLIGHT_CURRENT, prk_foreign_show_text(found->current));
		prk_put_text(&row, PREFLIGHT_WANTED, prk_foreign_show_text(found->wanted));
		prk_put_bool(&row, PREFLIGHT_NEEDS_RESTART, found->needs_restart);
		prk_put_text(&row, PREFLIGHT_FIX, found->fix);
		prk_rows_add(&row);
	}
	return (Datum) 0;
}
