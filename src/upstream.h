/*-------------------------------------------------------------------------
 *
 * upstream.h
 *	  Does this server receive from an upstream, and does it stream?
 *
 * IDENTIFICATION
 *	  src/upstream.h
 *
 *-------------------------------------------------------------------------
 */
#ifndef PRK_UPSTREAM_H
#define PRK_UPSTREAM_H

#include "health.h"

/* The name under which the upstream is shown, and may be overridden. */
#define PRK_UPSTREAM_NAME	"upstream"

typedef struct PrkUpstream
{
	bool		wanted;			/* in recovery, and told whom to follow */
	bool		streaming;		/* connected at this instant */
	bool		settled;		/* and has been for more than an instant */
} PrkUpstream;

extern void prk_upstream_read(PrkUpstream *upstream);
extern void prk_upstream_judge(const PrkUpstream *upstream,
							   const PrkThresholds *thresholds,
							   bool watched, TimestampTz gone_since,
							   TimestampTz now, PrkVerdict *verdict);

#endif							/* PRK_UPSTREAM_H */
