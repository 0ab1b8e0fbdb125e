/*
 * failing_malloc.h - what a test and a daemon whose malloc can fail share: a file that
 * both map. The daemon finds it by its environment.
 */
#ifndef TESTS_RPC_FAILING_MALLOC_H
#define TESTS_RPC_FAILING_MALLOC_H

#include <stdatomic.h>

#define FAILING_MALLOC_ENV "ZONED_TEST_MALLOC"

struct failing_malloc {
	/* Calls of malloc, calloc and realloc, by whomever in the process, until one fails,
	 * that one included; 0: none fails. */
	atomic_long countdown;
	/* So many more fail after that, but never two in a row of one thread: who has a
	 * reserve gets on with it, others fail again and again. */
	atomic_long more;
	atomic_long failed; /* 1: it has */
};

#endif
