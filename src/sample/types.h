/*-------------------------------------------------------------------------
 *
 * types.h
 *	  What a sample holds: plain structs, no pointer into shared memory.
 *
 * IDENTIFICATION
 *	  src/sample/types.h
 *
 *-------------------------------------------------------------------------
 */
#ifndef PRK_SAMPLE_TYPES_H
#define PRK_SAMPLE_TYPES_H

#include "access/xlogdefs.h"
#include "datatype/timestamp.h"
#include "libpq/pqcomm.h"

/* In so much of a command stands the slot that it asks for. */
#define PRK_COMMAND_LEN		100

typedef enum PrkState
{
	PRK_STATE_STREAMING,
	PRK_STATE_CATCHUP,
	PRK_STATE_BACKUP,
	PRK_STATE_STARTUP,
	PRK_STATE_STOPPING,
	PRK_STATE_DISCONNECTED,
	PRK_STATE_NEVER_CONNECTED,	/* set from the board, never by the sampler */
	PRK_STATE_LOST
} PrkState;

#define PRK_NSTATES		(PRK_STATE_LOST + 1)

typedef enum PrkWalStatus
{
	PRK_WAL_NONE,				/* the slot reserves nothing, or no slot */
	PRK_WAL_RESERVED,
	PRK_WAL_EXTENDED,
	PRK_WAL_UNRESERVED,
	PRK_WAL_LOST
} PrkWalStatus;

/*
 * One replica: a slot, a walsender without one, or both together.  Invalid
 * LSNs, zero pids and -1 byte counts stand for SQL's NULL.
 */
typedef struct PrkReplica
{
	char		name[NAMEDATALEN];	/* slot name, else application name */
	PrkState	state;

	/* the slot */
	bool		has_slot;
	bool		logical;
	bool		temporary;
	bool		synced;			/* a standby's copy of its primary's slot */
	bool		failover;		/* logical: it waits for the standbys' slots
								 * that synchronized_standby_slots names */
	const char *sync_skipped;	/* why that was not synchronized last, a
								 * static string; NULL: it was, or the server
								 * doesn't tell */
	const char *invalidation;	/* the cause, a static string; NULL: valid */
	char		slot_name[NAMEDATALEN];
	XLogRecPtr	restart_lsn;
	XLogRecPtr	confirmed_flush_lsn;
	TransactionId xmin;
	TransactionId catalog_xmin;
	int32		xmin_age;		/* the older of both, in transactions; -1 none */
	PrkWalStatus wal_status;
	bool		has_safe_wal_size;
	int64		safe_wal_size;	/* bytes; negative: past the limit */
	TimestampTz inactive_since; /* 0: active or not known */

	/* the process that serves it: a walsender, or any backend on the slot */
	int			pid;			/* 0: inactive */
	bool		has_walsender;
	XLogRecPtr	sent_lsn;
	XLogRecPtr	write_lsn;
	XLogRecPtr	flush_lsn;
	XLogRecPtr	replay_lsn;
	int64		write_lag;		/* microseconds as the walsender says; -1 none */
	int64		flush_lag;
	int64		replay_lag;
	const char *sync_state;		/* static string, or NULL */
	TimestampTz reply_time;		/* 0: none */

	/* its backend entry, when there is one */
	Oid			userid;			/* InvalidOid: none */
	char		application_name[NAMEDATALEN];
	bool		has_client_addr;
	SockAddr	client_addr;
	TimestampTz backend_start;	/* 0: none */
	char		command[PRK_COMMAND_LEN];	/* a walsender's last one, cut off */

	/* a running base backup: pg_stat_progress_basebackup's own figures */
	int			backup_phase;	/* PROGRESS_BASEBACKUP_PHASE_..., 0 none */
	int64		backup_total;	/* bytes; -1 not estimated */
	int64		backup_streamed;
	bool		backup_incremental; /* false where the server doesn't tell */

	/* derived, in bytes; -1: not known */
	int64		lag_bytes;
	int64		unsent_bytes;
	int64		unwritten_bytes;
	int64		unflushed_bytes;
	int64		unreplayed_bytes;
	int64		retained_bytes;

	/* in time: added by prk_ages_add() */
	bool		has_lag_age;	/* by the LSN clock */
	int64		lag_age;		/* microseconds since the primary was first
								 * past where lag_bytes begins */
	bool		has_segment_age;	/* where neither clock nor walsender know */
	int64		segment_age;	/* of the WAL segment that holds that */

	/* added by prk_unused_add(), where nobody watches or begins to */
	TimestampTz unused_since;	/* the slot was made then and never used; 0:
								 * it was, or that is not known */
} PrkReplica;

typedef struct PrkSample
{
	TimestampTz taken_at;
	uint64		number;			/* when it was begun, in the order of events;
								 * 0: only the worker sets it */
	bool		in_recovery;
	XLogRecPtr	current_lsn;	/* write position; on a standby the greater of
								 * received and replayed */
	XLogRecPtr	received_lsn;	/* standby only */
	XLogRecPtr	replayed_lsn;	/* standby only */
	int64		slot_keep_limit;	/* max_slot_wal_keep_size in bytes; -1
									 * none */
	int64		slot_idle_limit;	/* idle_replication_slot_timeout in
									 * microseconds; -1 none */

	/* added by prk_timeline_add() */
	TimeLineID	timeline;		/* that is written, or replayed */
	XLogRecPtr	timeline_begin; /* invalid: it is the first, or not known */
	TimestampTz timeline_at;	/* when it began; 0 likewise */

	/* added by prk_ages_add() */
	int64		clock_at;		/* when, by prk_clock_now() */
	bool		has_wal_rate;
	double		wal_rate_short; /* WAL written, bytes per second, over the
								 * windows of clock_shared.h */
	double		wal_rate_long;

	int			nreplicas;
	PrkReplica *replicas;		/* unordered */
} PrkSample;

#endif							/* PRK_SAMPLE_TYPES_H */
