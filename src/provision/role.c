/*-------------------------------------------------------------------------
 *
 * role.c
 *	  The replication role and its SCRAM secret, and whose a role is.
 *
 * A role is the one part of a provisioned replica that is transactional by
 * itself, so everything here happens at once, by the server's own CREATE,
 * ALTER and DROP ROLE in C.  The secret is computed before: no plain password
 * is ever in a statement, and so in no log, view or WAL record.
 *
 * That the kit made a role is told by its comment, "pg_replica_kit: NAME[,
 * NAME...]", which survives pg_dumpall, pg_upgrade and promotion.
 *
 * IDENTIFICATION
 *	  src/provision/role.c
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/genam.h"
#include "access/htup_details.h"
#include "access/table.h"
#include "access/xact.h"
#include "catalog/dependency.h"
#include "catalog/indexing.h"
#include "catalog/pg_auth_members.h"
#include "catalog/pg_authid.h"
#include "catalog/pg_shdescription.h"
#include "commands/comment.h"
#include "commands/user.h"
#include "common/string.h"
#include "libpq/crypt.h"
#include "libpq/scram.h"
#include "mb/pg_wchar.h"
#include "miscadmin.h"
#include "nodes/makefuncs.h"
#include "nodes/parsenodes.h"
#include "parser/parse_node.h"
#include "utils/acl.h"
#include "utils/builtins.h"
#include "utils/fmgroids.h"
#include "utils/syscache.h"
#include "utils/timestamp.h"

#include "compat.h"
#include "provision/role.h"

/*
 * 32 of 62 letters and digits: 190 bits.  No character that any shell, URI,
 * passfile or connection string would want quoted.
 */
#define PASSWORD_LEN		32

static int	compare_marks(const void *a, const void *b);
static char *build_secret(const char *password);
static List *parse_mark(const char *comment);
static List *read_mark(Oid roleid);
static char *comment_text(Relation rel, HeapTuple tuple);
static void set_mark(Oid roleid, List *replicas);
static bool has_membership(Oid roleid);
static bool list_has(List *list, const char *name);

/*
 * Look a role up by name.  The result's list is palloc'd.
 */
void
prk_role_look_up(const char *name, PrkRole *role)
{
	HeapTuple	tuple;
	Form_pg_authid form;
	char	   *secret;
	bool		expired;

	memset(role, 0, sizeof(*role));

	tuple = SearchSysCache1(AUTHNAME, CStringGetDatum(name));
	if (!HeapTupleIsValid(tuple))
		return;
	form = (Form_pg_authid) GETSTRUCT(tuple);
	role->oid = form->oid;
	role->can_login = form->rolcanlogin;
	role->can_replicate = form->rolreplication;
	role->superuser = form->rolsuper;
	ReleaseSysCache(tuple);

	secret = prk_role_secret(name, &expired);
	if (secret == NULL)
		role->secret = PRK_SECRET_NONE;
	else if (expired)
		role->secret = PRK_SECRET_EXPIRED;
	else if (get_password_type(secret) == PASSWORD_TYPE_SCRAM_SHA_256)
		role->secret = PRK_SECRET_SCRAM;
	else
		role->secret = PRK_SECRET_MD5;

	role->replicas = read_mark(role->oid);
	role->ours = role->replicas != NIL;
}

/*
 * The role's secret as the catalog has it, palloc'd, or NULL; and whether its
 * time is over.  get_role_password() is for sessions that begin: from 19 on it
 * raises an error in any other where that time is near.
 */
char *
prk_role_secret(const char *name, bool *expired)
{
	HeapTuple	tuple = SearchSysCache1(AUTHNAME, CStringGetDatum(name));
	char	   *secret = NULL;
	Datum		value;
	bool		isnull;

	*expired = false;
	if (!HeapTupleIsValid(tuple))
		return NULL;
	value = SysCacheGetAttr(AUTHNAME, tuple, Anum_pg_authid_rolpassword,
							&isnull);
	if (!isnull)
		secret = TextDatumGetCString(value);
	value = SysCacheGetAttr(AUTHNAME, tuple, Anum_pg_authid_rolvaliduntil,
							&isnull);
	if (!isnull)
		*expired = DatumGetTimestampTz(value) < GetCurrentTimestamp();
	ReleaseSysCache(tuple);

	return secret;
}

/*
 * The name of the role that carries this replica in its comment, palloc'd;
 * NULL when none does.  Scans pg_shdescription, which has a row for each
 * comment on a role, database or tablespace: few.
 */
char *
prk_role_of_replica(const char *replica)
{
	char	   *result = NULL;
	Relation	rel;
	SysScanDesc scan;
	HeapTuple	tuple;

	rel = table_open(SharedDescriptionRelationId, AccessShareLock);
	scan = systable_beginscan(rel, InvalidOid, false, NULL, 0, NULL);
	while (result == NULL &&
		   HeapTupleIsValid(tuple = systable_getnext(scan)))
	{
		Form_pg_shdescription form = (Form_pg_shdescription) GETSTRUCT(tuple);

		if (form->classoid == AuthIdRelationId &&
			list_has(parse_mark(comment_text(rel, tuple)), replica))
			result = GetUserNameFromId(form->objoid, true);
	}
	systable_endscan(scan);
	table_close(rel, AccessShareLock);

	return result;
}

/*
 * All replicas in the comments on roles, palloc'd, by the replica's name; of
 * one that several roles carry, in the order in which prk_role_of_replica()
 * finds them.  One scan of pg_shdescription, for who asks about many replicas.
 */
PrkRoleMark *
prk_role_marks(int *nmarks)
{
	int			room = 64;
	PrkRoleMark *marks = palloc(room * sizeof(PrkRoleMark));
	Relation	rel;
	SysScanDesc scan;
	HeapTuple	tuple;

	*nmarks = 0;
	rel = table_open(SharedDescriptionRelationId, AccessShareLock);
	scan = systable_beginscan(rel, InvalidOid, false, NULL, 0, NULL);
	while (HeapTupleIsValid(tuple = systable_getnext(scan)))
	{
		Form_pg_shdescription form = (Form_pg_shdescription) GETSTRUCT(tuple);
		ListCell   *lc;

		if (form->classoid != AuthIdRelationId)
			continue;
		foreach(lc, parse_mark(comment_text(rel, tuple)))
		{
			if (*nmarks == room)
			{
				room *= 2;
				marks = repalloc(marks, room * sizeof(PrkRoleMark));
			}
			marks[*nmarks].replica = lfirst(lc);
			marks[*nmarks].roleid = form->objoid;
			marks[*nmarks].place = *nmarks;
			(*nmarks)++;
		}
	}
	systable_endscan(scan);
	table_close(rel, AccessShareLock);

	qsort(marks, *nmarks, sizeof(PrkRoleMark), compare_marks);
	return marks;
}

/*
 * The first of these marks that is of this replica, which those after it may
 * be, too; NULL if there is none.
 */
const PrkRoleMark *
prk_role_marks_of(const PrkRoleMark *marks, int nmarks, const char *replica)
{
	int			low = 0;
	int			high = nmarks;

	while (low < high)
	{
		int			middle = low + (high - low) / 2;

		if (strcmp(marks[middle].replica, replica) < 0)
			low = middle + 1;
		else
			high = middle;
	}
	return low < nmarks && strcmp(marks[low].replica, replica) == 0 ?
		&marks[low] : NULL;
}

/* qsort comparator: by replica, then as they were read */
static int
compare_marks(const void *a, const void *b)
{
	const PrkRoleMark *mark1 = a;
	const PrkRoleMark *mark2 = b;
	int			order = strcmp(mark1->replica, mark2->replica);

	return order != 0 ? order : mark1->place - mark2->place;
}

/*
 * A new random password, palloc'd.  Raises an error when the system has no
 * randomness to give.
 */
char *
prk_role_make_password(void)
{
	static const char alphabet[] =
	"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789";
	const int	nletters = sizeof(alphabet) - 1;
	char	   *result = palloc(PASSWORD_LEN + 1);
	int			len = 0;

	while (len < PASSWORD_LEN)
	{
		uint8		byte;

		if (!pg_strong_random(&byte, sizeof(byte)))
			ereport(ERROR,
					(errcode(ERRCODE_INTERNAL_ERROR),
					 errmsg("could not generate a random password")));

		/* drop the rest that would make some letters likelier */
		if (byte < 256 / nletters * nletters)
			result[len++] = alphabet[byte % nletters];
	}
	result[len] = '\0';

	return result;
}

/*
 * CREATE ROLE name LOGIN REPLICATION PASSWORD, with our comment.  Raises what
 * the server raises (reserved name, password policy by check_password_hook).
 */
void
prk_role_create(const char *name, const char *password, const char *replica)
{
	CreateRoleStmt *stmt = makeNode(CreateRoleStmt);
	Oid			roleid;

	stmt->stmt_type = ROLESTMT_ROLE;
	stmt->role = pstrdup(name);
	stmt->options =
		list_make3(makeDefElem("canlogin", (Node *) makeBoolean(true), -1),
				   makeDefElem("isreplication", (Node *) makeBoolean(true), -1),
				   makeDefElem("password",
							   (Node *) makeString(build_secret(password)),
							   -1));

	roleid = CreateRole(make_parsestate(NULL), stmt);
	CommandCounterIncrement();

	set_mark(roleid, list_make1(pstrdup(replica)));
}

/*
 * Note in the comment that the role serves one replica more.
 */
void
prk_role_add_replica(const PrkRole *role, const char *replica)
{
	if (!list_has(role->replicas, replica))
		set_mark(role->oid, lappend(list_copy(role->replicas),
									pstrdup(replica)));
}

/*
 * Note in the comment that the role serves one replica less.
 */
void
prk_role_remove_replica(const PrkRole *role, const char *replica)
{
	List	   *rest = NIL;
	ListCell   *lc;

	foreach(lc, role->replicas)
	{
		if (strcmp(lfirst(lc), replica) != 0)
			rest = lappend(rest, lfirst(lc));
	}
	set_mark(role->oid, rest);
}

/*
 * Does the role own something, or serve anything besides the replicas in its
 * comment?  Then it may not be dropped, and *detail (palloc'd, may stay NULL)
 * says what there is.
 */
bool
prk_role_is_needed(const PrkRole *role, char **detail)
{
	char	   *log_detail = NULL;

	*detail = NULL;
	if (role->superuser)
	{
		*detail = pstrdup("The role is a superuser.");
		return true;
	}
	if (has_membership(role->oid))
	{
		*detail = pstrdup("The role is a member of another role, or has members.");
		return true;
	}

	return checkSharedDependencies(AuthIdRelationId, role->oid,
								   detail, &log_detail);
}

/*
 * DROP ROLE name.  Raises an error where prk_role_is_needed() is true.
 */
void
prk_role_drop(const char *name)
{
	DropRoleStmt *stmt = makeNode(DropRoleStmt);
	RoleSpec   *spec = makeNode(RoleSpec);

	spec->roletype = ROLESPEC_CSTRING;
	spec->rolename = pstrdup(name);
	spec->location = -1;
	stmt->roles = list_make1(spec);

	DropRole(stmt);
	CommandCounterIncrement();
}

/*
 * ALTER ROLE name PASSWORD.
 */
void
prk_role_set_password(const char *name, const char *password)
{
	AlterRoleStmt *stmt = makeNode(AlterRoleStmt);
	RoleSpec   *spec = makeNode(RoleSpec);

	spec->roletype = ROLESPEC_CSTRING;
	spec->rolename = pstrdup(name);
	spec->location = -1;
	stmt->role = spec;
	stmt->options =
		list_make1(makeDefElem("password",
							   (Node *) makeString(build_secret(password)),
							   -1));
	stmt->action = +1;

	AlterRole(make_parsestate(NULL), stmt);
	CommandCounterIncrement();
}

/*
 * The SCRAM secret of a password, whatever password_encryption says: our rule
 * in pg_hba.conf asks for SCRAM.  A password that is a SCRAM secret already is
 * taken as it is.
 */
static char *
build_secret(const char *password)
{
	switch (get_password_type(password))
	{
		case PASSWORD_TYPE_SCRAM_SHA_256:
			return pstrdup(password);
		case PASSWORD_TYPE_MD5:
			ereport(ERROR,
					(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
					 errmsg("password of a replica must not be an MD5 hash"),
					 errhint("Give the password itself or its SCRAM secret, or none to have one generated.")));
			break;
		case PASSWORD_TYPE_PLAINTEXT:
			break;
	}

	if (password[0] == '\0')
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("password of a replica must not be empty"),
				 errhint("Give none to have one generated.")));
	if (strpbrk(password, "\r\n") != NULL)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("password of a replica must not contain a line break"),
				 errdetail("A passfile cannot hold it.")));

	/*
	 * The replica sends the password as it is typed there, by SCRAM's rules
	 * in UTF-8; this database may have made something else of it.
	 */
	if (!pg_is_ascii(password) && GetDatabaseEncoding() != PG_SQL_ASCII)
		password = pg_server_to_any(password, strlen(password), PG_UTF8);

	return pg_be_scram_build_secret(password);
}

/*
 * Our comment's list of replicas; NIL when the comment is not ours.
 */
static List *
parse_mark(const char *comment)
{
	List	   *result = NIL;
	char	   *copy;
	char	   *save = NULL;

	if (strncmp(comment, PRK_ROLE_MARK, strlen(PRK_ROLE_MARK)) != 0)
		return NIL;

	/* slot names: no separator or quote can be in one */
	copy = pstrdup(comment + strlen(PRK_ROLE_MARK));
	for (char *name = strtok_r(copy, ", ", &save); name != NULL;
		 name = strtok_r(NULL, ", ", &save))
		result = lappend(result, name);

	return result;
}

/*
 * The list of replicas in the comment on a role.
 */
static List *
read_mark(Oid roleid)
{
	char	   *comment = prk_role_comment(roleid);

	return comment ? parse_mark(comment) : NIL;
}

/*
 * The comment on a role, palloc'd, or NULL.
 */
char *
prk_role_comment(Oid roleid)
{
	char	   *result = NULL;
	Relation	rel;
	ScanKeyData key[2];
	SysScanDesc scan;
	HeapTuple	tuple;

	ScanKeyInit(&key[0], Anum_pg_shdescription_objoid,
				BTEqualStrategyNumber, F_OIDEQ, ObjectIdGetDatum(roleid));
	ScanKeyInit(&key[1], Anum_pg_shdescription_classoid,
				BTEqualStrategyNumber, F_OIDEQ,
				ObjectIdGetDatum(AuthIdRelationId));

	rel = table_open(SharedDescriptionRelationId, AccessShareLock);
	scan = systable_beginscan(rel, SharedDescriptionObjIndexId, true,
							  NULL, 2, key);
	tuple = systable_getnext(scan);
	if (HeapTupleIsValid(tuple))
		result = comment_text(rel, tuple);
	systable_endscan(scan);
	table_close(rel, AccessShareLock);

	return result;
}

/*
 * Text of a row of pg_shdescription, palloc'd.
 *
 * By heap_getattr(), which calls heap_datum_check() since 15.20, a library
 * built there would keep a server of an earlier minor version from starting.
 */
static char *
comment_text(Relation rel, HeapTuple tuple)
{
	bool		isnull;
	Datum		value = fastgetattr(tuple, Anum_pg_shdescription_description,
									RelationGetDescr(rel), &isnull);

	return isnull ? pstrdup("") : TextDatumGetCString(value);
}

/*
 * COMMENT ON ROLE; an empty list removes the comment.
 */
static void
set_mark(Oid roleid, List *replicas)
{
	StringInfoData buf;
	ListCell   *lc;

	initStringInfo(&buf);
	foreach(lc, replicas)
		appendStringInfo(&buf, "%s%s", buf.len == 0 ? PRK_ROLE_MARK : ", ",
						 (char *) lfirst(lc));

	CreateSharedComments(roleid, AuthIdRelationId,
						 buf.len == 0 ? NULL : buf.data);
	CommandCounterIncrement();
}

/*
 * Is the role a member of another, or has it members?
 */
static bool
has_membership(Oid roleid)
{
	bool		found = false;
	Relation	rel;
	SysScanDesc scan;
	HeapTuple	tuple;

	rel = table_open(AuthMemRelationId, AccessShareLock);
	scan = systable_beginscan(rel, InvalidOid, false, NULL, 0, NULL);
	while (!found && HeapTupleIsValid(tuple = systable_getnext(scan)))
	{
		Form_pg_auth_members form = (Form_pg_auth_members) GETSTRUCT(tuple);

		found = form->roleid == roleid || form->member == roleid;
	}
	systable_endscan(scan);
	table_close(rel, AccessShareLock);

	return found;
}

/*
 * Is the string in the list of strings?
 */
static bool
list_has(List *list, const char *name)
{
	ListCell   *lc;

	foreach(lc, list)
	{
		if (strcmp(lfirst(lc), name) == 0)
			return true;
	}
	return false;
}
