/*-------------------------------------------------------------------------
 *
 * gatekeeper.c
 *	  The worker's part of the read gate: when it is closed, and the lines.
 *
 * What counts is WAL that the upstream is known to have and that is not
 * replayed here.  A stream that is cut leaves the known end where it was, so a
 * dead primary does not close its replicas, unless they are told so.
 *
 * IDENTIFICATION
 *	  src/watch/gatekeeper.c
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/xlogrecovery.h"

#include "format.h"
#include "reads/gate.h"
#include "settings.h"
#include "watch/announce.h"
#include "watch/gatekeeper.h"

/* A gate is closed for so many samples, should the worker not come back. */
#define CLOSED_SAMPLES		3

/* So many bytes are on their way on any healthy pair. */
#define IN_FLIGHT			(1024 * 1024)

static int64 age_of(const PrkUpstream *upstream, int64 bytes,
					TimestampTz gone_since, TimestampTz now);

/*
 * Judges the gate by this sample, and logs its changes.  To be called with each
 * sample, also on a primary, which opens it.
 */
void
prk_gatekeeper_step(const PrkUpstream *upstream, TimestampTz gone_since,
					TimestampTz now)
{
	TimestampTz since;
	bool		was_closed = prk_gate_read(&since) == PRK_GATE_CLOSED;
	bool		fresh;
	int64		bytes;
	int64		age;
	char		size[PRK_FORMAT_LEN];
	char		span[PRK_FORMAT_LEN];
	char		duration[PRK_FORMAT_LEN];

	if (!prk_gate_is_set() || !upstream->in_recovery)
		return;

	/* Until the upstream has said how far it is, nothing is known. */
	fresh = prk_gate_is_fresh();
	if (fresh && upstream->wanted && upstream->unreceived_bytes < 0)
		return;

	bytes = upstream->unreplayed_bytes + Max(upstream->unreceived_bytes, 0);
	age = age_of(upstream, bytes, gone_since, now);
	prk_format_size(size, bytes);
	prk_format_duration(span, Max(age, 0));
	if (prk_gate_judge(bytes, age, was_closed))
	{
		prk_gate_close(CLOSED_SAMPLES * (int64) prk_check_interval * 1000);
		if (!was_closed || fresh)
			ereport(WARNING,
					(errcode(PRK_ERRCODE_WARNING),
					 errmsg("read gate closed: replay is %s and %s behind",
							span, size),
					 errdetail("New sessions are refused, other than those of superusers, monitors and replicas, and by Unix sockets."),
					 errhint("Run: SELECT * FROM replica_kit.diagnose('upstream');")));
	}
	else
	{
		uint64		refused = prk_gate_open();

		prk_format_duration(duration, Max(now - since, 0));
		if (was_closed)
			ereport(LOG,
					(errcode(PRK_ERRCODE_OK),
					 errmsg("read gate open: replay is %s and %s behind, after %s",
							span, size, duration),
					 errdetail("Sessions refused: " UINT64_FORMAT ".",
							   refused)));
	}
}

/*
 * How long ago the WAL that is replayed next was written, in microseconds; -1:
 * not known.
 */
static int64
age_of(const PrkUpstream *upstream, int64 bytes, TimestampTz gone_since,
	   TimestampTz now)
{
	int64		age = prk_gate_when_cut ?
	prk_upstream_lag_time(upstream, gone_since, now) : upstream->lag_age;

	/*
	 * Soon after a start the clock does not reach back so far.  The time of
	 * the last replayed commit does; it means nothing while nothing waits.
	 */
	if (!upstream->has_clock && bytes > IN_FLIGHT)
	{
		TimestampTz replayed = GetLatestXTime();

		if (replayed != 0)
			age = Max(age, now - replayed);
	}
	return age;
}
