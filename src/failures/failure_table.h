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

/* Whom an entry may be dropped for: nobody of another region. */
typedef enum PrkFailureRegion
{
	PRK_FAILURE_TRUSTED,		/* we ourselves, and who was authenticated */
	PRK_FAILURE_NAMED,			/* who uses the names of slots */
	PRK_FAILURE_STRANGER
} PrkFailureRegion;

/*
 * What tells one failure from another.  It is hashed as a whole, so whatever
 * is not set must be zero; there is no padding.
 */
typedef struct PrkFailureId
{
	uint32		outgoing;
	uint32		kind;			/* PrkFailureKind */
	uint32		sqlerrcode;
	uint32		ssl;
	uint32		family;			/* of addr; 0: none */
	uint32		words;			/* hash of the upstream's words */
	uint8		addr[16];
	char		role_name[NAMEDATALEN];
	char		application_name[NAMEDATALEN];
	char		slot_name[NAMEDATALEN];
} PrkFailureId;

/* while libraries are preloaded */
extern void prk_failures_shmem_request(void);
extern void prk_failures_shmem_startup(void);

/* for readers */
extern PrkFailures *prk_failures_read(void);

/* None of these waits, allocates or raises, and each may be called anywhere. */
extern bool prk_failure_table_exists(void);
extern void prk_failure_table_note(const PrkFailureId *id,
								   PrkFailureRegion region,
								   const char *message);
extern void prk_failure_table_let_in(const PrkFailureId *id);
extern bool prk_failure_table_knows(const PrkFailureId *id);

#endif							/* PRK_FAILURE_TABLE_H */
