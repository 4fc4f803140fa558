/*-------------------------------------------------------------------------
 *
 * preflight_funcs.c
 *	  What preflight() wants to know and SQL can't tell.
 *
 * The checks themselves are a query in the extension's script, over settings
 * and views; here are the facts that need a look at the file system or the
 * server's own parser.
 *
 * IDENTIFICATION
 *	  src/diagnose/preflight_funcs.c
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include <sys/stat.h>
#include <sys/statvfs.h>

#include "access/xact.h"
#include "access/xlog_internal.h"
#include "miscadmin.h"
#include "utils/guc.h"
#include "utils/memutils.h"
#include "utils/resowner.h"
#include "utils/varlena.h"

#include "hba/hba.h"
#include "hba/hba_file.h"
#include "hba/hba_rules.h"
#include "sql.h"

/* Columns of preflight_facts() */
typedef enum FactsColumn
{
	FACTS_WAL_FREE,
	FACTS_HBA_OWNER,
	FACTS_HBA_ERROR,
	FACTS_MISSING_LIBRARIES,
	FACTS_NCOLS
} FactsColumn;

static const PrkSignature facts_signature = {
	.args = {TEXTOID},
	.ncolumns = FACTS_NCOLS,
	.columns = {
		[FACTS_WAL_FREE] = INT8OID,
		[FACTS_HBA_OWNER] = TEXTOID,
		[FACTS_HBA_ERROR] = TEXTOID,
		[FACTS_MISSING_LIBRARIES] = TEXTOID
	}
};

static const PrkSignature accepts_signature = {
	.args = {TEXTOID, TEXTOID},
	.result = BOOLOID
};

PG_FUNCTION_INFO_V1(pg_replica_kit_preflight_facts_1_0);
PG_FUNCTION_INFO_V1(pg_replica_kit_preflight_accepts_1_0);

static bool free_beside_wal(int64 *bytes);
static char *hba_error(const char **owner);
static char *missing_libraries(const char *list);
static bool library_exists(const char *name);
static bool file_exists(const char *directory, const char *name);

/*
 * preflight_facts(libraries text): the list of libraries is the value that
 * shared_preload_libraries will have after the next restart.
 */
Datum
pg_replica_kit_preflight_facts_1_0(PG_FUNCTION_ARGS)
{
	char	   *libraries;
	int64		bytes;
	const char *owner = NULL;
	char	   *error;
	PrkRow		row;

	prk_row_begin(fcinfo, &facts_signature, &row);
	libraries = PG_ARGISNULL(0) ? NULL : prk_arg_text(fcinfo, 0, "libraries");

	if (free_beside_wal(&bytes))
		prk_put_int64(&row, FACTS_WAL_FREE, bytes);
	error = hba_error(&owner);
	prk_put_text(&row, FACTS_HBA_OWNER, owner);
	prk_put_text(&row, FACTS_HBA_ERROR, error);
	prk_put_text(&row, FACTS_MISSING_LIBRARIES,
				 libraries ? missing_libraries(libraries) : NULL);

	return prk_row_end(&row);
}

/*
 * preflight_accepts(name text, setting text)
 *
 * pg_file_settings says of a parameter that only a start can change the same
 * for any value but the present one.  So have the value checked as a start
 * would, without setting it.
 */
Datum
pg_replica_kit_preflight_accepts_1_0(PG_FUNCTION_ARGS)
{
	const char *name;
	const char *setting;

	prk_sql_check(fcinfo, &accepts_signature);
	name = prk_arg_text(fcinfo, 0, "name");
	setting = prk_arg_text(fcinfo, 1, "setting");

	PG_RETURN_BOOL(set_config_option(name, setting,
									 PGC_POSTMASTER, PGC_S_FILE,
									 GUC_ACTION_SET, false, DEBUG3,
									 false) != 0);
}

/*
 * Space that the server can still use where pg_wal is.
 */
static bool
free_beside_wal(int64 *bytes)
{
	struct statvfs fs;

	if (statvfs(XLOGDIR, &fs) != 0)
		return false;
	*bytes = (int64) fs.f_bavail * (int64) fs.f_frsize;
	return true;
}

/*
 * With what error would the server not load pg_hba.conf?  NULL: with none;
 * then *owner is the program that says it manages the file, if any.
 *
 * The functions that know raise it, so they run in a subtransaction.
 */
static char *
hba_error(const char **owner)
{
	MemoryContext context = CurrentMemoryContext;
	ResourceOwner resowner = CurrentResourceOwner;
	char	   *volatile result = NULL;

	BeginInternalSubTransaction(NULL);
	MemoryContextSwitchTo(context);

	PG_TRY();
	{
		PrkHbaFile *file = prk_hba_file_read(context);

		(void) prk_hba_rules_load(prk_hba_file_path(file));
		*owner = prk_hba_owner(prk_hba_file_text(file));

		ReleaseCurrentSubTransaction();
	}
	PG_CATCH();
	{
		ErrorData  *error;

		MemoryContextSwitchTo(context);
		error = CopyErrorData();
		FlushErrorState();
		RollbackAndReleaseCurrentSubTransaction();
		result = error->detail ? error->detail : error->message;
	}
	PG_END_TRY();

	MemoryContextSwitchTo(context);
	CurrentResourceOwner = resowner;

	return result;
}

/*
 * Those of a list of libraries, as in shared_preload_libraries, that are not
 * where the server would look for them; NULL: none.
 */
static char *
missing_libraries(const char *list)
{
	StringInfoData missing;
	List	   *names = NIL;
	ListCell   *lc;

	initStringInfo(&missing);
	if (!SplitDirectoriesString(pstrdup(list), ',', &names))
		return pstrdup(list);
	foreach(lc, names)
	{
		if (!library_exists(lfirst(lc)))
			appendStringInfo(&missing, "%s%s", missing.len > 0 ? ", " : "",
							 (char *) lfirst(lc));
	}
	return missing.len > 0 ? missing.data : NULL;
}

/*
 * Is there a file for the library?  As expand_dynamic_library_name(): a name
 * without a slash is looked for along dynamic_library_path, each with and
 * without the platform's ending.
 */
static bool
library_exists(const char *name)
{
	List	   *directories = NIL;
	ListCell   *lc;

	if (strncmp(name, "$libdir/", strlen("$libdir/")) == 0)
		return file_exists(pkglib_path, name + strlen("$libdir/"));
	if (first_dir_separator(name) != NULL)
		return file_exists("", name);

	if (!SplitGUCList(pstrdup(Dynamic_library_path), ':', &directories))
		return true;			/* not ours to judge */
	foreach(lc, directories)
	{
		const char *directory = lfirst(lc);
		const char *rest = directory + strlen("$libdir");

		if (strncmp(directory, "$libdir", strlen("$libdir")) == 0)
			directory = psprintf("%s%s", pkglib_path, rest);
		if (file_exists(directory, name))
			return true;
	}
	return false;
}

static bool
file_exists(const char *directory, const char *name)
{
	const char *separator = directory[0] ? "/" : "";
	struct stat st;

	return stat(psprintf("%s%s%s", directory, separator, name), &st) == 0 ||
		stat(psprintf("%s%s%s" DLSUFFIX, directory, separator, name), &st) == 0;
}
