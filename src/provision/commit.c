/*-------------------------------------------------------------------------
 *
 * commit.c
 *	  Do at commit what a transaction has noted: slots, pg_hba.conf, audit.
 *
 * Slots and files are not transactional in PostgreSQL, so nothing is done
 * before the transaction is about to commit:
 *
 * PRE_COMMIT  under one cluster-wide lock: new slots are created temporary,
 *			   pg_hba.conf is exchanged and the reload awaited, the slot to be
 *			   dropped is taken.  Each of these may fail: the transaction aborts.
 * ABORT	   puts back whatever PRE_COMMIT had done; errors can still follow
 *			   it (other callbacks, a serialization failure).
 * COMMIT	   the commit record is written.  The held slot is dropped, new ones
 *			   become persistent, then the lines that name the dropped one go,
 *			   last since they tell whose a left-over slot is.
 *
 * An error in the COMMIT callback is a PANIC of the whole server, because a
 * transaction that has committed can't abort.  So each step there runs under
 * a guard that turns an error into a WARNING with the statement that completes
 * the work.  Interrupts are held while a transaction ends; so that a silent
 * postmaster holds nobody, each wait there ends when somebody asks for it, and
 * the WARNING says what is left.
 *
 * Crash safety: the commit is forced to be synchronous, so that no crash
 * leaves a slot without its role; but it does not wait for standbys, because
 * the only synchronous standby may be the one that waits for its slot.
 *
 * IDENTIFICATION
 *	  src/provision/commit.c
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/xact.h"
#include "access/xlog.h"
#include "lib/stringinfo.h"
#include "miscadmin.h"
#include "replication/syncrep.h"
#include "utils/guc.h"
#include "utils/memutils.h"

#include "provision/commit.h"
#include "provision/guard.h"
#include "provision/leave.h"
#include "provision/lock.h"
#include "provision/slot.h"

/* What is wrong when the last step of an edit fails. */
#define LEFT_COPY \
	"a copy of the old pg_hba.conf stays beside it"

/* What is wrong when a change stays that the server may not have loaded. */
#define NOT_LOADED \
	"the server may still use the old pg_hba.conf"
#define NOT_LOADED_REMEDY \
	"SELECT pg_reload_conf();"

/* All in TopTransactionContext; NIL and NULL outside of a commit. */
static PrkHbaEdit *edit = NULL;
static List *audit = NIL;

/* The name of the slot that PRE_COMMIT holds for a deprovision. */
static const char *held_slot = NULL;

/* For step_undo_remedy(). */
typedef struct UndoRemedy
{
	List	   *entries;
	StringInfo	remedy;
} UndoRemedy;

static void stage_slot(List *entries, PrkStaged *entry);
static void edit_file(List *entries);
static void commit_durably(void);
static void drop_slot(PrkStaged *entry);
static void remove_lines(PrkDeprovision *d);
static void finish_edit(void);
static void consume_cancel(void);
static void forget(void);
static void step_persist(void *arg);
static void step_drop(void *arg);
static void step_remove_lines(void *arg);
static void tell_saved(const char *saved);
static void step_finish_file(void *arg);
static void step_tell_unproved(void *arg);
static void step_audit(void *arg);
static void log_change(const char *user, const char *change);
static void step_let_go(void *arg);
static void step_undo_remedy(void *arg);
static void step_undo_file(void *arg);
static void step_discard(void *arg);

/*
 * Do what can fail.  An error aborts the transaction, and prk_commit_undo()
 * has to follow.
 */
void
prk_commit_prepare(List *entries)
{
	MemoryContext oldcontext = MemoryContextSwitchTo(TopTransactionContext);
	ListCell   *lc;

	prk_lock_cluster();

	foreach(lc, entries)
	{
		PrkStaged  *entry = lfirst(lc);

		if (entry->kind == PRK_STAGED_PROVISION)
			stage_slot(entries, entry);
	}

	edit_file(entries);

	/* last, because nothing above may use MyReplicationSlot any more */
	foreach(lc, entries)
	{
		PrkStaged  *entry = lfirst(lc);

		if (entry->kind == PRK_STAGED_DEPROVISION && entry->deprovision.has_slot)
		{
			held_slot = entry->deprovision.name;
			prk_slot_hold(held_slot, entry->deprovision.force,
						  prk_leave_options(true,
											entry->deprovision.keep_role));
		}
	}

	commit_durably();
	MemoryContextSwitchTo(oldcontext);
}

/*
 * Create the replica's slot unless it has one: from before, or by an earlier
 * entry with another address.  One that somebody else has made by that name
 * since the statement is not the replica's.
 */
static void
stage_slot(List *entries, PrkStaged *entry)
{
	const char *name = entry->provision.name;
	PrkSlotInfo slot;
	ListCell   *lc;

	foreach(lc, entries)
	{
		PrkStaged  *other = lfirst(lc);

		if (other->slot_staged && strcmp(other->provision.name, name) == 0)
			return;
	}

	prk_slot_look_up(name, &slot);
	if (slot.exists && entry->provision.has_slot)
		return;
	entry->slot_staged = true;
	prk_slot_create_staged(name);
}

/*
 * Exchange pg_hba.conf, unless it has all it should have.  The lines of a
 * deprovision stay until its slot is gone.
 */
static void
edit_file(List *entries)
{
	List	   *additions = NIL;
	List	   *removals = NIL;
	ListCell   *lc;

	foreach(lc, entries)
	{
		PrkStaged  *entry = lfirst(lc);

		if (entry->kind == PRK_STAGED_PROVISION && entry->provision.has_rule)
			additions = lappend(additions, &entry->provision.rule);
		else if (entry->kind == PRK_STAGED_RULE)
			additions = lappend(additions, &entry->rule);
		else if (entry->kind == PRK_STAGED_REVOKE)
			removals = lappend(removals, &entry->revoke);
	}

	(void) prk_hba_edit_tidy(false);
	if (additions != NIL || removals != NIL)
		prk_hba_edit_apply(&edit, additions, removals, true, &audit);
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

	if (synchronous_commit > SYNCHRONOUS_COMMIT_LOCAL_FLUSH &&
		!RecoveryInProgress())
	{
		if (SyncRepStandbyNames != NULL && SyncRepStandbyNames[0] != '\0')
			ereport(NOTICE,
					(errmsg("this transaction does not wait for synchronous standbys"),
					 errdetail("The only synchronous standby may be the replica that it adds or removes.")));
		(void) set_config_option("synchronous_commit", "local",
								 PGC_USERSET, PGC_S_SESSION,
								 GUC_ACTION_LOCAL, true, 0, false);
	}
}

/*
 * The commit record is written.  Nothing here may raise an error.
 */
void
prk_commit_finish(List *entries)
{
	MemoryContext oldcontext = MemoryContextSwitchTo(TopTransactionContext);
	ListCell   *lc;

	/* first, since a slot can be made persistent only while none is held */
	foreach(lc, entries)
	{
		PrkStaged  *entry = lfirst(lc);

		if (entry->kind == PRK_STAGED_DEPROVISION)
			drop_slot(entry);
	}

	foreach(lc, entries)
	{
		PrkStaged  *entry = lfirst(lc);

		if (entry->slot_staged)
			(void) prk_guard_run(step_persist, entry,
								 "replication slot is not saved on disk yet",
								 "CHECKPOINT;");
	}

	finish_edit();

	/* the lines name the slot's owner, so they stay if it does */
	foreach(lc, entries)
	{
		PrkStaged  *entry = lfirst(lc);
		PrkDeprovision *d = &entry->deprovision;

		if (entry->kind == PRK_STAGED_DEPROVISION && d->nrules > 0 &&
			(entry->slot_dropped || !d->has_slot))
			remove_lines(d);
	}
	(void) prk_guard_run(step_audit, entries, "change of a replica is not logged", NULL);

	consume_cancel();
	forget();
	MemoryContextSwitchTo(oldcontext);
}

/* Drops the slot of a replica that is deprovisioned, or tells how to. */
static void
drop_slot(PrkStaged *entry)
{
	PrkDeprovision *d = &entry->deprovision;
	char		remedy[NAMEDATALEN + 128];

	if (!d->has_slot)
		return;

	/* without its role, and without lines, nothing says that it is ours */
	snprintf(remedy, sizeof(remedy),
			 d->nrules > 0 ? "SELECT * FROM replica_kit.deprovision('%s'%s);" :
			 "SELECT pg_drop_replication_slot('%s');", d->name,
			 prk_leave_options(false, d->keep_role));
	entry->slot_dropped = prk_guard_run(step_drop, d,
										"replication slot could not be dropped",
										remedy);
	held_slot = NULL;
}

/*
 * The last part of a deprovision.  That the server has loaded the file is not
 * waited for at any price: its role is gone, or is to stay.
 */
static void
remove_lines(PrkDeprovision *d)
{
	char		remedy[NAMEDATALEN + 128];

	snprintf(remedy, sizeof(remedy),
			 "SELECT * FROM replica_kit.deprovision('%s'%s);", d->name,
			 prk_leave_options(false, d->keep_role));

	edit = NULL;
	if (prk_guard_run(step_remove_lines, d,
					  "pg_hba.conf still has lines of the replica", remedy))
		finish_edit();
	else if (edit != NULL)
	{
		(void) prk_hba_edit_undo(edit);
		(void) prk_guard_run(step_tell_unproved, edit, NOT_LOADED,
							 NOT_LOADED_REMEDY);
	}
}

/*
 * The change of pg_hba.conf stays.
 */
static void
finish_edit(void)
{
	if (edit == NULL)
		return;
	(void) prk_guard_run(step_finish_file, edit, LEFT_COPY, NULL);
	(void) prk_guard_run(step_tell_unproved, edit, NOT_LOADED,
						 NOT_LOADED_REMEDY);
}

/*
 * A request to cancel that has ended a wait is answered by that: after the
 * commit record it must not make the client believe that nothing was done.
 * One to end the session stays.
 */
static void
consume_cancel(void)
{
	QueryCancelPending = false;
}

/*
 * Put back what prk_commit_prepare() had done when it, or something after it,
 * failed.  Nothing here may raise an error.
 */
void
prk_commit_undo(List *entries)
{
	MemoryContext oldcontext = MemoryContextSwitchTo(TopTransactionContext);
	StringInfoData remedy = {0};
	UndoRemedy	words = {.entries = entries,.remedy = &remedy};
	ListCell   *lc;

	if (held_slot != NULL)
		(void) prk_guard_run(step_let_go, unconstify(char *, held_slot),
							 "replication slot is still held", NULL);

	/* without it, the WARNING has no HINT */
	if (!prk_guard_run(step_undo_remedy, &words,
					   "no hint for the next warning", NULL))
		remedy.len = 0;
	(void) prk_guard_run(step_undo_file, entries,
						 "pg_hba.conf could not be put back",
						 remedy.len > 0 ? remedy.data : NULL);
	if (edit != NULL)
		(void) prk_guard_run(step_tell_unproved, edit, NOT_LOADED,
							 NOT_LOADED_REMEDY);

	foreach(lc, entries)
	{
		PrkStaged  *entry = lfirst(lc);

		if (entry->slot_staged)
			(void) prk_guard_run(step_discard, entry,
								 "replication slot could not be dropped", NULL);
	}

	forget();
	MemoryContextSwitchTo(oldcontext);
}

/*
 * Forget the transaction.  Its memory goes, so the pointers must.
 */
static void
forget(void)
{
	edit = NULL;
	audit = NIL;
	held_slot = NULL;
}

/* A step under the guard: the slot stays. */
static void
step_persist(void *arg)
{
	prk_slot_persist(((PrkStaged *) arg)->provision.name);
}

/* A step under the guard: the slot goes. */
static void
step_drop(void *arg)
{
	prk_slot_drop_held(((PrkDeprovision *) arg)->name);
}

/* A step under the guard: the lines go, last of all. */
static void
step_remove_lines(void *arg)
{
	PrkDeprovision *d = arg;
	PrkHbaRemoval removal = {.replica = d->name,.address = NULL};

	prk_hba_edit_apply(&edit, NIL, list_make1(&removal), false, &audit);
}

/* Report where a displaced version of the file was saved. */
static void
tell_saved(const char *saved)
{
	if (saved != NULL)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_IN_USE),
				 errmsg("another program has edited it meanwhile, see file \"%s\"",
						saved)));
}

/* A step under the guard: the displaced file goes. */
static void
step_finish_file(void *arg)
{
	if (prk_hba_edit_finish(arg))
		return;
	tell_saved(prk_hba_edit_saved(arg));
	ereport(ERROR,
			(errcode(ERRCODE_IO_ERROR),
			 errmsg("could not remove file: %m")));
}

/*
 * Raise why the server is not known to use pg_hba.conf as it is now.
 */
static void
step_tell_unproved(void *arg)
{
	const char *problem = prk_hba_edit_unproved(arg);

	if (problem != NULL)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("its reload could not be verified"),
				 errdetail("%s", problem)));
}

/*
 * The audit lines: each change of file, slot or role, with who did it.
 */
static void
step_audit(void *arg)
{
	List	   *entries = arg;
	const char *user = NULL;
	ListCell   *lc;

	foreach(lc, entries)
	{
		PrkStaged  *entry = lfirst(lc);

		user = entry->user;
		switch (entry->kind)
		{
			case PRK_STAGED_PROVISION:
				if (entry->provision.role_created)
					log_change(user, psprintf("created role \"%s\"",
											  entry->provision.role));
				if (entry->slot_staged)
					log_change(user, psprintf("created replication slot \"%s\"",
											  entry->provision.name));
				break;
			case PRK_STAGED_DEPROVISION:
				if (entry->slot_dropped)
					log_change(user, psprintf("dropped replication slot \"%s\"",
											  entry->deprovision.name));
				if (entry->deprovision.role_dropped)
					log_change(user, psprintf("dropped role \"%s\"",
											  entry->deprovision.role_dropped));
				break;
			case PRK_STAGED_RULE:
			case PRK_STAGED_REVOKE:
			case PRK_STAGED_TIDY:
				break;
			case PRK_STAGED_NOTE:
				log_change(user, entry->note);
				break;
		}
	}

	foreach(lc, audit)
		log_change(user, lfirst(lc));
}

/* The audit line of a change.  user may be NULL. */
static void
log_change(const char *user, const char *change)
{
	ereport(LOG,
			(errmsg("replica_kit: user \"%s\" %s",
					user ? user : "?", change),
			 errhidestmt(true)));
}

/*
 * What puts right by hand a file that could not be put back: lines of addresses
 * that were not to be let in.
 */
static void
step_undo_remedy(void *arg)
{
	UndoRemedy *words = arg;
	ListCell   *lc;

	initStringInfo(words->remedy);
	foreach(lc, words->entries)
	{
		PrkStaged  *entry = lfirst(lc);
		PrkHbaAddition *rule = &entry->provision.rule;
		const char *space = words->remedy->len > 0 ? " " : "";

		if (entry->kind == PRK_STAGED_PROVISION && rule->added)
			appendStringInfo(words->remedy,
							 "%sSELECT replica_kit.revoke_address('%s', '%s');",
							 space, rule->replica, rule->address);
		else if (entry->kind == PRK_STAGED_RULE && entry->rule.added)
			appendStringInfo(words->remedy,
							 "%sSELECT replica_kit.revoke_rewind('%s');",
							 space, entry->rule.replica);
	}
}

/* A step under the guard, while aborting: the slot is free again. */
static void
step_let_go(void *arg)
{
	prk_slot_let_go(arg);
}

/*
 * Where another program has put its version in the place of ours, our lines
 * may be in that.
 */
static void
step_undo_file(void *arg)
{
	List	   *entries = arg;
	List	   *removals = NIL;
	bool		undone = edit == NULL || prk_hba_edit_undo(edit);
	const char *saved = edit != NULL ? prk_hba_edit_saved(edit) : NULL;
	ListCell   *lc;

	if (edit != NULL && undone)
	{
		(void) prk_hba_edit_tidy(false);
		tell_saved(saved);
		return;
	}

	foreach(lc, entries)
	{
		PrkStaged  *entry = lfirst(lc);
		bool		rewind = entry->kind == PRK_STAGED_RULE;
		const PrkHbaAddition *rule = rewind ? &entry->rule :
		&entry->provision.rule;
		PrkHbaRemoval *removal;

		if ((!rewind && entry->kind != PRK_STAGED_PROVISION) || !rule->added)
			continue;
		removal = palloc0(sizeof(PrkHbaRemoval));
		removal->replica = rule->replica;
		removal->address = rule->address;
		removal->rewind = rewind;
		removals = lappend(removals, removal);
	}
	if (removals == NIL && !undone)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_IN_USE),
				 errmsg("another program has changed it, or the file system refuses")));

	edit = NULL;
	if (removals != NIL)
		prk_hba_edit_apply(&edit, NIL, removals, false, &audit);
	if (edit != NULL)
		step_finish_file(edit);
	tell_saved(saved);
}

/* A step under the guard, while aborting: the slot was never there. */
static void
step_discard(void *arg)
{
	prk_slot_discard(((PrkStaged *) arg)->provision.name);
}
