/*-------------------------------------------------------------------------
 *
 * wait.h
 *	  Waiting until WAL is replayed on this standby.
 *
 * IDENTIFICATION
 *	  src/reads/wait.h
 *
 *-------------------------------------------------------------------------
 */
#ifndef PRK_WAIT_H
#define PRK_WAIT_H

#include "access/xlogdefs.h"

/* The SQLSTATEs of a wait that is not kept. */
#define PRK_ERRCODE_WAIT_TIMEOUT		MAKE_SQLSTATE('R','K','0','1','0')
#define PRK_ERRCODE_WAIT_LOST			MAKE_SQLSTATE('R','K','0','1','1')
#define PRK_ERRCODE_WAIT_NOT_ALLOWED	MAKE_SQLSTATE('R','K','0','1','2')

extern void prk_wait_for_lsn(XLogRecPtr target, TimeLineID timeline,
							 int64 timeout);

#endif							/* PRK_WAIT_H */
