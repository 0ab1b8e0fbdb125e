/*
 * numbers.h - tables of numbered objects: tasks, files, DMA handles.
 *
 * Numbers count from 1 and are never used again, so a table is a sequence in
 * order of number: a new object goes to the end, and finding one is a binary
 * search. Entries lie in slab objects of 1 KiB; taking one out closes the gap.
 */
#ifndef ENGINE_NUMBERS_H
#define ENGINE_NUMBERS_H

#include "../types.h"

struct engine;

enum {
	NUMBERS_PER_LEAF = 128,
	NUMBERS_LEAVES = 128,
	NUMBERS_MAX = NUMBERS_PER_LEAF * NUMBERS_LEAVES, /* objects alive in one table */
};

struct numbered {
	u32 number;
	ref_t object;
};

struct number_table {
	u32 last; /* number given out last */
	u32 nr;	  /* objects alive */
	ref_t leaf[NUMBERS_LEAVES];
};

/* Makes sure that the next numbers_add() cannot fail: OK, NO_MEMORY, or LIMIT
 * when NUMBERS_MAX objects are alive or no number is left. What it allocates
 * stays until numbers_trim(). */
u32 numbers_reserve(struct engine *e, struct number_table *t);

/* Gives back what a reserve took and no add has used. */
void numbers_trim(struct engine *e, struct number_table *t);

/* Puts an object at the end, after a successful reserve, and returns its number. */
u32 numbers_add(struct engine *e, struct number_table *t, ref_t object);

/* 0: no such object. */
ref_t numbers_find(struct engine *e, const struct number_table *t, u32 number);

/* Takes an object out; it must be there. Its number is not used again. */
void numbers_remove(struct engine *e, struct number_table *t, u32 number);

/* The i-th object in order of number, for walks; i < t->nr. */
ref_t numbers_at(const struct engine *e, const struct number_table *t, u32 i);

/* Are the numbers in order, and the leaves as many as needed? */
bool numbers_check(const struct engine *e, const struct number_table *t);

#endif
