/*-------------------------------------------------------------------------
 *
 * unserved.c
 *	  Replicas that come, and that this server can't serve any more.
 *
 * A replica that was let in, asked for its WAL and was told that its slot, its
 * WAL or its timeline is not here comes again and again in vain.  There may be
 * no row for it: what the slot was dropped of has neither slot nor walsender.
 *
 * IDENTIFICATION
 *	  src/watch/unserved.c
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "datatype/timestamp.h"

#include "failures/failure_table.h"
#include "watch/unserved.h"

/* A receiver tries again each wal_retrieve_retry_interval, 5 s by default. */
#define RECENT			(120 * USECS_PER_SEC)

static const PrkUnserved *classify(const PrkFailure *failure);
static bool has_slot(const PrkSample *sample, const PrkFailure *failure);
static bool is_dismissed(const PrkSample *sample, const PrkFailure *failure);
static bool is_over(const PrkSample *sample, const PrkFailures *failures,
					const PrkBoard *board, int place);

/*
 * A list of PrkUnserved, palloc'd, one for each name and code, the newest
 * first.  board may be the worker's own entries only.
 */
List *
prk_unserved_list(const PrkSample *sample, const PrkFailures *failures,
				  const PrkBoard *board)
{
	List	   *result = NIL;

	for (int i = 0; i < failures->nfailures; i++)
	{
		const PrkFailure *failure = &failures->failures[i];
		const PrkUnserved *kind = classify(failure);
		PrkUnserved *unserved;

		if (kind == NULL || failure->age > RECENT ||
			(kind->code == PRK_CODE_SLOT_MISSING &&
			 (has_slot(sample, failure) || is_dismissed(sample, failure))) ||
			is_over(sample, failures, board, i))
			continue;
		unserved = palloc(sizeof(PrkUnserved));
		*unserved = *kind;
		unserved->failure = failure;
		if (kind->code != PRK_CODE_NEWER_TIMELINE_EXISTS)
			unserved->name = !prk_foreign_is_empty(&failure->slot_name) ?
				prk_foreign_show(&failure->slot_name) :
				failure->replica[0] != '\0' ? failure->replica :
				prk_foreign_show(&failure->application_name);
		result = lappend(result, unserved);
	}
	return result;
}

/*
 * For the worker: keeps in mind which failures are over.  The slot or the
 * walsender that tells may be gone when one is asked about next.
 */
void
prk_unserved_settle(const PrkSample *sample, PrkFailures *failures,
					const PrkBoard *board)
{
	for (int i = 0; i < failures->nfailures; i++)
	{
		PrkFailure *failure = &failures->failures[i];

		if (!failure->outgoing && !failure->over &&
			is_over(sample, failures, board, i))
		{
			prk_failures_end(failure);
			failure->over = true;
		}
	}
}

/* Is it a failure that no other attempt would mend, as long as it is not over? */
bool
prk_unserved_is_kind(const PrkFailure *failure)
{
	return classify(failure) != NULL;
}

/* What the failure is the evidence of; NULL: none. */
const PrkUnserved *
prk_unserved_of(List *unserved, const PrkFailure *failure)
{
	ListCell   *cell;

	foreach(cell, unserved)
	{
		const PrkUnserved *one = lfirst(cell);

		if (one->failure == failure)
			return one;
	}
	return NULL;
}

/* That of the replica of this name, the newest; NULL: none. */
const PrkUnserved *
prk_unserved_find(List *unserved, const char *name)
{
	ListCell   *cell;

	foreach(cell, unserved)
	{
		const PrkUnserved *one = lfirst(cell);

		if (one->name != NULL &&
			(strcmp(one->name, name) == 0 ||
			 prk_failure_concerns(one->failure, name)))
			return one;
	}
	return NULL;
}

/* What it means, of a peer that was let in; NULL: something else. */
static const PrkUnserved *
classify(const PrkFailure *failure)
{
	static const struct
	{
		PrkFailureKind kind;
		PrkUnserved unserved;
	}			kinds[] = {
		{PRK_FAILURE_SLOT_MISSING,
		{NULL, PRK_CODE_SLOT_MISSING, NULL, "asks for a slot that does not exist"}},
		{PRK_FAILURE_SLOT_LOST,
		{NULL, PRK_CODE_SLOT_LOST, NULL, "slot is lost, the replica must be rebuilt"}},
		{PRK_FAILURE_WAL_REMOVED,
		{NULL, PRK_CODE_WAL_REMOVED, NULL, "needs WAL that is removed, the replica must be rebuilt"}},
		{PRK_FAILURE_OTHER_TIMELINE,
		{NULL, PRK_CODE_OTHER_TIMELINE, NULL, "has WAL that this server's history does not contain"}},
		{PRK_FAILURE_NEWER_TIMELINE,
		{NULL, PRK_CODE_NEWER_TIMELINE_EXISTS, NULL, "a replica asks for a newer timeline than this server has"}}
	};

	if (failure->outgoing || failure->trust != PRK_TRUST_PEER)
		return NULL;
	for (int i = 0; i < (int) lengthof(kinds); i++)
	{
		if (kinds[i].kind == failure->kind)
			return &kinds[i].unserved;
	}
	return NULL;
}

static bool
has_slot(const PrkSample *sample, const PrkFailure *failure)
{
	for (int i = 0; i < sample->nreplicas; i++)
	{
		if (sample->replicas[i].has_slot &&
			prk_foreign_is(&failure->slot_name, sample->replicas[i].name))
			return true;
	}
	return false;
}

/*
 * Was its slot dropped on purpose, by deprovision()?  With force that ends a
 * connection, and the replica comes once more.
 */
static bool
is_dismissed(const PrkSample *sample, const PrkFailure *failure)
{
	return prk_board_forgotten(prk_foreign_show(&failure->slot_name),
							   sample->taken_at - RECENT);
}

/*
 * Has the replica, or whoever it was, streamed since, or failed at something
 * else?  As evidence.c has it, by the order of events.
 */
static bool
is_over(const PrkSample *sample, const PrkFailures *failures,
		const PrkBoard *board, int place)
{
	const PrkFailure *failure = &failures->failures[place];

	if (failure->over)
		return true;
	for (int i = 0; i < sample->nreplicas; i++)
	{
		const PrkReplica *replica = &sample->replicas[i];
		const PrkBoardEntry *entry = prk_board_find(board, replica);
		bool		concerned = prk_failure_concerns(failure, replica->name);

		if (concerned && entry != NULL &&
			(failure->number < entry->known.session ||
			 (replica->pid == 0 &&
			  failure->number < entry->known.seen_number)))
			return true;
		if (replica->has_walsender && replica->state == PRK_STATE_STREAMING)
		{
			PrkSession	session = prk_failures_session(replica->pid);

			if ((concerned || session.peer == failure->peer) &&
				session.number > failure->number)
				return true;
		}
	}

	/* Those before it in the list are newer. */
	for (int i = 0; i < place; i++)
	{
		const PrkFailure *newer = &failures->failures[i];

		if (!newer->outgoing && newer->trust != PRK_TRUST_STRANGER &&
			newer->peer == failure->peer)
			return true;
	}
	return false;
}
