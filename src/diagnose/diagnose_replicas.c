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
#include "utils/builtins.h"

#include "diagnose/diagnose_attempts.h"
#include "diagnose/diagnose_replicas.h"
#include "format.h"

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
static bool diagnose_orphan(PrkFindings *findings, const PrkReportRow *row,
							const PrkOwner *owner);
static void diagnose_down(PrkFindings *findings, const PrkReportRow *row,
						  const PrkOwner *owner);
static void diagnose_present(PrkFindings *findings, const PrkReportRow *row,
							 const PrkOwner *owner);
static void diagnose_behind(PrkFindings *findings, const PrkReportRow *row);
static bool diagnose_at_risk(PrkFindings *findings, const PrkReportRow *row);
static const char *more_time(const PrkSample *sample, const PrkReportRow *row);
static void diagnose_xmin(PrkFindings *findings, const PrkReportRow *row);
static const PrkAttempt *newest_attempt(const PrkEvidence *evidence,
										const char *name);
static bool is_at_risk(const PrkReportRow *row);
static bool is_synchronous(const PrkEvidence *evidence, const char *name);
static const char *slot_facts(const PrkReplica *replica);

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
	}
}

static void
diagnose_replica(PrkFindings *findings, const PrkReportRow *row,
				 const PrkOwner *owner)
{
	if (diagnose_lost(findings, row, owner))
		return;
	if (row->replica->pid == 0)
		diagnose_absent(findings, row, owner);
	else
		diagnose_present(findings, row, owner);
	diagnose_xmin(findings, row);
}

/* Its slot is lost, or is about to be and hangs the checkpointer. */
static bool
diagnose_lost(PrkFindings *findings, const PrkReportRow *row,
			  const PrkOwner *owner)
{
	const PrkReplica *replica = row->replica;
	const char *literal = quote_literal_cstr(replica->name);
	const char *cause = prk_health_cause(replica);
	bool		in_use = prk_sample_in_use(replica);
	PrkDiagnosis *diagnosis;

	if (findings->evidence->slot_drop_waits && replica->pid != 0 &&
		replica->has_slot && is_at_risk(row))
	{
		diagnosis = prk_diagnose_add(findings, PRK_GRAVITY_CRITICAL,
									 "checkpoint_blocked", replica->name);
		diagnosis->finding = "checkpoints hang: the slot is past its limit, and the walsender that holds it can't end since its stalled receiver reads nothing.  Ended once more it does; then the slot is lost and the replica must be rebuilt";
		diagnosis->evidence =
			psprintf("a process waits for ReplicationSlotDrop; walsender pid %d; %s",
					 replica->pid, slot_facts(replica));
		diagnosis->remedy = psprintf("SELECT pg_terminate_backend(%d);",
									 replica->pid);
		return true;
	}
	if (row->verdict.state != PRK_STATE_LOST)
		return false;

	diagnosis = prk_diagnose_add(findings, PRK_GRAVITY_CRITICAL, "slot_lost",
								 replica->name);
	diagnosis->evidence = psprintf("wal_status is \"lost\"%s",
								   in_use ? ", although active" : "");
	if (cause != NULL)
		diagnosis->evidence = psprintf("%s, cause \"%s\": %s",
									   diagnosis->evidence,
									   replica->invalidation, cause);
	if (replica->logical)
	{
		diagnosis->finding = "slot is lost: the subscriber must be built anew";
		diagnosis->remedy = psprintf("SELECT pg_drop_replication_slot(%s);",
									 literal);
	}
	else if (in_use)
	{
		diagnosis->finding = "slot is lost: the replica streams, but nothing holds its WAL, and its next pause may be its last";
		diagnosis->remedy =
			psprintf("-- Ends the connection; the replica takes the new slot and goes on.\nSELECT pg_terminate_backend(%d, 10000);\n%s",
					 replica->pid, prk_diagnose_renewal(replica->name));
	}
	else
	{
		diagnosis->finding =
			cause != NULL && strcmp(replica->invalidation, "wal_removed") != 0 ?
			"slot is lost, though not for its WAL: with a new slot a restart is enough while that WAL is still here, else the replica must be rebuilt; the script's --rebuild finds out" :
			"slot is lost, and the WAL that the replica needs is gone: a restart is not enough, it must be rebuilt";
		diagnosis->remedy = prk_diagnose_rebuild(findings, replica->name,
												 owner, true);
	}
	return true;
}

/* It is not connected: refused, forgotten, or just not there. */
static void
diagnose_absent(PrkFindings *findings, const PrkReportRow *row,
				const PrkOwner *owner)
{
	const PrkReplica *replica = row->replica;
	const char *literal = quote_literal_cstr(replica->name);
	TimestampTz since = owner->entry != NULL ?
	owner->entry->known.gone_since : 0;
	PrkDiagnosis *diagnosis;

	if (since == 0)
		since = replica->inactive_since;
	if (diagnose_refused(findings, row, owner) ||
		diagnose_orphan(findings, row, owner) ||
		diagnose_at_risk(findings, row))
		return;

	if (owner->role_name == NULL && since != 0 &&
		findings->evidence->now - since >= UNUSED_TIME &&
		replica->retained_bytes > 0)
	{
		diagnosis = prk_diagnose_add(findings, PRK_GRAVITY_WARNING,
									 "slot_unused", replica->name);
		diagnosis->finding = "a slot that the kit did not make has not been used for a day, and holds WAL";
		diagnosis->evidence = psprintf("%s; %s", row->verdict.reason,
									   slot_facts(replica));
		diagnosis->remedy =
			psprintf("-- If nobody wants it any more:\nSELECT pg_drop_replication_slot(%s);",
					 literal);
		return;
	}
	if (row->verdict.state == PRK_STATE_NEVER_CONNECTED)
	{
		if (row->verdict.level == PRK_OK)
			return;
		diagnosis = prk_diagnose_add(findings, prk_gravity_of(row->verdict.level),
									 "replica_never_seen", replica->name);
		diagnosis->finding = "the slot holds WAL for a replica that has never connected";
		diagnosis->evidence = psprintf("%s; %s", row->verdict.reason,
									   slot_facts(replica));
		diagnosis->remedy =
			psprintf("-- Make the replica, by the script of this:\n-- SELECT replica_kit.join_script(%s);\n-- If it is not wanted any more:\nSELECT * FROM replica_kit.deprovision(%s);",
					 literal, literal);
		return;
	}
	if (!is_synchronous(findings->evidence, replica->name))
		diagnose_down(findings, row, owner);
}

/* It was there, and is gone without a word. */
static void
diagnose_down(PrkFindings *findings, const PrkReportRow *row,
			  const PrkOwner *owner)
{
	const PrkReplica *replica = row->replica;
	PrkDiagnosis *diagnosis;
	const char *from = owner->entry != NULL ?
	owner->entry->known.last_addr : "";

	diagnosis = prk_diagnose_add(findings, prk_gravity_of(row->verdict.level),
								 "replica_down", replica->name);
	diagnosis->finding = replica->logical ?
		"the subscriber is not connected and does not try: once it runs it goes on by itself, its WAL is here" :
		"the replica is not connected and does not try: a restart of it is enough, its WAL is here";
	diagnosis->evidence = psprintf("%s; %s", row->verdict.reason,
								   slot_facts(replica));
	diagnosis->remedy =
		psprintf("-- Start the replica%s%s.",
				 from[0] != '\0' ? ", last seen at " : "", from);
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

/*
 * Made by the kit, and the role is gone: what a crash between the commit of a
 * deprovision() and its end leaves, or somebody's DROP ROLE.
 */
static bool
diagnose_orphan(PrkFindings *findings, const PrkReportRow *row,
				const PrkOwner *owner)
{
	const char *name = row->replica->name;
	PrkDiagnosis *diagnosis;

	if (row->replica->logical || !owner->has_line || owner->role_exists)
		return false;
	diagnosis = prk_diagnose_add(findings, PRK_GRAVITY_CRITICAL, "orphan_slot",
								 name);
	diagnosis->finding = "the slot holds WAL for a replica whose role is gone: nobody can connect to use it";
	diagnosis->evidence =
		psprintf("pg_hba.conf names role \"%s\" for it, which does not exist; %s",
				 owner->role_name != NULL ? owner->role_name : "",
				 slot_facts(row->replica));
	diagnosis->remedy = psprintf("SELECT * FROM replica_kit.deprovision(%s);",
								 quote_literal_cstr(name));
	return true;
}

/* It is connected: is somebody else in its place, or is it behind? */
static void
diagnose_present(PrkFindings *findings, const PrkReportRow *row,
				 const PrkOwner *owner)
{
	const PrkReplica *replica = row->replica;
	const PrkEvidence *evidence = findings->evidence;

	if (replica->has_slot)
	{
		for (int i = 0; i < evidence->nattempts; i++)
		{
			const PrkAttempt *attempt = &evidence->attempts[i];
			PrkDiagnosis *diagnosis;
			bool		same;

			if (attempt->kind != PRK_FAILURE_SLOT_TAKEN ||
				!prk_foreign_is(&attempt->failure->slot_name,
								replica->name) ||
				!prk_diagnose_is_recent(evidence, attempt->failure))
				continue;
			same = prk_foreign_is(&attempt->failure->application_name,
								  replica->application_name);
			diagnosis = prk_diagnose_add(findings, PRK_GRAVITY_CRITICAL,
										 "slot_taken", replica->name);
			diagnosis->finding = same ?
				"the replica wants its slot, but a connection under the same name has it: its own that died and is not noticed, or a second server with the same configuration" :
				"two servers want the same slot: each needs its own";
			diagnosis->evidence =
				psprintf("held by pid %d as \"%s\"; wanted from %s as \"%s\": %s",
						 replica->pid, replica->application_name,
						 attempt->address != NULL ? attempt->address : "a Unix socket",
						 prk_foreign_show(&attempt->failure->application_name),
						 prk_diagnose_counted(attempt->failure));
			diagnosis->remedy = same ?
				psprintf("SELECT pg_terminate_backend(%d);", replica->pid) :
				psprintf("-- Give the other server a slot of its own: run provision() for it, and set its primary_slot_name.\n-- To hand this one over, stop the server that has it, then:\nSELECT pg_terminate_backend(%d);",
						 replica->pid);
			return;
		}
	}
	if (row->verdict.level != PRK_OK &&
		strcmp(row->verdict.code, "slot_at_risk") != 0)
		diagnose_behind(findings, row);
	else
		(void) diagnose_at_risk(findings, row);
}

/* Connected and behind: the stage that holds most says why. */
static void
diagnose_behind(PrkFindings *findings, const PrkReportRow *row)
{
	const PrkReplica *replica = row->replica;
	const char *code = row->verdict.code;
	PrkDiagnosis *diagnosis = prk_diagnose_add(findings,
											   prk_gravity_of(row->verdict.level),
											   code, replica->name);
	char		unsent[PRK_FORMAT_LEN];
	char		unwritten[PRK_FORMAT_LEN];
	char		unflushed[PRK_FORMAT_LEN];
	char		unreplayed[PRK_FORMAT_LEN];

	diagnosis->evidence =
		psprintf("%s; unsent %s, unwritten %s, unflushed %s, unreplayed %s%s%s",
				 row->verdict.reason,
				 prk_format_size(unsent, replica->unsent_bytes),
				 prk_format_size(unwritten, replica->unwritten_bytes),
				 prk_format_size(unflushed, replica->unflushed_bytes),
				 prk_format_size(unreplayed, replica->unreplayed_bytes),
				 replica->has_slot ? "; " : "",
				 replica->has_slot ? slot_facts(replica) : "");
	diagnosis->remedy = "-- On the replica run:\n-- SELECT * FROM replica_kit.diagnose();";
	if (strcmp(code, "receiver_stalled") == 0)
	{
		diagnosis->finding = "the replica is connected and says nothing: its receiver or its machine hangs; the WAL still comes once it is there again";
		diagnosis->remedy =
			psprintf("-- See that the replica's machine and its walreceiver run; this makes them connect anew:\nSELECT pg_terminate_backend(%d);",
					 replica->pid);
	}
	else if (strcmp(code, "network_slow") == 0)
	{
		diagnosis->finding = "the network or the replica's receiver takes WAL in more slowly than it is made; the WAL still comes";
		diagnosis->remedy = "-- Look at the network between the servers, and at the load that writes.";
	}
	else if (strcmp(code, "flush_slow") == 0 &&
			 XLogRecPtrIsInvalid(replica->replay_lsn))
	{
		diagnosis->finding = "the receiver has WAL that it has not flushed: it is a pg_receivewal without --synchronous, which flushes whole segments only, or its disk is slow; the WAL still comes";
		diagnosis->remedy = "-- Give pg_receivewal --synchronous, or look at its disk.";
	}
	else if (strcmp(code, "flush_slow") == 0)
	{
		diagnosis->finding = "the replica's disk is slower than WAL comes in; the WAL still comes";
		diagnosis->remedy = "-- Look at the disk of pg_wal on the replica.";
	}
	else
		diagnosis->finding = "the replica has the WAL and does not replay it fast enough, or at all: paused, in conflict with a query, or slow; only it knows";
}

/* The slot's limit is near. */
static bool
diagnose_at_risk(PrkFindings *findings, const PrkReportRow *row)
{
	const PrkReplica *replica = row->replica;
	PrkDiagnosis *diagnosis;

	if (!is_at_risk(row))
		return false;
	diagnosis = prk_diagnose_add(findings, PRK_GRAVITY_CRITICAL,
								 "slot_at_risk", replica->name);
	diagnosis->finding = replica->pid == 0 ?
		"the replica is not connected and its slot is about to be lost: started now it only catches up, later it must be rebuilt" :
		"the replica is so far behind that its slot is about to be lost: then it must be rebuilt";
	diagnosis->evidence = psprintf("%s; %s", row->verdict.reason,
								   slot_facts(replica));

	diagnosis->remedy = psprintf("-- Start the replica.%s",
								 more_time(findings->evidence->report->sample,
										   row));
	return true;
}

/* A slot past a limit is kept if that is raised before a checkpoint. */
static const char *
more_time(const PrkSample *sample, const PrkReportRow *row)
{
	const PrkReplica *replica = row->replica;
	const PrkForecast *forecast = &row->verdict.forecast;
	int64		limit = sample->slot_keep_limit;

	if (forecast->idle_left >= 0 && forecast->lost_in == forecast->idle_left)
	{
		limit = sample->taken_at - replica->inactive_since +
			sample->slot_idle_limit;
		return psprintf("  For more time:\n%s",
						prk_diagnose_setting("idle_replication_slot_timeout",
											 psprintf(INT64_FORMAT "s", 2 * limit / USECS_PER_SEC)));
	}
	if (limit < 0)
		return "";
	limit = Max(2 * limit, 2 * replica->retained_bytes) / (1024 * 1024) + 1;
	return psprintf("  For more time, if the disk has room:\n%s",
					prk_diagnose_setting("max_slot_wal_keep_size",
										 psprintf(INT64_FORMAT "MB", limit)));
}

/* Its snapshot keeps dead rows from being removed. */
static void
diagnose_xmin(PrkFindings *findings, const PrkReportRow *row)
{
	const PrkReplica *replica = row->replica;
	PrkDiagnosis *diagnosis;

	if (replica->xmin_age < autovacuum_freeze_max_age / 4)
		return;
	diagnosis = prk_diagnose_add(findings, PRK_GRAVITY_WARNING,
								 "xmin_held_back", replica->name);
	diagnosis->finding = "the slot keeps dead rows from being removed on this server: tables grow, and in the end transaction IDs run out";
	diagnosis->evidence =
		psprintf("its %s is %d transactions old; autovacuum_freeze_max_age is %d",
				 TransactionIdIsNormal(replica->xmin) ? "xmin" : "catalog_xmin",
				 replica->xmin_age, autovacuum_freeze_max_age);
	diagnosis->remedy = replica->pid != 0 ?
		"-- On the replica end its oldest query (see pg_stat_activity.backend_xmin), or set hot_standby_feedback to off there." :
		psprintf("-- If the replica does not return:\nSELECT pg_drop_replication_slot(%s);",
				 quote_literal_cstr(replica->name));
}

/* The newest attempt that concerns it, if recent; or NULL. */
static const PrkAttempt *
newest_attempt(const PrkEvidence *evidence, const char *name)
{
	const PrkAttempt *attempt = prk_evidence_attempt(evidence, name);

	return attempt != NULL &&
		prk_diagnose_is_recent(evidence, attempt->failure) ? attempt : NULL;
}

static bool
is_at_risk(const PrkReportRow *row)
{
	return row->replica->wal_status == PRK_WAL_UNRESERVED ||
		strcmp(row->verdict.code, "slot_at_risk") == 0 ||
		(row->replica->has_safe_wal_size && row->replica->safe_wal_size <= 0) ||
		strstr(row->verdict.reason, "slot will be lost") != NULL;
}

/* Does a commit wait for it, which is told as such? */
static bool
is_synchronous(const PrkEvidence *evidence, const char *name)
{
	ListCell   *cell;

	if (evidence->sync_there >= evidence->sync_wanted)
		return false;
	foreach(cell, evidence->sync_names)
	{
		if (pg_strcasecmp(lfirst(cell), name) == 0 ||
			strcmp(lfirst(cell), "*") == 0)
			return true;
	}
	return false;
}

static const char *
slot_facts(const PrkReplica *replica)
{
	char		retained[PRK_FORMAT_LEN];
	char		left[PRK_FORMAT_LEN];

	if (!replica->has_slot)
		return "no slot holds its WAL";
	if (replica->retained_bytes < 0)
		return "slot retains nothing";
	if (!replica->has_safe_wal_size)
		return psprintf("slot retains %s without limit",
						prk_format_size(retained, replica->retained_bytes));
	return psprintf("slot retains %s, %s left, wal_status \"%s\"",
					prk_format_size(retained, replica->retained_bytes),
					prk_format_size(left, replica->safe_wal_size),
					prk_wal_status_name(replica->wal_status));
}
