/*-------------------------------------------------------------------------
 *
 * ask.c
 *	  Questions over the replication right.
 *
 * A replica's role has REPLICATION and runs no SQL; a physical replication
 * connection takes startup options and SHOW.  So the option "-c
 * replica_kit.ask=QUESTION" asks, and SHOW replica_kit.answer runs the show
 * hook below, in a transaction of the walsender's own (exec_replication_
 * command in src/backend/replication/walsender.c).
 *
 *		data_directory		bytes, whether that is all, how many files cannot
 *							be read, the names of some of them
 *		tablespaces			whether that is all, then "BYTES LOCATION" each
 *		settings			see clone_settings.c
 *		libraries			those that are preloaded
 *		collations			versions of glibc and ICU, locales of databases
 *		slot NAME			does it exist, does somebody use it, wal_status,
 *							why it was invalidated
 *		limits TLI FROM TO SKIP
 *							what changed in that range of WAL; see summaries.c
 *
 * In every other session, and to every other question, the answer is empty.
 * Nobody can set the answer; the question is fixed when a connection begins.
 *
 * IDENTIFICATION
 *	  src/ask/ask.c
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/xact.h"
#include "common/relpath.h"
#include "datatype/timestamp.h"
#include "miscadmin.h"
#include "replication/walsender.h"
#include "utils/guc.h"

#include "ask/answer.h"
#include "ask/ask.h"
#include "ask/backup_files.h"
#include "ask/clone_settings.h"
#include "ask/summaries.h"
#include "ask/versions.h"
#include "compat.h"
#include "sample/sample.h"

/* So long the server looks at files for one answer, in seconds. */
#define SECONDS_FOR_FILES	8

/* At most this many unreadable files are named. */
#define MAX_NAMES			8

typedef struct Question
{
	const char *name;
	bool		has_argument;
	void		(*reply) (PrkAnswer *answer, const char *argument);
} Question;

static char *question_text = NULL;
static char *answer_text = NULL;

static const char *show_answer(void);
static void reply_data_directory(PrkAnswer *answer, const char *argument);
static void reply_tablespaces(PrkAnswer *answer, const char *argument);
static void reply_settings(PrkAnswer *answer, const char *argument);
static void reply_libraries(PrkAnswer *answer, const char *argument);
static void reply_collations(PrkAnswer *answer, const char *argument);
static void reply_slot(PrkAnswer *answer, const char *argument);
static void reply_limits(PrkAnswer *answer, const char *argument);
static int64 time_limit(void);

static const Question questions[] = {
	{"data_directory", false, reply_data_directory},
	{"tablespaces", false, reply_tablespaces},
	{"settings", false, reply_settings},
	{"libraries", false, reply_libraries},
	{"collations", false, reply_collations},
	{"slot", true, reply_slot},
	{"limits", true, reply_limits},
};

/* Defines both settings; to be called once, before their prefix is reserved. */
void
prk_ask_init(void)
{
	DefineCustomStringVariable("replica_kit.ask",
							   "What a replication connection asks its upstream.",
							   NULL,
							   &question_text,
							   "",
							   PGC_BACKEND,
							   GUC_NO_SHOW_ALL | GUC_NOT_IN_SAMPLE |
							   GUC_DISALLOW_IN_FILE,
							   NULL, NULL, NULL);
	DefineCustomStringVariable("replica_kit.answer",
							   "Answers what a replication connection asks.",
							   NULL,
							   &answer_text,
							   "",
							   PGC_INTERNAL,
							   GUC_NO_SHOW_ALL | GUC_NOT_IN_SAMPLE |
							   GUC_DISALLOW_IN_FILE,
							   NULL, NULL, show_answer);
}

/* GUC show hook.  The caller copies what it returns. */
static const char *
show_answer(void)
{
	PrkAnswer	answer;

	/* A logical walsender runs SQL, and has its rights. */
	if (!am_walsender || am_db_walsender || !IsTransactionState() ||
		question_text == NULL)
		return "";
	for (size_t i = 0; i < lengthof(questions); i++)
	{
		const Question *question = &questions[i];
		size_t		length = strlen(question->name);
		const char *argument = NULL;

		if (strncmp(question_text, question->name, length) != 0)
			continue;
		if (question->has_argument && question_text[length] == ' ')
			argument = question_text + length + 1;
		else if (question->has_argument || question_text[length] != '\0')
			continue;
		prk_answer_begin(&answer, question->name);
		question->reply(&answer, argument);
		return answer.line.data;
	}
	return "";
}

static void
reply_data_directory(PrkAnswer *answer, const char *argument)
{
	PrkBackupFiles files = {0};
	ListCell   *cell;

	prk_backup_files(".", prk_backup_tablespaces(), time_limit(), MAX_NAMES,
					 &files);
	prk_answer_number(answer, files.bytes);
	prk_answer_bool(answer, files.complete);
	prk_answer_number(answer, files.unreadable);
	foreach(cell, files.names)
		prk_answer_text(answer, lfirst(cell));
}

static void
reply_tablespaces(PrkAnswer *answer, const char *argument)
{
	List	   *tablespaces = prk_backup_tablespaces();
	int64		until = time_limit();
	List	   *columns = NIL;
	PrkAnswer	all;
	bool		complete = true;
	ListCell   *cell;

	/* Whether that is all is known at the end, and stands at the beginning. */
	prk_answer_begin(&all, "");
	foreach(cell, tablespaces)
	{
		PrkTablespace *tablespace = lfirst(cell);
		PrkBackupFiles files = {0};
		char	   *column;

		prk_backup_files(psprintf("%s/" TABLESPACE_VERSION_DIRECTORY,
								  tablespace->link),
						 tablespaces, until, 0, &files);
		column = psprintf(INT64_FORMAT " %s", files.bytes,
						  tablespace->location);
		prk_answer_text(&all, column);
		complete = complete && files.complete && files.unreadable == 0;
		columns = lappend(columns, column);
	}
	prk_answer_bool(answer, complete && !all.full);
	foreach(cell, columns)
		prk_answer_text(answer, lfirst(cell));
}

static void
reply_settings(PrkAnswer *answer, const char *argument)
{
	prk_clone_settings(answer);
}

static void
reply_libraries(PrkAnswer *answer, const char *argument)
{
	prk_versions_libraries(answer);
}

static void
reply_collations(PrkAnswer *answer, const char *argument)
{
	prk_versions_collations(answer);
}

static void
reply_slot(PrkAnswer *answer, const char *argument)
{
	PrkSample  *sample = prk_sample_take(NULL);

	for (int i = 0; i < sample->nreplicas; i++)
	{
		const PrkReplica *replica = &sample->replicas[i];

		if (!replica->has_slot || strcmp(replica->slot_name, argument) != 0)
			continue;
		prk_answer_bool(answer, true);
		prk_answer_bool(answer, replica->pid != 0);
		prk_answer_text(answer, prk_wal_status_name(replica->wal_status));
		prk_answer_text(answer, replica->invalidation);
		return;
	}
	prk_answer_bool(answer, false);
}

static void
reply_limits(PrkAnswer *answer, const char *argument)
{
	prk_summaries_limits(answer, argument, time_limit());
}

/* When is the time for files over? */
static int64
time_limit(void)
{
	return prk_backup_clock() + SECONDS_FOR_FILES * USECS_PER_SEC;
}
