/*-------------------------------------------------------------------------
 *
 * diagnose_replicas.c
 *	  What is wrong with each replica of this server.
 *
 * IDENTIFICATION
 *	  src/diagnose/diagnose_replicas.c
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "postmaster/autovacuum.h"

#include "diagnose/diagnose_attempts.h"
#include "diagnose/diagnose_replicas.h"

/* A foreign slot that was not used for this long is forgotten. */
#define UNUSED_TIME		USECS_PER_DAY

static void diagnose_replica(PrkFindings *findings, const PrkReportRow *row,
							 const PrkOwner *owner);
static bool diagnose_lost(PrkFindings *findings, const PrkReportRow *row,
						  const PrkOwner *owner);
static void diagnose_absent(PrkFindings *findings, const PrkReportRow *row,
							const PrkOwner *owner);
static bool diagnose_refused(PrkFindings *findings, const PrkReportRow *row,
							 const PrkOwner *owner);
static void diagnose_shut_out(PrkFindings *findings, const PrkReportRow *row,
							  const PrkOwner *owner);
static void diagnose_present(PrkFindings *findings, const PrkReportRow *row,
							 const PrkOwner *owner);
static bool diagnose_taken(PrkFindings *findings, const PrkReportRow *row,
						   const PrkOwner *owner);
static bool diagnose_at_risk(PrkFindings *findings, const PrkReportRow *row,
							 const PrkOwner *owner);
static int64 raised_limit(const PrkEvidence *evidence,
						  const PrkReportRow *row);
static const PrkAttempt *newest_attempt(const PrkEvidence *evidence,
										const char *name);
static bool left_together(const PrkEvidence *evidence);
static bool is_at_risk(const PrkReportRow *row);
static bool is_held(const PrkEvidence *evidence, const PrkReportRow *row);
static const PrkDeparted *departed_of(const PrkEvidence *evidence,
									  const PrkReportRow *row);
static PrkDiagnosis *add(PrkFindings *findings, PrkCode code,
						 const PrkReportRow *row, const PrkOwner *owner);

/* Looks at each row of the report. */
void
prk_diagnose_replicas(PrkFindings *findings)
{
	const PrkEvidence *evidence = findings->evidence;

	for (int i = 0; i < evidence->report->nrows; i++)
	{
		const PrkReportRow *row = &evidence->report->rows[i];
		PrkThresholds thresholds;

		prk_settings_thresholds(row->replica->name, &thresholds);
		if (thresholds.off || row->replica->temporary ||
			row->replica->synced || row->verdict.state == PRK_STATE_BACKUP)
			continue;

		/* It will fail like the last one, which is diagnosed as that. */
		if (!row->replica->has_slot &&
			prk_diagnose_is_attempt(evidence, row->replica) &&
			newest_attempt(evidence, row->replica->name) != NULL)
			continue;
		diagnose_replica(findings, row, &evidence->owners[i]);

		/* It streams, and would not be let in again. */
		if (evidence->reconnects[i].barrier != PRK_BARRIER_NONE)
			add(findings, PRK_CODE_RECONNECT_WOULD_FAIL, row,
				&evidence->owners[i])->reconnect = &evidence->reconnects[i];
	}
}

static void
diagnose_replica(PrkFindings *findings, const PrkReportRow *row,
				 const PrkOwner *owner)
{
	if (diagnose_lost(findings, row, owner))
	{
		/* Rebuilt, it would still not be let in. */
		if (row->replica->pid == 0)
			diagnose_shut_out(findings, row, owner);
		return;
	}
	if (row->replica->pid == 0)
		diagnose_absent(findings, row, owner);
	else
		diagnose_present(findings, row, owner);

	/* Its snapshot keeps dead rows from being removed. */
	if (row->replica->xmin_age >= autovacuum_freeze_max_age / 4)
		add(findings, PRK_CODE_XMIN_HELD_BACK, row, owner);
}

/* Its slot is lost, or is about to be and hangs the checkpointer. */
static bool
diagnose_lost(PrkFindings *findings, const PrkReportRow *row,
			  const PrkOwner *owner)
{
	const PrkReplica *replica = row->replica;

	if (findings->evidence->slot_drop_waits && replica->pid != 0 &&
		replica->has_slot &&
		row->verdict.slot_end == PRK_SLOT_NEXT_CHECKPOINT)
		add(findings, PRK_CODE_CHECKPOINT_BLOCKED, row, owner);
	else if (row->verdict.state == PRK_STATE_LOST)
		add(findings, PRK_CODE_SLOT_LOST, row, owner);
	else
		return false;
	return true;
}

/* It is not connected: refused, forgotten, or just not there. */
static void
diagnose_absent(PrkFindings *findings, const PrkReportRow *row,
				const PrkOwner *owner)
{
	const PrkReplica *replica = row->replica;
	const PrkDeparted *departed = departed_of(findings->evidence, row);
	TimestampTz since = owner->entry != NULL ?
	owner->entry->known.gone_since : 0;
	PrkDiagnosis *diagnosis;

	if (since == 0)
		since = replica->inactive_since;
	if (diagnose_refused(findings, row, owner))
		return;
	if (row->verdict.code == PRK_CODE_SLOT_LEFT_BEHIND)
	{
		add(findings, PRK_CODE_SLOT_LEFT_BEHIND, row, owner);
		return;
	}

	if (row->verdict.fact == PRK_FACT_KEPT)
	{
		(void) diagnose_at_risk(findings, row, owner);
		return;
	}

	/*
	 * Made by the kit, and the role is gone: what a crash between the commit
	 * of a deprovision() and its end leaves, or somebody's DROP ROLE.
	 */
	if (!replica->logical && owner->has_line && !owner->role_exists)
		add(findings, PRK_CODE_ORPHAN_SLOT, row, owner);
	else if (diagnose_at_risk(findings, row, owner))
		return;
	else if (owner->role_name == NULL && since != 0 &&
			 findings->evidence->now - since >= UNUSED_TIME &&
			 replica->retained_bytes > 0 && !prk_departed_lately(departed))
		add(findings, PRK_CODE_SLOT_UNUSED, row, owner);
	else if (row->verdict.fact == PRK_FACT_NEVER_CONNECTED)
	{
		if (row->verdict.level == PRK_OK)
			return;
		diagnosis = add(findings, PRK_CODE_REPLICA_NEVER_SEEN, row, owner);
		diagnosis->gravity = prk_gravity_of(row->effective);
	}
	else
	{
		const PrkAttempt *last = prk_evidence_attempt(findings->evidence,
													  replica->name);
		bool		silent = last != NULL &&
		last->kind == PRK_FAILURE_TIMEOUT &&
		departed->number < last->failure->number && departed->idle == NULL;

		diagnosis = add(findings, silent ? PRK_CODE_REPLICA_UNRESPONSIVE :
						PRK_CODE_REPLICA_DOWN, row, owner);
		diagnosis->failure = silent ? last->failure : NULL;
		diagnosis->gravity = prk_gravity_of(row->effective);
		diagnosis->together = left_together(findings->evidence);
	}
}

/* It tries and is refused. */
static bool
diagnose_refused(PrkFindings *findings, const PrkReportRow *row,
				 const PrkOwner *owner)
{
	const PrkAttempt *attempt = newest_attempt(findings->evidence,
											   row->replica->name);

	return attempt != NULL &&
		prk_diagnose_attempt(findings, attempt, row, owner);
}

/* It could not log in, whatever else is wrong with it. */
static void
diagnose_shut_out(PrkFindings *findings, const PrkReportRow *row,
				  const PrkOwner *owner)
{
	const PrkAttempt *attempt = newest_attempt(findings->evidence,
											   row->replica->name);

	if (attempt != NULL && prk_attempt_is_at_door(attempt))
		(void) prk_diagnose_attempt(findings, attempt, row, owner);
	else if (!row->replica->logical && owner->has_line &&
			 !owner->role_exists)
		add(findings, PRK_CODE_ORPHAN_SLOT, row, owner);
}

/* It is connected: is somebody else in its place, or is it behind? */
static void
diagnose_present(PrkFindings *findings, const PrkReportRow *row,
				 const PrkOwner *owner)
{
	const PrkVerdict *verdict = &row->verdict;

	if (row->replica->has_slot && diagnose_taken(findings, row, owner))
		return;
	if (verdict->level != PRK_OK && verdict->code != PRK_CODE_SLOT_AT_RISK)
		add(findings, verdict->code, row, owner)->gravity =
			prk_gravity_of(row->effective);
	else
		(void) diagnose_at_risk(findings, row, owner);
}

/* Somebody else wants the slot that it has. */
static bool
diagnose_taken(PrkFindings *findings, const PrkReportRow *row,
			   const PrkOwner *owner)
{
	const PrkEvidence *evidence = findings->evidence;
	const PrkReplica *replica = row->replica;

	for (int i = 0; i < evidence->nattempts; i++)
	{
		const PrkAttempt *attempt = &evidence->attempts[i];

		if (attempt->kind != PRK_FAILURE_SLOT_TAKEN ||
			!prk_foreign_is(&attempt->failure->slot_name, replica->name) ||
			!prk_diagnose_is_recent(evidence, attempt->failure))
			continue;
		add(findings, PRK_CODE_SLOT_TAKEN, row, owner)->attempt = attempt;
		return true;
	}
	return false;
}

/* The slot's limit is near. */
static bool
diagnose_at_risk(PrkFindings *findings, const PrkReportRow *row,
				 const PrkOwner *owner)
{
	PrkDiagnosis *diagnosis;

	if (!is_at_risk(row))
		return false;
	diagnosis = add(findings, is_held(findings->evidence, row) ?
					PRK_CODE_SLOT_HELD_BY_TRANSACTION :
					PRK_CODE_SLOT_AT_RISK, row, owner);
	diagnosis->gravity = prk_gravity_of(row->effective);
	diagnosis->limit = raised_limit(findings->evidence, row);
	return true;
}

/*
 * A slot past a limit is kept if that is raised before a checkpoint: to how
 * much, in bytes, or in microseconds for idle_replication_slot_timeout?
 */
static int64
raised_limit(const PrkEvidence *evidence, const PrkReportRow *row)
{
	const PrkSample *sample = evidence->report->sample;
	const PrkReplica *replica = row->replica;
	int64		limit = sample->slot_keep_limit;

	if (row->verdict.slot_idle)
		return 2 * (sample->taken_at - replica->inactive_since +
					sample->slot_idle_limit);
	if (limit < 0)
		return -1;
	limit = prk_diagnose_wal_limit(evidence,
								   2 * Max(limit, replica->retained_bytes));
	return limit > sample->slot_keep_limit ? limit : -1;
}

/* The newest attempt that concerns it, if recent; or NULL. */
static const PrkAttempt *
newest_attempt(const PrkEvidence *evidence, const char *name)
{
	const PrkAttempt *attempt = prk_evidence_attempt(evidence, name);

	return attempt != NULL &&
		prk_diagnose_is_recent(evidence, attempt->failure) ? attempt : NULL;
}

/*
 * Did all of several replicas go within a minute, and none come back?  That is
 * how a failover to one of them looks from here.
 */
static bool
left_together(const PrkEvidence *evidence)
{
	TimestampTz first = 0;
	TimestampTz last = 0;
	int			count = 0;

	for (int i = 0; i < evidence->report->nrows; i++)
	{
		const PrkReplica *replica = evidence->report->rows[i].replica;
		const PrkBoardEntry *entry = evidence->owners[i].entry;
		TimestampTz gone;

		if (!replica->has_slot || replica->logical || replica->temporary)
			continue;
		if (replica->pid != 0 || entry == NULL || entry->known.gone_since == 0)
			return false;
		gone = entry->known.gone_since;
		if (count++ == 0)
			first = last = gone;
		first = Min(first, gone);
		last = Max(last, gone);
	}
	return count > 1 && last - first <= USECS_PER_MINUTE;
}

static bool
is_at_risk(const PrkReportRow *row)
{
	return row->replica->wal_status == PRK_WAL_UNRESERVED ||
		(row->replica->has_safe_wal_size && row->replica->safe_wal_size <= 0) ||
		row->verdict.slot_end != PRK_SLOT_SAFE;
}

/*
 * Has a logical consumer confirmed most of what its slot retains?  Then it is
 * not the consumer that holds the slot back, but the oldest transaction.
 */
static bool
is_held(const PrkEvidence *evidence, const PrkReportRow *row)
{
	const PrkReplica *replica = row->replica;

	return replica->logical && replica->pid != 0 &&
		TransactionIdIsValid(evidence->oldest.xid) &&
		replica->lag_bytes >= 0 &&
		replica->lag_bytes < replica->retained_bytes / 2;
}

static const PrkDeparted *
departed_of(const PrkEvidence *evidence, const PrkReportRow *row)
{
	return &evidence->departed[row - evidence->report->rows];
}

static PrkDiagnosis *
add(PrkFindings *findings, PrkCode code, const PrkReportRow *row,
	const PrkOwner *owner)
{
	PrkDiagnosis *diagnosis = prk_diagnose_add(findings, code,
											   PRK_SUBJECT_REPLICA,
											   row->replica->name);

	diagnosis->row = row;
	diagnosis->owner = owner;
	diagnosis->departed = departed_of(findings->evidence, row);
	return diagnosis;
}
