/*-------------------------------------------------------------------------
 *
 * fault.c
 *	  Make system calls of one server process fail, for the tests.
 *
 * Loaded into a test's server by LD_PRELOAD, never a part of the extension.
 * PRK_FAULT names a file of struct Control, mapped by every process.  The one
 * whose pid the test writes there counts its calls that concern pg_hba.conf or
 * pg_replslot, and at the call whose number is wanted does what the test asks.
 *
 * A call that "fails" is not made.  One that acts "after" is made first.
 *
 * IDENTIFICATION
 *	  t/fault/fault.c
 *
 *-------------------------------------------------------------------------
 */
#define _GNU_SOURCE

#include <dirent.h>
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

/* What to do at the call. */
enum Action
{
	COUNT,						/* nothing */
	FAIL,						/* return an error */
	KILL_BEFORE,				/* SIGKILL this process, the call not made */
	KILL_AFTER,					/* the same, the call made */
	CRASH_BEFORE,				/* SIGKILL the whole server */
	CRASH_AFTER,
	RUN_BEFORE,					/* run a shell command, then go on */
	RUN_AFTER
};

/* As the tests write it: t/fault/Fault.pm */
struct Control
{
	int32_t		pid;			/* 0: nobody */
	int32_t		action;
	int32_t		call;			/* from 1; 0: none */
	int32_t		error;			/* an errno */
	int32_t		from_then_on;	/* FAIL: the later calls, too */
	int32_t		count;			/* of calls, set by the process */
	int32_t		hits;			/* how often it acted */
	char		command[1024];	/* RUN_*: for sh -c */
	char		only[64];		/* if set, count this function alone */
	char		trace[1024 * 64];	/* "function path\n", for messages */
};

static volatile struct Control *control;

__attribute__((constructor))
static void
map_control(void)
{
	const char *path = getenv("PRK_FAULT");
	int			fd;

	if (path == NULL)
		return;
	fd = syscall(SYS_openat, AT_FDCWD, path, O_RDWR | O_CLOEXEC, 0);
	if (fd < 0)
		return;
	control = mmap(NULL, sizeof(struct Control), PROT_READ | PROT_WRITE,
				   MAP_SHARED, fd, 0);
	if (control == MAP_FAILED)
		control = NULL;
	syscall(SYS_close, fd);
}

/* The postmaster and all of its children. */
static void
crash(void)
{
	char		path[64];
	char		pids[8192];
	pid_t		postmaster = getppid();
	ssize_t		len = 0;
	int			fd;

	snprintf(path, sizeof(path), "/proc/%d/task/%d/children",
			 (int) postmaster, (int) postmaster);
	fd = syscall(SYS_openat, AT_FDCWD, path, O_RDONLY, 0);
	if (fd >= 0)
		len = syscall(SYS_read, fd, pids, sizeof(pids) - 1);
	pids[len > 0 ? len : 0] = '\0';
	kill(postmaster, SIGKILL);
	for (char *pid = strtok(pids, " "); pid != NULL; pid = strtok(NULL, " "))
	{
		if (atoi(pid) != getpid())
			kill(atoi(pid), SIGKILL);
	}
	kill(getpid(), SIGKILL);
}

/* A command in another process, without this library, at most 10 s long. */
static void
run(void)
{
	pid_t		child = fork();
	int			status;

	if (child == 0)
	{
		unsetenv("LD_PRELOAD");
		unsetenv("PRK_FAULT");
		alarm(10);
		execl("/bin/sh", "sh", "-c", (const char *) control->command, NULL);
		_exit(127);
	}
	if (child > 0)
		while (waitpid(child, &status, 0) < 0 && errno == EINTR)
			;
}

/* Is this a call to count?  Then its number, else 0. */
static int
count_call(const char *function, const char *path)
{
	int			number;
	size_t		len;

	if (control == NULL || control->pid != getpid() || path == NULL ||
		(strstr(path, "pg_hba.conf") == NULL &&
		 strstr(path, "pg_replslot") == NULL))
		return 0;
	if (control->only[0] != '\0' &&
		strcmp((const char *) control->only, function) != 0)
		return 0;

	number = ++control->count;
	len = strlen((const char *) control->trace);
	if (len + strlen(function) + strlen(path) + 3 < sizeof(control->trace))
		sprintf((char *) control->trace + len, "%s %s\n", function, path);
	return number;
}

static int
is_due(int number)
{
	return number > 0 && control->call > 0 &&
		(number == control->call ||
		 (number > control->call && control->from_then_on));
}

/* True if the call is to fail; errno is set. */
static int
before(int number)
{
	int			save_errno = errno;

	if (!is_due(number))
		return 0;
	switch (control->action)
	{
		case FAIL:
			control->hits++;
			errno = control->error;
			return 1;
		case KILL_BEFORE:
			control->hits++;
			kill(getpid(), SIGKILL);
			break;
		case CRASH_BEFORE:
			control->hits++;
			crash();
			break;
		case RUN_BEFORE:
			control->hits++;
			run();
			break;
	}
	errno = save_errno;
	return 0;
}

static void
after(int number)
{
	int			save_errno = errno;

	if (!is_due(number))
		return;
	switch (control->action)
	{
		case KILL_AFTER:
			control->hits++;
			kill(getpid(), SIGKILL);
			break;
		case CRASH_AFTER:
			control->hits++;
			crash();
			break;
		case RUN_AFTER:
			control->hits++;
			run();
			break;
	}
	errno = save_errno;
}

/* What a descriptor is open on; NULL unless this process is the one. */
static const char *
path_of(int fd)
{
	static char path[4096];
	char		link[64];
	ssize_t		len;
	int			save_errno = errno;

	if (control == NULL || control->pid != getpid())
		return NULL;
	snprintf(link, sizeof(link), "/proc/self/fd/%d", fd);
	len = syscall(SYS_readlinkat, AT_FDCWD, link, path, sizeof(path) - 1);
	errno = save_errno;
	if (len < 0)
		return NULL;
	path[len] = '\0';
	return path;
}

/* A function like the C library's, around it. */
#define AROUND(type, name, failed, path, parameters, arguments) \
type \
name parameters \
{ \
	static type (*real) parameters; \
	int			number = count_call(#name, path); \
	type		result; \
\
	if (real == NULL) \
		real = (type (*) parameters) dlsym(RTLD_NEXT, #name); \
	if (before(number)) \
		return failed; \
	result = real arguments; \
	after(number); \
	return result; \
}

AROUND(FILE *, fopen, NULL, path, (const char *path, const char *mode), (path, mode))
AROUND(DIR *, opendir, NULL, path, (const char *path), (path))
AROUND(int, rename, -1, to, (const char *from, const char *to), (from, to))
AROUND(int, link, -1, to, (const char *from, const char *to), (from, to))
AROUND(int, unlink, -1, path, (const char *path), (path))
AROUND(int, mkdir, -1, path, (const char *path, mode_t mode), (path, mode))
AROUND(int, rmdir, -1, path, (const char *path), (path))
AROUND(int, stat, -1, path, (const char *path, struct stat *st), (path, st))
AROUND(int, lstat, -1, path, (const char *path, struct stat *st), (path, st))
AROUND(int, fstat, -1, path_of(fd), (int fd, struct stat *st), (fd, st))
AROUND(int, fchmod, -1, path_of(fd), (int fd, mode_t mode), (fd, mode))
AROUND(int, fchown, -1, path_of(fd), (int fd, uid_t uid, gid_t gid), (fd, uid, gid))
AROUND(ssize_t, read, -1, path_of(fd), (int fd, void *buf, size_t len), (fd, buf, len))
AROUND(ssize_t, write, -1, path_of(fd), (int fd, const void *buf, size_t len), (fd, buf, len))

/*
 * Nothing is synced: a process that is killed leaves what it wrote to the
 * system all the same, and the tests take a fraction of the time.
 */
int
fsync(int fd)
{
	int			number = count_call("fsync", path_of(fd));

	if (before(number))
		return -1;
	after(number);
	return 0;
}

int
fdatasync(int fd)
{
	return fsync(fd);
}

int
open(const char *path, int flags,...)
{
	static int	(*real) (const char *, int,...);
	int			number = count_call("open", path);
	int			result;
	mode_t		mode;
	va_list		args;

	va_start(args, flags);
	mode = va_arg(args, int);
	va_end(args);
	if (real == NULL)
		real = (int (*) (const char *, int,...)) dlsym(RTLD_NEXT, "open");
	if (before(number))
		return -1;
	result = real(path, flags, mode);
	after(number);
	return result;
}

/* The descriptor is closed even where the call fails, as Linux does. */
int
close(int fd)
{
	int			number = count_call("close", path_of(fd));
	int			result;
	int			fails = before(number);
	int			error = errno;

	result = syscall(SYS_close, fd);
	if (fails)
	{
		errno = error;
		return -1;
	}
	after(number);
	return result;
}

/* The C library has no function for an exchange on every system. */
long
syscall(long which,...)
{
	static long (*real) (long,...);
	long		arg[6];
	int			number = 0;
	long		result;
	va_list		args;

	va_start(args, which);
	for (int i = 0; i < 6; i++)
		arg[i] = va_arg(args, long);
	va_end(args);
	if (real == NULL)
		real = (long (*) (long,...)) dlsym(RTLD_NEXT, "syscall");
	if (which == SYS_renameat2)
		number = count_call("exchange", (const char *) arg[3]);
	if (before(number))
		return -1;
	result = real(which, arg[0], arg[1], arg[2], arg[3], arg[4], arg[5]);
	after(number);
	return result;
}
