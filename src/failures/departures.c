/*-------------------------------------------------------------------------
 *
 * departures.c
 *	  Replicas that were let in and left by themselves.
 *
 * A replica that follows another cluster or a timeline that ends before it, whose
 * disk is full, or whose subscription cannot apply a change, is let in, and
 * leaves; again and again, and this server has no word of it in its log.  So each
 * walsender notes, as it ends, that its client went.
 *
 * What that was is told by its last command, which the process has in its entry of
 * pg_stat_activity: START_REPLICATION, or what a WAL receiver asks before and
 * after.  (With track_activities off nothing is noted.)  A base backup comes with a
 * stream of its own, under the same name, and is no replica's.  Nor is who comes by
 * the replica's line with another program, to see whether it would be let in, nor
 * what ends with a semicolon: the replica's script asks so, in the replica's name.
 *
 * A client that has streamed for a while was there, even if the worker did not look:
 * what it did before is over.  For how long is told by when the last command began: a
 * replica that is told again and again that its timeline ends keeps its connection.
 *
 * The callback takes no lock, allocates nothing and raises nothing: there are only
 * atomics, as in failure_table.c.
 *
 * IDENTIFICATION
 *	  src/failures/departures.c
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "common/hashfn.h"
#include "libpq/libpq-be.h"
#include "miscadmin.h"
#include "port/atomics.h"
#include "portability/instr_time.h"
#include "replication/slot.h"
#include "replication/walsender.h"
#include "replication/walsender_private.h"
#include "storage/ipc.h"
#include "storage/lwlock.h"
#include "storage/shmem.h"
#include "utils/backend_status.h"
#include "utils/timestamp.h"

#include "failures/commands.h"
#include "failures/departures.h"
#include "settings.h"

#define DEPARTURES_NAME		"pg_replica_kit departures"

/* Keys of entries that nobody may read */
#define FREE				0
#define BEING_WRITTEN		2

typedef struct Entry
{
	pg_atomic_uint64 key;		/* of peer and replica, an odd number; or FREE
								 * or BEING_WRITTEN */
	pg_atomic_uint64 peer;
	pg_atomic_uint64 replica;
	pg_atomic_uint64 application;
	pg_atomic_uint64 rule;
	pg_atomic_uint64 number;
	pg_atomic_uint64 first;		/* the number of the first that counts */
	pg_atomic_uint64 clock;		/* when it left */
	pg_atomic_uint64 streamed;	/* it did until then */
	pg_atomic_uint64 asked;		/* for more than where this server is */
	pg_atomic_uint64 count;
} Entry;

/* count_entries() of them; NULL where the library was not preloaded. */
static Entry *shared = NULL;

/* Of this process, a walsender: who its client is, when and how it was let in. */
static PrkFailureId client;
static uint64 let_in = 0;
static uint64 application = 0;
static uint64 rule = 0;
static bool refused = false;

static int	count_entries(void);
static void note_departure(int code, Datum arg);
static uint64 find_replica(const char *command);
static bool is_other_program(bool by_slot);
static bool asked_at_once(void);
static bool streams(void);
static void count(uint64 replica, bool streamed, bool asked);
static Entry *find_entry(uint64 key, uint64 *found);
static void forget_backup(void);
static void forget(uint64 peer, uint64 since);
static uint64 now_by_clock(void);

/* For shmem_request_hook. */
void
prk_departures_shmem_request(void)
{
	RequestAddinShmemSpace(mul_size(count_entries(), sizeof(Entry)));
}

/* For shmem_startup_hook; takes AddinShmemInitLock. */
void
prk_departures_shmem_startup(void)
{
	bool		found;

	LWLockAcquire(AddinShmemInitLock, LW_EXCLUSIVE);
	shared = ShmemInitStruct(DEPARTURES_NAME,
							 mul_size(count_entries(), sizeof(Entry)), &found);
	for (int i = 0; i < count_entries() && !found; i++)
	{
		pg_atomic_init_u64(&shared[i].key, FREE);
		pg_atomic_init_u64(&shared[i].peer, 0);
		pg_atomic_init_u64(&shared[i].replica, 0);
		pg_atomic_init_u64(&shared[i].application, 0);
		pg_atomic_init_u64(&shared[i].rule, 0);
		pg_atomic_init_u64(&shared[i].number, 0);
		pg_atomic_init_u64(&shared[i].first, 0);
		pg_atomic_init_u64(&shared[i].clock, 0);
		pg_atomic_init_u64(&shared[i].streamed, 0);
		pg_atomic_init_u64(&shared[i].asked, 0);
		pg_atomic_init_u64(&shared[i].count, 0);
	}
	LWLockRelease(AddinShmemInitLock);
}

/* As many as there may be replicas, and some that are gone. */
static int
count_entries(void)
{
	return 2 * (max_replication_slots + max_wal_senders) + 32;
}

/*
 * This process, a walsender, has authenticated its client, by the line that names
 * this replica (""): what becomes of that is noted.
 */
void
prk_departures_let_in(const PrkFailureId *id, uint64 number,
					  const char *rule_of)
{
	const char *name = MyProcPort->application_name;

	if (shared == NULL)
		return;
	client = *id;
	let_in = number;
	application = name != NULL ? prk_departures_hash(name) : 0;
	rule = prk_departures_hash(rule_of);
	before_shmem_exit(note_departure, 0);
}

/* Why it goes is told by a failure of this server's. */
void
prk_departures_refused(void)
{
	refused = true;
}

/*
 * For before_shmem_exit, while slot and backend entry are still this process's.
 * The code is not 0 where this server has ended the connection (but for a timeout,
 * which is a failure, and a shutdown, after which there are no entries any more), or
 * has noticed while it sent something that nobody is there.
 */
static void
note_departure(int code, Datum arg)
{
	const char *command = MyBEEntry == NULL ? "" :
	(const char *) MyBEEntry->st_activity_raw;
	uint64		replica;

	if (prk_command_is(command, "BASE_BACKUP"))
	{
		forget_backup();
		return;
	}
	if ((code != 0 && !ClientConnectionLost) || refused ||
		prk_command_is_typed(command) || prk_failure_peers_excused(let_in) ||
		!(prk_command_is(command, "START_REPLICATION") ||
		  prk_command_is(command, "TIMELINE_HISTORY") ||
		  strcmp(command, PRK_RECEIVERS_QUESTION) == 0))
		return;
	replica = find_replica(command);
	if (is_other_program(replica != 0))
		return;
	if (streams() &&
		GetCurrentTimestamp() - MyBEEntry->st_activity_start_timestamp >= PRK_STAYS)
		prk_departures_stays(prk_failure_hash_peer(&client));
	else
		count(replica, streams() && asked_at_once(),
			  strcmp(command, PRK_RECEIVERS_QUESTION) != 0);
}

/* Hash of the replica whose slot it asked for, or as which it streamed; or 0. */
static uint64
find_replica(const char *command)
{
	char		name[NAMEDATALEN];
	bool		logical;

	if (MyReplicationSlot != NULL)
		return prk_departures_hash(NameStr(MyReplicationSlot->data.name));
	if (prk_command_slot(command, name, &logical))
		return prk_departures_hash(name);
	if (prk_failure_peers_seen_as(&client, name))
		return prk_departures_hash(name);
	return 0;
}

/*
 * Is it a program that is no replica, by the name that it goes by if nobody gives
 * it another?  Those that receive may have a slot of their own.
 */
static bool
is_other_program(bool by_slot)
{
	static const char *const programs[] = {
		"psql", "pg_basebackup", PRK_SCRIPT_NAME,
		"pg_receivewal", "pg_recvlogical"
	};
	const char *name = MyProcPort->application_name;

	for (int i = 0; name != NULL && i < (int) lengthof(programs); i++)
	{
		if (strcmp(name, programs[i]) == 0)
			return i < 3 || !by_slot;
	}
	return false;
}

/* Did it begin its last command soon after it came? */
static bool
asked_at_once(void)
{
	return MyBEEntry->st_activity_start_timestamp -
		MyBEEntry->st_proc_start_timestamp < PRK_STAYS;
}

/* Did this walsender stream until now, by its last command? */
static bool
streams(void)
{
	WalSndState state = MyWalSnd == NULL ? WALSNDSTATE_STARTUP :
	((volatile WalSnd *) MyWalSnd)->state;

	return state == WALSNDSTATE_CATCHUP || state == WALSNDSTATE_STREAMING ||
		state == WALSNDSTATE_STOPPING;
}

/*
 * Counts one more, in the entry that it has, or in a free one, or in the one that
 * is the longest ago.  Many may leave at once, and find the same entry: one of
 * them gets it, the others look again.
 */
static void
count(uint64 replica, bool streamed, bool asked)
{
	uint64		peer = prk_failure_hash_peer(&client);
	uint64		key = hash_combine64(peer, replica) | 1;

	for (int tries = 0; tries < count_entries(); tries++)
	{
		uint64		found;
		Entry	   *entry = find_entry(key, &found);

		if (entry == NULL)
			return;
		if (found == key)
		{
			pg_atomic_write_u64(&entry->number, let_in);
			pg_atomic_write_u64(&entry->clock, now_by_clock());
			pg_atomic_write_u64(&entry->streamed, streamed);
			pg_atomic_write_u64(&entry->asked, asked);
			if (pg_atomic_fetch_add_u64(&entry->count, 1) == 0)
				pg_atomic_write_u64(&entry->first, let_in);
			return;
		}
		if (!pg_atomic_compare_exchange_u64(&entry->key, &found,
											BEING_WRITTEN))
			continue;
		pg_atomic_write_u64(&entry->peer, peer);
		pg_atomic_write_u64(&entry->replica, replica);
		pg_atomic_write_u64(&entry->application, application);
		pg_atomic_write_u64(&entry->rule, rule);
		pg_atomic_write_u64(&entry->number, let_in);
		pg_atomic_write_u64(&entry->first, let_in);
		pg_atomic_write_u64(&entry->clock, now_by_clock());
		pg_atomic_write_u64(&entry->streamed, streamed);
		pg_atomic_write_u64(&entry->asked, asked);
		pg_atomic_write_u64(&entry->count, 1);
		pg_write_barrier();
		pg_atomic_write_u64(&entry->key, key);
		return;
	}
}

/*
 * The entry of this key, or the one that is to become it, with the key that was
 * found in it.  NULL: all are being written.
 */
static Entry *
find_entry(uint64 key, uint64 *found)
{
	Entry	   *oldest = NULL;
	uint64		oldest_number = 0;

	for (int i = 0; i < count_entries(); i++)
	{
		uint64		key_here = pg_atomic_read_u64(&shared[i].key);
		uint64		number = pg_atomic_read_u64(&shared[i].number);

		if (key_here == key)
		{
			*found = key;
			return &shared[i];
		}
		if (key_here != BEING_WRITTEN &&
			(oldest == NULL || number < oldest_number))
		{
			oldest = &shared[i];
			oldest_number = number;
			*found = key_here;
		}
	}
	return oldest;
}

/*
 * A base backup ends: the stream that it came with was let in after it, and its
 * client has left before.  Its walsender may be about to notice.
 */
static void
forget_backup(void)
{
	uint64		peer = prk_failure_hash_peer(&client);

	prk_failure_peers_excuse(peer, let_in + 1);
	forget(peer, let_in + 1);
}

/* The peer stays, or did until now: what it did before is over. */
void
prk_departures_stays(uint64 peer)
{
	if (shared != NULL && peer != 0)
		forget(peer, 0);
}

/* What this peer did when it was let in with this number or later is over. */
static void
forget(uint64 peer, uint64 since)
{
	for (int i = 0; i < count_entries(); i++)
	{
		if (pg_atomic_read_u64(&shared[i].peer) == peer &&
			pg_atomic_read_u64(&shared[i].number) >= since)
			pg_atomic_write_u64(&shared[i].count, 0);
	}
}

/* All that count, palloc'd.  Without preloading there are none. */
PrkDepartures *
prk_departures_read(void)
{
	PrkDepartures *result = palloc0(sizeof(PrkDepartures));
	uint64		now = now_by_clock();

	if (shared == NULL)
		return result;
	result->departures = palloc0(count_entries() * sizeof(PrkDeparture));
	for (int i = 0; i < count_entries(); i++)
	{
		Entry	   *entry = &shared[i];
		PrkDeparture *departure = &result->departures[result->ndepartures];
		uint64		key = pg_atomic_read_u64(&entry->key);

		if (key == FREE || key == BEING_WRITTEN)
			continue;
		pg_read_barrier();
		departure->replica = pg_atomic_read_u64(&entry->replica);
		departure->application = pg_atomic_read_u64(&entry->application);
		departure->rule = pg_atomic_read_u64(&entry->rule);
		departure->number = pg_atomic_read_u64(&entry->number);
		departure->first = pg_atomic_read_u64(&entry->first);
		departure->age = (int64) (now - pg_atomic_read_u64(&entry->clock));
		departure->streamed = pg_atomic_read_u64(&entry->streamed) != 0;
		departure->asked = pg_atomic_read_u64(&entry->asked) != 0;
		departure->count = (int64) pg_atomic_read_u64(&entry->count);
		pg_read_barrier();
		if (departure->count > 0 && pg_atomic_read_u64(&entry->key) == key)
			result->ndepartures++;
	}
	return result;
}

/* The hash under which a name stands in an entry; 0 for none. */
uint64
prk_departures_hash(const char *name)
{
	if (name[0] == '\0')
		return 0;
	return hash_bytes_extended((const unsigned char *) name,
							   (int) strlen(name), 0) | 1;
}

/* Microseconds of a clock that nobody sets. */
static uint64
now_by_clock(void)
{
	instr_time	now;

	INSTR_TIME_SET_CURRENT(now);
	return INSTR_TIME_GET_MICROSEC(now);
}
