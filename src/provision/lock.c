/*-------------------------------------------------------------------------
 *
 * lock.c
 *	  The kit's own locks, held until the end of the transaction.
 *
 * They are advisory locks in a database that does not exist, so that they are
 * cluster-wide, deadlock-checked and work in recovery, where object locks are
 * refused.  A replica's name and its role are locked by the statement; slots
 * and pg_hba.conf at PRE_COMMIT, and whoever has that lock waits for no other.
 *
 * IDENTIFICATION
 *	  src/provision/lock.c
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "common/hashfn.h"
#include "storage/lock.h"
#include "utils/inval.h"

#include "provision/lock.h"

/* The second key of the advisory locks, so that the kinds differ. */
#define LOCK_CLUSTER		0x50524b31
#define LOCK_NAME			0x50524b32
#define LOCK_ROLE			0x50524b33

static void lock_string(const char *string, uint32 kind);
static void lock_key(uint32 key, uint32 kind);

/*
 * Wait until no other transaction sets up the same replica.
 */
void
prk_lock_name(const char *replica)
{
	lock_string(replica, LOCK_NAME);
}

/*
 * Wait until no other transaction makes, drops or marks the same role through
 * the kit.
 */
void
prk_lock_role(const char *role)
{
	lock_string(role, LOCK_ROLE);
}

/*
 * Wait until no other transaction changes slots or pg_hba.conf through the
 * kit.
 */
void
prk_lock_cluster(void)
{
	lock_key(0, LOCK_CLUSTER);
}

/* Locks a name of this kind until the end of the transaction. */
static void
lock_string(const char *string, uint32 kind)
{
	lock_key(hash_bytes((const unsigned char *) string, strlen(string)), kind);
}

/*
 * Takes an advisory lock of the whole cluster; waits, with deadlock detection.
 */
static void
lock_key(uint32 key, uint32 kind)
{
	LOCKTAG		tag;

	/* database InvalidOid: the whole cluster; last field 2: two int4 keys */
	SET_LOCKTAG_ADVISORY(tag, InvalidOid, key, kind, 2);
	(void) LockAcquire(&tag, ExclusiveLock, false, false);

	/* what the one that was waited for has committed */
	AcceptInvalidationMessages();
}
