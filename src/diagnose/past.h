/*-------------------------------------------------------------------------
 *
 * past.h
 *	  What this server was before it was promoted.
 *
 * IDENTIFICATION
 *	  src/diagnose/past.h
 *
 *-------------------------------------------------------------------------
 */
#ifndef PRK_PAST_H
#define PRK_PAST_H

#include "sample/sample.h"

/* All zero on a server that is no former standby, as far as is known. */
typedef struct PrkPast
{
	bool		promoted;		/* the rest is meaningful */
	const char *name;			/* of the replica that it was; "" unknown */
	const char *host;			/* of its upstream then; "" unknown */
	const char *port;			/* likewise */
} PrkPast;

extern void prk_past_read(const PrkSample *sample, PrkPast *past);

#endif							/* PRK_PAST_H */
