/*-------------------------------------------------------------------------
 *
 * hba_rules.h
 *	  What the server makes of a pg_hba.conf: its own tokenizer and parser,
 *	  and the rule of first match.
 *
 * IDENTIFICATION
 *	  src/hba/hba_rules.h
 *
 *-------------------------------------------------------------------------
 */
#ifndef PRK_HBA_RULES_H
#define PRK_HBA_RULES_H

#include "libpq/pqcomm.h"
#include "nodes/pg_list.h"

typedef enum PrkHbaVerdict
{
	PRK_HBA_ALLOW,				/* whoever satisfies the rule's method */
	PRK_HBA_REJECT,
	PRK_HBA_NO_MATCH,
	PRK_HBA_UNDECIDABLE			/* a host name, or a map: only the server
								 * knows */
} PrkHbaVerdict;

/* A connection that might be made. */
typedef struct PrkHbaQuery
{
	const char *role;
	const char *database;		/* "replication": a physical walsender */
	bool		ssl;
	struct sockaddr_storage addr;	/* family AF_INET or AF_INET6 */
} PrkHbaQuery;

/*
 * The rule that decides, or the one at which deciding ended; all zero when
 * there is none.  Points into the list of rules.
 */
typedef struct PrkHbaMatch
{
	PrkHbaVerdict verdict;
	const char *file_name;		/* NULL: no rule */
	int			line_number;	/* in that file: the rule's first line */
	int			main_line;		/* in HbaFileName: a rule inserted before this
								 * line wins over this one; line_number,
								 * unless the rule is in an included file */
	const char *raw_line;		/* may hold secrets: not for everybody's eyes */
	const char *auth_method;	/* "scram-sha-256" ... */
	bool		partly;			/* for some of the addresses asked about only */
} PrkHbaMatch;

extern List *prk_hba_rules_load(const char *path);
extern List *prk_hba_rules_load_if_open(const char *path);
extern void prk_hba_rules_match(List *rules, const PrkHbaQuery *query,
								PrkHbaMatch *match);
extern List *prk_hba_rules_match_network(List *rules, const PrkHbaQuery *query,
										 const struct sockaddr_storage *last);
extern const char *prk_hba_verdict_name(PrkHbaVerdict verdict);

#endif							/* PRK_HBA_RULES_H */
