/*-------------------------------------------------------------------------
 *
 * troubles.h
 *	  What unhealthy() and assert_healthy() list.
 *
 * IDENTIFICATION
 *	  src/watch/troubles.h
 *
 *-------------------------------------------------------------------------
 */
#ifndef PRK_TROUBLES_H
#define PRK_TROUBLES_H

#include "nodes/pg_list.h"
#include "watch/report.h"

/* One thing that is at or above the level asked for. */
typedef struct PrkTrouble
{
	const char *name;			/* as diagnose() shows it */
	const char *label;			/* what the name is of, and the name */
	PrkLevel	level;
	const char *reason;
} PrkTrouble;

extern List *prk_troubles_list(PrkReport *report, PrkLevel level);

#endif							/* PRK_TROUBLES_H */
