/*-------------------------------------------------------------------------
 *
 * order.c
 *	  The replicas of a sample in the order of the board: by name.
 *
 * IDENTIFICATION
 *	  src/watch/order.c
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "watch/board.h"
#include "watch/order.h"

static size_t shared_length(const PrkSample *sample);
static uint64 name_key(const char *name, size_t shared);
static int	compare_places(const void *a, const void *b);

/*
 * The places of all replicas, by name, a slot before walsenders of the same
 * name.  They belong to order, in the context, until the next call with that.
 *
 * Names are often alike at their beginning, so what all share is not compared.
 * They are tried first in the order that was right the last time, since
 * nearly always it still is, which qsort() notices.
 */
const PrkPlace *
prk_order_by_name(PrkOrder *order, MemoryContext context,
				  const PrkSample *sample)
{
	int			nreplicas = sample->nreplicas;
	size_t		shared = shared_length(sample);
	PrkPlace   *places = prk_kept_reserve(&order->places, context,
										  nreplicas * sizeof(PrkPlace));

	for (int i = 0; i < nreplicas; i++)
	{
		if (order->nplaces != nreplicas)
			places[i].number = i;
		places[i].replica = &sample->replicas[places[i].number];
		places[i].key = name_key(places[i].replica->name, shared);
	}
	order->nplaces = nreplicas;
	qsort(places, nreplicas, sizeof(PrkPlace), compare_places);
	return places;
}

/* How many bytes all names begin with. */
static size_t
shared_length(const PrkSample *sample)
{
	size_t		result = NAMEDATALEN;

	for (int i = 1; i < sample->nreplicas && result > 0; i++)
	{
		const char *first = sample->replicas[0].name;
		const char *name = sample->replicas[i].name;
		size_t		len = 0;

		while (len < result && name[len] == first[len] && name[len] != '\0')
			len++;
		result = len;
	}
	return result;
}

/* The next bytes of a name, as a number of the same order. */
static uint64
name_key(const char *name, size_t shared)
{
	uint64		key = 0;
	int			shift = 8 * sizeof(uint64);

	for (size_t i = shared; i < NAMEDATALEN && name[i] != '\0' && shift > 0; i++)
	{
		shift -= 8;
		key |= (uint64) (unsigned char) name[i] << shift;
	}
	return key;
}

/* qsort comparator: the board's order */
static int
compare_places(const void *a, const void *b)
{
	const PrkPlace *place1 = a;
	const PrkPlace *place2 = b;

	if (place1->key != place2->key)
		return place1->key < place2->key ? -1 : 1;
	return prk_board_compare(place1->replica->name,
							 prk_board_pid(place1->replica),
							 place2->replica->name,
							 prk_board_pid(place2->replica));
}
