/*-------------------------------------------------------------------------
 *
 * provision_checks.h
 *	  What has to be true before a replica is provisioned.
 *
 * IDENTIFICATION
 *	  src/provision/provision_checks.h
 *
 *-------------------------------------------------------------------------
 */
#ifndef PRK_PROVISION_CHECKS_H
#define PRK_PROVISION_CHECKS_H

#include <sys/socket.h>

#include "provision/role.h"
#include "utils/inet.h"

/* An address or network, in the forms in which it is needed. */
typedef struct PrkAddress
{
	char	   *text;			/* "10.0.0.5/32": no host bits */
	bool		loopback;
	bool		everywhere;		/* of its family */
	struct sockaddr_storage first;
	struct sockaddr_storage last;
} PrkAddress;

extern void prk_check_writable(const char *function);
extern void prk_check_name(const char *name);
extern void prk_check_role_name(const char *role);
extern void prk_check_address(inet *ip, PrkAddress *address);
extern void prk_check_server(const PrkAddress *address, bool require_ssl,
							 int slots_needed);
extern void prk_check_existing_role(const char *name, const PrkRole *role,
									bool has_password);

#endif							/* PRK_PROVISION_CHECKS_H */
