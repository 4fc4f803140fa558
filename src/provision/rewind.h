/*-------------------------------------------------------------------------
 *
 * rewind.h
 *	  The role with which pg_rewind of a replica reads files, for a time.
 *
 * IDENTIFICATION
 *	  src/provision/rewind.h
 *
 *-------------------------------------------------------------------------
 */
#ifndef PRK_REWIND_H
#define PRK_REWIND_H

#include "datatype/timestamp.h"

extern void prk_rewind_allow(const char *name, const char *role_name,
							 TimestampTz until);
extern const char *prk_rewind_of_session(void);
extern void prk_rewind_end(const char *name);
extern bool prk_rewind_drop(const char *name);

#endif							/* PRK_REWIND_H */
