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
#include "replication/walsender.h"

#include "diagnose/diagnose_server.h"
#include "version.h"

static void diagnose_files(PrkFindings *findings);
static void diagnose_limits(PrkFindings *findings);
static void diagnose_unlimited(PrkFindings *findings);
static void diagnose_troubles(PrkFindings *findings);
static void diagnose_awaited(PrkFindings *findings);
static void diagnose_versions(PrkFindings *findings);
static PrkDiagnosis *add(PrkFindings *findings, PrkCode code);

/* Looks for causes that concern the whole server. */
void
prk_diagnose_server(PrkFindings *findings)
{
	const PrkEvidence *evidence = findings->evidence;

	diagnose_files(findings);
	diagnose_limits(findings);
	diagnose_unlimited(findings);
	diagnose_troubles(findings);
	diagnose_awaited(findings);
	diagnose_versions(findings);
	if (evidence->report->worker_trouble != NULL)
		add(findings, PRK_CODE_WORKER_STALE)->words =
			evidence->report->worker_trouble;
}

/*
 * What the kit made, and has nothing to serve any more: the slots of a
 * promoted server's siblings did not come along, and their roles did.  To be
 * called last: what another finding names is left out.
 */
void
prk_diagnose_leftovers(PrkFindings *findings)
{
	const PrkEvidence *evidence = findings->evidence;
	bool		is_alone = true;
	int			missing = 0;
	ListCell   *cell;

	foreach(cell, evidence->leftovers)
	{
		const PrkLeftover *leftover = lfirst(cell);
		PrkDiagnosis *diagnosis;

		/* A replica that asks for the missing slot has a row of its own. */
		if (prk_diagnose_has(findings, leftover->name))
			continue;

		/* This server's own former name is not an absent replica. */
		if (evidence->past.promoted &&
			strcmp(evidence->past.name, leftover->name) == 0)
			continue;
		diagnosis = prk_diagnose_add(findings, PRK_CODE_ORPHAN_RULE,
									 PRK_SUBJECT_REPLICA, leftover->name);
		diagnosis->leftover = leftover;
		diagnosis->role_name = leftover->role_name;
		diagnosis->address = leftover->address;
		diagnosis->line_number = leftover->line_number;
		if (leftover->role_name == NULL)
			continue;
		diagnosis->code = PRK_CODE_ORPHAN_ROLE;
		if (evidence->past.promoted || diagnosis->address != NULL)
		{
			diagnosis->code = PRK_CODE_REPLICA_NOT_ATTACHED;
			missing++;
		}
		diagnosis->gravity = prk_code_info(diagnosis->code)->gravity;
	}

	for (int i = 0; i < evidence->report->nrows; i++)
	{
		const PrkReplica *replica = evidence->report->rows[i].replica;

		if (replica->has_slot && !replica->logical)
			is_alone = false;
	}
	if (evidence->past.promoted && (missing > 0 || is_alone))
		add(findings, PRK_CODE_PROMOTED)->count = missing;
}

/* Configuration files with which a restart would be the end. */
static void
diagnose_files(PrkFindings *findings)
{
	const PrkEvidence *evidence = findings->evidence;

	if (evidence->hba_error != NULL)
		add(findings, PRK_CODE_HBA_ERROR)->words = evidence->hba_error;
	if (evidence->config_error != NULL)
		add(findings, PRK_CODE_RESTART_WOULD_FAIL)->words =
			evidence->config_error;
}

/*
 * A preloaded library stays until the restart, and SQL is replicated: so the
 * library, the extension's SQL and the installed files can be of three
 * versions.  With SQL that is newer than the library functions can fail.
 */
static void
diagnose_versions(PrkFindings *findings)
{
	const PrkEvidence *evidence = findings->evidence;
	int			sql = 0;
	int			files = 0;

	if (evidence->sql_version != NULL)
		sql = strverscmp(evidence->sql_version, PRK_KIT_VERSION);
	if (evidence->files_version != NULL)
		files = strverscmp(evidence->files_version, PRK_KIT_VERSION);
	if (sql > 0)
		add(findings, PRK_CODE_LIBRARY_OUTDATED)->gravity = PRK_GRAVITY_WARNING;
	else if (sql < 0 || files > 0)
		add(findings, PRK_CODE_LIBRARY_OUTDATED);
}

/*
 * Walsenders and slots are numbered, and somebody went without; or came from
 * a timeline that this server does not have.
 */
static void
diagnose_limits(PrkFindings *findings)
{
	const PrkEvidence *evidence = findings->evidence;
	const PrkAttempt *no_walsender = NULL;
	const PrkAttempt *no_slot = NULL;
	const PrkAttempt *newer = NULL;

	for (int i = evidence->nattempts - 1; i >= 0; i--)
	{
		const PrkAttempt *attempt = &evidence->attempts[i];

		if (!prk_diagnose_is_recent(evidence, attempt->failure))
			continue;
		if (attempt->kind == PRK_FAILURE_TOO_MANY)
			no_walsender = attempt;
		else if (attempt->kind == PRK_FAILURE_NO_SLOT_FREE)
			no_slot = attempt;
		else if (attempt->kind == PRK_FAILURE_NEWER_TIMELINE)
			newer = attempt;
	}
	if (newer != NULL)
		add(findings, PRK_CODE_NEWER_TIMELINE_EXISTS)->attempt = newer;
	if (no_walsender != NULL && evidence->walsenders_used >= max_wal_senders)
		add(findings, PRK_CODE_WALSENDERS_EXHAUSTED)->attempt = no_walsender;
	if (no_slot != NULL && evidence->slots_used >= max_replication_slots)
		add(findings, PRK_CODE_SLOTS_EXHAUSTED)->attempt = no_slot;
}

/*
 * Slots that nobody uses and that no limit stops, once they hold more WAL
 * than checkpoints would keep anyway.
 */
static void
diagnose_unlimited(PrkFindings *findings)
{
	const PrkReport *report = findings->evidence->report;
	const PrkReportRow *worst = NULL;
	int			count = 0;
	int64		retained;
	PrkDiagnosis *diagnosis;

	if (report->sample->slot_keep_limit >= 0)
		return;
	for (int i = 0; i < report->nrows; i++)
	{
		const PrkReportRow *row = &report->rows[i];

		if (!row->replica->has_slot || row->replica->pid != 0 ||
			row->replica->synced ||
			row->replica->wal_status != PRK_WAL_EXTENDED)
			continue;
		count++;
		if (worst == NULL ||
			row->replica->retained_bytes > worst->replica->retained_bytes)
			worst = row;
	}
	if (worst == NULL)
		return;

	/* Room for twice what is held now, so that no slot is lost by the cure. */
	retained = worst->replica->retained_bytes;
	diagnosis = add(findings, PRK_CODE_SLOT_UNLIMITED);
	diagnosis->row = worst;
	diagnosis->count = count;
	diagnosis->limit =
		prk_diagnose_wal_limit(findings->evidence,
							   Max(2 * retained, INT64CONST(1) << 30));
}

/*
 * What the judge finds of the server as a whole.  The disk is told only once
 * that was announced: a burst of writing fills no disk.
 */
static void
diagnose_troubles(PrkFindings *findings)
{
	const PrkReport *report = findings->evidence->report;

	for (int i = 0; i < PRK_NTROUBLES; i++)
	{
		const PrkReportTrouble *trouble = &report->troubles[i];

		if (trouble->verdict.code == PRK_CODE_NONE ||
			(i == PRK_TROUBLE_DISK && trouble->alert == PRK_OK))
			continue;
		add(findings, trouble->verdict.code)->gravity =
			prk_gravity_of(trouble->effective);
	}
}

/*
 * Logical subscribers stand still with a standby.  The restart of a standby
 * that has its slot is no more than an info, as of the standby itself.
 */
static void
diagnose_awaited(PrkFindings *findings)
{
	const PrkEvidence *evidence = findings->evidence;
	const PrkReportRow *row = evidence->awaited_row;
	PrkDiagnosis *diagnosis;

	if (evidence->awaited == NULL)
		return;
	diagnosis = add(findings, PRK_CODE_LOGICAL_WAITS_FOR_STANDBY);
	diagnosis->row = row;
	diagnosis->count = evidence->nawaiting;
	diagnosis->other_name = evidence->awaited;
	if (row != NULL && !row->replica->logical &&
		row->replica->invalidation == NULL && row->effective == PRK_OK)
		diagnosis->gravity = PRK_GRAVITY_INFO;
}

static PrkDiagnosis *
add(PrkFindings *findings, PrkCode code)
{
	return prk_diagnose_add(findings, code, PRK_SUBJECT_SERVER, NULL);
}
