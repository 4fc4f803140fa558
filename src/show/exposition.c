/*-------------------------------------------------------------------------
 *
 * exposition.c
 *	  The Prometheus text exposition format.
 *
 * Version 0.0.4, as
 * https://prometheus.io/docs/instrumenting/exposition_formats/ describes it.
 * Numbers are written in decimal, exactly: nothing here is a float.
 *
 * IDENTIFICATION
 *	  src/show/exposition.c
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "utils/builtins.h"
#include "utils/timestamp.h"

#include "show/exposition.h"

/* Begins a family: all its values must follow before the next one's. */
void
prk_exposition_family(StringInfo text, const char *name, PrkMetricType type,
					  const char *help)
{
	appendStringInfo(text, "# HELP %s %s\n# TYPE %s %s\n", name, help, name,
					 type == PRK_COUNTER ? "counter" : "gauge");
}

/*
 * One series of the family.  labels and more: what prk_exposition_label() has
 * made; "" none.  A value that is not known is NaN, with which no comparison is
 * true, so that the series is always there.
 */
void
prk_exposition_value(StringInfo text, const char *name, const char *labels,
					 const char *more, PrkNumber number)
{
	char		value[MAXINT8LEN + 16];
	char	   *end = value;

	appendStringInfoString(text, name);
	if (labels[0] != '\0' || more[0] != '\0')
	{
		appendStringInfoChar(text, '{');
		appendStringInfoString(text, labels);
		if (labels[0] != '\0' && more[0] != '\0')
			appendStringInfoChar(text, ',');
		appendStringInfoString(text, more);
		appendStringInfoChar(text, '}');
	}
	*end++ = ' ';
	if (!number.known)
	{
		memcpy(end, "NaN", 3);
		end += 3;
	}
	else if (!number.time)
		end += pg_lltoa(number.value, end);
	else
	{
		end += pg_lltoa(number.value / USECS_PER_SEC, end);
		*end++ = '.';
		end = pg_ultostr_zeropad(end, (uint32) (number.value % USECS_PER_SEC), 6);
	}
	*end++ = '\n';
	appendBinaryStringInfo(text, value, end - value);
}

/*
 * Adds a label to those that are there.  In its value backslash, quote and
 * newline are escaped; it must be UTF-8, which printable ASCII is.
 */
void
prk_exposition_label(StringInfo labels, const char *name, const char *value)
{
	if (labels->len > 0)
		appendStringInfoChar(labels, ',');
	appendStringInfoString(labels, name);
	appendStringInfoString(labels, "=\"");
	for (; *value != '\0'; value++)
	{
		if (*value == '\n')
			appendStringInfoString(labels, "\\n");
		else
		{
			if (*value == '\\' || *value == '"')
				appendStringInfoChar(labels, '\\');
			appendStringInfoChar(labels, *value);
		}
	}
	appendStringInfoChar(labels, '"');
}

/* A whole number. */
PrkNumber
prk_number(int64 value)
{
	PrkNumber	result = prk_number_unknown();

	result.known = true;
	result.value = value;
	return result;
}

/* Bytes, or whatever else is -1 where it is not known. */
PrkNumber
prk_number_bytes(int64 bytes)
{
	return bytes < 0 ? prk_number_unknown() : prk_number(bytes);
}

/* Microseconds; negative: not known. */
PrkNumber
prk_number_duration(int64 microseconds)
{
	PrkNumber	result = prk_number(microseconds);

	result.known = microseconds >= 0;
	result.time = true;
	return result;
}

/* A time, in seconds since 1970; 0: not known. */
PrkNumber
prk_number_timestamp(TimestampTz at)
{
	return at == 0 ? prk_number_unknown() :
		prk_number_duration(at + (POSTGRES_EPOCH_JDATE - UNIX_EPOCH_JDATE) *
							USECS_PER_DAY);
}

/* What is not known. */
PrkNumber
prk_number_unknown(void)
{
	PrkNumber	result = {0};

	return result;
}
