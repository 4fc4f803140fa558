/*-------------------------------------------------------------------------
 *
 * health_test.c
 *	  Drives src/judge/health.c and src/format.c for the tests, from SQL.
 *
 * A module of its own, never installed.  health_test_judge() takes the facts
 * of one replica as "key=value" words and returns the verdict; what is not
 * said is as on a healthy streaming replica with the default thresholds, and
 * not watched.  Times are in seconds before the sample, or as durations.
 *
 * IDENTIFICATION
 *	  test/health_test.c
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "fmgr.h"
#include "utils/builtins.h"

#include "format.h"
#include "judge/health.h"

PG_MODULE_MAGIC;

PG_FUNCTION_INFO_V1(health_test_size);
PG_FUNCTION_INFO_V1(health_test_duration);
PG_FUNCTION_INFO_V1(health_test_judge);

/* The sample's time, so that all others lie in the past. */
#define NOW		(INT64CONST(1000000) * USECS_PER_SEC)

typedef struct Facts
{
	PrkSample	sample;
	PrkReplica	replica;
	PrkKnown	known;
	PrkThresholds thresholds;
} Facts;

static void set_defaults(Facts *facts);
static void set_fact(Facts *facts, const char *key, int64 value);

/* health_test_size(bytes): as prk_format_size() */
Datum
health_test_size(PG_FUNCTION_ARGS)
{
	char		buf[PRK_FORMAT_LEN];

	PG_RETURN_TEXT_P(cstring_to_text(prk_format_size(buf, PG_GETARG_INT64(0))));
}

/* health_test_duration(microseconds): as prk_format_duration() */
Datum
health_test_duration(PG_FUNCTION_ARGS)
{
	char		buf[PRK_FORMAT_LEN];

	PG_RETURN_TEXT_P(cstring_to_text(prk_format_duration(buf, PG_GETARG_INT64(0))));
}

/* health_test_judge(facts): "level code at_once lag_time: reason" */
Datum
health_test_judge(PG_FUNCTION_ARGS)
{
	char	   *words = text_to_cstring(PG_GETARG_TEXT_PP(0));
	Facts		facts;
	PrkVerdict	verdict;

	set_defaults(&facts);
	for (char *word = strtok(words, " "); word != NULL;
		 word = strtok(NULL, " "))
	{
		char	   *value = strchr(word, '=');

		if (value == NULL)
			elog(ERROR, "no value in \"%s\"", word);
		*value++ = '\0';
		set_fact(&facts, word, strtoi64(value, NULL, 10));
	}

	prk_health_judge(&facts.sample, &facts.replica, &facts.thresholds,
					 &facts.known, &verdict);
	PG_RETURN_TEXT_P(cstring_to_text(psprintf("%s %s %s %s " INT64_FORMAT ": %s",
											  prk_state_name(verdict.state),
											  prk_level_name(verdict.level),
											  verdict.code != PRK_CODE_NONE ? prk_code_name(verdict.code) : "-",
											  verdict.at_once ? "at-once" : "lasting",
											  verdict.lag_time < 0 ? -1 : verdict.lag_time / USECS_PER_SEC,
											  verdict.reason)));
}

static void
set_defaults(Facts *facts)
{
	memset(facts, 0, sizeof(Facts));
	facts->sample.taken_at = NOW;
	facts->sample.slot_keep_limit = -1;
	facts->sample.slot_idle_limit = -1;
	facts->replica.state = PRK_STATE_STREAMING;
	facts->replica.has_slot = true;
	facts->replica.has_walsender = true;
	facts->replica.pid = 4711;
	facts->replica.wal_status = PRK_WAL_RESERVED;
	facts->replica.replay_lsn = 1000;
	facts->replica.flush_lsn = 1000;
	facts->replica.write_lag = -1;
	facts->replica.flush_lag = -1;
	facts->replica.replay_lag = -1;
	facts->replica.reply_time = NOW;
	facts->thresholds.warning_lag = 10 * 1024 * 1024;
	facts->thresholds.critical_lag = 200 * 1024 * 1024;
	facts->thresholds.lag_grace = 5000;
	facts->thresholds.warning_lag_time = 60000;
	facts->thresholds.critical_lag_time = 300000;
	facts->thresholds.warning_disconnected = 60000;
	facts->thresholds.critical_disconnected = 900000;
	facts->thresholds.stale_after = 35000;
}

static void
set_fact(Facts *facts, const char *key, int64 value)
{
	PrkReplica *replica = &facts->replica;
	PrkKnown   *known = &facts->known;
	TimestampTz ago = NOW - value * USECS_PER_SEC;
	static const char *const causes[] = {
		"wal_removed", "rows_removed", "wal_level_insufficient",
		"idle_timeout", "of_tomorrow"
	};

	if (strcmp(key, "state") == 0)
		replica->state = value;
	else if (strcmp(key, "gone") == 0)
	{
		replica->state = PRK_STATE_DISCONNECTED;
		replica->has_walsender = false;
		replica->pid = 0;
		known->watched = value >= 0;
		known->gone_since = value >= 0 ? ago : 0;
	}
	else if (strcmp(key, "inactive") == 0)
		replica->inactive_since = ago;
	else if (strcmp(key, "logical") == 0)
		replica->logical = value;
	else if (strcmp(key, "temporary") == 0)
		replica->temporary = value;
	else if (strcmp(key, "synced") == 0)
		replica->synced = value;
	else if (strcmp(key, "walsender") == 0)
		replica->has_walsender = value;
	else if (strcmp(key, "cause") == 0)
		replica->invalidation = causes[value];
	else if (strcmp(key, "wal") == 0)
		replica->wal_status = value;
	else if (strcmp(key, "limit") == 0)
		facts->sample.slot_keep_limit = value;
	else if (strcmp(key, "idle_limit") == 0)
		facts->sample.slot_idle_limit = value * USECS_PER_SEC;
	else if (strcmp(key, "warning_forecast") == 0)
		facts->thresholds.warning_forecast = value * 1000;
	else if (strcmp(key, "critical_forecast") == 0)
		facts->thresholds.critical_forecast = value * 1000;
	else if (strcmp(key, "restart") == 0)
		replica->restart_lsn = value;
	else if (strcmp(key, "safe") == 0)
	{
		replica->has_safe_wal_size = true;
		replica->safe_wal_size = value;
	}
	else if (strcmp(key, "unsent") == 0)
		replica->lag_bytes += replica->unsent_bytes = value;
	else if (strcmp(key, "unwritten") == 0)
		replica->lag_bytes += replica->unwritten_bytes = value;
	else if (strcmp(key, "unflushed") == 0)
		replica->lag_bytes += replica->unflushed_bytes = value;
	else if (strcmp(key, "unreplayed") == 0)
		replica->lag_bytes += replica->unreplayed_bytes = value;
	else if (strcmp(key, "replay_lag") == 0)
		replica->replay_lag = value * USECS_PER_SEC;
	else if (strcmp(key, "flush_lag") == 0)
	{
		replica->flush_lag = value * USECS_PER_SEC;
		replica->replay_lsn = InvalidXLogRecPtr;
	}
	else if (strcmp(key, "started") == 0)
		replica->backend_start = ago;
	else if (strcmp(key, "reply") == 0)
		replica->reply_time = ago;
	else if (strcmp(key, "watched") == 0)
		known->watched = value;
	else if (strcmp(key, "stuck") == 0)
	{
		known->watched = true;
		known->stuck_since = ago;
		known->stuck_at = replica->replay_lsn;
	}
	else if (strcmp(key, "moved") == 0)
		known->stuck_at -= value;
	else if (strcmp(key, "silent") == 0)
	{
		known->watched = true;
		known->reply_seen_at = ago;
		known->reply_time = replica->reply_time;
	}
	else if (strcmp(key, "never") == 0)
	{
		known->watched = true;
		known->never_connected = true;
		known->appeared_at = ago;
	}
	else if (strcmp(key, "phase") == 0)
	{
		replica->state = PRK_STATE_BACKUP;
		replica->backup_phase = value;
	}
	else if (strcmp(key, "total") == 0)
		replica->backup_total = value;
	else if (strcmp(key, "streamed") == 0)
		replica->backup_streamed = value;
	else if (strcmp(key, "off") == 0)
		facts->thresholds.off = value;
	else if (strcmp(key, "warning_disconnected") == 0)
		facts->thresholds.warning_disconnected = value;
	else if (strcmp(key, "critical_disconnected") == 0)
		facts->thresholds.critical_disconnected = value;
	else if (strcmp(key, "warning_lag") == 0)
		facts->thresholds.warning_lag = value;
	else if (strcmp(key, "warning_lag_time") == 0)
		facts->thresholds.warning_lag_time = value;
	else
		elog(ERROR, "unrecognized fact \"%s\"", key);
}
