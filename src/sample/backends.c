/*-------------------------------------------------------------------------
 *
 * backends.c
 *	  Backend entries, read straight from shared memory.
 *
 * pgstat_fetch_stat_beentry() and its kin copy every entry with its query
 * text, once a transaction, and look up every backend's xid under a
 * lightweight lock: dear, stale at a second call in one transaction, and
 * kept for ever by a process that runs no transactions.  So this module
 * reads the array of entries itself, by the protocol that
 * utils/backend_status.h publishes for readers: note st_changecount, copy,
 * and compare.  It takes no lock, allocates a few bytes, leaves the
 * transaction's own snapshot of the entries alone, and works in any process
 * that is attached to shared memory.
 *
 * The array has a name in the index of shared memory, and so can be found
 * without help of the module that owns it.
 *
 * IDENTIFICATION
 *	  src/sample/backends.c
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "commands/progress.h"
#include "miscadmin.h"
#include "storage/shmem.h"
#include "utils/backend_status.h"

#include "compat.h"
#include "sample/backends.h"

/*
 * A writer is between its two steps for nanoseconds, unless it was stopped
 * there by a signal or a debugger; then its entry is passed over.
 */
#define PRK_BACKENDS_TRIES	1000

/* One process whose entry has to be looked for. */
typedef struct Missing
{
	int			pid;
	int			position;		/* in the caller's array */
} Missing;

static PgBackendStatus *backend_array(void);
static bool read_entry(const PgBackendStatus *entry, PrkBackend *backend);
static int	compare_missing(const void *a, const void *b);

/*
 * Fill in the entries of the processes whose pids are set.
 *
 * One whose hint is right costs one copy; for all others together the array
 * is walked once.  A process that has no entry comes back with hint -1 and
 * the rest zero.  Raises no error but for lack of memory.
 */
void
prk_backends_read(PrkBackend *backends, int nbackends)
{
	PgBackendStatus *array = backend_array();
	Missing    *missing = NULL;
	int			nmissing = 0;

	for (int i = 0; i < nbackends; i++)
	{
		PrkBackend *backend = &backends[i];

		if (backend->hint >= 0 && backend->hint < MaxBackends &&
			read_entry(&array[backend->hint], backend))
			continue;

		if (missing == NULL)
			missing = palloc(sizeof(Missing) * nbackends);
		missing[nmissing].pid = backend->pid;
		missing[nmissing].position = i;
		nmissing++;
		backend->hint = -1;
	}

	if (nmissing == 0)
		return;

	qsort(missing, nmissing, sizeof(Missing), compare_missing);

	for (int i = 0; i < MaxBackends; i++)
	{
		Missing		key = {0};
		Missing    *found;

		/* A torn or stale pid does no harm: read_entry() looks again. */
		key.pid = ((volatile PgBackendStatus *) &array[i])->st_procpid;
		if (key.pid <= 0)
			continue;

		found = bsearch(&key, missing, nmissing, sizeof(Missing),
						compare_missing);
		if (found != NULL &&
			read_entry(&array[i], &backends[found->position]))
			backends[found->position].hint = i;
	}

	pfree(missing);
}

/*
 * The server's array of backend entries: one for each possible backend, then
 * those of the auxiliary processes.
 */
static PgBackendStatus *
backend_array(void)
{
	static PgBackendStatus *array = NULL;

	if (array == NULL)
	{
		bool		found;

		array = ShmemInitStruct("Backend Status Array",
								mul_size(sizeof(PgBackendStatus),
										 prk_compat_backend_entries()),
								&found);
		Assert(found);
	}
	return array;
}

/*
 * Copy what is wanted of an entry.  False if it is not, or no longer, the
 * entry of backend->pid.
 */
static bool
read_entry(const PgBackendStatus *entry, PrkBackend *backend)
{
	static const SockAddr no_addr = {0};

	for (int i = 0; i < PRK_BACKENDS_TRIES; i++)
	{
		int			before;
		int			after;
		bool		ours;
		ProgressCommandType command = PROGRESS_COMMAND_INVALID;
		int64		phase = 0;
		int64		total = -1;
		int64		streamed = 0;
		bool		incremental = false;

		pgstat_begin_read_activity((volatile PgBackendStatus *) entry, before);

		ours = entry->st_procpid == backend->pid;
		if (ours)
		{
			backend->userid = entry->st_userid;
			backend->start = entry->st_proc_start_timestamp;
			memcpy(&backend->client_addr, &entry->st_clientaddr,
				   sizeof(SockAddr));

			/* The buffer's last byte is always zero. */
			strlcpy(backend->application_name, entry->st_appname,
					NAMEDATALEN);
			backend->command[0] = '\0';
			if (entry->st_backendType == B_WAL_SENDER)
				strlcpy(backend->command, entry->st_activity_raw,
						PRK_COMMAND_LEN);

			command = entry->st_progress_command;
			phase = entry->st_progress_param[PROGRESS_BASEBACKUP_PHASE];
			total = entry->st_progress_param[PROGRESS_BASEBACKUP_BACKUP_TOTAL];
			streamed =
				entry->st_progress_param[PROGRESS_BASEBACKUP_BACKUP_STREAMED];
			incremental = prk_compat_backup_is_incremental(entry);
		}

		pgstat_end_read_activity((volatile PgBackendStatus *) entry, after);

		if (!pgstat_read_activity_complete(before, after))
			continue;
		if (!ours)
			return false;

		backend->has_client_addr =
			memcmp(&backend->client_addr, &no_addr, sizeof(SockAddr)) != 0;
		backend->in_backup = command == PROGRESS_COMMAND_BASEBACKUP;
		backend->backup_phase = backend->in_backup ? (int) phase : 0;
		backend->backup_total = backend->in_backup ? total : -1;
		backend->backup_streamed = backend->in_backup ? streamed : 0;
		backend->backup_incremental = backend->in_backup && incremental;
		return true;
	}

	return false;
}

/* qsort and bsearch comparator: by pid */
static int
compare_missing(const void *a, const void *b)
{
	int			pid_a = ((const Missing *) a)->pid;
	int			pid_b = ((const Missing *) b)->pid;

	return (pid_a > pid_b) - (pid_a < pid_b);
}
