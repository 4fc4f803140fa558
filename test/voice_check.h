/*-------------------------------------------------------------------------
 *
 * voice_check.h
 *	  Checks of one voice are counted, and what is wrong is told.
 *
 * IDENTIFICATION
 *	  test/voice_check.h
 *
 *-------------------------------------------------------------------------
 */
#ifndef VOICE_CHECK_H
#define VOICE_CHECK_H

extern void voice_made(int invariant);
extern void voice_fail(int invariant, const char *fmt,...) pg_attribute_printf(2, 3);

#endif							/* VOICE_CHECK_H */
