/*-------------------------------------------------------------------------
 *
 * diagnose.h
 *	  From evidence to root causes.  Pure functions.
 *
 * IDENTIFICATION
 *	  src/diagnose/diagnose.h
 *
 *-------------------------------------------------------------------------
 */
#ifndef PRK_DIAGNOSE_H
#define PRK_DIAGNOSE_H

#include "diagnose/findings.h"

extern List *prk_diagnose(const PrkEvidence *evidence);

#endif							/* PRK_DIAGNOSE_H */
