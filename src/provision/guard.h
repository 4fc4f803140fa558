/*-------------------------------------------------------------------------
 *
 * guard.h
 *	  Run what may fail where an error is not allowed.
 *
 * IDENTIFICATION
 *	  src/provision/guard.h
 *
 *-------------------------------------------------------------------------
 */
#ifndef PRK_GUARD_H
#define PRK_GUARD_H

typedef void (*PrkGuardedStep) (void *arg);

extern bool prk_guard_run(PrkGuardedStep step, void *arg, const char *what,
						  const char *remedy);

#endif							/* PRK_GUARD_H */
