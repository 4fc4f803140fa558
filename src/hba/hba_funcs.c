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

#include "mb/pg_wchar.h"
#include "miscadmin.h"
#include "utils/fmgroids.h"

#include "compat.h"
#include "hba/hba.h"
#include "hba/hba_rules.h"
#include "sql.h"

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

static const PrkSignature hba_match_signature = {
	.args = {TEXTOID, INETOID, TEXTOID, BOOLOID},
	.ncolumns = HBA_MATCH_NCOLS,
	.columns = {
		[HBA_MATCH_FILE_NAME] = TEXTOID,
		[HBA_MATCH_LINE_NUMBER] = INT4OID,
		[HBA_MATCH_RULE] = TEXTOID,
		[HBA_MATCH_AUTH_METHOD] = TEXTOID,
		[HBA_MATCH_VERDICT] = TEXTOID
	}
};

PG_FUNCTION_INFO_V1(pg_replica_kit_hba_match_1_0);

static void fill_address(inet *ip, struct sockaddr_storage *addr);
static char *text_from_file(const char *string);

/*
 * hba_match(role text, ip inet, database text, ssl boolean)
 *
 * Which line of pg_hba.conf, as it is on disk now, would the server apply to
 * this connection?
 */
Datum
pg_replica_kit_hba_match_1_0(PG_FUNCTION_ARGS)
{
	PrkHbaQuery query = {0};
	PrkHbaMatch match;
	PrkRow		row;

	prk_row_begin(fcinfo, &hba_match_signature, &row);

	query.role = prk_arg_name(fcinfo, 0, "role");
	fill_address(prk_arg_inet(fcinfo, 1, "ip"), &query.addr);
	query.database = prk_arg_name(fcinfo, 2, "database");
	query.ssl = prk_arg_bool(fcinfo, 3, "ssl");

	prk_hba_rules_match(prk_hba_rules_load(HbaFileName), &query, &match);

	if (match.file_name != NULL)
	{
		prk_put_text(&row, HBA_MATCH_FILE_NAME,
					 text_from_file(match.file_name));
		prk_put_int32(&row, HBA_MATCH_LINE_NUMBER, match.line_number);
		prk_put_text(&row, HBA_MATCH_AUTH_METHOD, match.auth_method);
	}
	prk_put_text(&row, HBA_MATCH_VERDICT,
				 prk_hba_verdict_name(match.verdict));

	/*
	 * The role that counts is the one whose rights the function runs with: in
	 * an index expression or a materialized view that is the table's owner,
	 * whoever's statement it is.
	 */
	if (match.raw_line != NULL &&
		prk_compat_proc_aclcheck(F_PG_HBA_FILE_RULES, GetUserId(),
								 ACL_EXECUTE) == ACLCHECK_OK)
		prk_put_text(&row, HBA_MATCH_RULE,
					 text_from_file(prk_hba_rule_without_options(match.raw_line)));

	return prk_row_end(&row);
}

/* The client's address: one address, not a network. */
static void
fill_address(inet *ip, struct sockaddr_storage *addr)
{
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
static char *
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
	return copy;
}
