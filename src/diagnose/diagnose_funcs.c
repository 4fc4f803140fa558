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
#include "lib/stringinfo.h"

#include "diagnose/config.h"
#include "diagnose/diagnose.h"
#include "diagnose/subjects.h"
#include "diagnose/words.h"
#include "foreign.h"
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
	DIAGNOSIS_ADVICE,
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
		[DIAGNOSIS_REMEDY] = TEXTOID,
		[DIAGNOSIS_ADVICE] = TEXTOID
	}
};

PG_FUNCTION_INFO_V1(pg_replica_kit_diagnose_1_0);

static void put_row(PrkRow *row, const PrkDiagnosis *diagnosis,
					const char *name, const PrkWords *words);
static const char *describe_refusals(const PrkSample *sample);
static void read_versions(PrkEvidence *evidence);
static void read_collations(PrkCollations *collations);
static char *get_text(MemoryContext context, int column);

/*
 * diagnose(name text) - root causes, worst first; of one replica if its name
 * is given.  Where remedies are ALTER SYSTEM, a reload is the last row.
 *
 * Needs no rights but EXECUTE: it reads configuration files as the server
 * does, and quotes neither rules nor values.
 */
Datum
pg_replica_kit_diagnose_1_0(PG_FUNCTION_ARGS)
{
	char	   *name;
	PrkEvidence *evidence;
	PrkDiagnosis reload = {0};
	bool		found = false;
	ListCell   *cell;
	PrkRow		row;

	prk_rows_begin(fcinfo, &diagnose_signature, &row);
	name = PG_ARGISNULL(0) ? NULL : prk_arg_text(fcinfo, 0, "name");
	reload.code = PRK_CODE_RELOAD_NEEDED;

	evidence = prk_evidence_gather();
	evidence->config_error = describe_refusals(evidence->report->sample);
	read_versions(evidence);
	if (evidence->report->sample->in_recovery)
		read_collations(&evidence->collations);
	foreach(cell, prk_diagnose(evidence))
	{
		const PrkDiagnosis *diagnosis = lfirst(cell);
		const char *shown = prk_words_name(diagnosis);
		const PrkSilence *silence;
		PrkWords	words;

		if (name != NULL && strcmp(shown, name) != 0)
			continue;
		found = true;
		prk_words_write(evidence, diagnosis, &words);
		silence = prk_silence_find(&evidence->report->silences, shown);
		if (silence != NULL)
			prk_words_clause(&words, "%s", prk_silence_words(silence));
		put_row(&row, diagnosis, shown, &words);
		if (words.sets)
			reload.count++;
	}
	if (name != NULL && !found)
		prk_subject_require(evidence, NIL, name);

	if (reload.count > 0)
	{
		PrkWords	words;

		reload.gravity = prk_code_info(reload.code)->gravity;
		prk_words_write(evidence, &reload, &words);
		put_row(&row, &reload, prk_words_name(&reload), &words);
	}
	return (Datum) 0;
}

static void
put_row(PrkRow *row, const PrkDiagnosis *diagnosis, const char *name,
		const PrkWords *words)
{
	prk_put_text(row, DIAGNOSIS_LEVEL, prk_gravity_name(diagnosis->gravity));
	prk_put_text(row, DIAGNOSIS_CODE, prk_code_name(diagnosis->code));
	prk_put_text(row, DIAGNOSIS_NAME, name);
	prk_put_text(row, DIAGNOSIS_FINDING, words->finding);
	prk_put_text(row, DIAGNOSIS_EVIDENCE, words->evidence.data);
	prk_put_text(row, DIAGNOSIS_REMEDY, words->remedy);
	prk_put_text(row, DIAGNOSIS_ADVICE,
				 words->advice.len > 0 ? words->advice.data : NULL);
	prk_rows_add(row);
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

/*
 * Which version the extension's SQL has in this database, and which the
 * installed files would give it.
 */
static void
read_versions(PrkEvidence *evidence)
{
	MemoryContext context = CurrentMemoryContext;

	SPI_connect();
	if (SPI_execute("SELECT installed_version, default_version::pg_catalog.text "
					"FROM pg_catalog.pg_available_extensions "
					"WHERE name OPERATOR(pg_catalog.=) 'pg_replica_kit'",
					true, 1) == SPI_OK_SELECT &&
		SPI_processed > 0)
	{
		evidence->sql_version = get_text(context, 1);
		evidence->files_version = get_text(context, 2);
	}
	SPI_finish();
}

/*
 * Which collations have another version here than is recorded: those of all
 * databases, and in this one those that an index uses.
 */
static void
read_collations(PrkCollations *collations)
{
	MemoryContext context = CurrentMemoryContext;

	SPI_connect();
	if (SPI_execute("SELECT pg_catalog.string_agg(d.datname, ', ' ORDER BY d.datname), "
					"pg_catalog.min(d.datcollversion), pg_catalog.min(d.here) "
					"FROM (SELECT datname, datcollversion, "
					"pg_catalog.pg_database_collation_actual_version(oid) AS here "
					"FROM pg_catalog.pg_database) d "
					"WHERE d.datcollversion OPERATOR(pg_catalog.<>) d.here",
					true, 1) == SPI_OK_SELECT && SPI_processed > 0)
	{
		collations->databases = get_text(context, 1);
		collations->there = get_text(context, 2);
		collations->here = get_text(context, 3);
	}
	if (SPI_execute("WITH used AS (SELECT DISTINCT i.indexrelid, c AS sorted_by "
					"FROM pg_catalog.pg_index i, pg_catalog.unnest(i.indcollation) c "
					"WHERE c OPERATOR(pg_catalog.<>) 0), "
					"other AS (SELECT c.oid, c.collversion, "
					"pg_catalog.pg_collation_actual_version(c.oid) AS here "
					"FROM pg_catalog.pg_collation c "
					"WHERE c.oid OPERATOR(pg_catalog.=) ANY (SELECT sorted_by FROM used) "
					"AND c.collversion IS NOT NULL), "
					"wrong AS (SELECT o.oid FROM other o WHERE o.collversion OPERATOR(pg_catalog.<>) o.here), "
					"own AS (SELECT 100::pg_catalog.oid AS oid FROM pg_catalog.pg_database d "
					"WHERE d.datname OPERATOR(pg_catalog.=) pg_catalog.current_database() "
					"AND d.datcollversion OPERATOR(pg_catalog.<>) "
					"pg_catalog.pg_database_collation_actual_version(d.oid)) "
					"SELECT (SELECT pg_catalog.count(*) FROM wrong)::pg_catalog.text, "
					"(SELECT pg_catalog.count(DISTINCT indexrelid) FROM used "
					"WHERE sorted_by OPERATOR(pg_catalog.=) ANY (SELECT oid FROM wrong UNION ALL SELECT oid FROM own))::pg_catalog.text, "
					"(SELECT pg_catalog.min(o.collversion) FROM other o WHERE o.collversion OPERATOR(pg_catalog.<>) o.here), "
					"(SELECT pg_catalog.min(o.here) FROM other o WHERE o.collversion OPERATOR(pg_catalog.<>) o.here)",
					true, 1) == SPI_OK_SELECT && SPI_processed > 0)
	{
		collations->count = atoi(get_text(context, 1));
		collations->indexes = atoi(get_text(context, 2));
		if (collations->databases == NULL)
		{
			collations->there = get_text(context, 3);
			collations->here = get_text(context, 4);
		}
	}
	SPI_finish();
}

/* A column of the row that was read, in that memory context; NULL is NULL. */
static char *
get_text(MemoryContext context, int column)
{
	char	   *value = SPI_getvalue(SPI_tuptable->vals[0],
									 SPI_tuptable->tupdesc, column);

	return value != NULL ? MemoryContextStrdup(context, value) : NULL;
}
