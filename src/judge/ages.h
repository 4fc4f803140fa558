/*-------------------------------------------------------------------------
 *
 * ages.h
 *	  How old is the WAL that replicas lack?
 *
 * IDENTIFICATION
 *	  src/judge/ages.h
 *
 *-------------------------------------------------------------------------
 */
#ifndef PRK_AGES_H
#define PRK_AGES_H

#include "sample/sample.h"

extern void prk_ages_add(PrkSample *sample);

#endif							/* PRK_AGES_H */
