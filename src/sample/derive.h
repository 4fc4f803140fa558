/*-------------------------------------------------------------------------
 *
 * derive.h
 *	  What follows from what was read: states, bytes, wal_status, ages.
 *
 * IDENTIFICATION
 *	  src/sample/derive.h
 *
 *-------------------------------------------------------------------------
 */
#ifndef PRK_DERIVE_H
#define PRK_DERIVE_H

#include "sample/types.h"

extern void prk_derive_all(PrkSample *sample);

#endif							/* PRK_DERIVE_H */
