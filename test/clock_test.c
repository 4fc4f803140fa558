/*-------------------------------------------------------------------------
 *
 * clock_test.c
 *	  Drives src/clock/clock.c and src/clock/clock_file.c for the tests, from SQL.
 *
 * A module of its own, never installed.  Each session has one clock, to which
 * it brings the times itself, in seconds: days pass in a moment, machines
 * boot, and wall clocks jump.
 *
 * IDENTIFICATION
 *	  test/clock_test.c
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "fmgr.h"
#include "utils/builtins.h"

#include "clock/clock_file.h"

PG_MODULE_MAGIC;

PG_FUNCTION_INFO_V1(clock_test_clear);
PG_FUNCTION_INFO_V1(clock_test_add);
PG_FUNCTION_INFO_V1(clock_test_resume);
PG_FUNCTION_INFO_V1(clock_test_cut);
PG_FUNCTION_INFO_V1(clock_test_forget);
PG_FUNCTION_INFO_V1(clock_test_age);
PG_FUNCTION_INFO_V1(clock_test_rate);
PG_FUNCTION_INFO_V1(clock_test_write);
PG_FUNCTION_INFO_V1(clock_test_read);

static PrkClock the_clock;

static int64
to_microseconds(float8 seconds)
{
	return (int64) (seconds * USECS_PER_SEC);
}

/* clock_test_clear() */
Datum
clock_test_clear(PG_FUNCTION_ARGS)
{
	prk_clock_clear(&the_clock);
	PG_RETURN_VOID();
}

/* clock_test_add(at, position) */
Datum
clock_test_add(PG_FUNCTION_ARGS)
{
	prk_clock_add(&the_clock, to_microseconds(PG_GETARG_FLOAT8(0)),
				  PG_GETARG_INT64(1));
	PG_RETURN_VOID();
}

/* clock_test_resume(position) */
Datum
clock_test_resume(PG_FUNCTION_ARGS)
{
	prk_clock_resume(&the_clock, PG_GETARG_INT64(0));
	PG_RETURN_VOID();
}

/* clock_test_cut(position) */
Datum
clock_test_cut(PG_FUNCTION_ARGS)
{
	prk_clock_cut(&the_clock, PG_GETARG_INT64(0));
	PG_RETURN_VOID();
}

/* clock_test_forget(since) */
Datum
clock_test_forget(PG_FUNCTION_ARGS)
{
	prk_clock_forget(&the_clock, to_microseconds(PG_GETARG_FLOAT8(0)));
	PG_RETURN_VOID();
}

/* clock_test_age(position, now, current): ">= " if it is only so much known */
Datum
clock_test_age(PG_FUNCTION_ARGS)
{
	PrkClockAge age = prk_clock_age(&the_clock, PG_GETARG_INT64(0),
									to_microseconds(PG_GETARG_FLOAT8(1)),
									PG_GETARG_INT64(2));

	PG_RETURN_TEXT_P(cstring_to_text(psprintf("%s%.1f", age.known ? "" : ">= ",
											  (double) age.age /
											  USECS_PER_SEC)));
}

/* clock_test_rate(now, current, window): bytes per second, or -1 */
Datum
clock_test_rate(PG_FUNCTION_ARGS)
{
	PG_RETURN_FLOAT8(prk_clock_rate(&the_clock,
									to_microseconds(PG_GETARG_FLOAT8(0)),
									PG_GETARG_INT64(1),
									to_microseconds(PG_GETARG_FLOAT8(2))));
}

/* The arguments wall, boottime, boot_id, system from the one at argno on. */
static PrkClockMoment
get_moment(FunctionCallInfo fcinfo, int argno)
{
	PrkClockMoment moment = {0};

	moment.wall = to_microseconds(PG_GETARG_FLOAT8(argno));
	moment.boottime = to_microseconds(PG_GETARG_FLOAT8(argno + 1));
	strlcpy(moment.boot_id, text_to_cstring(PG_GETARG_TEXT_PP(argno + 2)),
			sizeof(moment.boot_id));
	moment.system_identifier = PG_GETARG_INT64(argno + 3);
	return moment;
}

/* clock_test_write(path, wall, boottime, boot_id, system) */
Datum
clock_test_write(PG_FUNCTION_ARGS)
{
	char	   *path = text_to_cstring(PG_GETARG_TEXT_PP(0));
	PrkClockMoment moment = get_moment(fcinfo, 1);

	PG_RETURN_BOOL(prk_clock_file_write(path, &the_clock, &moment,
										NULL, 0));
}

/* clock_test_read(path, wall, boottime, boot_id, system): the problem, or ok */
Datum
clock_test_read(PG_FUNCTION_ARGS)
{
	char	   *path = text_to_cstring(PG_GETARG_TEXT_PP(0));
	PrkClockMoment moment = get_moment(fcinfo, 1);
	const char *problem = prk_clock_file_read(path, &the_clock, &moment);

	PG_RETURN_TEXT_P(cstring_to_text(problem != NULL ? problem : "ok"));
}
