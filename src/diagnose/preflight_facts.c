/*-------------------------------------------------------------------------
 *
 * preflight_facts.c
 *	  What the checks of preflight() go by, gathered once.
 *
 * Needs a transaction.  All results are palloc'd in the caller's context.
 *
 * IDENTIFICATION
 *	  src/diagnose/preflight_facts.c
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include <dirent.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include "access/genam.h"
#include "access/htup_details.h"
#include "access/table.h"
#include "access/xact.h"
#include "access/xlog_internal.h"
#include "catalog/pg_tablespace.h"
#include "common/string.h"
#include "miscadmin.h"
#include "replication/syncrep.h"
#include "storage/fd.h"
#include "utils/builtins.h"
#include "utils/fmgrprotos.h"
#include "utils/memutils.h"
#include "utils/rel.h"
#include "utils/resowner.h"

#include "ask/backup_files.h"
#include "compat.h"
#include "diagnose/preflight_facts.h"
#include "foreign.h"
#include "format.h"
#include "hba/hba.h"
#include "hba/hba_file.h"
#include "hba/hba_rules.h"
#include "sample/sample.h"

/* No more entries of the data directory than these are looked at. */
#define MAX_ENTRIES		20000

/* So many unreadable files are named; one is enough for a clone to fail. */
#define MAX_NAMED		3

/* The search for unreadable files. */
typedef struct FileSearch
{
	int			entries;
	int			found;
	StringInfoData names;
} FileSearch;

static void count_users(PrkPreflightFacts *facts);
static bool free_beside_wal(int64 *bytes);
static char *hba_error(const char **owner);
static const char *find_unreadable(void);
static void search_directory(FileSearch *search, const char *directory);
static bool is_left_out(const char *path, const char *name);
static const char *list_tablespaces(void);
static int	compare_strings(const ListCell *a, const ListCell *b);
static const char *restart_command(const char *hba_owner);
static char *debian_cluster(void);
static char *systemd_unit(void);
static bool is_safe_word(const char *word);
static char *shell_quoted(const char *word);

/*
 * Gathers the facts, palloc'd.  Needs a transaction, and the rights to read the
 * files; takes only short shared locks.
 */
PrkPreflightFacts *
prk_preflight_gather(void)
{
	PrkPreflightFacts *facts = palloc0(sizeof(PrkPreflightFacts));

	count_users(facts);
	facts->config = prk_config_read();
	facts->refusals = prk_config_refusals(facts->config, facts->slots_kept);
	facts->has_wal_free = free_beside_wal(&facts->wal_free);
	facts->hba_error = hba_error(&facts->hba_owner);
	facts->unreadable = find_unreadable();
	facts->tablespaces = list_tablespaces();
	facts->restart_command = restart_command(facts->hba_owner);
	return facts;
}

/* Who uses walsenders and slots, and what they hold. */
static void
count_users(PrkPreflightFacts *facts)
{
	PrkSample  *sample = prk_sample_take(NULL);
	List	   *slotless = NIL;
	SyncRepStandbyData *standbys;
	StringInfoData names;
	ListCell   *cell;

	facts->in_recovery = sample->in_recovery;
	for (int i = 0; i < sample->nreplicas; i++)
	{
		PrkReplica *replica = &sample->replicas[i];

		facts->senders_used += replica->has_walsender;
		facts->slots_used += replica->has_slot;
		facts->slots_kept += replica->has_slot && !replica->temporary;
		if (replica->has_slot)
			facts->retained = Max(facts->retained, replica->retained_bytes);
		else if (replica->has_walsender &&
				 (replica->state == PRK_STATE_STREAMING ||
				  replica->state == PRK_STATE_CATCHUP))
			slotless = lappend(slotless,
							   prk_foreign_show_text(replica->application_name));
	}

	list_sort(slotless, compare_strings);
	initStringInfo(&names);
	foreach(cell, slotless)
		appendStringInfo(&names, "%s%s", names.len > 0 ? ", " : "",
						 (char *) lfirst(cell));
	facts->slotless = names.len > 0 ? names.data : NULL;

	/* On a standby no commit waits. */
	if (SyncRepConfig != NULL && !sample->in_recovery)
	{
		facts->sync_wanted = SyncRepConfig->num_sync;
		facts->sync_there = Min(SyncRepGetCandidateStandbys(&standbys),
								facts->sync_wanted);
	}
}

/* Space that the server can still use where pg_wal is. */
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
 * Files in the data directory that the server's user cannot read, with which
 * a base backup fails; NULL: none.  They are looked for where people and
 * programs leave files, not among the files of relations, which are many and
 * which the server itself has made.
 */
static const char *
find_unreadable(void)
{
	FileSearch	search = {0};

	initStringInfo(&search.names);
	search_directory(&search, ".");
	if (search.found > MAX_NAMED)
		appendStringInfo(&search.names, ", and %d more",
						 search.found - MAX_NAMED);
	return search.found > 0 ? search.names.data : NULL;
}

/* Looks at a directory, relative to the data directory, and below. */
static void
search_directory(FileSearch *search, const char *directory)
{
	DIR		   *dir = AllocateDir(directory);
	struct dirent *entry;

	if (dir == NULL)
		return;
	while ((entry = ReadDirExtended(dir, directory, DEBUG1)) != NULL &&
		   search->entries < MAX_ENTRIES)
	{
		char	   *path = strcmp(directory, ".") == 0 ?
		pstrdup(entry->d_name) :
		psprintf("%s/%s", directory, entry->d_name);
		struct stat st;
		int			mode;

		CHECK_FOR_INTERRUPTS();
		if (strcmp(entry->d_name, ".") == 0 ||
			strcmp(entry->d_name, "..") == 0 ||
			is_left_out(path, entry->d_name))
			continue;
		search->entries++;
		if (lstat(path, &st) != 0 ||
			(!S_ISDIR(st.st_mode) && !S_ISREG(st.st_mode)))
			continue;
		mode = S_ISDIR(st.st_mode) ? R_OK | X_OK : R_OK;
		if (access(path, mode) != 0 && errno == EACCES)
		{
			if (search->found++ < MAX_NAMED)
				appendStringInfo(&search->names, "%s\"%s\"",
								 search->names.len > 0 ? ", " : "",
								 prk_foreign_show_text(path));
		}
		else if (S_ISDIR(st.st_mode))
			search_directory(search, path);
	}
	FreeDir(dir);
}

/* The files of relations, and what a base backup leaves out. */
static bool
is_left_out(const char *path, const char *name)
{
	static const char *const relations[] = {
		"base", "global", "pg_commit_ts", "pg_multixact", "pg_tblspc",
		"pg_xact"
	};

	for (size_t i = 0; i < lengthof(relations); i++)
	{
		if (strcmp(path, relations[i]) == 0)
			return true;
	}
	return prk_backup_leaves_out(path, name);
}

/* The directories of tablespaces, NULL for none. */
static const char *
list_tablespaces(void)
{
	Relation	rel = table_open(TableSpaceRelationId, AccessShareLock);
	SysScanDesc scan = systable_beginscan(rel, InvalidOid, false, NULL, 0,
										  NULL);
	List	   *locations = NIL;
	ListCell   *cell;
	HeapTuple	tuple;
	StringInfoData result;

	while (HeapTupleIsValid(tuple = systable_getnext(scan)))
	{
		Oid			oid = ((Form_pg_tablespace) GETSTRUCT(tuple))->oid;
		Datum		location = DirectFunctionCall1(pg_tablespace_location,
												   ObjectIdGetDatum(oid));

		locations = lappend(locations, TextDatumGetCString(location));
	}
	systable_endscan(scan);
	table_close(rel, AccessShareLock);

	list_sort(locations, compare_strings);
	initStringInfo(&result);
	foreach(cell, locations)
	{
		if (((char *) lfirst(cell))[0] != '\0')
			appendStringInfo(&result, "%s%s", result.len > 0 ? ", " : "",
							 (char *) lfirst(cell));
	}
	return result.len > 0 ? result.data : NULL;
}

/* list_sort comparator: by bytes */
static int
compare_strings(const ListCell *a, const ListCell *b)
{
	return strcmp(lfirst(a), lfirst(b));
}

/*
 * The command that restarts this server, by whatever runs it: a container, a
 * systemd unit that has a name of PostgreSQL's, Patroni, Debian's clusters;
 * else pg_ctl.
 */
static const char *
restart_command(const char *hba_owner)
{
	char	   *unit;
	char	   *cluster;
	char	   *bin;

	if (hba_owner != NULL && strcmp(hba_owner, "Patroni") == 0)
		return "patronictl restart, with the names of the cluster and of this member";
	if (PostmasterPid == 1)
		return "restart the container";
	unit = systemd_unit();
	if (unit != NULL)
		return psprintf("systemctl restart %s", unit);
	cluster = debian_cluster();
	if (cluster != NULL)
		return psprintf("pg_ctlcluster %s restart", cluster);

	bin = pstrdup(my_exec_path);
	get_parent_directory(bin);
	return psprintf("%s -D %s restart",
					shell_quoted(psprintf("%s/pg_ctl", bin)),
					shell_quoted(DataDir));
}

/*
 * "VERSION CLUSTER" of a cluster of Debian's, whose configuration lies in
 * /etc/postgresql/VERSION/CLUSTER; NULL: it is none.
 */
static char *
debian_cluster(void)
{
	static const char prefix[] = "/etc/postgresql/";
	const char *path = ConfigFileName;
	size_t		version_len;
	char	   *name;
	char	   *end;

	if (path == NULL || strncmp(path, prefix, strlen(prefix)) != 0)
		return NULL;
	path += strlen(prefix);
	version_len = strspn(path, "0123456789");
	if (version_len == 0 || path[version_len] != '/')
		return NULL;
	name = pstrdup(path + version_len + 1);
	end = strchr(name, '/');
	if (end == NULL || strcmp(end, "/postgresql.conf") != 0)
		return NULL;
	*end = '\0';
	return is_safe_word(name) ?
		psprintf("%.*s %s", (int) version_len, path, name) : NULL;
}

/*
 * The systemd unit that this process belongs to, if it is one that runs
 * servers: what is started by hand belongs to a login, or to a cron job.
 */
static char *
systemd_unit(void)
{
	FILE	   *file = AllocateFile("/proc/self/cgroup", "r");
	StringInfoData line;
	char	   *result = NULL;

	if (file == NULL)
		return NULL;
	initStringInfo(&line);
	while (result == NULL && pg_get_line_buf(file, &line))
	{
		char	   *name = strrchr(line.data, '/');
		char	   *end;

		if (name == NULL ||
			(end = strstr(++name, ".service\n")) == NULL)
			continue;
		*end = '\0';
		if (strncmp(name, "postgres", strlen("postgres")) == 0 &&
			is_safe_word(name))
			result = pstrdup(name);
	}
	FreeFile(file);
	return result;
}

/* Does a shell take the word as it is? */
static bool
is_safe_word(const char *word)
{
	return word[0] != '\0' && word[0] != '-' &&
		strspn(word, "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
			   "0123456789@/._-") == strlen(word);
}

/* The word as a shell has to have it. */
static char *
shell_quoted(const char *word)
{
	StringInfoData result;

	if (is_safe_word(word))
		return pstrdup(word);
	initStringInfo(&result);
	appendStringInfoChar(&result, '\'');
	for (const char *c = word; *c != '\0'; c++)
	{
		if (*c == '\'')
			appendStringInfoString(&result, "'\\''");
		else
			appendStringInfoChar(&result, *c);
	}
	appendStringInfoChar(&result, '\'');
	return result.data;
}
