/*-------------------------------------------------------------------------
 *
 * standby_funcs.c
 *	  SQL: standby_status().
 *
 * IDENTIFICATION
 *	  src/watch/standby_funcs.c
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/genam.h"
#include "access/htup_details.h"
#include "access/table.h"
#include "catalog/pg_database.h"
#include "fmgr.h"
#include "funcapi.h"
#include "utils/builtins.h"
#include "utils/fmgrprotos.h"
#include "utils/pg_lsn.h"
#include "utils/rel.h"
#include "utils/timestamp.h"
#include "utils/tuplestore.h"

#include "failures/failure_table.h"
#include "failures/failures.h"
#include "format.h"
#include "watch/board.h"
#include "watch/upstream.h"

/* The columns of standby_status(), in order. */
typedef enum StandbyColumn
{
	STANDBY_STATE,
	STANDBY_SENDER_HOST,
	STANDBY_SENDER_PORT,
	STANDBY_SLOT_NAME,
	STANDBY_RECEIVED_LSN,
	STANDBY_REPLAYED_LSN,
	STANDBY_RECEIVE_LAG_BYTES,
	STANDBY_REPLAY_LAG_BYTES,
	STANDBY_LAG_TIME,
	STANDBY_REPLAY_PAUSE_STATE,
	STANDBY_TIMELINE,
	STANDBY_LAST_MSG_RECEIPT_TIME,
	STANDBY_CONFLICTS,
	STANDBY_HEALTH,
	STANDBY_REASON,
	STANDBY_LAST_ERROR,
	STANDBY_LAST_ERROR_AT,
	STANDBY_NCOLS
} StandbyColumn;

/* The row in the making: all NULL until put. */
typedef struct StandbyRow
{
	Datum		values[STANDBY_NCOLS];
	bool		nulls[STANDBY_NCOLS];
} StandbyRow;

PG_FUNCTION_INFO_V1(pg_replica_kit_standby_status);

static void put_stream(StandbyRow *row, const PrkUpstream *upstream);
static void put_verdict(StandbyRow *row, const PrkUpstream *upstream);
static const char *state_name(const PrkUpstream *upstream,
							  const PrkFailure *failure, TimestampTz now);
static const char *pause_name(RecoveryPauseState state);
static int64 count_conflicts(void);
static void put(StandbyRow *row, StandbyColumn column, Datum value);

/*
 * standby_status() - on a standby one row, on a primary none.
 *
 * No special permission is asked for: EXECUTE is the only gate.
 */
Datum
pg_replica_kit_standby_status(PG_FUNCTION_ARGS)
{
	ReturnSetInfo *rsinfo = (ReturnSetInfo *) fcinfo->resultinfo;
	PrkUpstream upstream;
	StandbyRow	row;

	InitMaterializedSRF(fcinfo, 0);
	Assert(rsinfo->setDesc->natts == STANDBY_NCOLS);

	prk_upstream_read(&upstream);
	if (!upstream.in_recovery)
		return (Datum) 0;

	memset(row.values, 0, sizeof(row.values));
	memset(row.nulls, true, sizeof(row.nulls));
	put_stream(&row, &upstream);
	put_verdict(&row, &upstream);
	tuplestore_putvalues(rsinfo->setResult, rsinfo->setDesc,
						 row.values, row.nulls);
	return (Datum) 0;
}

/* What comes from where, and how far it has got. */
static void
put_stream(StandbyRow *row, const PrkUpstream *upstream)
{
	if (upstream->streaming && upstream->sender_host[0] != '\0')
	{
		put(row, STANDBY_SENDER_HOST,
			CStringGetTextDatum(upstream->sender_host));
		put(row, STANDBY_SENDER_PORT, Int32GetDatum(upstream->sender_port));
	}
	if (upstream->slot_name[0] != '\0')
		put(row, STANDBY_SLOT_NAME,
			DirectFunctionCall1(namein, CStringGetDatum(upstream->slot_name)));
	if (!XLogRecPtrIsInvalid(upstream->received_lsn))
		put(row, STANDBY_RECEIVED_LSN, LSNGetDatum(upstream->received_lsn));
	put(row, STANDBY_REPLAYED_LSN, LSNGetDatum(upstream->replayed_lsn));
	if (upstream->unreceived_bytes >= 0)
		put(row, STANDBY_RECEIVE_LAG_BYTES,
			Int64GetDatum(upstream->unreceived_bytes));
	put(row, STANDBY_REPLAY_LAG_BYTES,
		Int64GetDatum(upstream->unreplayed_bytes));
	put(row, STANDBY_REPLAY_PAUSE_STATE,
		CStringGetTextDatum(pause_name(upstream->pause_state)));
	put(row, STANDBY_TIMELINE, Int32GetDatum((int32) upstream->timeline));
	if (upstream->last_message_at != 0)
		put(row, STANDBY_LAST_MSG_RECEIPT_TIME,
			TimestampTzGetDatum(upstream->last_message_at));
	put(row, STANDBY_CONFLICTS, Int64GetDatum(count_conflicts()));
}

/* What is thought of it. */
static void
put_verdict(StandbyRow *row, const PrkUpstream *upstream)
{
	const PrkFailure *failure = prk_failures_of_upstream(prk_failures_read());
	PrkBoard   *board = prk_board_read();
	TimestampTz now = GetCurrentTimestamp();
	PrkThresholds thresholds;
	PrkVerdict	verdict;

	prk_settings_thresholds(PRK_UPSTREAM_NAME, &thresholds);
	prk_upstream_judge(upstream, &thresholds,
					   board->cycle_at != 0 && board->worker_pid != 0,
					   board->upstream.gone_since, now, &verdict);

	put(row, STANDBY_STATE,
		CStringGetTextDatum(state_name(upstream, failure, now)));
	if (verdict.lag_time >= 0)
	{
		Interval   *lag_time = palloc0(sizeof(Interval));

		lag_time->time = verdict.lag_time;
		put(row, STANDBY_LAG_TIME, IntervalPGetDatum(lag_time));
	}
	put(row, STANDBY_HEALTH,
		CStringGetTextDatum(prk_level_name(verdict.level)));
	put(row, STANDBY_REASON, CStringGetTextDatum(verdict.reason));
	if (failure != NULL)
	{
		put(row, STANDBY_LAST_ERROR,
			CStringGetTextDatum(prk_format_foreign(failure->message)));
		put(row, STANDBY_LAST_ERROR_AT,
			TimestampTzGetDatum(failure->last_at));
	}
}

/*
 * A receiver that has just connected may be about to be refused, as it was
 * the last time: that is not streaming.
 */
static const char *
state_name(const PrkUpstream *upstream, const PrkFailure *failure,
		   TimestampTz now)
{
	if (!upstream->wanted && !upstream->streaming)
		return "archive recovery";
	if (upstream->stalled)
		return "stalled";
	if (upstream->settled)
		return "streaming";
	if (upstream->streaming &&
		(failure == NULL || TimestampDifferenceExceeds(failure->last_at, now,
													   2 * wal_retrieve_retry_interval)))
		return "streaming";
	return "disconnected";
}

/* The words of pg_get_wal_replay_pause_state() */
static const char *
pause_name(RecoveryPauseState state)
{
	switch (state)
	{
		case RECOVERY_NOT_PAUSED:
			return "not paused";
		case RECOVERY_PAUSE_REQUESTED:
			return "pause requested";
		case RECOVERY_PAUSED:
			return "paused";
	}
	pg_unreachable();
}

/* Queries that were cancelled for replay's sake, in all databases. */
static int64
count_conflicts(void)
{
	int64		result = 0;
	Relation	rel = table_open(DatabaseRelationId, AccessShareLock);
	SysScanDesc scan = systable_beginscan(rel, InvalidOid, false, NULL, 0,
										  NULL);
	HeapTuple	tuple;

	while (HeapTupleIsValid(tuple = systable_getnext(scan)))
	{
		Oid			database = ((Form_pg_database) GETSTRUCT(tuple))->oid;

		result += DatumGetInt64(DirectFunctionCall1(pg_stat_get_db_conflict_all,
													ObjectIdGetDatum(database)));
	}
	systable_endscan(scan);
	table_close(rel, AccessShareLock);
	return result;
}

static void
put(StandbyRow *row, StandbyColumn column, Datum value)
{
	row->values[column] = value;
	row->nulls[column] = false;
}
