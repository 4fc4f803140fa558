/*-------------------------------------------------------------------------
 *
 * voice_check.c
 *	  Do all mouths say the same of one sample, and the log what they said?
 *
 * Part of a library that is built for the tests only (make CHECKED=yes).  The
 * linker puts these functions between the kit's own (--wrap), so that nothing
 * of it is in the library that is installed.  Each process appends to the file
 * that PRK_CHECKS names how many checks it has made, "I1 250", and what was
 * wrong, "FAIL I1 ...".  scripts/test sums that up.
 *
 *	I1	of one sample, in whatever session asks: what diagnose() calls critical
 *		is in unhealthy(); what unhealthy() has beyond is announced and not yet
 *		taken back; health is not below the level that counts; it is at least
 *		warning when the lag in time is past its limit; nothing is forecast
 *		where nothing moved; a row is of one moment.  What no sample holds, as
 *		failed connections, is compared until it stands still.
 *	I2	in the worker, at each sample: what is announced is the fold of the
 *		verdicts so far, and the lines are its transitions.
 *	I3	in the worker: what was wrong in each sample for alert_after and a check
 *		interval has its line; what was not for so long, none or its "ok".
 *
 * IDENTIFICATION
 *	  test/voice_check.c
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include <fcntl.h>
#include <unistd.h>

#include "miscadmin.h"
#include "nodes/pg_list.h"
#include "storage/ipc.h"
#include "utils/memutils.h"

#include "clock/clock_shared.h"
#include "diagnose/diagnose.h"
#include "diagnose/words.h"
#include "settings.h"
#include "watch/alerts.h"
#include "watch/server_alert.h"
#include "watch/troubles.h"

/* How often a contradiction is looked at again, and after how many us. */
#define RETRIES		5
#define RETRY_DELAY	20000

/* What the linker calls the functions that these stand before. */
extern PrkReport *__real_prk_report_take(void);
extern PrkReport *__wrap_prk_report_take(void);
extern PrkEvidence *__real_prk_evidence_gather(void);
extern PrkEvidence *__wrap_prk_evidence_gather(void);
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

/* How many checks a process keeps to itself. */
#define FLUSH_AFTER		200

/* What was wrong is wrong again and again. */
#define MAX_FAILURES	20

/* A replica that stands still for so long, in microseconds, is not moving. */
#define STANDS_STILL	USECS_PER_MINUTE

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

static int	counts[4];
static int	nfailures;
static bool exit_prepared;

static bool begun;				/* not the first step of the worker's watch */
static int	nfolds;
static Fold *folds;
static Fold server_folds[PRK_NTROUBLES + 1];	/* the last: the upstream */
static int	lines_due;

static void write_out(const char *words);
static void flush_counts(int code, Datum arg);
static void made(int invariant);
static void fail(int invariant, const char *fmt,...) pg_attribute_printf(2, 3);

/* ----------------------------------------------------------------------
 * The file
 * ----------------------------------------------------------------------
 */

static void
write_out(const char *words)
{
	const char *path = getenv("PRK_CHECKS");
	int			fd;

	if (path == NULL || path[0] == '\0')
		return;
	fd = open(path, O_WRONLY | O_APPEND | O_CREAT, 0666);
	if (fd < 0)
		return;
	if (write(fd, words, strlen(words)) < 0)
		elog(LOG, "voice_check: could not write: %m");
	close(fd);
}

static void
flush_counts(int code, Datum arg)
{
	char		words[64];

	for (int i = 1; i <= 3; i++)
	{
		if (counts[i] == 0)
			continue;
		snprintf(words, sizeof(words), "I%d %d\n", i, counts[i]);
		write_out(words);
		counts[i] = 0;
	}
}

/* One check was made. */
static void
made(int invariant)
{
	if (!exit_prepared)
	{
		before_shmem_exit(flush_counts, (Datum) 0);
		exit_prepared = true;
	}
	if (++counts[invariant] >= FLUSH_AFTER)
		flush_counts(0, (Datum) 0);
}

/* And this was wrong. */
static void
fail(int invariant, const char *fmt,...)
{
	char		words[1024];
	int			len = snprintf(words, sizeof(words), "FAIL I%d ", invariant);
	va_list		args;

	if (nfailures++ >= MAX_FAILURES)
		return;
	va_start(args, fmt);
	len += vsnprintf(words + len, sizeof(words) - len, fmt, args);
	va_end(args);
	len = Min(len, (int) sizeof(words) - 2);
	ereport(LOG, (errmsg("voice_check: %s", words), errhidestmt(true)));
	strlcpy(words + len, "\n", 2);
	write_out(words);
}

/* ----------------------------------------------------------------------
 * I1: one sample, all mouths
 * ----------------------------------------------------------------------
 */

/* Is it judged by how late it is? */
static bool
is_judged_by_lag(const PrkReportRow *row)
{
	return !row->verdict.off && !row->replica->logical &&
		!row->replica->temporary && !row->replica->synced &&
		(row->verdict.state == PRK_STATE_STREAMING ||
		 row->verdict.state == PRK_STATE_CATCHUP ||
		 row->verdict.state == PRK_STATE_DISCONNECTED);
}

static void
check_row(const PrkReport *report, const PrkReportRow *row)
{
	const PrkSample *sample = report->sample;
	const PrkReplica *replica = row->replica;
	const PrkVerdict *verdict = &row->verdict;
	const PrkBoardEntry *entry = report->watched ?
	prk_board_find(report->board, replica) : NULL;
	PrkThresholds thresholds;

	prk_settings_thresholds(replica->name, &thresholds);
	made(1);
	if (verdict->level < row->effective)
		fail(1, "%s: health %s is below %s, which counts", replica->name,
			 prk_level_name(verdict->level), prk_level_name(row->effective));
	if (is_judged_by_lag(row) && thresholds.warning_lag_time >= 0 &&
		verdict->lag_time >= thresholds.warning_lag_time * 1000 &&
		verdict->level < PRK_WARNING)
		fail(1, "%s: %s, though its lag is " INT64_FORMAT " us", replica->name,
			 prk_level_name(verdict->level), verdict->lag_time);

	/* a forecast of what does not move */
	if (entry != NULL && replica->has_walsender &&
		entry->known.stuck_since != 0 &&
		entry->known.stuck_at == prk_health_position(replica) &&
		sample->taken_at - entry->known.stuck_since > STANDS_STILL &&
		replica->lag_bytes > 0 && verdict->forecast.catch_up_in >= 0)
		fail(1, "%s: stands still, and will catch up", replica->name);
	if (replica->pid == 0 && sample->has_wal_rate &&
		sample->wal_rate_short <= 0 && sample->wal_rate_long <= 0 &&
		verdict->forecast.lost_in >= 0 &&
		verdict->forecast.lost_in != verdict->forecast.idle_left)
		fail(1, "%s: no WAL is written, and its slot will be lost",
			 replica->name);

	/* figures of one moment */
	if (replica->has_walsender && !replica->logical &&
		replica->lag_bytes >= 0 && replica->unsent_bytes >= 0 &&
		replica->unwritten_bytes >= 0 && replica->unflushed_bytes >= 0 &&
		replica->unreplayed_bytes >= 0 &&
		replica->unsent_bytes + replica->unwritten_bytes +
		replica->unflushed_bytes + replica->unreplayed_bytes !=
		replica->lag_bytes)
		fail(1, "%s: its stages are not its lag", replica->name);
	if (replica->retained_bytes >= 0 &&
		replica->retained_bytes !=
		Max((int64) (sample->current_lsn - replica->restart_lsn), 0))
		fail(1, "%s: what it retains is of another moment", replica->name);
}

PrkReport *
__wrap_prk_report_take(void)
{
	PrkReport  *report = __real_prk_report_take();

	for (int i = 0; i < report->nrows; i++)
		check_row(report, &report->rows[i]);
	for (int i = 0; i < PRK_NTROUBLES; i++)
	{
		made(1);
		if (report->troubles[i].verdict.level < report->troubles[i].effective)
			fail(1, "server: less than what counts");
	}
	return report;
}

/* Has the worker announced it, and not taken it back? */
static bool
is_announced(const PrkReport *report, const PrkTrouble *trouble)
{
	if (strcmp(trouble->label, PRK_UPSTREAM_NAME) == 0)
		return report->upstream->alert >= trouble->level;
	if (trouble->label == trouble->name)
	{
		for (int i = 0; i < PRK_NTROUBLES; i++)
		{
			if (report->troubles[i].alert >= trouble->level)
				return true;
		}
		return false;
	}
	for (int i = 0; i < report->nrows; i++)
	{
		const PrkReportRow *row = &report->rows[i];

		if (strcmp(prk_settings_shown_name(row->replica->name),
				   trouble->name) == 0 &&
			row->has_alert && row->alert >= trouble->level)
			return true;
	}
	return false;
}

/* What diagnose() and unhealthy() say otherwise, each in a sentence. */
static List *
contradictions(const PrkEvidence *evidence)
{
	List	   *result = NIL;
	PrkReport  *report = evidence->report;
	List	   *diagnoses = prk_diagnose(evidence);
	List	   *troubles = prk_troubles_list(report, PRK_WARNING);
	ListCell   *cell;
	ListCell   *other;

	foreach(cell, diagnoses)
	{
		const PrkDiagnosis *diagnosis = lfirst(cell);
		const char *name = prk_words_name(diagnosis);
		bool		found = false;

		made(1);
		if (diagnosis->row != NULL && diagnosis->row->effective >= PRK_WARNING &&
			diagnosis->row->verdict.level < diagnosis->row->effective)
			result = lappend(result, psprintf("%s of %s: health is below",
											  prk_code_name(diagnosis->code),
											  name));
		if (diagnosis->gravity != PRK_GRAVITY_CRITICAL ||
			prk_silence_mutes(prk_silence_find(&report->silences, name),
							  diagnosis->code, PRK_CRITICAL))
			continue;
		foreach(other, troubles)
		{
			const PrkTrouble *trouble = lfirst(other);

			if (trouble->level == PRK_CRITICAL &&
				strcmp(trouble->name, name) == 0)
				found = true;
		}
		if (!found)
			result = lappend(result, psprintf("%s of %s is critical in diagnose(), not in unhealthy()",
											  prk_code_name(diagnosis->code),
											  name));
	}
	foreach(cell, troubles)
	{
		const PrkTrouble *trouble = lfirst(cell);
		const char *name = trouble->name;
		bool		found = is_announced(report, trouble);

		made(1);
		foreach(other, diagnoses)
		{
			const PrkDiagnosis *diagnosis = lfirst(other);

			if (strcmp(prk_words_name(diagnosis), name) == 0 &&
				diagnosis->gravity >= prk_gravity_of(trouble->level))
				found = true;
		}
		if (!found)
			result = lappend(result, psprintf("unhealthy() has %s as %s, which diagnose() does not say",
											  name,
											  prk_level_name(trouble->level)));
	}
	return result;
}

/*
 * The table of failed connections, pg_hba.conf and the slots' files are no part
 * of a sample, and are read once for each mouth: what changes in between is no
 * contradiction.  So one counts if it is there each time, with new readings.
 */
static void
check_evidence(const PrkEvidence *evidence)
{
	List	   *found = contradictions(evidence);
	ListCell   *cell;

	for (int i = 0; i < RETRIES && found != NIL; i++)
	{
		List	   *again;
		List	   *both = NIL;

		pg_usleep(RETRY_DELAY);
		again = contradictions(__real_prk_evidence_gather());
		foreach(cell, found)
		{
			ListCell   *other;

			foreach(other, again)
			{
				if (strcmp(lfirst(cell), lfirst(other)) == 0)
				{
					both = lappend(both, lfirst(cell));
					break;
				}
			}
		}
		found = both;
	}
	foreach(cell, found)
		fail(1, "%s", (char *) lfirst(cell));
}


PrkEvidence *
__wrap_prk_evidence_gather(void)
{
	PrkEvidence *evidence = __real_prk_evidence_gather();

	check_evidence(evidence);
	return evidence;
}

/* ----------------------------------------------------------------------
 * I2 and I3: one sample after the other
 * ----------------------------------------------------------------------
 */

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

	made(3);
	for (PrkLevel level = PRK_WARNING; level <= PRK_CRITICAL; level++)
	{
		if (fold->raw_since[level] != 0 && fold->raw_since[level] <= long_ago &&
			told < level)
			fail(3, "%s is %s for long, and has no line", name,
				 prk_level_name(level));
	}
	if (fold->raw_since[PRK_OK] != 0 && fold->raw_since[PRK_OK] <= long_ago &&
		told != PRK_OK)
		fail(3, "%s is ok for long, and has no line", name);
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
		(verdict->state == PRK_STATE_STARTUP ||
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
		made(2);
		if (entry->alert != expected &&
			!(held && verdict->state == PRK_STATE_DISCONNECTED &&
			  entry->alert == verdict->level))
			fail(2, "%s: %s is announced after %s, by its verdicts it is %s (%s)",
				 entry->name, prk_level_name(entry->alert),
				 prk_level_name(fold->alert), prk_level_name(expected),
				 verdict->reason);
		nchanges = count_lines(lines, nlines, entry->name, &line_level, &lost,
							   &reminder);
		if (entry->told != fold->told && !thresholds.off &&
			(nchanges != 1 || line_level != entry->told))
			fail(2, "%s: from %s to %s in %d lines", entry->name,
				 prk_level_name(fold->told), prk_level_name(entry->told),
				 nchanges);
		if (entry->told == fold->told && nchanges > (lost ? 1 : 0))
			fail(2, "%s: a line, and nothing has changed", entry->name);
		if (reminder && entry->told != PRK_CRITICAL)
			fail(2, "%s: a reminder of what is not critical", entry->name);
		if (!muted && entry->told != entry->alert)
			fail(2, "%s: %s is announced, and %s in the log", entry->name,
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
		fail(2, "%d lines of the last sample are not in the log", lines_due);
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
			fail(2, "%s is on the board, and not in the sample", entry->name);
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
		made(2);
		if (board->alert != expected)
			fail(2, "%s: %s is announced, by its verdicts it is %s (%s)", name,
				 prk_level_name(board->alert), prk_level_name(expected),
				 verdict->reason);
		if (!thresholds->off &&
			nchanges != (board->told != fold->told ? 1 : 0))
			fail(2, "%s: from %s to %s in %d lines", name,
				 prk_level_name(fold->told), prk_level_name(board->told),
				 nchanges);
		if (!muted && board->told != board->alert)
			fail(2, "%s: %s is announced, and %s in the log", name,
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
