/*-------------------------------------------------------------------------
 *
 * learn.c
 *	  What only somebody who watches can know about a replica.
 *
 * IDENTIFICATION
 *	  src/watch/learn.c
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "common/ip.h"
#include "utils/memutils.h"

#include "failures/commands.h"
#include "failures/failure_table.h"
#include "judge/absence.h"
#include "watch/watched.h"

static void learn_present(PrkWatched *watched, const PrkSample *sample,
						  const PrkReplica *replica);
static void learn_absent(PrkWatched *watched, const PrkSample *sample,
						 const PrkReplica *replica,
						 const PrkDepartures *departures);
static bool is_probe(const PrkReplica *replica);
static bool is_served(const PrkReplica *replica, const PrkWatched *watched);
static bool stays(const PrkSample *sample, const PrkReplica *replica,
				  const PrkWatched *watched);
static bool was_used(const PrkReplica *replica, PrkKnown *known);
static bool has_moved(const PrkReplica *replica, const PrkWatched *watched);
static bool has_consumed(const PrkReplica *replica, PrkWatched *watched);
static void note_address(const PrkReplica *replica, PrkKnown *known);

/*
 * Begins to watch a replica that has just been seen for the first time; started:
 * by a worker that has watched before.
 */
void
prk_watched_begin(PrkWatched *watched, const PrkSample *sample,
				  const PrkReplica *replica, bool started)
{
	PrkBoardEntry *entry = &watched->entry;

	strlcpy(entry->name, replica->name, NAMEDATALEN);
	entry->pid = prk_board_pid(replica);
	entry->known.appeared_at = sample->taken_at;
	entry->known.stayed_number = sample->number;

	/* What was there before the watch began may have been used before. */
	if (replica->unused_since != 0)
		entry->known.appeared_at = replica->unused_since;
	entry->known.never_connected = replica->has_slot &&
		(started || replica->unused_since != 0);
}

/*
 * Brings up to date what only a watcher knows.
 *
 * A backend that holds a physical slot is no replica: it makes, moves or drops
 * it.  A logical one it may well read.
 */
void
prk_watched_learn(PrkWatched *watched, const PrkSample *sample,
				  const PrkReplica *replica, const PrkDepartures *departures,
				  MemoryContext context)
{
	PrkKnown   *known = &watched->entry.known;
	TimestampTz now = sample->taken_at;
	XLogRecPtr	position = prk_health_position(replica);

	known->watched = true;
	if (replica->has_walsender ||
		(replica->logical && prk_sample_in_use(replica)))
	{
		if (!is_probe(replica))
			learn_present(watched, sample, replica);
	}
	else
		learn_absent(watched, sample, replica, departures);

	if (!is_probe(replica) && is_served(replica, watched))
	{
		if (!watched->sampled || watched->last.pid != replica->pid ||
			watched->last.state != replica->state)
		{
			PrkSession	session = prk_failures_session(replica->pid);

			known->session = session.number;
			prk_failures_seen(session.peer, replica->name,
							  replica->has_slot);
		}
		known->seen_number = sample->number;
	}

	if (!replica->has_walsender || replica->lag_bytes <= 0)
		known->stuck_since = 0;
	else if (known->stuck_since == 0 || known->stuck_at != position)
		known->stuck_since = now;
	known->stuck_at = position;

	if (replica->reply_time == 0)
		known->reply_seen_at = 0;
	else if (known->reply_seen_at == 0 ||
			 known->reply_time != replica->reply_time)
		known->reply_seen_at = now;
	known->reply_time = replica->reply_time;

	if (watched->track == NULL)
		watched->track = MemoryContextAllocZero(context, sizeof(PrkTrack));
	prk_track_add(watched->track, sample->clock_at, sample->current_lsn,
				  replica->lag_bytes, replica->retained_bytes);
	prk_track_pace(watched->track, &known->pace);

	watched->last = *replica;
	watched->sampled = true;
}

/*
 * It is connected.  Its absence is over once it stays: one that leaves at once is
 * as good as away, however often it comes.
 */
static void
learn_present(PrkWatched *watched, const PrkSample *sample,
			  const PrkReplica *replica)
{
	PrkKnown   *known = &watched->entry.known;
	bool		first = !watched->sampled || watched->last.pid != replica->pid;

	/*
	 * A clone goes before the replica's own first connection, and so does
	 * whoever makes the slot.  A logical slot has no position until it is
	 * made (DecodingContextFindStartpoint() in
	 * src/backend/replication/logical/logical.c).
	 */
	if (known->never_connected && replica->state != PRK_STATE_BACKUP &&
		!(replica->has_walsender && replica->state == PRK_STATE_STARTUP) &&
		!(replica->logical &&
		  XLogRecPtrIsInvalid(replica->confirmed_flush_lsn)))
	{
		known->never_connected = false;
		known->gone_since = 0;
	}
	known->unused_seen = false;
	known->seen_at = sample->taken_at;
	if (first)
	{
		note_address(replica, known);
		watched->there_since = sample->clock_at;
		watched->stays = false;
	}
	if (!watched->stays && stays(sample, replica, watched))
	{
		watched->stays = true;
		prk_departures_stays(prk_failures_session(replica->pid).peer);
	}
	if (watched->stays)
	{
		known->gone_since = 0;
		known->idle_pid = 0;
		known->stayed_number = sample->number;
	}
}

/* Nobody has its slot. */
static void
learn_absent(PrkWatched *watched, const PrkSample *sample,
			 const PrkReplica *replica, const PrkDepartures *departures)
{
	PrkKnown   *known = &watched->entry.known;
	TimestampTz now = sample->taken_at;
	PrkDeparted departed = prk_departed(departures, sample, replica->name,
										known->stayed_number);

	if (known->never_connected && was_used(replica, known))
	{
		/* It may be another of that name, made since and not used. */
		known->never_connected = replica->unused_since > known->appeared_at;
		known->appeared_at = Max(known->appeared_at, replica->unused_since);
		known->gone_since = 0;
	}

	/* It came, and may not even have got as far as to its slot. */
	if (known->never_connected &&
		(departed.idle != NULL || prk_departed_again(&departed)))
	{
		known->never_connected = false;
		known->gone_since = 0;
	}
	known->idle_pid = 0;
	if (departed.idle != NULL)
	{
		uint64		number = prk_failures_session(departed.idle->pid).number;

		/* That it was seen streaming was no more than a moment. */
		known->idle_pid = departed.idle->pid;
		if (number != 0)
			known->stayed_number = Min(known->stayed_number, number - 1);
	}
	if (!known->never_connected && has_moved(replica, watched))
	{
		known->moved_at = now;
		known->gone_since = 0;
	}
	if (has_consumed(replica, watched))
	{
		known->gone_since = 0;
		known->stayed_number = sample->number;
	}
	if (known->gone_since == 0)
		known->gone_since = replica->inactive_since != 0 ?
			Min(replica->inactive_since, now) : now;
}

/* Does the script for the replica's machine ask whether the slot is free? */
static bool
is_probe(const PrkReplica *replica)
{
	return replica->pid != 0 &&
		strcmp(replica->application_name, PRK_SCRIPT_NAME) == 0;
}

/*
 * Has it been served for a while?  A backend that reads a logical slot comes for
 * a moment as a rule, and a base backup is none of the replica's doing.
 */
static bool
stays(const PrkSample *sample, const PrkReplica *replica,
	  const PrkWatched *watched)
{
	if (!replica->has_walsender || replica->state == PRK_STATE_BACKUP)
		return true;
	if (replica->state != PRK_STATE_STREAMING &&
		replica->state != PRK_STATE_CATCHUP)
		return false;
	return sample->clock_at - watched->there_since >= PRK_STAYS ||
		prk_absence_over(sample, replica, &watched->entry.known);
}

/*
 * Does a walsender serve the replica, so that its earlier failures are over?
 * A walsender that is about to fail may look like catchup for a moment.
 */
static bool
is_served(const PrkReplica *replica, const PrkWatched *watched)
{
	return replica->has_walsender &&
		(replica->state == PRK_STATE_STREAMING ||
		 (replica->state == PRK_STATE_CATCHUP && watched->sampled &&
		  watched->last.pid == replica->pid &&
		  watched->last.state == PRK_STATE_CATCHUP));
}

/*
 * Was a slot that nobody holds used between two samples?  Who came and went in
 * less than check_interval has moved its restart_lsn, or at least, from 17 on,
 * the time since when it is inactive.  What is seen first is how it was made.
 */
static bool
was_used(const PrkReplica *replica, PrkKnown *known)
{
	bool		result;

	if (replica->pid != 0)
		return false;
	result = known->unused_seen &&
		(known->unused_lsn != replica->restart_lsn ||
		 known->unused_since != replica->inactive_since);
	known->unused_seen = true;
	known->unused_lsn = replica->restart_lsn;
	known->unused_since = replica->inactive_since;
	return result;
}

/* Did somebody move a slot that nobody holds, now and when last sampled? */
static bool
has_moved(const PrkReplica *replica, const PrkWatched *watched)
{
	return watched->sampled && replica->has_slot && replica->pid == 0 &&
		watched->last.pid == 0 &&
		!XLogRecPtrIsInvalid(watched->last.restart_lsn) &&
		watched->last.restart_lsn != replica->restart_lsn;
}

/*
 * Did a consumer of a logical slot confirm something since the slot was last seen
 * unused?  Then it does its work, though it comes for a moment only.
 */
static bool
has_consumed(const PrkReplica *replica, PrkWatched *watched)
{
	XLogRecPtr	before = watched->consumed_lsn;

	if (!replica->logical)
		return false;
	watched->consumed_lsn = replica->confirmed_flush_lsn;
	return !XLogRecPtrIsInvalid(before) && before != watched->consumed_lsn;
}

/*
 * Notes where a replica is connected from.  A Unix socket reads as it does in
 * the server's own log.
 */
static void
note_address(const PrkReplica *replica, PrkKnown *known)
{
	if (!replica->has_client_addr ||
		replica->client_addr.addr.ss_family == AF_UNIX)
		strlcpy(known->last_addr, "[local]", sizeof(known->last_addr));
	else if (pg_getnameinfo_all(&replica->client_addr.addr,
								replica->client_addr.salen,
								known->last_addr, sizeof(known->last_addr),
								NULL, 0, NI_NUMERICHOST | NI_NUMERICSERV) != 0)
		strlcpy(known->last_addr, "???", sizeof(known->last_addr));
}
