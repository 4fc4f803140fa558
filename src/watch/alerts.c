/*-------------------------------------------------------------------------
 *
 * alerts.c
 *	  From verdicts over time to the lines that are worth a person's time.
 *
 * A state machine per replica, fed with one sample after the other.  It
 * reads no clock (the sample has the time) and writes nothing: the caller
 * logs the lines and publishes the entries.
 *
 * A level is announced when the verdict has been at it or above for
 * alert_after; a verdict that says so is announced at once (absence has its
 * own time, a lost slot needs none).  What was announced is not announced
 * again, only repeated while critical; but that a slot is lost is told though
 * its replica was critical before.  It is taken back when the verdict is
 * below it even with limits for lag that are a fifth lower, and forecasts of
 * a quarter further, so that a replica at its threshold doesn't alternate.  A
 * replica that is connecting, catching up or being cloned is given the time:
 * it has recovered when it streams.
 *
 * What is silenced goes through the same levels, without a line, until the silence
 * ends: then there is one if it is not as the log had it before.  A slot that goes
 * away while watched is told, unless somebody dropped it through the kit.  A
 * walsender without a slot may go as it came; one that comes back under its name
 * takes over what was announced of it.
 *
 * IDENTIFICATION
 *	  src/watch/alerts.c
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "utils/memutils.h"

#include "watch/alerts.h"
#include "watch/order.h"
#include "watch/watched.h"

/* How long a slot may take to go after it was forgotten on purpose. */
#define FORGOTTEN_WITHIN	USECS_PER_MINUTE

struct PrkAlerts
{
	MemoryContext context;		/* where the list lives */
	bool		started;		/* not the first step */
	int			nwatched;
	PrkWatched *watched;		/* in the order of prk_board_compare() */
	PrkOrder	order;			/* of the samples */
};

/* The lines of one step, while they are gathered. */
typedef struct Lines
{
	int			nlines;
	PrkLine    *lines;
} Lines;

static int	find_place(const PrkAlerts *alerts, const char *name, int pid);
static PrkWatched *find_exact(PrkAlerts *alerts, const PrkReplica *replica,
							  int *hint);
static PrkWatched *find_successor(PrkAlerts *alerts, const PrkReplica *replica);
static void judge(const PrkSample *sample, const PrkThresholds *thresholds,
				  PrkWatched *watched);
static PrkLevel choose_level(const PrkThresholds *thresholds,
							 const PrkWatched *watched, TimestampTz now);
static void announce(const PrkThresholds *thresholds,
					 const PrkSilence *silence, PrkWatched *watched,
					 TimestampTz now, Lines *lines);
static void tell(const PrkThresholds *thresholds, bool newly_lost,
				 PrkWatched *watched, TimestampTz now, Lines *lines);
static void tell_vanished(const PrkSilences *silences,
						  const PrkWatched *watched, TimestampTz now,
						  Lines *lines);
static void add_line(Lines *lines, PrkLineKind kind, PrkLevel level,
					 int64 lasted, const PrkWatched *watched);

/*
 * A machine that lives in the given context and takes over what the board
 * has: a worker that was restarted doesn't announce again.
 */
PrkAlerts *
prk_alerts_create(MemoryContext context, const PrkBoard *board)
{
	PrkAlerts  *alerts = MemoryContextAllocZero(context, sizeof(PrkAlerts));

	alerts->context = context;
	alerts->nwatched = board->nentries;
	alerts->watched =
		MemoryContextAllocZero(context,
							   Max(board->nentries, 1) * sizeof(PrkWatched));
	for (int i = 0; i < board->nentries; i++)
	{
		alerts->watched[i].entry = board->entries[i];
		alerts->watched[i].said_at = board->cycle_at;
	}
	return alerts;
}

/*
 * Takes in one sample.  Returns the lines that it gives, palloc'd in the
 * current memory context; what they point to is valid until the next step,
 * but no longer than that context.
 */
PrkLine *
prk_alerts_step(PrkAlerts *alerts, const PrkSample *sample,
				const PrkSilences *silences, int *nlines)
{
	TimestampTz now = sample->taken_at;
	int			nreplicas = sample->nreplicas;
	PrkWatched *old = alerts->watched;
	PrkWatched *fresh;
	const PrkPlace *places;
	const PrkDepartures *departures = prk_departures_read();
	Lines		lines = {0};
	int			hint = 0;

	lines.lines = palloc(Max(nreplicas + alerts->nwatched, 1) *
						 sizeof(PrkLine));
	fresh = MemoryContextAllocZero(alerts->context,
								   Max(nreplicas, 1) * sizeof(PrkWatched));
	places = prk_order_by_name(&alerts->order, alerts->context, sample);

	/*
	 * First the replicas that are still the same, then those that came back
	 * under the same name, so that none takes over the state of one that is
	 * still there.
	 */
	for (int i = 0; i < alerts->nwatched; i++)
		old[i].matched = false;
	for (int i = 0; i < nreplicas; i++)
	{
		PrkWatched *before = find_exact(alerts, places[i].replica, &hint);

		if (before == NULL)
			continue;
		before->matched = true;
		fresh[i] = *before;
	}
	for (int i = 0; i < nreplicas; i++)
	{
		const PrkReplica *replica = places[i].replica;
		PrkWatched *before;

		if (fresh[i].matched)
			continue;
		before = find_successor(alerts, replica);
		if (before != NULL)
		{
			before->matched = true;
			fresh[i] = *before;
			fresh[i].entry.pid = replica->pid;
		}
		else
			prk_watched_begin(&fresh[i], sample, replica, alerts->started);
	}

	for (int i = 0; i < nreplicas; i++)
		prk_watched_learn(&fresh[i], sample, places[i].replica, departures,
						  alerts->context);
	for (int i = 0; i < nreplicas; i++)
	{
		PrkThresholds thresholds;

		prk_settings_thresholds(fresh[i].entry.name, &thresholds);
		judge(sample, &thresholds, &fresh[i]);
		announce(&thresholds,
				 prk_silence_of_replica(silences, fresh[i].entry.name),
				 &fresh[i], now, &lines);
	}
	for (int i = 0; i < alerts->nwatched; i++)
	{
		if (!old[i].matched)
		{
			PrkWatched *gone = palloc(sizeof(PrkWatched));

			*gone = old[i];
			tell_vanished(silences, gone, now, &lines);
			if (old[i].track != NULL)
				pfree(old[i].track);
		}
	}

	pfree(old);
	alerts->watched = fresh;
	alerts->nwatched = nreplicas;
	alerts->started = true;
	*nlines = lines.nlines;
	return lines.lines;
}

/*
 * The machine's clock was set by so much: what lasts has lasted for as long
 * as before.
 */
void
prk_alerts_shift(PrkAlerts *alerts, int64 jump)
{
	for (int i = 0; i < alerts->nwatched; i++)
	{
		PrkWatched *watched = &alerts->watched[i];

		prk_board_shift_entry(&watched->entry, jump);
		if (watched->warning_since != 0)
			watched->warning_since += jump;
		if (watched->critical_since != 0)
			watched->critical_since += jump;
		watched->said_at += jump;
	}
}

/* What is to be published, in order, palloc'd in the current context. */
PrkBoardEntry *
prk_alerts_entries(const PrkAlerts *alerts, int *nentries)
{
	PrkBoardEntry *entries;

	entries = palloc(Max(alerts->nwatched, 1) * sizeof(PrkBoardEntry));
	for (int i = 0; i < alerts->nwatched; i++)
		entries[i] = alerts->watched[i].entry;
	*nentries = alerts->nwatched;
	return entries;
}

/* What is to be kept of this step, palloc'd in the current context. */
PrkHistoryRow *
prk_alerts_history(const PrkAlerts *alerts, TimestampTz now, int *nrows)
{
	PrkHistoryRow *rows;

	rows = palloc(Max(alerts->nwatched, 1) * sizeof(PrkHistoryRow));
	for (int i = 0; i < alerts->nwatched; i++)
	{
		const PrkWatched *watched = &alerts->watched[i];

		rows[i].sampled_at = now;
		strlcpy(rows[i].name, watched->entry.name, NAMEDATALEN);
		rows[i].state = watched->verdict.state;
		rows[i].lag_bytes = watched->last.lag_bytes;
		rows[i].lag_time = watched->verdict.lag_time;
		rows[i].retained_bytes = watched->last.retained_bytes;
	}
	*nrows = alerts->nwatched;
	return rows;
}

/*
 * The slot that is furthest back, of several the first by name; none: NULL.
 * What it points to is valid until the next step.
 */
void
prk_alerts_holder(const PrkAlerts *alerts, PrkHolder *holder)
{
	memset(holder, 0, sizeof(PrkHolder));
	for (int i = 0; i < alerts->nwatched; i++)
	{
		const PrkWatched *watched = &alerts->watched[i];
		const PrkReplica *replica = &watched->last;

		if (!watched->sampled || !replica->has_slot ||
			replica->invalidation != NULL ||
			XLogRecPtrIsInvalid(replica->restart_lsn))
			continue;
		if (holder->replica == NULL ||
			replica->restart_lsn < holder->replica->restart_lsn)
		{
			holder->replica = replica;
			holder->forecast = &watched->verdict.forecast;
		}
	}
}

/* The first place in the list that is not before this name and pid. */
static int
find_place(const PrkAlerts *alerts, const char *name, int pid)
{
	int			low = 0;
	int			high = alerts->nwatched;

	while (low < high)
	{
		int			middle = low + (high - low) / 2;
		const PrkBoardEntry *entry = &alerts->watched[middle].entry;

		if (prk_board_compare(entry->name, entry->pid, name, pid) < 0)
			low = middle + 1;
		else
			high = middle;
	}
	return low;
}

/*
 * The same slot, or the same process.  The hint is where it is likely to be:
 * behind the one before.
 */
static PrkWatched *
find_exact(PrkAlerts *alerts, const PrkReplica *replica, int *hint)
{
	int			pid = prk_board_pid(replica);
	const PrkBoardEntry *entry = &alerts->watched[*hint].entry;

	if (*hint >= alerts->nwatched ||
		prk_board_compare(entry->name, entry->pid, replica->name, pid) != 0)
		*hint = find_place(alerts, replica->name, pid);
	entry = &alerts->watched[*hint].entry;
	if (*hint >= alerts->nwatched ||
		prk_board_compare(entry->name, entry->pid, replica->name, pid) != 0)
		return NULL;
	return &alerts->watched[(*hint)++];
}

/* A walsender of this name, without a slot, that is no more. */
static PrkWatched *
find_successor(PrkAlerts *alerts, const PrkReplica *replica)
{
	if (replica->has_slot)
		return NULL;
	for (int i = find_place(alerts, replica->name, 1); i < alerts->nwatched; i++)
	{
		PrkWatched *watched = &alerts->watched[i];

		if (strcmp(watched->entry.name, replica->name) != 0)
			break;
		if (!watched->matched)
			return watched;
	}
	return NULL;
}

/*
 * Judges the sample, and once more with lower limits for lag if the verdict
 * would take back what was announced.
 */
static void
judge(const PrkSample *sample, const PrkThresholds *thresholds,
	  PrkWatched *watched)
{
	PrkLevel	announced = watched->entry.alert;
	PrkVerdict *verdict = &watched->verdict;
	TimestampTz now = sample->taken_at;

	prk_health_judge(sample, &watched->last, thresholds,
					 &watched->entry.known, verdict);
	if (verdict->level < announced)
	{
		PrkThresholds lower = *thresholds;
		PrkVerdict	again;

		prk_health_lower(&lower);
		prk_health_judge(sample, &watched->last, &lower,
						 &watched->entry.known, &again);
		if (again.level > verdict->level)
			*verdict = again;
	}

	if (verdict->level < PRK_WARNING)
		watched->warning_since = 0;
	else if (watched->warning_since == 0)
		watched->warning_since = now;
	if (verdict->level < PRK_CRITICAL)
		watched->critical_since = 0;
	else if (watched->critical_since == 0)
		watched->critical_since = now;
}

/* The level that should stand announced now. */
static PrkLevel
choose_level(const PrkThresholds *thresholds, const PrkWatched *watched,
			 TimestampTz now)
{
	PrkLevel	announced = watched->entry.alert;
	const PrkVerdict *verdict = &watched->verdict;
	TimestampTz long_ago = now - Max(thresholds->alert_after, 0) * 1000;

	if (verdict->level < announced)
	{
		/* Whether it stays is seen soon. */
		if (verdict->fact == PRK_FACT_BACK)
			return announced;

		/* Its slot was given more room: that it is away is what is left. */
		if (watched->announced_code == PRK_CODE_SLOT_AT_RISK &&
			verdict->state == PRK_STATE_DISCONNECTED &&
			verdict->code == PRK_CODE_REPLICA_DOWN)
			return verdict->level;

		/* Not there yet, or away: again, or before it had recovered. */
		if (verdict->state == PRK_STATE_STARTUP ||
			verdict->state == PRK_STATE_CATCHUP ||
			verdict->state == PRK_STATE_STOPPING ||
			verdict->state == PRK_STATE_BACKUP ||
			(verdict->state == PRK_STATE_DISCONNECTED &&
			 (watched->announced_code != PRK_CODE_REPLICA_DOWN ||
			  watched->entry.known.gone_since > watched->entry.trouble_since)))
			return announced;
		return verdict->level;
	}
	if (verdict->at_once)
		return verdict->level;
	if (verdict->level == PRK_CRITICAL && watched->critical_since <= long_ago)
		return PRK_CRITICAL;
	if (verdict->level >= PRK_WARNING && watched->warning_since <= long_ago)
		return Max(announced, PRK_WARNING);
	return announced;
}

/* Brings what is announced in line with the verdict. */
static void
announce(const PrkThresholds *thresholds, const PrkSilence *silence,
		 PrkWatched *watched, TimestampTz now, Lines *lines)
{
	PrkBoardEntry *entry = &watched->entry;
	const PrkVerdict *verdict = &watched->verdict;
	PrkLevel	level = thresholds->off ? PRK_OK :
	choose_level(thresholds, watched, now);

	/* What was feared has come, and cannot be mended any more. */
	bool		newly_lost = verdict->code == PRK_CODE_SLOT_LOST &&
	watched->announced_code != PRK_CODE_NONE &&
	watched->announced_code != PRK_CODE_SLOT_LOST;

	if (level != entry->alert)
	{
		if (level == PRK_OK)
		{
			watched->lasted = now - entry->trouble_since;
			entry->trouble_since = 0;
		}
		else if (entry->alert == PRK_OK)
			entry->trouble_since = entry->known.gone_since != 0 ?
				entry->known.gone_since : watched->warning_since;
		entry->alert_since = level == PRK_OK ? 0 : now;
	}
	if (level != entry->alert || newly_lost)
	{
		entry->alert = level;
		strlcpy(entry->reason, level == PRK_OK ? "" : verdict->reason,
				PRK_REASON_LEN);
		watched->announced_code = level == PRK_OK ? PRK_CODE_NONE :
			verdict->code;
	}
	if (thresholds->off)
		entry->told = PRK_OK;
	else if (!prk_silence_mutes(silence, verdict->code, level))
		tell(thresholds, newly_lost, watched, now, lines);
}

/* Brings the log in line with what is announced, or reminds of it. */
static void
tell(const PrkThresholds *thresholds, bool newly_lost, PrkWatched *watched,
	 TimestampTz now, Lines *lines)
{
	PrkBoardEntry *entry = &watched->entry;
	PrkLevel	level = entry->alert;

	if (level != entry->told || newly_lost)
		add_line(lines, level == PRK_OK ? PRK_LINE_RECOVERY : PRK_LINE_CHANGE,
				 level, level == PRK_OK ? watched->lasted : 0, watched);
	else if (level == PRK_CRITICAL && watched->verdict.level == PRK_CRITICAL &&
			 watched->verdict.fact != PRK_FACT_BACK &&
			 thresholds->repeat_interval >= 0 &&
			 now - watched->said_at >= thresholds->repeat_interval * 1000)
		add_line(lines, PRK_LINE_REMINDER, level, now - entry->alert_since,
				 watched);
	else
		return;
	entry->told = level;
	watched->said_at = now;
}

/*
 * A replica that is no longer in the sample.  Its alert ends with it, so a
 * walsender without a slot is told only if there was one.  WAL that a dropped
 * slot retained cannot be had back, so no silence mutes the drop.
 */
static void
tell_vanished(const PrkSilences *silences, const PrkWatched *watched,
			  TimestampTz now, Lines *lines)
{
	const PrkBoardEntry *entry = &watched->entry;
	PrkThresholds thresholds;

	prk_settings_thresholds(entry->name, &thresholds);
	if (!watched->sampled || thresholds.off ||
		watched->last.temporary || watched->last.synced ||
		prk_sample_is_tablesync(&watched->last))
		return;
	if (entry->pid != 0 &&
		(entry->alert == PRK_OK ||
		 prk_silence_of_replica(silences, entry->name) != NULL))
		return;
	if (entry->pid == 0 &&
		prk_board_forgotten(entry->name, now - FORGOTTEN_WITHIN))
		return;
	add_line(lines, PRK_LINE_VANISHED, PRK_WARNING, 0, watched);
}

/* Adds a line about a watched replica. */
static void
add_line(Lines *lines, PrkLineKind kind, PrkLevel level, int64 lasted,
		 const PrkWatched *watched)
{
	PrkLine    *line = &lines->lines[lines->nlines++];

	line->kind = kind;
	line->level = level;
	line->name = watched->entry.name;
	line->code = watched->verdict.code;

	/* of a silence that has ended in the midst of a recovery */
	line->reason = watched->verdict.level < level &&
		watched->entry.reason[0] != '\0' ?
		watched->entry.reason : watched->verdict.reason;
	line->outlook = watched->verdict.outlook;
	line->lasted = lasted;
	line->replica = &watched->last;
	line->known = &watched->entry.known;
}
