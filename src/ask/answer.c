/*-------------------------------------------------------------------------
 *
 * answer.c
 *	  One line of columns, bounded in size.
 *
 * A walsender has no database and so no encoding, and whoever reads the line
 * is a shell: printable ASCII passes, but for "|" and "%"; any other byte is
 * %XX.
 *
 * IDENTIFICATION
 *	  src/ask/answer.c
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "ask/answer.h"

/* Begins the line; palloc'd. */
void
prk_answer_begin(PrkAnswer *answer, const char *question)
{
	initStringInfo(&answer->line);
	appendStringInfoString(&answer->line, question);
	answer->full = false;
}

/* Adds a column; NULL is empty. */
void
prk_answer_text(PrkAnswer *answer, const char *text)
{
	int			before = answer->line.len;

	if (answer->full)
		return;
	appendStringInfoChar(&answer->line, '|');
	for (const char *c = text ? text : ""; *c != '\0' &&
		 answer->line.len <= PRK_ANSWER_LENGTH; c++)
	{
		if (*c >= ' ' && *c <= '~' && *c != '|' && *c != '%')
			appendStringInfoChar(&answer->line, *c);
		else
			appendStringInfo(&answer->line, "%%%02X", (unsigned char) *c);
	}
	if (answer->line.len > PRK_ANSWER_LENGTH)
	{
		answer->line.len = before;
		answer->line.data[before] = '\0';
		answer->full = true;
	}
}

void
prk_answer_number(PrkAnswer *answer, int64 number)
{
	prk_answer_text(answer, psprintf(INT64_FORMAT, number));
}

void
prk_answer_bool(PrkAnswer *answer, bool value)
{
	prk_answer_text(answer, value ? "t" : "f");
}
