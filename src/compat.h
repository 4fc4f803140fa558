/*-------------------------------------------------------------------------
 *
 * compat.h
 *	  Every difference between server versions, in one place.
 *
 * Shims have the newest server's signature and translate down.  No other
 * file of this extension tests PG_VERSION_NUM.
 *
 * IDENTIFICATION
 *	  src/compat.h
 *
 *-------------------------------------------------------------------------
 */
#ifndef PRK_COMPAT_H
#define PRK_COMPAT_H

#if PG_VERSION_NUM >= 190000
#include "access/xlogwait.h"
#endif
#include "catalog/pg_proc.h"
#include "commands/progress.h"
#if PG_VERSION_NUM >= 160000
#include "common/file_utils.h"	/* PG_TEMP_FILE_PREFIX, before in fd.h */
#endif
#include "libpq/hba.h"
#include "miscadmin.h"
#if PG_VERSION_NUM >= 170000
#include "postmaster/walsummarizer.h"
#endif
#include "replication/slot.h"
#include "replication/walreceiver.h"
#include "storage/fd.h"
#include "storage/lock.h"
#include "storage/proc.h"
#include "utils/acl.h"
#include "utils/backend_status.h"
#include "utils/guc.h"
#include "utils/guc_tables.h"
#include "utils/timestamp.h"
#if PG_VERSION_NUM >= 160000
#include "varatt.h"				/* before in postgres.h */
#endif

#if PG_VERSION_NUM < 150000
#error "pg_replica_kit requires PostgreSQL 15 or later"
#endif

/* The major version, as it is in the names of packages and directories. */
#define PRK_COMPAT_MAJOR	(PG_VERSION_NUM / 10000)

/*
 * The module's magic block.  18 added name and version, which
 * pg_get_loaded_modules() shows (9324c8c5806).
 */
#if PG_VERSION_NUM >= 180000
#define PRK_COMPAT_MODULE_MAGIC(version_string) \
	PG_MODULE_MAGIC_EXT(.name = "pg_replica_kit", .version = version_string)
#else
#define PRK_COMPAT_MODULE_MAGIC(version_string) PG_MODULE_MAGIC
#endif

/*
 * 17 added failover and synced (c393308b69d, ddd5f4f54a0), 19 repack.
 */
static inline void
prk_compat_slot_create(const char *name, bool db_specific,
					   ReplicationSlotPersistency persistency,
					   bool two_phase, bool repack, bool failover,
					   bool synced)
{
#if PG_VERSION_NUM >= 190000
	ReplicationSlotCreate(name, db_specific, persistency, two_phase, repack,
						  failover, synced);
#elif PG_VERSION_NUM >= 170000
	ReplicationSlotCreate(name, db_specific, persistency, two_phase,
						  failover, synced);
#else
	ReplicationSlotCreate(name, db_specific, persistency, two_phase);
#endif
}

/*
 * How many slots can there be at all?  19 keeps some for REPACK, behind the
 * max_replication_slots for everybody else; pg_replication_slots shows both.
 */
static inline int
prk_compat_slots(void)
{
#if PG_VERSION_NUM >= 190000
	return max_replication_slots + max_repack_replication_slots;
#else
	return max_replication_slots;
#endif
}

/*
 * The process that has the slot, or this copy of it; 0: none.  19 keeps the
 * number of its PGPROC instead.  Nobody's, or the next one's, when the process
 * has ended since the copy was made.
 */
static inline int
prk_compat_slot_pid(const ReplicationSlot *slot)
{
#if PG_VERSION_NUM >= 190000
	return slot->active_proc == INVALID_PROC_NUMBER ? 0 :
		GetPGProcByNumber(slot->active_proc)->pid;
#else
	return slot->active_pid;
#endif
}

/* Make the slot this process's.  The caller holds its mutex; nobody has it. */
static inline void
prk_compat_slot_claim(ReplicationSlot *slot)
{
#if PG_VERSION_NUM >= 190000
	slot->active_proc = MyProcNumber;
#else
	slot->active_pid = MyProcPid;
#endif
}

/*
 * 18 added error_if_invalid; before it no version refused an invalidated
 * physical slot.
 */
static inline void
prk_compat_slot_acquire(const char *name, bool nowait, bool error_if_invalid)
{
#if PG_VERSION_NUM >= 180000
	ReplicationSlotAcquire(name, nowait, error_if_invalid);
#else
	ReplicationSlotAcquire(name, nowait);
#endif
}

/*
 * Why has this copy of a slot been invalidated?  By the name that
 * pg_replication_slots has for it; NULL: it has not.
 *
 * 15 knows only one cause; 16 more, 17 their names, and 18 keeps these to
 * itself.
 */
static inline const char *
prk_compat_slot_invalidation(const ReplicationSlot *slot)
{
#if PG_VERSION_NUM >= 180000
	return slot->data.invalidated == RS_INVAL_NONE ? NULL :
		GetSlotInvalidationCauseName(slot->data.invalidated);
#elif PG_VERSION_NUM >= 170000
	return slot->data.invalidated == RS_INVAL_NONE ? NULL :
		SlotInvalidationCauses[slot->data.invalidated];
#elif PG_VERSION_NUM >= 160000
	switch (slot->data.invalidated)
	{
		case RS_INVAL_NONE:
			return NULL;
		case RS_INVAL_WAL_REMOVED:
			return "wal_removed";
		case RS_INVAL_HORIZON:
			return "rows_removed";
		case RS_INVAL_WAL_LEVEL:
			return "wal_level_insufficient";
	}
	pg_unreachable();
#else
	return XLogRecPtrIsInvalid(slot->data.restart_lsn) &&
		!XLogRecPtrIsInvalid(slot->data.invalidated_at) ?
		"wal_removed" : NULL;
#endif
}

/* Since when is the slot inactive?  0: active, or not known before 17. */
static inline TimestampTz
prk_compat_slot_inactive_since(const ReplicationSlot *slot)
{
#if PG_VERSION_NUM >= 170000
	return prk_compat_slot_pid(slot) == 0 ? slot->inactive_since : 0;
#else
	return 0;
#endif
}

/*
 * After how long is a slot lost that nobody uses?  In microseconds; -1:
 * never, as always before 18.
 */
static inline int64
prk_compat_slot_idle_limit(void)
{
#if PG_VERSION_NUM >= 180000
	if (idle_replication_slot_timeout_secs > 0)
		return idle_replication_slot_timeout_secs * USECS_PER_SEC;
#endif
	return -1;
}

/* Is the slot a copy that a standby keeps of its primary's slot?  (17+) */
static inline bool
prk_compat_slot_synced(const ReplicationSlot *slot)
{
#if PG_VERSION_NUM >= 170000
	return slot->data.synced != 0;
#else
	return false;
#endif
}

/* Does a logical slot wait for synchronized_standby_slots?  (17+) */
static inline bool
prk_compat_slot_failover(const ReplicationSlot *slot)
{
#if PG_VERSION_NUM >= 170000
	return slot->data.failover;
#else
	return false;
#endif
}

/*
 * Why was this copy of a slot not synchronized last?  By the name that
 * pg_replication_slots has for it in slotsync_skip_reason; NULL: it was, or
 * the server doesn't tell, as none before 19.
 */
static inline const char *
prk_compat_slot_sync_skipped(const ReplicationSlot *slot)
{
#if PG_VERSION_NUM >= 190000
	switch (slot->slotsync_skip_reason)
	{
		case SS_SKIP_NONE:
			return NULL;
		case SS_SKIP_WAL_NOT_FLUSHED:
			return "wal_not_flushed";
		case SS_SKIP_WAL_OR_ROWS_REMOVED:
			return "wal_or_rows_removed";
		case SS_SKIP_NO_CONSISTENT_SNAPSHOT:
			return "no_consistent_snapshot";
		case SS_SKIP_INVALID:
			return "slot_invalidated";
	}
#endif
	return NULL;
}

/*
 * Does that process, which runs a base backup, send an incremental one?  False
 * before 19, which does not tell.
 */
static inline bool
prk_compat_backup_is_incremental(const PgBackendStatus *entry)
{
#if PG_VERSION_NUM >= 190000
	return entry->st_progress_param[PROGRESS_BASEBACKUP_BACKUP_TYPE] ==
		PROGRESS_BASEBACKUP_BACKUP_TYPE_INCREMENTAL;
#else
	return false;
#endif
}

/*
 * Is a walreceiver in that state still about to connect?  19 tells; before it
 * a receiver is "streaming" from its start.
 */
static inline bool
prk_compat_receiver_connects(WalRcvState state)
{
#if PG_VERSION_NUM >= 190000
	return state == WALRCV_CONNECTING;
#else
	return false;
#endif
}

/*
 * The setting whose fall below "logical" on a primary costs its standbys their
 * logical slots.  From 19 on "logical" is in force while it is needed,
 * whatever wal_level says.
 */
#if PG_VERSION_NUM >= 190000
#define PRK_COMPAT_LOGICAL_LEVEL	"effective_wal_level"
#else
#define PRK_COMPAT_LOGICAL_LEVEL	"wal_level"
#endif

/*
 * How many entries has the array of backend entries?  17 counts auxiliary
 * processes in another way.
 */
static inline int
prk_compat_backend_entries(void)
{
#if PG_VERSION_NUM >= 170000
	return MaxBackends + NUM_AUXILIARY_PROCS;
#else
	return MaxBackends + NUM_AUXPROCTYPES;
#endif
}

/*
 * Does a reload make the WAL receiver compute again when it asks for an answer
 * and when it gives up?  (16+: WalReceiverMain() in
 * src/backend/replication/walreceiver.c)
 */
static inline bool
prk_compat_reload_restarts_ping(void)
{
	return PG_VERSION_NUM >= 160000;
}

/*
 * The oldest WAL that is still to be summarized, which holds it back;
 * invalid: none.  (17+)
 */
static inline XLogRecPtr
prk_compat_oldest_unsummarized(void)
{
#if PG_VERSION_NUM >= 170000
	return GetOldestUnsummarizedLSN(NULL, NULL);
#else
	return InvalidXLogRecPtr;
#endif
}

/* 17 added WAL summaries, and incremental backups that go by them. */
#if PG_VERSION_NUM >= 170000
#define PRK_COMPAT_HAS_SUMMARIES
#endif

/*
 * From which level on does that kind of process write to the log?  19 has a
 * level for each (log_min_messages is a list there).
 */
static inline int
prk_compat_log_min_messages(BackendType type)
{
#if PG_VERSION_NUM >= 190000
	return log_min_messages[type];
#else
	return log_min_messages;
#endif
}

/*
 * Memory for the extra data of a check hook.  16 gave the GUC code a memory
 * context of its own (407b50f2d42); before it freed such data with free().
 */
static inline void *
prk_compat_guc_malloc(int elevel, size_t size)
{
#if PG_VERSION_NUM >= 160000
	return guc_malloc(elevel, size);
#else
	void	   *data = malloc(size);

	if (data == NULL)
		ereport(elevel,
				(errcode(ERRCODE_OUT_OF_MEMORY),
				 errmsg("out of memory")));
	return data;
#endif
}

static inline void
prk_compat_guc_free(void *data)
{
#if PG_VERSION_NUM >= 160000
	guc_free(data);
#else
	free(data);
#endif
}

/*
 * 16 made a leading slash in pg_hba.conf start a regular expression
 * (8fea86830e1).
 */
static inline bool
prk_compat_hba_has_regex(void)
{
	return PG_VERSION_NUM >= 160000;
}

/* The regular expression of a token; NULL: it has none. */
static inline regex_t *
prk_compat_auth_token_regex(const AuthToken *token)
{
#if PG_VERSION_NUM >= 160000
	return token->regex;
#else
	return NULL;
#endif
}

/*
 * 16 added included files, and with them depth and where a line is from
 * (a54b658ce77).
 */
static inline FILE *
prk_compat_open_auth_file(const char *filename, int elevel, int depth,
						  char **err_msg)
{
#if PG_VERSION_NUM >= 160000
	return open_auth_file(filename, elevel, depth, err_msg);
#else
	FILE	   *file = AllocateFile(filename, "r");

	if (file == NULL)
	{
		int			save_errno = errno;

		ereport(elevel,
				(errcode_for_file_access(),
				 errmsg("could not open file \"%s\": %m", filename)));
		errno = save_errno;
	}
	return file;
#endif
}

/* What this allocates on 15 lives as long as the caller's memory context. */
static inline void
prk_compat_tokenize_auth_file(const char *filename, FILE *file,
							  List **tok_lines, int elevel, int depth)
{
#if PG_VERSION_NUM >= 160000
	tokenize_auth_file(filename, file, tok_lines, elevel, depth);
#else
	(void) tokenize_auth_file(filename, file, tok_lines, elevel);
#endif
}

static inline void
prk_compat_free_auth_file(FILE *file, int depth)
{
#if PG_VERSION_NUM >= 160000
	free_auth_file(file, depth);
#else
	FreeFile(file);
#endif
}

static inline const char *
prk_compat_auth_line_file(const TokenizedAuthLine *line)
{
#if PG_VERSION_NUM >= 160000
	return line->file_name;
#else
	return HbaFileName;
#endif
}

/* 16 has one object_aclcheck() for all kinds of objects (c727f511bd7). */
static inline AclResult
prk_compat_proc_aclcheck(Oid proc, Oid role, AclMode mode)
{
#if PG_VERSION_NUM >= 160000
	return object_aclcheck(ProcedureRelationId, proc, role, mode);
#else
	return pg_proc_aclcheck(proc, role, mode);
#endif
}

/*
 * The record of a setting; NULL: there is none.  16 exported find_option()
 * (0a20ff54f5e); names are compared without regard to case.
 */
static inline struct config_generic *
prk_compat_guc_find(const char *name)
{
#if PG_VERSION_NUM >= 160000
	return find_option(name, false, true, DEBUG3);
#else
	struct config_generic **records = get_guc_variables();

	for (int i = 0; i < GetNumConfigOptions(); i++)
	{
		if (pg_strcasecmp(records[i]->name, name) == 0)
			return records[i];
	}
	return NULL;
#endif
}

/* The records of all settings, by name; 16 made them a hash table. */
static inline struct config_generic **
prk_compat_guc_list(int *count)
{
#if PG_VERSION_NUM >= 160000
	return get_guc_variables(count);
#else
	*count = GetNumConfigOptions();
	return get_guc_variables();
#endif
}

/*
 * The built-in value of a setting, in its base unit.  19 made the records of
 * all types one (a13833c35f9).
 */
#if PG_VERSION_NUM >= 190000
#define PRK_COMPAT_GUC(record, kind)	(&(record)->_##kind)
#define PRK_COMPAT_GUC_ENUM(record)		(record)
#else
#define PRK_COMPAT_GUC(record, kind)	((struct config_##kind *) (record))
#define PRK_COMPAT_GUC_ENUM(record)		((struct config_enum *) (record))
#endif

static inline const char *
prk_compat_guc_boot(struct config_generic *record)
{
	switch (record->vartype)
	{
		case PGC_BOOL:
			return PRK_COMPAT_GUC(record, bool)->boot_val ? "on" : "off";
		case PGC_INT:
			return psprintf("%d", PRK_COMPAT_GUC(record, int)->boot_val);
		case PGC_REAL:
			return psprintf("%g", PRK_COMPAT_GUC(record, real)->boot_val);
		case PGC_STRING:
			return PRK_COMPAT_GUC(record, string)->boot_val ?
				PRK_COMPAT_GUC(record, string)->boot_val : "";
		case PGC_ENUM:
			return config_enum_lookup_by_value(PRK_COMPAT_GUC_ENUM(record),
											   PRK_COMPAT_GUC(record, enum)->boot_val);
	}
	pg_unreachable();
}

/* The column of pg_database with ICU's locale; 17 renamed it (f696c0cd5f2). */
#if PG_VERSION_NUM >= 170000
#define PRK_COMPAT_DATABASE_LOCALE	Anum_pg_database_datlocale
#else
#define PRK_COMPAT_DATABASE_LOCALE	Anum_pg_database_daticulocale
#endif

/* The number of this process's PGPROC, which has a variable since 17. */
static inline int
prk_compat_proc_number(void)
{
#if PG_VERSION_NUM >= 170000
	return MyProcNumber;
#else
	return MyProc->pgprocno;
#endif
}

/* Does this process hold any lock on that object? */
static inline bool
prk_compat_lock_held(const LOCKTAG *tag)
{
#if PG_VERSION_NUM >= 170000
	return LockHeldByMe(tag, AccessShareLock, true);
#else
	for (LOCKMODE mode = AccessShareLock; mode <= AccessExclusiveLock; mode++)
	{
		if (LockHeldByMe(tag, mode))
			return true;
	}
	return false;
#endif
}

/* 17 made intervals infinite (519fc1bd9e9). */
static inline bool
prk_compat_interval_is_infinite(const Interval *interval)
{
#if PG_VERSION_NUM >= 170000
	return INTERVAL_NOT_FINITE(interval);
#else
	return false;
#endif
}

/*
 * Does the startup process itself wake who waits for a position?  19 does, for
 * WAIT FOR LSN (447aae13b03).
 */
static inline bool
prk_compat_has_replay_wait(void)
{
	return PG_VERSION_NUM >= 190000;
}

/*
 * Sleeps until the position is replayed, recovery ends or the time is over,
 * which is in milliseconds and above 0.
 */
static inline void
prk_compat_wait_for_replay(XLogRecPtr position, int milliseconds)
{
#if PG_VERSION_NUM >= 190000
	(void) WaitForLSN(WAIT_LSN_TYPE_STANDBY_REPLAY, position, milliseconds);
#else
	elog(ERROR, "this server cannot wait for replay");
#endif
}

/* 17 says in its name that this goes by a place in the list, from 1 on. */
#if PG_VERSION_NUM < 170000
#define pgstat_get_local_beentry_by_index(i) pgstat_fetch_stat_local_beentry(i)
#endif

/* 19 says that it is a fast one. */
#if PG_VERSION_NUM < 190000
#define CHECKPOINT_FAST CHECKPOINT_IMMEDIATE
#endif

#endif							/* PRK_COMPAT_H */
