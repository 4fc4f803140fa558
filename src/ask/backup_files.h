/*-------------------------------------------------------------------------
 *
 * backup_files.h
 *	  What a base backup of this server would send.
 *
 * IDENTIFICATION
 *	  src/ask/backup_files.h
 *
 *-------------------------------------------------------------------------
 */
#ifndef PRK_BACKUP_FILES_H
#define PRK_BACKUP_FILES_H

#include "nodes/pg_list.h"

/* A tablespace outside the data directory. */
typedef struct PrkTablespace
{
	char	   *link;			/* relative to the data directory */
	char	   *location;
} PrkTablespace;

/* What lies in a directory and below. */
typedef struct PrkBackupFiles
{
	int64		bytes;			/* on a disk with pages of 4 kB */
	int			unreadable;		/* so many files the server cannot read */
	List	   *names;			/* of some of them, as char *, palloc'd */
	bool		complete;		/* false: the time was over before the end */
} PrkBackupFiles;

extern int64 prk_backup_clock(void);
extern bool prk_backup_leaves_out(const char *path, const char *name);
extern List *prk_backup_tablespaces(void);
extern void prk_backup_files(const char *root, List *tablespaces,
							 int64 until, int max_names,
							 PrkBackupFiles *files);

#endif							/* PRK_BACKUP_FILES_H */
