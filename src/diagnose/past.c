/*-------------------------------------------------------------------------
 *
 * past.c
 *	  What this server was before it was promoted.
 *
 * A promotion begins a timeline and leaves primary_conninfo and
 * primary_slot_name as they were, so that both together tell.  A server that
 * was restored from a backup has a new timeline, too, but nobody to follow.
 *
 * IDENTIFICATION
 *	  src/diagnose/past.c
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/xlogrecovery.h"

#include "diagnose/past.h"

static const char *conninfo_value(const char *conninfo, const char *keyword);

/* Reads what the settings still tell; palloc'd. */
void
prk_past_read(const PrkSample *sample, PrkPast *past)
{
	memset(past, 0, sizeof(PrkPast));
	if (sample->in_recovery || sample->timeline <= 1 ||
		sample->timeline_at == 0 ||
		PrimaryConnInfo == NULL || PrimaryConnInfo[0] == '\0')
		return;
	past->promoted = true;
	past->host = conninfo_value(PrimaryConnInfo, "host");
	past->port = conninfo_value(PrimaryConnInfo, "port");
	past->name = PrimarySlotName != NULL && PrimarySlotName[0] != '\0' ?
		PrimarySlotName : conninfo_value(PrimaryConnInfo, "application_name");
}

/*
 * The value of a keyword in a connection string of keywords and values, as
 * conninfo_parse() in src/interfaces/libpq/fe-connect.c reads it; "" where
 * there is none, or the string is a URI.
 */
static const char *
conninfo_value(const char *conninfo, const char *keyword)
{
	const char *at = conninfo;

	for (;;)
	{
		size_t		len;
		bool		wanted;
		bool		quoted;
		char	   *value;
		char	   *end;

		at += strspn(at, " \t\r\n\f\v");
		len = strcspn(at, "= \t\r\n\f\v");
		wanted = len == strlen(keyword) && strncmp(at, keyword, len) == 0;
		at += len;
		at += strspn(at, " \t\r\n\f\v");
		if (len == 0 || *at != '=')
			return "";
		at++;
		at += strspn(at, " \t\r\n\f\v");

		quoted = *at == '\'';
		if (quoted)
			at++;
		value = end = palloc(strlen(at) + 1);
		while (*at != '\0' &&
			   (quoted ? *at != '\'' : strchr(" \t\r\n\f\v", *at) == NULL))
		{
			if (*at == '\\' && at[1] != '\0')
				at++;
			*end++ = *at++;
		}
		*end = '\0';
		if (quoted && *at == '\'')
			at++;
		if (wanted)
			return value;
		pfree(value);
	}
}
