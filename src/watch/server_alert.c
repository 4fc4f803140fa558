/*-------------------------------------------------------------------------
 *
 * server_alert.c
 *	  What is wrong with the server as a whole, told once and not per slot.
 *
 * Each trouble has one level, one alert, and one line.  The rules are those of
 * the replicas' alerts (alerts.c): a level is announced when it has lasted for
 * alert_after, or at once where the verdict says so, once, repeated while
 * critical, and taken back when the forecast is a quarter further than its
 * limit.  What is silenced has no line until the silence ends.
 *
 * IDENTIFICATION
 *	  src/watch/server_alert.c
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "watch/server_alert.h"

static bool tell(PrkBoardAlert *board, PrkServerTrack *track,
				 const PrkServerVerdict *verdict,
				 const PrkThresholds *thresholds, TimestampTz now,
				 PrkTroubleLine *line);
static PrkLevel choose_level(const PrkBoardAlert *board,
							 PrkServerTrack *track,
							 const PrkServerVerdict *verdict,
							 const PrkThresholds *thresholds,
							 TimestampTz now);

/*
 * Takes in one look at the server.  Fills in the lines that there are to be
 * logged, and returns how many.
 */
int
prk_server_alert_step(PrkServerAlert *alert, const PrkServerFacts *facts,
					  TimestampTz now, const PrkSilences *silences,
					  PrkServerLine lines[PRK_NTROUBLES])
{
	const PrkSilence *silence = prk_silence_find(silences, PRK_SERVER_NAME);
	PrkThresholds thresholds;
	int			nlines = 0;

	prk_settings_own_thresholds(PRK_SERVER_NAME, &thresholds);
	alert->server.disk = facts->disk;
	for (int i = 0; i < PRK_NTROUBLES; i++)
	{
		PrkServerLine *line = &lines[nlines];
		PrkServerVerdict verdict;

		prk_server_judge(facts, i, &thresholds, &verdict);
		line->trouble = i;
		line->facts = *facts;
		if (prk_trouble_step(&alert->server.alerts[i], &alert->tracks[i],
							 &verdict, &thresholds, silence, now,
							 &line->said))
			nlines++;
	}
	return nlines;
}

/* The machine's clock was set by so much. */
void
prk_server_alert_shift(PrkServerAlert *alert, int64 jump)
{
	prk_board_shift_server(&alert->server, jump);
	for (int i = 0; i < PRK_NTROUBLES; i++)
		prk_trouble_shift(&alert->tracks[i], jump);
}

/* The same of what is kept of one trouble. */
void
prk_trouble_shift(PrkServerTrack *track, int64 jump)
{
	if (track->warning_since != 0)
		track->warning_since += jump;
	if (track->critical_since != 0)
		track->critical_since += jump;
	track->said_at += jump;
}

/*
 * Takes in one verdict of one trouble: updates what is announced and, unless
 * it is silenced, what was logged.  Returns true, with a line filled in, if
 * one is to be logged.
 */
bool
prk_trouble_step(PrkBoardAlert *board, PrkServerTrack *track,
				 const PrkServerVerdict *verdict,
				 const PrkThresholds *thresholds, const PrkSilence *silence,
				 TimestampTz now, PrkTroubleLine *line)
{
	PrkLevel	level = choose_level(board, track, verdict, thresholds, now);

	if (level != PRK_OK)
		strlcpy(board->reason, verdict->reason, PRK_REASON_LEN);
	if (level != board->alert)
	{
		if (level == PRK_OK)
		{
			track->lasted = now - board->trouble_since;
			board->trouble_since = 0;
			board->reason[0] = '\0';
		}
		else if (board->alert == PRK_OK)
			board->trouble_since = track->warning_since;
		board->alert = level;
		board->alert_since = level == PRK_OK ? 0 : now;
	}
	return !prk_silence_mutes(silence, verdict->code, level) &&
		tell(board, track, verdict, thresholds, now, line);
}

/* Brings the log in line with what is announced, or reminds of it. */
static bool
tell(PrkBoardAlert *board, PrkServerTrack *track,
	 const PrkServerVerdict *verdict, const PrkThresholds *thresholds,
	 TimestampTz now, PrkTroubleLine *line)
{
	PrkLevel	level = board->alert;

	line->level = level;
	line->lasted = 0;
	strlcpy(line->reason, verdict->reason, PRK_REASON_LEN);
	if (level != board->told)
	{
		line->kind = level == PRK_OK ? PRK_LINE_RECOVERY : PRK_LINE_CHANGE;
		if (level == PRK_OK)
			line->lasted = track->lasted;
	}
	else if (level == PRK_CRITICAL && thresholds->repeat_interval >= 0 &&
			 now - track->said_at >= thresholds->repeat_interval * 1000)
	{
		line->kind = PRK_LINE_REMINDER;
		line->lasted = now - board->alert_since;
	}
	else
		return false;
	board->told = level;
	track->said_at = now;
	return !thresholds->off;
}

/*
 * The level that should stand announced now.  The verdict's lenient one must
 * be passed for the better.
 */
static PrkLevel
choose_level(const PrkBoardAlert *board, PrkServerTrack *track,
			 const PrkServerVerdict *verdict, const PrkThresholds *thresholds,
			 TimestampTz now)
{
	PrkLevel	announced = board->alert;
	PrkLevel	level = verdict->level;
	TimestampTz long_ago = now - Max(thresholds->alert_after, 0) * 1000;

	if (level < announced)
		level = Min(verdict->lenient, announced);

	if (level < PRK_WARNING)
		track->warning_since = 0;
	else if (track->warning_since == 0)
		track->warning_since = now;
	if (level < PRK_CRITICAL)
		track->critical_since = 0;
	else if (track->critical_since == 0)
		track->critical_since = now;

	if (level <= announced || verdict->at_once)
		return level;
	if (level == PRK_CRITICAL && track->critical_since <= long_ago)
		return PRK_CRITICAL;
	if (track->warning_since <= long_ago)
		return Max(announced, PRK_WARNING);
	return announced;
}
