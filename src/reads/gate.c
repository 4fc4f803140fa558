/*-------------------------------------------------------------------------
 *
 * gate.c
 *	  The read gate: a standby that is far behind refuses new sessions.
 *
 * The worker judges, a connecting backend reads one atomic: until when the gate
 * is closed.  A worker that has died or hangs lets that time pass, and the gate
 * is open.
 *
 * A session is refused after its password was checked, in the authentication
 * hook, with the SQLSTATE of a server that is starting up: libpq (from 14 on)
 * goes on to the next host of its list.  There the session has no database yet.
 * The role functions of acl.c would keep what they find as of no database for
 * the rest of the session, without pg_database_owner; so membership is read
 * here from pg_auth_members itself.
 *
 * IDENTIFICATION
 *	  src/reads/gate.c
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include <sys/socket.h>

#include "access/htup_details.h"
#include "access/xlog.h"
#include "catalog/pg_auth_members.h"
#include "catalog/pg_authid.h"
#include "libpq/auth.h"
#include "miscadmin.h"
#include "port/atomics.h"
#include "replication/walsender.h"
#include "storage/ipc.h"
#include "storage/lwlock.h"
#include "storage/shmem.h"
#include "utils/catcache.h"
#include "utils/syscache.h"
#include "utils/timestamp.h"
#include "utils/varlena.h"

#include "clock/clock_shared.h"
#include "reads/gate.h"
#include "settings.h"

#define GATE_NAME		"pg_replica_kit gate"

/*
 * After a start nobody knows how far behind the standby is: closed until the
 * upstream says, or for so long.  In microseconds.
 */
#define START_LIMIT		INT64CONST(60000000)

/* Refusals are logged once in this time, in microseconds. */
#define LOG_INTERVAL	INT64CONST(60000000)

/* In shared memory, without a lock. */
typedef struct SharedGate
{
	pg_atomic_uint64 closed_until;	/* by prk_clock_now(); 0: open */
	pg_atomic_uint64 since;		/* TimestampTz of the last change */
	pg_atomic_uint64 refused;	/* since it was closed */
	pg_atomic_uint64 unlogged;	/* of those, since the last line */
	pg_atomic_uint64 logged_at; /* by prk_clock_now(); 0: never */
	pg_atomic_uint32 judged;	/* a worker has judged since the start */
} SharedGate;

/* NULL where the library was not preloaded. */
static SharedGate *shared = NULL;

static ClientAuthentication_hook_type prev_ClientAuthentication_hook = NULL;
static emit_log_hook_type prev_emit_log_hook = NULL;

/* The FATAL that this process is about to raise is not for the log. */
static bool quiet = false;

static void refuse_session(Port * port, int status);
static void leave_out_refusal(ErrorData *edata);
static bool is_closed(void);
static bool is_exempt(const Port * port);
static bool is_gated_role(const char *name, List *memberships);
static List *memberships_of(Oid role);

/* Installs the hooks; to be called while libraries are preloaded. */
void
prk_gate_init(void)
{
	prev_ClientAuthentication_hook = ClientAuthentication_hook;
	ClientAuthentication_hook = refuse_session;
	prev_emit_log_hook = emit_log_hook;
	emit_log_hook = leave_out_refusal;
}

/* For shmem_request_hook. */
void
prk_gate_shmem_request(void)
{
	RequestAddinShmemSpace(sizeof(SharedGate));
}

/* For shmem_startup_hook; takes AddinShmemInitLock. */
void
prk_gate_shmem_startup(void)
{
	bool		found;

	LWLockAcquire(AddinShmemInitLock, LW_EXCLUSIVE);
	shared = ShmemInitStruct(GATE_NAME, sizeof(SharedGate), &found);
	if (!found)
	{
		pg_atomic_init_u64(&shared->closed_until,
						   prk_clock_now() + START_LIMIT);
		pg_atomic_init_u64(&shared->since, GetCurrentTimestamp());
		pg_atomic_init_u64(&shared->refused, 0);
		pg_atomic_init_u64(&shared->unlogged, 0);
		pg_atomic_init_u64(&shared->logged_at, 0);
		pg_atomic_init_u32(&shared->judged, 0);
	}
	LWLockRelease(AddinShmemInitLock);
}

/* Is there a limit, and a worker to compare with it? */
bool
prk_gate_is_set(void)
{
	return shared != NULL && prk_worker_enabled &&
		(prk_gate_lag_time >= 0 || prk_gate_lag >= 0);
}

/* Has nobody judged since the start, which is not long ago? */
bool
prk_gate_is_fresh(void)
{
	return pg_atomic_read_u32(&shared->judged) == 0 && is_closed();
}

/* Its state, as set now in this process, and since when; 0: not known. */
PrkGateState
prk_gate_read(TimestampTz *since)
{
	*since = 0;
	if (!prk_gate_is_set() || !RecoveryInProgress())
		return PRK_GATE_OFF;
	*since = (TimestampTz) pg_atomic_read_u64(&shared->since);
	return is_closed() ? PRK_GATE_CLOSED : PRK_GATE_OPEN;
}

/* Is the time not over until which it is closed? */
static bool
is_closed(void)
{
	return (int64) pg_atomic_read_u64(&shared->closed_until) > prk_clock_now();
}

/*
 * Should the gate be closed for a standby that is this many bytes and
 * microseconds behind?  Once closed, it stays closed until half of the limit,
 * so that it does not flap.
 */
bool
prk_gate_judge(int64 bytes, int64 age, bool was_closed)
{
	int			part = was_closed ? 2 : 1;

	return (prk_gate_lag >= 0 &&
			bytes > (int64) prk_gate_lag * 1024 / part) ||
		(prk_gate_lag_time >= 0 &&
		 age > (int64) prk_gate_lag_time * 1000 / part);
}

/* Closes it for so many microseconds, or keeps it closed. */
void
prk_gate_close(int64 duration)
{
	bool		was_closed = is_closed();

	pg_atomic_write_u64(&shared->closed_until, prk_clock_now() + duration);
	pg_atomic_write_u32(&shared->judged, 1);
	if (was_closed)
		return;
	pg_atomic_write_u64(&shared->since, GetCurrentTimestamp());
	pg_atomic_write_u64(&shared->refused, 0);
}

/* Opens it; returns how many sessions were refused since it was closed. */
uint64
prk_gate_open(void)
{
	if (pg_atomic_exchange_u64(&shared->closed_until, 0) != 0)
		pg_atomic_write_u64(&shared->since, GetCurrentTimestamp());
	pg_atomic_write_u32(&shared->judged, 1);
	pg_atomic_write_u64(&shared->unlogged, 0);
	pg_atomic_write_u64(&shared->logged_at, 0);
	return pg_atomic_exchange_u64(&shared->refused, 0);
}

/*
 * ClientAuthentication_hook.  A transaction is open, and the catalogs that all
 * databases share can be read.
 */
static void
refuse_session(Port * port, int status)
{
	uint64		last;
	int64		now;

	if (prev_ClientAuthentication_hook)
		prev_ClientAuthentication_hook(port, status);

	if (status != STATUS_OK || am_walsender || !prk_gate_is_set() ||
		!is_closed() || !RecoveryInProgress() || is_exempt(port))
		return;

	now = prk_clock_now();
	pg_atomic_fetch_add_u64(&shared->refused, 1);
	pg_atomic_fetch_add_u64(&shared->unlogged, 1);
	last = pg_atomic_read_u64(&shared->logged_at);
	quiet = (last != 0 && now - (int64) last < LOG_INTERVAL) ||
		!pg_atomic_compare_exchange_u64(&shared->logged_at, &last, now);
	ereport(FATAL,
			(errcode(ERRCODE_CANNOT_CONNECT_NOW),
			 errmsg("the read gate of this standby is closed"),
			 errdetail("The standby is further behind than replica_kit.read_gate_lag_time or replica_kit.read_gate_lag allows."),
			 quiet ? 0 :
			 errdetail_log("The standby is further behind than replica_kit.read_gate_lag_time or replica_kit.read_gate_lag allows. Refused since the last such line: " UINT64_FORMAT ".",
						   pg_atomic_exchange_u64(&shared->unlogged, 0)),
			 errhint("Connect to another server.")));
}

/* emit_log_hook: a thousand refusals a second must not fill the log. */
static void
leave_out_refusal(ErrorData *edata)
{
	if (quiet && edata->sqlerrcode == ERRCODE_CANNOT_CONNECT_NOW)
		edata->output_to_server = false;
	if (prev_emit_log_hook)
		prev_emit_log_hook(edata);
}

/*
 * Does that session get in though the gate is closed?  Superusers, monitors,
 * who comes by a Unix socket, and who is not meant.
 */
static bool
is_exempt(const Port * port)
{
	HeapTuple	tuple;
	Form_pg_authid role;
	List	   *memberships;
	bool		result;

	if (port->raddr.addr.ss_family == AF_UNIX)
		return true;
	tuple = SearchSysCache1(AUTHNAME, CStringGetDatum(port->user_name));
	if (!HeapTupleIsValid(tuple))
		return true;			/* the server will say so */
	role = (Form_pg_authid) GETSTRUCT(tuple);
	result = role->rolsuper;
	if (!result)
	{
		memberships = memberships_of(role->oid);
		result = list_member_oid(memberships, ROLE_PG_MONITOR) ||
			!is_gated_role(port->user_name, memberships);
		list_free(memberships);
	}
	ReleaseSysCache(tuple);
	return result;
}

/*
 * Is the role, or one that it is a member of, in replica_kit.read_gate_roles?
 */
static bool
is_gated_role(const char *name, List *memberships)
{
	char	   *names = pstrdup(prk_gate_roles);
	List	   *list;
	ListCell   *cell;
	bool		result = false;

	if (!SplitIdentifierString(names, ',', &list))
		return true;			/* cannot be: the setting was checked */
	foreach(cell, list)
	{
		const char *gated = lfirst(cell);
		HeapTuple	tuple;

		if (strcmp(gated, "*") == 0 || strcmp(gated, name) == 0)
			result = true;
		if (result)
			break;
		tuple = SearchSysCache1(AUTHNAME, CStringGetDatum(gated));
		if (!HeapTupleIsValid(tuple))
			continue;
		result = list_member_oid(memberships,
								 ((Form_pg_authid) GETSTRUCT(tuple))->oid);
		ReleaseSysCache(tuple);
	}
	list_free(list);
	pfree(names);
	return result;
}

/* The role itself and all that it is a member of, also by others. */
static List *
memberships_of(Oid role)
{
	List	   *result = list_make1_oid(role);
	ListCell   *cell;

	foreach(cell, result)
	{
		CatCList   *list = SearchSysCacheList1(AUTHMEMMEMROLE,
											   ObjectIdGetDatum(lfirst_oid(cell)));

		for (int i = 0; i < list->n_members; i++)
		{
			HeapTuple	tuple = &list->members[i]->tuple;

			/* foreach() finds what is appended meanwhile */
			result = list_append_unique_oid(result,
											((Form_pg_auth_members) GETSTRUCT(tuple))->roleid);
		}
		ReleaseCatCacheList(list);
	}
	return result;
}
