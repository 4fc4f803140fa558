/*-------------------------------------------------------------------------
 *
 * words_server.c
 *	  Words for what is wrong with this server itself.
 *
 * IDENTIFICATION
 *	  src/diagnose/words_server.c
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "replication/slot.h"
#include "replication/syncrep.h"
#include "replication/walsender.h"
#include "utils/guc.h"

#include "diagnose/words.h"
#include "foreign.h"
#include "version.h"

/* So many more walsenders or slots are allowed. */
#define MORE			10

static void word_walsenders(const PrkWordsInput *in, PrkWords *words);
static void word_slots(const PrkWordsInput *in, PrkWords *words);
static void word_unlimited(const PrkWordsInput *in, PrkWords *words);
static void word_sync(const PrkWordsInput *in, PrkWords *words);
static void word_worker(const PrkWordsInput *in, PrkWords *words);
static void word_library(const PrkWordsInput *in, PrkWords *words);
static void word_promoted(const PrkWordsInput *in, PrkWords *words);
static void word_disk(const PrkWordsInput *in, PrkWords *words);
static void word_awaited(const PrkWordsInput *in, PrkWords *words);
static void word_collations(const PrkWordsInput *in, PrkWords *words);
static void word_archive(const PrkWordsInput *in, PrkWords *words);

/* Puts a diagnosis of this server itself into words. */
void
prk_words_server(const PrkWordsInput *in, PrkWords *words)
{
	const PrkDiagnosis *diagnosis = in->diagnosis;

	switch (diagnosis->code)
	{
		case PRK_CODE_HBA_ERROR:
			words->finding = "pg_hba.conf has an error: the rules in memory still hold, but the next start would fail.";
			prk_words_clause(words, "%s", diagnosis->words);
			prk_words_clause(words, "file %s", HbaFileName);
			prk_words_advise(words, "Correct the line in that file, then: SELECT pg_reload_conf();");
			break;
		case PRK_CODE_RESTART_WOULD_FAIL:
			words->finding = "The configuration has an error with which the server would not start.";
			prk_words_clause(words, "%s", diagnosis->words);
			prk_words_advise(words, "Correct the file, then: SELECT pg_reload_conf();");
			break;
		case PRK_CODE_RELOAD_NEEDED:
			words->finding = "The remedies above change settings, which take effect after a reload.";
			prk_words_clause(words, diagnosis->count == 1 ?
							 "%d remedy is ALTER SYSTEM" :
							 "%d remedies are ALTER SYSTEM", diagnosis->count);
			prk_remedy_reload(words);
			break;
		case PRK_CODE_WALSENDERS_EXHAUSTED:
			word_walsenders(in, words);
			break;
		case PRK_CODE_SLOTS_EXHAUSTED:
			word_slots(in, words);
			break;
		case PRK_CODE_SLOT_UNLIMITED:
			word_unlimited(in, words);
			break;
		case PRK_CODE_SYNC_STANDBY_MISSING:
			word_sync(in, words);
			break;
		case PRK_CODE_WORKER_STALE:
			word_worker(in, words);
			break;
		case PRK_CODE_NEWER_TIMELINE_EXISTS:
			words->finding = "A replica asks for a timeline that this server does not have: another server was promoted.";
			prk_words_failure(words, in->diagnosis->attempt->failure);
			prk_words_clause(words, "timeline %u here",
							 in->evidence->report->sample->timeline);
			prk_words_advise(words, "Stop this server if the other one is the primary now: two primaries lose data.");
			prk_words_advise(words, "Start nothing on it; what only it has is lost for the other.");
			break;
		case PRK_CODE_LIBRARY_OUTDATED:
			word_library(in, words);
			break;
		case PRK_CODE_PROMOTED:
			word_promoted(in, words);
			break;
		case PRK_CODE_DISK_FILLING:
			word_disk(in, words);
			break;
		case PRK_CODE_LOGICAL_WAITS_FOR_STANDBY:
			word_awaited(in, words);
			break;
		case PRK_CODE_COLLATION_VERSION_MISMATCH:
			word_collations(in, words);
			break;
		case PRK_CODE_ARCHIVE_FAILING:
			word_archive(in, words);
			break;
		default:
			elog(ERROR, "no words for diagnosis \"%s\" of the server",
				 prk_code_name(diagnosis->code));
	}
}

/*
 * The library, the extension's SQL and the installed files are of different
 * versions.
 */
static void
word_library(const PrkWordsInput *in, PrkWords *words)
{
	const char *sql = in->evidence->sql_version;
	const char *files = in->evidence->files_version;
	bool		sql_is_newer = sql != NULL &&
	strverscmp(sql, PRK_KIT_VERSION) > 0;
	bool		files_are_newer = files != NULL &&
	strverscmp(files, PRK_KIT_VERSION) > 0;

	prk_words_clause(words, "loaded library %s", PRK_KIT_VERSION);
	prk_words_clause(words, "SQL of the extension %s", sql ? sql : "unknown");
	prk_words_clause(words, "installed files %s", files ? files : "unknown");
	if (sql_is_newer)
	{
		words->finding = "The loaded library of pg_replica_kit is older than the extension's SQL: new and changed functions fail here.";
		if (!files_are_newer)
			prk_words_advise(words, "Install the package of version %s on this machine.", sql);
		prk_words_advise(words, "Restart this server.");
	}
	else if (files_are_newer)
	{
		words->finding = "A newer version of pg_replica_kit is installed than this server has loaded.";
		prk_words_advise(words, "Restart this server: the standbys first, then the primary.");
		prk_words_advise(words, "Last, on the primary: ALTER EXTENSION pg_replica_kit UPDATE;");
	}
	else
	{
		words->finding = "The extension's SQL is older than the loaded library of pg_replica_kit: it works as the older version did.";
		prk_words_advise(words, "Once every standby is restarted with the new library, run on the primary:");
		prk_words_advise(words, "  ALTER EXTENSION pg_replica_kit UPDATE;");
	}
}

/*
 * No remedy: a standby may not have fewer than its primary, so that raising it
 * here alone stops them at the next restart.
 */
static void
word_walsenders(const PrkWordsInput *in, PrkWords *words)
{
	words->finding = "All walsenders are in use: no further replica or base backup can connect.";
	prk_words_clause(words, "max_wal_senders is %d, in use %d",
					 max_wal_senders, in->evidence->walsenders_used);
	prk_words_failure(words, in->diagnosis->attempt->failure);
	prk_words_advise(words, "Wait for one to end; or allow more, first on each standby, then here, each with a restart:");
	prk_words_advise(words, "  ALTER SYSTEM SET max_wal_senders = %d;",
					 max_wal_senders + MORE);
}

static void
word_slots(const PrkWordsInput *in, PrkWords *words)
{
	words->finding = "All replication slots are in use: no replica can be added, and no base backup made.";
	prk_words_clause(words, "max_replication_slots is %d",
					 max_replication_slots);
	prk_words_failure(words, in->diagnosis->attempt->failure);
	prk_remedy_setting(words, "max_replication_slots",
					   psprintf("%d", max_replication_slots + MORE));
	prk_words_advise(words, "The remedy takes effect after a restart of this server. Sooner: drop a slot that nobody needs.");
}

static void
word_unlimited(const PrkWordsInput *in, PrkWords *words)
{
	const PrkDiagnosis *diagnosis = in->diagnosis;
	const PrkReplica *replica = diagnosis->row->replica;

	words->finding = "Slots without a replica retain WAL without limit: in the end they fill the disk, and this server stops.";
	prk_words_clause(words, "max_slot_wal_keep_size is -1");
	prk_words_clause(words, "%d such, slot %s retains %s", diagnosis->count,
					 prk_words_quoted(replica->slot_name),
					 prk_words_size(replica->retained_bytes));
	if (in->evidence->wal_free >= 0)
		prk_words_clause(words, "the disk of pg_wal has %s free",
						 prk_words_size(in->evidence->wal_free));
	if (diagnosis->limit >= 0)
	{
		prk_remedy_setting(words, "max_slot_wal_keep_size",
						   psprintf(INT64_FORMAT "MB",
									diagnosis->limit / (1024 * 1024)));
		prk_words_advise(words, "The remedy leaves room for what is retained now; no slot is lost by it.");
	}
	else
		prk_words_advise(words, "No limit is safe: the disk has no room beside what is retained now.");
	prk_words_advise(words, "Bring the replica back, or give it up: SELECT * FROM replica_kit.diagnose(%s);",
					 prk_words_literal(replica->name));
}

/* Commits that wait for a standby that is not there. */
static void
word_sync(const PrkWordsInput *in, PrkWords *words)
{
	const PrkSync *sync = &in->evidence->report->facts.sync;

	words->finding = in->diagnosis->gravity == PRK_GRAVITY_CRITICAL ?
		"Commits hang: no synchronous standby is connected. They finish as soon as one is; none is lost." :
		"A synchronous standby is missing: commits will wait for it. None is lost.";
	prk_words_clause(words, "synchronous_standby_names = %s: %d of %d connected",
					 prk_words_literal(SyncRepStandbyNames),
					 sync->there, sync->wanted);
	if (sync->waiting > 0)
		prk_words_clause(words, sync->waiting == 1 ? "%d session waits%s%s" :
						 "%d sessions wait, the first%s%s", sync->waiting,
						 sync->waited >= 0 ? " for " : "",
						 sync->waited >= 0 ?
						 prk_words_duration(sync->waited) : "");
	prk_words_advise(words, "Bring it back; its own row, or diagnose() on its own server, says why it is away.");
	prk_words_advise(words, "Or decide to go on without it; until it is back, a crash of this machine can lose commits:");
	prk_words_advise(words, "  ALTER SYSTEM SET synchronous_standby_names = '';");
	prk_words_advise(words, "  SELECT pg_reload_conf();");
}

/* The watcher itself */
static void
word_worker(const PrkWordsInput *in, PrkWords *words)
{
	int			pid = in->evidence->report->board->worker_pid;

	words->finding = "The worker hangs or does not run: nothing is watched, and there are no new alerts.";
	prk_words_clause(words, "%s", in->diagnosis->words);
	if (pid != 0)
	{
		prk_words_advise(words, "As the server's user run this; the server starts the worker again within 10 s:");
		prk_words_advise(words, "  kill %d", pid);
		return;
	}
	prk_words_advise(words, "Check the log for its last messages; the server starts it again every 10 s.");
	prk_words_advise(words, "If the log says \"too many background workers\", raise max_worker_processes and restart.");
}

/* This server was a standby. */
static void
word_promoted(const PrkWordsInput *in, PrkWords *words)
{
	const PrkSample *sample = in->evidence->report->sample;
	const PrkPast *past = &in->evidence->past;
	int			missing = in->diagnosis->count;
	bool		has_host = past->host[0] != '\0';

	words->finding =
		psprintf("This server was promoted %s ago (timeline %u). %s",
				 prk_words_duration(in->evidence->now - sample->timeline_at),
				 sample->timeline,
				 missing == 0 ? "No replica is attached to it." :
				 missing == 1 ? "1 replica is not attached to it yet." :
				 psprintf("%d replicas are not attached to it yet.", missing));
	prk_words_clause(words, "it was replica %s%s%s%s%s, until %s",
					 prk_words_quoted(past->name),
					 has_host ? " of " : "", past->host,
					 past->port[0] != '\0' ? ", port " : "", past->port,
					 prk_words_time(in->evidence, sample->timeline_at));
	prk_words_clause(words, "timeline %u begins at %X/%X", sample->timeline,
					 LSN_FORMAT_ARGS(sample->timeline_begin));
	prk_words_advise(words, "First make sure that %s is stopped and stays stopped: two primaries lose data.",
					 has_host ? past->host : "the former primary");
	prk_words_advise(words, missing > 0 ?
					 "Then go through the replicas below. The whole way: doc/failover.md" :
					 "Not meant? Then stop this server at once, and rebuild it as a replica: its script with --rebuild.");
	if (missing == 0)
		prk_words_advise(words, "Meant? Then make a replica: SELECT * FROM replica_kit.provision('NAME', 'ITS_ADDRESS');");
}

static void
word_disk(const PrkWordsInput *in, PrkWords *words)
{
	const PrkDisk *disk = &in->evidence->report->facts.disk;

	words->finding = psprintf("The disk of pg_wal will be full in %s; then this server stops.",
							  prk_words_duration(disk->full_in));
	prk_words_clause(words, "%s free", prk_words_size(disk->free_bytes));
	if (disk->keeper == PRK_KEEPER_SUMMARIZER)
	{
		prk_words_clause(words, "%s of WAL waits for the WAL summarizer",
						 prk_words_size(disk->held_bytes));
		prk_words_advise(words, "Check this server's log for the WAL summarizer's errors. To do without it, for the time being:");
		prk_words_advise(words, "  ALTER SYSTEM SET summarize_wal = off;");
		prk_words_advise(words, "  SELECT pg_reload_conf();");
	}
	else if (disk->keeper == PRK_KEEPER_SLOT)
	{
		prk_words_clause(words, "slot %s retains %s",
						 prk_words_quoted(disk->holder),
						 prk_words_size(disk->held_bytes));
		prk_words_advise(words, "Repair or remove the replica that retains the most WAL; what is wrong with it:");
		prk_words_advise(words, "  SELECT * FROM replica_kit.diagnose(%s);",
						 prk_words_literal(disk->holder));
	}
	prk_words_advise(words, "To gain time, free space on that disk. Never delete files in pg_wal by hand.");
}

/* WAL waits to be archived, and nothing is. */
static void
word_archive(const PrkWordsInput *in, PrkWords *words)
{
	const PrkReport *report = in->evidence->report;
	const PrkServerFacts *facts = &report->facts;
	const PrkArchive *archive = &facts->archiving.archive;
	bool		filling = facts->disk.keeper == PRK_KEEPER_ARCHIVER &&
	facts->disk.full_in >= 0;
	bool		fails = archive->last_failed_at > archive->last_archived_at;
	int64		retained = 0;

	for (int i = 0; i < report->nrows; i++)
		retained = Max(retained, report->rows[i].replica->retained_bytes);

	words->finding =
		psprintf("Archiving %s, so WAL files cannot be removed. %s",
				 !archive->configured ? "is not configured" :
				 fails ? "fails" : "stands still",
				 filling ?
				 psprintf("The disk of pg_wal is full in %s; then the server stops.",
						  prk_words_duration(facts->disk.full_in)) :
				 "None is lost.");
	if (fails)
		prk_words_clause(words, archive->failed_count == 1 ?
						 INT64_FORMAT " failure, %s on %s" :
						 INT64_FORMAT " failures, the last %s on %s",
						 archive->failed_count,
						 prk_words_ago(in->evidence, archive->last_failed_at),
						 archive->last_failed);
	prk_words_clause(words, "nothing was archived for %s",
					 prk_words_duration(facts->archiving.waited));
	prk_words_clause(words, archive->waiting == 1 ? "%d file waits (%s)" :
					 "%d files (%s) wait", archive->waiting,
					 prk_words_size(archive->waiting_bytes));
	if (in->evidence->wal_free >= 0)
		prk_words_clause(words, "%s free",
						 prk_words_size(in->evidence->wal_free));
	if (retained < archive->waiting_bytes)
		prk_words_clause(words, "slots retain %s: no replica is to blame",
						 prk_words_size(retained));

	if (!archive->configured)
	{
		prk_words_advise(words, "archive_mode is on, archive_command and archive_library are empty. Set the one that is wanted, and reload.");
		prk_words_advise(words, "If this WAL is not to be archived: ALTER SYSTEM SET archive_command = '/bin/true'; then reload.");
	}
	else if (fails)
		prk_words_advise(words, "Search this server's log for \"archive command failed\" and repair the archive; the rest goes by itself.");
	else
	{
		prk_words_advise(words, "No attempt has ended: look at the process \"archiver\" of this server and what it runs or waits for.");
		prk_words_advise(words, "If this server's log says \"archiving is not configured\", it read a file that was half written: SELECT pg_reload_conf();");
	}
	prk_words_advise(words, "To gain time, free space on that disk. Never delete files in pg_wal by hand.");
}

/* Logical subscribers receive nothing, for a standby's sake. */
static void
word_awaited(const PrkWordsInput *in, PrkWords *words)
{
	const PrkDiagnosis *diagnosis = in->diagnosis;
	const PrkReportRow *row = diagnosis->row;
	const char *name = diagnosis->other_name;

	words->finding = "Logical subscribers receive nothing: they wait for a standby that is away. No WAL is lost.";
	prk_words_clause(words, "synchronized_standby_slots names slot %s, which %s",
					 prk_words_quoted(name),
					 row == NULL ? "does not exist" :
					 row->replica->logical ? "is a logical one" :
					 row->replica->invalidation != NULL ? "is lost" :
					 "is not in use");
	prk_words_clause(words, diagnosis->count == 1 ?
					 "%d logical slot has failover set" :
					 "%d logical slots have failover set", diagnosis->count);
	if (row != NULL)
		prk_words_advise(words, "Bring the standby back: SELECT * FROM replica_kit.diagnose(%s);",
						 prk_words_literal(row->replica->name));
	prk_words_advise(words, "Or take %s out of the setting until then, and reload; subscribers may then be ahead of it:",
					 prk_words_quoted(name));
	prk_words_advise(words, "  ALTER SYSTEM SET synchronized_standby_slots = 'THE_OTHERS';");
}

/* On a standby, text sorts as another library has it. */
static void
word_collations(const PrkWordsInput *in, PrkWords *words)
{
	const PrkCollations *collations = &in->evidence->collations;

	words->finding = "Text may sort differently here than where its indexes were made: queries that use them can miss rows.";
	prk_words_clause(words, "collation version %s here",
					 prk_words_quoted(collations->here));
	if (collations->databases != NULL)
		prk_words_clause(words, "%s when databases were made: %s",
						 prk_words_quoted(collations->there),
						 prk_foreign_show_text(collations->databases));
	else
		prk_words_clause(words, "%s when collations of this database were made",
						 prk_words_quoted(collations->there));
	prk_words_clause(words, "indexes in this database that use such a collation: %d",
					 collations->indexes);
	prk_words_advise(words, "Send text queries to the primary until this machine runs the primary's OS release. Do not promote it.");
	prk_words_advise(words, "The indexes in question of this database:");
	prk_words_advise(words, "  SELECT DISTINCT i.indexrelid::regclass FROM pg_index i, unnest(i.indcollation) c, pg_collation l");
	prk_words_advise(words, "  WHERE l.oid = c AND (l.collversion <> pg_collation_actual_version(l.oid) OR l.collprovider = 'd'");
	prk_words_advise(words, "  AND EXISTS (SELECT FROM pg_database WHERE datname = current_database()");
	prk_words_advise(words, "  AND datcollversion <> pg_database_collation_actual_version(oid)));");
	prk_words_advise(words, "A REINDEX on the primary helps only if it has this version, too. Recording another version only hides this.");
}
