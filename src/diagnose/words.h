/*-------------------------------------------------------------------------
 *
 * words.h
 *	  A diagnosis in words: finding, evidence, remedy, advice.
 *
 * IDENTIFICATION
 *	  src/diagnose/words.h
 *
 *-------------------------------------------------------------------------
 */
#ifndef PRK_WORDS_H
#define PRK_WORDS_H

#include "lib/stringinfo.h"

#include "diagnose/findings.h"

/* All palloc'd in the caller's memory context, in the database's encoding. */
typedef struct PrkWords
{
	const char *finding;		/* what is wrong, for the WAL, who must act */
	const char *remedy;			/* one statement that is safe unseen; or NULL */
	bool		sets;			/* the remedy is ALTER SYSTEM */
	StringInfoData evidence;
	StringInfoData advice;		/* "": none */
} PrkWords;

/* What one diagnosis is put into words from. */
typedef struct PrkWordsInput
{
	const PrkEvidence *evidence;
	const PrkDiagnosis *diagnosis;
} PrkWordsInput;

extern void prk_words_write(const PrkEvidence *evidence,
							const PrkDiagnosis *diagnosis, PrkWords *words);
extern char *prk_words_name(const PrkDiagnosis *diagnosis);

/* for words_*.c: by subject */
extern void prk_words_replica(const PrkWordsInput *in, PrkWords *words);
extern void prk_words_refused(const PrkWordsInput *in, PrkWords *words);
extern void prk_words_upstream(const PrkWordsInput *in, PrkWords *words);
extern void prk_words_server(const PrkWordsInput *in, PrkWords *words);

/* clauses of the evidence, lines of the advice */
extern void prk_words_clause(PrkWords *words, const char *fmt,...) pg_attribute_printf(2, 3);
extern void prk_words_advise(PrkWords *words, const char *fmt,...) pg_attribute_printf(2, 3);
extern void prk_words_advise_rebuild(PrkWords *words, const PrkWordsInput *in,
									 const char *step);
extern const char *prk_words_step_removed(bool archived, bool summarized);
extern bool prk_words_summarized(const PrkWordsInput *in);
extern void prk_words_failure(PrkWords *words, const PrkFailure *failure);
extern void prk_words_slot(PrkWords *words, const PrkWordsInput *in);
extern void prk_words_absence(PrkWords *words, const PrkWordsInput *in);

/* pieces of sentences, palloc'd */
extern const char *prk_words_ago(const PrkEvidence *evidence,
								 TimestampTz when);
extern const char *prk_words_time(const PrkEvidence *evidence,
								  TimestampTz when);
extern const char *prk_words_size(int64 bytes);
extern const char *prk_words_duration(int64 microseconds);
extern const char *prk_words_literal(const char *value);
extern const char *prk_words_identifier(const char *name);
extern const char *prk_words_quoted(const char *name);
extern const char *prk_words_place(const PrkWordsInput *in);
extern const char *prk_words_script(const char *name);
extern const char *prk_words_dismissal(const PrkWordsInput *in);

/* the closed list of remedies */
extern void prk_remedy_reload(PrkWords *words);
extern void prk_remedy_setting(PrkWords *words, const char *name,
							   const char *value);
extern void prk_remedy_provision(PrkWords *words, const char *name,
								 const char *address, const char *role_name);
extern void prk_remedy_slot(PrkWords *words, const char *name);
extern void prk_remedy_end_walsender(PrkWords *words, const char *slot_name,
									 int pid);

#endif							/* PRK_WORDS_H */
