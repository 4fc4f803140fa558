/*-------------------------------------------------------------------------
 *
 * preflight_checks.c
 *	  The table of preflight()'s checks.
 *
 * Each check looks at the facts and reports what wants attention.  What a
 * restart would bring is judged, too: "next" is the value that the
 * configuration files hold.
 *
 * A fix never widens access, switches TLS, or needs a guess; where it would,
 * the row only says what is wanted.  Applied once and, where it takes one,
 * after a restart, a fix is proposed no more.
 *
 * IDENTIFICATION
 *	  src/diagnose/preflight_checks.c
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/xlog.h"
#include "miscadmin.h"
#include "postmaster/postmaster.h"
#include "replication/slot.h"
#include "replication/syncrep.h"
#include "replication/walsender.h"
#include "utils/builtins.h"
#include "utils/guc.h"
#include "utils/varlena.h"

#include "diagnose/preflight_checks.h"
#include "failures/log_level.h"
#include "format.h"

/* A clone takes two walsenders: the backup, and the WAL beside it. */
#define SENDERS_PER_CLONE	2

static void check_refusals(PrkPreflight *preflight);
static void check_hba(PrkPreflight *preflight);
static void check_wal_level(PrkPreflight *preflight);
static void check_senders(PrkPreflight *preflight);
static void check_slots(PrkPreflight *preflight);
static void check_listening(PrkPreflight *preflight);
static void check_listening_next(PrkPreflight *preflight);
static void check_unreadable(PrkPreflight *preflight);
static void check_sync(PrkPreflight *preflight);
static void check_slot_limit(PrkPreflight *preflight);
static void check_slotless(PrkPreflight *preflight);
static void check_disk(PrkPreflight *preflight);
static void check_sender_timeout(PrkPreflight *preflight);
static void check_hot_standby(PrkPreflight *preflight);
static void check_password_encryption(PrkPreflight *preflight);
static void check_log_level(PrkPreflight *preflight);
static void check_hba_owner(PrkPreflight *preflight);
static void check_recovery_target(PrkPreflight *preflight);
static void check_recovery(PrkPreflight *preflight);
static void check_rewind(PrkPreflight *preflight);
static void check_summaries(PrkPreflight *preflight);
static void check_ssl(PrkPreflight *preflight);
static void check_shutdown_timeout(PrkPreflight *preflight);
static void check_worker(PrkPreflight *preflight);
static void check_libraries(PrkPreflight *preflight);
static void check_tablespaces(PrkPreflight *preflight);

const PrkCheck prk_checks[] = {
	/* what the next restart would refuse */
	{"restart_would_fail", "critical", false, NULL, check_refusals},
	{"pg_hba", "critical", false,
	"a pg_hba.conf that the server loads; a restart would fail", check_hba},

	/* what a replica needs */
	{"wal_level", "critical", true, "replica or logical", check_wal_level},
	{"max_wal_senders", "critical", true, NULL, check_senders},
	{"max_replication_slots", "critical", true, NULL, check_slots},
	{"listen_addresses", "critical", true,
	"an address that replicas reach, or '*'", check_listening},
	{"listen_addresses", "critical", false,
	"an address that replicas reach, or '*'", check_listening_next},
	{"unreadable_files", "critical", false,
		"readable by the server's user, or out of the data directory: a base backup fails",
	check_unreadable},

	/* what endangers this server, or its replicas */
	{"synchronous_standby_names", "critical", false,
	"the standbys that it names: commits wait for them", check_sync},
	{"max_slot_wal_keep_size", "warning", false, NULL, check_slot_limit},
	{"wal_keep_size", "warning", false,
	"a slot for each, or wal_keep_size", check_slotless},
	{"wal_disk", "critical", false, NULL, check_disk},
	{"wal_sender_timeout", "warning", false, "a minute or so",
	check_sender_timeout},
	{"hot_standby", "warning", true, "on", check_hot_standby},
	{"password_encryption", "warning", false,
		"scram-sha-256: what the rules of replicas ask for",
	check_password_encryption},
	{"log_min_messages", "warning", false,
		"error or lower: what is not logged is not seen by connection_errors()",
	check_log_level},
	{"pg_hba_owner", "warning", false,
	"the rules of replicas in its template", check_hba_owner},
	{"recovery_settings", "warning", false,
		"none: a replica that is cloned with it stops there, or promotes itself",
	check_recovery_target},

	/* what is good to know before */
	{"recovery_settings", "info", false,
	"wanted on a replica, too, or none", check_recovery},
	{"pg_rewind", "info", true,
		"data checksums or wal_log_hints, else an old primary must be cloned again",
	check_rewind},
	{"summarize_wal", "info", false,
		"on: then its changed blocks are enough; costs about 1 % of a core, and 50 kB for each GB of WAL",
	check_summaries},
	{"ssl", "info", false,
	"on, with a certificate, and require_ssl for the replicas", check_ssl},
	{"wal_sender_shutdown_timeout", "info", false,
		"-1: a server that is stopped, for a switchover too, waits until its replicas have all WAL",
	check_shutdown_timeout},
	{"worker", "info", true,
	"pg_replica_kit in shared_preload_libraries", check_worker},
	{"libraries", "info", false,
		"installed on the replica's machine before it is cloned",
	check_libraries},
	{"tablespaces", "info", false,
		"the same directories, empty, on the replica's machine",
	check_tablespaces},
};

const int	prk_nchecks = lengthof(prk_checks);

static void report(PrkPreflight *preflight, const char *current,
				   const char *setting, const char *value);
static const char *in_force(const char *name);
static bool is_on(const char *name);
static bool only_loopback(const char *addresses);
static void report_recovery(PrkPreflight *preflight, const char *name,
							const char *ordinary, bool has_fix);
static bool has_library(const char *list, const char *library);
static const char *slot_limit(const PrkPreflightFacts *facts);

/* Reports what the check that runs has found; see prk_preflight_report(). */
static void
report(PrkPreflight *preflight, const char *current, const char *setting,
	   const char *value)
{
	prk_preflight_report(preflight, current, preflight->check->wanted,
						 setting, value);
}

/* The value in force, "" for a setting that this server does not have. */
static const char *
in_force(const char *name)
{
	const char *value = prk_config_now(name);

	return value ? value : "";
}

/* Is the boolean on in this server? */
static bool
is_on(const char *name)
{
	return strcmp(in_force(name), "on") == 0;
}

/*
 * What the next restart would refuse
 */

/* Some of them can be mended: by the value that is in force. */
static void
check_refusals(PrkPreflight *preflight)
{
	ListCell   *cell;

	foreach(cell, preflight->facts->refusals)
	{
		const PrkRefusal *refusal = lfirst(cell);

		prk_preflight_report(preflight, refusal->words, refusal->wanted,
							 refusal->setting, refusal->value);
	}
}

/* The finding is the parser's own words, with the line. */
static void
check_hba(PrkPreflight *preflight)
{
	if (preflight->facts->hba_error != NULL)
		report(preflight, preflight->facts->hba_error, NULL, NULL);
}

/*
 * What a replica needs
 */

/* With minimal WAL there are neither slots nor walsenders. */
static void
check_wal_level(PrkPreflight *preflight)
{
	const char *next = prk_config_next(preflight->facts->config, "wal_level");

	if (strcmp(in_force("wal_level"), "minimal") == 0)
		report(preflight, "minimal", "wal_level",
			   pg_strcasecmp(next, "minimal") == 0 ? "'replica'" : NULL);
}

/*
 * Those that clone at the same time are the last one only: the others stream.
 */
static void
check_senders(PrkPreflight *preflight)
{
	const PrkPreflightFacts *facts = preflight->facts;
	int			needed = preflight->replicas - 1 + SENDERS_PER_CLONE;
	int			next = prk_config_next_int(facts->config, "max_wal_senders");
	const char *next_level = prk_config_next(facts->config, "wal_level");
	const char *value = NULL;

	if (max_wal_senders - facts->senders_used >= needed)
		return;

	/* Where WAL is minimal, and has to be, any would keep it from starting. */
	if (next - facts->senders_used < needed &&
		!(pg_strcasecmp(next_level, "minimal") == 0 &&
		  prk_config_on_command_line("wal_level")))
		value = psprintf("%d",
						 facts->senders_used + preflight->replicas + 9);
	prk_preflight_report(preflight,
						 psprintf("%d of %d free",
								  Max(max_wal_senders - facts->senders_used, 0),
								  max_wal_senders),
						 psprintf("%d free: a clone takes two", needed),
						 "max_wal_senders", value);
}

/* One for each replica. */
static void
check_slots(PrkPreflight *preflight)
{
	const PrkPreflightFacts *facts = preflight->facts;
	int			needed = preflight->replicas;
	int			next = prk_config_next_int(facts->config,
										   "max_replication_slots");

	if (max_replication_slots - facts->slots_used >= needed)
		return;
	prk_preflight_report(preflight,
						 psprintf("%d of %d free",
								  max_replication_slots - facts->slots_used,
								  max_replication_slots),
						 psprintf("%d free", needed), "max_replication_slots",
						 next - facts->slots_used < needed ?
						 psprintf("%d", facts->slots_used + needed + 9) : NULL);
}

/* No fix: to listen is to widen access. */
static void
check_listening(PrkPreflight *preflight)
{
	if (only_loopback(in_force("listen_addresses")))
		report(preflight,
			   psprintf("%s, port %d",
						quote_literal_cstr(in_force("listen_addresses")),
						PostPortNumber),
			   "listen_addresses", NULL);
}

/* It is reachable now, and will not be after a restart. */
static void
check_listening_next(PrkPreflight *preflight)
{
	const char *next = prk_config_next(preflight->facts->config,
									   "listen_addresses");

	if (!only_loopback(in_force("listen_addresses")) && only_loopback(next))
		report(preflight,
			   psprintf("%s after a restart, port %d",
						quote_literal_cstr(next), PostPortNumber),
			   "listen_addresses", NULL);
}

/* Would nobody from another machine reach these addresses? */
static bool
only_loopback(const char *addresses)
{
	List	   *hosts = NIL;
	ListCell   *cell;

	/* a list that can't be split would have kept the server from starting */
	(void) SplitGUCList(pstrdup(addresses), ',', &hosts);
	foreach(cell, hosts)
	{
		const char *host = lfirst(cell);

		if (strcmp(host, "localhost") != 0 && strcmp(host, "::1") != 0 &&
			strncmp(host, "127.", 4) != 0)
			return false;
	}
	return true;
}

/* No fix: whose files these are, nobody knows. */
static void
check_unreadable(PrkPreflight *preflight)
{
	if (preflight->facts->unreadable != NULL)
		report(preflight, preflight->facts->unreadable, NULL, NULL);
}

/*
 * What endangers this server, or its replicas
 */

/* No fix: to wait, or not to, is a matter of what a commit promises. */
static void
check_sync(PrkPreflight *preflight)
{
	const PrkPreflightFacts *facts = preflight->facts;

	if (facts->sync_there < facts->sync_wanted)
		report(preflight,
			   psprintf("%s: %d of %d connected",
						quote_literal_cstr(SyncRepStandbyNames),
						facts->sync_there, facts->sync_wanted),
			   "synchronous_standby_names", NULL);
}

/* Where the free space is not known, a limit would be a guess. */
static void
check_slot_limit(PrkPreflight *preflight)
{
	const PrkPreflightFacts *facts = preflight->facts;
	char		size[PRK_FORMAT_LEN];

	if (max_slot_wal_keep_size_mb != -1)
		return;
	prk_preflight_report(preflight, "unlimited: a dead replica fills the disk",
						 psprintf("a limit that the disk can bear; %s are free",
								  facts->has_wal_free ?
								  prk_format_size(size, facts->wal_free) :
								  "an unknown amount"),
						 "max_slot_wal_keep_size",
						 facts->has_wal_free ? slot_limit(facts) : NULL);
}

/*
 * Half of what is free, on top of what is held: less would cost a slot that
 * is there its WAL at once.
 */
static const char *
slot_limit(const PrkPreflightFacts *facts)
{
	int64		least = Max((int64) 64 << 20, (int64) 4 * wal_segment_size);

	if (facts->wal_free >= (int64) 16 << 30)
		return psprintf("'" INT64_FORMAT "GB'",
						(facts->retained + facts->wal_free / 2) >> 30);
	return psprintf("'" INT64_FORMAT "MB'",
					(facts->retained + Max(facts->wal_free / 2, least)) >> 20);
}

/* No fix: which replica is to have a slot, is not known here. */
static void
check_slotless(PrkPreflight *preflight)
{
	if (preflight->facts->slotless != NULL &&
		strcmp(in_force("wal_keep_size"), "0") == 0)
		report(preflight,
			   psprintf("no WAL is kept for replicas without a slot: %s",
						preflight->facts->slotless),
			   "wal_keep_size", NULL);
}

/* Checkpoints let that much WAL come together. */
static void
check_disk(PrkPreflight *preflight)
{
	const PrkPreflightFacts *facts = preflight->facts;
	char		size[PRK_FORMAT_LEN];

	if (facts->has_wal_free &&
		facts->wal_free < (int64) max_wal_size_mb * 1024 * 1024)
		prk_preflight_report(preflight,
							 psprintf("%s free beside pg_wal",
									  prk_format_size(size, facts->wal_free)),
							 psprintf("more than max_wal_size, %s",
									  GetConfigOptionByName("max_wal_size", NULL,
															false)),
							 NULL, NULL);
}

/* Without it, only TCP notices that a replica has gone. */
static void
check_sender_timeout(PrkPreflight *preflight)
{
	if (wal_sender_timeout == 0)
		report(preflight, "off: a replica that vanished keeps its slot active",
			   "wal_sender_timeout", "'1min'");
}

/* It has no effect here, but the replica is cloned with it. */
static void
check_hot_standby(PrkPreflight *preflight)
{
	if (!is_on("hot_standby"))
		report(preflight, "off: a replica cloned from here answers no query",
			   "hot_standby",
			   prk_config_next_bool(preflight->facts->config, "hot_standby") ?
			   NULL : "on");
}

/* The secrets that exist stay as they are. */
static void
check_password_encryption(PrkPreflight *preflight)
{
	const char *current = in_force("password_encryption");

	if (strcmp(current, "scram-sha-256") != 0)
		report(preflight, current, "password_encryption", "'scram-sha-256'");
}

/* Do those processes log whose messages others wait for? */
static void
check_log_level(PrkPreflight *preflight)
{
	const char *current = in_force("log_min_messages");
	const char *hidden = prk_log_level_hidden();

	if (hidden != NULL)
		report(preflight, psprintf("%s: too high for %s", current, hidden),
			   "log_min_messages",
			   quote_literal_cstr(prk_log_level_remedy(current)));
}

/* No fix: the template is elsewhere. */
static void
check_hba_owner(PrkPreflight *preflight)
{
	if (preflight->facts->hba_owner != NULL)
		report(preflight,
			   psprintf("pg_hba.conf seems to be managed by %s",
						preflight->facts->hba_owner),
			   NULL, NULL);
}

/*
 * Where recovery is to end, left by one that has ended here.  On a primary
 * it has no effect; a replica that is cloned with it stops, or promotes
 * itself, at the next commit.  On a standby it may be meant.
 */
static void
check_recovery_target(PrkPreflight *preflight)
{
	static const char *const targets[] = {
		"recovery_target", "recovery_target_lsn", "recovery_target_name",
		"recovery_target_time", "recovery_target_xid"
	};

	for (size_t i = 0; i < lengthof(targets); i++)
		report_recovery(preflight, targets[i], "",
						!preflight->facts->in_recovery);
}

/* What else recovery reads, and a replica takes over with the files. */
static void
check_recovery(PrkPreflight *preflight)
{
	static const char *const settings[][2] = {
		{"archive_cleanup_command", ""},
		{"promote_trigger_file", ""},	/* up to 15 */
		{"recovery_end_command", ""},
		{"recovery_min_apply_delay", "0"},
		{"recovery_target_action", "pause"},
		{"recovery_target_timeline", "latest"},
		{"restore_command", ""}
	};

	for (size_t i = 0; i < lengthof(settings); i++)
		report_recovery(preflight, settings[i][0], settings[i][1], false);
}

/*
 * Reports a setting of recovery's that the files hold.  Commands may hold
 * secrets, so values are not shown.
 */
static void
report_recovery(PrkPreflight *preflight, const char *name, const char *ordinary,
				bool has_fix)
{
	const char *next = prk_config_next(preflight->facts->config, name);

	if (next[0] != '\0' && pg_strcasecmp(next, ordinary) != 0)
		report(preflight, psprintf("%s is set", name), name,
			   has_fix ? "''" : NULL);
}

/*
 * What is good to know before
 */

/* Either is enough for pg_rewind. */
static void
check_rewind(PrkPreflight *preflight)
{
	/* what is being switched on, as 19's betas could, is not enough for it */
	if (!is_on("data_checksums") && !is_on("wal_log_hints"))
		report(preflight, "neither data checksums nor wal_log_hints",
			   "wal_log_hints",
			   prk_config_next_bool(preflight->facts->config,
									"wal_log_hints") ? NULL : "on");
}

/*
 * A setting of 17's.  The server does not start with it where WAL is minimal,
 * for which check_wal_level() has the fix, if there can be one.
 */
static void
check_summaries(PrkPreflight *preflight)
{
	const char *next_level = prk_config_next(preflight->facts->config,
											 "wal_level");

	if (strcmp(in_force("summarize_wal"), "off") == 0)
		report(preflight, "off: a replica whose slot is lost must be cloned again",
			   "summarize_wal",
			   pg_strcasecmp(next_level, "minimal") == 0 &&
			   prk_config_on_command_line("wal_level") ? NULL : "on");
}

/* No fix: it takes a certificate, and clients may not be ready. */
static void
check_ssl(PrkPreflight *preflight)
{
	if (!is_on("ssl"))
		report(preflight, "off: replication is not encrypted", "ssl", NULL);
}

/* A setting of 19's */
static void
check_shutdown_timeout(PrkPreflight *preflight)
{
	const char *current = in_force("wal_sender_shutdown_timeout");

	if (current[0] != '\0' && strcmp(current, "-1") != 0)
		report(preflight,
			   GetConfigOptionByName("wal_sender_shutdown_timeout", NULL, false),
			   "wal_sender_shutdown_timeout", "-1");
}

/* The fix appends to the list that the next start reads. */
static void
check_worker(PrkPreflight *preflight)
{
	const char *next = prk_config_next(preflight->facts->config,
									   "shared_preload_libraries");
	StringInfoData value;
	ListCell   *cell;

	if (has_library(in_force("shared_preload_libraries"), "pg_replica_kit"))
		return;
	initStringInfo(&value);
	if (!has_library(next, "pg_replica_kit"))
	{
		foreach(cell, prk_config_libraries(next))
			appendStringInfo(&value, "%s, ",
							 quote_literal_cstr(lfirst(cell)));
		appendStringInfoString(&value, "'pg_replica_kit'");
	}
	report(preflight, "pg_replica_kit is not preloaded: no worker watches",
		   "shared_preload_libraries", value.len > 0 ? value.data : NULL);
}

/* Does the list of libraries have this one, with or without a path? */
static bool
has_library(const char *list, const char *library)
{
	ListCell   *cell;

	foreach(cell, prk_config_libraries(list))
	{
		const char *name = last_dir_separator(lfirst(cell));

		if (strcmp(name ? name + 1 : lfirst(cell), library) == 0)
			return true;
	}
	return false;
}

/* A replica that lacks one of them does not start. */
static void
check_libraries(PrkPreflight *preflight)
{
	StringInfoData names;
	ListCell   *cell;

	initStringInfo(&names);
	foreach(cell, prk_config_libraries(in_force("shared_preload_libraries")))
	{
		if (!has_library(lfirst(cell), "pg_replica_kit"))
			appendStringInfo(&names, "%s%s", names.len > 0 ? ", " : "",
							 (char *) lfirst(cell));
	}
	if (names.len > 0)
		report(preflight, psprintf("preloaded here: %s", names.data), NULL,
			   NULL);
}

/* A clone puts them to the same paths, unless told otherwise. */
static void
check_tablespaces(PrkPreflight *preflight)
{
	if (preflight->facts->tablespaces != NULL)
		report(preflight, preflight->facts->tablespaces, NULL, NULL);
}
