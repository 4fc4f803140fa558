/*-------------------------------------------------------------------------
 *
 * commands.h
 *	  The replication commands that clients of libpq write.
 *
 * IDENTIFICATION
 *	  src/failures/commands.h
 *
 *-------------------------------------------------------------------------
 */
#ifndef PRK_COMMANDS_H
#define PRK_COMMANDS_H

/*
 * So a WAL receiver asks where it is (libpqrcv_identify_system()).  The script for
 * the replica's machine asks that, and all else, with a semicolon.
 */
#define PRK_RECEIVERS_QUESTION	"IDENTIFY_SYSTEM"

/*
 * Under this name the replica's script asks whether its slot is in use, and
 * whether there still is the WAL that it needs.
 */
#define PRK_SCRIPT_NAME			"pg_replica_kit-script"

/* These allocate nothing and raise nothing. */
extern bool prk_command_is(const char *command, const char *beginning);
extern bool prk_command_is_typed(const char *command);
extern bool prk_command_slot(const char *command, char *name, bool *logical);

#endif							/* PRK_COMMANDS_H */
