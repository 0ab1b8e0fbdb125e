/*
 * random.h - a generator for tests: xorshift64*. The seed is printed by whoever makes it.
 */
#ifndef TESTS_ENGINE_RANDOM_H
#define TESTS_ENGINE_RANDOM_H

#include "types.h"

struct random {
	u64 state; /* not 0 */
};

static inline u64 random_next(struct random *r)
{
	r->state ^= r->state >> 12;
	r->state ^= r->state << 25;
	r->state ^= r->state >> 27;
	return r->state * 0x2545f4914f6cdd1dULL;
}

/* Evenly from 0 to n - 1; n > 0. */
static inline u64 random_below(struct random *r, u64 n)
{
	return (random_next(r) >> 11) % n;
}

#endif
