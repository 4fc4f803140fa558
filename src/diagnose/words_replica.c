/*-------------------------------------------------------------------------
 *
 * words_replica.c
 *	  Words for what is wrong with a replica of this server.
 *
 * IDENTIFICATION
 *	  src/diagnose/words_replica.c
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/transam.h"
#include "access/xlog.h"
#include "miscadmin.h"
#include "postmaster/autovacuum.h"
#include "utils/guc.h"

#include "diagnose/words.h"
#include "foreign.h"
#include "mark.h"

static void word_at_risk(const PrkWordsInput *in, PrkWords *words);
static void word_transaction(const PrkWordsInput *in, PrkWords *words);
static void word_blocked(const PrkWordsInput *in, PrkWords *words);
static const char *server_of(const PrkReplica *replica);
static void word_down(const PrkWordsInput *in, PrkWords *words);
static void word_comes_and_goes(const PrkWordsInput *in, PrkWords *words);
static void word_unresponsive(const PrkWordsInput *in, PrkWords *words);
static void word_lost(const PrkWordsInput *in, PrkWords *words);
static void word_never_seen(const PrkWordsInput *in, PrkWords *words);
static void word_reconnect(const PrkWordsInput *in, PrkWords *words);
static void word_left_behind(const PrkWordsInput *in, PrkWords *words);
static void word_not_attached(const PrkWordsInput *in, PrkWords *words);
static void word_leftover(const PrkWordsInput *in, PrkWords *words);
static void word_behind(const PrkWordsInput *in, PrkWords *words);
static void word_stalled(const PrkWordsInput *in, PrkWords *words);
static void word_xmin(const PrkWordsInput *in, PrkWords *words);
static bool is_kits_own(const PrkWordsInput *in);
static void advise_end(const PrkWordsInput *in, PrkWords *words,
					   const char *before);

/* Puts a diagnosis of a replica, other than of its attempts, into words. */
void
prk_words_replica(const PrkWordsInput *in, PrkWords *words)
{
	switch (in->diagnosis->code)
	{
		case PRK_CODE_SLOT_AT_RISK:
		case PRK_CODE_SLOT_HELD_BY_TRANSACTION:
			word_at_risk(in, words);
			break;
		case PRK_CODE_CHECKPOINT_BLOCKED:
			word_blocked(in, words);
			break;
		case PRK_CODE_REPLICA_DOWN:
			word_down(in, words);
			break;
		case PRK_CODE_REPLICA_UNRESPONSIVE:
			word_unresponsive(in, words);
			break;
		case PRK_CODE_SLOT_LOST:
			word_lost(in, words);
			break;
		case PRK_CODE_REPLICA_NEVER_SEEN:
			word_never_seen(in, words);
			break;
		case PRK_CODE_SLOT_UNUSED:
			words->finding = "A slot that the kit did not make has not been used for a day and retains WAL.";
			prk_words_absence(words, in);
			prk_words_slot(words, in);
			prk_words_advise(words, "Ask its owner. If nobody wants it any more, here: %s",
							 prk_words_dismissal(in));
			break;
		case PRK_CODE_RECONNECT_WOULD_FAIL:
			word_reconnect(in, words);
			break;
		case PRK_CODE_SLOT_LEFT_BEHIND:
			word_left_behind(in, words);
			break;
		case PRK_CODE_REPLICA_NOT_ATTACHED:
			word_not_attached(in, words);
			break;
		case PRK_CODE_ORPHAN_ROLE:
		case PRK_CODE_ORPHAN_RULE:
		case PRK_CODE_ORPHAN_SLOT:
			word_leftover(in, words);
			break;
		case PRK_CODE_RECEIVER_STALLED:
			word_stalled(in, words);
			break;
		case PRK_CODE_XMIN_HELD_BACK:
			word_xmin(in, words);
			break;
		default:
			word_behind(in, words);
			break;
	}
}

/* The slot's limit is near. */
static void
word_at_risk(const PrkWordsInput *in, PrkWords *words)
{
	const PrkDiagnosis *diagnosis = in->diagnosis;
	const PrkReplica *replica = diagnosis->row->replica;
	bool		idle = diagnosis->row->verdict.slot_idle;

	words->finding = prk_departed_lately(diagnosis->departed) ?
		"The replica is let in and does not stay, and its slot will be lost soon." :
		prk_departed_any(diagnosis->departed) && replica->pid == 0 ?
		"The replica has come, has left by itself and is away, and its slot will be lost soon." :
		replica->pid == 0 ?
		"The replica is away and its slot will be lost soon. If it is started in time, it only has to catch up." :
		"The replica is so far behind that its slot will be lost soon: then it must be rebuilt.";
	prk_words_clause(words, "%s", diagnosis->row->verdict.reason);
	prk_words_slot(words, in);
	if (diagnosis->code == PRK_CODE_SLOT_HELD_BY_TRANSACTION)
		word_transaction(in, words);
	else if (replica->logical && replica->pid != 0)
		prk_words_advise(words, "See why the subscriber confirms nothing: its log, and what its workers wait for.");
	else if (prk_departed_any(diagnosis->departed))
		prk_words_advise(words, "%s see why, in its log, before the slot is lost; later it must be rebuilt.",
						 prk_words_place(in));
	else if (replica->pid != 0)
		prk_words_advise(words, "See why it is behind, on the replica: SELECT * FROM replica_kit.diagnose();");
	else
		prk_words_advise(words, "%s start its %s before the slot is lost; later it must be rebuilt.",
						 prk_words_place(in), replica->logical ?
						 "subscriber" : "PostgreSQL server");
	if (idle)
		prk_remedy_setting(words, "idle_replication_slot_timeout",
						   psprintf(INT64_FORMAT "s",
									diagnosis->limit / USECS_PER_SEC));
	else if (diagnosis->limit >= 0)
		prk_remedy_setting(words, "max_slot_wal_keep_size",
						   psprintf(INT64_FORMAT "MB",
									diagnosis->limit / (1024 * 1024)));
	if (words->sets)
		prk_words_advise(words, "The remedy gives it more time, and is bounded by the disk of pg_wal.");
	else
		prk_words_advise(words, "The limit of slots cannot be raised: the disk of pg_wal has %s free.",
						 in->evidence->wal_free < 0 ? "an unknown amount" :
						 prk_words_size(in->evidence->wal_free));
}

/* The slot is held back by a transaction of somebody else. */
static void
word_transaction(const PrkWordsInput *in, PrkWords *words)
{
	const PrkTransaction *oldest = &in->evidence->oldest;
	const char *role = OidIsValid(oldest->userid) ?
	GetUserNameFromId(oldest->userid, true) : NULL;

	words->finding = "A transaction that is open for long holds the slot back: it will be lost soon. Its subscriber keeps up.";
	prk_words_clause(words, "the subscriber has confirmed all but %s",
					 prk_words_size(in->diagnosis->row->replica->lag_bytes));
	if (oldest->pid == 0)
	{
		prk_words_clause(words, "the oldest transaction (%u) is a prepared one",
						 oldest->xid);
		prk_words_advise(words, "Commit it or roll it back, as its owner says: SELECT * FROM pg_prepared_xacts ORDER BY prepared;");
		return;
	}
	prk_words_clause(words, "oldest transaction: %u, pid %d%s%s%s%s%s",
					 oldest->xid, oldest->pid,
					 role != NULL ? ", role " : "",
					 role != NULL ? prk_words_quoted(role) : "",
					 oldest->idle ? ", idle" : "",
					 oldest->since != 0 ? ", begun " : "",
					 oldest->since != 0 ?
					 prk_words_ago(in->evidence, oldest->since) : "");
	prk_words_advise(words, "Ask its owner to end it, or end it here (its work is rolled back):");
	prk_words_advise(words, "  SELECT pg_terminate_backend(%d);", oldest->pid);
}

/* A checkpoint waits for the slot, whose walsender waits for its receiver. */
static void
word_blocked(const PrkWordsInput *in, PrkWords *words)
{
	const PrkReplica *replica = in->diagnosis->row->replica;

	words->finding = "Checkpoints hang: the slot is past its limit, and its walsender waits for a stalled receiver.";
	prk_words_clause(words, "a process waits for ReplicationSlotDrop");
	prk_words_clause(words, "walsender pid %d", replica->pid);
	prk_words_slot(words, in);
	if (is_kits_own(in))
	{
		prk_remedy_end_walsender(words, replica->slot_name, replica->pid);
		prk_words_advise(words, "The remedy ends the walsender a second time; then checkpoints continue.");
	}
	else
		advise_end(in, words, "End the walsender a second time; then checkpoints continue:");
	prk_words_advise(words, "Then the slot is lost, and the replica must be rebuilt.");
}

/* What there is to be started. */
static const char *
server_of(const PrkReplica *replica)
{
	return replica->logical ? "the subscriber" : "its PostgreSQL server";
}

/* It was there, and is gone without a word; or it comes and goes. */
static void
word_down(const PrkWordsInput *in, PrkWords *words)
{
	const PrkReplica *replica = in->diagnosis->row->replica;
	const PrkReport *report = in->evidence->report;
	const PrkOwner *owner = in->diagnosis->owner;
	bool		watched = report->failures->exist && report->watched &&
	owner != NULL && owner->entry != NULL;

	if (prk_departed_any(in->diagnosis->departed))
	{
		word_comes_and_goes(in, words);
		return;
	}
	prk_words_absence(words, in);
	if (replica->pid != 0)
	{
		words->finding = "It was away, and has come back this moment. If it stays, this row goes by itself.";
		prk_words_slot(words, in);
		prk_words_advise(words, "Ask again: SELECT * FROM replica_kit.diagnose(%s);",
						 prk_words_literal(in->diagnosis->name));
		return;
	}

	/* Where it is not known from where it comes, its attempts are not either. */
	if (watched && owner->entry->known.last_addr[0] != '\0')
	{
		words->finding = replica->logical ?
			"The subscriber is not connected. Its WAL is safe: it continues by itself once it runs." :
			"The replica is not connected. Its WAL is safe: a restart of it is enough.";
		prk_words_clause(words, "no attempt since");
	}
	else
	{
		words->finding = replica->logical ?
			"The subscriber is not connected. Its WAL is retained. Whether it tries to connect is not known here." :
			"The replica is not connected. Its WAL is retained. Whether it tries to connect is not known here.";
		if (report->failures->exist)
			prk_words_clause(words, "no attempt since that is known to be its own");
	}
	prk_words_slot(words, in);
	if (in->diagnosis->together)
	{
		prk_words_clause(words, "all replicas went within a minute");
		prk_words_advise(words, "Was one of them promoted? Then stop this server before anything else.");
	}
	prk_words_advise(words, "%s start %s. If it stops again, its own log says why.",
					 prk_words_place(in), server_of(replica));
	prk_words_advise(words, "If it will never return, here: %s",
					 prk_words_dismissal(in));
}

/* It is let in, and leaves again without a word of this server's. */
static void
word_comes_and_goes(const PrkWordsInput *in, PrkWords *words)
{
	const PrkReplica *replica = in->diagnosis->row->replica;
	const PrkDeparted *departed = in->diagnosis->departed;
	const char *ago = prk_words_ago(in->evidence,
									in->evidence->now - departed->age);

	words->finding = departed->idle != NULL ?
		"The replica is connected and does not stream: only its own log says why. Its WAL is retained." :
		psprintf(prk_departed_again(departed) ?
				 "The %s is let in and leaves again by itself: only its own log says why. Its WAL is retained." :
				 "The %s has come, has left by itself and is away: its own log says why. Its WAL is retained.",
				 replica->logical ? "subscriber" : "replica");
	prk_words_absence(words, in);
	if (departed->idle != NULL)
		prk_words_clause(words, "connected for %s without streaming, walsender pid %d",
						 prk_words_duration(in->evidence->now -
											departed->idle->backend_start),
						 departed->idle->pid);
	else if (departed->count == 1)
		prk_words_clause(words, "let in once since, and left %s", ago);
	else
		prk_words_clause(words, "let in " INT64_FORMAT " times since, and left, the last time %s",
						 departed->count, ago);
	prk_words_slot(words, in);
	if (departed->idle == NULL)
		prk_words_advise(words, "%s start %s, if it is stopped.",
						 prk_words_place(in), server_of(replica));
	if (replica->logical)
	{
		prk_words_advise(words, "A change that it cannot apply, most often. On the subscriber see its log, and there run:");
		prk_words_advise(words, "  SELECT * FROM pg_stat_subscription_stats;");
	}
	else
	{
		prk_words_advise(words, "A full disk, a timeline that ends before it, another cluster: only the replica knows. There run:");
		prk_words_advise(words, "  SELECT * FROM replica_kit.diagnose();");
	}
	prk_words_advise(words, "If it will never return, here: %s",
					 prk_words_dismissal(in));
}

/* A timeout has ended its connection, or its login, and it is not back. */
static void
word_unresponsive(const PrkWordsInput *in, PrkWords *words)
{
	const PrkOwner *owner = in->diagnosis->owner;
	const PrkFailure *failure = in->diagnosis->failure;
	bool		login = failure->sqlerrcode == ERRCODE_QUERY_CANCELED;
	const char *address = owner->entry != NULL ?
	owner->entry->known.last_addr : "";

	words->finding = "The replica stopped answering. Its WAL is safe. Network, firewall or machine: from here they look alike.";
	if (login)
		prk_words_clause(words, "it comes, and does not answer when asked for its password: authentication_timeout ended %s, the last %s",
						 failure->count == 1 ? "one login" :
						 psprintf(INT64_FORMAT " logins", failure->count),
						 prk_words_ago(in->evidence, failure->last_at));
	else
		prk_words_clause(words, "wal_sender_timeout ended its connection %s",
						 prk_words_ago(in->evidence, failure->last_at));
	if (address[0] != '\0')
		prk_words_clause(words, "it was at %s", address);
	if (!login)
		prk_words_clause(words, "no attempt since");
	prk_words_slot(words, in);
	prk_words_advise(words, "From this machine try to reach its machine: ping, then pg_isready -h ADDRESS -p PORT.");
	prk_words_advise(words, "No answer: the machine or the network. \"accepting connections\": only its way back is cut;");
	prk_words_advise(words, "on the replica run SELECT * FROM replica_kit.diagnose();   It reconnects by itself.");
}

/* Why the slot is lost, and what the replica needs now. */
static void
word_lost(const PrkWordsInput *in, PrkWords *words)
{
	const PrkDiagnosis *diagnosis = in->diagnosis;
	const PrkReplica *replica = diagnosis->row->replica;
	const char *cause = prk_health_cause(replica);
	const char *literal = prk_words_literal(replica->name);
	bool		in_use = prk_sample_in_use(replica);
	bool		known = diagnosis->owner->role_name != NULL;

	prk_words_clause(words, "wal_status is \"lost\"%s",
					 in_use ? ", although active" : "");
	if (cause != NULL)
		prk_words_clause(words, "cause \"%s\": %s", replica->invalidation,
						 cause);
	if (in->evidence->report->sample->slot_keep_limit >= 0)
		prk_words_clause(words, "max_slot_wal_keep_size = %s",
						 GetConfigOptionByName("max_slot_wal_keep_size", NULL,
											   false));
	if (diagnosis->owner->entry != NULL &&
		diagnosis->owner->entry->known.gone_since != 0)
		prk_words_clause(words, "the replica went away %s",
						 prk_words_ago(in->evidence,
									   diagnosis->owner->entry->known.gone_since));

	if (replica->logical)
	{
		words->finding = "The slot is lost: the changes that the subscriber needs are gone. Re-create the subscription.";
		prk_words_advise(words, "Drop the slot, then re-create the subscription or connector, with its data:");
		prk_words_advise(words, "  SELECT pg_drop_replication_slot(%s);",
						 literal);
		return;
	}
	if (in_use)
		words->finding = "The slot is lost: the replica streams, but no WAL is retained for its next pause.";
	else if (!prk_health_wal_removed(replica))
		words->finding = "The slot is lost, but its WAL may still be here: with a new slot a restart can be enough.";
	else
		words->finding = "The slot is lost: WAL that the replica needs is removed. Starting it is not enough, rebuild it.";

	if (in_use)
	{
		prk_words_advise(words, "Give it a new slot here; the replica reconnects and continues:");
		prk_words_advise(words, "  SELECT pg_terminate_backend(%d, 10000);",
						 replica->pid);
	}
	else if (known)
	{
		prk_words_advise_rebuild(words, in, !prk_health_wal_removed(replica) ?
								 "The step there: the slot re-created." :
								 prk_words_step_removed(XLogArchivingActive(),
														prk_words_summarized(in)));
		return;
	}
	else
		prk_words_advise(words, "Give it a new slot, then clone the replica again through it:");
	prk_words_advise(words, "  SELECT pg_drop_replication_slot(%s);", literal);
	prk_words_advise(words, "  SELECT pg_create_physical_replication_slot(%s, true);",
					 literal);
}

static void
word_never_seen(const PrkWordsInput *in, PrkWords *words)
{
	const char *literal = prk_words_literal(in->diagnosis->name);

	words->finding = "The replica has never connected, and its slot retains WAL for it.";
	prk_words_absence(words, in);
	prk_words_slot(words, in);
	if (in->diagnosis->owner->role_name != NULL)
	{
		prk_words_advise(words, "Make the replica, by the script that this prints:");
		prk_words_advise(words, "  SELECT replica_kit.join_script(%s, 'ADDRESS_OF_THIS_SERVER');",
						 literal);
	}
	prk_words_advise(words, "If it is not wanted any more, here: %s",
					 prk_words_dismissal(in));
}

/* It streams, and its next connection would be refused. */
static void
word_reconnect(const PrkWordsInput *in, PrkWords *words)
{
	const PrkDiagnosis *diagnosis = in->diagnosis;
	const PrkReconnect *reconnect = diagnosis->reconnect;
	const char *role = prk_words_quoted(reconnect->role_name != NULL ?
										reconnect->role_name : "");
	const char *literal = prk_words_literal(diagnosis->name);
	const char *known = diagnosis->owner->role_name;

	words->finding = "The replica streams, but its next connection would be refused. Mend it while it streams.";
	switch (reconnect->barrier)
	{
		case PRK_BARRIER_NONE:
			break;
		case PRK_BARRIER_ROLE_GONE:
			prk_words_clause(words, "the role that it connected as is dropped");
			prk_words_advise(words, "Run provision() for it again, and give it the new password: its script with --set-password.");
			break;
		case PRK_BARRIER_ROLE:
			prk_words_clause(words, "role %s has lost LOGIN or REPLICATION",
							 role);
			prk_words_advise(words, "If that was not meant, give it back: ALTER ROLE %s LOGIN REPLICATION;",
							 prk_words_identifier(reconnect->role_name));
			break;
		case PRK_BARRIER_PASSWORD:
			prk_words_clause(words, "role %s has no password, or it has expired",
							 role);
			prk_words_advise(words, "Give it a new one: SELECT replica_kit.rotate_password(%s);",
							 literal);
			prk_words_advise(words, "Then on the replica's machine:");
			prk_words_advise(words, "  %s --set-password",
							 prk_words_script(diagnosis->name));
			break;
		case PRK_BARRIER_NO_RULE:
			prk_words_clause(words, "no rule of pg_hba.conf lets role %s in from %s",
							 role, reconnect->address);
			if (known != NULL && strcmp(known, reconnect->role_name) == 0)
				prk_remedy_provision(words, diagnosis->name,
									 reconnect->address, known);
			prk_words_advise(words, "Another tool may have rewritten the file: add the line to its template.");
			break;
		case PRK_BARRIER_REJECTED:
			prk_words_clause(words, "line %d of pg_hba.conf rejects role %s from %s",
							 reconnect->line_number, role,
							 reconnect->address);
			prk_words_advise(words, "If that is not meant, remove that line, then: SELECT pg_reload_conf();");
			break;
	}
}

/* On a standby, a slot from when it was a primary. */
static void
word_left_behind(const PrkWordsInput *in, PrkWords *words)
{
	const PrkSample *sample = in->evidence->report->sample;
	const PrkReplica *replica = in->diagnosis->row->replica;

	words->finding = "The slot is left from before this server became a standby. It retains WAL here for nobody.";
	prk_words_clause(words, "restart_lsn %X/%X, not used since timeline %u began at %X/%X",
					 LSN_FORMAT_ARGS(replica->restart_lsn), sample->timeline,
					 LSN_FORMAT_ARGS(sample->timeline_begin));
	prk_words_slot(words, in);
	prk_words_advise(words, "If its replica follows another server now, here: SELECT pg_drop_replication_slot(%s);",
					 prk_words_literal(replica->slot_name));
	prk_words_advise(words, "Not deprovision(): the role is still needed on the primary.");
}

/* It is known, and has no slot here. */
static void
word_not_attached(const PrkWordsInput *in, PrkWords *words)
{
	const PrkDiagnosis *diagnosis = in->diagnosis;
	const char *name = prk_words_literal(diagnosis->name);
	const PrkPast *past = &in->evidence->past;
	bool		has_host = past->promoted && past->host[0] != '\0';

	words->finding = has_host ?
		psprintf("The replica has no slot on this server: no WAL is kept for it here, and it may still look for %s.",
				 past->host) :
		"The replica has no slot on this server: no WAL is kept for it here.";
	prk_words_clause(words, "role %s exists, slot %s does not",
					 prk_words_quoted(diagnosis->role_name),
					 prk_words_quoted(diagnosis->name));
	if (diagnosis->address != NULL)
	{
		prk_words_clause(words, "pg_hba.conf lets it in from %s (line %d)",
						 diagnosis->address, diagnosis->line_number);
		prk_remedy_provision(words, diagnosis->name, diagnosis->address,
							 diagnosis->role_name);
	}
	else
	{
		prk_words_clause(words, "pg_hba.conf has no rule for it");
		prk_words_advise(words, "With the replica's own address, here:");
		prk_words_advise(words, "  SELECT * FROM replica_kit.provision(%s, 'ITS_ADDRESS');",
						 name);
	}
	prk_words_advise(words, "Then on the replica, as root: %s --follow ADDRESS_OF_THIS_SERVER",
					 prk_words_script(diagnosis->name));
	prk_words_advise(words, "It keeps its data and its password.");
	if (!past->promoted)
		prk_words_advise(words, "If it will never return, here: SELECT * FROM replica_kit.deprovision(%s);",
						 name);
}

/* What the kit made, of which a part is gone. */
static void
word_leftover(const PrkWordsInput *in, PrkWords *words)
{
	const PrkDiagnosis *diagnosis = in->diagnosis;
	const char *literal = prk_words_literal(diagnosis->name);

	if (diagnosis->code == PRK_CODE_ORPHAN_SLOT)
	{
		words->finding = "The slot retains WAL for a replica whose role is gone: it cannot connect.";
		prk_words_clause(words, "pg_hba.conf names role %s for it, which does not exist",
						 prk_words_quoted(diagnosis->owner->role_name != NULL ?
										  diagnosis->owner->role_name : ""));
		prk_words_slot(words, in);
	}
	else if (diagnosis->code == PRK_CODE_ORPHAN_ROLE)
	{
		words->finding = "The replica has a role but no slot: it can connect, and no WAL is retained for it.";
		prk_words_clause(words, "role %s is marked as its own",
						 prk_words_quoted(diagnosis->leftover->role_name));
		prk_words_clause(words, "slot %s does not exist",
						 prk_words_quoted(diagnosis->name));
	}
	else
	{
		words->finding = "pg_hba.conf has a rule for a replica that has neither slot nor role.";
		prk_words_clause(words, "a line of %s ends in \"%s%s\"", HbaFileName,
						 PRK_HBA_MARK, prk_foreign_show_text(diagnosis->name));
	}
	if (diagnosis->address != NULL)
		prk_words_advise(words, "If the replica is wanted, here: SELECT * FROM replica_kit.provision(%s, %s);",
						 literal, prk_words_literal(diagnosis->address));
	prk_words_advise(words, "If not: SELECT * FROM replica_kit.deprovision(%s);",
					 literal);
}

/* Connected and behind: the stage that holds most says why. */
static void
word_behind(const PrkWordsInput *in, PrkWords *words)
{
	const PrkReplica *replica = in->diagnosis->row->replica;

	prk_words_clause(words, "%s", in->diagnosis->row->verdict.reason);
	prk_words_clause(words, "unsent %s, unwritten %s, unflushed %s, unreplayed %s",
					 prk_words_size(replica->unsent_bytes),
					 prk_words_size(replica->unwritten_bytes),
					 prk_words_size(replica->unflushed_bytes),
					 prk_words_size(replica->unreplayed_bytes));
	prk_words_slot(words, in);
	switch (in->diagnosis->code)
	{
		case PRK_CODE_NETWORK_SLOW:
			words->finding = "WAL arrives at the replica more slowly than it is generated. No WAL is lost.";
			prk_words_advise(words, "Check the network between the servers, and the load that writes.");
			break;
		case PRK_CODE_FLUSH_SLOW:
			if (XLogRecPtrIsInvalid(replica->replay_lsn))
			{
				words->finding = "The receiver has WAL that it has not flushed. No WAL is lost.";
				prk_words_advise(words, "pg_receivewal without --synchronous flushes whole segments only. With it, check its disk.");
			}
			else
			{
				words->finding = "The replica's disk is slower than WAL arrives. No WAL is lost.";
				prk_words_advise(words, "Check the disk of pg_wal on the replica.");
			}
			break;
		default:
			words->finding = "The replica has the WAL and does not replay it fast enough, or at all. No WAL is lost.";
			prk_words_advise(words, "Paused, in conflict with a query, or slow: only the replica knows. There run:");
			prk_words_advise(words, "  SELECT * FROM replica_kit.diagnose();");
			break;
	}
}

/* Connected, behind and silent. */
static void
word_stalled(const PrkWordsInput *in, PrkWords *words)
{
	const PrkReplica *replica = in->diagnosis->row->replica;

	words->finding = "The replica is connected and silent: its WAL receiver or its machine hangs. No WAL is lost.";
	prk_words_clause(words, "%s", in->diagnosis->row->verdict.reason);
	prk_words_clause(words, "walsender pid %d", replica->pid);
	prk_words_slot(words, in);
	prk_words_advise(words, "%s check the machine and the process walreceiver.",
					 prk_words_place(in));
	if (is_kits_own(in))
	{
		prk_remedy_end_walsender(words, replica->slot_name, replica->pid);
		prk_words_advise(words, "The remedy ends the connection; the replica connects again once it can.");
	}
	else
		advise_end(in, words, "This ends the connection; it connects again once it can:");
}

/* Its snapshot keeps dead rows from being removed. */
static void
word_xmin(const PrkWordsInput *in, PrkWords *words)
{
	const PrkReplica *replica = in->diagnosis->row->replica;

	words->finding = "The slot keeps dead rows from being removed here: tables grow, in the end transaction IDs run out.";
	prk_words_clause(words, "its %s is %d transactions old",
					 TransactionIdIsNormal(replica->xmin) ? "xmin" : "catalog_xmin",
					 replica->xmin_age);
	prk_words_clause(words, "autovacuum_freeze_max_age is %d",
					 autovacuum_freeze_max_age);
	if (replica->pid != 0)
		prk_words_advise(words, "On the replica end its oldest query (pg_stat_activity.backend_xmin), or set hot_standby_feedback to off.");
	else
		prk_words_advise(words, "Start the replica. If it does not return, here: %s",
						 prk_words_dismissal(in));
}

/* Made by the kit: a role of ours, and a slot that it names. */
static bool
is_kits_own(const PrkWordsInput *in)
{
	return in->diagnosis->row->replica->has_slot &&
		in->diagnosis->owner->role_name != NULL;
}

static void
advise_end(const PrkWordsInput *in, PrkWords *words, const char *before)
{
	prk_words_advise(words, "%s SELECT pg_terminate_backend(%d);", before,
					 in->diagnosis->row->replica->pid);
}
