/*-------------------------------------------------------------------------
 *
 * silence.h
 *	  Planned work: what is not to be told for a while.
 *
 * IDENTIFICATION
 *	  src/watch/silence.h
 *
 *-------------------------------------------------------------------------
 */
#ifndef PRK_SILENCE_H
#define PRK_SILENCE_H

#include "datatype/timestamp.h"

#include "foreign.h"
#include "judge/health.h"

/* How many names can be silenced at a time. */
#define PRK_MAX_SILENCES	128

/* Room for a name as diagnose() shows it: escaped, in quotes. */
#define PRK_SILENCE_NAME_LEN	(4 * NAMEDATALEN)

/* The longest, in microseconds. */
#define PRK_MAX_SILENCE		USECS_PER_DAY

/* Of one name; times by prk_clock_now(), which nobody sets. */
typedef struct PrkSilence
{
	char		name[PRK_SILENCE_NAME_LEN]; /* as diagnose() shows it */
	int64		begun_at;
	int64		ends_at;
	PrkForeign	role_name;		/* who said so */
	PrkForeignWords reason;
} PrkSilence;

/* Those that are not over, by name; all zero: none. */
typedef struct PrkSilences
{
	int			count;
	PrkSilence *silences;
} PrkSilences;

extern void prk_silence_shmem_request(void);
extern void prk_silence_shmem_startup(void);

extern bool prk_silence_possible(void);
extern bool prk_silence_begin(const PrkSilence *silence);
extern bool prk_silence_end(const char *name);
extern void prk_silence_read(PrkSilences *silences);
extern const PrkSilence *prk_silence_find(const PrkSilences *silences,
										  const char *name);
extern const PrkSilence *prk_silence_of_replica(const PrkSilences *silences,
												const char *name);
extern bool prk_silence_mutes(const PrkSilence *silence, PrkCode code,
							  PrkLevel level);
extern TimestampTz prk_silence_time(int64 at);
extern char *prk_silence_words(const PrkSilence *silence);

/* for the worker */
extern void prk_silence_load(void);
extern void prk_silence_expire(void);
extern PrkSilence *prk_silence_to_save(Size *size);

#endif							/* PRK_SILENCE_H */
