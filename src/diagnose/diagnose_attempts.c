/*-------------------------------------------------------------------------
 *
 * diagnose_attempts.c
 *	  Who wants in and can't, and why.
 *
 * IDENTIFICATION
 *	  src/diagnose/diagnose_attempts.c
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "replication/walsender.h"
#include "utils/builtins.h"
#include "utils/guc.h"

#include "diagnose/diagnose_attempts.h"
#include "format.h"

/* Who is refused is not connected for so many microseconds. */
#define SHORT_LIVED		(2 * USECS_PER_SEC)

static PrkDiagnosis *diagnose_door(PrkFindings *findings,
								   const PrkAttempt *attempt,
								   PrkGravity gravity, const char *name,
								   const PrkOwner *owner);
static void diagnose_no_entry(PrkDiagnosis *diagnosis,
							  const PrkAttempt *attempt, const char *name,
							  const PrkOwner *owner);
static bool is_shadowed(const PrkAttempt *attempt);
static void diagnose_shadowed(PrkDiagnosis *diagnosis,
							  const PrkAttempt *attempt, const char *name);
static void diagnose_password(const PrkFindings *findings,
							  PrkDiagnosis *diagnosis,
							  const PrkAttempt *attempt, const char *name);
static const char *on_primary(const PrkFindings *findings,
							  const char *statement);
static const char *welcome(const PrkAttempt *attempt, const char *name,
						   const PrkOwner *owner);
static const char *role_of(const PrkAttempt *attempt);
static const char *role_name_of(const PrkAttempt *attempt);
static bool is_diagnosed(const PrkFindings *findings, const char *name);

/*
 * Diagnoses why this attempt to serve the replica failed.  row and owner are
 * the replica's, NULL where it has none.  Returns false where the failure is
 * not the cause of anything, or is a cause of the server itself.
 */
bool
prk_diagnose_attempt(PrkFindings *findings, const PrkAttempt *attempt,
					 const PrkReportRow *row, const PrkOwner *owner)
{
	const PrkFailure *failure = attempt->failure;
	PrkGravity	gravity = PRK_GRAVITY_WARNING;
	bool		has_slot = row != NULL && row->replica->has_slot;
	PrkDiagnosis *diagnosis;
	const char *name;

	if (row != NULL)
		name = row->replica->name;
	else
		name = attempt->name;
	if (row != NULL && row->verdict.level == PRK_CRITICAL)
		gravity = PRK_GRAVITY_CRITICAL;

	switch (attempt->kind)
	{
		case PRK_FAILURE_HBA_NO_ENTRY:
		case PRK_FAILURE_HBA_REJECTS:
		case PRK_FAILURE_AUTH_FAILED:
		case PRK_FAILURE_ROLE_MISSING:
		case PRK_FAILURE_ROLE_CANNOT_REPLICATE:
			diagnosis = diagnose_door(findings, attempt, gravity, name,
									  owner);
			if (diagnosis == NULL)
				return false;
			break;
		case PRK_FAILURE_SLOT_MISSING:
			if (has_slot)
				return false;
			diagnosis = prk_diagnose_add(findings, PRK_GRAVITY_CRITICAL,
										 "slot_missing", name);
			diagnosis->finding = "the replica asks for a slot that does not exist; it goes on by itself once there is one, if the WAL since then is still here";
			diagnosis->remedy = psprintf("SELECT pg_create_physical_replication_slot(%s, true);",
										 quote_literal_cstr(name));
			break;
		case PRK_FAILURE_SLOT_LOST:
			diagnosis = prk_diagnose_add(findings, PRK_GRAVITY_CRITICAL,
										 "slot_lost", name);
			diagnosis->finding = "slot is lost: a restart is not enough, the replica must be rebuilt";
			diagnosis->remedy = prk_diagnose_rebuild(findings, name, owner,
													 has_slot);
			break;
		case PRK_FAILURE_WAL_REMOVED:
			diagnosis = prk_diagnose_add(findings, PRK_GRAVITY_CRITICAL,
										 "wal_removed", name);
			diagnosis->finding = prk_foreign_is_empty(&failure->slot_name) ?
				"the WAL that the replica needs is gone, since no slot held it: a restart is not enough, it must be rebuilt, with a slot" :
				"the WAL that the replica needs is gone, its slot was too late to hold it: a restart is not enough, it must be rebuilt";
			diagnosis->remedy = prk_diagnose_rebuild(findings, name, owner,
													 has_slot);
			break;
		case PRK_FAILURE_OTHER_TIMELINE:
			diagnosis = prk_diagnose_add(findings, PRK_GRAVITY_CRITICAL,
										 "other_timeline", name);
			diagnosis->finding = "the replica has WAL that this server's history does not contain: a restart is not enough, it must be rewound (pg_rewind) or rebuilt";
			diagnosis->remedy = prk_diagnose_rebuild(findings, name, owner,
													 has_slot);
			break;
		case PRK_FAILURE_OTHER:
			diagnosis = prk_diagnose_add(findings, gravity,
										 "upstream_refused", name);
			diagnosis->finding = "this server refuses the replica; its own words are the evidence";
			diagnosis->remedy = "-- Do away with what it says; the replica goes on by itself.";
			break;
		case PRK_FAILURE_TOO_MANY:
			if (findings->evidence->walsenders_used < max_wal_senders)
				return false;

			/* the server's own cause, found there */
			return true;
		case PRK_FAILURE_NO_SLOT_FREE:
		case PRK_FAILURE_SLOT_TAKEN:
		case PRK_FAILURE_UPSTREAM:
		case PRK_FAILURE_NO_PASSWORD:
		case PRK_FAILURE_OTHER_CLUSTER:
		case PRK_FAILURE_WAL_ENDED:
		case PRK_FAILURE_TIMEOUT:
		case PRK_FAILURE_REFUSED:
		case PRK_FAILURE_UNREACHABLE:
		default:
			return false;
	}

	if (diagnosis->evidence == NULL)
		diagnosis->evidence =
			psprintf("%s%s%s", prk_diagnose_counted(failure),
					 row != NULL ? "; " : "",
					 row != NULL ? row->verdict.reason : "");
	return true;
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

		if (!prk_diagnose_is_recent(evidence, failure) ||
			!(attempt->role.can_replicate || attempt->role.superuser) ||
			is_diagnosed(findings, name))
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
 * It did not get past the door: rules, role or password.  NULL: it would now.
 */
static PrkDiagnosis *
diagnose_door(PrkFindings *findings, const PrkAttempt *attempt,
			  PrkGravity gravity, const char *name, const PrkOwner *owner)
{
	PrkDiagnosis *diagnosis;

	if (attempt->kind == PRK_FAILURE_HBA_NO_ENTRY)
	{
		bool		only_tls = attempt->has_match &&
		attempt->match.verdict == PRK_HBA_NO_MATCH &&
		attempt->tls_match.verdict == PRK_HBA_ALLOW;

		diagnosis = prk_diagnose_add(findings, gravity,
									 only_tls ? "tls_required" : "hba_no_entry",
									 name);
		diagnose_no_entry(diagnosis, attempt, name, owner);
	}
	else if (attempt->kind == PRK_FAILURE_HBA_REJECTS)
	{
		diagnosis = prk_diagnose_add(findings, gravity, "hba_rejects", name);
		diagnosis->finding = attempt->has_match &&
			attempt->match.verdict == PRK_HBA_REJECT ?
			psprintf("line %d of pg_hba.conf rejects the replica; a restart changes nothing",
					 attempt->match.line_number) :
			"pg_hba.conf rejected the replica, the file as it is now does not";
		diagnosis->remedy =
			psprintf("-- It is somebody's policy.  If it is to change, remove the line from %s or put the replica's before it, then run:\nSELECT pg_reload_conf();",
					 HbaFileName);
	}
	else if (attempt->kind == PRK_FAILURE_ROLE_CANNOT_REPLICATE)
	{
		if (attempt->role.can_replicate && attempt->role.can_login)
			return NULL;
		diagnosis = prk_diagnose_add(findings, gravity,
									 "role_cannot_replicate", name);
		diagnosis->finding = psprintf("the role %s may not replicate; once it may, the replica goes on by itself",
									  role_of(attempt));
		diagnosis->remedy =
			on_primary(findings,
					   psprintf("ALTER ROLE %s LOGIN REPLICATION;",
								quote_identifier(role_name_of(attempt))));
	}
	else if (!OidIsValid(attempt->role.oid))
	{
		/* Where passwords are asked for, a missing role is a wrong one. */
		diagnosis = prk_diagnose_add(findings, gravity, "role_missing", name);
		diagnosis->finding = psprintf("the role %s that the replica connects as does not exist",
									  role_of(attempt));
		diagnosis->remedy = findings->evidence->upstream.in_recovery ?
			psprintf("-- Roles are the primary's: there run provision(%s, ...) with role %s.",
					 quote_literal_cstr(name), role_of(attempt)) :
			welcome(attempt, name, owner);
	}
	else if (attempt->kind == PRK_FAILURE_ROLE_MISSING)
		return NULL;
	else if (is_shadowed(attempt))
	{
		diagnosis = prk_diagnose_add(findings, gravity, "hba_shadowed", name);
		diagnose_shadowed(diagnosis, attempt, name);
	}
	else
	{
		diagnosis = prk_diagnose_add(findings, gravity, "auth_failed", name);
		diagnose_password(findings, diagnosis, attempt, name);
	}
	return diagnosis;
}

/* No rule lets it in, or only with TLS, or one does that is not loaded. */
static void
diagnose_no_entry(PrkDiagnosis *diagnosis, const PrkAttempt *attempt,
				  const char *name, const PrkOwner *owner)
{
	if (strcmp(diagnosis->code, "tls_required") == 0)
	{
		diagnosis->finding =
			psprintf("line %d of pg_hba.conf lets the replica in, but only with TLS, and it came without",
					 attempt->tls_match.line_number);
		diagnosis->remedy = "-- On the replica set sslmode=require (or better) in primary_conninfo and reload there; see that ssl is on here.";
	}
	else if (attempt->has_match && attempt->match.verdict == PRK_HBA_ALLOW)
	{
		diagnosis->finding =
			psprintf("no rule let the replica in; line %d of pg_hba.conf as it is on disk does, but may not be loaded",
					 attempt->match.line_number);
		diagnosis->remedy = "SELECT pg_reload_conf();";
	}
	else
	{
		diagnosis->finding =
			psprintf("no rule of pg_hba.conf lets role %s in from %s; the replica goes on by itself once one does",
					 role_of(attempt),
					 attempt->address != NULL ? attempt->address : "a Unix socket");
		diagnosis->remedy = welcome(attempt, name, owner);
	}
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
 * provision() puts its line before the one that would win, but leaves alone
 * one that is there: so it goes first.
 */
static void
diagnose_shadowed(PrkDiagnosis *diagnosis, const PrkAttempt *attempt,
				  const char *name)
{
	diagnosis->finding =
		psprintf("line %d of pg_hba.conf, of method \"%s\", comes before the replica's own rule and wins",
				 attempt->match.line_number, attempt->match.auth_method);
	diagnosis->remedy =
		psprintf("SELECT replica_kit.revoke_address(%s, %s);\nSELECT * FROM replica_kit.provision(%s, %s, %s);",
				 quote_literal_cstr(name),
				 quote_literal_cstr(attempt->address),
				 quote_literal_cstr(name),
				 quote_literal_cstr(attempt->address),
				 quote_literal_cstr(role_name_of(attempt)));
}

/* The role's secret, or the replica's. */
static void
diagnose_password(const PrkFindings *findings, PrkDiagnosis *diagnosis,
				  const PrkAttempt *attempt, const char *name)
{
	const char *role = role_of(attempt);

	switch (attempt->role.secret)
	{
		case PRK_SECRET_NONE:
			diagnosis->finding = psprintf("role %s has no password", role);
			break;
		case PRK_SECRET_EXPIRED:
			diagnosis->finding = psprintf("the password of role %s has expired", role);
			break;
		case PRK_SECRET_MD5:
			diagnosis->finding = psprintf("role %s has an MD5 password, which a rule of method scram-sha-256 does not take", role);
			break;
		case PRK_SECRET_SCRAM:
			diagnosis->finding = psprintf("the replica does not know the password of role %s; a restart changes nothing", role);
			break;
	}
	if (attempt->role.replicas != NIL)
	{
		ListCell   *cell;
		bool		known = false;

		/* A cascade's replica may share a role that names others only. */
		foreach(cell, attempt->role.replicas)
		{
			if (strcmp(lfirst(cell), name) == 0)
				known = true;
		}
		if (!known)
			name = linitial(attempt->role.replicas);
		diagnosis->remedy =
			psprintf("%s\n-- Then give this password to each replica of that role: its script with --set-password.",
					 on_primary(findings,
								psprintf("SELECT replica_kit.rotate_password(%s);",
										 quote_literal_cstr(name))));
	}
	else
		diagnosis->remedy =
			psprintf("-- Give the replica the password of role %s, in its passfile or in primary_conninfo.",
					 role);
}

/* Roles are changed on the primary; elsewhere the statement is a comment. */
static const char *
on_primary(const PrkFindings *findings, const char *statement)
{
	if (!findings->evidence->upstream.in_recovery)
		return statement;
	return psprintf("-- On the primary run:\n-- %s", statement);
}

/*
 * The statement that lets the replica in: only from where it is known to be,
 * which an attempt that failed does not tell.
 */
static const char *
welcome(const PrkAttempt *attempt, const char *name, const PrkOwner *owner)
{
	const char *address = NULL;

	if (owner != NULL && owner->address != NULL)
		address = owner->address;
	else if (owner != NULL && owner->entry != NULL &&
			 attempt->address != NULL &&
			 strcmp(owner->entry->known.last_addr, attempt->address) == 0)
		address = attempt->address;

	if (address == NULL)
		return psprintf("-- If that address is the replica's own, run provision(%s, ...) with it and role %s.",
						quote_literal_cstr(name), role_of(attempt));
	return psprintf("SELECT * FROM replica_kit.provision(%s, %s, %s);",
					quote_literal_cstr(name), quote_literal_cstr(address),
					quote_literal_cstr(role_name_of(attempt)));
}

static const char *
role_of(const PrkAttempt *attempt)
{
	return psprintf("\"%s\"", role_name_of(attempt));
}

/* That of a role or rule of ours; only in another encoding it is escaped. */
static const char *
role_name_of(const PrkAttempt *attempt)
{
	return attempt->role_name != NULL ? attempt->role_name :
		prk_foreign_show(&attempt->failure->role_name);
}

/*
 * May its walsender be about to find that it cannot serve it?  Who tries again
 * and again is seen connected now and then, with a first reply, but never
 * sent more than it has.
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

static bool
is_diagnosed(const PrkFindings *findings, const char *name)
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
