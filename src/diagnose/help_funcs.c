/*-------------------------------------------------------------------------
 *
 * help_funcs.c
 *	  SQL: help().
 *
 * Nothing is written twice: functions and views are described by the first
 * line of their comments in the catalog, settings by their descriptions.
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
static char *first_line(char *text);

/*
 * help() - what there is: what sets up, what watches, the settings.
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

		if (strncmp(name, SETTING_PREFIX, strlen(SETTING_PREFIX)) != 0)
			continue;
		prk_put_text(&row, HELP_TOPIC, "setting");
		prk_put_text(&row, HELP_NAME, name);
		prk_put_text(&row, HELP_ARGUMENTS,
					 GetConfigOptionByName(name, NULL, false));
		prk_put_text(&row, HELP_DOES, settings[i]->short_desc);
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
 * What the object is for, by who may use it: monitors may watch.  NULL: it is
 * neither function nor view.
 */
static const char *
topic_of(Oid classid, Oid oid)
{
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

/* The first line of a text, which is cut; NULL stays NULL. */
static char *
first_line(char *text)
{
	if (text !=NULL)
		text[		strcspn(text, "\n")] = '\0';
	return text;
}
