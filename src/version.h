/*-------------------------------------------------------------------------
 *
 * version.h
 *	  The version of the library.
 *
 * IDENTIFICATION
 *	  src/version.h
 *
 *-------------------------------------------------------------------------
 */
#ifndef PRK_VERSION_H
#define PRK_VERSION_H

/*
 * As default_version in pg_replica_kit.control, which is what the SQL objects
 * get.  t/900_packaging.pl compares all places that have a version.
 */
#define PRK_KIT_VERSION "1.0"

#endif							/* PRK_VERSION_H */
