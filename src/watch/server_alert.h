/*-------------------------------------------------------------------------
 *
 * server_alert.h
 *	  What is wrong with the server as a whole, told once and not per slot.
 *
 * IDENTIFICATION
 *	  src/watch/server_alert.h
 *
 *-------------------------------------------------------------------------
 */
#ifndef PRK_SERVER_ALERT_H
#define PRK_SERVER_ALERT_H

#include "watch/alerts.h"

/* What is to be logged of a trouble. */
typedef struct PrkTroubleLine
{
	PrkLineKind kind;
	PrkLevel	level;
	char		reason[PRK_REASON_LEN];
	int64		lasted;			/* microseconds: the trouble, or the level */
} PrkTroubleLine;

/* A line about the server as a whole. */
typedef struct PrkServerLine
{
	PrkTroubleLine said;
	PrkServerTrouble trouble;
	PrkServerFacts facts;
} PrkServerLine;

/* What a watcher keeps of a trouble from cycle to cycle. */
typedef struct PrkServerTrack
{
	TimestampTz warning_since;	/* at or above warning since; 0: it is not */
	TimestampTz critical_since;
	TimestampTz said_at;		/* the last line about it */
	int64		lasted;			/* the trouble that is over, in microseconds */
} PrkServerTrack;

/* All zero at first. */
typedef struct PrkServerAlert
{
	PrkBoardServer server;		/* what is published */
	PrkServerTrack tracks[PRK_NTROUBLES];
} PrkServerAlert;

extern bool prk_trouble_step(PrkBoardAlert *board, PrkServerTrack *track,
							 const PrkServerVerdict *verdict,
							 const PrkThresholds *thresholds,
							 const PrkSilence *silence, TimestampTz now,
							 PrkTroubleLine *line);
extern void prk_trouble_shift(PrkServerTrack *track, int64 jump);
extern void prk_server_alert_shift(PrkServerAlert *alert, int64 jump);
extern int	prk_server_alert_step(PrkServerAlert *alert,
								  const PrkServerFacts *facts,
								  TimestampTz now,
								  const PrkSilences *silences,
								  PrkServerLine lines[PRK_NTROUBLES]);

#endif							/* PRK_SERVER_ALERT_H */
