/*-------------------------------------------------------------------------
 *
 * farewell.h
 *	  DROP EXTENSION says which replicas it leaves behind.
 *
 * IDENTIFICATION
 *	  src/provision/farewell.h
 *
 *-------------------------------------------------------------------------
 */
#ifndef PRK_FAREWELL_H
#define PRK_FAREWELL_H

extern void prk_farewell_init(void);

#endif							/* PRK_FAREWELL_H */
