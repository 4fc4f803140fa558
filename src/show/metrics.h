/*-------------------------------------------------------------------------
 *
 * metrics.h
 *	  What metrics() says.
 *
 * IDENTIFICATION
 *	  src/show/metrics.h
 *
 *-------------------------------------------------------------------------
 */
#ifndef PRK_METRICS_H
#define PRK_METRICS_H

#include "lib/stringinfo.h"

extern void prk_metrics_write(StringInfo text);

#endif							/* PRK_METRICS_H */
