/*-------------------------------------------------------------------------
 *
 * judge_funcs.h
 *	  What unhealthy() lists.
 *
 * IDENTIFICATION
 *	  src/watch/judge_funcs.h
 *
 *-------------------------------------------------------------------------
 */
#ifndef PRK_JUDGE_FUNCS_H
#define PRK_JUDGE_FUNCS_H

#include "nodes/pg_list.h"
#include "watch/report.h"

/* One thing that is at or above the level asked for. */
typedef struct PrkTrouble
{
	const char *name;
	const char *label;			/* what the name is of, and the name; the very
								 * same pointer where it is no replica's */
	PrkLevel	level;
	const char *reason;
} PrkTrouble;

extern List *prk_troubles_list(const PrkReport *report, PrkLevel level);

#endif							/* PRK_JUDGE_FUNCS_H */
