/*-------------------------------------------------------------------------
 *
 * hba_oracle.h
 *	  The server's own tokenizer and parser as the judge of what hba.c does.
 *
 * IDENTIFICATION
 *	  test/hba_oracle.h
 *
 *-------------------------------------------------------------------------
 */
#ifndef PRK_HBA_ORACLE_H
#define PRK_HBA_ORACLE_H

#include "nodes/pg_list.h"

/* The rule that the tests insert. */
#define OUR_RULE	"host replication zz_role 10.9.8.7/32 scram-sha-256"

/* One rule, as the server sees it. */
typedef struct OracleLine
{
	int			number;			/* of its first physical line */
	char	   *tokens;			/* all of them, with what is quoted */
	char	   *raw;			/* the line as the server has joined it */
	bool		parses;			/* false also where that is not asked for */
} OracleLine;

extern List *oracle_view(const char *contents, bool parse);
extern void oracle_check(bool ok, const char *what, const char *before,
						 const char *after);
extern void oracle_check_insert(const char *before, const char *after,
								const char *replica);
extern void oracle_check_remove(const char *before, const char *after,
								const char *replica, int removed);
extern char *oracle_check_rule(const char *role);

#endif							/* PRK_HBA_ORACLE_H */
