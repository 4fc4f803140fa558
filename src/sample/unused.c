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
 * happened since the last checkpoint: who came for the first time after that,
 * and does not come back, seems never to have come.
 *
 * IDENTIFICATION
 *	  src/sample/unused.c
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include <fcntl.h>
#include <sys/stat.h>

#include "replication/slot.h"
#include "storage/spin.h"
#include "utils/timestamp.h"

#include "sample/unused.h"

/* How long the making of a slot may take, until its file is in place. */
#define MADE_WITHIN		(10 * USECS_PER_SEC)

static TimestampTz made_at(const char *name);
static bool has_moved(const char *name);

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
		if (made != 0 && !has_moved(replica->slot_name))
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
