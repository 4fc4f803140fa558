/*-------------------------------------------------------------------------
 *
 * slow_disk.c
 *	  A disk of WAL that takes as many bytes a second as a test says, for one
 *	  server only.
 *
 * To be put into LD_PRELOAD.  The file that PRK_SLOW_DISK names holds that
 * number, a native 64-bit integer, 0 for a disk like any other; it is mapped,
 * so that a change is seen at once by all processes.  As with a disk whose
 * cache is the system's, writing takes no time; flushing does.
 *
 * IDENTIFICATION
 *	  test/slow_disk.c
 *
 *-------------------------------------------------------------------------
 */
#include <fcntl.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

/* The server's flags hide what is not marked. */
#define EXPORT __attribute__((visibility("default")))

/* Nobody waits for one flush longer than this, in microseconds. */
#define MAX_WAIT	30000000

static volatile const int64_t *bytes_per_second;

/* What this process has written and not flushed. */
static int64_t unflushed;

static int64_t
get_rate(void)
{
	if (bytes_per_second == NULL)
	{
		const char *path = getenv("PRK_SLOW_DISK");
		int			fd = path != NULL ? open(path, O_RDONLY) : -1;
		void	   *map;

		if (fd < 0)
			return 0;
		map = mmap(NULL, sizeof(int64_t), PROT_READ, MAP_SHARED, fd, 0);
		close(fd);
		if (map == MAP_FAILED)
			return 0;
		bytes_per_second = map;
	}
	return *bytes_per_second;
}

/* Waits in small steps, so that a disk that gets well is so at once. */
static void
flush(void)
{
	int64_t		waited = 0;
	int64_t		rate;

	while ((rate = get_rate()) > 0 && waited < MAX_WAIT &&
		   waited < (int64_t) ((double) unflushed / rate * 1000000))
	{
		usleep(20000);
		waited += 20000;
	}
	unflushed = 0;
}

EXPORT ssize_t
pwrite64(int fd, const void *buf, size_t count, off64_t offset)
{
	ssize_t		result = syscall(SYS_pwrite64, fd, buf, count, offset);

	if (result > 0)
		unflushed += result;
	return result;
}

EXPORT ssize_t
pwrite(int fd, const void *buf, size_t count, off_t offset)
{
	return pwrite64(fd, buf, count, offset);
}

EXPORT int
fdatasync(int fd)
{
	flush();
	return syscall(SYS_fdatasync, fd);
}

EXPORT int
fsync(int fd)
{
	flush();
	return syscall(SYS_fsync, fd);
}
