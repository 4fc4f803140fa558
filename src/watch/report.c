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

#include "utils/memutils.h"

#include "clock/clock_shared.h"
#include "failures/failure_table.h"
#include "format.h"
#include "kept.h"
#include "judge/ages.h"
#include "sample/timeline.h"
#include "sample/unused.h"
#include "watch/order.h"
#include "watch/report.h"

/* A worker that is this late, in microseconds, is not at work. */
#define STALE_AFTER		(15 * USECS_PER_SEC)

/* What is kept between two reports of this process. */
typedef struct Room
{
	MemoryContext context;		/* NULL: nothing yet */
	PrkSampleCache *cache;
	PrkKept		entries;
	PrkOrder	by_name;
	PrkKept		rows;
	PrkKept		moves;
} Room;

static Room room;

static void open_room(void);
static void judge_server(PrkReport *report);
static void judge_row(const PrkReport *report, PrkReportRow *row,
					  int *hint);
static const PrkBoardEntry *find_entry(const PrkBoard *board,
									   const PrkReplica *replica, int *hint);
static void sort_by_level(PrkReport *report);
static const char *judge_worker(const PrkBoard *board);

/*
 * One fresh sample with its verdicts.  Alerts are shown only while the worker
 * runs and has seen the replica: what it announced before it was stopped, or
 * froze, may no longer be true.
 *
 * The report is palloc'd in the caller's memory context, but its sample, board
 * entries and rows are in memory that this process keeps for the next report:
 * some 2 kB for each replica.  So there is one report at a time.
 */
PrkReport *
prk_report_take(void)
{
	PrkReport  *report = palloc0(sizeof(PrkReport));
	const PrkPlace *places;
	int			hint = 0;

	open_room();
	report->board = palloc(sizeof(PrkBoard));
	prk_board_read_into(report->board, &room.entries, room.context);
	report->failures = prk_failures_read();
	prk_silence_read(&report->silences);
	report->sample = prk_sample_take(room.cache);
	prk_timeline_add(report->sample);
	prk_ages_add(report->sample);
	report->nrows = report->sample->nreplicas;
	report->worker_trouble = judge_worker(report->board);
	report->watched = report->board->worker_pid != 0 &&
		report->worker_trouble == NULL;
	if (!report->watched)
		prk_unused_add(report->sample);
	report->rows = prk_kept_reserve(&room.rows, room.context,
									report->nrows * sizeof(PrkReportRow));

	places = prk_order_by_name(&room.by_name, room.context, report->sample);
	for (int i = 0; i < report->nrows; i++)
	{
		report->rows[i].replica = places[i].replica;
		judge_row(report, &report->rows[i], &hint);
	}
	sort_by_level(report);
	judge_server(report);
	return report;
}

/*
 * Reads and judges this server's own upstream, with what the worker knows of
 * it.  It is read once for a report, so that whoever asks sees the same.
 */
const PrkReportUpstream *
prk_report_upstream(PrkReport *report)
{
	PrkReportUpstream *upstream = report->upstream;
	const PrkBoardUpstream *seen = &report->board->upstream;
	bool		watched = report->board->cycle_at != 0 && report->watched;
	TimestampTz now = report->sample->taken_at;

	if (upstream != NULL)
		return upstream;
	upstream = report->upstream = palloc0(sizeof(PrkReportUpstream));
	prk_upstream_read(&upstream->state);
	if (watched)
		prk_upstream_follow(&upstream->state, seen->replayed_lsn,
							seen->still_since);
	prk_settings_own_thresholds(PRK_UPSTREAM_NAME, &upstream->thresholds);
	upstream->failure = prk_upstream_failure(report->failures,
											 &upstream->kind);
	prk_upstream_judge(&upstream->state,
					   upstream->failure != NULL ? &upstream->kind : NULL,
					   &upstream->thresholds, watched, seen->gone_since, now,
					   &upstream->verdict);

	/* A replica would not have been announced yet, either. */
	upstream->effective = upstream->verdict.level;
	upstream->alert = PRK_OK;
	upstream->alert_reason = "";
	if (!watched || !upstream->state.in_recovery)
		return upstream;
	upstream->alert = seen->alert.alert;
	upstream->alert_reason = seen->alert.reason;
	if (!upstream->verdict.at_once)
		upstream->effective = Min(upstream->verdict.level, upstream->alert);
	return upstream;
}

/* What is kept, the first time. */
static void
open_room(void)
{
	MemoryContext context;

	if (room.context != NULL)
		return;
	context = AllocSetContextCreate(TopMemoryContext, "pg_replica_kit report",
									ALLOCSET_SMALL_SIZES);
	room.cache = prk_sample_cache_create(context);
	room.context = context;
}

/* What is wrong with the server as a whole, now and as announced. */
static void
judge_server(PrkReport *report)
{
	PrkThresholds thresholds;
	PrkArchiveMark mark = {0};

	if (report->watched)
	{
		report->facts.disk = report->board->server.disk;
		mark = report->board->server.archive;
	}
	prk_server_facts_read(report->sample, &mark, &report->facts);
	prk_settings_own_thresholds(PRK_SERVER_NAME, &thresholds);
	for (int i = 0; i < PRK_NTROUBLES; i++)
	{
		PrkReportTrouble *trouble = &report->troubles[i];
		const PrkBoardAlert *alert = &report->board->server.alerts[i];

		prk_server_judge(&report->facts, i, &thresholds, &trouble->verdict);
		trouble->effective = trouble->verdict.level;
		trouble->alert = PRK_OK;
		trouble->alert_reason = "";
		if (!report->watched)
			continue;
		trouble->alert = alert->alert;
		trouble->alert_reason = alert->reason;
		if (!trouble->verdict.at_once)
			trouble->effective = Min(trouble->verdict.level, alert->alert);
	}
}

/* Fills in a row, whose replica is set. */
static void
judge_row(const PrkReport *report, PrkReportRow *row, int *hint)
{
	static const PrkKnown nothing = {0};
	PrkKnown	fresh = {0};
	const PrkKnown *known = &nothing;
	const PrkBoardEntry *entry = NULL;
	PrkThresholds thresholds;

	if (report->watched)
		entry = find_entry(report->board, row->replica, hint);
	if (entry != NULL)
		known = &entry->known;
	else if (report->watched && report->board->cycle_at != 0 &&
			 row->replica->has_slot && row->replica->pid == 0)
	{
		/* Made since the worker last looked, as it will find out. */
		fresh.watched = true;
		fresh.never_connected = true;
		fresh.appeared_at = report->sample->taken_at;
		known = &fresh;
	}
	prk_settings_thresholds(row->replica->name, &thresholds);
	prk_health_judge(report->sample, row->replica, &thresholds,
					 known,
					 &row->verdict);
	row->has_alert = entry != NULL;
	row->alert = entry != NULL ? entry->alert : PRK_OK;
	row->effective = row->verdict.level;
	if (row->has_alert && !row->verdict.at_once)
		row->effective = Min(row->verdict.level, row->alert);
	row->alert_since = entry != NULL ? entry->alert_since : 0;
	row->alert_reason = entry != NULL ? entry->reason : "";
	row->silence = prk_silence_of_replica(&report->silences,
										  row->replica->name);
	row->last_error = prk_failures_of_replica(report->failures,
											  row->replica->name);
	row->disk_full_in = -1;
	if (entry != NULL && row->replica->has_slot &&
		strcmp(report->board->server.disk.holder,
			   row->replica->slot_name) == 0)
		row->disk_full_in = report->board->server.disk.full_in;
}

/*
 * prk_board_find() for replicas in the board's order: mostly the next one's
 * entry is the next one.
 */
static const PrkBoardEntry *
find_entry(const PrkBoard *board, const PrkReplica *replica, int *hint)
{
	const PrkBoardEntry *entry;

	if (*hint < board->nentries)
	{
		entry = &board->entries[*hint];
		if (entry->pid == prk_board_pid(replica) &&
			strcmp(entry->name, replica->name) == 0)
		{
			(*hint)++;
			return entry;
		}
	}
	entry = prk_board_find(board, replica);
	if (entry != NULL)
		*hint = entry - board->entries + 1;
	return entry;
}

/*
 * Brings the rows, which are by name, into the order of levels, the worst
 * first; those of one level stay by name.  Rows are long, so each is moved
 * once at most, round the circles of the permutation.
 */
static void
sort_by_level(PrkReport *report)
{
	int			nrows = report->nrows;
	int			next[PRK_CRITICAL + 2] = {0};
	int		   *order;
	bool		sorted = true;

	/* next[level + 1]: where the first row of this level goes */
	for (int i = 0; i < nrows; i++)
	{
		for (int j = 0; j <= (int) report->rows[i].verdict.level; j++)
			next[j]++;
		sorted = sorted && (i == 0 || report->rows[i].verdict.level <=
							report->rows[i - 1].verdict.level);
	}
	if (sorted)
		return;

	/* order[i]: where the row goes that is at i */
	order = prk_kept_reserve(&room.moves, room.context, nrows * sizeof(int));
	for (int i = 0; i < nrows; i++)
		order[i] = next[report->rows[i].verdict.level + 1]++;
	for (int i = 0; i < nrows; i++)
	{
		PrkReportRow moving;

		if (order[i] == i)
			continue;
		moving = report->rows[i];
		while (order[i] != i)
		{
			int			to = order[i];
			PrkReportRow displaced = report->rows[to];

			report->rows[to] = moving;
			moving = displaced;
			order[i] = order[to];
			order[to] = to;
		}
		report->rows[i] = moving;
	}
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
