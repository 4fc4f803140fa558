/*-------------------------------------------------------------------------
 *
 * provision_checks.c
 *	  What has to be true before a replica is provisioned.
 *
 * Each check raises an error that names what is wrong and, in its HINT, the
 * statement that mends it, before anything has been done.
 *
 * IDENTIFICATION
 *	  src/provision/provision_checks.c
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include <netinet/in.h>

#include "access/xlog.h"
#include "catalog/catalog.h"
#include "libpq/libpq.h"
#include "miscadmin.h"
#include "postmaster/postmaster.h"
#include "replication/slot.h"
#include "replication/walsender.h"
#include "replication/walsender_private.h"
#include "storage/spin.h"
#include "tcop/utility.h"
#include "utils/builtins.h"
#include "utils/fmgrprotos.h"
#include "utils/inet.h"
#include "utils/varlena.h"

#include "provision/provision_checks.h"
#include "provision/slot.h"

/* A clone takes two walsenders: the backup, and the WAL beside it. */
#define WALSENDERS_PER_CLONE	2

/* No superuser should get a password only because a replica uses the role. */
#define OWN_ROLE_HINT \
	"It is a superuser.  Leave the role argument out: the replica gets a role of its own."

static void check_listening(const PrkAddress *address);
static bool is_loopback_name(const char *host);
static int	count_free_walsenders(void);
static void fill_sockaddr(struct sockaddr_storage *addr, int family,
						  const unsigned char *bytes, int bits, bool highest);

/*
 * The transaction must be one that may write.  On a standby none may, yet a
 * slot and a line of pg_hba.conf can be made there.
 */
void
prk_check_writable(const char *function)
{
	if (!RecoveryInProgress())
		PreventCommandIfReadOnly(function);
	PreventCommandIfParallelMode(function);
}

/*
 * The name must be one that a replication slot can have.
 */
void
prk_check_name(const char *name)
{
	char	   *legal = prk_slot_legal_name(name);
	const char *problem = NULL;

	if (name[0] == '\0')
		problem = "It is empty.";
	else if (strlen(name) >= NAMEDATALEN)
		problem = "It is longer than 63 bytes.";
	else if (strspn(name, "abcdefghijklmnopqrstuvwxyz0123456789_") != strlen(name))
		problem = "It is also the name of the replication slot, which may only contain lower case letters, numbers, and the underscore character.";

	if (problem != NULL)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_NAME),
				 errmsg("replica name \"%s\" is not valid", name),
				 errdetail("%s", problem),
				 legal ? errhint("Use \"%s\", for example.", legal) : 0));
}

/*
 * The name must be one that a role can have.
 */
void
prk_check_role_name(const char *role)
{
	if (role[0] == '\0')
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_NAME),
				 errmsg("role name must not be empty")));
	if (strlen(role) >= NAMEDATALEN)
		ereport(ERROR,
				(errcode(ERRCODE_NAME_TOO_LONG),
				 errmsg("role name \"%s\" is too long", role),
				 errdetail("A role name has at most %d bytes.",
						   NAMEDATALEN - 1)));
	if (strcmp(role, "public") == 0 || strcmp(role, "none") == 0 ||
		IsReservedName(role))
		ereport(ERROR,
				(errcode(ERRCODE_RESERVED_NAME),
				 errmsg("role name \"%s\" is reserved", role),
				 errhint("Name another role: SELECT * FROM replica_kit.provision(..., role => %s);",
						 quote_literal_cstr(psprintf("repl_%s", role)))));
	if (strpbrk(role, "\r\n") != NULL)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_NAME),
				 errmsg("role name must not contain a line break"),
				 errdetail("A line of pg_hba.conf cannot name it.")));
}

/*
 * The address or network that connections come from.  One with host bits
 * stands for its network, as it does to the server; the caller is told.
 */
void
prk_check_address(inet *ip, PrkAddress *address)
{
	static const unsigned char mapped[12] =
	{0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff};
	inet	   *network;
	char	   *given;
	bool		ipv4 = ip_family(ip) == PGSQL_AF_INET;
	int			family = ipv4 ? AF_INET : AF_INET6;

	network = DatumGetInetPP(DirectFunctionCall1(network_network,
												 InetPGetDatum(ip)));
	given = TextDatumGetCString(DirectFunctionCall1(network_show,
													InetPGetDatum(ip)));
	address->text =
		TextDatumGetCString(DirectFunctionCall1(network_show,
												InetPGetDatum(network)));

	if (!ipv4 && memcmp(ip_addr(ip), mapped, sizeof(mapped)) == 0)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("address \"%s\" is an IPv4 address in IPv6 form", given),
				 errdetail("The server sees such a replica with its IPv4 address."),
				 errhint("Give the IPv4 address.")));

	if (strcmp(given, address->text) != 0)
		ereport(NOTICE,
				(errmsg("address \"%s\" stands for its network \"%s\"",
						given, address->text)));
	address->everywhere = ip_bits(ip) == 0;
	fill_sockaddr(&address->first, family, ip_addr(network), ip_bits(network),
				  false);
	fill_sockaddr(&address->last, family, ip_addr(network), ip_bits(network),
				  true);

	if (ipv4)
		address->loopback = ip_addr(network)[0] == 127 && ip_bits(ip) >= 8;
	else
		address->loopback =
			strcmp(address->text, "::1/128") == 0;
}

/*
 * The server must be able to feed one more replica.  slots_needed counts the
 * slots that this transaction will make, 0 when the replica's own exists.
 */
void
prk_check_server(const PrkAddress *address, bool require_ssl,
				 int slots_needed)
{
	if (wal_level < WAL_LEVEL_REPLICA)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("wal_level must be \"replica\" or \"logical\" to feed a replica"),
				 errhint("Run: ALTER SYSTEM SET wal_level = 'replica'; then restart the server.")));

	if (slots_needed > 0)
	{
		int			nfree = prk_slot_count_free();

		if (nfree < slots_needed)
			ereport(ERROR,
					(errcode(ERRCODE_CONFIGURATION_LIMIT_EXCEEDED),
					 errmsg("all replication slots are in use"),
					 errdetail("%d of %d are free, %d needed.",
							   nfree, max_replication_slots, slots_needed),
					 errhint("Drop one that is not needed, or run: ALTER SYSTEM SET max_replication_slots = %d; then restart the server.",
							 max_replication_slots + Max(slots_needed, 10))));

		nfree = count_free_walsenders();
		if (nfree < WALSENDERS_PER_CLONE)
			ereport(ERROR,
					(errcode(ERRCODE_CONFIGURATION_LIMIT_EXCEEDED),
					 errmsg("too few WAL sender processes are free to clone a replica"),
					 errdetail("%d of %d are free; a clone takes %d.",
							   nfree, max_wal_senders, WALSENDERS_PER_CLONE),
					 errhint("Run: ALTER SYSTEM SET max_wal_senders = %d; then restart the server.",
							 max_wal_senders + 10)));
	}

	if (require_ssl && !EnableSSL)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("require_ssl is not possible while ssl is off"),
				 errhint("Set up a server certificate and run: ALTER SYSTEM SET ssl = on; SELECT pg_reload_conf();")));

	check_listening(address);
	if (address->everywhere)
		ereport(WARNING,
				(errmsg("\"%s\" lets connections in from every address",
						address->text)));
}

/*
 * An existing role is used if a replica can log in with it, and is never
 * changed.  So where something is missing, an error names the statement that
 * adds it.
 */
void
prk_check_existing_role(const char *name, const PrkRole *role,
						bool has_password)
{
	const char *quoted = quote_identifier(name);

	if (has_password)
		ereport(ERROR,
				(errcode(ERRCODE_DUPLICATE_OBJECT),
				 errmsg("role \"%s\" already exists and keeps its password", name),
				 errhint("Leave the password argument out.")));
	if (!role->can_login || !role->can_replicate)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("role \"%s\" exists but cannot be used by a replica",
						name),
				 role->can_login ?
				 errdetail("It does not have the REPLICATION attribute.") :
				 errdetail("It does not have the LOGIN attribute."),
				 errhint("Run: ALTER ROLE %s LOGIN REPLICATION; or name another role.",
						 quoted)));
	switch (role->secret)
	{
		case PRK_SECRET_SCRAM:
			break;
		case PRK_SECRET_NONE:
			ereport(ERROR,
					(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
					 errmsg("role \"%s\" exists but has no password", name),
					 role->superuser ? errhint(OWN_ROLE_HINT) :
					 errhint("In psql run: \\password %s", quoted)));
			break;
		case PRK_SECRET_MD5:
			ereport(ERROR,
					(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
					 errmsg("role \"%s\" exists but has an MD5 password", name),
					 errdetail("The rule for the replica asks for SCRAM authentication."),
					 role->superuser ? errhint(OWN_ROLE_HINT) :
					 errhint("In psql run: SET password_encryption = 'scram-sha-256'; then \\password %s",
							 quoted)));
			break;
		case PRK_SECRET_EXPIRED:
			ereport(ERROR,
					(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
					 errmsg("role \"%s\" exists but its password has expired",
							name),
					 role->superuser ? errhint(OWN_ROLE_HINT) :
					 errhint("Run: ALTER ROLE %s VALID UNTIL 'infinity';",
							 quoted)));
			break;
	}
}

/*
 * The server must listen where the replica can come from.
 */
static void
check_listening(const PrkAddress *address)
{
	char	   *copy = pstrdup(ListenAddresses ? ListenAddresses : "");
	List	   *hosts = NIL;
	ListCell   *lc;

	/* a list that can't be split would have kept the server from starting */
	(void) SplitGUCList(copy, ',', &hosts);
	foreach(lc, hosts)
	{
		if (address->loopback || !is_loopback_name(lfirst(lc)))
			return;
	}

	ereport(ERROR,
			(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
			 errmsg("the server does not listen for connections from %s",
					address->text),
			 errdetail("listen_addresses is \"%s\".", ListenAddresses),
			 errhint("Run: ALTER SYSTEM SET listen_addresses = '*'; then restart the server.")));
}

/* Does only this machine reach it? */
static bool
is_loopback_name(const char *host)
{
	return strcmp(host, "localhost") == 0 || strcmp(host, "::1") == 0 ||
		strncmp(host, "127.", 4) == 0;
}

/*
 * How many walsenders could start now.
 */
static int
count_free_walsenders(void)
{
	int			nfree = 0;

	for (int i = 0; i < max_wal_senders; i++)
	{
		WalSnd	   *walsnd = &WalSndCtl->walsnds[i];

		SpinLockAcquire(&walsnd->mutex);
		nfree += walsnd->pid == 0;
		SpinLockRelease(&walsnd->mutex);
	}
	return nfree;
}

/*
 * The lowest or highest address of a network.
 */
static void
fill_sockaddr(struct sockaddr_storage *addr, int family,
			  const unsigned char *bytes, int bits, bool highest)
{
	int			len = family == AF_INET ? 4 : 16;
	unsigned char result[16];

	for (int i = 0; i < len; i++)
	{
		int			netbits = Max(0, Min(8, bits - i * 8));

		result[i] = bytes[i];
		if (highest)
			result[i] |= 0xff >> netbits;
	}

	memset(addr, 0, sizeof(*addr));
	addr->ss_family = family;
	if (family == AF_INET)
		memcpy(&((struct sockaddr_in *) addr)->sin_addr, result, len);
	else
		memcpy(&((struct sockaddr_in6 *) addr)->sin6_addr, result, len);
}
