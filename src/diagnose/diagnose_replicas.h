/*-------------------------------------------------------------------------
 *
 * diagnose_replicas.h
 *	  What is wrong with each replica of this server.
 *
 * IDENTIFICATION
 *	  src/diagnose/diagnose_replicas.h
 *
 *-------------------------------------------------------------------------
 */
#ifndef PRK_DIAGNOSE_REPLICAS_H
#define PRK_DIAGNOSE_REPLICAS_H

#include "diagnose/findings.h"

extern void prk_diagnose_replicas(PrkFindings *findings);

#endif							/* PRK_DIAGNOSE_REPLICAS_H */
