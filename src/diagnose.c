/*-------------------------------------------------------------------------
 *
 * diagnose.c
 *	  From evidence to root causes.  Pure functions.
 *
 * One cause gives one diagnosis: a replica that the slot's limit has cut off
 * is "slot_lost", not also down, refused and behind.  So for each replica the
 * rules are asked in the order in which one cause explains the next, and the
 * first that finds something ends the search.  Causes of the server itself
 * are looked for apart.
 *
 * A failure to connect is evidence only while it is recent, and only of what
 * has not connected since.
 *
 * Each remedy can be run as it stands.  What can't be done by SQL on this
 * server stands in it as a comment.  No remedy lets in an address that only a
 * failed connection has named.
 *
 * IDENTIFICATION
 *	  src/diagnose.c
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "replication/slot.h"
#include "replication/syncrep.h"
#include "replication/walsender.h"
#include "utils/builtins.h"
#include "utils/guc.h"
#include "utils/timestamp.h"

#include "diagnose.h"
#include "format.h"

/* A receiver tries again each wal_retrieve_retry_interval, 5 s by default. */
#define RECENT			120000	/* milliseconds */

/* Every code there is, and what doc/diagnoses.md is compared with. */
static const char *const codes[] = {
	"auth_failed",
	"checkpoint_blocked",
	"disk_filling",
	"flush_slow",
	"hba_error",
	"hba_no_entry",
	"hba_rejects",
	"hba_shadowed",
	"network_slow",
	"no_password",
	"orphan_role",
	"orphan_rule",
	"orphan_slot",
	"other_cluster",
	"other_timeline",
	"parameters_too_low",
	"receiver_stalled",
	"replay_conflict",
	"replay_paused",
	"replay_slow",
	"replica_down",
	"replica_never_seen",
	"restart_would_fail",
	"role_cannot_replicate",
	"role_missing",
	"slot_at_risk",
	"slot_lost",
	"slot_missing",
	"slot_taken",
	"slot_unlimited",
	"slot_unused",
	"slots_exhausted",
	"sync_standby_missing",
	"tls_required",
	"upstream_refused",
	"upstream_unreachable",
	"wal_removed",
	"walsenders_exhausted",
	"worker_stale",
	"xmin_held_back"
};

static void diagnose_files(PrkFindings *findings);
static void diagnose_limits(PrkFindings *findings);
static void diagnose_unlimited(PrkFindings *findings);
static void diagnose_sync(PrkFindings *findings);
static void diagnose_leftovers(PrkFindings *findings);
static void diagnose_worker(PrkFindings *findings);
static void diagnose_disk(PrkFindings *findings);
static int	compare_diagnoses(const ListCell *a, const ListCell *b);

/*
 * PrkDiagnoses, the worst first, then those of the server itself, then by
 * name; palloc'd in the caller's memory context.  NIL: nothing is wrong.
 */
List *
prk_diagnose(const PrkEvidence *evidence)
{
	PrkFindings findings = {evidence, NIL};

	diagnose_files(&findings);
	diagnose_limits(&findings);
	diagnose_unlimited(&findings);
	diagnose_sync(&findings);
	diagnose_worker(&findings);
	diagnose_disk(&findings);
	prk_diagnose_replicas(&findings);
	prk_diagnose_attempts(&findings);
	diagnose_leftovers(&findings);
	if (evidence->upstream.in_recovery)
		prk_diagnose_standby(&findings);
	list_sort(findings.diagnoses, compare_diagnoses);
	return findings.diagnoses;
}

/* A gravity in the words of SQL. */
const char *
prk_gravity_name(PrkGravity gravity)
{
	switch (gravity)
	{
		case PRK_GRAVITY_INFO:
			return "info";
		case PRK_GRAVITY_WARNING:
			return "warning";
		case PRK_GRAVITY_CRITICAL:
			return "critical";
	}
	pg_unreachable();
}

/* What is found below any threshold is told, no more. */
PrkGravity
prk_gravity_of(PrkLevel level)
{
	switch (level)
	{
		case PRK_OK:
			return PRK_GRAVITY_INFO;
		case PRK_WARNING:
			return PRK_GRAVITY_WARNING;
		case PRK_CRITICAL:
			return PRK_GRAVITY_CRITICAL;
	}
	pg_unreachable();
}

/* Adds a diagnosis, of which the caller fills in the words. */
PrkDiagnosis *
prk_diagnose_add(PrkFindings *findings, PrkGravity gravity, const char *code,
				 const char *name)
{
	PrkDiagnosis *diagnosis = palloc0(sizeof(PrkDiagnosis));

	for (int i = 0; i < (int) lengthof(codes); i++)
	{
		if (strcmp(codes[i], code) == 0)
			diagnosis->code = codes[i];
	}
	Assert(diagnosis->code != NULL);
	diagnosis->gravity = gravity;
	diagnosis->name = name;
	findings->diagnoses = lappend(findings->diagnoses, diagnosis);
	return diagnosis;
}

/* Would whoever failed so have tried again by now? */
bool
prk_diagnose_is_recent(const PrkEvidence *evidence, const PrkFailure *failure)
{
	return !TimestampDifferenceExceeds(failure->last_at, evidence->now,
									   RECENT);
}

/* A failure as evidence: its words, how often, and when last. */
const char *
prk_diagnose_counted(const PrkFailure *failure)
{
	char		when[PRK_FORMAT_LEN];

	return psprintf("%s (" INT64_FORMAT " times, last at %s)",
					prk_format_foreign(failure->message), failure->count,
					prk_format_time(when, failure->last_at));
}

/* The statements that change a setting for the whole server. */
const char *
prk_diagnose_setting(const char *name, const char *value)
{
	return psprintf("ALTER SYSTEM SET %s = %s;\nSELECT pg_reload_conf();",
					name, quote_literal_cstr(value));
}

/* Configuration files with which a restart would be the end. */
static void
diagnose_files(PrkFindings *findings)
{
	const PrkEvidence *evidence = findings->evidence;
	PrkDiagnosis *diagnosis;

	if (evidence->hba_error != NULL)
	{
		diagnosis = prk_diagnose_add(findings, PRK_GRAVITY_CRITICAL,
									 "hba_error", NULL);
		diagnosis->finding = "pg_hba.conf has an error: the server goes on with the rules that it has in memory, and would not start with the file";
		diagnosis->evidence = evidence->hba_error;
		diagnosis->remedy =
			psprintf("-- Correct the line in %s, then run:\nSELECT pg_reload_conf();",
					 HbaFileName);
	}
	if (evidence->config_error != NULL)
	{
		diagnosis = prk_diagnose_add(findings, PRK_GRAVITY_CRITICAL,
									 "restart_would_fail", NULL);
		diagnosis->finding = "the configuration has an error with which the server would not start";
		diagnosis->evidence = evidence->config_error;
		diagnosis->remedy = "-- Correct the file, then run:\nSELECT pg_reload_conf();";
	}
}

/* Walsenders and slots are numbered, and somebody went without. */
static void
diagnose_limits(PrkFindings *findings)
{
	const PrkEvidence *evidence = findings->evidence;
	const PrkAttempt *no_walsender = NULL;
	const PrkAttempt *no_slot = NULL;
	PrkDiagnosis *diagnosis;

	for (int i = evidence->nattempts - 1; i >= 0; i--)
	{
		const PrkAttempt *attempt = &evidence->attempts[i];

		if (!prk_diagnose_is_recent(evidence, attempt->failure))
			continue;
		if (attempt->kind == PRK_FAILURE_TOO_MANY)
			no_walsender = attempt;
		else if (attempt->kind == PRK_FAILURE_NO_SLOT_FREE)
			no_slot = attempt;
	}

	if (no_walsender != NULL && evidence->walsenders_used >= max_wal_senders)
	{
		diagnosis = prk_diagnose_add(findings, PRK_GRAVITY_CRITICAL,
									 "walsenders_exhausted", NULL);
		diagnosis->finding = "all walsenders are in use: no further replica or base backup can connect until one ends, or more are allowed and the server restarted";
		diagnosis->evidence =
			psprintf("max_wal_senders is %d, in use %d; %s", max_wal_senders,
					 evidence->walsenders_used,
					 prk_diagnose_counted(no_walsender->failure));
		diagnosis->remedy =
			psprintf("ALTER SYSTEM SET max_wal_senders = %d;\n-- Raise it on each standby first, then restart this server.",
					 max_wal_senders + 10);
	}
	if (no_slot != NULL && evidence->slots_used >= max_replication_slots)
	{
		diagnosis = prk_diagnose_add(findings, PRK_GRAVITY_WARNING,
									 "slots_exhausted", NULL);
		diagnosis->finding = "all replication slots are in use: no replica can be added, and no base backup made, until one is dropped, or more are allowed and the server restarted";
		diagnosis->evidence =
			psprintf("max_replication_slots is %d; %s", max_replication_slots,
					 prk_diagnose_counted(no_slot->failure));
		diagnosis->remedy =
			psprintf("ALTER SYSTEM SET max_replication_slots = %d;\n-- Then restart this server.",
					 max_replication_slots + 10);
	}
}

/*
 * Slots that nobody uses and that no limit stops, once they hold more WAL
 * than checkpoints would keep anyway.
 */
static void
diagnose_unlimited(PrkFindings *findings)
{
	const PrkReport *report = findings->evidence->report;
	const PrkReplica *worst = NULL;
	int			count = 0;
	int64		wanted;
	char		size[PRK_FORMAT_LEN];
	PrkDiagnosis *diagnosis;

	if (report->sample->slot_keep_limit >= 0)
		return;
	for (int i = 0; i < report->nrows; i++)
	{
		const PrkReplica *replica = report->rows[i].replica;

		if (!replica->has_slot || replica->pid != 0 || replica->synced ||
			replica->wal_status != PRK_WAL_EXTENDED)
			continue;
		count++;
		if (worst == NULL || replica->retained_bytes > worst->retained_bytes)
			worst = replica;
	}
	if (worst == NULL)
		return;

	/* Room for twice what is held now, so that no slot is lost by the cure. */
	wanted = Max(2 * worst->retained_bytes / (1024 * 1024), 1024);
	diagnosis = prk_diagnose_add(findings, PRK_GRAVITY_WARNING,
								 "slot_unlimited", NULL);
	diagnosis->finding = "slots without a replica hold WAL and nothing limits them: in the end they fill the disk and stop this server";
	diagnosis->evidence =
		psprintf("max_slot_wal_keep_size is -1; %d such, slot \"%s\" retains %s",
				 count, worst->name,
				 prk_format_size(size, worst->retained_bytes));
	diagnosis->remedy =
		prk_diagnose_setting("max_slot_wal_keep_size",
							 psprintf(INT64_FORMAT "MB", wanted));
}

/* Commits that wait for a standby that is not there. */
static void
diagnose_sync(PrkFindings *findings)
{
	const PrkEvidence *evidence = findings->evidence;
	PrkDiagnosis *diagnosis;

	if (evidence->sync_there >= evidence->sync_wanted)
		return;
	diagnosis = prk_diagnose_add(findings, PRK_GRAVITY_CRITICAL,
								 "sync_standby_missing", NULL);
	diagnosis->finding = "commits wait for a synchronous standby that is not connected";
	diagnosis->evidence =
		psprintf("synchronous_standby_names is \"%s\": %d wanted, %d there",
				 SyncRepStandbyNames, evidence->sync_wanted,
				 evidence->sync_there);
	diagnosis->remedy =
		psprintf("-- Start the standby; commits go on by themselves.  To go on without it:\n%s",
				 prk_diagnose_setting("synchronous_standby_names", ""));
}

/* What the kit made, and has nothing to serve any more. */
static void
diagnose_leftovers(PrkFindings *findings)
{
	const PrkEvidence *evidence = findings->evidence;
	ListCell   *cell;

	foreach(cell, evidence->leftovers)
	{
		const PrkLeftover *leftover = lfirst(cell);
		PrkDiagnosis *diagnosis;
		bool		wanted = false;
		ListCell   *other;

		/* Whoever asks for it in vain is a case of its own. */
		foreach(other, findings->diagnoses)
		{
			const PrkDiagnosis *found = lfirst(other);

			if (found->name != NULL &&
				strcmp(found->name, leftover->name) == 0)
				wanted = true;
		}
		if (wanted)
			continue;
		if (leftover->role_name != NULL)
		{
			diagnosis = prk_diagnose_add(findings, PRK_GRAVITY_WARNING,
										 "orphan_role", leftover->name);
			diagnosis->finding = "the replica has a role but no slot: it can connect, and nothing holds its WAL";
			diagnosis->evidence =
				psprintf("role \"%s\" is marked as its, slot \"%s\" does not exist",
						 leftover->role_name, leftover->name);
		}
		else
		{
			diagnosis = prk_diagnose_add(findings, PRK_GRAVITY_INFO,
										 "orphan_rule", leftover->name);
			diagnosis->finding = "pg_hba.conf has a rule for a replica that has neither slot nor role";
			diagnosis->evidence =
				psprintf("a line of %s ends in \"%s%s\"", HbaFileName,
						 "# pg_replica_kit: ", leftover->name);
		}
		diagnosis->remedy =
			psprintf("SELECT * FROM replica_kit.deprovision(%s);",
					 quote_literal_cstr(leftover->name));
	}
}

/* Who watches the watcher */
static void
diagnose_worker(PrkFindings *findings)
{
	const PrkReport *report = findings->evidence->report;
	PrkDiagnosis *diagnosis;

	if (report->worker_trouble == NULL)
		return;
	diagnosis = prk_diagnose_add(findings, PRK_GRAVITY_WARNING,
								 "worker_stale", NULL);
	diagnosis->finding = "the worker hangs or does not run: nothing is watched, and there are no new alerts";
	diagnosis->evidence = report->worker_trouble;
	diagnosis->remedy = report->board->worker_pid != 0 ?
		psprintf("-- As the server's user run this; it is started again within 10 s:\n-- kill %d",
				 report->board->worker_pid) :
		"-- Look for its last words in the log; it is started again every 10 s.\n-- If the log has none, but \"too many background workers\" from the server's start, raise max_worker_processes and restart.";
}

/*
 * The disk of pg_wal, as the worker forecasts it, and only once it has
 * announced that: a burst of writing fills no disk.
 */
static void
diagnose_disk(PrkFindings *findings)
{
	const PrkReport *report = findings->evidence->report;
	const PrkDisk *disk = &report->board->server.disk;
	PrkGravity	gravity = PRK_GRAVITY_WARNING;
	PrkDiagnosis *diagnosis;
	char		full_in[PRK_FORMAT_LEN];
	char		size[PRK_FORMAT_LEN];
	char		held[PRK_FORMAT_LEN];

	if (!report->watched || !disk->known || disk->full_in < 0 ||
		report->board->server.alert == PRK_OK)
		return;
	if (report->board->server.alert == PRK_CRITICAL)
		gravity = PRK_GRAVITY_CRITICAL;

	diagnosis = prk_diagnose_add(findings, gravity, "disk_filling", NULL);
	diagnosis->finding =
		psprintf("disk of pg_wal will be full in %s, and then this server stops",
				 prk_format_duration(full_in, disk->full_in));
	diagnosis->evidence =
		psprintf("%s free%s%s%s%s", prk_format_size(size, disk->free_bytes),
				 disk->holder[0] != '\0' ? "; slot \"" : "", disk->holder,
				 disk->holder[0] != '\0' ? "\" holds " : "",
				 disk->holder[0] != '\0' ?
				 prk_format_size(held, disk->held_bytes) : "");
	if (disk->holder[0] == '\0')
		diagnosis->remedy = "-- Make room on the disk of pg_wal.";
	else
		diagnosis->remedy =
			psprintf("-- Mend or give up the replica that holds most; what is wrong with it:\nSELECT * FROM replica_kit.diagnose(%s);",
					 quote_literal_cstr(disk->holder));
}

static int
compare_diagnoses(const ListCell *a, const ListCell *b)
{
	const PrkDiagnosis *diagnosis1 = lfirst(a);
	const PrkDiagnosis *diagnosis2 = lfirst(b);

	if (diagnosis1->gravity != diagnosis2->gravity)
		return diagnosis1->gravity > diagnosis2->gravity ? -1 : 1;
	if (diagnosis1->name == NULL || diagnosis2->name == NULL)
		return (diagnosis1->name != NULL) - (diagnosis2->name != NULL);
	return strcmp(diagnosis1->name, diagnosis2->name);
}
