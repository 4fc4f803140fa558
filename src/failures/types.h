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

#include "foreign.h"

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
	PRK_FAILURE_FILE,			/* that the upstream has and can't read */
	PRK_FAILURE_OWN_FILE,		/* that our wal receiver can't write */
	PRK_FAILURE_OTHER_CLUSTER,
	PRK_FAILURE_OTHER_TIMELINE,
	PRK_FAILURE_NEWER_TIMELINE, /* than the upstream's is asked for */
	PRK_FAILURE_WAL_ENDED,		/* of the timeline that was asked for */
	PRK_FAILURE_TIMEOUT,		/* the other side fell silent */
	PRK_FAILURE_REFUSED,		/* by the upstream, in other words than these */
	PRK_FAILURE_UNREACHABLE
} PrkFailureKind;

/*
 * What is proved of the peer that failed.  From KNOWN on a failure may be the
 * cause of something; what a stranger did is listed, no more.
 */
typedef enum PrkTrust
{
	PRK_TRUST_STRANGER,			/* nothing */
	PRK_TRUST_KNOWN,			/* it named a role of ours, from an address
								 * that is its replica's: a rule of ours let
								 * it try, or it was seen streaming from there */
	PRK_TRUST_PEER,				/* it was let in, and may replicate: a
								 * replication command of its ran */
	PRK_TRUST_OURS				/* it is a process of this server */
} PrkTrust;

/* Failures that are the same in all but their time, counted. */
typedef struct PrkFailure
{
	TimestampTz first_at;		/* to be shown: these decide nothing */
	TimestampTz last_at;
	int64		age;			/* microseconds since the last one */
	uint64		number;			/* of the last one, in the order of events */
	uint64		peer;			/* hash of role, application and address */
	uint64		key;			/* the table's own */
	int64		count;
	bool		outgoing;		/* of our own wal receiver */
	bool		over;			/* its peer was let in since, where it was
								 * kept out; or it has streamed since, as our
								 * wal receiver or the worker has noted */
	PrkFailureKind kind;
	PrkTrust	trust;
	char		replica[NAMEDATALEN];	/* whose it is, as rule or worker say:
										 * a name of ours; "" unknown */
	int			sqlerrcode;		/* as in ErrorData */
	bool		ssl;			/* the client had TLS */
	bool		has_client_addr;
	SockAddr	client_addr;	/* without the port */
	PrkForeign	role_name;
	PrkForeign	application_name;
	PrkForeign	slot_name;
	bool		logical;		/* which was asked for as a logical one */
	PrkForeignWords message;	/* of the last one */
} PrkFailure;

/* A copy of all, the newest first, palloc'd by prk_failures_read(). */
typedef struct PrkFailures
{
	bool		exist;			/* preloaded: failures are noted */
	int			nfailures;
	PrkFailure *failures;
} PrkFailures;

#endif							/* PRK_FAILURES_TYPES_H */
