/*-------------------------------------------------------------------------
 *
 * absence.h
 *	  What it means that a replica is away, or was until this moment.
 *
 * The first two for everybody, the others for health.c, which asks in which of these
 * states the replica is.
 *
 * IDENTIFICATION
 *	  src/judge/absence.h
 *
 *-------------------------------------------------------------------------
 */
#ifndef PRK_ABSENCE_H
#define PRK_ABSENCE_H

#include "judge/verdict.h"

extern bool prk_absence_over(const PrkSample *sample,
							 const PrkReplica *replica,
							 const PrkKnown *known);
extern void prk_absence_judge_time(int64 away,
								   const PrkThresholds *thresholds,
								   PrkCode code, PrkVerdict *verdict);

extern int64 prk_absence_measure(const PrkSample *sample,
								 const PrkReplica *replica,
								 const PrkKnown *known);
extern bool prk_absence_left_behind(const PrkSample *sample,
									const PrkReplica *replica,
									const PrkKnown *known);
extern bool prk_absence_kept(const PrkSample *sample,
							 const PrkReplica *replica,
							 const PrkThresholds *thresholds,
							 const PrkKnown *known, int64 lag_time);
extern void prk_absence_judge(const PrkSample *sample,
							  const PrkReplica *replica,
							  const PrkThresholds *thresholds,
							  const PrkKnown *known, PrkVerdict *verdict);
extern void prk_absence_judge_return(const PrkSample *sample,
									 const PrkReplica *replica,
									 const PrkThresholds *thresholds,
									 const PrkKnown *known,
									 PrkVerdict *verdict);
extern void prk_absence_never_connected(const PrkSample *sample,
										TimestampTz made_at,
										PrkVerdict *verdict);

#endif							/* PRK_ABSENCE_H */
