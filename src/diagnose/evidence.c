/*-------------------------------------------------------------------------
 *
 * evidence.c
 *	  All that the diagnoses go by, gathered once.
 *
 * Everything is palloc'd in the caller's memory context.  Catalogs are read
 * (roles and the comments on them), pg_hba.conf as it is on disk, and shared
 * memory; nothing is locked beyond that.
 *
 * IDENTIFICATION
 *	  src/diagnose/evidence.c
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include <arpa/inet.h>
#include <netdb.h>

#include "common/ip.h"
#include "libpq/ifaddr.h"
#include "mb/pg_wchar.h"
#include "miscadmin.h"
#include "replication/walsender.h"
#include "replication/walsender_private.h"
#include "storage/lock.h"
#include "storage/proc.h"
#include "utils/builtins.h"
#include "utils/guc.h"
#include "utils/timestamp.h"
#include "utils/varlena.h"
#include "utils/wait_event.h"

#include "compat.h"
#include "diagnose/evidence.h"
#include "failures/failure_table.h"
#include "hba/hba_file.h"
#include "judge/disk.h"
#include "provision/slot.h"
#include "watch/unserved.h"

static List *load_rules(PrkEvidence *evidence, List **managed);
static void gather_attempts(PrkEvidence *evidence, List *rules,
							List *managed);
static bool judge_attempt(PrkAttempt *attempt, List *managed);
static PrkSession *gather_sessions(const PrkReport *report);
static bool is_over(const PrkEvidence *evidence, const PrkAttempt *attempt,
					const PrkSession *sessions);
static void gather_departed(PrkEvidence *evidence);
static void match_rules(PrkAttempt *attempt, List *rules);
static bool line_covers(const PrkHbaManaged *line, const SockAddr *addr);
static void gather_reconnects(PrkEvidence *evidence, List *rules);
static void read_reconnect(const PrkReplica *replica, List *rules,
						   PrkReconnect *reconnect);
static void gather_upstream(PrkEvidence *evidence);
static void gather_waits(PrkEvidence *evidence);
static void gather_awaited(PrkEvidence *evidence);
static const PrkReportRow *find_slot(const PrkReport *report,
									 const char *name);
static void gather_counts(PrkEvidence *evidence);

/* Gathers all; config_error, versions and collations are left to the caller. */
PrkEvidence *
prk_evidence_gather(void)
{
	PrkEvidence *evidence = palloc0(sizeof(PrkEvidence));
	List	   *managed = NIL;
	List	   *rules;

	evidence->report = prk_report_take();
	evidence->now = evidence->report->sample->taken_at;
	prk_past_read(evidence->report->sample, &evidence->past);
	rules = load_rules(evidence, &managed);
	evidence->managed = managed;
	evidence->owners = prk_owners_gather(evidence->report, managed,
										 &evidence->leftovers);
	gather_attempts(evidence, rules, managed);
	gather_departed(evidence);
	gather_reconnects(evidence, rules);
	gather_upstream(evidence);
	prk_upstream_parameters(evidence->parameters);
	gather_waits(evidence);
	if (evidence->report->sample->in_recovery)
		prk_replay_read(&evidence->replay);
	else
	{
		prk_transaction_oldest(&evidence->oldest);
		gather_awaited(evidence);
	}
	gather_counts(evidence);
	return evidence;
}

/*
 * The rules of pg_hba.conf as it is on disk, and our lines in it.  An error
 * with which the server would not load it becomes evidence.  (What raises it
 * holds nothing by then but memory.)
 */
static List *
load_rules(PrkEvidence *evidence, List **managed)
{
	MemoryContext context = CurrentMemoryContext;
	List	   *volatile rules = NIL;

	PG_TRY();
	{
		PrkHbaFile *file = prk_hba_file_read(CurrentMemoryContext);

		*managed = prk_hba_managed(prk_hba_file_text(file));
		rules = prk_hba_rules_load(HbaFileName);
	}
	PG_CATCH();
	{
		ErrorData  *edata;

		MemoryContextSwitchTo(context);
		edata = CopyErrorData();
		if (ERRCODE_TO_CATEGORY(edata->sqlerrcode) ==
			ERRCODE_OPERATOR_INTERVENTION)
			PG_RE_THROW();
		FlushErrorState();
		evidence->hba_error = edata->detail != NULL ? edata->detail :
			edata->message;
	}
	PG_END_TRY();
	return rules;
}

/*
 * Does the attempt concern the replica of this name?  (Its name is what
 * prk_failure_concerns() goes by, and what our lines add to that.)
 */
bool
prk_attempt_concerns(const PrkAttempt *attempt, const char *name)
{
	return strcmp(attempt->name, name) == 0 ||
		prk_failure_concerns(attempt->failure, name);
}

/* The newest attempt that concerns the replica of this name, or NULL. */
const PrkAttempt *
prk_evidence_attempt(const PrkEvidence *evidence, const char *name)
{
	for (int i = 0; i < evidence->nattempts; i++)
	{
		if (prk_attempt_concerns(&evidence->attempts[i], name))
			return &evidence->attempts[i];
	}
	return NULL;
}

/* The incoming failures that count, with what they would meet now. */
static void
gather_attempts(PrkEvidence *evidence, List *rules, List *managed)
{
	const PrkFailures *failures = evidence->report->failures;
	PrkSession *sessions = NULL;
	List	   *unserved = prk_unserved_list(evidence->report->sample, failures,
											 evidence->report->board);

	evidence->attempts = palloc0(Max(failures->nfailures, 1) *
								 sizeof(PrkAttempt));
	for (int i = 0; i < failures->nfailures; i++)
	{
		PrkAttempt *attempt = &evidence->attempts[evidence->nattempts];
		const PrkUnserved *why;
		char		host[NI_MAXHOST];

		memset(attempt, 0, sizeof(PrkAttempt));
		attempt->failure = &failures->failures[i];
		attempt->kind = attempt->failure->kind;
		if (attempt->failure->outgoing ||
			!judge_attempt(attempt, managed))
			continue;
		if (sessions == NULL)
			sessions = gather_sessions(evidence->report);
		why = prk_unserved_of(unserved, attempt->failure);
		if (why == NULL && (prk_unserved_is_kind(attempt->failure) ||
							is_over(evidence, attempt, sessions)))
			continue;

		/* What unhealthy() lists is told here under the same name. */
		attempt->unserved = why != NULL && why->name != NULL;
		if (attempt->unserved)
			attempt->name = why->name;
		evidence->nattempts++;
		if (prk_failures_address(attempt->failure, host,
								 sizeof(host)) != NULL)
			attempt->address = pstrdup(host);
		if (rules != NIL)
			match_rules(attempt, rules);
	}
}

/*
 * Does it count, and for which replica?  The log hook knows only the rule
 * that was applied; that one of our lines covers the address, too, is found
 * here.
 */
static bool
judge_attempt(PrkAttempt *attempt, List *managed)
{
	const PrkFailure *failure = attempt->failure;
	const char *name = NULL;
	char	   *role_name;
	ListCell   *cell;

	foreach(cell, managed)
	{
		const PrkHbaManaged *line = lfirst(cell);

		if (line->role == NULL || !failure->has_client_addr ||
			!prk_foreign_is(&failure->role_name, line->role) ||
			!line_covers(line, &failure->client_addr))
			continue;
		attempt->let_in = true;
		if (name == NULL ||
			prk_foreign_is(&failure->application_name, line->replica))
			name = line->replica;
	}
	if (failure->trust == PRK_TRUST_STRANGER && !attempt->let_in)
		return false;

	if (!prk_foreign_is_empty(&failure->slot_name))
		name = prk_foreign_show(&failure->slot_name);
	else if (failure->replica[0] != '\0' &&
			 (name == NULL ||
			  !prk_foreign_is(&failure->application_name, name)))
		name = failure->replica;
	else if (name == NULL)
		name = prk_foreign_show(&failure->application_name);
	attempt->name = name;

	role_name = prk_foreign_bytes(&failure->role_name);
	prk_role_look_up(role_name, &attempt->role);
	if (pg_verifymbstr(role_name, strlen(role_name), true))
		attempt->role_name = role_name;
	return true;
}

/* When the walsender of each row that streams was let in, and who that is. */
static PrkSession *
gather_sessions(const PrkReport *report)
{
	PrkSession *sessions = palloc0(Max(report->nrows, 1) *
								   sizeof(PrkSession));

	for (int i = 0; i < report->nrows; i++)
	{
		const PrkReplica *replica = report->rows[i].replica;

		if (replica->has_walsender && replica->state == PRK_STATE_STREAMING)
			sessions[i] = prk_failures_session(replica->pid);
	}
	return sessions;
}

/*
 * Has it been mended?  The replica, or whoever else it was, streams under an
 * authentication that came later, or did so when the worker last looked, or
 * has failed at something else since.
 */
static bool
is_over(const PrkEvidence *evidence, const PrkAttempt *attempt,
		const PrkSession *sessions)
{
	const PrkFailure *failure = attempt->failure;

	if (failure->over)
		return true;
	for (int i = 0; i < evidence->report->nrows; i++)
	{
		const PrkReplica *replica = evidence->report->rows[i].replica;
		const PrkBoardEntry *entry = evidence->owners[i].entry;
		bool		concerned = prk_attempt_concerns(attempt, replica->name);

		if (concerned && entry != NULL &&
			(failure->number < entry->known.session ||
			 (replica->pid == 0 &&
			  failure->number < entry->known.seen_number)))
			return true;
		if ((concerned || sessions[i].peer == failure->peer) &&
			sessions[i].number > failure->number)
			return true;
	}

	/* Those before it in the list are newer. */
	for (int i = 0; i < evidence->nattempts; i++)
	{
		if (evidence->attempts[i].failure->peer == failure->peer)
			return true;
	}
	return false;
}

/*
 * Only who watches knows since when it counts.  One that was let in once and streamed
 * until it left may well have been stopped.
 */
static void
gather_departed(PrkEvidence *evidence)
{
	const PrkReport *report = evidence->report;
	const PrkDepartures *departures = prk_departures_read();

	evidence->departed = palloc0(Max(report->nrows, 1) * sizeof(PrkDeparted));
	for (int i = 0; i < report->nrows; i++)
	{
		const PrkBoardEntry *entry = evidence->owners[i].entry;
		PrkDeparted *departed = &evidence->departed[i];

		/* One that stays has its slot, whatever else comes under its name. */
		if (!report->watched || entry == NULL ||
			!report->rows[i].replica->has_slot ||
			(report->rows[i].replica->pid != 0 &&
			 entry->known.gone_since == 0))
			continue;
		*departed = prk_departed(departures, report->sample,
								 report->rows[i].replica->name,
								 entry->known.stayed_number);
		if (departed->count == 1 &&
			departed->streamed &&
			departed->number < entry->known.seen_number)
			departed->count = 0;
	}
}

/* What the rules would do with it, as it came and with TLS. */
static void
match_rules(PrkAttempt *attempt, List *rules)
{
	PrkHbaQuery query = {0};

	/* Rules for Unix sockets are not looked at. */
	if (!attempt->failure->has_client_addr)
		return;
	query.role = prk_foreign_bytes(&attempt->failure->role_name);
	query.database = "replication";
	query.ssl = attempt->failure->ssl;
	query.addr = attempt->failure->client_addr.addr;
	attempt->has_match = true;
	prk_hba_rules_match(rules, &query, &attempt->match);
	query.ssl = true;
	prk_hba_rules_match(rules, &query, &attempt->tls_match);
}

/* For each replica that streams: could it come back as it is? */
static void
gather_reconnects(PrkEvidence *evidence, List *rules)
{
	const PrkReport *report = evidence->report;

	evidence->reconnects = palloc0(Max(report->nrows, 1) *
								   sizeof(PrkReconnect));
	for (int i = 0; i < report->nrows; i++)
	{
		const PrkReplica *replica = report->rows[i].replica;

		if (replica->has_walsender && OidIsValid(replica->userid) &&
			(replica->state == PRK_STATE_STREAMING ||
			 replica->state == PRK_STATE_CATCHUP))
			read_reconnect(replica, rules, &evidence->reconnects[i]);
	}
}

/*
 * Its role, then the rules.  Whether it has TLS is not known: a rule that lets
 * it in with or without is good enough.
 */
static void
read_reconnect(const PrkReplica *replica, List *rules,
			   PrkReconnect *reconnect)
{
	PrkHbaQuery query = {0};
	PrkHbaMatch plain = {0};
	PrkHbaMatch tls = {0};
	char		host[NI_MAXHOST];
	PrkRole		role;

	reconnect->role_name = GetUserNameFromId(replica->userid, true);
	if (reconnect->role_name == NULL)
	{
		reconnect->barrier = PRK_BARRIER_ROLE_GONE;
		return;
	}
	prk_role_look_up(reconnect->role_name, &role);
	if (!role.can_login || !(role.can_replicate || role.superuser))
	{
		reconnect->barrier = PRK_BARRIER_ROLE;
		return;
	}
	if (!replica->has_client_addr || rules == NIL ||
		(replica->client_addr.addr.ss_family != AF_INET &&
		 replica->client_addr.addr.ss_family != AF_INET6))
		return;
	if (pg_getnameinfo_all(&replica->client_addr.addr,
						   replica->client_addr.salen, host, sizeof(host),
						   NULL, 0, NI_NUMERICHOST | NI_NUMERICSERV) == 0)
		reconnect->address = pstrdup(host);

	/* A logical one names its database, which is not looked at. */
	if (replica->logical)
		return;
	query.role = reconnect->role_name;
	query.database = "replication";
	query.addr = replica->client_addr.addr;
	prk_hba_rules_match(rules, &query, &plain);
	query.ssl = true;
	prk_hba_rules_match(rules, &query, &tls);
	if (plain.verdict == PRK_HBA_UNDECIDABLE ||
		tls.verdict == PRK_HBA_UNDECIDABLE)
		return;
	if (plain.verdict != PRK_HBA_ALLOW && tls.verdict != PRK_HBA_ALLOW)
	{
		reconnect->barrier = plain.verdict == PRK_HBA_REJECT ?
			PRK_BARRIER_REJECTED : PRK_BARRIER_NO_RULE;
		reconnect->line_number = plain.line_number;
		return;
	}
	if (plain.verdict == PRK_HBA_ALLOW &&
		strcmp(plain.auth_method, "scram-sha-256") == 0 &&
		(role.secret == PRK_SECRET_NONE || role.secret == PRK_SECRET_EXPIRED))
		reconnect->barrier = PRK_BARRIER_PASSWORD;
}

/* Is the address in the network that the line names? */
static bool
line_covers(const PrkHbaManaged *line, const SockAddr *addr)
{
	char	   *host;
	char	   *slash;
	struct sockaddr_storage base;
	struct sockaddr_storage mask;

	if (line->address == NULL)
		return false;
	host = pstrdup(line->address);
	slash = strchr(host, '/');
	if (slash == NULL)
		return false;
	*slash = '\0';

	memset(&base, 0, sizeof(base));
	base.ss_family = addr->addr.ss_family;
	if (inet_pton(base.ss_family, host,
				  base.ss_family == AF_INET ?
				  (void *) &((struct sockaddr_in *) &base)->sin_addr :
				  (void *) &((struct sockaddr_in6 *) &base)->sin6_addr) != 1 ||
		pg_sockaddr_cidr_mask(&mask, slash + 1, base.ss_family) != 0)
		return false;
	return pg_range_sockaddr(&addr->addr, &base, &mask) != 0;
}

/* This server as a standby */
static void
gather_upstream(PrkEvidence *evidence)
{
	const PrkReportUpstream *upstream =
	prk_report_upstream(evidence->report);

	evidence->upstream = upstream->state;
	evidence->upstream_thresholds = upstream->thresholds;
	evidence->upstream_verdict = upstream->verdict;
	evidence->upstream_effective = upstream->effective;
	evidence->upstream_failure = upstream->failure;
	evidence->upstream_kind = upstream->kind;
	evidence->timeline_end =
		prk_failures_timeline_end(evidence->report->failures);
}

/*
 * Does a checkpoint wait for a slot?  From the array of processes, without any
 * lock as pg_stat_get_activity() reads wait events.  ReplicationSlotDrop is
 * waited for by whoever invalidates or drops a slot.  Checkpointer and startup
 * are auxiliary processes, behind the backends.
 */
static void
gather_waits(PrkEvidence *evidence)
{
	for (uint32 i = MaxBackends; i < ProcGlobal->allProcCount; i++)
	{
		PGPROC	   *proc = &ProcGlobal->allProcs[i];
		uint32		wait = *(volatile uint32 *) &proc->wait_event_info;
		const char *event = proc->pid != 0 && wait != 0 ?
		pgstat_get_wait_event(wait) : NULL;

		if (event != NULL && strcmp(event, "ReplicationSlotDrop") == 0)
			evidence->slot_drop_waits = true;
	}
}

/*
 * The first slot that synchronized_standby_slots names and that confirms
 * nothing, if logical slots wait for it (StandbySlotsHaveCaughtup() in
 * src/backend/replication/slot.c).
 */
static void
gather_awaited(PrkEvidence *evidence)
{
	const PrkReport *report = evidence->report;
	const char *setting = GetConfigOption("synchronized_standby_slots", true,
										  false);
	List	   *names = NIL;
	ListCell   *cell;

	for (int i = 0; i < report->nrows; i++)
	{
		const PrkReplica *replica = report->rows[i].replica;

		if (replica->logical && replica->failover &&
			replica->invalidation == NULL)
			evidence->nawaiting++;
	}
	if (evidence->nawaiting == 0 || setting == NULL ||
		!SplitIdentifierString(pstrdup(setting), ',', &names))
		return;
	foreach(cell, names)
	{
		const PrkReportRow *row = find_slot(report, lfirst(cell));

		if (row != NULL && !row->replica->logical &&
			row->replica->invalidation == NULL &&
			(row->replica->pid != 0 || row->replica->lag_bytes == 0))
			continue;
		evidence->awaited = lfirst(cell);
		evidence->awaited_row = row;
		return;
	}
}

static const PrkReportRow *
find_slot(const PrkReport *report, const char *name)
{
	for (int i = 0; i < report->nrows; i++)
	{
		if (report->rows[i].replica->has_slot &&
			strcmp(report->rows[i].replica->slot_name, name) == 0)
			return &report->rows[i];
	}
	return NULL;
}

/* How much of what there is a fixed number of is used. */
static void
gather_counts(PrkEvidence *evidence)
{
	evidence->wal_free = prk_disk_free_bytes();
	for (int i = 0; i < max_wal_senders; i++)
	{
		if (((volatile WalSnd *) &WalSndCtl->walsnds[i])->pid != 0)
			evidence->walsenders_used++;
	}
	evidence->slots_used = max_replication_slots - prk_slot_count_free();
}
