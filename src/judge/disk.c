/*-------------------------------------------------------------------------
 *
 * disk.c
 *	  When will the disk of pg_wal be full, and who fills it?
 *
 * A server reuses its WAL files, so WAL fills a disk only when something
 * keeps it without limit: a slot, the archiver or the summarizer.  The one
 * that is furthest back counts; what checkpoints and wal_keep_size keep has an
 * end.  The disk has room for what is free, for the files made in advance, and
 * for those older than anybody needs, which the next checkpoints reuse or
 * remove.  That room lasts as long as it takes the WAL that is kept to grow by
 * as much.
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

#include "compat.h"
#include "judge/disk.h"

/*
 * The archiver tries a file three times, a second apart, and again after a
 * minute: one that stands still for so many microseconds is not just slow.
 */
#define ARCHIVER_PAUSE	(10 * USECS_PER_SEC)

/* A summarizer that works is not so many segments behind for long. */
#define SUMMARIZER_BEHIND	INT64CONST(8)

static XLogSegNo choose_keeper(const PrkSample *sample,
							   const PrkHolder *holder,
							   const PrkArchiving *archiving, PrkDisk *disk);
static int64 sum_reusable(XLogSegNo oldest_needed, XLogSegNo current);

/*
 * Looks at the disk, and forecasts by who is furthest back; the slot that is
 * may be none (replica NULL).  disk is wholly overwritten.  Reads the names in
 * pg_wal; what it can't read is logged, and makes it not known.
 */
void
prk_disk_forecast(const PrkSample *sample, const PrkHolder *holder,
				  const PrkArchiving *archiving, PrkDisk *disk)
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
	oldest = choose_keeper(sample, holder, archiving, disk);
	if (disk->growth <= 0)
		return;

	XLByteToSeg(sample->current_lsn, current, wal_segment_size);
	keep_segs = XLogMBVarToSegs(wal_keep_size_mb, wal_segment_size);
	oldest = Min(oldest, current > keep_segs ? current - keep_segs : 1);
	disk->room += sum_reusable(oldest, current);

	if (disk->keeper == PRK_KEEPER_SLOT && replica->has_safe_wal_size &&
		replica->safe_wal_size < disk->room)
		return;
	disk->full_in = prk_forecast_time(disk->room, disk->growth);
}

/*
 * Who is furthest back, and how fast what that keeps grows.  Returns the first
 * segment that is kept.
 */
static XLogSegNo
choose_keeper(const PrkSample *sample, const PrkHolder *holder,
			  const PrkArchiving *archiving, PrkDisk *disk)
{
	const PrkReplica *replica = holder->replica;
	const PrkArchive *archive = &archiving->archive;
	XLogRecPtr	unsummarized = prk_compat_oldest_unsummarized();
	XLogSegNo	oldest = PG_UINT64_MAX;
	XLogSegNo	segment;

	if (replica != NULL)
	{
		XLByteToSeg(replica->restart_lsn, oldest, wal_segment_size);
		disk->keeper = PRK_KEEPER_SLOT;
		strlcpy(disk->holder, replica->slot_name, NAMEDATALEN);
		disk->holder_logical = replica->logical;
		disk->held_bytes = replica->retained_bytes;
		if (holder->forecast->has_growth)
			disk->growth = holder->forecast->growth;
	}
	if (!XLogRecPtrIsInvalid(unsummarized) &&
		unsummarized < sample->current_lsn)
	{
		XLByteToSeg(unsummarized, segment, wal_segment_size);
		if (segment < oldest)
		{
			oldest = segment;
			disk->keeper = PRK_KEEPER_SUMMARIZER;
			disk->held_bytes = sample->current_lsn - unsummarized;
		}
	}
	if (archive->has_segment && archive->oldest_segment < oldest)
	{
		oldest = archive->oldest_segment;
		disk->keeper = PRK_KEEPER_ARCHIVER;
		disk->held_bytes = archive->waiting_bytes;
	}
	if (disk->keeper == PRK_KEEPER_SLOT || disk->keeper == PRK_KEEPER_NONE)
		return oldest;

	/* One that stands still lets all that is written pile up. */
	disk->holder[0] = '\0';
	disk->holder_logical = false;
	disk->growth = -1;
	if ((disk->keeper == PRK_KEEPER_ARCHIVER ?
		 archiving->waited >= ARCHIVER_PAUSE :
		 disk->held_bytes >= SUMMARIZER_BEHIND * wal_segment_size) &&
		sample->has_wal_rate)
		disk->growth = Min(sample->wal_rate_short, sample->wal_rate_long);
	return oldest;
}

/*
 * Sets since when nothing was archived though something waits, and brings the
 * mark up to date.  Counted by looks, of which each saw files wait and none
 * archived; before the first the files' own times tell.
 */
void
prk_archiving_follow(PrkArchiveMark *mark, int64 now, PrkArchiving *archiving)
{
	const PrkArchive *archive = &archiving->archive;

	if (archive->waiting == 0)
		mark->since = 0;
	else if (mark->since == 0 ||
			 mark->archived_count != archive->archived_count)
	{
		mark->since = now - archive->oldest_age;
		if (mark->looked_at != 0)
			mark->since = Max(mark->since, mark->looked_at);
	}
	mark->archived_count = archive->archived_count;
	mark->looked_at = now;
	archiving->waited = mark->since != 0 ? now - mark->since : 0;
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
