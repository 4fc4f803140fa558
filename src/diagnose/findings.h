/*-------------------------------------------------------------------------
 *
 * findings.h
 *	  What the rules add: codes with their parameters, no words.
 *
 * IDENTIFICATION
 *	  src/diagnose/findings.h
 *
 *-------------------------------------------------------------------------
 */
#ifndef PRK_FINDINGS_H
#define PRK_FINDINGS_H

#include "diagnose/evidence.h"
#include "judge/codes.h"

/* Whom a diagnosis is about. */
typedef enum PrkSubject
{
	PRK_SUBJECT_SERVER,			/* this server itself */
	PRK_SUBJECT_UPSTREAM,		/* this server as a standby */
	PRK_SUBJECT_REPLICA			/* a replica of this server */
} PrkSubject;

/*
 * A code with its parameters.  Each code has its own of these, which its words
 * (words_*.c) are made of; the others are zero.
 */
typedef struct PrkDiagnosis
{
	PrkCode		code;
	PrkGravity	gravity;
	PrkSubject	subject;
	const char *name;			/* of the replica; NULL for other subjects */

	const PrkReportRow *row;	/* the replica as it is seen now */
	const PrkOwner *owner;		/* and whose it is */
	const PrkAttempt *attempt;	/* a failed connection to this server */
	const PrkFailure *failure;	/* or from it */
	PrkFailureKind kind;		/* of that failure */
	const PrkParameter *parameter;
	const PrkLeftover *leftover;
	const PrkReconnect *reconnect;
	const char *words;			/* the server's own, of a file or a process */
	const char *role_name;		/* the replica's own, as proved; NULL none */
	const char *address;		/* which is proved to be the replica's; NULL */
	int			line_number;	/* of our line that names it; 0 none */
	const char *other_name;		/* a second name */
	int64		limit;			/* that a setting is to allow, bytes or
								 * microseconds; -1: none that is safe */
	int			count;
	const PrkDeparted *departed;	/* that the replica came and left */
	bool		together;		/* all replicas went within a minute */
} PrkDiagnosis;

/* Found so far, with what it is found from. */
typedef struct PrkFindings
{
	const PrkEvidence *evidence;
	List	   *diagnoses;		/* of PrkDiagnosis */
} PrkFindings;

extern PrkGravity prk_gravity_of(PrkLevel level);
extern PrkDiagnosis *prk_diagnose_add(PrkFindings *findings, PrkCode code,
									  PrkSubject subject, const char *name);
extern bool prk_diagnose_has(const PrkFindings *findings, const char *name);
extern bool prk_diagnose_is_recent(const PrkEvidence *evidence,
								   const PrkFailure *failure);
extern void prk_diagnose_find_home(const PrkEvidence *evidence,
								   PrkDiagnosis *diagnosis);
extern int64 prk_diagnose_wal_limit(const PrkEvidence *evidence, int64 wanted);

#endif							/* PRK_FINDINGS_H */
