/*-------------------------------------------------------------------------
 *
 * verdict.c
 *	  What a sample means: the verdict, and what it goes by.
 *
 * IDENTIFICATION
 *	  src/judge/verdict.c
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "judge/verdict.h"

/* The worst level counts, and of two that are equal the one found first. */
void
prk_verdict_raise(PrkVerdict *verdict, PrkLevel level, bool at_once,
				  PrkCode code)
{
	if (level <= verdict->level)
		return;
	verdict->level = level;
	verdict->at_once = at_once;
	verdict->code = code;
}
