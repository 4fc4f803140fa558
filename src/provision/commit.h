/*-------------------------------------------------------------------------
 *
 * commit.h
 *	  Do at commit what a transaction has noted: slots, pg_hba.conf, audit.
 *
 * IDENTIFICATION
 *	  src/provision/commit.h
 *
 *-------------------------------------------------------------------------
 */
#ifndef PRK_COMMIT_H
#define PRK_COMMIT_H

#include "provision/types.h"

/* Lists of PrkStaged.  Only the first may raise an error. */
extern void prk_commit_prepare(List *entries);
extern void prk_commit_finish(List *entries);
extern void prk_commit_undo(List *entries);

#endif							/* PRK_COMMIT_H */
