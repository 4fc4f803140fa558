/*-------------------------------------------------------------------------
 *
 * health.h
 *	  What a sample means: level, code and reason.  Pure functions.
 *
 * IDENTIFICATION
 *	  src/judge/health.h
 *
 *-------------------------------------------------------------------------
 */
#ifndef PRK_HEALTH_H
#define PRK_HEALTH_H

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
#define PRK_CODE_LEN		32
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
	TimestampTz gone_since;		/* first seen inactive; 0: active */
	TimestampTz appeared_at;	/* first seen at all */
	TimestampTz seen_at;		/* last seen active; 0: never */
	uint64		seen_number;	/* last seen streaming, in the order of
								 * events; 0: never */
	uint64		session;		/* when the walsender authenticated that was
								 * seen so, in the same order */
	XLogRecPtr	stuck_at;		/* the position it was last seen at */
	TimestampTz stuck_since;	/* first seen behind and there; 0: not behind */
	TimestampTz reply_time;		/* the reply last seen */
	TimestampTz reply_seen_at;	/* first seen with that reply; 0: none */
	PrkPace		pace;			/* how fast it moves, as far as known */
	char		last_addr[64];	/* where it connected from; "" never seen */
} PrkKnown;

typedef struct PrkVerdict
{
	PrkLevel	level;
	PrkState	state;			/* the sample's, refined by what is known */
	char		code[PRK_CODE_LEN]; /* of the design's diagnoses; "" when ok */
	bool		at_once;		/* alert without waiting for alert_after */
	int64		lag_time;		/* microseconds; -1 not known */
	char		reason[PRK_REASON_LEN]; /* in the alert lines' words */
	char		outlook[PRK_OUTLOOK_LEN];	/* will it catch up? "" not asked */
	PrkForecast forecast;
} PrkVerdict;

extern void prk_health_judge(const PrkSample *sample,
							 const PrkReplica *replica,
							 const PrkThresholds *thresholds,
							 const PrkKnown *known,
							 PrkVerdict *verdict);
extern XLogRecPtr prk_health_position(const PrkReplica *replica);
extern const char *prk_health_cause(const PrkReplica *replica);
extern const char *prk_level_name(PrkLevel level);

#endif							/* PRK_HEALTH_H */
