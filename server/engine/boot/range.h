/*
 * range.h - the arithmetic of physical ranges that layout, memblock and boot share.
 */
#ifndef ENGINE_RANGE_H
#define ENGINE_RANGE_H

#include "../engine.h"

static inline u64 min_u64(u64 a, u64 b)
{
	return a < b ? a : b;
}

static inline u64 max_u64(u64 a, u64 b)
{
	return a > b ? a : b;
}

static inline u64 range_end(struct engine_range r)
{
	return r.start + r.size;
}

static inline struct engine_range range_of_frames(pfn_t start, pfn_t end)
{
	return (struct engine_range){(u64)start << PAGE_SHIFT, (u64)(end - start) << PAGE_SHIFT};
}

/* An empty range overlaps nothing. */
static inline bool range_overlaps(struct engine_range r, u64 start, u64 end)
{
	return r.size && r.start < end && start < range_end(r);
}

#endif
