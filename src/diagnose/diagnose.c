/*-------------------------------------------------------------------------
 *
 * diagnose.c
 *	  From evidence to root causes.  Pure functions.
 *
 * One cause gives one diagnosis: a replica that the slot's limit has cut off
 * is "slot_lost", not also down, refused and behind.  So for each replica the
 * rules are asked in the order in which one cause explains the next, and the
 * first that finds something ends the search.  Causes of the server itself
 * are looked for apart.
 *
 * A failure to connect is evidence only while it is recent, and only of what
 * has not connected since.
 *
 * Rules give codes with parameters; words.c puts them into words.
 *
 * IDENTIFICATION
 *	  src/diagnose/diagnose.c
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "diagnose/diagnose.h"
#include "diagnose/diagnose_attempts.h"
#include "diagnose/diagnose_replicas.h"
#include "diagnose/diagnose_server.h"
#include "diagnose/diagnose_standby.h"

static int	compare_diagnoses(const ListCell *a, const ListCell *b);

/*
 * PrkDiagnoses, the worst first, then those of the server itself, of its
 * upstream, of replicas by name; palloc'd in the caller's memory context.  NIL: nothing is wrong.
 */
List *
prk_diagnose(const PrkEvidence *evidence)
{
	PrkFindings findings = {evidence, NIL};

	prk_diagnose_server(&findings);
	prk_diagnose_replicas(&findings);
	prk_diagnose_attempts(&findings);
	prk_diagnose_leftovers(&findings);
	if (evidence->upstream.in_recovery)
		prk_diagnose_standby(&findings);
	list_sort(findings.diagnoses, compare_diagnoses);
	return findings.diagnoses;
}

static int
compare_diagnoses(const ListCell *a, const ListCell *b)
{
	const PrkDiagnosis *diagnosis1 = lfirst(a);
	const PrkDiagnosis *diagnosis2 = lfirst(b);

	if (diagnosis1->gravity != diagnosis2->gravity)
		return diagnosis1->gravity > diagnosis2->gravity ? -1 : 1;
	if (diagnosis1->subject != diagnosis2->subject)
		return diagnosis1->subject < diagnosis2->subject ? -1 : 1;
	return diagnosis1->subject == PRK_SUBJECT_REPLICA ?
		strcmp(diagnosis1->name, diagnosis2->name) : 0;
}
