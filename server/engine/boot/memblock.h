/*
 * memblock.h - the allocator before the allocator: two sorted arrays of regions,
 * memory and reserved.
 *
 * Invariants: regions are sorted, do not overlap, are not empty, and no two
 * neighbours touch (they would have merged). Arrays start in the state block and
 * double into memory of their own, allocated by memblock itself, when full.
 */
#ifndef ENGINE_MEMBLOCK_H
#define ENGINE_MEMBLOCK_H

#include "../engine.h"

enum { MEMBLOCK_INITIAL_REGIONS = 128 };

struct memblock_region {
	u64 start, size; /* bytes */
};

struct memblock_array {
	u32 nr, max;
	ref_t regions; /* 0: the initial array beside it */
	u32 reserved0;
	struct memblock_region initial[MEMBLOCK_INITIAL_REGIONS];
};

struct memblock {
	struct memblock_array array[2]; /* MEMBLOCK_MEMORY, MEMBLOCK_RESERVED */
	u64 limit;			/* allocations end here: end of lowmem */
};

/* Each returns a status. Ranges may overlap what is there; merging and cutting is
 * memblock's work. */
u32 memblock_add(struct engine *e, u64 start, u64 size);
u32 memblock_remove(struct engine *e, u64 start, u64 size);
u32 memblock_reserve(struct engine *e, u64 start, u64 size);
u32 memblock_free(struct engine *e, u64 start, u64 size);
/* Finds and reserves; see MemblockAlloc. ret_start is untouched on failure. */
u32 memblock_alloc(struct engine *e, u64 size, u64 align, u64 min, u64 max, u32 direction,
		   u64 *ret_start);

/* The next free range (memory and not reserved) at or after *cursor, clipped to
 * it; false when there is none. *cursor moves to its end. */
bool memblock_next_free(struct engine *e, u64 *cursor, struct engine_range *ret);

/* Does the array (MEMBLOCK_MEMORY, MEMBLOCK_RESERVED) hold all of the range? */
bool memblock_covers(struct engine *e, u32 which, struct engine_range range);

/* Is the frame RAM at all, and was it kept from the buddy? */
bool memblock_is_memory(struct engine *e, pfn_t pfn);
bool memblock_is_reserved(struct engine *e, pfn_t pfn);

#endif
