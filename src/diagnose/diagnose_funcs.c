/*-------------------------------------------------------------------------
 *
 * diagnose_funcs.c
 *	  SQL: diagnose().
 *
 * IDENTIFICATION
 *	  src/diagnose/diagnose_funcs.c
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "executor/spi.h"
#include "fmgr.h"
#include "funcapi.h"
#include "utils/builtins.h"
#include "utils/tuplestore.h"

#include "diagnose/diagnose.h"

/* The columns of diagnose(), in order. */
typedef enum DiagnosisColumn
{
	DIAGNOSIS_LEVEL,
	DIAGNOSIS_CODE,
	DIAGNOSIS_NAME,
	DIAGNOSIS_FINDING,
	DIAGNOSIS_EVIDENCE,
	DIAGNOSIS_REMEDY,
	DIAGNOSIS_NCOLS
} DiagnosisColumn;

PG_FUNCTION_INFO_V1(pg_replica_kit_diagnose);

static char *read_config_error(void);

/*
 * diagnose(name text) - root causes, worst first; of one replica if its name
 * is given.
 *
 * Runs as its owner, to see which line of a configuration file is wrong, but
 * quotes neither rules nor values.
 */
Datum
pg_replica_kit_diagnose(PG_FUNCTION_ARGS)
{
	ReturnSetInfo *rsinfo = (ReturnSetInfo *) fcinfo->resultinfo;
	char	   *name = PG_ARGISNULL(0) ? NULL :
	text_to_cstring(PG_GETARG_TEXT_PP(0));
	PrkEvidence *evidence;
	ListCell   *cell;

	InitMaterializedSRF(fcinfo, 0);
	Assert(rsinfo->setDesc->natts == DIAGNOSIS_NCOLS);

	evidence = prk_evidence_gather();
	evidence->config_error = read_config_error();
	foreach(cell, prk_diagnose(evidence))
	{
		const PrkDiagnosis *diagnosis = lfirst(cell);
		Datum		values[DIAGNOSIS_NCOLS] = {0};
		bool		nulls[DIAGNOSIS_NCOLS] = {0};

		if (name != NULL &&
			(diagnosis->name == NULL || strcmp(diagnosis->name, name) != 0))
			continue;
		values[DIAGNOSIS_LEVEL] =
			CStringGetTextDatum(prk_gravity_name(diagnosis->gravity));
		values[DIAGNOSIS_CODE] = CStringGetTextDatum(diagnosis->code);
		if (diagnosis->name != NULL)
			values[DIAGNOSIS_NAME] = CStringGetTextDatum(diagnosis->name);
		else
			nulls[DIAGNOSIS_NAME] = true;
		values[DIAGNOSIS_FINDING] = CStringGetTextDatum(diagnosis->finding);
		values[DIAGNOSIS_EVIDENCE] = CStringGetTextDatum(diagnosis->evidence);
		values[DIAGNOSIS_REMEDY] = CStringGetTextDatum(diagnosis->remedy);
		tuplestore_putvalues(rsinfo->setResult, rsinfo->setDesc,
							 values, nulls);
	}
	return (Datum) 0;
}

/*
 * The first error in postgresql.conf and its like with which the server would
 * not start, palloc'd; NULL: none.
 *
 * The view calls a change that waits for a restart an error, too.  Those are
 * of settings that can change at no other time, so these don't count here.
 */
static char *
read_config_error(void)
{
	MemoryContext context = CurrentMemoryContext;
	char	   *result = NULL;

	SPI_connect();
	if (SPI_execute("SELECT pg_catalog.format('line %s of file \"%s\"%s: %s', "
					"f.sourceline, f.sourcefile, ', setting ' OPERATOR(pg_catalog.||) f.name, f.error) "
					"FROM pg_catalog.pg_file_settings AS f "
					"WHERE f.error IS NOT NULL AND NOT EXISTS ("
					"SELECT FROM pg_catalog.pg_settings AS s "
					"WHERE s.name OPERATOR(pg_catalog.=) f.name "
					"AND s.context OPERATOR(pg_catalog.=) 'postmaster') "
					"ORDER BY f.seqno LIMIT 1", true, 1) == SPI_OK_SELECT &&
		SPI_processed > 0)
	{
		char	   *value = SPI_getvalue(SPI_tuptable->vals[0],
										 SPI_tuptable->tupdesc, 1);

		if (value != NULL)
			result = MemoryContextStrdup(context, value);
	}
	SPI_finish();
	return result;
}
