/*-------------------------------------------------------------------------
 *
 * hba_funcs.c
 *	  SQL functions about pg_hba.conf.
 *
 * IDENTIFICATION
 *	  src/hba/hba_funcs.c
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include <sys/socket.h>

#include "fmgr.h"
#include "funcapi.h"
#include "mb/pg_wchar.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/fmgroids.h"
#include "utils/inet.h"

#include "compat.h"
#include "hba/hba.h"
#include "hba/hba_rules.h"

PG_FUNCTION_INFO_V1(pg_replica_kit_hba_match);

/* The columns of hba_match(). */
enum hba_match_col
{
	HBA_MATCH_FILE_NAME,
	HBA_MATCH_LINE_NUMBER,
	HBA_MATCH_RULE,
	HBA_MATCH_AUTH_METHOD,
	HBA_MATCH_VERDICT,
	HBA_MATCH_NCOLS
};

static char *name_argument(FunctionCallInfo fcinfo, int argno,
						   const char *argname);
static void address_argument(FunctionCallInfo fcinfo, int argno,
							 struct sockaddr_storage *addr);
static text *text_from_file(const char *string);

/*
 * hba_match(role text, ip inet, database text, ssl boolean)
 *
 * Which line of pg_hba.conf, as it is on disk now, would the server apply to
 * this connection?
 */
Datum
pg_replica_kit_hba_match(PG_FUNCTION_ARGS)
{
	PrkHbaQuery query = {0};
	PrkHbaMatch match;
	TupleDesc	tupdesc;
	Datum		values[HBA_MATCH_NCOLS] = {0};
	bool		nulls[HBA_MATCH_NCOLS] = {0};

	if (get_call_result_type(fcinfo, NULL, &tupdesc) != TYPEFUNC_COMPOSITE)
		elog(ERROR, "return type must be a row type");
	Assert(tupdesc->natts == HBA_MATCH_NCOLS);

	query.role = name_argument(fcinfo, 0, "role");
	address_argument(fcinfo, 1, &query.addr);
	query.database = name_argument(fcinfo, 2, "database");
	if (PG_ARGISNULL(3))
		ereport(ERROR,
				(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
				 errmsg("argument \"%s\" must not be null", "ssl")));
	query.ssl = PG_GETARG_BOOL(3);

	prk_hba_rules_match(prk_hba_rules_load(HbaFileName), &query, &match);

	if (match.file_name != NULL)
	{
		values[HBA_MATCH_FILE_NAME] =
			PointerGetDatum(text_from_file(match.file_name));
		values[HBA_MATCH_LINE_NUMBER] = Int32GetDatum(match.line_number);
		values[HBA_MATCH_AUTH_METHOD] = CStringGetTextDatum(match.auth_method);
	}
	else
	{
		nulls[HBA_MATCH_FILE_NAME] = true;
		nulls[HBA_MATCH_LINE_NUMBER] = true;
		nulls[HBA_MATCH_AUTH_METHOD] = true;
	}
	values[HBA_MATCH_VERDICT] =
		CStringGetTextDatum(prk_hba_verdict_name(match.verdict));

	/*
	 * The function runs as its owner, so the privilege to read the file's
	 * rules is looked for at the role that the session is using.
	 */
	if (match.raw_line != NULL &&
		prk_compat_proc_aclcheck(F_PG_HBA_FILE_RULES, GetOuterUserId(),
								 ACL_EXECUTE) == ACLCHECK_OK)
		values[HBA_MATCH_RULE] =
			PointerGetDatum(text_from_file(prk_hba_rule_without_options(match.raw_line)));
	else
		nulls[HBA_MATCH_RULE] = true;

	PG_RETURN_DATUM(HeapTupleGetDatum(heap_form_tuple(BlessTupleDesc(tupdesc),
													  values, nulls)));
}

/*
 * An argument that names a role or a database.  The server cuts names that
 * are too long without a word; here that is an error.
 */
static char *
name_argument(FunctionCallInfo fcinfo, int argno, const char *argname)
{
	char	   *name;

	if (PG_ARGISNULL(argno))
		ereport(ERROR,
				(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
				 errmsg("argument \"%s\" must not be null", argname)));
	name = text_to_cstring(PG_GETARG_TEXT_PP(argno));
	if (name[0] == '\0')
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_NAME),
				 errmsg("argument \"%s\" must not be empty", argname)));
	if (strlen(name) >= NAMEDATALEN)
		ereport(ERROR,
				(errcode(ERRCODE_NAME_TOO_LONG),
				 errmsg("argument \"%s\" is too long", argname),
				 errdetail("A name must be shorter than %d bytes.",
						   NAMEDATALEN)));
	return name;
}

/* The argument that is the client's address: one address, not a network. */
static void
address_argument(FunctionCallInfo fcinfo, int argno,
				 struct sockaddr_storage *addr)
{
	inet	   *ip;

	if (PG_ARGISNULL(argno))
		ereport(ERROR,
				(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
				 errmsg("argument \"%s\" must not be null", "ip")));
	ip = PG_GETARG_INET_PP(argno);
	if (ip_bits(ip) != ip_maxbits(ip))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("argument \"%s\" must be one address, not a network",
						"ip"),
				 errdetail("A client connects from one address.")));

	if (ip_family(ip) == PGSQL_AF_INET)
	{
		struct sockaddr_in *in = (struct sockaddr_in *) addr;

		in->sin_family = AF_INET;
		memcpy(&in->sin_addr, ip_addr(ip), sizeof(in->sin_addr));
	}
	else
	{
		struct sockaddr_in6 *in6 = (struct sockaddr_in6 *) addr;

		in6->sin6_family = AF_INET6;
		memcpy(&in6->sin6_addr, ip_addr(ip), sizeof(in6->sin6_addr));
	}
}

/*
 * Text from a file whose encoding nobody knows: bytes that make no sense in
 * the database's encoding become question marks.
 */
static text *
text_from_file(const char *string)
{
	char	   *copy = pstrdup(string);

	if (!pg_verifymbstr(copy, strlen(copy), true))
	{
		for (char *c = copy; *c; c++)
		{
			if (IS_HIGHBIT_SET(*c))
				*c = '?';
		}
	}
	return cstring_to_text(copy);
}
