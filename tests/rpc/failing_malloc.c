/*
 * failing_malloc.c - linked into a daemon, takes the place of the C library's malloc for
 * it and for every library that it uses. glibc keeps its own under other names.
 */
#include "failing_malloc.h"

#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

void *__libc_malloc(size_t size);
void *__libc_calloc(size_t nr, size_t size);
void *__libc_realloc(void *bytes, size_t size);

static struct failing_malloc *control;

__attribute__((constructor)) static void take_control(void)
{
	const char *path = getenv(FAILING_MALLOC_ENV);
	int fd = path ? open(path, O_RDWR | O_CLOEXEC) : -1;
	void *map;

	if (fd < 0)
		return;
	map = mmap(NULL, sizeof *control, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	close(fd);
	if (map != MAP_FAILED)
		control = map;
}

/* A thread's call after one that failed passes: it may be the daemon's own, which has a
 * reserve for it. Another thread's calls in between must not change that. */
static _Thread_local bool just_failed;

static bool fails(void)
{
	if (just_failed) {
		just_failed = false;
		return false;
	}
	if (!control || atomic_load(&control->countdown) <= 0)
		return false;
	if (atomic_fetch_sub(&control->countdown, 1) != 1)
		return false;
	if (atomic_load(&control->more) > 0 && atomic_fetch_sub(&control->more, 1) > 0)
		atomic_store(&control->countdown, 1);
	just_failed = true;
	atomic_store(&control->failed, 1);
	errno = ENOMEM;
	return true;
}

void *malloc(size_t size)
{
	return fails() ? NULL : __libc_malloc(size);
}

void *calloc(size_t nr, size_t size)
{
	return fails() ? NULL : __libc_calloc(nr, size);
}

void *realloc(void *bytes, size_t size)
{
	return fails() ? NULL : __libc_realloc(bytes, size);
}
