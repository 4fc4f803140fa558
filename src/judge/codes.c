/*-------------------------------------------------------------------------
 *
 * codes.c
 *	  Every cause that can be diagnosed: its code, and what is known of it.
 *
 * doc/codes.md has a section for each, which a test compares with this table.
 *
 * IDENTIFICATION
 *	  src/judge/codes.c
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "judge/codes.h"

/* The code's name, its level, who can know it, whether there is a remedy. */
static const PrkCodeInfo codes[PRK_NCODES] = {
	[PRK_CODE_NONE] = {"", PRK_GRAVITY_INFO, 0, false},
	[PRK_CODE_ARCHIVE_FAILING] = {"archive_failing", PRK_GRAVITY_CRITICAL,
	PRK_SIDE_SERVER, false},
	[PRK_CODE_AUTH_FAILED] = {"auth_failed", PRK_GRAVITY_WARNING,
	PRK_SIDE_UPSTREAM | PRK_SIDE_STANDBY, false},
	[PRK_CODE_CHECKPOINT_BLOCKED] = {"checkpoint_blocked", PRK_GRAVITY_CRITICAL,
	PRK_SIDE_UPSTREAM, true},
	[PRK_CODE_COLLATION_VERSION_MISMATCH] = {"collation_version_mismatch", PRK_GRAVITY_WARNING,
	PRK_SIDE_STANDBY, false},
	[PRK_CODE_DISK_FILLING] = {"disk_filling", PRK_GRAVITY_WARNING,
	PRK_SIDE_SERVER, false},
	[PRK_CODE_FLUSH_SLOW] = {"flush_slow", PRK_GRAVITY_WARNING,
	PRK_SIDE_UPSTREAM | PRK_SIDE_STANDBY, false},
	[PRK_CODE_HBA_ERROR] = {"hba_error", PRK_GRAVITY_WARNING,
	PRK_SIDE_SERVER, false},
	[PRK_CODE_HBA_NO_ENTRY] = {"hba_no_entry", PRK_GRAVITY_WARNING,
	PRK_SIDE_UPSTREAM | PRK_SIDE_STANDBY, true},
	[PRK_CODE_HBA_REJECTS] = {"hba_rejects", PRK_GRAVITY_WARNING,
	PRK_SIDE_UPSTREAM | PRK_SIDE_STANDBY, false},
	[PRK_CODE_HBA_SHADOWED] = {"hba_shadowed", PRK_GRAVITY_WARNING,
	PRK_SIDE_UPSTREAM, false},
	[PRK_CODE_LIBRARY_OUTDATED] = {"library_outdated", PRK_GRAVITY_INFO,
	PRK_SIDE_SERVER, false},
	[PRK_CODE_LOGICAL_WAITS_FOR_STANDBY] = {"logical_waits_for_standby", PRK_GRAVITY_WARNING,
	PRK_SIDE_SERVER, false},
	[PRK_CODE_NETWORK_SLOW] = {"network_slow", PRK_GRAVITY_WARNING,
	PRK_SIDE_UPSTREAM | PRK_SIDE_STANDBY, false},
	[PRK_CODE_NEWER_TIMELINE_EXISTS] = {"newer_timeline_exists", PRK_GRAVITY_CRITICAL,
	PRK_SIDE_SERVER | PRK_SIDE_STANDBY, false},
	[PRK_CODE_NO_PASSWORD] = {"no_password", PRK_GRAVITY_WARNING,
	PRK_SIDE_STANDBY, false},
	[PRK_CODE_ORPHAN_ROLE] = {"orphan_role", PRK_GRAVITY_WARNING,
	PRK_SIDE_SERVER, false},
	[PRK_CODE_ORPHAN_RULE] = {"orphan_rule", PRK_GRAVITY_INFO,
	PRK_SIDE_SERVER, false},
	[PRK_CODE_ORPHAN_SLOT] = {"orphan_slot", PRK_GRAVITY_WARNING,
	PRK_SIDE_UPSTREAM, false},
	[PRK_CODE_OTHER_CLUSTER] = {"other_cluster", PRK_GRAVITY_CRITICAL,
	PRK_SIDE_STANDBY, false},
	[PRK_CODE_OTHER_TIMELINE] = {"other_timeline", PRK_GRAVITY_CRITICAL,
	PRK_SIDE_UPSTREAM | PRK_SIDE_STANDBY, false},
	[PRK_CODE_PARAMETERS_TOO_LOW] = {"parameters_too_low", PRK_GRAVITY_WARNING,
	PRK_SIDE_STANDBY, true},
	[PRK_CODE_PROMOTED] = {"promoted", PRK_GRAVITY_WARNING,
	PRK_SIDE_SERVER, false},
	[PRK_CODE_RECEIVER_STALLED] = {"receiver_stalled", PRK_GRAVITY_WARNING,
	PRK_SIDE_UPSTREAM | PRK_SIDE_STANDBY, true},
	[PRK_CODE_RECONNECT_WOULD_FAIL] = {"reconnect_would_fail", PRK_GRAVITY_WARNING,
	PRK_SIDE_UPSTREAM, true},
	[PRK_CODE_RECOVERY_TARGET_SET] = {"recovery_target_set", PRK_GRAVITY_WARNING,
	PRK_SIDE_STANDBY, false},
	[PRK_CODE_RELOAD_NEEDED] = {"reload_needed", PRK_GRAVITY_INFO,
	PRK_SIDE_SERVER, true},
	[PRK_CODE_REPLAY_CONFLICT] = {"replay_conflict", PRK_GRAVITY_WARNING,
	PRK_SIDE_STANDBY, false},
	[PRK_CODE_REPLAY_DELAYED] = {"replay_delayed", PRK_GRAVITY_INFO,
	PRK_SIDE_STANDBY, false},
	[PRK_CODE_REPLAY_PAUSED] = {"replay_paused", PRK_GRAVITY_WARNING,
	PRK_SIDE_STANDBY, false},
	[PRK_CODE_REPLAY_SLOW] = {"replay_slow", PRK_GRAVITY_WARNING,
	PRK_SIDE_UPSTREAM | PRK_SIDE_STANDBY, false},
	[PRK_CODE_REPLICA_DOWN] = {"replica_down", PRK_GRAVITY_WARNING,
	PRK_SIDE_UPSTREAM, false},
	[PRK_CODE_REPLICA_NEVER_SEEN] = {"replica_never_seen", PRK_GRAVITY_WARNING,
	PRK_SIDE_UPSTREAM, false},
	[PRK_CODE_REPLICA_NOT_ATTACHED] = {"replica_not_attached", PRK_GRAVITY_WARNING,
	PRK_SIDE_SERVER, true},
	[PRK_CODE_REPLICA_UNRESPONSIVE] = {"replica_unresponsive", PRK_GRAVITY_WARNING,
	PRK_SIDE_UPSTREAM, false},
	[PRK_CODE_RESTART_WOULD_FAIL] = {"restart_would_fail", PRK_GRAVITY_WARNING,
	PRK_SIDE_SERVER, false},
	[PRK_CODE_RESTORE_STALLED] = {"restore_stalled", PRK_GRAVITY_WARNING,
	PRK_SIDE_STANDBY, false},
	[PRK_CODE_ROLE_CANNOT_REPLICATE] = {"role_cannot_replicate", PRK_GRAVITY_WARNING,
	PRK_SIDE_UPSTREAM | PRK_SIDE_STANDBY, false},
	[PRK_CODE_ROLE_MISSING] = {"role_missing", PRK_GRAVITY_WARNING,
	PRK_SIDE_UPSTREAM | PRK_SIDE_STANDBY, true},
	[PRK_CODE_SLOT_AT_RISK] = {"slot_at_risk", PRK_GRAVITY_CRITICAL,
	PRK_SIDE_UPSTREAM, true},
	[PRK_CODE_SLOT_HELD_BY_TRANSACTION] = {"slot_held_by_transaction", PRK_GRAVITY_CRITICAL,
	PRK_SIDE_UPSTREAM, true},
	[PRK_CODE_SLOT_LEFT_BEHIND] = {"slot_left_behind", PRK_GRAVITY_WARNING,
	PRK_SIDE_SERVER, false},
	[PRK_CODE_SLOT_LOST] = {"slot_lost", PRK_GRAVITY_CRITICAL,
	PRK_SIDE_UPSTREAM | PRK_SIDE_STANDBY, false},
	[PRK_CODE_SLOT_MISSING] = {"slot_missing", PRK_GRAVITY_CRITICAL,
	PRK_SIDE_UPSTREAM | PRK_SIDE_STANDBY, true},
	[PRK_CODE_SLOT_TAKEN] = {"slot_taken", PRK_GRAVITY_WARNING,
	PRK_SIDE_UPSTREAM | PRK_SIDE_STANDBY, false},
	[PRK_CODE_SLOT_UNLIMITED] = {"slot_unlimited", PRK_GRAVITY_WARNING,
	PRK_SIDE_SERVER, true},
	[PRK_CODE_SLOT_UNUSED] = {"slot_unused", PRK_GRAVITY_WARNING,
	PRK_SIDE_UPSTREAM, false},
	[PRK_CODE_SLOTS_EXHAUSTED] = {"slots_exhausted", PRK_GRAVITY_WARNING,
	PRK_SIDE_SERVER, true},
	[PRK_CODE_SYNC_STANDBY_MISSING] = {"sync_standby_missing", PRK_GRAVITY_CRITICAL,
	PRK_SIDE_SERVER, false},
	[PRK_CODE_TIMELINE_NOT_FOLLOWED] = {"timeline_not_followed", PRK_GRAVITY_WARNING,
	PRK_SIDE_STANDBY, true},
	[PRK_CODE_TLS_REQUIRED] = {"tls_required", PRK_GRAVITY_WARNING,
	PRK_SIDE_UPSTREAM, false},
	[PRK_CODE_UPSTREAM_FILE_UNREADABLE] = {"upstream_file_unreadable", PRK_GRAVITY_WARNING,
	PRK_SIDE_UPSTREAM | PRK_SIDE_STANDBY, false},
	[PRK_CODE_UPSTREAM_REFUSED] = {"upstream_refused", PRK_GRAVITY_WARNING,
	PRK_SIDE_UPSTREAM | PRK_SIDE_STANDBY, false},
	[PRK_CODE_UPSTREAM_UNREACHABLE] = {"upstream_unreachable", PRK_GRAVITY_WARNING,
	PRK_SIDE_STANDBY, false},
	[PRK_CODE_WAL_REMOVED] = {"wal_removed", PRK_GRAVITY_CRITICAL,
	PRK_SIDE_UPSTREAM | PRK_SIDE_STANDBY, false},
	[PRK_CODE_WALSENDERS_EXHAUSTED] = {"walsenders_exhausted", PRK_GRAVITY_WARNING,
	PRK_SIDE_SERVER | PRK_SIDE_UPSTREAM | PRK_SIDE_STANDBY, false},
	[PRK_CODE_WORKER_STALE] = {"worker_stale", PRK_GRAVITY_WARNING,
	PRK_SIDE_SERVER, false},
	[PRK_CODE_XMIN_HELD_BACK] = {"xmin_held_back", PRK_GRAVITY_WARNING,
	PRK_SIDE_UPSTREAM, false}
};

/* What is known of a code; a static struct. */
const PrkCodeInfo *
prk_code_info(PrkCode code)
{
	Assert(code < PRK_NCODES && codes[code].name != NULL);
	return &codes[code];
}

/* A code in the words of SQL; "" for none. */
const char *
prk_code_name(PrkCode code)
{
	return prk_code_info(code)->name;
}

/* A gravity in the words of SQL. */
const char *
prk_gravity_name(PrkGravity gravity)
{
	switch (gravity)
	{
		case PRK_GRAVITY_INFO:
			return "info";
		case PRK_GRAVITY_WARNING:
			return "warning";
		case PRK_GRAVITY_CRITICAL:
			return "critical";
	}
	pg_unreachable();
}
