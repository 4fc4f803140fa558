/*-------------------------------------------------------------------------
 *
 * kept.c
 *	  Memory that is kept from one call to the next.
 *
 * IDENTIFICATION
 *	  src/kept.c
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "kept.h"
#include "utils/memutils.h"

/*
 * Room for this many bytes, which has what was in it before as far as that
 * goes; the rest is not set.  It belongs to the context, and moves when it
 * must grow, by a quarter more than is asked for.  Raises out of memory, and
 * then what was there is there still.
 */
void *
prk_kept_reserve(PrkKept *kept, MemoryContext context, Size size)
{
	Size		room;

	if (kept->data != NULL && kept->size >= size)
		return kept->data;
	room = add_size(size, size / 4);
	if (kept->data == NULL)
		kept->data = MemoryContextAllocExtended(context, room,
												MCXT_ALLOC_HUGE);
	else
		kept->data = repalloc_huge(kept->data, room);
	kept->size = room;
	return kept->data;
}
