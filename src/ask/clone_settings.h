/*-------------------------------------------------------------------------
 *
 * clone_settings.h
 *	  The settings that a clone of this server brings along.
 *
 * IDENTIFICATION
 *	  src/ask/clone_settings.h
 *
 *-------------------------------------------------------------------------
 */
#ifndef PRK_CLONE_SETTINGS_H
#define PRK_CLONE_SETTINGS_H

#include "ask/answer.h"

extern const char *prk_clone_setting(const char *name);
extern void prk_clone_settings(PrkAnswer *answer);

#endif							/* PRK_CLONE_SETTINGS_H */
