/*-------------------------------------------------------------------------
 *
 * server_facts.h
 *	  What the server as a whole is judged by.
 *
 * IDENTIFICATION
 *	  src/watch/server_facts.h
 *
 *-------------------------------------------------------------------------
 */
#ifndef PRK_SERVER_FACTS_H
#define PRK_SERVER_FACTS_H

#include "judge/server.h"

extern void prk_server_facts_read(const PrkSample *sample,
								  PrkArchiveMark *mark,
								  PrkServerFacts *facts);

#endif							/* PRK_SERVER_FACTS_H */
