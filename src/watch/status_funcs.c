/*-------------------------------------------------------------------------
 *
 * status_funcs.c
 *	  SQL: status().
 *
 * No function here checks who asks: EXECUTE, which PUBLIC has not, is the
 * only gate, so that an application's own role can be let in.  All but the
 * names of roles comes from shared memory, read afresh at each call.
 *
 * IDENTIFICATION
 *	  src/watch/status_funcs.c
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include <netdb.h>

#include "common/ip.h"
#include "fmgr.h"
#include "funcapi.h"
#include "lib/stringinfo.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/pg_lsn.h"
#include "utils/timestamp.h"
#include "utils/tuplestore.h"

#include "format.h"
#include "watch/report.h"

/* The columns of status(), in order. */
typedef enum StatusColumn
{
	STATUS_NAME,
	STATUS_SLOT_NAME,
	STATUS_SLOT_TYPE,
	STATUS_USENAME,
	STATUS_APPLICATION_NAME,
	STATUS_CLIENT_ADDR,
	STATUS_PID,
	STATUS_STATE,
	STATUS_SYNC_STATE,
	STATUS_SENT_LSN,
	STATUS_WRITE_LSN,
	STATUS_FLUSH_LSN,
	STATUS_REPLAY_LSN,
	STATUS_RESTART_LSN,
	STATUS_CONFIRMED_FLUSH_LSN,
	STATUS_LAG_BYTES,
	STATUS_LAG_TIME,
	STATUS_UNSENT_BYTES,
	STATUS_UNWRITTEN_BYTES,
	STATUS_UNFLUSHED_BYTES,
	STATUS_UNREPLAYED_BYTES,
	STATUS_RETAINED_BYTES,
	STATUS_WAL_STATUS,
	STATUS_SAFE_WAL_SIZE,
	STATUS_XMIN_AGE,
	STATUS_BACKEND_START,
	STATUS_REPLY_TIME,
	STATUS_INACTIVE_SINCE,
	STATUS_CATCH_UP_IN,
	STATUS_LOST_IN,
	STATUS_DISK_FULL_IN,
	STATUS_HEALTH,
	STATUS_ALERT,
	STATUS_ALERT_SINCE,
	STATUS_REASON,
	STATUS_LAST_ERROR,
	STATUS_LAST_ERROR_AT,
	STATUS_NCOLS
} StatusColumn;

/* One row of status() in the making: all NULL until put. */
typedef struct StatusRow
{
	Datum		values[STATUS_NCOLS];
	bool		nulls[STATUS_NCOLS];
} StatusRow;

PG_FUNCTION_INFO_V1(pg_replica_kit_status);

static void put_row(StatusRow *row, const PrkReportRow *report);
static void put_slot(StatusRow *row, const PrkReplica *replica);
static void put_process(StatusRow *row, const PrkReplica *replica);
static void put_verdict(StatusRow *row, const PrkReportRow *report);
static void put_reason(StatusRow *row, const PrkReportRow *report);
static void put(StatusRow *row, StatusColumn column, Datum value);
static void put_text(StatusRow *row, StatusColumn column, const char *value);
static void put_name(StatusRow *row, StatusColumn column, const char *value);
static void put_lsn(StatusRow *row, StatusColumn column, XLogRecPtr value);
static void put_bytes(StatusRow *row, StatusColumn column, int64 value);
static void put_interval(StatusRow *row, StatusColumn column, int64 value);
static void put_time(StatusRow *row, StatusColumn column, TimestampTz value);
static void put_address(StatusRow *row, StatusColumn column,
						const SockAddr *address);

/*
 * status() - one row per replication slot and per walsender without one,
 * worst first.
 */
Datum
pg_replica_kit_status(PG_FUNCTION_ARGS)
{
	ReturnSetInfo *rsinfo = (ReturnSetInfo *) fcinfo->resultinfo;
	PrkReport  *report;

	InitMaterializedSRF(fcinfo, 0);
	Assert(rsinfo->setDesc->natts == STATUS_NCOLS);

	report = prk_report_take();
	for (int i = 0; i < report->nrows; i++)
	{
		StatusRow	row;

		CHECK_FOR_INTERRUPTS();
		put_row(&row, &report->rows[i]);
		tuplestore_putvalues(rsinfo->setResult, rsinfo->setDesc,
							 row.values, row.nulls);
	}

	return (Datum) 0;
}

/* A whole row */
static void
put_row(StatusRow *row, const PrkReportRow *report)
{
	const PrkReplica *replica = report->replica;

	memset(row->values, 0, sizeof(row->values));
	memset(row->nulls, true, sizeof(row->nulls));

	put_text(row, STATUS_NAME, replica->name);
	if (replica->has_slot)
		put_slot(row, replica);
	if (replica->pid != 0)
		put_process(row, replica);

	put_bytes(row, STATUS_LAG_BYTES, replica->lag_bytes);
	put_bytes(row, STATUS_UNSENT_BYTES, replica->unsent_bytes);
	put_bytes(row, STATUS_UNWRITTEN_BYTES, replica->unwritten_bytes);
	put_bytes(row, STATUS_UNFLUSHED_BYTES, replica->unflushed_bytes);
	put_bytes(row, STATUS_UNREPLAYED_BYTES, replica->unreplayed_bytes);
	put_bytes(row, STATUS_RETAINED_BYTES, replica->retained_bytes);

	put_verdict(row, report);
}

/* The columns of pg_replication_slots */
static void
put_slot(StatusRow *row, const PrkReplica *replica)
{
	put_name(row, STATUS_SLOT_NAME, replica->slot_name);
	put_text(row, STATUS_SLOT_TYPE, replica->logical ? "logical" : "physical");
	put_lsn(row, STATUS_RESTART_LSN, replica->restart_lsn);
	put_lsn(row, STATUS_CONFIRMED_FLUSH_LSN, replica->confirmed_flush_lsn);
	put_text(row, STATUS_WAL_STATUS,
			 prk_wal_status_name(replica->wal_status));
	if (replica->has_safe_wal_size)
		put(row, STATUS_SAFE_WAL_SIZE, Int64GetDatum(replica->safe_wal_size));
	if (replica->xmin_age >= 0)
		put(row, STATUS_XMIN_AGE, Int32GetDatum(replica->xmin_age));
	put_time(row, STATUS_INACTIVE_SINCE, replica->inactive_since);
}

/* The columns of pg_stat_replication */
static void
put_process(StatusRow *row, const PrkReplica *replica)
{
	put(row, STATUS_PID, Int32GetDatum(replica->pid));

	/* A role that was dropped meanwhile has no name, as in the view. */
	if (OidIsValid(replica->userid))
	{
		put_name(row, STATUS_USENAME,
				 GetUserNameFromId(replica->userid, true));
		put_text(row, STATUS_APPLICATION_NAME, replica->application_name);
	}
	if (replica->has_client_addr)
		put_address(row, STATUS_CLIENT_ADDR, &replica->client_addr);
	put_time(row, STATUS_BACKEND_START, replica->backend_start);

	put_text(row, STATUS_SYNC_STATE, replica->sync_state);
	put_lsn(row, STATUS_SENT_LSN, replica->sent_lsn);
	put_lsn(row, STATUS_WRITE_LSN, replica->write_lsn);
	put_lsn(row, STATUS_FLUSH_LSN, replica->flush_lsn);
	put_lsn(row, STATUS_REPLAY_LSN, replica->replay_lsn);
	put_time(row, STATUS_REPLY_TIME, replica->reply_time);
}

/* What is thought of the replica */
static void
put_verdict(StatusRow *row, const PrkReportRow *report)
{
	const PrkVerdict *verdict = &report->verdict;

	put_text(row, STATUS_STATE, prk_state_name(verdict->state));
	put_text(row, STATUS_HEALTH, prk_level_name(verdict->level));
	put_reason(row, report);

	put_interval(row, STATUS_LAG_TIME, verdict->lag_time);
	put_interval(row, STATUS_CATCH_UP_IN, verdict->forecast.catch_up_in);
	put_interval(row, STATUS_LOST_IN, verdict->forecast.lost_in);
	put_interval(row, STATUS_DISK_FULL_IN, report->disk_full_in);

	if (report->has_alert)
	{
		put_text(row, STATUS_ALERT, prk_level_name(report->alert));
		put_time(row, STATUS_ALERT_SINCE, report->alert_since);
	}
	if (report->last_error != NULL)
	{
		put_text(row, STATUS_LAST_ERROR,
				 prk_format_foreign(report->last_error->message));
		put_time(row, STATUS_LAST_ERROR_AT, report->last_error->last_at);
	}
}

/* What is wrong, and what will come of it */
static void
put_reason(StatusRow *row, const PrkReportRow *report)
{
	const PrkVerdict *verdict = &report->verdict;
	StringInfoData reason;
	char		buf[PRK_FORMAT_LEN];

	initStringInfo(&reason);
	appendStringInfoString(&reason, verdict->reason);
	if (verdict->outlook[0] != '\0')
		appendStringInfo(&reason, ", %s", verdict->outlook);
	if (report->disk_full_in >= 0)
		appendStringInfo(&reason, ", disk of pg_wal will be full in %s",
						 prk_format_duration(buf, report->disk_full_in));
	if (reason.len > 0)
		put_text(row, STATUS_REASON, reason.data);
}

static void
put(StatusRow *row, StatusColumn column, Datum value)
{
	row->values[column] = value;
	row->nulls[column] = false;
}

/* NULL stands for SQL's NULL. */
static void
put_text(StatusRow *row, StatusColumn column, const char *value)
{
	if (value != NULL)
		put(row, column, CStringGetTextDatum(value));
}

/* NULL stands for SQL's NULL. */
static void
put_name(StatusRow *row, StatusColumn column, const char *value)
{
	if (value != NULL)
		put(row, column, DirectFunctionCall1(namein, CStringGetDatum(value)));
}

/* An invalid position stands for SQL's NULL. */
static void
put_lsn(StatusRow *row, StatusColumn column, XLogRecPtr value)
{
	if (!XLogRecPtrIsInvalid(value))
		put(row, column, LSNGetDatum(value));
}

/* -1 stands for SQL's NULL. */
static void
put_bytes(StatusRow *row, StatusColumn column, int64 value)
{
	if (value >= 0)
		put(row, column, Int64GetDatum(value));
}

/* Microseconds, of which -1 stands for SQL's NULL. */
static void
put_interval(StatusRow *row, StatusColumn column, int64 value)
{
	Interval   *interval;

	if (value < 0)
		return;
	interval = palloc0(sizeof(Interval));
	interval->time = value;
	put(row, column, IntervalPGetDatum(interval));
}

/* 0 stands for SQL's NULL. */
static void
put_time(StatusRow *row, StatusColumn column, TimestampTz value)
{
	if (value != 0)
		put(row, column, TimestampTzGetDatum(value));
}

/*
 * A client's address as pg_stat_get_activity() shows it: NULL for Unix
 * sockets, and for what has no numeric form.
 */
static void
put_address(StatusRow *row, StatusColumn column, const SockAddr *address)
{
	char		host[NI_MAXHOST];

	if (address->addr.ss_family != AF_INET &&
		address->addr.ss_family != AF_INET6)
		return;

	if (pg_getnameinfo_all(&address->addr, address->salen,
						   host, sizeof(host), NULL, 0,
						   NI_NUMERICHOST | NI_NUMERICSERV) != 0)
		return;

	clean_ipv6_addr(address->addr.ss_family, host);
	put(row, column, DirectFunctionCall1(inet_in, CStringGetDatum(host)));
}
