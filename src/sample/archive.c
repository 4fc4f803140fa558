/*-------------------------------------------------------------------------
 *
 * archive.c
 *	  The archiver: what waits for it, and what it has done.
 *
 * A WAL file that waits has a file beside in archive_status, until it is
 * archived (src/backend/access/transam/xlogarchive.c); that alone tells of an
 * archiver that hangs, or is told nothing to do, since neither is a failure.
 * The counters are read where the archiver writes them, since a snapshot of
 * statistics would be as old as the transaction.
 *
 * IDENTIFICATION
 *	  src/sample/archive.c
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include <sys/stat.h>

#include "access/xlog.h"
#include "storage/fd.h"
#include "utils/guc.h"
#include "utils/pgstat_internal.h"
#include "utils/timestamp.h"

#include "sample/archive.h"

#define STATUS_DIR		XLOGDIR "/archive_status"
#define READY			".ready"

static void read_counters(PrkArchive *archive);
static void read_waiting(PrkArchive *archive);

/*
 * Reads the names in archive_status and the archiver's counters; archive is
 * wholly overwritten.  What can't be read is logged, and waits for nothing.
 */
void
prk_archive_read(bool in_recovery, PrkArchive *archive)
{
	const char *library = GetConfigOption("archive_library", true, false);

	memset(archive, 0, sizeof(PrkArchive));
	archive->active = in_recovery ? XLogArchivingAlways() :
		XLogArchivingActive();
	if (!archive->active)
		return;
	archive->configured =
		(XLogArchiveCommand != NULL && XLogArchiveCommand[0] != '\0') ||
		(library != NULL && library[0] != '\0');
	read_counters(archive);
	read_waiting(archive);
}

/* What has been archived, and what could not be. */
static void
read_counters(PrkArchive *archive)
{
	PgStatShared_Archiver *shared = &pgStatLocal.shmem->archiver;
	PgStat_ArchiverStats stats;

	pgstat_copy_changecounted_stats(&stats, &shared->stats, sizeof(stats),
									&shared->changecount);
	archive->archived_count = stats.archived_count;
	archive->failed_count = stats.failed_count;
	archive->last_archived_at = stats.last_archived_timestamp;
	archive->last_failed_at = stats.last_failed_timestamp;
	strlcpy(archive->last_failed, stats.last_failed_wal, MAXFNAMELEN);
}

/* What waits, and for how long the first has. */
static void
read_waiting(PrkArchive *archive)
{
	DIR		   *dir = AllocateDir(STATUS_DIR);
	struct dirent *entry;
	char		first[MAXFNAMELEN] = "";
	struct stat status;
	TimestampTz since;

	while ((entry = ReadDirExtended(dir, STATUS_DIR, LOG)) != NULL)
	{
		size_t		length = strlen(entry->d_name);
		char		name[MAXFNAMELEN];
		TimeLineID	timeline;
		XLogSegNo	segment;

		if (length <= strlen(READY) ||
			length - strlen(READY) >= MAXFNAMELEN ||
			strcmp(entry->d_name + length - strlen(READY), READY) != 0)
			continue;
		archive->waiting++;
		strlcpy(name, entry->d_name, length - strlen(READY) + 1);
		if (!IsXLogFileName(name))
			continue;
		archive->waiting_bytes += wal_segment_size;
		XLogFromFileName(name, &timeline, &segment, wal_segment_size);
		if (archive->has_segment && segment >= archive->oldest_segment)
			continue;
		archive->has_segment = true;
		archive->oldest_segment = segment;
		strlcpy(first, name, MAXFNAMELEN);
	}
	FreeDir(dir);

	/* It may have been archived meanwhile. */
	since = archive->last_archived_at;
	if (first[0] != '\0' &&
		stat(psprintf("%s/%s%s", STATUS_DIR, first, READY), &status) == 0)
		since = Max(since, time_t_to_timestamptz(status.st_mtime));
	if (archive->waiting > 0 && since != 0)
		archive->oldest_age = Max(GetCurrentTimestamp() - since, 0);
}
