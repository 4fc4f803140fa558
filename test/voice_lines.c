/*-------------------------------------------------------------------------
 *
 * voice_lines.c
 *	  Does the worker's log say what its samples say?
 *
 * Part of a library that is built for the tests only: see voice_check.c.
 *
 *	I2	in the worker, at each sample: what is announced is the fold of the
 *		verdicts so far, and the lines are its transitions.
 *	I3	in the worker: what was wrong in each sample for alert_after and a check
 *		interval has its line; what was not for so long, none or its "ok".
 *
 * IDENTIFICATION
 *	  test/voice_lines.c
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "utils/memutils.h"

#include "settings.h"
#include "watch/alerts.h"
#include "watch/server_alert.h"

#include "voice_check.h"

/* What the linker calls the functions that these stand before. */
extern PrkAlerts *__real_prk_alerts_create(MemoryContext context,
										   const PrkBoard *board);
extern PrkAlerts *__wrap_prk_alerts_create(MemoryContext context,
										   const PrkBoard *board);
extern PrkLine *__real_prk_alerts_step(PrkAlerts *alerts,
									   const PrkSample *sample,
									   const PrkSilences *silences,
									   int *nlines);
extern PrkLine *__wrap_prk_alerts_step(PrkAlerts *alerts,
									   const PrkSample *sample,
									   const PrkSilences *silences,
									   int *nlines);
extern void __real_prk_alerts_shift(PrkAlerts *alerts, int64 jump);
extern void __wrap_prk_alerts_shift(PrkAlerts *alerts, int64 jump);
extern void __real_prk_announce_line(const PrkLine *line);
extern void __wrap_prk_announce_line(const PrkLine *line);
extern int	__real_prk_server_alert_step(PrkServerAlert *alert,
										 const PrkServerFacts *facts,
										 TimestampTz now,
										 const PrkSilences *silences,
										 PrkServerLine lines[PRK_NTROUBLES]);
extern int	__wrap_prk_server_alert_step(PrkServerAlert *alert,
										 const PrkServerFacts *facts,
										 TimestampTz now,
										 const PrkSilences *silences,
										 PrkServerLine lines[PRK_NTROUBLES]);

extern bool __real_prk_trouble_step(PrkBoardAlert *board,
									PrkServerTrack *track,
									const PrkServerVerdict *verdict,
									const PrkThresholds *thresholds,
									const PrkSilence *silence,
									TimestampTz now, PrkTroubleLine *line);
extern bool __wrap_prk_trouble_step(PrkBoardAlert *board,
									PrkServerTrack *track,
									const PrkServerVerdict *verdict,
									const PrkThresholds *thresholds,
									const PrkSilence *silence,
									TimestampTz now, PrkTroubleLine *line);

/* What is announced of one replica, or one trouble of the server, so far. */
typedef struct Fold
{
	char		name[NAMEDATALEN];
	int			pid;
	bool		known;			/* followed from when it was ok */
	PrkLevel	alert;
	PrkLevel	told;
	TimestampTz since[PRK_CRITICAL + 1];	/* the verdict is at the level
											 * since then; 0: it is not */
	TimestampTz raw_since[PRK_CRITICAL + 1];	/* for PRK_OK: it is not */
} Fold;

static bool begun;				/* not the first step of the worker's watch */
static int	nfolds;
static Fold *folds;
static Fold server_folds[PRK_NTROUBLES + 1];	/* the last: the upstream */
static int	lines_due;

PrkAlerts *
__wrap_prk_alerts_create(MemoryContext context, const PrkBoard *board)
{
	begun = false;
	nfolds = 0;
	lines_due = 0;
	memset(server_folds, 0, sizeof(server_folds));
	return __real_prk_alerts_create(context, board);
}

/* The machine's clock was set: what lasts has lasted for as long as before. */
void
__wrap_prk_alerts_shift(PrkAlerts *alerts, int64 jump)
{
	for (int i = 0; i <= nfolds + PRK_NTROUBLES; i++)
	{
		Fold	   *fold = i < nfolds ? &folds[i] : &server_folds[i - nfolds];

		for (int level = 0; level <= PRK_CRITICAL; level++)
		{
			if (fold->since[level] != 0)
				fold->since[level] += jump;
			if (fold->raw_since[level] != 0)
				fold->raw_since[level] += jump;
		}
	}
	__real_prk_alerts_shift(alerts, jump);
}

static void
note_since(TimestampTz *since, bool holds, TimestampTz now)
{
	if (!holds)
		*since = 0;
	else if (*since == 0)
		*since = now;
}

static const Fold *
find_fold(const Fold *list, int n, const char *name, int pid)
{
	for (int i = 0; i < n; i++)
	{
		if (list[i].pid == pid && strcmp(list[i].name, name) == 0)
			return &list[i];
	}
	return NULL;
}

/* A level that is now at this one, or above, for how long as the fold has it. */
static void
note_levels(Fold *fold, PrkLevel level, PrkLevel raw, bool well,
			TimestampTz now)
{
	note_since(&fold->since[PRK_WARNING], level >= PRK_WARNING, now);
	note_since(&fold->since[PRK_CRITICAL], level >= PRK_CRITICAL, now);
	note_since(&fold->raw_since[PRK_OK], well, now);
	note_since(&fold->raw_since[PRK_WARNING], raw >= PRK_WARNING, now);
	note_since(&fold->raw_since[PRK_CRITICAL], raw >= PRK_CRITICAL, now);
}

/* What is to be announced of a level that is not below what is. */
static PrkLevel
expected_level(const Fold *fold, PrkLevel level, bool at_once,
			   const PrkThresholds *thresholds, TimestampTz now)
{
	TimestampTz long_ago = now - Max(thresholds->alert_after, 0) * 1000;

	if (at_once || level == fold->alert)
		return level;
	if (level == PRK_CRITICAL && fold->since[PRK_CRITICAL] <= long_ago)
		return PRK_CRITICAL;
	if (level >= PRK_WARNING && fold->since[PRK_WARNING] <= long_ago)
		return Max(fold->alert, PRK_WARNING);
	return fold->alert;
}

/* I3 */
static void
check_bounds(const Fold *fold, const char *name, PrkLevel told,
			 const PrkThresholds *thresholds, TimestampTz now)
{
	TimestampTz long_ago = now - Max(thresholds->alert_after, 0) * 1000 -
	(int64) prk_check_interval * 1000;

	voice_made(3);
	for (PrkLevel level = PRK_WARNING; level <= PRK_CRITICAL; level++)
	{
		if (fold->raw_since[level] != 0 && fold->raw_since[level] <= long_ago &&
			told < level)
			voice_fail(3, "%s is %s for long, and has no line", name,
				 prk_level_name(level));
	}
	if (fold->raw_since[PRK_OK] != 0 && fold->raw_since[PRK_OK] <= long_ago &&
		told != PRK_OK)
		voice_fail(3, "%s is ok for long, and has no line", name);
}

/* The lines of a replica; how many there are that say a level. */
static int
count_lines(const PrkLine *lines, int nlines, const char *name,
			PrkLevel *level, bool *lost, bool *reminder)
{
	int			result = 0;

	*lost = *reminder = false;
	for (int i = 0; i < nlines; i++)
	{
		if (strcmp(lines[i].name, name) != 0)
			continue;
		switch (lines[i].kind)
		{
			case PRK_LINE_CHANGE:
			case PRK_LINE_RECOVERY:
				result++;
				*level = lines[i].level;
				*lost = lines[i].code == PRK_CODE_SLOT_LOST;
				break;
			case PRK_LINE_REMINDER:
				*reminder = true;
				break;
			case PRK_LINE_VANISHED:
				break;
		}
	}
	return result;
}

static void
check_entry(Fold *fold, const PrkBoardEntry *entry, const PrkSample *sample,
			const PrkReplica *replica, const PrkSilences *silences,
			const PrkLine *lines, int nlines)
{
	TimestampTz now = sample->taken_at;
	PrkThresholds thresholds;
	PrkThresholds strict_limits;
	PrkVerdict	raw;
	PrkVerdict	strict;
	const PrkVerdict *verdict = &raw;
	PrkLevel	expected;
	PrkLevel	line_level = PRK_OK;
	bool		held;
	bool		muted;
	bool		lost;
	bool		reminder;
	int			nchanges;

	prk_settings_thresholds(entry->name, &thresholds);
	strict_limits = thresholds;
	prk_health_lower(&strict_limits);
	prk_health_judge(sample, replica, &thresholds, &entry->known, &raw);
	prk_health_judge(sample, replica, &strict_limits, &entry->known, &strict);
	if (raw.level < fold->alert && strict.level > raw.level)
		verdict = &strict;
	note_levels(fold, verdict->level, raw.level,
				raw.level == PRK_OK && strict.level == PRK_OK &&
				raw.state == PRK_STATE_STREAMING, now);

	/* not there yet, or away before it had recovered */
	held = verdict->level < fold->alert &&
		(verdict->fact == PRK_FACT_BACK ||
		 verdict->state == PRK_STATE_STARTUP ||
		 verdict->state == PRK_STATE_CATCHUP ||
		 verdict->state == PRK_STATE_STOPPING ||
		 verdict->state == PRK_STATE_BACKUP ||
		 verdict->state == PRK_STATE_DISCONNECTED);
	if (thresholds.off)
		expected = PRK_OK;
	else if (verdict->level < fold->alert)
		expected = held ? fold->alert : verdict->level;
	else
		expected = expected_level(fold, verdict->level, verdict->at_once,
								  &thresholds, now);
	muted = thresholds.off ||
		prk_silence_mutes(prk_silence_of_replica(silences, entry->name),
						  verdict->code, entry->alert);

	if (fold->known)
	{
		voice_made(2);
		if (entry->alert != expected &&
			!(held && verdict->state == PRK_STATE_DISCONNECTED &&
			  entry->alert == verdict->level))
			voice_fail(2, "%s: %s is announced after %s, by its verdicts it is %s (%s)",
				 entry->name, prk_level_name(entry->alert),
				 prk_level_name(fold->alert), prk_level_name(expected),
				 verdict->reason);
		nchanges = count_lines(lines, nlines, entry->name, &line_level, &lost,
							   &reminder);
		if (entry->told != fold->told && !thresholds.off &&
			(nchanges != 1 || line_level != entry->told))
			voice_fail(2, "%s: from %s to %s in %d lines", entry->name,
				 prk_level_name(fold->told), prk_level_name(entry->told),
				 nchanges);
		if (entry->told == fold->told && nchanges > (lost ? 1 : 0))
			voice_fail(2, "%s: a line, and nothing has changed", entry->name);
		if (reminder && entry->told != PRK_CRITICAL)
			voice_fail(2, "%s: a reminder of what is not critical", entry->name);
		if (!muted && entry->told != entry->alert)
			voice_fail(2, "%s: %s is announced, and %s in the log", entry->name,
				 prk_level_name(entry->alert), prk_level_name(entry->told));
		if (!muted)
			check_bounds(fold, entry->name, entry->told, &thresholds, now);
	}
	else if (verdict->level == PRK_OK && entry->alert == PRK_OK &&
			 entry->told == PRK_OK)
		fold->known = true;
	fold->alert = entry->alert;
	fold->told = entry->told;
}

PrkLine *
__wrap_prk_alerts_step(PrkAlerts *alerts, const PrkSample *sample,
					   const PrkSilences *silences, int *nlines)
{
	PrkLine    *lines = __real_prk_alerts_step(alerts, sample, silences,
											   nlines);
	int			nentries;
	PrkBoardEntry *entries = prk_alerts_entries(alerts, &nentries);
	Fold	   *fresh = palloc0(Max(nentries, 1) * sizeof(Fold));

	if (lines_due != 0)
		voice_fail(2, "%d lines of the last sample are not in the log", lines_due);
	lines_due = *nlines;

	for (int i = 0; i < nentries; i++)
	{
		const PrkBoardEntry *entry = &entries[i];
		const Fold *before = find_fold(folds, nfolds, entry->name, entry->pid);
		const PrkReplica *replica = NULL;

		if (before != NULL)
			fresh[i] = *before;
		strlcpy(fresh[i].name, entry->name, NAMEDATALEN);
		fresh[i].pid = entry->pid;

		/* what a walsender without a slot takes over is not followed */
		if (before == NULL)
			fresh[i].known = begun && entry->pid == 0;
		for (int j = 0; j < sample->nreplicas; j++)
		{
			if (strcmp(sample->replicas[j].name, entry->name) == 0 &&
				prk_board_pid(&sample->replicas[j]) == entry->pid)
				replica = &sample->replicas[j];
		}
		if (replica == NULL)
			voice_fail(2, "%s is on the board, and not in the sample", entry->name);
		else if (entry->pid == 0)
			check_entry(&fresh[i], entry, sample, replica, silences, lines,
						*nlines);
	}

	if (folds == NULL)
		folds = MemoryContextAlloc(TopMemoryContext,
								   Max(nentries, 1) * sizeof(Fold));
	else
		folds = repalloc(folds, Max(nentries, 1) * sizeof(Fold));
	memcpy(folds, fresh, nentries * sizeof(Fold));
	nfolds = nentries;
	begun = true;
	return lines;
}

void
__wrap_prk_announce_line(const PrkLine *line)
{
	__real_prk_announce_line(line);
	lines_due--;
}

/* One trouble of the server, or its upstream; nchanges: lines that say a level. */
static void
check_trouble(Fold *fold, const char *name, const PrkBoardAlert *board,
			  const PrkServerVerdict *verdict, const PrkThresholds *thresholds,
			  const PrkSilence *silence, TimestampTz now, int nchanges)
{
	PrkLevel	level = verdict->level;
	PrkLevel	expected;
	bool		muted;

	if (level < fold->alert)
		level = Min(verdict->lenient, fold->alert);
	note_levels(fold, level, verdict->level,
				verdict->level == PRK_OK && verdict->lenient == PRK_OK, now);
	expected = level < fold->alert ? level :
		expected_level(fold, level, verdict->at_once, thresholds, now);
	muted = thresholds->off ||
		prk_silence_mutes(silence, verdict->code, board->alert);
	if (fold->known)
	{
		voice_made(2);
		if (board->alert != expected)
			voice_fail(2, "%s: %s is announced, by its verdicts it is %s (%s)", name,
				 prk_level_name(board->alert), prk_level_name(expected),
				 verdict->reason);
		if (!thresholds->off &&
			nchanges != (board->told != fold->told ? 1 : 0))
			voice_fail(2, "%s: from %s to %s in %d lines", name,
				 prk_level_name(fold->told), prk_level_name(board->told),
				 nchanges);
		if (!muted && board->told != board->alert)
			voice_fail(2, "%s: %s is announced, and %s in the log", name,
				 prk_level_name(board->alert), prk_level_name(board->told));
		if (!muted)
			check_bounds(fold, name, board->told, thresholds, now);
	}
	else if (level == PRK_OK && board->alert == PRK_OK &&
			 board->told == PRK_OK)
		fold->known = true;
	fold->alert = board->alert;
	fold->told = board->told;
}

int
__wrap_prk_server_alert_step(PrkServerAlert *alert, const PrkServerFacts *facts,
							 TimestampTz now, const PrkSilences *silences,
							 PrkServerLine lines[PRK_NTROUBLES])
{
	int			nlines = __real_prk_server_alert_step(alert, facts, now,
													  silences, lines);
	PrkThresholds thresholds;

	prk_settings_own_thresholds(PRK_SERVER_NAME, &thresholds);
	for (int i = 0; i < PRK_NTROUBLES; i++)
	{
		PrkServerVerdict verdict;
		int			nchanges = 0;

		for (int j = 0; j < nlines; j++)
		{
			if (lines[j].trouble == (PrkServerTrouble) i &&
				lines[j].said.kind != PRK_LINE_REMINDER)
				nchanges++;
		}
		prk_server_judge(facts, i, &thresholds, &verdict);
		check_trouble(&server_folds[i], "server", &alert->server.alerts[i],
					  &verdict, &thresholds,
					  prk_silence_find(silences, PRK_SERVER_NAME), now,
					  nchanges);
	}
	return nlines;
}

/* Called from another file for the upstream only. */
bool
__wrap_prk_trouble_step(PrkBoardAlert *board, PrkServerTrack *track,
						const PrkServerVerdict *verdict,
						const PrkThresholds *thresholds,
						const PrkSilence *silence, TimestampTz now,
						PrkTroubleLine *line)
{
	bool		result = __real_prk_trouble_step(board, track, verdict,
												 thresholds, silence, now,
												 line);

	check_trouble(&server_folds[PRK_NTROUBLES], "upstream", board, verdict,
				  thresholds, silence, now,
				  result && line->kind != PRK_LINE_REMINDER ? 1 : 0);
	return result;
}
