/*-------------------------------------------------------------------------
 *
 * silence.c
 *	  Planned work: what is not to be told for a while.
 *
 * A table of fixed size in shared memory, there when the library is preloaded;
 * one lightweight lock protects it.  A silence mutes the worker's lines,
 * unhealthy() and assert_healthy() of its name.  It changes no verdict: what
 * judges goes on, and what is still wrong when the silence ends is told then.
 * What cannot be undone is told at once.
 *
 * Times are those of prk_clock_now(), so that a wall clock that is set makes no
 * silence shorter or longer.  A clean stop keeps the table behind the clock in
 * its file.  After a crash the silences are gone, of which an empty file beside
 * it is the only trace: it is there while there is a silence.
 *
 * IDENTIFICATION
 *	  src/watch/silence.c
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include <fcntl.h>
#include <unistd.h>

#include "common/file_perm.h"
#include "pgstat.h"
#include "pgtime.h"
#include "port/atomics.h"
#include "storage/fd.h"
#include "storage/ipc.h"
#include "storage/lwlock.h"
#include "storage/shmem.h"
#include "utils/timestamp.h"

#include "clock/clock_shared.h"
#include "watch/board.h"
#include "watch/silence.h"
#include "watch/upstream.h"

#define SILENCES_NAME	"pg_replica_kit silences"

/* Base backups and pg_rewind leave the contents of this directory out. */
#define TRACE_PATH		PG_STAT_TMP_DIR "/pg_replica_kit.silences"

/* In shared memory. */
typedef struct SharedSilences
{
	LWLock	   *lock;			/* set once, at startup */
	pg_atomic_uint32 count;		/* written under the lock, read without */
	bool		loaded;			/* the file was looked at */
	bool		traced;			/* TRACE_PATH may be there */
	PrkSilence	silences[PRK_MAX_SILENCES]; /* the first count, in any order */
} SharedSilences;

/* NULL where the library was not preloaded. */
static SharedSilences *shared = NULL;

static void add(const PrkSilence *silence);
static bool leave_trace(void);
static bool is_sound(PrkSilence *silence, int64 now);
static int	compare_silences(const void *a, const void *b);

/* For shmem_request_hook. */
void
prk_silence_shmem_request(void)
{
	RequestAddinShmemSpace(sizeof(SharedSilences));
	RequestNamedLWLockTranche(SILENCES_NAME, 1);
}

/* For shmem_startup_hook; takes AddinShmemInitLock. */
void
prk_silence_shmem_startup(void)
{
	bool		found;

	LWLockAcquire(AddinShmemInitLock, LW_EXCLUSIVE);
	shared = ShmemInitStruct(SILENCES_NAME, sizeof(SharedSilences), &found);
	if (!found)
	{
		memset(shared, 0, sizeof(SharedSilences));
		pg_atomic_init_u32(&shared->count, 0);
		shared->lock = &(GetNamedLWLockTranche(SILENCES_NAME))->lock;
	}
	LWLockRelease(AddinShmemInitLock);
}

/* Is there a table?  Not without preloading. */
bool
prk_silence_possible(void)
{
	return shared != NULL;
}

/*
 * Begins a silence, in place of the one that its name may have.  Returns
 * false if there is no room.
 */
bool
prk_silence_begin(const PrkSilence *silence)
{
	bool		room;
	int			save_errno = 0;

	LWLockAcquire(shared->lock, LW_EXCLUSIVE);
	room = pg_atomic_read_u32(&shared->count) < PRK_MAX_SILENCES;
	for (uint32 i = 0; !room && i < PRK_MAX_SILENCES; i++)
		room = strcmp(shared->silences[i].name, silence->name) == 0;
	if (room)
	{
		add(silence);
		if (!leave_trace())
			save_errno = errno;
	}
	LWLockRelease(shared->lock);
	errno = save_errno;
	if (errno != 0)
		ereport(WARNING,
				(errcode_for_file_access(),
				 errmsg("could not create file \"%s\": %m", TRACE_PATH),
				 errdetail("After a crash, no message will say that the silence has ended.")));
	return room;
}

/* Ends the silence of a name.  Returns false if there is none. */
bool
prk_silence_end(const char *name)
{
	int64		now = prk_clock_now();
	bool		result = false;

	if (shared == NULL)
		return false;
	LWLockAcquire(shared->lock, LW_EXCLUSIVE);
	for (uint32 i = 0; i < pg_atomic_read_u32(&shared->count); i++)
	{
		uint32		last = pg_atomic_read_u32(&shared->count) - 1;

		if (strcmp(shared->silences[i].name, name) != 0)
			continue;
		result = shared->silences[i].ends_at > now;
		shared->silences[i] = shared->silences[last];
		pg_atomic_write_u32(&shared->count, last);
		break;
	}
	LWLockRelease(shared->lock);
	return result;
}

/* A copy of those that are not over, palloc'd, by name. */
void
prk_silence_read(PrkSilences *silences)
{
	int64		now = prk_clock_now();
	uint32		room;

	memset(silences, 0, sizeof(PrkSilences));
	if (shared == NULL)
		return;
	room = pg_atomic_read_u32(&shared->count);
	if (room == 0)
		return;
	silences->silences = palloc(room * sizeof(PrkSilence));
	LWLockAcquire(shared->lock, LW_SHARED);
	room = Min(room, pg_atomic_read_u32(&shared->count));
	for (uint32 i = 0; i < room; i++)
	{
		if (shared->silences[i].ends_at > now)
			silences->silences[silences->count++] = shared->silences[i];
	}
	LWLockRelease(shared->lock);
	qsort(silences->silences, silences->count, sizeof(PrkSilence),
		  compare_silences);
}

/* The silence of a name as diagnose() shows it; NULL: none. */
const PrkSilence *
prk_silence_find(const PrkSilences *silences, const char *name)
{
	for (int i = 0; i < silences->count; i++)
	{
		if (strcmp(silences->silences[i].name, name) == 0)
			return &silences->silences[i];
	}
	return NULL;
}

/*
 * The silence of a replica.  One that is called as the server or its upstream
 * is stands in quotes where it is shown.
 */
const PrkSilence *
prk_silence_of_replica(const PrkSilences *silences, const char *name)
{
	return prk_silence_find(silences, prk_settings_shown_name(name));
}

/*
 * Does a silence, NULL for none, mute something of this code and level?  Not
 * what cannot be undone.
 */
bool
prk_silence_mutes(const PrkSilence *silence, PrkCode code, PrkLevel level)
{
	if (silence == NULL)
		return false;
	switch (code)
	{
		case PRK_CODE_SLOT_LOST:
		case PRK_CODE_WAL_REMOVED:
			return false;
		case PRK_CODE_DISK_FILLING:
			return level != PRK_CRITICAL;
		default:
			return true;
	}
}

/*
 * A time of prk_clock_now() by the wall clock as that is now, to the second:
 * the two clocks are not read at the same instant.
 */
TimestampTz
prk_silence_time(int64 at)
{
	TimestampTz result = GetCurrentTimestamp() + (at - prk_clock_now());

	return (result + USECS_PER_SEC / 2) / USECS_PER_SEC * USECS_PER_SEC;
}

/*
 * "silenced until 04:00 by alice: kernel", palloc'd, in the session's time
 * zone.
 */
char *
prk_silence_words(const PrkSilence *silence)
{
	char		until[16];
	pg_time_t	seconds = timestamptz_to_time_t(prk_silence_time(silence->ends_at));
	char	   *reason = prk_foreign_show_words(&silence->reason);

	pg_strftime(until, sizeof(until), "%H:%M",
				pg_localtime(&seconds, session_timezone));
	return psprintf("silenced until %s by %s%s%s", until,
					prk_foreign_show(&silence->role_name),
					reason[0] != '\0' ? ": " : "", reason);
}

/*
 * To be called when the worker starts, before the clock's file is used up:
 * takes over what a clean stop has left, the first time after the server's
 * start.  Says so if there were silences, and they are gone.
 */
void
prk_silence_load(void)
{
	int64		now = prk_clock_now();
	PrkSilence *kept;
	Size		size;
	int64		shift;
	bool		gone;

	LWLockAcquire(shared->lock, LW_SHARED);
	gone = !shared->loaded;
	LWLockRelease(shared->lock);
	if (!gone)
		return;

	kept = prk_clock_attachment(&size, &shift);
	LWLockAcquire(shared->lock, LW_EXCLUSIVE);
	shared->loaded = true;
	for (size_t i = 0; kept != NULL && i < size / sizeof(PrkSilence); i++)
	{
		kept[i].begun_at += shift;
		kept[i].ends_at += shift;
		if (is_sound(&kept[i], now) &&
			pg_atomic_read_u32(&shared->count) < PRK_MAX_SILENCES)
			add(&kept[i]);
	}
	gone = pg_atomic_read_u32(&shared->count) == 0 &&
		unlink(TRACE_PATH) == 0 && kept == NULL;
	LWLockRelease(shared->lock);
	if (gone)
		ereport(LOG,
				(errmsg("replica_kit: silences are gone, because the server was not shut down cleanly"),
				 errhint("Set them again where the work goes on: SELECT replica_kit.silence(...);")));
}

/* Removes those that are over, with a line for each. */
void
prk_silence_expire(void)
{
	int64		now = prk_clock_now();
	char		names[PRK_MAX_SILENCES][PRK_SILENCE_NAME_LEN];
	uint32		nover = 0;
	uint32		left = 0;

	if (pg_atomic_read_u32(&shared->count) == 0 && !shared->traced)
		return;
	LWLockAcquire(shared->lock, LW_EXCLUSIVE);
	for (uint32 i = 0; i < pg_atomic_read_u32(&shared->count); i++)
	{
		if (shared->silences[i].ends_at > now)
			shared->silences[left++] = shared->silences[i];
		else
			strlcpy(names[nover++], shared->silences[i].name,
					PRK_SILENCE_NAME_LEN);
	}
	pg_atomic_write_u32(&shared->count, left);
	if (left == 0)
	{
		unlink(TRACE_PATH);
		shared->traced = false;
	}
	LWLockRelease(shared->lock);
	for (uint32 i = 0; i < nover; i++)
		ereport(LOG,
				(errmsg("replica_kit: silence of \"%s\" has ended",
						names[i])));
}

/* All of them for the clock's file, palloc'd; NULL: none. */
PrkSilence *
prk_silence_to_save(Size *size)
{
	PrkSilences silences;

	prk_silence_read(&silences);
	*size = silences.count * sizeof(PrkSilence);
	return silences.silences;
}

/* Puts it into the table, which has room for it; under the lock. */
static void
add(const PrkSilence *silence)
{
	uint32		count = pg_atomic_read_u32(&shared->count);
	uint32		at = 0;

	while (at < count && strcmp(shared->silences[at].name, silence->name) != 0)
		at++;
	shared->silences[at] = *silence;
	shared->traced = true;
	if (at == count)
		pg_atomic_write_u32(&shared->count, count + 1);
}

/* Makes the trace; errno is set if it could not. */
static bool
leave_trace(void)
{
	int			fd = open(TRACE_PATH, O_WRONLY | O_CREAT, pg_file_create_mode);

	if (fd < 0)
		return false;
	close(fd);
	return true;
}

/* Is what a file has a silence that is not over? */
static bool
is_sound(PrkSilence *silence, int64 now)
{
	if (strnlen(silence->name, PRK_SILENCE_NAME_LEN) == PRK_SILENCE_NAME_LEN ||
		silence->ends_at <= now || silence->ends_at > now + PRK_MAX_SILENCE)
		return false;
	for (const char *at = silence->name; *at != '\0'; at++)
	{
		if ((unsigned char) *at < ' ' || *at == 0x7f)
			return false;
	}
	return prk_foreign_is_sound(&silence->role_name) &&
		prk_foreign_words_are_sound(&silence->reason);
}

/* qsort comparator: by name */
static int
compare_silences(const void *a, const void *b)
{
	return strcmp(((const PrkSilence *) a)->name,
				  ((const PrkSilence *) b)->name);
}
