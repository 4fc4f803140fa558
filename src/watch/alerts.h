/*-------------------------------------------------------------------------
 *
 * alerts.h
 *	  From verdicts over time to the lines that are worth a person's time.
 *
 * IDENTIFICATION
 *	  src/watch/alerts.h
 *
 *-------------------------------------------------------------------------
 */
#ifndef PRK_ALERTS_H
#define PRK_ALERTS_H

#include "watch/board.h"
#include "watch/history.h"
#include "watch/silence.h"

typedef enum PrkLineKind
{
	PRK_LINE_CHANGE,			/* now warning or critical */
	PRK_LINE_REMINDER,			/* still critical */
	PRK_LINE_RECOVERY,			/* ok again */
	PRK_LINE_VANISHED			/* the replica's slot is no more */
} PrkLineKind;

/* One line to be logged, with what its DETAIL and HINT are made of. */
typedef struct PrkLine
{
	PrkLineKind kind;
	PrkLevel	level;
	const char *name;
	PrkCode		code;			/* of the verdict; none when ok */
	const char *reason;
	const char *outlook;		/* will it catch up? "" not asked */
	int64		lasted;			/* microseconds: the trouble, or the level */
	const PrkReplica *replica;	/* as in the sample, or as last seen */
	const PrkKnown *known;
} PrkLine;

typedef struct PrkAlerts PrkAlerts;

extern PrkAlerts *prk_alerts_create(MemoryContext context,
									const PrkBoard *board);
extern PrkLine *prk_alerts_step(PrkAlerts *alerts, const PrkSample *sample,
								const PrkSilences *silences, int *nlines);
extern void prk_alerts_shift(PrkAlerts *alerts, int64 jump);
extern PrkBoardEntry *prk_alerts_entries(const PrkAlerts *alerts,
										 int *nentries);
extern PrkHistoryRow *prk_alerts_history(const PrkAlerts *alerts,
										 TimestampTz now, int *nrows);
extern void prk_alerts_holder(const PrkAlerts *alerts, PrkHolder *holder);

#endif							/* PRK_ALERTS_H */
