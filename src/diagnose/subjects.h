/*-------------------------------------------------------------------------
 *
 * subjects.h
 *	  The names that can be asked for: replicas, the server, its upstream.
 *
 * IDENTIFICATION
 *	  src/diagnose/subjects.h
 *
 *-------------------------------------------------------------------------
 */
#ifndef PRK_SUBJECTS_H
#define PRK_SUBJECTS_H

#include "diagnose/evidence.h"

extern void prk_subject_require(const PrkEvidence *evidence,
								List *diagnoses, const char *name);

#endif							/* PRK_SUBJECTS_H */
