/*-------------------------------------------------------------------------
 *
 * failure_table.c
 *	  Where failures are counted: a table that may be written in any state.
 *
 * A writer may be in a critical section, have no PGPROC, or be ended by a
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
 * The table has a region for each degree of trust, which drops what was longest
 * not seen, so that no crowd of strangers drives anything out of another.
 *
 * IDENTIFICATION
 *	  src/failures/failure_table.c
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include <netinet/in.h>

#include "port/atomics.h"
#include "portability/instr_time.h"
#include "storage/ipc.h"
#include "storage/lwlock.h"
#include "storage/shmem.h"
#include "utils/timestamp.h"

#include "failures/departures.h"
#include "failures/failure_table.h"
#include "failures/failure_tally.h"

#define FAILURES_NAME	"pg_replica_kit failures"

/* The regions of the table, in the order of PrkTrust. */
static const struct
{
	int			first;
	int			nentries;
}			regions[] = {
	{96, 32}, {64, 32}, {0, 64}, {0, 64}
};

#define NENTRIES		128

/* Whoever is still writing after this long, in microseconds, is dead. */
#define WRITING_TIME	(10 * USECS_PER_SEC)

/* For whoever is still writing, a reader waits so many milliseconds. */
#define WAITS			50

/*
 * Two attempts of libpq's for one connection, with TLS and without, are not
 * further apart than this, in microseconds.
 */
#define ONE_CONNECTION	(5 * USECS_PER_SEC)

/* In shared memory. */
typedef struct Entry
{
	pg_atomic_uint64 key;		/* hash of the id; 0: free */
	pg_atomic_uint64 count;
	pg_atomic_uint64 first_at;
	pg_atomic_uint64 last_at;
	pg_atomic_uint64 last_clock;	/* the same by now_by_clock() */
	pg_atomic_uint64 number;	/* in the order of events */
	pg_atomic_uint64 over;		/* up to this number it is mended */
	pg_atomic_uint64 kept_out;	/* the peer, if it was not let in; else 0 */
	pg_atomic_uint64 writing_since;
	pg_atomic_uint32 sequence;	/* odd while the rest is being written */
	PrkFailureId id;
	char		replica[NAMEDATALEN];
	PrkForeignWords message;
} Entry;

typedef struct SharedFailures
{
	pg_atomic_uint64 streaming; /* of our own receiver's last beginning */
	Entry		entries[NENTRIES];
} SharedFailures;

/* NULL where the library was not preloaded. */
static SharedFailures *shared = NULL;

static void start_entries(void);
static uint64 now_by_clock(void);
static bool is_kept_out(const PrkFailureId *id);
static bool begin_writing(Entry *entry, uint32 *sequence);
static void end_writing(Entry *entry, uint32 sequence);
static bool copy_entry(Entry *entry, Entry *copy);
static void convert(const Entry *entry, PrkTrust trust, PrkFailure *failure);
static void add_up(PrkFailure *first, const PrkFailure *failure);
static void join_attempts(PrkFailures *failures);
static bool is_refused_by_rule(const PrkFailure *failure);
static int	compare_failures(const void *a, const void *b);

/* For shmem_request_hook. */
void
prk_failures_shmem_request(void)
{
	RequestAddinShmemSpace(sizeof(SharedFailures));
	prk_failure_peers_shmem_request();
	prk_departures_shmem_request();
	prk_failure_tally_shmem_request();
}

/* For shmem_startup_hook; takes AddinShmemInitLock. */
void
prk_failures_shmem_startup(void)
{
	bool		found;

	LWLockAcquire(AddinShmemInitLock, LW_EXCLUSIVE);
	shared = ShmemInitStruct(FAILURES_NAME, sizeof(SharedFailures), &found);
	if (!found)
		start_entries();
	LWLockRelease(AddinShmemInitLock);
	prk_failure_peers_shmem_startup();
	prk_departures_shmem_startup();
	prk_failure_tally_shmem_startup();
}

/* Initializes the table, in the postmaster. */
static void
start_entries(void)
{
	memset(shared, 0, sizeof(SharedFailures));
	pg_atomic_init_u64(&shared->streaming, 0);
	for (int i = 0; i < NENTRIES; i++)
	{
		Entry	   *entry = &shared->entries[i];

		pg_atomic_init_u64(&entry->key, 0);
		pg_atomic_init_u64(&entry->count, 0);
		pg_atomic_init_u64(&entry->first_at, 0);
		pg_atomic_init_u64(&entry->last_at, 0);
		pg_atomic_init_u64(&entry->last_clock, 0);
		pg_atomic_init_u64(&entry->number, 0);
		pg_atomic_init_u64(&entry->over, 0);
		pg_atomic_init_u64(&entry->kept_out, 0);
		pg_atomic_init_u64(&entry->writing_since, 0);
		pg_atomic_init_u32(&entry->sequence, 0);
	}
}

/* Is there a table at all? */
bool
prk_failure_table_exists(void)
{
	return shared != NULL;
}

/* Notes that our own receiver streams from here on. */
void
prk_failure_table_streaming(void)
{
	pg_atomic_write_u64(&shared->streaming, prk_failures_next_number());
}

/*
 * Notes that this process, a walsender, has authenticated: what has kept its peer
 * out is over, however short it streams now.  Returns when, in the order of events.
 */
uint64
prk_failure_table_let_in(const PrkFailureId *id)
{
	uint64		number = prk_failure_peers_let_in(id);
	uint64		peer = prk_failure_hash_peer(id);

	for (int i = 0; i < NENTRIES; i++)
	{
		if (pg_atomic_read_u64(&shared->entries[i].kept_out) == peer)
			pg_atomic_write_u64(&shared->entries[i].over, number);
	}
	return number;
}

/*
 * Notes that it is over, unless more is.  A later one has a greater number, in any
 * entry.
 */
void
prk_failures_end(const PrkFailure *failure)
{
	for (int i = 0; shared != NULL && i < NENTRIES; i++)
	{
		Entry	   *entry = &shared->entries[i];
		uint64		over = pg_atomic_read_u64(&entry->over);

		if (pg_atomic_read_u64(&entry->key) != failure->key)
			continue;
		while (over < failure->number &&
			   !pg_atomic_compare_exchange_u64(&entry->over, &over,
											   failure->number))
			;
	}
}

/*
 * Counts the failure in its region of the table, in the entry that it has, or
 * in a free one, or in the one whose failure is the longest ago.
 */
void
prk_failure_table_note(const PrkFailureId *id, PrkTrust trust,
					   const char *replica, const PrkForeignWords *message)
{
	uint64		key = prk_failure_hash(id);
	uint64		now = (uint64) GetCurrentTimestamp();
	uint64		number = prk_failures_next_number();
	int			first = regions[trust].first;
	int			nentries = regions[trust].nentries;
	Entry	   *oldest = &shared->entries[first];
	uint32		sequence;

	prk_failure_tally_add(id->outgoing != 0, (int) id->sqlerrcode);
	for (int i = first; i < first + nentries; i++)
	{
		Entry	   *entry = &shared->entries[i];

		if (pg_atomic_read_u64(&entry->key) == key)
		{
			pg_atomic_fetch_add_u64(&entry->count, 1);
			pg_atomic_write_u64(&entry->last_at, now);
			pg_atomic_write_u64(&entry->last_clock, now_by_clock());
			pg_atomic_write_u64(&entry->number, number);
			if (begin_writing(entry, &sequence))
			{
				strncpy(entry->replica, replica, NAMEDATALEN - 1);
				entry->message = *message;
				end_writing(entry, sequence);
			}
			return;
		}
		if (pg_atomic_read_u64(&entry->number) <
			pg_atomic_read_u64(&oldest->number))
			oldest = entry;
	}

	/* Another process writes this entry: its failure is as good as ours. */
	if (!begin_writing(oldest, &sequence))
		return;
	pg_atomic_write_u64(&oldest->key, 0);
	oldest->id = *id;
	strncpy(oldest->replica, replica, NAMEDATALEN - 1);
	oldest->message = *message;
	pg_atomic_write_u64(&oldest->count, 1);
	pg_atomic_write_u64(&oldest->first_at, now);
	pg_atomic_write_u64(&oldest->last_at, now);
	pg_atomic_write_u64(&oldest->last_clock, now_by_clock());
	pg_atomic_write_u64(&oldest->number, number);
	pg_atomic_write_u64(&oldest->kept_out,
						is_kept_out(id) ? prk_failure_hash_peer(id) : 0);
	pg_atomic_write_u64(&oldest->key, key);
	end_writing(oldest, sequence);
}

/*
 * Did it come before the client was let in?  A role is looked up after that
 * (InitPostgres() in src/backend/utils/init/postinit.c).
 */
static bool
is_kept_out(const PrkFailureId *id)
{
	switch ((PrkFailureKind) id->kind)
	{
		case PRK_FAILURE_HBA_NO_ENTRY:
		case PRK_FAILURE_HBA_REJECTS:
		case PRK_FAILURE_AUTH_FAILED:
			return id->outgoing == 0;
		default:
			return false;
	}
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
	int			used = 0;
	Entry	   *copy;

	if (shared == NULL)
		return result;
	result->exist = true;
	for (int i = 0; i < NENTRIES; i++)
	{
		if (pg_atomic_read_u64(&shared->entries[i].key) != 0)
			used++;
	}
	if (used == 0)
		return result;

	/* Nearly all are free as a rule; those taken meanwhile are for next time. */
	result->failures = palloc0(used * sizeof(PrkFailure));
	copy = palloc(sizeof(Entry));

	for (int i = 0; i < NENTRIES && result->nfailures < used; i++)
	{
		PrkFailure *failure = &result->failures[result->nfailures];
		PrkTrust	trust = PRK_TRUST_STRANGER;
		int			same = 0;
		uint64		key;

		while (i < regions[trust].first)
			trust++;
		if (!copy_entry(&shared->entries[i], copy))
			continue;
		key = pg_atomic_read_u64(&copy->key);
		convert(copy, trust, failure);

		while (same < result->nfailures && keys[same] != key)
			same++;
		if (same < result->nfailures)
			add_up(&result->failures[same], failure);
		else
			keys[result->nfailures++] = key;
	}
	pfree(copy);

	qsort(result->failures, result->nfailures, sizeof(PrkFailure),
		  compare_failures);
	join_attempts(result);
	return result;
}

/* Adds the same failure, noted in another entry. */
static void
add_up(PrkFailure *first, const PrkFailure *failure)
{
	if (failure->number > first->number)
	{
		first->message = failure->message;
		first->last_at = failure->last_at;
		first->number = failure->number;
		first->age = failure->age;
		first->over = failure->over;
	}
	if (failure->trust > first->trust)
	{
		first->trust = failure->trust;
		memcpy(first->replica, failure->replica, NAMEDATALEN);
	}
	first->count += failure->count;
	first->first_at = Min(first->first_at, failure->first_at);
}

/*
 * With sslmode prefer or allow, libpq tries a connection twice, with TLS and
 * without.  Where rules let it come with TLS only (or without only), the other
 * attempt fails for that reason, which is none: the one that got further is
 * the failure.
 */
static void
join_attempts(PrkFailures *failures)
{
	int			kept = 0;

	for (int i = 0; i < failures->nfailures; i++)
	{
		const PrkFailure *failure = &failures->failures[i];
		bool		other = false;

		for (int j = 0; j < failures->nfailures && !other; j++)
		{
			const PrkFailure *further = &failures->failures[j];

			other = !failure->outgoing && !further->outgoing &&
				is_refused_by_rule(failure) && !is_refused_by_rule(further) &&
				further->kind != PRK_FAILURE_TOO_MANY &&
				further->ssl != failure->ssl &&
				further->age - failure->age < ONE_CONNECTION &&
				failure->age - further->age < ONE_CONNECTION &&
				further->peer == failure->peer;
		}
		if (!other)
			failures->failures[kept++] = *failure;
	}
	failures->nfailures = kept;
}

/* Did it get no further than to the rules of pg_hba.conf? */
static bool
is_refused_by_rule(const PrkFailure *failure)
{
	return failure->kind == PRK_FAILURE_HBA_NO_ENTRY ||
		failure->kind == PRK_FAILURE_HBA_REJECTS;
}

/* Microseconds of a clock that nobody sets. */
static uint64
now_by_clock(void)
{
	instr_time	now;

	INSTR_TIME_SET_CURRENT(now);
	return INSTR_TIME_GET_MICROSEC(now);
}

/*
 * Claims the entry.  Returns false, without waiting, if somebody else has it
 * and may be alive.
 */
static bool
begin_writing(Entry *entry, uint32 *sequence)
{
	uint64		now = now_by_clock();
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

/*
 * A whole copy of an entry; false if it is free or was never whole.  Waits for
 * a writer that has lost its processor, but for none that has died.
 */
static bool
copy_entry(Entry *entry, Entry *copy)
{
	for (int i = 0; i < 1000 + WAITS; i++)
	{
		uint32		before = pg_atomic_read_u32(&entry->sequence);

		if (before % 2 == 1)
		{
			if (i < 1000)
				continue;
			if (now_by_clock() - pg_atomic_read_u64(&entry->writing_since) >=
				WRITING_TIME)
				return false;
			pg_usleep(1000);
			continue;
		}
		pg_read_barrier();
		if (pg_atomic_read_u64(&entry->key) == 0)
			return false;
		memcpy(copy, entry, sizeof(Entry));
		pg_read_barrier();
		if (pg_atomic_read_u32(&entry->sequence) == before)
			return pg_atomic_read_u64(&copy->key) != 0;
	}
	return false;
}

/* What an entry says, for those who read. */
static void
convert(const Entry *entry, PrkTrust trust, PrkFailure *failure)
{
	const PrkFailureId *id = &entry->id;
	Entry	   *counters = unconstify(Entry *, entry);

	failure->first_at = (TimestampTz) pg_atomic_read_u64(&counters->first_at);
	failure->last_at = (TimestampTz) pg_atomic_read_u64(&counters->last_at);
	failure->count = (int64) pg_atomic_read_u64(&counters->count);
	failure->age = (int64) (now_by_clock() -
							pg_atomic_read_u64(&counters->last_clock));
	failure->number = pg_atomic_read_u64(&counters->number);
	failure->peer = prk_failure_hash_peer(id);
	failure->outgoing = id->outgoing != 0;
	failure->key = pg_atomic_read_u64(&counters->key);
	failure->over = failure->number <=
		pg_atomic_read_u64(failure->outgoing ? &shared->streaming :
						   &counters->over);
	failure->trust = failure->outgoing ? PRK_TRUST_OURS : trust;
	strlcpy(failure->replica, entry->replica, NAMEDATALEN);
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
	failure->role_name = id->role_name;
	failure->application_name = id->application_name;
	failure->slot_name = id->slot_name;
	failure->logical = id->logical != 0;
	failure->message = entry->message;
}

/* qsort comparator: the newest first */
static int
compare_failures(const void *a, const void *b)
{
	const PrkFailure *failure1 = a;
	const PrkFailure *failure2 = b;

	if (failure1->number != failure2->number)
		return failure1->number > failure2->number ? -1 : 1;
	return 0;
}
