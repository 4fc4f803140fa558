/*-------------------------------------------------------------------------
 *
 * server_address.h
 *	  At which address does a replica reach this server?
 *
 * IDENTIFICATION
 *	  src/provision/server_address.h
 *
 *-------------------------------------------------------------------------
 */
#ifndef PRK_SERVER_ADDRESS_H
#define PRK_SERVER_ADDRESS_H

#include "provision/provision_checks.h"

extern char *prk_server_session_address(void);
extern char *prk_server_address_for(const PrkAddress *replica);
extern bool prk_server_is_loopback(const char *address);

#endif							/* PRK_SERVER_ADDRESS_H */
