/*-------------------------------------------------------------------------
 *
 * sample.h
 *	  One consistent picture of the replication slots and walsenders.
 *
 * IDENTIFICATION
 *	  src/sample/sample.h
 *
 *-------------------------------------------------------------------------
 */
#ifndef PRK_SAMPLE_H
#define PRK_SAMPLE_H

#include "sample/types.h"

/*
 * What a caller that samples again and again keeps: the memory of the sample,
 * and where the backend entries of walsenders are.  Finding them walks the
 * array of all backends, so it is done only when a walsender is new; the
 * entries themselves are read each time.
 */
typedef struct PrkSampleCache PrkSampleCache;

extern bool prk_sample_possible(void);
extern PrkSampleCache *prk_sample_cache_create(MemoryContext context);
extern PrkSample *prk_sample_take(PrkSampleCache *cache);
extern bool prk_sample_in_use(const PrkReplica *replica);
extern bool prk_sample_is_tablesync(const PrkReplica *replica);
extern const char *prk_state_name(PrkState state);
extern const char *prk_wal_status_name(PrkWalStatus status);

#endif							/* PRK_SAMPLE_H */
