/*-------------------------------------------------------------------------
 *
 * failure_tally.c
 *	  How many connections have failed since the server started, by direction
 *	  and SQLSTATE.
 *
 * The table of failures drops what was longest not seen, so sums over it can
 * shrink.  These counters only grow, as those who compute rates expect.  They
 * are written where the table is, so there are only atomics here, too: a place
 * is claimed once, by its key, and kept until the server ends.
 *
 * IDENTIFICATION
 *	  src/failures/failure_tally.c
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "miscadmin.h"
#include "port/atomics.h"
#include "storage/ipc.h"
#include "storage/lwlock.h"
#include "storage/shmem.h"

#include "failures/failure_tally.h"

#define TALLY_NAME		"pg_replica_kit failure tally"

/* Bits of a key beside the 30 of an SQLSTATE. */
#define KEY_USED		(1U << 31)
#define KEY_OUTGOING	(1U << 30)

typedef struct Tally
{
	pg_atomic_uint32 key;		/* 0: free */
	pg_atomic_uint64 count;
} Tally;

/* PRK_NTALLIES of them in shared memory; NULL without preloading. */
static Tally *shared = NULL;

/* For shmem_request_hook. */
void
prk_failure_tally_shmem_request(void)
{
	RequestAddinShmemSpace(PRK_NTALLIES * sizeof(Tally));
}

/* For shmem_startup_hook; takes AddinShmemInitLock. */
void
prk_failure_tally_shmem_startup(void)
{
	bool		found;

	LWLockAcquire(AddinShmemInitLock, LW_EXCLUSIVE);
	shared = ShmemInitStruct(TALLY_NAME, PRK_NTALLIES * sizeof(Tally), &found);
	for (int i = 0; i < PRK_NTALLIES && !found; i++)
	{
		pg_atomic_init_u32(&shared[i].key, 0);
		pg_atomic_init_u64(&shared[i].count, 0);
	}
	LWLockRelease(AddinShmemInitLock);
}

/* Counts one failure. */
void
prk_failure_tally_add(bool outgoing, int sqlerrcode)
{
	uint32		key = KEY_USED | (outgoing ? KEY_OUTGOING : 0) |
	((uint32) sqlerrcode & (KEY_OUTGOING - 1));
	int			i;

	if (shared == NULL)
		return;
	for (i = 0; i < PRK_NTALLIES - 1; i++)
	{
		uint32		found = 0;

		if (pg_atomic_compare_exchange_u32(&shared[i].key, &found, key) ||
			found == key)
			break;
	}
	pg_atomic_fetch_add_u64(&shared[i].count, 1);
}

/* All that have counted something; returns how many. */
int
prk_failure_tally_read(PrkTally tallies[PRK_NTALLIES])
{
	int			result = 0;

	for (int i = 0; shared != NULL && i < PRK_NTALLIES; i++)
	{
		PrkTally   *tally = &tallies[result];
		uint32		key = pg_atomic_read_u32(&shared[i].key);

		tally->count = (int64) pg_atomic_read_u64(&shared[i].count);
		if (tally->count == 0)
			continue;
		tally->other = i == PRK_NTALLIES - 1;
		tally->outgoing = (key & KEY_OUTGOING) != 0;
		tally->sqlerrcode = (int) (key & (KEY_OUTGOING - 1));
		result++;
	}
	return result;
}
