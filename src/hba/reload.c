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
 * interrupted is.  One who may not, since a transaction is ending, gets the
 * answer that nothing is proved, as soon as somebody asks it to stop: a silent
 * postmaster holds nobody.
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

#include "libpq/ifaddr.h"
#include "libpq/libpq.h"
#include "libpq/libpq-be.h"
#include "libpq/pqcomm.h"
#include "miscadmin.h"
#include "port/pg_bswap.h"
#include "portability/instr_time.h"
#include "postmaster/postmaster.h"
#include "utils/guc.h"

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
	double		deadline;		/* by now_ms() */
	bool		proved;			/* the server has answered */
	const char *problem;		/* of the last try */
} Reload;

/* What compare_interface() looks for. */
typedef struct OwnAddress
{
	const struct sockaddr *addr;
	bool		found;
} OwnAddress;

static void try_directories(Reload *reload);
static void try_session_address(Reload *reload);
static void try_listen_addresses(Reload *reload);
static void try_ip(Reload *reload, const char *text);
static bool is_own(const ServerAddress *addr);
static void compare_interface(struct sockaddr *addr, struct sockaddr *netmask,
							  void *arg);
static bool next_item(const char **list, char *item, size_t size);
static void handshake(Reload *reload, const ServerAddress *addr, socklen_t len);
static bool wait_socket(int fd, short events, double deadline);
static double now_ms(void);
static bool is_over(const Reload *reload);

/*
 * Signal the postmaster and wait until it serves connections by the
 * configuration files as they are now.  False, with the reason in *problem (a
 * static string), when that can't be shown within timeout_ms.
 *
 * Asks wherever the server listens, one after the other: a Unix socket may
 * have been removed, an address not be this machine's any more.
 *
 * Checks for interrupts while it waits, so it raises an error when cancelled;
 * where interrupts are held it returns false then, with *problem saying so.
 * The signal has been sent nevertheless: a postmaster that goes on, reloads.
 *
 * A server in single-user mode serves nobody, and has no postmaster: the next
 * start reads the files.
 */
bool
prk_reload(int timeout_ms, const char **problem)
{
	Reload		reload = {0};

	reload.deadline = now_ms() + timeout_ms;
	reload.problem = "The server has no socket that it could ask.";

	/* PostmasterPid is 0 then, and kill(0) signals whoever started it */
	if (!IsUnderPostmaster)
		return true;

	if (kill(PostmasterPid, SIGHUP) != 0)
	{
		*problem = "The postmaster could not be signalled.";
		return false;
	}

	try_directories(&reload);
	try_session_address(&reload);
	try_listen_addresses(&reload);
	CHECK_FOR_INTERRUPTS();

	*problem = !reload.proved && prk_reload_interrupted() ?
		"The wait for its answer was canceled." : reload.problem;
	return reload.proved;
}

/*
 * Has somebody asked this backend to cancel its statement, or to end?  Unlike
 * CHECK_FOR_INTERRUPTS() it answers also where interrupts are held, as they
 * are while a transaction ends.
 */
bool
prk_reload_interrupted(void)
{
	return QueryCancelPending || ProcDiePending;
}

/*
 * Ask on the Unix sockets that the server has made.  One whose path does not
 * fit into a socket's address the server can't have made either.
 */
static void
try_directories(Reload *reload)
{
	const char *rest = Unix_socket_directories ? Unix_socket_directories : "";
	ServerAddress addr = {0};
	char		name[32];

	snprintf(name, sizeof(name), "/.s.PGSQL.%d", PostPortNumber);
	while (!is_over(reload) &&
		   next_item(&rest, addr.un.sun_path, sizeof(addr.un.sun_path)))
	{
		socklen_t	len = sizeof(addr.un);
		size_t		dirlen = strlen(addr.un.sun_path);

		/* the server keeps them in canonical form */
		while (dirlen > 1 && addr.un.sun_path[dirlen - 1] == '/')
			dirlen--;
		if (dirlen == 0 ||
			dirlen + strlen(name) >= sizeof(addr.un.sun_path))
			continue;
		strcpy(addr.un.sun_path + dirlen, name);

		addr.un.sun_family = AF_UNIX;
		if (addr.un.sun_path[0] == '@')
		{
			/* an abstract one */
			addr.un.sun_path[0] = '\0';
			len = offsetof(struct sockaddr_un, sun_path) + dirlen + strlen(name);
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

	if (is_over(reload) || MyProcPort == NULL ||
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
	const char *rest = ListenAddresses ? ListenAddresses : "";
	char		host[INET6_ADDRSTRLEN];

	while (!is_over(reload) && next_item(&rest, host, sizeof(host)))
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
 * Ask at an address, if the text is one, and one of this machine: an address
 * that has moved is answered by another server.
 */
static void
try_ip(Reload *reload, const char *text)
{
	ServerAddress addr = {0};

	if (is_over(reload))
		return;
	if (inet_pton(AF_INET, text, &addr.in.sin_addr) == 1)
	{
		addr.in.sin_family = AF_INET;
		addr.in.sin_port = pg_hton16(PostPortNumber);
		if (is_own(&addr))
			handshake(reload, &addr, sizeof(addr.in));
	}
	else if (inet_pton(AF_INET6, text, &addr.in6.sin6_addr) == 1)
	{
		addr.in6.sin6_family = AF_INET6;
		addr.in6.sin6_port = pg_hton16(PostPortNumber);
		if (is_own(&addr))
			handshake(reload, &addr, sizeof(addr.in6));
	}
}

/*
 * Is it an address of this machine?  All of 127.0.0.0/8 are.
 */
static bool
is_own(const ServerAddress *addr)
{
	OwnAddress	own = {.addr = &addr->sa};

	if (addr->sa.sa_family == AF_INET &&
		(pg_ntoh32(addr->in.sin_addr.s_addr) >> 24) == IN_LOOPBACKNET)
		return true;
	return pg_foreach_ifaddr(compare_interface, &own) == 0 && own.found;
}

/*
 * Callback of pg_foreach_ifaddr(), for each address of an interface.
 */
static void
compare_interface(struct sockaddr *addr, struct sockaddr *netmask, void *arg)
{
	OwnAddress *own = arg;

	if (addr->sa_family != own->addr->sa_family)
		return;
	if (addr->sa_family == AF_INET)
		own->found |= ((struct sockaddr_in *) addr)->sin_addr.s_addr ==
			((const struct sockaddr_in *) own->addr)->sin_addr.s_addr;
	else if (addr->sa_family == AF_INET6)
		own->found |= memcmp(&((struct sockaddr_in6 *) addr)->sin6_addr,
							 &((const struct sockaddr_in6 *) own->addr)->sin6_addr,
							 sizeof(struct in6_addr)) == 0;
}

/*
 * The next item of a list with commas, as SplitGUCList() and
 * SplitDirectoriesString() read it, but without allocating: without the blanks
 * around it, or as it stands between quotes.  False at the end.
 *
 * An item that is longer than the buffer is given as an empty one: cut, it
 * would name something else.
 */
static bool
next_item(const char **list, char *item, size_t size)
{
	const char *at = *list + strspn(*list, " \t\n\r\f\v");
	bool		quoted = *at == '"';
	size_t		len = 0;

	if (*at == '\0')
		return false;

	for (at += quoted; *at != '\0' && (quoted || *at != ','); at++)
	{
		if (quoted && *at == '"' && *++at != '"')
			break;
		if (len < size)
			item[len] = *at;
		len++;
	}
	while (!quoted && len > 0 && len <= size &&
		   strchr(" \t\n\r\f\v", item[len - 1]) != NULL)
		len--;
	item[len < size ? len : 0] = '\0';

	at += strcspn(at, ",");
	*list = at + (*at == ',');
	return true;
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
	reload->problem = "The server did not answer on its own socket in time.";

	fd = socket(addr->sa.sa_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (fd < 0)
	{
		reload->problem = "A socket could not be made.";
		return;
	}

	(void) fcntl(fd, F_SETFL, O_NONBLOCK);

	/* EAGAIN: a Unix socket's backlog is full, so try again */
	while ((rc = connect(fd, &addr->sa, len)) != 0 && errno == EAGAIN &&
		   !is_over(reload))
		pg_usleep(1000L);

	if (rc != 0 && errno != EINPROGRESS)
		reload->problem = "The server did not accept a connection on its own socket.";
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
wait_socket(int fd, short events, double deadline)
{
	struct pollfd pfd = {.fd = fd,.events = events};

	for (;;)
	{
		int			rc = poll(&pfd, 1, POLL_STEP_MS);

		if (rc > 0)
			return true;
		if ((rc < 0 && errno != EINTR) || prk_reload_interrupted() ||
			now_ms() >= deadline)
			return false;
	}
}

/* Milliseconds by a clock that nobody sets. */
static double
now_ms(void)
{
	instr_time	now;

	INSTR_TIME_SET_CURRENT(now);
	return INSTR_TIME_GET_MILLISEC(now);
}

/*
 * Is there nothing to ask any more, or no time?  An error is raised by the
 * caller, once the socket is closed.
 */
static bool
is_over(const Reload *reload)
{
	return reload->proved || prk_reload_interrupted() ||
		now_ms() >= reload->deadline;
}
