/*-------------------------------------------------------------------------
 *
 * announce.c
 *	  The worker's lines in the server's log.
 *
 * The first words of each are fixed: people and programs search for them.
 *
 *		LOG:  replica_kit worker started: ...
 *		LOG:  replica_kit worker paused: ...
 *		WARNING:  replica "NAME" warning: REASON
 *		WARNING:  replica "NAME" critical: REASON
 *		WARNING:  replica "NAME" still critical after TIME: REASON
 *		LOG:  replica "NAME" ok: REASON, after TIME
 *		WARNING:  server warning: REASON	(and so on)
 *		WARNING:  server warning: promoted, timeline ...
 *		WARNING:  upstream warning: REASON	(and so on)
 *
 * Their SQLSTATE is RK000 for ok, RK001 for warning, RK002 for critical.  The
 * DETAIL has the figures, the HINT the statement that comes next.
 *
 * IDENTIFICATION
 *	  src/watch/announce.c
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "lib/stringinfo.h"
#include "replication/syncrep.h"
#include "utils/builtins.h"

#include "failures/failure_table.h"
#include "failures/failures.h"
#include "format.h"
#include "watch/announce.h"

static void describe(StringInfo buf, const PrkLine *line);
static void describe_connection(StringInfo buf, const PrkLine *line);
static void describe_absence(StringInfo buf, const PrkLine *line);
static void describe_slot(StringInfo buf, const PrkReplica *replica);
static void describe_last_error(StringInfo buf, const PrkLine *line);
static void announce_trouble(const char *subject, const PrkTroubleLine *said,
							 const char *detail);
static void describe_upstream(StringInfo buf, const PrkUpstreamLine *line);
static void describe_server(StringInfo buf, const PrkServerLine *line);
static void describe_archive(StringInfo buf, const PrkServerFacts *facts);
static void describe_disk(StringInfo buf, const PrkDisk *disk);
static void append_bytes(StringInfo buf, const char *name, int64 bytes);
static void advise(StringInfo buf, const PrkLine *line);

/* The SQLSTATE that goes with a level. */
int
prk_announce_errcode(PrkLevel level)
{
	switch (level)
	{
		case PRK_OK:
			return PRK_ERRCODE_OK;
		case PRK_WARNING:
			return PRK_ERRCODE_WARNING;
		case PRK_CRITICAL:
			return PRK_ERRCODE_CRITICAL;
	}
	pg_unreachable();
}

/* Logs one line of the alerts; allocates in the current memory context. */
void
prk_announce_line(const PrkLine *line)
{
	StringInfoData detail;
	StringInfoData hint;
	char		lasted[PRK_FORMAT_LEN];

	initStringInfo(&detail);
	initStringInfo(&hint);
	describe(&detail, line);
	advise(&hint, line);
	prk_format_duration(lasted, line->lasted);

	switch (line->kind)
	{
		case PRK_LINE_CHANGE:
			ereport(WARNING,
					(errcode(prk_announce_errcode(line->level)),
					 errmsg("replica \"%s\" %s: %s", line->name,
							prk_level_name(line->level), line->reason),
					 errdetail_internal("%s", detail.data),
					 errhint("%s", hint.data)));
			break;
		case PRK_LINE_REMINDER:
			ereport(WARNING,
					(errcode(prk_announce_errcode(line->level)),
					 errmsg("replica \"%s\" still %s after %s: %s",
							line->name, prk_level_name(line->level), lasted,
							line->reason),
					 errdetail_internal("%s", detail.data),
					 errhint("%s", hint.data)));
			break;
		case PRK_LINE_RECOVERY:
			ereport(LOG,
					(errcode(PRK_ERRCODE_OK),
					 errmsg("replica \"%s\" ok: %s, after %s", line->name,
							line->reason, lasted)));
			break;
		case PRK_LINE_VANISHED:
			ereport(WARNING,
					(errcode(prk_announce_errcode(line->level)),
					 line->replica->has_slot ?
					 errmsg("replica \"%s\" warning: its slot was dropped",
							line->name) :
					 errmsg("replica \"%s\" warning: it has disconnected, and has no slot to return to",
							line->name),
					 errdetail_internal("%s", detail.data),
					 errhint("%s", hint.data)));
			break;
	}
}

/* Logs a line about the server as a whole. */
void
prk_announce_server(const PrkServerLine *line)
{
	StringInfoData detail;

	initStringInfo(&detail);
	describe_server(&detail, line);
	announce_trouble(PRK_SERVER_NAME, &line->said, detail.data);
}

/* Logs a line about this standby's own upstream. */
void
prk_announce_upstream(const PrkUpstreamLine *line)
{
	StringInfoData detail;

	initStringInfo(&detail);
	describe_upstream(&detail, line);
	announce_trouble(PRK_UPSTREAM_NAME, &line->said, detail.data);
}

/* Logs a line about something that diagnose() knows by that name. */
static void
announce_trouble(const char *subject, const PrkTroubleLine *said,
				 const char *detail)
{
	const char *level = prk_level_name(said->level);
	char		lasted[PRK_FORMAT_LEN];

	prk_format_duration(lasted, said->lasted);
	switch (said->kind)
	{
		case PRK_LINE_CHANGE:
		case PRK_LINE_REMINDER:
			ereport(WARNING,
					(errcode(prk_announce_errcode(said->level)),
					 said->kind == PRK_LINE_CHANGE ?
					 errmsg("%s %s: %s", subject, level, said->reason) :
					 errmsg("%s still %s after %s: %s", subject, level,
							lasted, said->reason),
					 errdetail_internal("%s", detail),
					 errhint("Run: SELECT * FROM replica_kit.diagnose('%s');",
							 subject)));
			break;
		case PRK_LINE_RECOVERY:
			ereport(LOG,
					(errcode(PRK_ERRCODE_OK),
					 errmsg("%s ok: %s, after %s", subject, said->reason,
							lasted)));
			break;
		case PRK_LINE_VANISHED:
			break;				/* neither does */
	}
}

/* Where this standby is, and why it could not come further. */
static void
describe_upstream(StringInfo buf, const PrkUpstreamLine *line)
{
	const PrkUpstream *state = &line->state;
	const PrkUpstreamAlert *alert = line->alert;
	char		when[PRK_FORMAT_LEN];

	if (state->settled)
	{
		appendStringInfo(buf, "Streaming from %s, port %d",
						 state->sender_host, state->sender_port);
		append_bytes(buf, ": not received", state->unreceived_bytes);
		append_bytes(buf, ", unreplayed", state->unreplayed_bytes);
	}
	else
	{
		if (alert->seen_at != 0)
			appendStringInfo(buf, "Last received from %s, port %d, at %s",
							 alert->host, alert->port,
							 prk_format_time(when, alert->seen_at));
		else
			appendStringInfoString(buf, "Not streaming since the worker was started");
		appendStringInfo(buf, "; received up to %X/%X, replayed up to %X/%X",
						 LSN_FORMAT_ARGS(state->received_lsn),
						 LSN_FORMAT_ARGS(state->replayed_lsn));
	}
	if (line->failure != NULL)
		appendStringInfo(buf, "; last error: %s",
						 prk_foreign_show_words(&line->failure->message));
	appendStringInfoChar(buf, '.');
}

/* What there is, what comes, and who keeps it. */
static void
describe_server(StringInfo buf, const PrkServerLine *line)
{
	const PrkSync *sync = &line->facts.sync;

	switch (line->trouble)
	{
		case PRK_TROUBLE_DISK:
			describe_disk(buf, &line->facts.disk);
			break;
		case PRK_TROUBLE_SYNC:
			appendStringInfo(buf, "synchronous_standby_names is \"%s\"; %d of %d connected; sessions that wait: %d.",
							 SyncRepStandbyNames, sync->there, sync->wanted,
							 sync->waiting);
			break;
		case PRK_TROUBLE_ARCHIVE:
			describe_archive(buf, &line->facts);
			break;
	}
}

/* The DETAIL of a disk that fills. */
static void
describe_disk(StringInfo buf, const PrkDisk *disk)
{
	char		size[PRK_FORMAT_LEN];

	appendStringInfo(buf, "%s free", prk_format_size(size, disk->free_bytes));
	if (disk->growth >= 0)
		appendStringInfo(buf, ", WAL grows %s/s",
						 prk_format_size(size, (int64) disk->growth));
	if (disk->keeper == PRK_KEEPER_SLOT)
		appendStringInfo(buf, "; slot \"%s\" holds %s", disk->holder,
						 prk_format_size(size, disk->held_bytes));
	appendStringInfoChar(buf, '.');
}

/* The DETAIL of an archiver that stands still. */
static void
describe_archive(StringInfo buf, const PrkServerFacts *facts)
{
	const PrkArchive *archive = &facts->archiving.archive;
	char		word[PRK_FORMAT_LEN];

	appendStringInfo(buf, "Files that wait: %d", archive->waiting);
	if (archive->last_failed_at != 0)
		appendStringInfo(buf, "; failures: " INT64_FORMAT ", the last at %s on %s",
						 archive->failed_count,
						 prk_format_time(word, archive->last_failed_at),
						 archive->last_failed);
	if (facts->disk.known)
		appendStringInfo(buf, "; %s free",
						 prk_format_size(word, facts->disk.free_bytes));
	appendStringInfoChar(buf, '.');
}

/* Says that the watch has begun, and of how many. */
void
prk_announce_start(const PrkSample *sample)
{
	char		interval[PRK_FORMAT_LEN];
	int			count = 0;

	/* those that are there to stay */
	for (int i = 0; i < sample->nreplicas; i++)
	{
		const PrkReplica *replica = &sample->replicas[i];

		if (!replica->temporary && !replica->synced &&
			(replica->has_slot || replica->state != PRK_STATE_BACKUP))
			count++;
	}
	prk_format_span(interval, (int64) prk_check_interval * 1000);
	ereport(LOG,
			(errcode(PRK_ERRCODE_OK),
			 errmsg_plural("replica_kit worker started: %d replica, sampling every %s",
						   "replica_kit worker started: %d replicas, sampling every %s",
						   count, count, interval)));
}

/* Says that a replica comes in vain. */
void
prk_announce_unserved(const PrkUnserved *unserved)
{
	const char *what = unserved->name != NULL ?
	psprintf("replica \"%s\"", unserved->name) : "server";

	ereport(WARNING,
			(errcode(PRK_ERRCODE_CRITICAL),
			 errmsg("%s critical: %s", what, unserved->reason),
			 errdetail_internal("The answer it got: %s",
								prk_foreign_show_words(&unserved->failure->message)),
			 errhint("Run: SELECT * FROM replica_kit.diagnose(%s);",
					 quote_literal_cstr(unserved->name != NULL ?
										prk_settings_shown_name(unserved->name) :
										PRK_SERVER_NAME))));
}

/* Says that it does not any more; name is "" for the server itself. */
void
prk_announce_served(const char *name, int64 lasted)
{
	char		time[PRK_FORMAT_LEN];

	ereport(LOG,
			(errcode(PRK_ERRCODE_OK),
			 errmsg("%s ok: no longer refused, after %s",
					name[0] != '\0' ? psprintf("replica \"%s\"", name) :
					"server",
					prk_format_duration(time, lasted))));
}

/* Says that this server was a standby and is none any more. */
void
prk_announce_promotion(const PrkSample *sample)
{
	ereport(WARNING,
			(errcode(PRK_ERRCODE_WARNING),
			 errmsg("server warning: promoted, timeline %u begins at %X/%X",
					sample->timeline,
					LSN_FORMAT_ARGS(sample->timeline_begin)),
			 errhint("Run: SELECT * FROM replica_kit.diagnose('server');")));
}

/* Says that the watch was switched off. */
void
prk_announce_pause(void)
{
	ereport(LOG,
			(errcode(PRK_ERRCODE_OK),
			 errmsg("replica_kit worker paused: replica_kit.worker is off")));
}

/* The DETAIL of a replica. */
static void
describe(StringInfo buf, const PrkLine *line)
{
	const PrkReplica *replica = line->replica;
	bool		in_use = prk_sample_in_use(replica);

	if (in_use && line->kind != PRK_LINE_VANISHED)
		describe_connection(buf, line);
	else
		describe_absence(buf, line);
	if (replica->has_slot)
		describe_slot(buf, replica);
	else
		appendStringInfoString(buf, "; no slot holds WAL for it");
	if (!in_use)
		describe_last_error(buf, line);
	if (line->kind != PRK_LINE_VANISHED && line->outlook[0] != '\0')
		appendStringInfo(buf, "; %s", line->outlook);
	appendStringInfoChar(buf, '.');
}

/* Where it is connected from, and where its WAL is. */
static void
describe_connection(StringInfo buf, const PrkLine *line)
{
	const PrkReplica *replica = line->replica;

	appendStringInfo(buf, "%s %s (pid %d)",
					 replica->state == PRK_STATE_STREAMING ?
					 "Streaming to" : "Connected from",
					 line->known->last_addr, replica->pid);
	if (replica->lag_bytes < 0)
		return;
	append_bytes(buf, ": unsent", replica->unsent_bytes);
	append_bytes(buf, ", unwritten", replica->unwritten_bytes);
	append_bytes(buf, ", unflushed", replica->unflushed_bytes);
	append_bytes(buf, ", unreplayed", replica->unreplayed_bytes);
}

/* When it was there, and where. */
static void
describe_absence(StringInfo buf, const PrkLine *line)
{
	const PrkKnown *known = line->known;
	char		when[PRK_FORMAT_LEN];

	if (known->seen_at == 0)
		appendStringInfo(buf, "Not seen since %s",
						 prk_format_time(when, known->appeared_at));
	else
		appendStringInfo(buf, "Last seen at %s at %s", known->last_addr,
						 prk_format_time(when, known->seen_at));
}

/* What the slot holds, and how long it still may. */
static void
describe_slot(StringInfo buf, const PrkReplica *replica)
{
	if (replica->retained_bytes >= 0)
		append_bytes(buf, "; slot retains", replica->retained_bytes);
	else
		appendStringInfoString(buf, "; slot retains nothing");
	if (replica->has_safe_wal_size && replica->safe_wal_size >= 0)
	{
		append_bytes(buf, ",", replica->safe_wal_size);
		appendStringInfoString(buf, " left");
	}
	if (replica->wal_status != PRK_WAL_NONE)
		appendStringInfo(buf, ", wal_status \"%s\"",
						 prk_wal_status_name(replica->wal_status));
	if (replica->invalidation != NULL)
		appendStringInfo(buf, ", cause \"%s\"", replica->invalidation);
}

/* Why it could not come back, if it tried. */
static void
describe_last_error(StringInfo buf, const PrkLine *line)
{
	const PrkFailure *failure = prk_failures_of_replica(prk_failures_read(),
														line->name);

	if (failure != NULL && !failure->over &&
		failure->number > line->known->seen_number)
		appendStringInfo(buf, "; last error: %s",
						 prk_foreign_show_words(&failure->message));
}

/* Appends a number of bytes with its name; -1: not known. */
static void
append_bytes(StringInfo buf, const char *name, int64 bytes)
{
	char		size[PRK_FORMAT_LEN];

	appendStringInfo(buf, "%s %s", name,
					 bytes >= 0 ? prk_format_size(size, bytes) : "not known");
}

/*
 * The statement that says what comes next.  None that destroys: whose a slot
 * is, and so how it would be dropped, is not known here.
 */
static void
advise(StringInfo buf, const PrkLine *line)
{
	const PrkReplica *replica = line->replica;

	if (!replica->has_slot)
		appendStringInfoString(buf, "Run: SELECT * FROM replica_kit.status();");
	else if (line->kind == PRK_LINE_VANISHED)
		appendStringInfoString(buf, replica->logical ?
							   "If the subscriber is still wanted, rebuild it." :
							   "If the replica is still wanted, provision and rebuild it.");
	else
		appendStringInfo(buf, "Run: SELECT * FROM replica_kit.diagnose(%s);",
						 quote_literal_cstr(prk_settings_shown_name(line->name)));
}
