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
 * Over a clean restart the rows are kept in a file beside the clock's, the
 * newest of them if they are very many.  Its times are those of the clock,
 * so that they are right where the wall clock was set meanwhile.
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

#include <unistd.h>

#include "pgstat.h"
#include "replication/slot.h"
#include "replication/walsender.h"
#include "storage/ipc.h"
#include "storage/lwlock.h"
#include "storage/shmem.h"
#include "utils/timestamp.h"

#include "clock/clock_file.h"
#include "clock/clock_shared.h"
#include "compat.h"
#include "watch/history.h"

#define HISTORY_NAME	"pg_replica_kit history"

/* Base backups and pg_rewind leave the contents of this directory out. */
#define HISTORY_PATH	PG_STAT_TMP_DIR "/pg_replica_kit.history"

/* Says that the file has rows and names as they are below. */
#define LAYOUT			0x68730001

/* In the file sampled_at is a time of the clock. */
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
	bool		loaded;			/* the file was looked at */
	int			next;			/* where the next row goes */
	int			nrows;			/* how many there are before it */
	StoredRow	rows[FLEXIBLE_ARRAY_MEMBER];	/* then the names */
} SharedHistory;

/* The file: this, the names, the rows, oldest first. */
typedef struct KeptHistory
{
	uint32		layout;
	int32		nnames;
	int32		nrows;
	int32		unused;			/* 0 */
} KeptHistory;

/* NULL where the library was not preloaded, or nothing is to be kept. */
static SharedHistory *shared = NULL;
static StoredName *names = NULL;

static int	find_name(const char *name, int hint);
static int	add_row(const char *name, const StoredRow *row, int hint);
static bool is_sound(const KeptHistory *kept, Size size);

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

/*
 * Adds a row, whose name is not set, in place of the oldest if need be; under
 * the lock.  Returns where the search for the next name begins.
 */
static int
add_row(const char *name, const StoredRow *row, int hint)
{
	StoredRow  *place = &shared->rows[shared->next];
	int			number;

	if (shared->nrows == prk_history_samples)
	{
		names[place->name].nrows--;
		shared->nrows--;
	}
	number = find_name(name, hint);
	if (number < 0)
		return hint;
	names[number].nrows++;
	*place = *row;
	place->name = number;
	shared->next = (shared->next + 1) % prk_history_samples;
	shared->nrows++;
	return (number + 1) % max_names();
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
		StoredRow	row = {0};

		row.sampled_at = rows[i].sampled_at;
		row.state = rows[i].state;
		row.lag_bytes = rows[i].lag_bytes;
		row.lag_time = rows[i].lag_time;
		row.retained_bytes = rows[i].retained_bytes;
		hint = add_row(rows[i].name, &row, hint);
	}
	LWLockRelease(shared->lock);
}

/*
 * To be called when the worker ends: writes the file.  The worker is the only
 * one who changes the rows, so it may read them without the lock.
 */
void
prk_history_save(void)
{
	KeptHistory *kept;
	StoredName *kept_names;
	StoredRow  *rows;
	Size		size;
	int64		to_clock = prk_clock_now() - GetCurrentTimestamp();
	int			nrows;

	if (shared == NULL || shared->nrows == 0)
		return;
	size = sizeof(KeptHistory) + max_names() * sizeof(StoredName);
	if (size >= PRK_CLOCK_MAX_ATTACHMENT)
		return;
	nrows = Min((Size) shared->nrows,
				(PRK_CLOCK_MAX_ATTACHMENT - size) / sizeof(StoredRow));
	size += nrows * sizeof(StoredRow);

	kept = palloc0(size);
	kept->layout = LAYOUT;
	kept->nnames = max_names();
	kept->nrows = nrows;
	kept_names = (StoredName *) (kept + 1);
	memcpy(kept_names, names, max_names() * sizeof(StoredName));
	rows = (StoredRow *) (kept_names + kept->nnames);
	for (int i = 0; i < nrows; i++)
	{
		int			place = shared->next - nrows + i;

		if (place < 0)
			place += prk_history_samples;
		rows[i] = shared->rows[place];
		rows[i].sampled_at += to_clock;
	}
	prk_clock_keep(HISTORY_PATH, kept, size);
	pfree(kept);
}

/*
 * To be called when the worker starts: takes over what a clean stop has left,
 * the first time after the server's start.  A worker that was ended while the
 * server went on leaves a file that nobody needs.
 */
void
prk_history_load(void)
{
	KeptHistory *kept;
	const StoredName *kept_names;
	const StoredRow *rows;
	Size		size;
	int64		shift;
	int			hint = 0;

	if (shared == NULL || shared->loaded)
	{
		unlink(HISTORY_PATH);
		return;
	}
	shared->loaded = true;
	kept = prk_clock_kept(HISTORY_PATH, &size, &shift);
	if (kept == NULL)
		return;
	if (!is_sound(kept, size))
	{
		ereport(LOG,
				(errmsg("ignoring file \"%s\": %s", HISTORY_PATH,
						"it is of another version")));
		pfree(kept);
		return;
	}

	shift += GetCurrentTimestamp() - prk_clock_now();
	kept_names = (const StoredName *) (kept + 1);
	rows = (const StoredRow *) (kept_names + kept->nnames);
	LWLockAcquire(shared->lock, LW_EXCLUSIVE);
	for (int i = Max(kept->nrows - prk_history_samples, 0); i < kept->nrows; i++)
	{
		StoredRow	row = rows[i];

		row.sampled_at += shift;
		hint = add_row(kept_names[row.name].name, &row, hint);
	}
	LWLockRelease(shared->lock);
	pfree(kept);
}

/* Has the file what can be taken over? */
static bool
is_sound(const KeptHistory *kept, Size size)
{
	const StoredName *kept_names = (const StoredName *) (kept + 1);
	const StoredRow *rows;

	if (size < sizeof(KeptHistory) || kept->layout != LAYOUT ||
		kept->nnames <= 0 || kept->nrows < 0 ||
		size != sizeof(KeptHistory) + kept->nnames * sizeof(StoredName) +
		kept->nrows * sizeof(StoredRow))
		return false;
	rows = (const StoredRow *) (kept_names + kept->nnames);
	for (int i = 0; i < kept->nrows; i++)
	{
		const StoredRow *row = &rows[i];

		if (row->name < 0 || row->name >= kept->nnames ||
			strnlen(kept_names[row->name].name, NAMEDATALEN) == NAMEDATALEN ||
			row->state < 0 || row->state >= PRK_NSTATES)
			return false;
	}
	return true;
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
