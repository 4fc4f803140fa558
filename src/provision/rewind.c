/*-------------------------------------------------------------------------
 *
 * rewind.c
 *	  The role with which pg_rewind of a replica reads files, for a time.
 *
 * pg_rewind reads the files of its source over an ordinary connection, which
 * the replica's own role may not have.  So it gets a role of its own, NAME_
 * rewind, with the replica's secret and the four functions that pg_rewind
 * calls, in the current database.  That its time is over is the server's own
 * business: the role's password is valid until then, and no longer, also where
 * the kit is not preloaded and whatever rule of pg_hba.conf lets it in.
 *
 * The session that ends the right is the role's own, and no session can drop
 * its own role.  So it takes everything from it and leaves it without LOGIN;
 * the next call about that replica drops it.
 *
 * Role and grants are transactional by themselves; the lines of pg_hba.conf
 * are left to commit (staged.c).
 *
 * IDENTIFICATION
 *	  src/provision/rewind.c
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/xlog.h"
#include "catalog/dependency.h"
#include "catalog/pg_authid.h"
#include "commands/comment.h"
#include "commands/dbcommands.h"
#include "commands/user.h"
#include "common/controldata_utils.h"
#include "libpq/crypt.h"
#include "miscadmin.h"
#include "nodes/makefuncs.h"
#include "parser/parse_node.h"
#include "postmaster/bgwriter.h"
#include "tcop/tcopprot.h"
#include "utils/acl.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/timestamp.h"

#include "compat.h"
#include "hba/hba.h"
#include "provision/provision_checks.h"
#include "provision/rewind.h"
#include "provision/role.h"
#include "provision/staged.h"

/* The comment on the role, before the replica's name. */
#define REWIND_MARK		"pg_replica_kit rewind: "

/* What pg_rewind 15 to 19 calls that not everybody may. */
#define REWIND_FUNCTIONS \
	"pg_catalog.pg_ls_dir(text, boolean, boolean), " \
	"pg_catalog.pg_stat_file(text, boolean), " \
	"pg_catalog.pg_read_binary_file(text), " \
	"pg_catalog.pg_read_binary_file(text, bigint, bigint, boolean), " \
	"replica_kit.end_rewind()"

static Oid	find_role(const char *rewind_role, const char *name);
static char *replicas_secret(const char *role_name);
static void alter_role(const char *rewind_role, bool exists, bool login,
					   const char *secret, TimestampTz until);
static void set_lines(const char *name, const char *rewind_role);
static bool has_rule(List *additions, const char *rule);
static void drop_lines(const char *name);
static void checkpoint_timeline(void);
static void grant(const char *statement);
static void take_rights(Oid roleid);

/*
 * Give the replica's pg_rewind the right to read files until that time, from
 * where the replica replicates.
 */
void
prk_rewind_allow(const char *name, const char *role_name, TimestampTz until)
{
	char	   *rewind_role = prk_hba_rewind_role(name);
	char	   *secret = replicas_secret(role_name);
	const char *database = get_database_name(MyDatabaseId);
	Oid			roleid;

	if (strlen(rewind_role) >= NAMEDATALEN)
		ereport(ERROR,
				(errcode(ERRCODE_NAME_TOO_LONG),
				 errmsg("replica name \"%s\" is too long for pg_rewind", name),
				 errdetail("Its role would be \"%s\".", rewind_role),
				 errhint("Have the replica cloned: run its script with --rebuild --full.")));
	if (strcmp(database, "replication") == 0)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("pg_hba.conf cannot tell database \"%s\" from replication",
						database),
				 errhint("Call this function in another database.")));

	roleid = find_role(rewind_role, name);
	alter_role(rewind_role, OidIsValid(roleid), true, secret, until);
	CreateSharedComments(get_role_oid(rewind_role, false), AuthIdRelationId,
						 psprintf(REWIND_MARK "%s", name));
	CommandCounterIncrement();

	grant(psprintf("GRANT EXECUTE ON FUNCTION " REWIND_FUNCTIONS " TO %s",
				   quote_identifier(rewind_role)));
	grant(psprintf("GRANT CONNECT ON DATABASE %s TO %s",
				   quote_identifier(database), quote_identifier(rewind_role)));
	set_lines(name, rewind_role);
	checkpoint_timeline();
	prk_staged_note(psprintf("allowed role \"%s\" to read files for pg_rewind until %s",
							 rewind_role, timestamptz_to_str(until)));
}

/*
 * The replica whose pg_rewind this session is, palloc'd; NULL if it is none.
 */
const char *
prk_rewind_of_session(void)
{
	char	   *comment = prk_role_comment(GetSessionUserId());

	if (comment == NULL ||
		strncmp(comment, REWIND_MARK, strlen(REWIND_MARK)) != 0)
		return NULL;
	return comment + strlen(REWIND_MARK);
}

/*
 * Take the right away, from the role's own session.
 */
void
prk_rewind_end(const char *name)
{
	char	   *rewind_role = prk_hba_rewind_role(name);

	take_rights(get_role_oid(rewind_role, false));
	alter_role(rewind_role, true, false, NULL, 0);
	drop_lines(name);
	prk_staged_note(psprintf("ended the right of role \"%s\" to read files",
							 rewind_role));
}

/*
 * Take the right away, and the role.  False: there was nothing.
 */
bool
prk_rewind_drop(const char *name)
{
	char	   *rewind_role = prk_hba_rewind_role(name);
	PrkRole		role;
	char	   *detail = NULL;

	drop_lines(name);
	if (strlen(rewind_role) >= NAMEDATALEN ||
		!OidIsValid(find_role(rewind_role, NULL)))
		return false;

	take_rights(get_role_oid(rewind_role, false));
	prk_role_look_up(rewind_role, &role);
	if (prk_role_is_needed(&role, &detail))
	{
		/* granted in another database, or somebody gave it something */
		alter_role(rewind_role, true, false, NULL, 0);
		ereport(NOTICE,
				(errmsg("role \"%s\" stays, without LOGIN", rewind_role),
				 detail ? errdetail_internal("%s", detail) : 0,
				 errhint("In that database run: SELECT replica_kit.revoke_rewind('%s');",
						 name)));
	}
	else
		prk_role_drop(rewind_role);
	prk_staged_note(psprintf("ended the right of role \"%s\" to read files",
							 rewind_role));
	return true;
}

/*
 * The role of that name, which must be one of ours: of this replica, or of any
 * (NULL).  InvalidOid: there is none.
 */
static Oid
find_role(const char *rewind_role, const char *name)
{
	Oid			roleid = get_role_oid(rewind_role, true);
	char	   *comment = OidIsValid(roleid) ? prk_role_comment(roleid) : NULL;
	size_t		len = strlen(REWIND_MARK);
	bool		ours;

	ours = comment != NULL && strncmp(comment, REWIND_MARK, len) == 0;
	if (!OidIsValid(roleid) || (ours && name == NULL) ||
		(ours && strcmp(comment + len, name) == 0))
		return roleid;
	if (name == NULL)
		return InvalidOid;
	ereport(ERROR,
			(errcode(ERRCODE_DUPLICATE_OBJECT),
			 errmsg("role \"%s\" already exists and was not made by pg_replica_kit",
					rewind_role),
			 errdetail("pg_rewind of replica \"%s\" would connect with it.",
					   name)));
	return InvalidOid;			/* not reached */
}

/*
 * The SCRAM secret of the replica's own role, palloc'd: the password that the
 * replica's machine keeps is right for the other role, too.
 */
static char *
replicas_secret(const char *role_name)
{
	bool		expired;
	char	   *secret = prk_role_secret(role_name, &expired);

	if (secret == NULL || expired ||
		get_password_type(secret) != PASSWORD_TYPE_SCRAM_SHA_256)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("role \"%s\" has no valid SCRAM secret", role_name),
				 errhint("Set password_encryption to scram-sha-256, and in psql run: \\password %s",
						 quote_identifier(role_name))));
	return secret;
}

/*
 * CREATE or ALTER ROLE.  Without LOGIN it keeps its secret, which is the
 * replica's own.
 */
static void
alter_role(const char *rewind_role, bool exists, bool login,
		   const char *secret, TimestampTz until)
{
	List	   *options = list_make1(makeDefElem("canlogin",
												 (Node *) makeBoolean(login), -1));

	if (login)
	{
		char	   *time = DatumGetCString(DirectFunctionCall1(timestamptz_out,
															   TimestampTzGetDatum(until)));

		options = lappend(options,
						  makeDefElem("password",
									  (Node *) makeString(pstrdup(secret)), -1));
		options = lappend(options,
						  makeDefElem("validUntil",
									  (Node *) makeString(time), -1));
	}
	if (exists)
	{
		AlterRoleStmt *stmt = makeNode(AlterRoleStmt);

		stmt->role = makeNode(RoleSpec);
		stmt->role->roletype = ROLESPEC_CSTRING;
		stmt->role->rolename = pstrdup(rewind_role);
		stmt->role->location = -1;
		stmt->options = options;
		stmt->action = +1;
		AlterRole(make_parsestate(NULL), stmt);
	}
	else
	{
		CreateRoleStmt *stmt = makeNode(CreateRoleStmt);

		stmt->stmt_type = ROLESTMT_ROLE;
		stmt->role = pstrdup(rewind_role);
		stmt->options = options;
		CreateRole(make_parsestate(NULL), stmt);
	}
	CommandCounterIncrement();
}

/*
 * Have the role let in at commit from where the replica replicates, and from
 * nowhere else.
 */
static void
set_lines(const char *name, const char *rewind_role)
{
	char	   *database = get_database_name(MyDatabaseId);
	List	   *lines = prk_hba_edit_managed(name);
	List	   *additions = NIL;
	bool		stale = false;
	ListCell   *lc;

	foreach(lc, lines)
	{
		PrkHbaManaged *line = lfirst(lc);
		PrkHbaAddition *addition;
		PrkAddress	address;

		if (line->rewind || line->address == NULL ||
			line->address[strspn(line->address, "0123456789abcdefABCDEF.:/")] != '\0')
			continue;
		prk_check_address(DatumGetInetPP(DirectFunctionCall1(inet_in,
															 CStringGetDatum(line->address))),
						  &address);
		addition = palloc0(sizeof(PrkHbaAddition));
		addition->replica = name;
		addition->database = database;
		addition->role = rewind_role;
		addition->address = address.text;
		addition->require_ssl = strncmp(line->rule, "hostssl", 7) == 0;
		addition->first = address.first;
		addition->last = address.last;
		addition->rule = prk_hba_rule(database, rewind_role, address.text,
									  addition->require_ssl);
		additions = lappend(additions, addition);
	}
	if (additions == NIL)
		ereport(WARNING,
				(errmsg("pg_hba.conf has no rule of replica \"%s\" that the kit manages",
						name),
				 errhint("Let role \"%s\" connect to database \"%s\" from that replica's machine.",
						 rewind_role, database)));

	foreach(lc, lines)
	{
		PrkHbaManaged *line = lfirst(lc);

		if (line->rewind && !has_rule(additions, line->rule))
			stale = true;
	}
	if (stale)
		drop_lines(name);
	foreach(lc, additions)
		prk_staged_rule(lfirst(lc));
}

/* Is this rule among the additions? */
static bool
has_rule(List *additions, const char *rule)
{
	ListCell   *lc;

	foreach(lc, additions)
	{
		if (strcmp(((PrkHbaAddition *) lfirst(lc))->rule, rule) == 0)
			return true;
	}
	return false;
}

/* Have the lines that let the role in removed at commit, if there are any. */
static void
drop_lines(const char *name)
{
	PrkHbaRemoval removal = {.replica = name,.rewind = true};
	ListCell   *lc;

	foreach(lc, prk_hba_edit_managed(name))
	{
		if (!((PrkHbaManaged *) lfirst(lc))->rewind)
			continue;
		prk_staged_revoke(&removal);
		break;
	}
}

/*
 * pg_rewind takes the timeline of its source from the control file, which has
 * the new one only after the first checkpoint since a promotion.  That may take
 * its time.
 */
static void
checkpoint_timeline(void)
{
	bool		crc_ok;
	ControlFileData *control = get_controlfile(DataDir, &crc_ok);

	if (!crc_ok ||
		control->checkPointCopy.ThisTimeLineID != GetWALInsertionTimeLine())
		RequestCheckpoint(CHECKPOINT_FAST | CHECKPOINT_FORCE | CHECKPOINT_WAIT);
}

/* Run a GRANT that names only what is ours or the server's. */
static void
grant(const char *statement)
{
	RawStmt    *raw = linitial_node(RawStmt, pg_parse_query(statement));

	ExecuteGrantStmt(castNode(GrantStmt, raw->stmt));
	CommandCounterIncrement();
}

/* As DROP OWNED BY: what it was granted in this database, and on databases. */
static void
take_rights(Oid roleid)
{
	shdepDropOwned(list_make1_oid(roleid), DROP_RESTRICT);
	CommandCounterIncrement();
}
