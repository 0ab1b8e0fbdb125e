/*
 * malloc.c - what the daemon's own code gets when it calls malloc and its like (the
 * linker's --wrap): the C library's, and when that has no memory, the reserve's.
 *
 * Code outside this program that asks through our hooks (libuv, nghttp2) comes here too.
 */
#include <stdlib.h>

#include "reserve.h"

void *__real_malloc(size_t size);
void *__real_calloc(size_t nr, size_t size);
void *__real_realloc(void *bytes, size_t size);
void *__wrap_malloc(size_t size);
void *__wrap_calloc(size_t nr, size_t size);
void *__wrap_realloc(void *bytes, size_t size);

/* More than the reserve is no bookkeeping: whoever asks must live without. */
enum { LARGE = 1 << 20 };

/* Another thread may have been faster to release it: then there is memory, too. */
static bool may_have_more(size_t size)
{
	if (size > LARGE)
		return false;
	reserve_release();
	return true;
}

void *__wrap_malloc(size_t size)
{
	void *bytes = __real_malloc(size);

	return bytes || !may_have_more(size) ? bytes : __real_malloc(size);
}

void *__wrap_calloc(size_t nr, size_t size)
{
	void *bytes = __real_calloc(nr, size);

	return bytes || (nr && size > LARGE / nr) || !may_have_more(nr * size)
		   ? bytes
		   : __real_calloc(nr, size);
}

void *__wrap_realloc(void *bytes, size_t size)
{
	void *moved = __real_realloc(bytes, size);

	return moved || !size || !may_have_more(size) ? moved : __real_realloc(bytes, size);
}
