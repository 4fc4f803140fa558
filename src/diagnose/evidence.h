/*-------------------------------------------------------------------------
 *
 * evidence.h
 *	  All that the diagnoses go by, gathered once.
 *
 * IDENTIFICATION
 *	  src/diagnose/evidence.h
 *
 *-------------------------------------------------------------------------
 */
#ifndef PRK_EVIDENCE_H
#define PRK_EVIDENCE_H

#include "diagnose/owners.h"
#include "diagnose/past.h"
#include "diagnose/replay.h"
#include "diagnose/transaction.h"
#include "failures/failures.h"
#include "hba/hba.h"
#include "hba/hba_rules.h"
#include "provision/role.h"
#include "watch/departed.h"
#include "watch/report.h"
#include "watch/upstream.h"

/*
 * A failed connection that counts, and what it would meet today.  It counts if
 * its peer was let in and may replicate, or if it named a role of ours from an
 * address that is known to be its replica's; and while the replica has not
 * streamed since, nor failed at something else.
 */
typedef struct PrkAttempt
{
	const PrkFailure *failure;
	PrkFailureKind kind;		/* its words understood */
	const char *name;			/* whose it is, printable ASCII */
	const char *role_name;		/* proved to be that of a role of ours, or of
								 * one of our rules; NULL: it can't be shown */
	const char *address;		/* NULL: over a Unix socket */
	PrkRole		role;
	bool		has_match;		/* the rules could be read */
	PrkHbaMatch match;			/* for it as it came */
	PrkHbaMatch tls_match;		/* had it come with TLS */
	bool		let_in;			/* a managed line names role and address */
	bool		unserved;		/* unhealthy() lists it: critical */
} PrkAttempt;

/*
 * Collations that this machine's libraries have in another version than those
 * with which the data was sorted.
 */
typedef struct PrkCollations
{
	const char *databases;		/* whose own collation is one; NULL: none */
	const char *there;			/* the version of one of them, as recorded */
	const char *here;			/* and as it is here */
	int			count;			/* others, in indexes of this database */
	int			indexes;		/* of this database that use one */
} PrkCollations;

/* Why a replica that streams could not come back; NONE: it could. */
typedef enum PrkBarrier
{
	PRK_BARRIER_NONE,
	PRK_BARRIER_ROLE_GONE,
	PRK_BARRIER_ROLE,			/* it may not log in, or not replicate */
	PRK_BARRIER_PASSWORD,		/* it has none, or that has expired */
	PRK_BARRIER_NO_RULE,
	PRK_BARRIER_REJECTED
} PrkBarrier;

typedef struct PrkReconnect
{
	PrkBarrier	barrier;
	const char *role_name;		/* that it streams as; NULL: it is gone */
	const char *address;		/* that it streams from; NULL: a Unix socket */
	int			line_number;	/* of the rule that rejects; 0 none */
} PrkReconnect;

typedef struct PrkEvidence
{
	TimestampTz now;
	PrkReport  *report;
	PrkPast		past;
	PrkOwner   *owners;			/* one for each row of the report */
	PrkReconnect *reconnects;	/* one for each row of the report */
	int			nattempts;
	PrkAttempt *attempts;		/* incoming, open, the newest first */
	PrkDeparted *departed;		/* one for each row of the report: what it did
								 * since it was last there to stay */
	List	   *leftovers;		/* of PrkLeftover; none on a standby */
	List	   *managed;		/* of PrkHbaManaged: our lines */

	const char *hba_error;		/* NULL: the server would load the file */
	const char *config_error;	/* NULL: it would load postgresql.conf */
	const char *sql_version;	/* of the extension in this database, and of */
	const char *files_version;	/* the installed files; NULL: not known */

	PrkCollations collations;	/* on a standby */

	PrkUpstream upstream;
	PrkVerdict	upstream_verdict;
	PrkLevel	upstream_effective;
	PrkThresholds upstream_thresholds;
	const PrkFailure *timeline_end; /* of the upstream's; NULL: it goes on */
	const PrkFailure *upstream_failure; /* NULL: none that is not over */
	PrkFailureKind upstream_kind;
	PrkParameter parameters[PRK_NPARAMETERS];

	bool		slot_drop_waits;	/* a checkpoint waits for a slot */
	PrkReplay	replay;			/* on a standby, what replay waits for */

	const char *awaited;		/* a slot that logical ones wait for and that
								 * confirms nothing; NULL: none */
	const PrkReportRow *awaited_row;	/* NULL: it does not exist */
	int			nawaiting;		/* logical slots that wait */

	PrkTransaction oldest;		/* that holds logical slots back */

	int64		wal_free;		/* bytes on the disk of pg_wal; -1 unknown */
	int			walsenders_used;
	int			slots_used;		/* without those of REPACK */
} PrkEvidence;

extern PrkEvidence *prk_evidence_gather(void);
extern bool prk_attempt_concerns(const PrkAttempt *attempt, const char *name);
extern const PrkAttempt *prk_evidence_attempt(const PrkEvidence *evidence,
											  const char *name);

#endif							/* PRK_EVIDENCE_H */
