/*-------------------------------------------------------------------------
 *
 * commands.c
 *	  The replication commands that clients of libpq write.
 *
 * IDENTIFICATION
 *	  src/failures/commands.c
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "failures/commands.h"

#define WITH_SLOT		"START_REPLICATION SLOT "

/* Does it begin so?  No command (NULL) does. */
bool
prk_command_is(const char *command, const char *beginning)
{
	return command != NULL &&
		pg_strncasecmp(command, beginning, strlen(beginning)) == 0;
}

/*
 * Does it end with a semicolon?  Clients that stream write none, and psql sends
 * the one that it was given.
 */
bool
prk_command_is_typed(const char *command)
{
	size_t		len = strlen(command);

	return len > 0 && command[len - 1] == ';';
}

/*
 * The slot that a command asks to stream from, if any, into name, which has room
 * for NAMEDATALEN bytes.  libpq quotes the name, which holds no quotes.
 */
bool
prk_command_slot(const char *command, char *name, bool *logical)
{
	const char *at;
	int			len = 0;

	if (!prk_command_is(command, WITH_SLOT))
		return false;
	at = command + strlen(WITH_SLOT);
	if (*at == '"')
		at++;
	while (len < NAMEDATALEN - 1 && at[len] != '\0' && at[len] != '"' &&
		   at[len] != ' ')
	{
		name[len] = at[len];
		len++;
	}
	name[len] = '\0';
	for (at += len; *at == '"' || *at == ' ';)
		at++;
	*logical = pg_strncasecmp(at, "LOGICAL", strlen("LOGICAL")) == 0;
	return true;
}
