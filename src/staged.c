/*-------------------------------------------------------------------------
 *
 * staged.c
 *	  What happens at commit: slots, lines of pg_hba.conf, audit.
 *
 * Slots and files are not transactional in PostgreSQL.  So provision() and
 * its like only note what is to be done, and nothing is done before the
 * transaction is about to commit:
 *
 * PRE_COMMIT  under one cluster-wide lock: new slots are created temporary,
 *			   the slot to be dropped is taken, pg_hba.conf is exchanged and the
 *			   reload awaited.  Each of these may fail: the transaction aborts.
 * ABORT	   puts back whatever PRE_COMMIT had done; errors can still follow
 *			   it (other callbacks, a serialization failure).
 * COMMIT	   the commit record is written.  New slots become persistent, the
 *			   held one is dropped, then the lines that name it go, last since
 *			   they tell whose a left-over slot is.
 *
 * An error in the COMMIT callback is a PANIC of the whole server, because a
 * transaction that has committed can't abort.  So each step there runs under
 * a guard that turns an error into a WARNING with the statement that completes
 * the work.
 *
 * Savepoints only edit the list: an entry belongs to a subtransaction, moves
 * to its parent when that commits and goes when it aborts.
 *
 * Crash safety: the commit is forced to be synchronous, so that no crash
 * leaves a slot without its role; but it does not wait for standbys, because
 * the only synchronous standby may be the one that waits for its slot.
 *
 * Two locks, both advisory in a database that does not exist, so that they
 * are cluster-wide, deadlock-checked and work in recovery: one a name, taken
 * by the statement; one for slots and file, taken at PRE_COMMIT, whose holder
 * waits for no other lock.
 *
 * IDENTIFICATION
 *	  src/staged.c
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/xact.h"
#include "access/xlog.h"
#include "common/hashfn.h"
#include "miscadmin.h"
#include "replication/syncrep.h"
#include "storage/lock.h"
#include "utils/guc.h"
#include "utils/memutils.h"

#include "board.h"
#include "guard.h"
#include "slot.h"
#include "staged.h"

/* The second key of the advisory locks, so that both kinds differ. */
#define LOCK_CLUSTER		0x50524b31
#define LOCK_NAME			0x50524b32

typedef enum EntryKind
{
	ENTRY_PROVISION,
	ENTRY_DEPROVISION,
	ENTRY_REVOKE,
	ENTRY_NOTE
} EntryKind;

typedef struct Entry
{
	SubTransactionId subid;
	EntryKind	kind;
	PrkProvision provision;
	PrkDeprovision deprovision;
	PrkHbaRemoval revoke;
	const char *note;

	const char *user;			/* who asked for it */
	bool		slot_staged;	/* provision: made by PRE_COMMIT */
	bool		slot_dropped;	/* deprovision: by COMMIT */
} Entry;

/* All in TopTransactionContext; NIL and NULL outside of a transaction. */
static List *entries = NIL;
static PrkHbaEdit *edit = NULL;
static List *audit = NIL;

/* The name of the slot that PRE_COMMIT holds for a deprovision. */
static const char *held_slot = NULL;

/* Argument of step_remove_lines(). */
typedef struct RemoveLines
{
	PrkDeprovision *deprovision;
	PrkHbaEdit **edit;
} RemoveLines;

static Entry *add_entry(EntryKind kind);
static void lock_key(uint32 key, uint32 kind);
static void xact_callback(XactEvent event, void *arg);
static void subxact_callback(SubXactEvent event, SubTransactionId mySubid,
							 SubTransactionId parentSubid, void *arg);
static void at_pre_commit(void);
static void edit_file(void);
static void commit_durably(void);
static void at_commit(void);
static void remove_lines(PrkDeprovision *d, const char *remedy);
static void at_abort(void);
static void forget(void);
static void step_persist(void *arg);
static void step_drop(void *arg);
static void step_remove_lines(void *arg);
static void step_finish_file(void *arg);
static void step_audit(void *arg);
static void log_change(const char *user, const char *change);
static void step_discard(void *arg);
static void step_let_go(void *arg);

/*
 * Wait until no other transaction sets up the same replica.  Held until the
 * end of the transaction.
 */
void
prk_staged_lock_name(const char *name)
{
	lock_key(hash_bytes((const unsigned char *) name, strlen(name)),
			 LOCK_NAME);
}

/*
 * Wait until no other transaction changes slots or pg_hba.conf through the
 * kit.  Held until the end of the transaction.
 */
void
prk_staged_lock_cluster(void)
{
	lock_key(0, LOCK_CLUSTER);
}

/*
 * Have the replica provisioned at commit.  What it points to is copied.
 */
void
prk_staged_provision(const PrkProvision *provision)
{
	MemoryContext oldcontext = MemoryContextSwitchTo(TopTransactionContext);
	Entry	   *entry = add_entry(ENTRY_PROVISION);
	PrkProvision *copy = &entry->provision;

	*copy = *provision;
	copy->name = pstrdup(provision->name);
	copy->role = pstrdup(provision->role);
	if (provision->password)
		copy->password = pstrdup(provision->password);
	if (provision->has_rule)
	{
		copy->rule.replica = copy->name;
		copy->rule.role = copy->role;
		copy->rule.rule = pstrdup(provision->rule.rule);
	}
	MemoryContextSwitchTo(oldcontext);
}

/*
 * The same call made before in this transaction, or NULL.  rule NULL: one
 * that does not manage pg_hba.conf.
 */
const PrkProvision *
prk_staged_find_provision(const char *name, const char *role,
						  const char *rule)
{
	ListCell   *lc;

	foreach(lc, entries)
	{
		Entry	   *entry = lfirst(lc);
		PrkProvision *p = &entry->provision;

		if (entry->kind == ENTRY_PROVISION &&
			strcmp(p->name, name) == 0 && strcmp(p->role, role) == 0 &&
			p->has_rule == (rule != NULL) &&
			(rule == NULL || strcmp(p->rule.rule, rule) == 0))
			return p;
	}
	return NULL;
}

/*
 * Has the transaction noted any provision of this name?
 */
bool
prk_staged_provisions(const char *name)
{
	ListCell   *lc;

	foreach(lc, entries)
	{
		Entry	   *entry = lfirst(lc);

		if (entry->kind == ENTRY_PROVISION &&
			strcmp(entry->provision.name, name) == 0)
			return true;
	}
	return false;
}

/*
 * How many provisions the transaction has noted: each may take a slot.
 */
int
prk_staged_count_provisions(void)
{
	int			n = 0;
	ListCell   *lc;

	foreach(lc, entries)
		n += ((Entry *) lfirst(lc))->kind == ENTRY_PROVISION;
	return n;
}

/*
 * Have the replica deprovisioned at commit.  What it points to is copied.  One
 * in a transaction, since a backend can hold one slot: the caller has asked
 * prk_staged_find_deprovision().
 */
void
prk_staged_deprovision(const PrkDeprovision *deprovision)
{
	MemoryContext oldcontext = MemoryContextSwitchTo(TopTransactionContext);
	Entry	   *entry = add_entry(ENTRY_DEPROVISION);
	PrkDeprovision *copy = &entry->deprovision;

	*copy = *deprovision;
	copy->name = pstrdup(deprovision->name);
	if (deprovision->role_dropped)
		copy->role_dropped = pstrdup(deprovision->role_dropped);
	MemoryContextSwitchTo(oldcontext);
}

/*
 * The deprovision that the transaction has noted, or NULL.
 */
const PrkDeprovision *
prk_staged_find_deprovision(void)
{
	ListCell   *lc;

	foreach(lc, entries)
	{
		Entry	   *entry = lfirst(lc);

		if (entry->kind == ENTRY_DEPROVISION)
			return &entry->deprovision;
	}
	return NULL;
}

/*
 * Have the replica's managed lines of this address removed at commit.
 */
void
prk_staged_revoke(const char *name, const char *address)
{
	MemoryContext oldcontext = MemoryContextSwitchTo(TopTransactionContext);
	Entry	   *entry = add_entry(ENTRY_REVOKE);

	entry->revoke.replica = pstrdup(name);
	entry->revoke.address = pstrdup(address);
	MemoryContextSwitchTo(oldcontext);
}

/*
 * Have a line logged after commit, with who did it: "changed the password of
 * role ...".
 */
void
prk_staged_note(const char *line)
{
	MemoryContext oldcontext = MemoryContextSwitchTo(TopTransactionContext);

	add_entry(ENTRY_NOTE)->note = pstrdup(line);
	MemoryContextSwitchTo(oldcontext);
}

static Entry *
add_entry(EntryKind kind)
{
	static bool registered = false;
	Entry	   *entry = palloc0(sizeof(Entry));

	if (!registered)
	{
		RegisterXactCallback(xact_callback, NULL);
		RegisterSubXactCallback(subxact_callback, NULL);
		registered = true;
	}

	entry->subid = GetCurrentSubTransactionId();
	entry->kind = kind;
	entry->user = GetUserNameFromId(GetSessionUserId(), true);
	entries = lappend(entries, entry);

	return entry;
}

static void
lock_key(uint32 key, uint32 kind)
{
	LOCKTAG		tag;

	/* database InvalidOid: the whole cluster; last field 2: two int4 keys */
	SET_LOCKTAG_ADVISORY(tag, InvalidOid, key, kind, 2);
	(void) LockAcquire(&tag, ExclusiveLock, false, false);
}

static void
xact_callback(XactEvent event, void *arg)
{
	if (entries == NIL)
		return;

	switch (event)
	{
		case XACT_EVENT_PRE_COMMIT:
			at_pre_commit();
			break;
		case XACT_EVENT_COMMIT:
			at_commit();
			forget();
			break;
		case XACT_EVENT_ABORT:
			at_abort();
			forget();
			break;
		case XACT_EVENT_PRE_PREPARE:
			ereport(ERROR,
					(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
					 errmsg("cannot PREPARE a transaction that has provisioned or deprovisioned a replica")));
			break;
		case XACT_EVENT_PREPARE:
		case XACT_EVENT_PARALLEL_PRE_COMMIT:
		case XACT_EVENT_PARALLEL_COMMIT:
		case XACT_EVENT_PARALLEL_ABORT:
			break;
	}
}

static void
subxact_callback(SubXactEvent event, SubTransactionId mySubid,
				 SubTransactionId parentSubid, void *arg)
{
	ListCell   *lc;

	if (event != SUBXACT_EVENT_COMMIT_SUB && event != SUBXACT_EVENT_ABORT_SUB)
		return;

	foreach(lc, entries)
	{
		Entry	   *entry = lfirst(lc);

		if (entry->subid != mySubid)
			continue;
		if (event == SUBXACT_EVENT_COMMIT_SUB)
			entry->subid = parentSubid;
		else
			entries = foreach_delete_current(entries, lc);
	}
}

/*
 * Do what can fail.  An error aborts the transaction, and at_abort() undoes.
 */
static void
at_pre_commit(void)
{
	MemoryContext oldcontext = MemoryContextSwitchTo(TopTransactionContext);
	ListCell   *lc;

	prk_staged_lock_cluster();

	foreach(lc, entries)
	{
		Entry	   *entry = lfirst(lc);
		PrkSlotInfo slot;

		if (entry->kind != ENTRY_PROVISION)
			continue;

		/* the same replica may be noted twice, with two addresses */
		prk_slot_look_up(entry->provision.name, &slot);
		if (slot.exists)
			continue;
		entry->slot_staged = true;
		prk_slot_create_staged(entry->provision.name);
	}

	edit_file();

	/* last, because nothing above may use MyReplicationSlot any more */
	foreach(lc, entries)
	{
		Entry	   *entry = lfirst(lc);

		if (entry->kind == ENTRY_DEPROVISION && entry->deprovision.has_slot)
		{
			held_slot = entry->deprovision.name;
			prk_slot_hold(held_slot, entry->deprovision.force);
		}
	}

	commit_durably();
	MemoryContextSwitchTo(oldcontext);
}

/*
 * Exchange pg_hba.conf, unless it has all it should have.  The lines of a
 * deprovision stay until its slot is gone.
 */
static void
edit_file(void)
{
	List	   *additions = NIL;
	List	   *removals = NIL;
	ListCell   *lc;

	foreach(lc, entries)
	{
		Entry	   *entry = lfirst(lc);

		if (entry->kind == ENTRY_PROVISION && entry->provision.has_rule)
			additions = lappend(additions, &entry->provision.rule);
		else if (entry->kind == ENTRY_REVOKE)
			removals = lappend(removals, &entry->revoke);
	}

	if (additions != NIL || removals != NIL)
		prk_hba_edit_apply(&edit, additions, removals, &audit);
}

/*
 * Make the commit one that a crash can't undo and that waits for no standby.
 */
static void
commit_durably(void)
{
	if (!RecoveryInProgress())
	{
		/* without an xid, commit would flush nothing */
		(void) GetCurrentTransactionId();
		ForceSyncCommit();
	}

	if (synchronous_commit > SYNCHRONOUS_COMMIT_LOCAL_FLUSH)
	{
		if (SyncRepStandbyNames != NULL && SyncRepStandbyNames[0] != '\0')
			ereport(NOTICE,
					(errmsg("this transaction does not wait for synchronous standbys"),
					 errdetail("The one that it would wait for may be the one being set up.")));
		(void) set_config_option("synchronous_commit", "local",
								 PGC_USERSET, PGC_S_SESSION,
								 GUC_ACTION_LOCAL, true, 0, false);
	}
}

/*
 * The commit record is written.  Nothing here may raise an error.
 */
static void
at_commit(void)
{
	MemoryContext oldcontext = MemoryContextSwitchTo(TopTransactionContext);
	ListCell   *lc;

	foreach(lc, entries)
	{
		Entry	   *entry = lfirst(lc);
		PrkDeprovision *d = &entry->deprovision;

		if (entry->kind == ENTRY_DEPROVISION)
		{
			char		remedy[NAMEDATALEN + 64];

			snprintf(remedy, sizeof(remedy),
					 "SELECT * FROM replica_kit.deprovision('%s');", d->name);

			/* the lines name the slot's owner, so they stay if it does */
			if (!d->has_slot ||
				(entry->slot_dropped =
				 prk_guard_run(step_drop, d, "replication slot could not be dropped",
							   remedy)))
				remove_lines(d, remedy);
			held_slot = NULL;
		}
		else if (entry->kind == ENTRY_PROVISION && entry->slot_staged)
			(void) prk_guard_run(step_persist, entry,
								 "replication slot is not saved on disk yet",
								 "CHECKPOINT;");
	}

	if (edit != NULL)
		(void) prk_guard_run(step_finish_file, NULL,
							 "a copy of the old pg_hba.conf is left beside it", NULL);
	(void) prk_guard_run(step_audit, NULL, "change of a replica is not logged", NULL);

	MemoryContextSwitchTo(oldcontext);
}

/*
 * The last part of a deprovision.  A file that was exchanged but not loaded is
 * put back: what the server uses and what stands there shall agree.
 */
static void
remove_lines(PrkDeprovision *d, const char *remedy)
{
	PrkHbaEdit *removing = NULL;
	RemoveLines arg = {.deprovision = d,.edit = &removing};

	if (prk_guard_run(step_remove_lines, &arg,
					  "pg_hba.conf still has lines of the replica", remedy))
	{
		if (removing != NULL)
			(void) prk_hba_edit_finish(removing);
	}
	else if (removing != NULL)
		(void) prk_hba_edit_undo(removing);
}

/*
 * Put back what at_pre_commit() had done when it, or something after it,
 * failed.  Nothing here may raise an error.
 */
static void
at_abort(void)
{
	ListCell   *lc;

	if (held_slot != NULL)
		(void) prk_guard_run(step_let_go, unconstify(char *, held_slot),
							 "replication slot is still held", NULL);

	if (edit != NULL && !prk_hba_edit_undo(edit))
		ereport(WARNING,
				(errmsg("pg_hba.conf could not be put back"),
				 errdetail("It has lines of a replica that was not provisioned."),
				 errhint("Remove the lines that end in \"# pg_replica_kit: NAME\" of that replica.")));

	foreach(lc, entries)
	{
		Entry	   *entry = lfirst(lc);

		if (entry->slot_staged)
			(void) prk_guard_run(step_discard, entry,
								 "replication slot could not be dropped", NULL);
	}
}

/*
 * The transaction is over: its memory goes, so the pointers must.
 */
static void
forget(void)
{
	entries = NIL;
	edit = NULL;
	audit = NIL;
	held_slot = NULL;
}

static void
step_persist(void *arg)
{
	prk_slot_persist(((Entry *) arg)->provision.name);
}

static void
step_drop(void *arg)
{
	const char *name = ((PrkDeprovision *) arg)->name;

	/* or the worker would report the slot as vanished */
	prk_board_forget(name);
	prk_slot_drop_held(name);
}

static void
step_remove_lines(void *arg)
{
	RemoveLines *remove = arg;
	PrkHbaRemoval removal = {.replica = remove->deprovision->name,.address = NULL};

	if (remove->deprovision->nrules > 0)
		prk_hba_edit_apply(remove->edit, NIL, list_make1(&removal), &audit);
}

static void
step_finish_file(void *arg)
{
	if (!prk_hba_edit_finish(edit))
		ereport(ERROR,
				(errcode(ERRCODE_IO_ERROR),
				 errmsg("could not remove it")));
}

/*
 * The audit lines: each change of file, slot or role, with who did it.
 */
static void
step_audit(void *arg)
{
	const char *user = NULL;
	ListCell   *lc;

	foreach(lc, entries)
	{
		Entry	   *entry = lfirst(lc);

		user = entry->user;
		switch (entry->kind)
		{
			case ENTRY_PROVISION:
				if (entry->provision.role_created)
					log_change(user, psprintf("created role \"%s\"",
											  entry->provision.role));
				if (entry->slot_staged)
					log_change(user, psprintf("created replication slot \"%s\"",
											  entry->provision.name));
				break;
			case ENTRY_DEPROVISION:
				if (entry->slot_dropped)
					log_change(user, psprintf("dropped replication slot \"%s\"",
											  entry->deprovision.name));
				if (entry->deprovision.role_dropped)
					log_change(user, psprintf("dropped role \"%s\"",
											  entry->deprovision.role_dropped));
				break;
			case ENTRY_REVOKE:
				break;
			case ENTRY_NOTE:
				log_change(user, entry->note);
				break;
		}
	}

	foreach(lc, audit)
		log_change(user, lfirst(lc));
}

static void
log_change(const char *user, const char *change)
{
	ereport(LOG,
			(errmsg("replica_kit: user \"%s\" %s",
					user ? user : "?", change),
			 errhidestmt(true)));
}

static void
step_discard(void *arg)
{
	prk_slot_discard(((Entry *) arg)->provision.name);
}

static void
step_let_go(void *arg)
{
	prk_slot_let_go(arg);
}
