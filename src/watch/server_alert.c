/*-------------------------------------------------------------------------
 *
 * server_alert.c
 *	  What is wrong with the server as a whole, told once and not per slot.
 *
 * A disk that fills is everybody's trouble, however many slots fill it: it
 * has one level, one alert, and one line that names the slot furthest back.
 * The rules are those of the replicas' alerts (alerts.c): a level is
 * announced when it has lasted for alert_after, once, repeated while critical,
 * and taken back when the forecast is a quarter further than its limit.
 *
 * IDENTIFICATION
 *	  src/watch/server_alert.c
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "format.h"
#include "watch/server_alert.h"

/* A forecast is taken back when it is this much further than its limit. */
#define CLEAR_PERCENT	125

static PrkLevel judge(const PrkDisk *disk, const PrkThresholds *thresholds,
					  int percent);
static PrkLevel choose_level(PrkServerAlert *alert, PrkLevel level,
							 PrkLevel lenient,
							 const PrkThresholds *thresholds,
							 TimestampTz now);

/*
 * Takes in one look at the disk.  Returns true, with a line filled in, when
 * there is something to be said.
 */
bool
prk_server_alert_step(PrkServerAlert *alert, const PrkDisk *disk,
					  TimestampTz now, PrkServerLine *line)
{
	PrkBoardServer *server = &alert->server;
	PrkThresholds thresholds;
	PrkLevel	level;
	char		buf[PRK_FORMAT_LEN];

	prk_settings_thresholds(PRK_SERVER_NAME, &thresholds);
	level = thresholds.off ? PRK_OK : judge(disk, &thresholds, 100);
	level = choose_level(alert, level, thresholds.off ? PRK_OK :
						 judge(disk, &thresholds, CLEAR_PERCENT),
						 &thresholds, now);

	server->disk = *disk;
	line->disk = *disk;
	line->level = level;
	line->lasted = 0;
	if (disk->full_in >= 0)
		snprintf(line->reason, PRK_REASON_LEN,
				 "disk of pg_wal will be full in %s",
				 prk_format_duration(buf, disk->full_in));
	else
		snprintf(line->reason, PRK_REASON_LEN,
				 "disk of pg_wal has %s free",
				 prk_format_size(buf, disk->free_bytes));
	if (level != PRK_OK)
		strlcpy(server->reason, line->reason, PRK_REASON_LEN);

	if (level == server->alert)
	{
		if (level != PRK_CRITICAL || thresholds.repeat_interval < 0 ||
			now - alert->said_at < thresholds.repeat_interval * 1000)
			return false;
		line->kind = PRK_LINE_REMINDER;
		line->lasted = now - server->alert_since;
		alert->said_at = now;
		return true;
	}

	if (level == PRK_OK)
	{
		line->kind = PRK_LINE_RECOVERY;
		line->lasted = now - server->trouble_since;
		server->trouble_since = 0;
		server->reason[0] = '\0';
	}
	else
	{
		line->kind = PRK_LINE_CHANGE;
		if (server->alert == PRK_OK)
			server->trouble_since = alert->warning_since;
	}
	server->alert = level;
	server->alert_since = level == PRK_OK ? 0 : now;
	alert->said_at = now;
	return !thresholds.off;
}

/* The machine's clock was set by so much. */
void
prk_server_alert_shift(PrkServerAlert *alert, int64 jump)
{
	prk_board_shift_server(&alert->server, jump);
	if (alert->warning_since != 0)
		alert->warning_since += jump;
	if (alert->critical_since != 0)
		alert->critical_since += jump;
	alert->said_at += jump;
}

/* The level of a forecast, with its limits stretched to so many percent. */
static PrkLevel
judge(const PrkDisk *disk, const PrkThresholds *thresholds, int percent)
{
	int64		full_in = disk->full_in / 10 / percent;

	if (!disk->known || disk->full_in < 0)
		return PRK_OK;
	if (thresholds->critical_forecast >= 0 &&
		full_in <= thresholds->critical_forecast)
		return PRK_CRITICAL;
	if (thresholds->warning_forecast >= 0 &&
		full_in <= thresholds->warning_forecast)
		return PRK_WARNING;
	return PRK_OK;
}

/*
 * The level that should stand announced now.  lenient is the one by stretched
 * limits, which must be passed for the better.
 */
static PrkLevel
choose_level(PrkServerAlert *alert, PrkLevel level, PrkLevel lenient,
			 const PrkThresholds *thresholds, TimestampTz now)
{
	PrkLevel	announced = alert->server.alert;
	TimestampTz long_ago = now - Max(thresholds->alert_after, 0) * 1000;

	if (level < announced)
		level = Min(lenient, announced);

	if (level < PRK_WARNING)
		alert->warning_since = 0;
	else if (alert->warning_since == 0)
		alert->warning_since = now;
	if (level < PRK_CRITICAL)
		alert->critical_since = 0;
	else if (alert->critical_since == 0)
		alert->critical_since = now;

	if (level <= announced)
		return level;
	if (level == PRK_CRITICAL && alert->critical_since <= long_ago)
		return PRK_CRITICAL;
	if (alert->warning_since <= long_ago)
		return Max(announced, PRK_WARNING);
	return announced;
}
