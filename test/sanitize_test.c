/*-------------------------------------------------------------------------
 *
 * sanitize_test.c
 *	  Mistakes on purpose, to see that they are reported.
 *
 * IDENTIFICATION
 *	  test/sanitize_test.c
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include <limits.h>

#include "fmgr.h"
#include "lib/stringinfo.h"
#include "utils/builtins.h"

PG_MODULE_MAGIC;

PG_FUNCTION_INFO_V1(sanitize_test);

/* sanitize_test(mistake text): make that mistake */
Datum
sanitize_test(PG_FUNCTION_ARGS)
{
	const char *mistake = text_to_cstring(PG_GETARG_TEXT_PP(0));
	volatile char *bytes = pstrdup("12345");
	volatile int number = INT_MAX;
	StringInfoData str;

	initStringInfo(&str);
	appendStringInfoString(&str, "12345");
	if (strcmp(mistake, "behind") == 0)
		number = bytes[6];
	else if (strcmp(mistake, "before") == 0)
		number = bytes[-1];
	else if (strcmp(mistake, "before a StringInfo") == 0)
		number = *(volatile char *) (str.data - 1);
	else if (strcmp(mistake, "freed") == 0)
	{
		pfree((char *) bytes);
		number = bytes[0];
	}
	else if (strcmp(mistake, "shift") == 0)
		number = 1 << number;
	PG_RETURN_BOOL(number != 0);
}
