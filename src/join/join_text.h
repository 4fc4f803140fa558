/*-------------------------------------------------------------------------
 *
 * join_text.h
 *	  The script for the replica's machine, as it stands in src/join/.
 *
 * IDENTIFICATION
 *	  src/join/join_text.h
 *
 *-------------------------------------------------------------------------
 */
#ifndef PRK_JOIN_TEXT_H
#define PRK_JOIN_TEXT_H

/*
 * The script's lines, each with its newline, after the last one NULL.  Static
 * memory.
 */
extern const char *const prk_join_text[];

#endif							/* PRK_JOIN_TEXT_H */
