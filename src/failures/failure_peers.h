/*-------------------------------------------------------------------------
 *
 * failure_peers.h
 *	  Peers that were let in or seen streaming, in the order of events.
 *
 * IDENTIFICATION
 *	  src/failures/failure_peers.h
 *
 *-------------------------------------------------------------------------
 */
#ifndef PRK_FAILURE_PEERS_H
#define PRK_FAILURE_PEERS_H

#include "foreign.h"

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
extern void prk_failure_peers_shmem_request(void);
extern void prk_failure_peers_shmem_startup(void);

/*
 * None of these waits, allocates or raises.  Those without a remark may be
 * called anywhere, by the hooks.
 */
extern uint64 prk_failures_next_number(void);
extern uint64 prk_failure_peers_let_in(const PrkFailureId *id);
extern PrkSession prk_failures_session(int pid);
extern void prk_failure_peers_excuse(uint64 peer, uint64 first);
extern bool prk_failure_peers_excused(uint64 number);
extern bool prk_failure_peers_seen_as(const PrkFailureId *id, char *replica);
extern uint64 prk_failure_hash(const PrkFailureId *id);
extern uint64 prk_failure_hash_peer(const PrkFailureId *id);

/* for the worker only */
extern void prk_failures_seen(uint64 peer, const char *replica, bool by_slot);

#endif							/* PRK_FAILURE_PEERS_H */
