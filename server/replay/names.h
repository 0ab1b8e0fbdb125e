/*
 * names.h - which recorded name stands for which replayed one: ranges of numbers, each
 * bound to a range of the same length on the other side, or known to be absent there.
 */
#ifndef REPLAY_NAMES_H
#define REPLAY_NAMES_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct range {
	uint64_t start, length;
	uint64_t target; /* of start; NAME_ABSENT: there is none */
};

#define NAME_ABSENT UINT64_MAX

/* Disjoint ranges in order, in chunks, so that a million of them are as quick to change
 * as a few. Zero-initialise. */
struct names {
	struct chunk **chunks;
	size_t nr, max;
};

/* What was bound in [start, start + length) is forgotten; what reached beyond keeps its
 * rest. `length` is not 0, and nothing wraps around. */
void names_bind(struct names *n, uint64_t start, uint64_t length, uint64_t target);
void names_forget(struct names *n, uint64_t start, uint64_t length);
/* The first range that ends after `at`; NULL: none. Good until the next change. */
const struct range *names_from(const struct names *n, uint64_t at);
/* The range that holds `at`, or NULL. */
const struct range *names_find(const struct names *n, uint64_t at);
void names_copy(struct names *to, const struct names *from);
void names_free(struct names *n);

#endif
