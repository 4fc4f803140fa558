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
#include "watch/judge_funcs.h"
#include "watch/report.h"
#include "watch/unserved.h"
#include "watch/upstream.h"

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
static List *list_troubles(const PrkReport *report, PrkLevel level);
static bool has_row(const PrkReport *report, const PrkUnserved *unserved);
static PrkTrouble *make_server_trouble(PrkLevel level, const char *reason);
static int	compare_troubles(const ListCell *a, const ListCell *b);
static PrkTrouble *judge_upstream(const PrkReport *report);
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
	troubles = list_troubles(prk_report_take(), level);
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
	troubles = list_troubles(report, level);
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

/* What unhealthy() lists, of PrkTrouble, for who shows it in another way. */
List *
prk_troubles_list(const PrkReport *report, PrkLevel level)
{
	return list_troubles(report, level);
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
 * PrkTroubles at or above the level, worst first, then by name.
 *
 * A replica counts by what diagnose() says of it now.  What the worker has
 * announced and not yet taken back counts as well, so that a scheduler does
 * not fall silent before the worker; then the reason is the announced one.
 */
static List *
list_troubles(const PrkReport *report, PrkLevel level)
{
	List	   *result = NIL;
	PrkTrouble *upstream;
	List	   *unserved = prk_unserved_list(report->sample, report->failures,
											 report->board);
	ListCell   *cell;

	for (int i = 0; i < report->nrows; i++)
	{
		const PrkReportRow *row = &report->rows[i];
		const PrkUnserved *why = prk_unserved_find(unserved,
												   row->replica->name);
		PrkTrouble *trouble = palloc(sizeof(PrkTrouble));

		trouble->name = prk_settings_shown_name(row->replica->name);
		trouble->label = psprintf("replica \"%s\"", row->replica->name);
		trouble->level = row->has_alert ?
			Max(row->alert, row->effective) : row->effective;
		trouble->reason = row->verdict.level >= trouble->level ?
			row->verdict.reason : row->alert_reason;
		if (why != NULL && !row->verdict.off &&
			trouble->level < PRK_CRITICAL)
		{
			trouble->level = PRK_CRITICAL;
			trouble->reason = why->reason;
		}
		if (trouble->level >= level)
			result = lappend(result, trouble);
	}

	if (report->worker_trouble != NULL && level <= PRK_WARNING)
		result = lappend(result, make_server_trouble(PRK_WARNING,
													 report->worker_trouble));
	for (int i = 0; i < PRK_NTROUBLES; i++)
	{
		const PrkReportTrouble *trouble = &report->troubles[i];
		PrkLevel	now = Max(trouble->effective, trouble->alert);

		if (now >= level)
			result = lappend(result,
							 make_server_trouble(now,
												 trouble->verdict.level >= now ?
												 trouble->verdict.reason :
												 trouble->alert_reason));
	}

	foreach(cell, unserved)
	{
		const PrkUnserved *why = lfirst(cell);
		PrkTrouble *trouble;

		if (why->name == NULL)
		{
			result = lappend(result, make_server_trouble(PRK_CRITICAL,
														 why->reason));
			continue;
		}
		if (has_row(report, why))
			continue;
		trouble = palloc(sizeof(PrkTrouble));
		trouble->name = prk_settings_shown_name(why->name);
		trouble->label = psprintf("replica \"%s\"", why->name);
		trouble->level = PRK_CRITICAL;
		trouble->reason = why->reason;
		result = lappend(result, trouble);
	}

	upstream = judge_upstream(report);
	if (upstream->level >= level)
		result = lappend(result, upstream);

	list_sort(result, compare_troubles);
	return result;
}

/* Is it told with a row of the report, or not to be judged? */
static bool
has_row(const PrkReport *report, const PrkUnserved *unserved)
{
	PrkThresholds thresholds;

	for (int i = 0; i < report->nrows; i++)
	{
		const char *name = report->rows[i].replica->name;

		if (strcmp(name, unserved->name) == 0 ||
			prk_failure_concerns(unserved->failure, name))
			return true;
	}
	prk_settings_thresholds(unserved->name, &thresholds);
	return thresholds.off;
}

/* Something wrong with this server as a whole */
static PrkTrouble *
make_server_trouble(PrkLevel level, const char *reason)
{
	PrkTrouble *trouble = palloc(sizeof(PrkTrouble));

	trouble->name = PRK_SERVER_NAME;
	trouble->label = PRK_SERVER_NAME;
	trouble->level = level;
	trouble->reason = reason;
	return trouble;
}

/* list_sort comparator: the worst first, then by name */
static int
compare_troubles(const ListCell *a, const ListCell *b)
{
	const PrkTrouble *trouble1 = lfirst(a);
	const PrkTrouble *trouble2 = lfirst(b);

	if (trouble1->level != trouble2->level)
		return trouble1->level > trouble2->level ? -1 : 1;
	return strcmp(trouble1->name, trouble2->name);
}

/* The server that this one receives from; ok where there is none. */
static PrkTrouble *
judge_upstream(const PrkReport *report)
{
	PrkTrouble *trouble = palloc(sizeof(PrkTrouble));
	PrkReportUpstream *upstream = palloc(sizeof(PrkReportUpstream));

	prk_report_upstream(report, upstream);
	trouble->name = PRK_UPSTREAM_NAME;
	trouble->label = PRK_UPSTREAM_NAME;
	trouble->level = Max(upstream->effective, upstream->alert);
	trouble->reason = upstream->verdict.level >= trouble->level ?
		upstream->verdict.reason : upstream->alert_reason;
	return trouble;
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
