/*-------------------------------------------------------------------------
 *
 * silence_funcs.c
 *	  SQL: silence(), unsilence(), silences().
 *
 * They write no catalog, so that they work on a standby, too; and what they do
 * is done at once, whatever becomes of the transaction.
 *
 * IDENTIFICATION
 *	  src/diagnose/silence_funcs.c
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "miscadmin.h"
#include "utils/timestamp.h"

#include "clock/clock_shared.h"
#include "diagnose/diagnose.h"
#include "diagnose/subjects.h"
#include "format.h"
#include "sql.h"

/* In bytes: escaped, each may be four. */
#define MAX_REASON		((PRK_FOREIGN_WORDS_LEN - 1) / 4)

/* The columns of silences(), in order. */
typedef enum SilenceColumn
{
	SILENCE_NAME,
	SILENCE_SINCE,
	SILENCE_UNTIL,
	SILENCE_ROLE_NAME,
	SILENCE_REASON,
	SILENCE_NCOLS
} SilenceColumn;

static const PrkSignature silence_signature = {
	.args = {TEXTOID, INTERVALOID, TEXTOID},
	.result = TIMESTAMPTZOID
};

static const PrkSignature unsilence_signature = {
	.args = {TEXTOID},
	.result = BOOLOID
};

static const PrkSignature silences_signature = {
	.ncolumns = SILENCE_NCOLS,
	.columns = {
		[SILENCE_NAME] = TEXTOID,
		[SILENCE_SINCE] = TIMESTAMPTZOID,
		[SILENCE_UNTIL] = TIMESTAMPTZOID,
		[SILENCE_ROLE_NAME] = TEXTOID,
		[SILENCE_REASON] = TEXTOID
	}
};

PG_FUNCTION_INFO_V1(pg_replica_kit_silence_1_0);
PG_FUNCTION_INFO_V1(pg_replica_kit_unsilence_1_0);
PG_FUNCTION_INFO_V1(pg_replica_kit_silences_1_0);

static void require_table(void);
static char *get_name(FunctionCallInfo fcinfo);
static void require_subject(const char *name);
static int64 get_duration(FunctionCallInfo fcinfo, int argno);
static void log_silence(const PrkSilence *silence);
static const char *label_of(const char *name);

/*
 * silence(name text, duration interval, reason text) - nothing is told of that
 * name for so long, but what cannot be undone.  Returns when that ends.
 */
Datum
pg_replica_kit_silence_1_0(PG_FUNCTION_ARGS)
{
	PrkSilence	silence = {0};
	TimestampTz now;
	TimestampTz until;
	char	   *name;

	prk_sql_check(fcinfo, &silence_signature);
	name = get_name(fcinfo);
	strlcpy(silence.name, name, PRK_SILENCE_NAME_LEN);
	silence.begun_at = prk_clock_now();
	now = GetCurrentTimestamp();

	/* To a whole second, so that it is shown as the same one each time. */
	until = (now + get_duration(fcinfo, 1) + USECS_PER_SEC - 1) /
		USECS_PER_SEC * USECS_PER_SEC;
	silence.ends_at = Min(silence.begun_at + (until - now),
						  silence.begun_at + PRK_MAX_SILENCE);
	if (!PG_ARGISNULL(2))
	{
		char	   *reason = prk_arg_text(fcinfo, 2, "reason");

		if (strlen(reason) > MAX_REASON)
			ereport(ERROR,
					(errcode(ERRCODE_STRING_DATA_RIGHT_TRUNCATION),
					 errmsg("argument \"%s\" is too long", "reason"),
					 errdetail("A reason must not be longer than %d bytes.",
							   MAX_REASON)));
		prk_foreign_set_words(&silence.reason, reason, false, false);
	}
	prk_foreign_set(&silence.role_name,
					GetUserNameFromId(GetSessionUserId(), false));
	require_table();
	require_subject(name);

	if (!prk_silence_begin(&silence))
		ereport(ERROR,
				(errcode(ERRCODE_CONFIGURATION_LIMIT_EXCEEDED),
				 errmsg("too many names are silenced"),
				 errdetail("There is room for %d.", PRK_MAX_SILENCES),
				 errhint("End one: SELECT replica_kit.unsilence(name) FROM replica_kit.silences();")));
	log_silence(&silence);
	PG_RETURN_TIMESTAMPTZ(prk_silence_time(silence.ends_at));
}

/* unsilence(name text) - ends a silence; was there one? */
Datum
pg_replica_kit_unsilence_1_0(PG_FUNCTION_ARGS)
{
	PrkForeign	role_name;
	char	   *name;

	prk_sql_check(fcinfo, &unsilence_signature);
	name = get_name(fcinfo);
	require_table();

	/* The replica may be no more. */
	if (!prk_silence_end(name))
	{
		require_subject(name);
		PG_RETURN_BOOL(false);
	}
	prk_foreign_set(&role_name, GetUserNameFromId(GetSessionUserId(), false));
	ereport(LOG,
			(errmsg("replica_kit: user \"%s\" ended the silence of %s",
					prk_foreign_show(&role_name), label_of(name)),
			 errhidestmt(true)));
	PG_RETURN_BOOL(true);
}

/* silences() - those that are not over, by name. */
Datum
pg_replica_kit_silences_1_0(PG_FUNCTION_ARGS)
{
	PrkSilences silences;
	PrkRow		row;

	prk_rows_begin(fcinfo, &silences_signature, &row);
	require_table();
	prk_silence_read(&silences);
	for (int i = 0; i < silences.count; i++)
	{
		const PrkSilence *silence = &silences.silences[i];
		char	   *reason = prk_foreign_show_words(&silence->reason);

		prk_put_text(&row, SILENCE_NAME, prk_foreign_show_text(silence->name));
		prk_put_time(&row, SILENCE_SINCE,
					 prk_silence_time(silence->begun_at));
		prk_put_time(&row, SILENCE_UNTIL, prk_silence_time(silence->ends_at));
		prk_put_text(&row, SILENCE_ROLE_NAME,
					 prk_foreign_show(&silence->role_name));
		prk_put_text(&row, SILENCE_REASON, reason[0] != '\0' ? reason : NULL);
		prk_rows_add(&row);
	}
	return (Datum) 0;
}

/* Raises an error without preloading: there is neither table nor worker. */
static void
require_table(void)
{
	if (!prk_silence_possible())
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("pg_replica_kit must be loaded via shared_preload_libraries"),
				 errdetail("Silences are kept in shared memory.")));
}

/* The name, which may be one that diagnose() shows escaped and in quotes. */
static char *
get_name(FunctionCallInfo fcinfo)
{
	char	   *name = prk_arg_text(fcinfo, 0, "name");

	if (strlen(name) >= PRK_SILENCE_NAME_LEN)
		ereport(ERROR,
				(errcode(ERRCODE_NAME_TOO_LONG),
				 errmsg("argument \"%s\" is too long", "name")));
	return name;
}

/* Raises an error if there is nothing of that name, as diagnose() does. */
static void
require_subject(const char *name)
{
	PrkEvidence *evidence = prk_evidence_gather();

	prk_subject_require(evidence, prk_diagnose(evidence), name);
}

/* The duration in microseconds, more than none and at most a day. */
static int64
get_duration(FunctionCallInfo fcinfo, int argno)
{
	const Interval *interval = prk_arg_interval(fcinfo, argno, "duration");

	/* Exact for all that is let through; nothing overflows. */
	double		duration = (double) interval->time +
	(double) interval->day * USECS_PER_DAY +
	(double) interval->month * DAYS_PER_MONTH * USECS_PER_DAY;

	if (duration <= 0)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("duration must be greater than zero")));
	if (duration > PRK_MAX_SILENCE)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("duration must be at most a day"),
				 errhint("To switch judgement of a replica off for good, use replica_kit.overrides.")));
	return (int64) duration;
}

/* The audit line. */
static void
log_silence(const PrkSilence *silence)
{
	char		until[PRK_FORMAT_LEN];
	char	   *reason = prk_foreign_show_words(&silence->reason);

	ereport(LOG,
			(errmsg("replica_kit: user \"%s\" silenced %s until %s%s%s",
					prk_foreign_show(&silence->role_name),
					label_of(silence->name),
					prk_format_time(until, prk_silence_time(silence->ends_at)),
					reason[0] != '\0' ? ": " : "", reason),
			 errhidestmt(true)));
}

/* What the name is of, and the name. */
static const char *
label_of(const char *name)
{
	if (strcmp(name, PRK_SERVER_NAME) == 0 ||
		strcmp(name, PRK_UPSTREAM_NAME) == 0)
		return name;
	return psprintf("replica \"%s\"", prk_foreign_show_text(name));
}
