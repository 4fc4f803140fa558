/*-------------------------------------------------------------------------
 *
 * ages.c
 *	  How old is the WAL that replicas lack?
 *
 * Adds to a sample what the LSN clock says: of each replica's position, and of
 * the rate at which WAL is written.  Where
 * it says nothing (no worker, or none for so long) and no walsender is there
 * that might, the file that holds the position is looked at: a WAL segment is
 * written to until the next one is begun, so the time of its last change is
 * at most the time of a segment later than that of the WAL in question.
 *
 * IDENTIFICATION
 *	  src/judge/ages.c
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include <sys/stat.h>
#include <time.h>

#include "access/xlog.h"
#include "access/xlog_internal.h"
#include "access/xlogrecovery.h"
#include "datatype/timestamp.h"

#include "clock/clock_shared.h"
#include "judge/ages.h"

/* A segment is looked for on this many timelines, the newest first. */
#define MAX_TIMELINES	16

/* What the last look at a file has found: many slots stand in one segment. */
typedef struct SegmentAge
{
	XLogSegNo	segment;
	bool		looked;
	bool		known;
	int64		age;
} SegmentAge;

static bool segment_age(const PrkSample *sample, XLogRecPtr position,
						SegmentAge *last, int64 *age);
static SegmentAge look_at_segment(const PrkSample *sample, XLogSegNo segment);

/*
 * Sets lag_age and segment_age of each replica that is behind, and the rates
 * at which WAL is written.  Allocates in
 * the current memory context; takes the clock's lock, shared, and reads the
 * attributes of files in pg_wal for replicas that nothing else knows of.
 */
void
prk_ages_add(PrkSample *sample)
{
	int			nreplicas = sample->nreplicas;
	XLogRecPtr *positions = palloc(Max(nreplicas, 1) * sizeof(XLogRecPtr));
	PrkClockAge *ages = palloc(Max(nreplicas, 1) * sizeof(PrkClockAge));
	SegmentAge	last = {0};

	for (int i = 0; i < nreplicas; i++)
		positions[i] = sample->current_lsn -
			Max(sample->replicas[i].lag_bytes, 0);
	sample->clock_at = prk_clock_now();
	prk_clock_ages(positions, ages, nreplicas, sample->clock_at,
				   sample->current_lsn);
	prk_clock_rates(sample->clock_at, sample->current_lsn,
					&sample->wal_rate_short, &sample->wal_rate_long);
	sample->has_wal_rate = sample->wal_rate_short >= 0 &&
		sample->wal_rate_long >= 0;

	for (int i = 0; i < nreplicas; i++)
	{
		PrkReplica *replica = &sample->replicas[i];

		if (replica->lag_bytes <= 0)
			continue;
		replica->has_lag_age = ages[i].known;
		replica->lag_age = ages[i].age;
		if (ages[i].known)
			continue;
		replica->has_segment_age =
			segment_age(sample, positions[i], &last, &replica->segment_age);

		/* Before all that the clock knows, it still knows how long that is. */
		if (ages[i].age > 0)
		{
			replica->segment_age = replica->has_segment_age ?
				Max(replica->segment_age, ages[i].age) : ages[i].age;
			replica->has_segment_age = true;
		}
	}
	pfree(positions);
	pfree(ages);
}

/* How long ago was the segment with this position last written to? */
static bool
segment_age(const PrkSample *sample, XLogRecPtr position, SegmentAge *last,
			int64 *age)
{
	XLogSegNo	segment;

	XLByteToSeg(position, segment, wal_segment_size);
	if (!last->looked || last->segment != segment)
		*last = look_at_segment(sample, segment);
	*age = last->age;
	return last->known;
}

/* How long ago has the WAL file been written to for the last time? */
static SegmentAge
look_at_segment(const PrkSample *sample, XLogSegNo segment)
{
	SegmentAge	result = {0};
	TimeLineID	timeline;
	struct timespec now;

	result.segment = segment;
	result.looked = true;
	if (sample->in_recovery)
		(void) GetXLogReplayRecPtr(&timeline);
	else
		timeline = GetWALInsertionTimeLine();

	for (int i = 0; i < MAX_TIMELINES && timeline > 0; i++, timeline--)
	{
		char		name[MAXFNAMELEN];
		struct stat st;

		XLogFileName(name, timeline, segment, wal_segment_size);
		if (stat(psprintf(XLOGDIR "/%s", name), &st) != 0)
			continue;
		clock_gettime(CLOCK_REALTIME, &now);
		result.known = true;
		result.age = Max((int64) (now.tv_sec - st.st_mtim.tv_sec) *
						 USECS_PER_SEC +
						 (now.tv_nsec - st.st_mtim.tv_nsec) / 1000, 0);
		break;
	}
	return result;
}
