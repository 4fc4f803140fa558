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

#include "diagnose/diagnose.h"
#include "sql.h"

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

static const PrkSignature diagnose_signature = {
	.args = {TEXTOID},
	.ncolumns = DIAGNOSIS_NCOLS,
	.columns = {
		[DIAGNOSIS_LEVEL] = TEXTOID,
		[DIAGNOSIS_CODE] = TEXTOID,
		[DIAGNOSIS_NAME] = TEXTOID,
		[DIAGNOSIS_FINDING] = TEXTOID,
		[DIAGNOSIS_EVIDENCE] = TEXTOID,
		[DIAGNOSIS_REMEDY] = TEXTOID
	}
};

PG_FUNCTION_INFO_V1(pg_replica_kit_diagnose_1_0);

static char *read_config_error(void);

/*
 * diagnose(name text) - root causes, worst first; of one replica if its name
 * is given.
 *
 * Runs as its owner, to see which line of a configuration file is wrong, but
 * quotes neither rules nor values.
 */
Datum
pg_replica_kit_diagnose_1_0(PG_FUNCTION_ARGS)
{
	char	   *name;
	PrkEvidence *evidence;
	ListCell   *cell;
	PrkRow		row;

	prk_rows_begin(fcinfo, &diagnose_signature, &row);
	name = PG_ARGISNULL(0) ? NULL : prk_arg_text(fcinfo, 0, "name");

	evidence = prk_evidence_gather();
	evidence->config_error = read_config_error();
	foreach(cell, prk_diagnose(evidence))
	{
		const PrkDiagnosis *diagnosis = lfirst(cell);

		if (name != NULL &&
			(diagnosis->name == NULL || strcmp(diagnosis->name, name) != 0))
			continue;
		prk_put_text(&row, DIAGNOSIS_LEVEL,
					 prk_gravity_name(diagnosis->gravity));
		prk_put_text(&row, DIAGNOSIS_CODE, diagnosis->code);
		prk_put_text(&row, DIAGNOSIS_NAME, diagnosis->name);
		prk_put_text(&row, DIAGNOSIS_FINDING, diagnosis->finding);
		prk_put_text(&row, DIAGNOSIS_EVIDENCE, diagnosis->evidence);
		prk_put_text(&row, DIAGNOSIS_REMEDY, diagnosis->remedy);
		prk_rows_add(&row);
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
