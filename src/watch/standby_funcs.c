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
#include "utils/fmgrprotos.h"
#include "utils/pg_lsn.h"
#include "utils/rel.h"
#include "utils/timestamp.h"

#include "failures/failure_table.h"
#include "failures/failures.h"
#include "format.h"
#include "reads/gate.h"
#include "sql.h"
#include "watch/board.h"
#include "watch/silence.h"
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
	STANDBY_READ_GATE,
	STANDBY_READ_GATE_SINCE,
	STANDBY_NCOLS
} StandbyColumn;

static const PrkSignature standby_signature = {
	.ncolumns = STANDBY_NCOLS,
	.columns = {
		[STANDBY_STATE] = TEXTOID,
		[STANDBY_SENDER_HOST] = TEXTOID,
		[STANDBY_SENDER_PORT] = INT4OID,
		[STANDBY_SLOT_NAME] = NAMEOID,
		[STANDBY_RECEIVED_LSN] = PG_LSNOID,
		[STANDBY_REPLAYED_LSN] = PG_LSNOID,
		[STANDBY_RECEIVE_LAG_BYTES] = INT8OID,
		[STANDBY_REPLAY_LAG_BYTES] = INT8OID,
		[STANDBY_LAG_TIME] = INTERVALOID,
		[STANDBY_REPLAY_PAUSE_STATE] = TEXTOID,
		[STANDBY_TIMELINE] = INT4OID,
		[STANDBY_LAST_MSG_RECEIPT_TIME] = TIMESTAMPTZOID,
		[STANDBY_CONFLICTS] = INT8OID,
		[STANDBY_HEALTH] = TEXTOID,
		[STANDBY_REASON] = TEXTOID,
		[STANDBY_LAST_ERROR] = TEXTOID,
		[STANDBY_LAST_ERROR_AT] = TIMESTAMPTZOID,
		[STANDBY_READ_GATE] = TEXTOID,
		[STANDBY_READ_GATE_SINCE] = TIMESTAMPTZOID
	}
};

PG_FUNCTION_INFO_V1(pg_replica_kit_standby_status_1_0);

static void put_stream(PrkRow *row, const PrkUpstream *upstream);
static void put_verdict(PrkRow *row, PrkUpstream *upstream);
static void put_gate(PrkRow *row);
static const char *state_name(const PrkUpstream *upstream,
							  const PrkVerdict *verdict);
static const char *pause_name(RecoveryPauseState state);
static int64 count_conflicts(void);

/*
 * standby_status() - on a standby one row, on a primary none.
 *
 * No special permission is asked for: EXECUTE is the only gate.
 */
Datum
pg_replica_kit_standby_status_1_0(PG_FUNCTION_ARGS)
{
	PrkUpstream upstream;
	PrkRow		row;

	prk_rows_begin(fcinfo, &standby_signature, &row);
	prk_upstream_read(&upstream);
	if (!upstream.in_recovery)
		return (Datum) 0;

	put_stream(&row, &upstream);
	put_verdict(&row, &upstream);
	put_gate(&row);
	prk_rows_add(&row);
	return (Datum) 0;
}

/* What comes from where, and how far it has got. */
static void
put_stream(PrkRow *row, const PrkUpstream *upstream)
{
	if (upstream->streaming && upstream->sender_host[0] != '\0')
	{
		prk_put_text(row, STANDBY_SENDER_HOST, upstream->sender_host);
		prk_put_int32(row, STANDBY_SENDER_PORT, upstream->sender_port);
	}
	if (upstream->slot_name[0] != '\0')
		prk_put_name(row, STANDBY_SLOT_NAME, upstream->slot_name);
	prk_put_lsn(row, STANDBY_RECEIVED_LSN, upstream->received_lsn);
	prk_put(row, STANDBY_REPLAYED_LSN, LSNGetDatum(upstream->replayed_lsn));
	prk_put_bytes(row, STANDBY_RECEIVE_LAG_BYTES, upstream->unreceived_bytes);
	prk_put_int64(row, STANDBY_REPLAY_LAG_BYTES, upstream->unreplayed_bytes);
	prk_put_text(row, STANDBY_REPLAY_PAUSE_STATE,
				 pause_name(upstream->pause_state));
	prk_put_int32(row, STANDBY_TIMELINE, (int32) upstream->timeline);
	prk_put_time(row, STANDBY_LAST_MSG_RECEIPT_TIME,
				 upstream->last_message_at);
	prk_put_int64(row, STANDBY_CONFLICTS, count_conflicts());
}

/* What is thought of it. */
static void
put_verdict(PrkRow *row, PrkUpstream *upstream)
{
	PrkFailures *failures = prk_failures_read();
	const PrkFailure *failure = prk_failures_of_upstream(failures);
	PrkBoard   *board = prk_board_read();
	TimestampTz now = GetCurrentTimestamp();
	PrkThresholds thresholds;
	PrkVerdict	verdict;
	PrkFailureKind kind;
	bool		refused = prk_upstream_failure(failures, &kind) != NULL;
	PrkSilences silences;
	const PrkSilence *silence;

	prk_settings_own_thresholds(PRK_UPSTREAM_NAME, &thresholds);
	if (board->cycle_at != 0 && board->worker_pid != 0)
		prk_upstream_follow(upstream, board->upstream.replayed_lsn,
							board->upstream.still_since);
	prk_upstream_judge(upstream, refused ? &kind : NULL, &thresholds,
					   board->cycle_at != 0 && board->worker_pid != 0,
					   board->upstream.gone_since, now, &verdict);

	prk_put_text(row, STANDBY_STATE, state_name(upstream, &verdict));
	prk_put_interval(row, STANDBY_LAG_TIME, verdict.lag_time);
	prk_put_text(row, STANDBY_HEALTH, prk_level_name(verdict.level));
	prk_silence_read(&silences);
	silence = prk_silence_find(&silences, PRK_UPSTREAM_NAME);
	prk_put_text(row, STANDBY_REASON, silence == NULL ? verdict.reason :
				 psprintf("%s, %s", verdict.reason,
						  prk_silence_words(silence)));
	if (failure != NULL)
	{
		prk_put_text(row, STANDBY_LAST_ERROR,
					 prk_foreign_show_words(&failure->message));
		prk_put_time(row, STANDBY_LAST_ERROR_AT, failure->last_at);
	}
}

/*
 * A receiver that has just connected may be about to be refused, as it was
 * the last time: that is not streaming.
 */
static const char *
state_name(const PrkUpstream *upstream, const PrkVerdict *verdict)
{
	if (!upstream->wanted && !upstream->streaming)
		return "archive recovery";
	if (upstream->stalled)
		return "stalled";
	return verdict->state == PRK_STATE_STREAMING ? "streaming" :
		"disconnected";
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

/* The read gate, and since when it is so. */
static void
put_gate(PrkRow *row)
{
	static const char *const names[] = {
		[PRK_GATE_OFF] = "off",
		[PRK_GATE_OPEN] = "open",
		[PRK_GATE_CLOSED] = "closed"
	};
	TimestampTz since;

	prk_put_text(row, STANDBY_READ_GATE, names[prk_gate_read(&since)]);
	prk_put_time(row, STANDBY_READ_GATE_SINCE, since);
}
