/*-------------------------------------------------------------------------
 *
 * archive.h
 *	  The archiver: what waits for it, and what it has done.
 *
 * IDENTIFICATION
 *	  src/sample/archive.h
 *
 *-------------------------------------------------------------------------
 */
#ifndef PRK_ARCHIVE_H
#define PRK_ARCHIVE_H

#include "access/xlog_internal.h"
#include "datatype/timestamp.h"

typedef struct PrkArchive
{
	bool		active;			/* this server archives WAL; else all is zero */
	bool		configured;		/* and is told how */
	int			waiting;		/* files that wait */
	int64		waiting_bytes;	/* of those that are WAL segments */
	bool		has_segment;	/* the next one is meaningful */
	XLogSegNo	oldest_segment; /* of those, the first */
	int64		oldest_age;		/* microseconds that the archiver has had for
								 * the first file, by this machine's clock */
	int64		archived_count;
	int64		failed_count;
	TimestampTz last_archived_at;	/* 0: never */
	TimestampTz last_failed_at; /* 0: never */
	char		last_failed[MAXFNAMELEN];	/* "" never */
} PrkArchive;

extern void prk_archive_read(bool in_recovery, PrkArchive *archive);

#endif							/* PRK_ARCHIVE_H */
