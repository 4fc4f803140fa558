/*-------------------------------------------------------------------------
 *
 * failure_words.c
 *	  What the upstream meant, in whichever language it said it.
 *
 * Our wal receiver only quotes what the upstream said, without its SQLSTATE,
 * in the language that the upstream has by its lc_messages.  That is the
 * same as ours on most pairs, since configuration is copied with the data.
 * So the words are compared with the server's own texts, in English and as
 * its message catalog translates them for the lc_messages that this server
 * has by configuration.  Some need no language: the name of a WAL segment is
 * 24 hexadecimal digits, and a function of libpq's is called alike everywhere.
 *
 * What is in a third language stays what it is, words of the upstream.
 *
 * IDENTIFICATION
 *	  src/failures/failure_words.c
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include <locale.h>

#include "access/xlog_internal.h"
#include "utils/guc.h"

#include "failures/failure_words.h"

/* The server's texts, as they stand in its sources and so in its catalogs. */
static const struct
{
	const char *format;
	PrkFailureKind kind;
}			texts[] = {

	{"no pg_hba.conf entry for replication connection from host \"%s\", user \"%s\", %s",
	PRK_FAILURE_HBA_NO_ENTRY},
	{"pg_hba.conf rejects replication connection for host \"%s\", user \"%s\", %s",
	PRK_FAILURE_HBA_REJECTS},
	{"password authentication failed for user \"%s\"",
	PRK_FAILURE_AUTH_FAILED},
	{"Ident authentication failed for user \"%s\"",
	PRK_FAILURE_AUTH_FAILED},
	{"certificate authentication failed for user \"%s\"",
	PRK_FAILURE_AUTH_FAILED},
	{"LDAP authentication failed for user \"%s\"",
	PRK_FAILURE_AUTH_FAILED},
	{"PAM authentication failed for user \"%s\"",
	PRK_FAILURE_AUTH_FAILED},
	{"RADIUS authentication failed for user \"%s\"",
	PRK_FAILURE_AUTH_FAILED},
	{"must be superuser or replication role to start walsender",
	PRK_FAILURE_ROLE_CANNOT_REPLICATE},
	{"permission denied to start WAL sender",
	PRK_FAILURE_ROLE_CANNOT_REPLICATE},
	{"role \"%s\" is not permitted to log in",
	PRK_FAILURE_ROLE_CANNOT_REPLICATE},
	{"number of requested standby connections exceeds max_wal_senders (currently %d)",
	PRK_FAILURE_TOO_MANY},
	{"number of requested standby connections exceeds \"max_wal_senders\" (currently %d)",
	PRK_FAILURE_TOO_MANY},
	{"sorry, too many clients already", PRK_FAILURE_TOO_MANY},
	{"replication slot \"%s\" does not exist", PRK_FAILURE_SLOT_MISSING},
	{"replication slot \"%s\" is active for PID %d", PRK_FAILURE_SLOT_TAKEN},
	{"can no longer access replication slot \"%s\"", PRK_FAILURE_SLOT_LOST},
	{"requested starting point %X/%X on timeline %u is not in this server's history",
	PRK_FAILURE_OTHER_TIMELINE},
	{"requested starting point %X/%X is ahead of the WAL flush position of this server %X/%X",
	PRK_FAILURE_OTHER_TIMELINE},
	{"role \"%s\" does not exist", PRK_FAILURE_ROLE_MISSING},
	{"FATAL", PRK_FAILURE_REFUSED},
	{"the database system is starting up", PRK_FAILURE_REFUSED}
};

static int	progress(PrkFailureKind kind);
static PrkFailureKind read_words(const char *words);
static PrkFailureKind compare_all(const char *words, bool translated);
static bool has_segment_name(const char *words);
static bool fits(const char *words, const char *format);

/*
 * The kind of a failure; that of an UPSTREAM one by its words.  May allocate
 * in the C library: not for the log hook.
 *
 * Each line is read by itself: libpq adds one for each address that it has
 * tried, and one more where it tried with TLS and then without, or the other
 * way round.  The one that got furthest is the cause, of several the first.
 */
PrkFailureKind
prk_failure_kind(const PrkFailure *failure)
{
	char	   *words;
	PrkFailureKind kind = failure->kind;

	if (kind != PRK_FAILURE_UPSTREAM)
		return kind;
	kind = PRK_FAILURE_UNREACHABLE;
	words = prk_foreign_plain_words(&failure->message);
	for (char *line = words; line != NULL;)
	{
		char	   *end = strstr(line, PRK_FOREIGN_LINE);
		PrkFailureKind next;

		if (end != NULL)
			*end = '\0';
		next = read_words(line);
		if (progress(next) > progress(kind))
			kind = next;
		line = end == NULL ? NULL : end + strlen(PRK_FOREIGN_LINE);
	}
	pfree(words);
	return kind;
}

/* How far a connection got that failed so. */
static int
progress(PrkFailureKind kind)
{
	switch (kind)
	{
		case PRK_FAILURE_UNREACHABLE:
			return 0;
		case PRK_FAILURE_HBA_NO_ENTRY:
		case PRK_FAILURE_HBA_REJECTS:
			return 1;
		default:
			return 2;
	}
}

/* The kind by one line of the upstream's words. */
static PrkFailureKind
read_words(const char *words)
{
	PrkFailureKind kind;

	/* A file by its path; what is removed is told by its name alone. */
	if (strstr(words, XLOGDIR "/") != NULL)
		return PRK_FAILURE_FILE;
	if (has_segment_name(words))
		return PRK_FAILURE_WAL_REMOVED;
	if (strstr(words, "fe_sendauth:") != NULL)
		return PRK_FAILURE_NO_PASSWORD;

	kind = compare_all(words, false);
#ifdef ENABLE_NLS
	if (kind == PRK_FAILURE_UNREACHABLE || kind == PRK_FAILURE_REFUSED)
	{
		const char *setting = GetConfigOptionResetString("lc_messages");
		locale_t	locale = newlocale(LC_MESSAGES_MASK | LC_CTYPE_MASK,
									   setting != NULL ? setting : "",
									   (locale_t) 0);

		if (locale != (locale_t) 0)
		{
			locale_t	old = uselocale(locale);
			PrkFailureKind translated = compare_all(words, true);

			uselocale(old);
			freelocale(locale);
			if (translated != PRK_FAILURE_UNREACHABLE)
				kind = translated;
		}
	}
#endif
	return kind;
}

/* Which of the texts is in the words?  None: the server was not reached. */
static PrkFailureKind
compare_all(const char *words, bool translated)
{
	for (int i = 0; i < (int) lengthof(texts); i++)
	{
		if (fits(words, translated ? _(texts[i].format) : texts[i].format))
			return texts[i].kind;
	}
	return PRK_FAILURE_UNREACHABLE;
}

/* Does it have 24 hexadecimal digits in a row, as names of WAL files have? */
static bool
has_segment_name(const char *words)
{
	int			digits = 0;

	for (const char *at = words; *at != '\0'; at++)
	{
		if ((*at >= '0' && *at <= '9') || (*at >= 'A' && *at <= 'F'))
			digits++;
		else
			digits = 0;
		if (digits == 24)
			return true;
	}
	return false;
}

/*
 * Are all pieces between the text's conversions in the words, in order?  What
 * is not ASCII separates pieces, too: each side may have it in another
 * encoding, or in none.
 */
static bool
fits(const char *words, const char *format)
{
	char		piece[256];

	while (*format != '\0')
	{
		size_t		len = 0;
		const char *found;

		while (format[len] != '\0' && format[len] != '%' &&
			   !IS_HIGHBIT_SET(format[len]) && len < sizeof(piece) - 1)
			len++;
		memcpy(piece, format, len);
		piece[len] = '\0';
		found = strstr(words, piece);
		if (found == NULL)
			return false;
		words = found + len;
		format += len;

		/* "%s", "%2$s", "%08X" */
		if (*format == '%')
		{
			format++;
			format += strspn(format, "0123456789$");
			if (*format != '\0')
				format++;
		}
		while (IS_HIGHBIT_SET(*format))
			format++;
	}
	return true;
}
