/*-------------------------------------------------------------------------
 *
 * timeline.c
 *	  Which timeline is this, and where and when did it begin?
 *
 * A promotion begins a timeline, and writes its history: a line for each one
 * before, of which the last says where this one left it (src/backend/access/
 * transam/timeline.c).  The server's own reader raises FATAL where the file is
 * not as it should be, so it is read here.
 *
 * IDENTIFICATION
 *	  src/sample/timeline.c
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include <sys/stat.h>

#include "access/xlog.h"
#include "access/xlog_internal.h"
#include "access/xlogrecovery.h"
#include "storage/fd.h"
#include "utils/timestamp.h"

#include "sample/timeline.h"

/* What was found of a timeline. */
typedef struct Beginning
{
	TimeLineID	timeline;
	XLogRecPtr	begin;
	TimestampTz begun_at;
} Beginning;

static void read_history(Beginning *beginning);

/*
 * Sets the sample's timeline, and where and when it began.  On the first
 * timeline, and where the history can't be read, that is not known.  A file
 * is read when the timeline is another than at the last call.
 *
 * The time is that of the file's last change.  It is made by the promotion,
 * and in a copy of the server by whatever made the copy.
 */
void
prk_timeline_add(PrkSample *sample)
{
	static Beginning last = {0};
	TimeLineID	timeline;

	if (sample->in_recovery)
		(void) GetXLogReplayRecPtr(&timeline);
	else
		timeline = GetWALInsertionTimeLine();
	if (last.timeline != timeline)
	{
		memset(&last, 0, sizeof(last));
		last.timeline = timeline;
		if (timeline > 1)
			read_history(&last);
	}
	sample->timeline = last.timeline;
	sample->timeline_begin = last.begin;
	sample->timeline_at = last.begun_at;
}

/* Reads from the timeline's history where and why it began. */
static void
read_history(Beginning *beginning)
{
	char		line[1024];
	char	   *path = psprintf(XLOGDIR "/%08X.history", beginning->timeline);
	struct stat st;
	FILE	   *file;

	file = AllocateFile(path, "r");
	pfree(path);
	if (file == NULL)
		return;
	while (fgets(line, sizeof(line), file) != NULL)
	{
		unsigned int parent;
		unsigned int high;
		unsigned int low;

		if (sscanf(line, "%u\t%X/%X", &parent, &high, &low) == 3)
			beginning->begin = ((uint64) high) << 32 | low;
	}
	if (fstat(fileno(file), &st) == 0 &&
		!XLogRecPtrIsInvalid(beginning->begin))
		beginning->begun_at = time_t_to_timestamptz(st.st_mtime);
	FreeFile(file);
}
