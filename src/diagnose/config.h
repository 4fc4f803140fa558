/*-------------------------------------------------------------------------
 *
 * config.h
 *	  What the configuration files hold, and what the next start makes of it.
 *
 * IDENTIFICATION
 *	  src/diagnose/config.h
 *
 *-------------------------------------------------------------------------
 */
#ifndef PRK_CONFIG_H
#define PRK_CONFIG_H

#include "nodes/pg_list.h"
#include "utils/guc.h"

/* The configuration files as they are on disk now. */
typedef struct PrkConfig
{
	ConfigVariable *variables;	/* in the order of the files */
} PrkConfig;

/* Something with which the server would not start. */
typedef struct PrkRefusal
{
	const char *words;
	const char *wanted;
	const char *setting;		/* to set now; NULL: a person has to decide */
	const char *value;			/* as in SQL */
} PrkRefusal;

extern PrkConfig *prk_config_read(void);
extern const char *prk_config_now(const char *name);
extern const char *prk_config_next(const PrkConfig *config,
								   const char *name);
extern int	prk_config_next_int(const PrkConfig *config, const char *name);
extern bool prk_config_next_bool(const PrkConfig *config, const char *name);
extern bool prk_config_on_command_line(const char *name);
extern List *prk_config_libraries(const char *list);
extern List *prk_config_refusals(const PrkConfig *config, int kept_slots);

#endif							/* PRK_CONFIG_H */
