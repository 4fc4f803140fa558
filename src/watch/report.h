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
#include "watch/server_facts.h"
#include "watch/silence.h"
#include "watch/upstream.h"

typedef struct PrkReportRow
{
	const PrkReplica *replica;
	PrkVerdict	verdict;
	PrkLevel	effective;		/* the verdict's, if it counts at once or has
								 * lasted, or nobody watches */
	bool		has_alert;		/* the worker runs and has judged it */
	PrkLevel	alert;
	TimestampTz alert_since;	/* 0: none */
	const char *alert_reason;	/* as announced; "" none */
	const PrkSilence *silence;	/* NULL: none */
	const PrkFailure *last_error;	/* the newest that fits; NULL none */
	int64		disk_full_in;	/* by what its slot holds; -1 not known, or
								 * another slot's doing */
} PrkReportRow;

/* A trouble of the server as a whole. */
typedef struct PrkReportTrouble
{
	PrkServerVerdict verdict;
	PrkLevel	effective;		/* as that of a replica */
	PrkLevel	alert;			/* as announced; ok without a worker */
	const char *alert_reason;
} PrkReportTrouble;

/* This server's own upstream, judged; on a primary all is well. */
typedef struct PrkReportUpstream
{
	PrkUpstream state;
	PrkThresholds thresholds;
	const PrkFailure *failure;	/* its receiver's last, if recent; or NULL */
	PrkFailureKind kind;		/* of that */
	PrkVerdict	verdict;
	PrkLevel	effective;		/* as that of a replica */
	PrkLevel	alert;			/* as announced; ok without a worker */
	const char *alert_reason;
} PrkReportUpstream;

typedef struct PrkReport
{
	PrkSample  *sample;
	PrkBoard   *board;
	PrkFailures *failures;
	PrkSilences silences;
	bool		watched;		/* the worker runs, and has looked lately */
	const char *worker_trouble; /* why it doesn't, though it should; or NULL */
	PrkServerFacts facts;		/* the disk is as the worker last saw it */
	PrkReportTrouble troubles[PRK_NTROUBLES];
	PrkReportUpstream *upstream;	/* NULL: not asked for yet */
	int			nrows;
	PrkReportRow *rows;			/* worst first, then by name */
} PrkReport;

/* The report is valid until the next one, and no longer than the query. */
extern PrkReport *prk_report_take(void);
extern const PrkReportUpstream *prk_report_upstream(PrkReport *report);

#endif							/* PRK_REPORT_H */
