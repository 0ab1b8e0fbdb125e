/*
 * areas.h - ordered maps of address ranges that do not overlap: VMAs of an mm,
 * areas of the vmalloc window.
 *
 * Sorted leaves of 1 KiB under a directory of {first, last, largest gap, leaf},
 * both in 1 KiB slab objects. Finding, inserting, removing and
 * "lowest (highest) hole that fits" cost a search of the directory and one leaf.
 */
#ifndef ENGINE_AREAS_H
#define ENGINE_AREAS_H

#include "../types.h"

struct engine;

enum {
	AREA_OBJECT_BYTES = 1024,
	/* Of at most 42 areas each; leaves that have split are half full, so room for
	 * 344,064 areas and more. A window of 1 GiB holds 131,072 of one page. */
	AREA_MAX_LEAVES = 16384,
};

struct area {
	va_t start, end; /* end is the first address after; never 0 */
	u32 kind;	 /* the user's */
	u32 a, b, c;	 /* the user's */
};

struct area_map {
	ref_t directory; /* 0: empty */
	u32 nr_leaves, nr_areas;
	ref_t spare; /* objects set aside by area_reserve() */
};

/* The area that contains va, or (find_next) the first that ends above it. NULL:
 * none. The pointer holds until the map changes. */
struct area *area_find(struct engine *e, struct area_map *m, va_t va);
struct area *area_find_next(struct engine *e, struct area_map *m, va_t va);
/* The last area that begins below va. */
struct area *area_find_prev(struct engine *e, struct area_map *m, va_t va);

/* Where the last area ends; 0: there is none. */
va_t area_map_end(struct engine *e, const struct area_map *m);

/* OK, NO_MEMORY, or LIMIT when the directory is full. The range must be free. */
u32 area_insert(struct engine *e, struct area_map *m, const struct area *area);
/* Makes sure that the next `nr` inserts cannot fail. What they do not need stays
 * with the map for the next time. */
u32 area_reserve(struct engine *e, struct area_map *m, u32 nr);
/* Removes the area that begins at start, which must be there. */
void area_remove(struct engine *e, struct area_map *m, va_t start);
/* Removes every area of a kind, from the lowest up: where the first began and the last
 * ended. 0 and 0: there was none. */
void area_remove_kind(struct engine *e, struct area_map *m, u32 kind, va_t *ret_start,
		      va_t *ret_end);
/* Changes the ends of an area in place; neighbours must leave room. */
void area_resize(struct engine *e, struct area_map *m, va_t start, va_t new_start, va_t new_end);

/* A hole of `size` bytes in [low, high), aligned to a power of two. 0: none. */
va_t area_lowest_fit(struct engine *e, struct area_map *m, va_t low, va_t high, u32 size,
		     u32 align);
va_t area_highest_fit(struct engine *e, struct area_map *m, va_t low, va_t high, u32 size,
		      u32 align);

/* Removes every area and frees the map's own memory. */
void area_map_clear(struct engine *e, struct area_map *m);

/* Recounts a map: NULL, or what is wrong with it. */
const char *area_map_check(struct engine *e, struct area_map *m);

#endif
