/*-------------------------------------------------------------------------
 *
 * farewell.c
 *	  DROP EXTENSION says which replicas it leaves behind.
 *
 * Roles, slots and lines of pg_hba.conf are no members of the extension: the
 * replicas go on without it.  Whoever drops it to be rid of the replicas is
 * told what stays.
 *
 * IDENTIFICATION
 *	  src/provision/farewell.c
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include <unistd.h>

#include "catalog/objectaccess.h"
#include "catalog/pg_extension.h"
#include "commands/extension.h"
#include "libpq/hba.h"
#include "replication/slot.h"
#include "utils/builtins.h"
#include "utils/guc.h"

#include "hba/hba.h"
#include "hba/hba_file.h"
#include "provision/farewell.h"
#include "provision/role.h"

static object_access_hook_type prev_object_access_hook = NULL;

static void tell_what_stays(ObjectAccessType access, Oid classId,
							Oid objectId, int subId, void *arg);
static List *add_name(List *names, const char *name);
static void warn(void);

/*
 * Has each DROP EXTENSION of this session looked at.  Called once, when the
 * library is loaded; where it is not preloaded, a session that has not used
 * the extension says nothing.
 */
void
prk_farewell_init(void)
{
	prev_object_access_hook = object_access_hook;
	object_access_hook = tell_what_stays;
}

/* The object access hook. */
static void
tell_what_stays(ObjectAccessType access, Oid classId, Oid objectId,
				int subId, void *arg)
{
	if (prev_object_access_hook)
		prev_object_access_hook(access, classId, objectId, subId, arg);

	if (access == OAT_DROP && classId == ExtensionRelationId)
	{
		char	   *name = get_extension_name(objectId);

		if (name != NULL && strcmp(name, "pg_replica_kit") == 0)
			warn();
	}
}

/* The list with the name, each once. */
static List *
add_name(List *names, const char *name)
{
	ListCell   *lc;

	foreach(lc, names)
	{
		if (strcmp(lfirst(lc), name) == 0)
			return names;
	}
	return lappend(names, pstrdup(name));
}

/*
 * A WARNING with what the known replicas have on this server; nothing if there
 * are none.  A pg_hba.conf that can't be read has no say: it must not keep
 * anybody from dropping the extension.
 */
static void
warn(void)
{
	int			nmarks;
	PrkRoleMark *marks = prk_role_marks(&nmarks);
	List	   *names = NIL;
	List	   *roles = NIL;
	int			nslots = 0;
	int			nlines = 0;
	StringInfoData list;
	ListCell   *lc;

	for (int i = 0; i < nmarks; i++)
	{
		names = add_name(names, marks[i].replica);
		roles = list_append_unique_oid(roles, marks[i].roleid);
	}
	if (access(HbaFileName, R_OK) == 0)
	{
		PrkHbaFile *file = prk_hba_file_read(CurrentMemoryContext);

		foreach(lc, prk_hba_managed(prk_hba_file_text(file)))
		{
			names = add_name(names, ((PrkHbaManaged *) lfirst(lc))->replica);
			nlines++;
		}
	}
	if (names == NIL)
		return;

	initStringInfo(&list);
	foreach(lc, names)
	{
		if (SearchNamedReplicationSlot(lfirst(lc), true) != NULL)
			nslots++;
		appendStringInfo(&list, "%s\"%s\"", list.len > 0 ? ", " : "",
						 (char *) lfirst(lc));
	}
	ereport(WARNING,
			(errmsg("the replicas of pg_replica_kit stay: replication slots: %d, lines in pg_hba.conf: %d, roles: %d",
					nslots, nlines, list_length(roles)),
			 errdetail("Replicas: %s.", list.data),
			 errhint("To remove one, create the extension again and run: SELECT * FROM replica_kit.deprovision(%s);",
					 quote_literal_cstr(linitial(names)))));
}
