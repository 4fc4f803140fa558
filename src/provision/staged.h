/*-------------------------------------------------------------------------
 *
 * staged.h
 *	  What a transaction has noted to be done at commit.
 *
 * IDENTIFICATION
 *	  src/provision/staged.h
 *
 *-------------------------------------------------------------------------
 */
#ifndef PRK_STAGED_H
#define PRK_STAGED_H

#include "provision/types.h"

extern void prk_staged_provision(const PrkProvision *provision);
extern const PrkProvision *prk_staged_find_provision(const char *name,
													 const char *role,
													 const char *rule);
extern bool prk_staged_provisions(const char *name);
extern int	prk_staged_count_provisions(void);

extern void prk_staged_deprovision(const PrkDeprovision *deprovision);
extern const PrkDeprovision *prk_staged_find_deprovision(void);

extern void prk_staged_rule(const PrkHbaAddition *rule);
extern void prk_staged_revoke(const PrkHbaRemoval *removal);
extern void prk_staged_note(const char *line);
extern void prk_staged_tidy(void);

#endif							/* PRK_STAGED_H */
