/*-------------------------------------------------------------------------
 *
 * words.c
 *	  A diagnosis in words: finding, evidence, remedy, advice.
 *
 * The only place, with its neighbours words_*.c, where a diagnosis becomes
 * text, and where text is quoted for SQL.  Here is what they share.
 *
 * A remedy is one statement of a closed list of forms that is safe to run
 * unseen: it destroys nothing, ends nobody's session but the kit's own stalled
 * receiver, and holds no text that came from outside.  All else is advice.
 *
 * Rows are read in a terminal of 120 columns, of which the names of the columns
 * take eleven, so the clauses of the evidence are wrapped.
 *
 * IDENTIFICATION
 *	  src/diagnose/words.c
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "pgtime.h"
#include "utils/builtins.h"
#include "utils/guc.h"
#include "utils/timestamp.h"

#include "diagnose/words.h"
#include "foreign.h"
#include "format.h"

/* The longest line of a value. */
#define LINE_LEN		107

static bool is_plain(const char *name);

/* Puts a diagnosis into words; words is wholly overwritten. */
void
prk_words_write(const PrkEvidence *evidence, const PrkDiagnosis *diagnosis,
				PrkWords *words)
{
	PrkWordsInput in = {evidence, diagnosis};

	memset(words, 0, sizeof(PrkWords));
	initStringInfo(&words->evidence);
	initStringInfo(&words->advice);
	switch (diagnosis->subject)
	{
		case PRK_SUBJECT_SERVER:
			prk_words_server(&in, words);
			break;
		case PRK_SUBJECT_UPSTREAM:
			prk_words_upstream(&in, words);
			break;
		case PRK_SUBJECT_REPLICA:
			if (diagnosis->attempt != NULL)
				prk_words_refused(&in, words);
			else
				prk_words_replica(&in, words);
			break;
	}
	Assert(words->finding != NULL);
	Assert(words->remedy == NULL ||
		   prk_code_info(diagnosis->code)->has_remedy);
}

/*
 * The name that a diagnosis is shown and asked for under.  A replica that is
 * called as the server or its upstream is stands in quotes.
 */
char *
prk_words_name(const PrkDiagnosis *diagnosis)
{
	switch (diagnosis->subject)
	{
		case PRK_SUBJECT_SERVER:
			return PRK_SERVER_NAME;
		case PRK_SUBJECT_UPSTREAM:
			return PRK_UPSTREAM_NAME;
		case PRK_SUBJECT_REPLICA:
			break;
	}
	return prk_foreign_show_text(prk_settings_shown_name(diagnosis->name));
}

/* Adds a clause to the evidence, on a new line if it does not fit. */
void
prk_words_clause(PrkWords *words, const char *fmt,...)
{
	StringInfo	buf = &words->evidence;
	StringInfoData clause;
	const char *line;

	initStringInfo(&clause);
	for (;;)
	{
		va_list		args;
		int			needed;

		va_start(args, fmt);
		needed = appendStringInfoVA(&clause, fmt, args);
		va_end(args);
		if (needed == 0)
			break;
		enlargeStringInfo(&clause, needed);
	}
	if (buf->len > 0)
	{
		line = strrchr(buf->data, '\n');
		line = line != NULL ? line + 1 : buf->data;
		appendStringInfoString(buf, strlen(line) + 2 + clause.len > LINE_LEN ?
							   ";\n" : "; ");
	}
	appendBinaryStringInfo(buf, clause.data, clause.len);
}

/* Adds a line to the advice. */
void
prk_words_advise(PrkWords *words, const char *fmt,...)
{
	StringInfo	buf = &words->advice;

	if (buf->len > 0)
		appendStringInfoChar(buf, '\n');
	for (;;)
	{
		va_list		args;
		int			needed;

		va_start(args, fmt);
		needed = appendStringInfoVA(buf, fmt, args);
		va_end(args);
		if (needed == 0)
			break;
		enlargeStringInfo(buf, needed);
	}
}

/*
 * Which step of the script's --rebuild brings back what needs WAL that is
 * removed.  archived: an archive may have it; summarized: the upstream keeps
 * summaries of its WAL.
 */
const char *
prk_words_step_removed(bool archived, bool summarized)
{
	const char *last = summarized ? "changed blocks, or a full clone" :
	"a full clone";

	return archived ?
		psprintf("The step there: WAL from the archive, if a restore_command fetches it; else %s.",
				 last) :
		psprintf("The step there: %s, unless --restore-command fetches the WAL from an archive.",
				 last);
}

/*
 * Can this server tell which blocks have changed?  It keeps summaries of its WAL
 * (17), and preloads the kit, which is asked for what they leave out.
 */
bool
prk_words_summarized(const PrkWordsInput *in)
{
	const char *value = GetConfigOption("summarize_wal", true, false);

	return value != NULL && strcmp(value, "on") == 0 &&
		in->evidence->report->failures->exist;
}

/*
 * Advises to bring the replica back by its script, which takes the least that
 * is enough: step says what that will be.  It does it all, with a slot that is
 * lost or gone, too.
 */
void
prk_words_advise_rebuild(PrkWords *words, const PrkWordsInput *in,
						 const char *step)
{
	const char *script = prk_words_script(in->diagnosis->name);

	prk_words_advise(words, "%s, as root, with that replica's own --cluster or --pgdata:",
					 prk_words_place(in));
	prk_words_advise(words, "  %s --rebuild --dry-run    says what it would do and move",
					 script);
	prk_words_advise(words, "  %s --rebuild              does it; the old data is kept",
					 script);
	prk_words_advise(words, "%s", step);
	if (in->diagnosis->code == PRK_CODE_OTHER_TIMELINE)
		prk_words_advise(words, "  SELECT replica_kit.allow_rewind(%s, '1 hour');",
						 quote_literal_cstr(in->diagnosis->name));
	prk_words_advise(words, "%s The script, if it is gone (provision() first if the slot is):",
					 in->diagnosis->code == PRK_CODE_OTHER_TIMELINE ?
					 "Nothing else has to be done on this server." :
					 "Nothing has to be done on this server.");
	prk_words_advise(words, "  SELECT replica_kit.join_script(%s, 'ADDRESS_OF_THIS_SERVER');",
					 quote_literal_cstr(in->diagnosis->name));
}

/* A failure as evidence: its words, how often, and since when. */
void
prk_words_failure(PrkWords *words, const PrkFailure *failure)
{
	char		when[PRK_FORMAT_LEN];

	prk_words_clause(words, "%s", prk_foreign_show_words(&failure->message));
	if (failure->count == 1)
		prk_words_clause(words, "once, at %s",
						 prk_format_time(when, failure->last_at));
	else
		prk_words_clause(words, INT64_FORMAT " times, last at %s",
						 failure->count,
						 prk_format_time(when, failure->last_at));
}

/* What the replica's slot retains, of how much. */
void
prk_words_slot(PrkWords *words, const PrkWordsInput *in)
{
	const PrkReplica *replica = in->diagnosis->row->replica;

	if (!replica->has_slot)
		prk_words_clause(words, "no slot retains WAL for it");
	else if (replica->retained_bytes < 0)
		prk_words_clause(words, "slot retains nothing");
	else if (!replica->has_safe_wal_size)
		prk_words_clause(words, "slot retains %s without limit",
						 prk_words_size(replica->retained_bytes));
	else
		prk_words_clause(words, "slot retains %s, %s left, wal_status \"%s\"",
						 prk_words_size(replica->retained_bytes),
						 prk_words_size(replica->safe_wal_size),
						 prk_wal_status_name(replica->wal_status));
}

/* Since when it is away, and from where. */
void
prk_words_absence(PrkWords *words, const PrkWordsInput *in)
{
	const PrkVerdict *verdict = &in->diagnosis->row->verdict;
	const PrkOwner *owner = in->diagnosis->owner;
	const char *from = owner != NULL && owner->entry != NULL ?
	owner->entry->known.last_addr : "";

	if (verdict->fact == PRK_FACT_NEVER_CONNECTED)
		prk_words_clause(words, "never connected, slot was made %s",
						 prk_words_ago(in->evidence, in->evidence->now -
									   verdict->since));
	else if (verdict->fact == PRK_FACT_GONE && verdict->since >= 0)
		prk_words_clause(words, "disconnected %s%s%s",
						 prk_words_ago(in->evidence, in->evidence->now -
									   verdict->since),
						 from[0] != '\0' ? " from " : "", from);
	else
		prk_words_clause(words, "%s", verdict->reason);
}

/*
 * A moment that is past: how long ago, and when by the session's time zone,
 * with the date where that is another day.
 */
const char *
prk_words_ago(const PrkEvidence *evidence, TimestampTz when)
{
	return psprintf("%s ago (%s)", prk_words_duration(evidence->now - when),
					prk_words_time(evidence, when));
}

/* When that was. */
const char *
prk_words_time(const PrkEvidence *evidence, TimestampTz when)
{
	pg_time_t	seconds = timestamptz_to_time_t(when);
	char	   *at = palloc(PRK_FORMAT_LEN);

	pg_strftime(at, PRK_FORMAT_LEN,
				evidence->now - when < 12 * USECS_PER_HOUR ?
				"%H:%M:%S" : "%Y-%m-%d %H:%M",
				pg_localtime(&seconds, session_timezone));
	return at;
}

/* A number of bytes. */
const char *
prk_words_size(int64 bytes)
{
	return prk_format_size(palloc(PRK_FORMAT_LEN), bytes);
}

/* A duration. */
const char *
prk_words_duration(int64 microseconds)
{
	return prk_format_duration(palloc(PRK_FORMAT_LEN), microseconds);
}

/* A value as an SQL literal. */
const char *
prk_words_literal(const char *value)
{
	return quote_literal_cstr(value);
}

/* A name as an SQL identifier. */
const char *
prk_words_identifier(const char *name)
{
	return quote_identifier(name);
}

/* A name from anywhere, as prose quotes it. */
const char *
prk_words_quoted(const char *name)
{
	return psprintf("\"%s\"", prk_foreign_show_text(name));
}

/*
 * Where the replica is, as the beginning of a sentence: where it was last seen,
 * else the one address that its rule lets in.
 */
const char *
prk_words_place(const PrkWordsInput *in)
{
	const PrkOwner *owner = in->diagnosis->owner;
	const char *address = owner != NULL && owner->entry != NULL ?
	owner->entry->known.last_addr : "";
	const char *mask;

	if (address[0] != '\0' && address[0] != '[' && address[0] != '?')
		return psprintf("On %s", address);
	if (owner == NULL || owner->address == NULL)
		return "On the replica's machine";

	address = owner->address;
	mask = strchr(address, '/');
	if (mask == NULL ||
		strcmp(mask, strchr(address, ':') != NULL ? "/128" : "/32") != 0)
		return "On the replica's machine";
	return psprintf("On %s", pnstrdup(address, mask - address));
}

/*
 * How the replica's script is called, up to its last option.  It has the name
 * that provision() has proposed; what is no such name is left open.
 */
const char *
prk_words_script(const char *name)
{
	return psprintf("sh join_%s.sh --cluster %d/main",
					is_plain(name) ? name : "NAME", PG_MAJORVERSION_NUM);
}

/* The statement that gives the replica up. */
const char *
prk_words_dismissal(const PrkWordsInput *in)
{
	const PrkDiagnosis *diagnosis = in->diagnosis;
	const char *literal = quote_literal_cstr(diagnosis->name);

	if (diagnosis->owner != NULL && diagnosis->owner->role_name != NULL)
		return psprintf("SELECT * FROM replica_kit.deprovision(%s);", literal);
	return psprintf("SELECT pg_drop_replication_slot(%s);", literal);
}

/* Only letters, digits and underscores, as in the name of a slot. */
static bool
is_plain(const char *name)
{
	return name[0] != '\0' &&
		name[strspn(name, "abcdefghijklmnopqrstuvwxyz0123456789_")] == '\0';
}

/* Remedy: what is in the files is not loaded. */
void
prk_remedy_reload(PrkWords *words)
{
	words->remedy = "SELECT pg_reload_conf();";
}

/* Remedy: a setting of this server. */
void
prk_remedy_setting(PrkWords *words, const char *name, const char *value)
{
	words->remedy = psprintf("ALTER SYSTEM SET %s = %s;", name,
							 quote_literal_cstr(value));
	words->sets = true;
}

/*
 * Remedy: what the replica lacks of role, slot and line.  Its address and its
 * role must be proved to be its own.
 */
void
prk_remedy_provision(PrkWords *words, const char *name, const char *address,
					 const char *role_name)
{
	const char *role = "";

	if (strcmp(role_name, name) != 0)
		role = psprintf(", %s", quote_literal_cstr(role_name));
	words->remedy = psprintf("SELECT * FROM replica_kit.provision(%s, %s%s);",
							 quote_literal_cstr(name),
							 quote_literal_cstr(address), role);
}

/* Remedy: the slot of a replica that is known by its role. */
void
prk_remedy_slot(PrkWords *words, const char *name)
{
	words->remedy = psprintf("SELECT pg_create_physical_replication_slot(%s, true);",
							 quote_literal_cstr(name));
}

/*
 * Remedy: end the connection of a receiver that is stalled, of a replica that
 * the kit made; it connects again.  Only while this process serves that slot.
 */
void
prk_remedy_end_walsender(PrkWords *words, const char *slot_name, int pid)
{
	words->remedy = psprintf("SELECT pg_terminate_backend(active_pid) FROM pg_replication_slots WHERE slot_name = %s AND active_pid = %d;",
							 quote_literal_cstr(slot_name), pid);
}
