/*-------------------------------------------------------------------------
 *
 * failures.h
 *	  Why replication connections to and from this server failed.
 *
 * IDENTIFICATION
 *	  src/failures/failures.h
 *
 *-------------------------------------------------------------------------
 */
#ifndef PRK_FAILURES_H
#define PRK_FAILURES_H

#include "failures/types.h"

/* while libraries are preloaded */
extern void prk_failures_init(void);

/* for whoever wants to know */
extern bool prk_failure_concerns(const PrkFailure *failure, const char *name);
extern const PrkFailure *prk_failures_of_replica(const PrkFailures *failures,
												 const char *name);
extern const PrkFailure *prk_failures_of_upstream(const PrkFailures *failures);
extern const PrkFailure *prk_failures_timeline_end(const PrkFailures *failures);
extern const char *prk_failures_address(const PrkFailure *failure, char *buf,
										size_t len);

#endif							/* PRK_FAILURES_H */
