/*-------------------------------------------------------------------------
 *
 * failure_tally.h
 *	  How many connections have failed since the server started, by direction
 *	  and SQLSTATE.
 *
 * IDENTIFICATION
 *	  src/failures/failure_tally.h
 *
 *-------------------------------------------------------------------------
 */
#ifndef PRK_FAILURE_TALLY_H
#define PRK_FAILURE_TALLY_H

#include "c.h"

/* Room for direction and SQLSTATE; the last is for all that find none. */
#define PRK_NTALLIES	64

typedef struct PrkTally
{
	bool		outgoing;
	bool		other;			/* all for which there was no room */
	int			sqlerrcode;		/* as in ErrorData */
	int64		count;
} PrkTally;

/* while libraries are preloaded */
extern void prk_failure_tally_shmem_request(void);
extern void prk_failure_tally_shmem_startup(void);

/* Neither waits nor allocates nor raises: may be called anywhere. */
extern void prk_failure_tally_add(bool outgoing, int sqlerrcode);
extern int	prk_failure_tally_read(PrkTally tallies[PRK_NTALLIES]);

#endif							/* PRK_FAILURE_TALLY_H */
