/*-------------------------------------------------------------------------
 *
 * hba_edit.h
 *	  Change pg_hba.conf and prove that the server uses what was written.
 *
 * IDENTIFICATION
 *	  src/hba/hba_edit.h
 *
 *-------------------------------------------------------------------------
 */
#ifndef PRK_HBA_EDIT_H
#define PRK_HBA_EDIT_H

#include <sys/socket.h>

#include "nodes/pg_list.h"

/* A line to be there. */
typedef struct PrkHbaAddition
{
	const char *replica;
	const char *database;		/* NULL: replication */
	const char *role;
	const char *rule;			/* as prk_hba_rule() makes it */
	const char *address;		/* as it stands in the rule */
	bool		require_ssl;
	struct sockaddr_storage first;	/* the rule's lowest address */
	struct sockaddr_storage last;	/* and its highest */
	bool		added;			/* it was not there: set by the edit */
} PrkHbaAddition;

/* Lines to be gone: the replica's, all or those of one address. */
typedef struct PrkHbaRemoval
{
	const char *replica;
	const char *address;		/* NULL: all */
	bool		rewind;			/* only those for pg_rewind */
} PrkHbaRemoval;

typedef struct PrkHbaEdit PrkHbaEdit;

extern void prk_hba_edit_plan(const PrkHbaAddition *addition);
extern void prk_hba_edit_advise(const PrkHbaAddition *addition);
extern bool prk_hba_edit_has(const PrkHbaAddition *addition);
extern int	prk_hba_edit_count(const char *replica, const char *address);
extern List *prk_hba_edit_managed(const char *replica);
extern char *prk_hba_edit_role(const char *replica);

extern bool prk_hba_edit_tidy(bool look);
extern void prk_hba_edit_apply(PrkHbaEdit **edit, List *additions,
							   List *removals, bool must_prove,
							   List **audit);

/* These two never raise an error. */
extern bool prk_hba_edit_undo(PrkHbaEdit *edit);
extern bool prk_hba_edit_finish(PrkHbaEdit *edit);
extern const char *prk_hba_edit_saved(const PrkHbaEdit *edit);
extern const char *prk_hba_edit_unproved(const PrkHbaEdit *edit);

#endif							/* PRK_HBA_EDIT_H */
