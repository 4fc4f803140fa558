/*-------------------------------------------------------------------------
 *
 * diagnose_standby.h
 *	  This server as a standby.
 *
 * IDENTIFICATION
 *	  src/diagnose/diagnose_standby.h
 *
 *-------------------------------------------------------------------------
 */
#ifndef PRK_DIAGNOSE_STANDBY_H
#define PRK_DIAGNOSE_STANDBY_H

#include "diagnose/findings.h"

extern void prk_diagnose_standby(PrkFindings *findings);

#endif							/* PRK_DIAGNOSE_STANDBY_H */
