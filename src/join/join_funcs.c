/*-------------------------------------------------------------------------
 *
 * join_funcs.c
 *	  SQL function join_script(): the shell script that makes a replica.
 *
 * The script itself is part of the library (join_text.c), so that neither is
 * ever of another version than the other.  This puts the values of one replica
 * below its head comment: where the upstream is, and those facts that the
 * replica's role may not ask for over the replication protocol.  No secret is
 * among them.
 *
 * IDENTIFICATION
 *	  src/join/join_funcs.c
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include <arpa/inet.h>

#include "access/xlog.h"
#include "commands/dbcommands.h"
#include "executor/spi.h"
#include "lib/stringinfo.h"
#include "miscadmin.h"
#include "postmaster/postmaster.h"
#include "utils/builtins.h"
#include "utils/guc.h"
#include "utils/lsyscache.h"
#include "utils/timestamp.h"
#include "utils/varlena.h"

#include "compat.h"
#include "hba/hba.h"
#include "hba/hba_edit.h"
#include "hba/hba_file.h"
#include "hba/hba_rules.h"
#include "join/join_text.h"
#include "provision/provision_checks.h"
#include "provision/role.h"
#include "provision/server_address.h"
#include "sql.h"
#include "version.h"

static const PrkSignature join_script_signature = {
	.args = {TEXTOID, TEXTOID, INT4OID},
	.result = TEXTOID
};

PG_FUNCTION_INFO_V1(pg_replica_kit_join_script_1_0);

static const char *session_server_address(void);
static bool is_host(const char *host);
static char *find_role(const char *name);
static char *query_text(const char *query, const char *argument);
static char *provision_hint(const char *name);
static void append_authentication(StringInfo out, const char *name);
static bool is_scram_only(List *rules, const PrkHbaManaged *line, bool ssl);
static void append_facts(StringInfo out);
static void append_libraries(StringInfo out);
static void append_value(StringInfo out, const char *variable,
						 const char *value);

/*
 * join_script(name, primary_host, primary_port)
 *
 * The script for the replica "name", which must have been provisioned: its
 * slot is there, and so is a role that the kit knows as its own.
 */
Datum
pg_replica_kit_join_script_1_0(PG_FUNCTION_ARGS)
{
	char	   *name;
	const char *host;
	int			port = PostPortNumber;
	char	   *role;
	const char *const *line = prk_join_text;
	StringInfoData out;

	prk_sql_check(fcinfo, &join_script_signature);
	name = prk_arg_text(fcinfo, 0, "name");

	host = PG_ARGISNULL(1) ? session_server_address() :
		prk_arg_text(fcinfo, 1, "primary_host");
	if (!is_host(host))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("invalid host \"%s\"", host),
				 errhint("Use an IP address or a host name that the replica can reach.")));

	if (!PG_ARGISNULL(2))
		port = prk_arg_int32(fcinfo, 2, "primary_port");
	if (port < 1 || port > 65535)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("invalid port number: %d", port)));

	if (SPI_connect() != SPI_OK_CONNECT)
		elog(ERROR, "SPI_connect failed");
	role = find_role(name);

	initStringInfo(&out);
	for (; *line != NULL && (*line)[0] == '#'; line++)
		appendStringInfoString(&out, *line);
	appendStringInfoString(&out, "\n# Made by replica_kit.join_script().  Holds no password.\n");
	append_value(&out, "prk_kit", PRK_KIT_VERSION);
	append_value(&out, "prk_name", name);
	append_value(&out, "prk_host", host);
	append_value(&out, "prk_port", psprintf("%d", port));
	append_value(&out, "prk_role", role);
	append_value(&out, "prk_database", get_database_name(MyDatabaseId));
	append_authentication(&out, name);
	append_facts(&out);
	for (; *line != NULL; line++)
		appendStringInfoString(&out, *line);

	/* SPI's memory ends with it, the result must not. */
	{
		char	   *result = SPI_palloc(VARHDRSZ + out.len);

		SET_VARSIZE(result, VARHDRSZ + out.len);
		memcpy(VARDATA(result), out.data, out.len);
		SPI_finish();
		PG_RETURN_TEXT_P((text *) result);
	}
}

/*
 * The server's address as this session has reached it; raises an error when
 * that was no network address.
 */
static const char *
session_server_address(void)
{
	const char *address = prk_server_session_address();

	if (address == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("this session does not show at which address a replica can reach the server"),
				 errdetail("It is not connected over TCP/IP."),
				 errhint("Pass primary_host to join_script().")));
	if (prk_server_is_loopback(address))
		ereport(NOTICE,
				(errmsg("the script will connect to \"%s\"", address),
				 errdetail("This session is connected over the loopback interface, which no other machine reaches."),
				 errhint("For a replica on another machine pass primary_host to join_script().")));

	return address;
}

/* Is it an IP address or could it be a host name?  Nothing else passes. */
static bool
is_host(const char *host)
{
	struct in6_addr addr;
	size_t		len = strlen(host);

	if (inet_pton(AF_INET6, host, &addr) == 1)
		return true;
	if (len == 0 || len > 253 || host[0] == '-' || host[0] == '.')
		return false;
	return strspn(host, "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
				  "0123456789._-") == len;
}

/*
 * The role that the replica connects as: the one whose comment names the
 * replica, or else the one in its pg_hba.conf rule.  Raises an error when the
 * replica has not been provisioned.  Needs SPI.
 */
static char *
find_role(const char *name)
{
	char	   *role;

	if (query_text("SELECT 't' FROM pg_catalog.pg_replication_slots"
				   " WHERE slot_name OPERATOR(pg_catalog.=) $1"
				   " AND slot_type OPERATOR(pg_catalog.=) 'physical'"
				   " AND NOT temporary", name) == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_OBJECT),
				 errmsg("replica \"%s\" is not provisioned", name),
				 errdetail("There is no physical replication slot of that name."),
				 errhint("Run: %s", provision_hint(name))));

	role = prk_role_of_replica(name);
	if (role == NULL)
		role = prk_hba_edit_role(name);
	if (role == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_OBJECT),
				 errmsg("replica \"%s\" is not provisioned", name),
				 errdetail("Neither a comment on a role nor a rule in pg_hba.conf names it."),
				 errhint("Run: %s", provision_hint(name))));
	return role;
}

/*
 * The first column of the first row as text, NULL for no row or NULL.  $1 is
 * the argument, as text.  Needs SPI.
 */
static char *
query_text(const char *query, const char *argument)
{
	Oid			types[1] = {TEXTOID};
	Datum		values[1];
	int			rc;

	values[0] = CStringGetTextDatum(argument);
	rc = SPI_execute_with_args(query, 1, types, values, NULL, true, 1);
	if (rc != SPI_OK_SELECT)
		elog(ERROR, "SPI_execute_with_args failed: %s",
			 SPI_result_code_string(rc));
	if (SPI_processed == 0)
		return NULL;
	return SPI_getvalue(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, 1);
}

/* The statement that provisions the replica, but for its address. */
static char *
provision_hint(const char *name)
{
	return psprintf("SELECT * FROM replica_kit.provision(%s, 'ADDRESS OF THE REPLICA');",
					quote_literal_cstr(name));
}

/*
 * How the server authenticates the replica, by pg_hba.conf as it is on disk:
 * prk_auth is "scram-sha-256" where nothing else can happen to a connection
 * from an address of the replica's managed lines, so that the script may
 * demand it; prk_tls is "require" where these lines let in TLS only.  Without
 * managed lines both are empty: whoever wrote the rules may use certificates or
 * GSSAPI.
 */
static void
append_authentication(StringInfo out, const char *name)
{
	PrkHbaFile *file = prk_hba_file_read(CurrentMemoryContext);
	List	   *rules = NIL;
	int			nlines = 0;
	bool		scram = true;
	bool		tls = true;
	ListCell   *cell;

	foreach(cell, prk_hba_managed(prk_hba_file_text(file)))
	{
		PrkHbaManaged *line = lfirst(cell);

		if (strcmp(line->replica, name) != 0)
			continue;
		if (nlines++ == 0)
			rules = prk_hba_rules_load(HbaFileName);
		if (strncmp(line->rule, "hostssl", strlen("hostssl")) != 0)
		{
			tls = false;
			scram = scram && is_scram_only(rules, line, false);
		}
		scram = scram && is_scram_only(rules, line, true);
	}
	append_value(out, "prk_auth", nlines > 0 && scram ? "scram-sha-256" : "");
	append_value(out, "prk_tls", nlines > 0 && tls ? "require" : "");
}

/*
 * Do all rules that decide on connections of the line's role from its network
 * ask for SCRAM, or reject?
 */
static bool
is_scram_only(List *rules, const PrkHbaManaged *line, bool ssl)
{
	PrkHbaQuery query = {.role = line->role,.database = "replication",.ssl = ssl};
	PrkAddress	address;
	ListCell   *cell;

	/* What does not look like ours, somebody has edited. */
	if (line->role == NULL || line->address == NULL ||
		line->address[strspn(line->address, "0123456789abcdefABCDEF.:/")] != '\0' ||
		strpbrk(line->address, ".:") == NULL)
		return false;
	prk_check_address(DatumGetInetPP(DirectFunctionCall1(inet_in,
														 CStringGetDatum(line->address))),
					  &address);
	query.addr = address.first;
	foreach(cell, prk_hba_rules_match_network(rules, &query, &address.last))
	{
		PrkHbaMatch *match = lfirst(cell);

		if (match->verdict != PRK_HBA_REJECT &&
			(match->verdict != PRK_HBA_ALLOW ||
			 strcmp(match->auth_method, "scram-sha-256") != 0))
			return false;
	}
	return true;
}

/*
 * What the script has to know about this server.  Sizes are bytes; each
 * tablespace outside the data directory is a line of size and location.
 * Needs SPI.
 */
static void
append_facts(StringInfo out)
{
	append_value(out, "prk_made_at",
				 timestamptz_to_str(GetCurrentTimestamp()));
	append_value(out, "prk_version",
				 GetConfigOption("server_version", false, false));
	append_value(out, "prk_major", psprintf("%d", PRK_COMPAT_MAJOR));
	append_value(out, "prk_system_id",
				 psprintf(UINT64_FORMAT, GetSystemIdentifier()));
	append_value(out, "prk_server_port", psprintf("%d", PostPortNumber));
	append_value(out, "prk_segment_size", psprintf("%d", wal_segment_size));
	append_value(out, "prk_data_directory", DataDir);
	append_libraries(out);

	/* In-place tablespaces have a relative location. */
	append_value(out, "prk_data_size",
				 query_text("SELECT pg_catalog.sum(pg_catalog.pg_tablespace_size(oid))::pg_catalog.text"
							" FROM pg_catalog.pg_tablespace"
							" WHERE pg_catalog.pg_tablespace_location(oid) OPERATOR(pg_catalog.!~~) $1",
							"/%"));
	append_value(out, "prk_tablespaces",
				 query_text("SELECT COALESCE(pg_catalog.string_agg("
							"  pg_catalog.pg_tablespace_size(oid) OPERATOR(pg_catalog.||) ' '"
							"  OPERATOR(pg_catalog.||) location OPERATOR(pg_catalog.||) E'\\n', '' ORDER BY location), '')"
							" FROM pg_catalog.pg_tablespace,"
							" LATERAL pg_catalog.pg_tablespace_location(oid) AS location"
							" WHERE location OPERATOR(pg_catalog.~~) $1",
							"/%"));
}

/* The libraries that this server preloads, one a line. */
static void
append_libraries(StringInfo out)
{
	const char *settings[] = {"shared_preload_libraries",
		"session_preload_libraries",
	"local_preload_libraries"};
	StringInfoData lines;

	initStringInfo(&lines);
	for (size_t i = 0; i < lengthof(settings); i++)
	{
		char	   *value = pstrdup(GetConfigOption(settings[i], false, false));
		List	   *names;
		ListCell   *cell;

		if (!SplitDirectoriesString(value, ',', &names))
			continue;
		foreach(cell, names)
			appendStringInfo(&lines, "%s\n", (char *) lfirst(cell));
	}
	append_value(out, "prk_libraries", lines.data);
}

/*
 * One assignment, quoted so that a shell takes the value as it is.  NULL is
 * empty.
 */
static void
append_value(StringInfo out, const char *variable, const char *value)
{
	appendStringInfo(out, "%s='", variable);
	for (const char *c = value ? value : ""; *c != '\0'; c++)
	{
		if (*c == '\'')
			appendStringInfoString(out, "'\\''");
		else
			appendStringInfoChar(out, *c);
	}
	appendStringInfoString(out, "'\n");
}
