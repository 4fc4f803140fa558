/*-------------------------------------------------------------------------
 *
 * preflight_rows.h
 *	  The rows of preflight() in the making.
 *
 * IDENTIFICATION
 *	  src/diagnose/preflight_rows.h
 *
 *-------------------------------------------------------------------------
 */
#ifndef PRK_PREFLIGHT_ROWS_H
#define PRK_PREFLIGHT_ROWS_H

#include "diagnose/preflight_facts.h"

/* Something that wants attention. */
typedef struct PrkPreflightRow
{
	const char *check_name;
	const char *level;			/* info, warning or critical */
	const char *current;
	const char *wanted;
	bool		needs_restart;
	const char *fix;			/* one statement; NULL: none */
} PrkPreflightRow;

typedef struct PrkPreflight PrkPreflight;

typedef struct PrkCheck
{
	const char *name;
	const char *level;
	bool		needs_restart;
	const char *wanted;			/* NULL: the check itself says so */
	void		(*run) (PrkPreflight *preflight);
} PrkCheck;

struct PrkPreflight
{
	const PrkPreflightFacts *facts;
	int			replicas;		/* that are to be fed beyond today's */
	const PrkCheck *check;		/* that runs */
	List	   *rows;			/* of PrkPreflightRow */
	bool		withheld;		/* a fix that ALTER SYSTEM would refuse */
};

extern PrkPreflightRow *prk_preflight_add(PrkPreflight *preflight,
										  const char *check_name,
										  const char *level);
extern void prk_preflight_report(PrkPreflight *preflight,
								 const char *current, const char *wanted,
								 const char *setting, const char *value);

#endif							/* PRK_PREFLIGHT_ROWS_H */
