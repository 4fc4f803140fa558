/*-------------------------------------------------------------------------
 *
 * pg_replica_kit.c
 *	  The composition root: module magic, settings, hooks, worker.
 *
 * Nothing includes this file and it decides nothing: each module brings its
 * own part.  Loaded without shared_preload_libraries it only defines the
 * settings; all but the worker and what it keeps works that way.
 *
 * IDENTIFICATION
 *	  pg_replica_kit.c
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "fmgr.h"

PG_MODULE_MAGIC;

void		_PG_init(void);

void
_PG_init(void)
{
}
