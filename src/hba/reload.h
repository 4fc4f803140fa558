/*-------------------------------------------------------------------------
 *
 * reload.h
 *	  Reload the server's configuration, and know that it has happened.
 *
 * IDENTIFICATION
 *	  src/hba/reload.h
 *
 *-------------------------------------------------------------------------
 */
#ifndef PRK_RELOAD_H
#define PRK_RELOAD_H

extern bool prk_reload(int timeout_ms, const char **problem);
extern bool prk_reload_interrupted(void);

#endif							/* PRK_RELOAD_H */
