/*-------------------------------------------------------------------------
 *
 * clone_settings.c
 *	  The settings that a clone of this server brings along, of those that may
 *	  not work on another machine or mean something else on a standby.
 *
 * They are read from the files in the data directory, since a base backup
 * sends these and no others: postgresql.conf with what it includes there, and
 * postgresql.auto.conf.  The last line of a name counts.  A symbolic link is
 * not sent, so its file stays here, wherever it points to.
 *
 * Each column of the answer is "NAME FILE PLACE VALUE".  FILE is "auto" for
 * postgresql.auto.conf, which every clone reads; "main" for the others, which
 * a replica with a configuration of its own does not read; "-" for a value of
 * the running server.  PLACE is, of a path, "here" if it comes along, and else
 * "out"; "-" of what is no path.  Of what may hold a secret there is no value.
 *
 * IDENTIFICATION
 *	  src/ask/clone_settings.c
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include <dirent.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/string.h"
#include "miscadmin.h"
#include "storage/fd.h"
#include "utils/builtins.h"
#include "utils/guc.h"

#include "ask/clone_settings.h"
#include "compat.h"

#define MAIN_FILE		"postgresql.conf"
#define HBA_FILE		"pg_hba.conf"

/* As the server has it (guc-file.l). */
#define MAX_DEPTH		10

typedef enum SettingKind
{
	KIND_VALUE,
	KIND_PATH,
	KIND_TLS_FILE,				/* a path that counts with ssl = on */
	KIND_HIDDEN					/* a command or a connection: no value */
} SettingKind;

typedef struct SettingDef
{
	const char *name;
	SettingKind kind;
} SettingDef;

static const SettingDef setting_defs[] = {
	{"archive_cleanup_command", KIND_HIDDEN},
	{"data_directory", KIND_PATH},
	{"external_pid_file", KIND_PATH},
	{"hba_file", KIND_PATH},
	{"huge_pages", KIND_VALUE},
	{"ident_file", KIND_PATH},
	{"io_method", KIND_VALUE},
	{"krb_server_keyfile", KIND_PATH},
	{"lc_messages", KIND_VALUE},
	{"lc_monetary", KIND_VALUE},
	{"lc_numeric", KIND_VALUE},
	{"lc_time", KIND_VALUE},
	{"listen_addresses", KIND_VALUE},
	{"log_directory", KIND_PATH},
	{"logging_collector", KIND_VALUE},
	{"primary_conninfo", KIND_HIDDEN},
	{"primary_slot_name", KIND_HIDDEN},
	{"promote_trigger_file", KIND_PATH},
	{"recovery_end_command", KIND_HIDDEN},
	{"recovery_min_apply_delay", KIND_VALUE},
	{"recovery_target", KIND_VALUE},
	{"recovery_target_action", KIND_VALUE},
	{"recovery_target_inclusive", KIND_VALUE},
	{"recovery_target_lsn", KIND_VALUE},
	{"recovery_target_name", KIND_VALUE},
	{"recovery_target_time", KIND_VALUE},
	{"recovery_target_timeline", KIND_VALUE},
	{"recovery_target_xid", KIND_VALUE},
	{"restore_command", KIND_HIDDEN},
	{"shared_buffers", KIND_VALUE},
	{"ssl", KIND_VALUE},
	{"ssl_ca_file", KIND_TLS_FILE},
	{"ssl_cert_file", KIND_TLS_FILE},
	{"ssl_crl_dir", KIND_TLS_FILE},
	{"ssl_crl_file", KIND_TLS_FILE},
	{"ssl_dh_params_file", KIND_TLS_FILE},
	{"ssl_key_file", KIND_TLS_FILE},
	{"unix_socket_directories", KIND_VALUE},
	{"unix_socket_group", KIND_VALUE},
};

/* Of the running server; nothing that SHOW would not tell that role. */
static const char *const running[] = {
	"max_connections", "max_worker_processes", "max_wal_senders",
	"max_prepared_transactions", "max_locks_per_transaction",
	"wal_segment_size", "data_checksums", "shared_memory_size",
	"shared_memory_size_in_huge_pages",
};

static ConfigVariable * read_files(void);
static bool comes_along(const char *path);
static const char *inside(const char *path);
static const ConfigVariable *find_line(const ConfigVariable * lines,
									   const char *name);
static void put(PrkAnswer *answer, const char *name, const char *file,
				const char *place, const char *value);
static void put_includes(PrkAnswer *answer, const char *file, int depth);
static void put_include(PrkAnswer *answer, const char *file, char *keyword,
						const char *value, int depth);
static void put_directory(PrkAnswer *answer, const char *directory, int depth);
static char *word_at(char **at);

/* What a clone's files set that setting to; NULL: they do not. */
const char *
prk_clone_setting(const char *name)
{
	const		ConfigVariable *line = find_line(read_files(), name);

	return line ? line->value : NULL;
}

/* The lines of the files that are sent. */
static ConfigVariable *
read_files(void)
{
	ConfigVariable *lines = NULL;
	ConfigVariable *tail = NULL;

	if (comes_along(MAIN_FILE))
		(void) ParseConfigFile(psprintf("%s/" MAIN_FILE, DataDir), false,
							   NULL, 0, 0, DEBUG3, &lines, &tail);
	if (comes_along(PG_AUTOCONF_FILENAME))
		(void) ParseConfigFile(psprintf("%s/" PG_AUTOCONF_FILENAME, DataDir),
							   false, NULL, 0, 0, DEBUG3, &lines, &tail);
	return lines;
}

/* Puts them into the answer.  Raises nothing but for lack of memory. */
void
prk_clone_settings(PrkAnswer *answer)
{
	ConfigVariable *lines = read_files();
	const		ConfigVariable *ssl;
	bool		tls = false;

	ssl = find_line(lines, "ssl");
	if (ssl != NULL && !parse_bool(ssl->value, &tls))
		tls = false;

	for (size_t i = 0; i < lengthof(running); i++)
	{
		const char *value = GetConfigOption(running[i], true, true);

		if (value != NULL)
			put(answer, running[i], "-", "-", value);
	}
	for (size_t i = 0; i < lengthof(setting_defs); i++)
	{
		const SettingDef *def = &setting_defs[i];
		const		ConfigVariable *line = find_line(lines, def->name);
		struct config_generic *record = prk_compat_guc_find(def->name);
		const char *value;
		const char *place = "-";
		const char *file = "main";

		if (record == NULL || (def->kind == KIND_TLS_FILE && !tls) ||
			(line == NULL && def->kind != KIND_TLS_FILE))
			continue;
		value = line ? line->value : prk_compat_guc_boot(record);
		if (value[0] == '\0' && line == NULL)
			continue;
		if (line != NULL && line->filename != NULL &&
			strcmp(inside(line->filename), PG_AUTOCONF_FILENAME) == 0)
			file = "auto";
		if (def->kind == KIND_HIDDEN)
			value = "";
		else if (def->kind != KIND_VALUE && value[0] != '\0')
			place = comes_along(value) ? "here" : "out";
		put(answer, def->name, file, place, value);
	}
	if (comes_along(MAIN_FILE))
		put_includes(answer, MAIN_FILE, 0);
	if (comes_along(HBA_FILE))
		put_includes(answer, HBA_FILE, 0);
}

/*
 * The path relative to the data directory, if it lies there by its name; else
 * as it is.
 */
static const char *
inside(const char *path)
{
	size_t		length = strlen(DataDir);

	if (strncmp(path, DataDir, length) == 0 && path[length] == '/')
		return path + length + 1;
	return path;
}

/*
 * Is it sent by a base backup?  Relative paths are of the data directory, and
 * no directory on the way may be a symbolic link.
 */
static bool
comes_along(const char *path)
{
	char	   *copy = pstrdup(inside(path));
	struct stat st;

	if (copy[0] == '/' || strncmp(copy, "../", 3) == 0 ||
		strstr(copy, "/../") != NULL)
		return false;
	for (char *c = copy;; c++)
	{
		bool		last = *c == '\0';

		if (!last && *c != '/')
			continue;
		*c = '\0';
		if (lstat(copy, &st) != 0 || S_ISLNK(st.st_mode))
			return false;
		if (last)
			return true;
		*c = '/';
	}
}

/* The line that counts for a setting; NULL: none. */
static const ConfigVariable *
find_line(const ConfigVariable * lines, const char *name)
{
	const		ConfigVariable *found = NULL;

	for (; lines != NULL; lines = lines->next)
	{
		if (lines->name != NULL && lines->errmsg == NULL &&
			lines->filename != NULL && comes_along(lines->filename) &&
			pg_strcasecmp(lines->name, name) == 0)
			found = lines;
	}
	return found;
}

static void
put(PrkAnswer *answer, const char *name, const char *file, const char *place,
	const char *value)
{
	prk_answer_text(answer, psprintf("%s %s %s %s", name, file, place, value));
}

/*
 * Puts the includes of a configuration file, relative to the data directory,
 * that do not come along.
 */
static void
put_includes(PrkAnswer *answer, const char *file, int depth)
{
	FILE	   *in = depth < MAX_DEPTH ? AllocateFile(file, "r") : NULL;
	StringInfoData line;

	if (in == NULL)
		return;
	initStringInfo(&line);
	while (pg_get_line_buf(in, &line))
	{
		char	   *at = line.data;
		char	   *keyword;

		CHECK_FOR_INTERRUPTS();
		keyword = word_at(&at);
		if (pg_strncasecmp(keyword, "include", strlen("include")) == 0)
			put_include(answer, file, keyword, word_at(&at), depth);
	}
	FreeFile(in);
}

/* What a line includes is named from the file that it stands in. */
static void
put_include(PrkAnswer *answer, const char *file, char *keyword,
			const char *value, int depth)
{
	const char *slash = strrchr(file, '/');
	const char *path = inside(value);
	bool		hba = strcmp(file, HBA_FILE) == 0;

	if (value[0] == '\0' ||
		(pg_strcasecmp(keyword, "include") != 0 &&
		 pg_strcasecmp(keyword, "include_dir") != 0 &&
		 pg_strcasecmp(keyword, "include_if_exists") != 0))
		return;
	if (path[0] != '/' && slash != NULL && path == value)
		path = psprintf("%.*s/%s", (int) (slash - file), file, path);
	if (!comes_along(path))
		put(answer, keyword, "main", "out", path);
	else if (hba)
		return;
	else if (pg_strcasecmp(keyword, "include_dir") == 0)
		put_directory(answer, path, depth + 1);
	else
		put_includes(answer, path, depth + 1);
}

/* The files of an included directory. */
static void
put_directory(PrkAnswer *answer, const char *directory, int depth)
{
	DIR		   *dir = AllocateDir(directory);
	struct dirent *entry;
	List	   *files = NIL;
	ListCell   *cell;

	if (dir == NULL)
		return;
	while ((entry = ReadDirExtended(dir, directory, DEBUG1)) != NULL)
	{
		CHECK_FOR_INTERRUPTS();
		if (entry->d_name[0] != '.' && pg_str_endswith(entry->d_name, ".conf"))
			files = lappend(files, psprintf("%s/%s", directory, entry->d_name));
	}
	FreeDir(dir);
	foreach(cell, files)
		put_includes(answer, lfirst(cell), depth);
}

/* The next word of a line, quoted or not; "" at its end or at a comment. */
static char *
word_at(char **at)
{
	char	   *from = *at + strspn(*at, " \t\r\n=");
	char	   *to;

	if (*from == '\'' || *from == '"')
	{
		char	   *quote = strchr(from + 1, *from);

		to = quote ? quote : from + strlen(from);
		from++;
	}
	else
		to = from + strcspn(from, " \t\r\n='\"#");
	*at = *to != '\0' ? to + (*to == '\'' || *to == '"') : to;
	return pnstrdup(from, to - from);
}
