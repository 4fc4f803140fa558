/*-------------------------------------------------------------------------
 *
 * unused.h
 *	  Which slots wait for their replica since before anybody watched?
 *
 * IDENTIFICATION
 *	  src/sample/unused.h
 *
 *-------------------------------------------------------------------------
 */
#ifndef PRK_UNUSED_H
#define PRK_UNUSED_H

#include "sample/types.h"

extern void prk_unused_note_start(void);
extern void prk_unused_settle(const PrkSample *sample);
extern void prk_unused_add(PrkSample *sample);

#endif							/* PRK_UNUSED_H */
