/*-------------------------------------------------------------------------
 *
 * failure_words.h
 *	  What the upstream meant, in whichever language it said it.
 *
 * IDENTIFICATION
 *	  src/failures/failure_words.h
 *
 *-------------------------------------------------------------------------
 */
#ifndef PRK_FAILURE_WORDS_H
#define PRK_FAILURE_WORDS_H

#include "failures/types.h"

extern PrkFailureKind prk_failure_kind(const PrkFailure *failure);

#endif							/* PRK_FAILURE_WORDS_H */
