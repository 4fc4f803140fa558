/*-------------------------------------------------------------------------
 *
 * hba_same.h
 *	  Is a file on disk still the one that is remembered?
 *
 * IDENTIFICATION
 *	  src/hba/hba_same.h
 *
 *-------------------------------------------------------------------------
 */
#ifndef PRK_HBA_SAME_H
#define PRK_HBA_SAME_H

#include <sys/stat.h>

extern bool prk_hba_same(const char *path, const struct stat *wanted,
						 const char *contents, off_t len);
extern bool prk_hba_same_awaits(const char *path);

#endif							/* PRK_HBA_SAME_H */
