/*-------------------------------------------------------------------------
 *
 * wall_clock.c
 *	  A machine's wall clock that a test can set, for one server only.
 *
 * To be put into LD_PRELOAD.  The file that PRK_WALL_CLOCK names holds the
 * number of seconds, a native 64-bit integer, by which the wall clock is
 * ahead, and another such of those that the machine has slept, which the time
 * since its boot counts, too; it is mapped, so that a change is seen at once by
 * all processes.
 *
 * IDENTIFICATION
 *	  test/wall_clock.c
 *
 *-------------------------------------------------------------------------
 */
#include <fcntl.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

/* The server's flags hide what is not marked. */
#define EXPORT __attribute__((visibility("default")))

static volatile const int64_t *numbers;

/* Number 0 or 1 of the file; 0 without it. */
static int64_t
get_number(int index)
{
	if (numbers == NULL)
	{
		const char *path = getenv("PRK_WALL_CLOCK");
		int			fd = path != NULL ? open(path, O_RDONLY) : -1;
		void	   *map;

		if (fd < 0)
			return 0;
		map = mmap(NULL, 2 * sizeof(int64_t), PROT_READ, MAP_SHARED, fd, 0);
		close(fd);
		if (map == MAP_FAILED)
			return 0;
		numbers = map;
	}
	return numbers[index];
}

EXPORT int
clock_gettime(clockid_t id, struct timespec *now)
{
	int			result = syscall(SYS_clock_gettime, id, now);

	if (result == 0 && id == CLOCK_REALTIME)
		now->tv_sec += get_number(0);
	if (result == 0 && (id == CLOCK_REALTIME || id == CLOCK_BOOTTIME))
		now->tv_sec += get_number(1);
	return result;
}

EXPORT int
gettimeofday(struct timeval *restrict now, void *restrict zone)
{
	struct timespec time;

	if (clock_gettime(CLOCK_REALTIME, &time) != 0)
		return -1;
	now->tv_sec = time.tv_sec;
	now->tv_usec = time.tv_nsec / 1000;
	return 0;
}

EXPORT time_t
time(time_t *result)
{
	struct timespec now;

	clock_gettime(CLOCK_REALTIME, &now);
	if (result != NULL)
		*result = now.tv_sec;
	return now.tv_sec;
}
