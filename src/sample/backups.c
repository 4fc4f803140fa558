/*-------------------------------------------------------------------------
 *
 * backups.c
 *	  A running base backup is one replica.
 *
 * pg_basebackup has two connections: one copies files, the other streams the
 * WAL meanwhile, through its slot if it has one.  Nothing in shared memory
 * joins them but user, client address and application name.
 *
 * The replica that stays is that of the stream, with the backup's state and
 * progress: its name, pid and positions agree with pg_replication_slots and
 * pg_stat_replication.  A backup without a stream, yet or at all, goes into
 * the inactive slot that has its application name, and stays alone if there
 * is none.
 *
 * IDENTIFICATION
 *	  src/sample/backups.c
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include <netinet/in.h>

#include "commands/progress.h"

#include "sample/backups.h"

static void merge_backup(PrkReplica *backup, PrkReplica *stream);
static void take_slot(const PrkReplica *backup, PrkReplica *slot);
static PrkReplica *find_backup_stream(PrkSample *sample,
									  const PrkReplica *backup);
static PrkReplica *find_backup_slot(PrkSample *sample,
									const PrkReplica *backup);
static bool same_client(const PrkReplica *a, const PrkReplica *b);
static int	compare_start(const void *a, const void *b);

/*
 * Merge each running base backup's walsenders into one replica.  The order of
 * the replicas stays.
 */
void
prk_backups_merge(PrkSample *sample)
{
	PrkReplica **backups = NULL;
	int			nbackups = 0;
	int			kept = 0;

	/* One that holds a slot itself is one row already. */
	for (int i = 0; i < sample->nreplicas; i++)
	{
		PrkReplica *replica = &sample->replicas[i];

		if (!replica->has_walsender || replica->has_slot ||
			replica->state != PRK_STATE_BACKUP)
			continue;
		if (backups == NULL)
			backups = palloc(sizeof(PrkReplica *) * sample->nreplicas);
		backups[nbackups++] = replica;
	}
	if (nbackups == 0)
		return;

	/* First come, first served: streams start in their backups' order. */
	qsort(backups, nbackups, sizeof(PrkReplica *), compare_start);

	for (int i = 0; i < nbackups; i++)
	{
		PrkReplica *stream = find_backup_stream(sample, backups[i]);

		if (stream == NULL)
		{
			stream = find_backup_slot(sample, backups[i]);
			if (stream == NULL)
				continue;
			take_slot(backups[i], stream);
		}
		merge_backup(backups[i], stream);
	}

	for (int i = 0; i < sample->nreplicas; i++)
	{
		PrkReplica *replica = &sample->replicas[i];

		if (!replica->has_slot && replica->pid == 0)
			continue;
		if (kept < i)
			sample->replicas[kept] = *replica;
		kept++;
	}
	sample->nreplicas = kept;
	pfree(backups);
}

/* The stream becomes the backup; what is left of the backup has no pid. */
static void
merge_backup(PrkReplica *backup, PrkReplica *stream)
{
	stream->state = PRK_STATE_BACKUP;
	stream->backup_phase = backup->backup_phase;
	stream->backup_total = backup->backup_total;
	stream->backup_streamed = backup->backup_streamed;
	stream->backup_incremental = backup->backup_incremental;
	backup->pid = 0;
}

/* An inactive slot is served by the backup's own process. */
static void
take_slot(const PrkReplica *backup, PrkReplica *slot)
{
	slot->pid = backup->pid;
	slot->has_walsender = true;
	slot->sync_state = backup->sync_state;
	slot->userid = backup->userid;
	strlcpy(slot->application_name, backup->application_name, NAMEDATALEN);
	slot->has_client_addr = backup->has_client_addr;
	slot->client_addr = backup->client_addr;
	slot->backend_start = backup->backend_start;
	slot->inactive_since = 0;
}

/*
 * The walsender that streams WAL for a backup; of several the one that
 * started first.
 *
 * It is started when the files begin to come, never while the backup waits
 * for its checkpoint, and it reports no replay: that is how it differs from a
 * standby of the same name.
 */
static PrkReplica *
find_backup_stream(PrkSample *sample, const PrkReplica *backup)
{
	PrkReplica *found = NULL;

	if (backup->backup_phase == PROGRESS_BASEBACKUP_PHASE_WAIT_CHECKPOINT)
		return NULL;

	for (int i = 0; i < sample->nreplicas; i++)
	{
		PrkReplica *replica = &sample->replicas[i];

		if (replica->pid == 0 || !replica->has_walsender ||
			replica->state == PRK_STATE_BACKUP || replica->logical ||
			!XLogRecPtrIsInvalid(replica->replay_lsn) ||
			replica->backend_start < backup->backend_start ||
			!same_client(replica, backup))
			continue;
		if (found == NULL || replica->backend_start < found->backend_start)
			found = replica;
	}
	return found;
}

/* The inactive physical slot that has the application name of a backup. */
static PrkReplica *
find_backup_slot(PrkSample *sample, const PrkReplica *backup)
{
	for (int i = 0; i < sample->nreplicas; i++)
	{
		PrkReplica *replica = &sample->replicas[i];

		if (replica->has_slot && !replica->logical && replica->pid == 0 &&
			strcmp(replica->slot_name, backup->application_name) == 0)
			return replica;
	}
	return NULL;
}

/* Same user, application name and client address, whatever the port? */
static bool
same_client(const PrkReplica *a, const PrkReplica *b)
{
	const struct sockaddr_storage *addr_a = &a->client_addr.addr;
	const struct sockaddr_storage *addr_b = &b->client_addr.addr;

	if (a->userid != b->userid || a->has_client_addr != b->has_client_addr ||
		addr_a->ss_family != addr_b->ss_family ||
		strcmp(a->application_name, b->application_name) != 0)
		return false;

	if (addr_a->ss_family == AF_INET)
		return ((const struct sockaddr_in *) addr_a)->sin_addr.s_addr ==
			((const struct sockaddr_in *) addr_b)->sin_addr.s_addr;
	if (addr_a->ss_family == AF_INET6)
		return memcmp(&((const struct sockaddr_in6 *) addr_a)->sin6_addr,
					  &((const struct sockaddr_in6 *) addr_b)->sin6_addr,
					  sizeof(struct in6_addr)) == 0;
	return true;				/* Unix sockets */
}

/* qsort comparator: by backend start, then by pid */
static int
compare_start(const void *a, const void *b)
{
	const PrkReplica *replica_a = *(PrkReplica *const *) a;
	const PrkReplica *replica_b = *(PrkReplica *const *) b;

	if (replica_a->backend_start != replica_b->backend_start)
		return replica_a->backend_start < replica_b->backend_start ? -1 : 1;
	return (replica_a->pid > replica_b->pid) -
		(replica_a->pid < replica_b->pid);
}
