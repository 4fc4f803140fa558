/*-------------------------------------------------------------------------
 *
 * departed.h
 *	  Which replica it was that came and left by itself.
 *
 * IDENTIFICATION
 *	  src/watch/departed.h
 *
 *-------------------------------------------------------------------------
 */
#ifndef PRK_DEPARTED_H
#define PRK_DEPARTED_H

#include "failures/departures.h"
#include "sample/types.h"

/* That a replica was let in, and left by itself, or does nothing. */
typedef struct PrkDeparted
{
	const PrkReplica *idle;		/* its walsender, which has done nothing for
								 * more than a moment; or NULL */
	int64		count;			/* how often; 0: it was not */
	int64		age;			/* microseconds since the last time */
	bool		streamed;		/* until it left then */
	uint64		number;			/* when it was let in then, in the order of
								 * events */
} PrkDeparted;

extern PrkDeparted prk_departed(const PrkDepartures *departures,
								const PrkSample *sample, const char *name,
								uint64 since);
extern bool prk_departed_any(const PrkDeparted *departed);
extern bool prk_departed_lately(const PrkDeparted *departed);
extern bool prk_departed_again(const PrkDeparted *departed);

#endif							/* PRK_DEPARTED_H */
