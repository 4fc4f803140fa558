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

#include "utils/builtins.h"
#include "utils/timestamp.h"

#include "format.h"
#include "settings.h"
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

/* The picture of lag_graph() */
typedef struct Graph
{
	TimestampTz since;
	TimestampTz until;
	int			width;			/* columns */
	bool		in_time;		/* values are microseconds; else bytes */
	int64		top;			/* the greatest value */
	char		top_label[PRK_FORMAT_LEN];
	GraphBar   *bars;
} Graph;

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
	.ncolumns = 1,
	.columns = {TEXTOID}
};

PG_FUNCTION_INFO_V1(pg_replica_kit_history_1_0);
PG_FUNCTION_INFO_V1(pg_replica_kit_lag_graph_1_0);

static void require_history(void);
static TimestampTz get_since(FunctionCallInfo fcinfo, int argno,
							 TimestampTz now);
static int	column_of(const Graph *graph, TimestampTz time);
static int64 longest_step(const PrkHistoryRow *rows, int nrows);
static int	compare_steps(const void *a, const void *b);
static void fill_bars(Graph *graph, const PrkHistoryRow *rows, int nrows);
static void draw(const Graph *graph, PrkRow *row);
static char bar_char(const Graph *graph, const GraphBar *bar, int line);
static void draw_axis(const Graph *graph, int margin, PrkRow *row);
static char *format_moment(const Graph *graph, TimestampTz time);
static void add_line(PrkRow *row, const char *line);

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
 * lag_graph(name text, since interval, width integer) - a row for each line
 *
 * The lag in time, or in bytes if no time is known; each column shows the
 * greatest of its part of the time, so that no peak is lost.
 */
Datum
pg_replica_kit_lag_graph_1_0(PG_FUNCTION_ARGS)
{
	Graph		graph = {0};
	const char *name;
	PrkHistoryRow *rows;
	int			nrows;
	char		span[PRK_FORMAT_LEN];
	PrkRow		row;

	prk_rows_begin(fcinfo, &lag_graph_signature, &row);
	require_history();
	graph.until = GetCurrentTimestamp();
	name = prk_arg_name(fcinfo, 0, "name");
	graph.since = get_since(fcinfo, 1, graph.until);
	graph.width = prk_arg_int32(fcinfo, 2, "width");
	if (graph.width < 1 || graph.width > MAX_WIDTH)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("width must be between 1 and %d", MAX_WIDTH)));
	if (TIMESTAMP_NOT_FINITE(graph.since))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("since must be finite")));
	if (graph.since >= graph.until)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("since must be greater than zero")));

	rows = prk_history_read(name, graph.since, &nrows);
	prk_format_span(span, graph.until - graph.since);
	if (nrows == 0)
		add_line(&row, psprintf("%s: no samples of the last %s", name, span));
	else
	{
		fill_bars(&graph, rows, nrows);
		add_line(&row, psprintf("%s: lag over the last %s, at most %s",
								name, span, graph.top_label));
		draw(&graph, &row);
	}
	return (Datum) 0;
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

/* The column of a time */
static int
column_of(const Graph *graph, TimestampTz time)
{
	double		part = (double) (time - graph->since) /
	(double) (graph->until - graph->since);

	return Max(Min((int) (part * graph->width), graph->width - 1), 0);
}

/*
 * For how long a sample counts as long as there is no other, in microseconds:
 * where samples are further from each other than usual, nobody looked.
 */
static int64
longest_step(const PrkHistoryRow *rows, int nrows)
{
	int64		usual = (int64) prk_check_interval * 1000;

	if (nrows > 1)
	{
		int64	   *steps = palloc((nrows - 1) * sizeof(int64));

		for (int i = 1; i < nrows; i++)
			steps[i - 1] = rows[i].sampled_at - rows[i - 1].sampled_at;
		qsort(steps, nrows - 1, sizeof(int64), compare_steps);
		usual = Max(usual, steps[(nrows - 1) / 2]);
		pfree(steps);
	}
	return 3 * usual;
}

static int
compare_steps(const void *a, const void *b)
{
	int64		step_a = *(const int64 *) a;
	int64		step_b = *(const int64 *) b;

	return (step_a > step_b) - (step_a < step_b);
}

/*
 * Sets the bars, what they show, and what the greatest is.  A sample counts
 * until the next one, so that a picture of more columns than samples has no
 * holes.  There is at least one row.
 */
static void
fill_bars(Graph *graph, const PrkHistoryRow *rows, int nrows)
{
	int64		longest = longest_step(rows, nrows);

	for (int i = 0; i < nrows; i++)
		graph->in_time = graph->in_time || rows[i].lag_time >= 0;
	graph->bars = palloc0(graph->width * sizeof(GraphBar));
	for (int i = 0; i < graph->width; i++)
		graph->bars[i].value = -1;

	for (int i = 0; i < nrows; i++)
	{
		int64		value = graph->in_time ? rows[i].lag_time : rows[i].lag_bytes;
		TimestampTz next = i + 1 < nrows ? rows[i + 1].sampled_at : graph->until;
		int			first = column_of(graph, rows[i].sampled_at);
		int			last = first;

		if (next - rows[i].sampled_at <= longest)
			last = Max(first, column_of(graph, next) - (i + 1 < nrows));
		for (int j = first; j <= last; j++)
		{
			graph->bars[j].sampled = true;
			graph->bars[j].value = Max(graph->bars[j].value, value);
		}
		graph->top = Max(graph->top, value);
	}
	if (graph->in_time)
		prk_format_span(graph->top_label, graph->top);
	else
		prk_format_size(graph->top_label, graph->top);
}

/* The lines of the picture: the bars, an axis, and times below it. */
static void
draw(const Graph *graph, PrkRow *row)
{
	const char *bottom_label = graph->in_time ? "0 s" : "0 bytes";
	int			margin = Max(strlen(graph->top_label), strlen(bottom_label));
	char	   *text = palloc(margin + graph->width + 3);

	for (int line = GRAPH_HEIGHT; line >= 1; line--)
	{
		int			len = sprintf(text, "%*s |", margin,
								  line == GRAPH_HEIGHT ? graph->top_label :
								  line == 1 ? bottom_label : "");

		for (int i = 0; i < graph->width; i++)
			text[		len++] = bar_char(graph, &graph->bars[i], line);
		text[		len] = '\0';

		add_line(row, text);
	}
	draw_axis(graph, margin, row);
}

/* What stands for a bar in a line, of which 1 is the last. */
static char
bar_char(const Graph *graph, const GraphBar *bar, int line)
{
	double		height = graph->top <= 0 ? 0 :
	(double) bar->value / (double) graph->top * GRAPH_HEIGHT;

	if (bar->value > 0 && (height > line - 1 || line == 1))
		return '#';
	if (line == 1 && bar->value == 0)
		return '_';
	if (line == 1 && bar->sampled && bar->value < 0)
		return '?';
	return ' ';
}

/*
 * The axis with its marks, and the times of these in the session's time zone:
 * that of a mark begins below it, the last one ends at the end.  The first mark
 * is the corner; the end has none, which would look like psql's own mark of a
 * line that goes on.
 */
static void
draw_axis(const Graph *graph, int margin, PrkRow *row)
{
	int			label_len = strlen(format_moment(graph, graph->since));
	int			nparts = Max((graph->width - label_len) / (label_len + 6), 0);
	char	   *axis = palloc(margin + graph->width + 3);
	char	   *labels = palloc(margin + graph->width + label_len + 3);
	int			start = margin + 2;

	memset(axis, ' ', start);
	memset(axis + start, '-', graph->width);
	axis[start + graph->width] = '\0';
	memset(labels, ' ', start + graph->width + label_len);
	for (int i = 0; i < Max(nparts, 1); i++)
	{
		int			at = nparts == 0 ? 0 : i * (graph->width - label_len) / nparts;
		TimestampTz time = graph->since +
		(graph->until - graph->since) / graph->width * at;

		at = i == 0 ? -1 : at;
		axis[start + at] = '+';
		memcpy(labels + start + at, format_moment(graph, time), label_len);
	}
	if (nparts > 0)
	{
		memcpy(labels + start + graph->width - label_len,
			   format_moment(graph, graph->until), label_len);
	}
	labels[start + Max(graph->width, label_len)] = '\0';
	add_line(row, axis);
	add_line(row, labels);
}

/* A time as the axis shows it, as exactly as the span asks for; palloc'd. */
static char *
format_moment(const Graph *graph, TimestampTz time)
{
	int64		span = graph->until - graph->since;
	struct pg_tm tm;
	fsec_t		fsec;
	int			zone;

	if (timestamp2tm(time, &zone, &tm, &fsec, NULL, NULL) != 0)
		ereport(ERROR,
				(errcode(ERRCODE_DATETIME_VALUE_OUT_OF_RANGE),
				 errmsg("timestamp out of range")));
	if (span <= 20 * USECS_PER_MINUTE)
		return psprintf("%02d:%02d:%02d", tm.tm_hour, tm.tm_min, tm.tm_sec);
	if (span < USECS_PER_DAY)
		return psprintf("%02d:%02d", tm.tm_hour, tm.tm_min);
	return psprintf("%02d-%02d %02d:%02d", tm.tm_mon, tm.tm_mday,
					tm.tm_hour, tm.tm_min);
}

/* A line, without the blanks at its end */
static void
add_line(PrkRow *row, const char *line)
{
	char	   *text = pstrdup(line);
	int			len = strlen(text);

	while (len > 0 && text[len - 1] == ' ')
		text[	  --len] = '\0';

	prk_put_text(row, 0, text);
	prk_rows_add(row);
}
