/*-------------------------------------------------------------------------
 *
 * owners.c
 *	  Whose replicas are, and what is left of those that are gone.
 *
 * Rows of the report, comments on roles and lines of pg_hba.conf are joined
 * by the replica's name.  Each is read once and sorted, so that the work is
 * in proportion to what there is, and not to rows times roles or lines.
 *
 * IDENTIFICATION
 *	  src/diagnose/owners.c
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "catalog/pg_authid.h"
#include "miscadmin.h"
#include "utils/acl.h"
#include "utils/syscache.h"

#include "diagnose/owners.h"
#include "hba/hba.h"
#include "provision/role.h"

/* Managed lines by replica; those of one are in the file's order. */
typedef struct Lines
{
	int			nlines;
	const PrkHbaManaged **lines;
} Lines;

/* What is joined. */
typedef struct Sources
{
	int			nmarks;
	PrkRoleMark *marks;			/* by replica */
	Lines		lines;
	int			nrows;
	const char **rows;			/* names of the report's rows, sorted */
} Sources;

static void read_sources(Sources *sources, const PrkReport *report,
						 List *managed);
static int	find_line(const Lines *lines, const char *replica);
static int	compare_lines(const void *a, const void *b);
static bool is_row(const Sources *sources, const char *name);
static int	compare_names(const void *a, const void *b);
static void gather_owner(const Sources *sources, const char *name,
						 PrkOwner *owner);
static List *gather_leftovers(const Sources *sources);
static const char *carrier(const PrkRoleMark *mark);
static List *add_leftover(List *leftovers, const Lines *lines,
						  const char *name, const char *role_name);

/*
 * The owners, one for each row of the report; sets the leftovers, a list of
 * PrkLeftover.  managed is a list of PrkHbaManaged.  All is palloc'd in the
 * caller's memory context, but names that are pointers into report or managed.
 * Scans pg_shdescription once; roles come from the system cache.
 *
 * On a standby nothing is left over: its pg_hba.conf was cloned, and roles
 * are its primary's.
 */
PrkOwner *
prk_owners_gather(const PrkReport *report, List *managed, List **leftovers)
{
	PrkOwner   *owners;
	Sources		sources;

	read_sources(&sources, report, managed);
	owners = palloc0(Max(report->nrows, 1) * sizeof(PrkOwner));
	for (int i = 0; i < report->nrows; i++)
	{
		const PrkReplica *replica = report->rows[i].replica;

		CHECK_FOR_INTERRUPTS();
		if (report->board->worker_pid != 0)
			owners[i].entry = prk_board_find(report->board, replica);
		gather_owner(&sources, replica->name, &owners[i]);
	}
	*leftovers = report->sample->in_recovery ? NIL : gather_leftovers(&sources);
	return owners;
}

/* Reads and sorts all that is joined. */
static void
read_sources(Sources *sources, const PrkReport *report, List *managed)
{
	Lines	   *lines = &sources->lines;
	ListCell   *cell;

	sources->marks = prk_role_marks(&sources->nmarks);

	lines->nlines = 0;
	lines->lines = palloc(Max(list_length(managed), 1) *
						  sizeof(PrkHbaManaged *));
	foreach(cell, managed)
		lines->lines[lines->nlines++] = lfirst(cell);
	qsort(lines->lines, lines->nlines, sizeof(PrkHbaManaged *),
		  compare_lines);

	sources->nrows = report->nrows;
	sources->rows = palloc(Max(report->nrows, 1) * sizeof(char *));
	for (int i = 0; i < report->nrows; i++)
		sources->rows[i] = report->rows[i].replica->name;
	qsort(sources->rows, sources->nrows, sizeof(char *), compare_names);
}

/* The place of the first line of this replica, or where it would be. */
static int
find_line(const Lines *lines, const char *replica)
{
	int			low = 0;
	int			high = lines->nlines;

	while (low < high)
	{
		int			middle = low + (high - low) / 2;

		if (strcmp(lines->lines[middle]->replica, replica) < 0)
			low = middle + 1;
		else
			high = middle;
	}
	return low;
}

/* qsort comparator: by replica, then by place in the file */
static int
compare_lines(const void *a, const void *b)
{
	const PrkHbaManaged *line1 = *(const PrkHbaManaged *const *) a;
	const PrkHbaManaged *line2 = *(const PrkHbaManaged *const *) b;
	int			order = strcmp(line1->replica, line2->replica);

	return order != 0 ? order : line1->line_number - line2->line_number;
}

/* Does a row of the report have this name? */
static bool
is_row(const Sources *sources, const char *name)
{
	return bsearch(&name, sources->rows, sources->nrows, sizeof(char *),
				   compare_names) != NULL;
}

/* qsort and bsearch comparator */
static int
compare_names(const void *a, const void *b)
{
	return strcmp(*(const char *const *) a, *(const char *const *) b);
}

/* Whose is the replica of this name? */
static void
gather_owner(const Sources *sources, const char *name, PrkOwner *owner)
{
	const PrkRoleMark *end = sources->marks + sources->nmarks;
	const Lines *lines = &sources->lines;

	for (const PrkRoleMark *mark = prk_role_marks_of(sources->marks,
													 sources->nmarks, name);
		 mark != NULL && mark < end && owner->role_name == NULL &&
		 strcmp(mark->replica, name) == 0;
		 mark++)
		owner->role_name = GetUserNameFromId(mark->roleid, true);

	for (int i = find_line(lines, name); i < lines->nlines; i++)
	{
		const PrkHbaManaged *line = lines->lines[i];

		if (strcmp(line->replica, name) != 0)
			break;
		owner->has_line = true;
		if (owner->role_name == NULL)
			owner->role_name = line->role;
		if (owner->address == NULL)
			owner->address = line->address;
	}
	owner->role_exists = owner->role_name != NULL &&
		OidIsValid(get_role_oid(owner->role_name, true));
}

/*
 * Roles and lines of replicas that have no slot here and are not connected
 * either.
 */
static List *
gather_leftovers(const Sources *sources)
{
	List	   *result = NIL;
	const Lines *lines = &sources->lines;

	for (int i = 0; i < sources->nmarks; i++)
	{
		const PrkRoleMark *mark = &sources->marks[i];

		const char *role_name;

		CHECK_FOR_INTERRUPTS();
		if (is_row(sources, mark->replica))
			continue;
		role_name = carrier(mark);
		if (role_name != NULL)
			result = add_leftover(result, lines, mark->replica,
								  role_name);
	}

	for (int i = 0; i < lines->nlines; i++)
	{
		const char *name = lines->lines[i]->replica;
		const PrkRoleMark *mark;
		const PrkRoleMark *end = sources->marks + sources->nmarks;
		bool		has_role = false;

		CHECK_FOR_INTERRUPTS();
		if (is_row(sources, name) ||
			(i > 0 && strcmp(lines->lines[i - 1]->replica, name) == 0))
			continue;
		for (mark = prk_role_marks_of(sources->marks, sources->nmarks, name);
			 mark != NULL && mark < end && !has_role &&
			 strcmp(mark->replica, name) == 0;
			 mark++)
			has_role = carrier(mark) != NULL;
		if (!has_role)
			result = add_leftover(result, lines, name, NULL);
	}
	return result;
}

/* The role of a mark, palloc'd; NULL if it is gone, or of no use to a replica. */
static const char *
carrier(const PrkRoleMark *mark)
{
	const char *result = NULL;
	HeapTuple	tuple = SearchSysCache1(AUTHOID,
										ObjectIdGetDatum(mark->roleid));
	Form_pg_authid form;

	if (!HeapTupleIsValid(tuple))
		return NULL;
	form = (Form_pg_authid) GETSTRUCT(tuple);
	if (form->rolreplication)
		result = pstrdup(NameStr(form->rolname));
	ReleaseSysCache(tuple);
	return result;
}

/* Adds what is left of a replica that has no row. */
static List *
add_leftover(List *leftovers, const Lines *lines, const char *name,
			 const char *role_name)
{
	PrkLeftover *leftover = palloc0(sizeof(PrkLeftover));

	leftover->name = name;
	leftover->role_name = role_name;
	for (int i = find_line(lines, name);
		 role_name != NULL && leftover->address == NULL &&
		 i < lines->nlines && strcmp(lines->lines[i]->replica, name) == 0;
		 i++)
	{
		const PrkHbaManaged *line = lines->lines[i];

		if (line->role == NULL || strcmp(line->role, role_name) != 0)
			continue;
		leftover->address = line->address;
		leftover->line_number = line->line_number;
	}
	return lappend(leftovers, leftover);
}
