/*-------------------------------------------------------------------------
 *
 * versions.c
 *	  Libraries that the server loads, and versions of collation libraries.
 *
 * Text is sorted by glibc, ICU, or the server itself.  Another version may
 * sort otherwise, and then indexes that were built here give wrong answers
 * there.  The versions are those of the libraries that this process has
 * loaded; which databases need them is in pg_database, a shared catalog, which
 * a process without a database may read as the launcher of autovacuum does.
 *
 * IDENTIFICATION
 *	  src/ask/versions.c
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include <link.h>
#include <stdlib.h>
#ifdef __GLIBC__
#include <gnu/libc-version.h>
#endif

#include "access/heapam.h"
#include "access/htup_details.h"
#include "access/table.h"
#include "access/tableam.h"
#include "catalog/pg_collation.h"
#include "catalog/pg_database.h"
#include "miscadmin.h"
#include "nodes/pg_list.h"
#include "utils/builtins.h"
#include "utils/guc.h"
#include "utils/rel.h"
#include "utils/varlena.h"

#include "ask/clone_settings.h"
#include "ask/versions.h"
#include "compat.h"

#define ICU_LIBRARY		"libicui18n.so."

/* More locales than these are not told. */
#define MAX_LOCALES		20

static void add_libraries(List **libraries, const char *setting);
static void add_once(List **list, char *text);
static const char *libc_version(void);
static const char *icu_version(void);
static int	find_icu(struct dl_phdr_info *info, size_t size, void *result);
static List *used_locales(void);
static void add_locale(List **locales, HeapTuple tuple, TupleDesc descriptor);

/*
 * The libraries that this server preloads, or would after a start with the
 * files that a clone gets, each a column.
 */
void
prk_versions_libraries(PrkAnswer *answer)
{
	static const char *const settings[] = {
		"shared_preload_libraries", "session_preload_libraries",
		"local_preload_libraries"
	};
	List	   *libraries = NIL;
	ListCell   *cell;

	for (size_t i = 0; i < lengthof(settings); i++)
	{
		add_libraries(&libraries, GetConfigOption(settings[i], false, false));
		add_libraries(&libraries, prk_clone_setting(settings[i]));
	}
	foreach(cell, libraries)
		prk_answer_text(answer, lfirst(cell));
}

/* Adds those of such a setting; NULL or no list: none. */
static void
add_libraries(List **libraries, const char *setting)
{
	List	   *names;
	ListCell   *cell;

	if (setting == NULL ||
		!SplitDirectoriesString(pstrdup(setting), ',', &names))
		return;
	foreach(cell, names)
		add_once(libraries, lfirst(cell));
}

/* Adds a text to a list that does not have it. */
static void
add_once(List **list, char *text)
{
	ListCell   *cell;

	foreach(cell, *list)
	{
		if (strcmp(lfirst(cell), text) == 0)
			return;
	}
	*list = lappend(*list, text);
}

/*
 * The versions of glibc and ICU, empty if they are not here, then the locales
 * that databases use, each a column: "libc NAME" or "icu NAME".  Needs a
 * transaction.
 */
void
prk_versions_collations(PrkAnswer *answer)
{
	ListCell   *cell;

	prk_answer_text(answer, libc_version());
	prk_answer_text(answer, icu_version());
	foreach(cell, used_locales())
		prk_answer_text(answer, lfirst(cell));
}

static const char *
libc_version(void)
{
#ifdef __GLIBC__
	return gnu_get_libc_version();
#else
	return "";
#endif
}

/*
 * ICU's version is in the name of its library, behind the symbolic links; this
 * module is not linked with ICU, the server may be.
 */
static const char *
icu_version(void)
{
	char	   *path = NULL;
	char	   *resolved;
	const char *name;
	const char *version = "";

	dl_iterate_phdr(find_icu, &path);
	if (path == NULL)
		return "";
	resolved = realpath(path, NULL);
	name = strstr(resolved ? resolved : path, ICU_LIBRARY);
	if (name != NULL)
		version = pstrdup(name + strlen(ICU_LIBRARY));
	free(resolved);
	return version;
}

/* for dl_iterate_phdr: *result is the library's path */
static int
find_icu(struct dl_phdr_info *info, size_t size, void *result)
{
	if (info->dlpi_name == NULL ||
		strstr(info->dlpi_name, ICU_LIBRARY) == NULL)
		return 0;
	*(char **) result = pstrdup(info->dlpi_name);
	return 1;
}

/* The locales of the databases, each once, as char *. */
static List *
used_locales(void)
{
	Relation	rel = table_open(DatabaseRelationId, AccessShareLock);
	TableScanDesc scan = table_beginscan_catalog(rel, 0, NULL);
	List	   *locales = NIL;
	HeapTuple	tuple;

	while (list_length(locales) < MAX_LOCALES &&
		   HeapTupleIsValid(tuple = heap_getnext(scan, ForwardScanDirection)))
	{
		CHECK_FOR_INTERRUPTS();
		add_locale(&locales, tuple, RelationGetDescr(rel));
	}
	table_endscan(scan);
	table_close(rel, AccessShareLock);
	return locales;
}

/* Adds a database's, if it is none of those that are the same everywhere. */
static void
add_locale(List **locales, HeapTuple tuple, TupleDesc descriptor)
{
	Form_pg_database database = (Form_pg_database) GETSTRUCT(tuple);
	bool		icu = database->datlocprovider == COLLPROVIDER_ICU;
	int			column = (icu ? PRK_COMPAT_DATABASE_LOCALE :
						  Anum_pg_database_datcollate) - 1;
	Datum		values[Natts_pg_database];
	bool		nulls[Natts_pg_database];
	char	   *locale;

	if (!icu && database->datlocprovider != COLLPROVIDER_LIBC)
		return;

	/*
	 * Not heap_getattr(): in the headers of newer minor releases it calls a
	 * function that the older ones do not have.
	 */
	heap_deform_tuple(tuple, descriptor, values, nulls);
	if (nulls[column])
		return;
	locale = TextDatumGetCString(values[column]);
	if (!icu && (strcmp(locale, "C") == 0 || strcmp(locale, "POSIX") == 0 ||
				 strcmp(locale, "C.UTF-8") == 0 || strcmp(locale, "C.utf8") == 0))
		return;
	add_once(locales, psprintf("%s %s", icu ? "icu" : "libc", locale));
}
