/*-------------------------------------------------------------------------
 *
 * sanitize_memory.c
 *	  Lets AddressSanitizer see the memory that palloc() and its like hand out.
 *
 * AddressSanitizer knows blocks of malloc(); palloc() cuts many pieces out of
 * one, and a step from one piece into the next goes unnoticed.  Where the kit
 * is built with "make SANITIZE=yes", the linker puts these functions in the
 * place of the server's, for the kit's own calls (ld --wrap).  They ask for so
 * much more that the piece becomes a block of its own, freed together with its
 * context as ever, and forbid the bytes behind and before it.  To the server,
 * whose own code is not instrumented, nothing has changed.
 *
 * Never a part of what is installed.
 *
 * IDENTIFICATION
 *	  test/sanitize_memory.c
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include <sanitizer/asan_interface.h>

#include "lib/stringinfo.h"
#include "utils/builtins.h"
#include "utils/memutils.h"

/* More than the chunks that aset.c puts together in one block. */
#define MARGIN		(8192 + 8)

/* What lies right before a piece says which context it is in. */
#define HEADER		8

extern void *__real_MemoryContextAlloc(MemoryContext context, Size size);
extern char *__real_text_to_cstring(const text *t);
extern void __real_initStringInfo(StringInfo str);

extern void *__wrap_MemoryContextAlloc(MemoryContext context, Size size);
extern void *__wrap_MemoryContextAllocZero(MemoryContext context, Size size);
extern void *__wrap_MemoryContextAllocZeroAligned(MemoryContext context,
												  Size size);
extern void *__wrap_palloc(Size size);
extern void *__wrap_palloc0(Size size);
extern void *__wrap_palloc_extended(Size size, int flags);
extern char *__wrap_MemoryContextStrdup(MemoryContext context,
										const char *string);
extern char *__wrap_pstrdup(const char *in);
extern char *__wrap_pnstrdup(const char *in, Size len);
extern char *__wrap_psprintf(const char *fmt,...) pg_attribute_printf(1, 2);
extern char *__wrap_text_to_cstring(const text *t);
extern void __wrap_initStringInfo(StringInfo str);

void *
__wrap_MemoryContextAlloc(MemoryContext context, Size size)
{
	char	   *piece = __real_MemoryContextAlloc(context, size + MARGIN);

	ASAN_POISON_MEMORY_REGION(piece - HEADER, HEADER);
	ASAN_POISON_MEMORY_REGION(piece + size, MARGIN);
	return piece;
}

void *
__wrap_MemoryContextAllocZero(MemoryContext context, Size size)
{
	return memset(__wrap_MemoryContextAlloc(context, size), 0, size);
}

void *
__wrap_MemoryContextAllocZeroAligned(MemoryContext context, Size size)
{
	return __wrap_MemoryContextAllocZero(context, size);
}

void *
__wrap_palloc(Size size)
{
	return __wrap_MemoryContextAlloc(CurrentMemoryContext, size);
}

void *
__wrap_palloc0(Size size)
{
	return __wrap_MemoryContextAllocZero(CurrentMemoryContext, size);
}

/* No flag makes a difference here: nothing asked for is huge, or may fail. */
void *
__wrap_palloc_extended(Size size, int flags)
{
	return (flags & MCXT_ALLOC_ZERO) ? __wrap_palloc0(size) :
		__wrap_palloc(size);
}

char *
__wrap_MemoryContextStrdup(MemoryContext context, const char *string)
{
	size_t		size = strlen(string) + 1;

	return memcpy(__wrap_MemoryContextAlloc(context, size), string, size);
}

char *
__wrap_pstrdup(const char *in)
{
	return __wrap_MemoryContextStrdup(CurrentMemoryContext, in);
}

char *
__wrap_pnstrdup(const char *in, Size len)
{
	size_t		used = strnlen(in, len);
	char	   *copy = __wrap_palloc(used + 1);

	copy[used] = '\0';
	return memcpy(copy, in, used);
}

char *
__wrap_psprintf(const char *fmt,...)
{
	int			save_errno = errno;
	va_list		args;
	int			len;
	char	   *result;

	va_start(args, fmt);
	len = vsnprintf(NULL, 0, fmt, args);
	va_end(args);
	result = __wrap_palloc(len + 1);
	errno = save_errno;
	va_start(args, fmt);
	vsnprintf(result, len + 1, fmt, args);
	va_end(args);
	return result;
}

char *
__wrap_text_to_cstring(const text *t)
{
	char	   *plain = __real_text_to_cstring(t);
	char	   *copy = __wrap_pstrdup(plain);

	pfree(plain);
	return copy;
}

/* Until the server enlarges it; it may use all of its room. */
void
__wrap_initStringInfo(StringInfo str)
{
	__real_initStringInfo(str);
	pfree(str->data);
	str->data = __wrap_palloc(str->maxlen);
	str->data[0] = '\0';
}
