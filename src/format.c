/*-------------------------------------------------------------------------
 *
 * format.c
 *	  Sizes and durations in the words that log lines and views share.
 *
 * Each function writes into a buffer of PRK_FORMAT_LEN bytes that its caller
 * owns, and returns that buffer, so that several can stand in one call of
 * ereport().  They allocate nothing, raise nothing and need no database.
 *
 * IDENTIFICATION
 *	  src/format.c
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "pgtime.h"
#include "utils/timestamp.h"

#include "format.h"

/*
 * A number of bytes as pg_size_pretty() shows it (src/backend/utils/adt/
 * dbsize.c): the smallest unit in which the value, rounded half away from
 * zero, has at most four digits and a bit (is below 10240).
 */
const char *
prk_format_size(char *buf, int64 bytes)
{
	static const char *const units[] = {"bytes", "kB", "MB", "GB", "TB", "PB"};
	uint64		size = bytes < 0 ? 0 - (uint64) bytes : (uint64) bytes;
	uint64		value = size;
	int			unit = 0;

	while (value >= 10 * 1024 && unit + 1 < (int) lengthof(units))
	{
		unit++;
		value = ((size >> (10 * unit - 1)) + 1) / 2;
	}
	snprintf(buf, PRK_FORMAT_LEN, "%s" UINT64_FORMAT " %s",
			 bytes < 0 ? "-" : "", value, units[unit]);
	return buf;
}

/*
 * A duration as a setting or an axis has it: "250 ms", "1.5 s", "40 s", "1 min
 * 14 s", "15 min", "1 h 5 min", "2 d 3 h".  What is cut off is cut, not rounded
 * up: nothing is said to have lasted longer than it has.  Seconds are left out
 * from ten minutes on.  A negative duration reads as none.
 */
const char *
prk_format_span(char *buf, int64 microseconds)
{
	int64		ms = Max(microseconds, 0) / 1000;
	int64		s = ms / 1000;
	int64		first;
	int64		second;
	const char *first_unit;
	const char *second_unit;

	if (ms > 0 && s == 0)
	{
		snprintf(buf, PRK_FORMAT_LEN, INT64_FORMAT " ms", ms);
		return buf;
	}
	if (s < 10 && ms % 1000 >= 100)
	{
		snprintf(buf, PRK_FORMAT_LEN, INT64_FORMAT "." INT64_FORMAT " s",
				 s, ms % 1000 / 100);
		return buf;
	}

	if (s < SECS_PER_MINUTE)
	{
		first = s, first_unit = "s";
		second = 0, second_unit = "";
	}
	else if (s < SECS_PER_HOUR)
	{
		first = s / SECS_PER_MINUTE, first_unit = "min";
		second = first < 10 ? s % SECS_PER_MINUTE : 0, second_unit = "s";
	}
	else if (s < SECS_PER_DAY)
	{
		first = s / SECS_PER_HOUR, first_unit = "h";
		second = s % SECS_PER_HOUR / SECS_PER_MINUTE, second_unit = "min";
	}
	else
	{
		first = s / SECS_PER_DAY, first_unit = "d";
		second = s % SECS_PER_DAY / SECS_PER_HOUR, second_unit = "h";
	}

	if (second > 0)
		snprintf(buf, PRK_FORMAT_LEN, INT64_FORMAT " %s " INT64_FORMAT " %s",
				 first, first_unit, second, second_unit);
	else
		snprintf(buf, PRK_FORMAT_LEN, INT64_FORMAT " %s", first, first_unit);
	return buf;
}

/*
 * The same in a sentence, where no reader needs a fraction of a second: "less
 * than a second", "1 s".
 */
const char *
prk_format_duration(char *buf, int64 microseconds)
{
	if (microseconds >= 1000 && microseconds < USECS_PER_SEC)
	{
		strlcpy(buf, "less than a second", PRK_FORMAT_LEN);
		return buf;
	}
	return prk_format_span(buf, microseconds - microseconds % USECS_PER_SEC);
}

/*
 * A moment as it stands in front of the server's own log lines, without the
 * milliseconds: in log_timezone, which the processes of a server share, not
 * in a session's TimeZone.
 */
const char *
prk_format_time(char *buf, TimestampTz when)
{
	pg_time_t	seconds = timestamptz_to_time_t(when);

	pg_strftime(buf, PRK_FORMAT_LEN, "%Y-%m-%d %H:%M:%S %Z",
				pg_localtime(&seconds, log_timezone));
	return buf;
}
