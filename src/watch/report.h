/*-------------------------------------------------------------------------
 *
 * report.h
 *	  The sample, what the worker knows of it, and the verdict, together and
 *	  in order: what status(), unhealthy() and the like show.
 *
 * IDENTIFICATION
 *	  src/watch/report.h
 *
 *-------------------------------------------------------------------------
 */
#ifndef PRK_REPORT_H
#define PRK_REPORT_H

#include "failures/failures.h"
#include "watch/board.h"

typedef struct PrkReportRow
{
	const PrkReplica *replica;
	PrkVerdict	verdict;
	bool		has_alert;		/* the worker runs and has judged it */
	PrkLevel	alert;
	TimestampTz alert_since;	/* 0: none */
	const char *alert_reason;	/* as announced; "" none */
	const PrkFailure *last_error;	/* the newest that fits; NULL none */
	int64		disk_full_in;	/* by what its slot holds; -1 not known, or
								 * another slot's doing */
} PrkReportRow;

typedef struct PrkReport
{
	PrkSample  *sample;
	PrkBoard   *board;
	PrkFailures *failures;
	bool		watched;		/* the worker runs, and has looked lately */
	const char *worker_trouble; /* why it doesn't, though it should; or NULL */
	int			nrows;
	PrkReportRow *rows;			/* worst first, then by name */
} PrkReport;

/* The report is valid until the next one, and no longer than the query. */
extern PrkReport *prk_report_take(void);

#endif							/* PRK_REPORT_H */
