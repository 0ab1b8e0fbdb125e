/*
 * effort.h - how long a random test goes on. Its usual number of steps fits the budget
 * of `deploy/check`; under a sanitizer, where a step costs several times as much, a
 * fifth of them is taken; ZONED_TEST_LONG=1 (`deploy/check --long`) takes ten times as
 * many, sanitizer or not.
 */
#ifndef TESTS_EFFORT_H
#define TESTS_EFFORT_H

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define EFFORT_IS_DEAR 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer) || __has_feature(thread_sanitizer)
#define EFFORT_IS_DEAR 1
#endif
#endif

/* Not 0 for a `usual` that is not. */
static inline uint32_t effort(uint32_t usual)
{
	const char *text = getenv("ZONED_TEST_LONG");

	if (text && strcmp(text, "1") == 0)
		return usual * 10;
#ifdef EFFORT_IS_DEAR
	return (usual + 4) / 5;
#else
	return usual;
#endif
}

#endif
