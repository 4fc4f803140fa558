/*-------------------------------------------------------------------------
 *
 * server_address.c
 *	  At which address does a replica reach this server?
 *
 * No server knows that, as there may be address translation between the two.
 * The address by which this session has come is as good as any; else one of
 * an interface in the replica's own network, or the only one there is.
 *
 * IDENTIFICATION
 *	  src/provision/server_address.c
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include <netinet/in.h>
#include <sys/socket.h>

#include "common/ip.h"
#include "libpq/ifaddr.h"
#include "libpq/libpq.h"
#include "libpq/libpq-be.h"
#include "miscadmin.h"
#include "postmaster/postmaster.h"
#include "utils/varlena.h"

#include "provision/server_address.h"

/* What consider_interface() looks for, and has found. */
typedef struct Search
{
	const PrkAddress *replica;
	char	   *near;			/* in the replica's network */
	char	   *only;			/* of its family, if there is one only */
	int			count;
} Search;

static char *address_text(const struct sockaddr *addr, socklen_t len);
static void consider_interface(struct sockaddr *addr, struct sockaddr *netmask,
							   void *arg);
static bool is_listened_at(const char *address);

/*
 * The address of this server that the session's client has connected to,
 * palloc'd; NULL for a Unix socket.
 */
char *
prk_server_session_address(void)
{
	if (MyProcPort == NULL ||
		(MyProcPort->laddr.addr.ss_family != AF_INET &&
		 MyProcPort->laddr.addr.ss_family != AF_INET6))
		return NULL;
	return address_text((struct sockaddr *) &MyProcPort->laddr.addr,
						MyProcPort->laddr.salen);
}

/*
 * The address at which a replica with that one reaches this server, palloc'd;
 * NULL where nothing tells.  Asks the system for its interfaces.
 */
char *
prk_server_address_for(const PrkAddress *replica)
{
	Search		search = {.replica = replica};
	char	   *session = prk_server_session_address();

	if (session != NULL &&
		(replica->loopback || !prk_server_is_loopback(session)))
		return session;

	if (pg_foreach_ifaddr(consider_interface, &search) < 0)
		return NULL;
	return search.near != NULL ? search.near :
		search.count == 1 ? search.only : NULL;
}

/*
 * Is that an address that no other machine can connect to?
 */
bool
prk_server_is_loopback(const char *address)
{
	return strncmp(address, "127.", strlen("127.")) == 0 ||
		strcmp(address, "::1") == 0;
}

/* The address as numbers, palloc'd; NULL: it has none. */
static char *
address_text(const struct sockaddr *addr, socklen_t len)
{
	char		host[NI_MAXHOST];

	if (pg_getnameinfo_all((const struct sockaddr_storage *) addr, len,
						   host, sizeof(host), NULL, 0,
						   NI_NUMERICHOST | NI_NUMERICSERV) != 0)
		return NULL;
	return pstrdup(host);
}

/*
 * Callback of pg_foreach_ifaddr(), for each address of an interface.
 */
static void
consider_interface(struct sockaddr *addr, struct sockaddr *netmask, void *arg)
{
	Search	   *search = arg;
	const PrkAddress *replica = search->replica;
	char	   *text;

	if (addr->sa_family != replica->first.ss_family ||
		(addr->sa_family == AF_INET6 &&
		 IN6_IS_ADDR_LINKLOCAL(&((struct sockaddr_in6 *) addr)->sin6_addr)))
		return;

	text = address_text(addr, addr->sa_family == AF_INET ?
						sizeof(struct sockaddr_in) :
						sizeof(struct sockaddr_in6));

	if (text == NULL || !is_listened_at(text) ||
		prk_server_is_loopback(text) != replica->loopback)
		return;

	search->count++;
	search->only = text;

	if (search->near == NULL && !replica->everywhere &&
		pg_range_sockaddr(&replica->first, (struct sockaddr_storage *) addr,
						  (struct sockaddr_storage *) netmask) != 0)
		search->near = text;
}

/*
 * Does the server listen there?  Host names are not looked up.
 */
static bool
is_listened_at(const char *address)
{
	List	   *hosts = NIL;
	ListCell   *lc;

	/* a list that can't be split would have kept the server from starting */
	(void) SplitGUCList(pstrdup(ListenAddresses ? ListenAddresses : ""), ',',
						&hosts);
	foreach(lc, hosts)
	{
		const char *host = lfirst(lc);

		if (strcmp(host, "*") == 0 || strcmp(host, address) == 0 ||
			strcmp(host, strchr(address, ':') ? "::" : "0.0.0.0") == 0 ||
			(strcmp(host, "localhost") == 0 && prk_server_is_loopback(address)))
			return true;
	}
	return false;
}
