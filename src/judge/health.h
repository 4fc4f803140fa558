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

#include "judge/verdict.h"

extern void prk_health_judge(const PrkSample *sample,
							 const PrkReplica *replica,
							 const PrkThresholds *thresholds,
							 const PrkKnown *known,
							 PrkVerdict *verdict);
extern void prk_health_start(PrkVerdict *verdict, PrkState state);
extern void prk_health_judge_lag(const PrkLag *lag,
								 const PrkThresholds *thresholds,
								 PrkVerdict *verdict);
extern void prk_health_finish(const PrkThresholds *thresholds,
							  const PrkReplica *replica,
							  PrkVerdict *verdict);
extern void prk_health_lower(PrkThresholds *thresholds);
extern XLogRecPtr prk_health_position(const PrkReplica *replica);
extern const char *prk_health_cause(const PrkReplica *replica);
extern bool prk_health_wal_removed(const PrkReplica *replica);
extern const char *prk_level_name(PrkLevel level);

/* reason.c */
extern void prk_reason_write(const PrkReplica *replica, PrkVerdict *verdict);

#endif							/* PRK_HEALTH_H */
