/*-------------------------------------------------------------------------
 *
 * reload.c
 *	  Reload the server's configuration, and know that it has happened.
 *
 * pg_reload_conf() only sends a signal.  One's own SIGHUP is no proof that
 * pg_hba.conf is in force either: the postmaster signals its children before
 * it loads that file (process_pm_reload_request).  But it handles a pending
 * SIGHUP before it accepts a connection, so a connection to the server's own
 * socket, made after the signal and answered, is one that was forked after
 * the file was loaded.  The cheapest answer to ask for is the one byte that
 * follows an SSLRequest; over a Unix socket the server logs nothing of it.
 *
 * That the postmaster loaded the file and did not keep the old rules follows
 * from the caller having parsed the very file before.
 *
 * Nothing here raises an error or allocates, except that a caller who may be
 * interrupted is.
 *
 * IDENTIFICATION
 *	  src/hba/reload.c
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include <arpa/inet.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "libpq/libpq.h"
#include "libpq/libpq-be.h"
#include "libpq/pqcomm.h"
#include "miscadmin.h"
#include "port/pg_bswap.h"
#include "postmaster/postmaster.h"
#include "utils/guc.h"
#include "utils/timestamp.h"

#include "hba/reload.h"

/* how often a wait looks for a cancel request */
#define POLL_STEP_MS		100

typedef union ServerAddress
{
	struct sockaddr sa;
	struct sockaddr_un un;
	struct sockaddr_in in;
	struct sockaddr_in6 in6;
	struct sockaddr_storage storage;
} ServerAddress;

typedef struct Reload
{
	TimestampTz deadline;
	bool		proved;			/* the server has answered */
	const char *problem;		/* of the last try */
} Reload;

static void try_directories(Reload *reload);
static void try_session_address(Reload *reload);
static void try_listen_addresses(Reload *reload);
static void try_ip(Reload *reload, const char *text);
static char *next_item(char **list);
static void handshake(Reload *reload, const ServerAddress *addr, socklen_t len);
static bool wait_socket(int fd, short events, TimestampTz deadline);
static bool interrupted(void);

/*
 * Signal the postmaster and wait until it serves connections by the
 * configuration files as they are now.  False, with the reason in *problem (a
 * static string), when that can't be shown within timeout_ms.
 *
 * Asks wherever the server listens, one after the other: a Unix socket may
 * have been removed, an address not be this machine's any more.
 *
 * Checks for interrupts while it waits, so it raises an error when cancelled;
 * not where interrupts are held.
 *
 * A server in single-user mode serves nobody, and has no postmaster: the next
 * start reads the files.
 */
bool
prk_reload(int timeout_ms, const char **problem)
{
	Reload		reload = {0};

	reload.deadline = TimestampTzPlusMilliseconds(GetCurrentTimestamp(),
												  timeout_ms);
	reload.problem = gettext_noop("The server has no socket that it could ask.");

	/* PostmasterPid is 0 then, and kill(0) signals whoever started it */
	if (!IsUnderPostmaster)
		return true;

	if (kill(PostmasterPid, SIGHUP) != 0)
	{
		*problem = gettext_noop("The postmaster could not be signalled.");
		return false;
	}

	try_directories(&reload);
	try_session_address(&reload);
	try_listen_addresses(&reload);
	CHECK_FOR_INTERRUPTS();

	*problem = reload.problem;
	return reload.proved;
}

/*
 * Ask on the Unix sockets that the server has made.
 */
static void
try_directories(Reload *reload)
{
	char		dirs[MAXPGPATH * 4];
	char	   *rest = dirs;
	char	   *dir;

	strlcpy(dirs, Unix_socket_directories ? Unix_socket_directories : "",
			sizeof(dirs));
	while (!reload->proved && (dir = next_item(&rest)) != NULL)
	{
		ServerAddress addr = {0};
		socklen_t	len = sizeof(addr.un);
		int			pathlen;

		addr.un.sun_family = AF_UNIX;
		pathlen = snprintf(addr.un.sun_path, sizeof(addr.un.sun_path),
						   "%s/.s.PGSQL.%d", dir, PostPortNumber);
		if (pathlen >= (int) sizeof(addr.un.sun_path))
			continue;
		if (addr.un.sun_path[0] == '@')
		{
			/* an abstract one */
			addr.un.sun_path[0] = '\0';
			len = offsetof(struct sockaddr_un, sun_path) + pathlen;
		}
		handshake(reload, &addr, len);
	}
}

/*
 * Ask where this session has reached the server.
 */
static void
try_session_address(Reload *reload)
{
	ServerAddress addr = {0};

	if (reload->proved || MyProcPort == NULL ||
		MyProcPort->laddr.addr.ss_family == AF_UNIX)
		return;

	memcpy(&addr.storage, &MyProcPort->laddr.addr, MyProcPort->laddr.salen);
	handshake(reload, &addr, MyProcPort->laddr.salen);
}

/*
 * Ask at the addresses that the server was told to listen on, as far as they
 * can be told without a name server.
 */
static void
try_listen_addresses(Reload *reload)
{
	char		hosts[MAXPGPATH];
	char	   *rest = hosts;
	char	   *host;

	strlcpy(hosts, ListenAddresses ? ListenAddresses : "", sizeof(hosts));
	while (!reload->proved && (host = next_item(&rest)) != NULL)
	{
		bool		all = strcmp(host, "*") == 0 ||
		strcmp(host, "localhost") == 0;

		if (all || strcmp(host, "0.0.0.0") == 0)
			try_ip(reload, "127.0.0.1");
		if (all || strcmp(host, "::") == 0)
			try_ip(reload, "::1");
		try_ip(reload, host);
	}
}

/*
 * Ask at an address, if the text is one.
 */
static void
try_ip(Reload *reload, const char *text)
{
	ServerAddress addr = {0};

	if (reload->proved)
		return;
	if (inet_pton(AF_INET, text, &addr.in.sin_addr) == 1)
	{
		addr.in.sin_family = AF_INET;
		addr.in.sin_port = pg_hton16(PostPortNumber);
		handshake(reload, &addr, sizeof(addr.in));
	}
	else if (inet_pton(AF_INET6, text, &addr.in6.sin6_addr) == 1)
	{
		addr.in6.sin6_family = AF_INET6;
		addr.in6.sin6_port = pg_hton16(PostPortNumber);
		handshake(reload, &addr, sizeof(addr.in6));
	}
}

/*
 * Cut the next item off a list with commas, without blanks and quotes around
 * it: as SplitDirectoriesString() reads one, except for a comma in quotes, but
 * without allocating.  NULL at the end.
 */
static char *
next_item(char **list)
{
	for (;;)
	{
		char	   *item = *list + strspn(*list, " \t\",");
		size_t		len = strcspn(item, ",");

		if (len == 0)
			return NULL;
		*list = item + len + (item[len] != '\0');
		item[len] = '\0';
		while (len > 0 && strchr(" \t\"", item[len - 1]) != NULL)
			item[--len] = '\0';
		if (len > 0)
			return item;
	}
}

/*
 * Connect, send an SSLRequest, wait for the byte that answers it, close.
 */
static void
handshake(Reload *reload, const ServerAddress *addr, socklen_t len)
{
	uint32		request[2];
	char		answer;
	int			rc;
	int			fd;

	request[0] = pg_hton32(sizeof(request));
	request[1] = pg_hton32(NEGOTIATE_SSL_CODE);
	reload->problem = gettext_noop("The server did not answer on its own socket in time.");

	fd = socket(addr->sa.sa_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (fd < 0)
	{
		reload->problem = gettext_noop("A socket could not be made.");
		return;
	}

	(void) fcntl(fd, F_SETFL, O_NONBLOCK);

	/* EAGAIN: a Unix socket's backlog is full, so try again */
	while ((rc = connect(fd, &addr->sa, len)) != 0 && errno == EAGAIN &&
		   GetCurrentTimestamp() < reload->deadline && !interrupted())
		pg_usleep(1000L);

	if (rc != 0 && errno != EINPROGRESS)
		reload->problem = gettext_noop("The server did not accept a connection on its own socket.");
	else if (wait_socket(fd, POLLOUT, reload->deadline) &&
			 send(fd, request, sizeof(request), MSG_NOSIGNAL) == sizeof(request) &&
			 wait_socket(fd, POLLIN, reload->deadline) &&
			 recv(fd, &answer, 1, 0) == 1)
		reload->proved = true;

	close(fd);
}

/*
 * Wait until the socket is ready, up to the deadline.
 */
static bool
wait_socket(int fd, short events, TimestampTz deadline)
{
	struct pollfd pfd = {.fd = fd,.events = events};

	for (;;)
	{
		int			rc = poll(&pfd, 1, POLL_STEP_MS);

		if (rc > 0)
			return true;
		if ((rc < 0 && errno != EINTR) || interrupted() ||
			GetCurrentTimestamp() >= deadline)
			return false;
	}
}

/*
 * Would CHECK_FOR_INTERRUPTS() raise an error?  The socket has to be closed
 * before it may.
 */
static bool
interrupted(void)
{
	return (QueryCancelPending || ProcDiePending) &&
		InterruptHoldoffCount == 0;
}
