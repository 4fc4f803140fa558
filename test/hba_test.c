/*-------------------------------------------------------------------------
 *
 * hba_test.c
 *	  Drives src/hba/hba.c and src/hba/hba_file.c for the tests, from SQL.
 *
 * A module of its own, never installed, so that what it calls stays closed to
 * users.  hba_test_text() makes random files and compares what we make of
 * them with what the server's own tokenizer does; hba_test_replace() walks
 * through the replacement of pg_hba.conf.
 *
 * IDENTIFICATION
 *	  test/hba_test.c
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include <arpa/inet.h>
#include <stdlib.h>
#include <sys/socket.h>

#include "common/pg_prng.h"
#include "fmgr.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/memutils.h"

#include "compat.h"
#include "hba/hba.h"
#include "hba/hba_file.h"
#include "hba/hba_rules.h"
#include "hba_oracle.h"

PG_MODULE_MAGIC;

PG_FUNCTION_INFO_V1(hba_test_text);
PG_FUNCTION_INFO_V1(hba_test_main_line);
PG_FUNCTION_INFO_V1(hba_test_managed);
PG_FUNCTION_INFO_V1(hba_test_rule);
PG_FUNCTION_INFO_V1(hba_test_owner);
PG_FUNCTION_INFO_V1(hba_test_replace);

#define MAX_INSERTS	3

static pg_prng_state prng;

static int
pick(int n)
{
	return (int) pg_prng_uint64_range(&prng, 0, n - 1);
}

/* A text of random lines, most of them unusual in some way. */
static char *
random_contents(void)
{
	static const char *const lines[] = {
		"", "", "\r", " ", "\t \r", "# comment", "# comment \\", "\\", "\\\\",
		"local all all trust", "host all all 127.0.0.1/32 trust",
		"host all all 127.0.0.1/32 \\", "  scram-sha-256 \\",
		"host replication \"a b\" ::1/128 md5 # why not",
		"host all \"a#b\",c , d samenet reject",
		"host all \"x\r\\", "host all \"# pg_replica_kit: quoted", "\"\"\"x\"\"\"",
		"host replication r1 10.0.0.1/32 scram-sha-256  # pg_replica_kit: r1",
		"# host replication r1 10.0.0.1/32 md5  # pg_replica_kit: r1",
		"host replication r2 10.0.0.2/32 md5 # x # pg_replica_kit: r2 \t",
		"host replication r2 10.0.0.2/32 md5# pg_replica_kit: r2 no",
		"host replication r2 10.0.0.2/32 md5 # pg_replica_kit: r2 \\",
		"unterminated \"quote", "unterminated \"quote\\", ",,,", "a,", ",b\\"
	};
	static const char noise[] = "ab \"\"#\\,\t";
	StringInfoData buf;
	int			nlines = pick(7);
	int			crlf = pick(3);

	initStringInfo(&buf);
	for (int i = 0; i < nlines; i++)
	{
		if (pick(3) == 0)
		{
			for (int n = pick(12); n > 0; n--)
				appendStringInfoChar(&buf, noise[pick(sizeof(noise) - 1)]);
		}
		else
			appendStringInfoString(&buf, lines[pick(lengthof(lines))]);
		if (i == nlines - 1 && pick(2) == 0)
			break;
		appendStringInfoString(&buf, crlf == 0 || (crlf == 1 && pick(2) == 0) ?
							   "\r\n" : "\n");
	}
	return buf.data;
}

/* The number of a line that begins a rule; 0 if there is no rule. */
static int
random_rule_line(const char *contents)
{
	List	   *view = oracle_view(contents, false);

	if (view == NIL)
		return 0;
	return ((OracleLine *) list_nth(view, pick(list_length(view))))->number;
}

/*
 * hba_test_text(seed bigint, rounds integer): random files; whatever is
 * inserted, the server sees the rule and nothing else has changed, and
 * removing gives the same bytes again, in any order.
 */
Datum
hba_test_text(PG_FUNCTION_ARGS)
{
	MemoryContext context = AllocSetContextCreate(CurrentMemoryContext,
												  "hba_test_text",
												  ALLOCSET_DEFAULT_SIZES);
	MemoryContext oldcontext = MemoryContextSwitchTo(context);
	int			rounds = PG_GETARG_INT32(1);

	pg_prng_seed(&prng, PG_GETARG_INT64(0));
	for (int round = 0; round < rounds; round++)
	{
		char	   *original = random_contents();
		char	   *contents = original;
		int			ninserts = 1 + pick(MAX_INSERTS);
		int			removed;
		char	   *same;

		CHECK_FOR_INTERRUPTS();
		for (int i = 0; i < ninserts; i++)
		{
			char	   *replica = psprintf("zz_%d", i);
			int			line = pick(2) ? random_rule_line(contents) : 0;
			char	   *after = prk_hba_insert(contents, OUR_RULE, replica, line);

			oracle_check_insert(contents, after, replica);
			same = prk_hba_remove(after, replica,
								  pick(2) ? "10.9.8.7/32" : NULL, false, &removed);
			oracle_check(removed == 1 && strcmp(same, contents) == 0,
						 "removing does not undo inserting", contents, after);
			same = prk_hba_remove(after, replica, "10.9.8.8/32", false, &removed);
			oracle_check(removed == 0 && strcmp(same, after) == 0,
						 "a line of another address is removed", contents, after);
			contents = after;
		}
		for (int i = 0, first = pick(ninserts); i < ninserts; i++)
		{
			contents = prk_hba_remove(contents,
									  psprintf("zz_%d", (first + i) % ninserts),
									  NULL, false, &removed);
			oracle_check(removed == 1, "a line is not removed", original, contents);
		}
		oracle_check(strcmp(contents, original) == 0,
					 "removing all does not give the file back", original, contents);
		MemoryContextReset(context);
	}
	MemoryContextSwitchTo(oldcontext);
	PG_RETURN_INT32(rounds);
}

/* hba_test_main_line(role text, ip text): what prk_hba_rules_match() says */
Datum
hba_test_main_line(PG_FUNCTION_ARGS)
{
	PrkHbaQuery query = {0};
	PrkHbaMatch match;

	query.role = text_to_cstring(PG_GETARG_TEXT_PP(0));
	query.database = "replication";
	query.addr.ss_family = AF_INET;
	if (inet_pton(AF_INET, text_to_cstring(PG_GETARG_TEXT_PP(1)),
				  &((struct sockaddr_in *) &query.addr)->sin_addr) != 1)
		elog(ERROR, "invalid address");
	prk_hba_rules_match(prk_hba_rules_load(HbaFileName), &query, &match);
	PG_RETURN_INT32(match.main_line);
}

/* hba_test_managed(contents text): prk_hba_managed(), one line each */
Datum
hba_test_managed(PG_FUNCTION_ARGS)
{
	StringInfoData buf;
	ListCell   *cell;

	initStringInfo(&buf);
	foreach(cell, prk_hba_managed(text_to_cstring(PG_GETARG_TEXT_PP(0))))
	{
		PrkHbaManaged *managed = (PrkHbaManaged *) lfirst(cell);

		appendStringInfo(&buf, "%d|%s|%s|%s|%s\n", managed->line_number,
						 managed->replica,
						 managed->role ? managed->role : "(null)",
						 managed->address ? managed->address : "(null)",
						 managed->rule);
	}
	PG_RETURN_TEXT_P(cstring_to_text(buf.data));
}

/* hba_test_rule(role text): the rule for a role, which the server confirms */
Datum
hba_test_rule(PG_FUNCTION_ARGS)
{
	PG_RETURN_TEXT_P(cstring_to_text(oracle_check_rule(text_to_cstring(PG_GETARG_TEXT_PP(0)))));
}

/* hba_test_owner(contents text): prk_hba_owner() */
Datum
hba_test_owner(PG_FUNCTION_ARGS)
{
	const char *owner = prk_hba_owner(text_to_cstring(PG_GETARG_TEXT_PP(0)));

	if (owner == NULL)
		PG_RETURN_NULL();
	PG_RETURN_TEXT_P(cstring_to_text(owner));
}

static void
run_command(const char *command)
{
	if (command[0] != '\0' && system(command) != 0)
		ereport(ERROR, (errmsg("command failed: %s", command)));
}

/*
 * hba_test_replace(line text, before text, after text, ending text): add a
 * line to pg_hba.conf, with shell commands before and after the exchange; the
 * ending is undo, finish or error.
 */
Datum
hba_test_replace(PG_FUNCTION_ARGS)
{
	const char *line = text_to_cstring(PG_GETARG_TEXT_PP(0));
	const char *before = text_to_cstring(PG_GETARG_TEXT_PP(1));
	const char *after = text_to_cstring(PG_GETARG_TEXT_PP(2));
	const char *ending = text_to_cstring(PG_GETARG_TEXT_PP(3));
	PrkHbaFile *file = prk_hba_file_read(CurrentMemoryContext);
	const char *result = "changed";

	prk_hba_file_set_rule(file, line);
	PG_TRY();
	{
		prk_hba_file_prepare(file, psprintf("%s%s\n", prk_hba_file_text(file),
											line));
		run_command(before);
		if (prk_hba_file_exchange(file))
		{
			run_command(after);
			if (strcmp(ending, "error") == 0)
				ereport(ERROR, (errmsg("on purpose")));
			result = prk_hba_file_in_place(file) ? "in place" : "not in place";
			if (strcmp(ending, "undo") == 0)
				result = psprintf("%s, %s", result,
								  prk_hba_file_undo(file) ?
								  "undone" : "not undone");
			else
				result = psprintf("%s, %s", result,
								  prk_hba_file_finish(file) ?
								  "finished" : "not finished");
		}
	}
	PG_CATCH();
	{
		prk_hba_file_undo(file);
		PG_RE_THROW();
	}
	PG_END_TRY();
	PG_RETURN_TEXT_P(cstring_to_text(result));
}
