/*-------------------------------------------------------------------------
 *
 * hba_edit.c
 *	  Change pg_hba.conf and prove that the server uses what was written.
 *
 * Puts together what is known apart: the text (hba.c), what the server makes
 * of it (hba_rules.c), the exchange of the file (hba_file.c) and the reload
 * (reload.c).  A change is refused before the file is touched when the server
 * would not load the result, or when another rule would win over ours.
 *
 * All but the two functions that plan expect the kit's cluster-wide lock.
 *
 * IDENTIFICATION
 *	  src/hba/hba_edit.c
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include <unistd.h>

#include "libpq/hba.h"
#include "miscadmin.h"
#include "utils/guc.h"

#include "hba/hba.h"
#include "hba/hba_beside.h"
#include "hba/hba_edit.h"
#include "hba/hba_file.h"
#include "hba/hba_rules.h"
#include "hba/reload.h"

/* How often an edit by somebody else, at the same time, is waited out. */
#define EXCHANGE_TRIES		20

/* How long to wait for who has the old file open, and how often to look. */
#define WRITER_TIMEOUT_MS	5000
#define WRITER_POLL_MS		10

/* How long the server may take to reload; it takes milliseconds. */
#define RELOAD_TIMEOUT_MS	30000

/*
 * The same while aborting, where nothing depends on it; and where the server
 * has not answered before.
 */
#define UNDO_RELOAD_TIMEOUT_MS	5000
#define SILENT_RELOAD_TIMEOUT_MS	200

struct PrkHbaEdit
{
	PrkHbaFile *file;
	bool		exchanged;		/* or perhaps: an error came with it */
	const char *unproved;		/* why the reload is not proved; NULL: it is */
};

/* Where a line has to go to win, and over what. */
typedef struct Place
{
	int			before_line;	/* 0: at the end */
	bool		present;		/* it is there already */
	PrkHbaMatch blocker;		/* the rule it goes before */
	PrkHbaMatch *partly_rejected_by;	/* a rule that stays before it */
} Place;

static void find_place(List *rules, const char *text,
					   const PrkHbaAddition *addition, Place *place);
static List *matches_of(List *rules, const PrkHbaAddition *addition, bool ssl);
static bool wins_anyway(const PrkHbaMatch *match, const char *method);
static void first_match(List *rules, const PrkHbaAddition *addition,
						int variant, PrkHbaMatch *match);
static int	count_variants(const PrkHbaAddition *addition);
static bool is_present(const char *text, const PrkHbaAddition *addition);
static void prove_wins(List *rules, const PrkHbaAddition *addition);
static char *remove_lines(const char *text, const PrkHbaRemoval *removal,
						  List **audit);
static void await_writers(const PrkHbaFile *file);
static void check_interrupts(void);
static void reload(PrkHbaEdit *edit, bool must_prove);
static char *edit_text(PrkHbaFile *file, List *additions, List *removals,
					   List **audit);
static List *load_candidate(PrkHbaFile *file, const char *text);

/*
 * Say what adding the line will take, without doing anything: an error where
 * it can't be added, a NOTICE where it has to go before another rule.
 */
void
prk_hba_edit_plan(const PrkHbaAddition *addition)
{
	PrkHbaFile *file = prk_hba_file_read(CurrentMemoryContext);
	List	   *rules = prk_hba_rules_load(prk_hba_file_path(file));
	const char *owner = prk_hba_owner(prk_hba_file_text(file));
	Place		place;

	find_place(rules, prk_hba_file_text(file), addition, &place);
	if (place.present)
		return;

	if (place.before_line > 0)
		ereport(NOTICE,
				(errmsg("rule for replica \"%s\" goes before line %d of \"%s\"",
						addition->replica, place.before_line, HbaFileName),
				 errdetail("Line %d of \"%s\", of method \"%s\", would win over it.",
						   place.blocker.line_number, place.blocker.file_name,
						   place.blocker.auth_method)));
	if (place.partly_rejected_by != NULL)
		ereport(WARNING,
				(errmsg("line %d of \"%s\" rejects some of the addresses of replica \"%s\"",
						place.partly_rejected_by->line_number,
						place.partly_rejected_by->file_name,
						addition->replica),
				 errdetail("It stays first; the rule lets in the others.")));
	if (owner != NULL)
		ereport(WARNING,
				(errmsg("\"%s\" seems to be managed by %s", HbaFileName, owner),
				 errdetail("It may overwrite the rule: %s", addition->rule),
				 errhint("Add the rule to the template that it is made from.")));
}

/*
 * Say whether the rules as they are let the replica in, for somebody who adds
 * the line himself.
 */
void
prk_hba_edit_advise(const PrkHbaAddition *addition)
{
	List	   *rules = prk_hba_rules_load(HbaFileName);
	int			nvariants = count_variants(addition);

	for (int i = 0; i < nvariants; i++)
	{
		PrkHbaMatch match;

		first_match(rules, addition, i, &match);
		if (wins_anyway(&match, "scram-sha-256") ||
			wins_anyway(&match, "md5"))
			continue;
		if (wins_anyway(&match, "trust"))
			ereport(WARNING,
					(errmsg("line %d of \"%s\" lets replica \"%s\" in without a password",
							match.line_number, match.file_name,
							addition->replica)));
		else if (match.verdict == PRK_HBA_NO_MATCH)
			ereport(NOTICE,
					(errmsg("pg_hba.conf does not let replica \"%s\" in yet",
							addition->replica),
					 errhint("Add this line and reload: %s", addition->rule)));
		else
			ereport(NOTICE,
					(errmsg("line %d of \"%s\" decides on replica \"%s\", with method \"%s\"",
							match.line_number, match.file_name,
							addition->replica, match.auth_method),
					 errhint("Add this line before it and reload: %s",
							 addition->rule)));
		break;
	}
}

/*
 * Has the file the line now?
 */
bool
prk_hba_edit_has(const PrkHbaAddition *addition)
{
	PrkHbaFile *file = prk_hba_file_read(CurrentMemoryContext);

	return is_present(prk_hba_file_text(file), addition);
}

/*
 * How many managed lines the replica has in the file now; of one address, or
 * all (NULL).
 */
int
prk_hba_edit_count(const char *replica, const char *address)
{
	PrkHbaFile *file = prk_hba_file_read(CurrentMemoryContext);
	int			n;

	(void) prk_hba_remove(prk_hba_file_text(file), replica, address, false, &n);
	return n;
}

/*
 * The replica's managed lines in the file now, a list of PrkHbaManaged, those
 * for pg_rewind among them.
 */
List *
prk_hba_edit_managed(const char *replica)
{
	PrkHbaFile *file = prk_hba_file_read(CurrentMemoryContext);
	List	   *result = prk_hba_managed_all(prk_hba_file_text(file));
	ListCell   *lc;

	foreach(lc, result)
	{
		if (strcmp(((PrkHbaManaged *) lfirst(lc))->replica, replica) != 0)
			result = foreach_delete_current(result, lc);
	}
	return result;
}

/*
 * The role in the replica's first managed line, palloc'd; NULL without one.
 */
char *
prk_hba_edit_role(const char *replica)
{
	PrkHbaFile *file = prk_hba_file_read(CurrentMemoryContext);
	ListCell   *lc;

	foreach(lc, prk_hba_managed(prk_hba_file_text(file)))
	{
		PrkHbaManaged *line = lfirst(lc);

		if (strcmp(line->replica, replica) == 0 && line->role != NULL)
			return line->role;
	}
	return NULL;
}

/*
 * Remove what a crash left beside the file, or only look.  True if there is
 * anything.  Raises no error: whoever writes there next does the same and says
 * why it can't be done.
 */
bool
prk_hba_edit_tidy(bool look)
{
	static const char *const suffixes[] = {PRK_HBA_FILE_NEW, PRK_HBA_FILE_OLD};
	char	   *resolved = realpath(HbaFileName, NULL);
	bool		found = false;

	for (size_t i = 0; resolved != NULL && i < lengthof(suffixes); i++)
	{
		char	   *path = prk_hba_beside(resolved, suffixes[i]);

		if ((look ? access(path, F_OK) : unlink(path)) == 0)
			found = true;
	}
	free(resolved);
	return found;
}

/*
 * Bring the additions (PrkHbaAddition) and removals (PrkHbaRemoval) about and
 * wait until the server uses them.  *edit is set as soon as there is something
 * to undo, also when an error follows; it stays NULL when the file is as it
 * should be.  Lines for the audit are appended to *audit.
 *
 * What another program does to the file at the same time counts: then all is
 * done once more, with theirs.
 *
 * Unless must_prove is set, a change that the server is not known to have
 * loaded stays, and prk_hba_edit_unproved() tells why.
 *
 * Reads catalogs for the additions, none for removals alone, so that these
 * can be made after a commit.  There, where interrupts are held, a request to
 * cancel or to end ends each wait, with an error.  The result lives in the
 * current context.
 */
void
prk_hba_edit_apply(PrkHbaEdit **edit, List *additions, List *removals,
				   bool must_prove, List **audit)
{
	for (int try = 0; try < EXCHANGE_TRIES; try++)
	{
		List	   *lines = NIL;
		PrkHbaFile *file;
		char	   *contents;
		List	   *rules;
		ListCell   *lc;

		if (try == 0)
			CHECK_FOR_INTERRUPTS();
		else
			check_interrupts();

		file = prk_hba_file_read(CurrentMemoryContext);
		*edit = palloc0(sizeof(PrkHbaEdit));
		(*edit)->file = file;

		contents = edit_text(file, additions, removals, &lines);
		if (contents == NULL)
		{
			if (try > 0)
				reload(*edit, must_prove);
			if ((*edit)->unproved == NULL)
				*edit = NULL;
			return;
		}

		rules = load_candidate(file, contents);
		foreach(lc, additions)
			prove_wins(rules, lfirst(lc));

		(*edit)->exchanged = true;
		(*edit)->exchanged = prk_hba_file_exchange(file);
		if ((*edit)->exchanged)
		{
			reload(*edit, must_prove);
			await_writers(file);
			if (prk_hba_file_in_place(file) &&
				prk_hba_file_old_untouched(file))
			{
				*audit = list_concat(*audit, lines);
				return;
			}
		}

		(void) prk_hba_file_undo(file);
		if (prk_hba_file_in_place(file) || prk_hba_file_saved(file) != NULL)
			break;
	}

	ereport(ERROR,
			(errcode(ERRCODE_OBJECT_IN_USE),
			 errmsg("file \"%s\" is repeatedly changed by another program",
					HbaFileName),
			 prk_hba_file_saved((*edit)->file) ?
			 errdetail("One of the versions is kept in file \"%s\".",
					   prk_hba_file_saved((*edit)->file)) : 0,
			 errhint("Try again.")));
}

/*
 * Wait for who had the old file open when it was exchanged: what they write
 * is an edit like any other.
 */
static void
await_writers(const PrkHbaFile *file)
{
	for (int waited = 0; prk_hba_file_old_awaits(file); waited += WRITER_POLL_MS)
	{
		check_interrupts();
		if (waited >= WRITER_TIMEOUT_MS)
			ereport(ERROR,
					(errcode(ERRCODE_OBJECT_IN_USE),
					 errmsg("file \"%s\" is open in another program, which may write to it",
							HbaFileName),
					 errhint("Try again when that has closed it.")));
		pg_usleep(WRITER_POLL_MS * 1000);
	}
}

/*
 * CHECK_FOR_INTERRUPTS() that raises an error also where interrupts are held:
 * who calls there catches it.
 */
static void
check_interrupts(void)
{
	CHECK_FOR_INTERRUPTS();
	if (prk_reload_interrupted())
		ereport(ERROR,
				(errcode(ERRCODE_QUERY_CANCELED),
				 errmsg("canceled by request")));
}

/*
 * Have the server reload.  Where it is not known to have done it, raise an
 * error, or keep why.
 */
static void
reload(PrkHbaEdit *edit, bool must_prove)
{
	const char *problem = NULL;
	bool		proved;

	/* until there is an answer: the wait for it may end with an error */
	edit->unproved = "The server has not answered.";
	proved = prk_reload(RELOAD_TIMEOUT_MS, &problem);
	edit->unproved = proved ? NULL : problem;
	if (must_prove && !proved)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("could not verify that the server has reloaded pg_hba.conf"),
				 errdetail("%s", problem)));
}

/*
 * Put the file back and have the server reload it.  False when the file could
 * not be put back.
 */
bool
prk_hba_edit_undo(PrkHbaEdit *edit)
{
	int			timeout_ms = edit->unproved == NULL ?
	UNDO_RELOAD_TIMEOUT_MS : SILENT_RELOAD_TIMEOUT_MS;
	const char *problem;
	bool		ok = prk_hba_file_undo(edit->file);

	edit->unproved = NULL;
	if (edit->exchanged && !prk_reload(timeout_ms, &problem))
		edit->unproved = problem;

	return ok;
}

/*
 * Why the server is not known to use the file as apply or undo left it, to be
 * translated; NULL when it is known.
 */
const char *
prk_hba_edit_unproved(const PrkHbaEdit *edit)
{
	return edit->unproved;
}

/*
 * Remove what undo would have needed.  False when that failed.
 */
bool
prk_hba_edit_finish(PrkHbaEdit *edit)
{
	return prk_hba_file_finish(edit->file);
}

/*
 * After one of the two: where an edit of the old file by somebody else is kept,
 * or NULL.
 */
const char *
prk_hba_edit_saved(const PrkHbaEdit *edit)
{
	return prk_hba_file_saved(edit->file);
}

/*
 * The text with all changes made, palloc'd, or NULL where it needs none.
 *
 * A line's place depends on the rules that are there, so after each line the
 * text is written beside the file for the server's parser to read.
 */
static char *
edit_text(PrkHbaFile *file, List *additions, List *removals, List **audit)
{
	char	   *contents = unconstify(char *, prk_hba_file_text(file));
	bool		changed = false;
	ListCell   *lc;

	foreach(lc, removals)
	{
		char	   *rest = remove_lines(contents, lfirst(lc), audit);

		if (rest != NULL)
		{
			contents = rest;
			changed = true;
		}
	}

	foreach(lc, additions)
	{
		PrkHbaAddition *addition = lfirst(lc);
		List	   *rules;
		Place		place;

		prk_hba_file_set_rule(file, addition->rule);
		rules = changed ? load_candidate(file, contents) :
			prk_hba_rules_load(prk_hba_file_path(file));
		find_place(rules, contents, addition, &place);
		addition->added |= !place.present;
		if (place.present)
			continue;

		contents = prk_hba_insert(contents, addition->rule, addition->replica,
								  place.before_line);
		changed = true;
		*audit = lappend(*audit, psprintf("added pg_hba.conf rule: %s",
										  addition->rule));
	}

	return changed ? contents : NULL;
}

/*
 * Write the text beside the file, in place of one written before, and have the
 * server's parser read it.
 */
static List *
load_candidate(PrkHbaFile *file, const char *text)
{
	List	   *rules;

	(void) prk_hba_file_undo(file);
	prk_hba_file_prepare(file, text);

	rules = prk_hba_rules_load_if_open(prk_hba_file_candidate(file));
	if (rules == NIL)
		prk_hba_file_refuse(file, "open",
							prk_hba_file_candidate(file));
	return rules;
}

/*
 * The text without the lines, NULL where there are none.
 */
static char *
remove_lines(const char *text, const PrkHbaRemoval *removal, List **audit)
{
	List	   *before = prk_hba_managed_all(text);
	int			removed;
	char	   *rest = prk_hba_remove(text, removal->replica, removal->address,
									  removal->rewind, &removed);
	ListCell   *lc;

	if (removed == 0)
		return NULL;

	foreach(lc, before)
	{
		PrkHbaManaged *line = lfirst(lc);

		if (strcmp(line->replica, removal->replica) == 0 &&
			(line->rewind || !removal->rewind) &&
			(removal->address == NULL ||
			 (line->address != NULL &&
			  strcmp(line->address, removal->address) == 0)))
			*audit = lappend(*audit, psprintf("removed pg_hba.conf rule: %s",
											  line->rule));
	}
	return rest;
}

/*
 * Where the line has to go so that no other rule wins over it.
 */
static void
find_place(List *rules, const char *text, const PrkHbaAddition *addition,
		   Place *place)
{
	List	   *rejects = NIL;
	ListCell   *lc;

	memset(place, 0, sizeof(*place));
	if (is_present(text, addition))
	{
		place->present = true;
		return;
	}

	for (int ssl = addition->require_ssl; ssl < 2; ssl++)
	{
		foreach(lc, matches_of(rules, addition, ssl))
		{
			PrkHbaMatch *match = lfirst(lc);

			if (strcmp(match->auth_method, "reject") == 0)
				rejects = lappend(rejects, match);
			else if (!wins_anyway(match, "scram-sha-256") &&
					 (place->before_line == 0 ||
					  match->main_line < place->before_line))
			{
				place->before_line = match->main_line;
				place->blocker = *match;
			}
		}
	}

	/* A reject rule for part of the network keeps its precedence. */
	foreach(lc, rejects)
	{
		PrkHbaMatch *match = lfirst(lc);

		if (match->partly && (place->before_line == 0 ||
							  match->main_line < place->before_line))
		{
			place->partly_rejected_by = match;
			continue;
		}

		/* A host name is looked up at each connection, by the server only. */
		if (match->verdict == PRK_HBA_UNDECIDABLE)
			ereport(ERROR,
					(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
					 errmsg("pg_hba.conf may reject replication connections of role \"%s\" from that address",
							addition->role),
					 errdetail("Line %d of \"%s\" comes first; only when a connection arrives can the server tell whether it applies.",
							   match->line_number, match->file_name),
					 errhint("Change that rule, or add this line before it yourself: %s",
							 addition->rule)));
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("pg_hba.conf rejects replication connections of role \"%s\" from that address",
						addition->role),
				 errdetail("Line %d of \"%s\" comes first and rejects them.",
						   match->line_number, match->file_name),
				 errhint("Change that rule, or add this line before it yourself: %s",
						 addition->rule)));
	}
}

/*
 * The rules that decide on connections that a line is for (PrkHbaMatch).
 */
static List *
matches_of(List *rules, const PrkHbaAddition *addition, bool ssl)
{
	PrkHbaQuery query = {
		.role = addition->role,
		.database = addition->database ? addition->database : "replication",
		.ssl = ssl,
		.addr = addition->first
	};

	return prk_hba_rules_match_network(rules, &query, &addition->last);
}

/*
 * Would the rule that wins ask for this method anyway?
 */
static bool
wins_anyway(const PrkHbaMatch *match, const char *method)
{
	return match->verdict == PRK_HBA_ALLOW &&
		strcmp(match->auth_method, method) == 0;
}

/*
 * The connections that a line is for, as far as rules can tell them apart: its
 * lowest and highest address, with TLS and, unless it asks for TLS, without.
 */
static int
count_variants(const PrkHbaAddition *addition)
{
	return addition->require_ssl ? 2 : 4;
}

/*
 * Which rule decides for one of four connections: with TLS or without, from the
 * first address or from the last?
 */
static void
first_match(List *rules, const PrkHbaAddition *addition, int variant,
			PrkHbaMatch *match)
{
	PrkHbaQuery query = {
		.role = addition->role,
		.database = addition->database ? addition->database : "replication",
		.ssl = variant < 2,
		.addr = variant % 2 == 0 ? addition->first : addition->last
	};

	prk_hba_rules_match(rules, &query, match);
}

/*
 * Has the replica this very line?
 */
static bool
is_present(const char *text, const PrkHbaAddition *addition)
{
	ListCell   *lc;

	foreach(lc, prk_hba_managed_all(text))
	{
		PrkHbaManaged *line = lfirst(lc);

		if (strcmp(line->replica, addition->replica) == 0 &&
			strcmp(line->rule, addition->rule) == 0)
			return true;
	}
	return false;
}

/*
 * Raise an error unless the rules let the replica in by its password, or
 * reject it, as find_place() has allowed.
 */
static void
prove_wins(List *rules, const PrkHbaAddition *addition)
{
	for (int ssl = addition->require_ssl; ssl < 2; ssl++)
	{
		PrkHbaMatch *match = NULL;
		ListCell   *lc;

		foreach(lc, matches_of(rules, addition, ssl))
		{
			match = lfirst(lc);
			if (!wins_anyway(match, "scram-sha-256") &&
				!(match->partly && match->verdict == PRK_HBA_REJECT))
				ereport(ERROR,
						(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
						 errmsg("another rule of pg_hba.conf would win over the one for replica \"%s\"",
								addition->replica),
						 errdetail("It is line %d of \"%s\".",
								   match->line_number, match->file_name)));
		}
		if (match == NULL || match->partly)
			elog(ERROR, "rule of replica \"%s\" is not in pg_hba.conf",
				 addition->replica);
	}
}
