/*-------------------------------------------------------------------------
 *
 * metrics.c
 *	  What metrics() says: families of series, made of one report.
 *
 * Series are named and counted so that they can be relied on.  Each known
 * replica has one in each family of replicas, whether the replica is there or
 * not and the value known or not: where a series vanished, no alert could fire
 * on it.  Labels are names, and words of a fixed set; nothing that changes from
 * one connection to the next is a label, or each change would be a new series.
 *
 * IDENTIFICATION
 *	  src/show/metrics.c
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "miscadmin.h"

#include "failures/failure_tally.h"
#include "show/exposition.h"
#include "show/metrics.h"
#include "show/series.h"
#include "version.h"

#define PREFIX		"replica_kit_"
#define LEVELS		"0 ok, 1 warning, 2 critical"

/* Bytes that a replica takes in all families, mostly, and for how many. */
#define SERIES_BYTES	2300
#define MAX_RESERVED	100000

/* A family with one value for each replica. */
typedef struct Family
{
	const char *name;
	const char *help;
	PrkNumber	(*value) (const PrkSeries *series);
} Family;

static void write_server(StringInfo text, const PrkReport *report,
						 const PrkKnownReplicas *known);
static void write_disk_and_sync(StringInfo text, const PrkReport *report);
static void write_worker(StringInfo text, const PrkReport *report);
static void write_failures(StringInfo text, const PrkReport *report);
static void write_upstream(StringInfo text, PrkReport *report,
						   PrkLevel unhealthy);
static void write_replicas(StringInfo text, const PrkKnownReplicas *known);
static void write_stages(StringInfo text, const PrkKnownReplicas *known,
						 char **labels);
static void write_states(StringInfo text, const PrkKnownReplicas *known,
						 char **labels);
static void write_info(StringInfo text, const PrkKnownReplicas *known,
					   char **labels);
static void write_one(StringInfo text, const char *name, const char *help,
					  PrkNumber number);
static void write_labeled(StringInfo text, const char *name,
						  const char *label, const char *value,
						  PrkNumber number);
static char *make_label(const char *label, const char *value);
static PrkNumber value_health(const PrkSeries *series);
static PrkNumber value_alert(const PrkSeries *series);
static PrkNumber value_unhealthy(const PrkSeries *series);
static PrkNumber value_silenced(const PrkSeries *series);
static PrkNumber value_slot(const PrkSeries *series);
static PrkNumber value_connections(const PrkSeries *series);
static PrkNumber value_synchronous(const PrkSeries *series);
static PrkNumber value_lag_time(const PrkSeries *series);
static PrkNumber value_retained(const PrkSeries *series);
static PrkNumber value_safe(const PrkSeries *series);
static PrkNumber value_xmin_age(const PrkSeries *series);
static PrkNumber value_away(const PrkSeries *series);
static PrkNumber value_catch_up(const PrkSeries *series);
static PrkNumber value_lost(const PrkSeries *series);
static PrkNumber value_error(const PrkSeries *series);

static const Family families[] = {
	{PREFIX "replica_health",
		"Health of this instant, as status() shows it: " LEVELS ".",
	value_health},
	{PREFIX "replica_alert",
		"What the worker has announced: " LEVELS "; NaN without a worker.",
	value_alert},
	{PREFIX "replica_unhealthy",
		"The level at which unhealthy() lists it: " LEVELS ".",
	value_unhealthy},
	{PREFIX "replica_silenced",
		"Whether somebody has silenced it for planned work.",
	value_silenced},
	{PREFIX "replica_slots",
		"Whether the replica has a slot on this server.",
	value_slot},
	{PREFIX "replica_connections",
		"Connections of the replica to this server.",
	value_connections},
	{PREFIX "replica_synchronous",
		"Whether commits may wait for it.",
	value_synchronous},
	{PREFIX "replica_lag_seconds",
		"Age of the first WAL that the replica has not replayed.",
	value_lag_time},
	{PREFIX "replica_retained_bytes",
		"WAL that the slot retains.",
	value_retained},
	{PREFIX "replica_safe_wal_bytes",
		"WAL that can be written before the slot may be lost; NaN without a limit.",
	value_safe},
	{PREFIX "replica_xmin_age_transactions",
		"Transactions by which the slot holds VACUUM back.",
	value_xmin_age},
	{PREFIX "replica_disconnected_seconds",
		"Time since the replica has been away; 0 while it is connected.",
	value_away},
	{PREFIX "replica_catch_up_seconds",
		"Forecast: time until the replica has caught up.",
	value_catch_up},
	{PREFIX "replica_lost_in_seconds",
		"Forecast: time until the slot is lost.",
	value_lost},
	{PREFIX "replica_last_error_timestamp_seconds",
		"When the last connection of the replica failed.",
	value_error}
};

/* Takes a report and writes all that it says. */
void
prk_metrics_write(StringInfo text)
{
	PrkReport  *report = prk_report_take();
	PrkKnownReplicas known;

	prk_series_gather(report, &known);
	write_server(text, report, &known);
	write_disk_and_sync(text, report);
	write_worker(text, report);
	write_failures(text, report);
	if (report->sample->in_recovery)
		write_upstream(text, report, known.upstream);
	if (known.nseries > 0)
		write_replicas(text, &known);
}

/* The server as a whole */
static void
write_server(StringInfo text, const PrkReport *report,
			 const PrkKnownReplicas *known)
{
	static const char *const health = PREFIX "server_health";
	static const PrkCode codes[PRK_NTROUBLES] = {
		[PRK_TROUBLE_DISK] = PRK_CODE_DISK_FILLING,
		[PRK_TROUBLE_SYNC] = PRK_CODE_SYNC_STANDBY_MISSING,
		[PRK_TROUBLE_ARCHIVE] = PRK_CODE_ARCHIVE_FAILING
	};

	prk_exposition_family(text, PREFIX "info", PRK_GAUGE,
						  "Version of the extension's library.");
	write_labeled(text, PREFIX "info", "version", PRK_KIT_VERSION,
				  prk_number(1));
	write_one(text, PREFIX "sample_timestamp_seconds",
			  "When the sample was taken of which all this is made.",
			  prk_number_timestamp(report->sample->taken_at));
	write_one(text, PREFIX "in_recovery",
			  "Whether this server is a standby.",
			  prk_number(report->sample->in_recovery));
	write_one(text, PREFIX "base_backups",
			  "Base backups that run; they are no replicas.",
			  prk_number(known->backups));

	prk_exposition_family(text, health, PRK_GAUGE,
						  "Health of the server as a whole, by cause: " LEVELS ".");
	for (int i = 0; i < PRK_NTROUBLES; i++)
		write_labeled(text, health, "code", prk_code_name(codes[i]),
					  prk_number(report->troubles[i].verdict.level));
	write_labeled(text, health, "code",
				  prk_code_name(PRK_CODE_WORKER_STALE),
				  prk_number(report->worker_trouble != NULL ?
							 PRK_WARNING : PRK_OK));
	write_one(text, PREFIX "server_unhealthy",
			  "The level at which unhealthy() lists the server: " LEVELS ".",
			  prk_number(known->server));
}

/* What the server's troubles are judged by */
static void
write_disk_and_sync(StringInfo text, const PrkReport *report)
{
	const PrkDisk *disk = &report->facts.disk;
	const PrkSync *sync = &report->facts.sync;

	write_one(text, PREFIX "wal_disk_free_bytes",
			  "Free space on the disk of pg_wal.",
			  disk->known ? prk_number(disk->free_bytes) :
			  prk_number_unknown());
	write_one(text, PREFIX "wal_disk_full_in_seconds",
			  "Forecast: time until the disk of pg_wal is full.",
			  disk->known ? prk_number_duration(disk->full_in) :
			  prk_number_unknown());
	write_one(text, PREFIX "sync_standbys_wanted",
			  "Synchronous standbys that a commit waits for.",
			  prk_number(sync->wanted));
	write_one(text, PREFIX "sync_standbys_connected",
			  "Of those, how many are connected.",
			  prk_number(sync->there));
	write_one(text, PREFIX "sync_waiting_sessions",
			  "Sessions that wait in a commit for one that is missing.",
			  prk_number(sync->waiting));
}

/* The worker, and what it costs */
static void
write_worker(StringInfo text, const PrkReport *report)
{
	static const char *const samples = PREFIX "worker_samples_total";
	static const char *const cpu = PREFIX "worker_cpu_seconds_total";

	write_one(text, PREFIX "worker_up",
			  "Whether the worker runs and has looked lately.",
			  prk_number(report->watched && report->board->cycle_at != 0));
	if (!report->board->exists)
		return;
	write_one(text, PREFIX "worker_sample_timestamp_seconds",
			  "When the worker published its last sample.",
			  prk_number_timestamp(report->board->cycle_at));
	prk_exposition_family(text, samples, PRK_COUNTER,
						  "Samples that the worker has taken.");
	prk_exposition_value(text, samples, "", "",
						 prk_number(report->board->cost.samples));
	prk_exposition_family(text, cpu, PRK_COUNTER,
						  "CPU time that the worker has used.");
	prk_exposition_value(text, cpu, "", "",
						 prk_number_duration(report->board->cost.cpu));
}

/* Failed connections, strangers' among them */
static void
write_failures(StringInfo text, const PrkReport *report)
{
	static const char *const name = PREFIX "connection_failures_total";
	PrkTally	tallies[PRK_NTALLIES];
	int			ntallies = prk_failure_tally_read(tallies);

	if (!report->failures->exist)
		return;
	prk_exposition_family(text, name, PRK_COUNTER,
						  "Replication connections that failed, to (in) and from (out) this server.");
	for (int i = 0; i < ntallies; i++)
	{
		const PrkTally *tally = &tallies[i];
		const char *direction = tally->other ? "other" :
		tally->outgoing ? "out" : "in";
		const char *sqlstate = tally->other ? "other" :
		unpack_sql_state(tally->sqlerrcode);

		prk_exposition_value(text, name, make_label("direction", direction),
							 make_label("sqlstate", sqlstate),
							 prk_number(tally->count));
	}
}

/* On a standby: what it receives from */
static void
write_upstream(StringInfo text, PrkReport *report, PrkLevel unhealthy)
{
	static const char *const lag = PREFIX "upstream_lag_bytes";
	const PrkReportUpstream *upstream = prk_report_upstream(report);
	const PrkUpstream *state = &upstream->state;
	const PrkVerdict *verdict = &upstream->verdict;

	write_one(text, PREFIX "upstream_health",
			  "Health of this standby's upstream and replay, as standby_status() shows it: " LEVELS ".",
			  prk_number(verdict->level));
	write_one(text, PREFIX "upstream_unhealthy",
			  "The level at which unhealthy() lists the upstream: " LEVELS ".",
			  prk_number(unhealthy));
	write_one(text, PREFIX "upstream_streaming",
			  "Whether this standby streams from its upstream.",
			  prk_number(verdict->state == PRK_STATE_STREAMING &&
						 !state->stalled &&
						 (state->wanted || state->streaming)));
	prk_exposition_family(text, lag, PRK_GAUGE,
						  "WAL of the upstream by where it is: not received, received and not replayed.");
	write_labeled(text, lag, "stage", "unreceived",
				  prk_number_bytes(state->unreceived_bytes));
	write_labeled(text, lag, "stage", "unreplayed",
				  prk_number_bytes(state->unreplayed_bytes));
	write_one(text, PREFIX "upstream_lag_seconds",
			  "How old the data is that queries on this standby see.",
			  prk_number_duration(verdict->lag_time));
	write_one(text, PREFIX "upstream_last_message_timestamp_seconds",
			  "When the upstream was last heard of.",
			  prk_number_timestamp(state->last_message_at));
	write_one(text, PREFIX "upstream_replay_paused",
			  "Whether replay is paused, or about to be.",
			  prk_number(state->pause_state != RECOVERY_NOT_PAUSED));
}

/* Every family of replicas */
static void
write_replicas(StringInfo text, const PrkKnownReplicas *known)
{
	char	  **labels = palloc(known->nseries * sizeof(char *));

	/* to grow by doubling is to copy megabytes */
	enlargeStringInfo(text, Min(known->nseries, MAX_RESERVED) * SERIES_BYTES);
	for (int i = 0; i < known->nseries; i++)
	{
		CHECK_FOR_INTERRUPTS();
		labels[i] = make_label("replica", known->series[i].name);
	}

	write_info(text, known, labels);
	write_states(text, known, labels);
	write_stages(text, known, labels);
	for (int i = 0; i < (int) lengthof(families); i++)
	{
		CHECK_FOR_INTERRUPTS();
		prk_exposition_family(text, families[i].name, PRK_GAUGE,
							  families[i].help);
		for (int j = 0; j < known->nseries; j++)
			prk_exposition_value(text, families[i].name, labels[j], "",
								 families[i].value(&known->series[j]));
	}
}

/* What it is, in words that do not change */
static void
write_info(StringInfo text, const PrkKnownReplicas *known, char **labels)
{
	static const char *const name = PREFIX "replica_info";
	const char *physical = make_label("slot_type", "physical");
	const char *logical = make_label("slot_type", "logical");
	const char *none = make_label("slot_type", "none");

	prk_exposition_family(text, name, PRK_GAUGE,
						  "Kind of the replica's slot: physical, logical, none.");
	for (int i = 0; i < known->nseries; i++)
	{
		const PrkReportRow *row = known->series[i].row;

		prk_exposition_value(text, name, labels[i],
							 row == NULL || !row->replica->has_slot ? none :
							 row->replica->logical ? logical : physical,
							 prk_number(1));
	}
}

/*
 * One series for each state that there can be, of which one is 1 at most, so
 * that a change of state makes no new one.
 */
static void
write_states(StringInfo text, const PrkKnownReplicas *known, char **labels)
{
	static const char *const name = PREFIX "replica_state";
	const char *states[PRK_STATE_LOST + 1];

	for (int state = 0; state <= PRK_STATE_LOST; state++)
		states[state] = make_label("state", prk_state_name(state));
	prk_exposition_family(text, name, PRK_GAUGE,
						  "1 for the state that the replica is in, else 0.");
	for (int i = 0; i < known->nseries; i++)
	{
		const PrkReportRow *row = known->series[i].row;

		for (int state = 0; state <= PRK_STATE_LOST; state++)
			prk_exposition_value(text, name, labels[i], states[state],
								 prk_number(row != NULL &&
											(int) row->verdict.state == state));
	}
}

/* The stages, which add up to the lag */
static void
write_stages(StringInfo text, const PrkKnownReplicas *known, char **labels)
{
	static const char *const name = PREFIX "replica_lag_bytes";
	static const PrkReplica nothing = {
		.unsent_bytes = -1,
		.unwritten_bytes = -1,
		.unflushed_bytes = -1,
		.unreplayed_bytes = -1
	};
	const char *unsent = make_label("stage", "unsent");
	const char *unwritten = make_label("stage", "unwritten");
	const char *unflushed = make_label("stage", "unflushed");
	const char *unreplayed = make_label("stage", "unreplayed");

	prk_exposition_family(text, name, PRK_GAUGE,
						  "WAL that the replica has not replayed, by where it is; the sum over stages is its lag.");
	for (int i = 0; i < known->nseries; i++)
	{
		const PrkReportRow *row = known->series[i].row;
		const PrkReplica *replica = row != NULL ? row->replica : &nothing;

		prk_exposition_value(text, name, labels[i], unsent,
							 prk_number_bytes(replica->unsent_bytes));
		prk_exposition_value(text, name, labels[i], unwritten,
							 prk_number_bytes(replica->unwritten_bytes));
		prk_exposition_value(text, name, labels[i], unflushed,
							 prk_number_bytes(replica->unflushed_bytes));
		prk_exposition_value(text, name, labels[i], unreplayed,
							 prk_number_bytes(replica->unreplayed_bytes));
	}
}

/* A family of one gauge, which has no labels */
static void
write_one(StringInfo text, const char *name, const char *help,
		  PrkNumber number)
{
	prk_exposition_family(text, name, PRK_GAUGE, help);
	prk_exposition_value(text, name, "", "", number);
}

/* A series with one label */
static void
write_labeled(StringInfo text, const char *name, const char *label,
			  const char *value, PrkNumber number)
{
	prk_exposition_value(text, name, make_label(label, value), "", number);
}

/* One label, palloc'd */
static char *
make_label(const char *label, const char *value)
{
	StringInfoData labels;

	initStringInfo(&labels);
	prk_exposition_label(&labels, label, value);
	return labels.data;
}

/*
 * The values of a replica
 */

static PrkNumber
value_health(const PrkSeries *series)
{
	return series->has_health ? prk_number(series->health) :
		prk_number_unknown();
}

static PrkNumber
value_alert(const PrkSeries *series)
{
	return series->has_alert ? prk_number(series->alert) :
		prk_number_unknown();
}

static PrkNumber
value_unhealthy(const PrkSeries *series)
{
	return prk_number(series->unhealthy);
}

static PrkNumber
value_silenced(const PrkSeries *series)
{
	return prk_number(series->row != NULL && series->row->silence != NULL);
}

static PrkNumber
value_slot(const PrkSeries *series)
{
	return prk_number(series->row != NULL && series->row->replica->has_slot);
}

static PrkNumber
value_connections(const PrkSeries *series)
{
	return prk_number(series->connections);
}

/* as pg_stat_replication.sync_state */
static PrkNumber
value_synchronous(const PrkSeries *series)
{
	const char *state = series->row == NULL ? NULL :
	series->row->replica->sync_state;

	return prk_number(state != NULL && (strcmp(state, "sync") == 0 ||
										strcmp(state, "quorum") == 0));
}

static PrkNumber
value_lag_time(const PrkSeries *series)
{
	return prk_number_duration(series->row == NULL ? -1 :
							   series->row->verdict.lag_time);
}

static PrkNumber
value_retained(const PrkSeries *series)
{
	return prk_number_bytes(series->row == NULL ? -1 :
							series->row->replica->retained_bytes);
}

/* negative where the slot is past its limit */
static PrkNumber
value_safe(const PrkSeries *series)
{
	return series->row != NULL && series->row->replica->has_safe_wal_size ?
		prk_number(series->row->replica->safe_wal_size) :
		prk_number_unknown();
}

static PrkNumber
value_xmin_age(const PrkSeries *series)
{
	return prk_number_bytes(series->row == NULL ? -1 :
							series->row->replica->xmin_age);
}

static PrkNumber
value_away(const PrkSeries *series)
{
	if (series->row == NULL)
		return prk_number_unknown();
	if (series->row->replica->pid != 0)
		return prk_number_duration(0);
	return prk_number_duration(series->row->verdict.since);
}

static PrkNumber
value_catch_up(const PrkSeries *series)
{
	return prk_number_duration(series->row == NULL ? -1 :
							   series->row->verdict.forecast.catch_up_in);
}

static PrkNumber
value_lost(const PrkSeries *series)
{
	return prk_number_duration(series->row == NULL ? -1 :
							   series->row->verdict.forecast.lost_in);
}

static PrkNumber
value_error(const PrkSeries *series)
{
	return prk_number_timestamp(series->row == NULL ||
								series->row->last_error == NULL ? 0 :
								series->row->last_error->last_at);
}
