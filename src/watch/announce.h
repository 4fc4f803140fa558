/*-------------------------------------------------------------------------
 *
 * announce.h
 *	  The worker's lines in the server's log.
 *
 * IDENTIFICATION
 *	  src/watch/announce.h
 *
 *-------------------------------------------------------------------------
 */
#ifndef PRK_ANNOUNCE_H
#define PRK_ANNOUNCE_H

#include "watch/alerts.h"
#include "watch/server_alert.h"
#include "watch/unserved.h"
#include "watch/upstream_alert.h"

/* SQLSTATEs of the kit's judgements. */
#define PRK_ERRCODE_OK			MAKE_SQLSTATE('R','K','0','0','0')
#define PRK_ERRCODE_WARNING		MAKE_SQLSTATE('R','K','0','0','1')
#define PRK_ERRCODE_CRITICAL	MAKE_SQLSTATE('R','K','0','0','2')

extern int	prk_announce_errcode(PrkLevel level);
extern void prk_announce_line(const PrkLine *line);
extern void prk_announce_server(const PrkServerLine *line);
extern void prk_announce_upstream(const PrkUpstreamLine *line);
extern void prk_announce_start(const PrkSample *sample);
extern void prk_announce_pause(void);
extern void prk_announce_unserved(const PrkUnserved *unserved);
extern void prk_announce_served(const char *name, int64 lasted);
extern void prk_announce_promotion(const PrkSample *sample);

#endif							/* PRK_ANNOUNCE_H */
