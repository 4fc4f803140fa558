/*-------------------------------------------------------------------------
 *
 * report.c
 *	  The sample, what the worker knows of it, and the verdict, together and
 *	  in order.
 *
 * IDENTIFICATION
 *	  src/watch/report.c
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "clock/clock_shared.h"
#include "failures/failure_table.h"
#include "format.h"
#include "judge/ages.h"
#include "watch/report.h"

/* A worker that is this late, in microseconds, is not at work. */
#define STALE_AFTER		(15 * USECS_PER_SEC)

static const char *judge_worker(const PrkBoard *board);
static int	compare_rows(const void *a, const void *b);

/*
 * One fresh sample with its verdicts, all palloc'd in the caller's memory
 * context.  Alerts are shown only while the worker runs and has seen the
 * replica: what it announced before it was stopped, or froze, may no longer
 * be true.
 */
PrkReport *
prk_report_take(void)
{
	static const PrkKnown nothing = {0};
	PrkReport  *report = palloc0(sizeof(PrkReport));
	PrkReportRow *judged;
	PrkReportRow **order;

	report->board = prk_board_read();
	report->failures = prk_failures_read();
	report->sample = prk_sample_take(NULL);
	prk_ages_add(report->sample);
	report->nrows = report->sample->nreplicas;
	report->worker_trouble = judge_worker(report->board);
	report->watched = report->board->worker_pid != 0 &&
		report->worker_trouble == NULL;
	report->rows = palloc(Max(report->nrows, 1) * sizeof(PrkReportRow));
	judged = palloc0(Max(report->nrows, 1) * sizeof(PrkReportRow));
	order = palloc(Max(report->nrows, 1) * sizeof(PrkReportRow *));

	for (int i = 0; i < report->nrows; i++)
	{
		PrkReportRow *row = &judged[i];
		const PrkBoardEntry *entry = NULL;
		PrkThresholds thresholds;

		row->replica = &report->sample->replicas[i];
		if (report->watched)
			entry = prk_board_find(report->board, row->replica);
		prk_settings_thresholds(row->replica->name, &thresholds);
		prk_health_judge(report->sample, row->replica, &thresholds,
						 entry != NULL ? &entry->known : &nothing,
						 &row->verdict);
		row->has_alert = entry != NULL;
		row->alert = entry != NULL ? entry->alert : PRK_OK;
		row->alert_since = entry != NULL ? entry->alert_since : 0;
		row->alert_reason = entry != NULL ? entry->reason : "";
		row->last_error = prk_failures_of_replica(report->failures,
												  row->replica->name);
		row->disk_full_in = -1;
		if (entry != NULL && row->replica->has_slot &&
			strcmp(report->board->server.disk.holder,
				   row->replica->slot_name) == 0)
			row->disk_full_in = report->board->server.disk.full_in;
		order[i] = row;
	}

	/* The rows are long: each is moved once, whatever the order was. */
	qsort(order, report->nrows, sizeof(PrkReportRow *), compare_rows);
	for (int i = 0; i < report->nrows; i++)
		report->rows[i] = *order[i];

	pfree(judged);
	pfree(order);
	return report;
}

/*
 * Is there a worker that should be at work and is not?  It shows that it is
 * alive each second, whatever the check interval is; that it also gets its
 * checks done, by its cycles.
 */
static const char *
judge_worker(const PrkBoard *board)
{
	int64		now = prk_clock_now();
	int64		silence = now - prk_clock_alive_at();
	int64		late = 3 * (int64) prk_check_interval * 1000 +
	2 * STALE_AFTER;
	char		buf[PRK_FORMAT_LEN];

	if (!board->exists || !prk_worker_enabled)
		return NULL;
	if (silence >= STALE_AFTER && board->worker_pid == 0)
		return "worker is not running";
	if (silence >= STALE_AFTER)
		return psprintf("worker (pid %d) has done nothing for %s",
						board->worker_pid, prk_format_duration(buf, silence));
	if (board->cycle_clock != 0 && now - board->cycle_clock >= late)
		return psprintf("worker (pid %d) has not finished a check for %s",
						board->worker_pid,
						prk_format_duration(buf, now - board->cycle_clock));
	return NULL;
}

/* Worst first, then by name; a slot before walsenders of the same name. */
static int
compare_rows(const void *a, const void *b)
{
	const PrkReportRow *row1 = *(PrkReportRow *const *) a;
	const PrkReportRow *row2 = *(PrkReportRow *const *) b;

	if (row1->verdict.level != row2->verdict.level)
		return row1->verdict.level > row2->verdict.level ? -1 : 1;
	return prk_board_compare(row1->replica->name,
							 prk_board_pid(row1->replica),
							 row2->replica->name,
							 prk_board_pid(row2->replica));
}
