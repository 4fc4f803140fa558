/*-------------------------------------------------------------------------
 *
 * troubles.c
 *	  What unhealthy() and assert_healthy() list.
 *
 * IDENTIFICATION
 *	  src/watch/troubles.c
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "watch/troubles.h"
#include "watch/unserved.h"
#include "watch/upstream.h"

static PrkTrouble *judge_row(const PrkReportRow *row, List *unserved);
static List *list_server_troubles(const PrkReport *report, PrkLevel level);
static List *list_unserved(const PrkReport *report, List *unserved);
static bool has_row(const PrkReport *report, const PrkUnserved *unserved);
static PrkTrouble *make_server_trouble(PrkLevel level, const char *reason);
static int	compare_troubles(const ListCell *a, const ListCell *b);
static PrkTrouble *judge_upstream(PrkReport *report);

/*
 * PrkTroubles at or above the level, worst first, then by name; palloc'd.
 *
 * A replica counts by what diagnose() says of it now.  What the worker has
 * announced and not yet taken back counts as well, so that a scheduler does
 * not fall silent before the worker; then the reason is the announced one.
 * What is silenced does not count, unless it cannot be undone.
 */
List *
prk_troubles_list(PrkReport *report, PrkLevel level)
{
	List	   *result = NIL;
	PrkTrouble *upstream;
	List	   *unserved = prk_unserved_list(report->sample, report->failures,
											 report->board);

	for (int i = 0; i < report->nrows; i++)
	{
		PrkTrouble *trouble = judge_row(&report->rows[i], unserved);

		if (trouble->level >= level)
			result = lappend(result, trouble);
	}
	result = list_concat(result, list_server_troubles(report, level));
	result = list_concat(result, list_unserved(report, unserved));
	upstream = judge_upstream(report);
	if (upstream->level >= level)
		result = lappend(result, upstream);

	list_sort(result, compare_troubles);
	return result;
}

/* What is wrong with the replica of a row; ok where nothing is, or silenced. */
static PrkTrouble *
judge_row(const PrkReportRow *row, List *unserved)
{
	const PrkUnserved *why = prk_unserved_find(unserved, row->replica->name);
	PrkTrouble *trouble = palloc(sizeof(PrkTrouble));

	trouble->name = prk_settings_shown_name(row->replica->name);
	trouble->label = psprintf("replica \"%s\"", row->replica->name);
	trouble->level = row->has_alert ?
		Max(row->alert, row->effective) : row->effective;
	trouble->reason = row->verdict.level >= trouble->level ?
		row->verdict.reason : row->alert_reason;
	if (prk_silence_mutes(row->silence, row->verdict.code, trouble->level))
		trouble->level = PRK_OK;
	if (why != NULL && !row->verdict.off &&
		trouble->level < PRK_CRITICAL &&
		!prk_silence_mutes(row->silence, why->code, PRK_CRITICAL))
	{
		trouble->level = PRK_CRITICAL;
		trouble->reason = why->reason;
	}
	return trouble;
}

/* What is wrong with the server as a whole. */
static List *
list_server_troubles(const PrkReport *report, PrkLevel level)
{
	const PrkSilence *silence = prk_silence_find(&report->silences,
												 PRK_SERVER_NAME);
	List	   *result = NIL;

	if (report->worker_trouble != NULL && level <= PRK_WARNING &&
		!prk_silence_mutes(silence, PRK_CODE_WORKER_STALE, PRK_WARNING))
		result = lappend(result, make_server_trouble(PRK_WARNING,
													 report->worker_trouble));
	for (int i = 0; i < PRK_NTROUBLES; i++)
	{
		const PrkReportTrouble *trouble = &report->troubles[i];
		PrkLevel	now = Max(trouble->effective, trouble->alert);

		if (now >= level &&
			!prk_silence_mutes(silence, trouble->verdict.code, now))
			result = lappend(result,
							 make_server_trouble(now,
												 trouble->verdict.level >= now ?
												 trouble->verdict.reason :
												 trouble->alert_reason));
	}
	return result;
}

/* Who comes in vain, and has no row. */
static List *
list_unserved(const PrkReport *report, List *unserved)
{
	List	   *result = NIL;
	ListCell   *cell;

	foreach(cell, unserved)
	{
		const PrkUnserved *why = lfirst(cell);
		const PrkSilence *silence = why->name == NULL ?
		prk_silence_find(&report->silences, PRK_SERVER_NAME) :
		prk_silence_of_replica(&report->silences, why->name);
		PrkTrouble *trouble;

		if (prk_silence_mutes(silence, why->code, PRK_CRITICAL))
			continue;
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
judge_upstream(PrkReport *report)
{
	PrkTrouble *trouble = palloc(sizeof(PrkTrouble));
	const PrkReportUpstream *upstream = prk_report_upstream(report);

	trouble->name = PRK_UPSTREAM_NAME;
	trouble->label = PRK_UPSTREAM_NAME;
	trouble->level = Max(upstream->effective, upstream->alert);
	trouble->reason = upstream->verdict.level >= trouble->level ?
		upstream->verdict.reason : upstream->alert_reason;
	if (prk_silence_mutes(prk_silence_find(&report->silences,
										   PRK_UPSTREAM_NAME),
						  upstream->verdict.code, trouble->level))
		trouble->level = PRK_OK;
	return trouble;
}
