/*-------------------------------------------------------------------------
 *
 * summaries.h
 *	  What the WAL summaries of this server say of a range of WAL.
 *
 * IDENTIFICATION
 *	  src/ask/summaries.h
 *
 *-------------------------------------------------------------------------
 */
#ifndef PRK_SUMMARIES_H
#define PRK_SUMMARIES_H

#include "ask/answer.h"

extern void prk_summaries_limits(PrkAnswer *answer, const char *argument,
								 int64 until);

#endif							/* PRK_SUMMARIES_H */
