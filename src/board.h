/*-------------------------------------------------------------------------
 *
 * board.h
 *	  What the worker knows and has announced, in shared memory.
 *
 * IDENTIFICATION
 *	  src/board.h
 *
 *-------------------------------------------------------------------------
 */
#ifndef PRK_BOARD_H
#define PRK_BOARD_H

#include "health.h"

typedef struct PrkBoardEntry
{
	char		name[NAMEDATALEN];
	PrkKnown	known;
	PrkLevel	alert;			/* as announced */
	TimestampTz alert_since;	/* when the announced level was reached; 0 ok */
	char		reason[PRK_REASON_LEN];
} PrkBoardEntry;

/* A copy of the board, palloc'd in the caller's memory context. */
typedef struct PrkBoard
{
	bool		exists;			/* preloaded: shared memory is there */
	int			worker_pid;		/* 0: no worker runs */
	TimestampTz cycle_at;		/* end of its last cycle; 0: none yet */
	int			nentries;
	PrkBoardEntry *entries;
} PrkBoard;

extern void prk_board_shmem_request(void);
extern void prk_board_shmem_startup(void);
extern PrkBoard *prk_board_read(void);
extern const PrkBoardEntry *prk_board_find(const PrkBoard *board,
										   const char *name);

/* for the worker */
extern void prk_board_worker_started(void);
extern void prk_board_worker_stopped(void);
extern void prk_board_publish(const PrkBoardEntry *entries, int nentries);

#endif							/* PRK_BOARD_H */
