/*-------------------------------------------------------------------------
 *
 * board.h
 *	  What the worker knows and has announced, in shared memory.
 *
 * IDENTIFICATION
 *	  src/watch/board.h
 *
 *-------------------------------------------------------------------------
 */
#ifndef PRK_BOARD_H
#define PRK_BOARD_H

#include "kept.h"
#include "judge/health.h"
#include "judge/server.h"

/*
 * One replica.  A slot is known by its name; a walsender without one by its
 * application name and its process, since names may repeat.
 */
typedef struct PrkBoardEntry
{
	char		name[NAMEDATALEN];
	int			pid;			/* of a walsender without a slot; 0: a slot */
	PrkKnown	known;
	PrkLevel	alert;			/* as announced */
	PrkLevel	told;			/* the same in the log, which may be silenced */
	TimestampTz alert_since;	/* when the announced level was reached; 0 ok */
	TimestampTz trouble_since;	/* when it ceased to be ok; 0 ok */
	char		reason[PRK_REASON_LEN]; /* last, since mostly "" */
} PrkBoardEntry;

/* What was announced of a trouble of the server as a whole. */
typedef struct PrkBoardAlert
{
	PrkLevel	alert;			/* as announced */
	PrkLevel	told;			/* the same in the log, which may be silenced */
	TimestampTz alert_since;	/* when the announced level was reached; 0 ok */
	TimestampTz trouble_since;	/* when it ceased to be ok; 0 ok */
	char		reason[PRK_REASON_LEN];
} PrkBoardAlert;

/* The server as a whole. */
typedef struct PrkBoardServer
{
	PrkDisk		disk;
	PrkArchiveMark archive;
	PrkBoardAlert alerts[PRK_NTROUBLES];
} PrkBoardServer;

/* On a standby, its own upstream; 0 while all is well, and on a primary. */
typedef struct PrkBoardUpstream
{
	TimestampTz gone_since;		/* its wal receiver doesn't stream */
	XLogRecPtr	replayed_lsn;	/* as last seen */
	int64		still_since;	/* since when, by prk_clock_now(); 0: it has
								 * not been looked at */
	PrkBoardAlert alert;		/* as announced */
} PrkBoardUpstream;

/* What watching costs; grows until the server ends. */
typedef struct PrkBoardCost
{
	int64		samples;		/* that were judged and published */
	int64		cpu;			/* microseconds of the worker's, of all that
								 * ran */
} PrkBoardCost;

/* A copy of the board, palloc'd in the caller's memory context. */
typedef struct PrkBoard
{
	bool		exists;			/* preloaded: shared memory is there */
	int			worker_pid;		/* 0: no worker runs */
	TimestampTz cycle_at;		/* end of its last cycle; 0: none yet */
	int64		cycle_clock;	/* the same by prk_clock_now() */
	PrkBoardCost cost;			/* at the end of that cycle */
	PrkBoardUpstream upstream;
	PrkBoardServer server;
	int			nentries;
	PrkBoardEntry *entries;		/* in the order of prk_board_compare() */
} PrkBoard;

extern void prk_board_shmem_request(void);
extern void prk_board_shmem_startup(void);
extern PrkBoard *prk_board_read(void);
extern void prk_board_read_into(PrkBoard *board, PrkKept *entries,
								MemoryContext context);
extern const PrkBoardEntry *prk_board_find(const PrkBoard *board,
										   const PrkReplica *replica);
extern int	prk_board_compare(const char *name1, int pid1,
							  const char *name2, int pid2);
extern int	prk_board_pid(const PrkReplica *replica);

/* when the machine's clock was set */
extern void prk_board_shift_entry(PrkBoardEntry *entry, int64 jump);
extern void prk_board_shift_server(PrkBoardServer *server, int64 jump);
extern void prk_board_shift_upstream(PrkBoardUpstream *upstream, int64 jump);

/* for whoever drops a slot on purpose */
extern void prk_board_forget(const char *name);

/* for the worker */
extern void prk_board_worker_started(void);
extern void prk_board_worker_stopped(void);
extern void prk_board_publish(const PrkBoardEntry *entries, int nentries,
							  const PrkBoardUpstream *upstream,
							  const PrkBoardServer *server);
extern void prk_board_clear(void);
extern bool prk_board_forgotten(const char *name, TimestampTz since);

#endif							/* PRK_BOARD_H */
