/*-------------------------------------------------------------------------
 *
 * failure_table.h
 *	  Where failures are counted: a table that may be written in any state.
 *
 * IDENTIFICATION
 *	  src/failures/failure_table.h
 *
 *-------------------------------------------------------------------------
 */
#ifndef PRK_FAILURE_TABLE_H
#define PRK_FAILURE_TABLE_H

#include "failures/failure_peers.h"
#include "failures/types.h"

/* while libraries are preloaded */
extern void prk_failures_shmem_request(void);
extern void prk_failures_shmem_startup(void);

/* for readers */
extern PrkFailures *prk_failures_read(void);

/*
 * None of these waits, allocates or raises.  Those without a remark may be
 * called anywhere, by the hooks.
 */
extern bool prk_failure_table_exists(void);
extern void prk_failure_table_note(const PrkFailureId *id, PrkTrust trust,
								   const char *replica,
								   const PrkForeignWords *message);
extern uint64 prk_failure_table_let_in(const PrkFailureId *id);
extern void prk_failure_table_streaming(void);

/* for the worker only */
extern void prk_failures_end(const PrkFailure *failure);

#endif							/* PRK_FAILURE_TABLE_H */
