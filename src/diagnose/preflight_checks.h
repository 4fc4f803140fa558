/*-------------------------------------------------------------------------
 *
 * preflight_checks.h
 *	  The table of preflight()'s checks.
 *
 * IDENTIFICATION
 *	  src/diagnose/preflight_checks.h
 *
 *-------------------------------------------------------------------------
 */
#ifndef PRK_PREFLIGHT_CHECKS_H
#define PRK_PREFLIGHT_CHECKS_H

#include "diagnose/preflight_rows.h"

extern const PrkCheck prk_checks[];
extern const int prk_nchecks;

#endif							/* PRK_PREFLIGHT_CHECKS_H */
