/*-------------------------------------------------------------------------
 *
 * lock.h
 *	  The kit's own locks, held until the end of the transaction.
 *
 * IDENTIFICATION
 *	  src/provision/lock.h
 *
 *-------------------------------------------------------------------------
 */
#ifndef PRK_LOCK_H
#define PRK_LOCK_H

/* To be taken in this order. */
extern void prk_lock_name(const char *replica);
extern void prk_lock_role(const char *role);
extern void prk_lock_cluster(void);

#endif							/* PRK_LOCK_H */
