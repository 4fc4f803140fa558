/*-------------------------------------------------------------------------
 *
 * order.h
 *	  The replicas of a sample in the order of the board: by name.
 *
 * IDENTIFICATION
 *	  src/watch/order.h
 *
 *-------------------------------------------------------------------------
 */
#ifndef PRK_ORDER_H
#define PRK_ORDER_H

#include "kept.h"
#include "sample/types.h"

/* One replica in its place. */
typedef struct PrkPlace
{
	uint64		key;			/* of its name, behind what all names share */
	int			number;			/* in the sample */
	const PrkReplica *replica;
} PrkPlace;

/* What is kept from one sample to the next; all zero at first. */
typedef struct PrkOrder
{
	PrkKept		places;
	int			nplaces;
} PrkOrder;

extern const PrkPlace *prk_order_by_name(PrkOrder *order,
										 MemoryContext context,
										 const PrkSample *sample);

#endif							/* PRK_ORDER_H */
