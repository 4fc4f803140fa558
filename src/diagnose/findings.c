/*-------------------------------------------------------------------------
 *
 * findings.c
 *	  What the rules add: findings, and words that several rules share.
 *
 * IDENTIFICATION
 *	  src/diagnose/findings.c
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "utils/builtins.h"
#include "utils/timestamp.h"

#include "diagnose/findings.h"
#include "format.h"

/* A receiver tries again each wal_retrieve_retry_interval, 5 s by default. */
#define RECENT			(120 * USECS_PER_SEC)

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

/* A slot that holds WAL, in the place of one that does not. */
const char *
prk_diagnose_renewal(const char *name)
{
	const char *literal = quote_literal_cstr(name);

	return psprintf("SELECT pg_drop_replication_slot(%s);\nSELECT pg_create_physical_replication_slot(%s, true);",
					literal, literal);
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
	return failure->age <= RECENT;
}

/* A failure as evidence: its words, how often, and when last. */
const char *
prk_diagnose_counted(const PrkFailure *failure)
{
	char		when[PRK_FORMAT_LEN];

	return psprintf("%s (" INT64_FORMAT " times, last at %s)",
					prk_foreign_show_words(&failure->message), failure->count,
					prk_format_time(when, failure->last_at));
}

/* The statements that change a setting for the whole server. */
const char *
prk_diagnose_setting(const char *name, const char *value)
{
	return psprintf("ALTER SYSTEM SET %s = %s;\nSELECT pg_reload_conf();",
					name, quote_literal_cstr(value));
}

/*
 * How to give a replica its data anew: the words of a remedy.  Its script does
 * it all, with a slot that is lost or gone, too; on this server there is
 * nothing to do.  The script has a name here that provision() has proposed,
 * and is of no use for a replica that the kit does not know.
 */
const char *
prk_diagnose_rebuild(const PrkFindings *findings, const char *name,
					 const PrkOwner *owner, bool has_slot)
{
	const char *literal = quote_literal_cstr(name);
	bool		known = owner != NULL && owner->role_name != NULL;
	ListCell   *cell;

	foreach(cell, findings->evidence->leftovers)
	{
		const PrkLeftover *leftover = lfirst(cell);

		if (leftover->role_name != NULL && strcmp(leftover->name, name) == 0)
			known = true;
	}
	if (known)
		return psprintf("-- Nothing is to be done here.  On the replica's machine run its script:\n-- sh join_%s.sh --pgdata DIR --rebuild\n-- Where that is no more, it comes from here, after provision() if the slot is gone:\n-- SELECT replica_kit.join_script(%s, 'ADDRESS OF THIS SERVER');",
						name, literal);
	if (has_slot)
		return psprintf("%s\n-- Then clone the replica anew, through this slot.",
						prk_diagnose_renewal(name));
	return "-- Run provision() for it, and on its machine the script of join_script() with --rebuild.";
}
