/*-------------------------------------------------------------------------
 *
 * log_level.c
 *	  What log_min_messages keeps from the log, and so from the log hook.
 *
 * emit_log_hook sees what goes to the server's log, no more.  Up to 18 one
 * level is for all processes; from 19 on log_min_messages is a list, with a
 * level for each kind of process that it names ("warning, walsender:fatal").
 *
 * IDENTIFICATION
 *	  src/failures/log_level.c
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "lib/stringinfo.h"
#include "miscadmin.h"

#include "compat.h"
#include "failures/log_level.h"

/*
 * The kinds of processes whose messages the kit reads or writes, by their
 * names in log_min_messages, and the least of what has to be logged: a backend
 * refuses a replica with FATAL before it becomes a walsender; a walreceiver
 * says with LOG that it streams, which ends a failure; and what our worker has
 * to say, others may wait for in the log.
 */
static const struct
{
	BackendType type;
	const char *name;
	int			elevel;
}			kinds[] = {
	{B_BACKEND, "backend", FATAL},
	{B_BG_WORKER, "bgworker", ERROR},
	{B_WAL_RECEIVER, "walreceiver", LOG},
	{B_WAL_SENDER, "walsender", ERROR}
};

static bool is_logged(int elevel, int log_min_level);
static bool is_hidden(const char *name, size_t len);

/*
 * Which of these processes do not log all that the kit needs?  Their names,
 * separated by ", ", palloc'd; NULL: all do.  By this session's value.
 */
char *
prk_log_level_hidden(void)
{
	StringInfoData names;

	initStringInfo(&names);
	for (int i = 0; i < (int) lengthof(kinds); i++)
	{
		if (!is_logged(kinds[i].elevel,
					   prk_compat_log_min_messages(kinds[i].type)))
			appendStringInfo(&names, "%s%s", names.len > 0 ? ", " : "",
							 kinds[i].name);
	}
	return names.len > 0 ? names.data : NULL;
}

/*
 * The same setting, as the server shows it, with what hides something taken
 * out: the levels of the processes named by prk_log_level_hidden(), and the
 * one for all others if that would hide as much.  Palloc'd.
 */
char *
prk_log_level_remedy(const char *setting)
{
	static const char *const high[] = {"log", "fatal", "panic"};
	StringInfoData remedy;
	const char *at = setting;

	initStringInfo(&remedy);
	while (*at != '\0')
	{
		size_t		len = strcspn(at, ", ");
		const char *colon = memchr(at, ':', len);

		if (len == 0)
		{
			at++;
			continue;
		}
		if (colon != NULL)
		{
			if (!is_hidden(at, colon - at))
				appendStringInfo(&remedy, ", %.*s", (int) len, at);
		}
		else
		{
			bool		is_high = false;

			for (int i = 0; i < (int) lengthof(high); i++)
				is_high |= strlen(high[i]) == len &&
					pg_strncasecmp(high[i], at, len) == 0;
			if (is_high)
				appendStringInfoString(&remedy, "warning");
			else
				appendBinaryStringInfo(&remedy, at, len);
		}
		at += len;
	}
	return remedy.data;
}

/* Does that kind of process, by its name, log too little? */
static bool
is_hidden(const char *name, size_t len)
{
	for (int i = 0; i < (int) lengthof(kinds); i++)
	{
		if (strlen(kinds[i].name) == len &&
			pg_strncasecmp(kinds[i].name, name, len) == 0)
			return !is_logged(kinds[i].elevel,
							  prk_compat_log_min_messages(kinds[i].type));
	}
	return false;
}

/*
 * As is_log_level_output() in src/backend/utils/error/elog.c: for the log, LOG
 * is between ERROR and FATAL.
 */
static bool
is_logged(int elevel, int log_min_level)
{
	if (elevel == LOG)
		return log_min_level == LOG || log_min_level <= ERROR;
	if (log_min_level == LOG)
		return elevel >= FATAL;
	return elevel >= log_min_level;
}
