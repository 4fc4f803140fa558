/*-------------------------------------------------------------------------
 *
 * role.h
 *	  The replication role and its SCRAM secret, and whose a role is.
 *
 * IDENTIFICATION
 *	  src/provision/role.h
 *
 *-------------------------------------------------------------------------
 */
#ifndef PRK_ROLE_H
#define PRK_ROLE_H

#include "nodes/pg_list.h"

/* The words with which the comment on a role of ours begins. */
#define PRK_ROLE_MARK "pg_replica_kit: "

typedef enum PrkSecret
{
	PRK_SECRET_NONE,
	PRK_SECRET_MD5,
	PRK_SECRET_SCRAM,
	PRK_SECRET_EXPIRED
} PrkSecret;

/* What there is to know of a role before anything is done with it. */
typedef struct PrkRole
{
	Oid			oid;			/* InvalidOid: does not exist */
	bool		ours;			/* made by the kit */
	List	   *replicas;		/* names in our comment (char *) */
	bool		can_login;
	bool		can_replicate;
	bool		superuser;
	PrkSecret	secret;
} PrkRole;

/* One replica in the comment on one role. */
typedef struct PrkRoleMark
{
	const char *replica;
	Oid			roleid;
	int			place;			/* in the order in which they were read */
} PrkRoleMark;

extern void prk_role_look_up(const char *name, PrkRole *role);
extern char *prk_role_secret(const char *name, bool *expired);
extern char *prk_role_of_replica(const char *replica);
extern char *prk_role_comment(Oid roleid);
extern PrkRoleMark *prk_role_marks(int *nmarks);
extern const PrkRoleMark *prk_role_marks_of(const PrkRoleMark *marks,
											int nmarks, const char *replica);

extern char *prk_role_make_password(void);
extern void prk_role_create(const char *name, const char *password,
							const char *replica);
extern void prk_role_add_replica(const PrkRole *role, const char *replica);
extern void prk_role_remove_replica(const PrkRole *role, const char *replica);
extern bool prk_role_is_needed(const PrkRole *role, char **detail);
extern void prk_role_drop(const char *name);
extern void prk_role_set_password(const char *name, const char *password);

#endif							/* PRK_ROLE_H */
