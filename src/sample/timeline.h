/*-------------------------------------------------------------------------
 *
 * timeline.h
 *	  Which timeline is this, and where and when did it begin?
 *
 * IDENTIFICATION
 *	  src/sample/timeline.h
 *
 *-------------------------------------------------------------------------
 */
#ifndef PRK_TIMELINE_H
#define PRK_TIMELINE_H

#include "sample/types.h"

extern void prk_timeline_add(PrkSample *sample);

#endif							/* PRK_TIMELINE_H */
