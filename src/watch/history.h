/*-------------------------------------------------------------------------
 *
 * history.h
 *	  What the worker has sampled, for a day or so.
 *
 * IDENTIFICATION
 *	  src/watch/history.h
 *
 *-------------------------------------------------------------------------
 */
#ifndef PRK_HISTORY_H
#define PRK_HISTORY_H

#include "judge/health.h"

/* One replica at one time. */
typedef struct PrkHistoryRow
{
	TimestampTz sampled_at;
	char		name[NAMEDATALEN];
	PrkState	state;
	int64		lag_bytes;		/* -1 not known, as the next two */
	int64		lag_time;		/* microseconds */
	int64		retained_bytes;
} PrkHistoryRow;

extern void prk_history_shmem_request(void);
extern void prk_history_shmem_startup(void);

extern bool prk_history_exists(void);
extern PrkHistoryRow *prk_history_read(const char *name, TimestampTz since,
									   int *nrows);

/* for the worker */
extern void prk_history_load(void);
extern void prk_history_save(void);
extern void prk_history_shift(int64 jump);
extern void prk_history_add(const PrkHistoryRow *rows, int nrows);

#endif							/* PRK_HISTORY_H */
