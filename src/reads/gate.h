/*-------------------------------------------------------------------------
 *
 * gate.h
 *	  The read gate: a standby that is far behind refuses new sessions.
 *
 * IDENTIFICATION
 *	  src/reads/gate.h
 *
 *-------------------------------------------------------------------------
 */
#ifndef PRK_GATE_H
#define PRK_GATE_H

#include "datatype/timestamp.h"

typedef enum PrkGateState
{
	PRK_GATE_OFF,				/* not set, on a primary, or nobody judges */
	PRK_GATE_OPEN,
	PRK_GATE_CLOSED
} PrkGateState;

extern void prk_gate_init(void);
extern void prk_gate_shmem_request(void);
extern void prk_gate_shmem_startup(void);

extern PrkGateState prk_gate_read(TimestampTz *since);

/* for the worker */
extern bool prk_gate_is_set(void);
extern bool prk_gate_is_fresh(void);
extern bool prk_gate_judge(int64 bytes, int64 age, bool was_closed);
extern void prk_gate_close(int64 duration);
extern uint64 prk_gate_open(void);

#endif							/* PRK_GATE_H */
