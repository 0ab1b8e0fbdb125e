/*
 * buddy.c - the free lists of a zone: split, merge, fall back to other types.
 *
 * Invariants:
 *  1 A block on free_list[order][type] has flags page_head_flags(FRAME_FREE, order,
 *    type), is aligned to its order and lies in the zone; its other frames' flags
 *    are 0.
 *  2 A block's list need not be of its pageblock's type: pages come back from the
 *    per-CPU lists with the type they had when they went there.
 *  3 No two free buddies of the same order below MAX_ORDER are both free, except
 *    where one is in a HIGHATOMIC pageblock and blocks of pageblock_order and more
 *    must stay apart.
 *  4 The frontier is the end of free_list[MAX_ORDER][MOVABLE]. Nothing is ever
 *    added behind it: runtime frees of that order go to the head, and whole-block
 *    moves, which go to the tail, only meet it empty (asserted).
 *
 * Not modelled: isolation, CMA, compaction capture, guard pages.
 */
#include "buddy.h"
#include "../event.h"
#include "list.h"
#include "marks.h"
#include "route.h"
#include "zone_access.h"

/* Which types to try, in this order, when one has run out. Linux's fallbacks[]. */
static const u8 fallback_types[NR_PCP_TYPES][NR_PCP_TYPES - 1] = {
    [MIGRATE_UNMOVABLE] = {MIGRATE_RECLAIMABLE, MIGRATE_MOVABLE},
    [MIGRATE_MOVABLE] = {MIGRATE_RECLAIMABLE, MIGRATE_UNMOVABLE},
    [MIGRATE_RECLAIMABLE] = {MIGRATE_UNMOVABLE, MIGRATE_MOVABLE},
};

static bool may_merge(u32 type)
{
	return type < NR_PCP_TYPES;
}

static ALWAYS_INLINE void link_head(struct engine *e, struct zone *z, pfn_t pfn, u32 order,
				    u32 type)
{
	e->mem_map[pfn].flags = page_head_flags(FRAME_FREE, order, type);
	list_push_head(e->mem_map, &z->free_list[order][type], pfn);
}

static void link_tail(struct engine *e, struct zone *z, pfn_t pfn, u32 order, u32 type)
{
	ENGINE_ASSERT(e, order < MAX_ORDER || type != MIGRATE_MOVABLE || !z->frontier.blocks);
	e->mem_map[pfn].flags = page_head_flags(FRAME_FREE, order, type);
	list_push_tail(e->mem_map, &z->free_list[order][type], pfn);
}

static void unlink_block(struct engine *e, struct zone *z, pfn_t pfn)
{
	struct page *p = &e->mem_map[pfn];

	list_remove(e->mem_map, &z->free_list[page_order(p)][page_type(p)], pfn);
	p->flags = 0;
}

/* Is this frame the head of a free block of this order, of this zone? */
static bool is_free_block(const struct engine *e, const struct zone *z, pfn_t pfn, u32 order)
{
	return pfn - z->start < zone_spanned(z) &&
	       (e->mem_map[pfn].flags & (PAGE_HEAD | PAGE_ORDER_MASK | PAGE_STATE_MASK)) ==
		   page_head_flags(FRAME_FREE, order, 0);
}

u32 buddy_count(const struct zone *z, u32 order, u32 type)
{
	u32 frontier = order == MAX_ORDER && type == MIGRATE_MOVABLE ? z->frontier.blocks : 0;

	return z->free_list[order][type].nr + frontier;
}

/* ---- taking ---- */

/* Makes pieces of a block and takes the first `taken`. One after the other each would have
 * been the head of what was left, or split off it, so these are the splits; the rest stays in
 * pieces as large as they may be. The lists that those go to are empty, or the block would
 * not have been taken. */
static ALWAYS_INLINE void split(struct engine *e, u32 zone, pfn_t pfn, u32 from, u32 to, u32 type,
				u32 taken)
{
	struct zone *z = zone_at(e, zone);
	struct page *map = e->mem_map;
	pfn_t rest = pfn + (taken << to), end = pfn + pages_of_order(from);

	event_split(e, pfn, from, to, zone, type);
	/* Every second piece was a half of a larger one. */
	for (u32 i = 2; i < taken; i += 2)
		event_split(e, pfn + (i << to), to + (u32)__builtin_ctz(i), to, zone, type);
	while (rest < end) {
		u32 order = (u32)__builtin_ctz(rest);

		map[rest].flags = page_head_flags(FRAME_FREE, order, type);
		list_start(map, &z->free_list[order][type], rest);
		rest += pages_of_order(order);
	}
}

static ALWAYS_INLINE u32 take_exact(struct engine *e, u32 zone, u32 order, u32 type, u32 most,
				    pfn_t *ret_first)
{
	struct zone *z = zone_at(e, zone);
	/* By a pointer: the compiler would make ten copies of a loop with an index. */
	struct pfn_list *l = &z->free_list[order][type];
	u32 from = order, pieces;
	pfn_t pfn;

	for (; from < MAX_ORDER && !l->first; from++)
		l += NR_MIGRATETYPES;
	pfn = list_take(e->mem_map, l);
	if (!pfn)
		pfn = type == MIGRATE_MOVABLE ? frontier_take(z) : 0;
	if (!pfn)
		return 0;
	*ret_first = pfn;
	if (from == order)
		return 1;
	pieces = 1u << (from - order);
	most = most < pieces ? most : pieces;
	split(e, zone, pfn, from, order, type, most);
	return most;
}

pfn_t buddy_take_exact(struct engine *e, u32 zone, u32 order, u32 type)
{
	pfn_t pfn;

	return take_exact(e, zone, order, type, 1, &pfn) ? pfn : 0;
}

/* ---- falling back ---- */

/* A fragmenting fallback raises the marks, so that reclaim starts earlier. */
static void boost_watermark(struct engine *e, u32 zone)
{
	struct zone *z = zone_at(e, zone);
	u32 factor = e->st->frames.watermark_boost_factor;
	u32 block = pages_of_order(e->st->layout.pageblock_order);
	u32 high = z->mark[MARK_HIGH], before = z->boost, limit;

	/* Linux leaves small zones alone: the boost could not be reclaimed there. */
	if (!factor || block * 4 > z->managed)
		return;
	limit = mul_div(high, factor, 10000);
	if (!limit)
		return;
	limit = limit < block ? block : limit;
	z->boost = before + block < limit ? before + block : limit;
	if (z->boost == before)
		return;
	event_boost(e, zone, before, z->boost);
	zone_check_marks(e, zone);
}

/* Moves a free block to the tail of another type's list of its order. */
static void move_block(struct engine *e, struct zone *z, pfn_t pfn, u32 type)
{
	u32 order = page_order(&e->mem_map[pfn]);

	unlink_block(e, z, pfn);
	link_tail(e, z, pfn, order, type);
}

/* Does this frame hold something that could be moved elsewhere? Linux asks whether
 * it is on an LRU list: user memory and page cache are, AllocPages is not. */
static bool holds_movable(const struct page *p)
{
	u32 state = page_state(p);

	return state == FRAME_ANONYMOUS || state == FRAME_PAGE_CACHE;
}

/* Moves all free blocks of a pageblock to the lists of `type`. Returns their pages;
 * 0 when the pageblock reaches out of the zone's end, where nothing is moved. */
static u32 move_pageblock(struct engine *e, struct zone *z, pfn_t pfn, u32 type, u32 *ret_movable)
{
	u32 size = pages_of_order(e->st->layout.pageblock_order), moved = 0, movable = 0;
	pfn_t start = pfn & ~(size - 1), end = start + size;

	/* As Linux has it: a pageblock cut by the zone's start is moved from the
	 * block at hand on, one cut by its end not at all. */
	if (start < z->start)
		start = pfn;
	if (end > z->end)
		return 0;
	while (start < end) {
		struct page *p = &e->mem_map[start];

		if ((p->flags & (PAGE_HEAD | PAGE_STATE_MASK)) != (PAGE_HEAD | FRAME_FREE)) {
			movable += holds_movable(p);
			start++;
			continue;
		}
		u32 pages = pages_of_order(page_order(p));

		move_block(e, z, start, type);
		start += pages;
		moved += pages;
	}
	*ret_movable = movable;
	return moved;
}

static void retype(struct engine *e, u32 zone, pfn_t pfn, u32 type)
{
	u32 before = pageblock_type(e, zone, pfn);

	if (e->st->frames.mobility_off && may_merge(type))
		type = MIGRATE_UNMOVABLE;
	if (before == type)
		return;
	pageblock_set_type(e, zone, pfn, type);
	event_pageblock_retyped(e, pfn & ~(pages_of_order(e->st->layout.pageblock_order) - 1),
				before, type, zone);
}

/* May a request of this type take the whole pageblock of a block of this order?
 * Unmovable ones may always: better one pageblock spoilt than many. */
static bool may_steal(const struct engine *e, u32 order, u32 type)
{
	return order >= e->st->layout.pageblock_order / 2 || type != MIGRATE_MOVABLE ||
	       e->st->frames.mobility_off;
}

/* Moves a block of another type, and with it as much of its pageblock as is right,
 * to the lists of `type`. Linux's steal_suitable_fallback(). */
static void steal(struct engine *e, u32 zone, pfn_t pfn, u32 type, bool whole)
{
	struct zone *z = zone_at(e, zone);
	u32 block_order = e->st->layout.pageblock_order, size = pages_of_order(block_order);
	u32 order = page_order(&e->mem_map[pfn]), from = page_type(&e->mem_map[pfn]);
	u32 old = pageblock_type(e, zone, pfn), moved = 0, movable = 0, alike;

	if (old != MIGRATE_HIGHATOMIC && order >= block_order) {
		for (pfn_t p = pfn; p < pfn + pages_of_order(order); p += size)
			retype(e, zone, p, type);
	} else if (old != MIGRATE_HIGHATOMIC) {
		boost_watermark(e, zone);
		if (whole)
			moved = move_pageblock(e, z, pfn, type, &movable);
	}
	event_steal(e, pfn, order, from, type, moved != 0, zone);
	if (!moved) {
		move_block(e, z, pfn, type);
		return;
	}
	/* What is allocated there and like the request. Of the frames of a MOVABLE
	 * pageblock those that cannot move are; between the other two nobody knows. */
	if (type == MIGRATE_MOVABLE)
		alike = movable;
	else
		alike = old == MIGRATE_MOVABLE ? size - moved - movable : 0;
	if (moved + alike >= size / 2 || e->st->frames.mobility_off)
		retype(e, zone, pfn, type);
}

/* First block of this order on another type's list; 0: none. A block of the
 * frontier becomes a list entry. */
static pfn_t fallback_block(struct engine *e, struct zone *z, u32 order, u32 type)
{
	for (u32 i = 0; i < NR_PCP_TYPES - 1; i++) {
		u32 other = fallback_types[type][i];

		if (!buddy_count(z, order, other))
			continue;
		if (!z->free_list[order][other].first)
			link_head(e, z, frontier_take(z), order, other);
		return z->free_list[order][other].first;
	}
	return 0;
}

/* Brings blocks of another type to the lists of this one: the largest there are, so
 * that it happens rarely. A MOVABLE request that may not have the whole pageblock
 * takes the smallest instead: it fragments nothing for good. False: none left. */
static __attribute__((noinline)) bool fall_back(struct engine *e, u32 zone, u32 order, u32 type)
{
	struct zone *z = zone_at(e, zone);
	pfn_t pfn = 0;
	u32 o;

	for (o = MAX_ORDER + 1; !pfn && o-- > order;)
		pfn = fallback_block(e, z, o, type);
	if (!pfn)
		return false;
	if (!may_steal(e, o, type) && o > order)
		for (o = order; !(pfn = fallback_block(e, z, o, type)); o++)
			;
	steal(e, zone, pfn, type, may_steal(e, o, type));
	return true;
}

u32 buddy_take_run(struct engine *e, u32 zone, u32 order, u32 type, u32 most, pfn_t *ret_first)
{
	u32 nr = take_exact(e, zone, order, type, most, ret_first);

	/* Once, because then there is one. */
	if (!nr && fall_back(e, zone, order, type))
		return buddy_take_run(e, zone, order, type, most, ret_first);
	return nr;
}

pfn_t buddy_take(struct engine *e, u32 zone, u32 order, u32 type)
{
	pfn_t pfn = buddy_take_exact(e, zone, order, type);

	if (!pfn && fall_back(e, zone, order, type))
		pfn = buddy_take_exact(e, zone, order, type);
	return pfn;
}

void buddy_reserve_highatomic(struct engine *e, u32 zone, pfn_t pfn)
{
	struct zone *z = zone_at(e, zone);
	u32 block = pages_of_order(e->st->layout.pageblock_order), movable;

	if (z->highatomic >= z->managed / 100 + block || !may_merge(pageblock_type(e, zone, pfn)))
		return;
	z->highatomic += block;
	limits_update(e, zone);
	event_highatomic(e, pfn & ~(block - 1), zone, true, z->highatomic);
	retype(e, zone, pfn, MIGRATE_HIGHATOMIC);
	move_pageblock(e, z, pfn, MIGRATE_HIGHATOMIC, &movable);
}

/* ---- giving back ---- */

/* Blocks of pageblock_order and more of a HIGHATOMIC pageblock stay apart from the
 * others, or its pages could not be accounted for. */
static bool types_may_merge(const struct engine *e, u32 zone, pfn_t buddy, u32 order, u32 type)
{
	if (order < e->st->layout.pageblock_order)
		return true;
	u32 other = pageblock_type(e, zone, buddy);

	return type == other || (may_merge(type) && may_merge(other));
}

bool buddy_is_mergeable(struct engine *e, u32 zone, pfn_t pfn, u32 order)
{
	const struct zone *z = zone_at(e, zone);
	pfn_t buddy = pfn ^ pages_of_order(order);

	return is_free_block(e, z, buddy, order) &&
	       types_may_merge(e, zone, buddy, order, pageblock_type(e, zone, pfn));
}

static ALWAYS_INLINE void free_one(struct engine *e, u32 zone, pfn_t pfn, u32 order, u32 type,
				   enum free_where where)
{
	struct zone *z = zone_at(e, zone);
	struct page *map = e->mem_map;

	map[pfn].flags = 0;
	for (; order < MAX_ORDER; order++) {
		pfn_t buddy = pfn ^ pages_of_order(order);

		if (!is_free_block(e, z, buddy, order) ||
		    !types_may_merge(e, zone, buddy, order, type))
			break;
		list_remove(map, &z->free_list[order][page_type(&map[buddy])], buddy);
		map[buddy].flags = 0;
		event_merge(e, pfn, buddy, order + 1, zone);
		pfn &= buddy;
	}
	/* The next higher buddy being free, this block's own is worth waiting for: it
	 * goes where it will be taken last. */
	if (where == FREE_TAIL ||
	    (order < MAX_ORDER - 1 &&
	     is_free_block(e, z, (pfn & ~pages_of_order(order)) ^ pages_of_order(order + 1),
			   order + 1)))
		link_tail(e, z, pfn, order, type);
	else
		link_head(e, z, pfn, order, type);
}

void buddy_free(struct engine *e, u32 zone, pfn_t pfn, u32 order, u32 type, enum free_where where)
{
	free_one(e, zone, pfn, order, type, where);
}

u32 buddy_free_oldest(struct engine *e, u32 zone, struct pfn_list *list, u32 order, u32 pages)
{
	u32 gone = 0;

	while (gone < pages && list->last) {
		pfn_t pfn = list->last;

		list_pop_tail(e->mem_map, list, pfn);
		/* What was freed long ago, in no order, is in no near cache. */
		__builtin_prefetch(&e->mem_map[e->mem_map[list->last].prev], 1);
		free_one(e, zone, pfn, order, page_type(&e->mem_map[pfn]), FREE_NATURAL);
		zone_add_free(e, zone, (s32)pages_of_order(order));
		gone += pages_of_order(order);
	}
	return gone;
}

void buddy_append(struct engine *e, u32 zone, pfn_t pfn, u32 order, u32 type)
{
	link_tail(e, zone_at(e, zone), pfn, order, type);
}
