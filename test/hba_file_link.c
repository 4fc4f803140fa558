/*-------------------------------------------------------------------------
 *
 * hba_file_link.c
 *	  src/hba/hba_file.c as it is where two files cannot exchange their names.
 *
 * IDENTIFICATION
 *	  test/hba_file_link.c
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#ifdef __linux__
#include <sys/syscall.h>
#undef SYS_renameat2
#endif

#include "../src/hba/hba_file.c"
