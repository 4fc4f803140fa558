/*-------------------------------------------------------------------------
 *
 * words_refused.c
 *	  Words for why a replica that wants to connect to this server can't.
 *
 * IDENTIFICATION
 *	  src/diagnose/words_refused.c
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/xlog.h"
#include "diagnose/words.h"
#include "foreign.h"

static void word_no_entry(const PrkWordsInput *in, PrkWords *words);
static void word_rejected(const PrkWordsInput *in, PrkWords *words);
static void word_shadowed(const PrkWordsInput *in, PrkWords *words);
static void word_password(const PrkWordsInput *in, PrkWords *words);
static void word_role(const PrkWordsInput *in, PrkWords *words);
static void word_slot_missing(const PrkWordsInput *in, PrkWords *words);
static void word_taken(const PrkWordsInput *in, PrkWords *words);
static void word_rebuild(const PrkWordsInput *in, PrkWords *words);
static const char *role_of(const PrkWordsInput *in);
static const char *origin(const PrkAttempt *attempt);
static bool is_own_role(const PrkDiagnosis *diagnosis);
static void advise_provision(const PrkWordsInput *in, PrkWords *words);

/* Puts the failed attempt of a replica into words. */
void
prk_words_refused(const PrkWordsInput *in, PrkWords *words)
{
	const PrkDiagnosis *diagnosis = in->diagnosis;

	if (diagnosis->code == PRK_CODE_SLOT_TAKEN)
	{
		word_taken(in, words);
		return;
	}
	prk_words_failure(words, diagnosis->attempt->failure);
	prk_words_clause(words, "from %s", origin(diagnosis->attempt));
	switch (diagnosis->code)
	{
		case PRK_CODE_HBA_NO_ENTRY:
			word_no_entry(in, words);
			break;
		case PRK_CODE_TLS_REQUIRED:
			words->finding = "The replica is refused: pg_hba.conf lets it in only with TLS, and it came without. Its WAL is safe.";
			prk_words_clause(words, "line %d of pg_hba.conf",
							 diagnosis->attempt->tls_match.line_number);
			prk_words_advise(words, "On the replica set sslmode=require (or better) in primary_conninfo and reload. Here ssl must be on.");
			break;
		case PRK_CODE_HBA_REJECTS:
			word_rejected(in, words);
			break;
		case PRK_CODE_HBA_SHADOWED:
			word_shadowed(in, words);
			break;
		case PRK_CODE_AUTH_FAILED:
			word_password(in, words);
			break;
		case PRK_CODE_ROLE_MISSING:
		case PRK_CODE_ROLE_CANNOT_REPLICATE:
			word_role(in, words);
			break;
		case PRK_CODE_SLOT_MISSING:
			word_slot_missing(in, words);
			break;
		case PRK_CODE_SLOT_LOST:
		case PRK_CODE_WAL_REMOVED:
		case PRK_CODE_OTHER_TIMELINE:
			word_rebuild(in, words);
			break;
		case PRK_CODE_WALSENDERS_EXHAUSTED:
			words->finding = "The replica finds no walsender that is free. Its WAL is safe; with one it reconnects by itself.";
			prk_words_advise(words, "What to do is said of this server: SELECT * FROM replica_kit.diagnose('server');");
			break;
		case PRK_CODE_UPSTREAM_FILE_UNREADABLE:
			words->finding = "This server cannot read a file that the replica needs. There is no sign that its WAL is lost.";
			prk_words_advise(words, "Give the file that the evidence names the owner and mode of its neighbours; the replica reconnects by itself.");
			prk_words_advise(words, "If it is gone, fetch it from the archive, or from another server of this cluster.");
			break;
		default:
			words->finding = "This server refuses the replica, in the words of the evidence. Its WAL is safe.";
			prk_words_advise(words, "Fix the cause that they name; the replica reconnects by itself.");
			break;
	}
	if (diagnosis->row != NULL)
		prk_words_clause(words, "%s", diagnosis->row->verdict.reason);
	if (diagnosis->row != NULL && diagnosis->row->replica->has_slot)
		prk_words_slot(words, in);
}

/* No rule lets it in, or one does that is not loaded. */
static void
word_no_entry(const PrkWordsInput *in, PrkWords *words)
{
	const PrkDiagnosis *diagnosis = in->diagnosis;
	const PrkAttempt *attempt = diagnosis->attempt;

	if (attempt->has_match && attempt->match.verdict == PRK_HBA_ALLOW)
	{
		words->finding = "The replica was refused by rules in memory; pg_hba.conf as it is on disk lets it in.";
		prk_words_clause(words, "line %d of pg_hba.conf",
						 attempt->match.line_number);
		prk_remedy_reload(words);
		return;
	}
	words->finding = "No rule of pg_hba.conf lets the replica in. Its WAL is safe; with a rule it reconnects by itself.";
	advise_provision(in, words);
}

static void
word_rejected(const PrkWordsInput *in, PrkWords *words)
{
	const PrkAttempt *attempt = in->diagnosis->attempt;

	if (attempt->has_match && attempt->match.verdict == PRK_HBA_REJECT)
	{
		words->finding = psprintf("Line %d of pg_hba.conf rejects the replica. Its WAL is safe; a restart changes nothing.",
								  attempt->match.line_number);
		prk_words_advise(words, "The rule is somebody's policy. To change it, put the replica's rule before it, or remove it,");
		prk_words_advise(words, "in the file that SHOW hba_file names. Then: SELECT pg_reload_conf();");
		return;
	}
	words->finding = "pg_hba.conf rejected the replica; the file as it is on disk does not.";
	prk_words_advise(words, "If it is still refused, load the file: SELECT pg_reload_conf();");
}

/*
 * provision() puts its line before the one that would win, but leaves alone
 * one that is there: so it goes first.
 */
static void
word_shadowed(const PrkWordsInput *in, PrkWords *words)
{
	const PrkDiagnosis *diagnosis = in->diagnosis;
	const PrkAttempt *attempt = diagnosis->attempt;
	const char *name = prk_words_literal(diagnosis->name);

	words->finding = psprintf("Line %d of pg_hba.conf (method \"%s\") comes before the replica's own rule and wins.",
							  attempt->match.line_number,
							  attempt->match.auth_method);
	if (diagnosis->address == NULL)
	{
		prk_words_advise(words, "Put the replica's rule before that line, then: SELECT pg_reload_conf();");
		return;
	}
	prk_words_advise(words, "Add the replica's rule again: provision() puts it before that line.");
	prk_words_advise(words, "  SELECT replica_kit.revoke_address(%s, %s);",
					 name, prk_words_literal(diagnosis->address));
	prk_words_advise(words, "  SELECT * FROM replica_kit.provision(%s, %s, %s);",
					 name, prk_words_literal(diagnosis->address),
					 prk_words_literal(diagnosis->role_name));
}

/* The role's secret, or the replica's. */
static void
word_password(const PrkWordsInput *in, PrkWords *words)
{
	const PrkDiagnosis *diagnosis = in->diagnosis;
	const PrkAttempt *attempt = diagnosis->attempt;
	const char *role = role_of(in);
	const char *script = prk_words_script(diagnosis->name);
	const char *name = diagnosis->name;
	bool		known = false;
	ListCell   *cell;

	switch (attempt->role.secret)
	{
		case PRK_SECRET_NONE:
			words->finding = psprintf("Role %s has no password, so the replica cannot log in. Its WAL is safe.",
									  role);
			break;
		case PRK_SECRET_EXPIRED:
			words->finding = psprintf("The password of role %s has expired. The replica's WAL is safe.",
									  role);
			break;
		case PRK_SECRET_MD5:
			words->finding = psprintf("Role %s has an MD5 password, which a rule of method scram-sha-256 does not take.",
									  role);
			break;
		case PRK_SECRET_SCRAM:
			words->finding = "The replica comes with a wrong password. Its WAL is safe. With the right one it reconnects by itself.";
			break;
	}

	/* A cascade's replica may share a role that names others only. */
	foreach(cell, attempt->role.replicas)
	{
		if (strcmp(lfirst(cell), name) == 0)
			known = true;
	}
	if (attempt->role.replicas == NIL)
	{
		prk_words_advise(words, "Give the replica the password of role %s, in its passfile or in primary_conninfo.",
						 role);
		return;
	}
	if (!known)
		name = linitial(attempt->role.replicas);
	if (attempt->role.secret == PRK_SECRET_SCRAM)
	{
		prk_words_advise(words, "If the password was just changed, on the replica's machine:");
		prk_words_advise(words, "  %s --set-password", script);
		prk_words_advise(words, "If nobody knows it, first %s: SELECT replica_kit.rotate_password(%s);",
						 in->evidence->upstream.in_recovery ?
						 "on the primary" : "here", prk_words_literal(name));
		return;
	}
	prk_words_advise(words, "Give it a new one, %s: SELECT replica_kit.rotate_password(%s);",
					 in->evidence->upstream.in_recovery ? "on the primary" :
					 "here", prk_words_literal(name));
	prk_words_advise(words, "Then on the machine of each replica of that role:");
	prk_words_advise(words, "  %s --set-password", script);
}

/* It is not there, or may not. */
static void
word_role(const PrkWordsInput *in, PrkWords *words)
{
	const PrkDiagnosis *diagnosis = in->diagnosis;
	bool		in_recovery = in->evidence->upstream.in_recovery;

	if (diagnosis->code == PRK_CODE_ROLE_CANNOT_REPLICATE)
	{
		words->finding = psprintf("Role %s has lost LOGIN or REPLICATION. The replica's WAL is safe.",
								  role_of(in));
		if (is_own_role(diagnosis))
			prk_words_advise(words, "If that was not meant, %s: ALTER ROLE %s LOGIN REPLICATION;",
							 in_recovery ? "on the primary" : "here",
							 prk_words_identifier(diagnosis->role_name));
		else
			prk_words_advise(words, "If that was not meant, give them back to the role; the replica reconnects by itself.");
		return;
	}
	words->finding = psprintf("Role %s, which the replica connects as, does not exist. Its WAL is safe.",
							  role_of(in));
	if (in_recovery)
	{
		prk_words_advise(words, "Roles are the primary's: there provision() makes it, and prints its new password.");
		return;
	}
	advise_provision(in, words);
	prk_words_advise(words, "It has a new password then, to be given to the replica on its machine:");
	prk_words_advise(words, "  %s --set-password",
					 prk_words_script(diagnosis->name));
}

static void
word_slot_missing(const PrkWordsInput *in, PrkWords *words)
{
	const PrkDiagnosis *diagnosis = in->diagnosis;

	if (diagnosis->attempt->failure->logical)
	{
		words->finding = "The subscriber asks for a logical slot that does not exist: what was written since it was dropped is missing.";
		prk_words_advise(words, "Re-create its subscription, with a copy of the data. To go on without what is missing, here:");
		prk_words_advise(words, "  SELECT pg_create_logical_replication_slot(%s, 'pgoutput');",
						 prk_words_literal(diagnosis->name));
		return;
	}
	words->finding = "The replica asks for a slot that does not exist: no WAL is retained for it. With one it reconnects.";
	if (diagnosis->role_name != NULL && diagnosis->address != NULL)
		prk_remedy_provision(words, diagnosis->name, diagnosis->address,
							 diagnosis->role_name);
	else if (diagnosis->role_name != NULL)
		prk_remedy_slot(words, diagnosis->name);
	else
		prk_words_advise(words, "Run provision() for the replica, or create the slot: pg_create_physical_replication_slot().");
	prk_words_advise(words, "If WAL that it needs is removed by then, it must be rebuilt: diagnose() will say wal_removed.");
}

/* Somebody else has its slot. */
static void
word_taken(const PrkWordsInput *in, PrkWords *words)
{
	const PrkReplica *replica = in->diagnosis->row->replica;
	const PrkFailure *failure = in->diagnosis->attempt->failure;

	prk_words_clause(words, "held by pid %d as %s", replica->pid,
					 prk_words_quoted(replica->application_name));
	prk_words_clause(words, "wanted from %s as %s",
					 origin(in->diagnosis->attempt),
					 psprintf("\"%s\"", prk_foreign_show(&failure->application_name)));
	prk_words_failure(words, failure);
	if (prk_foreign_is(&failure->application_name,
					   replica->application_name))
	{
		words->finding = "The replica wants its slot, but a connection of the same name has it. No WAL is lost.";
		prk_words_advise(words, "If it is a stale connection of its own, end it, or wait for wal_sender_timeout:");
		prk_words_advise(words, "  SELECT pg_terminate_backend(%d);",
						 replica->pid);
		prk_words_advise(words, "If a second server has the same configuration, give that one a slot of its own: provision().");
		return;
	}
	words->finding = "Two servers want the same slot: each needs its own. One of them does not stream.";
	prk_words_advise(words, "Run provision() for the other server, and set its primary_slot_name.");
	prk_words_advise(words, "To hand this slot over, stop the server that has it, then here:");
	prk_words_advise(words, "  SELECT pg_terminate_backend(%d);",
					 replica->pid);
}

/* Nothing that it can be given here would help. */
static void
word_rebuild(const PrkWordsInput *in, PrkWords *words)
{
	const PrkDiagnosis *diagnosis = in->diagnosis;

	if (diagnosis->code == PRK_CODE_SLOT_LOST)
		words->finding = "The slot is lost: WAL that the replica needs is removed. Starting it is not enough, rebuild it.";
	else if (diagnosis->code == PRK_CODE_OTHER_TIMELINE)
		words->finding = "The replica has WAL that this server's history does not contain. Rewind or rebuild it.";
	else if (prk_foreign_is_empty(&diagnosis->attempt->failure->slot_name))
		words->finding = "WAL that the replica needs is removed: it has no slot. Starting it is not enough, rebuild it.";
	else
		words->finding = "WAL that the replica needs is removed: its slot was created too late. Rebuild it.";
	if (diagnosis->role_name == NULL)
	{
		prk_words_advise(words, "Run provision() for it, and on its machine the script of join_script() with --rebuild.");
		return;
	}
	prk_words_advise_rebuild(words, in,
							 diagnosis->code == PRK_CODE_OTHER_TIMELINE ?
							 "The step there: a rewind where its data allows one, else a full clone. A rewind needs this, here and before:" :
							 prk_words_step_removed(XLogArchivingActive(),
													prk_words_summarized(in)));
}

static const char *
role_of(const PrkWordsInput *in)
{
	const PrkAttempt *attempt = in->diagnosis->attempt;

	return psprintf("\"%s\"", attempt->role_name != NULL ?
					attempt->role_name :
					prk_foreign_show(&attempt->failure->role_name));
}

static const char *
origin(const PrkAttempt *attempt)
{
	return attempt->address != NULL ? attempt->address : "a Unix socket";
}

/* Did it come as the role that is proved to be the replica's? */
static bool
is_own_role(const PrkDiagnosis *diagnosis)
{
	return diagnosis->role_name != NULL &&
		prk_foreign_is(&diagnosis->attempt->failure->role_name,
					   diagnosis->role_name);
}

/* provision() as a remedy where its arguments are proved, else as advice. */
static void
advise_provision(const PrkWordsInput *in, PrkWords *words)
{
	const PrkDiagnosis *diagnosis = in->diagnosis;

	if (is_own_role(diagnosis) && diagnosis->address != NULL)
		prk_remedy_provision(words, diagnosis->name, diagnosis->address,
							 diagnosis->role_name);
	else
		prk_words_advise(words, "Only if that address is the replica's own, run provision() with it. Else leave it shut.");
}
