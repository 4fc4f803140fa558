/*-------------------------------------------------------------------------
 *
 * preflight_rows.c
 *	  The rows of preflight() in the making.
 *
 * A fix is one statement that is safe to run unseen.  Where ALTER SYSTEM would
 * be refused, or of no avail, it becomes a part of what is wanted.
 *
 * IDENTIFICATION
 *	  src/diagnose/preflight_rows.c
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "lib/stringinfo.h"

#include "diagnose/preflight_rows.h"

/*
 * Reports what the check that runs has found.  setting is the one that it is
 * about, or NULL; value what it should be, as in SQL, NULL where that would
 * be a guess.  Where ALTER SYSTEM would be refused, or of no avail, it becomes
 * a part of what is wanted.
 */
void
prk_preflight_report(PrkPreflight *preflight, const char *current, const char *wanted,
					 const char *setting, const char *value)
{
	const char *alter = prk_config_now("allow_alter_system");	/* 17+ */
	PrkPreflightRow *row = prk_preflight_add(preflight, preflight->check->name,
											 preflight->check->level);

	row->current = current;
	row->wanted = wanted;
	row->needs_restart = preflight->check->needs_restart;
	if (setting != NULL && prk_config_on_command_line(setting))
	{
		row->wanted = psprintf("%s, on the command line of the server",
							   wanted);
		row->needs_restart = true;
	}
	else if (value != NULL && alter != NULL && strcmp(alter, "off") == 0)
	{
		/* a list is one string in a file */
		StringInfoData line;

		initStringInfo(&line);
		for (const char *c = value; *c != '\0'; c++)
		{
			if (strncmp(c, "', '", 4) == 0)
			{
				appendStringInfoString(&line, ", ");
				c += 3;
			}
			else
				appendStringInfoChar(&line, *c);
		}
		row->wanted = psprintf("%s, in its configuration: %s = %s", wanted,
							   setting, line.data);
		preflight->withheld = true;
	}
	else if (value != NULL)
		row->fix = psprintf("ALTER SYSTEM SET %s = %s", setting, value);
}

/* Adds a row; what it says is up to the caller. */
PrkPreflightRow *
prk_preflight_add(PrkPreflight *preflight, const char *check_name, const char *level)
{
	PrkPreflightRow *row = palloc0(sizeof(PrkPreflightRow));

	row->check_name = check_name;
	row->level = level;
	preflight->rows = lappend(preflight->rows, row);
	return row;
}
