/*-------------------------------------------------------------------------
 *
 * hba_line.c
 *	  The line of pg_hba.conf that lets a replica in, as text.
 *
 * IDENTIFICATION
 *	  src/hba/hba_line.c
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "lib/stringinfo.h"

#include "compat.h"
#include "hba/hba.h"

/*
 * Longest token that every supported version reads: 15 has a buffer of 256
 * bytes (MAX_TOKEN in its libpq/hba.c).
 */
#define PRK_HBA_MAX_TOKEN	255

static char *role_token(const char *role);

/*
 * The rule that lets a replica in, without our mark: one line of pg_hba.conf.
 *
 * The role is written so that it means that one role on every supported
 * version.  The address must be an IP address with its mask length; it is
 * not judged here.  Raises an error for a name that pg_hba.conf cannot hold.
 */
char *
prk_hba_rule(const char *role, const char *address, bool require_ssl)
{
	if (address[strspn(address, "0123456789abcdefABCDEF.:/")] != '\0')
		elog(ERROR, "unexpected address \"%s\" for pg_hba.conf", address);

	return psprintf("%s replication %s %s scram-sha-256",
					require_ssl ? "hostssl" : "host",
					role_token(role), address);
}

/*
 * A role as a token of pg_hba.conf.
 *
 * Quoting takes the meaning from keywords, a leading + or @, blanks, commas
 * and #.  It does not take it from a leading slash: from 16 on that starts a
 * regular expression whether quoted or not (regcomp_auth_token), so there the
 * name is spelled as an expression that matches nothing else.
 */
static char *
role_token(const char *role)
{
	StringInfoData plain;
	StringInfoData token;

	if (role[0] == '\0' || strpbrk(role, "\n") != NULL)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_NAME),
				 errmsg("role name \"%s\" cannot be written in pg_hba.conf",
						role),
				 errdetail("A name there must not be empty or contain a newline.")));

	initStringInfo(&plain);
	if (role[0] == '/' && prk_compat_hba_has_regex())
	{
		appendStringInfoString(&plain, "/^");
		for (const char *c = role; *c; c++)
		{
			/* A backslash before any other ASCII character makes it literal */
			if (!isalnum((unsigned char) *c) && *c != '_' &&
				!IS_HIGHBIT_SET(*c))
				appendStringInfoChar(&plain, '\\');
			appendStringInfoChar(&plain, *c);
		}
		appendStringInfoChar(&plain, '$');
	}
	else
		appendStringInfoString(&plain, role);

	if (plain.len > PRK_HBA_MAX_TOKEN)
		ereport(ERROR,
				(errcode(ERRCODE_NAME_TOO_LONG),
				 errmsg("role name \"%s\" cannot be written in pg_hba.conf",
						role),
				 errdetail("A name there must be shorter than %d bytes.",
						   PRK_HBA_MAX_TOKEN + 1)));

	if (role[strspn(role, "abcdefghijklmnopqrstuvwxyz0123456789_")] == '\0' &&
		strcmp(role, "all") != 0 &&
		strcmp(role, "replication") != 0 &&
		strcmp(role, "sameuser") != 0 &&
		strcmp(role, "samerole") != 0 &&
		strcmp(role, "samegroup") != 0)
		return plain.data;

	initStringInfo(&token);
	appendStringInfoChar(&token, '"');
	for (const char *c = plain.data; *c; c++)
	{
		if (*c == '"')
			appendStringInfoChar(&token, '"');
		appendStringInfoChar(&token, *c);
	}
	appendStringInfoChar(&token, '"');
	return token.data;
}
