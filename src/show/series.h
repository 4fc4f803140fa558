/*-------------------------------------------------------------------------
 *
 * series.h
 *	  The replicas that are known, each once, whether they are there or not.
 *
 * IDENTIFICATION
 *	  src/show/series.h
 *
 *-------------------------------------------------------------------------
 */
#ifndef PRK_SERIES_H
#define PRK_SERIES_H

#include "watch/report.h"

typedef struct PrkSeries
{
	const char *name;			/* printable ASCII */
	const PrkReportRow *row;	/* NULL: only its role is there */
	PrkLevel	unhealthy;		/* as unhealthy() lists it; ok if it does not */
	bool		has_health;
	PrkLevel	health;			/* the worst of all that have this name */
	bool		has_alert;
	PrkLevel	alert;			/* likewise */
	int			connections;	/* walsenders of this name */
} PrkSeries;

typedef struct PrkKnownReplicas
{
	int			nseries;
	PrkSeries  *series;			/* by name */
	PrkLevel	server;			/* as unhealthy() lists the server */
	PrkLevel	upstream;		/* and its upstream */
	int			backups;		/* base backups that run */
} PrkKnownReplicas;

extern void prk_series_gather(PrkReport *report, PrkKnownReplicas *known);

#endif							/* PRK_SERIES_H */
