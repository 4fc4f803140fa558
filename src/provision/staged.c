/*-------------------------------------------------------------------------
 *
 * staged.c
 *	  What a transaction has noted to be done at commit.
 *
 * provision() and its like only note here what is to be done; commit.c does
 * it, when the transaction is about to commit.
 *
 * Savepoints only edit the list: an entry belongs to a subtransaction, moves
 * to its parent when that commits and goes when it aborts.
 *
 * IDENTIFICATION
 *	  src/provision/staged.c
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/xact.h"
#include "miscadmin.h"
#include "utils/memutils.h"

#include "provision/commit.h"
#include "provision/staged.h"

/* PrkStaged, in TopTransactionContext; NIL outside of a transaction. */
static List *entries = NIL;

static PrkStaged *add_entry(PrkStagedKind kind);
static void xact_callback(XactEvent event, void *arg);
static void subxact_callback(SubXactEvent event, SubTransactionId mySubid,
							 SubTransactionId parentSubid, void *arg);

/*
 * Have the replica provisioned at commit.  What it points to is copied.
 */
void
prk_staged_provision(const PrkProvision *provision)
{
	MemoryContext oldcontext = MemoryContextSwitchTo(TopTransactionContext);
	PrkStaged  *entry = add_entry(PRK_STAGED_PROVISION);
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
		copy->rule.address = pstrdup(provision->rule.address);
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
		PrkStaged  *entry = lfirst(lc);
		PrkProvision *p = &entry->provision;

		if (entry->kind == PRK_STAGED_PROVISION &&
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
		PrkStaged  *entry = lfirst(lc);

		if (entry->kind == PRK_STAGED_PROVISION &&
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
		n += ((PrkStaged *) lfirst(lc))->kind == PRK_STAGED_PROVISION;
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
	PrkStaged  *entry = add_entry(PRK_STAGED_DEPROVISION);
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
		PrkStaged  *entry = lfirst(lc);

		if (entry->kind == PRK_STAGED_DEPROVISION)
			return &entry->deprovision;
	}
	return NULL;
}

/*
 * Have a line that is no replica's own added at commit.  What it points to is
 * copied.
 */
void
prk_staged_rule(const PrkHbaAddition *rule)
{
	MemoryContext oldcontext = MemoryContextSwitchTo(TopTransactionContext);
	PrkHbaAddition *copy = &add_entry(PRK_STAGED_RULE)->rule;

	*copy = *rule;
	copy->replica = pstrdup(rule->replica);
	copy->database = pstrdup(rule->database);
	copy->role = pstrdup(rule->role);
	copy->rule = pstrdup(rule->rule);
	copy->address = pstrdup(rule->address);
	MemoryContextSwitchTo(oldcontext);
}

/*
 * Have these managed lines of the replica removed at commit.
 */
void
prk_staged_revoke(const PrkHbaRemoval *removal)
{
	MemoryContext oldcontext = MemoryContextSwitchTo(TopTransactionContext);
	PrkHbaRemoval *copy = &add_entry(PRK_STAGED_REVOKE)->revoke;

	*copy = *removal;
	copy->replica = pstrdup(removal->replica);
	if (removal->address)
		copy->address = pstrdup(removal->address);
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

	add_entry(PRK_STAGED_NOTE)->note = pstrdup(line);
	MemoryContextSwitchTo(oldcontext);
}

/*
 * Have what a crash left beside pg_hba.conf removed at commit, although nothing
 * else is to be done.
 */
void
prk_staged_tidy(void)
{
	MemoryContext oldcontext = MemoryContextSwitchTo(TopTransactionContext);

	(void) add_entry(PRK_STAGED_TIDY);
	MemoryContextSwitchTo(oldcontext);
}

/* A new entry at the end of the list, for the current subtransaction. */
static PrkStaged *
add_entry(PrkStagedKind kind)
{
	static bool registered = false;
	PrkStaged  *entry = palloc0(sizeof(PrkStaged));

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

/* Hands the list over at commit, and empties it at the end. */
static void
xact_callback(XactEvent event, void *arg)
{
	if (entries == NIL)
		return;

	switch (event)
	{
		case XACT_EVENT_PRE_COMMIT:
			prk_commit_prepare(entries);
			break;
		case XACT_EVENT_COMMIT:
			prk_commit_finish(entries);
			entries = NIL;
			break;
		case XACT_EVENT_ABORT:
			prk_commit_undo(entries);
			entries = NIL;
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

/* Entries of a subtransaction become its parent's, or go. */
static void
subxact_callback(SubXactEvent event, SubTransactionId mySubid,
				 SubTransactionId parentSubid, void *arg)
{
	ListCell   *lc;

	if (event != SUBXACT_EVENT_COMMIT_SUB && event != SUBXACT_EVENT_ABORT_SUB)
		return;

	foreach(lc, entries)
	{
		PrkStaged  *entry = lfirst(lc);

		if (entry->subid != mySubid)
			continue;
		if (event == SUBXACT_EVENT_COMMIT_SUB)
			entry->subid = parentSubid;
		else
			entries = foreach_delete_current(entries, lc);
	}
}
