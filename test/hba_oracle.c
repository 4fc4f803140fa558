/*-------------------------------------------------------------------------
 *
 * hba_oracle.c
 *	  The server's own tokenizer and parser as the judge of what hba.c does.
 *
 * Runs in a backend.  Each check raises an error that shows the text before
 * and after the change.
 *
 * IDENTIFICATION
 *	  test/hba_oracle.c
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "utils/guc.h"

#include "compat.h"
#include "hba/hba.h"
#include "hba_oracle.h"

#define OUR_TOKENS	"u[host]|u[replication]|u[zz_role]|u[10.9.8.7/32]|" \
	"u[scram-sha-256]|"

static bool token_matches(const AuthToken *token, const char *role);

/*
 * The server's view of a text: a list of OracleLine.  parse: also whether its
 * parser takes the line for a rule.
 */
List *
oracle_view(const char *contents, bool parse)
{
	FILE	   *context = prk_compat_open_auth_file(HbaFileName, ERROR, 0, NULL);
	List	   *tok_lines = NIL;
	List	   *result = NIL;
	ListCell   *cell;

	if (contents[0] != '\0')
	{
		FILE	   *file = fmemopen(unconstify(char *, contents),
									strlen(contents), "r");

		prk_compat_tokenize_auth_file(HbaFileName, file, &tok_lines, DEBUG3, 0);
		fclose(file);
	}
	foreach(cell, tok_lines)
	{
		TokenizedAuthLine *tok_line = (TokenizedAuthLine *) lfirst(cell);
		OracleLine *line = palloc0_object(OracleLine);
		StringInfoData buf;
		ListCell   *field;

		initStringInfo(&buf);
		foreach(field, tok_line->fields)
		{
			ListCell   *tok;

			foreach(tok, (List *) lfirst(field))
			{
				AuthToken  *token = (AuthToken *) lfirst(tok);

				appendStringInfo(&buf, "%c[%s]", token->quoted ? 'q' : 'u',
								 token->string);
			}
			appendStringInfoChar(&buf, '|');
		}
		line->number = tok_line->line_num;
		line->tokens = buf.data;
		line->raw = tok_line->raw_line;
		if (parse && tok_line->err_msg == NULL)
			line->parses = parse_hba_line(tok_line, DEBUG3) != NULL;
		result = lappend(result, line);
	}
	prk_compat_free_auth_file(context, 0);
	return result;
}

void
oracle_check(bool ok, const char *what, const char *before, const char *after)
{
	if (!ok)
		ereport(ERROR,
				(errmsg("%s", what),
				 errdetail("Before: <<%s>>\nAfter: <<%s>>", before, after)));
}

/*
 * In the server's view, has exactly our rule come in between?  And do we find
 * it again, where the server does?
 */
void
oracle_check_insert(const char *before, const char *after, const char *replica)
{
	List	   *view_before = oracle_view(before, false);
	List	   *view_after = oracle_view(after, false);
	int			line_number = 0;
	int			i = 0;
	int			found = 0;
	ListCell   *cell;
	ListCell   *other;

	oracle_check(list_length(view_after) == list_length(view_before) + 1,
				 "the number of rules is wrong", before, after);
	foreach(cell, view_after)
	{
		OracleLine *line = (OracleLine *) lfirst(cell);
		OracleLine *same = i < list_length(view_before) ?
		(OracleLine *) list_nth(view_before, i) : NULL;

		if (same != NULL && strcmp(line->tokens, same->tokens) == 0)
		{
			i++;
			continue;
		}
		oracle_check(line_number == 0 && strcmp(line->tokens, OUR_TOKENS) == 0,
					 "another rule has changed", before, after);
		line_number = line->number;
	}

	foreach(cell, prk_hba_managed_all(after))
	{
		PrkHbaManaged *managed = (PrkHbaManaged *) lfirst(cell);
		bool		exists = false;

		foreach(other, view_after)
			exists |= ((OracleLine *) lfirst(other))->number == managed->line_number;
		oracle_check(exists, "a managed line is none for the server", before, after);
		if (strcmp(managed->replica, replica) != 0)
			continue;
		found++;
		oracle_check(strcmp(managed->rule, OUR_RULE) == 0 &&
					 strcmp(managed->role, "zz_role") == 0 &&
					 strcmp(managed->address, "10.9.8.7/32") == 0,
					 "the managed line is misread", before, after);
	}
	oracle_check(found == 1, "the managed line is not found", before, after);
}

/*
 * Have exactly the managed lines of the replica gone, in the server's view?
 */
void
oracle_check_remove(const char *before, const char *after, const char *replica,
					int removed)
{
	List	   *rest = oracle_view(after, false);
	List	   *managed = prk_hba_managed_all(before);
	int			nrest = 0;
	int			gone = 0;
	ListCell   *cell;
	ListCell   *other;

	foreach(cell, oracle_view(before, false))
	{
		OracleLine *line = (OracleLine *) lfirst(cell);
		bool		ours = false;

		foreach(other, managed)
		{
			PrkHbaManaged *m = (PrkHbaManaged *) lfirst(other);

			ours |= m->line_number == line->number &&
				strcmp(m->replica, replica) == 0;
		}
		if (ours)
			gone++;
		else
		{
			oracle_check(nrest < list_length(rest) &&
						 strcmp(line->tokens,
								((OracleLine *) list_nth(rest, nrest))->tokens) == 0,
						 "removing has changed another rule", before, after);
			nrest++;
		}
	}
	oracle_check(nrest == list_length(rest), "removing has made a rule",
				 before, after);
	oracle_check(gone == removed, "the number of removed lines is wrong",
				 before, after);
}

/* Does the token of a parsed rule stand for this role? */
static bool
token_matches(const AuthToken *token, const char *role)
{
	regex_t    *regex = prk_compat_auth_token_regex(token);
	size_t		len = strlen(role);
	pg_wchar   *chars = palloc_array(pg_wchar, len + 1);

	if (regex == NULL)
		return strcmp(token->string, role) == 0;
	return pg_regexec(regex, chars, pg_mb2wchar_with_len(role, chars, len), 0,
					  NULL, 0, NULL, 0) == REG_OKAY;
}

/*
 * The rule for a role, after the server's parser has confirmed that it means
 * this role and none that differs a little.
 */
char *
oracle_check_rule(const char *role)
{
	char	   *rule = prk_hba_rule(NULL, role, "10.9.8.7/32", false);
	char	   *contents = prk_hba_insert("", rule, "zz", 0);
	FILE	   *context = prk_compat_open_auth_file(HbaFileName, ERROR, 0, NULL);
	FILE	   *file = fmemopen(contents, strlen(contents), "r");
	List	   *tok_lines = NIL;
	HbaLine    *line;
	AuthToken  *token;
	PrkHbaManaged *managed;

	prk_compat_tokenize_auth_file(HbaFileName, file, &tok_lines, DEBUG3, 0);
	fclose(file);
	oracle_check(list_length(tok_lines) == 1, "not one line", role, contents);
	line = parse_hba_line((TokenizedAuthLine *) linitial(tok_lines), DEBUG3);
	oracle_check(line != NULL && list_length(line->roles) == 1,
				 "the rule is not understood", role, contents);
	token = (AuthToken *) linitial(line->roles);
	oracle_check(token_matches(token, role), "the rule is for another role",
				 role, contents);
	oracle_check(token->quoted ||
				 (strcmp(role, "all") != 0 && strchr("+@", role[0]) == NULL),
				 "the role is taken for a keyword", role, contents);
	oracle_check(!token_matches(token, psprintf("%sx", role)) &&
				 !token_matches(token, psprintf("x%s", role)),
				 "the rule is for other roles, too", role, contents);
	for (size_t i = 0; role[i] != '\0'; i++)
	{
		char	   *other = pstrdup(role);

		other[i] = other[i] == 'z' ? 'y' : 'z';
		oracle_check(!token_matches(token, other), "the rule is for other roles, too",
					 other, contents);
	}
	prk_compat_free_auth_file(context, 0);

	managed = (PrkHbaManaged *) linitial(prk_hba_managed(contents));
	oracle_check(managed->role != NULL && strcmp(managed->role, role) == 0,
				 "the role is not read back", role, contents);
	return rule;
}
