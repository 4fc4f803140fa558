/*-------------------------------------------------------------------------
 *
 * sample.c
 *	  One consistent picture of the replication slots and walsenders.
 *
 * A sample is read from shared memory alone: no snapshot, no catalog, no
 * transaction.  It can be taken by a process that is connected to no
 * database, on a primary and on a standby.
 *
 * Locks: ReplicationSlotControlLock, shared, while the slots are copied; the
 * spinlock of each slot and walsender while that one is copied.  Nothing is
 * computed or allocated under them.
 *
 * Slots and walsenders cannot be read in one instant.  The order makes up for
 * it: walsenders first, then the slots, then again those walsenders that a
 * slot names and that were not there before; a walsender without a slot
 * counts only if it is still there afterwards.  The current position is read
 * last, so that no replica is ahead of it.
 *
 * IDENTIFICATION
 *	  src/sample/sample.c
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/xlog.h"
#include "access/xlogrecovery.h"
#include "replication/slot.h"
#include "replication/syncrep.h"
#include "replication/walreceiver.h"
#include "replication/walsender.h"
#include "replication/walsender_private.h"
#include "storage/lwlock.h"
#include "storage/spin.h"
#include "utils/timestamp.h"

#include "compat.h"
#include "kept.h"
#include "sample/backends.h"
#include "sample/backups.h"
#include "sample/derive.h"
#include "sample/sample.h"

/* The memory of a sample, and of its making. */
typedef struct Room
{
	MemoryContext context;
	PrkSample	sample;
	PrkKept		replicas;
	PrkKept		places;			/* of their slots */
	PrkKept		senders;
	PrkKept		backends;
	PrkKept		hints;
} Room;

struct PrkSampleCache
{
	Room		room;

	/* where backend entries were last time; -1 unknown */
	int		   *slot_hints;		/* by slot, of the process that holds it */
	int		   *walsnd_hints;	/* by place in WalSndCtl->walsnds */
};

/* One walsender, copied. */
typedef struct Sender
{
	int			place;			/* in WalSndCtl->walsnds */
	int			pid;
	bool		taken;			/* its replica has been made */
	WalSndState state;
	XLogRecPtr	sent;
	XLogRecPtr	write;
	XLogRecPtr	flush;
	XLogRecPtr	apply;
	TimeOffset	write_lag;
	TimeOffset	flush_lag;
	TimeOffset	apply_lag;
	int			priority;
	TimestampTz reply_time;
} Sender;

/* What a sample is made of, until it is finished. */
typedef struct Draft
{
	PrkSample  *sample;
	PrkSampleCache *cache;		/* NULL: none */
	Room	   *room;
	int			max_replicas;	/* that there is room for now */
	int			nactive;		/* slots that a process holds */
	Sender	   *senders;		/* the first nsorted of them by pid */
	int			max_senders;
	int			nsenders;
	int			nsorted;
	SyncRepStandbyData *sync;	/* candidates for synchronous standbys */
	int			nsync;
	PrkBackend *backends;		/* of replicas that have a process */
	int		  **hints;			/* where to note each backend's place; NULL */
	int			nbackends;
} Draft;

static void make_room(Draft *draft, int nreplicas);
static void read_senders(Draft *draft);
static bool read_sender(int place, Sender *sender);
static Sender *find_sender(Draft *draft, int pid);
static int	compare_senders(const void *a, const void *b);
static void read_slots(Draft *draft);
static int	copy_slots(Draft *draft, int *places);
static void copy_slot(const ReplicationSlot *slot, PrkReplica *replica);
static void add_senders(Draft *draft);
static void copy_sender(Draft *draft, Sender *sender, PrkReplica *replica);
static const char *sync_state(Draft *draft, const Sender *sender);
static void want_backend(Draft *draft, int pid, int *hint);
static void add_backends(Draft *draft);
static void read_position(PrkSample *sample);

/*
 * May a sample be taken now?
 *
 * Not during crash recovery: the slots are not loaded yet, and a primary
 * would look like a standby (StartupXLOG).  Cheap.
 */
bool
prk_sample_possible(void)
{
	return GetRecoveryState() != RECOVERY_STATE_CRASH;
}

/*
 * A cache for one process that samples again and again, in a context that
 * lives as long.
 */
PrkSampleCache *
prk_sample_cache_create(MemoryContext context)
{
	PrkSampleCache *cache;

	cache = MemoryContextAllocZero(context, sizeof(PrkSampleCache));
	cache->room.context = context;
	cache->slot_hints =
		MemoryContextAlloc(context, sizeof(int) * (prk_compat_slots() + 1));
	cache->walsnd_hints =
		MemoryContextAlloc(context, sizeof(int) * (max_wal_senders + 1));

	/* All bits set: -1. */
	memset(cache->slot_hints, 0xff, sizeof(int) * prk_compat_slots());
	memset(cache->walsnd_hints, 0xff, sizeof(int) * max_wal_senders);
	return cache;
}

/*
 * Take a sample.
 *
 * Without a cache the result, with all it points to, is palloc'd in the
 * current memory context, and the backend entries are looked for afresh.  With
 * one it belongs to the cache and is valid until the next sample with that.
 * The caller has made sure that prk_sample_possible().  No error is raised but
 * for lack of memory.
 */
PrkSample *
prk_sample_take(PrkSampleCache *cache)
{
	Draft		draft = {0};
	PrkSample  *sample;

	if (cache != NULL)
		draft.room = &cache->room;
	else
	{
		draft.room = palloc0(sizeof(Room));
		draft.room->context = CurrentMemoryContext;
	}
	sample = &draft.room->sample;
	memset(sample, 0, sizeof(PrkSample));
	draft.sample = sample;
	draft.cache = cache;

	draft.nsync = SyncRepGetCandidateStandbys(&draft.sync);
	read_senders(&draft);
	read_slots(&draft);
	add_senders(&draft);
	add_backends(&draft);
	read_position(sample);

	prk_backups_merge(sample);
	prk_derive_all(sample);

	pfree(draft.sync);
	return sample;
}

/*
 * Is there anybody at the other end?  A process that holds an invalidated slot
 * and is no walsender is about to release it: the checkpointer, for a moment.
 */
bool
prk_sample_in_use(const PrkReplica *replica)
{
	return replica->has_walsender ||
		(replica->pid != 0 && replica->invalidation == NULL);
}

/*
 * Is this the slot of a logical replication worker that copies one table?
 * It is dropped when the copy is done (ReplicationSlotNameForTablesync() in
 * src/backend/replication/logical/tablesync.c).
 */
bool
prk_sample_is_tablesync(const PrkReplica *replica)
{
	unsigned int subscription;
	unsigned int table;
	uint64		system;

	return replica->logical &&
		sscanf(replica->slot_name, "pg_%u_sync_%u_" UINT64_FORMAT,
			   &subscription, &table, &system) == 3;
}

/* The word that status() shows. */
const char *
prk_state_name(PrkState state)
{
	switch (state)
	{
		case PRK_STATE_STREAMING:
			return "streaming";
		case PRK_STATE_CATCHUP:
			return "catchup";
		case PRK_STATE_BACKUP:
			return "backup";
		case PRK_STATE_STARTUP:
			return "startup";
		case PRK_STATE_STOPPING:
			return "stopping";
		case PRK_STATE_DISCONNECTED:
			return "disconnected";
		case PRK_STATE_NEVER_CONNECTED:
			return "never connected";
		case PRK_STATE_LOST:
			return "lost";
	}
	pg_unreachable();
}

/* The word that pg_replication_slots shows, or NULL. */
const char *
prk_wal_status_name(PrkWalStatus status)
{
	switch (status)
	{
		case PRK_WAL_NONE:
			return NULL;
		case PRK_WAL_RESERVED:
			return "reserved";
		case PRK_WAL_EXTENDED:
			return "extended";
		case PRK_WAL_UNRESERVED:
			return "unreserved";
		case PRK_WAL_LOST:
			return "lost";
	}
	pg_unreachable();
}

/*
 * Reading shared memory
 */

/* Room for so many replicas; those that there are stay. */
static void
make_room(Draft *draft, int nreplicas)
{
	Room	   *room = draft->room;

	draft->sample->replicas = prk_kept_reserve(&room->replicas, room->context,
											   nreplicas * sizeof(PrkReplica));
	draft->max_replicas = room->replicas.size / sizeof(PrkReplica);
}

/* Copy all walsenders. */
static void
read_senders(Draft *draft)
{
	Room	   *room = draft->room;

	/* Others may take the places of those that are gone meanwhile. */
	draft->max_senders = 2 * max_wal_senders + 1;
	draft->senders = prk_kept_reserve(&room->senders, room->context,
									  draft->max_senders * sizeof(Sender));

	for (int i = 0; i < max_wal_senders; i++)
	{
		if (read_sender(i, &draft->senders[draft->nsenders]))
			draft->nsenders++;
	}
	qsort(draft->senders, draft->nsenders, sizeof(Sender), compare_senders);
	draft->nsorted = draft->nsenders;
}

/* qsort and bsearch comparator: by pid */
static int
compare_senders(const void *a, const void *b)
{
	int			pid_a = ((const Sender *) a)->pid;
	int			pid_b = ((const Sender *) b)->pid;

	return (pid_a > pid_b) - (pid_a < pid_b);
}

/* Copy the walsender at a place; false if there is none. */
static bool
read_sender(int place, Sender *sender)
{
	WalSnd	   *walsnd = &WalSndCtl->walsnds[place];

	SpinLockAcquire(&walsnd->mutex);
	sender->pid = walsnd->pid;
	sender->state = walsnd->state;
	sender->sent = walsnd->sentPtr;
	sender->write = walsnd->write;
	sender->flush = walsnd->flush;
	sender->apply = walsnd->apply;
	sender->write_lag = walsnd->writeLag;
	sender->flush_lag = walsnd->flushLag;
	sender->apply_lag = walsnd->applyLag;
	sender->priority = walsnd->sync_standby_priority;
	sender->reply_time = walsnd->replyTime;
	SpinLockRelease(&walsnd->mutex);

	sender->place = place;
	sender->taken = false;
	return sender->pid != 0;
}

/*
 * The walsender that is this process, or NULL.  One that was not there when
 * the walsenders were read is looked for again: it has a slot, so it matters.
 */
static Sender *
find_sender(Draft *draft, int pid)
{
	Sender		key = {.pid = pid};
	Sender	   *found = bsearch(&key, draft->senders, draft->nsorted,
								sizeof(Sender), compare_senders);

	if (found != NULL)
		return found;
	for (int i = draft->nsorted; i < draft->nsenders; i++)
	{
		if (draft->senders[i].pid == pid)
			return &draft->senders[i];
	}

	/* Whose place it has is gone, and add_senders() will notice. */
	for (int i = 0; i < max_wal_senders; i++)
	{
		Sender		sender;

		if (!read_sender(i, &sender) || sender.pid != pid)
			continue;
		if (draft->nsenders == draft->max_senders)
			break;
		found = &draft->senders[draft->nsenders++];
		*found = sender;
		return found;
	}
	return NULL;
}

/* Make a replica of each slot, with its walsender if there is one. */
static void
read_slots(Draft *draft)
{
	PrkSample  *sample = draft->sample;
	Room	   *room = draft->room;
	int		   *places = NULL;
	int			nslots = 0;
	int			max_backends;

	/* Nothing is allocated under the lock: what does not fit is tried again. */
	make_room(draft, draft->nsenders + 1);
	do
	{
		if (nslots > draft->max_replicas)
			make_room(draft, nslots + draft->nsenders);
		places = prk_kept_reserve(&room->places, room->context,
								  draft->max_replicas * sizeof(int));

		/* no slot is allowed */
		if (ReplicationSlotCtl == NULL)
			break;
		nslots = copy_slots(draft, places);
	} while (nslots > draft->max_replicas);

	/* Of a slot that is held, and of each walsender that serves none. */
	max_backends = draft->nactive + draft->nsenders;
	draft->backends = prk_kept_reserve(&room->backends, room->context,
									   max_backends * sizeof(PrkBackend));
	draft->hints = prk_kept_reserve(&room->hints, room->context,
									max_backends * sizeof(int *));

	for (int i = 0; i < sample->nreplicas; i++)
	{
		PrkReplica *replica = &sample->replicas[i];
		Sender	   *sender;

		if (replica->pid == 0)
			continue;

		want_backend(draft, replica->pid, draft->cache == NULL ? NULL :
					 &draft->cache->slot_hints[places[i]]);
		sender = find_sender(draft, replica->pid);
		if (sender != NULL)
			copy_sender(draft, sender, replica);
	}
}

/*
 * Copy those slots that there is room for, and their places.  Returns how
 * many there are.
 */
static int
copy_slots(Draft *draft, int *places)
{
	PrkSample  *sample = draft->sample;
	int			nslots = 0;

	sample->nreplicas = 0;
	draft->nactive = 0;
	LWLockAcquire(ReplicationSlotControlLock, LW_SHARED);
	for (int i = 0; i < prk_compat_slots(); i++)
	{
		ReplicationSlot *slot = &ReplicationSlotCtl->replication_slots[i];
		ReplicationSlot copy;

		if (!slot->in_use)
			continue;
		if (++nslots > draft->max_replicas)
			continue;

		SpinLockAcquire(&slot->mutex);
		copy = *slot;
		SpinLockRelease(&slot->mutex);

		copy_slot(&copy, &sample->replicas[sample->nreplicas]);
		if (prk_compat_slot_pid(&copy) != 0)
			draft->nactive++;
		places[sample->nreplicas] = i;
		sample->nreplicas++;
	}
	LWLockRelease(ReplicationSlotControlLock);
	return nslots;
}

/* A replica from a copied slot. */
static void
copy_slot(const ReplicationSlot *slot, PrkReplica *replica)
{
	memset(replica, 0, sizeof(PrkReplica));
	strlcpy(replica->name, NameStr(slot->data.name), NAMEDATALEN);
	strlcpy(replica->slot_name, NameStr(slot->data.name), NAMEDATALEN);
	replica->has_slot = true;
	replica->logical = SlotIsLogical(slot);
	replica->temporary = slot->data.persistency == RS_TEMPORARY;
	replica->synced = prk_compat_slot_synced(slot);
	replica->failover = prk_compat_slot_failover(slot);
	replica->sync_skipped = prk_compat_slot_sync_skipped(slot);
	replica->invalidation = prk_compat_slot_invalidation(slot);
	replica->restart_lsn = slot->data.restart_lsn;
	replica->confirmed_flush_lsn = slot->data.confirmed_flush;
	replica->xmin = slot->data.xmin;
	replica->catalog_xmin = slot->data.catalog_xmin;
	replica->inactive_since = prk_compat_slot_inactive_since(slot);
	replica->pid = prk_compat_slot_pid(slot);
	replica->write_lag = -1;
	replica->flush_lag = -1;
	replica->replay_lag = -1;
	replica->backup_total = -1;
}

/* Make a replica of each walsender that serves no slot. */
static void
add_senders(Draft *draft)
{
	PrkSample  *sample = draft->sample;

	if (sample->nreplicas + draft->nsenders > draft->max_replicas)
		make_room(draft, sample->nreplicas + draft->nsenders);
	for (int i = 0; i < draft->nsenders; i++)
	{
		Sender	   *sender = &draft->senders[i];
		Sender		again;
		PrkReplica *replica;

		if (sender->taken)
			continue;

		/*
		 * It may have released its slot and ended since.  A replica without
		 * slot that goes just now is not missed before the next sample.
		 */
		if (!read_sender(sender->place, &again) || again.pid != sender->pid)
			continue;

		replica = &sample->replicas[sample->nreplicas++];
		memset(replica, 0, sizeof(PrkReplica));
		replica->backup_total = -1;
		replica->pid = sender->pid;
		want_backend(draft, sender->pid, draft->cache == NULL ? NULL :
					 &draft->cache->walsnd_hints[sender->place]);
		copy_sender(draft, sender, replica);
	}
}

/* What a walsender says of its replica. */
static void
copy_sender(Draft *draft, Sender *sender, PrkReplica *replica)
{
	sender->taken = true;
	replica->has_walsender = true;
	replica->sent_lsn = sender->sent;
	replica->write_lsn = sender->write;
	replica->flush_lsn = sender->flush;
	replica->replay_lsn = sender->apply;
	replica->write_lag = sender->write_lag < 0 ? -1 : sender->write_lag;
	replica->flush_lag = sender->flush_lag < 0 ? -1 : sender->flush_lag;
	replica->replay_lag = sender->apply_lag < 0 ? -1 : sender->apply_lag;
	replica->sync_state = sync_state(draft, sender);
	replica->reply_time = sender->reply_time;

	switch (sender->state)
	{
		case WALSNDSTATE_STARTUP:
			replica->state = PRK_STATE_STARTUP;
			break;
		case WALSNDSTATE_BACKUP:
			replica->state = PRK_STATE_BACKUP;
			break;
		case WALSNDSTATE_CATCHUP:
			replica->state = PRK_STATE_CATCHUP;
			break;
		case WALSNDSTATE_STREAMING:
			replica->state = PRK_STATE_STREAMING;
			break;
		case WALSNDSTATE_STOPPING:
			replica->state = PRK_STATE_STOPPING;
			break;
	}
}

/* sync_state by the rules of pg_stat_get_wal_senders(). */
static const char *
sync_state(Draft *draft, const Sender *sender)
{
	if (sender->priority == 0 || XLogRecPtrIsInvalid(sender->flush))
		return "async";

	for (int i = 0; i < draft->nsync; i++)
	{
		if (draft->sync[i].walsnd_index == sender->place &&
			draft->sync[i].pid == sender->pid)
			return SyncRepConfig->syncrep_method == SYNC_REP_PRIORITY ?
				"sync" : "quorum";
	}
	return "potential";
}

/* Ask for a process's backend entry, and note where it is for next time. */
static void
want_backend(Draft *draft, int pid, int *hint)
{
	PrkBackend *backend = &draft->backends[draft->nbackends];

	memset(backend, 0, sizeof(PrkBackend));
	backend->pid = pid;
	backend->hint = hint == NULL ? -1 : *hint;
	draft->hints[draft->nbackends] = hint;
	draft->nbackends++;
}

/* Read the backend entries that were asked for into their replicas. */
static void
add_backends(Draft *draft)
{
	PrkSample  *sample = draft->sample;
	int			next = 0;

	if (draft->nbackends > 0)
		prk_backends_read(draft->backends, draft->nbackends);

	/* They were asked for in the replicas' order. */
	for (int i = 0; i < sample->nreplicas; i++)
	{
		PrkReplica *replica = &sample->replicas[i];
		PrkBackend *backend = &draft->backends[next];

		if (replica->pid != 0)
		{
			if (draft->hints[next] != NULL)
				*draft->hints[next] = backend->hint;
			next++;
		}

		if (replica->pid != 0 && backend->hint >= 0)
		{
			replica->userid = backend->userid;
			strlcpy(replica->application_name, backend->application_name,
					NAMEDATALEN);
			replica->has_client_addr = backend->has_client_addr;
			replica->client_addr = backend->client_addr;
			replica->backend_start = backend->start;
			strlcpy(replica->command, backend->command, PRK_COMMAND_LEN);
			replica->backup_phase = backend->backup_phase;
			replica->backup_total = backend->backup_total;
			replica->backup_incremental = backend->backup_incremental;
			replica->backup_streamed = backend->backup_streamed;
		}

		/* As log_line_prefix shows it where there is no application name. */
		if (!replica->has_slot)
			strlcpy(replica->name,
					replica->application_name[0] != '\0' ?
					replica->application_name : "[unknown]",
					NAMEDATALEN);
	}

	Assert(next == draft->nbackends);
}

/*
 * Where this server is.  On a standby that is the greater of what was
 * received and what was replayed, as when restartpoints remove WAL
 * (CreateRestartPoint): the write position is 0 there.
 */
static void
read_position(PrkSample *sample)
{
	sample->in_recovery = RecoveryInProgress();
	if (sample->in_recovery)
	{
		sample->received_lsn = GetWalRcvFlushRecPtr(NULL, NULL);
		sample->replayed_lsn = GetXLogReplayRecPtr(NULL);
		sample->current_lsn = Max(sample->received_lsn, sample->replayed_lsn);
	}
	else
		sample->current_lsn = GetXLogWriteRecPtr();
	sample->slot_keep_limit = max_slot_wal_keep_size_mb < 0 ? -1 :
		(int64) max_slot_wal_keep_size_mb * 1024 * 1024;
	sample->slot_idle_limit = prk_compat_slot_idle_limit();
	sample->taken_at = GetCurrentTimestamp();
}
