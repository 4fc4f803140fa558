/*-------------------------------------------------------------------------
 *
 * mark.h
 *	  The mark that makes a line of pg_hba.conf ours.
 *
 * IDENTIFICATION
 *	  src/mark.h
 *
 *-------------------------------------------------------------------------
 */
#ifndef PRK_MARK_H
#define PRK_MARK_H

/* At the end of the line; the replica's name follows it. */
#define PRK_HBA_MARK "# pg_replica_kit: "

#endif							/* PRK_MARK_H */
