/*-------------------------------------------------------------------------
 *
 * backups.h
 *	  A running base backup is one replica.
 *
 * IDENTIFICATION
 *	  src/sample/backups.h
 *
 *-------------------------------------------------------------------------
 */
#ifndef PRK_BACKUPS_H
#define PRK_BACKUPS_H

#include "sample/types.h"

extern void prk_backups_merge(PrkSample *sample);

#endif							/* PRK_BACKUPS_H */
