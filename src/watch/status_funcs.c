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

#include "miscadmin.h"

#include "format.h"
#include "sql.h"
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

static const PrkSignature status_signature = {
	.ncolumns = STATUS_NCOLS,
	.columns = {
		[STATUS_NAME] = TEXTOID,
		[STATUS_SLOT_NAME] = NAMEOID,
		[STATUS_SLOT_TYPE] = TEXTOID,
		[STATUS_USENAME] = NAMEOID,
		[STATUS_APPLICATION_NAME] = TEXTOID,
		[STATUS_CLIENT_ADDR] = INETOID,
		[STATUS_PID] = INT4OID,
		[STATUS_STATE] = TEXTOID,
		[STATUS_SYNC_STATE] = TEXTOID,
		[STATUS_SENT_LSN] = PG_LSNOID,
		[STATUS_WRITE_LSN] = PG_LSNOID,
		[STATUS_FLUSH_LSN] = PG_LSNOID,
		[STATUS_REPLAY_LSN] = PG_LSNOID,
		[STATUS_RESTART_LSN] = PG_LSNOID,
		[STATUS_CONFIRMED_FLUSH_LSN] = PG_LSNOID,
		[STATUS_LAG_BYTES] = INT8OID,
		[STATUS_LAG_TIME] = INTERVALOID,
		[STATUS_UNSENT_BYTES] = INT8OID,
		[STATUS_UNWRITTEN_BYTES] = INT8OID,
		[STATUS_UNFLUSHED_BYTES] = INT8OID,
		[STATUS_UNREPLAYED_BYTES] = INT8OID,
		[STATUS_RETAINED_BYTES] = INT8OID,
		[STATUS_WAL_STATUS] = TEXTOID,
		[STATUS_SAFE_WAL_SIZE] = INT8OID,
		[STATUS_XMIN_AGE] = INT4OID,
		[STATUS_BACKEND_START] = TIMESTAMPTZOID,
		[STATUS_REPLY_TIME] = TIMESTAMPTZOID,
		[STATUS_INACTIVE_SINCE] = TIMESTAMPTZOID,
		[STATUS_CATCH_UP_IN] = INTERVALOID,
		[STATUS_LOST_IN] = INTERVALOID,
		[STATUS_DISK_FULL_IN] = INTERVALOID,
		[STATUS_HEALTH] = TEXTOID,
		[STATUS_ALERT] = TEXTOID,
		[STATUS_ALERT_SINCE] = TIMESTAMPTZOID,
		[STATUS_REASON] = TEXTOID,
		[STATUS_LAST_ERROR] = TEXTOID,
		[STATUS_LAST_ERROR_AT] = TIMESTAMPTZOID
	}
};

PG_FUNCTION_INFO_V1(pg_replica_kit_status_1_0);

static void put_row(PrkRow *row, const PrkReportRow *report);
static void put_slot(PrkRow *row, const PrkReplica *replica);
static void put_process(PrkRow *row, const PrkReplica *replica);
static void put_verdict(PrkRow *row, const PrkReportRow *report);
static void put_reason(PrkRow *row, const PrkReportRow *report);

/*
 * status() - one row per replication slot and per walsender without one,
 * worst first.
 */
Datum
pg_replica_kit_status_1_0(PG_FUNCTION_ARGS)
{
	PrkReport  *report;
	PrkRow		row;

	prk_rows_begin(fcinfo, &status_signature, &row);
	report = prk_report_take();
	for (int i = 0; i < report->nrows; i++)
	{
		put_row(&row, &report->rows[i]);
		prk_rows_add(&row);
	}

	return (Datum) 0;
}

/* A whole row */
static void
put_row(PrkRow *row, const PrkReportRow *report)
{
	const PrkReplica *replica = report->replica;

	prk_put_text(row, STATUS_NAME, replica->name);
	if (replica->has_slot)
		put_slot(row, replica);
	if (replica->pid != 0)
		put_process(row, replica);

	prk_put_bytes(row, STATUS_LAG_BYTES, replica->lag_bytes);
	prk_put_bytes(row, STATUS_UNSENT_BYTES, replica->unsent_bytes);
	prk_put_bytes(row, STATUS_UNWRITTEN_BYTES, replica->unwritten_bytes);
	prk_put_bytes(row, STATUS_UNFLUSHED_BYTES, replica->unflushed_bytes);
	prk_put_bytes(row, STATUS_UNREPLAYED_BYTES, replica->unreplayed_bytes);
	prk_put_bytes(row, STATUS_RETAINED_BYTES, replica->retained_bytes);

	put_verdict(row, report);
}

/* The columns of pg_replication_slots */
static void
put_slot(PrkRow *row, const PrkReplica *replica)
{
	prk_put_name(row, STATUS_SLOT_NAME, replica->slot_name);
	prk_put_text(row, STATUS_SLOT_TYPE, replica->logical ? "logical" : "physical");
	prk_put_lsn(row, STATUS_RESTART_LSN, replica->restart_lsn);
	prk_put_lsn(row, STATUS_CONFIRMED_FLUSH_LSN, replica->confirmed_flush_lsn);
	prk_put_text(row, STATUS_WAL_STATUS,
				 prk_wal_status_name(replica->wal_status));
	if (replica->has_safe_wal_size)
		prk_put_int64(row, STATUS_SAFE_WAL_SIZE, replica->safe_wal_size);
	if (replica->xmin_age >= 0)
		prk_put_int32(row, STATUS_XMIN_AGE, replica->xmin_age);
	prk_put_time(row, STATUS_INACTIVE_SINCE, replica->inactive_since);
}

/* The columns of pg_stat_replication */
static void
put_process(PrkRow *row, const PrkReplica *replica)
{
	prk_put_int32(row, STATUS_PID, replica->pid);

	/* A role that was dropped meanwhile has no name, as in the view. */
	if (OidIsValid(replica->userid))
	{
		prk_put_name(row, STATUS_USENAME,
					 GetUserNameFromId(replica->userid, true));
		prk_put_text(row, STATUS_APPLICATION_NAME, replica->application_name);
	}
	if (replica->has_client_addr)
		prk_put_address(row, STATUS_CLIENT_ADDR, &replica->client_addr);
	prk_put_time(row, STATUS_BACKEND_START, replica->backend_start);

	prk_put_text(row, STATUS_SYNC_STATE, replica->sync_state);
	prk_put_lsn(row, STATUS_SENT_LSN, replica->sent_lsn);
	prk_put_lsn(row, STATUS_WRITE_LSN, replica->write_lsn);
	prk_put_lsn(row, STATUS_FLUSH_LSN, replica->flush_lsn);
	prk_put_lsn(row, STATUS_REPLAY_LSN, replica->replay_lsn);
	prk_put_time(row, STATUS_REPLY_TIME, replica->reply_time);
}

/* What is thought of the replica */
static void
put_verdict(PrkRow *row, const PrkReportRow *report)
{
	const PrkVerdict *verdict = &report->verdict;

	prk_put_text(row, STATUS_STATE, prk_state_name(verdict->state));
	prk_put_text(row, STATUS_HEALTH, prk_level_name(verdict->level));
	put_reason(row, report);

	prk_put_interval(row, STATUS_LAG_TIME, verdict->lag_time);
	prk_put_interval(row, STATUS_CATCH_UP_IN, verdict->forecast.catch_up_in);
	prk_put_interval(row, STATUS_LOST_IN, verdict->forecast.lost_in);
	prk_put_interval(row, STATUS_DISK_FULL_IN, report->disk_full_in);

	if (report->has_alert)
	{
		prk_put_text(row, STATUS_ALERT, prk_level_name(report->alert));
		prk_put_time(row, STATUS_ALERT_SINCE, report->alert_since);
	}
	if (report->last_error != NULL)
	{
		prk_put_text(row, STATUS_LAST_ERROR,
					 prk_foreign_show_words(&report->last_error->message));
		prk_put_time(row, STATUS_LAST_ERROR_AT, report->last_error->last_at);
	}
}

/* What is wrong, and what will come of it */
static void
put_reason(PrkRow *row, const PrkReportRow *report)
{
	const PrkVerdict *verdict = &report->verdict;
	char		reason[PRK_REASON_LEN + PRK_OUTLOOK_LEN + 128];
	char		buf[PRK_FORMAT_LEN];
	size_t		len = strlcpy(reason, verdict->reason, sizeof(reason));

	if (verdict->outlook[0] != '\0')
		len += snprintf(reason + len, sizeof(reason) - len, ", %s",
						verdict->outlook);
	if (report->disk_full_in >= 0)
		len += snprintf(reason + len, sizeof(reason) - len,
						", disk of pg_wal will be full in %s",
						prk_format_duration(buf, report->disk_full_in));
	if (report->silence != NULL)
		prk_put_text(row, STATUS_REASON,
					 psprintf("%s%s%s", reason, len > 0 ? ", " : "",
							  prk_silence_words(report->silence)));
	else if (len > 0)
		prk_put_text(row, STATUS_REASON, reason);
}
