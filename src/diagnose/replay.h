/*-------------------------------------------------------------------------
 *
 * replay.h
 *	  What replay waits for on this standby, and for whom.
 *
 * IDENTIFICATION
 *	  src/diagnose/replay.h
 *
 *-------------------------------------------------------------------------
 */
#ifndef PRK_REPLAY_H
#define PRK_REPLAY_H

#include "storage/lock.h"

typedef enum PrkReplayWait
{
	PRK_REPLAY_WAIT_NONE,		/* for nothing, or for WAL */
	PRK_REPLAY_WAIT_CONFLICT,	/* with somebody's snapshot, or a tablespace
								 * in use */
	PRK_REPLAY_WAIT_LOCK,
	PRK_REPLAY_WAIT_PIN,		/* on a page */
	PRK_REPLAY_WAIT_DELAY		/* recovery_min_apply_delay */
} PrkReplayWait;

typedef struct PrkReplay
{
	PrkReplayWait wait;
	const char *event;			/* its name, a static string; NULL none */
	LOCKTAG		tag;			/* LOCK: what it wants */
	LOCKMODE	mode;			/* and how; NoLock: not known any more */

	/* who keeps it waiting, or for CONFLICT and PIN probably does */
	int			pid;			/* 0: not known */
	TransactionId xmin;			/* of its snapshot; 0 none */
	Oid			userid;			/* InvalidOid: not known */
	bool		in_transaction; /* idle, but in a transaction */
	TimestampTz since;			/* in that state; 0 not known */
} PrkReplay;

extern void prk_replay_read(PrkReplay *replay);

#endif							/* PRK_REPLAY_H */
