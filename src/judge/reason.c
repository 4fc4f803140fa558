/*-------------------------------------------------------------------------
 *
 * reason.c
 *	  A verdict in the words of alert lines and of status().
 *
 * IDENTIFICATION
 *	  src/judge/reason.c
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "commands/progress.h"

#include "compat.h"
#include "format.h"
#include "judge/health.h"

static void say(PrkVerdict *verdict, const char *fmt,...) pg_attribute_printf(2, 3);
static void say_fact(const PrkReplica *replica, PrkVerdict *verdict);
static void say_state(const PrkReplica *replica, PrkVerdict *verdict);
static void say_lost(const PrkReplica *replica, PrkVerdict *verdict);
static void say_backup(const PrkReplica *replica, PrkVerdict *verdict);
static void say_slot(const PrkReplica *replica, PrkVerdict *verdict);
static void write_outlook(PrkVerdict *verdict);
static const char *stage_name(PrkStage stage);

/*
 * Makes reason and outlook of the verdict's other fields.  replica is the one
 * that was judged; NULL for a standby's own upstream.
 */
void
prk_reason_write(const PrkReplica *replica, PrkVerdict *verdict)
{
	verdict->reason[0] = '\0';
	verdict->outlook[0] = '\0';
	if (verdict->paused)
		say(verdict, "replay is paused");
	say_fact(replica, verdict);
	say_slot(replica, verdict);
	if (verdict->off)
		say(verdict, "not judged");
	if (verdict->has_outlook)
		write_outlook(verdict);
}

/* Why the server takes slots away, by its own names. */
static const struct
{
	const char *name;
	const char *clause;
	bool		wal_removed;
}			causes[] = {
	{"wal_removed", "it held more WAL than max_slot_wal_keep_size allows", true},
	{"rows_removed", "the primary removed rows that it needs", false},
	{"wal_level_insufficient", "the primary's " PRK_COMPAT_LOGICAL_LEVEL " is no longer logical", false},
	{"idle_timeout", "it was unused for longer than idle_replication_slot_timeout", false}
};

/*
 * Why the server took a replica's slot away, as a clause; NULL when it didn't.
 * A cause that is newer than this is told by the server's name for it.
 */
const char *
prk_health_cause(const PrkReplica *replica)
{
	if (replica->invalidation == NULL)
		return NULL;
	for (int i = 0; i < (int) lengthof(causes); i++)
	{
		if (strcmp(replica->invalidation, causes[i].name) == 0)
			return causes[i].clause;
	}
	return replica->invalidation;
}

/* Was a slot that is lost taken away because its WAL was? */
bool
prk_health_wal_removed(const PrkReplica *replica)
{
	if (replica->invalidation == NULL)
		return true;
	for (int i = 0; i < (int) lengthof(causes); i++)
	{
		if (strcmp(replica->invalidation, causes[i].name) == 0)
			return causes[i].wal_removed;
	}
	return false;
}

/* Adds a clause to the reason. */
static void
say(PrkVerdict *verdict, const char *fmt,...)
{
	size_t		len = strlen(verdict->reason);
	va_list		args;

	if (len > 0)
		len += strlcpy(verdict->reason + len, ", ", PRK_REASON_LEN - len);
	if (len >= PRK_REASON_LEN)
		return;
	va_start(args, fmt);
	vsnprintf(verdict->reason + len, PRK_REASON_LEN - len, fmt, args);
	va_end(args);
}

/* Puts the fact that counts into words. */
static void
say_fact(const PrkReplica *replica, PrkVerdict *verdict)
{
	char		size[PRK_FORMAT_LEN];
	char		time[PRK_FORMAT_LEN];
	int64		behind = Max(verdict->lag_bytes, 0);

	switch (verdict->fact)
	{
		case PRK_FACT_STREAMS:
			if (verdict->lag_bytes < 0)
				say(verdict, "%s", prk_state_name(verdict->state));
			else
				say(verdict, "%s, %s behind",
					verdict->state == PRK_STATE_CATCHUP ? "catching up" :
					"streaming", prk_format_size(size, behind));
			break;
		case PRK_FACT_BEHIND:
			if (verdict->lag_time >= 0)
				say(verdict, "%s is %s and %s behind",
					stage_name(verdict->stage),
					prk_format_duration(time, verdict->lag_time),
					prk_format_size(size, behind));
			else
				say(verdict, "%s is %s behind", stage_name(verdict->stage),
					prk_format_size(size, behind));
			break;
		case PRK_FACT_NO_REPLY:
			say(verdict, "no reply for %s, %s behind",
				prk_format_duration(time, verdict->since),
				prk_format_size(size, behind));
			break;
		case PRK_FACT_NOTHING_RECEIVED:
			say(verdict, "nothing received for %s although connected",
				prk_format_duration(time, verdict->since));
			break;
		case PRK_FACT_ARCHIVE_ONLY:
			say(verdict, "replaying from the archive only");
			if (verdict->code == PRK_CODE_RESTORE_STALLED)
				say(verdict, "nothing was restored for %s",
					prk_format_duration(time, verdict->since));
			break;
		case PRK_FACT_GONE:
			if (verdict->since < 0)
				say(verdict, "disconnected, not known since when");
			else
				say(verdict, "disconnected for %s",
					prk_format_duration(time, verdict->since));
			if (verdict->connecting >= 0)
				say(verdict, "connecting for %s",
					prk_format_duration(time, verdict->connecting));
			break;
		case PRK_FACT_BACK:
			say(verdict, "just back, was away for %s",
				prk_format_duration(time, verdict->since));
			break;
		case PRK_FACT_NEVER_CONNECTED:
			say(verdict, "never connected, slot was made %s ago",
				prk_format_duration(time, verdict->since));
			break;
		case PRK_FACT_KEPT:
			say(verdict, "slot is moved by another tool, for a failover");
			break;
		case PRK_FACT_LEFT_BEHIND:
			say(verdict, "slot is left from before this server became a standby");
			break;
		case PRK_FACT_LOST:
			say_lost(replica, verdict);
			break;
		case PRK_FACT_NOT_JUDGED:
			say_state(replica, verdict);
			break;
	}
}

/* What is in use or kept for use, but streams nothing. */
static void
say_state(const PrkReplica *replica, PrkVerdict *verdict)
{
	if (verdict->state == PRK_STATE_BACKUP)
		say_backup(replica, verdict);
	else if (verdict->state == PRK_STATE_STOPPING)
		say(verdict, "stopping");
	else if (replica->has_walsender)
		say(verdict, "starting to stream");
	else if (replica->synced && replica->sync_skipped != NULL)
		say(verdict, "copy of the primary's slot, not synchronized: %s",
			replica->sync_skipped);
	else if (replica->synced)
		say(verdict, "copy of the primary's slot");
	else if (replica->pid != 0)
		say(verdict, "in use by pid %d", replica->pid);
	else
		say(verdict, "temporary slot, not in use");
}

/*
 * From 17 on a walsender streams through an invalidated slot as if nothing
 * were wrong, but no WAL is kept for it any more.
 */
static void
say_lost(const PrkReplica *replica, PrkVerdict *verdict)
{
	const char *cause = prk_health_cause(replica);

	say(verdict, "slot is lost, %s%s%s",
		prk_sample_in_use(replica) ? "it streams without one" :
		replica->logical ? "the subscriber must be rebuilt" :
		"the replica must be rebuilt",
		cause != NULL ? ": " : "", cause != NULL ? cause : "");
}

/*
 * A base backup says how far it is; it is never late.  Of an incremental one
 * that is not known: its total is that of a full one.
 */
static void
say_backup(const PrkReplica *replica, PrkVerdict *verdict)
{
	char		buf[PRK_FORMAT_LEN];
	const char *kind = replica->backup_incremental ?
	"incremental base backup" : "base backup";

	if (replica->backup_phase == PROGRESS_BASEBACKUP_PHASE_WAIT_CHECKPOINT)
		say(verdict, "%s, waiting for a checkpoint", kind);
	else if (replica->backup_phase != 0 && replica->backup_total > 0 &&
			 !replica->backup_incremental)
		say(verdict, "base backup %d %%",
			(int) Min(replica->backup_streamed * 100.0 /
					  replica->backup_total, 100));
	else if (replica->backup_phase != 0 && replica->backup_streamed > 0)
		say(verdict, "%s, %s sent", kind,
			prk_format_size(buf, replica->backup_streamed));
	else
		say(verdict, "%s", kind);
}

/* Will the slot lose its WAL? */
static void
say_slot(const PrkReplica *replica, PrkVerdict *verdict)
{
	const char *by = verdict->slot_idle ?
	" by idle_replication_slot_timeout" : "";
	char		buf[PRK_FORMAT_LEN];

	switch (verdict->slot_end)
	{
		case PRK_SLOT_SAFE:
			break;
		case PRK_SLOT_NEXT_CHECKPOINT:
			say(verdict, "slot will be lost at the next checkpoint%s", by);
			break;
		case PRK_SLOT_IN_TIME:
			say(verdict, "slot will be lost in %s%s",
				prk_format_duration(buf, verdict->forecast.lost_in), by);
			break;
		case PRK_SLOT_AFTER_BYTES:
			say(verdict, "slot will be lost after %s more",
				prk_format_size(buf, replica->safe_wal_size));
			break;
	}
}

/* Will it catch up? */
static void
write_outlook(PrkVerdict *verdict)
{
	const PrkForecast *forecast = &verdict->forecast;
	char		time[PRK_FORMAT_LEN];

	if (!forecast->has_catch_up)
		strlcpy(verdict->outlook, "too early to say when it will catch up",
				PRK_OUTLOOK_LEN);
	else if (forecast->catch_up_in >= 0)
		snprintf(verdict->outlook, PRK_OUTLOOK_LEN, "will catch up in %s",
				 prk_format_duration(time, forecast->catch_up_in));
	else
		strlcpy(verdict->outlook, "is not catching up", PRK_OUTLOOK_LEN);
}

/* What a replica is behind in. */
static const char *
stage_name(PrkStage stage)
{
	switch (stage)
	{
		case PRK_STAGE_SENDING:
			return "sending";
		case PRK_STAGE_RECEIVING:
			return "receiving";
		case PRK_STAGE_FLUSHING:
			return "flushing";
		case PRK_STAGE_REPLAY:
			return "replay";
	}
	pg_unreachable();
}
