/*-------------------------------------------------------------------------
 *
 * clock_shared.h
 *	  The LSN clock that the worker keeps and everybody reads.
 *
 * IDENTIFICATION
 *	  src/clock/clock_shared.h
 *
 *-------------------------------------------------------------------------
 */
#ifndef PRK_CLOCK_SHARED_H
#define PRK_CLOCK_SHARED_H

#include "datatype/timestamp.h"

#include "clock/clock.h"
#include "sample/receiver.h"

/* The worker ticks this often, whatever its check interval is. */
#define PRK_CLOCK_TICK		INT64CONST(1000000) /* microseconds */

/* The two windows over which rates are taken, in microseconds. */
#define PRK_WINDOW_SHORT	INT64CONST(60000000)
#define PRK_WINDOW_LONG		INT64CONST(900000000)

extern void prk_clock_shmem_request(void);
extern void prk_clock_shmem_startup(void);

extern int64 prk_clock_now(void);
extern int64 prk_clock_jump(TimestampTz wall1, int64 clock1,
							TimestampTz wall2, int64 clock2);
extern int64 prk_clock_alive_at(void);
extern int64 prk_clock_contact_age(void);
extern void prk_clock_receiver_past(PrkReceiverPast *past);
extern void prk_clock_ages(const XLogRecPtr *positions, PrkClockAge *ages,
						   int npositions, int64 now, XLogRecPtr current);
extern void prk_clock_rates(int64 now, XLogRecPtr current,
							double *rate_short, double *rate_long);

/* for the worker */
extern void prk_clock_drop_file(bool unwatched);
extern void prk_clock_show_life(void);
extern void prk_clock_note_reload(void);
extern void prk_clock_tick(void);
extern void prk_clock_save(bool watched, const void *attachment, Size size);
extern void *prk_clock_attachment(Size *size, int64 *shift);
extern void prk_clock_keep(const char *path, const void *data, Size size);
extern void *prk_clock_kept(const char *path, Size *size, int64 *shift);

#endif							/* PRK_CLOCK_SHARED_H */
