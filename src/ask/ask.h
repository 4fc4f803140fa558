/*-------------------------------------------------------------------------
 *
 * ask.h
 *	  Questions over the replication right.
 *
 * IDENTIFICATION
 *	  src/ask/ask.h
 *
 *-------------------------------------------------------------------------
 */
#ifndef PRK_ASK_H
#define PRK_ASK_H

extern void prk_ask_init(void);

#endif							/* PRK_ASK_H */
