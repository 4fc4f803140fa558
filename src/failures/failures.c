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

#include "compat.h"
#include "failures/failure_table.h"
#include "failures/failures.h"

/* Under this name the replica's script asks whether its slot is in use. */
#define SCRIPT_NAME "pg_replica_kit-script"

static emit_log_hook_type prev_emit_log_hook = NULL;
static ClientAuthentication_hook_type prev_ClientAuthentication_hook = NULL;

static void note_log_line(ErrorData *edata);
static void note_incoming(const ErrorData *edata);
static void note_outgoing(const ErrorData *edata);
static void note_authentication(Port * port, int status);
static bool classify_incoming(const ErrorData *edata, PrkFailureKind *kind);
static bool classify_outgoing(const ErrorData *edata, PrkFailureKind *kind);
static bool is_message(const ErrorData *edata, const char *beginning);
static void identify_client(PrkFailureId *id);
static void identify_slot(PrkFailureId *id);
static bool is_slot_name(const char *name);
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
 * The newest failure to connect that concerns the replica of this name, or
 * NULL: it asked for the slot of that name, or named no slot yet and comes
 * with that name as its application's or its role's.
 */
const PrkFailure *
prk_failures_of_replica(const PrkFailures *failures, const char *name)
{
	for (int i = 0; i < failures->nfailures; i++)
	{
		const PrkFailure *failure = &failures->failures[i];

		if (failure->outgoing)
			continue;
		if (failure->slot_name[0] != '\0' ?
			strcmp(failure->slot_name, name) == 0 :
			strcmp(failure->application_name, name) == 0 ||
			strcmp(failure->role_name, name) == 0)
			return failure;
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

static void
note_incoming(const ErrorData *edata)
{
	PrkFailureId id;
	PrkFailureKind kind;
	PrkFailureRegion region;

	if (!prk_failure_table_exists() || edata->message == NULL ||
		!classify_incoming(edata, &kind))
		return;

	memset(&id, 0, sizeof(id));
	id.kind = kind;
	id.sqlerrcode = edata->sqlerrcode;
	identify_client(&id);
	identify_slot(&id);
	if (kind == PRK_FAILURE_SLOT_TAKEN &&
		strcmp(id.application_name, SCRIPT_NAME) == 0)
		return;

	/* Who has got as far as to a command was let in. */
	if (debug_query_string != NULL || prk_failure_table_knows(&id))
		region = PRK_FAILURE_TRUSTED;
	else if (is_slot_name(id.role_name) && is_slot_name(id.application_name))
		region = PRK_FAILURE_NAMED;
	else
		region = PRK_FAILURE_STRANGER;
	prk_failure_table_note(&id, region, edata->message);
}

static void
note_outgoing(const ErrorData *edata)
{
	PrkFailureId id;
	PrkFailureKind kind;
	const char *message = edata->message;

	if (!prk_failure_table_exists() || message == NULL ||
		!classify_outgoing(edata, &kind))
		return;

	memset(&id, 0, sizeof(id));
	id.outgoing = 1;
	id.kind = kind;
	id.sqlerrcode = edata->sqlerrcode;
	if (PrimarySlotName != NULL)
		strncpy(id.slot_name, PrimarySlotName, NAMEDATALEN - 1);
	if (kind == PRK_FAILURE_UPSTREAM)
	{
		if (quotes_password(message, PrimaryConnInfo) ||
			quotes_password(message, WalRcv->conninfo))
			message = "could not connect to the primary server: the reason quotes primary_conninfo and is only in the log";
		id.words = hash_words(message);
	}
	prk_failure_table_note(&id, PRK_FAILURE_TRUSTED, message);
}

/*
 * Remembers who was let in: a later failure under the same role, application
 * and address is a replica's.
 */
static void
note_authentication(Port * port, int status)
{
	PrkFailureId id;

	if (prev_ClientAuthentication_hook)
		prev_ClientAuthentication_hook(port, status);

	if (status != STATUS_OK || !am_walsender || !prk_failure_table_exists())
		return;
	memset(&id, 0, sizeof(id));
	identify_client(&id);
	prk_failure_table_let_in(&id);
}

/*
 * Is this a failure of a walsender to serve a replica, and which?  What it
 * says while it runs other commands (a base backup, SQL) is none.
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
	/* A base backup takes a slot, too. */
	*kind = PRK_FAILURE_NO_SLOT_FREE;
	if (edata->sqlerrcode == ERRCODE_CONFIGURATION_LIMIT_EXCEEDED)
		return true;

	/* Before it is let in, whatever ends it is fatal. */
	if (debug_query_string == NULL ? edata->elevel < FATAL :
		pg_strncasecmp(debug_query_string, "START_REPLICATION", 17) != 0)
		return false;

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
		return is_message(edata, "primary server contains no more WAL on requested timeline ");
	}
	if (edata->sqlerrcode == ERRCODE_ADMIN_SHUTDOWN ||
		is_message(edata, "cannot continue WAL streaming"))
		return false;

	if (is_message(edata, "highest timeline %u of the primary is behind recovery timeline "))
		*kind = PRK_FAILURE_OTHER_TIMELINE;
	else if (is_message(edata, "database system identifier differs"))
		*kind = PRK_FAILURE_OTHER_CLUSTER;
	else if (is_message(edata, "terminating walreceiver due to timeout"))
		*kind = PRK_FAILURE_TIMEOUT;
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

/* Who connects, from the startup packet. */
static void
identify_client(PrkFailureId *id)
{
	const struct sockaddr_storage *addr;

	if (MyProcPort == NULL)
		return;
	id->ssl = MyProcPort->ssl_in_use;
	if (MyProcPort->user_name != NULL)
		strncpy(id->role_name, MyProcPort->user_name, NAMEDATALEN - 1);
	if (MyProcPort->application_name != NULL)
		strncpy(id->application_name, MyProcPort->application_name,
				NAMEDATALEN - 1);

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
 * debug_query_string; libpq quotes the name, which holds no quotes.
 */
static void
identify_slot(PrkFailureId *id)
{
	const char *at = debug_query_string;
	int			len = 0;

	if (MyReplicationSlot != NULL)
	{
		strncpy(id->slot_name, NameStr(MyReplicationSlot->data.name),
				NAMEDATALEN - 1);
		return;
	}
	if (at == NULL || pg_strncasecmp(at, "START_REPLICATION SLOT ", 23) != 0)
		return;
	at += 23;
	if (*at == '"')
		at++;
	while (len < NAMEDATALEN - 1 && at[len] != '\0' && at[len] != '"' &&
		   at[len] != ' ')
	{
		id->slot_name[len] = at[len];
		len++;
	}
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

/*
 * Is there a slot of this name?  Reads without any lock: a name that is being
 * changed makes a failure change its region, no more.
 */
static bool
is_slot_name(const char *name)
{
	if (ReplicationSlotCtl == NULL || name[0] == '\0')
		return false;
	for (int i = 0; i < prk_compat_slots(); i++)
	{
		const ReplicationSlot *slot = &ReplicationSlotCtl->replication_slots[i];

		if (slot->in_use &&
			strncmp(NameStr(slot->data.name), name, NAMEDATALEN) == 0)
			return true;
	}
	return false;
}
