/*-------------------------------------------------------------------------
 *
 * preflight.c
 *	  Is this server ready to feed further replicas?
 *
 * And would it survive its next restart?  preflight_facts.c gathers what is
 * to be known, preflight_checks.c has the table of checks.
 *
 * IDENTIFICATION
 *	  src/diagnose/preflight.c
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "lib/stringinfo.h"

#include "diagnose/preflight.h"
#include "diagnose/preflight_checks.h"

static void add_reload(PrkPreflight *preflight);
static void add_restart(PrkPreflight *preflight);

/*
 * The rows, of PrkPreflightRow, in the order in which fixes are to be
 * applied.  Pure but for the settings in force.
 */
List *
prk_preflight(const PrkPreflightFacts *facts, int replicas)
{
	PrkPreflight preflight = {0};

	preflight.facts = facts;
	preflight.replicas = replicas;
	for (int i = 0; i < prk_nchecks; i++)
	{
		preflight.check = &prk_checks[i];
		prk_checks[i].run(&preflight);
	}

	if (preflight.withheld)
	{
		PrkPreflightRow *row = prk_preflight_add(&preflight, "allow_alter_system",
												 "info");

		row->current = "off: ALTER SYSTEM is refused, so what is wanted above has no fix";
		row->wanted = "the lines above, in the configuration that whoever manages this server writes";
	}
	add_reload(&preflight);
	add_restart(&preflight);
	return preflight.rows;
}

/* The last fix puts the others in force. */
static void
add_reload(PrkPreflight *preflight)
{
	bool		has_fix = false;
	PrkPreflightRow *row;
	ListCell   *cell;

	foreach(cell, preflight->rows)
		has_fix = has_fix || ((PrkPreflightRow *) lfirst(cell))->fix != NULL;
	if (!has_fix)
		return;
	row = prk_preflight_add(preflight, "reload", "info");
	row->current = "the fixes above are not in force";
	row->wanted = "reloaded";
	row->fix = "SELECT pg_reload_conf()";
}

/*
 * The command for what takes a restart.  What such a restart would refuse,
 * and no fix mends, comes first.
 */
static void
add_restart(PrkPreflight *preflight)
{
	StringInfoData names;
	bool		refused = false;
	PrkPreflightRow *row;
	ListCell   *cell;

	initStringInfo(&names);
	foreach(cell, preflight->rows)
	{
		row = lfirst(cell);
		if (row->needs_restart)
			appendStringInfo(&names, "%s%s", names.len > 0 ? ", " : "",
							 row->check_name);
		if (row->fix == NULL && (strcmp(row->check_name, "pg_hba") == 0 ||
								 strcmp(row->check_name,
										"restart_would_fail") == 0))
			refused = true;
	}
	if (names.len == 0)
		return;
	row = prk_preflight_add(preflight, "restart", "info");
	row->current = psprintf("to be restarted for: %s", names.data);
	row->wanted = refused ?
		psprintf("first what the rows above say that a restart would refuse; then: %s",
				 preflight->facts->restart_command) :
		preflight->facts->restart_command;
	row->needs_restart = true;
}
