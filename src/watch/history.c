/*-------------------------------------------------------------------------
 *
 * history.c
 *	  What the worker has sampled, for a day or so.
 *
 * A ring of rows in shared memory, of replica_kit.history_samples rows for all
 * replicas together: the more there are, the less far it reaches back.  It is
 * there when the library is preloaded and the setting is not 0.
 *
 * A row is small, since there are many: it has the number of a name instead
 * of the name.  The names are in a table with a count of the rows that bear
 * them; a name whose rows are all overwritten makes room for another.  There
 * is room for twice as many names as there can be replicas at a time; should
 * more come and go, the rows of the newest are not kept.
 *
 * The worker alone writes, once a cycle; readers copy the rows they want.  One
 * lightweight lock protects all of it.  Nothing under the lock allocates,
 * waits or raises.
 *
 * IDENTIFICATION
 *	  src/watch/history.c
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "replication/slot.h"
#include "replication/walsender.h"
#include "storage/ipc.h"
#include "storage/lwlock.h"
#include "storage/shmem.h"

#include "compat.h"
#include "watch/history.h"

#define HISTORY_NAME	"pg_replica_kit history"

typedef struct StoredRow
{
	TimestampTz sampled_at;
	int64		lag_bytes;
	int64		lag_time;
	int64		retained_bytes;
	int32		name;			/* in the table of names */
	int32		state;			/* a PrkState */
} StoredRow;

typedef struct StoredName
{
	int64		nrows;			/* how many bear it; 0: free */
	char		name[NAMEDATALEN];
} StoredName;

/* In shared memory; all of it is protected by lock. */
typedef struct SharedHistory
{
	LWLock	   *lock;			/* set once, at startup */
	int			next;			/* where the next row goes */
	int			nrows;			/* how many there are before it */
	StoredRow	rows[FLEXIBLE_ARRAY_MEMBER];	/* then the names */
} SharedHistory;

/* NULL where the library was not preloaded, or nothing is to be kept. */
static SharedHistory *shared = NULL;
static StoredName *names = NULL;

/* So many names are kept: of today's replicas, and as many that have gone. */
static int
max_names(void)
{
	return 2 * (prk_compat_slots() + max_wal_senders);
}

/* Where the names begin, behind the rows. */
static Size
names_offset(void)
{
	return MAXALIGN(add_size(offsetof(SharedHistory, rows),
							 mul_size(prk_history_samples,
									  sizeof(StoredRow))));
}

/* Bytes of shared memory. */
static Size
history_size(void)
{
	return add_size(names_offset(), mul_size(max_names(), sizeof(StoredName)));
}

/* For shmem_request_hook. */
void
prk_history_shmem_request(void)
{
	if (prk_history_samples == 0)
		return;
	RequestAddinShmemSpace(history_size());
	RequestNamedLWLockTranche(HISTORY_NAME, 1);
}

/* For shmem_startup_hook; takes AddinShmemInitLock. */
void
prk_history_shmem_startup(void)
{
	bool		found;

	if (prk_history_samples == 0)
		return;
	LWLockAcquire(AddinShmemInitLock, LW_EXCLUSIVE);
	shared = ShmemInitStruct(HISTORY_NAME, history_size(), &found);
	names = (StoredName *) ((char *) shared + names_offset());
	if (!found)
	{
		memset(shared, 0, history_size());
		shared->lock = &(GetNamedLWLockTranche(HISTORY_NAME))->lock;
	}
	LWLockRelease(AddinShmemInitLock);
}

/* Is there a history, be it empty? */
bool
prk_history_exists(void)
{
	return shared != NULL;
}

/*
 * The rows of a replica, or of all (name NULL), that were sampled at this
 * time or later, oldest first; palloc'd in the current memory context.
 */
PrkHistoryRow *
prk_history_read(const char *name, TimestampTz since, int *nrows)
{
	StoredRow  *copy;
	StoredName *copied_names;
	PrkHistoryRow *result;
	int			ncopied;
	int			first;

	*nrows = 0;
	if (shared == NULL)
		return palloc(sizeof(PrkHistoryRow));

	copy = palloc_extended((Size) prk_history_samples * sizeof(StoredRow),
						   MCXT_ALLOC_HUGE);
	copied_names = palloc(max_names() * sizeof(StoredName));
	LWLockAcquire(shared->lock, LW_SHARED);
	ncopied = shared->nrows;
	first = (shared->next - ncopied + prk_history_samples) %
		prk_history_samples;
	if (first + ncopied <= prk_history_samples)
		memcpy(copy, shared->rows + first, ncopied * sizeof(StoredRow));
	else
	{
		int			tail = prk_history_samples - first;

		memcpy(copy, shared->rows + first, tail * sizeof(StoredRow));
		memcpy(copy + tail, shared->rows,
			   (ncopied - tail) * sizeof(StoredRow));
	}
	memcpy(copied_names, names, max_names() * sizeof(StoredName));
	LWLockRelease(shared->lock);

	for (int i = 0; i < ncopied; i++)
	{
		if (copy[i].sampled_at >= since &&
			(name == NULL ||
			 strcmp(copied_names[copy[i].name].name, name) == 0))
			copy[(*nrows)++] = copy[i];
	}
	result = palloc_extended((Size) Max(*nrows, 1) * sizeof(PrkHistoryRow),
							 MCXT_ALLOC_HUGE);
	for (int i = 0; i < *nrows; i++)
	{
		result[i].sampled_at = copy[i].sampled_at;
		strlcpy(result[i].name, copied_names[copy[i].name].name, NAMEDATALEN);
		result[i].state = copy[i].state;
		result[i].lag_bytes = copy[i].lag_bytes;
		result[i].lag_time = copy[i].lag_time;
		result[i].retained_bytes = copy[i].retained_bytes;
	}
	pfree(copy);
	pfree(copied_names);
	return result;
}

/*
 * The number of a name, noted if it is new; -1 if there is no room.  The
 * search begins where the last one was found, since names come in the same
 * order each time.
 */
static int
find_name(const char *name, int hint)
{
	int			count = max_names();
	int			unused = -1;

	for (int i = 0; i < count; i++)
	{
		int			index = (hint + i) % count;

		if (names[index].nrows == 0)
		{
			if (unused < 0)
				unused = index;
		}
		else if (strcmp(names[index].name, name) == 0)
			return index;
	}
	if (unused >= 0)
		strlcpy(names[unused].name, name, NAMEDATALEN);
	return unused;
}

/* Adds the rows of one cycle; the oldest ones go. */
void
prk_history_add(const PrkHistoryRow *rows, int nrows)
{
	int			hint = 0;

	if (shared == NULL)
		return;
	LWLockAcquire(shared->lock, LW_EXCLUSIVE);
	for (int i = 0; i < nrows; i++)
	{
		StoredRow  *row = &shared->rows[shared->next];
		int			name;

		if (shared->nrows == prk_history_samples)
		{
			names[row->name].nrows--;
			shared->nrows--;
		}
		name = find_name(rows[i].name, hint);
		if (name < 0)
			continue;
		hint = (name + 1) % max_names();
		names[name].nrows++;
		row->sampled_at = rows[i].sampled_at;
		row->name = name;
		row->state = rows[i].state;
		row->lag_bytes = rows[i].lag_bytes;
		row->lag_time = rows[i].lag_time;
		row->retained_bytes = rows[i].retained_bytes;
		shared->next = (shared->next + 1) % prk_history_samples;
		shared->nrows++;
	}
	LWLockRelease(shared->lock);
}

/*
 * The machine's clock was set by so much: what was sampled before was sampled
 * as long ago as it was.
 */
void
prk_history_shift(int64 jump)
{
	if (shared == NULL)
		return;
	LWLockAcquire(shared->lock, LW_EXCLUSIVE);
	for (int i = 1; i <= shared->nrows; i++)
	{
		int			place = shared->next - i;

		if (place < 0)
			place += prk_history_samples;
		shared->rows[place].sampled_at += jump;
	}
	LWLockRelease(shared->lock);
}
