/*-------------------------------------------------------------------------
 *
 * board.c
 *	  What the worker knows and has announced, in shared memory.
 *
 * The worker writes, everybody reads.  The board is requested only when the
 * library is preloaded, has room for as many replicas as there can be (each
 * slot and each walsender is one at most), and never grows.  One lightweight
 * lock protects all of it: readers copy under the shared lock and think
 * afterwards; the worker builds its entries privately and copies them in
 * under the exclusive lock, once a cycle.  Nothing under the lock allocates,
 * waits or raises.
 *
 * It lives as long as the shared memory does: a worker that was restarted
 * finds what it had announced, after a crash of the server all begins again.
 *
 * IDENTIFICATION
 *	  src/watch/board.c
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include <sys/resource.h>

#include "miscadmin.h"
#include "replication/slot.h"
#include "replication/walsender.h"
#include "storage/ipc.h"
#include "storage/lwlock.h"
#include "storage/shmem.h"
#include "utils/timestamp.h"

#include "clock/clock_shared.h"
#include "compat.h"
#include "watch/board.h"

#define BOARD_NAME		"pg_replica_kit board"

/* Slots dropped on purpose that the worker may not have noticed yet. */
#define NFORGOTTEN		64

typedef struct Forgotten
{
	char		name[NAMEDATALEN];
	TimestampTz at;
} Forgotten;

/* In shared memory; all of it is protected by lock. */
typedef struct SharedBoard
{
	LWLock	   *lock;			/* set once, at startup */
	int			worker_pid;
	TimestampTz cycle_at;
	int64		cycle_clock;
	PrkBoardCost cost;
	int64		cpu_before;		/* of workers that have ended */
	PrkBoardUpstream upstream;
	PrkBoardServer server;
	int			next_forgotten; /* where the next one goes, round and round */
	Forgotten	forgotten[NFORGOTTEN];
	int			nentries;
	PrkBoardEntry entries[FLEXIBLE_ARRAY_MEMBER];
} SharedBoard;

/* NULL where the library was not preloaded. */
static SharedBoard *shared = NULL;

static int64 own_cpu(void);
static void copy_entry(PrkBoardEntry *to, const PrkBoardEntry *from);
static void shift_alert(PrkBoardAlert *alert, int64 jump);
static void shift(TimestampTz *when, int64 jump);

/* How many replicas there can be; both settings are fixed at start. */
static int
max_entries(void)
{
	return prk_compat_slots() + max_wal_senders;
}

/* Bytes of shared memory. */
static Size
board_size(void)
{
	return add_size(offsetof(SharedBoard, entries),
					mul_size(max_entries(), sizeof(PrkBoardEntry)));
}

/* For shmem_request_hook. */
void
prk_board_shmem_request(void)
{
	RequestAddinShmemSpace(board_size());
	RequestNamedLWLockTranche(BOARD_NAME, 1);
}

/* For shmem_startup_hook; takes AddinShmemInitLock. */
void
prk_board_shmem_startup(void)
{
	bool		found;

	LWLockAcquire(AddinShmemInitLock, LW_EXCLUSIVE);
	shared = ShmemInitStruct(BOARD_NAME, board_size(), &found);
	if (!found)
	{
		memset(shared, 0, board_size());
		shared->lock = &(GetNamedLWLockTranche(BOARD_NAME))->lock;
	}
	LWLockRelease(AddinShmemInitLock);
}

/*
 * A copy of the board in the caller's memory context; else as the next.
 */
PrkBoard *
prk_board_read(void)
{
	PrkBoard   *board = palloc(sizeof(PrkBoard));
	PrkKept		entries = {0};

	prk_board_read_into(board, &entries, CurrentMemoryContext);
	return board;
}

/*
 * A copy of the board, with its times by the machine's clock as that is now,
 * should it have been set.  Its entries are in what is kept in the context.
 * Without preloading it is an empty one.
 */
void
prk_board_read_into(PrkBoard *board, PrkKept *entries, MemoryContext context)
{
	int			nentries = 0;
	int			room;
	int64		jump;

	memset(board, 0, sizeof(PrkBoard));
	if (shared == NULL)
		return;
	board->exists = true;

	/* Nothing is allocated under the lock: what does not fit is tried again. */
	do
	{
		board->entries = prk_kept_reserve(entries, context,
										  (nentries + 1) *
										  sizeof(PrkBoardEntry));
		room = entries->size / sizeof(PrkBoardEntry);
		LWLockAcquire(shared->lock, LW_SHARED);
		board->worker_pid = shared->worker_pid;
		board->cycle_at = shared->cycle_at;
		board->cycle_clock = shared->cycle_clock;
		board->cost = shared->cost;
		board->upstream = shared->upstream;
		board->server = shared->server;
		nentries = shared->nentries;
		board->nentries = Min(nentries, room);
		for (int i = 0; i < board->nentries; i++)
			copy_entry(&board->entries[i], &shared->entries[i]);
		LWLockRelease(shared->lock);
	} while (nentries > room);

	jump = board->cycle_at == 0 ? 0 :
		prk_clock_jump(board->cycle_at, board->cycle_clock,
					   GetCurrentTimestamp(), prk_clock_now());
	if (jump != 0)
	{
		for (int i = 0; i < board->nentries; i++)
			prk_board_shift_entry(&board->entries[i], jump);
		prk_board_shift_server(&board->server, jump);
		prk_board_shift_upstream(&board->upstream, jump);
		shift(&board->cycle_at, jump);
	}
}

/* Copies an entry, without what is behind the end of its reason. */
static void
copy_entry(PrkBoardEntry *to, const PrkBoardEntry *from)
{
	memcpy(to, from, offsetof(PrkBoardEntry, reason));
	strlcpy(to->reason, from->reason, sizeof(to->reason));
}

/* Moves a time, unless it is none. */
static void
shift(TimestampTz *when, int64 jump)
{
	if (*when != 0)
		*when += jump;
}

/* Moves the times of an entry, so that what they say lasts stays as long. */
void
prk_board_shift_entry(PrkBoardEntry *entry, int64 jump)
{
	PrkKnown   *known = &entry->known;

	shift(&entry->alert_since, jump);
	shift(&entry->trouble_since, jump);
	shift(&known->gone_since, jump);
	shift(&known->appeared_at, jump);
	shift(&known->seen_at, jump);
	shift(&known->moved_at, jump);
	shift(&known->stuck_since, jump);
	shift(&known->reply_seen_at, jump);
}

/* The same for the server. */
void
prk_board_shift_server(PrkBoardServer *server, int64 jump)
{
	for (int i = 0; i < PRK_NTROUBLES; i++)
		shift_alert(&server->alerts[i], jump);
}

/* And for its upstream. */
void
prk_board_shift_upstream(PrkBoardUpstream *upstream, int64 jump)
{
	shift(&upstream->gone_since, jump);
	shift_alert(&upstream->alert, jump);
}

static void
shift_alert(PrkBoardAlert *alert, int64 jump)
{
	shift(&alert->alert_since, jump);
	shift(&alert->trouble_since, jump);
}

/* The entry's order: by name, a slot before walsenders that have none. */
int
prk_board_compare(const char *name1, int pid1, const char *name2, int pid2)
{
	int			order = strcmp(name1, name2);

	if (order == 0)
		order = (pid1 > pid2) - (pid1 < pid2);
	return order;
}

/* The pid under which a replica is on the board: 0 for one that has a slot. */
int
prk_board_pid(const PrkReplica *replica)
{
	return replica->has_slot ? 0 : replica->pid;
}

/*
 * What a copy of the board has about a replica; NULL if nothing.
 */
const PrkBoardEntry *
prk_board_find(const PrkBoard *board, const PrkReplica *replica)
{
	int			low = 0;
	int			high = board->nentries;
	int			pid = prk_board_pid(replica);

	while (low < high)
	{
		int			middle = low + (high - low) / 2;
		const PrkBoardEntry *entry = &board->entries[middle];
		int			order = prk_board_compare(replica->name, pid,
											  entry->name, entry->pid);

		if (order == 0)
			return entry;
		if (order < 0)
			high = middle;
		else
			low = middle + 1;
	}
	return NULL;
}

/*
 * Tells the worker that the slot of this name goes away on purpose, so that
 * it doesn't report the loss.  To be called before the slot is dropped; may
 * be called after the commit record, since it raises nothing.  Does nothing
 * without preloading.
 */
void
prk_board_forget(const char *name)
{
	TimestampTz now = GetCurrentTimestamp();
	Forgotten  *slot;

	if (shared == NULL)
		return;
	LWLockAcquire(shared->lock, LW_EXCLUSIVE);
	slot = &shared->forgotten[shared->next_forgotten];
	strlcpy(slot->name, name, NAMEDATALEN);
	slot->at = now;
	shared->next_forgotten = (shared->next_forgotten + 1) % NFORGOTTEN;
	LWLockRelease(shared->lock);
}

/*
 * Was the slot of this name forgotten on purpose at this time or later?
 */
bool
prk_board_forgotten(const char *name, TimestampTz since)
{
	bool		result = false;

	if (shared == NULL)
		return false;
	LWLockAcquire(shared->lock, LW_SHARED);
	for (int i = 0; i < NFORGOTTEN && !result; i++)
		result = shared->forgotten[i].at >= since &&
			strcmp(shared->forgotten[i].name, name) == 0;
	LWLockRelease(shared->lock);
	return result;
}

/* Notes that this process is the worker. */
void
prk_board_worker_started(void)
{
	LWLockAcquire(shared->lock, LW_EXCLUSIVE);
	shared->worker_pid = MyProcPid;
	shared->cpu_before = shared->cost.cpu;
	LWLockRelease(shared->lock);
}

/* Notes that nobody watches any more; what was announced stays. */
void
prk_board_worker_stopped(void)
{
	LWLockAcquire(shared->lock, LW_EXCLUSIVE);
	shared->worker_pid = 0;
	LWLockRelease(shared->lock);
}

/*
 * Makes the result of a cycle the board's contents.  The entries are in the
 * order of prk_board_compare().
 */
void
prk_board_publish(const PrkBoardEntry *entries, int nentries,
				  const PrkBoardUpstream *upstream,
				  const PrkBoardServer *server)
{
	TimestampTz now = GetCurrentTimestamp();
	int64		clock = prk_clock_now();
	int64		cpu = own_cpu();

	nentries = Min(nentries, max_entries());
	LWLockAcquire(shared->lock, LW_EXCLUSIVE);
	memcpy(shared->entries, entries, nentries * sizeof(PrkBoardEntry));
	shared->nentries = nentries;
	shared->upstream = *upstream;
	shared->server = *server;
	shared->cycle_at = now;
	shared->cycle_clock = clock;
	shared->cost.samples++;
	shared->cost.cpu = shared->cpu_before + cpu;
	LWLockRelease(shared->lock);
}

/* CPU time of this process so far, in microseconds. */
static int64
own_cpu(void)
{
	struct rusage usage;

	if (getrusage(RUSAGE_SELF, &usage) != 0)
		return 0;
	return (usage.ru_utime.tv_sec + usage.ru_stime.tv_sec) * USECS_PER_SEC +
		usage.ru_utime.tv_usec + usage.ru_stime.tv_usec;
}

/* Takes everything off the board: nobody knows any more. */
void
prk_board_clear(void)
{
	LWLockAcquire(shared->lock, LW_EXCLUSIVE);
	shared->nentries = 0;
	memset(&shared->upstream, 0, sizeof(PrkBoardUpstream));
	memset(&shared->server, 0, sizeof(PrkBoardServer));
	shared->cycle_at = 0;
	shared->cycle_clock = 0;
	LWLockRelease(shared->lock);
}
