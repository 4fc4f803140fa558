/*-------------------------------------------------------------------------
 *
 * failure_table.c
 *	  Where failures are counted: a table that may be written in any state.
 *
 * Who writes may be in a critical section, have no PGPROC, or be ended by a
 * signal between any two instructions.  So there is no lock here, not even a
 * spinlock, only atomics over a fixed piece of shared memory.  (Those of 64
 * bits are lock-free wherever PG_HAVE_ATOMIC_U64_SIMULATION is not defined,
 * which is every platform that servers run on.)
 *
 * An entry is written under its sequence number, odd meanwhile, so that
 * readers know a torn copy.  A process that dies while writing leaves it odd;
 * after a while the next who wants it takes it over.  Two processes that note
 * the same new failure at once make two entries, which readers add up.
 *
 * The table has three regions, each of which drops what was longest not seen,
 * so that no crowd in one drives anything out of another.
 *
 * IDENTIFICATION
 *	  src/failures/failure_table.c
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include <netinet/in.h>

#include "common/hashfn.h"
#include "miscadmin.h"
#include "port/atomics.h"
#include "storage/ipc.h"
#include "storage/lwlock.h"
#include "storage/shmem.h"
#include "utils/timestamp.h"

#include "failures/failure_table.h"

#define FAILURES_NAME	"pg_replica_kit failures"

/* The regions of the table, in the order of PrkFailureRegion. */
static const struct
{
	int			first;
	int			nentries;
}			regions[] = {
	{0, 64}, {64, 32}, {96, 32}
};

#define NENTRIES		128

/* Peers whose authentication succeeded, as hashes. */
#define NPEERS			128

/* Whoever is still writing after this long, in microseconds, is dead. */
#define WRITING_TIME	(10 * USECS_PER_SEC)

/* In shared memory. */
typedef struct Entry
{
	pg_atomic_uint64 key;		/* hash of the id; 0: free */
	pg_atomic_uint64 count;
	pg_atomic_uint64 first_at;
	pg_atomic_uint64 last_at;
	pg_atomic_uint64 writing_since;
	pg_atomic_uint32 sequence;	/* odd while the rest is being written */
	PrkFailureId id;
	char		message[PRK_FAILURE_MESSAGE_LEN];
} Entry;

typedef struct SharedFailures
{
	uint64		seed;			/* of all hashes; set once, at startup */
	pg_atomic_uint32 next_peer;
	pg_atomic_uint64 peers[NPEERS];
	Entry		entries[NENTRIES];
} SharedFailures;

/* NULL where the library was not preloaded. */
static SharedFailures *shared = NULL;

static uint64 hash_peer(const PrkFailureId *id);
static bool begin_writing(Entry *entry, uint32 *sequence);
static void end_writing(Entry *entry, uint32 sequence);
static bool copy_entry(Entry *entry, Entry *copy);
static void convert(const Entry *entry, PrkFailure *failure);
static int	compare_failures(const void *a, const void *b);

/* For shmem_request_hook. */
void
prk_failures_shmem_request(void)
{
	RequestAddinShmemSpace(sizeof(SharedFailures));
}

/* For shmem_startup_hook; takes AddinShmemInitLock. */
void
prk_failures_shmem_startup(void)
{
	bool		found;

	LWLockAcquire(AddinShmemInitLock, LW_EXCLUSIVE);
	shared = ShmemInitStruct(FAILURES_NAME, sizeof(SharedFailures), &found);
	if (!found)
	{
		memset(shared, 0, sizeof(SharedFailures));
		if (!pg_strong_random(&shared->seed, sizeof(shared->seed)))
			shared->seed = (uint64) GetCurrentTimestamp();
		pg_atomic_init_u32(&shared->next_peer, 0);
		for (int i = 0; i < NPEERS; i++)
			pg_atomic_init_u64(&shared->peers[i], 0);
		for (int i = 0; i < NENTRIES; i++)
		{
			Entry	   *entry = &shared->entries[i];

			pg_atomic_init_u64(&entry->key, 0);
			pg_atomic_init_u64(&entry->count, 0);
			pg_atomic_init_u64(&entry->first_at, 0);
			pg_atomic_init_u64(&entry->last_at, 0);
			pg_atomic_init_u64(&entry->writing_since, 0);
			pg_atomic_init_u32(&entry->sequence, 0);
		}
	}
	LWLockRelease(AddinShmemInitLock);
}

/* Is there a table at all? */
bool
prk_failure_table_exists(void)
{
	return shared != NULL;
}

/* Notes that this role, application and address were let in together. */
void
prk_failure_table_let_in(const PrkFailureId *id)
{
	uint32		next;

	if (prk_failure_table_knows(id))
		return;
	next = pg_atomic_fetch_add_u32(&shared->next_peer, 1) % NPEERS;
	pg_atomic_write_u64(&shared->peers[next], hash_peer(id));
}

/* Were this role, application and address let in together before? */
bool
prk_failure_table_knows(const PrkFailureId *id)
{
	uint64		hash = hash_peer(id);

	for (int i = 0; i < NPEERS; i++)
	{
		if (pg_atomic_read_u64(&shared->peers[i]) == hash)
			return true;
	}
	return false;
}

/*
 * Counts the failure in its region of the table, in the entry that it has, or
 * in a free one, or in that which was longest not seen.
 */
void
prk_failure_table_note(const PrkFailureId *id, PrkFailureRegion region,
					   const char *message)
{
	uint64		key = hash_bytes_extended((const unsigned char *) id,
										  sizeof(PrkFailureId), shared->seed) | 1;
	uint64		now = (uint64) GetCurrentTimestamp();
	int			first = regions[region].first;
	int			nentries = regions[region].nentries;
	Entry	   *oldest = &shared->entries[first];
	uint32		sequence;

	for (int i = first; i < first + nentries; i++)
	{
		Entry	   *entry = &shared->entries[i];

		if (pg_atomic_read_u64(&entry->key) == key)
		{
			pg_atomic_fetch_add_u64(&entry->count, 1);
			pg_atomic_write_u64(&entry->last_at, now);
			if (begin_writing(entry, &sequence))
			{
				strncpy(entry->message, message, PRK_FAILURE_MESSAGE_LEN - 1);
				end_writing(entry, sequence);
			}
			return;
		}
		if (pg_atomic_read_u64(&entry->last_at) <
			pg_atomic_read_u64(&oldest->last_at))
			oldest = entry;
	}

	/* Somebody else is at it: that one's failure is as good as ours. */
	if (!begin_writing(oldest, &sequence))
		return;
	pg_atomic_write_u64(&oldest->key, 0);
	oldest->id = *id;
	strncpy(oldest->message, message, PRK_FAILURE_MESSAGE_LEN - 1);
	pg_atomic_write_u64(&oldest->count, 1);
	pg_atomic_write_u64(&oldest->first_at, now);
	pg_atomic_write_u64(&oldest->last_at, now);
	pg_atomic_write_u64(&oldest->key, key);
	end_writing(oldest, sequence);
}

/*
 * All failures, the newest first, palloc'd in the caller's memory context.
 * Without preloading there are none.
 */
PrkFailures *
prk_failures_read(void)
{
	PrkFailures *result = palloc0(sizeof(PrkFailures));
	uint64		keys[NENTRIES] = {0};
	Entry	   *copy;

	if (shared == NULL)
		return result;
	result->exist = true;
	result->failures = palloc0(NENTRIES * sizeof(PrkFailure));
	copy = palloc(sizeof(Entry));

	for (int i = 0; i < NENTRIES; i++)
	{
		PrkFailure *failure = &result->failures[result->nfailures];
		int			same = 0;
		uint64		key;

		if (!copy_entry(&shared->entries[i], copy))
			continue;
		key = pg_atomic_read_u64(&copy->key);
		convert(copy, failure);

		while (same < result->nfailures && keys[same] != key)
			same++;
		if (same < result->nfailures)
		{
			PrkFailure *first = &result->failures[same];

			if (failure->last_at > first->last_at)
				memcpy(first->message, failure->message,
					   PRK_FAILURE_MESSAGE_LEN);
			first->count += failure->count;
			first->first_at = Min(first->first_at, failure->first_at);
			first->last_at = Max(first->last_at, failure->last_at);
			continue;
		}
		keys[result->nfailures++] = key;
	}
	pfree(copy);

	qsort(result->failures, result->nfailures, sizeof(PrkFailure),
		  compare_failures);
	return result;
}

/* Never zero. */
static uint64
hash_peer(const PrkFailureId *id)
{
	PrkFailureId peer;

	memset(&peer, 0, sizeof(peer));
	peer.family = id->family;
	memcpy(peer.addr, id->addr, sizeof(peer.addr));
	memcpy(peer.role_name, id->role_name, NAMEDATALEN);
	memcpy(peer.application_name, id->application_name, NAMEDATALEN);
	return hash_bytes_extended((unsigned char *) &peer, sizeof(peer),
							   shared->seed) | 1;
}

/*
 * Claims the entry.  Returns false, without waiting, if somebody else has it
 * and may be alive.
 */
static bool
begin_writing(Entry *entry, uint32 *sequence)
{
	uint64		now = (uint64) GetCurrentTimestamp();
	uint32		expected = pg_atomic_read_u32(&entry->sequence);
	uint32		ours = expected + 1;

	if (expected % 2 == 1)
	{
		if (now - pg_atomic_read_u64(&entry->writing_since) < WRITING_TIME)
			return false;
		ours = expected + 2;
	}
	if (!pg_atomic_compare_exchange_u32(&entry->sequence, &expected, ours))
		return false;
	pg_atomic_write_u64(&entry->writing_since, now);
	pg_write_barrier();
	*sequence = ours;
	return true;
}

/* Gives the entry back, unless somebody thought us dead and took it. */
static void
end_writing(Entry *entry, uint32 sequence)
{
	pg_write_barrier();
	(void) pg_atomic_compare_exchange_u32(&entry->sequence, &sequence,
										  sequence + 1);
}

/* A whole copy of an entry; false if it is free or was never whole. */
static bool
copy_entry(Entry *entry, Entry *copy)
{
	for (int i = 0; i < 1000; i++)
	{
		uint32		before = pg_atomic_read_u32(&entry->sequence);

		if (before % 2 == 1)
			continue;
		pg_read_barrier();
		memcpy(copy, entry, sizeof(Entry));
		pg_read_barrier();
		if (pg_atomic_read_u32(&entry->sequence) == before)
			return pg_atomic_read_u64(&copy->key) != 0;
	}
	return false;
}

/* What an entry says, for those who read. */
static void
convert(const Entry *entry, PrkFailure *failure)
{
	const PrkFailureId *id = &entry->id;
	Entry	   *counters = unconstify(Entry *, entry);

	failure->first_at = (TimestampTz) pg_atomic_read_u64(&counters->first_at);
	failure->last_at = (TimestampTz) pg_atomic_read_u64(&counters->last_at);
	failure->count = (int64) pg_atomic_read_u64(&counters->count);
	failure->outgoing = id->outgoing != 0;
	failure->kind = (PrkFailureKind) id->kind;
	failure->sqlerrcode = (int) id->sqlerrcode;
	failure->ssl = id->ssl != 0;
	failure->has_client_addr = id->family != 0;
	memset(&failure->client_addr, 0, sizeof(SockAddr));
	failure->client_addr.addr.ss_family = id->family;
	if (id->family == AF_INET)
	{
		memcpy(&((struct sockaddr_in *) &failure->client_addr.addr)->sin_addr,
			   id->addr, 4);
		failure->client_addr.salen = sizeof(struct sockaddr_in);
	}
	else if (id->family == AF_INET6)
	{
		memcpy(&((struct sockaddr_in6 *) &failure->client_addr.addr)->sin6_addr,
			   id->addr, 16);
		failure->client_addr.salen = sizeof(struct sockaddr_in6);
	}
	strlcpy(failure->role_name, id->role_name, NAMEDATALEN);
	strlcpy(failure->application_name, id->application_name,
			NAMEDATALEN);
	strlcpy(failure->slot_name, id->slot_name, NAMEDATALEN);
	strlcpy(failure->message, entry->message, PRK_FAILURE_MESSAGE_LEN);
}

static int
compare_failures(const void *a, const void *b)
{
	const PrkFailure *failure1 = a;
	const PrkFailure *failure2 = b;

	if (failure1->last_at != failure2->last_at)
		return failure1->last_at > failure2->last_at ? -1 : 1;
	return 0;
}
