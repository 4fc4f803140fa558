/*-------------------------------------------------------------------------
 *
 * words_upstream.c
 *	  Words for what is wrong with this server as a standby.
 *
 * IDENTIFICATION
 *	  src/diagnose/words_upstream.c
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/xlogrecovery.h"
#include "commands/dbcommands.h"
#include "miscadmin.h"
#include "replication/walreceiver.h"
#include "storage/standby.h"
#include "utils/guc.h"
#include "utils/lsyscache.h"

#include "diagnose/words.h"

static bool word_state(const PrkWordsInput *in, PrkWords *words);
static void word_stalled(const PrkWordsInput *in, PrkWords *words);
static void word_receiving(const PrkWordsInput *in, PrkWords *words);
static void word_parameter(const PrkWordsInput *in, PrkWords *words);
static void word_conflict(const PrkWordsInput *in, PrkWords *words);
static void word_session(const PrkWordsInput *in, PrkWords *words);
static const char *lock_words(const LOCKTAG *tag);
static void word_target(const PrkWordsInput *in, PrkWords *words);
static void word_delayed(const PrkWordsInput *in, PrkWords *words);
static void word_cut(const PrkWordsInput *in, PrkWords *words);
static void advise_rebuild(PrkWords *words, bool removed);
static const char *script_of_this(void);

/* Puts a diagnosis of this server as a standby into words. */
void
prk_words_upstream(const PrkWordsInput *in, PrkWords *words)
{
	if (in->diagnosis->failure != NULL)
	{
		prk_words_failure(words, in->diagnosis->failure);
		word_cut(in, words);
		prk_words_clause(words, "%s", in->evidence->upstream_verdict.reason);
	}
	else if (!word_state(in, words))
		elog(ERROR, "no words for diagnosis \"%s\" of the upstream",
			 prk_code_name(in->diagnosis->code));
}

/* What is seen without any attempt to connect. */
static bool
word_state(const PrkWordsInput *in, PrkWords *words)
{
	const PrkUpstream *upstream = &in->evidence->upstream;
	const PrkVerdict *verdict = &in->evidence->upstream_verdict;

	switch (in->diagnosis->code)
	{
		case PRK_CODE_UPSTREAM_UNREACHABLE:
			words->finding = verdict->connecting >= 0 ?
				"This standby does not stream: its WAL receiver waits for the upstream to answer." :
				"This standby does not stream, and it is not known why.";
			prk_words_clause(words, "%s", verdict->reason);
			if (!in->evidence->report->failures->exist)
				prk_words_clause(words, "pg_replica_kit is not in shared_preload_libraries, so failures are not noted");
			prk_words_advise(words, "Check the log of this server, and on the upstream run: SELECT * FROM replica_kit.diagnose();");
			return true;
		case PRK_CODE_RECEIVER_STALLED:
			word_stalled(in, words);
			return true;
		case PRK_CODE_RESTORE_STALLED:
			words->finding = "This standby replays from an archive, and nothing has come for long. The age of its data is unknown.";
			prk_words_clause(words, "%s", verdict->reason);
			prk_words_clause(words, "replayed up to %X/%X on timeline %u",
							 LSN_FORMAT_ARGS(upstream->replayed_lsn),
							 upstream->timeline);
			prk_words_advise(words, "On the primary: SELECT * FROM replica_kit.diagnose('server');   Does it archive, or write nothing?");
			prk_words_advise(words, "Then run restore_command for the next segment by hand. archive_timeout on the primary bounds the wait.");
			return true;
		case PRK_CODE_NETWORK_SLOW:
		case PRK_CODE_FLUSH_SLOW:
			word_receiving(in, words);
			return true;
		case PRK_CODE_PARAMETERS_TOO_LOW:
			word_parameter(in, words);
			return true;
		case PRK_CODE_REPLAY_PAUSED:
			words->finding = "Somebody has paused replay: queries here see old data. No WAL is lost.";
			prk_words_clause(words, "pg_get_wal_replay_pause_state() is not \"not paused\"");
			prk_words_clause(words, "%s unreplayed",
							 prk_words_size(upstream->unreplayed_bytes));
			prk_words_advise(words, "Ask who paused it. To continue: SELECT pg_wal_replay_resume();");
			return true;
		case PRK_CODE_RECOVERY_TARGET_SET:
			word_target(in, words);
			return true;
		case PRK_CODE_REPLAY_DELAYED:
			word_delayed(in, words);
			return true;
		case PRK_CODE_REPLAY_CONFLICT:
			word_conflict(in, words);
			return true;
		case PRK_CODE_REPLAY_SLOW:
			words->finding = "Replay is slower than WAL arrives: queries here see old data. It catches up when less is written.";
			prk_words_clause(words, "%s", verdict->reason);
			prk_words_advise(words, "Check the load of this machine: replay is one process, and needs its disk and one CPU.");
			return true;
		default:
			return false;
	}
}

static void
word_stalled(const PrkWordsInput *in, PrkWords *words)
{
	words->finding = "Connected, but no data received: the upstream, the network or the walreceiver hangs. No WAL is lost.";
	prk_words_clause(words, "%s", in->evidence->upstream_verdict.reason);
	prk_words_clause(words, "wal_receiver_timeout = %s",
					 GetConfigOptionByName("wal_receiver_timeout", NULL, false));
	if (wal_receiver_timeout > 0)
		prk_words_advise(words, "The walreceiver reconnects after wal_receiver_timeout. If not, it is stuck: inspect the process.");
	else
	{
		prk_remedy_setting(words, "wal_receiver_timeout", "1min");
		prk_words_advise(words, "With the remedy the walreceiver reconnects by itself, now and the next time.");
	}
}

/* It comes, but more slowly than it is made. */
static void
word_receiving(const PrkWordsInput *in, PrkWords *words)
{
	const PrkUpstream *upstream = &in->evidence->upstream;

	prk_words_clause(words, "%s", in->evidence->upstream_verdict.reason);
	prk_words_clause(words, "not received %s, received and not flushed %s",
					 prk_words_size(upstream->unreceived_bytes -
									upstream->unflushed_bytes),
					 prk_words_size(upstream->unflushed_bytes));
	if (in->diagnosis->code == PRK_CODE_FLUSH_SLOW)
	{
		words->finding = "This server's disk is slower than WAL arrives. No WAL is lost.";
		prk_words_advise(words, "Check the disk of pg_wal on this server.");
	}
	else
	{
		words->finding = "WAL arrives more slowly than it is generated. No WAL is lost.";
		prk_words_advise(words, "Check the network between the servers, the disk of pg_wal on this one, and the load that writes.");
	}
}

static void
word_parameter(const PrkWordsInput *in, PrkWords *words)
{
	const PrkParameter *parameter = in->diagnosis->parameter;

	words->finding = in->evidence->upstream.pause_state != RECOVERY_NOT_PAUSED ?
		"Replay is paused for good: the primary allows more than this server. Resumed, it would shut down." :
		"The primary allows more than this server, which would not start again as it is.";
	prk_words_clause(words, "%s is %d here and %d on the primary",
					 parameter->name, parameter->here, parameter->primary);
	prk_remedy_setting(words, parameter->name,
					   psprintf("%d", parameter->primary));
	prk_words_advise(words, "After the remedy restart this server; do not resume replay before.");
}

/* Replay stands still for a session. */
static void
word_conflict(const PrkWordsInput *in, PrkWords *words)
{
	const PrkEvidence *evidence = in->evidence;
	const PrkReplay *replay = &evidence->replay;
	const char *age = prk_words_duration(Max(evidence->upstream.lag_age, 0));

	words->finding = psprintf("Replay waits for a session on this server: queries here see data of %s ago. No WAL is lost.",
							  age);
	if (replay->wait == PRK_REPLAY_WAIT_LOCK && replay->mode != NoLock)
		prk_words_clause(words, "replay wants %s on %s",
						 GetLockmodeName(replay->tag.locktag_lockmethodid,
										 replay->mode),
						 lock_words(&replay->tag));
	else
		prk_words_clause(words, "startup waits for %s since %s",
						 replay->event, age);
	word_session(in, words);
	prk_words_clause(words, "%s unreplayed",
					 prk_words_size(evidence->upstream.unreplayed_bytes));
	prk_words_clause(words, "max_standby_streaming_delay = %s%s",
					 GetConfigOptionByName("max_standby_streaming_delay",
										   NULL, false),
					 max_standby_streaming_delay < 0 ?
					 ": replay waits without limit" : "");
	if (replay->pid != 0)
	{
		prk_words_advise(words, "Ask its owner to end it, or end it here (its work is rolled back):");
		prk_words_advise(words, "  SELECT pg_terminate_backend(%d);",
						 replay->pid);
	}
	else
		prk_words_advise(words, "End the session that holds it: look for old transactions in pg_stat_activity.");
	if (max_standby_streaming_delay < 0)
		prk_words_advise(words, "A limit for the future: ALTER SYSTEM SET max_standby_streaming_delay = '5min'; then reload.");
}

/* The session that replay waits for, as far as that is known. */
static void
word_session(const PrkWordsInput *in, PrkWords *words)
{
	const PrkReplay *replay = &in->evidence->replay;
	const char *state = "";
	const char *role = "";

	if (replay->pid == 0)
		return;
	if (OidIsValid(replay->userid))
		role = psprintf("role %s, ",
						prk_words_quoted(GetUserNameFromId(replay->userid, true) ?
										 GetUserNameFromId(replay->userid, true) : "?"));
	if (replay->since != 0)
		state = psprintf("%s for %s",
						 replay->in_transaction ? "idle in transaction" :
						 "in this state",
						 prk_words_duration(in->evidence->now -
											replay->since));
	prk_words_clause(words, replay->wait == PRK_REPLAY_WAIT_LOCK ?
					 "pid %d (%s%s) holds it" :
					 "oldest snapshot: pid %d (%s%s)", replay->pid, role,
					 state);
}

/* What is locked; by name where that is known in this database. */
static const char *
lock_words(const LOCKTAG *tag)
{
	const char *database = get_database_name(tag->locktag_field1);
	const char *relation = NULL;

	if (tag->locktag_type != LOCKTAG_RELATION)
		return psprintf("an object of database %s",
						prk_words_quoted(database != NULL ? database : "?"));
	if (tag->locktag_field1 == MyDatabaseId)
		relation = get_rel_name(tag->locktag_field2);
	return psprintf("relation %s of database %s",
					relation != NULL ? prk_words_quoted(relation) :
					psprintf("%u", tag->locktag_field2),
					prk_words_quoted(database != NULL ? database : "?"));
}

/* Recovery ends at a target, which a standby should not have. */
static void
word_target(const PrkWordsInput *in, PrkWords *words)
{
	static const char *const names[] = {
		[RECOVERY_TARGET_UNSET] = "",
		[RECOVERY_TARGET_XID] = "recovery_target_xid",
		[RECOVERY_TARGET_TIME] = "recovery_target_time",
		[RECOVERY_TARGET_NAME] = "recovery_target_name",
		[RECOVERY_TARGET_LSN] = "recovery_target_lsn",
		[RECOVERY_TARGET_IMMEDIATE] = "recovery_target"
	};
	const char *name = names[recoveryTarget];

	words->finding = in->evidence->upstream.pause_state != RECOVERY_NOT_PAUSED ?
		"Replay has stopped at a recovery target. Do not resume it: that would promote this server." :
		"This standby has a recovery target: when replay comes to it, it stops there or promotes this server.";
	prk_words_clause(words, "%s = %s", name,
					 prk_words_literal(GetConfigOptionByName(name, NULL, false)));
	prk_words_clause(words, "recovery_target_action = %s",
					 GetConfigOptionByName("recovery_target_action", NULL, false));
	prk_words_clause(words, "%s unreplayed",
					 prk_words_size(in->evidence->upstream.unreplayed_bytes));
	prk_words_advise(words, "To continue as a standby, reset the target and restart this server:");
	prk_words_advise(words, "  ALTER SYSTEM RESET %s;", name);
	prk_words_advise(words, "If it is still set then, it stands in another file: see pg_settings.sourcefile.");
}

/* It is late on purpose. */
static void
word_delayed(const PrkWordsInput *in, PrkWords *words)
{
	const PrkUpstream *upstream = &in->evidence->upstream;
	const char *delay = prk_words_duration(upstream->apply_delay);
	int64		seconds = upstream->apply_delay / USECS_PER_SEC;

	words->finding = psprintf("This replica is late by %s on purpose (recovery_min_apply_delay). It receives WAL without delay.",
							  delay);
	prk_words_clause(words, "%s unreplayed",
					 prk_words_size(upstream->unreplayed_bytes));
	if (upstream->lag_age >= 0)
		prk_words_clause(words, "data of %s ago",
						 prk_words_duration(upstream->lag_age));
	prk_words_advise(words, "To rescue deleted rows, stop before the mistake is replayed: SELECT pg_wal_replay_pause();");
	prk_words_advise(words, "A table that was dropped or truncated is locked here already. How to read it: doc/delayed.md");
	prk_words_advise(words, "If the primary warns about it, set there: replica_kit.overrides =");
	prk_words_advise(words, "  '%s: warning_lag=-1 critical_lag=-1 warning_lag_time=" INT64_FORMAT "s critical_lag_time=" INT64_FORMAT "s'",
					 upstream->slot_name[0] != '\0' ? upstream->slot_name :
					 "NAME", seconds + SECS_PER_HOUR, 2 * seconds + SECS_PER_HOUR);
}

/* The stream is cut, and the receiver's last failure says why. */
static void
word_cut(const PrkWordsInput *in, PrkWords *words)
{
	bool		ask = false;

	switch (in->diagnosis->code)
	{
		case PRK_CODE_HBA_NO_ENTRY:
			words->finding = "No rule of the upstream's pg_hba.conf lets this server in as it comes (address, role, TLS or not).";
			ask = true;
			break;
		case PRK_CODE_HBA_REJECTS:
			words->finding = "A rule of the upstream's pg_hba.conf rejects this server.";
			ask = true;
			break;
		case PRK_CODE_AUTH_FAILED:
			words->finding = "The upstream does not take the password that this server has.";
			prk_words_advise(words, "With the right password, on this machine:");
			prk_words_advise(words, "  %s --set-password", script_of_this());
			ask = true;
			break;
		case PRK_CODE_NO_PASSWORD:
			words->finding = "The upstream asks for a password and this server has none to send.";
			prk_words_advise(words, "It belongs in the passfile that primary_conninfo names. On this machine:");
			prk_words_advise(words, "  %s --set-password", script_of_this());
			break;
		case PRK_CODE_ROLE_MISSING:
			words->finding = "The role that this server connects as does not exist on the upstream.";
			ask = true;
			break;
		case PRK_CODE_ROLE_CANNOT_REPLICATE:
			words->finding = "The role that this server connects as has lost LOGIN or REPLICATION.";
			ask = true;
			break;
		case PRK_CODE_WALSENDERS_EXHAUSTED:
			words->finding = "The upstream has no walsender free for this server.";
			ask = true;
			break;
		case PRK_CODE_SLOT_MISSING:
			words->finding = "The slot that this server asks for does not exist on the upstream. With one it reconnects.";
			ask = true;
			break;
		case PRK_CODE_SLOT_TAKEN:
			words->finding = "Another connection has this server's slot: a stale one of its own, or another server.";
			ask = true;
			break;
		case PRK_CODE_SLOT_LOST:
			words->finding = "This server's slot is lost. A restart is not enough: it must be rebuilt.";
			advise_rebuild(words, true);
			break;
		case PRK_CODE_WAL_REMOVED:
			words->finding = "The upstream has removed WAL that this server needs. A restart is not enough: it must be rebuilt.";
			advise_rebuild(words, true);
			break;
		case PRK_CODE_OTHER_TIMELINE:
			words->finding = "This server has WAL that the upstream's history does not contain. Rewind or rebuild it.";
			advise_rebuild(words, false);
			break;
		case PRK_CODE_NEWER_TIMELINE_EXISTS:
			words->finding = "This server has a newer timeline than its upstream: somewhere a server was promoted without the upstream.";
			prk_words_advise(words, "If the upstream is an old primary: make sure that it is stopped, two primaries lose data.");
			prk_words_advise(words, "Then let this server follow the new primary: its script with --follow.");
			prk_words_advise(words, "If this server was promoted by mistake: rewind it (pg_rewind) or rebuild it.");
			break;
		case PRK_CODE_TIMELINE_NOT_FOLLOWED:
			words->finding = "The upstream has begun a new timeline, and this server is told not to follow it. No WAL is lost.";
			prk_words_clause(words, "recovery_target_timeline = %s",
							 GetConfigOptionByName("recovery_target_timeline",
												   NULL, false));
			prk_remedy_setting(words, "recovery_target_timeline", "latest");
			prk_words_advise(words, "After the remedy restart this server.");
			break;
		case PRK_CODE_UPSTREAM_FILE_UNREADABLE:
			words->finding = "The upstream cannot read a file that this server needs. There is no sign that WAL is lost.";
			prk_words_advise(words, "On the upstream give the file that the evidence names the owner and mode of its neighbours.");
			prk_words_advise(words, "If it is gone there, fetch it from the archive. This server reconnects by itself.");
			break;
		case PRK_CODE_FLUSH_SLOW:
			words->finding = "This server cannot write the WAL that it receives: its own disk or files. No WAL is lost.";
			prk_words_advise(words, "Free space on the disk of pg_wal, or mend owner and mode of what the evidence names.");
			prk_words_advise(words, "It reconnects by itself then. The upstream has no part in it.");
			break;
		case PRK_CODE_OTHER_CLUSTER:
			words->finding = "The upstream belongs to another cluster: this server is not a copy of it.";
			prk_words_advise(words, "If the upstream was upgraded by pg_upgrade, make a new replica beside this one: doc/upgrade.md.");
			prk_words_advise(words, "Else correct primary_conninfo and reload, or clone this server again, by that upstream's join_script().");
			break;
		case PRK_CODE_UPSTREAM_UNREACHABLE:
			words->finding = "The upstream cannot be reached. This server reconnects by itself once it can.";
			prk_words_advise(words, "Start the upstream; or correct host and port in primary_conninfo and reload.");
			break;
		default:
			words->finding = "The upstream refuses this server, in the words of the evidence.";
			ask = true;
			break;
	}
	if (ask)
		prk_words_advise(words, "On the upstream run: SELECT * FROM replica_kit.diagnose();");
}

/* How to bring this standby back, where WAL is removed, or its own is strange. */
static void
advise_rebuild(PrkWords *words, bool removed)
{
	const char *command = GetConfigOption("restore_command", true, false);

	prk_words_advise(words, "On this machine, as root:");
	prk_words_advise(words, "  %s --rebuild", script_of_this());
	if (removed)
		prk_words_advise(words, "%s",
						 prk_words_step_removed(command != NULL && command[0] != '\0',
												false));
	prk_words_advise(words, "Nothing has to be done on the upstream.");
	prk_words_advise(words, "The script, if it is gone, comes from there: replica_kit.join_script().");
}

/* The script that has made this standby, up to its last option. */
static const char *
script_of_this(void)
{
	bool		is_word = DataDir[strspn(DataDir, "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
										 "abcdefghijklmnopqrstuvwxyz"
										 "0123456789_./-")] == '\0';
	const char *slot = PrimarySlotName != NULL && PrimarySlotName[0] != '\0' ?
	PrimarySlotName : "NAME";

	return psprintf("sh join_%s.sh --pgdata %s", slot,
					is_word ? DataDir : "DIR");
}
