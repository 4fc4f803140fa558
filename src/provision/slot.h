/*-------------------------------------------------------------------------
 *
 * slot.h
 *	  A replica's physical replication slot, made and dropped so that a
 *	  transaction can carry it.
 *
 * IDENTIFICATION
 *	  src/provision/slot.h
 *
 *-------------------------------------------------------------------------
 */
#ifndef PRK_SLOT_H
#define PRK_SLOT_H

/* What there is to know of a slot before anything is done with it. */
typedef struct PrkSlotInfo
{
	bool		exists;
	bool		logical;
	bool		temporary;
	bool		invalidated;
	int			active_pid;		/* 0: free */
} PrkSlotInfo;

/*
 * Told the name of a slot that is dropped on purpose, before it goes, so that
 * the worker does not take it for a loss.  Must not raise.
 */
typedef void (*PrkSlotDropCallback) (const char *name);
extern PrkSlotDropCallback prk_slot_before_drop;

extern void prk_slot_look_up(const char *name, PrkSlotInfo *info);
extern int	prk_slot_count_free(void);
extern char *prk_slot_legal_name(const char *name);

/* before the commit record: errors end the transaction */
extern void prk_slot_create_staged(const char *name);
extern void prk_slot_hold(const char *name, bool force,
						  const char *force_options);

/* after it, under the caller's guard */
extern void prk_slot_persist(const char *name);
extern void prk_slot_drop_held(const char *name);

/* while aborting */
extern void prk_slot_discard(const char *name);
extern void prk_slot_let_go(const char *name);

#endif							/* PRK_SLOT_H */
