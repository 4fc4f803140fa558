/*-------------------------------------------------------------------------
 *
 * history_funcs.c
 *	  SQL: history(), lag_graph().
 *
 * No function here checks who asks: EXECUTE, which PUBLIC has not, is the
 * only gate.
 *
 * IDENTIFICATION
 *	  src/watch/history_funcs.c
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "fmgr.h"
#include "funcapi.h"
#include "lib/stringinfo.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/timestamp.h"
#include "utils/tuplestore.h"

#include "format.h"
#include "watch/history.h"

/* How many lines the picture of lag_graph() has. */
#define GRAPH_HEIGHT	8

#define MAX_WIDTH		1000

/* Columns of history() */
typedef enum HistoryColumn
{
	HISTORY_SAMPLED_AT,
	HISTORY_NAME,
	HISTORY_STATE,
	HISTORY_LAG_BYTES,
	HISTORY_LAG_TIME,
	HISTORY_RETAINED_BYTES,
	HISTORY_NCOLS
} HistoryColumn;

/* What a column of the picture shows. */
typedef struct GraphBar
{
	bool		sampled;
	int64		value;			/* the greatest; -1 none known */
} GraphBar;

PG_FUNCTION_INFO_V1(pg_replica_kit_history);
PG_FUNCTION_INFO_V1(pg_replica_kit_lag_graph);

static void require_history(void);
static TimestampTz get_since(FunctionCallInfo fcinfo, int argno,
							 TimestampTz now);
static char *get_name(FunctionCallInfo fcinfo, int argno);
static bool fill_bars(const PrkHistoryRow *rows, int nrows,
					  TimestampTz since, TimestampTz now,
					  GraphBar *bars, int width);
static void draw(StringInfo buf, const GraphBar *bars, int width,
				 const char *top_label, const char *bottom_label,
				 int64 top);

/*
 * history(name text, since interval)
 */
Datum
pg_replica_kit_history(PG_FUNCTION_ARGS)
{
	ReturnSetInfo *rsinfo = (ReturnSetInfo *) fcinfo->resultinfo;
	TimestampTz now = GetCurrentTimestamp();
	PrkHistoryRow *rows;
	int			nrows;

	require_history();
	InitMaterializedSRF(fcinfo, 0);
	Assert(rsinfo->setDesc->natts == HISTORY_NCOLS);

	rows = prk_history_read(PG_ARGISNULL(0) ? NULL : get_name(fcinfo, 0),
							get_since(fcinfo, 1, now), &nrows);
	for (int i = 0; i < nrows; i++)
	{
		const PrkHistoryRow *row = &rows[i];
		Datum		values[HISTORY_NCOLS] = {0};
		bool		nulls[HISTORY_NCOLS] = {0};
		Interval	lag_time = {0};

		CHECK_FOR_INTERRUPTS();
		lag_time.time = row->lag_time;
		values[HISTORY_SAMPLED_AT] = TimestampTzGetDatum(row->sampled_at);
		values[HISTORY_NAME] = CStringGetTextDatum(row->name);
		values[HISTORY_STATE] = CStringGetTextDatum(prk_state_name(row->state));
		values[HISTORY_LAG_BYTES] = Int64GetDatum(row->lag_bytes);
		values[HISTORY_LAG_TIME] = IntervalPGetDatum(&lag_time);
		values[HISTORY_RETAINED_BYTES] = Int64GetDatum(row->retained_bytes);
		nulls[HISTORY_LAG_BYTES] = row->lag_bytes < 0;
		nulls[HISTORY_LAG_TIME] = row->lag_time < 0;
		nulls[HISTORY_RETAINED_BYTES] = row->retained_bytes < 0;
		tuplestore_putvalues(rsinfo->setResult, rsinfo->setDesc,
							 values, nulls);
	}
	return (Datum) 0;
}

/*
 * lag_graph(name text, since interval, width integer)
 *
 * The lag in time, or in bytes if no time is known; each column shows the
 * greatest of its part of the time, so that no peak is lost.
 */
Datum
pg_replica_kit_lag_graph(PG_FUNCTION_ARGS)
{
	TimestampTz now = GetCurrentTimestamp();
	const char *name;
	TimestampTz since;
	PrkHistoryRow *rows;
	int			nrows;
	int			width;
	bool		in_time;
	GraphBar   *bars;
	int64		top = 0;
	char		span[PRK_FORMAT_LEN];
	char		top_label[PRK_FORMAT_LEN];
	StringInfoData buf;

	require_history();
	if (PG_ARGISNULL(0))
		ereport(ERROR,
				(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
				 errmsg("name must not be null")));
	name = get_name(fcinfo, 0);
	since = get_since(fcinfo, 1, now);
	width = PG_ARGISNULL(2) ? 0 : PG_GETARG_INT32(2);
	if (width < 1 || width > MAX_WIDTH)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("width must be between 1 and %d", MAX_WIDTH)));
	if (since >= now)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("since must be greater than zero")));

	rows = prk_history_read(name, since, &nrows);
	bars = palloc(width * sizeof(GraphBar));
	in_time = fill_bars(rows, nrows, since, now, bars, width);
	for (int i = 0; i < width; i++)
		top = Max(top, bars[i].value);

	prk_format_duration(span, now - since);
	if (in_time)
		prk_format_duration(top_label, top);
	else
		prk_format_size(top_label, top);

	initStringInfo(&buf);
	if (nrows == 0)
		appendStringInfo(&buf, "%s: no samples of the last %s", name, span);
	else
	{
		appendStringInfo(&buf, "%s: lag over the last %s, at most %s\n",
						 name, span, top_label);
		draw(&buf, bars, width, top_label, in_time ? "0 s" : "0 bytes", top);
	}
	PG_RETURN_TEXT_P(cstring_to_text_with_len(buf.data, buf.len));
}

/* Raises an error where no history is kept. */
static void
require_history(void)
{
	if (!prk_history_exists())
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("no history is kept"),
				 errhint("Add pg_replica_kit to shared_preload_libraries, set replica_kit.history_samples to more than 0, and restart the server.")));
}

/* The time so long ago as the argument says. */
static TimestampTz
get_since(FunctionCallInfo fcinfo, int argno, TimestampTz now)
{
	if (PG_ARGISNULL(argno))
		ereport(ERROR,
				(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
				 errmsg("since must not be null")));
	return DatumGetTimestampTz(DirectFunctionCall2(timestamptz_mi_interval,
												   TimestampTzGetDatum(now),
												   PG_GETARG_DATUM(argno)));
}

static char *
get_name(FunctionCallInfo fcinfo, int argno)
{
	char	   *name = text_to_cstring(PG_GETARG_TEXT_PP(argno));

	if (strlen(name) >= NAMEDATALEN)
		ereport(ERROR,
				(errcode(ERRCODE_NAME_TOO_LONG),
				 errmsg("name of a replica is too long"),
				 errdetail("It may have up to %d bytes.", NAMEDATALEN - 1)));
	return name;
}

/* Returns whether the bars show time; else they show bytes. */
static bool
fill_bars(const PrkHistoryRow *rows, int nrows, TimestampTz since,
		  TimestampTz now, GraphBar *bars, int width)
{
	bool		in_time = false;

	for (int i = 0; i < nrows; i++)
		in_time = in_time || rows[i].lag_time >= 0;
	for (int i = 0; i < width; i++)
	{
		bars[i].sampled = false;
		bars[i].value = -1;
	}
	for (int i = 0; i < nrows; i++)
	{
		double		part = (double) (rows[i].sampled_at - since) /
		(double) (now - since);
		GraphBar   *bar = &bars[Max(Min((int) (part * width), width - 1), 0)];

		bar->sampled = true;
		bar->value = Max(bar->value,
						 in_time ? rows[i].lag_time : rows[i].lag_bytes);
	}
	return in_time;
}

/* The lines of the picture, the last one without a newline. */
static void
draw(StringInfo buf, const GraphBar *bars, int width,
	 const char *top_label, const char *bottom_label, int64 top)
{
	int			margin = Max(strlen(top_label), strlen(bottom_label));

	for (int line = GRAPH_HEIGHT; line >= 1; line--)
	{
		int			start;

		appendStringInfo(buf, "%*s |", margin,
						 line == GRAPH_HEIGHT ? top_label :
						 line == 1 ? bottom_label : "");
		start = buf->len;
		for (int i = 0; i < width; i++)
		{
			double		height = top <= 0 ? 0 :
			(double) bars[i].value / (double) top * GRAPH_HEIGHT;

			if (bars[i].value > 0 && (height > line - 1 || line == 1))
				appendStringInfoChar(buf, '#');
			else if (line == 1 && bars[i].value == 0)
				appendStringInfoChar(buf, '_');
			else if (line == 1 && bars[i].sampled && bars[i].value < 0)
				appendStringInfoChar(buf, '?');
			else
				appendStringInfoChar(buf, ' ');
		}
		while (buf->len > start && buf->data[buf->len - 1] == ' ')
			buf->data[--buf->len] = '\0';
		if (line > 1)
			appendStringInfoChar(buf, '\n');
	}
}
