/*-------------------------------------------------------------------------
 *
 * next_version.c
 *	  What t/901_upgrade.pl adds to the library to make a version 1.1 of it:
 *	  a new function, and one whose declaration has changed.
 *
 * IDENTIFICATION
 *	  test/next_version.c
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "fmgr.h"
#include "utils/builtins.h"

#include "sql.h"

static const PrkSignature added_signature = {
	.result = TEXTOID
};

static const PrkSignature revoke_address_signature = {
	.args = {TEXTOID, INETOID, BOOLOID},
	.result = INT4OID
};

PG_FUNCTION_INFO_V1(pg_replica_kit_added_1_1);
PG_FUNCTION_INFO_V1(pg_replica_kit_revoke_address_1_1);

Datum
pg_replica_kit_added_1_1(PG_FUNCTION_ARGS)
{
	prk_sql_check(fcinfo, &added_signature);
	PG_RETURN_TEXT_P(cstring_to_text("added in 1.1"));
}

Datum
pg_replica_kit_revoke_address_1_1(PG_FUNCTION_ARGS)
{
	prk_sql_check(fcinfo, &revoke_address_signature);
	PG_RETURN_INT32(-1);
}
