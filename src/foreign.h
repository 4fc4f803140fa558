/*-------------------------------------------------------------------------
 *
 * foreign.h
 *	  Text that came from outside, as a type of its own.
 *
 * IDENTIFICATION
 *	  src/foreign.h
 *
 *-------------------------------------------------------------------------
 */
#ifndef PRK_FOREIGN_H
#define PRK_FOREIGN_H

#include "c.h"

/*
 * A name that somebody else chose: printable ASCII, everything else escaped as
 * \xNN.  It is a struct so that neither "%s" nor quote_literal_cstr() takes
 * it: a name becomes ours by being equal to one of ours, and is shown by
 * prk_foreign_show().  Only foreign.c looks inside (t/001_style.pl).  All
 * zero: no name.
 */
typedef struct PrkForeign
{
	char		escaped[4 * (NAMEDATALEN - 1) + 1];
} PrkForeign;

/* Room for the lines of two attempts for one connection. */
#define PRK_FOREIGN_WORDS_LEN	640

/*
 * A message that holds such names, or that somebody else wrote: without
 * control characters, but in an encoding that only its reader can judge.
 */
typedef struct PrkForeignWords
{
	char		escaped[PRK_FOREIGN_WORDS_LEN];
} PrkForeignWords;

/* Between the lines of a message of several. */
#define PRK_FOREIGN_LINE	" | "

/* These allocate nothing and raise nothing. */
extern void prk_foreign_set(PrkForeign *foreign, const char *bytes);
extern void prk_foreign_set_clean(PrkForeign *foreign, const char *ascii);
extern void prk_foreign_set_words(PrkForeignWords *words, const char *bytes,
								  bool only_ascii, bool lines);
extern bool prk_foreign_is_empty(const PrkForeign *foreign);
extern bool prk_foreign_is(const PrkForeign *foreign, const char *ours);
extern bool prk_foreign_equal(const PrkForeign *foreign1,
							  const PrkForeign *foreign2);
extern bool prk_foreign_is_sound(const PrkForeign *foreign);
extern bool prk_foreign_words_are_sound(const PrkForeignWords *words);
extern bool prk_foreign_has(const PrkForeignWords *words, const char *part);

/* These return palloc'd text. */
extern char *prk_foreign_show(const PrkForeign *foreign);
extern char *prk_foreign_show_words(const PrkForeignWords *words);
extern char *prk_foreign_show_text(const char *bytes);
extern char *prk_foreign_bytes(const PrkForeign *foreign);
extern char *prk_foreign_plain_words(const PrkForeignWords *words);

#endif							/* PRK_FOREIGN_H */
