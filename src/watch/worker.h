/*-------------------------------------------------------------------------
 *
 * worker.h
 *	  The process that watches.
 *
 * IDENTIFICATION
 *	  src/watch/worker.h
 *
 *-------------------------------------------------------------------------
 */
#ifndef PRK_WORKER_H
#define PRK_WORKER_H

extern void prk_worker_register(void);
extern PGDLLEXPORT void prk_worker_main(Datum arg);

#endif							/* PRK_WORKER_H */
