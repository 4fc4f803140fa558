/*-------------------------------------------------------------------------
 *
 * staged.h
 *	  What a transaction has noted to be done at commit.
 *
 * IDENTIFICATION
 *	  src/staged.h
 *
 *-------------------------------------------------------------------------
 */
#ifndef PRK_STAGED_H
#define PRK_STAGED_H

#include "hba_edit.h"

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
	int			nrules;			/* managed lines that go */
	const char *role_dropped;	/* by this transaction; NULL: none */
} PrkDeprovision;

extern void prk_staged_provision(const PrkProvision *provision);
extern const PrkProvision *prk_staged_find_provision(const char *name,
													 const char *role,
													 const char *rule);
extern bool prk_staged_provisions(const char *name);
extern int	prk_staged_count_provisions(void);

extern void prk_staged_deprovision(const PrkDeprovision *deprovision);
extern const PrkDeprovision *prk_staged_find_deprovision(void);

extern void prk_staged_revoke(const char *name, const char *address);
extern void prk_staged_note(const char *line);
extern void prk_staged_tidy(void);

#endif							/* PRK_STAGED_H */
