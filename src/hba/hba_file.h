/*-------------------------------------------------------------------------
 *
 * hba_file.h
 *	  Replace pg_hba.conf as a whole, so that it can be put back.  The only
 *	  file of this extension that writes to disk beside the server's own.
 *
 * The order is read, prepare, exchange, then finish or undo.  The caller
 * holds the kit's cluster-wide lock from read on.
 *
 * IDENTIFICATION
 *	  src/hba/hba_file.h
 *
 *-------------------------------------------------------------------------
 */
#ifndef PRK_HBA_FILE_H
#define PRK_HBA_FILE_H

/* The names of our files beside it, which no call outlives. */
#define PRK_HBA_FILE_NEW	".pg_replica_kit"
#define PRK_HBA_FILE_OLD	".pg_replica_kit.old"

typedef struct PrkHbaFile PrkHbaFile;

extern PrkHbaFile *prk_hba_file_read(MemoryContext context);
extern void prk_hba_file_set_rule(PrkHbaFile *file, const char *rule);
extern const char *prk_hba_file_text(const PrkHbaFile *file);
extern const char *prk_hba_file_path(const PrkHbaFile *file);
extern void prk_hba_file_prepare(PrkHbaFile *file, const char *contents);
extern const char *prk_hba_file_candidate(const PrkHbaFile *file);
extern void prk_hba_file_refuse(const PrkHbaFile *file, const char *action,
								const char *path);
extern bool prk_hba_file_exchange(PrkHbaFile *file);
extern bool prk_hba_file_in_place(const PrkHbaFile *file);
extern bool prk_hba_file_old_awaits(const PrkHbaFile *file);
extern bool prk_hba_file_old_untouched(const PrkHbaFile *file);

/* These two never raise an error: they are called where one is a PANIC. */
extern bool prk_hba_file_undo(PrkHbaFile *file);
extern bool prk_hba_file_finish(PrkHbaFile *file);
extern const char *prk_hba_file_saved(const PrkHbaFile *file);

#endif							/* PRK_HBA_FILE_H */
