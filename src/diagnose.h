/*-------------------------------------------------------------------------
 *
 * diagnose.h
 *	  From evidence to root causes.  Pure functions.
 *
 * IDENTIFICATION
 *	  src/diagnose.h
 *
 *-------------------------------------------------------------------------
 */
#ifndef PRK_DIAGNOSE_H
#define PRK_DIAGNOSE_H

#include "evidence.h"

typedef enum PrkGravity
{
	PRK_GRAVITY_INFO,
	PRK_GRAVITY_WARNING,
	PRK_GRAVITY_CRITICAL
} PrkGravity;

typedef struct PrkDiagnosis
{
	PrkGravity	gravity;
	const char *code;
	const char *name;			/* NULL: the server itself */
	const char *finding;
	const char *evidence;
	const char *remedy;			/* SQL; what is to be done elsewhere stands in
								 * comments */
} PrkDiagnosis;

/* Found so far, with what it is found from. */
typedef struct PrkFindings
{
	const PrkEvidence *evidence;
	List	   *diagnoses;		/* of PrkDiagnosis */
} PrkFindings;

/* in diagnose.c */
extern List *prk_diagnose(const PrkEvidence *evidence);
extern const char *prk_gravity_name(PrkGravity gravity);
extern PrkGravity prk_gravity_of(PrkLevel level);
extern PrkDiagnosis *prk_diagnose_add(PrkFindings *findings,
									  PrkGravity gravity, const char *code,
									  const char *name);
extern bool prk_diagnose_is_recent(const PrkEvidence *evidence,
								   const PrkFailure *failure);
extern const char *prk_diagnose_counted(const PrkFailure *failure);
extern const char *prk_diagnose_setting(const char *name, const char *value);

/* in diagnose_attempts.c: who can't get in */
extern bool prk_diagnose_attempt(PrkFindings *findings,
								 const PrkAttempt *attempt,
								 const PrkReportRow *row,
								 const PrkOwner *owner);
extern void prk_diagnose_attempts(PrkFindings *findings);
extern bool prk_diagnose_is_attempt(const PrkEvidence *evidence,
									const PrkReplica *replica);

/* in diagnose_replicas.c: who is there, or was */
extern void prk_diagnose_replicas(PrkFindings *findings);
extern const char *prk_diagnose_rebuild(const PrkFindings *findings,
										const char *name,
										const PrkOwner *owner, bool has_slot);

/* in diagnose_standby.c: this server as a standby */
extern void prk_diagnose_standby(PrkFindings *findings);

#endif							/* PRK_DIAGNOSE_H */
