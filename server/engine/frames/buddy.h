/*
 * buddy.h - the free lists of a zone: split, merge, and what happens when the
 * wanted migratetype has run out.
 *
 * Mirrors Linux 6.1's __rmqueue() and __free_one_page(). None of these looks at
 * watermarks or, but for one that says so, counts free pages: that is the caller's
 * (zone_add_free).
 */
#ifndef ENGINE_BUDDY_H
#define ENGINE_BUDDY_H

#include "list.h"
#include "zone_access.h"

/* Where a free block goes: FREE_NATURAL is Linux's rule (to the tail when its next
 * higher buddy is free, since the two may soon merge; else to the head). */
enum free_where {
	FREE_NATURAL,
	FREE_TAIL,
};

/* Takes a block of this order off the lists of `type`, splitting a larger one; then,
 * for the three that may fall back, off another type's. 0: none. The frame's flags
 * are left zero. */
pfn_t buddy_take(struct engine *e, u32 zone, u32 order, u32 type);

/* What buddy_take() would take, called again and again, as long as each block lies behind
 * the one before; `most` at most. Returns how many. */
u32 buddy_take_run(struct engine *e, u32 zone, u32 order, u32 type, u32 most, pfn_t *ret_first);

/* buddy_take() where there is a block of just this order; else 0. */
static inline pfn_t buddy_pop(struct engine *e, u32 zone, u32 order, u32 type)
{
	return list_take(e->mem_map, &zone_at(e, zone)->free_list[order][type]);
}

/* As buddy_take(), from the lists of `type` alone. */
pfn_t buddy_take_exact(struct engine *e, u32 zone, u32 order, u32 type);

/* Puts a block onto the lists of `type`, merging it with its free buddies. */
void buddy_free(struct engine *e, u32 zone, pfn_t pfn, u32 order, u32 type, enum free_where where);

/* The same for a per-CPU list's last blocks, all of this order, until so many pages have gone
 * or none is left; counts them. Returns the pages. */
u32 buddy_free_oldest(struct engine *e, u32 zone, struct pfn_list *list, u32 order, u32 pages);

/* Puts a block onto a list's tail as it is, without merging. */
void buddy_append(struct engine *e, u32 zone, pfn_t pfn, u32 order, u32 type);

/* Whether a zone has a free block of at least this order that a request may take:
 * of the three ordinary types, or HIGHATOMIC where it may use that. */
static inline bool buddy_has(const struct zone *z, u32 order, bool highatomic)
{
	for (u32 o = order; o <= MAX_ORDER; o++) {
		const struct pfn_list *l = z->free_list[o];

		if (l[MIGRATE_MOVABLE].nr || l[MIGRATE_UNMOVABLE].nr || l[MIGRATE_RECLAIMABLE].nr ||
		    (highatomic && l[MIGRATE_HIGHATOMIC].nr))
			return true;
	}
	return z->frontier.blocks != 0;
}

/* Keeps the pageblock of a block just allocated for atomic requests, unless the
 * zone has enough of them. */
void buddy_reserve_highatomic(struct engine *e, u32 zone, pfn_t pfn);

/* Is the buddy of this block of an order below MAX_ORDER free, so that the two would
 * have to be one? */
bool buddy_is_mergeable(struct engine *e, u32 zone, pfn_t pfn, u32 order);

/* Blocks on a free list, the frontier's included. */
u32 buddy_count(const struct zone *z, u32 order, u32 type);

#endif
