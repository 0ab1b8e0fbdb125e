/*
 * bench.h - timing for the benches: alternate, repeat, take the median.
 */
#ifndef TESTS_BENCH_H
#define TESTS_BENCH_H

#include <stdint.h>
#include <stdlib.h>
#include <time.h>

enum { BENCH_ROUNDS = 7 };

static inline double bench_now(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (double)t.tv_sec * 1e9 + (double)t.tv_nsec;
}

static inline int bench_compare(const void *a, const void *b)
{
	double x = *(const double *)a, y = *(const double *)b;

	return (x > y) - (x < y);
}

static inline double bench_median(double *values, unsigned nr)
{
	qsort(values, nr, sizeof *values, bench_compare);
	return values[nr / 2];
}

/* xorshift: the same order of frees in every run. */
static inline uint32_t bench_random(uint32_t *state)
{
	*state ^= *state << 13;
	*state ^= *state >> 17;
	*state ^= *state << 5;
	return *state;
}

#endif
