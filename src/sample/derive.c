/*-------------------------------------------------------------------------
 *
 * derive.c
 *	  What follows from what was read: states, bytes, wal_status, ages.
 *
 * wal_status and safe_wal_size are those of pg_get_replication_slots(), with
 * two differences.  On a standby the server computes them from its write
 * position, which is 0 there; here the sample's current position counts.  And
 * of a slot that reserves nothing no safe_wal_size is shown, where the server
 * shows one reckoned from position 0.
 *
 * Locks: those of GetWALAvailability() (spinlocks; 17+ with summarize_wal
 * also WALSummarizerLock, shared), and XidGenLock, shared, if some slot has an
 * xmin.
 *
 * IDENTIFICATION
 *	  src/sample/derive.c
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/transam.h"
#include "access/xlog.h"
#include "access/xlog_internal.h"
#include "storage/spin.h"

#include "compat.h"
#include "sample/derive.h"

/* How often a slot that moves is looked at again. */
#define MOVED_TRIES		10

/* The last good answer of the server: most slots are in the same segment. */
typedef struct Availability
{
	bool		known;
	XLogSegNo	segment;
	WALAvailability result;
} Availability;

static void derive_wal_status(PrkSample *sample);
static WALAvailability availability_now(const PrkReplica *replica,
										Availability *last);
static XLogSegNo standby_oldest_kept(const PrkSample *sample);
static WALAvailability standby_availability(const PrkSample *sample,
											XLogRecPtr restart_lsn,
											XLogSegNo oldest_kept);
static int64 safe_wal_size(const PrkSample *sample, XLogRecPtr restart_lsn);
static void derive_state(PrkReplica *replica);
static void derive_bytes(const PrkSample *sample, PrkReplica *replica);
static void derive_xmin_age(PrkSample *sample);

/*
 * Fill in all that follows from the rest of the sample: wal_status,
 * safe_wal_size, state, the byte counts and xmin_age.
 */
void
prk_derive_all(PrkSample *sample)
{
	derive_wal_status(sample);
	for (int i = 0; i < sample->nreplicas; i++)
	{
		derive_state(&sample->replicas[i]);
		derive_bytes(sample, &sample->replicas[i]);
	}
	derive_xmin_age(sample);
}

/* wal_status and safe_wal_size of each slot */
static void
derive_wal_status(PrkSample *sample)
{
	XLogSegNo	oldest_kept = 0;
	Availability last = {0};

	if (sample->in_recovery)
		oldest_kept = standby_oldest_kept(sample);

	for (int i = 0; i < sample->nreplicas; i++)
	{
		PrkReplica *replica = &sample->replicas[i];
		WALAvailability availability;

		replica->wal_status = PRK_WAL_NONE;
		if (!replica->has_slot)
			continue;

		if (replica->invalidation != NULL)
			availability = WALAVAIL_REMOVED;
		else if (sample->in_recovery)
			availability = standby_availability(sample, replica->restart_lsn,
												oldest_kept);
		else
			availability = availability_now(replica, &last);

		/*
		 * As the server sees it, who still has a process may yet move on to
		 * WAL that is there.
		 */
		if (availability == WALAVAIL_REMOVED && replica->pid != 0 &&
			!XLogRecPtrIsInvalid(replica->restart_lsn))
			availability = WALAVAIL_UNRESERVED;

		switch (availability)
		{
			case WALAVAIL_INVALID_LSN:
				replica->wal_status = PRK_WAL_NONE;
				break;
			case WALAVAIL_RESERVED:
				replica->wal_status = PRK_WAL_RESERVED;
				break;
			case WALAVAIL_EXTENDED:
				replica->wal_status = PRK_WAL_EXTENDED;
				break;
			case WALAVAIL_UNRESERVED:
				replica->wal_status = PRK_WAL_UNRESERVED;
				break;
			case WALAVAIL_REMOVED:
				replica->wal_status = PRK_WAL_LOST;
				break;
		}

		if (availability != WALAVAIL_REMOVED &&
			max_slot_wal_keep_size_mb >= 0 &&
			!XLogRecPtrIsInvalid(replica->restart_lsn))
		{
			replica->has_safe_wal_size = true;
			replica->safe_wal_size = safe_wal_size(sample,
												   replica->restart_lsn);
		}
	}
}

/*
 * The server compares with what the slots hold now, which may be more recent
 * than the sample: a slot that moved on into the next segment in between looks
 * as if its WAL were about to go.  So what looks bad is asked again by where
 * the slot is by now.
 *
 * The answer is the same for all of a segment (GetWALAvailability() in
 * src/backend/access/transam/xlog.c).
 */
static WALAvailability
availability_now(const PrkReplica *replica, Availability *last)
{
	XLogRecPtr	restart_lsn = replica->restart_lsn;
	WALAvailability result;
	XLogSegNo	segment;

	if (XLogRecPtrIsInvalid(restart_lsn))
		return WALAVAIL_INVALID_LSN;
	XLByteToSeg(restart_lsn, segment, wal_segment_size);
	if (last->known && last->segment == segment)
		return last->result;

	result = GetWALAvailability(restart_lsn);
	if (result == WALAVAIL_RESERVED || result == WALAVAIL_EXTENDED)
	{
		last->known = true;
		last->segment = segment;
		last->result = result;
		return result;
	}

	for (int i = 0; i < MOVED_TRIES && (result == WALAVAIL_UNRESERVED ||
										result == WALAVAIL_REMOVED); i++)
	{
		ReplicationSlot *slot = SearchNamedReplicationSlot(replica->slot_name,
														   true);
		XLogRecPtr	now = restart_lsn;

		if (slot != NULL)
		{
			SpinLockAcquire(&slot->mutex);
			now = slot->data.restart_lsn;
			SpinLockRelease(&slot->mutex);
		}
		if (now == restart_lsn || XLogRecPtrIsInvalid(now))
			break;
		restart_lsn = now;
		result = GetWALAvailability(restart_lsn);
	}
	return result;
}

/*
 * The oldest segment that a restartpoint would keep for slots, wal_keep_size
 * and WAL summarization: what KeepLogSeg() makes of the current position.
 */
static XLogSegNo
standby_oldest_kept(const PrkSample *sample)
{
	XLogRecPtr	oldest = InvalidXLogRecPtr;
	XLogRecPtr	unsummarized;
	XLogSegNo	current_seg;
	XLogSegNo	kept;
	uint64		keep_segs;

	XLByteToSeg(sample->current_lsn, current_seg, wal_segment_size);
	kept = current_seg;

	for (int i = 0; i < sample->nreplicas; i++)
	{
		const PrkReplica *replica = &sample->replicas[i];

		if (!replica->has_slot || replica->invalidation != NULL ||
			XLogRecPtrIsInvalid(replica->restart_lsn))
			continue;
		if (XLogRecPtrIsInvalid(oldest) || replica->restart_lsn < oldest)
			oldest = replica->restart_lsn;
	}
	if (!XLogRecPtrIsInvalid(oldest) && oldest < sample->current_lsn)
	{
		XLByteToSeg(oldest, kept, wal_segment_size);
		if (max_slot_wal_keep_size_mb >= 0)
		{
			keep_segs = XLogMBVarToSegs(max_slot_wal_keep_size_mb,
										wal_segment_size);
			if (current_seg - kept > keep_segs)
				kept = current_seg - keep_segs;
		}
	}

	unsummarized = prk_compat_oldest_unsummarized();
	if (!XLogRecPtrIsInvalid(unsummarized))
	{
		XLogSegNo	segment;

		XLByteToSeg(unsummarized, segment, wal_segment_size);
		kept = Min(kept, segment);
	}

	keep_segs = XLogMBVarToSegs(wal_keep_size_mb, wal_segment_size);
	if (current_seg - kept < keep_segs)
		kept = current_seg > keep_segs ? current_seg - keep_segs : 1;

	return kept;
}

/* GetWALAvailability(), from the sample's current position */
static WALAvailability
standby_availability(const PrkSample *sample, XLogRecPtr restart_lsn,
					 XLogSegNo oldest_kept)
{
	XLogSegNo	restart_seg;
	XLogSegNo	current_seg;
	uint64		max_wal_segs;

	if (XLogRecPtrIsInvalid(restart_lsn))
		return WALAVAIL_INVALID_LSN;

	XLByteToSeg(restart_lsn, restart_seg, wal_segment_size);
	XLByteToSeg(sample->current_lsn, current_seg, wal_segment_size);

	if (restart_seg >= oldest_kept)
	{
		max_wal_segs = XLogMBVarToSegs(max_wal_size_mb, wal_segment_size) + 1;
		if (restart_seg + max_wal_segs >= current_seg)
			return WALAVAIL_RESERVED;
		return WALAVAIL_EXTENDED;
	}
	if (restart_seg > XLogGetLastRemovedSegno())
		return WALAVAIL_UNRESERVED;
	return WALAVAIL_REMOVED;
}

/*
 * How many bytes may still be written before the slot is in danger: to the
 * end of the last segment that max_slot_wal_keep_size and wal_keep_size allow.
 */
static int64
safe_wal_size(const PrkSample *sample, XLogRecPtr restart_lsn)
{
	XLogSegNo	restart_seg;
	uint64		keep_segs;
	XLogRecPtr	limit;

	XLByteToSeg(restart_lsn, restart_seg, wal_segment_size);
	keep_segs = Max(XLogMBVarToSegs(max_slot_wal_keep_size_mb,
									wal_segment_size),
					XLogMBVarToSegs(wal_keep_size_mb, wal_segment_size));
	XLogSegNoOffsetToRecPtr(restart_seg + keep_segs + 1, 0, wal_segment_size,
							limit);
	return (int64) (limit - sample->current_lsn);
}

/*
 * The state of a replica, from its walsender's, which is set, and its slot's.
 *
 * An invalidated slot holds no WAL, and from 17 on it never will again, even
 * if a replica streams through it: the replica is lost at its next break.
 */
static void
derive_state(PrkReplica *replica)
{
	if (replica->has_slot &&
		(replica->invalidation != NULL ||
		 replica->wal_status == PRK_WAL_LOST))
		replica->state = PRK_STATE_LOST;
	else if (replica->has_walsender)
		return;
	else if (replica->pid != 0 || replica->temporary || replica->synced)
		replica->state = PRK_STATE_STARTUP; /* kept for use: not gone */
	else
		replica->state = PRK_STATE_DISCONNECTED;
}

/*
 * Lag, its four stages, and retained WAL.
 *
 * The way of the WAL is current, sent, written, flushed, replayed.  Each
 * position is brought between the one before and the last, since after a
 * reconnect a replica can report more than it was sent, and a standby that
 * reads an archive can replay what it never flushed.  So no stage is negative
 * and they add up to the lag.  A stage whose position is not known has all
 * that is left, and those behind it nothing.
 */
static void
derive_bytes(const PrkSample *sample, PrkReplica *replica)
{
	XLogRecPtr	current = sample->current_lsn;
	XLogRecPtr	end;
	XLogRecPtr	sent;
	XLogRecPtr	write;
	XLogRecPtr	flush;

	replica->lag_bytes = -1;
	replica->unsent_bytes = -1;
	replica->unwritten_bytes = -1;
	replica->unflushed_bytes = -1;
	replica->unreplayed_bytes = -1;
	replica->retained_bytes = -1;

	if (replica->has_slot && replica->invalidation == NULL &&
		!XLogRecPtrIsInvalid(replica->restart_lsn))
		replica->retained_bytes =
			current > replica->restart_lsn ? current - replica->restart_lsn : 0;

	/* What the replica has got behind it for good, as far as is known. */
	if (replica->logical)
		end = replica->confirmed_flush_lsn;
	else if (!XLogRecPtrIsInvalid(replica->replay_lsn))
		end = replica->replay_lsn;
	else if (!XLogRecPtrIsInvalid(replica->flush_lsn))
		end = replica->flush_lsn;
	else if (!XLogRecPtrIsInvalid(replica->write_lsn))
		end = replica->write_lsn;
	else
		end = replica->restart_lsn;
	if (XLogRecPtrIsInvalid(end))
		return;

	end = Min(end, current);
	sent = Max(end, Min(replica->sent_lsn, current));
	write = Max(end, Min(replica->write_lsn, sent));
	flush = Max(end, Min(replica->flush_lsn, write));

	replica->lag_bytes = current - end;
	replica->unsent_bytes = current - sent;
	replica->unwritten_bytes = sent - write;
	replica->unflushed_bytes = write - flush;
	replica->unreplayed_bytes = flush - end;
}

/* Age of the older of each slot's two horizons */
static void
derive_xmin_age(PrkSample *sample)
{
	TransactionId next = InvalidTransactionId;

	for (int i = 0; i < sample->nreplicas; i++)
	{
		PrkReplica *replica = &sample->replicas[i];
		TransactionId xmin = replica->xmin;

		replica->xmin_age = -1;
		if (!TransactionIdIsValid(xmin) ||
			(TransactionIdIsValid(replica->catalog_xmin) &&
			 TransactionIdPrecedes(replica->catalog_xmin, xmin)))
			xmin = replica->catalog_xmin;
		if (!TransactionIdIsValid(xmin))
			continue;

		if (!TransactionIdIsValid(next))
			next = ReadNextTransactionId();
		replica->xmin_age = Max((int32) (next - xmin), 0);
	}
}
