/*-------------------------------------------------------------------------
 *
 * diagnose_attempts.h
 *	  Replicas that are not let in, and why.
 *
 * IDENTIFICATION
 *	  src/diagnose/diagnose_attempts.h
 *
 *-------------------------------------------------------------------------
 */
#ifndef PRK_DIAGNOSE_ATTEMPTS_H
#define PRK_DIAGNOSE_ATTEMPTS_H

#include "diagnose/findings.h"

extern bool prk_diagnose_attempt(PrkFindings *findings,
								 const PrkAttempt *attempt,
								 const PrkReportRow *row,
								 const PrkOwner *owner);
extern bool prk_attempt_is_at_door(const PrkAttempt *attempt);
extern void prk_diagnose_attempts(PrkFindings *findings);
extern bool prk_diagnose_is_attempt(const PrkEvidence *evidence,
									const PrkReplica *replica);

#endif							/* PRK_DIAGNOSE_ATTEMPTS_H */
