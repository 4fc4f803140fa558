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

/* A line to be logged. */
typedef struct PrkServerLine
{
	PrkLineKind kind;
	PrkLevel	level;
	char		reason[PRK_REASON_LEN];
	int64		lasted;			/* microseconds: the trouble, or the level */
	PrkDisk		disk;
} PrkServerLine;

/* What a watcher keeps from cycle to cycle; all zero at first. */
typedef struct PrkServerAlert
{
	PrkBoardServer server;		/* what is published */
	TimestampTz warning_since;	/* at or above warning since; 0: it is not */
	TimestampTz critical_since;
	TimestampTz said_at;		/* the last line about it */
} PrkServerAlert;

extern void prk_server_alert_shift(PrkServerAlert *alert, int64 jump);
extern bool prk_server_alert_step(PrkServerAlert *alert, const PrkDisk *disk,
								  TimestampTz now, PrkServerLine *line);

#endif							/* PRK_SERVER_ALERT_H */
