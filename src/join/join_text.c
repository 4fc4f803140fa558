/*-------------------------------------------------------------------------
 *
 * join_text.c
 *	  The script for the replica's machine, as it stands in src/join/.
 *
 * The Makefile makes join_text.inc from the parts of the script.
 *
 * IDENTIFICATION
 *	  src/join/join_text.c
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "join/join_text.h"

const char *const prk_join_text[] = {
#include "join/join_text.inc"
	NULL
};
