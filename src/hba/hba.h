/*-------------------------------------------------------------------------
 *
 * hba.h
 *	  Our lines in the text of pg_hba.conf: build, find, insert, remove.
 *
 * Pure text: nothing here opens a file.  All results are palloc'd in the
 * caller's memory context.
 *
 * IDENTIFICATION
 *	  src/hba/hba.h
 *
 *-------------------------------------------------------------------------
 */
#ifndef PRK_HBA_H
#define PRK_HBA_H

#include "nodes/pg_list.h"

#include "mark.h"

/* A managed line, as found in the text. */
typedef struct PrkHbaManaged
{
	int			line_number;	/* physical, from 1 */
	char	   *replica;		/* after the mark */
	char	   *role;			/* third field, unquoted; NULL if unreadable */
	char	   *address;		/* fourth field, as written; NULL likewise */
	char	   *rule;			/* without mark and trailing blanks */
	bool		rewind;			/* for pg_rewind, not for replication */
} PrkHbaManaged;

extern char *prk_hba_rule(const char *database, const char *role,
						  const char *address, bool require_ssl);
extern char *prk_hba_rewind_role(const char *replica);
extern List *prk_hba_managed(const char *contents);
extern List *prk_hba_managed_all(const char *contents);
extern char *prk_hba_insert(const char *contents, const char *rule,
							const char *replica, int before_line);
extern char *prk_hba_remove(const char *contents, const char *replica,
							const char *address, bool rewind, int *removed);
extern char *prk_hba_rule_without_options(const char *line);
extern int	prk_hba_next_include(const char *contents, int after_line);
extern const char *prk_hba_owner(const char *contents);

#endif							/* PRK_HBA_H */
