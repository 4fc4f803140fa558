/*-------------------------------------------------------------------------
 *
 * subjects.c
 *	  The names that can be asked for: replicas, the server, its upstream.
 *
 * IDENTIFICATION
 *	  src/diagnose/subjects.c
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "diagnose/subjects.h"
#include "diagnose/words.h"

static bool is_known(const PrkEvidence *evidence, List *diagnoses,
					 const char *name);

/*
 * Raises an error if there is nothing of that name, in the evidence or in
 * what was found from it.  Reads catalogs.
 */
void
prk_subject_require(const PrkEvidence *evidence, List *diagnoses,
					const char *name)
{
	if (!is_known(evidence, diagnoses, name))
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_OBJECT),
				 errmsg("replica \"%s\" does not exist", name),
				 errhint("Replicas are listed by replica_kit.status(); this server is \"%s\", what it receives from \"%s\".",
						 PRK_SERVER_NAME, PRK_UPSTREAM_NAME)));
}

/* Is there something of that name, whether something is wrong with it or not? */
static bool
is_known(const PrkEvidence *evidence, List *diagnoses, const char *name)
{
	PrkDiagnosis none = {0};
	ListCell   *cell;

	if (strcmp(name, PRK_SERVER_NAME) == 0 ||
		strcmp(name, PRK_UPSTREAM_NAME) == 0)
		return true;
	foreach(cell, diagnoses)
	{
		if (strcmp(prk_words_name(lfirst(cell)), name) == 0)
			return true;
	}
	none.subject = PRK_SUBJECT_REPLICA;
	for (int i = 0; i < evidence->report->nrows; i++)
	{
		none.name = evidence->report->rows[i].replica->name;
		if (strcmp(prk_words_name(&none), name) == 0)
			return true;
	}
	foreach(cell, evidence->managed)
	{
		none.name = ((PrkHbaManaged *) lfirst(cell))->replica;
		if (strcmp(prk_words_name(&none), name) == 0)
			return true;
	}
	return prk_role_of_replica(name) != NULL;
}
