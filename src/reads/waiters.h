/*-------------------------------------------------------------------------
 *
 * waiters.h
 *	  The sessions that wait for WAL to be replayed, in shared memory.
 *
 * IDENTIFICATION
 *	  src/reads/waiters.h
 *
 *-------------------------------------------------------------------------
 */
#ifndef PRK_WAITERS_H
#define PRK_WAITERS_H

#include "access/xlogdefs.h"

/* How long the waker sleeps while nobody waits. */
#define PRK_WAITERS_IDLE	0

extern void prk_waiters_shmem_request(void);
extern void prk_waiters_shmem_startup(void);

/* for the sessions that wait */
extern bool prk_waiters_join(XLogRecPtr target);
extern void prk_waiters_leave(void);

/* for the waker */
extern void prk_waiters_set_waker(bool here);
extern int	prk_waiters_wake(XLogRecPtr replayed);

#endif							/* PRK_WAITERS_H */
