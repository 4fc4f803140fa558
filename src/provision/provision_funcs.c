/*-------------------------------------------------------------------------
 *
 * provision_funcs.c
 *	  SQL functions that set a replica up and remove it.
 *
 * They check everything, change the role at once, and leave slot and file to
 * commit (staged.c).  What they return says what the commit will do.
 *
 * IDENTIFICATION
 *	  src/provision/provision_funcs.c
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/xlog.h"
#include "commands/dbcommands.h"
#include "lib/stringinfo.h"
#include "libpq/crypt.h"
#include "miscadmin.h"
#include "postmaster/postmaster.h"
#include "tcop/utility.h"
#include "utils/builtins.h"
#include "utils/inet.h"
#include "utils/lsyscache.h"

#include "hba/hba.h"
#include "provision/leave.h"
#include "provision/lock.h"
#include "provision/provision_checks.h"
#include "provision/rewind.h"
#include "provision/server_address.h"
#include "provision/slot.h"
#include "provision/staged.h"
#include "sql.h"

/* Columns of provision() */
typedef enum ProvisionColumn
{
	PROVISION_NAME,
	PROVISION_ROLE_NAME,
	PROVISION_SLOT_NAME,
	PROVISION_HBA_RULE,
	PROVISION_PASSWORD,
	PROVISION_NEXT_STEP,
	PROVISION_NCOLS
} ProvisionColumn;

/* Columns of deprovision() */
typedef enum DeprovisionColumn
{
	DEPROVISION_NAME,
	DEPROVISION_SLOT_DROPPED,
	DEPROVISION_HBA_RULES_REMOVED,
	DEPROVISION_ROLE_DROPPED,
	DEPROVISION_NCOLS
} DeprovisionColumn;

static const PrkSignature provision_signature = {
	.args = {TEXTOID, INETOID, TEXTOID, TEXTOID, BOOLOID, BOOLOID, BOOLOID},
	.ncolumns = PROVISION_NCOLS,
	.columns = {
		[PROVISION_NAME] = TEXTOID,
		[PROVISION_ROLE_NAME] = TEXTOID,
		[PROVISION_SLOT_NAME] = TEXTOID,
		[PROVISION_HBA_RULE] = TEXTOID,
		[PROVISION_PASSWORD] = TEXTOID,
		[PROVISION_NEXT_STEP] = TEXTOID
	}
};

static const PrkSignature deprovision_signature = {
	.args = {TEXTOID, BOOLOID, BOOLOID, BOOLOID},
	.ncolumns = DEPROVISION_NCOLS,
	.columns = {
		[DEPROVISION_NAME] = TEXTOID,
		[DEPROVISION_SLOT_DROPPED] = BOOLOID,
		[DEPROVISION_HBA_RULES_REMOVED] = INT4OID,
		[DEPROVISION_ROLE_DROPPED] = BOOLOID
	}
};

static const PrkSignature rotate_password_signature = {
	.args = {TEXTOID, TEXTOID},
	.result = TEXTOID
};

static const PrkSignature revoke_address_signature = {
	.args = {TEXTOID, INETOID},
	.result = INT4OID
};

/* Whose a replica is, by the marks that the kit left. */
typedef struct Ownership
{
	char	   *role;			/* its role; NULL: no mark at all */
	bool		in_comment;		/* the role's comment lists it */
	int			nrules;			/* managed lines in pg_hba.conf */
} Ownership;

PG_FUNCTION_INFO_V1(pg_replica_kit_provision_1_0);
PG_FUNCTION_INFO_V1(pg_replica_kit_deprovision_1_0);
PG_FUNCTION_INFO_V1(pg_replica_kit_rotate_password_1_0);
PG_FUNCTION_INFO_V1(pg_replica_kit_revoke_address_1_0);

static Ownership find_owner(const char *replica);
static void check_owner(const char *name, const char *role,
						const Ownership *owner, const PrkSlotInfo *slot);
static void provision_role(PrkProvision *provision, const PrkRole *role,
						   const char *password, bool dry_run);
static void say_would(const PrkProvision *provision, bool role_exists,
					  bool slot_exists);
static Datum provision_row(PrkRow *row, const PrkProvision *provision,
						   const PrkAddress *address, const char *rule);
static char *next_step(const PrkProvision *provision,
					   const PrkAddress *address);
static void append_shell(StringInfo buf, const char *word);
static Datum deprovision_row(PrkRow *row, const PrkDeprovision *deprovision);

/*
 * provision(name, ip, role, password, require_ssl, manage_hba, dry_run)
 */
Datum
pg_replica_kit_provision_1_0(PG_FUNCTION_ARGS)
{
	char	   *name;
	inet	   *ip;
	char	   *role_name;
	char	   *password;
	bool		require_ssl;
	bool		manage_hba;
	bool		dry_run;
	PrkProvision provision = {0};
	const PrkProvision *earlier;
	const PrkDeprovision *leaving;
	PrkAddress	address;
	Ownership	owner;
	PrkSlotInfo slot;
	PrkRole		role;
	char	   *rule;
	PrkRow		row;

	prk_row_begin(fcinfo, &provision_signature, &row);
	name = prk_arg_text(fcinfo, 0, "name");
	ip = prk_arg_inet(fcinfo, 1, "ip");
	role_name = PG_ARGISNULL(2) ? name : prk_arg_text(fcinfo, 2, "role");
	password = PG_ARGISNULL(3) ? NULL : prk_arg_text(fcinfo, 3, "password");
	require_ssl = prk_arg_bool(fcinfo, 4, "require_ssl");
	manage_hba = prk_arg_bool(fcinfo, 5, "manage_hba");
	dry_run = prk_arg_bool(fcinfo, 6, "dry_run");

	prk_check_writable("replica_kit.provision()");
	prk_check_name(name);
	prk_check_role_name(role_name);
	prk_check_address(ip, &address);
	rule = prk_hba_rule(NULL, role_name, address.text, require_ssl);

	if (!dry_run)
	{
		prk_lock_name(name);
		prk_lock_role(role_name);
	}

	earlier = prk_staged_find_provision(name, role_name,
										manage_hba ? rule : NULL);
	if (earlier != NULL)
		return provision_row(&row, earlier, &address, rule);
	leaving = prk_staged_find_deprovision();
	if (leaving != NULL && strcmp(leaving->name, name) == 0)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("replica \"%s\" is being deprovisioned by this transaction",
						name),
				 errhint("COMMIT first.")));

	owner = find_owner(name);
	prk_slot_look_up(name, &slot);
	prk_role_look_up(role_name, &role);
	check_owner(name, role_name, &owner, &slot);
	prk_check_server(&address, require_ssl,
					 slot.exists ? 0 : 1 + prk_staged_count_provisions());

	provision.name = name;
	provision.role = role_name;
	provision.has_slot = slot.exists;
	provision.has_rule = manage_hba;
	provision.rule.replica = name;
	provision.rule.role = role_name;
	provision.rule.rule = rule;
	provision.rule.address = address.text;
	provision.rule.require_ssl = require_ssl;
	provision.rule.first = address.first;
	provision.rule.last = address.last;
	provision_role(&provision, &role, password, dry_run);

	if (manage_hba)
		prk_hba_edit_plan(&provision.rule);
	else
		prk_hba_edit_advise(&provision.rule);

	if (dry_run)
		say_would(&provision, OidIsValid(role.oid), slot.exists);
	else
		prk_staged_provision(&provision);

	return provision_row(&row, &provision, &address, rule);
}

/*
 * deprovision(name, force, dry_run, keep_role)
 */
Datum
pg_replica_kit_deprovision_1_0(PG_FUNCTION_ARGS)
{
	char	   *name;
	bool		force;
	bool		dry_run;
	bool		keep_role;
	PrkDeprovision deprovision = {0};
	const PrkDeprovision *earlier;
	Ownership	owner;
	PrkSlotInfo slot;
	PrkRow		row;

	prk_row_begin(fcinfo, &deprovision_signature, &row);
	name = prk_arg_text(fcinfo, 0, "name");
	force = prk_arg_bool(fcinfo, 1, "force");
	dry_run = prk_arg_bool(fcinfo, 2, "dry_run");
	keep_role = prk_arg_bool(fcinfo, 3, "keep_role");

	prk_check_writable("replica_kit.deprovision()");
	prk_check_name(name);
	if (!dry_run)
		prk_lock_name(name);

	earlier = prk_staged_find_deprovision();
	if (earlier != NULL && strcmp(earlier->name, name) == 0)
		return deprovision_row(&row, earlier);
	if (earlier != NULL)
		ereport(ERROR,
				(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
				 errmsg("cannot deprovision two replicas in one transaction"),
				 errhint("COMMIT after each.")));
	if (prk_staged_provisions(name))
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("replica \"%s\" is being provisioned by this transaction",
						name),
				 errhint("ROLLBACK instead, or COMMIT first.")));

	owner = find_owner(name);
	if (owner.role != NULL && !dry_run)
		prk_lock_role(owner.role);
	prk_slot_look_up(name, &slot);
	deprovision.name = name;
	deprovision.force = force;
	deprovision.keep_role = keep_role;
	deprovision.nrules = owner.nrules;

	if (owner.role == NULL && owner.nrules == 0)
	{
		if (slot.exists)
			ereport(ERROR,
					(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
					 errmsg("replication slot \"%s\" was not made by pg_replica_kit",
							name),
					 errdetail("No role's comment and no line of pg_hba.conf names it."),
					 errhint("If it is not needed, run: SELECT pg_drop_replication_slot('%s');",
							 name)));
		ereport(NOTICE,
				(errmsg("replica \"%s\" is not provisioned, nothing to do",
						name)));
		if (!dry_run && prk_hba_edit_tidy(true))
			prk_staged_tidy();
		return deprovision_row(&row, &deprovision);
	}

	deprovision.has_slot = slot.exists && !slot.logical && !slot.temporary;
	if (deprovision.has_slot && slot.active_pid != 0 && !force)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_IN_USE),
				 errmsg("replica \"%s\" is connected, its slot is active for PID %d",
						name, slot.active_pid),
				 errhint("Stop the replica first, or run: SELECT * FROM replica_kit.deprovision('%s'%s);",
						 name, prk_leave_options(true, keep_role))));

	prk_leave_warn(name);
	if (!dry_run && !RecoveryInProgress())
		(void) prk_rewind_drop(name);
	if (owner.in_comment)
		deprovision.role_dropped = prk_leave_role(name, owner.role, keep_role,
												  dry_run);
	if (!dry_run)
		prk_staged_deprovision(&deprovision);

	return deprovision_row(&row, &deprovision);
}

/*
 * rotate_password(name, password)
 */
Datum
pg_replica_kit_rotate_password_1_0(PG_FUNCTION_ARGS)
{
	char	   *name;
	char	   *password;
	Ownership	owner;
	PrkRole		role;
	ListCell   *lc;

	prk_sql_check(fcinfo, &rotate_password_signature);
	name = prk_arg_text(fcinfo, 0, "name");
	password = PG_ARGISNULL(1) ? prk_role_make_password() :
		prk_arg_text(fcinfo, 1, "password");

	PreventCommandIfReadOnly("replica_kit.rotate_password()");
	PreventCommandDuringRecovery("replica_kit.rotate_password()");
	prk_check_name(name);
	prk_lock_name(name);

	owner = find_owner(name);
	if (owner.role == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_OBJECT),
				 errmsg("replica \"%s\" is not provisioned", name),
				 errhint("Run: SELECT * FROM replica_kit.provision('%s', 'ADDRESS');",
						 name)));
	prk_lock_role(owner.role);
	prk_role_look_up(owner.role, &role);
	if (!role.ours)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("role \"%s\" was not made by pg_replica_kit", owner.role),
				 role.superuser ?
				 errhint("It is a superuser.  Give the replica a role of its own, which may replicate and nothing else.") :
				 errhint("In psql run: \\password %s",
						 quote_identifier(owner.role))));

	/* or EXECUTE on this function would be a way to become one */
	if (role.superuser)
		ereport(ERROR,
				(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
				 errmsg("role \"%s\" is a superuser", owner.role),
				 errdetail("Its password gives more than a replica needs."),
				 errhint("Give the replica a role of its own, which may replicate and nothing else.")));

	prk_role_set_password(owner.role, password);
	prk_staged_note(psprintf("changed the password of role \"%s\"",
							 owner.role));

	foreach(lc, role.replicas)
		ereport(NOTICE,
				(errmsg("replica \"%s\" will not reconnect until it has the new password",
						(char *) lfirst(lc)),
				 errhint("On its machine run its join script with: --set-password")));

	if (get_password_type(password) != PASSWORD_TYPE_PLAINTEXT)
		PG_RETURN_NULL();
	PG_RETURN_TEXT_P(cstring_to_text(password));
}

/*
 * revoke_address(name, ip)
 */
Datum
pg_replica_kit_revoke_address_1_0(PG_FUNCTION_ARGS)
{
	char	   *name;
	inet	   *ip;
	PrkAddress	address;
	PrkHbaRemoval removal = {0};
	int			nrules;

	prk_sql_check(fcinfo, &revoke_address_signature);
	name = prk_arg_text(fcinfo, 0, "name");
	ip = prk_arg_inet(fcinfo, 1, "ip");

	prk_check_writable("replica_kit.revoke_address()");
	prk_check_name(name);
	prk_check_address(ip, &address);
	prk_lock_name(name);

	removal.replica = name;
	removal.address = address.text;
	nrules = prk_hba_edit_count(name, address.text);
	if (nrules > 0)
		prk_staged_revoke(&removal);

	PG_RETURN_INT32(nrules);
}

/*
 * Whose is the replica: the role whose comment lists it, else the one that
 * its lines in pg_hba.conf let in.
 */
static Ownership
find_owner(const char *replica)
{
	Ownership	owner;

	owner.role = prk_role_of_replica(replica);
	owner.in_comment = owner.role != NULL;
	owner.nrules = prk_hba_edit_count(replica, NULL);
	if (owner.role == NULL)
		owner.role = prk_hba_edit_role(replica);

	return owner;
}

/*
 * What exists by this name must be ours and the same role's.
 */
static void
check_owner(const char *name, const char *role, const Ownership *owner,
			const PrkSlotInfo *slot)
{
	if (owner->role != NULL && strcmp(owner->role, role) != 0)
		ereport(ERROR,
				(errcode(ERRCODE_DUPLICATE_OBJECT),
				 errmsg("replica \"%s\" is provisioned already, with role \"%s\"",
						name, owner->role),
				 errhint("Choose another name, or first run: SELECT * FROM replica_kit.deprovision('%s');",
						 name)));
	if (!slot->exists)
		return;
	if (slot->logical || slot->temporary)
		ereport(ERROR,
				(errcode(ERRCODE_DUPLICATE_OBJECT),
				 errmsg("replication slot \"%s\" already exists", name),
				 slot->logical ?
				 errdetail("It is a logical slot.") :
				 errdetail("It is a temporary slot of PID %d.",
						   slot->active_pid),
				 errhint("Choose another name.")));
	if (owner->role == NULL && !prk_staged_provisions(name))
		ereport(ERROR,
				(errcode(ERRCODE_DUPLICATE_OBJECT),
				 errmsg("replication slot \"%s\" already exists and was not made by pg_replica_kit",
						name),
				 errdetail("No role's comment and no line of pg_hba.conf names it."),
				 errhint("Choose another name, or, if the slot is not needed, first run: SELECT pg_drop_replication_slot('%s');",
						 name)));
	if (slot->invalidated)
		ereport(WARNING,
				(errmsg("replication slot \"%s\" is lost", name),
				 errdetail("The replica must be rebuilt; its join script re-creates the slot.")));
}

/*
 * The replica's role: used when it exists, else made, with the password given
 * or a generated one.
 */
static void
provision_role(PrkProvision *provision, const PrkRole *role,
			   const char *password, bool dry_run)
{
	bool		standby = RecoveryInProgress();

	if (OidIsValid(role->oid))
	{
		prk_check_existing_role(provision->role, role, password != NULL);
		if (role->superuser)
			ereport(NOTICE,
					(errmsg("role \"%s\" is a superuser", provision->role),
					 errdetail("Whoever reads its password on the replica's machine is a superuser of this server."),
					 errhint("Leave the role argument out: the replica gets a role of its own.")));
		if (role->ours && !standby && !dry_run)
			prk_role_add_replica(role, provision->name);
		return;
	}

	if (standby)
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_OBJECT),
				 errmsg("role \"%s\" does not exist", provision->role),
				 errdetail("Roles cannot be created on a standby."),
				 errhint("Name one that exists, such as the role of this standby itself, or run on the primary: CREATE ROLE %s LOGIN REPLICATION; and in psql: \\password %s",
						 quote_identifier(provision->role),
						 quote_identifier(provision->role))));
	if (dry_run)
		return;

	if (password == NULL)
		password = prk_role_make_password();
	prk_role_create(provision->role, password, provision->name);
	provision->role_created = true;
	if (get_password_type(password) == PASSWORD_TYPE_PLAINTEXT)
		provision->password = password;
}

/*
 * What a call without dry_run would do.
 */
static void
say_would(const PrkProvision *provision, bool role_exists, bool slot_exists)
{
	if (!role_exists)
		ereport(NOTICE,
				(errmsg("would create role \"%s\"", provision->role)));
	if (!slot_exists)
		ereport(NOTICE,
				(errmsg("would create replication slot \"%s\"",
						provision->name)));
	if (provision->has_rule && !prk_hba_edit_has(&provision->rule))
		ereport(NOTICE,
				(errmsg("would add pg_hba.conf rule: %s",
						provision->rule.rule)));
}

/* The row of provision(). */
static Datum
provision_row(PrkRow *row, const PrkProvision *provision,
			  const PrkAddress *address, const char *rule)
{
	prk_put_text(row, PROVISION_NAME, provision->name);
	prk_put_text(row, PROVISION_ROLE_NAME, provision->role);
	prk_put_text(row, PROVISION_SLOT_NAME, provision->name);
	prk_put_text(row, PROVISION_HBA_RULE, rule);
	prk_put_text(row, PROVISION_PASSWORD, provision->password);
	prk_put_text(row, PROVISION_NEXT_STEP, next_step(provision, address));

	return prk_row_end(row);
}

/*
 * The command that makes the script: one line for a shell where this session's
 * client runs, with the address of this server as far as it is known.
 */
static char *
next_step(const PrkProvision *provision, const PrkAddress *address)
{
	const char *host = prk_server_address_for(address);
	const char *session = prk_server_session_address();
	const char *database = get_database_name(MyDatabaseId);
	StringInfoData buf;

	initStringInfo(&buf);
	appendStringInfoString(&buf, "psql -XAt");
	if (session != NULL)
		appendStringInfo(&buf, " -h %s", session);
	if (PostPortNumber != DEF_PGPORT)
		appendStringInfo(&buf, " -p %d", PostPortNumber);
	if (database != NULL && strcmp(database, "postgres") != 0)
	{
		appendStringInfoString(&buf, " -d ");
		append_shell(&buf, database);
	}
	appendStringInfo(&buf, " -c \"SELECT replica_kit.join_script('%s', '%s')\" > join_%s.sh",
					 provision->name,
					 host != NULL ? host : "ADDRESS_OF_THIS_SERVER",
					 provision->name);
	return buf.data;
}

/* A word for a shell, in quotes where it needs them. */
static void
append_shell(StringInfo buf, const char *word)
{
	if (word[strspn(word, "abcdefghijklmnopqrstuvwxyz0123456789_")] == '\0')
	{
		appendStringInfoString(buf, word);
		return;
	}
	appendStringInfoChar(buf, '\'');
	for (const char *c = word; *c != '\0'; c++)
	{
		if (*c == '\'')
			appendStringInfoString(buf, "'\\''");
		else
			appendStringInfoChar(buf, *c);
	}
	appendStringInfoChar(buf, '\'');
}

/* The row of deprovision(). */
static Datum
deprovision_row(PrkRow *row, const PrkDeprovision *deprovision)
{
	prk_put_text(row, DEPROVISION_NAME, deprovision->name);
	prk_put_bool(row, DEPROVISION_SLOT_DROPPED, deprovision->has_slot);
	prk_put_int32(row, DEPROVISION_HBA_RULES_REMOVED, deprovision->nrules);
	prk_put_bool(row, DEPROVISION_ROLE_DROPPED,
				 deprovision->role_dropped != NULL);

	return prk_row_end(row);
}
