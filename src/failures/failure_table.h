/*-------------------------------------------------------------------------
 *
 * failure_table.h
 *	  Where failures are counted: a table that may be written in any state.
 *
 * IDENTIFICATION
 *	  src/failures/failure_table.h
 *
 *-------------------------------------------------------------------------
 */
#ifndef PRK_FAILURE_TABLE_H
#define PRK_FAILURE_TABLE_H

#include "failures/types.h"

/*
 * What tells one failure from another.  It is hashed as a whole, so it must
 * have been all zero before it was filled in.
 */
typedef struct PrkFailureId
{
	uint32		outgoing;
	uint32		kind;			/* PrkFailureKind */
	uint32		sqlerrcode;
	uint32		ssl;
	uint32		family;			/* of addr; 0: none */
	uint32		logical;		/* a logical slot was asked for */
	uint32		words;			/* hash of the upstream's words */
	uint8		addr[16];
	PrkForeign	role_name;
	PrkForeign	application_name;
	PrkForeign	slot_name;
} PrkFailureId;

/* Who has authenticated as a walsender that runs. */
typedef struct PrkSession
{
	uint64		number;			/* when, in the order of events; 0: unknown */
	uint64		peer;			/* hash of its role, application and address */
} PrkSession;

/* while libraries are preloaded */
extern void prk_failures_shmem_request(void);
extern void prk_failures_shmem_startup(void);

/* for readers */
extern PrkFailures *prk_failures_read(void);

/*
 * None of these waits, allocates or raises.  Those without a remark may be
 * called anywhere, by the hooks.
 */
extern bool prk_failure_table_exists(void);
extern void prk_failure_table_note(const PrkFailureId *id, PrkTrust trust,
								   const char *replica,
								   const PrkForeignWords *message);
extern void prk_failure_table_let_in(const PrkFailureId *id);
extern bool prk_failure_table_seen_as(const PrkFailureId *id, char *replica);
extern void prk_failure_table_streaming(void);
extern uint64 prk_failures_next_number(void);
extern PrkSession prk_failures_session(int pid);

/* for the worker only */
extern void prk_failures_seen(uint64 peer, const char *replica, bool by_slot);
extern void prk_failures_end(const PrkFailure *failure);

#endif							/* PRK_FAILURE_TABLE_H */
