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

#include "diagnose/diagnose_standby.h"

static void diagnose_cut(PrkFindings *findings);
static void diagnose_stream(PrkFindings *findings);
static bool diagnose_parameters(PrkFindings *findings);
static void diagnose_replay(PrkFindings *findings);
static PrkDiagnosis *add(PrkFindings *findings, PrkCode code);

/* Is it cut off from its upstream, and if not, is what comes replayed? */
void
prk_diagnose_standby(PrkFindings *findings)
{
	const PrkEvidence *evidence = findings->evidence;

	if (evidence->collations.databases != NULL ||
		evidence->collations.count > 0)
		prk_diagnose_add(findings, PRK_CODE_COLLATION_VERSION_MISMATCH,
						 PRK_SUBJECT_SERVER, NULL);
	if (evidence->upstream_thresholds.off)
		return;
	if (evidence->upstream.keeps_timeline && evidence->timeline_end != NULL &&
		prk_diagnose_is_recent(evidence, evidence->timeline_end))
		add(findings, PRK_CODE_TIMELINE_NOT_FOLLOWED)->failure =
			evidence->timeline_end;
	else if (evidence->upstream.wanted && !evidence->upstream.settled)
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
	PrkGravity	gravity = prk_gravity_of(evidence->upstream_effective);
	PrkDiagnosis *diagnosis;

	if (failure == NULL)
	{
		/* It may be about to connect for the first time. */
		if (evidence->upstream.streaming || gravity == PRK_GRAVITY_INFO)
			return;
		diagnosis = add(findings, PRK_CODE_UPSTREAM_UNREACHABLE);
		diagnosis->gravity = gravity;
		return;
	}
	diagnosis = add(findings, prk_upstream_code(evidence->upstream_kind));
	diagnosis->failure = failure;
	diagnosis->kind = evidence->upstream_kind;

	diagnosis->gravity = Max(gravity, PRK_GRAVITY_WARNING);
}

/* It calls itself streaming: does it come, and fast enough? */
static void
diagnose_stream(PrkFindings *findings)
{
	const PrkEvidence *evidence = findings->evidence;
	const PrkVerdict *verdict = &evidence->upstream_verdict;

	if (evidence->upstream.stalled)
		add(findings, PRK_CODE_RECEIVER_STALLED)->gravity =
			prk_gravity_of(evidence->upstream_effective);
	else if (verdict->code == PRK_CODE_NETWORK_SLOW ||
			 verdict->code == PRK_CODE_FLUSH_SLOW ||
			 verdict->code == PRK_CODE_RESTORE_STALLED)
		add(findings, verdict->code)->gravity =
			prk_gravity_of(evidence->upstream_effective);
}

/*
 * The primary has raised what a standby may not have lower.  Replay pauses
 * when it comes to that, and the server ends when it is resumed.  Each has a
 * row of its own, since each has a statement of its own.
 */
static bool
diagnose_parameters(PrkFindings *findings)
{
	const PrkEvidence *evidence = findings->evidence;
	bool		found = false;

	for (int i = 0; i < PRK_NPARAMETERS; i++)
	{
		const PrkParameter *parameter = &evidence->parameters[i];
		PrkDiagnosis *diagnosis;

		if (parameter->name == NULL || parameter->here >= parameter->primary)
			continue;
		diagnosis = add(findings, PRK_CODE_PARAMETERS_TOO_LOW);

		/* While it is not connected, that is what counts in every mouth. */
		diagnosis->gravity = evidence->upstream.cannot_resume &&
			evidence->upstream_verdict.code == PRK_CODE_PARAMETERS_TOO_LOW ?
			PRK_GRAVITY_CRITICAL : PRK_GRAVITY_WARNING;
		diagnosis->parameter = parameter;
		found = true;
	}
	return found;
}

/* The WAL is here and is not replayed. */
static void
diagnose_replay(PrkFindings *findings)
{
	const PrkEvidence *evidence = findings->evidence;
	const PrkUpstream *upstream = &evidence->upstream;
	PrkGravity	gravity = prk_gravity_of(evidence->upstream_effective);

	PrkCode		code = evidence->upstream_verdict.code;

	/* To resume what has reached its target is to promote it. */
	if (upstream->has_target)
		add(findings, PRK_CODE_RECOVERY_TARGET_SET)->gravity =
			Max(gravity, PRK_GRAVITY_WARNING);
	else if (upstream->pause_state != RECOVERY_NOT_PAUSED)
		add(findings, PRK_CODE_REPLAY_PAUSED)->gravity =
			Max(gravity, PRK_GRAVITY_WARNING);
	if (upstream->pause_state != RECOVERY_NOT_PAUSED)
		return;

	switch (evidence->replay.wait)
	{
		case PRK_REPLAY_WAIT_CONFLICT:
		case PRK_REPLAY_WAIT_LOCK:
		case PRK_REPLAY_WAIT_PIN:
			if (upstream->lag_age <
				evidence->upstream_thresholds.lag_grace * 1000)
				return;
			add(findings, PRK_CODE_REPLAY_CONFLICT)->gravity = gravity;
			return;
		case PRK_REPLAY_WAIT_DELAY:
			if (code != PRK_CODE_REPLAY_SLOW)
			{
				add(findings, PRK_CODE_REPLAY_DELAYED);
				return;
			}
			break;
		case PRK_REPLAY_WAIT_NONE:
			break;
	}
	if (upstream->settled && !upstream->stalled &&
		code == PRK_CODE_REPLAY_SLOW)
		add(findings, PRK_CODE_REPLAY_SLOW)->gravity = gravity;
}

static PrkDiagnosis *
add(PrkFindings *findings, PrkCode code)
{
	return prk_diagnose_add(findings, code, PRK_SUBJECT_UPSTREAM, NULL);
}
