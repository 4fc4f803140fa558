/*-------------------------------------------------------------------------
 *
 * leave.c
 *	  What else a replica that is deprovisioned serves, or is waited for by.
 *
 * Its role may let in other replicas, here or at a standby that has the role
 * by replication; settings of this server may wait for its name.  Neither
 * keeps deprovision() from its work, but each is told before the commit, and
 * also when it is only asked what it would do.
 *
 * IDENTIFICATION
 *	  src/provision/leave.c
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/xlog.h"
#include "lib/stringinfo.h"
#include "replication/syncrep.h"
#include "utils/builtins.h"
#include "utils/guc.h"
#include "utils/varlena.h"

#include "provision/leave.h"
#include "provision/role.h"
#include "sample/sample.h"

static char *sync_names_without(const char *name, bool *named);
static void warn_sync(const char *name);
static void warn_slots(const char *name);
static void append_quoted(StringInfo buf, const char *name);
static char *other_walsender(const PrkSample *sample, Oid role,
							 const char *name);
static void tell_users(const PrkSample *sample, const PrkRole *role,
					   const char *role_name, const char *name);

/*
 * A WARNING for each setting of this server that waits for the replica.
 */
void
prk_leave_warn(const char *name)
{
	/* no commit waits on a standby, and no logical walsender */
	if (RecoveryInProgress())
		return;
	warn_sync(name);
	warn_slots(name);
}

/* Tells that commits wait for the replica. */
static void
warn_sync(const char *name)
{
	bool		named;
	char	   *rest = sync_names_without(name, &named);

	if (named)
		ereport(WARNING,
				(errmsg("replica \"%s\" is named in synchronous_standby_names",
						name),
				 SyncRepConfig->num_sync >= SyncRepConfig->nmembers ?
				 errdetail("Without the replica each commit waits until its name is removed from the setting.") :
				 errdetail("Without the replica commits wait while fewer than %d of the others are connected.",
						   SyncRepConfig->num_sync),
				 errhint("First run: ALTER SYSTEM SET synchronous_standby_names = %s; then: SELECT pg_reload_conf();",
						 quote_literal_cstr(rest))));
}

/*
 * synchronous_standby_names without this name, palloc'd.  A "*" does not name
 * anybody.  Names are compared as the server does (SyncRepGetStandbyPriority).
 */
static char *
sync_names_without(const char *name, bool *named)
{
	StringInfoData names;
	int			left = 0;
	const char *member;

	*named = false;
	initStringInfo(&names);
	if (SyncRepConfig == NULL)
		return names.data;

	member = SyncRepConfig->member_names;
	for (int i = 0; i < SyncRepConfig->nmembers; i++)
	{
		if (pg_strcasecmp(member, name) == 0)
			*named = true;
		else
		{
			if (left++ > 0)
				appendStringInfoString(&names, ", ");
			if (strcmp(member, "*") == 0)
				appendStringInfoChar(&names, '*');
			else
				append_quoted(&names, member);
		}
		member += strlen(member) + 1;
	}
	if (left == 0)
		return names.data;
	return psprintf("%s %d (%s)",
					SyncRepConfig->syncrep_method == SYNC_REP_QUORUM ?
					"ANY" : "FIRST",
					Min(SyncRepConfig->num_sync, left), names.data);
}

/*
 * From 17 on logical walsenders send nothing that the slots in this setting
 * have not confirmed, whether they exist or not.
 */
static void
warn_slots(const char *name)
{
	const char *setting = GetConfigOption("synchronized_standby_slots", true,
										  false);
	List	   *slots = NIL;
	StringInfoData rest;
	bool		named = false;
	ListCell   *lc;

	if (setting == NULL || !SplitIdentifierString(pstrdup(setting), ',', &slots))
		return;
	initStringInfo(&rest);
	foreach(lc, slots)
	{
		const char *slot = lfirst(lc);

		if (strcmp(slot, name) == 0)
			named = true;
		else
			appendStringInfo(&rest, "%s%s", rest.len > 0 ? ", " : "", slot);
	}
	if (named)
		ereport(WARNING,
				(errmsg("replication slot \"%s\" is named in synchronized_standby_slots",
						name),
				 errdetail("Without the slot logical subscribers receive nothing until its name is removed from the setting."),
				 errhint("First run: ALTER SYSTEM SET synchronized_standby_slots = %s; then: SELECT pg_reload_conf();",
						 quote_literal_cstr(rest.data))));
}

/* Appends a name as synchronous_standby_names has it, in double quotes. */
static void
append_quoted(StringInfo buf, const char *name)
{
	appendStringInfoChar(buf, '"');
	for (const char *c = name; *c != '\0'; c++)
	{
		if (*c == '"')
			appendStringInfoChar(buf, '"');
		appendStringInfoChar(buf, *c);
	}
	appendStringInfoChar(buf, '"');
}

/*
 * Take the replica out of its role's comment, and drop the role when it was
 * the last and nothing else needs it; with keep_role leave both as they are.
 * Says who is known to use the role.  The name of a dropped role, or NULL.
 *
 * With dry_run only says it.  The caller holds the role's lock.
 */
const char *
prk_leave_role(const char *name, const char *role_name, bool keep_role,
			   bool dry_run)
{
	PrkRole		role;
	PrkSample  *sample;
	char	   *detail;

	if (RecoveryInProgress())
	{
		if (!keep_role)
			ereport(NOTICE,
					(errmsg("role \"%s\" stays because a standby cannot drop it",
							role_name),
					 errhint("When no replica uses it any more, run on the primary: SELECT * FROM replica_kit.deprovision('%s');",
							 name)));
		return NULL;
	}
	if (keep_role)
		return NULL;

	prk_role_look_up(role_name, &role);
	if (list_length(role.replicas) > 1)
	{
		if (!dry_run)
			prk_role_remove_replica(&role, name);
		return NULL;
	}

	sample = prk_sample_take(NULL);
	detail = other_walsender(sample, role.oid, name);
	if (detail != NULL || prk_role_is_needed(&role, &detail))
	{
		ereport(NOTICE,
				(errmsg("role \"%s\" stays because it serves something else",
						role_name),
				 detail ? errdetail_internal("%s", detail) : 0));
		if (!dry_run)
			prk_role_remove_replica(&role, name);
		return NULL;
	}

	tell_users(sample, &role, role_name, name);
	if (!dry_run)
		prk_role_drop(role_name);
	return role_name;
}

/*
 * Whom else the role serves just now, for a DETAIL, palloc'd: a replica that
 * was made by hand knows of no comment, and could not connect again.  NULL:
 * nobody.  A base backup ends by itself; the replica's own connection is the
 * one with its slot or, without, its name.  One that has not asked for a slot
 * yet is nobody's: it may be the replica, coming back for its own.
 */
static char *
other_walsender(const PrkSample *sample, Oid role, const char *name)
{
	for (int i = 0; i < sample->nreplicas; i++)
	{
		const PrkReplica *replica = &sample->replicas[i];

		if (replica->has_walsender && replica->userid == role &&
			replica->state != PRK_STATE_BACKUP &&
			replica->state != PRK_STATE_STARTUP &&
			strcmp(replica->name, name) != 0)
			return psprintf("\"%s\" is connected with it (PID %d).",
							replica->name, replica->pid);
	}
	return NULL;
}

/*
 * The role is to go.  Say so where the replica streams without its slot, which
 * nothing else tells; and where standbys have the role by replication, whose
 * connections this server does not see.
 */
static void
tell_users(const PrkSample *sample, const PrkRole *role,
		   const char *role_name, const char *name)
{
	const PrkReplica *standby = NULL;

	for (int i = 0; i < sample->nreplicas; i++)
	{
		const PrkReplica *replica = &sample->replicas[i];
		bool		own = strcmp(replica->name, name) == 0;

		if (!replica->has_walsender || replica->logical ||
			replica->state == PRK_STATE_BACKUP ||
			replica->state == PRK_STATE_STARTUP)
			continue;
		if (own && !replica->has_slot && replica->userid == role->oid)
			ereport(WARNING,
					(errmsg("replica \"%s\" is connected with role \"%s\" (PID %d)",
							name, role_name, replica->pid),
					 errdetail("It does not use its slot.  Without the role it cannot reconnect."),
					 errhint("To keep the role, run: SELECT * FROM replica_kit.deprovision('%s', keep_role => true);",
							 name)));
		else if (!own)
			standby = replica;
	}
	if (standby != NULL)
		ereport(NOTICE,
				(errmsg("role \"%s\" is also dropped on the standbys of this server, such as \"%s\"",
						role_name, standby->name),
				 errdetail("A replica that connects to one of them with this role cannot reconnect."),
				 errhint("To keep the role, run: SELECT * FROM replica_kit.deprovision('%s', keep_role => true);",
						 name)));
}

/*
 * What follows the name in a call of deprovision(), for a HINT.  A static
 * string.
 */
const char *
prk_leave_options(bool force, bool keep_role)
{
	if (force)
		return keep_role ? ", force => true, keep_role => true" :
			", force => true";
	return keep_role ? ", keep_role => true" : "";
}
