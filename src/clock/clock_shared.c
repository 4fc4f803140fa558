/*-------------------------------------------------------------------------
 *
 * clock_shared.c
 *	  The LSN clock that the worker keeps and everybody reads.
 *
 * One struct of fixed size in shared memory, there when the library is
 * preloaded.  The worker alone writes it, once a second; one lightweight lock
 * protects it.  Readers search it under the shared lock, some dozen steps
 * for each position, instead of copying what is much larger than what they
 * want to know.  Nothing under the lock allocates, waits or raises.
 *
 * Times are those of CLOCK_BOOTTIME, which no change of the wall clock
 * touches and which goes on while the machine sleeps.
 *
 * On a primary the clock is fed with the write position, on a standby with
 * what its upstream says of its own: when that was promoted, the clock already
 * knows since when the others lack what.  While nothing is received, nothing
 * is known of the upstream, and nothing is noted: so there the last pair also
 * tells how long ago the upstream was heard of.
 *
 * IDENTIFICATION
 *	  src/clock/clock_shared.c
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include <time.h>
#include <unistd.h>

#include "access/xlog.h"
#include "access/xlog_internal.h"
#include "access/xlogrecovery.h"
#include "pgstat.h"
#include "storage/fd.h"
#include "storage/ipc.h"
#include "storage/lwlock.h"
#include "storage/shmem.h"
#include "utils/timestamp.h"

#include "clock/clock_file.h"
#include "clock/clock_shared.h"

#define CLOCK_NAME		"pg_replica_kit clock"

/* Base backups and pg_rewind leave the contents of this directory out. */
#define CLOCK_PATH		PG_STAT_TMP_DIR "/pg_replica_kit.clock"

/* A worker that ticks at all ticks within this. */
#define ALIVE_TIME		(15 * USECS_PER_SEC)

#define BOOT_ID_PATH	"/proc/sys/kernel/random/boot_id"

/* In shared memory; all of it is protected by lock. */
typedef struct SharedClock
{
	LWLock	   *lock;			/* set once, at startup */
	bool		resumed;		/* the file was looked at */
	bool		in_recovery;	/* when it last ticked */
	TimeLineID	timeline;		/* that was received then */
	int64		alive_at;		/* the worker's last sign of life, or the time
								 * from which on one can be expected */
	int64		reloaded_at;	/* the worker was told to reload; 0: never */
	int64		looked_at;		/* at the receiver; 0: never */
	PrkReceiverSeen start;		/* of it, as it was then; "age" is when that
								 * began */
	PrkReceiverSeen message;
	PrkClock	clock;
} SharedClock;

/* NULL where the library was not preloaded. */
static SharedClock *shared = NULL;

static void tick_here(void);
static void tick_upstream(void);
static void note_seen(PrkReceiverSeen *seen, int64 value, int64 since);
static void load(XLogRecPtr position, bool in_recovery);
static void note_moment(PrkClockMoment *moment);

/* For shmem_request_hook. */
void
prk_clock_shmem_request(void)
{
	RequestAddinShmemSpace(sizeof(SharedClock));
	RequestNamedLWLockTranche(CLOCK_NAME, 1);
}

/* For shmem_startup_hook; takes AddinShmemInitLock. */
void
prk_clock_shmem_startup(void)
{
	bool		found;

	LWLockAcquire(AddinShmemInitLock, LW_EXCLUSIVE);
	shared = ShmemInitStruct(CLOCK_NAME, sizeof(SharedClock), &found);
	if (!found)
	{
		memset(shared, 0, sizeof(SharedClock));
		shared->lock = &(GetNamedLWLockTranche(CLOCK_NAME))->lock;
		shared->alive_at = prk_clock_now();
	}
	LWLockRelease(AddinShmemInitLock);
}

/* Microseconds since the machine's boot, or some other fixed time. */
int64
prk_clock_now(void)
{
	struct timespec now;

#ifdef CLOCK_BOOTTIME
	clock_gettime(CLOCK_BOOTTIME, &now);
#else
	clock_gettime(CLOCK_MONOTONIC, &now);
#endif
	return (int64) now.tv_sec * USECS_PER_SEC + now.tv_nsec / 1000;
}

/*
 * By how much was the machine's wall clock set between two moments, each of
 * which is known by both clocks?  In microseconds; 0 if it only went a little
 * faster or slower.
 */
int64
prk_clock_jump(TimestampTz wall1, int64 clock1,
			   TimestampTz wall2, int64 clock2)
{
	int64		jump = (wall2 - wall1) - (clock2 - clock1);

	return jump >= PRK_MIN_JUMP || jump <= -PRK_MIN_JUMP ? jump : 0;
}

/*
 * When, by prk_clock_now(), did the worker last show that it is alive, if only
 * by a tick?  0 without preloading.
 */
int64
prk_clock_alive_at(void)
{
	int64		result;

	if (shared == NULL)
		return 0;
	LWLockAcquire(shared->lock, LW_SHARED);
	result = shared->alive_at;
	LWLockRelease(shared->lock);
	return result;
}

/*
 * The age of the WAL behind each of the positions: prk_clock_age().  Without
 * preloading nothing is known.
 */
void
prk_clock_ages(const XLogRecPtr *positions, PrkClockAge *ages,
			   int npositions, int64 now, XLogRecPtr current)
{
	memset(ages, 0, npositions * sizeof(PrkClockAge));
	if (shared == NULL)
		return;
	LWLockAcquire(shared->lock, LW_SHARED);
	for (int i = 0; i < npositions; i++)
		ages[i] = i > 0 && positions[i] == positions[i - 1] ? ages[i - 1] :
			prk_clock_age(&shared->clock, positions[i], now, current);
	LWLockRelease(shared->lock);
}

/*
 * On a standby: how long ago did the worker last see that its upstream speaks,
 * in microseconds?  -1 when that is not known, as without a worker.
 */
int64
prk_clock_contact_age(void)
{
	int64		now = prk_clock_now();
	int64		result = -1;
	PrkClockPair newest;

	if (shared == NULL)
		return -1;
	LWLockAcquire(shared->lock, LW_SHARED);
	if (now - shared->alive_at < ALIVE_TIME &&
		prk_clock_newest(&shared->clock, &newest))
		result = Max(now - newest.at, 0);
	LWLockRelease(shared->lock);
	return result;
}

/*
 * What prk_receiver_read() asks for.  A session that was idle reloads when it is
 * used again, so what it knows itself counts only where there is no worker.
 */
void
prk_clock_receiver_past(PrkReceiverPast *past)
{
	int64		now = prk_clock_now();
	int64		reloaded_at;

	memset(past, 0, sizeof(PrkReceiverPast));
	past->looked_age = -1;
	if (shared == NULL)
	{
		past->reload_age = Max(GetCurrentTimestamp() - PgReloadTime, 0);
		return;
	}
	LWLockAcquire(shared->lock, LW_SHARED);
	reloaded_at = shared->reloaded_at;
	if (shared->looked_at != 0)
		past->looked_age = Max(now - shared->looked_at, 0);
	past->start = shared->start;
	past->message = shared->message;
	LWLockRelease(shared->lock);
	past->reload_age = reloaded_at == 0 ? -1 : now - reloaded_at;
	past->start.age = Max(now - past->start.age, 0);
	past->message.age = Max(now - past->message.age, 0);
}

/*
 * Bytes of WAL written per second, over both windows; -1 when not known.
 */
void
prk_clock_rates(int64 now, XLogRecPtr current,
				double *rate_short, double *rate_long)
{
	*rate_short = *rate_long = -1;
	if (shared == NULL)
		return;
	LWLockAcquire(shared->lock, LW_SHARED);
	*rate_short = prk_clock_rate(&shared->clock, now, current,
								 PRK_WINDOW_SHORT);
	*rate_long = prk_clock_rate(&shared->clock, now, current,
								PRK_WINDOW_LONG);
	LWLockRelease(shared->lock);
}

/*
 * To be called when a worker starts or is switched off.  The file is good only
 * if the server has written no WAL unwatched since; a worker that was ended
 * while the server went on leaves one, too.
 */
void
prk_clock_drop_file(bool unwatched)
{
	if (unwatched || shared->resumed)
		unlink(CLOCK_PATH);
}

/* Shows that the worker is alive, though there is nothing to note yet. */
void
prk_clock_show_life(void)
{
	int64		now = prk_clock_now();

	LWLockAcquire(shared->lock, LW_EXCLUSIVE);
	shared->alive_at = now;
	LWLockRelease(shared->lock);
}

/* Notes that the server was told to reload. */
void
prk_clock_note_reload(void)
{
	int64		now = prk_clock_now();

	LWLockAcquire(shared->lock, LW_EXCLUSIVE);
	shared->reloaded_at = now;
	LWLockRelease(shared->lock);
}

/*
 * Notes where the primary is now.  The first time after the server's start it
 * takes up what the file has.  Raises nothing but out of memory.
 */
void
prk_clock_tick(void)
{
	if (RecoveryInProgress())
		tick_upstream();
	else
		tick_here();
}

/* Notes where this server, a primary, writes now. */
static void
tick_here(void)
{
	int64		now = prk_clock_now();
	XLogRecPtr	position = GetXLogWriteRecPtr();

	/* Nobody else writes these, so they may be read without the lock. */
	if (!shared->resumed)
		load(position, false);

	LWLockAcquire(shared->lock, LW_EXCLUSIVE);
	if (shared->in_recovery)
		prk_clock_cut(&shared->clock, position);
	prk_clock_add(&shared->clock, now, position);
	shared->in_recovery = false;
	shared->alive_at = now;
	LWLockRelease(shared->lock);
}

/*
 * The same on a standby, with the upstream's position as far as it has told.
 *
 * An idle upstream is silent for a while, so that silence at first means that
 * it is where it was; when it turns out to be a stall, that was not known.
 * And another timeline may have branched off before what was known.
 */
static void
tick_upstream(void)
{
	int64		now = prk_clock_now();
	PrkReceiverPast past;
	PrkReceiver receiver;
	PrkClockPair newest;
	XLogRecPtr	position;

	prk_clock_receiver_past(&past);
	prk_receiver_read(&receiver, &past);
	if (!shared->resumed)
		load(InvalidXLogRecPtr, true);

	LWLockAcquire(shared->lock, LW_EXCLUSIVE);
	note_seen(&shared->start, receiver.start, now - receiver.start_age);
	note_seen(&shared->message, receiver.last_message_at,
			  now - receiver.silence);
	shared->looked_at = now;
	position = Max(receiver.latest_end, receiver.received_lsn);
	if (receiver.stalled)
		prk_clock_forget(&shared->clock, now - receiver.silence);
	else if (receiver.settled && !XLogRecPtrIsInvalid(position))
	{
		if (shared->timeline != 0 && shared->timeline != receiver.timeline)
			prk_clock_cut(&shared->clock, GetXLogReplayRecPtr(NULL));
		shared->timeline = receiver.timeline;

		/* An upstream's messages need not be in the order of its positions. */
		if (prk_clock_newest(&shared->clock, &newest))
			position = Max(position, newest.position);
		prk_clock_add(&shared->clock, now, position);
	}
	shared->in_recovery = true;
	shared->alive_at = now;
	LWLockRelease(shared->lock);
}

/* What is there still has been since it was first seen. */
static void
note_seen(PrkReceiverSeen *seen, int64 value, int64 since)
{
	if (seen->value != value)
	{
		seen->value = value;
		seen->age = since;
	}
}

/*
 * Puts the clock into its file for the next start, with what is attached to it;
 * an empty clock where it was not watched.  Nothing to keep: no file.  What
 * fails is logged.
 */
void
prk_clock_save(bool watched, const void *attachment, Size size)
{
	PrkClock   *copy = palloc(sizeof(PrkClock));
	PrkClockMoment moment;

	/* The worker is the only one who writes it. */
	if (watched)
		*copy = shared->clock;
	else
		prk_clock_clear(copy);
	note_moment(&moment);
	if (copy->nfine > 0 || size > 0)
		(void) prk_clock_file_write(CLOCK_PATH, copy, &moment, attachment,
									size);
	pfree(copy);
}

/*
 * What was attached to the clock's file, palloc'd, as
 * prk_clock_file_attachment() has it.  To be asked for before the first tick,
 * and before prk_clock_drop_file().
 */
void *
prk_clock_attachment(Size *size, int64 *shift)
{
	PrkClockMoment moment;

	note_moment(&moment);
	return prk_clock_file_attachment(CLOCK_PATH, &moment, size, shift);
}

/*
 * Puts what another room has into a file of its own, of PRK_CLOCK_MAX_ATTACHMENT
 * bytes at most, which is believed for the same reasons as the clock's.  What
 * fails is logged.
 */
void
prk_clock_keep(const char *path, const void *data, Size size)
{
	PrkClock   *none = palloc(sizeof(PrkClock));
	PrkClockMoment moment;

	prk_clock_clear(none);
	note_moment(&moment);
	(void) prk_clock_file_write(path, none, &moment, data, size);
	pfree(none);
}

/*
 * What prk_clock_keep() has put there, as prk_clock_attachment() returns it.
 * The file is removed: after a crash it would be of another time.  Why it is
 * ignored, if it is there, is logged.
 */
void *
prk_clock_kept(const char *path, Size *size, int64 *shift)
{
	PrkClock   *none = palloc(sizeof(PrkClock));
	PrkClockMoment moment;
	const char *problem;
	void	   *result;

	note_moment(&moment);
	problem = prk_clock_file_read(path, none, &moment);
	result = prk_clock_file_attachment(path, &moment, size, shift);
	if (problem == NULL && result == NULL)
		problem = "it is damaged";
	if (problem != NULL && problem[0] != '\0')
		ereport(LOG,
				(errmsg("ignoring file \"%s\": %s", path, problem)));
	unlink(path);
	pfree(none);
	return result;
}

/*
 * Takes up what an earlier life of this server has left in the file.  A
 * server that stops writes little; if it is more, it was written some other
 * time.
 */
static void
load(XLogRecPtr position, bool in_recovery)
{
	PrkClock   *clock = palloc(sizeof(PrkClock));
	PrkClockMoment moment;
	PrkClockPair newest;
	const char *problem;

	note_moment(&moment);
	problem = prk_clock_file_read(CLOCK_PATH, clock, &moment);
	if (problem == NULL && !in_recovery &&
		prk_clock_newest(clock, &newest) && newest.position > position)
		problem = "it is ahead of this server's WAL";
	if (problem != NULL)
	{
		prk_clock_clear(clock);
		if (problem[0] != '\0')
			ereport(LOG,
					(errmsg("ignoring file \"%s\": %s", CLOCK_PATH, problem)));
	}
	else if (!in_recovery &&
			 prk_clock_newest(clock, &newest) &&
			 position - newest.position < (uint64) wal_segment_size)
		prk_clock_resume(clock, position);

	/* After a crash nothing of it would be true. */
	unlink(CLOCK_PATH);

	LWLockAcquire(shared->lock, LW_EXCLUSIVE);
	shared->clock = *clock;
	shared->in_recovery = in_recovery;
	shared->resumed = true;
	LWLockRelease(shared->lock);
	pfree(clock);
}

/* Notes which system this is, and what its clocks say, for the file. */
static void
note_moment(PrkClockMoment *moment)
{
	int			fd;
	ssize_t		len;

	memset(moment, 0, sizeof(PrkClockMoment));
	moment->system_identifier = GetSystemIdentifier();
	moment->wall = GetCurrentTimestamp();
	moment->boottime = prk_clock_now();

	fd = OpenTransientFile(BOOT_ID_PATH, O_RDONLY);
	if (fd < 0)
		return;
	len = read(fd, moment->boot_id, sizeof(moment->boot_id) - 1);
	moment->boot_id[Max(len, 0)] = '\0';
	CloseTransientFile(fd);
}
