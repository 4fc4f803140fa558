/*-------------------------------------------------------------------------
 *
 * upstream_alert.h
 *	  A standby's own upstream, watched: since when it is away, and what is
 *	  worth a line.
 *
 * IDENTIFICATION
 *	  src/watch/upstream_alert.h
 *
 *-------------------------------------------------------------------------
 */
#ifndef PRK_UPSTREAM_ALERT_H
#define PRK_UPSTREAM_ALERT_H

#include "watch/server_alert.h"
#include "watch/upstream.h"

/* All zero at first. */
typedef struct PrkUpstreamAlert
{
	PrkBoardUpstream upstream;	/* what is published */
	PrkServerTrack track;
	char		host[NI_MAXHOST];	/* whom it streamed from last; "" none */
	int			port;
	TimestampTz seen_at;		/* and when that was seen */
} PrkUpstreamAlert;

/* A line to be logged, with what its DETAIL is made of. */
typedef struct PrkUpstreamLine
{
	PrkTroubleLine said;
	PrkUpstream state;
	const PrkUpstreamAlert *alert;
	const PrkFailure *failure;	/* its receiver's last, if recent; or NULL */
} PrkUpstreamLine;

extern bool prk_upstream_alert_step(PrkUpstreamAlert *alert, TimestampTz now,
									const PrkSilences *silences,
									PrkUpstreamLine *line);
extern void prk_upstream_alert_shift(PrkUpstreamAlert *alert, int64 jump);

#endif							/* PRK_UPSTREAM_ALERT_H */
