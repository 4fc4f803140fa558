/*-------------------------------------------------------------------------
 *
 * help_funcs.c
 *	  SQL: help().
 *
 * Nothing is written twice: functions and views are described by the first
 * line of their comments in the catalog, settings by their descriptions; only
 * what the codes of diagnose() mean stands here.
 *
 * IDENTIFICATION
 *	  src/diagnose/help_funcs.c
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/genam.h"
#include "access/htup_details.h"
#include "access/table.h"
#include "catalog/dependency.h"
#include "catalog/indexing.h"
#include "catalog/pg_authid.h"
#include "catalog/pg_class.h"
#include "catalog/pg_depend.h"
#include "catalog/pg_extension.h"
#include "catalog/pg_proc.h"
#include "commands/comment.h"
#include "funcapi.h"
#include "utils/fmgroids.h"
#include "utils/lsyscache.h"
#include "utils/rel.h"
#include "utils/syscache.h"

#include "compat.h"
#include "judge/codes.h"
#include "sql.h"

#define SETTING_PREFIX	"replica_kit."

/* The columns of help(), in order. */
typedef enum HelpColumn
{
	HELP_TOPIC,
	HELP_NAME,
	HELP_ARGUMENTS,
	HELP_DOES,
	HELP_NCOLS
} HelpColumn;

static const PrkSignature help_signature = {
	.ncolumns = HELP_NCOLS,
	.columns = {
		[HELP_TOPIC] = TEXTOID,
		[HELP_NAME] = TEXTOID,
		[HELP_ARGUMENTS] = TEXTOID,
		[HELP_DOES] = TEXTOID
	}
};

/* What a code of diagnose() means. */
typedef struct Meaning
{
	const char *code;
	const char *does;
} Meaning;

static const Meaning meanings[] = {
	{"archive_failing",
	"WAL waits to be archived, and nothing is archived."},
	{"auth_failed",
	"The replica's password is wrong, missing, expired or of another kind."},
	{"checkpoint_blocked",
	"A checkpoint waits for a walsender that cannot end: its receiver is stalled."},
	{"collation_version_mismatch",
	"This standby sorts text in another way than the server that made the indexes."},
	{"disk_filling",
	"The disk of pg_wal will be full soon."},
	{"flush_slow",
	"The replica's disk does not keep up with the WAL that it receives, or takes none."},
	{"hba_error",
	"pg_hba.conf has an error with which the server would not load it, nor start."},
	{"hba_no_entry",
	"No rule of pg_hba.conf lets the replica in."},
	{"hba_rejects",
	"A reject rule of pg_hba.conf keeps the replica out."},
	{"hba_shadowed",
	"A rule of another method comes before the replica's own in pg_hba.conf."},
	{"library_outdated",
	"The server runs an older library of the kit than is installed: restart it."},
	{"logical_waits_for_standby",
	"Logical subscribers wait for a slot of synchronized_standby_slots."},
	{"network_slow",
	"WAL arrives at the replica more slowly than it is generated."},
	{"newer_timeline_exists",
	"There is a second primary: a newer timeline than this server's, or its upstream's."},
	{"no_password",
	"The upstream asks for a password, and this standby has none to send."},
	{"orphan_role",
	"The role of a replica is left; its slot and its rule are gone."},
	{"orphan_rule",
	"A line of pg_hba.conf is left of a replica that has neither slot nor role."},
	{"orphan_slot",
	"The slot of a replica is left and retains WAL; its role is gone."},
	{"other_cluster",
	"The upstream is not the server that this standby is a copy of."},
	{"other_timeline",
	"The replica has WAL that is not in its upstream's history."},
	{"parameters_too_low",
	"A setting of this standby is lower than its primary's, so replay has stopped."},
	{"promoted",
	"This server was promoted, and not all known replicas are attached to it yet."},
	{"receiver_stalled",
	"The replica is connected, but no data comes through."},
	{"reconnect_would_fail",
	"The replica streams, but its rule or its role would refuse its next connection."},
	{"recovery_target_set",
	"A recovery target is set on this standby: replay stops there, or ends."},
	{"reload_needed",
	"Remedies of other rows change settings, which take effect after a reload."},
	{"replay_conflict",
	"Replay on this standby waits for a session or a query."},
	{"replay_delayed",
	"Replay on this standby is delayed on purpose."},
	{"replay_paused",
	"Somebody has paused replay on this standby."},
	{"replay_slow",
	"The replica does not replay WAL as fast as it comes."},
	{"replica_down",
	"The replica does not stream any more: it is gone, or comes and leaves by itself."},
	{"replica_never_seen",
	"A provisioned replica has not connected within a day."},
	{"replica_not_attached",
	"A replica is known by its role, and has no slot on this server."},
	{"replica_unresponsive",
	"The replica fell silent and has not come back: its network, machine or process."},
	{"restart_would_fail",
	"The server would not start with its configuration files as they are."},
	{"restore_stalled",
	"A standby without an upstream has not restored anything from its archive for long."},
	{"role_cannot_replicate",
	"The replica's role has lost REPLICATION or LOGIN."},
	{"role_missing",
	"The replica's role does not exist."},
	{"slot_at_risk",
	"The slot will soon be lost, and the replica must then be rebuilt."},
	{"slot_held_by_transaction",
	"A long transaction makes a logical slot retain WAL that was confirmed."},
	{"slot_left_behind",
	"A slot on this standby retains WAL for a replica that follows another server now."},
	{"slot_lost",
	"The slot is lost: WAL that the replica needs is removed, and it must be rebuilt."},
	{"slot_missing",
	"The replica asks for a slot that does not exist."},
	{"slot_taken",
	"The replica's slot is in use by another connection."},
	{"slot_unlimited",
	"Slots without a replica retain WAL, and no limit stops them from filling the disk."},
	{"slot_unused",
	"A slot that the kit did not make has been inactive for a day and retains WAL."},
	{"slots_exhausted",
	"All of max_replication_slots are in use, and somebody was turned away."},
	{"sync_standby_missing",
	"Commits wait for a synchronous standby that is not connected."},
	{"timeline_not_followed",
	"This standby is told not to follow its upstream to a new timeline."},
	{"tls_required",
	"A hostssl rule would let the replica in, but it came without TLS."},
	{"upstream_file_unreadable",
	"The upstream cannot read a WAL or history file that the replica needs."},
	{"upstream_refused",
	"The upstream refuses this standby or replica for another reason, which is quoted."},
	{"upstream_unreachable",
	"This standby gets no answer from its upstream."},
	{"wal_removed",
	"WAL that the replica needs is removed, and no slot retained it."},
	{"walsenders_exhausted",
	"All of max_wal_senders are in use, and somebody was turned away."},
	{"worker_stale",
	"The worker does not run, or hangs: nothing is watched."},
	{"xmin_held_back",
	"A slot keeps dead rows from being removed."},
};

/* A function or view of the extension. */
typedef struct Member
{
	Oid			classid;
	Oid			oid;
	const char *topic;
} Member;

PG_FUNCTION_INFO_V1(pg_replica_kit_help_1_0);

static List *list_members(Oid extension);
static const char *topic_of(Oid classid, Oid oid);
static int	compare_members(const ListCell *a, const ListCell *b);
static char *arguments_of(Oid function);
static const char *meaning_of(const char *code);
static char *first_line(char *text);

/*
 * help() - what there is: what sets up, what watches, settings, diagnoses.
 */
Datum
pg_replica_kit_help_1_0(PG_FUNCTION_ARGS)
{
	Oid			extension = getExtensionOfObject(ProcedureRelationId,
												 fcinfo->flinfo->fn_oid);
	struct config_generic **settings;
	int			nsettings;
	ListCell   *cell;
	PrkRow		row;

	prk_rows_begin(fcinfo, &help_signature, &row);
	foreach(cell, list_members(extension))
	{
		const Member *member = lfirst(cell);
		bool		is_function = member->classid == ProcedureRelationId;

		prk_put_text(&row, HELP_TOPIC, member->topic);
		prk_put_text(&row, HELP_NAME, is_function ?
					 get_func_name(member->oid) : get_rel_name(member->oid));
		if (is_function)
			prk_put_text(&row, HELP_ARGUMENTS, arguments_of(member->oid));
		prk_put_text(&row, HELP_DOES,
					 first_line(GetComment(member->oid, member->classid, 0)));
		prk_rows_add(&row);
	}

	settings = prk_compat_guc_list(&nsettings);
	for (int i = 0; i < nsettings; i++)
	{
		const char *name = settings[i]->name;

		/* Two are no settings: a question and its answer (src/ask). */
		if (strncmp(name, SETTING_PREFIX, strlen(SETTING_PREFIX)) != 0 ||
			(settings[i]->flags & GUC_NO_SHOW_ALL) != 0)
			continue;
		prk_put_text(&row, HELP_TOPIC, "setting");
		prk_put_text(&row, HELP_NAME, name);
		prk_put_text(&row, HELP_ARGUMENTS,
					 GetConfigOptionByName(name, NULL, false));
		prk_put_text(&row, HELP_DOES, settings[i]->short_desc);
		prk_rows_add(&row);
	}

	for (int code = PRK_CODE_NONE + 1; code < PRK_NCODES; code++)
	{
		prk_put_text(&row, HELP_TOPIC, "diagnosis");
		prk_put_text(&row, HELP_NAME, prk_code_name(code));
		prk_put_text(&row, HELP_DOES, meaning_of(prk_code_name(code)));
		prk_rows_add(&row);
	}
	return (Datum) 0;
}

/* The functions and views of the extension, as Member, set-up first. */
static List *
list_members(Oid extension)
{
	Relation	rel = table_open(DependRelationId, AccessShareLock);
	ScanKeyData keys[2];
	SysScanDesc scan;
	HeapTuple	tuple;
	List	   *result = NIL;

	ScanKeyInit(&keys[0], Anum_pg_depend_refclassid, BTEqualStrategyNumber,
				F_OIDEQ, ObjectIdGetDatum(ExtensionRelationId));
	ScanKeyInit(&keys[1], Anum_pg_depend_refobjid, BTEqualStrategyNumber,
				F_OIDEQ, ObjectIdGetDatum(extension));
	scan = systable_beginscan(rel, DependReferenceIndexId, true, NULL, 2,
							  keys);
	while (HeapTupleIsValid(tuple = systable_getnext(scan)))
	{
		Form_pg_depend depend = (Form_pg_depend) GETSTRUCT(tuple);
		const char *topic = topic_of(depend->classid, depend->objid);
		Member	   *member;

		if (depend->deptype != DEPENDENCY_EXTENSION || topic == NULL)
			continue;
		member = palloc(sizeof(Member));
		member->classid = depend->classid;
		member->oid = depend->objid;
		member->topic = topic;
		result = lappend(result, member);
	}
	systable_endscan(scan);
	table_close(rel, AccessShareLock);

	list_sort(result, compare_members);
	return result;
}

/*
 * What the object is for, by who may use it: monitors may watch, procedures are
 * for applications.  NULL: it is neither function nor view.
 */
static const char *
topic_of(Oid classid, Oid oid)
{
	if (classid == ProcedureRelationId &&
		get_func_prokind(oid) == PROKIND_PROCEDURE)
		return "use";
	if (classid == ProcedureRelationId)
		return prk_compat_proc_aclcheck(oid, ROLE_PG_MONITOR,
										ACL_EXECUTE) == ACLCHECK_OK ?
			"watch" : "set up";
	if (classid == RelationRelationId && get_rel_relkind(oid) == RELKIND_VIEW)
		return "watch";
	return NULL;
}

/* Set-up first, then in the order of the script. */
static int
compare_members(const ListCell *a, const ListCell *b)
{
	const Member *member1 = lfirst(a);
	const Member *member2 = lfirst(b);
	int			topics = strcmp(member1->topic, member2->topic);

	if (topics != 0)
		return topics;
	return member1->oid < member2->oid ? -1 : 1;
}

/* "name, ip [, role, password]": what has a default stands in brackets. */
static char *
arguments_of(Oid function)
{
	HeapTuple	tuple = SearchSysCache1(PROCOID, ObjectIdGetDatum(function));
	Form_pg_proc proc;
	StringInfoData result;
	Oid		   *types;
	char	  **names;
	char	   *modes;
	int			needed;

	if (!HeapTupleIsValid(tuple))
		return NULL;			/* dropped meanwhile */
	proc = (Form_pg_proc) GETSTRUCT(tuple);
	needed = proc->pronargs - proc->pronargdefaults;
	initStringInfo(&result);

	/* Our functions have only input arguments, all of them with a name. */
	(void) get_func_arg_info(tuple, &types, &names, &modes);
	for (int i = 0; i < proc->pronargs && names != NULL; i++)
		appendStringInfo(&result, "%s%s%s",
						 i == needed ? (i > 0 ? " [" : "[") : "",
						 i > 0 ? ", " : "", names[i]);
	if (proc->pronargs > needed)
		appendStringInfoChar(&result, ']');
	ReleaseSysCache(tuple);
	return result.data;
}

/* The code in one line; NULL: it lacks one (a test finds that). */
static const char *
meaning_of(const char *code)
{
	for (size_t i = 0; i < lengthof(meanings); i++)
	{
		if (strcmp(meanings[i].code, code) == 0)
			return meanings[i].does;
	}
	return NULL;
}

/* The first line of a text, which is cut; NULL stays NULL. */
static char *
first_line(char *text)
{
	if (text !=NULL)
		text[		strcspn(text, "\n")] = '\0';
	return text;
}
