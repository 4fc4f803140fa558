/*-------------------------------------------------------------------------
 *
 * server.c
 *	  What is wrong with the server as a whole.  Pure functions.
 *
 * A disk that fills is everybody's trouble, however many slots fill it; and so
 * are commits that wait for a synchronous standby, and WAL that waits to be
 * archived.
 *
 * IDENTIFICATION
 *	  src/judge/server.c
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "format.h"
#include "judge/server.h"

/* A forecast is taken back when it is this much further than its limit. */
#define CLEAR_PERCENT	125

/* The restart of a standby, during which commits wait, is no alarm. */
#define SYNC_GRACE		(10 * USECS_PER_SEC)

static void judge_disk(const PrkDisk *disk, const PrkThresholds *thresholds,
					   PrkServerVerdict *verdict);
static PrkLevel disk_level(const PrkDisk *disk,
						   const PrkThresholds *thresholds, int percent);
static void judge_sync(const PrkSync *sync, PrkServerVerdict *verdict);
static void judge_archive(const PrkServerFacts *facts,
						  const PrkThresholds *thresholds,
						  PrkServerVerdict *verdict);
static PrkLevel archive_level(const PrkArchiving *archiving,
							  const PrkThresholds *thresholds);

/* Judges one trouble; the verdict is wholly overwritten. */
void
prk_server_judge(const PrkServerFacts *facts, PrkServerTrouble trouble,
				 const PrkThresholds *thresholds, PrkServerVerdict *verdict)
{
	memset(verdict, 0, sizeof(PrkServerVerdict));
	switch (trouble)
	{
		case PRK_TROUBLE_DISK:
			judge_disk(&facts->disk, thresholds, verdict);
			break;
		case PRK_TROUBLE_SYNC:
			judge_sync(&facts->sync, verdict);
			break;
		case PRK_TROUBLE_ARCHIVE:
			judge_archive(facts, thresholds, verdict);
			break;
	}
	if (thresholds->off)
	{
		verdict->code = PRK_CODE_NONE;
		verdict->level = verdict->lenient = PRK_OK;
		verdict->at_once = false;
	}
}

/* Judges when the disk of pg_wal will be full. */
static void
judge_disk(const PrkDisk *disk, const PrkThresholds *thresholds,
		   PrkServerVerdict *verdict)
{
	char		buf[PRK_FORMAT_LEN];

	/* The archiver's doing is told as that. */
	if (disk->keeper != PRK_KEEPER_ARCHIVER)
	{
		verdict->level = disk_level(disk, thresholds, 100);
		verdict->lenient = disk_level(disk, thresholds, CLEAR_PERCENT);
	}
	if (verdict->level != PRK_OK)
		verdict->code = PRK_CODE_DISK_FILLING;
	if (disk->full_in >= 0)
		snprintf(verdict->reason, PRK_REASON_LEN,
				 "disk of pg_wal will be full in %s",
				 prk_format_duration(buf, disk->full_in));
	else
		snprintf(verdict->reason, PRK_REASON_LEN,
				 "disk of pg_wal has %s free",
				 prk_format_size(buf, disk->free_bytes));
}

/* The level of a forecast, with its limits stretched to so many percent. */
static PrkLevel
disk_level(const PrkDisk *disk, const PrkThresholds *thresholds, int percent)
{
	int64		full_in = disk->full_in / 10 / percent;

	if (!disk->known || disk->full_in < 0)
		return PRK_OK;
	if (thresholds->critical_forecast >= 0 &&
		full_in <= thresholds->critical_forecast)
		return PRK_CRITICAL;
	if (thresholds->warning_forecast >= 0 &&
		full_in <= thresholds->warning_forecast)
		return PRK_WARNING;
	return PRK_OK;
}

/* Commits hang: critical once the first has waited for some time. */
static void
judge_sync(const PrkSync *sync, PrkServerVerdict *verdict)
{
	char		buf[PRK_FORMAT_LEN];

	if (sync->there >= sync->wanted)
	{
		strlcpy(verdict->reason, "enough synchronous standbys are connected",
				PRK_REASON_LEN);
		return;
	}
	verdict->code = PRK_CODE_SYNC_STANDBY_MISSING;
	if (sync->waiting == 0 ||
		(sync->waited >= 0 && sync->waited < SYNC_GRACE))
	{
		snprintf(verdict->reason, PRK_REASON_LEN,
				 "commits will wait: %d of %d synchronous standbys connected",
				 sync->there, sync->wanted);
		return;
	}
	verdict->level = verdict->lenient = PRK_CRITICAL;
	verdict->at_once = true;
	snprintf(verdict->reason, PRK_REASON_LEN,
			 "commits hang%s%s: %d of %d synchronous standbys connected",
			 sync->waited >= 0 ? " for " : "",
			 sync->waited >= 0 ?
			 prk_format_duration(buf, sync->waited) : "",
			 sync->there, sync->wanted);
}

/*
 * WAL waits to be archived and nothing is: as bad as a replica that has been
 * away for as long, and worse where that fills the disk.
 */
static void
judge_archive(const PrkServerFacts *facts, const PrkThresholds *thresholds,
			  PrkServerVerdict *verdict)
{
	const PrkArchiving *archiving = &facts->archiving;
	const PrkDisk *disk = &facts->disk;
	PrkLevel	own = archive_level(archiving, thresholds);
	PrkLevel	level = PRK_OK;
	PrkLevel	lenient = PRK_OK;
	char		waited[PRK_FORMAT_LEN];
	char		buf[PRK_FORMAT_LEN];
	int			length;

	if (archiving->archive.waiting == 0)
	{
		strlcpy(verdict->reason, "no WAL waits to be archived",
				PRK_REASON_LEN);
		return;
	}
	if (disk->keeper == PRK_KEEPER_ARCHIVER)
	{
		level = disk_level(disk, thresholds, 100);
		lenient = disk_level(disk, thresholds, CLEAR_PERCENT);
	}
	verdict->level = Max(own, level);
	verdict->lenient = Max(own, lenient);
	verdict->at_once = own >= level;
	if (verdict->level != PRK_OK)
		verdict->code = PRK_CODE_ARCHIVE_FAILING;
	length = snprintf(verdict->reason, PRK_REASON_LEN,
					  "nothing was archived for %s, %s of WAL waits",
					  prk_format_duration(waited, archiving->waited),
					  prk_format_size(buf, archiving->archive.waiting_bytes));
	if (level != PRK_OK)
		snprintf(verdict->reason + length, PRK_REASON_LEN - length,
				 ", disk of pg_wal will be full in %s",
				 prk_format_duration(buf, disk->full_in));
}

/* By the limits for absence. */
static PrkLevel
archive_level(const PrkArchiving *archiving, const PrkThresholds *thresholds)
{
	int64		waited = archiving->waited / 1000;

	if (thresholds->critical_disconnected >= 0 &&
		waited >= thresholds->critical_disconnected)
		return PRK_CRITICAL;
	if (thresholds->warning_disconnected >= 0 &&
		waited >= thresholds->warning_disconnected)
		return PRK_WARNING;
	return PRK_OK;
}
