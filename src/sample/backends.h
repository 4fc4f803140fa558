/*-------------------------------------------------------------------------
 *
 * backends.h
 *	  Backend entries, read straight from shared memory.
 *
 * IDENTIFICATION
 *	  src/sample/backends.h
 *
 *-------------------------------------------------------------------------
 */
#ifndef PRK_BACKENDS_H
#define PRK_BACKENDS_H

#include "datatype/timestamp.h"
#include "libpq/pqcomm.h"

#include "sample/types.h"

/* What the server's backend entry says of one process. */
typedef struct PrkBackend
{
	int			pid;			/* whose entry is wanted */
	int			hint;			/* in: where it was last time, or -1; out:
								 * where it is, or -1: there is none */
	Oid			userid;
	char		application_name[NAMEDATALEN];
	bool		has_client_addr;
	SockAddr	client_addr;
	TimestampTz start;
	char		command[PRK_COMMAND_LEN];	/* a walsender's last one, cut off */
	bool		in_backup;		/* the rest is pg_stat_progress_basebackup's */
	int			backup_phase;
	int64		backup_total;	/* bytes; -1 not estimated */
	int64		backup_streamed;
	bool		backup_incremental; /* false where the server doesn't tell */
} PrkBackend;

extern void prk_backends_read(PrkBackend *backends, int nbackends);

#endif							/* PRK_BACKENDS_H */
