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

#include "lib/stringinfo.h"
#include "utils/builtins.h"
#include "utils/timestamp.h"

#include "format.h"
#include "sql.h"
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

static const PrkSignature history_signature = {
	.args = {TEXTOID, INTERVALOID},
	.ncolumns = HISTORY_NCOLS,
	.columns = {
		[HISTORY_SAMPLED_AT] = TIMESTAMPTZOID,
		[HISTORY_NAME] = TEXTOID,
		[HISTORY_STATE] = TEXTOID,
		[HISTORY_LAG_BYTES] = INT8OID,
		[HISTORY_LAG_TIME] = INTERVALOID,
		[HISTORY_RETAINED_BYTES] = INT8OID
	}
};

static const PrkSignature lag_graph_signature = {
	.args = {TEXTOID, INTERVALOID, INT4OID},
	.result = TEXTOID
};

PG_FUNCTION_INFO_V1(pg_replica_kit_history_1_0);
PG_FUNCTION_INFO_V1(pg_replica_kit_lag_graph_1_0);

static void require_history(void);
static TimestampTz get_since(FunctionCallInfo fcinfo, int argno,
							 TimestampTz now);
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
pg_replica_kit_history_1_0(PG_FUNCTION_ARGS)
{
	TimestampTz now = GetCurrentTimestamp();
	const char *name;
	PrkHistoryRow *rows;
	int			nrows;
	PrkRow		row;

	prk_rows_begin(fcinfo, &history_signature, &row);
	require_history();

	name = PG_ARGISNULL(0) ? NULL : prk_arg_name(fcinfo, 0, "name");
	rows = prk_history_read(name, get_since(fcinfo, 1, now), &nrows);
	for (int i = 0; i < nrows; i++)
	{
		const PrkHistoryRow *sample = &rows[i];

		prk_put_time(&row, HISTORY_SAMPLED_AT, sample->sampled_at);
		prk_put_text(&row, HISTORY_NAME, sample->name);
		prk_put_text(&row, HISTORY_STATE, prk_state_name(sample->state));
		prk_put_bytes(&row, HISTORY_LAG_BYTES, sample->lag_bytes);
		prk_put_interval(&row, HISTORY_LAG_TIME, sample->lag_time);
		prk_put_bytes(&row, HISTORY_RETAINED_BYTES, sample->retained_bytes);
		prk_rows_add(&row);
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
pg_replica_kit_lag_graph_1_0(PG_FUNCTION_ARGS)
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

	prk_sql_check(fcinfo, &lag_graph_signature);
	require_history();
	name = prk_arg_name(fcinfo, 0, "name");
	since = get_since(fcinfo, 1, now);
	width = prk_arg_int32(fcinfo, 2, "width");
	if (width < 1 || width > MAX_WIDTH)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("width must be between 1 and %d", MAX_WIDTH)));
	if (TIMESTAMP_NOT_FINITE(since))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("since must be finite")));
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
	Interval   *since = prk_arg_interval(fcinfo, argno, "since");

	return DatumGetTimestampTz(DirectFunctionCall2(timestamptz_mi_interval,
												   TimestampTzGetDatum(now),
												   IntervalPGetDatum(since)));
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
