/*-------------------------------------------------------------------------
 *
 * log_level.h
 *	  What log_min_messages keeps from the log, and so from the log hook.
 *
 * IDENTIFICATION
 *	  src/failures/log_level.h
 *
 *-------------------------------------------------------------------------
 */
#ifndef PRK_LOG_LEVEL_H
#define PRK_LOG_LEVEL_H

extern char *prk_log_level_hidden(void);
extern char *prk_log_level_remedy(const char *setting);

#endif							/* PRK_LOG_LEVEL_H */
