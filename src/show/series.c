/*-------------------------------------------------------------------------
 *
 * series.c
 *	  The replicas that are known, each once, whether they are there or not.
 *
 * A replica is known by its slot, by a walsender without one, and by a role of
 * the kit's that names it.  Slot and role survive a restart of the server and
 * the absence, or the end, of the replica; deprovision() ends both.
 *
 * A series needs a name of its own: walsenders without a slot may share one,
 * and one may have that of a slot.  They are one series, then, with the figures
 * of the slot, or else of the worst of them.
 *
 * IDENTIFICATION
 *	  src/show/series.c
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "catalog/pg_authid.h"
#include "miscadmin.h"
#include "utils/syscache.h"

#include "diagnose/past.h"
#include "foreign.h"
#include "provision/role.h"
#include "show/series.h"
#include "watch/troubles.h"

static void add_rows(const PrkReport *report, PrkKnownReplicas *known);
static void add_roles(const PrkReport *report, PrkKnownReplicas *known,
					  const PrkRoleMark *marks, int nmarks);
static void add_troubles(const List *troubles, PrkKnownReplicas *known);
static void sort_and_merge(PrkKnownReplicas *known);
static void merge(PrkSeries *into, const PrkSeries *from);
static bool may_replicate(Oid roleid);
static int	compare_series(const void *a, const void *b);

/*
 * Gathers them from a report, the comments on roles, and what unhealthy() would
 * list of the same report.  Names and series are palloc'd in the caller's
 * memory context; rows are the report's.  Scans pg_shdescription once.
 */
void
prk_series_gather(PrkReport *report, PrkKnownReplicas *known)
{
	List	   *troubles = prk_troubles_list(report, PRK_WARNING);
	PrkRoleMark *marks = NULL;
	int			nmarks = 0;

	/* On a standby, roles are its primary's, and so are their replicas. */
	if (!report->sample->in_recovery)
		marks = prk_role_marks(&nmarks);

	memset(known, 0, sizeof(PrkKnownReplicas));
	known->series = palloc0((report->nrows + nmarks + list_length(troubles)) *
							sizeof(PrkSeries) + 1);
	add_rows(report, known);
	add_roles(report, known, marks, nmarks);
	add_troubles(troubles, known);
	sort_and_merge(known);
}

/*
 * Slots and walsenders.  A base backup is no replica, and a temporary slot has
 * a process's number in its name: each would be a new series.
 */
static void
add_rows(const PrkReport *report, PrkKnownReplicas *known)
{
	for (int i = 0; i < report->nrows; i++)
	{
		const PrkReportRow *row = &report->rows[i];
		const PrkReplica *replica = row->replica;
		bool		backup = row->verdict.state == PRK_STATE_BACKUP;
		PrkSeries  *series;
		PrkForeign	name;

		if (backup)
			known->backups++;
		if (replica->temporary || (backup && !replica->has_slot))
			continue;

		/* the server has cleaned what is not a slot's name */
		prk_foreign_set_clean(&name, replica->name);
		series = &known->series[known->nseries++];
		series->name = prk_foreign_show(&name);
		series->row = row;
		series->has_health = true;
		series->health = row->verdict.level;
		series->has_alert = row->has_alert;
		series->alert = row->alert;
		series->connections = replica->has_walsender ? 1 : 0;
	}
}

/*
 * Replicas of which the role is left, and can still be of use to one.  A
 * promoted server's own former name is not an absent replica.
 */
static void
add_roles(const PrkReport *report, PrkKnownReplicas *known,
		  const PrkRoleMark *marks, int nmarks)
{
	int			nrows = known->nseries;
	PrkPast		past;

	prk_past_read(report->sample, &past);
	qsort(known->series, nrows, sizeof(PrkSeries), compare_series);
	for (int i = 0; i < nmarks; i++)
	{
		PrkSeries	series = {0};
		PrkForeign	name;

		/* roles that may comment on roles write what they like */
		prk_foreign_set(&name, marks[i].replica);
		series.name = prk_foreign_show(&name);
		if (series.name[0] == '\0' ||
			(past.promoted && prk_foreign_is(&name, past.name)) ||
			bsearch(&series, known->series, nrows, sizeof(PrkSeries),
					compare_series) != NULL ||
			!may_replicate(marks[i].roleid))
			continue;
		known->series[known->nseries++] = series;
	}
}

/* What unhealthy() lists, also of replicas that are not known yet. */
static void
add_troubles(const List *troubles, PrkKnownReplicas *known)
{
	ListCell   *cell;

	foreach(cell, troubles)
	{
		const PrkTrouble *trouble = lfirst(cell);
		PrkSeries  *series;
		PrkForeign	name;

		if (trouble->label == trouble->name)
		{
			PrkLevel   *level = strcmp(trouble->name, PRK_UPSTREAM_NAME) == 0 ?
			&known->upstream : &known->server;

			*level = Max(*level, trouble->level);
			continue;
		}
		prk_foreign_set_clean(&name, trouble->name);
		series = &known->series[known->nseries++];
		series->name = prk_foreign_show(&name);
		series->unhealthy = trouble->level;
	}
}

/* Brings them into the order of their names, and makes those of one name one. */
static void
sort_and_merge(PrkKnownReplicas *known)
{
	int			kept = 0;

	qsort(known->series, known->nseries, sizeof(PrkSeries), compare_series);
	for (int i = 0; i < known->nseries; i++)
	{
		if (kept > 0 && strcmp(known->series[kept - 1].name,
							   known->series[i].name) == 0)
			merge(&known->series[kept - 1], &known->series[i]);
		else
			known->series[kept++] = known->series[i];
	}
	known->nseries = kept;
}

/* Adds what has the same name. */
static void
merge(PrkSeries *into, const PrkSeries *from)
{
	const PrkReplica *old = into->row != NULL ? into->row->replica : NULL;
	const PrkReplica *new = from->row != NULL ? from->row->replica : NULL;

	if (new != NULL &&
		(old == NULL ||
		 (!old->has_slot &&
		  (new->has_slot ||
		   from->health > into->health ||
		   (from->health == into->health &&
			new->lag_bytes > old->lag_bytes)))))
		into->row = from->row;
	into->unhealthy = Max(into->unhealthy, from->unhealthy);
	into->has_health = into->has_health || from->has_health;
	into->health = Max(into->health, from->health);
	into->has_alert = into->has_alert || from->has_alert;
	into->alert = Max(into->alert, from->alert);
	into->connections += from->connections;
}

/* Is the role there, and may a replica connect as it? */
static bool
may_replicate(Oid roleid)
{
	HeapTuple	tuple = SearchSysCache1(AUTHOID, ObjectIdGetDatum(roleid));
	bool		result;

	if (!HeapTupleIsValid(tuple))
		return false;
	result = ((Form_pg_authid) GETSTRUCT(tuple))->rolreplication;
	ReleaseSysCache(tuple);
	return result;
}

/* qsort and bsearch comparator: by name */
static int
compare_series(const void *a, const void *b)
{
	return strcmp(((const PrkSeries *) a)->name,
				  ((const PrkSeries *) b)->name);
}
