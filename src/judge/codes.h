/*-------------------------------------------------------------------------
 *
 * codes.h
 *	  Every cause that can be diagnosed: its code, and what is known of it.
 *
 * IDENTIFICATION
 *	  src/judge/codes.h
 *
 *-------------------------------------------------------------------------
 */
#ifndef PRK_CODES_H
#define PRK_CODES_H

/* In the order of their names, as in the table of codes.c. */
typedef enum PrkCode
{
	PRK_CODE_NONE,
	PRK_CODE_ARCHIVE_FAILING,
	PRK_CODE_AUTH_FAILED,
	PRK_CODE_CHECKPOINT_BLOCKED,
	PRK_CODE_COLLATION_VERSION_MISMATCH,
	PRK_CODE_DISK_FILLING,
	PRK_CODE_FLUSH_SLOW,
	PRK_CODE_HBA_ERROR,
	PRK_CODE_HBA_NO_ENTRY,
	PRK_CODE_HBA_REJECTS,
	PRK_CODE_HBA_SHADOWED,
	PRK_CODE_LIBRARY_OUTDATED,
	PRK_CODE_LOGICAL_WAITS_FOR_STANDBY,
	PRK_CODE_NETWORK_SLOW,
	PRK_CODE_NEWER_TIMELINE_EXISTS,
	PRK_CODE_NO_PASSWORD,
	PRK_CODE_ORPHAN_ROLE,
	PRK_CODE_ORPHAN_RULE,
	PRK_CODE_ORPHAN_SLOT,
	PRK_CODE_OTHER_CLUSTER,
	PRK_CODE_OTHER_TIMELINE,
	PRK_CODE_PARAMETERS_TOO_LOW,
	PRK_CODE_PROMOTED,
	PRK_CODE_RECEIVER_STALLED,
	PRK_CODE_RECONNECT_WOULD_FAIL,
	PRK_CODE_RECOVERY_TARGET_SET,
	PRK_CODE_RELOAD_NEEDED,
	PRK_CODE_REPLAY_CONFLICT,
	PRK_CODE_REPLAY_DELAYED,
	PRK_CODE_REPLAY_PAUSED,
	PRK_CODE_REPLAY_SLOW,
	PRK_CODE_REPLICA_DOWN,
	PRK_CODE_REPLICA_NEVER_SEEN,
	PRK_CODE_REPLICA_NOT_ATTACHED,
	PRK_CODE_REPLICA_UNRESPONSIVE,
	PRK_CODE_RESTART_WOULD_FAIL,
	PRK_CODE_RESTORE_STALLED,
	PRK_CODE_ROLE_CANNOT_REPLICATE,
	PRK_CODE_ROLE_MISSING,
	PRK_CODE_SLOT_AT_RISK,
	PRK_CODE_SLOT_HELD_BY_TRANSACTION,
	PRK_CODE_SLOT_LEFT_BEHIND,
	PRK_CODE_SLOT_LOST,
	PRK_CODE_SLOT_MISSING,
	PRK_CODE_SLOT_TAKEN,
	PRK_CODE_SLOT_UNLIMITED,
	PRK_CODE_SLOT_UNUSED,
	PRK_CODE_SLOTS_EXHAUSTED,
	PRK_CODE_SYNC_STANDBY_MISSING,
	PRK_CODE_TIMELINE_NOT_FOLLOWED,
	PRK_CODE_TLS_REQUIRED,
	PRK_CODE_UPSTREAM_FILE_UNREADABLE,
	PRK_CODE_UPSTREAM_REFUSED,
	PRK_CODE_UPSTREAM_UNREACHABLE,
	PRK_CODE_WAL_REMOVED,
	PRK_CODE_WALSENDERS_EXHAUSTED,
	PRK_CODE_WORKER_STALE,
	PRK_CODE_XMIN_HELD_BACK
} PrkCode;

#define PRK_NCODES	(PRK_CODE_XMIN_HELD_BACK + 1)

/* What a diagnosis is worth; the words of SQL are info, warning, critical. */
typedef enum PrkGravity
{
	PRK_GRAVITY_INFO,
	PRK_GRAVITY_WARNING,
	PRK_GRAVITY_CRITICAL
} PrkGravity;

/* Who can know of a cause, as bits. */
#define PRK_SIDE_SERVER		1	/* any server, of itself */
#define PRK_SIDE_UPSTREAM	2	/* the server that a replica receives from */
#define PRK_SIDE_STANDBY	4	/* a standby, of itself and its upstream */

typedef struct PrkCodeInfo
{
	const char *name;
	PrkGravity	gravity;		/* where the rule says nothing else */
	int			sides;			/* PRK_SIDE_... */
	bool		has_remedy;		/* there are cases with a remedy */
} PrkCodeInfo;

extern const PrkCodeInfo *prk_code_info(PrkCode code);
extern const char *prk_code_name(PrkCode code);
extern const char *prk_gravity_name(PrkGravity gravity);

#endif							/* PRK_CODES_H */
