/*-------------------------------------------------------------------------
 *
 * findings.c
 *	  What the rules add: codes with their parameters, no words.
 *
 * IDENTIFICATION
 *	  src/diagnose/findings.c
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/xlog.h"
#include "utils/timestamp.h"

#include "diagnose/findings.h"

/* A receiver tries again each wal_retrieve_retry_interval, 5 s by default. */
#define RECENT			(120 * USECS_PER_SEC)

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

/*
 * Adds a diagnosis of the code's own gravity, of which the caller fills in the
 * parameters; palloc'd.  name is the replica's, NULL for other subjects.
 */
PrkDiagnosis *
prk_diagnose_add(PrkFindings *findings, PrkCode code, PrkSubject subject,
				 const char *name)
{
	PrkDiagnosis *diagnosis = palloc0(sizeof(PrkDiagnosis));

	Assert(code != PRK_CODE_NONE);
	Assert((name != NULL) == (subject == PRK_SUBJECT_REPLICA));
	diagnosis->code = code;
	diagnosis->gravity = prk_code_info(code)->gravity;
	diagnosis->subject = subject;
	diagnosis->name = name;
	diagnosis->limit = -1;
	findings->diagnoses = lappend(findings->diagnoses, diagnosis);
	return diagnosis;
}

/* Was something found of the replica of that name? */
bool
prk_diagnose_has(const PrkFindings *findings, const char *name)
{
	ListCell   *cell;

	foreach(cell, findings->diagnoses)
	{
		const PrkDiagnosis *diagnosis = lfirst(cell);

		if (diagnosis->name != NULL && strcmp(diagnosis->name, name) == 0)
			return true;
	}
	return false;
}

/* If its cause went on, would this failure have happened again by now? */
bool
prk_diagnose_is_recent(const PrkEvidence *evidence, const PrkFailure *failure)
{
	return failure->age <= RECENT;
}

/*
 * Which role is the replica's, and from where may it come?  Only what is
 * proved counts: our comment on a role and our line in pg_hba.conf, or that
 * it has streamed from the address of its attempt.
 */
void
prk_diagnose_find_home(const PrkEvidence *evidence, PrkDiagnosis *diagnosis)
{
	const PrkOwner *owner = diagnosis->owner;
	const PrkAttempt *attempt = diagnosis->attempt;
	ListCell   *cell;

	if (owner != NULL)
		diagnosis->role_name = owner->role_name;
	else
		diagnosis->role_name = prk_role_of_replica(diagnosis->name);
	foreach(cell, evidence->managed)
	{
		const PrkHbaManaged *line = lfirst(cell);

		if (strcmp(line->replica, diagnosis->name) != 0 ||
			line->role == NULL)
			continue;
		if (diagnosis->role_name == NULL)
			diagnosis->role_name = line->role;
		if (diagnosis->address == NULL &&
			strcmp(diagnosis->role_name, line->role) == 0)
		{
			diagnosis->address = line->address;
			diagnosis->line_number = line->line_number;
		}
	}
	if (diagnosis->address == NULL && owner != NULL && owner->entry != NULL &&
		attempt != NULL && attempt->address != NULL &&
		strcmp(owner->entry->known.last_addr, attempt->address) == 0)
		diagnosis->address = attempt->address;
}

/*
 * How much WAL may slots retain, at most as much as wanted, in bytes?  What
 * they retain now stays, and half of what is free on the disk of pg_wal may
 * come, as preflight() proposes it.  -1: no limit is safe that is above
 * what is there.
 */
int64
prk_diagnose_wal_limit(const PrkEvidence *evidence, int64 wanted)
{
	const PrkReport *report = evidence->report;
	int64		retained = 0;
	int64		possible;

	if (evidence->wal_free < 0)
		return -1;
	for (int i = 0; i < report->nrows; i++)
		retained = Max(retained, report->rows[i].replica->retained_bytes);
	possible = retained + evidence->wal_free / 2;
	if (possible < retained + 2 * (int64) wal_segment_size)
		return -1;
	return Min(wanted, possible);
}
