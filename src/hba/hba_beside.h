/*-------------------------------------------------------------------------
 *
 * hba_beside.h
 *	  Files beside pg_hba.conf: their names, and the attributes they take.
 *
 * IDENTIFICATION
 *	  src/hba/hba_beside.h
 *
 *-------------------------------------------------------------------------
 */
#ifndef PRK_HBA_BESIDE_H
#define PRK_HBA_BESIDE_H

#include <sys/stat.h>

extern char *prk_hba_beside(const char *path, const char *suffix);
extern bool prk_hba_beside_is_possible(const char *path);
extern bool prk_hba_beside_attributes(const char *path,
									  const struct stat *old, int fd);

#endif							/* PRK_HBA_BESIDE_H */
