/*-------------------------------------------------------------------------
 *
 * versions.h
 *	  Libraries that the server loads, and versions of collation libraries.
 *
 * IDENTIFICATION
 *	  src/ask/versions.h
 *
 *-------------------------------------------------------------------------
 */
#ifndef PRK_VERSIONS_H
#define PRK_VERSIONS_H

#include "ask/answer.h"

extern void prk_versions_libraries(PrkAnswer *answer);
extern void prk_versions_collations(PrkAnswer *answer);

#endif							/* PRK_VERSIONS_H */
