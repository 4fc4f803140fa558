/*-------------------------------------------------------------------------
 *
 * diagnose_server.h
 *	  What is wrong with this server itself.
 *
 * IDENTIFICATION
 *	  src/diagnose/diagnose_server.h
 *
 *-------------------------------------------------------------------------
 */
#ifndef PRK_DIAGNOSE_SERVER_H
#define PRK_DIAGNOSE_SERVER_H

#include "diagnose/findings.h"

extern void prk_diagnose_server(PrkFindings *findings);
extern void prk_diagnose_leftovers(PrkFindings *findings);

#endif							/* PRK_DIAGNOSE_SERVER_H */
