/*-------------------------------------------------------------------------
 *
 * server.h
 *	  What is wrong with the server as a whole.  Pure functions.
 *
 * IDENTIFICATION
 *	  src/judge/server.h
 *
 *-------------------------------------------------------------------------
 */
#ifndef PRK_SERVER_H
#define PRK_SERVER_H

#include "judge/disk.h"
#include "judge/health.h"

/* Each has a level and an alert of its own. */
typedef enum PrkServerTrouble
{
	PRK_TROUBLE_DISK,
	PRK_TROUBLE_SYNC,
	PRK_TROUBLE_ARCHIVE
} PrkServerTrouble;

#define PRK_NTROUBLES	(PRK_TROUBLE_ARCHIVE + 1)

/* Commits that wait for synchronous standbys. */
typedef struct PrkSync
{
	int			wanted;			/* standbys that a commit waits for */
	int			there;			/* of those, at most wanted */
	int			waiting;		/* sessions that wait in a commit */
	int64		waited;			/* microseconds, the first of them; -1 not
								 * known */
} PrkSync;

typedef struct PrkServerFacts
{
	PrkDisk		disk;
	PrkSync		sync;
	PrkArchiving archiving;
} PrkServerFacts;

typedef struct PrkServerVerdict
{
	PrkCode		code;			/* none when ok */
	PrkLevel	level;
	PrkLevel	lenient;		/* by limits that are a quarter further */
	bool		at_once;		/* alert without waiting for alert_after */
	char		reason[PRK_REASON_LEN];
} PrkServerVerdict;

extern void prk_server_judge(const PrkServerFacts *facts, PrkServerTrouble trouble,
							 const PrkThresholds *thresholds,
							 PrkServerVerdict *verdict);

#endif							/* PRK_SERVER_H */
