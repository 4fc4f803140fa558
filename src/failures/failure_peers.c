/*-------------------------------------------------------------------------
 *
 * failure_peers.c
 *	  Peers that were let in or seen streaming, in the order of events.
 *
 * One counter orders events: each walsender that authenticates takes a number,
 * each failure, and the worker before it takes a sample.  The wall clock may be
 * set, and a replica's clock is its own.
 *
 * The hooks write here, where nothing may go wrong: there are only atomics, as in
 * failure_table.c.  (Those of 64 bits are lock-free wherever
 * PG_HAVE_ATOMIC_U64_SIMULATION is not defined, which is every platform that
 * servers run on.)
 *
 * IDENTIFICATION
 *	  src/failures/failure_peers.c
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "common/hashfn.h"
#include "miscadmin.h"
#include "port/atomics.h"
#include "replication/slot.h"
#include "replication/walsender.h"
#include "storage/ipc.h"
#include "storage/lwlock.h"
#include "storage/proc.h"
#include "storage/shmem.h"
#include "utils/timestamp.h"

#include "failures/failure_peers.h"

#define PEERS_NAME		"pg_replica_kit failures peers"

/* A walsender that was let in, at the place of its PGPROC. */
typedef struct Session
{
	pg_atomic_uint64 number;
	pg_atomic_uint64 peer;
	pg_atomic_uint64 excused;	/* the number of the session that may leave
								 * without being counted */
	pg_atomic_uint32 pid;		/* 0 while the rest is being written */
} Session;

/* A peer that streamed; the worker is the only one to write. */
typedef struct Seen
{
	pg_atomic_uint64 peer;		/* 0: free */
	pg_atomic_uint32 sequence;	/* odd while the name is being written */
	bool		by_slot;
	char		replica[NAMEDATALEN];
} Seen;

typedef struct SharedPeers
{
	uint64		seed;			/* of all hashes; set once, at startup */
	pg_atomic_uint64 number;	/* the last one taken */
	uint32		next_seen;		/* the worker's */
} SharedPeers;

/* NULL where the library was not preloaded. */
static SharedPeers *shared = NULL;
static Session *sessions = NULL;	/* count_sessions() of them */
static Seen *seen = NULL;		/* count_seen() of them */

static int	count_sessions(void);
static int	count_seen(void);
static void start_peers(void);
static bool copy_seen(Seen *entry, uint64 peer, char *replica);

/* For shmem_request_hook. */
void
prk_failure_peers_shmem_request(void)
{
	RequestAddinShmemSpace(sizeof(SharedPeers));
	RequestAddinShmemSpace(mul_size(count_sessions(), sizeof(Session)));
	RequestAddinShmemSpace(mul_size(count_seen(), sizeof(Seen)));
}

/* For shmem_startup_hook; takes AddinShmemInitLock. */
void
prk_failure_peers_shmem_startup(void)
{
	bool		found;

	LWLockAcquire(AddinShmemInitLock, LW_EXCLUSIVE);
	sessions = ShmemInitStruct(PEERS_NAME " sessions",
							   mul_size(count_sessions(), sizeof(Session)),
							   &found);
	seen = ShmemInitStruct(PEERS_NAME " seen",
						   mul_size(count_seen(), sizeof(Seen)), &found);
	shared = ShmemInitStruct(PEERS_NAME, sizeof(SharedPeers), &found);
	if (!found)
		start_peers();
	LWLockRelease(AddinShmemInitLock);
}

/* Initializes all, in the postmaster. */
static void
start_peers(void)
{
	memset(shared, 0, sizeof(SharedPeers));
	if (!pg_strong_random(&shared->seed, sizeof(shared->seed)))
		shared->seed = (uint64) GetCurrentTimestamp();
	pg_atomic_init_u64(&shared->number, 0);
	for (int i = 0; i < count_sessions(); i++)
	{
		pg_atomic_init_u64(&sessions[i].number, 0);
		pg_atomic_init_u64(&sessions[i].peer, 0);
		pg_atomic_init_u64(&sessions[i].excused, 0);
		pg_atomic_init_u32(&sessions[i].pid, 0);
	}
	for (int i = 0; i < count_seen(); i++)
	{
		memset(&seen[i], 0, sizeof(Seen));
		pg_atomic_init_u64(&seen[i].peer, 0);
		pg_atomic_init_u32(&seen[i].sequence, 0);
	}
}

/* As many as there are PGPROCs that a walsender may have. */
static int
count_sessions(void)
{
	return MaxBackends;
}

/* As many as there may be replicas, and some that are gone. */
static int
count_seen(void)
{
	return 2 * (max_replication_slots + max_wal_senders) + 32;
}

/* A number in the order of events, greater than all before; 0: no table. */
uint64
prk_failures_next_number(void)
{
	return shared == NULL ? 0 :
		pg_atomic_fetch_add_u64(&shared->number, 1) + 1;
}

/*
 * Notes that this process, a walsender, has authenticated; returns when, in the
 * order of events.
 */
uint64
prk_failure_peers_let_in(const PrkFailureId *id)
{
	int			place = MyProc == NULL ? -1 :
	(int) (MyProc - ProcGlobal->allProcs);
	uint64		number = prk_failures_next_number();
	Session    *session;

	if (place < 0 || place >= count_sessions())
		return number;
	session = &sessions[place];
	pg_atomic_write_u32(&session->pid, 0);
	pg_write_barrier();
	pg_atomic_write_u64(&session->number, number);
	pg_atomic_write_u64(&session->peer, prk_failure_hash_peer(id));
	pg_write_barrier();
	pg_atomic_write_u32(&session->pid, (uint32) MyProcPid);
	return number;
}

/*
 * What is known of the walsender that is this process and still runs.  An
 * earlier process may have had its pid: the later one counts.
 */
PrkSession
prk_failures_session(int pid)
{
	PrkSession	result = {0};

	for (int i = 0; shared != NULL && i < count_sessions(); i++)
	{
		Session    *session = &sessions[i];
		PrkSession	copy;

		if (pg_atomic_read_u32(&session->pid) != (uint32) pid)
			continue;
		pg_read_barrier();
		copy.number = pg_atomic_read_u64(&session->number);
		copy.peer = pg_atomic_read_u64(&session->peer);
		pg_read_barrier();
		if (pg_atomic_read_u32(&session->pid) == (uint32) pid &&
			copy.number > result.number)
			result = copy;
	}
	return result;
}

/*
 * The sessions of this peer that have begun, the first with this number, may leave
 * without being counted.  Session numbers are never used twice, so a later session
 * in the same place is not excused.
 */
void
prk_failure_peers_excuse(uint64 peer, uint64 first)
{
	for (int i = 0; shared != NULL && i < count_sessions(); i++)
	{
		Session    *session = &sessions[i];
		uint64		number = pg_atomic_read_u64(&session->number);

		if (number >= first &&
			pg_atomic_read_u64(&session->peer) == peer)
			pg_atomic_write_u64(&session->excused, number);
	}
}

/* May this process, a walsender that was let in with this number, leave so? */
bool
prk_failure_peers_excused(uint64 number)
{
	int			place = MyProc == NULL ? -1 :
	(int) (MyProc - ProcGlobal->allProcs);

	return place >= 0 && place < count_sessions() &&
		pg_atomic_read_u64(&sessions[place].excused) == number;
}

/*
 * Notes that a peer was seen streaming as this replica.  A replica with a slot
 * is where it streamed last, and nowhere else.
 */
void
prk_failures_seen(uint64 peer, const char *replica, bool by_slot)
{
	Seen	   *entry = NULL;

	if (shared == NULL || peer == 0)
		return;
	for (int i = 0; i < count_seen(); i++)
	{
		if (strcmp(seen[i].replica, replica) != 0 ||
			seen[i].by_slot != by_slot)
			continue;
		if (pg_atomic_read_u64(&seen[i].peer) == peer)
			return;
		if (by_slot)
			entry = &seen[i];
	}
	if (entry == NULL)
		entry = &seen[shared->next_seen++ % count_seen()];

	/* What a worker that died left odd stays so until this is done. */
	pg_atomic_write_u32(&entry->sequence,
						pg_atomic_read_u32(&entry->sequence) | 1);
	pg_write_barrier();
	pg_atomic_write_u64(&entry->peer, peer);
	entry->by_slot = by_slot;
	memset(entry->replica, 0, NAMEDATALEN);
	strlcpy(entry->replica, replica, NAMEDATALEN);
	pg_write_barrier();
	pg_atomic_write_u32(&entry->sequence,
						pg_atomic_read_u32(&entry->sequence) + 1);
}

/*
 * Was this role, application and address seen streaming, and as which replica?
 * "" in replica: as more than one.
 */
bool
prk_failure_peers_seen_as(const PrkFailureId *id, char *replica)
{
	uint64		peer = prk_failure_hash_peer(id);
	bool		found = false;

	replica[0] = '\0';
	for (int i = 0; i < count_seen(); i++)
	{
		char		name[NAMEDATALEN];

		if (!copy_seen(&seen[i], peer, name))
			continue;
		if (found && strcmp(name, replica) != 0)
		{
			replica[0] = '\0';
			return true;
		}
		memcpy(replica, name, NAMEDATALEN);
		found = true;
	}
	return found;
}

/* The name in an entry, if it is that peer's and not being written. */
static bool
copy_seen(Seen *entry, uint64 peer, char *replica)
{
	uint32		before = pg_atomic_read_u32(&entry->sequence);

	if (before % 2 == 1)
		return false;
	pg_read_barrier();
	if (pg_atomic_read_u64(&entry->peer) != peer)
		return false;
	memcpy(replica, entry->replica, NAMEDATALEN);
	pg_read_barrier();
	return pg_atomic_read_u32(&entry->sequence) == before;
}

/*
 * Of the whole id, or of its peer: role, application and address.  Never zero.
 */
uint64
prk_failure_hash(const PrkFailureId *id)
{
	return hash_bytes_extended((const unsigned char *) id,
							   sizeof(PrkFailureId), shared->seed) | 1;
}

uint64
prk_failure_hash_peer(const PrkFailureId *id)
{
	PrkFailureId peer;

	memset(&peer, 0, sizeof(peer));
	peer.family = id->family;
	memcpy(peer.addr, id->addr, sizeof(peer.addr));
	peer.role_name = id->role_name;
	peer.application_name = id->application_name;
	return prk_failure_hash(&peer);
}
