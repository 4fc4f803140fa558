/*-------------------------------------------------------------------------
 *
 * owners.h
 *	  Whose replicas are, and what is left of those that are gone.
 *
 * IDENTIFICATION
 *	  src/diagnose/owners.h
 *
 *-------------------------------------------------------------------------
 */
#ifndef PRK_OWNERS_H
#define PRK_OWNERS_H

#include "nodes/pg_list.h"
#include "watch/report.h"

/* Whose a replica of the report is. */
typedef struct PrkOwner
{
	const PrkBoardEntry *entry; /* NULL: nobody watches it */
	const char *role_name;		/* that the kit made or a line names; NULL */
	bool		role_exists;
	bool		has_line;
	const char *address;		/* of its first managed line; NULL none */
} PrkOwner;

/* What the kit made and a slot of that name is not there for. */
typedef struct PrkLeftover
{
	const char *name;
	const char *role_name;		/* NULL: only the line is left */
	const char *address;		/* of its first managed line for that role;
								 * NULL none */
	int			line_number;	/* of that; 0 none */
} PrkLeftover;

extern PrkOwner *prk_owners_gather(const PrkReport *report, List *managed,
								   List **leftovers);

#endif							/* PRK_OWNERS_H */
