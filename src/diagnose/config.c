/*-------------------------------------------------------------------------
 *
 * config.c
 *	  What the configuration files hold, and what the next start makes of it.
 *
 * The files are read as the server reads them at a start (src/backend/utils/
 * misc/guc-file.l, ProcessConfigFileInternal): postgresql.conf with what it
 * includes, then postgresql.auto.conf; the last line of a name counts, in
 * whatever case it is written, and the command line wins over all.  Nothing
 * is set here.
 *
 * prk_config_refusals() is the one list of what a start would refuse, for
 * preflight() and diagnose() alike.  (pg_hba.conf is looked at elsewhere.)
 *
 * All results are palloc'd in the caller's context.
 *
 * IDENTIFICATION
 *	  src/diagnose/config.c
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include <sys/stat.h>

#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/varlena.h"

#include "compat.h"
#include "diagnose/config.h"

static const ConfigVariable *find_line(const PrkConfig *config,
									   const char *name);
static bool is_overridden(const ConfigVariable * line);
static const char *line_error(const ConfigVariable * line);
static void refuse(List **refusals, const char *words, const char *wanted,
				   const char *setting, const char *value);
static bool library_exists(const char *name);
static bool file_exists(const char *directory, const char *name);

/* Reads the configuration files.  Errors in them are kept, not raised. */
PrkConfig *
prk_config_read(void)
{
	PrkConfig  *config = palloc0(sizeof(PrkConfig));
	ConfigVariable *tail = NULL;

	if (ParseConfigFile(ConfigFileName, true, NULL, 0, 0, DEBUG3,
						&config->variables, &tail))
		(void) ParseConfigFile(PG_AUTOCONF_FILENAME, false, NULL, 0, 0,
							   DEBUG3, &config->variables, &tail);
	return config;
}

/* The value in force, without units; NULL: this server has no such setting. */
const char *
prk_config_now(const char *name)
{
	const char *value = GetConfigOption(name, true, false);

	return value ? pstrdup(value) : NULL;
}

/*
 * The value that a start would give the setting, as it is written in the
 * file; "" if this server has no such setting.
 */
const char *
prk_config_next(const PrkConfig *config, const char *name)
{
	struct config_generic *record = prk_compat_guc_find(name);
	const		ConfigVariable *line = find_line(config, name);

	if (record == NULL)
		return "";
	if (record->context == PGC_INTERNAL || prk_config_on_command_line(name))
		return prk_config_now(name);
	return line ? line->value : prk_compat_guc_boot(record);
}

/* The same of a number; the present one where the file holds none. */
int
prk_config_next_int(const PrkConfig *config, const char *name)
{
	int			value;

	if (!parse_int(prk_config_next(config, name), &value,
				   GetConfigOptionFlags(name, true), NULL))
		value = atoi(prk_config_now(name));
	return value;
}

/* The same of a boolean; the present one where the file holds none. */
bool
prk_config_next_bool(const PrkConfig *config, const char *name)
{
	bool		value;

	if (!parse_bool(prk_config_next(config, name), &value))
		value = strcmp(prk_config_now(name), "on") == 0;
	return value;
}

/* ALTER SYSTEM is of no avail against the command line. */
bool
prk_config_on_command_line(const char *name)
{
	struct config_generic *record = prk_compat_guc_find(name);

	return record != NULL && record->reset_source == PGC_S_ARGV;
}

/* A list such as shared_preload_libraries, as char *; NIL if it is no list. */
List *
prk_config_libraries(const char *list)
{
	List	   *names = NIL;

	if (!SplitDirectoriesString(pstrdup(list), ',', &names))
		return NIL;
	return names;
}

/*
 * What the next start would refuse, of PrkRefusal.  A start that has slots to
 * restore is pickier, so their number counts, less temporary ones.
 */
List *
prk_config_refusals(const PrkConfig *config, int kept_slots)
{
	const char *wal_level = prk_config_now("wal_level");
	int			next_senders = prk_config_next_int(config, "max_wal_senders");
	int			next_slots = prk_config_next_int(config,
												 "max_replication_slots");
	const char *libraries = prk_config_next(config,
											"shared_preload_libraries");
	const char *summarize = prk_config_next(config, "summarize_wal");
	bool		summarizes = summarize[0] != '\0' &&
	prk_config_next_bool(config, "summarize_wal");
	bool		archives;
	List	   *refusals = NIL;
	StringInfoData missing;
	ListCell   *cell;

	/* a boolean, or "always" */
	if (!parse_bool(prk_config_next(config, "archive_mode"), &archives))
		archives = true;
	if (strcmp(wal_level, "minimal") != 0 &&
		pg_strcasecmp(prk_config_next(config, "wal_level"), "minimal") == 0 &&
		(kept_slots > 0 || next_senders > 0 || summarizes || archives))
		refuse(&refusals,
			   psprintf("wal_level = minimal after a restart, with %d replication slots and max_wal_senders = %d",
						kept_slots, next_senders),
			   "replica or logical",
			   "wal_level", psprintf("'%s'", wal_level));
	if (next_slots < kept_slots)
		refuse(&refusals,
			   psprintf("max_replication_slots = %d after a restart, with %d slots in use",
						next_slots, kept_slots),
			   psprintf("at least %d", kept_slots),
			   "max_replication_slots",
			   prk_config_now("max_replication_slots"));

	initStringInfo(&missing);
	foreach(cell, prk_config_libraries(libraries))
	{
		if (!library_exists(lfirst(cell)))
			appendStringInfo(&missing, "%s%s", missing.len > 0 ? ", " : "",
							 (char *) lfirst(cell));
	}
	if (missing.len > 0)
		refuse(&refusals, psprintf("library not found: %s", missing.data),
			   "each of shared_preload_libraries installed", NULL, NULL);

	for (const ConfigVariable * line = config->variables; line != NULL;
		 line = line->next)
	{
		const char *error = line_error(line);

		if (error != NULL)
			refuse(&refusals,
				   psprintf("%s%s%s (line %d of %s)",
							line->name ? line->name : "",
							line->name ? ": " : "", error,
							line->sourceline,
							line->filename ? line->filename : ConfigFileName),
				   "a configuration without errors", NULL, NULL);
	}
	return refusals;
}

/* Adds a refusal to the list. */
static void
refuse(List **refusals, const char *words, const char *wanted,
	   const char *setting, const char *value)
{
	PrkRefusal *refusal = palloc(sizeof(PrkRefusal));

	refusal->words = words;
	refusal->wanted = wanted;
	refusal->setting = setting;
	refusal->value = value;
	*refusals = lappend(*refusals, refusal);
}

/* The line that counts for a setting; NULL: none. */
static const ConfigVariable *
find_line(const PrkConfig *config, const char *name)
{
	const		ConfigVariable *found = NULL;

	for (const ConfigVariable * line = config->variables; line != NULL;
		 line = line->next)
	{
		if (line->name != NULL && line->errmsg == NULL &&
			pg_strcasecmp(line->name, name) == 0)
			found = line;
	}
	return found;
}

/* Does a later line of the same name count? */
static bool
is_overridden(const ConfigVariable * line)
{
	for (const ConfigVariable * other = line->next; other != NULL;
		 other = other->next)
	{
		if (other->name != NULL && pg_strcasecmp(other->name, line->name) == 0)
			return true;
	}
	return false;
}

/*
 * With what error would a start refuse the line?  NULL: with none.  The value
 * is checked as at a start, when every setting may change, without being set.
 * What a library that is not loaded here would say of its settings, nobody
 * knows.
 */
static const char *
line_error(const ConfigVariable * line)
{
	if (line->errmsg != NULL)
		return line->errmsg;
	if (line->name == NULL || line->ignore)
		return NULL;
	if (prk_compat_guc_find(line->name) == NULL)
		return strchr(line->name, GUC_QUALIFIER_SEPARATOR) != NULL ? NULL :
			"unrecognized configuration parameter";
	if (is_overridden(line))
		return NULL;
	if (set_config_option(line->name, line->value, PGC_POSTMASTER, PGC_S_FILE,
						  GUC_ACTION_SET, false, DEBUG3, false) == 0)
		return "setting could not be applied";
	return NULL;
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

	if (!SplitGUCList(pstrdup(prk_config_now("dynamic_library_path")), ':',
					  &directories))
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

/* Is there such a file, with or without the ending of libraries? */
static bool
file_exists(const char *directory, const char *name)
{
	const char *separator = directory[0] ? "/" : "";
	struct stat st;

	return stat(psprintf("%s%s%s", directory, separator, name), &st) == 0 ||
		stat(psprintf("%s%s%s" DLSUFFIX, directory, separator, name), &st) == 0;
}
