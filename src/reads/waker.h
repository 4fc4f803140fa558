/*-------------------------------------------------------------------------
 *
 * waker.h
 *	  The process that wakes sessions when their WAL is replayed.
 *
 * IDENTIFICATION
 *	  src/reads/waker.h
 *
 *-------------------------------------------------------------------------
 */
#ifndef PRK_WAKER_H
#define PRK_WAKER_H

extern void prk_waker_register(void);
extern PGDLLEXPORT void prk_waker_main(Datum arg);

#endif							/* PRK_WAKER_H */
