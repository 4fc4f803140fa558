/*-------------------------------------------------------------------------
 *
 * diagnose_server.c
 *	  What is wrong with this server itself.
 *
 * IDENTIFICATION
 *	  src/diagnose/diagnose_server.c
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "replication/slot.h"
#include "replication/syncrep.h"
#include "replication/walsender.h"
#include "utils/builtins.h"
#include "utils/guc.h"

#include "diagnose/diagnose_server.h"
#include "format.h"

static void diagnose_files(PrkFindings *findings);
static void diagnose_limits(PrkFindings *findings);
static void diagnose_unlimited(PrkFindings *findings);
static void diagnose_sync(PrkFindings *findings);
static void diagnose_worker(PrkFindings *findings);
static void diagnose_disk(PrkFindings *findings);

/* Looks for causes that concern the whole server. */
void
prk_diagnose_server(PrkFindings *findings)
{
	diagnose_files(findings);
	diagnose_limits(findings);
	diagnose_unlimited(findings);
	diagnose_sync(findings);
	diagnose_worker(findings);
	diagnose_disk(findings);
}

/*
 * What the kit made, and has nothing to serve any more.  To be called last:
 * what another finding names is left out.
 */
void
prk_diagnose_leftovers(PrkFindings *findings)
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
