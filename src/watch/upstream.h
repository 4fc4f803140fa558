/*-------------------------------------------------------------------------
 *
 * upstream.h
 *	  Does this server receive from an upstream, and does it stream?
 *
 * IDENTIFICATION
 *	  src/watch/upstream.h
 *
 *-------------------------------------------------------------------------
 */
#ifndef PRK_UPSTREAM_H
#define PRK_UPSTREAM_H

#include <netdb.h>

#include "access/xlogrecovery.h"

#include "failures/failures.h"
#include "judge/health.h"
#include "sample/receiver.h"

/* Microseconds after which a connection that is being made is worth a word. */
#define PRK_UPSTREAM_SLOW_CONNECT	(2 * USECS_PER_SEC)

/* A setting that a standby may not have lower than its primary. */
typedef struct PrkParameter
{
	const char *name;
	int			here;
	int			primary;
} PrkParameter;

#define PRK_NPARAMETERS	5

typedef struct PrkUpstream
{
	bool		wanted;			/* in recovery, and told whom to follow */
	bool		streaming;		/* connected at this instant */
	bool		settled;		/* and has been for more than an instant */
	bool		stalled;		/* but nothing comes any more */
	int64		connecting;		/* microseconds since it began to connect; -1:
								 * it does not, or the server doesn't tell */

	/* from here on only in recovery */
	bool		in_recovery;
	bool		restores;		/* replay waits for WAL from an archive */
	int64		still;			/* microseconds that replay has stood where it
								 * is; -1: not known */
	RecoveryPauseState pause_state;
	bool		cannot_resume;	/* the primary allows more than this server */
	bool		has_target;		/* recovery has an end: paused there, to
								 * resume is to promote */
	bool		keeps_timeline; /* it follows no promotion of its upstream */
	int64		apply_delay;	/* recovery_min_apply_delay in microseconds */
	char		sender_host[NI_MAXHOST];	/* "" unknown */
	int			sender_port;
	char		slot_name[NAMEDATALEN]; /* "" none */
	XLogRecPtr	received_lsn;	/* flushed here; invalid: nothing so far */
	XLogRecPtr	replayed_lsn;
	TimeLineID	timeline;		/* of what was replayed last */
	TimestampTz last_message_at;	/* 0: none since it connected */
	int64		silence;		/* microseconds without one; 0 when cut */
	int64		unreceived_bytes;	/* -1: not known, which it is when cut */
	int64		unflushed_bytes;	/* of those, what was written here */
	bool		flushing;		/* what was not comes after a slow flush */
	int64		unreplayed_bytes;
	bool		has_clock;		/* lag_age is by the LSN clock */
	int64		lag_age;		/* microseconds since the WAL that is replayed
								 * next was written, or came; 0 none waits; -1
								 * unknown */
	int64		contact_age;	/* microseconds since the upstream was heard
								 * of; -1 unknown */
} PrkUpstream;

extern void prk_upstream_read(PrkUpstream *upstream);
extern void prk_upstream_follow(PrkUpstream *upstream,
								XLogRecPtr replayed_lsn, int64 still_since);
extern void prk_upstream_parameters(PrkParameter parameters[PRK_NPARAMETERS]);
extern int64 prk_upstream_lag_time(const PrkUpstream *upstream,
								   TimestampTz gone_since, TimestampTz now);
extern const PrkFailure *prk_upstream_failure(const PrkFailures *failures,
											  PrkFailureKind *kind);
extern void prk_upstream_judge(const PrkUpstream *upstream,
							   const PrkFailureKind *kind,
							   const PrkThresholds *thresholds,
							   bool watched, TimestampTz gone_since,
							   TimestampTz now, PrkVerdict *verdict);
extern PrkCode prk_upstream_code(PrkFailureKind kind);

#endif							/* PRK_UPSTREAM_H */
