/*-------------------------------------------------------------------------
 *
 * settings.c
 *	  The replica_kit.* settings.
 *
 * All of them but history_samples can be changed by a reload, and none is
 * needed before a server's start: a session that loads the library without
 * preloading has them too.  A number without a unit is kB for a size and milliseconds for a
 * time; -1 switches a threshold off.
 *
 * replica_kit.overrides gives single replicas thresholds of their own:
 *
 *		overrides = [ override { "," override } ]
 *		override  = pattern ":" ( "off" | setting "=" value { setting "=" value } )
 *		pattern   = name, in which "*" stands for any characters; in double
 *					quotes if it has blanks, commas, colons or quotes
 *
 * The settings are those below, without "replica_kit."; their values have no
 * blanks.  As in pg_hba.conf, the first override whose pattern matches a name
 * is the one that counts for it, and what it doesn't mention is as for all.
 * The text is parsed in the check hook into a flat struct, so that nonsense
 * is refused with its position and the value before stays in force.
 *
 * IDENTIFICATION
 *	  src/settings.c
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include <limits.h>

#include "mb/pg_wchar.h"
#include "miscadmin.h"
#include "replication/walsender.h"
#include "utils/guc.h"
#include "utils/varlena.h"

#include "compat.h"
#include "settings.h"

/* A day: a worker that looks less often watches nothing. */
#define MAX_CHECK_INTERVAL	(24 * 60 * 60 * 1000)
#define MIN_CHECK_INTERVAL	100

/*
 * A receiver that works answers at the latest when it is asked, which the
 * walsender does after half of wal_sender_timeout; the rest is the time that
 * the answer may take.
 */
#define REPLY_GRACE			5000
#define REPLY_UNASKED		30000	/* where wal_sender_timeout is off */

#define PREFIX				"replica_kit."

/* One threshold: how it is set, and where it goes in PrkThresholds. */
typedef struct ThresholdDef
{
	const char *name;			/* with the prefix */
	const char *description;
	int			flags;			/* GUC_UNIT_KB or GUC_UNIT_MS */
	int			boot_value;
	size_t		offset;			/* of its int64 in PrkThresholds */
} ThresholdDef;

static const ThresholdDef threshold_defs[] = {
	{PREFIX "warning_lag",
		"Warns when a replica is this much WAL behind.",
	GUC_UNIT_KB, 10 * 1024, offsetof(PrkThresholds, warning_lag)},
	{PREFIX "critical_lag",
		"Calls a replica critical when it is this much WAL behind.",
	GUC_UNIT_KB, 200 * 1024, offsetof(PrkThresholds, critical_lag)},
	{PREFIX "lag_grace",
		"Lets WAL that is behind count only when it is behind for this long.",
	GUC_UNIT_MS, 5 * 1000, offsetof(PrkThresholds, lag_grace)},
	{PREFIX "warning_lag_time",
		"Warns when a replica is behind by this much time.",
	GUC_UNIT_MS, 60 * 1000, offsetof(PrkThresholds, warning_lag_time)},
	{PREFIX "critical_lag_time",
		"Calls a replica critical when it is behind by this much time.",
	GUC_UNIT_MS, 5 * 60 * 1000, offsetof(PrkThresholds, critical_lag_time)},
	{PREFIX "warning_disconnected",
		"Warns when a replica has been disconnected for this long.",
	GUC_UNIT_MS, 60 * 1000, offsetof(PrkThresholds, warning_disconnected)},
	{PREFIX "critical_disconnected",
		"Calls a replica critical when it has been disconnected for this long.",
		GUC_UNIT_MS, 15 * 60 * 1000,
	offsetof(PrkThresholds, critical_disconnected)},
	{PREFIX "warning_forecast",
		"Warns when a slot will be lost or a disk full within this time.",
		GUC_UNIT_MS, 4 * 60 * 60 * 1000,
	offsetof(PrkThresholds, warning_forecast)},
	{PREFIX "critical_forecast",
		"Calls it critical when a slot will be lost or a disk full within this time.",
		GUC_UNIT_MS, 60 * 60 * 1000,
	offsetof(PrkThresholds, critical_forecast)},
	{PREFIX "alert_after",
		"Lets the worker announce a lag that has lasted this long.",
	GUC_UNIT_MS, 30 * 1000, offsetof(PrkThresholds, alert_after)},
	{PREFIX "repeat_interval",
		"Lets the worker repeat what is still critical after this time.",
		GUC_UNIT_MS, 60 * 60 * 1000,
	offsetof(PrkThresholds, repeat_interval)},
};

#define NTHRESHOLDS			((int) lengthof(threshold_defs))

typedef struct Override
{
	char		pattern[NAMEDATALEN];
	bool		quoted;			/* so that "server" is a replica's name */
	bool		off;
	uint32		given;			/* bit n: value n is set */
	int			values[NTHRESHOLDS];	/* in units of the setting */
} Override;

/* The parsed replica_kit.overrides: one allocation, as the GUC code wants. */
typedef struct Overrides
{
	int			noverrides;
	Override	items[FLEXIBLE_ARRAY_MEMBER];
} Overrides;

/*---- GUC variables ----*/

bool		prk_worker_enabled = true;
int			prk_check_interval = 10 * 1000;
int			prk_gate_lag = -1;
int			prk_gate_lag_time = -1;
char	   *prk_gate_roles = NULL;
bool		prk_gate_when_cut = false;
int			prk_history_samples = 69120;

static int	threshold_values[NTHRESHOLDS];
static char *overrides_text = NULL;
static const Overrides *overrides = NULL;

static void define_gate(void);
static bool check_gate_roles(char **newval, void **extra, GucSource source);
static bool check_overrides(char **newval, void **extra, GucSource source);
static void assign_overrides(const char *newval, void *extra);
static bool parse_override(const char *text, const char **at, Override *item);
static bool parse_pattern(const char *text, const char **at, char *pattern);
static bool parse_threshold(const char *text, const char **at,
							Override *item);
static void choose_thresholds(const char *name, bool is_replica,
							  PrkThresholds *result);
static bool pattern_matches(const char *pattern, const char *name);

/* Defines all settings; to be called once, when the library is loaded. */
void
prk_settings_init(void)
{
	DefineCustomBoolVariable(PREFIX "worker",
							 "Lets the preloaded worker watch the replicas.",
							 NULL,
							 &prk_worker_enabled,
							 true,
							 PGC_SIGHUP, 0,
							 NULL, NULL, NULL);
	DefineCustomIntVariable(PREFIX "check_interval",
							"Sets the time between two samples of the worker.",
							NULL,
							&prk_check_interval,
							10 * 1000, MIN_CHECK_INTERVAL, MAX_CHECK_INTERVAL,
							PGC_SIGHUP, GUC_UNIT_MS,
							NULL, NULL, NULL);

	/* Without preloading it has no effect, but may stand in the file. */
	DefineCustomIntVariable(PREFIX "history_samples",
							"Sets how many rows of samples are kept, for all replicas together.",
							NULL,
							&prk_history_samples,
							69120, 0, 100 * 1000 * 1000,
							process_shared_preload_libraries_in_progress ?
							PGC_POSTMASTER : PGC_SIGHUP, 0,
							NULL, NULL, NULL);
	for (int i = 0; i < NTHRESHOLDS; i++)
		DefineCustomIntVariable(threshold_defs[i].name,
								threshold_defs[i].description,
								"-1 switches it off.",
								&threshold_values[i],
								threshold_defs[i].boot_value, -1, INT_MAX,
								PGC_SIGHUP, threshold_defs[i].flags,
								NULL, NULL, NULL);
	DefineCustomStringVariable(PREFIX "overrides",
							   "Gives single replicas thresholds of their own.",
							   "For example: delayed1: warning_lag_time=4h critical_lag_time=8h, debezium_*: off",
							   &overrides_text,
							   "",
							   PGC_SIGHUP, 0,
							   check_overrides, assign_overrides, NULL);
	define_gate();
	MarkGUCPrefixReserved("replica_kit");
}

/* The settings of the read gate. */
static void
define_gate(void)
{
	DefineCustomIntVariable(PREFIX "read_gate_lag_time",
							"Lets a standby refuse new sessions when it is behind by this much time.",
							"-1 switches it off.",
							&prk_gate_lag_time,
							-1, -1, INT_MAX,
							PGC_SIGHUP, GUC_UNIT_MS,
							NULL, NULL, NULL);
	DefineCustomIntVariable(PREFIX "read_gate_lag",
							"Lets a standby refuse new sessions when it is this much WAL behind.",
							"-1 switches it off.",
							&prk_gate_lag,
							-1, -1, INT_MAX,
							PGC_SIGHUP, GUC_UNIT_KB,
							NULL, NULL, NULL);
	DefineCustomStringVariable(PREFIX "read_gate_roles",
							   "Sets which roles, with their members, the read gate refuses.",
							   "A list of names, * for all.",
							   &prk_gate_roles,
							   "*",
							   PGC_SIGHUP, GUC_LIST_INPUT,
							   check_gate_roles, NULL, NULL);
	DefineCustomBoolVariable(PREFIX "read_gate_when_cut",
							 "Lets the read gate count the time since the upstream was last heard of.",
							 NULL,
							 &prk_gate_when_cut,
							 false,
							 PGC_SIGHUP, 0,
							 NULL, NULL, NULL);
}

/* GUC check hook: is it a list of identifiers? */
static bool
check_gate_roles(char **newval, void **extra, GucSource source)
{
	char	   *names = pstrdup(*newval);
	List	   *list;
	bool		ok = SplitIdentifierString(names, ',', &list);

	if (!ok)
		GUC_check_errdetail("List syntax is invalid.");
	list_free(list);
	pfree(names);
	return ok;
}

/*
 * What the replica of this name is judged by, as set now in this process.
 */
void
prk_settings_thresholds(const char *name, PrkThresholds *result)
{
	choose_thresholds(name, true, result);
}

/* The same of this server or its upstream, which are not replicas. */
void
prk_settings_own_thresholds(const char *name, PrkThresholds *result)
{
	choose_thresholds(name, false, result);
}

/*
 * A replica may be called like one of our own names: such a name is a
 * replica's in the setting only where it is quoted there.
 */
const char *
prk_settings_shown_name(const char *name)
{
	if (strcmp(name, PRK_SERVER_NAME) == 0)
		return "\"" PRK_SERVER_NAME "\"";
	if (strcmp(name, PRK_UPSTREAM_NAME) == 0)
		return "\"" PRK_UPSTREAM_NAME "\"";
	return name;
}

static void
choose_thresholds(const char *name, bool is_replica, PrkThresholds *result)
{
	bool		is_ours = prk_settings_shown_name(name) != name;
	const Override *item = NULL;

	memset(result, 0, sizeof(PrkThresholds));
	for (int i = 0; overrides != NULL && i < overrides->noverrides; i++)
	{
		const Override *one = &overrides->items[i];

		if (is_ours && strcmp(one->pattern, name) == 0 &&
			one->quoted != is_replica)
			continue;
		if (pattern_matches(one->pattern, name))
		{
			item = one;
			break;
		}
	}

	for (int i = 0; i < NTHRESHOLDS; i++)
	{
		const ThresholdDef *def = &threshold_defs[i];
		int64		value = threshold_values[i];

		if (item != NULL && (item->given & (1U << i)) != 0)
			value = item->values[i];
		if (value >= 0 && def->flags == GUC_UNIT_KB)
			value *= 1024;
		*(int64 *) ((char *) result + def->offset) = value;
	}
	result->off = item != NULL && item->off;
	result->stale_after = REPLY_GRACE +
		(wal_sender_timeout > 0 ? wal_sender_timeout / 2 : REPLY_UNASKED);
}

/* Refuses a value of replica_kit.overrides, with the place of the fault. */
static bool
refuse(const char *text, const char *at, const char *problem)
{
	GUC_check_errdetail("%s at character %d.", problem,
						pg_mbstrlen_with_len(text, (int) (at - text)) + 1);
	return false;
}

/* scanner_isspace()'s idea of a blank, whatever the locale. */
static bool
is_blank(char c)
{
	return c == ' ' || (c >= '\t' && c <= '\r');
}

/* Steps over blanks. */
static void
skip_blanks(const char **at)
{
	while (is_blank(**at))
		(*at)++;
}

/* GUC check hook: parses the text into *extra, or refuses it. */
static bool
check_overrides(char **newval, void **extra, GucSource source)
{
	const char *text = *newval;
	const char *at = text;
	Overrides  *result;
	int			limit = 1;

	for (const char *p = text; *p != '\0'; p++)
	{
		if (*p == ',')
			limit++;
	}
	result = prk_compat_guc_malloc(LOG, offsetof(Overrides, items) +
								   limit * sizeof(Override));
	if (result == NULL)
		return false;
	result->noverrides = 0;

	skip_blanks(&at);
	while (*at != '\0' || result->noverrides > 0)
	{
		Assert(result->noverrides < limit);
		if (!parse_override(text, &at, &result->items[result->noverrides]))
		{
			prk_compat_guc_free(result);
			return false;
		}
		result->noverrides++;
		if (*at == '\0')
			break;
		at++;					/* the comma */
		skip_blanks(&at);
	}

	*extra = result;
	return true;
}

/* GUC assign hook: nothing is left to fail. */
static void
assign_overrides(const char *newval, void *extra)
{
	overrides = extra;
}

/*
 * Parses one override from *at on, and leaves *at at the comma or the end.
 */
static bool
parse_override(const char *text, const char **at, Override *item)
{
	const char *start;

	memset(item, 0, sizeof(Override));
	item->quoted = **at == '"';
	if (!parse_pattern(text, at, item->pattern))
		return false;
	skip_blanks(at);
	if (**at != ':')
		return refuse(text, *at, psprintf("Expected \":\" after the name \"%s\"",
										  item->pattern));
	(*at)++;

	for (skip_blanks(at); **at != ',' && **at != '\0'; skip_blanks(at))
	{
		start = *at;
		if (item->off)
			return refuse(text, start,
						  "Expected \",\" or the end after \"off\"");
		if (pg_strncasecmp(start, "off", 3) == 0 &&
			(start[3] == '\0' || start[3] == ',' || is_blank(start[3])))
		{
			if (item->given != 0)
				return refuse(text, start,
							  "\"off\" cannot follow other settings");
			item->off = true;
			*at += 3;
		}
		else if (!parse_threshold(text, at, item))
			return false;
	}

	if (!item->off && item->given == 0)
		return refuse(text, *at, psprintf("Expected a setting for \"%s\"",
										  item->pattern));
	return true;
}

/* Parses a name pattern, quoted or not, into pattern. */
static bool
parse_pattern(const char *text, const char **at, char *pattern)
{
	const char *start = *at;
	bool		quoted = (*start == '"');
	int			len = 0;

	if (quoted)
		(*at)++;
	for (;; (*at)++)
	{
		char		c = **at;

		if (c == '\0' && quoted)
			return refuse(text, start, "Unterminated quoted name");
		if (c == '"' && quoted)
		{
			(*at)++;
			if (**at != '"')
				break;
		}
		else if (!quoted && (c == '\0' || c == ':' || c == ',' || c == '=' ||
							 c == '"' || is_blank(c)))
			break;
		if (len >= NAMEDATALEN - 1)
			return refuse(text, start,
						  psprintf("Name longer than %d bytes",
								   NAMEDATALEN - 1));
		pattern[len++] = c;
	}
	pattern[len] = '\0';
	if (len == 0)
		return refuse(text, start, "Expected the name of a replica");
	return true;
}

/* Parses "setting=value" into item. */
static bool
parse_threshold(const char *text, const char **at, Override *item)
{
	const char *start = *at;
	char	   *word;
	char	   *value;
	const char *hint = NULL;
	int			len = strcspn(start, "=:, \t\n\v\f\r");
	int			def;

	word = pnstrdup(start, len);
	for (def = 0; def < NTHRESHOLDS; def++)
	{
		if (pg_strcasecmp(word, threshold_defs[def].name +
						  strlen(PREFIX)) == 0)
			break;
	}
	if (def == NTHRESHOLDS)
	{
		GUC_check_errhint("What can be set is off, warning_lag, critical_lag, lag_grace, "
						  "warning_lag_time, critical_lag_time, "
						  "warning_disconnected, critical_disconnected, "
						  "warning_forecast, critical_forecast, alert_after and repeat_interval.");
		return refuse(text, start,
					  psprintf("Unrecognized setting \"%s\"", word));
	}
	if ((item->given & (1U << def)) != 0)
		return refuse(text, start, psprintf("Setting \"%s\" given twice for \"%s\"",
											word, item->pattern));
	*at += len;
	if (**at != '=')
		return refuse(text, *at, psprintf("Expected \"=\" after \"%s\"", word));
	(*at)++;

	len = strcspn(*at, ", \t\n\v\f\r");
	value = pnstrdup(*at, len);
	if (!parse_int(value, &item->values[def], threshold_defs[def].flags,
				   &hint))
	{
		if (hint != NULL)
			GUC_check_errhint("%s", hint);
		return refuse(text, *at, psprintf("Invalid value \"%s\" for \"%s\"",
										  value, word));
	}
	if (item->values[def] < -1)
		return refuse(text, *at, psprintf("Value \"%s\" for \"%s\" is below -1",
										  value, word));
	item->given |= 1U << def;
	*at += len;
	return true;
}

/*
 * Does a name match a pattern in which "*" stands for any characters?  When
 * the rest doesn't match, only the last star seen needs to take one
 * character more, so the time is bounded by the product of both lengths.
 */
static bool
pattern_matches(const char *pattern, const char *name)
{
	const char *star = NULL;
	const char *resume = NULL;

	while (*name != '\0')
	{
		if (*pattern == '*')
		{
			star = pattern++;
			resume = name;
		}
		else if (*pattern == *name)
		{
			pattern++;
			name++;
		}
		else if (star != NULL)
		{
			pattern = star + 1;
			name = ++resume;
		}
		else
			return false;
	}
	while (*pattern == '*')
		pattern++;
	return *pattern == '\0';
}
