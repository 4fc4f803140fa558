/*-------------------------------------------------------------------------
 *
 * types.h
 *	  What a transaction notes to be done at commit.
 *
 * IDENTIFICATION
 *	  src/provision/types.h
 *
 *-------------------------------------------------------------------------
 */
#ifndef PRK_PROVISION_TYPES_H
#define PRK_PROVISION_TYPES_H

#include "hba/hba_edit.h"

/* A replica that commit will provision. */
typedef struct PrkProvision
{
	const char *name;			/* of the replica and its slot */
	const char *role;
	bool		role_created;	/* by this transaction */
	bool		has_slot;		/* it existed, and is the replica's */
	bool		has_rule;		/* false: manage_hba => false */
	PrkHbaAddition rule;
	const char *password;		/* as returned to the caller; may be NULL */
} PrkProvision;

/* A replica that commit will deprovision. */
typedef struct PrkDeprovision
{
	const char *name;
	bool		has_slot;
	bool		force;
	bool		keep_role;		/* for statements in HINTs */
	int			nrules;			/* managed lines that go */
	const char *role_dropped;	/* by this transaction; NULL: none */
} PrkDeprovision;

typedef enum PrkStagedKind
{
	PRK_STAGED_PROVISION,
	PRK_STAGED_DEPROVISION,
	PRK_STAGED_RULE,
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
	PrkHbaAddition rule;
	PrkHbaRemoval revoke;
	const char *note;

	const char *user;			/* who asked for it */
	bool		slot_staged;	/* provision: made by PRE_COMMIT */
	bool		slot_dropped;	/* deprovision: by COMMIT */
} PrkStaged;

#endif							/* PRK_PROVISION_TYPES_H */
