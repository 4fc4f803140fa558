/*-------------------------------------------------------------------------
 *
 * diagnose_standby.c
 *	  What is wrong with this server as a standby.
 *
 * IDENTIFICATION
 *	  src/diagnose/diagnose_standby.c
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/xlogrecovery.h"
#include "miscadmin.h"
#include "replication/walreceiver.h"
#include "utils/builtins.h"

#include "diagnose/diagnose_standby.h"
#include "format.h"

static void diagnose_cut(PrkFindings *findings);
static const char *rebuild_words(void);
static const char *cut_code(PrkFailureKind kind);
static const char *cut_finding(PrkFailureKind kind);
static void diagnose_stream(PrkFindings *findings);
static void diagnose_receiving(PrkFindings *findings);
static bool diagnose_parameters(PrkFindings *findings);
static void diagnose_replay(PrkFindings *findings);

/* Is it cut off from its upstream, and if not, is what comes replayed? */
void
prk_diagnose_standby(PrkFindings *findings)
{
	const PrkEvidence *evidence = findings->evidence;

	if (evidence->upstream_thresholds.off)
		return;
	if (evidence->upstream.wanted && !evidence->upstream.settled)
		diagnose_cut(findings);
	else
		diagnose_stream(findings);
	if (!diagnose_parameters(findings))
		diagnose_replay(findings);
}

/* The stream is cut; the receiver's last failure says why. */
static void
diagnose_cut(PrkFindings *findings)
{
	const PrkEvidence *evidence = findings->evidence;
	const PrkFailure *failure = evidence->upstream_failure;
	PrkGravity	gravity = prk_gravity_of(evidence->upstream_verdict.level);
	PrkDiagnosis *diagnosis;
	const char *code;

	if (failure == NULL || !prk_diagnose_is_recent(evidence, failure))
	{
		/* It may be about to connect for the first time. */
		if (evidence->upstream.streaming || gravity == PRK_GRAVITY_INFO)
			return;
		diagnosis = prk_diagnose_add(findings, gravity,
									 "upstream_unreachable",
									 PRK_UPSTREAM_NAME);
		diagnosis->finding = "this standby does not stream; preloaded, the kit would know why";
		diagnosis->evidence = evidence->upstream_verdict.reason;
		diagnosis->remedy = "-- Look into this server's log, and on the upstream run:\n-- SELECT * FROM replica_kit.diagnose();";
		return;
	}

	code = cut_code(evidence->upstream_kind);
	if (strcmp(code, "wal_removed") == 0 || strcmp(code, "slot_lost") == 0 ||
		strcmp(code, "slot_missing") == 0 || strcmp(code, "slot_taken") == 0 ||
		strcmp(code, "other_cluster") == 0 ||
		strcmp(code, "other_timeline") == 0)
		gravity = PRK_GRAVITY_CRITICAL;
	else if (gravity == PRK_GRAVITY_INFO)
		gravity = PRK_GRAVITY_WARNING;
	diagnosis = prk_diagnose_add(findings, gravity, code, PRK_UPSTREAM_NAME);
	diagnosis->finding = cut_finding(evidence->upstream_kind);
	diagnosis->evidence = psprintf("%s; %s", prk_diagnose_counted(failure),
								   evidence->upstream_verdict.reason);
	if (strcmp(code, "wal_removed") == 0 || strcmp(code, "slot_lost") == 0 ||
		strcmp(code, "other_timeline") == 0)
		diagnosis->remedy = rebuild_words();
	else if (strcmp(code, "other_cluster") == 0)
		diagnosis->remedy = "-- On the upstream run this, and do as it says; then rebuild this server by the script of join_script():\n-- SELECT * FROM replica_kit.diagnose();";
	else if (evidence->upstream_kind == PRK_FAILURE_NO_PASSWORD)
		diagnosis->remedy = "-- Give the password in the passfile that primary_conninfo names: the script of join_script() with --set-password.";
	else if (strcmp(code, "upstream_unreachable") == 0)
		diagnosis->remedy = "-- Start the upstream, or correct host and port in primary_conninfo and run:\nSELECT pg_reload_conf();";
	else
		diagnosis->remedy = "-- On the upstream run:\n-- SELECT * FROM replica_kit.diagnose();";
}

/* How to give this standby its data anew. */
static const char *
rebuild_words(void)
{
	bool		is_word = DataDir[strspn(DataDir, "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
										 "abcdefghijklmnopqrstuvwxyz"
										 "0123456789_./-")] == '\0';
	const char *slot = PrimarySlotName != NULL ? PrimarySlotName : "";

	return psprintf("-- On this machine run the script that has made this replica; on the upstream nothing is to be done:\n-- sh join_%s.sh --pgdata %s --rebuild\n-- Where that is no more, it comes from the upstream: replica_kit.join_script().",
					slot[0] != '\0' ? slot : "NAME", is_word ? DataDir : "DIR");
}

static const char *
cut_code(PrkFailureKind kind)
{
	switch (kind)
	{
		case PRK_FAILURE_HBA_NO_ENTRY:
			return "hba_no_entry";
		case PRK_FAILURE_HBA_REJECTS:
			return "hba_rejects";
		case PRK_FAILURE_AUTH_FAILED:
			return "auth_failed";
		case PRK_FAILURE_NO_PASSWORD:
			return "no_password";
		case PRK_FAILURE_ROLE_MISSING:
			return "role_missing";
		case PRK_FAILURE_ROLE_CANNOT_REPLICATE:
			return "role_cannot_replicate";
		case PRK_FAILURE_TOO_MANY:
			return "walsenders_exhausted";
		case PRK_FAILURE_SLOT_MISSING:
			return "slot_missing";
		case PRK_FAILURE_SLOT_TAKEN:
			return "slot_taken";
		case PRK_FAILURE_SLOT_LOST:
			return "slot_lost";
		case PRK_FAILURE_WAL_REMOVED:
			return "wal_removed";
		case PRK_FAILURE_OTHER_CLUSTER:
			return "other_cluster";
		case PRK_FAILURE_OTHER_TIMELINE:
			return "other_timeline";
		case PRK_FAILURE_TIMEOUT:
		case PRK_FAILURE_UNREACHABLE:
			return "upstream_unreachable";
		case PRK_FAILURE_OTHER:
		case PRK_FAILURE_UPSTREAM:
		case PRK_FAILURE_NO_SLOT_FREE:
		case PRK_FAILURE_WAL_ENDED:
		case PRK_FAILURE_REFUSED:
			return "upstream_refused";
	}
	pg_unreachable();
}

static const char *
cut_finding(PrkFailureKind kind)
{
	switch (kind)
	{
		case PRK_FAILURE_HBA_NO_ENTRY:
			return "no rule in the upstream's pg_hba.conf lets this server in as it comes (address, role, TLS or not); it goes on by itself once one does";
		case PRK_FAILURE_HBA_REJECTS:
			return "a rule in the upstream's pg_hba.conf rejects this server";
		case PRK_FAILURE_AUTH_FAILED:
			return "the upstream does not take the password that this server has";
		case PRK_FAILURE_NO_PASSWORD:
			return "the upstream wants a password and this server has none to send";
		case PRK_FAILURE_ROLE_MISSING:
			return "the role that this server connects as does not exist on the upstream";
		case PRK_FAILURE_ROLE_CANNOT_REPLICATE:
			return "the role that this server connects as may not replicate";
		case PRK_FAILURE_TOO_MANY:
			return "the upstream has no walsender free for this server";
		case PRK_FAILURE_SLOT_MISSING:
			return "the slot that this server asks for does not exist on the upstream; it goes on by itself once there is one, if the WAL since then is still there";
		case PRK_FAILURE_SLOT_TAKEN:
			return "another connection has this server's slot: an earlier one of its own that is not noticed to be dead, or another server";
		case PRK_FAILURE_SLOT_LOST:
			return "this server's slot is lost: a restart is not enough, it must be rebuilt";
		case PRK_FAILURE_WAL_REMOVED:
			return "the WAL that this server needs is gone from the upstream: a restart is not enough, it must be rebuilt";
		case PRK_FAILURE_OTHER_CLUSTER:
			return "the upstream is not of the cluster that this server is a copy of: correct primary_conninfo, or rebuild this server from it";
		case PRK_FAILURE_OTHER_TIMELINE:
			return "this server has WAL that the upstream's history does not contain: a restart is not enough, it must be rewound (pg_rewind) or rebuilt";
		case PRK_FAILURE_TIMEOUT:
		case PRK_FAILURE_UNREACHABLE:
			return "the upstream can't be reached: this server goes on by itself once it can";
		case PRK_FAILURE_OTHER:
		case PRK_FAILURE_UPSTREAM:
		case PRK_FAILURE_NO_SLOT_FREE:
		case PRK_FAILURE_WAL_ENDED:
		case PRK_FAILURE_REFUSED:
			return "the upstream refuses this server; its own words are the evidence";
	}
	pg_unreachable();
}

/* It calls itself streaming: does it come, and fast enough? */
static void
diagnose_stream(PrkFindings *findings)
{
	const PrkEvidence *evidence = findings->evidence;
	PrkDiagnosis *diagnosis;

	if (!evidence->upstream.stalled)
	{
		diagnose_receiving(findings);
		return;
	}
	diagnosis = prk_diagnose_add(findings,
								 prk_gravity_of(evidence->upstream_verdict.level),
								 "receiver_stalled", PRK_UPSTREAM_NAME);
	diagnosis->finding = "the connection to the upstream stands and nothing comes: the upstream, the network or the walreceiver hangs; the WAL still comes once it does not";
	diagnosis->evidence = psprintf("%s; wal_receiver_timeout is %d ms",
								   evidence->upstream_verdict.reason,
								   wal_receiver_timeout);
	diagnosis->remedy = wal_receiver_timeout > 0 ?
		"-- The walreceiver gives up and connects anew after wal_receiver_timeout; if it does not, it hangs itself: look at its process." :
		prk_diagnose_setting("wal_receiver_timeout", "1min");
}

/* It comes, but more slowly than it is made. */
static void
diagnose_receiving(PrkFindings *findings)
{
	const PrkEvidence *evidence = findings->evidence;
	const PrkUpstream *upstream = &evidence->upstream;
	const PrkVerdict *verdict = &evidence->upstream_verdict;
	PrkDiagnosis *diagnosis;
	char		unwritten[PRK_FORMAT_LEN];
	char		unflushed[PRK_FORMAT_LEN];

	if (strcmp(verdict->code, "network_slow") != 0 &&
		strcmp(verdict->code, "flush_slow") != 0)
		return;
	diagnosis = prk_diagnose_add(findings, prk_gravity_of(verdict->level),
								 verdict->code, PRK_UPSTREAM_NAME);
	diagnosis->evidence =
		psprintf("%s; not received %s, received and not flushed %s",
				 verdict->reason,
				 prk_format_size(unwritten, upstream->unreceived_bytes -
								 upstream->unflushed_bytes),
				 prk_format_size(unflushed, upstream->unflushed_bytes));
	if (strcmp(verdict->code, "flush_slow") == 0)
	{
		diagnosis->finding = "this server's disk is slower than WAL comes in; the WAL still comes";
		diagnosis->remedy = "-- Look at the disk of pg_wal on this server.";
	}
	else
	{
		diagnosis->finding = "WAL comes in more slowly than the upstream makes it: the network, or this server's disk; the WAL still comes";
		diagnosis->remedy = "-- Look at the network between the servers, at the disk of pg_wal on this one, and at the load that writes.";
	}
}

/*
 * The primary has raised what a standby may not have lower.  Replay pauses
 * when it comes to that, and the server ends when it is resumed.
 */
static bool
diagnose_parameters(PrkFindings *findings)
{
	const PrkEvidence *evidence = findings->evidence;
	PrkDiagnosis *diagnosis;
	const char *facts = "";
	const char *remedy = "";

	for (int i = 0; i < PRK_NPARAMETERS; i++)
	{
		const PrkParameter *parameter = &evidence->parameters[i];

		if (parameter->name == NULL || parameter->here >= parameter->primary)
			continue;
		facts = psprintf("%s%s%s is %d here and %d on the primary", facts,
						 facts[0] != '\0' ? "; " : "", parameter->name,
						 parameter->here, parameter->primary);
		remedy = psprintf("%sALTER SYSTEM SET %s = %d;\n", remedy,
						  parameter->name, parameter->primary);
	}
	if (facts[0] == '\0')
		return false;
	diagnosis = prk_diagnose_add(findings, PRK_GRAVITY_CRITICAL,
								 "parameters_too_low", PRK_UPSTREAM_NAME);
	diagnosis->finding = evidence->upstream.pause_state != RECOVERY_NOT_PAUSED ?
		"replay is paused for good, since the primary allows more than this server: resumed, it would shut down; with the settings raised, a restart is enough" :
		"the primary allows more than this server, which would not start again as it is; with the settings raised, a restart is enough";
	diagnosis->evidence = facts;
	diagnosis->remedy = psprintf("%s-- Then restart this server.", remedy);
	return true;
}

/* The WAL is here and is not replayed. */
static void
diagnose_replay(PrkFindings *findings)
{
	const PrkEvidence *evidence = findings->evidence;
	const PrkUpstream *upstream = &evidence->upstream;
	PrkGravity	gravity = prk_gravity_of(evidence->upstream_verdict.level);
	PrkDiagnosis *diagnosis;
	char		size[PRK_FORMAT_LEN];
	char		age[PRK_FORMAT_LEN];

	prk_format_size(size, upstream->unreplayed_bytes);
	prk_format_duration(age, Max(upstream->lag_age, 0));
	if (upstream->pause_state == RECOVERY_PAUSED ||
		upstream->pause_state == RECOVERY_PAUSE_REQUESTED)
	{
		diagnosis = prk_diagnose_add(findings,
									 Max(gravity, PRK_GRAVITY_WARNING),
									 "replay_paused", PRK_UPSTREAM_NAME);
		diagnosis->finding = "somebody has paused replay: resumed, it catches up by itself";
		diagnosis->evidence = psprintf("pg_get_wal_replay_pause_state() is not \"not paused\"; %s unreplayed",
									   size);
		diagnosis->remedy = "SELECT pg_wal_replay_resume();";
		return;
	}

	if (evidence->replay_waits != NULL &&
		upstream->lag_age >= evidence->upstream_thresholds.lag_grace * 1000)
	{
		diagnosis = prk_diagnose_add(findings, gravity, "replay_conflict",
									 PRK_UPSTREAM_NAME);
		diagnosis->finding = "replay waits for a query on this server: it goes on when that ends, or when max_standby_streaming_delay has passed";
		diagnosis->evidence =
			psprintf("startup waits for %s since %s, %s unreplayed; oldest snapshot: pid %d, xmin %u",
					 evidence->replay_waits, age, size, evidence->oldest_pid,
					 evidence->oldest_xmin);
		diagnosis->remedy = evidence->oldest_pid != 0 ?
			psprintf("SELECT pg_terminate_backend(%d);",
					 evidence->oldest_pid) :
			"-- See pg_stat_activity for the query that holds it.";
		return;
	}

	if (upstream->settled && !upstream->stalled &&
		strcmp(evidence->upstream_verdict.code, "replay_slow") == 0)
	{
		diagnosis = prk_diagnose_add(findings, gravity, "replay_slow",
									 PRK_UPSTREAM_NAME);
		diagnosis->finding = "replay is slower than WAL comes in: it catches up by itself once less is written";
		diagnosis->evidence = evidence->upstream_verdict.reason;
		diagnosis->remedy = "-- Look at the load of this server: replay is one process, and waits for its disk and CPU.";
	}
}
