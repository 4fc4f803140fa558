/*-------------------------------------------------------------------------
 *
 * failures.c
 *	  Why replication connections to and from this server failed.
 *
 * A connection that fails leaves no trace in any view: its process dies at
 * once, and the reason is in one line of the log.  emit_log_hook sees that
 * line in the process that is about to write it.
 *
 * The hook runs where nothing may go wrong: before authentication, without a
 * PGPROC (all walsenders taken), in a critical section, in a process that a
 * signal may end between any two instructions.  So it takes no lock,
 * allocates nothing and raises nothing; it looks, classifies and counts, by
 * failure_table.c.  It tests for the kind of process first: the syslogger has
 * no shared memory.
 *
 * The kind of a failure is told by its SQLSTATE and by the text before its
 * translation.  Of the upstream's words, which our wal receiver only quotes,
 * the upstream's language is not known here: see failure_words.c.
 *
 * Never noted: DETAIL (it quotes the rule of pg_hba.conf, which may hold
 * secrets), and words that quote a connection string with a password.
 *
 * What is proved of a peer that fails is known here and nowhere else: whether a
 * replication command of its ran, and, before that, whether the rule that the
 * server has found for it is one of ours (the mark at its end names the
 * replica), or the worker has seen it stream from there.
 *
 * IDENTIFICATION
 *	  src/failures/failures.c
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include <netinet/in.h>

#include "access/xlogrecovery.h"
#include "common/hashfn.h"
#include "common/ip.h"
#include "libpq/auth.h"
#include "libpq/libpq-be.h"
#include "miscadmin.h"
#include "replication/slot.h"
#include "replication/walsender.h"
#include "tcop/tcopprot.h"
#include "utils/builtins.h"

#include "failures/commands.h"
#include "failures/departures.h"
#include "failures/failure_table.h"
#include "failures/failures.h"
#include "mark.h"

/*
 * An upstream that is stopped ends its timeline's WAL once; one that was
 * promoted does at each attempt to follow the old timeline.
 */
#define TIMELINE_ENDS	3

static emit_log_hook_type prev_emit_log_hook = NULL;
static ClientAuthentication_hook_type prev_ClientAuthentication_hook = NULL;

/* Of this process, a walsender: has it authenticated, and by whose rule? */
static bool authenticated = false;
static char rule_of[NAMEDATALEN] = "";

static void note_log_line(ErrorData *edata);
static void note_incoming(const ErrorData *edata);
static void note_outgoing(const ErrorData *edata);
static void note_authentication(Port * port, int status);
static void find_rule(void);
static PrkTrust judge_client(const PrkFailureId *id, char *replica);
static bool is_foreign_ascii(void);
static bool is_ascii(const char *bytes);
static bool classify_incoming(const ErrorData *edata, PrkFailureKind *kind);
static bool classify_outgoing(const ErrorData *edata, PrkFailureKind *kind);
static bool is_message(const ErrorData *edata, const char *beginning);
static bool is_about_file(const ErrorData *edata);
static void identify_client(PrkFailureId *id);
static void identify_slot(PrkFailureId *id);
static bool runs_command(const char *command);
static bool quotes_password(const char *message, const char *conninfo);
static bool quotes_piece(const char *message, const char *at, const char *end);
static bool is_other_option(const char *name);
static uint32 hash_words(const char *message);

/* Sets the hooks; to be called while libraries are preloaded. */
void
prk_failures_init(void)
{
	prev_emit_log_hook = emit_log_hook;
	emit_log_hook = note_log_line;
	prev_ClientAuthentication_hook = ClientAuthentication_hook;
	ClientAuthentication_hook = note_authentication;
}

/*
 * Does an incoming failure concern the replica of this name?  A command says
 * by its slot, or without one by its application or role; before that, what
 * the rule or the worker know counts, not what the peer says.
 */
bool
prk_failure_concerns(const PrkFailure *failure, const char *name)
{
	if (failure->outgoing || failure->trust == PRK_TRUST_STRANGER)
		return false;
	if (!prk_foreign_is_empty(&failure->slot_name))
		return prk_foreign_is(&failure->slot_name, name);
	if (failure->replica[0] != '\0' || failure->trust == PRK_TRUST_KNOWN)
		return strcmp(failure->replica, name) == 0;
	return prk_foreign_is(&failure->application_name, name) ||
		prk_foreign_is(&failure->role_name, name);
}

/*
 * The newest failure to connect that concerns the replica of this name, or
 * NULL.
 */
const PrkFailure *
prk_failures_of_replica(const PrkFailures *failures, const char *name)
{
	for (int i = 0; i < failures->nfailures; i++)
	{
		if (prk_failure_concerns(&failures->failures[i], name))
			return &failures->failures[i];
	}
	return NULL;
}

/* The newest failure of our own wal receiver, or NULL. */
const PrkFailure *
prk_failures_of_upstream(const PrkFailures *failures)
{
	for (int i = 0; i < failures->nfailures; i++)
	{
		/* A timeline that ended says nothing of what came then. */
		if (failures->failures[i].outgoing &&
			failures->failures[i].kind != PRK_FAILURE_WAL_ENDED)
			return &failures->failures[i];
	}
	return NULL;
}

/*
 * The end of the upstream's timeline, if that is the last that our wal receiver
 * has met, again and again; or NULL.
 */
const PrkFailure *
prk_failures_timeline_end(const PrkFailures *failures)
{
	for (int i = 0; i < failures->nfailures; i++)
	{
		const PrkFailure *failure = &failures->failures[i];

		if (failure->outgoing)
			return failure->kind == PRK_FAILURE_WAL_ENDED &&
				failure->count >= TIMELINE_ENDS ? failure : NULL;
	}
	return NULL;
}

/* The client's address as text in buf, or NULL when there is none. */
const char *
prk_failures_address(const PrkFailure *failure, char *buf, size_t len)
{
	if (!failure->has_client_addr ||
		pg_getnameinfo_all(&failure->client_addr.addr,
						   failure->client_addr.salen, buf, len, NULL, 0,
						   NI_NUMERICHOST | NI_NUMERICSERV) != 0)
		return NULL;
	clean_ipv6_addr(failure->client_addr.addr.ss_family, buf);
	return buf;
}

/*
 * The hook.  Read the file's head before changing anything that it calls.
 */
static void
note_log_line(ErrorData *edata)
{
	if (prev_emit_log_hook)
		prev_emit_log_hook(edata);

	/* For any other process that is all it costs. */
	if (am_walsender)
		note_incoming(edata);
	else if (MyBackendType == B_WAL_RECEIVER || MyBackendType == B_STARTUP)
		note_outgoing(edata);
}

/* Notes why a replication connection to this server ends. */
static void
note_incoming(const ErrorData *edata)
{
	PrkFailureId id;
	PrkFailureKind kind;
	PrkForeignWords message;
	PrkTrust	trust;
	char		replica[NAMEDATALEN];

	if (!prk_failure_table_exists() || edata->message == NULL ||
		!classify_incoming(edata, &kind))
		return;

	memset(&id, 0, sizeof(id));
	id.kind = kind;
	id.sqlerrcode = edata->sqlerrcode;
	identify_client(&id);
	identify_slot(&id);
	if ((kind == PRK_FAILURE_SLOT_TAKEN || kind == PRK_FAILURE_WAL_REMOVED) &&
		prk_foreign_is(&id.application_name, PRK_SCRIPT_NAME))
		return;

	prk_foreign_set_words(&message, edata->message, !is_foreign_ascii(),
						  false);
	trust = judge_client(&id, replica);
	prk_failure_table_note(&id, trust, replica, &message);
	prk_departures_refused();
}

/* What is proved of the client, and whose it is; "" if that is not known. */
static PrkTrust
judge_client(const PrkFailureId *id, char *replica)
{
	bool		was_seen = prk_failure_peers_seen_as(id, replica);

	/* Who has got as far as to a command was let in, and may replicate. */
	if (debug_query_string != NULL)
		return PRK_TRUST_PEER;
	if (!authenticated)
		find_rule();
	if (was_seen)
		return PRK_TRUST_KNOWN;
	strlcpy(replica, rule_of, NAMEDATALEN);
	return rule_of[0] != '\0' ? PRK_TRUST_KNOWN : PRK_TRUST_STRANGER;
}

/* Notes why the one to the upstream ends, or that it streams. */
static void
note_outgoing(const ErrorData *edata)
{
	PrkFailureId id;
	PrkFailureKind kind;
	PrkForeignWords words;
	const char *message = edata->message;

	if (!prk_failure_table_exists() || message == NULL)
		return;
	if (is_message(edata, "started streaming WAL from primary ") ||
		is_message(edata, "restarted WAL streaming "))
	{
		prk_failure_table_streaming();
		return;
	}
	if (!classify_outgoing(edata, &kind))
		return;

	memset(&id, 0, sizeof(id));
	id.outgoing = 1;
	id.kind = kind;
	id.sqlerrcode = edata->sqlerrcode;
	if (PrimarySlotName != NULL)
		prk_foreign_set(&id.slot_name, PrimarySlotName);
	if (kind == PRK_FAILURE_UPSTREAM)
	{
		if (quotes_password(message, PrimaryConnInfo) ||
			quotes_password(message, WalRcv->conninfo) ||
			(WalRcv->conninfo[0] == '\0' &&
			 is_message(edata, "invalid connection string syntax")))
			message = "could not connect to the primary server: the reason quotes primary_conninfo and is only in the log";
		id.words = hash_words(message);
	}
	prk_foreign_set_words(&words, message, false, true);
	prk_failure_table_note(&id, PRK_TRUST_OURS, "", &words);
}

/* Remembers who was let in, and when in the order of events. */
static void
note_authentication(Port * port, int status)
{
	PrkFailureId id;

	if (prev_ClientAuthentication_hook)
		prev_ClientAuthentication_hook(port, status);

	if (status != STATUS_OK || !am_walsender || !prk_failure_table_exists())
		return;
	find_rule();
	authenticated = true;
	memset(&id, 0, sizeof(id));
	identify_client(&id);
	prk_departures_let_in(&id, prk_failure_table_let_in(&id), rule_of);
}

/*
 * The replica that the mark of the client's rule names, into rule_of.  The
 * rule is gone from memory soon after the client is let in (PostgresMain() in
 * src/backend/tcop/postgres.c).
 */
static void
find_rule(void)
{
	const char *rule = MyProcPort != NULL && MyProcPort->hba != NULL ?
	MyProcPort->hba->rawline : NULL;
	const char *name = NULL;
	size_t		len;

	rule_of[0] = '\0';
	while (rule != NULL && (rule = strstr(rule, PRK_HBA_MARK)) != NULL)
	{
		rule += strlen(PRK_HBA_MARK);
		name = rule;
	}
	if (name == NULL)
		return;
	len = strlen(name);
	while (len > 0 && strchr(" \t\r\n", name[len - 1]) != NULL)
		len--;
	if (len < NAMEDATALEN)
		strlcpy(rule_of, name, len + 1);
}

/*
 * Did the client send ASCII only?  Then what is beyond that in a message of
 * ours is our own translation.
 */
static bool
is_foreign_ascii(void)
{
	ListCell   *cell;

	if (!is_ascii(debug_query_string))
		return false;
	if (MyProcPort == NULL)
		return true;
	foreach(cell, MyProcPort->guc_options)
	{
		if (!is_ascii(lfirst(cell)))
			return false;
	}
	return is_ascii(MyProcPort->user_name) &&
		is_ascii(MyProcPort->database_name) &&
		is_ascii(MyProcPort->cmdline_options);
}

/* NULL is, too. */
static bool
is_ascii(const char *bytes)
{
	for (; bytes != NULL && *bytes != '\0'; bytes++)
	{
		if (IS_HIGHBIT_SET(*bytes))
			return false;
	}
	return true;
}

/*
 * Is this a failure of a walsender to serve a replica, and which?  An error
 * while it runs another command (a base backup, SQL) is none.
 */
static bool
classify_incoming(const ErrorData *edata, PrkFailureKind *kind)
{
	if (edata->elevel < ERROR)
	{
		*kind = PRK_FAILURE_TIMEOUT;
		return is_message(edata,
						  "terminating walsender process due to replication timeout");
	}

	/*
	 * Asked for its password, it said no more (ProcessInterrupts() in
	 * src/backend/tcop/postgres.c; before that the startup packet is waited
	 * for, and nothing is logged).
	 */
	if (is_message(edata, "canceling authentication due to timeout"))
	{
		*kind = PRK_FAILURE_TIMEOUT;
		return true;
	}

	/* With that whoever wants a slot gives up. */
	*kind = PRK_FAILURE_NO_SLOT_FREE;
	if (is_message(edata, "all replication slots are in use"))
		return runs_command("CREATE_REPLICATION_SLOT") ||
			runs_command("START_REPLICATION");

	/*
	 * Before a client is let in, only a FATAL ends its connection; later an
	 * ERROR does as well, since a client that cannot stream disconnects.
	 */
	if (debug_query_string == NULL ? edata->elevel < FATAL :
		!runs_command("START_REPLICATION") &&
		!runs_command("TIMELINE_HISTORY"))
		return false;

	/* Refused by the file system, which is no right of the replica's role. */
	*kind = PRK_FAILURE_FILE;
	if (debug_query_string != NULL && is_about_file(edata))
		return true;

	switch (edata->sqlerrcode)
	{
		case ERRCODE_ADMIN_SHUTDOWN:
		case ERRCODE_CRASH_SHUTDOWN:
		case ERRCODE_CANNOT_CONNECT_NOW:
		case ERRCODE_CONNECTION_FAILURE:
		case ERRCODE_QUERY_CANCELED:
			return false;
		case ERRCODE_TOO_MANY_CONNECTIONS:
			*kind = is_message(edata, "too many connections for ") ?
				PRK_FAILURE_OTHER : PRK_FAILURE_TOO_MANY;
			return true;
		case ERRCODE_INSUFFICIENT_PRIVILEGE:
			*kind = PRK_FAILURE_ROLE_CANNOT_REPLICATE;
			return true;
		case ERRCODE_INVALID_PASSWORD:
			*kind = PRK_FAILURE_AUTH_FAILED;
			return true;
		default:
			break;
	}

	if (is_message(edata, "replication slot \"%s\" does not exist"))
		*kind = PRK_FAILURE_SLOT_MISSING;
	else if (is_message(edata, "replication slot \"%s\" is active for PID "))
		*kind = PRK_FAILURE_SLOT_TAKEN;
	else if (is_message(edata, "no pg_hba.conf entry for "))
		*kind = PRK_FAILURE_HBA_NO_ENTRY;
	else if (is_message(edata, "pg_hba.conf rejects "))
		*kind = PRK_FAILURE_HBA_REJECTS;
	else if (is_message(edata, "role \"%s\" does not exist") ||
			 is_message(edata, "role with OID %u does not exist"))
		*kind = PRK_FAILURE_ROLE_MISSING;
	else if (is_message(edata, "role \"%s\" is not permitted to log in"))
		*kind = PRK_FAILURE_ROLE_CANNOT_REPLICATE;
	else if (edata->sqlerrcode == ERRCODE_INVALID_AUTHORIZATION_SPECIFICATION)
		*kind = PRK_FAILURE_AUTH_FAILED;
	else if (is_message(edata, "requested WAL segment %s has already been removed"))
		*kind = PRK_FAILURE_WAL_REMOVED;
	else if (is_message(edata, "can no longer "))
		*kind = PRK_FAILURE_SLOT_LOST;
	else if (is_message(edata, "requested starting point %X/%X on timeline %u is not in this server's history") ||
			 is_message(edata, "requested starting point %X/%X is ahead of the WAL flush position") ||
			 is_message(edata, "requested starting point %X/%08X "))
		*kind = PRK_FAILURE_OTHER_TIMELINE;
	else if (is_message(edata, "requested timeline %u is not in this server's history"))
		*kind = PRK_FAILURE_NEWER_TIMELINE;
	else
		*kind = PRK_FAILURE_OTHER;
	return true;
}

/*
 * Is this a failure of our wal receiver, or the startup process's word on why
 * it can't go on, and which?
 */
static bool
classify_outgoing(const ErrorData *edata, PrkFailureKind *kind)
{
	*kind = PRK_FAILURE_OTHER_TIMELINE;
	if (MyBackendType == B_STARTUP)
		return is_message(edata, "new timeline %u forked off current database system timeline ");

	if (edata->elevel < ERROR)
	{
		*kind = PRK_FAILURE_WAL_ENDED;
		return is_message(edata, "primary server contains no more WAL on requested timeline ") ||
			is_message(edata, "replication terminated by primary server");
	}
	if (edata->sqlerrcode == ERRCODE_ADMIN_SHUTDOWN ||
		is_message(edata, "cannot continue WAL streaming"))
		return false;

	if (is_message(edata, "highest timeline %u of the primary is behind recovery timeline "))
		*kind = PRK_FAILURE_NEWER_TIMELINE;
	else if (is_message(edata, "database system identifier differs"))
		*kind = PRK_FAILURE_OTHER_CLUSTER;
	else if (is_message(edata, "terminating walreceiver due to timeout"))
		*kind = PRK_FAILURE_TIMEOUT;
	else if (is_about_file(edata))
		*kind = PRK_FAILURE_OWN_FILE;
	else
		*kind = PRK_FAILURE_UPSTREAM;
	return true;
}

/*
 * Does the line's text, before translation, begin with these words?  (Whole
 * texts differ between versions in their quotes and ends.)
 */
static bool
is_message(const ErrorData *edata, const char *beginning)
{
	return edata->message_id != NULL &&
		strncmp(edata->message_id, beginning, strlen(beginning)) == 0;
}

/* Does it say that this server could not use a file of its own? */
static bool
is_about_file(const ErrorData *edata)
{
	return is_message(edata, "could not open file ") ||
		is_message(edata, "could not read ") ||
		is_message(edata, "could not seek ") ||
		is_message(edata, "could not stat file ") ||
		is_message(edata, "could not access file ") ||
		is_message(edata, "could not create file ") ||
		is_message(edata, "could not write to ") ||
		is_message(edata, "could not rename file ") ||
		is_message(edata, "could not close file ") ||
		is_message(edata, "could not fsync file ");
}

/* Who connects, from the startup packet. */
static void
identify_client(PrkFailureId *id)
{
	const struct sockaddr_storage *addr;

	if (MyProcPort == NULL)
		return;
	id->ssl = MyProcPort->ssl_in_use;
	if (MyProcPort->user_name != NULL)
		prk_foreign_set(&id->role_name, MyProcPort->user_name);
	if (MyProcPort->application_name != NULL)
		prk_foreign_set_clean(&id->application_name,
							  MyProcPort->application_name);

	addr = &MyProcPort->raddr.addr;
	if (addr->ss_family == AF_INET)
		memcpy(id->addr, &((const struct sockaddr_in *) addr)->sin_addr, 4);
	else if (addr->ss_family == AF_INET6)
		memcpy(id->addr,
			   &((const struct sockaddr_in6 *) addr)->sin6_addr, 16);
	else
		return;
	id->family = addr->ss_family;
}

/*
 * Which slot it asks for.  While START_REPLICATION runs its text is in
 * debug_query_string.
 */
static void
identify_slot(PrkFailureId *id)
{
	char		name[NAMEDATALEN];
	bool		logical;

	if (MyReplicationSlot != NULL)
	{
		prk_foreign_set(&id->slot_name,
						NameStr(MyReplicationSlot->data.name));
		id->logical = SlotIsLogical(MyReplicationSlot);
	}
	else if (prk_command_slot(debug_query_string, name, &logical))
	{
		prk_foreign_set(&id->slot_name, name);
		id->logical = logical;
	}
}

/* Does a command run that begins so? */
static bool
runs_command(const char *command)
{
	return prk_command_is(debug_query_string, command);
}

/*
 * Could the words quote a password out of a connection string?  libpq quotes
 * pieces of a string that it can't read, and then nobody can say where the
 * password ends.  So every piece of the string counts that follows the word
 * "password" or "secret", which options have in their names, or the user in a
 * URI, up to the next option: if it is in the words, by chance or not, they
 * are not to be shown.
 *
 * The receiver's string is the one that the startup process has passed, which
 * can be newer than its own primary_conninfo: each process reads the file
 * when its signal comes.  While the receiver runs, nobody else changes it
 * (RequestXLogStreaming() in src/backend/replication/walreceiverfuncs.c).
 * From 19 on the receiver wipes it before it connects (WalReceiverMain()): the
 * caller takes the words about a string that can't be read for such a quote.
 */
static bool
quotes_password(const char *message, const char *conninfo)
{
	static const char *const secrets[] = {"password", "secret"};
	const char *at;
	const char *end;

	if (conninfo == NULL)
		return false;
	at = strstr(conninfo, "://");
	if (at != NULL && strchr(at, '@') != NULL &&
		quotes_piece(message, at + 3 + strcspn(at + 3, ":@"),
					 strrchr(at, '@')))
		return true;

	end = conninfo + strlen(conninfo);
	for (int i = 0; i < (int) lengthof(secrets); i++)
	{
		size_t		len = strlen(secrets[i]);

		for (at = conninfo; (at = strstr(at, secrets[i])) != NULL; at += len)
		{
			if (quotes_piece(message, at + len, end))
				return true;
		}
	}
	return false;
}

/* Is any piece from here to the next option in the words? */
static bool
quotes_piece(const char *message, const char *at, const char *end)
{
	while (at < end)
	{
		char		piece[256];
		size_t		len = strcspn(at, " \t\r\n'\"=:@/\\?&");

		len = Min(len, (size_t) (end - at));
		if (at[len] == '=' && is_other_option(at))
			break;
		if (len > 1)
		{
			strlcpy(piece, at, Min(len + 1, sizeof(piece)));
			if (strstr(message, piece) != NULL)
				return true;
		}
		at += len + 1;
	}
	return false;
}

/* Does an option of libpq's begin here that is no secret? */
static bool
is_other_option(const char *name)
{
	static const char *const options[] = {
		"application_name=", "channel_binding=", "client_encoding=",
		"connect_timeout=", "dbname=", "fallback_application_name=",
		"gssencmode=", "host=", "hostaddr=", "keepalives=", "krbsrvname=",
		"options=", "passfile=", "port=", "replication=", "require_auth=",
		"service=", "sslcert=", "sslkey=", "sslmode=", "sslnegotiation=",
		"sslrootcert=", "target_session_attrs=", "user="
	};

	for (int i = 0; i < (int) lengthof(options); i++)
	{
		if (strncmp(name, options[i], strlen(options[i])) == 0)
			return true;
	}
	return false;
}

/*
 * The words without what changes from one attempt to the next: numbers.
 */
static uint32
hash_words(const char *message)
{
	uint32		hash = 0;

	for (const char *at = message; *at != '\0'; at++)
	{
		if (*at < '0' || *at > '9')
			hash = hash_combine(hash, (unsigned char) *at);
	}
	return hash;
}
