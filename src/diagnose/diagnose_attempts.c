/*-------------------------------------------------------------------------
 *
 * diagnose_attempts.c
 *	  Replicas that are not let in, and why.
 *
 * IDENTIFICATION
 *	  src/diagnose/diagnose_attempts.c
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "replication/walsender.h"

#include "diagnose/diagnose_attempts.h"

/* A refused replica counts as disconnected for this long (microseconds). */
#define SHORT_LIVED		(2 * USECS_PER_SEC)

static void diagnose_unserved(PrkFindings *findings,
							  const PrkAttempt *attempt);
static bool is_critical(const PrkFindings *findings, const char *name);
static PrkCode attempt_code(const PrkFindings *findings,
							const PrkAttempt *attempt, bool has_slot);
static PrkCode door_code(const PrkAttempt *attempt);
static bool is_shadowed(const PrkAttempt *attempt);

/*
 * Diagnoses why this attempt to serve the replica failed.  row and owner are
 * the replica's, NULL where it has none.  Returns false where the failure is
 * not the cause of anything.
 */
bool
prk_diagnose_attempt(PrkFindings *findings, const PrkAttempt *attempt,
					 const PrkReportRow *row, const PrkOwner *owner)
{
	PrkCode		code = attempt_code(findings, attempt,
									row != NULL && row->replica->has_slot);
	PrkDiagnosis *diagnosis;

	if (code == PRK_CODE_NONE)
		return false;

	/*
	 * The server's own cause, found there; a replica that other mouths name
	 * has a row as well.
	 */
	if (code == PRK_CODE_WALSENDERS_EXHAUSTED && row == NULL)
		return true;
	diagnosis = prk_diagnose_add(findings, code, PRK_SUBJECT_REPLICA,
								 row != NULL ? row->replica->name :
								 attempt->name);
	diagnosis->row = row;
	diagnosis->owner = owner;
	diagnosis->attempt = attempt;
	if (row != NULL && row->effective == PRK_CRITICAL)
		diagnosis->gravity = PRK_GRAVITY_CRITICAL;
	prk_diagnose_find_home(findings->evidence, diagnosis);
	return true;
}

/* Did it fail to log in, before it could ask for anything? */
bool
prk_attempt_is_at_door(const PrkAttempt *attempt)
{
	switch (attempt->kind)
	{
		case PRK_FAILURE_HBA_NO_ENTRY:
		case PRK_FAILURE_HBA_REJECTS:
		case PRK_FAILURE_AUTH_FAILED:
		case PRK_FAILURE_ROLE_MISSING:
		case PRK_FAILURE_ROLE_CANNOT_REPLICATE:
			return true;
		default:
			return false;
	}
}

/*
 * Diagnoses the attempts of those who have no row: replicas without a slot,
 * or without the one they ask for.  Strangers, whose role could not replicate
 * anyway, are connection_errors()'s only.
 */
void
prk_diagnose_attempts(PrkFindings *findings)
{
	const PrkEvidence *evidence = findings->evidence;

	for (int i = 0; i < evidence->nattempts; i++)
	{
		const PrkAttempt *attempt = &evidence->attempts[i];
		const PrkFailure *failure = attempt->failure;
		const char *name = attempt->name;
		const PrkOwner *owner = NULL;
		bool		has_row = false;

		if (attempt->unserved)
		{
			diagnose_unserved(findings, attempt);
			continue;
		}
		if (!prk_diagnose_is_recent(evidence, failure) ||
			!(attempt->role.can_replicate || attempt->role.superuser) ||
			prk_diagnose_has(findings, name))
			continue;
		for (int j = 0; j < evidence->report->nrows && !has_row; j++)
		{
			const PrkReplica *replica = evidence->report->rows[j].replica;

			if (!prk_attempt_concerns(attempt, replica->name))
				continue;

			/* Just this instant it tries again. */
			if (!replica->has_slot &&
				prk_diagnose_is_attempt(evidence, replica))
				owner = &evidence->owners[j];
			else
				has_row = true;
		}
		if (!has_row)
			prk_diagnose_attempt(findings, attempt, NULL, owner);
	}
}

/*
 * A replica that cannot be served is critical, whatever else is wrong with
 * it, and also at the moment of its next attempt: unhealthy() lists it.
 */
static void
diagnose_unserved(PrkFindings *findings, const PrkAttempt *attempt)
{
	const PrkEvidence *evidence = findings->evidence;
	const PrkOwner *owner = NULL;
	bool		has_row = false;
	PrkThresholds thresholds;

	for (int i = 0; i < evidence->report->nrows; i++)
	{
		const PrkReportRow *row = &evidence->report->rows[i];

		if (!prk_attempt_concerns(attempt, row->replica->name))
			continue;
		if (!row->replica->has_slot &&
			prk_diagnose_is_attempt(evidence, row->replica))
		{
			owner = &evidence->owners[i];
			continue;
		}
		has_row = true;
		if (!row->verdict.off && !is_critical(findings, row->replica->name))
			prk_diagnose_attempt(findings, attempt, row,
								 &evidence->owners[i]);
	}
	prk_settings_thresholds(attempt->name, &thresholds);
	if (!has_row && !thresholds.off && !is_critical(findings, attempt->name))
		prk_diagnose_attempt(findings, attempt, NULL, owner);
}

/* Was something found of that replica that is critical? */
static bool
is_critical(const PrkFindings *findings, const char *name)
{
	ListCell   *cell;

	foreach(cell, findings->diagnoses)
	{
		const PrkDiagnosis *diagnosis = lfirst(cell);

		if (diagnosis->name != NULL && strcmp(diagnosis->name, name) == 0 &&
			diagnosis->gravity == PRK_GRAVITY_CRITICAL)
			return true;
	}
	return false;
}

/* Of what is the failure the evidence, if it is as things are now? */
static PrkCode
attempt_code(const PrkFindings *findings, const PrkAttempt *attempt,
			 bool has_slot)
{
	switch (attempt->kind)
	{
		case PRK_FAILURE_HBA_NO_ENTRY:
		case PRK_FAILURE_HBA_REJECTS:
		case PRK_FAILURE_AUTH_FAILED:
		case PRK_FAILURE_ROLE_MISSING:
		case PRK_FAILURE_ROLE_CANNOT_REPLICATE:
			return door_code(attempt);
		case PRK_FAILURE_SLOT_MISSING:
			return has_slot ? PRK_CODE_NONE : PRK_CODE_SLOT_MISSING;
		case PRK_FAILURE_SLOT_LOST:
			return PRK_CODE_SLOT_LOST;
		case PRK_FAILURE_WAL_REMOVED:
			return PRK_CODE_WAL_REMOVED;
		case PRK_FAILURE_FILE:
			return PRK_CODE_UPSTREAM_FILE_UNREADABLE;
		case PRK_FAILURE_OTHER_TIMELINE:
			return PRK_CODE_OTHER_TIMELINE;
		case PRK_FAILURE_OTHER:
			return PRK_CODE_UPSTREAM_REFUSED;
		case PRK_FAILURE_TOO_MANY:
			return findings->evidence->walsenders_used < max_wal_senders ?
				PRK_CODE_NONE : PRK_CODE_WALSENDERS_EXHAUSTED;
		case PRK_FAILURE_NEWER_TIMELINE:
		case PRK_FAILURE_NO_SLOT_FREE:
		case PRK_FAILURE_SLOT_TAKEN:
		case PRK_FAILURE_UPSTREAM:
		case PRK_FAILURE_NO_PASSWORD:
		case PRK_FAILURE_OWN_FILE:
		case PRK_FAILURE_OTHER_CLUSTER:
		case PRK_FAILURE_WAL_ENDED:
		case PRK_FAILURE_TIMEOUT:
		case PRK_FAILURE_REFUSED:
		case PRK_FAILURE_UNREACHABLE:
			break;
	}
	return PRK_CODE_NONE;
}

/*
 * It did not get past the door: rules, role or password.  None: it would now.
 */
static PrkCode
door_code(const PrkAttempt *attempt)
{
	if (attempt->kind == PRK_FAILURE_HBA_NO_ENTRY)
		return attempt->has_match &&
			attempt->match.verdict == PRK_HBA_NO_MATCH &&
			attempt->tls_match.verdict == PRK_HBA_ALLOW ?
			PRK_CODE_TLS_REQUIRED : PRK_CODE_HBA_NO_ENTRY;
	if (attempt->kind == PRK_FAILURE_HBA_REJECTS)
		return PRK_CODE_HBA_REJECTS;
	if (attempt->kind == PRK_FAILURE_ROLE_CANNOT_REPLICATE)
		return attempt->role.can_replicate && attempt->role.can_login ?
			PRK_CODE_NONE : PRK_CODE_ROLE_CANNOT_REPLICATE;

	/* Where passwords are asked for, a missing role is a wrong one. */
	if (!OidIsValid(attempt->role.oid))
		return PRK_CODE_ROLE_MISSING;
	if (attempt->kind == PRK_FAILURE_ROLE_MISSING)
		return PRK_CODE_NONE;
	if (is_shadowed(attempt))
		return PRK_CODE_HBA_SHADOWED;

	/* Refused by another method, where a password decides by now. */
	if (attempt->failure->sqlerrcode != ERRCODE_INVALID_PASSWORD &&
		attempt->has_match && attempt->let_in &&
		attempt->match.verdict == PRK_HBA_ALLOW)
		return PRK_CODE_NONE;
	return PRK_CODE_AUTH_FAILED;
}

/* Does another method than ours decide before our own line? */
static bool
is_shadowed(const PrkAttempt *attempt)
{
	return attempt->has_match && attempt->let_in &&
		attempt->match.verdict != PRK_HBA_NO_MATCH &&
		strcmp(attempt->match.auth_method, "scram-sha-256") != 0 &&
		strcmp(attempt->match.auth_method, "md5") != 0;
}

/*
 * May its walsender be about to find that it cannot serve the replica?  A
 * replica that keeps trying is seen connected now and then, with a first
 * reply, but was never sent more than it has.
 */
bool
prk_diagnose_is_attempt(const PrkEvidence *evidence, const PrkReplica *replica)
{
	if (replica->state != PRK_STATE_STARTUP &&
		replica->state != PRK_STATE_CATCHUP)
		return false;
	return replica->reply_time == 0 ||
		(replica->sent_lsn <= replica->write_lsn &&
		 evidence->now - replica->backend_start < SHORT_LIVED);
}
