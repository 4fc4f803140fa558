/*-------------------------------------------------------------------------
 *
 * backups.h
 *	  A running base backup is one replica.
 *
 * IDENTIFICATION
 *	  src/backups.h
 *
 *-------------------------------------------------------------------------
 */
#ifndef PRK_BACKUPS_H
#define PRK_BACKUPS_H

#include "sample.h"

extern void prk_backups_merge(PrkSample *sample);

#endif							/* PRK_BACKUPS_H */
