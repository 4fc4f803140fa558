/*-------------------------------------------------------------------------
 *
 * preflight_facts.h
 *	  What the checks of preflight() go by, gathered once.
 *
 * IDENTIFICATION
 *	  src/diagnose/preflight_facts.h
 *
 *-------------------------------------------------------------------------
 */
#ifndef PRK_PREFLIGHT_FACTS_H
#define PRK_PREFLIGHT_FACTS_H

#include "diagnose/config.h"

typedef struct PrkPreflightFacts
{
	PrkConfig  *config;
	List	   *refusals;		/* of PrkRefusal */
	bool		in_recovery;

	int			senders_used;
	int			slots_used;
	int			slots_kept;		/* that a restart restores */
	int64		retained;		/* bytes, by the slot that holds most */
	const char *slotless;		/* replicas without a slot; NULL: none */
	int			sync_wanted;	/* standbys that a commit waits for */
	int			sync_there;

	bool		has_wal_free;
	int64		wal_free;		/* bytes, where pg_wal is */
	const char *hba_error;		/* NULL: the server would load the file */
	const char *hba_owner;		/* who manages it; NULL: nobody says so */
	const char *unreadable;		/* files in the data directory; NULL: none */
	const char *tablespaces;	/* their directories; NULL: none */
	const char *restart_command;
} PrkPreflightFacts;

extern PrkPreflightFacts *prk_preflight_gather(void);

#endif							/* PRK_PREFLIGHT_FACTS_H */
