/*-------------------------------------------------------------------------
 *
 * sql.c
 *	  Arguments in, rows out: what all SQL functions have in common.
 *
 * A function of the extension's script and the C function behind it can be of
 * different versions: ALTER EXTENSION UPDATE declares what the installed
 * library has, while a server that preloads the library goes on with the one
 * that it was started with; and pg_dump and pg_upgrade bring declarations
 * along.  C would take the one type for the other, or write past the end of a
 * row, which ends the whole server.  So each call is compared with the
 * signature that the C function has, in the system cache: about a microsecond.
 *
 * All memory is of the caller's context.
 *
 * IDENTIFICATION
 *	  src/sql.c
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include <netdb.h>
#include <sys/socket.h>

#include "access/htup_details.h"
#include "catalog/pg_proc.h"
#include "common/ip.h"
#include "funcapi.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/pg_lsn.h"
#include "utils/regproc.h"
#include "utils/syscache.h"
#include "utils/timestamp.h"
#include "utils/tuplestore.h"

#include "sql.h"

static void misfit(FunctionCallInfo fcinfo, char *detail);
static void check_columns(FunctionCallInfo fcinfo,
						  const PrkSignature *signature, TupleDesc desc);
static void require_arg(FunctionCallInfo fcinfo, int argno, const char *name);
static void clear_row(PrkRow *row);
static void *take_space(PrkRow *row, Size size);

/*
 * Raises an error unless the function that is called is declared with the
 * arguments, and the kind of result, that the signature has.  To be called
 * before any argument is looked at.  The columns of a row are compared by
 * prk_row_begin() and prk_rows_begin(), which call this themselves.
 */
void
prk_sql_check(FunctionCallInfo fcinfo, const PrkSignature *signature)
{
	HeapTuple	tuple;
	Form_pg_proc proc;
	int			nargs = 0;
	Oid			result;
	bool		fits;

	while (nargs < PRK_MAX_ARGS && OidIsValid(signature->args[nargs]))
		nargs++;

	tuple = SearchSysCache1(PROCOID, ObjectIdGetDatum(fcinfo->flinfo->fn_oid));
	if (!HeapTupleIsValid(tuple))
		elog(ERROR, "cache lookup failed for function %u",
			 fcinfo->flinfo->fn_oid);
	proc = (Form_pg_proc) GETSTRUCT(tuple);
	fits = proc->pronargs == nargs && PG_NARGS() == nargs &&
		memcmp(proc->proargtypes.values, signature->args,
			   nargs * sizeof(Oid)) == 0;
	result = proc->prorettype;
	ReleaseSysCache(tuple);

	if (!fits)
	{
		StringInfoData types;

		initStringInfo(&types);
		for (int i = 0; i < nargs; i++)
			appendStringInfo(&types, "%s%s", i > 0 ? ", " : "",
							 format_type_be(signature->args[i]));
		misfit(fcinfo, psprintf("Its arguments must be (%s).", types.data));
	}

	if (signature->ncolumns == 0)
	{
		if (result != signature->result)
			misfit(fcinfo, psprintf("It returns %s, not %s.",
									format_type_be(result),
									format_type_be(signature->result)));
	}
	else if (signature->ncolumns == 1)
	{
		if (result != signature->columns[0])
			misfit(fcinfo, psprintf("It returns %s, not %s.",
									format_type_be(result),
									format_type_be(signature->columns[0])));
	}
	else if (result != RECORDOID && get_typtype(result) != TYPTYPE_COMPOSITE)
		misfit(fcinfo, psprintf("It returns %s, not a row.",
								format_type_be(result)));
}

/* The function's declaration and the library don't go together. */
static void
misfit(FunctionCallInfo fcinfo, char *detail)
{
	ereport(ERROR,
			(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
			 errmsg("function %s does not fit the loaded library of pg_replica_kit",
					format_procedure(fcinfo->flinfo->fn_oid)),
			 errdetail_internal("%s", detail),
			 errhint("If the extension was updated, restart the server, so that it loads the installed library.")));
}

/* Raises an error unless a row has the columns of the signature. */
static void
check_columns(FunctionCallInfo fcinfo, const PrkSignature *signature,
			  TupleDesc desc)
{
	if (desc->natts != signature->ncolumns)
		misfit(fcinfo, psprintf("Its rows have %d columns, not %d.",
								desc->natts, signature->ncolumns));
	for (int i = 0; i < desc->natts; i++)
	{
		Form_pg_attribute attribute = TupleDescAttr(desc, i);

		if (attribute->atttypid != signature->columns[i])
			misfit(fcinfo, psprintf("Its column \"%s\" is of type %s, not %s.",
									NameStr(attribute->attname),
									format_type_be(attribute->atttypid),
									format_type_be(signature->columns[i])));
	}
}

/*
 * The argument, which must not be NULL.  The functions can't be STRICT,
 * because others of their arguments may be NULL, so each says which one was.
 */
bool
prk_arg_bool(FunctionCallInfo fcinfo, int argno, const char *name)
{
	require_arg(fcinfo, argno, name);
	return PG_GETARG_BOOL(argno);
}

/* The argument, which must not be NULL. */
inet *
prk_arg_inet(FunctionCallInfo fcinfo, int argno, const char *name)
{
	require_arg(fcinfo, argno, name);
	return PG_GETARG_INET_PP(argno);
}

/* The argument, which must not be NULL. */
int32
prk_arg_int32(FunctionCallInfo fcinfo, int argno, const char *name)
{
	require_arg(fcinfo, argno, name);
	return PG_GETARG_INT32(argno);
}

/* The argument, which must not be NULL. */
Interval *
prk_arg_interval(FunctionCallInfo fcinfo, int argno, const char *name)
{
	require_arg(fcinfo, argno, name);
	return PG_GETARG_INTERVAL_P(argno);
}

/* The argument, which must not be NULL. */
char *
prk_arg_text(FunctionCallInfo fcinfo, int argno, const char *name)
{
	require_arg(fcinfo, argno, name);
	return text_to_cstring(PG_GETARG_TEXT_PP(argno));
}

/*
 * The same, where it names something of the server's.  The server cuts names
 * that are too long without a word; here that is an error.
 */
char *
prk_arg_name(FunctionCallInfo fcinfo, int argno, const char *name)
{
	char	   *value = prk_arg_text(fcinfo, argno, name);

	if (value[0] == '\0')
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_NAME),
				 errmsg("argument \"%s\" must not be empty", name)));
	if (strlen(value) >= NAMEDATALEN)
		ereport(ERROR,
				(errcode(ERRCODE_NAME_TOO_LONG),
				 errmsg("argument \"%s\" is too long", name),
				 errdetail("A name must be shorter than %d bytes.",
						   NAMEDATALEN)));
	return value;
}

/* Raises an error if the argument is NULL. */
static void
require_arg(FunctionCallInfo fcinfo, int argno, const char *name)
{
	if (PG_ARGISNULL(argno))
		ereport(ERROR,
				(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
				 errmsg("argument \"%s\" must not be null", name)));
}

/*
 * Begins the one row that a function returns; raises an error if it is
 * declared with another one.
 */
void
prk_row_begin(FunctionCallInfo fcinfo, const PrkSignature *signature,
			  PrkRow *row)
{
	TupleDesc	desc;

	prk_sql_check(fcinfo, signature);
	if (get_call_result_type(fcinfo, NULL, &desc) != TYPEFUNC_COMPOSITE)
		misfit(fcinfo, pstrdup("It is called without a list of its columns."));
	check_columns(fcinfo, signature, desc);

	row->desc = BlessTupleDesc(desc);
	row->store = NULL;
	row->context = CurrentMemoryContext;
	clear_row(row);
}

/* The row as the function's result. */
Datum
prk_row_end(PrkRow *row)
{
	return HeapTupleGetDatum(heap_form_tuple(row->desc, row->values,
											 row->nulls));
}

/*
 * Begins the rows of a function that returns a set of them, with the first
 * one cleared; raises an error if the function is declared with others.  The
 * function returns (Datum) 0 in the end.
 */
void
prk_rows_begin(FunctionCallInfo fcinfo, const PrkSignature *signature,
			   PrkRow *row)
{
	ReturnSetInfo *rsinfo;

	prk_sql_check(fcinfo, signature);
	InitMaterializedSRF(fcinfo, signature->ncolumns == 1 ?
						MAT_SRF_USE_EXPECTED_DESC : 0);
	rsinfo = (ReturnSetInfo *) fcinfo->resultinfo;
	check_columns(fcinfo, signature, rsinfo->setDesc);

	row->desc = rsinfo->setDesc;
	row->store = rsinfo->setResult;
	row->context = AllocSetContextCreate(CurrentMemoryContext,
										 "pg_replica_kit row",
										 ALLOCSET_DEFAULT_SIZES);
	clear_row(row);
}

/* Adds the row to the result, and begins the next. */
void
prk_rows_add(PrkRow *row)
{
	CHECK_FOR_INTERRUPTS();
	tuplestore_putvalues(row->store, row->desc, row->values, row->nulls);
	MemoryContextReset(row->context);
	clear_row(row);
}

/* All columns become NULL. */
static void
clear_row(PrkRow *row)
{
	memset(row->values, 0, row->desc->natts * sizeof(Datum));
	memset(row->nulls, true, row->desc->natts * sizeof(bool));
	row->used = 0;
}

/*
 * Memory for a value, in the row itself while there is room: that is several
 * times as fast as palloc.
 */
static void *
take_space(PrkRow *row, Size size)
{
	void	   *result = row->space + row->used;

	if (MAXALIGN(size) > sizeof(row->space) - row->used)
		return MemoryContextAlloc(row->context, size);
	row->used += MAXALIGN(size);
	return result;
}

/* Puts a value that is not NULL into a column. */
void
prk_put(PrkRow *row, int column, Datum value)
{
	row->values[column] = value;
	row->nulls[column] = false;
}

/* Puts a boolean that is not NULL into a column. */
void
prk_put_bool(PrkRow *row, int column, bool value)
{
	prk_put(row, column, BoolGetDatum(value));
}

/* Puts an integer that is not NULL into a column. */
void
prk_put_int32(PrkRow *row, int column, int32 value)
{
	prk_put(row, column, Int32GetDatum(value));
}

/* Puts a bigint that is not NULL into a column. */
void
prk_put_int64(PrkRow *row, int column, int64 value)
{
	prk_put(row, column, Int64GetDatum(value));
}

/* -1 stands for SQL's NULL. */
void
prk_put_bytes(PrkRow *row, int column, int64 value)
{
	if (value >= 0)
		prk_put_int64(row, column, value);
}

/* A negative duration stands for SQL's NULL. */
void
prk_put_interval(PrkRow *row, int column, int64 microseconds)
{
	Interval   *interval;

	if (microseconds < 0)
		return;
	interval = take_space(row, sizeof(Interval));
	memset(interval, 0, sizeof(Interval));
	interval->time = microseconds;
	prk_put(row, column, IntervalPGetDatum(interval));
}

/* An invalid position stands for SQL's NULL. */
void
prk_put_lsn(PrkRow *row, int column, uint64 lsn)
{
	if (lsn != 0)
		prk_put(row, column, LSNGetDatum(lsn));
}

/* NULL stands for SQL's NULL. */
void
prk_put_name(PrkRow *row, int column, const char *value)
{
	Name		name;

	if (value == NULL)
		return;
	name = take_space(row, NAMEDATALEN);
	namestrcpy(name, value);
	prk_put(row, column, NameGetDatum(name));
}

/* NULL stands for SQL's NULL. */
void
prk_put_text(PrkRow *row, int column, const char *value)
{
	text	   *copy;
	Size		len;

	if (value == NULL)
		return;
	len = strlen(value);
	copy = take_space(row, VARHDRSZ + len);
	SET_VARSIZE(copy, VARHDRSZ + len);
	memcpy(VARDATA(copy), value, len);
	prk_put(row, column, PointerGetDatum(copy));
}

/* 0 stands for SQL's NULL. */
void
prk_put_time(PrkRow *row, int column, TimestampTz value)
{
	if (value != 0)
		prk_put(row, column, TimestampTzGetDatum(value));
}

/*
 * A client's address as pg_stat_get_activity() shows it: NULL for Unix
 * sockets, and for what has no numeric form.
 */
void
prk_put_address(PrkRow *row, int column, const SockAddr *address)
{
	MemoryContext old;
	char		host[NI_MAXHOST];

	if (address->addr.ss_family != AF_INET &&
		address->addr.ss_family != AF_INET6)
		return;

	if (pg_getnameinfo_all(&address->addr, address->salen,
						   host, sizeof(host), NULL, 0,
						   NI_NUMERICHOST | NI_NUMERICSERV) != 0)
		return;

	clean_ipv6_addr(address->addr.ss_family, host);
	old = MemoryContextSwitchTo(row->context);
	prk_put(row, column, DirectFunctionCall1(inet_in, CStringGetDatum(host)));
	MemoryContextSwitchTo(old);
}
