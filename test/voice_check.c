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
 *
 * I2 and I3, which are about the worker's lines, are in voice_lines.c.
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

#include "clock/clock_shared.h"
#include "diagnose/diagnose.h"
#include "diagnose/words.h"
#include "settings.h"
#include "watch/troubles.h"

#include "voice_check.h"

/* How often a contradiction is looked at again, and after how many us. */
#define RETRIES		5
#define RETRY_DELAY	20000

/* What the linker calls the functions that these stand before. */
extern PrkReport *__real_prk_report_take(void);
extern PrkReport *__wrap_prk_report_take(void);
extern PrkEvidence *__real_prk_evidence_gather(void);
extern PrkEvidence *__wrap_prk_evidence_gather(void);

/* How many checks a process keeps to itself. */
#define FLUSH_AFTER		200

/* What was wrong is wrong again and again. */
#define MAX_FAILURES	20

/* A replica that stands still for so long, in microseconds, is not moving. */
#define STANDS_STILL	USECS_PER_MINUTE

static int	counts[4];
static int	nfailures;
static bool exit_prepared;

static void write_out(const char *words);
static void flush_counts(int code, Datum arg);

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

/* One check was made of that invariant. */
void
voice_made(int invariant)
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
void
voice_fail(int invariant, const char *fmt,...)
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

/*
 * Is it judged by how late it is?  Not a slot that was never used, which is
 * "disconnected" while no worker looks.
 */
static bool
is_judged_by_lag(const PrkReportRow *row)
{
	return !row->verdict.off && !row->replica->logical &&
		!row->replica->temporary && !row->replica->synced &&
		row->verdict.fact != PRK_FACT_NEVER_CONNECTED &&
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
	voice_made(1);
	if (verdict->level < row->effective)
		voice_fail(1, "%s: health %s is below %s, which counts", replica->name,
			 prk_level_name(verdict->level), prk_level_name(row->effective));
	if (is_judged_by_lag(row) && thresholds.warning_lag_time >= 0 &&
		verdict->lag_time >= thresholds.warning_lag_time * 1000 &&
		verdict->level < PRK_WARNING)
		voice_fail(1, "%s: %s, though its lag is " INT64_FORMAT " us", replica->name,
			 prk_level_name(verdict->level), verdict->lag_time);

	/* a forecast of what does not move */
	if (entry != NULL && replica->has_walsender &&
		entry->known.stuck_since != 0 &&
		entry->known.stuck_at == prk_health_position(replica) &&
		sample->taken_at - entry->known.stuck_since > STANDS_STILL &&
		replica->lag_bytes > 0 && verdict->forecast.catch_up_in >= 0)
		voice_fail(1, "%s: stands still, and will catch up", replica->name);
	if (replica->pid == 0 && sample->has_wal_rate &&
		sample->wal_rate_short <= 0 && sample->wal_rate_long <= 0 &&
		verdict->forecast.lost_in >= 0 &&
		verdict->forecast.lost_in != verdict->forecast.idle_left)
		voice_fail(1, "%s: no WAL is written, and its slot will be lost",
			 replica->name);

	/* figures of one moment */
	if (replica->has_walsender && !replica->logical &&
		replica->lag_bytes >= 0 && replica->unsent_bytes >= 0 &&
		replica->unwritten_bytes >= 0 && replica->unflushed_bytes >= 0 &&
		replica->unreplayed_bytes >= 0 &&
		replica->unsent_bytes + replica->unwritten_bytes +
		replica->unflushed_bytes + replica->unreplayed_bytes !=
		replica->lag_bytes)
		voice_fail(1, "%s: its stages are not its lag", replica->name);
	if (replica->retained_bytes >= 0 &&
		replica->retained_bytes !=
		Max((int64) (sample->current_lsn - replica->restart_lsn), 0))
		voice_fail(1, "%s: what it retains is of another moment", replica->name);
}

PrkReport *
__wrap_prk_report_take(void)
{
	PrkReport  *report = __real_prk_report_take();

	for (int i = 0; i < report->nrows; i++)
		check_row(report, &report->rows[i]);
	for (int i = 0; i < PRK_NTROUBLES; i++)
	{
		voice_made(1);
		if (report->troubles[i].verdict.level < report->troubles[i].effective)
			voice_fail(1, "server: less than what counts");
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

		voice_made(1);
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

		voice_made(1);
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
		voice_fail(1, "%s", (char *) lfirst(cell));
}


PrkEvidence *
__wrap_prk_evidence_gather(void)
{
	PrkEvidence *evidence = __real_prk_evidence_gather();

	check_evidence(evidence);
	return evidence;
}
