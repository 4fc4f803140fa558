/*-------------------------------------------------------------------------
 *
 * foreign.c
 *	  Text that came from outside, as a type of its own.
 *
 * A startup packet's bytes have no encoding: the role's name is compared byte
 * by byte with a shared catalog, whose names have that of the database in
 * which each was made; and the databases of a cluster may have several.  So
 * nothing but ASCII is valid for every reader, and what is not printable ASCII
 * is escaped as PostgreSQL 16 and later escape it in application_name
 * (pg_clean_ascii() in src/common/string.c).  Other than there the escaping can
 * be undone: a backslash before an "x" is escaped, too, so that two names are
 * equal if, and only if, their escaped forms are.
 *
 * Messages are mostly the server's own words in the language of its
 * lc_messages; they keep their bytes beyond ASCII until somebody reads them,
 * who knows which encoding is wanted.
 *
 * IDENTIFICATION
 *	  src/foreign.c
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/xact.h"
#include "catalog/namespace.h"
#include "mb/pg_wchar.h"
#include "miscadmin.h"

#include "foreign.h"

/* What stands for the rest of a message. */
#define MORE_WORDS		" ..."

static void end_at_word(PrkForeignWords *words);
static size_t escape_byte(char *to, const char *from);
static char *readable(char *result);
static bool is_printable(int encoding, const unsigned char *at, int len);
static bool is_valid(const char *bytes, int encoding);
static bool is_for_client(const char *bytes);
static char *escape_high(const char *bytes);

/*
 * Takes in a name of at most NAMEDATALEN - 1 bytes; the rest is cut off, as
 * the server does.
 */
void
prk_foreign_set(PrkForeign *foreign, const char *bytes)
{
	size_t		len = 0;

	memset(foreign, 0, sizeof(PrkForeign));
	for (int i = 0; bytes[i] != '\0' && i < NAMEDATALEN - 1; i++)
		len += escape_byte(foreign->escaped + len, bytes + i);
}

/*
 * The same of a name from which the server has removed all but printable
 * ASCII, and which is compared with others that it has treated so:
 * application_name.
 */
void
prk_foreign_set_clean(PrkForeign *foreign, const char *ascii)
{
	memset(foreign, 0, sizeof(PrkForeign));
	for (int i = 0; ascii[i] != '\0' && i < NAMEDATALEN - 1; i++)
		foreign->escaped[i] = ascii[i] < ' ' || ascii[i] > '~' ? '?' : ascii[i];
}

/*
 * Takes in a message, as much of it as there is room for.  only_ascii: no
 * character beyond that can be the server's own.  lines: it may have several,
 * which stay apart; where it is one, a newline in it is somebody's trick.
 */
void
prk_foreign_set_words(PrkForeignWords *words, const char *bytes,
					  bool only_ascii, bool lines)
{
	size_t		len = 0;

	memset(words, 0, sizeof(PrkForeignWords));
	for (; *bytes != '\0'; bytes++)
	{
		char		escape[sizeof(PRK_FOREIGN_LINE) + 1] = "";
		size_t		room = sizeof(words->escaped) - 1 - len;
		size_t		need;

		if (IS_HIGHBIT_SET(*bytes) && !only_ascii)
			escape[0] = *bytes;
		else if (lines && *bytes == '\n')
			strlcpy(escape, PRK_FOREIGN_LINE, sizeof(escape));
		else if (lines && *bytes == '\t')
			escape[0] = ' ';
		else
			(void) escape_byte(escape, bytes);
		need = strlen(escape);
		if (need > room)
		{
			end_at_word(words);
			break;
		}
		memcpy(words->escaped + len, escape, need);
		len += need;
	}
}

/* What has no room ends after a whole word, and shows it. */
static void
end_at_word(PrkForeignWords *words)
{
	size_t		len = sizeof(words->escaped) - sizeof(MORE_WORDS);

	while (len > 0 && words->escaped[len] != ' ')
		len--;
	if (len == 0)
		len = sizeof(words->escaped) - sizeof(MORE_WORDS);
	strlcpy(words->escaped + len, MORE_WORDS, sizeof(MORE_WORDS));
}

/* Is there no name at all? */
bool
prk_foreign_is_empty(const PrkForeign *foreign)
{
	return foreign->escaped[0] == '\0';
}

/* Is it this name of ours? */
bool
prk_foreign_is(const PrkForeign *foreign, const char *ours)
{
	PrkForeign	other;

	if (strcmp(foreign->escaped, ours) == 0)
		return true;
	if (strchr(foreign->escaped, '\\') == NULL)
		return false;
	prk_foreign_set(&other, ours);
	return prk_foreign_equal(foreign, &other);
}

/* Are these the same name, byte by byte? */
bool
prk_foreign_equal(const PrkForeign *foreign1, const PrkForeign *foreign2)
{
	return strcmp(foreign1->escaped, foreign2->escaped) == 0;
}

/*
 * Is it such a name as this file makes?  To be asked of one that was read from
 * a file.
 */
bool
prk_foreign_is_sound(const PrkForeign *foreign)
{
	size_t		len = strnlen(foreign->escaped, sizeof(foreign->escaped));

	for (size_t i = 0; i < len; i++)
	{
		if (foreign->escaped[i] < ' ' || foreign->escaped[i] > '~')
			return false;
	}
	return len < sizeof(foreign->escaped);
}

/* The same of a message. */
bool
prk_foreign_words_are_sound(const PrkForeignWords *words)
{
	size_t		len = strnlen(words->escaped, sizeof(words->escaped));

	for (size_t i = 0; i < len; i++)
	{
		if (!IS_HIGHBIT_SET(words->escaped[i]) &&
			(words->escaped[i] < ' ' || words->escaped[i] > '~'))
			return false;
	}
	return len < sizeof(words->escaped);
}

/* Is this in the message? */
bool
prk_foreign_has(const PrkForeignWords *words, const char *part)
{
	return strstr(words->escaped, part) != NULL;
}

/* A name to be shown: printable ASCII, which every encoding has. */
char *
prk_foreign_show(const PrkForeign *foreign)
{
	return pstrdup(foreign->escaped);
}

/*
 * A message to be shown.  What is beyond ASCII stays if it is printable text in
 * the encoding of the database and the client can have it, else it is escaped.
 * Reads a catalog where the client's encoding is another one.
 *
 * Where there is no database, as in the worker, UTF-8 is taken for text: it is
 * hardly ever that by chance.
 */
char *
prk_foreign_show_words(const PrkForeignWords *words)
{
	return readable(pstrdup(words->escaped));
}

/*
 * The same of text of any length that was not taken in before, such as a path
 * or what a file says.  NULL is NULL.
 */
char *
prk_foreign_show_text(const char *bytes)
{
	char	   *result;
	char	   *to;

	if (bytes == NULL)
		return NULL;
	result = to = palloc(4 * strlen(bytes) + 1);
	for (; *bytes != '\0'; bytes++)
	{
		if (IS_HIGHBIT_SET(*bytes))
			*to++ = *bytes;
		else
			to += escape_byte(to, bytes);
	}
	*to = '\0';
	return readable(result);
}

/* What is beyond ASCII, as prk_foreign_show_words() says; may be changed. */
static char *
readable(char *result)
{
	int			encoding = GetDatabaseEncoding();

	if (!OidIsValid(MyDatabaseId))
		encoding = PG_UTF8;

	/* What was cut off in the midst of a character is whole without it. */
	if (encoding != PG_SQL_ASCII)
	{
		int			len = strlen(result);
		int			valid = pg_encoding_verifymbstr(encoding, result, len);

		if (valid < len &&
			pg_encoding_mblen(encoding, result + valid) > len - valid)
			result[valid] = '\0';
	}
	if (is_valid(result, encoding) && is_for_client(result))
		return result;
	return escape_high(result);
}

/* The bytes of a name as they came: to look them up, never to show them. */
char *
prk_foreign_bytes(const PrkForeign *foreign)
{
	char	   *result = palloc(strlen(foreign->escaped) + 1);
	char	   *to = result;

	for (const char *at = foreign->escaped; *at != '\0';)
	{
		unsigned int byte;

		if (at[0] == '\\' && at[1] == 'x' && sscanf(at + 2, "%2x", &byte) == 1)
		{
			*to++ = (char) byte;
			at += 4;
		}
		else
			*to++ = *at++;
	}
	*to = '\0';
	return result;
}

/* A message to search in for words that are known: not to be shown. */
char *
prk_foreign_plain_words(const PrkForeignWords *words)
{
	return pstrdup(words->escaped);
}

/* One byte, as one or four; returns how many. */
static size_t
escape_byte(char *to, const char *from)
{
	static const char digits[] = "0123456789abcdef";
	unsigned char byte = (unsigned char) *from;

	if (byte >= ' ' && byte <= '~' && !(byte == '\\' && from[1] == 'x'))
	{
		*to = *from;
		return 1;
	}
	to[0] = '\\';
	to[1] = 'x';
	to[2] = digits[byte >> 4];
	to[3] = digits[byte & 15];
	return 4;
}

/*
 * Is a character beyond ASCII one that can be seen?  Of Unicode's those are
 * left out that control others or take no room, with which a text can be made
 * to look like another one.
 */
static bool
is_printable(int encoding, const unsigned char *at, int len)
{
	static const struct
	{
		pg_wchar	first;
		pg_wchar	last;
	}			hidden[] = {
		{0x80, 0x9f}, {0xad, 0xad}, {0x61c, 0x61c}, {0x180e, 0x180e},
		{0x200b, 0x200f}, {0x2028, 0x202e}, {0x2060, 0x206f},
		{0xd800, 0xf8ff}, {0xfe00, 0xfe0f}, {0xfeff, 0xfeff},
		{0xfff0, 0xffff}, {0xe0000, 0x10ffff}
	};
	pg_wchar	character;

	if (encoding != PG_UTF8)
		return len > 1 || *at >= 0xa0;
	character = utf8_to_unicode(at);
	for (int i = 0; i < (int) lengthof(hidden); i++)
	{
		if (character >= hidden[i].first && character <= hidden[i].last)
			return false;
	}
	return true;
}

/* Is all of it printable text of the encoding? */
static bool
is_valid(const char *bytes, int encoding)
{
	int			left = strlen(bytes);

	if (encoding != PG_SQL_ASCII &&
		pg_encoding_verifymbstr(encoding, bytes, left) < left)
		return false;
	for (const char *at = bytes; *at != '\0';)
	{
		int			len = 1;

		if (IS_HIGHBIT_SET(*at))
		{
			/* any byte may be anything */
			if (encoding == PG_SQL_ASCII)
				return false;
			len = pg_encoding_mblen(encoding, at);
			if (!is_printable(encoding, (const unsigned char *) at, len))
				return false;
		}
		at += len;
	}
	return true;
}

/* Would the client get it, or an error instead of all that it asked for? */
static bool
is_for_client(const char *bytes)
{
	int			from = GetDatabaseEncoding();
	int			to = pg_get_client_encoding();
	int			len = strlen(bytes);
	unsigned char *converted;
	Oid			conversion;

	if (from == to || to == PG_SQL_ASCII || from == PG_SQL_ASCII ||
		!IsTransactionState() || !OidIsValid(MyDatabaseId))
		return true;
	conversion = FindDefaultConversionProc(from, to);
	if (!OidIsValid(conversion))
		return false;
	converted = palloc(len * MAX_CONVERSION_GROWTH + 1);
	return pg_do_encoding_conversion_buf(conversion, from, to,
										 (unsigned char *) unconstify(char *, bytes),
										 len, converted,
										 len * MAX_CONVERSION_GROWTH + 1,
										 true) == len;
}

/* All bytes beyond ASCII escaped; the rest is printable already. */
static char *
escape_high(const char *bytes)
{
	char	   *result = palloc(4 * strlen(bytes) + 1);
	char	   *to = result;

	for (; *bytes != '\0'; bytes++)
	{
		if (IS_HIGHBIT_SET(*bytes))
			to += escape_byte(to, bytes);
		else
			*to++ = *bytes;
	}
	*to = '\0';
	return result;
}
