/*-------------------------------------------------------------------------
 *
 * commit.h
 *	  Do at commit what a transaction has noted: slots, pg_hba.conf, audit.
 *
 * IDENTIFICATION
 *	  src/commit.h
 *
 *-------------------------------------------------------------------------
 */
#ifndef PRK_COMMIT_H
#define PRK_COMMIT_H

#include "staged.h"

typedef enum PrkStagedKind
{
	PRK_STAGED_PROVISION,
	PRK_STAGED_DEPROVISION,
	PRK_STAGED_REVOKE,
	PRK_STAGED_NOTE,
	PRK_STAGED_TIDY
} PrkStagedKind;

/* One thing to be done at commit. */
typedef struct PrkStaged
{
	SubTransactionId subid;
	PrkStagedKind kind;
	PrkProvision provision;
	PrkDeprovision deprovision;
	PrkHbaRemoval revoke;
	const char *note;

	const char *user;			/* who asked for it */
	bool		slot_staged;	/* provision: made by PRE_COMMIT */
	bool		slot_dropped;	/* deprovision: by COMMIT */
} PrkStaged;

/* Lists of PrkStaged.  Only the first may raise an error. */
extern void prk_commit_prepare(List *entries);
extern void prk_commit_finish(List *entries);
extern void prk_commit_undo(List *entries);

#endif							/* PRK_COMMIT_H */
