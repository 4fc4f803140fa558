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
 *	  src/reload.c
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

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

#include "reload.h"

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

static bool own_address(ServerAddress *addr, socklen_t *len);
static bool unix_address(const char *dir, ServerAddress *addr, socklen_t *len);
static bool handshake(const ServerAddress *addr, socklen_t len,
					  TimestampTz deadline, const char **problem);
static bool wait_socket(int fd, short events, TimestampTz deadline);
static bool interrupted(void);

/*
 * Signal the postmaster and wait until it serves connections by the
 * configuration files as they are now.  False, with the reason in *problem (a
 * static string), when that can't be shown within timeout_ms.
 *
 * Checks for interrupts while it waits, so it raises an error when cancelled;
 * not where interrupts are held.
 */
bool
prk_reload(int timeout_ms, const char **problem)
{
	ServerAddress addr;
	socklen_t	len;
	bool		ok;
	TimestampTz deadline = TimestampTzPlusMilliseconds(GetCurrentTimestamp(),
													   timeout_ms);

	if (kill(PostmasterPid, SIGHUP) != 0)
	{
		*problem = gettext_noop("The postmaster could not be signalled.");
		return false;
	}

	if (!own_address(&addr, &len))
	{
		*problem = gettext_noop("The server has no socket that it could ask.");
		return false;
	}

	ok = handshake(&addr, len, deadline, problem);
	CHECK_FOR_INTERRUPTS();

	return ok;
}

/*
 * Where the server listens: its first Unix socket, else the address at which
 * this session reached it, else the loopback address.
 */
static bool
own_address(ServerAddress *addr, socklen_t *len)
{
	memset(addr, 0, sizeof(*addr));

	if (Unix_socket_directories && Unix_socket_directories[0] != '\0')
	{
		char		dir[MAXPGPATH];
		size_t		dirlen = strcspn(Unix_socket_directories, ",");

		/* a list as SplitDirectoriesString() reads it: perhaps quoted */
		strlcpy(dir, Unix_socket_directories, Min(dirlen + 1, sizeof(dir)));
		while (dirlen > 0 && (dir[dirlen - 1] == ' ' || dir[dirlen - 1] == '"'))
			dir[--dirlen] = '\0';
		dirlen = strspn(dir, " \"");
		if (unix_address(dir + dirlen, addr, len))
			return true;
	}

	if (MyProcPort != NULL && MyProcPort->laddr.addr.ss_family != AF_UNIX)
	{
		memcpy(&addr->storage, &MyProcPort->laddr.addr,
			   MyProcPort->laddr.salen);
		*len = MyProcPort->laddr.salen;
		return true;
	}

	if (ListenAddresses && ListenAddresses[0] != '\0')
	{
		addr->in.sin_family = AF_INET;
		addr->in.sin_port = pg_hton16(PostPortNumber);
		addr->in.sin_addr.s_addr = pg_hton32(INADDR_LOOPBACK);
		*len = sizeof(addr->in);
		return true;
	}

	return false;
}

/*
 * The address of the socket that the server makes in this directory; an
 * abstract one where the name begins with @.
 */
static bool
unix_address(const char *dir, ServerAddress *addr, socklen_t *len)
{
	int			pathlen;

	addr->un.sun_family = AF_UNIX;
	pathlen = snprintf(addr->un.sun_path, sizeof(addr->un.sun_path),
					   "%s/.s.PGSQL.%d", dir, PostPortNumber);
	if (pathlen >= (int) sizeof(addr->un.sun_path))
		return false;

	if (addr->un.sun_path[0] == '@')
	{
		addr->un.sun_path[0] = '\0';
		*len = offsetof(struct sockaddr_un, sun_path) + pathlen;
	}
	else
		*len = sizeof(addr->un);
	return true;
}

/*
 * Connect, send an SSLRequest, wait for the byte that answers it, close.
 */
static bool
handshake(const ServerAddress *addr, socklen_t len, TimestampTz deadline,
		  const char **problem)
{
	uint32		request[2];
	char		answer;
	bool		ok = false;
	int			rc;
	int			fd;

	request[0] = pg_hton32(sizeof(request));
	request[1] = pg_hton32(NEGOTIATE_SSL_CODE);
	*problem = gettext_noop("The server did not answer on its own socket in time.");

	fd = socket(addr->sa.sa_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (fd < 0)
	{
		*problem = gettext_noop("A socket could not be made.");
		return false;
	}

	(void) fcntl(fd, F_SETFL, O_NONBLOCK);

	/* EAGAIN: a Unix socket's backlog is full, so try again */
	while ((rc = connect(fd, &addr->sa, len)) != 0 && errno == EAGAIN &&
		   GetCurrentTimestamp() < deadline && !interrupted())
		pg_usleep(1000L);

	if (rc != 0 && errno != EINPROGRESS)
		*problem = gettext_noop("The server did not accept a connection on its own socket.");
	else if (wait_socket(fd, POLLOUT, deadline) &&
			 send(fd, request, sizeof(request), MSG_NOSIGNAL) == sizeof(request) &&
			 wait_socket(fd, POLLIN, deadline) &&
			 recv(fd, &answer, 1, 0) == 1)
		ok = true;

	close(fd);
	return ok;
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
