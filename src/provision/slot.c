/*-------------------------------------------------------------------------
 *
 * slot.c
 *	  A replica's physical replication slot, made and dropped so that a
 *	  transaction can carry it.
 *
 * A slot is a directory and an entry in shared memory; no transaction knows
 * of it.  What makes it follow one here is its kind.  A new slot is
 * RS_TEMPORARY until the commit record is written: a crash before that leaves
 * a directory that the server removes at its next start, an error leaves a
 * slot that the abort drops.  Afterwards it is made persistent in memory
 * first, so that even when its file can't be written the next checkpoint
 * saves it.
 *
 * A slot that is to be dropped is held from before the commit record on, so
 * that no walsender can take it meanwhile.  When its folder can't be renamed,
 * the server raises an error and keeps the slot whole; for one that is made
 * RS_EPHEMERAL first it would only warn, but forget the slot and leave its
 * folder, out of which the next start would make a slot that nobody has.
 *
 * What no caller can catch: the server takes a failure to fsync the folder
 * of a slot for a PANIC (CreateSlotOnDisk, SaveSlotToPath,
 * ReplicationSlotDropPtr), as it does in pg_create_physical_replication_slot().
 * So no more is written than has to be.
 *
 * IDENTIFICATION
 *	  src/provision/slot.c
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include <signal.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/file_perm.h"
#include "miscadmin.h"
#include "pgstat.h"
#include "replication/slot.h"
#include "storage/fd.h"
#include "storage/latch.h"
#include "storage/lwlock.h"
#include "storage/proc.h"
#include "storage/procarray.h"
#include "storage/spin.h"
#include "utils/wait_event.h"

#include "clock/clock_shared.h"
#include "compat.h"
#include "provision/slot.h"

/*
 * How long a forced hold may take.  A walsender ends within milliseconds; one
 * that is stuck in a full socket is freed by the second signal.
 */
#define HOLD_TIMEOUT_MS		30000
#define HOLD_RETRY_MS		5

/* where the server keeps slots, a folder each */
#define SLOT_PATH_FORMAT	"pg_replslot/%s"

/* set by the composition root; see slot.h */
PrkSlotDropCallback prk_slot_before_drop = NULL;

static void remove_leftover(const char *name);
static bool try_hold(const char *name, int *active_pid);
static void end_walsender(int pid);

/*
 * Look a slot up by name.  Takes ReplicationSlotControlLock shared; the answer
 * may be old as soon as it is given.
 */
void
prk_slot_look_up(const char *name, PrkSlotInfo *info)
{
	ReplicationSlot *slot;

	memset(info, 0, sizeof(*info));

	/* with max_replication_slots = 0 there may be no array at all */
	if (ReplicationSlotCtl == NULL)
		return;

	LWLockAcquire(ReplicationSlotControlLock, LW_SHARED);
	slot = SearchNamedReplicationSlot(name, false);
	if (slot != NULL)
	{
		ReplicationSlot copy;

		SpinLockAcquire(&slot->mutex);
		copy = *slot;
		SpinLockRelease(&slot->mutex);

		info->exists = true;
		info->logical = SlotIsLogical(&copy);
		info->temporary = copy.data.persistency != RS_PERSISTENT;
		info->invalidated = prk_compat_slot_invalidation(&copy) != NULL;
		info->active_pid = prk_compat_slot_pid(&copy);
	}
	LWLockRelease(ReplicationSlotControlLock);
}

/*
 * How many slots can still be made.  Takes ReplicationSlotControlLock shared.
 */
int
prk_slot_count_free(void)
{
	int			nfree = 0;

	if (max_replication_slots == 0)
		return 0;

	LWLockAcquire(ReplicationSlotControlLock, LW_SHARED);
	for (int i = 0; i < max_replication_slots; i++)
	{
		if (!ReplicationSlotCtl->replication_slots[i].in_use)
			nfree++;
	}
	LWLockRelease(ReplicationSlotControlLock);

	return nfree;
}

/*
 * The legal slot name nearest to the given one, palloc'd, for a HINT; NULL
 * when nothing of it would be left.  Legal are lower-case letters, digits and
 * underscores (ReplicationSlotValidateName), here not longer than a name.
 */
char *
prk_slot_legal_name(const char *name)
{
	char		result[NAMEDATALEN];
	int			len = 0;
	bool		has_alnum = false;

	for (const char *c = name; *c && len < NAMEDATALEN - 1; c++)
	{
		if ((*c >= 'a' && *c <= 'z') || (*c >= '0' && *c <= '9'))
		{
			result[len++] = *c;
			has_alnum = true;
		}
		else if (*c >= 'A' && *c <= 'Z')
		{
			result[len++] = *c - 'A' + 'a';
			has_alnum = true;
		}
		else if (len > 0 && result[len - 1] != '_')
			result[len++] = '_';
	}
	while (len > 0 && result[len - 1] == '_')
		len--;
	result[len] = '\0';

	return has_alnum ? pstrdup(result) : NULL;
}

/*
 * Create the slot, with WAL reserved from now on, so that it is gone unless
 * prk_slot_persist() follows.  Raises the server's own errors (no free slot,
 * name taken).  The caller drops it with prk_slot_discard() when the
 * transaction fails, also when this function itself failed half-way.
 *
 * From where WAL is reserved is only in memory until prk_slot_persist(): in a
 * crash before that the slot goes anyway.
 */
void
prk_slot_create_staged(const char *name)
{
	remove_leftover(name);
	prk_compat_slot_create(name, false, RS_TEMPORARY, false, false,
						   false, false);
	ReplicationSlotReserveWal();
	ReplicationSlotMarkDirty();
	ReplicationSlotRelease();
}

/*
 * Make a staged slot persistent.  In memory this can't fail; writing its file
 * can, and raises an error then.
 */
void
prk_slot_persist(const char *name)
{
	char		path[NAMEDATALEN + sizeof(SLOT_PATH_FORMAT)];
	struct stat st;

	prk_compat_slot_acquire(name, true, false);
	snprintf(path, sizeof(path), SLOT_PATH_FORMAT, name);

	/* taken away from outside, it would keep the slot from ever being saved */
	if (stat(path, &st) != 0 && errno == ENOENT)
		(void) MakePGDirectory(path);

	ReplicationSlotPersist();
	ReplicationSlotRelease();
}

/*
 * Drop a staged slot if this backend has one of that name, and what a failure
 * to create it has left.  Another staged slot may be the one that is acquired.
 */
void
prk_slot_discard(const char *name)
{
	PrkSlotInfo info;

	/* an error inside prk_slot_create_staged() leaves it acquired */
	if (MyReplicationSlot != NULL)
		ReplicationSlotRelease();

	prk_slot_look_up(name, &info);
	if (info.exists && info.temporary && info.active_pid == MyProcPid)
		ReplicationSlotDrop(name, true);
	remove_leftover(name);
}

/*
 * Remove the folder of a slot that does not exist: of one that could not be
 * created, or whose drop could not rename it.  The server removes such a
 * folder only when it starts, and until then no slot of that name can be made.
 */
static void
remove_leftover(const char *name)
{
	char	   *path = psprintf(SLOT_PATH_FORMAT, name);
	char	   *tmppath = psprintf(SLOT_PATH_FORMAT ".tmp", name);
	struct stat st;

	/* the lock that whoever creates or drops a slot holds meanwhile */
	LWLockAcquire(ReplicationSlotAllocationLock, LW_EXCLUSIVE);
	if (SearchNamedReplicationSlot(name, true) == NULL)
	{
		if (stat(tmppath, &st) == 0)
			(void) rmtree(tmppath, true);
		if (stat(path, &st) == 0 && rename(path, tmppath) == 0)
			(void) rmtree(tmppath, true);
	}
	LWLockRelease(ReplicationSlotAllocationLock);
}

/*
 * Take the slot and keep it in MyReplicationSlot: from here on no walsender
 * can.  Raises an error when it is active; with force, ends its process again
 * and again until the slot can be taken, since a replica reconnects at once.
 * The options are those of a call of deprovision() that does that, for a HINT.
 */
void
prk_slot_hold(const char *name, bool force, const char *force_options)
{
	int64		deadline = prk_clock_now() + HOLD_TIMEOUT_MS * INT64CONST(1000);
	int			active_pid = 0;

	while (!try_hold(name, &active_pid))
	{
		if (!force || active_pid == 0 ||
			prk_clock_now() >= deadline)
			ereport(ERROR,
					(errcode(ERRCODE_OBJECT_IN_USE),
					 errmsg("replication slot \"%s\" is active for PID %d",
							name, active_pid),
					 force ?
					 errdetail("The process did not end within %d s.",
							   HOLD_TIMEOUT_MS / 1000) :
					 errhint("Stop the replica first, or end its connection with: SELECT * FROM replica_kit.deprovision('%s'%s);",
							 name, force_options)));

		end_walsender(active_pid);

		(void) WaitLatch(MyLatch, WL_LATCH_SET | WL_TIMEOUT | WL_EXIT_ON_PM_DEATH,
						 HOLD_RETRY_MS, PG_WAIT_EXTENSION);
		ResetLatch(MyLatch);
		CHECK_FOR_INTERRUPTS();
	}
}

/*
 * Take the slot if nobody has it.  False, with the pid, when somebody does.
 */
static bool
try_hold(const char *name, int *active_pid)
{
	ReplicationSlot *slot;
	bool		held = false;

	Assert(MyReplicationSlot == NULL);

	/*
	 * ReplicationSlotAcquire() raises an error for an active slot, and an
	 * error can't be caught here without a subtransaction.  So claim the slot
	 * in its own way first: whoever marks it as active has it.
	 */
	LWLockAcquire(ReplicationSlotControlLock, LW_SHARED);
	slot = SearchNamedReplicationSlot(name, false);
	if (slot != NULL)
	{
		SpinLockAcquire(&slot->mutex);
		*active_pid = prk_compat_slot_pid(slot);
		if (*active_pid == 0)
		{
			prk_compat_slot_claim(slot);
			held = true;
		}
		SpinLockRelease(&slot->mutex);
	}
	LWLockRelease(ReplicationSlotControlLock);

	if (slot == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_OBJECT),
				 errmsg("replication slot \"%s\" does not exist", name)));

	/* our own already, so this only completes what belongs to holding it */
	if (held)
		prk_compat_slot_acquire(name, true, false);

	return held;
}

/*
 * Ask a walsender to end.  Signalled again at each try: the first signal of
 * one that is stuck sending into a full socket is used up by the attempt to
 * tell its client (ProcessInterrupts), the second one ends it.
 */
static void
end_walsender(int pid)
{
	/* it may have ended since, and its pid be somebody else's */
	if (BackendPidGetProc(pid) == NULL)
		return;

	if (kill(pid, SIGTERM) != 0 && errno != ESRCH)
		ereport(WARNING,
				(errmsg("could not send signal to process %d: %m", pid)));
}

/*
 * Drop the slot that prk_slot_hold() took, without the worker's taking it for
 * a loss.  An error leaves it as it was, free for others.
 */
void
prk_slot_drop_held(const char *name)
{
	if (MyReplicationSlot == NULL ||
		strcmp(NameStr(MyReplicationSlot->data.name), name) != 0)
		elog(ERROR, "replication slot \"%s\" is not held", name);

	if (prk_slot_before_drop)
		prk_slot_before_drop(name);

	/* to be taken once more, as the function wants; it is still ours */
	MyReplicationSlot = NULL;
	ReplicationSlotDrop(name, true);
	remove_leftover(name);
}

/*
 * Give back the slot that prk_slot_hold() took, unchanged.  Does nothing when
 * it isn't held.
 */
void
prk_slot_let_go(const char *name)
{
	if (MyReplicationSlot != NULL &&
		strcmp(NameStr(MyReplicationSlot->data.name), name) == 0)
		ReplicationSlotRelease();
}
