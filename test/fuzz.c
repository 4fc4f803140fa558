/*-------------------------------------------------------------------------
 *
 * fuzz.c
 *	  Coverage-guided fuzzing of what reads bytes that somebody else wrote.
 *
 * A module of its own, never installed, made with clang's libFuzzer.  It runs
 * in a backend in single-user mode, so that palloc(), ereport() and above all
 * the tokenizer and the parser of pg_hba.conf are the server's own: nothing is
 * imitated.  Only the kit's code is instrumented.
 *
 * fuzz_run() does not return: libFuzzer ends the process, with code 0 when
 * nothing was found.  A check that fails aborts, and leaves the input.
 *
 * IDENTIFICATION
 *	  test/fuzz.c
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include <unistd.h>

#include "catalog/pg_type.h"
#include "fmgr.h"
#include "mb/pg_wchar.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/memutils.h"

#include "failures/failure_words.h"
#include "foreign.h"
#include "hba/hba.h"
#include "hba_oracle.h"

/* For the layout of the file, to give each damaged one its right checksum. */
#include "../src/clock/clock_file.c"

PG_MODULE_MAGIC;

PG_FUNCTION_INFO_V1(fuzz_run);

/* The file that is read again and again, in the data directory. */
#define CLOCK_FILE	"fuzz_clock"

/* A position in the file, and the byte for it. */
#define CLOCK_PATCH_LEN	4

typedef void (*FuzzTarget) (const uint8 *data, size_t size);

/* of libFuzzer */
extern int	LLVMFuzzerRunDriver(int *argc, char ***argv,
								int (*callback) (const uint8 *data, size_t size));

static int	run_one(const uint8 *data, size_t size);
static void fuzz_hba(const uint8 *data, size_t size);
static void fuzz_role(const uint8 *data, size_t size);
static void fuzz_clock(const uint8 *data, size_t size);
static void fuzz_words(const uint8 *data, size_t size);
static void fuzz_foreign(const uint8 *data, size_t size);
static void use_clock(const PrkClock *clock);
static void require(bool ok, const char *what);
static char *text_of(const uint8 *data, size_t size);
static bool reads_other_files(const char *contents);

static const struct
{
	const char *name;
	FuzzTarget	target;
}			targets[] =

{
	{"hba", fuzz_hba},
	{"role", fuzz_role},
	{"clock", fuzz_clock},
	{"words", fuzz_words},
	{"foreign", fuzz_foreign}
};

static FuzzTarget the_target = NULL;
static MemoryContext context = NULL;

/* fuzz_run(target text, options text[]): with libFuzzer's options */
Datum
fuzz_run(PG_FUNCTION_ARGS)
{
	const char *name = text_to_cstring(PG_GETARG_TEXT_PP(0));
	Datum	   *options;
	int			noptions;
	char	  **argv;
	int			argc = 1;

	for (size_t i = 0; i < lengthof(targets); i++)
	{
		if (strcmp(targets[i].name, name) == 0)
			the_target = targets[i].target;
	}
	if (the_target == NULL)
		elog(ERROR, "there is no target \"%s\"", name);

	deconstruct_array(PG_GETARG_ARRAYTYPE_P(1), TEXTOID, -1, false,
					  TYPALIGN_INT, &options, NULL, &noptions);
	argv = palloc0((noptions + 2) * sizeof(char *));
	argv[0] = pstrdup("fuzz");
	for (int i = 0; i < noptions; i++)
		argv[argc++] = TextDatumGetCString(options[i]);

	context = AllocSetContextCreate(TopMemoryContext, "fuzz",
									ALLOCSET_DEFAULT_SIZES);
	return Int32GetDatum(LLVMFuzzerRunDriver(&argc, &argv, run_one));
}

/* One input, in a memory context of its own.  No error is expected. */
static int
run_one(const uint8 *data, size_t size)
{
	MemoryContext oldcontext = MemoryContextSwitchTo(context);

	PG_TRY();
	{
		the_target(data, size);
	}
	PG_CATCH();
	{
		ErrorData  *error;

		MemoryContextSwitchTo(context);
		error = CopyErrorData();
		fprintf(stderr, "ERROR: %s\n%s\n", error->message,
				error->detail ? error->detail : "");
		abort();
	}
	PG_END_TRY();

	MemoryContextSwitchTo(oldcontext);
	MemoryContextReset(context);
	return 0;
}

static void
require(bool ok, const char *what)
{
	if (!ok)
		elog(ERROR, "%s", what);
}

/* The input up to a zero byte, which the kit refuses in a file. */
static char *
text_of(const uint8 *data, size_t size)
{
	return pnstrdup((const char *) data, size);
}

/*
 * Would the server's tokenizer open other files, or its parser ask for the
 * addresses of hosts?
 */
static bool
reads_other_files(const char *contents)
{
	return strchr(contents, '@') != NULL ||
		strstr(contents, "include") != NULL ||
		strstr(contents, "radius") != NULL;
}

/*
 * The text of pg_hba.conf, after one byte that says where a line is inserted:
 * whatever the server reads there, our line changes nothing else, is a rule to
 * the server's parser, and goes again without a trace.
 */
static void
fuzz_hba(const uint8 *data, size_t size)
{
	char	   *contents;
	char	   *after;
	List	   *view;
	List	   *managed;
	int			line = 0;
	int			removed;
	char	   *rest;
	ListCell   *cell;

	if (size == 0)
		return;
	contents = text_of(data + 1, size - 1);
	managed = prk_hba_managed_all(contents);
	(void) prk_hba_owner(contents);
	(void) prk_hba_next_include(contents, data[0]);
	(void) prk_hba_rule_without_options(contents);
	if (reads_other_files(contents))
		return;

	view = oracle_view(contents, true);
	foreach(cell, managed)
	{
		const char *replica = ((PrkHbaManaged *) lfirst(cell))->replica;

		if (strcmp(replica, "zz") == 0)
			return;
		rest = prk_hba_remove(contents, replica, NULL, false, &removed);
		oracle_check_remove(contents, rest, replica, removed);
	}

	if (data[0] != 0 && view != NIL)
		line = ((OracleLine *) list_nth(view, (data[0] - 1) % list_length(view)))->number;
	after = prk_hba_insert(contents, OUR_RULE, "zz", line);
	oracle_check_insert(contents, after, "zz");

	/* the parser takes each line as before, and ours for a rule */
	{
		List	   *now = oracle_view(after, true);
		int			i = 0;

		foreach(cell, now)
		{
			OracleLine *one = lfirst(cell);
			OracleLine *old = i < list_length(view) ? list_nth(view, i) : NULL;

			if (old != NULL && strcmp(one->tokens, old->tokens) == 0)
			{
				oracle_check(one->parses == old->parses,
							 "a rule is read in another way", contents, after);
				i++;
			}
			else
				oracle_check(one->parses, "our rule is none", contents, after);
		}
	}

	rest = prk_hba_remove(after, "zz", NULL, false, &removed);
	oracle_check(removed == 1 && strcmp(rest, contents) == 0,
				 "removing does not undo inserting", contents, after);
}

/* The name of a role: the rule that is written for it means that role alone. */
static void
fuzz_role(const uint8 *data, size_t size)
{
	char	   *role = text_of(data, Min(size, NAMEDATALEN - 1));

	/* refused, or no name of a role */
	if (role[0] == '\0' || strpbrk(role, "\r\n") != NULL)
		return;
	(void) oracle_check_rule(role);
}

/*
 * Bytes for a file that is valid otherwise, or the whole file: it is refused,
 * or what was read can be used.
 */
static void
fuzz_clock(const uint8 *data, size_t size)
{
	static ClockFile file;
	static PrkClock clock;
	PrkClockMoment moment = {0};
	bool		whole = size > 0 && data[0] == 0xff;
	FILE	   *out;

	memset(&file, 0, sizeof(file));
	file.magic = FILE_MAGIC;
	file.version = FILE_VERSION;
	for (int i = 0; i < 100; i++)
		prk_clock_add(&file.clock, i * USECS_PER_SEC, 1000 * (i + 1));
	moment.boottime = moment.wall = 1000 * USECS_PER_SEC;
	for (size_t i = 0; !whole && i + CLOCK_PATCH_LEN <= size; i += CLOCK_PATCH_LEN)
	{
		size_t		at = (data[i] | data[i + 1] << 8 | data[i + 2] << 16) %
		offsetof(ClockFile, crc);

		((uint8 *) &file)[at] = data[i + 3];
	}
	file.crc = compute_crc(&file);

	out = fopen(CLOCK_FILE, "w");
	require(out != NULL, "could not write the file");
	if (whole)
		(void) fwrite(data, 1, size, out);
	else
		(void) fwrite(&file, 1, sizeof(file), out);
	fclose(out);

	if (prk_clock_file_read(CLOCK_FILE, &clock, &moment) == NULL)
		use_clock(&clock);
}

/* All that is done with a clock, whatever its times and positions. */
static void
use_clock(const PrkClock *clock)
{
	static PrkClock copy;
	PrkClockPair pair;
	const int64 now = 2000 * USECS_PER_SEC;

	(void) prk_clock_newest(clock, &pair);
	for (XLogRecPtr at = 0; at < 200000; at += 49999)
	{
		(void) prk_clock_age(clock, at, now, 150000);
		(void) prk_clock_rate(clock, now, at, 60 * USECS_PER_SEC);
	}
	copy = *clock;
	prk_clock_add(&copy, now, 200000);
	prk_clock_resume(&copy, 200001);
	prk_clock_cut(&copy, 50000);
	prk_clock_forget(&copy, now - USECS_PER_SEC);
	require(copy.nfine <= PRK_CLOCK_NFINE && copy.fine_end < PRK_CLOCK_NFINE &&
			copy.ncoarse <= PRK_CLOCK_NCOARSE &&
			copy.coarse_end < PRK_CLOCK_NCOARSE, "the clock has no such place");
}

/*
 * What an upstream said: one kind, the same each time.  A segment's name tells
 * wherever it stands.
 */
static void
fuzz_words(const uint8 *data, size_t size)
{
	PrkFailure	failure = {.kind = PRK_FAILURE_UPSTREAM};
	PrkFailureKind kind;

	prk_foreign_set_words(&failure.message, text_of(data, size), false, true);
	kind = prk_failure_kind(&failure);
	require(kind != PRK_FAILURE_UPSTREAM, "the words have no kind");
	require(kind == prk_failure_kind(&failure), "the words have two kinds");
}

/*
 * Names and messages that somebody else chose, after a byte of options: what
 * is shown is printable and valid; a name is equal to itself alone, and its
 * bytes come back.
 */
static void
fuzz_foreign(const uint8 *data, size_t size)
{
	PrkForeign	name;
	PrkForeign	other;
	PrkForeignWords words;
	char	   *bytes;
	char	   *shown;
	size_t		len;

	if (size == 0)
		return;
	bytes = text_of(data + 1, size - 1);

	prk_foreign_set_words(&words, bytes, data[0] & 1, data[0] & 2);
	shown = prk_foreign_show_words(&words);
	require(pg_verifymbstr(shown, strlen(shown), true), "the message is not valid");
	for (const char *c = shown; *c != '\0'; c++)
		require(IS_HIGHBIT_SET(*c) || (*c >= ' ' && *c <= '~'),
				"the message has a control character");

	bytes[Min(strlen(bytes), NAMEDATALEN - 1)] = '\0';
	len = strlen(bytes);
	prk_foreign_set(&name, bytes);
	shown = prk_foreign_show(&name);
	require(shown[strspn(shown, " !\"#$%&'()*+,-./0123456789:;<=>?@"
						 "ABCDEFGHIJKLMNOPQRSTUVWXYZ[\\]^_`"
						 "abcdefghijklmnopqrstuvwxyz{|}~")] == '\0',
			"the name is not printable");
	require(strcmp(prk_foreign_bytes(&name), bytes) == 0,
			"the name does not come back");
	require(prk_foreign_is(&name, bytes), "the name is not itself");
	require(prk_foreign_is_empty(&name) == (len == 0), "the name is not empty");

	/* no other name looks the same, above all not what is shown of this one */
	if (len > 0)
	{
		prk_foreign_set(&other, shown);
		require(strlen(shown) >= NAMEDATALEN ||
				prk_foreign_equal(&name, &other) == (strcmp(shown, bytes) == 0),
				"a name is equal to the escaped form of another one");
		bytes[data[0] % len] ^= 1;
		if (strlen(bytes) == len)
			require(!prk_foreign_is(&name, bytes), "two names are equal");
	}
}
