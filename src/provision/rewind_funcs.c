/*-------------------------------------------------------------------------
 *
 * rewind_funcs.c
 *	  SQL functions that let a replica's pg_rewind read files for a time.
 *
 * IDENTIFICATION
 *	  src/provision/rewind_funcs.c
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/xlog.h"
#include "miscadmin.h"
#include "tcop/utility.h"
#include "utils/fmgrprotos.h"
#include "utils/timestamp.h"

#include "hba/hba_edit.h"
#include "provision/lock.h"
#include "provision/provision_checks.h"
#include "provision/rewind.h"
#include "sql.h"

/* The longest time for which the right is given. */
#define MAX_DURATION	USECS_PER_DAY

static const PrkSignature allow_rewind_signature = {
	.args = {TEXTOID, INTERVALOID},
	.result = TIMESTAMPTZOID
};

static const PrkSignature revoke_rewind_signature = {
	.args = {TEXTOID},
	.result = BOOLOID
};

static const PrkSignature end_rewind_signature = {
	.result = VOIDOID
};

PG_FUNCTION_INFO_V1(pg_replica_kit_allow_rewind_1_0);
PG_FUNCTION_INFO_V1(pg_replica_kit_revoke_rewind_1_0);
PG_FUNCTION_INFO_V1(pg_replica_kit_end_rewind_1_0);

static void check_primary(const char *function);

/*
 * allow_rewind(name, duration)
 */
Datum
pg_replica_kit_allow_rewind_1_0(PG_FUNCTION_ARGS)
{
	char	   *name;
	Interval   *duration;
	char	   *role;
	TimestampTz now = GetCurrentTimestamp();
	TimestampTz until;

	prk_sql_check(fcinfo, &allow_rewind_signature);
	name = prk_arg_text(fcinfo, 0, "name");
	duration = prk_arg_interval(fcinfo, 1, "duration");

	check_primary("replica_kit.allow_rewind()");
	prk_check_name(name);
	until = DatumGetTimestampTz(DirectFunctionCall2(timestamptz_pl_interval,
													TimestampTzGetDatum(now),
													IntervalPGetDatum(duration)));
	if (until <= now || until > now + MAX_DURATION)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("duration must be greater than zero and at most one day"),
				 errhint("Run: SELECT replica_kit.allow_rewind('%s', '1 hour');",
						 name)));

	prk_lock_name(name);
	role = prk_role_of_replica(name);
	if (role == NULL)
		role = prk_hba_edit_role(name);
	if (role == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_OBJECT),
				 errmsg("replica \"%s\" is not provisioned", name),
				 errhint("Run: SELECT * FROM replica_kit.provision('%s', 'ADDRESS');",
						 name)));
	prk_lock_role(role);
	prk_rewind_allow(name, role, until);

	PG_RETURN_TIMESTAMPTZ(until);
}

/*
 * revoke_rewind(name)
 */
Datum
pg_replica_kit_revoke_rewind_1_0(PG_FUNCTION_ARGS)
{
	char	   *name;

	prk_sql_check(fcinfo, &revoke_rewind_signature);
	name = prk_arg_text(fcinfo, 0, "name");

	check_primary("replica_kit.revoke_rewind()");
	prk_check_name(name);
	prk_lock_name(name);

	PG_RETURN_BOOL(prk_rewind_drop(name));
}

/*
 * end_rewind()
 */
Datum
pg_replica_kit_end_rewind_1_0(PG_FUNCTION_ARGS)
{
	const char *name;

	prk_sql_check(fcinfo, &end_rewind_signature);
	check_primary("replica_kit.end_rewind()");
	name = prk_rewind_of_session();
	if (name == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("the role of this session was not made by allow_rewind()"),
				 errhint("To end the right of a replica, run: SELECT replica_kit.revoke_rewind('NAME');")));
	prk_lock_name(name);
	prk_rewind_end(name);

	PG_RETURN_VOID();
}

/* Roles are made and altered on a primary. */
static void
check_primary(const char *function)
{
	PreventCommandIfReadOnly(function);
	PreventCommandDuringRecovery(function);
}
