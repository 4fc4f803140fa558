/*-------------------------------------------------------------------------
 *
 * departures.h
 *	  Replicas that were let in and left by themselves.
 *
 * IDENTIFICATION
 *	  src/failures/departures.h
 *
 *-------------------------------------------------------------------------
 */
#ifndef PRK_DEPARTURES_H
#define PRK_DEPARTURES_H

#include "failures/failure_peers.h"

/* Those of one peer that asked for one slot.  A hash of 0: no name. */
typedef struct PrkDeparture
{
	uint64		replica;		/* hash of the replica's name, if that is
								 * proved */
	uint64		application;	/* of what it calls itself */
	uint64		rule;			/* of the replica whose line let it in */
	uint64		number;			/* when it was let in last, in the order of
								 * events */
	uint64		first;			/* the same of the first that counts */
	int64		age;			/* microseconds since it left */
	bool		streamed;		/* from soon after it came until it left */
	bool		asked;			/* for WAL or a history then */
	int64		count;			/* since it was last seen to stay */
} PrkDeparture;

/* palloc'd by prk_departures_read() */
typedef struct PrkDepartures
{
	int			ndepartures;
	PrkDeparture *departures;
} PrkDepartures;

/* while libraries are preloaded */
extern void prk_departures_shmem_request(void);
extern void prk_departures_shmem_startup(void);

/* in a walsender, by the hooks */
extern void prk_departures_let_in(const PrkFailureId *id, uint64 number,
								  const char *rule_of);
extern void prk_departures_refused(void);

/* for the worker, and in a walsender */
extern void prk_departures_stays(uint64 peer);

/* for readers */
extern PrkDepartures *prk_departures_read(void);
extern uint64 prk_departures_hash(const char *name);

#endif							/* PRK_DEPARTURES_H */
