/*
 * zone_access.h - the few lookups that every allocation and free makes, inline. Apart
 * from zone.h, because they need the whole state, of which zones are a part.
 */
#ifndef ENGINE_ZONE_ACCESS_H
#define ENGINE_ZONE_ACCESS_H

#include "../state.h"
#include "page_alloc.h"

static inline struct zone *zone_at(const struct engine *e, u32 zone)
{
	return &e->st->frames.zone[zone];
}

static inline u32 frame_zone(const struct engine *e, pfn_t pfn)
{
	const pfn_t *bound = e->st->frames.zone_bound;

	return (u32)(pfn >= bound[0]) + (u32)(pfn >= bound[1]) + (u32)(pfn >= bound[2]);
}

/* The head's descriptor of the allocated block that a frame is in; NULL: it is in none. */
static inline struct page *frame_block(const struct engine *e, pfn_t pfn)
{
	struct page *p = &e->mem_map[pfn];

	if (pfn >= e->st->layout.max_pfn)
		return NULL;
	/* Mostly it is the first of its block. */
	if (__builtin_expect(!(p->flags & PAGE_HEAD), 0)) {
		pfn = page_block_head(e, pfn);
		if (!pfn)
			return NULL;
		p = &e->mem_map[pfn];
	}
	return page_state(p) > FRAME_PCP ? p : NULL;
}

/* The first of a block that AllocPages gave, and nothing but allocated? */
static inline bool page_is_plain(const struct page *p)
{
	return (p->flags & (PAGE_HEAD | PAGE_STATE_MASK)) == (PAGE_HEAD | FRAME_ALLOCATED);
}

/* One byte for each pageblock, shifted by the zone: where a zone does not end on a
 * pageblock's border, both zones have an entry for the pageblock, as in Linux. Types
 * are stored XOR MOVABLE, so that zeros say MOVABLE. */
static inline u8 *pageblock_entry(const struct engine *e, u32 zone, pfn_t pfn)
{
	return e->pageblocks + (pfn >> e->st->layout.pageblock_order) + zone;
}

/* Migratetype of a pageblock. */
static inline u32 pageblock_type(const struct engine *e, u32 zone, pfn_t pfn)
{
	return *pageblock_entry(e, zone, pfn) ^ MIGRATE_MOVABLE;
}

static inline void pageblock_set_type(struct engine *e, u32 zone, pfn_t pfn, u32 type)
{
	*pageblock_entry(e, zone, pfn) = (u8)(type ^ MIGRATE_MOVABLE);
}

/* Adds to a zone's count of free pages, through this CPU's difference as Linux
 * does, so that the marks see the count late by up to stat_threshold. */
static inline void zone_add_free(struct engine *e, u32 zone, s32 pages)
{
	struct zone *z = zone_at(e, zone);
	s32 *diff = &z->pcp[e->op_cpu].free_diff, now = *diff + pages;

	*diff = now;
	if ((u32)(now < 0 ? -now : now) > z->stat_threshold)
		zone_fold_diff(e, zone, diff);
}

#endif
