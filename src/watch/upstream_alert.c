/*-------------------------------------------------------------------------
 *
 * upstream_alert.c
 *	  A standby's own upstream, watched: since when it is away, and what is
 *	  worth a line.
 *
 * The rules are those of the replicas' alerts (alerts.c): a lag must have
 * lasted, an absence has its own time, and what was announced is taken back
 * only by a stream that is settled and well within its limits.  A receiver
 * that connects again and again for an instant is no recovery.
 *
 * IDENTIFICATION
 *	  src/watch/upstream_alert.c
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "clock/clock_shared.h"
#include "failures/failure_table.h"
#include "watch/upstream_alert.h"

static void judge(const PrkUpstream *upstream, const PrkFailureKind *kind,
				  const PrkThresholds *thresholds, TimestampTz gone_since,
				  TimestampTz now, PrkServerVerdict *verdict);

/*
 * Takes in one look at the upstream.  Returns true, with a line filled in, if
 * there is one to be logged.
 */
bool
prk_upstream_alert_step(PrkUpstreamAlert *alert, TimestampTz now,
						const PrkSilences *silences, PrkUpstreamLine *line)
{
	PrkBoardUpstream *seen = &alert->upstream;
	PrkLevel	before = seen->alert.alert;
	PrkThresholds thresholds;
	PrkServerVerdict verdict;
	PrkFailureKind kind;
	bool		result;

	line->alert = alert;
	line->failure = NULL;
	prk_upstream_read(&line->state);
	if (line->state.in_recovery)
		line->failure = prk_upstream_failure(prk_failures_read(), &kind);

	if (seen->still_since == 0 ||
		seen->replayed_lsn != line->state.replayed_lsn)
		seen->still_since = prk_clock_now();
	seen->replayed_lsn = line->state.replayed_lsn;
	prk_upstream_follow(&line->state, seen->replayed_lsn, seen->still_since);

	if (!line->state.wanted || line->state.settled)
		seen->gone_since = 0;
	else if (!line->state.streaming && seen->gone_since == 0)
		seen->gone_since = now;
	if (line->state.settled)
	{
		strlcpy(alert->host, line->state.sender_host, NI_MAXHOST);
		alert->port = line->state.sender_port;
		alert->seen_at = now;
	}

	prk_settings_own_thresholds(PRK_UPSTREAM_NAME, &thresholds);
	judge(&line->state, line->failure != NULL ? &kind : NULL, &thresholds,
		  seen->gone_since, now, &verdict);
	result = prk_trouble_step(&seen->alert, &alert->track, &verdict,
							  &thresholds,
							  prk_silence_find(silences, PRK_UPSTREAM_NAME),
							  now, &line->said);

	/* An absence has begun before it was worth a word. */
	if (before == PRK_OK && seen->alert.alert != PRK_OK &&
		seen->gone_since != 0)
		seen->alert.trouble_since = seen->gone_since;
	return result;
}

/* The machine's clock was set by so much. */
void
prk_upstream_alert_shift(PrkUpstreamAlert *alert, int64 jump)
{
	prk_board_shift_upstream(&alert->upstream, jump);
	prk_trouble_shift(&alert->track, jump);
	if (alert->seen_at != 0)
		alert->seen_at += jump;
}

/* Judges it, and once more by the limits for what was announced. */
static void
judge(const PrkUpstream *upstream, const PrkFailureKind *kind,
	  const PrkThresholds *thresholds, TimestampTz gone_since,
	  TimestampTz now, PrkServerVerdict *verdict)
{
	PrkThresholds lower = *thresholds;
	PrkVerdict	exact;
	PrkVerdict	lenient;

	prk_health_lower(&lower);
	prk_upstream_judge(upstream, kind, thresholds, true, gone_since, now,
					   &exact);
	prk_upstream_judge(upstream, kind, &lower, true, gone_since, now,
					   &lenient);

	memset(verdict, 0, sizeof(PrkServerVerdict));
	verdict->code = exact.code;
	verdict->level = exact.level;
	verdict->at_once = exact.at_once;
	strlcpy(verdict->reason, exact.reason, PRK_REASON_LEN);

	if (!upstream->in_recovery)
		strlcpy(verdict->reason, "this server is a standby no more",
				PRK_REASON_LEN);
	else if (upstream->wanted && !upstream->settled && !thresholds->off)
		verdict->lenient = PRK_CRITICAL;
	else
		verdict->lenient = Max(exact.level, lenient.level);
}
