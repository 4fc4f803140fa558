/*-------------------------------------------------------------------------
 *
 * server_facts.c
 *	  What the server as a whole is judged by.
 *
 * IDENTIFICATION
 *	  src/watch/server_facts.c
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "replication/syncrep.h"
#include "replication/walsender_private.h"
#include "storage/lwlock.h"
#include "storage/proc.h"

#include "clock/clock_shared.h"
#include "watch/server_facts.h"

static void read_sync(const PrkSample *sample, PrkSync *sync);

/*
 * Reads all but the disk, which is left as it is: that takes more time, and
 * what the worker knows.  The mark is what was remembered, all zero if nothing
 * was, and is brought up to date.  Takes SyncRepLock, shared, where standbys
 * are missing.
 */
void
prk_server_facts_read(const PrkSample *sample, PrkArchiveMark *mark,
					  PrkServerFacts *facts)
{
	read_sync(sample, &facts->sync);
	prk_archive_read(sample->in_recovery, &facts->archiving.archive);
	prk_archiving_follow(mark, prk_clock_now(), &facts->archiving);
}

/*
 * Who is missing, and who waits for it.  Since when is told by the LSN clock:
 * a commit waits for its own position (SyncRepWaitForLSN() in
 * src/backend/replication/syncrep.c).
 */
static void
read_sync(const PrkSample *sample, PrkSync *sync)
{
	SyncRepStandbyData *standbys;
	XLogRecPtr	first = InvalidXLogRecPtr;
	PrkClockAge age;

	memset(sync, 0, sizeof(PrkSync));
	sync->waited = -1;
	if (SyncRepConfig == NULL || sample->in_recovery)
		return;
	sync->wanted = SyncRepConfig->num_sync;
	sync->there = Min(SyncRepGetCandidateStandbys(&standbys), sync->wanted);
	pfree(standbys);
	if (sync->there >= sync->wanted)
		return;

	LWLockAcquire(SyncRepLock, LW_SHARED);
	for (uint32 i = 0; i < ProcGlobal->allProcCount; i++)
	{
		const PGPROC *proc = &ProcGlobal->allProcs[i];

		if (proc->syncRepState != SYNC_REP_WAITING ||
			XLogRecPtrIsInvalid(proc->waitLSN))
			continue;
		sync->waiting++;
		if (XLogRecPtrIsInvalid(first) || proc->waitLSN < first)
			first = proc->waitLSN;
	}
	LWLockRelease(SyncRepLock);
	if (sync->waiting == 0)
		return;

	/* At a position where nothing more is written, none has been past it. */
	first--;
	prk_clock_ages(&first, &age, 1, prk_clock_now(),
				   Max(sample->current_lsn, first + 1));
	if (age.known || age.age > 0)
		sync->waited = age.age;
}
