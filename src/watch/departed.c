/*-------------------------------------------------------------------------
 *
 * departed.c
 *	  Which replica it was that came and left by itself.
 *
 * It need not leave: a WAL receiver that was told that its timeline ends before its
 * position keeps its connection, on which it asks for the same again and again.
 *
 * IDENTIFICATION
 *	  src/watch/departed.c
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "failures/commands.h"
#include "judge/verdict.h"
#include "watch/departed.h"

/* A replica that keeps coming has come within this time (microseconds). */
#define RECENT			(120 * USECS_PER_SEC)

static const PrkReplica *find_idle(const PrkSample *sample, const char *name);
static bool concerns(const PrkDeparture *departure, const PrkSample *sample,
					 uint64 hash);
static bool has_replica(const PrkSample *sample, uint64 hash);

/*
 * How often the replica of this name has left by itself, of those times that it was
 * let in after this number, in the order of events; and whether it is connected and
 * does nothing.  To be asked of one that does not use its slot.
 */
PrkDeparted
prk_departed(const PrkDepartures *departures, const PrkSample *sample,
			 const char *name, uint64 since)
{
	uint64		hash = prk_departures_hash(name);
	PrkDeparted result = {.idle = find_idle(sample, name)};

	for (int i = 0; i < departures->ndepartures; i++)
	{
		const PrkDeparture *departure = &departures->departures[i];

		if (departure->number <= since ||
			!concerns(departure, sample, hash))
			continue;

		/* Once may be somebody who tries whether the replica is let in. */
		if (departure->replica == 0 && departure->count == 1 &&
			!departure->asked)
			continue;
		if (departure->number > result.number)
		{
			result.number = departure->number;
			result.age = departure->age;
			result.streamed = departure->streamed;
		}

		/* One that has stayed, and ended its stream before it left, counts. */
		result.count += departure->count - (departure->first <= since ? 1 : 0);
	}
	return result;
}

/* Is there anything that it did? */
bool
prk_departed_any(const PrkDeparted *departed)
{
	return departed->idle != NULL || departed->count > 0;
}

/* Does it still come? */
bool
prk_departed_lately(const PrkDeparted *departed)
{
	return departed->idle != NULL ||
		(departed->count > 0 && departed->age < RECENT);
}

/* Does it come again and again? */
bool
prk_departed_again(const PrkDeparted *departed)
{
	return departed->count > 1 && prk_departed_lately(departed);
}

/*
 * A walsender that has done nothing for more than a moment, and was asked for its
 * slot, or for none, under its name.
 */
static const PrkReplica *
find_idle(const PrkSample *sample, const char *name)
{
	for (int i = 0; i < sample->nreplicas; i++)
	{
		const PrkReplica *replica = &sample->replicas[i];
		char		slot[NAMEDATALEN];
		bool		logical;

		if (!replica->has_slot && replica->has_walsender &&
			replica->state == PRK_STATE_STARTUP &&
			sample->taken_at - replica->backend_start >= PRK_STAYS &&
			strcmp(prk_command_slot(replica->command, slot, &logical) ?
				   slot : replica->name, name) == 0)
			return replica;
	}
	return NULL;
}

/*
 * Is it the replica's of this name?  It asked for its slot, or was seen streaming
 * as it; else what it calls itself counts, and last whose line let it in, which
 * several may share.
 */
static bool
concerns(const PrkDeparture *departure, const PrkSample *sample, uint64 hash)
{
	if (departure->replica != 0)
		return departure->replica == hash;
	if (departure->application == hash)
		return true;
	return departure->rule == hash &&
		!has_replica(sample, departure->application);
}

static bool
has_replica(const PrkSample *sample, uint64 hash)
{
	for (int i = 0; i < sample->nreplicas; i++)
	{
		if (prk_departures_hash(sample->replicas[i].name) == hash)
			return true;
	}
	return false;
}
