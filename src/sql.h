/*-------------------------------------------------------------------------
 *
 * sql.h
 *	  Arguments in, rows out: what all SQL functions have in common.
 *
 * For files named *_funcs.c only: mechanisms know no SQL.
 *
 * IDENTIFICATION
 *	  src/sql.h
 *
 *-------------------------------------------------------------------------
 */
#ifndef PRK_SQL_H
#define PRK_SQL_H

#include "catalog/pg_type_d.h"
#include "datatype/timestamp.h"
#include "fmgr.h"
#include "libpq/pqcomm.h"
#include "utils/inet.h"
#include "utils/tuplestore.h"

#define PRK_MAX_ARGS	8
#define PRK_MAX_COLUMNS 64
#define PRK_ROW_SPACE	1024

/*
 * How a function has to be declared for the C function that has this
 * signature.  Either ncolumns or result is given.
 */
typedef struct PrkSignature
{
	Oid			args[PRK_MAX_ARGS]; /* input arguments; the rest is 0 */
	Oid			result;			/* where the result is no row */
	int			ncolumns;		/* of the row or rows; 1: a set of values */
	Oid			columns[PRK_MAX_COLUMNS];
} PrkSignature;

/* A row in the making: all NULL until put. */
typedef struct PrkRow
{
	TupleDesc	desc;
	Tuplestorestate *store;		/* NULL: the only row */
	MemoryContext context;		/* of what is put; one of several rows has it
								 * until it is added */
	Size		used;			/* of space, where that is enough for it */
	Datum		values[PRK_MAX_COLUMNS];
	bool		nulls[PRK_MAX_COLUMNS];
				pg_attribute_aligned(MAXIMUM_ALIGNOF) char space[PRK_ROW_SPACE];
} PrkRow;

/* the declaration */
extern void prk_sql_check(FunctionCallInfo fcinfo,
						  const PrkSignature *signature);

/* arguments */
extern bool prk_arg_bool(FunctionCallInfo fcinfo, int argno,
						 const char *name);
extern inet *prk_arg_inet(FunctionCallInfo fcinfo, int argno,
						  const char *name);
extern int32 prk_arg_int32(FunctionCallInfo fcinfo, int argno,
						   const char *name);
extern char *prk_arg_name(FunctionCallInfo fcinfo, int argno,
						  const char *name);
extern char *prk_arg_text(FunctionCallInfo fcinfo, int argno,
						  const char *name);
extern Interval *prk_arg_interval(FunctionCallInfo fcinfo, int argno,
								  const char *name);

/* results */
extern void prk_row_begin(FunctionCallInfo fcinfo,
						  const PrkSignature *signature, PrkRow *row);
extern Datum prk_row_end(PrkRow *row);
extern void prk_rows_begin(FunctionCallInfo fcinfo,
						   const PrkSignature *signature, PrkRow *row);
extern void prk_rows_add(PrkRow *row);

/* columns */
extern void prk_put(PrkRow *row, int column, Datum value);
extern void prk_put_address(PrkRow *row, int column,
							const SockAddr *address);
extern void prk_put_bool(PrkRow *row, int column, bool value);
extern void prk_put_bytes(PrkRow *row, int column, int64 value);
extern void prk_put_int32(PrkRow *row, int column, int32 value);
extern void prk_put_int64(PrkRow *row, int column, int64 value);
extern void prk_put_interval(PrkRow *row, int column, int64 microseconds);
extern void prk_put_lsn(PrkRow *row, int column, uint64 lsn);
extern void prk_put_name(PrkRow *row, int column, const char *value);
extern void prk_put_text(PrkRow *row, int column, const char *value);
extern void prk_put_time(PrkRow *row, int column, TimestampTz value);

#endif							/* PRK_SQL_H */
