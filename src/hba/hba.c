/*-------------------------------------------------------------------------
 *
 * hba.c
 *	  Our lines in the text of pg_hba.conf: find, insert, remove.
 *
 * Everything here is pure text; hba_line.c makes a line, hba_file.c reads and
 * replaces the file, and hba_rules.c asks the server's own parser what the
 * text means.  The server offers no way to tell where in the text a rule or a
 * comment begins, so this file walks the text as libpq/hba.c does: physical
 * lines are joined at a trailing backslash first (also inside comments and
 * quotes), and only then split into fields.
 *
 * Removing must give back what was there before inserting, byte for byte,
 * without any note of what that was.  Hence three conventions for a line
 * that is appended:
 *
 * - A text without a final newline still has none afterwards.  Whoever
 *   removes a last line that has no newline takes the newline before it too.
 *
 * - A text that ends in a backslash gets an empty line first, or our line
 *   would be taken for its continuation.  So that the empty line can be told
 *   from somebody else's, one is added as well where empty lines follow the
 *   backslash already, and removing a last line takes one such empty line.
 *
 * - Where a carriage return stands before that backslash, an empty line would
 *   make it vanish: the server strips line endings from the joined line.  Within
 *   quotes that changes a token, so our line goes before that one instead.
 *
 * IDENTIFICATION
 *	  src/hba/hba.c
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "lib/stringinfo.h"

#include "compat.h"
#include "hba/hba.h"

/* Fields that are looked at: up to the method after a separate netmask. */
#define PRK_HBA_MAX_FIELDS	6

/* How many lines count as the head of the file. */
#define PRK_HBA_HEAD_LINES	50

/* One line as the server sees it: physical lines joined at backslashes. */
typedef struct PrkHbaLogical
{
	int			number;			/* of its first physical line, from 1 */
	int			nphysical;
	size_t		start;			/* byte range, line endings included */
	size_t		end;
	bool		open;			/* the text ended while a line continued */
	bool		last_empty;		/* its last physical line is empty */
	StringInfoData joined;		/* without line endings and backslashes */
} PrkHbaLogical;

/* One field of a line; only the first token of a list is kept. */
typedef struct PrkHbaField
{
	char	   *token;			/* without quotes */
	bool		quoted;			/* a quote stood before its first character */
	int			ntokens;
	const char *end;			/* behind the field, in the line */
} PrkHbaField;

static char *role_from_field(const PrkHbaField *field);
static void logical_init(PrkHbaLogical *line);
static bool logical_next(const char *contents, PrkHbaLogical *line);
static int	split_fields(const char *line, PrkHbaField *fields,
						 const char **comment);
static bool next_token(const char **pos, StringInfo token, bool *quoted,
					   bool *comma, const char **comment);
static PrkHbaManaged *managed_from_line(const PrkHbaLogical *line);
static bool ends_continued(const char *contents, bool *last_empty);
static bool ends_in_return(const char *contents, size_t *start);
static const char *line_ending(const char *contents, size_t pos);
static bool is_blank(char c);
static char *trimmed(const char *start, const char *end);
static bool contains_word(const char *contents, const char *word);

/*
 * The one role that a field names, or NULL if it names any other thing.  The
 * inverse of role_token() in hba_line.c.
 */
static char *
role_from_field(const PrkHbaField *field)
{
	const char *token = field->token;
	StringInfoData role;
	size_t		len = strlen(token);

	if (field->ntokens != 1 || len == 0)
		return NULL;
	if (!field->quoted &&
		(token[0] == '+' || token[0] == '@' || strcmp(token, "all") == 0))
		return NULL;
	if (token[0] != '/' || !prk_compat_hba_has_regex())
		return pstrdup(token);

	if (len < 4 || token[1] != '^' || token[len - 1] != '$')
		return NULL;
	initStringInfo(&role);
	for (size_t i = 2; i < len - 1; i++)
	{
		bool		literal = isalnum((unsigned char) token[i]) ||
		token[i] == '_' || IS_HIGHBIT_SET(token[i]);

		if (token[i] == '\\' && i + 1 < len - 1 &&
			!isalnum((unsigned char) token[i + 1]))
			i++;
		else if (!literal)
			return NULL;
		appendStringInfoChar(&role, token[i]);
	}
	return role.data;
}

/*
 * Our lines that let replicas in: those rules whose comment ends in the mark
 * and a replica's name, but for those for pg_rewind.  A list of PrkHbaManaged,
 * in the order of the text.  A rule that somebody has turned into a comment is
 * not in it: the server does not see it either.
 */
List *
prk_hba_managed(const char *contents)
{
	List	   *result = prk_hba_managed_all(contents);
	ListCell   *lc;

	foreach(lc, result)
	{
		if (((PrkHbaManaged *) lfirst(lc))->rewind)
			result = foreach_delete_current(result, lc);
	}
	return result;
}

/* The same, with those for pg_rewind. */
List *
prk_hba_managed_all(const char *contents)
{
	List	   *result = NIL;
	PrkHbaLogical line;

	logical_init(&line);
	while (logical_next(contents, &line))
	{
		PrkHbaManaged *managed = managed_from_line(&line);

		if (managed != NULL)
			result = lappend(result, managed);
	}
	return result;
}

/*
 * The text with our line for a replica added: directly before the rule that
 * begins at physical line before_line, or at the end if that is 0 (but see the
 * top of this file).  Whether
 * the line is there already is for the caller to ask, with prk_hba_managed().
 */
char *
prk_hba_insert(const char *contents, const char *rule, const char *replica,
			   int before_line)
{
	size_t		len = strlen(contents);
	size_t		pos = len;
	bool		terminated = (len == 0 || contents[len - 1] == '\n');
	bool		inside = before_line > 0;
	const char *eol;
	bool		last_empty;
	StringInfoData result;

	if (before_line > 0)
	{
		PrkHbaLogical line;

		logical_init(&line);
		while (logical_next(contents, &line))
		{
			if (line.number == before_line)
				pos = line.start;
		}
		if (pos == len)
			elog(ERROR, "no line of pg_hba.conf begins at line %d",
				 before_line);
		terminated = true;
	}
	else if (ends_in_return(contents, &pos))
		terminated = inside = true;

	eol = line_ending(contents, pos);
	initStringInfo(&result);
	appendBinaryStringInfo(&result, contents, pos);
	if (!inside)
	{
		if (!terminated)
			appendStringInfoString(&result, eol);
		if (ends_continued(contents, &last_empty))
			appendStringInfoString(&result, eol);
	}
	appendStringInfo(&result, "%s  " PRK_HBA_MARK "%s%s", rule, replica,
					 terminated ? eol : "");
	appendStringInfoString(&result, contents + pos);
	return result.data;
}

/*
 * The text without our lines for a replica, or without those for one address
 * (as written in the line) if that is not NULL, or those for pg_rewind only.
 * *removed says how many they were.  All other bytes stay, and what
 * prk_hba_insert() added goes entirely.
 */
char *
prk_hba_remove(const char *contents, const char *replica, const char *address,
			   bool rewind, int *removed)
{
	PrkHbaLogical line;
	StringInfoData result;
	bool		last_removed = false;
	bool		last_empty;
	size_t		len = strlen(contents);
	size_t		start;
	char	   *whole;

	*removed = 0;
	initStringInfo(&result);
	logical_init(&line);
	while (logical_next(contents, &line))
	{
		PrkHbaManaged *managed = managed_from_line(&line);

		last_removed = managed != NULL &&
			strcmp(managed->replica, replica) == 0 &&
			(managed->rewind || !rewind) &&
			(address == NULL ||
			 (managed->address != NULL &&
			  pg_strcasecmp(managed->address, address) == 0));
		if (last_removed)
			(*removed)++;
		else
			appendBinaryStringInfo(&result, contents + line.start,
								   line.end - line.start);
	}
	if (!last_removed)
		return result.data;

	/* See the top of this file for what came with an appended line. */
	whole = pstrdup(result.data);
	if (ends_continued(result.data, &last_empty) && last_empty)
	{
		result.data[--result.len] = '\0';
		while (result.len > 0 && result.data[result.len - 1] != '\n')
			result.data[--result.len] = '\0';
	}
	if (contents[len - 1] != '\n' && result.len > 0)
	{
		result.data[--result.len] = '\0';
		if (result.len > 0 && result.data[result.len - 1] == '\r' &&
			strcmp(line_ending(result.data, result.len), "\r\n") == 0)
			result.data[--result.len] = '\0';
	}

	/* never by us: without the newline a return would be part of that line */
	return ends_in_return(result.data, &start) ? whole : result.data;
}

/*
 * A rule as it may be shown: without comment and without the options after
 * its method, which may hold secrets.
 */
char *
prk_hba_rule_without_options(const char *line)
{
	PrkHbaField fields[PRK_HBA_MAX_FIELDS];
	const char *comment;
	int			nfields = split_fields(line, fields, &comment);
	int			method = 4;

	if (nfields > 0 && strcmp(fields[0].token, "local") == 0)
		method = 3;
	else if (nfields > 4 &&
			 (isdigit((unsigned char) fields[4].token[0]) ||
			  strpbrk(fields[4].token, ".:") != NULL))
		method = 5;				/* a separate netmask, no method has those */

	if (nfields == 0)
		return pstrdup("");
	return trimmed(line, fields[Min(method, nfields - 1)].end);
}

/*
 * The first line after the given one that includes another file (16 on), or
 * 0 if none does.  Only the line itself is looked at, not whether the version
 * knows the word.
 */
int
prk_hba_next_include(const char *contents, int after_line)
{
	PrkHbaLogical line;

	logical_init(&line);
	while (logical_next(contents, &line))
	{
		PrkHbaField fields[PRK_HBA_MAX_FIELDS];
		const char *comment;

		if (line.number > after_line &&
			split_fields(line.joined.data, fields, &comment) == 2 &&
			(strcmp(fields[0].token, "include") == 0 ||
			 strcmp(fields[0].token, "include_if_exists") == 0 ||
			 strcmp(fields[0].token, "include_dir") == 0))
			return line.number;
	}
	return 0;
}

/*
 * Which program says, in the comments before the first rule, that it writes
 * the file?  A static string, or NULL.  What we add there will be gone the
 * next time that it does.
 */
const char *
prk_hba_owner(const char *contents)
{
	static const struct
	{
		const char *word;
		const char *name;
	}			owners[] =
	{
		{"patroni", "Patroni"},
		{"ansible", "Ansible"},
		{"puppet", "Puppet"},
		{"chef", "Chef"},
		{"salt", "Salt"},
		{"saltstack", "Salt"},
		{"cloudnativepg", "CloudNativePG"},
		{"operator", "an operator"},
	};
	static const char *const claims[] = {
		"managed", "overwritten", "generated", "maintained"
	};
	PrkHbaLogical line;
	bool		head = true;

	logical_init(&line);
	while (logical_next(contents, &line) && line.number <= PRK_HBA_HEAD_LINES)
	{
		PrkHbaField fields[PRK_HBA_MAX_FIELDS];
		const char *comment;

		if (split_fields(line.joined.data, fields, &comment) > 0)
			head = false;
		if (comment == NULL)
			continue;

		/* Makes no claim, but has this remark after its first rules. */
		if (contains_word(comment, "streaming_replica") &&
			contains_word(comment, "certificate"))
			return "CloudNativePG";
		for (size_t i = 0; head && i < lengthof(owners); i++)
		{
			if (!contains_word(comment, owners[i].word))
				continue;
			for (size_t j = 0; j < lengthof(claims); j++)
			{
				if (contains_word(comment, claims[j]))
					return owners[i].name;
			}
		}
	}
	return NULL;
}

/* Prepare to walk over a text. */
static void
logical_init(PrkHbaLogical *line)
{
	memset(line, 0, sizeof(*line));
	line->number = 1;
	initStringInfo(&line->joined);
}

/*
 * Go to the next line; false at the end of the text.  Joins as the loop of
 * tokenize_auth_file() does: a backslash counts once the line ending has been
 * stripped, and only if it came with the newest physical line.
 */
static bool
logical_next(const char *contents, PrkHbaLogical *line)
{
	int			joined_len = 0;

	if (contents[line->end] == '\0')
		return false;

	line->number += line->nphysical;
	line->nphysical = 0;
	line->start = line->end;
	line->open = false;
	resetStringInfo(&line->joined);
	for (;;)
	{
		const char *start = contents + line->end;
		const char *newline = strchr(start, '\n');
		size_t		len = newline ? (size_t) (newline - start) + 1 : strlen(start);
		StringInfo	buf = &line->joined;

		if (len == 0)
		{
			line->open = true;
			break;
		}
		line->last_empty = start[strspn(start, "\r")] == '\n' ||
			start[strspn(start, "\r")] == '\0';
		line->end += len;
		line->nphysical++;
		appendBinaryStringInfo(buf, start, len);
		while (buf->len > 0 && (buf->data[buf->len - 1] == '\n' ||
								buf->data[buf->len - 1] == '\r'))
			buf->data[--buf->len] = '\0';
		if (buf->len <= joined_len || buf->data[buf->len - 1] != '\\')
			break;
		buf->data[--buf->len] = '\0';
		joined_len = buf->len;
	}
	return true;
}

/*
 * Split a joined line into its first PRK_HBA_MAX_FIELDS fields; the result is
 * how many there are, at most that.  *comment is where the comment starts, or
 * NULL.  A field is a list of tokens with commas between.
 */
static int
split_fields(const char *line, PrkHbaField *fields, const char **comment)
{
	const char *pos = line;
	int			nfields = 0;
	StringInfoData token;
	bool		quoted;
	bool		comma = false;

	*comment = NULL;
	initStringInfo(&token);
	while (next_token(&pos, &token, &quoted, &comma, comment))
	{
		PrkHbaField field = {0};

		field.token = pstrdup(token.data);
		field.quoted = quoted;
		field.ntokens = 1;
		field.end = pos;
		while (comma &&
			   next_token(&pos, &token, &quoted, &comma, comment))
		{
			field.ntokens++;
			field.end = pos;
		}
		if (*comment != NULL && field.end > *comment)
			field.end = *comment;
		if (nfields < PRK_HBA_MAX_FIELDS)
			fields[nfields++] = field;
	}
	return nfields;
}

/*
 * The next token of a joined line, by the same grammar as the function of
 * that name in libpq/hba.c; false if there is none.  Quotes may begin and end
 * in the middle of a token, and a doubled quote within them stands for one.
 */
static bool
next_token(const char **pos, StringInfo token, bool *quoted, bool *comma,
		   const char **comment)
{
	const char *c = *pos;
	bool		in_quotes = false;
	bool		just_closed = false;
	bool		found = false;

	resetStringInfo(token);
	*quoted = false;
	*comma = false;

	while (is_blank(*c) || *c == ',')
		c++;
	for (; *c != '\0' && (in_quotes || !is_blank(*c)); c++)
	{
		if (*c == '#' && !in_quotes)
		{
			*comment = c;
			c += strlen(c);
			break;
		}
		if (*c == ',' && !in_quotes)
		{
			*comma = true;
			break;
		}
		if (*c != '"' || just_closed)
			appendStringInfoChar(token, *c);
		found = true;
		if (*c == '"')
		{
			just_closed = in_quotes;
			in_quotes = !in_quotes;
			if (token->len == 0)
				*quoted = true;
		}
		else
			just_closed = false;
	}
	*pos = c;
	return found;
}

/* The line as one of ours, palloc'd, or NULL if it is none. */
static PrkHbaManaged *
managed_from_line(const PrkHbaLogical *line)
{
	PrkHbaField fields[PRK_HBA_MAX_FIELDS];
	const char *comment;
	int			nfields;
	const char *mark = NULL;
	char	   *name;
	PrkHbaManaged *managed;

	nfields = split_fields(line->joined.data, fields, &comment);
	if (nfields == 0 || comment == NULL)
		return NULL;

	for (const char *c = strstr(comment, PRK_HBA_MARK); c != NULL;
		 c = strstr(c + 1, PRK_HBA_MARK))
		mark = c + strlen(PRK_HBA_MARK);
	if (mark == NULL)
		return NULL;
	name = trimmed(mark, mark + strlen(mark));
	if (name[0] == '\0' || strlen(name) >= NAMEDATALEN ||
		name[strspn(name, "abcdefghijklmnopqrstuvwxyz0123456789_")] != '\0')
		return NULL;

	managed = palloc0_object(PrkHbaManaged);
	managed->line_number = line->number;
	managed->replica = name;
	managed->role = nfields > 2 ? role_from_field(&fields[2]) : NULL;
	managed->address = nfields > 3 && strcmp(fields[0].token, "local") != 0 ?
		fields[3].token : NULL;
	managed->rule = trimmed(line->joined.data, comment);
	managed->rewind = managed->role != NULL &&
		strcmp(managed->role, prk_hba_rewind_role(name)) == 0;
	return managed;
}

/*
 * Does the text end in a line that continues, not counting empty lines behind
 * it?  *last_empty: there are such empty lines.
 */
static bool
ends_continued(const char *contents, bool *last_empty)
{
	PrkHbaLogical line;
	bool		continued = false;

	*last_empty = false;
	logical_init(&line);
	while (logical_next(contents, &line))
	{
		if (line.nphysical > 1 || line.open || !line.last_empty)
			continued = line.open || line.last_empty;
		*last_empty = line.last_empty;
	}
	return continued;
}

/*
 * Is the last line one that is continued at the end of the text, with a
 * carriage return before the backslash?  *start is where it begins.
 */
static bool
ends_in_return(const char *contents, size_t *start)
{
	PrkHbaLogical line;
	bool		result = false;

	logical_init(&line);
	while (logical_next(contents, &line))
		result = line.open && line.joined.len > 0 &&
			line.joined.data[line.joined.len - 1] == '\r';
	if (result)
		*start = line.start;
	return result;
}

/*
 * The line ending in use at a position: that of the line before it, else of
 * the next one, else a newline.
 */
static const char *
line_ending(const char *contents, size_t pos)
{
	const char *newline = NULL;

	for (size_t i = pos; i > 0 && newline == NULL; i--)
	{
		if (contents[i - 1] == '\n')
			newline = &contents[i - 1];
	}
	if (newline == NULL)
		newline = strchr(contents + pos, '\n');
	return (newline != NULL && newline > contents && newline[-1] == '\r') ?
		"\r\n" : "\n";
}

/* What the server takes for a blank (its pg_isblank). */
static bool
is_blank(char c)
{
	return c == ' ' || c == '\t' || c == '\r';
}

/* A palloc'd copy of a range without the blanks around it. */
static char *
trimmed(const char *start, const char *end)
{
	while (start < end && is_blank(*start))
		start++;
	while (end > start && is_blank(end[-1]))
		end--;
	return pnstrdup(start, end - start);
}

/* Is the word, given in lower case, in the text as a word of its own? */
static bool
contains_word(const char *contents, const char *word)
{
	size_t		len = strlen(word);

	for (const char *c = contents; *c; c++)
	{
		if ((c == contents || !isalnum((unsigned char) c[-1])) &&
			pg_strncasecmp(c, word, len) == 0 &&
			!isalnum((unsigned char) c[len]))
			return true;
	}
	return false;
}
