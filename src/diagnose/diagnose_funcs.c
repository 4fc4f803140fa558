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

#include "lib/stringinfo.h"

#include "diagnose/config.h"
#include "diagnose/diagnose.h"
#include "foreign.h"
#include "format.h"
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

static const char *describe_refusals(const PrkSample *sample);

/*
 * diagnose(name text) - root causes, worst first; of one replica if its name
 * is given.
 *
 * Needs no rights but EXECUTE: it reads configuration files as the server
 * does, and quotes neither rules nor values.
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
	evidence->config_error = describe_refusals(evidence->report->sample);
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
 * What the next start would refuse, as preflight() lists it, palloc'd; NULL:
 * nothing.
 */
static const char *
describe_refusals(const PrkSample *sample)
{
	StringInfoData words;
	int			kept_slots = 0;
	ListCell   *cell;

	for (int i = 0; i < sample->nreplicas; i++)
		kept_slots += sample->replicas[i].has_slot &&
			!sample->replicas[i].temporary;

	initStringInfo(&words);
	foreach(cell, prk_config_refusals(prk_config_read(), kept_slots))
		appendStringInfo(&words, "%s%s", words.len > 0 ? "; " : "",
						 ((PrkRefusal *) lfirst(cell))->words);
	return words.len > 0 ? prk_foreign_show_text(words.data) : NULL;
}
