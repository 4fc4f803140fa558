/*-------------------------------------------------------------------------
 *
 * transaction.h
 *	  The oldest transaction that has written something.
 *
 * IDENTIFICATION
 *	  src/diagnose/transaction.h
 *
 *-------------------------------------------------------------------------
 */
#ifndef PRK_TRANSACTION_H
#define PRK_TRANSACTION_H

#include "datatype/timestamp.h"

typedef struct PrkTransaction
{
	TransactionId xid;			/* invalid: there is none */
	int			pid;			/* 0: a prepared one */
	Oid			userid;			/* InvalidOid: not known */
	TimestampTz since;			/* when it was begun; 0 not known */
	bool		idle;			/* its session waits for a command */
} PrkTransaction;

extern void prk_transaction_oldest(PrkTransaction *transaction);

#endif							/* PRK_TRANSACTION_H */
