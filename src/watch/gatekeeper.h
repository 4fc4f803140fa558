/*-------------------------------------------------------------------------
 *
 * gatekeeper.h
 *	  The worker's part of the read gate: when it is closed, and the lines.
 *
 * IDENTIFICATION
 *	  src/watch/gatekeeper.h
 *
 *-------------------------------------------------------------------------
 */
#ifndef PRK_GATEKEEPER_H
#define PRK_GATEKEEPER_H

#include "watch/upstream.h"

extern void prk_gatekeeper_step(const PrkUpstream *upstream,
								TimestampTz gone_since, TimestampTz now);

#endif							/* PRK_GATEKEEPER_H */
