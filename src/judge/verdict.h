/*-------------------------------------------------------------------------
 *
 * verdict.h
 *	  What a sample means: the verdict, and what it goes by.
 *
 * IDENTIFICATION
 *	  src/judge/verdict.h
 *
 *-------------------------------------------------------------------------
 */
#ifndef PRK_VERDICT_H
#define PRK_VERDICT_H

#include "judge/codes.h"
#include "judge/forecast.h"
#include "sample/sample.h"
#include "settings.h"

typedef enum PrkLevel
{
	PRK_OK,
	PRK_WARNING,
	PRK_CRITICAL
} PrkLevel;

#define PRK_REASON_LEN		256
#define PRK_OUTLOOK_LEN		96

/*
 * What only somebody who watches can know about a replica; all zero when
 * nobody does.  Times are those of this server's clock.
 */
typedef struct PrkKnown
{
	bool		watched;		/* the rest is meaningful */
	bool		never_connected;	/* appeared while watched, not used since */
	bool		unused_seen;	/* the next two are as never used */
	XLogRecPtr	unused_lsn;
	TimestampTz unused_since;
	TimestampTz gone_since;		/* first seen inactive; 0: active, and for
								 * more than a moment */
	TimestampTz appeared_at;	/* first seen at all */
	TimestampTz seen_at;		/* last seen active; 0: never */
	uint64		seen_number;	/* last seen streaming, in the order of
								 * events; 0: never */
	uint64		session;		/* when the walsender authenticated that was
								 * seen so, in the same order */
	uint64		stayed_number;	/* last seen to stay, or first seen at all, in
								 * the same order */
	int			idle_pid;		/* its walsender was connected and did nothing
								 * when it was last seen not to stream; or 0 */
	TimestampTz moved_at;		/* its slot last moved with nobody connected
								 * before and after; 0: never */
	XLogRecPtr	stuck_at;		/* the position it was last seen at */
	TimestampTz stuck_since;	/* first seen behind and there; 0: not behind */
	TimestampTz reply_time;		/* the reply last seen */
	TimestampTz reply_seen_at;	/* first seen with that reply; 0: none */
	PrkPace		pace;			/* how fast it moves, as far as known */
	char		last_addr[64];	/* where it connected from; "" never seen */
} PrkKnown;

/* The stages that WAL passes on its way, in order. */
typedef enum PrkStage
{
	PRK_STAGE_SENDING,
	PRK_STAGE_RECEIVING,
	PRK_STAGE_FLUSHING,
	PRK_STAGE_REPLAY
} PrkStage;

#define PRK_NSTAGES		(PRK_STAGE_REPLAY + 1)

/* What the verdict goes by. */
typedef enum PrkFact
{
	PRK_FACT_STREAMS,			/* or catches up, within its limits */
	PRK_FACT_BEHIND,
	PRK_FACT_NO_REPLY,			/* behind, and its receiver says nothing */
	PRK_FACT_NOTHING_RECEIVED,	/* a standby's own receiver hears nothing */
	PRK_FACT_ARCHIVE_ONLY,		/* a standby that is told of no upstream */
	PRK_FACT_GONE,
	PRK_FACT_BACK,				/* for a moment, and was away */
	PRK_FACT_NEVER_CONNECTED,
	PRK_FACT_KEPT,				/* a standby's slot that some tool moves */
	PRK_FACT_LEFT_BEHIND,		/* a slot of what this standby was before */
	PRK_FACT_LOST,
	PRK_FACT_NOT_JUDGED			/* only its state: startup, backup ... */
} PrkFact;

/* How a slot will lose its WAL, if it is going to. */
typedef enum PrkSlotEnd
{
	PRK_SLOT_SAFE,
	PRK_SLOT_NEXT_CHECKPOINT,
	PRK_SLOT_IN_TIME,			/* forecast.lost_in */
	PRK_SLOT_AFTER_BYTES		/* safe_wal_size */
} PrkSlotEnd;

typedef struct PrkVerdict
{
	PrkLevel	level;
	PrkState	state;			/* the sample's, refined by what is known */
	PrkCode		code;			/* none when ok */
	bool		at_once;		/* alert without waiting for alert_after */
	bool		off;			/* the settings say not to judge it */
	int64		lag_time;		/* microseconds; -1 not known */

	PrkFact		fact;
	int64		since;			/* microseconds: away, silent, or waiting for
								 * the first connection; -1 not known */
	int64		connecting;		/* microseconds that a standby has been making
								 * a connection, where that is worth a word;
								 * else -1 */
	int64		lag_bytes;		/* -1 not known */
	PrkStage	stage;			/* which holds most of these */
	bool		paused;			/* a standby's replay is */
	PrkSlotEnd	slot_end;
	bool		slot_idle;		/* by idle_replication_slot_timeout */
	bool		has_outlook;	/* it was asked whether it will catch up */
	PrkForecast forecast;

	/* all that in the alert lines' words, by prk_reason_write() */
	char		reason[PRK_REASON_LEN];
	char		outlook[PRK_OUTLOOK_LEN];	/* "" not asked */
} PrkVerdict;

/* How far a replica, or this server as one, is behind. */
typedef struct PrkLag
{
	int64		bytes;			/* -1 not known */
	int64		stages[PRK_NSTAGES];	/* of these, where they are */
	int64		silence;		/* microseconds without a reply; 0 unknown */
} PrkLag;

extern void prk_verdict_raise(PrkVerdict *verdict, PrkLevel level,
							  bool at_once, PrkCode code);

#endif							/* PRK_VERDICT_H */
