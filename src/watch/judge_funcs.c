/*-------------------------------------------------------------------------
 *
 * judge_funcs.c
 *	  SQL functions that judge: unhealthy(), assert_healthy().
 *
 * IDENTIFICATION
 *	  src/watch/judge_funcs.c
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "lib/stringinfo.h"
#include "utils/builtins.h"

#include "sql.h"
#include "watch/announce.h"
#include "watch/report.h"
#include "watch/troubles.h"

/* Columns of unhealthy() */
typedef enum UnhealthyColumn
{
	UNHEALTHY_NAME,
	UNHEALTHY_LEVEL,
	UNHEALTHY_REASON,
	UNHEALTHY_NCOLS
} UnhealthyColumn;

static const PrkSignature unhealthy_signature = {
	.args = {TEXTOID},
	.ncolumns = UNHEALTHY_NCOLS,
	.columns = {
		[UNHEALTHY_NAME] = TEXTOID,
		[UNHEALTHY_LEVEL] = TEXTOID,
		[UNHEALTHY_REASON] = TEXTOID
	}
};

static const PrkSignature assert_healthy_signature = {
	.args = {TEXTOID, INT4OID},
	.result = VOIDOID
};

PG_FUNCTION_INFO_V1(pg_replica_kit_unhealthy_1_0);
PG_FUNCTION_INFO_V1(pg_replica_kit_assert_healthy_1_0);

static PrkLevel get_level(FunctionCallInfo fcinfo, int argno);
static int	count_streaming(const PrkReport *report);

/*
 * unhealthy(level text)
 *
 * No special permission is asked for: EXECUTE is the only gate.
 */
Datum
pg_replica_kit_unhealthy_1_0(PG_FUNCTION_ARGS)
{
	PrkLevel	level;
	List	   *troubles;
	ListCell   *cell;
	PrkRow		row;

	prk_rows_begin(fcinfo, &unhealthy_signature, &row);
	level = get_level(fcinfo, 0);
	troubles = prk_troubles_list(prk_report_take(), level);
	foreach(cell, troubles)
	{
		const PrkTrouble *trouble = lfirst(cell);

		prk_put_text(&row, UNHEALTHY_NAME, trouble->name);
		prk_put_text(&row, UNHEALTHY_LEVEL, prk_level_name(trouble->level));
		prk_put_text(&row, UNHEALTHY_REASON, trouble->reason);
		prk_rows_add(&row);
	}
	return (Datum) 0;
}

/*
 * assert_healthy(level text, min_streaming integer)
 *
 * The first trouble stands in the primary message, since that is what
 * schedulers keep of a failed run.
 */
Datum
pg_replica_kit_assert_healthy_1_0(PG_FUNCTION_ARGS)
{
	PrkLevel	level;
	PrkReport  *report;
	List	   *troubles;
	ListCell   *cell;
	int32		wanted;
	int			streaming;

	prk_sql_check(fcinfo, &assert_healthy_signature);
	level = get_level(fcinfo, 0);
	wanted = prk_arg_int32(fcinfo, 1, "min_streaming");
	if (wanted < 0)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("min_streaming must not be negative")));

	report = prk_report_take();
	troubles = prk_troubles_list(report, level);
	if (troubles != NIL)
	{
		const PrkTrouble *worst = linitial(troubles);
		const char *hint = "Run: SELECT * FROM replica_kit.diagnose();";
		StringInfoData detail;

		/* of one, all is said in the message */
		initStringInfo(&detail);
		foreach(cell, troubles)
		{
			const PrkTrouble *trouble = lfirst(cell);

			appendStringInfo(&detail, "%s%s %s: %s.",
							 detail.len > 0 ? "\n" : "", trouble->label,
							 prk_level_name(trouble->level), trouble->reason);
		}
		if (list_length(troubles) == 1 && worst->label != worst->name)
			hint = psprintf("Run: SELECT * FROM replica_kit.diagnose(%s);",
							quote_literal_cstr(worst->name));
		ereport(ERROR,
				(errcode(prk_announce_errcode(worst->level)),
				 list_length(troubles) == 1 ?
				 errmsg("%s %s: %s", worst->label,
						prk_level_name(worst->level), worst->reason) :
				 errmsg("%s %s: %s, and %d more", worst->label,
						prk_level_name(worst->level), worst->reason,
						list_length(troubles) - 1),
				 list_length(troubles) > 1 ?
				 errdetail_internal("%s", detail.data) : 0,
				 errhint("%s", hint)));
	}

	streaming = count_streaming(report);
	if (streaming < wanted)
		ereport(ERROR,
				(errcode(PRK_ERRCODE_CRITICAL),
				 errmsg("too few replicas are streaming: %d of at least %d",
						streaming, wanted),
				 errhint("Run: SELECT * FROM replica_kit.status();")));
	PG_RETURN_VOID();
}

/* A level argument: warning or critical, and nothing else. */
static PrkLevel
get_level(FunctionCallInfo fcinfo, int argno)
{
	char	   *level = prk_arg_text(fcinfo, argno, "level");

	if (strcmp(level, "warning") == 0)
		return PRK_WARNING;
	if (strcmp(level, "critical") == 0)
		return PRK_CRITICAL;
	ereport(ERROR,
			(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
			 errmsg("unrecognized level: \"%s\"", level),
			 errhint("Levels are \"warning\" and \"critical\".")));
}

/*
 * Read replicas that stream: physical, with replay reported, so that neither
 * the stream of a base backup nor a WAL archiver counts as one.
 */
static int
count_streaming(const PrkReport *report)
{
	int			count = 0;

	for (int i = 0; i < report->nrows; i++)
	{
		const PrkReportRow *row = &report->rows[i];

		if (row->verdict.state == PRK_STATE_STREAMING &&
			!row->replica->logical && !row->replica->temporary &&
			!XLogRecPtrIsInvalid(row->replica->replay_lsn))
			count++;
	}
	return count;
}
