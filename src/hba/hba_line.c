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

/* What the role for pg_rewind is called, after the replica's name. */
#define REWIND_SUFFIX		"_rewind"

static char *name_token(const char *name, bool database);

/*
 * The rule that lets a replica in, without our mark: one line of pg_hba.conf.
 * database NULL: for replication.
 *
 * Names are written so that they mean that one role or database on every
 * supported version.  The address must be an IP address with its mask length;
 * it is not judged here.  Raises an error for a name that pg_hba.conf cannot
 * hold.
 */
char *
prk_hba_rule(const char *database, const char *role, const char *address,
			 bool require_ssl)
{
	if (address[strspn(address, "0123456789abcdefABCDEF.:/")] != '\0')
		elog(ERROR, "unexpected address \"%s\" for pg_hba.conf", address);

	return psprintf("%s %s %s %s scram-sha-256",
					require_ssl ? "hostssl" : "host",
					database ? name_token(database, true) : "replication",
					name_token(role, false), address);
}

/*
 * The role with which pg_rewind of a replica connects, palloc'd.  It may be too
 * long for a role.
 */
char *
prk_hba_rewind_role(const char *replica)
{
	return psprintf("%s" REWIND_SUFFIX, replica);
}

/*
 * A role or database as a token of pg_hba.conf.
 *
 * Quoting takes the meaning from keywords, a leading + or @, blanks, commas
 * and #.  It does not take it from a leading slash: from 16 on that starts a
 * regular expression whether quoted or not (regcomp_auth_token), so there the
 * name is spelled as an expression that matches nothing else.
 */
static char *
name_token(const char *name, bool database)
{
	StringInfoData plain;
	StringInfoData token;

	if (name[0] == '\0' || strpbrk(name, "\n") != NULL)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_NAME),
				 database ?
				 errmsg("database name \"%s\" cannot be written in pg_hba.conf",
						name) :
				 errmsg("role name \"%s\" cannot be written in pg_hba.conf",
						name),
				 errdetail("A name there must not be empty or contain a newline.")));

	initStringInfo(&plain);
	if (name[0] == '/' && prk_compat_hba_has_regex())
	{
		appendStringInfoString(&plain, "/^");
		for (const char *c = name; *c; c++)
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
		appendStringInfoString(&plain, name);

	if (plain.len > PRK_HBA_MAX_TOKEN)
		ereport(ERROR,
				(errcode(ERRCODE_NAME_TOO_LONG),
				 database ?
				 errmsg("database name \"%s\" cannot be written in pg_hba.conf",
						name) :
				 errmsg("role name \"%s\" cannot be written in pg_hba.conf",
						name),
				 errdetail("A name there must be shorter than %d bytes.",
						   PRK_HBA_MAX_TOKEN + 1)));

	if (name[strspn(name, "abcdefghijklmnopqrstuvwxyz0123456789_")] == '\0' &&
		strcmp(name, "all") != 0 &&
		strcmp(name, "replication") != 0 &&
		strcmp(name, "sameuser") != 0 &&
		strcmp(name, "samerole") != 0 &&
		strcmp(name, "samegroup") != 0)
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
