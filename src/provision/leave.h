/*-------------------------------------------------------------------------
 *
 * leave.h
 *	  What else a replica that is deprovisioned serves, or is waited for by.
 *
 * IDENTIFICATION
 *	  src/provision/leave.h
 *
 *-------------------------------------------------------------------------
 */
#ifndef PRK_LEAVE_H
#define PRK_LEAVE_H

extern void prk_leave_warn(const char *name);
extern const char *prk_leave_role(const char *name, const char *role_name,
								  bool keep_role, bool dry_run);
extern const char *prk_leave_options(bool force, bool keep_role);

#endif							/* PRK_LEAVE_H */
