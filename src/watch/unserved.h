/*-------------------------------------------------------------------------
 *
 * unserved.h
 *	  Replicas that come, and that this server can't serve any more.
 *
 * IDENTIFICATION
 *	  src/watch/unserved.h
 *
 *-------------------------------------------------------------------------
 */
#ifndef PRK_UNSERVED_H
#define PRK_UNSERVED_H

#include "failures/failures.h"
#include "nodes/pg_list.h"
#include "watch/board.h"

/* What no other attempt of the replica would mend. */
typedef struct PrkUnserved
{
	const PrkFailure *failure;
	PrkCode		code;
	const char *name;			/* of the replica; NULL: it is the server's
								 * own trouble */
	const char *reason;			/* a static string */
} PrkUnserved;

extern List *prk_unserved_list(const PrkSample *sample,
							   const PrkFailures *failures,
							   const PrkBoard *board);
extern void prk_unserved_settle(const PrkSample *sample,
								PrkFailures *failures, const PrkBoard *board);
extern bool prk_unserved_is_kind(const PrkFailure *failure);
extern const PrkUnserved *prk_unserved_of(List *unserved,
										  const PrkFailure *failure);
extern const PrkUnserved *prk_unserved_find(List *unserved,
											const char *name);

#endif							/* PRK_UNSERVED_H */
