/*-------------------------------------------------------------------------
 *
 * answer.h
 *	  One line of columns, bounded in size.
 *
 * IDENTIFICATION
 *	  src/ask/answer.h
 *
 *-------------------------------------------------------------------------
 */
#ifndef PRK_ANSWER_H
#define PRK_ANSWER_H

#include "lib/stringinfo.h"

/* A column that would make an answer longer is left out, and all after it. */
#define PRK_ANSWER_LENGTH	6000

typedef struct PrkAnswer
{
	StringInfoData line;
	bool		full;
} PrkAnswer;

extern void prk_answer_begin(PrkAnswer *answer, const char *question);
extern void prk_answer_text(PrkAnswer *answer, const char *text);
extern void prk_answer_number(PrkAnswer *answer, int64 number);
extern void prk_answer_bool(PrkAnswer *answer, bool value);

#endif							/* PRK_ANSWER_H */
