/*-------------------------------------------------------------------------
 *
 * backup_files.c
 *	  What a base backup of this server would send: how much, and which files
 *	  the server cannot read, with which it would fail.
 *
 * The rules are those of sendDir() in src/backend/backup/basebackup.c: what it
 * leaves out, that it follows symbolic links in pg_tblspc only, and sends a
 * tablespace inside the data directory as a tablespace.
 *
 * IDENTIFICATION
 *	  src/ask/backup_files.c
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include <dirent.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/relpath.h"
#include "miscadmin.h"
#include "portability/instr_time.h"
#include "storage/fd.h"
#include "utils/builtins.h"
#include "utils/fmgrprotos.h"

#include "ask/backup_files.h"
#include "compat.h"

#define TABLESPACES		"pg_tblspc"

#define DISK_PAGE		4096

/* A walk, with a list of the directories that are still to be read. */
typedef struct Walk
{
	PrkBackupFiles *files;
	List	   *tablespaces;
	List	   *todo;
	int64		until;
	int			max_names;
} Walk;

static void walk_directory(Walk *walk, const char *directory);
static void walk_entry(Walk *walk, const char *path);
static void note_unreadable(Walk *walk, const char *path);
static bool is_relation_directory(const char *directory);
static bool has_init_forks(const char *directory);
static bool is_left_out_relation(const char *directory, const char *name,
								 bool init_forks);
static bool is_tablespace(const Walk *walk, const char *path);

/* Microseconds, by the clock that prk_backup_files() looks at. */
int64
prk_backup_clock(void)
{
	instr_time	now;

	INSTR_TIME_SET_CURRENT(now);
	return (int64) INSTR_TIME_GET_MICROSEC(now);
}

/*
 * Is the contents of a directory, or a file, left out wherever it lies, or at
 * this path relative to the data directory?
 */
bool
prk_backup_leaves_out(const char *path, const char *name)
{
	static const char *const names[] = {
		"backup_label", "backup_manifest", "current_logfiles.tmp",
		"pg_dynshmem", "pg_notify", "pg_replslot", "pg_serial",
		"pg_snapshots", "pg_stat_tmp", "pg_subtrans",
		"postgresql.auto.conf.tmp", "postmaster.opts", "postmaster.pid",
		"tablespace_map", ".DS_Store"
	};
	static const char *const prefixes[] = {
		PG_TEMP_FILE_PREFIX, "pg_internal.init"
	};

	for (size_t i = 0; i < lengthof(names); i++)
	{
		if (strcmp(name, names[i]) == 0)
			return true;
	}
	for (size_t i = 0; i < lengthof(prefixes); i++)
	{
		if (strncmp(name, prefixes[i], strlen(prefixes[i])) == 0)
			return true;
	}
	return strcmp(path, "pg_wal") == 0;
}

/* The tablespaces outside the data directory, of PrkTablespace, palloc'd. */
List *
prk_backup_tablespaces(void)
{
	List	   *result = NIL;
	DIR		   *dir = AllocateDir(TABLESPACES);
	struct dirent *entry;

	if (dir == NULL)
		return NIL;
	while ((entry = ReadDirExtended(dir, TABLESPACES, DEBUG1)) != NULL)
	{
		char	   *link = psprintf(TABLESPACES "/%s", entry->d_name);
		PrkTablespace *tablespace;
		struct stat st;
		Datum		location;

		/* In-place tablespaces are directories. */
		if (entry->d_name[strspn(entry->d_name, "0123456789")] != '\0' ||
			lstat(link, &st) != 0 || !S_ISLNK(st.st_mode))
			continue;
		location = DirectFunctionCall1(pg_tablespace_location,
									   ObjectIdGetDatum(atooid(entry->d_name)));
		tablespace = palloc(sizeof(PrkTablespace));
		tablespace->link = link;
		tablespace->location = TextDatumGetCString(location);
		result = lappend(result, tablespace);
	}
	FreeDir(dir);
	return result;
}

/*
 * Adds what lies in a directory, relative to the data directory ("." is all of
 * that, but for the tablespaces), and below to *files.  Ends at
 * the time "until".  The directories are read one after the other, so only one is open.
 */
void
prk_backup_files(const char *root, List *tablespaces, int64 until,
				 int max_names, PrkBackupFiles *files)
{
	Walk		walk = {.files = files,.tablespaces = tablespaces,
	.until = until,.max_names = max_names};

	files->complete = true;
	walk.todo = list_make1(pstrdup(root));
	while (walk.todo != NIL && files->complete)
	{
		char	   *directory = llast(walk.todo);

		walk.todo = list_delete_last(walk.todo);
		walk_directory(&walk, directory);
		pfree(directory);
	}
}

static void
walk_directory(Walk *walk, const char *directory)
{
	DIR		   *dir = AllocateDir(directory);
	bool		top = strcmp(directory, ".") == 0;
	bool		relations = is_relation_directory(directory);
	bool		init_forks = relations && has_init_forks(directory);
	struct dirent *entry;

	if (dir == NULL)
	{
		if (errno != ENOENT)
			note_unreadable(walk, directory);
		return;
	}
	while ((entry = ReadDirExtended(dir, directory, DEBUG1)) != NULL)
	{
		char	   *path;

		CHECK_FOR_INTERRUPTS();
		if (prk_backup_clock() >= walk->until)
		{
			walk->files->complete = false;
			break;
		}
		if (strcmp(entry->d_name, ".") == 0 ||
			strcmp(entry->d_name, "..") == 0)
			continue;
		if (relations && is_left_out_relation(directory, entry->d_name,
											  init_forks))
			continue;
		path = top ? pstrdup(entry->d_name) :
			psprintf("%s/%s", directory, entry->d_name);
		if (prk_backup_leaves_out(path, entry->d_name))
			walk->files->bytes += DISK_PAGE;
		else
			walk_entry(walk, path);
		pfree(path);
	}
	FreeDir(dir);
}

/* Adds a file, or a directory to those that are to be read. */
static void
walk_entry(Walk *walk, const char *path)
{
	struct stat st;

	if (lstat(path, &st) != 0)
	{
		if (errno != ENOENT)
			note_unreadable(walk, path);
		return;
	}
	if (S_ISDIR(st.st_mode))
	{
		if (is_tablespace(walk, path))
			return;
		walk->files->bytes += DISK_PAGE;
		walk->todo = lappend(walk->todo, pstrdup(path));
	}
	else if (S_ISREG(st.st_mode))
	{
		walk->files->bytes += TYPEALIGN64(DISK_PAGE, (int64) st.st_size);
		if (access(path, R_OK) != 0 && errno != ENOENT)
			note_unreadable(walk, path);
	}
}

static void
note_unreadable(Walk *walk, const char *path)
{
	if (walk->files->unreadable++ < walk->max_names)
		walk->files->names = lappend(walk->files->names, pstrdup(path));
}

/* global, or that of a database */
static bool
is_relation_directory(const char *directory)
{
	const char *name = strrchr(directory, '/');
	const char *above;

	if (name == NULL)
		return strcmp(directory, "global") == 0;
	if (name[1 + strspn(name + 1, "0123456789")] != '\0')
		return false;
	for (above = name; above > directory && above[-1] != '/'; above--)
		;
	return strncmp(directory, "base/", strlen("base/")) == 0 ||
		strncmp(above, "PG_", strlen("PG_")) == 0;
}

/* Are there unlogged relations, of which only the init fork is sent? */
static bool
has_init_forks(const char *directory)
{
	DIR		   *dir = AllocateDir(directory);
	struct dirent *entry;
	bool		found = false;

	if (dir == NULL)
		return false;
	while (!found &&
		   (entry = ReadDirExtended(dir, directory, DEBUG1)) != NULL)
	{
		CHECK_FOR_INTERRUPTS();
		found = strstr(entry->d_name, "_init") != NULL;
	}
	FreeDir(dir);
	return found;
}

/* Is it of a temporary relation, or of an unlogged one? */
static bool
is_left_out_relation(const char *directory, const char *name, bool init_forks)
{
	int			digits = strspn(name, "0123456789");
	char	   *init;
	bool		unlogged;

	if (name[0] == 't' && name[1] >= '0' && name[1] <= '9')
		return true;
	if (!init_forks || digits == 0 || strstr(name, "_init") != NULL)
		return false;
	init = psprintf("%s/%.*s_init", directory, digits, name);
	unlogged = access(init, F_OK) == 0;
	pfree(init);
	return unlogged;
}

/* Is it the directory of a tablespace that lies in the data directory? */
static bool
is_tablespace(const Walk *walk, const char *path)
{
	size_t		length = strlen(DataDir);
	ListCell   *cell;

	foreach(cell, walk->tablespaces)
	{
		const char *location = ((PrkTablespace *) lfirst(cell))->location;

		if (strncmp(location, DataDir, length) == 0 &&
			location[length] == '/' &&
			strcmp(location + length + 1, path) == 0)
			return true;
	}
	return false;
}
