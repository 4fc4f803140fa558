/*-------------------------------------------------------------------------
 *
 * sampler.c
 *	  What one sample costs, measured from inside: for bench/sample_cost only.
 *
 * It is compiled together with the sampler's own files, and loaded into a
 * throw-away server; nothing of it is installed.
 *
 * IDENTIFICATION
 *	  bench/sampler.c
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include <sys/resource.h>

#include "fmgr.h"
#include "utils/memutils.h"

#include "sample/sample.h"

PG_MODULE_MAGIC;

PG_FUNCTION_INFO_V1(bench_cpu);
PG_FUNCTION_INFO_V1(bench_sample);

static double cpu_seconds(void);

/* bench_cpu() - CPU seconds this backend has used, user and system. */
Datum
bench_cpu(PG_FUNCTION_ARGS)
{
	PG_RETURN_FLOAT8(cpu_seconds());
}

/*
 * bench_sample(loops, cached) - CPU microseconds per sample; cached as the
 * worker takes them, else as status() does.
 */
Datum
bench_sample(PG_FUNCTION_ARGS)
{
	int32		loops = PG_GETARG_INT32(0);
	bool		cached = PG_GETARG_BOOL(1);
	MemoryContext context = AllocSetContextCreate(CurrentMemoryContext,
												  "bench_sample",
												  ALLOCSET_DEFAULT_SIZES);
	PrkSampleCache *cache = NULL;
	double		start;

	if (cached)
		cache = prk_sample_cache_create(CurrentMemoryContext);

	start = cpu_seconds();
	for (int i = 0; i < loops; i++)
	{
		MemoryContext old = MemoryContextSwitchTo(context);

		(void) prk_sample_take(cache);
		MemoryContextSwitchTo(old);
		MemoryContextReset(context);
	}

	PG_RETURN_FLOAT8((cpu_seconds() - start) * 1e6 / loops);
}

static double
cpu_seconds(void)
{
	struct rusage usage;

	getrusage(RUSAGE_SELF, &usage);
	return usage.ru_utime.tv_sec + usage.ru_stime.tv_sec +
		(usage.ru_utime.tv_usec + usage.ru_stime.tv_usec) / 1e6;
}
