/*-------------------------------------------------------------------------
 *
 * types.h
 *	  What is kept of a failed replication connection.
 *
 * IDENTIFICATION
 *	  src/failures/types.h
 *
 *-------------------------------------------------------------------------
 */
#ifndef PRK_FAILURES_TYPES_H
#define PRK_FAILURES_TYPES_H

#include "datatype/timestamp.h"
#include "libpq/pqcomm.h"

/*
 * What kind of failure, as far as its own process can know.  UPSTREAM stands
 * for words of the upstream, which prk_failure_kind() reads.
 */
typedef enum PrkFailureKind
{
	PRK_FAILURE_OTHER,
	PRK_FAILURE_UPSTREAM,
	PRK_FAILURE_HBA_NO_ENTRY,
	PRK_FAILURE_HBA_REJECTS,
	PRK_FAILURE_AUTH_FAILED,
	PRK_FAILURE_NO_PASSWORD,
	PRK_FAILURE_ROLE_MISSING,
	PRK_FAILURE_ROLE_CANNOT_REPLICATE,
	PRK_FAILURE_TOO_MANY,		/* walsenders, or connections */
	PRK_FAILURE_NO_SLOT_FREE,
	PRK_FAILURE_SLOT_MISSING,
	PRK_FAILURE_SLOT_TAKEN,
	PRK_FAILURE_SLOT_LOST,
	PRK_FAILURE_WAL_REMOVED,
	PRK_FAILURE_OTHER_CLUSTER,
	PRK_FAILURE_OTHER_TIMELINE,
	PRK_FAILURE_WAL_ENDED,		/* of the timeline that was asked for */
	PRK_FAILURE_TIMEOUT,		/* the other side fell silent */
	PRK_FAILURE_REFUSED,		/* by the upstream, in other words than these */
	PRK_FAILURE_UNREACHABLE
} PrkFailureKind;

#define PRK_FAILURE_MESSAGE_LEN	320

/* Failures that are the same in all but their time, counted. */
typedef struct PrkFailure
{
	TimestampTz first_at;
	TimestampTz last_at;
	int64		count;
	bool		outgoing;		/* of our own wal receiver */
	PrkFailureKind kind;
	int			sqlerrcode;		/* as in ErrorData */
	bool		ssl;			/* the client had TLS */
	bool		has_client_addr;
	SockAddr	client_addr;	/* without the port */
	char		role_name[NAMEDATALEN]; /* this and the next: "" unknown */
	char		application_name[NAMEDATALEN];
	char		slot_name[NAMEDATALEN];
	char		message[PRK_FAILURE_MESSAGE_LEN];	/* of the last one */
} PrkFailure;

/* A copy of all, the newest first, palloc'd by prk_failures_read(). */
typedef struct PrkFailures
{
	bool		exist;			/* preloaded: failures are noted */
	int			nfailures;
	PrkFailure *failures;
} PrkFailures;

#endif							/* PRK_FAILURES_TYPES_H */
