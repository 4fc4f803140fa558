/*-------------------------------------------------------------------------
 *
 * kept.h
 *	  Memory that is kept from one call to the next.
 *
 * IDENTIFICATION
 *	  src/kept.h
 *
 *-------------------------------------------------------------------------
 */
#ifndef PRK_KEPT_H
#define PRK_KEPT_H

/*
 * All zero at first.  What is large and wanted again and again is better kept:
 * given back, it goes to the system, and each of its pages costs a page fault
 * at the next call.
 */
typedef struct PrkKept
{
	void	   *data;
	Size		size;			/* bytes that it has room for */
} PrkKept;

extern void *prk_kept_reserve(PrkKept *kept, MemoryContext context,
							  Size size);

#endif							/* PRK_KEPT_H */
