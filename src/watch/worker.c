/*-------------------------------------------------------------------------
 *
 * worker.c
 *	  The process that watches.
 *
 * A static background worker with access to shared memory and to nothing
 * else: it connects to no database, so it takes no transaction and no
 * snapshot, holds no horizon back and writes no WAL.  It is up before any
 * database is, on a primary and on a standby, and the same process goes on
 * through a promotion.
 *
 * Each replica_kit.check_interval it takes a sample, lets the alerts make
 * their lines of it, logs those, and puts what it knows on the board.  Each
 * second, whatever that interval is, it lets the LSN clock tick.  It waits on
 * its latch only, so a reload is followed and a shutdown obeyed at once.
 *
 * An error in a cycle is logged and the cycle given up; the next one starts
 * from what the last good one knew.  Ended by a signal, the worker exits with
 * code 1, as the logical replication launcher does: should somebody have
 * killed it by hand, the postmaster starts it again.
 *
 * IDENTIFICATION
 *	  src/watch/worker.c
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "miscadmin.h"
#include "postmaster/bgworker.h"
#include "postmaster/interrupt.h"
#include "storage/ipc.h"
#include "storage/latch.h"
#include "storage/lwlock.h"
#include "utils/guc.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"
#include "utils/wait_event.h"

#include "clock/clock_shared.h"
#include "failures/failure_table.h"
#include "judge/ages.h"
#include "sample/sample.h"
#include "sample/timeline.h"
#include "sample/unused.h"
#include "settings.h"
#include "watch/alerts.h"
#include "watch/announce.h"
#include "watch/board.h"
#include "watch/gatekeeper.h"
#include "watch/server_alert.h"
#include "watch/server_facts.h"
#include "watch/silence.h"
#include "watch/unserved.h"
#include "watch/upstream_alert.h"
#include "watch/worker.h"

#define WORKER_NAME			"pg_replica_kit worker"
#define RESTART_SECONDS		10

/* How often it looks whether crash recovery is over, in milliseconds. */
#define RECOVERY_POLL		500

/* After an error the next cycle is not sooner than this, in milliseconds. */
#define ERROR_PAUSE			10000

/* What the worker has in its own memory while it watches. */
typedef struct Watch
{
	MemoryContext context;		/* lives until the watch is switched off */
	MemoryContext cycle;		/* reset after each cycle */
	PrkSampleCache *cache;
	PrkAlerts  *alerts;
	PrkServerAlert server;
	bool		was_standby;	/* at the last sample */
	PrkUpstreamAlert upstream;
	TimestampTz sampled_at;		/* the last sample by the wall clock */
	int64		sampled_clock;	/* and by prk_clock_now(); 0: none yet */
	List	   *unserved;		/* of Told: replicas that can't be served */
	bool		announced;		/* the start was logged */
} Watch;

/* A replica that can't be served, which was logged. */
typedef struct Told
{
	char		name[NAMEDATALEN * 4];	/* "": the server itself */
	PrkCode		code;
	TimestampTz since;
	bool		logged;			/* it was not silenced, nor off */
	bool		seen;			/* scratch: still so */
} Told;

static void stop_on_exit(int code, Datum arg);
static Watch *begin_watching(void);
static void end_watching(Watch *watch);
static bool run_cycle_guarded(Watch *watch);
static void run_cycle(Watch *watch);
static void follow_wall_clock(Watch *watch, const PrkSample *sample);
static void watch_unserved(Watch *watch, const PrkSample *sample,
						   const PrkBoard *board,
						   const PrkSilences *silences);
static Told *find_told(const Watch *watch, const char *name, PrkCode code);
static bool is_muted(const PrkSilences *silences, const char *name,
					 PrkCode code);

/* Registers the worker; to be called while libraries are preloaded. */
void
prk_worker_register(void)
{
	BackgroundWorker worker = {0};

	strlcpy(worker.bgw_name, WORKER_NAME, BGW_MAXLEN);
	strlcpy(worker.bgw_type, WORKER_NAME, BGW_MAXLEN);
	strlcpy(worker.bgw_library_name, "pg_replica_kit", BGW_MAXLEN);
	strlcpy(worker.bgw_function_name, "prk_worker_main", BGW_MAXLEN);
	worker.bgw_flags = BGWORKER_SHMEM_ACCESS;
	worker.bgw_start_time = BgWorkerStart_PostmasterStart;
	worker.bgw_restart_time = RESTART_SECONDS;
	RegisterBackgroundWorker(&worker);
}

/* The process: entry point and main loop. */
void
prk_worker_main(Datum arg)
{
	Watch	   *watch = NULL;
	TimestampTz last_cycle = 0;
	TimestampTz next_cycle = 0;
	int64		next_tick = 0;
	PrkSilence *silences;
	Size		size;

	/* The default handler for SIGTERM would raise an error where it is. */
	pqsignal(SIGTERM, SignalHandlerForShutdownRequest);
	pqsignal(SIGHUP, SignalHandlerForConfigReload);
	BackgroundWorkerUnblockSignals();

	before_shmem_exit(stop_on_exit, (Datum) 0);
	prk_board_worker_started();
	prk_clock_show_life();
	prk_silence_load();
	prk_history_load();
	prk_clock_drop_file(false);

	while (!ShutdownRequestPending)
	{
		long		wait = -1;
		int			events = WL_LATCH_SET | WL_EXIT_ON_PM_DEATH;

		if (ConfigReloadPending)
		{
			ConfigReloadPending = false;
			prk_clock_note_reload();
			ProcessConfigFile(PGC_SIGHUP);
			next_cycle = 0;
		}

		if (!prk_worker_enabled)
		{
			prk_clock_drop_file(true);
			if (watch != NULL)
			{
				end_watching(watch);
				watch = NULL;
				prk_announce_pause();
			}
		}
		else if (!prk_sample_possible())
		{
			prk_clock_show_life();
			wait = RECOVERY_POLL;
		}
		else
		{
			TimestampTz now = GetCurrentTimestamp();

			if (watch == NULL)
				watch = begin_watching();

			if (prk_clock_now() >= next_tick)
			{
				prk_clock_tick();
				next_tick = prk_clock_now() + PRK_CLOCK_TICK;
			}

			/* A clock that was set back must not stop the watch. */
			if (now >= next_cycle || now < last_cycle)
			{
				long		pause = prk_check_interval;

				if (!run_cycle_guarded(watch))
					pause = Max(pause, ERROR_PAUSE);
				last_cycle = now;
				next_cycle = TimestampTzPlusMilliseconds(now, pause);
				now = GetCurrentTimestamp();
			}
			wait = Min(TimestampDifferenceMilliseconds(now, next_cycle),
					   Max(next_tick - prk_clock_now(), 0) / 1000 + 1);
		}

		if (wait >= 0)
			events |= WL_TIMEOUT;
		(void) WaitLatch(MyLatch, events, wait, PG_WAIT_EXTENSION);
		ResetLatch(MyLatch);
	}

	/* what was dropped when the watch was switched off stays dropped */
	silences = prk_silence_to_save(&size);
	prk_clock_save(prk_worker_enabled, silences, size);
	prk_history_save();
	proc_exit(1);
}

/* before_shmem_exit callback: the board says that nobody watches. */
static void
stop_on_exit(int code, Datum arg)
{
	prk_board_worker_stopped();
}

/* Starts from what the board has: a worker that ended may have left it. */
static Watch *
begin_watching(void)
{
	MemoryContext context;
	MemoryContext old;
	Watch	   *watch;
	PrkBoard   *board;

	context = AllocSetContextCreate(TopMemoryContext, "replica_kit watch",
									ALLOCSET_DEFAULT_SIZES);
	old = MemoryContextSwitchTo(context);
	watch = palloc0(sizeof(Watch));
	watch->context = context;
	watch->cycle = AllocSetContextCreate(context, "replica_kit cycle",
										 ALLOCSET_DEFAULT_SIZES);
	watch->cache = prk_sample_cache_create(context);

	MemoryContextSwitchTo(watch->cycle);
	board = prk_board_read();
	watch->alerts = prk_alerts_create(context, board);
	watch->upstream.upstream = board->upstream;
	watch->upstream.track.said_at = board->cycle_at;
	watch->server.server = board->server;
	for (int i = 0; i < PRK_NTROUBLES; i++)
		watch->server.tracks[i].said_at = board->cycle_at;

	MemoryContextSwitchTo(old);
	return watch;
}

/* What was known and announced ends with the watch. */
static void
end_watching(Watch *watch)
{
	prk_board_clear();
	MemoryContextDelete(watch->context);
}

/*
 * Runs a cycle.  Returns false, with the error logged and the process as fit
 * as before, if it failed.
 */
static bool
run_cycle_guarded(Watch *watch)
{
	MemoryContext old = MemoryContextSwitchTo(watch->cycle);
	uint32		holdoff = InterruptHoldoffCount;
	volatile bool done = false;

	PG_TRY();
	{
		run_cycle(watch);
		done = true;
	}
	PG_CATCH();
	{
		MemoryContextSwitchTo(watch->cycle);
		EmitErrorReport();
		FlushErrorState();
		LWLockReleaseAll();
		InterruptHoldoffCount = holdoff;
	}
	PG_END_TRY();

	MemoryContextSwitchTo(old);
	MemoryContextReset(watch->cycle);
	return done;
}

/* One sample: taken, judged, published, stored, and its changes logged. */
static void
run_cycle(Watch *watch)
{
	uint64		number = prk_failures_next_number();
	PrkSample  *sample = prk_sample_take(watch->cache);
	PrkLine    *lines;
	PrkBoardEntry *entries;
	int			nlines;
	int			nentries;
	PrkHolder	holder;
	PrkServerFacts facts;
	PrkServerLine server_lines[PRK_NTROUBLES];
	int			nserver_lines;
	PrkUpstreamLine upstream_line;
	bool		tell_upstream;
	PrkHistoryRow *rows;
	PrkBoard	board = {0};
	PrkSilences silences;
	int			nrows;

	sample->number = number;
	prk_timeline_add(sample);
	prk_ages_add(sample);
	follow_wall_clock(watch, sample);

	if (!watch->announced)
		prk_unused_settle(sample);
	prk_unused_add(sample);
	if (!watch->announced)
	{
		prk_announce_start(sample);
		watch->announced = true;
	}

	if (watch->was_standby && !sample->in_recovery)
		prk_announce_promotion(sample);
	watch->was_standby = sample->in_recovery;

	prk_silence_expire();
	prk_silence_read(&silences);
	lines = prk_alerts_step(watch->alerts, sample, &silences, &nlines);
	tell_upstream = prk_upstream_alert_step(&watch->upstream,
											sample->taken_at, &silences,
											&upstream_line);
	entries = prk_alerts_entries(watch->alerts, &nentries);
	prk_alerts_holder(watch->alerts, &holder);
	prk_server_facts_read(sample, &watch->server.server.archive, &facts);
	prk_disk_forecast(sample, &holder, &facts.archiving, &facts.disk);
	nserver_lines = prk_server_alert_step(&watch->server, &facts,
										  sample->taken_at, &silences,
										  server_lines);
	board.nentries = nentries;
	board.entries = entries;
	watch_unserved(watch, sample, &board, &silences);
	prk_board_publish(entries, nentries, &watch->upstream.upstream,
					  &watch->server.server);

	rows = prk_alerts_history(watch->alerts, sample->taken_at, &nrows);
	prk_history_add(rows, nrows);

	/* Last, so that the board never lags behind what was said. */
	for (int i = 0; i < nlines; i++)
		prk_announce_line(&lines[i]);
	for (int i = 0; i < nserver_lines; i++)
		prk_announce_server(&server_lines[i]);
	if (tell_upstream)
		prk_announce_upstream(&upstream_line);
	prk_gatekeeper_step(&upstream_line.state,
						watch->upstream.upstream.gone_since, sample->taken_at);
}

/* Should the machine's clock have been set, so are the times kept here. */
static void
follow_wall_clock(Watch *watch, const PrkSample *sample)
{
	int64		jump = watch->sampled_clock == 0 ? 0 :
	prk_clock_jump(watch->sampled_at, watch->sampled_clock,
				   sample->taken_at, sample->clock_at);

	if (jump != 0)
	{
		prk_alerts_shift(watch->alerts, jump);
		prk_server_alert_shift(&watch->server, jump);
		prk_upstream_alert_shift(&watch->upstream, jump);
		prk_history_shift(jump);
	}
	watch->sampled_at = sample->taken_at;
	watch->sampled_clock = sample->clock_at;
}

/*
 * Logs once that a replica connects and can no longer be served, though it
 * may have neither slot nor walsender, and once that it is served again.  What
 * is silenced is logged after the silence, if it still holds then.
 */
static void
watch_unserved(Watch *watch, const PrkSample *sample, const PrkBoard *board,
			   const PrkSilences *silences)
{
	PrkFailures *failures = prk_failures_read();
	ListCell   *cell;

	prk_unserved_settle(sample, failures, board);
	foreach(cell, watch->unserved)
		((Told *) lfirst(cell))->seen = false;
	foreach(cell, prk_unserved_list(sample, failures, board))
	{
		const PrkUnserved *unserved = lfirst(cell);
		const char *name = unserved->name != NULL ? unserved->name : "";
		Told	   *told = find_told(watch, name, unserved->code);
		PrkThresholds thresholds;

		if (unserved->name != NULL)
			prk_settings_thresholds(name, &thresholds);
		else
			prk_settings_own_thresholds(PRK_SERVER_NAME, &thresholds);
		if (told == NULL)
		{
			MemoryContext old = MemoryContextSwitchTo(watch->context);

			told = palloc0(sizeof(Told));
			strlcpy(told->name, name, sizeof(told->name));
			told->code = unserved->code;
			told->since = sample->taken_at;
			watch->unserved = lappend(watch->unserved, told);
			MemoryContextSwitchTo(old);
		}
		told->seen = true;
		if (!told->logged && !thresholds.off &&
			!is_muted(silences, name, told->code))
		{
			prk_announce_unserved(unserved);
			told->logged = true;
		}
	}
	foreach(cell, watch->unserved)
	{
		Told	   *told = lfirst(cell);

		if (told->seen ||
			(told->logged && is_muted(silences, told->name, told->code)))
			continue;
		if (told->logged)
			prk_announce_served(told->name, sample->taken_at - told->since);
		watch->unserved = foreach_delete_current(watch->unserved, cell);
		pfree(told);
	}
}

/* What was noted of this before; NULL: nothing. */
static Told *
find_told(const Watch *watch, const char *name, PrkCode code)
{
	ListCell   *cell;

	foreach(cell, watch->unserved)
	{
		Told	   *told = lfirst(cell);

		if (told->code == code && strcmp(told->name, name) == 0)
			return told;
	}
	return NULL;
}

/* Is a replica, or with "" the server itself, silenced for this cause? */
static bool
is_muted(const PrkSilences *silences, const char *name, PrkCode code)
{
	return prk_silence_mutes(name[0] != '\0' ?
							 prk_silence_of_replica(silences, name) :
							 prk_silence_find(silences, PRK_SERVER_NAME),
							 code, PRK_CRITICAL);
}
