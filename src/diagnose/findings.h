/*-------------------------------------------------------------------------
 *
 * findings.h
 *	  What the rules add: findings, and words that several rules share.
 *
 * IDENTIFICATION
 *	  src/diagnose/findings.h
 *
 *-------------------------------------------------------------------------
 */
#ifndef PRK_FINDINGS_H
#define PRK_FINDINGS_H

#include "diagnose/evidence.h"

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

extern const char *prk_gravity_name(PrkGravity gravity);
extern PrkGravity prk_gravity_of(PrkLevel level);
extern PrkDiagnosis *prk_diagnose_add(PrkFindings *findings,
									  PrkGravity gravity, const char *code,
									  const char *name);
extern bool prk_diagnose_is_recent(const PrkEvidence *evidence,
								   const PrkFailure *failure);
extern const char *prk_diagnose_counted(const PrkFailure *failure);
extern const char *prk_diagnose_setting(const char *name, const char *value);
extern const char *prk_diagnose_renewal(const char *name);
extern const char *prk_diagnose_rebuild(const PrkFindings *findings,
										const char *name,
										const PrkOwner *owner, bool has_slot);

#endif							/* PRK_FINDINGS_H */
