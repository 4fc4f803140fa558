/*-------------------------------------------------------------------------
 *
 * preflight.h
 *	  Is this server ready to feed further replicas?
 *
 * IDENTIFICATION
 *	  src/diagnose/preflight.h
 *
 *-------------------------------------------------------------------------
 */
#ifndef PRK_PREFLIGHT_H
#define PRK_PREFLIGHT_H

#include "diagnose/preflight_rows.h"

extern List *prk_preflight(const PrkPreflightFacts *facts, int replicas);

#endif							/* PRK_PREFLIGHT_H */
