/*-------------------------------------------------------------------------
 *
 * waiters.c
 *	  The sessions that wait for WAL to be replayed, in shared memory.
 *
 * A heap by position, the least first, with room for each backend that there
 * can be; a backend has the place of its PGPROC.  One lightweight lock
 * protects it.  The waker looks at the least position without the lock, so
 * that a look costs as much for a thousand waiters as for one.
 *
 * A waiter leaves by itself, also by an error and at the end of its process:
 * whoever joins calls prk_waiters_leave() from an error cleanup.  Woken, it is
 * out of the heap already, and joins again if it has to wait on.
 *
 * Servers that wake such waiters themselves (19) don't need it: nothing is
 * requested there, and joining does nothing.
 *
 * IDENTIFICATION
 *	  src/reads/waiters.c
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "lib/pairingheap.h"
#include "miscadmin.h"
#include "port/atomics.h"
#include "storage/ipc.h"
#include "storage/latch.h"
#include "storage/lwlock.h"
#include "storage/proc.h"
#include "storage/shmem.h"

#include "clock/clock_shared.h"
#include "compat.h"
#include "reads/waiters.h"

#define WAITERS_NAME	"pg_replica_kit waiters"

/*
 * The waker's pause in milliseconds grows with the time for which nothing has
 * happened, to a hundredth of it: what is waited for in vain costs little.
 */
#define MIN_PAUSE		1
#define MAX_PAUSE		50

#define NOBODY			(-1)

/* What is woken at a time, with the lock released. */
#define NWOKEN			64

typedef struct Waiter
{
	pairingheap_node node;
	XLogRecPtr	target;
	bool		joined;			/* is in the heap */
} Waiter;

/* In shared memory; what is no atomic is protected by lock. */
typedef struct SharedWaiters
{
	LWLock	   *lock;			/* set once, at startup */
	pg_atomic_uint64 least;		/* the least position; PG_UINT64_MAX: none */
	pg_atomic_uint32 joins;		/* how often somebody has joined */
	pg_atomic_uint32 pause;		/* of the waker; PRK_WAITERS_IDLE: for ever */
	int			waker;			/* number of its PGPROC, or NOBODY */
	pairingheap heap;
	Waiter		waiters[FLEXIBLE_ARRAY_MEMBER];
} SharedWaiters;

/* NULL where the library was not preloaded, or the server has its own. */
static SharedWaiters *shared = NULL;

static int	compare(const pairingheap_node *a, const pairingheap_node *b,
					void *arg);
static void note_least(void);
static int	take_reached(XLogRecPtr replayed, int *woken);

/* Bytes of shared memory. */
static Size
waiters_size(void)
{
	return add_size(offsetof(SharedWaiters, waiters),
					mul_size(MaxBackends, sizeof(Waiter)));
}

/* For shmem_request_hook. */
void
prk_waiters_shmem_request(void)
{
	if (prk_compat_has_replay_wait())
		return;
	RequestAddinShmemSpace(waiters_size());
	RequestNamedLWLockTranche(WAITERS_NAME, 1);
}

/* For shmem_startup_hook; takes AddinShmemInitLock. */
void
prk_waiters_shmem_startup(void)
{
	bool		found;

	if (prk_compat_has_replay_wait())
		return;
	LWLockAcquire(AddinShmemInitLock, LW_EXCLUSIVE);
	shared = ShmemInitStruct(WAITERS_NAME, waiters_size(), &found);
	if (!found)
	{
		memset(shared, 0, waiters_size());
		shared->lock = &(GetNamedLWLockTranche(WAITERS_NAME))->lock;
		pg_atomic_init_u64(&shared->least, PG_UINT64_MAX);
		pg_atomic_init_u32(&shared->joins, 0);
		pg_atomic_init_u32(&shared->pause, PRK_WAITERS_IDLE);
		shared->waker = NOBODY;
		/* the library is where the postmaster has it, in each process */
		shared->heap.ph_compare = compare;
	}
	LWLockRelease(AddinShmemInitLock);
}

/* The one with the least position is the greatest for the heap. */
static int
compare(const pairingheap_node *a, const pairingheap_node *b, void *arg)
{
	const Waiter *waiter1 = pairingheap_const_container(Waiter, node, a);
	const Waiter *waiter2 = pairingheap_const_container(Waiter, node, b);

	if (waiter1->target != waiter2->target)
		return waiter1->target < waiter2->target ? 1 : -1;
	return 0;
}

/* Publishes the least position.  The caller holds the lock. */
static void
note_least(void)
{
	XLogRecPtr	least = PG_UINT64_MAX;

	Assert(shared != NULL);
	if (!pairingheap_is_empty(&shared->heap))
		least = pairingheap_container(Waiter, node,
									  pairingheap_first(&shared->heap))->target;
	pg_atomic_write_u64(&shared->least, least);
}

/*
 * Has this process's latch set when that position is replayed, or recovery
 * ends.  Nothing happens if it has joined already.  Returns false if nobody
 * will do it: the process then has to look by itself, and more often.
 */
bool
prk_waiters_join(XLogRecPtr target)
{
	Waiter	   *waiter;
	int			waker;
	uint32		pause;

	if (shared == NULL)
		return false;
	Assert(prk_compat_proc_number() < MaxBackends);
	waiter = &shared->waiters[prk_compat_proc_number()];

	LWLockAcquire(shared->lock, LW_EXCLUSIVE);
	waker = shared->waker;
	pause = MIN_PAUSE;
	if (waker != NOBODY && !waiter->joined)
	{
		waiter->target = target;
		waiter->joined = true;
		pairingheap_add(&shared->heap, &waiter->node);
		note_least();
		pg_atomic_fetch_add_u32(&shared->joins, 1);
		pause = pg_atomic_read_u32(&shared->pause);
	}
	LWLockRelease(shared->lock);

	if (pause != MIN_PAUSE)
		SetLatch(&GetPGProcByNumber(waker)->procLatch);
	return waker != NOBODY;
}

/* Takes this process out of the heap if it is in it.  Raises nothing. */
void
prk_waiters_leave(void)
{
	Waiter	   *waiter;

	if (shared == NULL)
		return;
	waiter = &shared->waiters[prk_compat_proc_number()];

	LWLockAcquire(shared->lock, LW_EXCLUSIVE);
	if (waiter->joined)
	{
		pairingheap_remove(&shared->heap, &waiter->node);
		waiter->joined = false;
		note_least();
	}
	LWLockRelease(shared->lock);
}

/* This process is the waker, or is it no longer. */
void
prk_waiters_set_waker(bool here)
{
	LWLockAcquire(shared->lock, LW_EXCLUSIVE);
	shared->waker = here ? prk_compat_proc_number() : NOBODY;
	pg_atomic_write_u32(&shared->pause, PRK_WAITERS_IDLE);
	LWLockRelease(shared->lock);
}

/*
 * Wakes all that wait for no more than that.  Returns how long to sleep until
 * the next look, in milliseconds, or PRK_WAITERS_IDLE: until the latch is set.
 */
int
prk_waiters_wake(XLogRecPtr replayed)
{
	static int64 since = 0;
	static uint32 joins_seen = 0;
	int			woken[NWOKEN];
	int			nwoken = 0;
	uint32		joins;
	int64		now = prk_clock_now();
	int			pause;

	Assert(shared != NULL);
	joins = pg_atomic_read_u32(&shared->joins);
	if (joins != joins_seen)
	{
		joins_seen = joins;
		since = now;
	}

	while (pg_atomic_read_u64(&shared->least) <= replayed &&
		   (nwoken = take_reached(replayed, woken)) > 0)
	{
		since = now;
		for (int i = 0; i < nwoken; i++)
			SetLatch(&GetPGProcByNumber(woken[i])->procLatch);
	}

	pause = Min(Max((now - since) / 100 / 1000, MIN_PAUSE), MAX_PAUSE);
	if (pg_atomic_read_u64(&shared->least) == PG_UINT64_MAX)
	{
		/* Who joins after this finds that the waker has to be woken. */
		LWLockAcquire(shared->lock, LW_EXCLUSIVE);
		if (pairingheap_is_empty(&shared->heap))
			pause = PRK_WAITERS_IDLE;
		pg_atomic_write_u32(&shared->pause, pause);
		LWLockRelease(shared->lock);
	}
	else
		pg_atomic_write_u32(&shared->pause, pause);
	return pause;
}

/* Takes some of those that wait for no more than that; returns how many. */
static int
take_reached(XLogRecPtr replayed, int *woken)
{
	int			nwoken = 0;

	LWLockAcquire(shared->lock, LW_EXCLUSIVE);
	while (nwoken < NWOKEN && !pairingheap_is_empty(&shared->heap))
	{
		Waiter	   *waiter = pairingheap_container(Waiter, node,
												   pairingheap_first(&shared->heap));

		if (waiter->target > replayed)
			break;
		(void) pairingheap_remove_first(&shared->heap);
		waiter->joined = false;
		woken[nwoken++] = waiter - shared->waiters;
	}
	note_least();
	LWLockRelease(shared->lock);
	return nwoken;
}
