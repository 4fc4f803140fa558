/*-------------------------------------------------------------------------
 *
 * unused.c
 *	  Which slots wait for their replica since before anybody watched?
 *
 * Whoever watches from now on sees slots that nobody holds.  Some have been
 * left by their replica, others were made for one that is still to come, and
 * only the first are anybody's trouble.  Neither views nor shared memory tell
 * them apart, but the files do.  A physical slot that is used moves, so its
 * file is written again by the next checkpoint, and by the one at shutdown at
 * the latest.  Where that never happened since the slot's directory was made,
 * nobody has used it.
 *
 * Not so of logical slots, some of whose moves are never saved, nor on a
 * standby, which may stop without saving any.  And a crash forgets what has
 * happened since the last checkpoint: who came for the first time after that
 * seems never to have come.  So of what is older than a crash nobody says
 * "never": it has been left, for all that is known, and its file is written
 * once more, so that this is known after a clean restart, too.
 *
 * IDENTIFICATION
 *	  src/sample/unused.c
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include <fcntl.h>
#include <sys/stat.h>

#include "catalog/pg_control.h"
#include "common/controldata_utils.h"
#include "miscadmin.h"
#include "replication/slot.h"
#include "storage/spin.h"
#include "utils/timestamp.h"

#include "sample/unused.h"

/* How long the making of a slot may take, until its file is in place. */
#define MADE_WITHIN		(10 * USECS_PER_SEC)

/*
 * What a slot's file says of the time before this is not known to be all; 0: it
 * is.  Set in the postmaster, from which all other processes inherit it.
 */
static TimestampTz unproved_before = 0;

static TimestampTz made_at(const char *name);
static bool has_moved(const char *name);
static void save_later(const char *name);

/*
 * For shmem_startup_hook: how did the server end that starts now?  The control
 * file still has it, also where the postmaster begins again after the crash of a
 * backend.  A standby that is stopped cleanly may not have saved its slots.
 */
void
prk_unused_note_start(void)
{
	bool		crc_ok;
	ControlFileData *control = get_controlfile(DataDir, &crc_ok);

	unproved_before = crc_ok && control->state == DB_SHUTDOWNED ? 0 :
		GetCurrentTimestamp();
	pfree(control);
}

/*
 * For the worker, before its first sample is judged: has the file of each slot
 * written by the next checkpoint that may have been used, though no file tells.
 * Takes what prk_unused_add() does.
 */
void
prk_unused_settle(const PrkSample *sample)
{
	if (unproved_before == 0)
		return;
	for (int i = 0; i < sample->nreplicas; i++)
	{
		const PrkReplica *replica = &sample->replicas[i];
		TimestampTz made;

		if (!replica->has_slot || replica->logical || replica->temporary)
			continue;
		made = made_at(replica->slot_name);
		if (made != 0 && made < unproved_before)
			save_later(replica->slot_name);
	}
}

/*
 * Sets unused_since of each physical slot that was never used, as far as that
 * can be known.  Reads the attributes of two files a slot; takes the slot
 * control lock, shared, and the slots' spinlocks.
 */
void
prk_unused_add(PrkSample *sample)
{
	for (int i = 0; i < sample->nreplicas; i++)
	{
		PrkReplica *replica = &sample->replicas[i];
		TimestampTz made;

		if (!replica->has_slot || replica->logical || replica->temporary ||
			replica->pid != 0 || replica->invalidation != NULL ||
			replica->wal_status == PRK_WAL_LOST)
			continue;
		made = sample->in_recovery ? 0 : made_at(replica->slot_name);
		if (made != 0 && made >= unproved_before &&
			!has_moved(replica->slot_name))
			replica->unused_since = Min(made, sample->taken_at);
		else if (XLogRecPtrIsInvalid(replica->restart_lsn))
			replica->unused_since = sample->taken_at;
	}
}

/*
 * When a slot was made whose file was not written since; 0 if it was, or if
 * the file system does not tell.
 */
static TimestampTz
made_at(const char *name)
{
#ifdef STATX_BTIME
	char	   *path = psprintf("pg_replslot/%s", name);
	struct statx directory;
	struct statx file;
	TimestampTz made;
	TimestampTz written;

	if (statx(AT_FDCWD, path, 0, STATX_BTIME, &directory) != 0 ||
		(directory.stx_mask & STATX_BTIME) == 0)
		return 0;
	path = psprintf("%s/state", path);
	if (statx(AT_FDCWD, path, 0, STATX_MTIME, &file) != 0)
		return 0;

	made = time_t_to_timestamptz(directory.stx_btime.tv_sec) +
		directory.stx_btime.tv_nsec / 1000;
	written = time_t_to_timestamptz(file.stx_mtime.tv_sec) +
		file.stx_mtime.tv_nsec / 1000;

	/* Before: these are copies of the files. */
	return written >= made && written - made <= MADE_WITHIN ? made : 0;
#else
	return 0;
#endif
}

/* Has it moved since its file was written? */
static bool
has_moved(const char *name)
{
	ReplicationSlot *slot = SearchNamedReplicationSlot(name, true);
	bool		dirty;

	if (slot == NULL)
		return true;
	SpinLockAcquire(&slot->mutex);
	dirty = slot->dirty;
	SpinLockRelease(&slot->mutex);
	return dirty;
}

/* As ReplicationSlotMarkDirty() does for a slot that is one's own. */
static void
save_later(const char *name)
{
	ReplicationSlot *slot = SearchNamedReplicationSlot(name, true);

	if (slot == NULL)
		return;
	SpinLockAcquire(&slot->mutex);
	slot->just_dirtied = true;
	slot->dirty = true;
	SpinLockRelease(&slot->mutex);
}
