/*-------------------------------------------------------------------------
 *
 * disk.c
 *	  When will the disk of pg_wal be full, and whose slot fills it?
 *
 * A server reuses its WAL files, so WAL fills a disk only when something
 * keeps it: here, the slot that is furthest back.  The disk has room for what
 * is free, for the files made in advance, and for those older than anybody
 * needs, which the next checkpoints reuse or remove.  That room lasts as long
 * as it takes the WAL that the slot holds to grow by as much.
 *
 * A slot that max_slot_wal_keep_size makes lose its WAL before that fills no
 * disk.
 *
 * IDENTIFICATION
 *	  src/judge/disk.c
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include <sys/statvfs.h>

#include "access/xlog.h"
#include "access/xlog_internal.h"
#include "storage/fd.h"

#include "judge/disk.h"

static int64 sum_reusable(XLogSegNo oldest_needed, XLogSegNo current);

/*
 * Looks at the disk, and forecasts by the slot that is furthest back, of
 * which the holder may be none (replica NULL).  disk is wholly overwritten.
 * Reads the names in pg_wal; what it can't read is logged, and makes it not
 * known.
 */
void
prk_disk_forecast(const PrkSample *sample, const PrkHolder *holder,
				  PrkDisk *disk)
{
	const PrkReplica *replica = holder->replica;
	XLogSegNo	current;
	XLogSegNo	oldest;
	uint64		keep_segs;

	memset(disk, 0, sizeof(PrkDisk));
	disk->growth = -1;
	disk->full_in = -1;
	disk->free_bytes = prk_disk_free_bytes();
	if (disk->free_bytes < 0)
		return;
	disk->known = true;
	disk->room = disk->free_bytes;
	if (replica == NULL)
		return;

	strlcpy(disk->holder, replica->slot_name, NAMEDATALEN);
	disk->holder_logical = replica->logical;
	disk->held_bytes = replica->retained_bytes;
	if (!holder->forecast->has_growth)
		return;
	disk->growth = holder->forecast->growth;
	if (disk->growth <= 0)
		return;

	XLByteToSeg(sample->current_lsn, current, wal_segment_size);
	XLByteToSeg(replica->restart_lsn, oldest, wal_segment_size);
	keep_segs = XLogMBVarToSegs(wal_keep_size_mb, wal_segment_size);
	oldest = Min(oldest, current > keep_segs ? current - keep_segs : 1);
	disk->room += sum_reusable(oldest, current);

	if (replica->has_safe_wal_size && replica->safe_wal_size < disk->room)
		return;
	disk->full_in = prk_forecast_time(disk->room, disk->growth);
}

/*
 * The bytes on the disk of pg_wal that this server may still use, which is not
 * what root may.  -1, and a line in the log: that can't be told.
 */
int64
prk_disk_free_bytes(void)
{
	struct statvfs vfs;

	if (statvfs(XLOGDIR, &vfs) != 0)
	{
		ereport(LOG,
				(errcode_for_file_access(),
				 errmsg("could not determine the free space of \"%s\": %m",
						XLOGDIR)));
		return -1;
	}
	return (int64) vfs.f_bavail * vfs.f_frsize;
}

/* The bytes of WAL files before what is needed, and after what is written. */
static int64
sum_reusable(XLogSegNo oldest_needed, XLogSegNo current)
{
	DIR		   *dir = AllocateDir(XLOGDIR);
	struct dirent *entry;
	int64		count = 0;

	while ((entry = ReadDirExtended(dir, XLOGDIR, LOG)) != NULL)
	{
		TimeLineID	timeline;
		XLogSegNo	segment;

		if (!IsXLogFileName(entry->d_name))
			continue;
		XLogFromFileName(entry->d_name, &timeline, &segment,
						 wal_segment_size);
		if (segment < oldest_needed || segment > current)
			count++;
	}
	FreeDir(dir);
	return count * wal_segment_size;
}
