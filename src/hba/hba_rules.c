/*-------------------------------------------------------------------------
 *
 * hba_rules.c
 *	  What the server makes of a pg_hba.conf: its own tokenizer and parser,
 *	  and the rule of first match.
 *
 * tokenize_auth_file() and parse_hba_line() may be called by any backend;
 * what matches is decided by static functions of libpq/hba.c over a list that
 * only the postmaster and freshly forked backends hold.  (load_hba() in a
 * backend that runs queries would touch freed memory.)  So the rule of first
 * match is written here once more, over the same HbaLine structs.  The view
 * pg_hba_file_rules would not do as their source: it shows "all" and all
 * alike.
 *
 * The server reads the file before it knows any database and so takes its
 * bytes for characters, also in regular expressions.  The same is done here.
 *
 * Everything is palloc'd in the caller's memory context; regular expressions
 * are, too.
 *
 * IDENTIFICATION
 *	  src/hba/hba_rules.c
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include <netinet/in.h>
#include <sys/socket.h>

#include "lib/stringinfo.h"
#include "libpq/ifaddr.h"
#include "mb/pg_wchar.h"
#include "regex/regex.h"
#include "utils/acl.h"

#include "compat.h"
#include "hba/hba.h"
#include "hba/hba_rules.h"

/*
 * Below all levels that anybody can ask for: what the server's parser says of a
 * line may quote its options, and those may hold secrets.
 */
#define SILENT		(DEBUG5 - 1)

/* One member of the list of rules. */
typedef struct PrkHbaRule
{
	HbaLine    *line;
	const char *file_name;
	int			main_line;		/* see PrkHbaMatch */
} PrkHbaRule;

/* Lines on their way to rules, or the first error among them. */
typedef struct PrkHbaParse
{
	List	   *tok_lines;
	List	   *rules;
	const char *error;			/* NULL: none */
	const char *error_file;
	int			error_line;
} PrkHbaParse;

/* What samehost and samenet look for among the network interfaces. */
typedef struct PrkHbaInterface
{
	const struct sockaddr_storage *addr;
	const struct sockaddr_storage *last;	/* of a network; NULL: addr alone */
	bool		same_net;
	bool		found;
	bool		all;			/* of the network's addresses */
} PrkHbaInterface;

static void parse_as_bytes(PrkHbaParse *parse);
static void parse_lines(PrkHbaParse *parse);
static void place_included(List *rules, FILE *file);
static const char *error_words(const TokenizedAuthLine *tok_line);
static void cut_before(char *words, const char *quoted);
static char *read_text(FILE *file);
static bool connection_type_matches(const HbaLine *line,
									const PrkHbaQuery *query);
static void fill_match(PrkHbaMatch *match, const PrkHbaRule *rule);
static bool address_matches(const HbaLine *line, const PrkHbaQuery *query);
static bool network_matches(const HbaLine *line,
							const struct sockaddr_storage *first,
							const struct sockaddr_storage *last, bool *partly);
static bool overlaps(const struct sockaddr_storage *first,
					 const struct sockaddr_storage *last,
					 const struct sockaddr *base, const struct sockaddr *mask,
					 bool *partly);
static const unsigned char *address_bytes(const struct sockaddr *addr);
static bool same_address(const struct sockaddr_storage *addr,
						 const struct sockaddr *base,
						 const struct sockaddr *mask);
static void compare_interface(struct sockaddr *addr, struct sockaddr *netmask,
							  void *arg);
static List *load(const char *path, FILE *file);
static bool database_matches(const HbaLine *line, const PrkHbaQuery *query,
							 Oid roleid);
static bool role_matches(const HbaLine *line, const PrkHbaQuery *query,
						 Oid roleid);
static bool is_member(Oid roleid, const char *group);
static bool is_keyword(const AuthToken *token, const char *keyword);
static bool regex_matches(const AuthToken *token, const char *string);

/*
 * Read the file at path as the server would read it if it were pg_hba.conf:
 * relative names in it are taken from the folder of HbaFileName.
 *
 * The result is a list of rules for prk_hba_rules_match().  Raises an error
 * if the server would refuse to load the file, and only then: a message of
 * the parser about a line for which it returns a rule nevertheless (hostssl
 * while ssl is off) is none.  The error names file and line and has the
 * server's words, without what the line says in its options.
 */
List *
prk_hba_rules_load(const char *path)
{
	return load(path, prk_compat_open_auth_file(path, ERROR, 0, NULL));
}

/*
 * The same, but where the file can't be opened the result is NIL, which it is
 * in no other case, with errno.
 */
List *
prk_hba_rules_load_if_open(const char *path)
{
	FILE	   *file = prk_compat_open_auth_file(path, SILENT, 0, NULL);

	return file == NULL ? NIL : load(path, file);
}

/*
 * The rules of an open file; raises an error where the server would not load it.
 */
static List *
load(const char *path, FILE *file)
{
	PrkHbaParse parse = {0};
	bool		unreadable;

	prk_compat_tokenize_auth_file(HbaFileName, file, &parse.tok_lines,
								  SILENT, 0);
	unreadable = ferror(file) != 0;
	parse_as_bytes(&parse);
	if (parse.error == NULL && !unreadable)
		place_included(parse.rules, file);
	prk_compat_free_auth_file(file, 0);

	if (unreadable)
		ereport(ERROR,
				(errcode(ERRCODE_IO_ERROR),
				 errmsg("could not read file \"%s\"", path)));
	if (parse.error != NULL)
		ereport(ERROR,
				(errcode(ERRCODE_CONFIG_FILE_ERROR),
				 errmsg("pg_hba.conf has an error with which the server does not load it"),
				 errdetail("Line %d of file \"%s\": %s.",
						   parse.error_line, parse.error_file, parse.error),
				 errhint("Correct the line.  To see all errors, run: SELECT file_name, line_number, error FROM pg_hba_file_rules WHERE error IS NOT NULL;")));
	if (parse.rules == NIL)
		ereport(ERROR,
				(errcode(ERRCODE_CONFIG_FILE_ERROR),
				 errmsg("pg_hba.conf has an error with which the server does not load it"),
				 errdetail("File \"%s\" contains no entries.", HbaFileName)));
	return parse.rules;
}

/*
 * Call parse_lines() while bytes are characters: regular expressions are
 * compiled there.
 */
static void
parse_as_bytes(PrkHbaParse *parse)
{
	int			encoding = GetDatabaseEncoding();

	SetDatabaseEncoding(PG_SQL_ASCII);
	PG_TRY();
	{
		parse_lines(parse);
	}
	PG_FINALLY();
	{
		SetDatabaseEncoding(encoding);
	}
	PG_END_TRY();
}

/* The rules of the lines, up to the first with which load_hba() gives up. */
static void
parse_lines(PrkHbaParse *parse)
{
	ListCell   *cell;

	foreach(cell, parse->tok_lines)
	{
		TokenizedAuthLine *tok_line = (TokenizedAuthLine *) lfirst(cell);
		HbaLine    *line = NULL;
		PrkHbaRule *rule;

		if (tok_line->err_msg == NULL)
			line = parse_hba_line(tok_line, SILENT);
		if (line == NULL)
		{
			parse->error = error_words(tok_line);
			parse->error_file = pstrdup(prk_compat_auth_line_file(tok_line));
			parse->error_line = tok_line->line_num;
			return;
		}

		rule = palloc0_object(PrkHbaRule);
		rule->line = line;
		rule->file_name = pstrdup(prk_compat_auth_line_file(tok_line));
		rule->main_line = strcmp(rule->file_name, HbaFileName) == 0 ?
			line->linenumber : 0;
		parse->rules = lappend(parse->rules, rule);
	}
}

/*
 * Find a place in the main file for the rules of included files: the first
 * line that includes anything after the main file's last rule before them.
 */
static void
place_included(List *rules, FILE *file)
{
	ListCell   *cell;
	char	   *contents = NULL;
	int			last_line = 0;

	foreach(cell, rules)
	{
		PrkHbaRule *rule = (PrkHbaRule *) lfirst(cell);

		if (rule->main_line > 0)
		{
			last_line = rule->main_line;
			continue;
		}
		if (contents == NULL)
			contents = read_text(file);
		rule->main_line = prk_hba_next_include(contents, last_line);
	}
}

/*
 * The server's words for what is wrong with a line, palloc'd, cut off before
 * they quote an option: those may hold secrets.
 */
static const char *
error_words(const TokenizedAuthLine *tok_line)
{
	static const char *const quoting[] = {
		"authentication option not in name=value format",
		"unrecognized authentication option name"
	};
	char	   *words;
	ListCell   *field;

	/*
	 * For some wrong values the parser leaves no words, or those of an
	 * earlier remark, that a rule cannot match, which is no error.
	 */
	if (tok_line->err_msg == NULL ||
		strstr(tok_line->err_msg, " record cannot match because ") != NULL)
		return "one of its options has an invalid value";

	words = pstrdup(tok_line->err_msg);
	for (size_t i = 0; i < lengthof(quoting); i++)
	{
		if (strncmp(words, quoting[i], strlen(quoting[i])) == 0)
			words[strlen(quoting[i])] = '\0';
	}
	foreach(field, tok_line->fields)
	{
		ListCell   *cell;

		foreach(cell, (List *) lfirst(field))
		{
			const char *string = ((AuthToken *) lfirst(cell))->string;
			const char *value = strchr(string, '=');

			if (value == NULL)
				continue;
			cut_before(words, string);
			cut_before(words, value + 1);
		}
	}
	return words;
}

/* End a text before the first place where it quotes something as a whole. */
static void
cut_before(char *words, const char *quoted)
{
	size_t		len = strlen(quoted);

	if (len == 0)
		return;
	for (char *c = strstr(words, quoted); c != NULL; c = strstr(c + 1, quoted))
	{
		if ((c > words && isalnum((unsigned char) c[-1])) ||
			isalnum((unsigned char) c[len]))
			continue;
		while (c > words && strchr(" :\"", c[-1]) != NULL)
			c--;
		*c = '\0';
		return;
	}
}

/* The bytes of an open file. */
static char *
read_text(FILE *file)
{
	StringInfoData contents;
	char		chunk[8192];
	size_t		len;

	initStringInfo(&contents);
	rewind(file);
	while ((len = fread(chunk, 1, sizeof(chunk), file)) > 0)
		appendBinaryStringInfo(&contents, chunk, len);
	return contents.data;
}

/*
 * Which rule would the server apply to a connection?  As check_hba(): the
 * first that matches in kind of connection, address, database and role.
 *
 * A rule with a host name, and a rule that hands over to a user map, is not
 * followed: the verdict is then that only the server knows.  Looks up roles,
 * so it needs a transaction.
 */
void
prk_hba_rules_match(List *rules, const PrkHbaQuery *query, PrkHbaMatch *match)
{
	Oid			roleid = get_role_oid(query->role, true);
	ListCell   *cell;

	memset(match, 0, sizeof(*match));
	match->verdict = PRK_HBA_NO_MATCH;

	foreach(cell, rules)
	{
		PrkHbaRule *rule = (PrkHbaRule *) lfirst(cell);
		HbaLine    *line = rule->line;

		/*
		 * The server looks at the address before the names; here the other
		 * way round, so that a host name counts only where the rest matches.
		 */
		if (!connection_type_matches(line, query) ||
			!database_matches(line, query, roleid) ||
			!role_matches(line, query, roleid))
			continue;
		if (line->hostname == NULL && !address_matches(line, query))
			continue;

		fill_match(match, rule);
		return;
	}
}

/*
 * The rules that the server would apply to connections from a network; the
 * query has its lowest address, *last its highest.  A list of PrkHbaMatch, in
 * the order of the rules, up to the rule that decides on all remaining
 * addresses.  A host name is taken for all of them.
 */
List *
prk_hba_rules_match_network(List *rules, const PrkHbaQuery *query,
							const struct sockaddr_storage *last)
{
	Oid			roleid = get_role_oid(query->role, true);
	List	   *result = NIL;
	ListCell   *cell;

	foreach(cell, rules)
	{
		PrkHbaRule *rule = (PrkHbaRule *) lfirst(cell);
		PrkHbaMatch *match;
		bool		partly = false;

		if (!connection_type_matches(rule->line, query) ||
			!database_matches(rule->line, query, roleid) ||
			!role_matches(rule->line, query, roleid) ||
			!network_matches(rule->line, &query->addr, last, &partly))
			continue;

		match = palloc0_object(PrkHbaMatch);
		fill_match(match, rule);
		match->partly = partly;
		result = lappend(result, match);
		if (!partly)
			break;
	}
	return result;
}

/* What there is to say of the rule that matches. */
static void
fill_match(PrkHbaMatch *match, const PrkHbaRule *rule)
{
	const HbaLine *line = rule->line;

	if (line->hostname != NULL)
		match->verdict = PRK_HBA_UNDECIDABLE;
	else if (line->auth_method == uaReject)
		match->verdict = PRK_HBA_REJECT;
	else if (line->usermap != NULL)
		match->verdict = PRK_HBA_UNDECIDABLE;
	else
		match->verdict = PRK_HBA_ALLOW;
	match->file_name = rule->file_name;
	match->line_number = line->linenumber;
	match->main_line = rule->main_line;
	match->raw_line = line->rawline;
	match->auth_method = hba_authname(line->auth_method);
}

/* A verdict as hba_match() shows it. */
const char *
prk_hba_verdict_name(PrkHbaVerdict verdict)
{
	switch (verdict)
	{
		case PRK_HBA_ALLOW:
			return "allow";
		case PRK_HBA_REJECT:
			return "reject";
		case PRK_HBA_NO_MATCH:
			return "no match";
		case PRK_HBA_UNDECIDABLE:
			return "undecidable";
	}
	return NULL;				/* silence compiler */
}

/*
 * Is the connection, always one over TCP and never encrypted by GSSAPI, of
 * the rule's kind?
 */
static bool
connection_type_matches(const HbaLine *line, const PrkHbaQuery *query)
{
	switch (line->conntype)
	{
		case ctHost:
		case ctHostNoGSS:
			return true;
		case ctHostSSL:
			return query->ssl;
		case ctHostNoSSL:
			return !query->ssl;
		case ctLocal:
		case ctHostGSS:
			return false;
	}
	return false;				/* silence compiler */
}

/* Is the client's address among the rule's?  The rule has no host name. */
static bool
address_matches(const HbaLine *line, const PrkHbaQuery *query)
{
	PrkHbaInterface interface = {0};

	switch (line->ip_cmp_method)
	{
		case ipCmpAll:
			return true;
		case ipCmpMask:
			return same_address(&query->addr,
								(const struct sockaddr *) &line->addr,
								(const struct sockaddr *) &line->mask);
		case ipCmpSameHost:
		case ipCmpSameNet:
			interface.addr = &query->addr;
			interface.same_net = line->ip_cmp_method == ipCmpSameNet;
			/* The server, too, takes a failure for no match. */
			if (pg_foreach_ifaddr(compare_interface, &interface) < 0)
				return false;
			return interface.found;
	}
	return false;				/* silence compiler */
}

/* Are addresses of the network among the rule's, and not all of them? */
static bool
network_matches(const HbaLine *line, const struct sockaddr_storage *first,
				const struct sockaddr_storage *last, bool *partly)
{
	PrkHbaInterface interface = {0};

	if (line->hostname != NULL || line->ip_cmp_method == ipCmpAll)
		return true;
	if (line->ip_cmp_method == ipCmpMask)
		return overlaps(first, last, (const struct sockaddr *) &line->addr,
						(const struct sockaddr *) &line->mask, partly);

	interface.addr = first;
	interface.last = last;
	interface.same_net = line->ip_cmp_method == ipCmpSameNet;
	if (pg_foreach_ifaddr(compare_interface, &interface) < 0)
		return false;
	*partly = !interface.all;
	return interface.found;
}

/*
 * Has the network, from its lowest to its highest address, any that are within
 * base and mask, and others that are not?
 */
static bool
overlaps(const struct sockaddr_storage *first,
		 const struct sockaddr_storage *last, const struct sockaddr *base,
		 const struct sockaddr *mask, bool *partly)
{
	const unsigned char *low = address_bytes((const struct sockaddr *) first);
	const unsigned char *high = address_bytes((const struct sockaddr *) last);
	const unsigned char *base_bytes = address_bytes(base);
	const unsigned char *mask_bytes = address_bytes(mask);
	int			len = first->ss_family == AF_INET ? 4 : 16;

	if (first->ss_family != base->sa_family)
		return false;

	*partly = false;
	for (int i = 0; i < len; i++)
	{
		unsigned char fixed = ~(low[i] ^ high[i]);

		if (((low[i] ^ base_bytes[i]) & mask_bytes[i] & fixed) != 0)
			return false;
		if ((mask_bytes[i] & ~fixed) != 0)
			*partly = true;
	}
	return true;
}

/* An address, most significant byte first. */
static const unsigned char *
address_bytes(const struct sockaddr *addr)
{
	if (addr->sa_family == AF_INET)
		return (const unsigned char *)
			&((const struct sockaddr_in *) addr)->sin_addr;
	return (const unsigned char *)
		&((const struct sockaddr_in6 *) addr)->sin6_addr;
}

/*
 * Is an address within base and mask?  An IPv4 address that is mapped to IPv6
 * is in no IPv4 network: the server's sockets for IPv6 never have such peers.
 */
static bool
same_address(const struct sockaddr_storage *addr, const struct sockaddr *base,
			 const struct sockaddr *mask)
{
	return addr->ss_family == base->sa_family &&
		pg_range_sockaddr(addr, (const struct sockaddr_storage *) base,
						  (const struct sockaddr_storage *) mask);
}

/* For pg_foreach_ifaddr(): one network interface of this machine. */
static void
compare_interface(struct sockaddr *addr, struct sockaddr *netmask, void *arg)
{
	PrkHbaInterface *interface = (PrkHbaInterface *) arg;
	struct sockaddr_storage all_bits;
	bool		partly;

	if ((interface->found && interface->last == NULL) ||
		addr->sa_family != interface->addr->ss_family)
		return;
	if (!interface->same_net)
	{
		pg_sockaddr_cidr_mask(&all_bits, NULL, addr->sa_family);
		netmask = (struct sockaddr *) &all_bits;
	}
	if (interface->last == NULL)
		interface->found = same_address(interface->addr, addr, netmask);
	else if (overlaps(interface->addr, interface->last, addr, netmask,
					  &partly))
	{
		interface->found = true;
		interface->all |= !partly;
	}
}

/* Does the database match?  Only "replication" admits a physical walsender. */
static bool
database_matches(const HbaLine *line, const PrkHbaQuery *query, Oid roleid)
{
	bool		walsender = strcmp(query->database, "replication") == 0;
	ListCell   *cell;

	foreach(cell, line->databases)
	{
		const AuthToken *token = (const AuthToken *) lfirst(cell);
		bool		matches;

		if (is_keyword(token, "replication"))
			matches = walsender;
		else if (walsender)
			matches = false;
		else if (is_keyword(token, "all"))
			matches = true;
		else if (is_keyword(token, "sameuser"))
			matches = strcmp(query->database, query->role) == 0;
		else if (is_keyword(token, "samerole") ||
				 is_keyword(token, "samegroup"))
			matches = is_member(roleid, query->database);
		else if (prk_compat_auth_token_regex(token) != NULL)
			matches = regex_matches(token, query->database);
		else
			matches = strcmp(token->string, query->database) == 0;
		if (matches)
			return true;
	}
	return false;
}

/* Does the role match? */
static bool
role_matches(const HbaLine *line, const PrkHbaQuery *query, Oid roleid)
{
	ListCell   *cell;

	foreach(cell, line->roles)
	{
		const AuthToken *token = (const AuthToken *) lfirst(cell);
		bool		matches;

		if (!token->quoted && token->string[0] == '+')
			matches = is_member(roleid, token->string + 1);
		else if (is_keyword(token, "all"))
			matches = true;
		else if (prk_compat_auth_token_regex(token) != NULL)
			matches = regex_matches(token, query->role);
		else
			matches = strcmp(token->string, query->role) == 0;
		if (matches)
			return true;
	}
	return false;
}

/*
 * Is the role, directly or not, a member of the group?  Superusers are
 * members only of what they have been made members of.
 */
static bool
is_member(Oid roleid, const char *group)
{
	Oid			groupid;

	if (!OidIsValid(roleid))
		return false;
	groupid = get_role_oid(group, true);
	return OidIsValid(groupid) && is_member_of_role_nosuper(roleid, groupid);
}

/* Quotes take the special meaning from a word. */
static bool
is_keyword(const AuthToken *token, const char *keyword)
{
	return !token->quoted && strcmp(token->string, keyword) == 0;
}

/* Does the token's regular expression match the bytes of the string? */
static bool
regex_matches(const AuthToken *token, const char *string)
{
	size_t		len = strlen(string);
	pg_wchar   *bytes = palloc_array(pg_wchar, len + 1);
	int			result;

	for (size_t i = 0; i <= len; i++)
		bytes[i] = (unsigned char) string[i];
	result = pg_regexec(prk_compat_auth_token_regex(token), bytes, len, 0,
						NULL, 0, NULL, 0);
	pfree(bytes);
	return result == REG_OKAY;
}
