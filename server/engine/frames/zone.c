/*
 * zone.c - zones as such: where they lie, what boot gives them, their counts of
 * free pages and their pageblocks' types.
 *
 * Invariants:
 *  1 zone[z].free plus every CPU's free_diff is the number of pages on the zone's
 *    free lists and frontier; no |free_diff| exceeds stat_threshold, but one that was
 *    loaded: Linux has other thresholds while kswapd is awake.
 *  2 A block in a frontier range has descriptors of zeros. Boot touches none of
 *    them, so a machine starts in a time that does not depend on its RAM.
 *  3 List order is that of a boot that frees every page: Linux frees lowmem range by
 *    range in ascending order to the tails, and HIGHMEM page by page to the heads,
 *    which leaves the highest block first.
 */
#include "zone.h"
#include "../boot/boot.h"
#include "../event.h"
#include "buddy.h"
#include "list.h"
#include "marks.h"
#include "page_alloc.h"
#include "route.h"
#include "zone_access.h"

/* ---- which zone, which pageblock ---- */

u32 zone_of_pfn(const struct engine *e, pfn_t pfn)
{
	return frame_zone(e, pfn);
}

u32 pageblock_bytes(pfn_t max_pfn, u32 pageblock_order)
{
	return (max_pfn >> pageblock_order) + NR_ZONES;
}

/* ---- free pages and marks ---- */

/* How many of the marks `free` is above, boost included. Finds the band in which
 * that number stays what it is, so that most changes cost one compare. */
static u32 find_band(struct zone *z)
{
	s64 low = INT32_MIN, high = INT32_MAX;
	u32 above = 0;

	for (u32 i = 0; i < NR_MARKS; i++) {
		s64 mark = (s64)z->mark[i] + z->boost;

		if (z->free > mark) {
			above++;
			low = mark + 1 > low ? mark + 1 : low;
		} else {
			high = mark < high ? mark : high;
		}
	}
	z->band_low = (s32)low;
	z->band_size = (u32)(high - low + 1);
	return above;
}

/* Marks rise from MIN to HIGH, so those that `free` is above are the first ones. */
void zone_check_marks(struct engine *e, u32 zone)
{
	struct zone *z = &e->st->frames.zone[zone];
	u32 before = z->marks_above;
	u32 free = z->free > 0 ? (u32)z->free : 0;

	z->marks_above = find_band(z);
	limits_update(e, zone);
	for (u32 mark = before; mark-- > z->marks_above;)
		event_watermark(e, zone, mark, true, free);
	for (u32 mark = before; mark < z->marks_above; mark++)
		event_watermark(e, zone, mark, false, free);
}

void zone_fold_diff(struct engine *e, u32 zone, s32 *diff)
{
	struct zone *z = &e->st->frames.zone[zone];

	z->free += *diff;
	*diff = 0;
	if ((u32)z->free - (u32)z->band_low >= z->band_size)
		zone_check_marks(e, zone);
}

u32 zone_free_pages(const struct engine *e, u32 zone)
{
	const struct zone *z = &e->st->frames.zone[zone];
	s32 free = z->free;

	for (u32 cpu = 0; cpu < e->st->layout.cpus; cpu++)
		free += z->pcp[cpu].free_diff;
	return (u32)free;
}

u32 zone_pcp_pages(const struct engine *e, u32 zone)
{
	u32 pages = 0;

	for (u32 cpu = 0; cpu < e->st->layout.cpus; cpu++)
		pages += e->st->frames.zone[zone].pcp[cpu].count;
	return pages;
}

/* ---- the frontier ---- */

pfn_t frontier_take(struct zone *z)
{
	struct frontier *f = &z->frontier;
	u32 i = f->descending ? f->nr - 1 : 0;
	pfn_t pfn;

	if (!f->blocks)
		return 0;
	f->blocks--;
	if (f->descending) {
		pfn = f->range[i].end -= pages_of_order(MAX_ORDER);
	} else {
		pfn = f->range[i].start;
		f->range[i].start += pages_of_order(MAX_ORDER);
	}
	if (f->range[i].start == f->range[i].end) {
		f->nr--;
		for (; i < f->nr; i++)
			f->range[i] = f->range[i + 1];
	}
	return pfn;
}

pfn_t frontier_range_end(const struct zone *z, pfn_t pfn)
{
	const struct frontier *f = &z->frontier;

	for (u32 i = 0; i < f->nr; i++) {
		if (pfn >= f->range[i].start && pfn < f->range[i].end)
			return f->range[i].end;
	}
	return 0;
}

bool frontier_has(const struct zone *z, pfn_t pfn)
{
	return frontier_range_end(z, pfn) != 0;
}

pfn_t frontier_block(const struct zone *z, u32 number)
{
	const struct frontier *f = &z->frontier;

	for (u32 i = 0; i < f->nr; i++) {
		u32 r = f->descending ? f->nr - 1 - i : i;
		u32 blocks = (f->range[r].end - f->range[r].start) >> MAX_ORDER;

		if (number < blocks)
			return f->descending ? f->range[r].end - ((number + 1) << MAX_ORDER)
					     : f->range[r].start + (number << MAX_ORDER);
		number -= blocks;
	}
	return 0;
}

void frontier_materialise(struct engine *e, u32 zone)
{
	struct zone *z = &e->st->frames.zone[zone];
	struct pfn_list *list = &z->free_list[MAX_ORDER][MIGRATE_MOVABLE];
	pfn_t pfn;

	while ((pfn = frontier_take(z))) {
		e->mem_map[pfn].flags = page_head_flags(FRAME_FREE, MAX_ORDER, MIGRATE_MOVABLE);
		list_push_tail(e->mem_map, list, pfn);
	}
}

/* Whole blocks of a range that boot frees. Ascending ranges go behind what is there,
 * descending ones before it. */
static void frontier_add(struct engine *e, u32 zone, pfn_t start, pfn_t end)
{
	struct zone *z = &e->st->frames.zone[zone];
	struct frontier *f = &z->frontier;

	if (f->nr == FRONTIER_RANGES)
		frontier_materialise(e, zone);
	if (f->nr || !z->free_list[MAX_ORDER][MIGRATE_MOVABLE].first) {
		f->range[f->nr].start = start;
		f->range[f->nr].end = end;
		f->nr++;
		f->blocks += (end - start) >> MAX_ORDER;
		return;
	}
	/* Too many pieces: list entries from here on. */
	for (; start < end; start += pages_of_order(MAX_ORDER))
		buddy_free(e, zone, start, MAX_ORDER, MIGRATE_MOVABLE,
			   f->descending ? FREE_NATURAL : FREE_TAIL);
}

/* ---- boot ---- */

/* Frees [start, end) in the largest aligned blocks, as memblock hands over lowmem.
 * HIGHMEM comes page by page, and the merging leaves the same blocks. */
static void release_range(struct engine *e, u32 zone, pfn_t start, pfn_t end)
{
	struct zone *z = &e->st->frames.zone[zone];
	enum free_where where = z->frontier.descending ? FREE_NATURAL : FREE_TAIL;

	z->managed += end - start;
	z->free += (s32)(end - start);
	while (start < end) {
		u32 order = (u32)__builtin_ctz(start);

		order = order > MAX_ORDER ? MAX_ORDER : order;
		while (pages_of_order(order) > end - start)
			order--;
		if (order == MAX_ORDER) {
			pfn_t whole = end & ~(pages_of_order(MAX_ORDER) - 1);

			frontier_add(e, zone, start, whole);
			start = whole;
			continue;
		}
		buddy_free(e, zone, start, order, pageblock_type(e, zone, start), where);
		start += pages_of_order(order);
	}
}

static void release_zone(struct engine *e, u32 zone)
{
	struct zone *z = &e->st->frames.zone[zone];
	u64 cursor = (u64)z->start << PAGE_SHIFT;
	struct engine_range r;

	while (memblock_next_free(e, &cursor, &r)) {
		pfn_t start = pages_of(r.start);
		pfn_t end = (pfn_t)((r.start + r.size) >> PAGE_SHIFT);

		start = start < z->start ? z->start : start;
		end = end > z->end ? z->end : end;
		if (start >= z->end)
			break;
		if (start < end)
			release_range(e, zone, start, end);
	}
}

/* Pageblocks whose first frame is in [start, end), which is no memory of the zone,
 * were never marked MOVABLE: Linux leaves them UNMOVABLE. */
static void mark_gap(struct engine *e, u32 zone, pfn_t start, pfn_t end)
{
	u32 block = pages_of_order(e->st->layout.pageblock_order);

	for (start = (start + block - 1) & ~(block - 1); start < end; start += block)
		pageblock_set_type(e, zone, start, MIGRATE_UNMOVABLE);
}

/* Counts the zone's frames that memblock knows as memory, and marks the gaps. */
static u32 count_present(struct engine *e, u32 zone)
{
	const struct zone *z = &e->st->frames.zone[zone];
	const struct memblock_array *memory = &e->st->memblock.array[MEMBLOCK_MEMORY];
	const struct memblock_region *r =
	    memory->regions ? at(e, memory->regions) : memory->initial;
	/* The zone's first pageblock may begin below it. */
	pfn_t known = z->start & ~(pages_of_order(e->st->layout.pageblock_order) - 1);
	u32 present = 0;

	for (u32 i = 0; i < memory->nr && z->start < z->end; i++) {
		pfn_t start = pages_of(r[i].start);
		pfn_t end = (pfn_t)((r[i].start + r[i].size) >> PAGE_SHIFT);

		start = start < z->start ? z->start : start;
		end = end > z->end ? z->end : end;
		if (start >= end)
			continue;
		mark_gap(e, zone, known, start);
		known = end;
		present += end - start;
	}
	mark_gap(e, zone, known, z->end);
	return present;
}

static void set_bounds(struct engine *e)
{
	const struct layout *l = &e->st->layout;
	pfn_t bound = 0;

	for (u32 z = 0; z < NR_ZONES - 1; z++) {
		if (l->zone_end[z] > l->zone_start[z])
			bound = l->zone_end[z];
		e->st->frames.zone_bound[z] = bound;
	}
}

/* Linux groups by mobility only where there are a few pageblocks for each type. */
static bool too_small_to_group(const struct engine *e)
{
	u32 pages = 0;

	for (u32 z = 0; z < NR_ZONES; z++)
		pages += e->st->frames.zone[z].managed;
	return pages < pages_of_order(e->st->layout.pageblock_order) * NR_MIGRATETYPES;
}

static void init_zones(struct engine *e)
{
	const struct layout *l = &e->st->layout;

	for (u32 i = 0; i < NR_ZONES; i++) {
		struct zone *z = &e->st->frames.zone[i];

		z->start = l->zone_start[i];
		z->end = l->zone_end[i];
		z->present = count_present(e, i);
		z->marks_above = NR_MARKS;
		z->frontier.descending = z->start >= l->low_end_pfn;
	}
}

u32 frames_release(struct engine *e)
{
	static const u8 order_of_release[NR_ZONES] = {ZONE_HIGHMEM, ZONE_MOVABLE, ZONE_DMA,
						      ZONE_NORMAL};
	struct frames_state *f = &e->st->frames;
	u32 pages = 0;

	for (u32 i = 0; i < NR_ZONES; i++) {
		release_zone(e, order_of_release[i]);
		pages += f->zone[order_of_release[i]].managed;
	}
	f->mobility_off = too_small_to_group(e);
	marks_boot(e);
	frames_ready(e);
	return pages;
}

void frames_ready(struct engine *e)
{
	struct frames_state *f = &e->st->frames;

	f->populated = 0;
	for (u32 i = 0; i < NR_ZONES; i++) {
		const struct zone *z = &f->zone[i];

		if (!z->managed)
			continue;
		f->populated |= 1u << i;
		event_zone_ready(e, i, z->start, zone_spanned(z), z->present, z->managed,
				 zone_free_pages(e, i));
	}
	routes_update(e);
}

/* Zeroes what a free block's descriptor says: what was on the list leaves no trace. */
static void forget_list(struct engine *e, struct pfn_list *list)
{
	while (list->first) {
		struct page *p = &e->mem_map[list->first];

		list_pop_head(e->mem_map, list, list->first);
		p->flags = p->next = p->prev = 0;
	}
}

void frames_forget(struct engine *e)
{
	struct frames_state *f = &e->st->frames;
	const struct layout *l = &e->st->layout;

	for (u32 i = 0; i < NR_ZONES; i++) {
		struct zone *z = &f->zone[i];

		for (u32 o = 0; o <= MAX_ORDER; o++) {
			for (u32 t = 0; t < NR_MIGRATETYPES; t++)
				forget_list(e, &z->free_list[o][t]);
		}
		for (u32 cpu = 0; cpu < l->cpus; cpu++) {
			for (u32 t = 0; t < NR_PCP_LISTS; t++)
				forget_list(e, &z->pcp[cpu].list[t]);
		}
		__builtin_memset(z, 0, sizeof *z);
	}
	__builtin_memset(at(e, l->pageblock_ref), 0,
			 pageblock_bytes(l->max_pfn, l->pageblock_order));
	init_zones(e);
}

u32 frames_boot(struct engine *e)
{
	struct frames_state *f = &e->st->frames;
	const struct engine_config *config = &e->st->config;

	set_bounds(e);
	init_zones(e);
	f->lowest_class = e->st->layout.dma_end_pfn ? ZONE_DMA : ZONE_NORMAL;
	f->reserve_next = e->st->layout.reserve_start;
	/* SetPolicy may have come before Boot. */
	if (f->poison_free == TOGGLE_UNCHANGED)
		f->poison_free = config->flags & CONFIG_POISON_FREE ? TOGGLE_ON : TOGGLE_OFF;
	if (!f->user_zones)
		frames_set_user_fallback(f, config->user_fallback);
	marks_defaults(f);
	return frames_release(e) ? STATUS_OK : STATUS_NO_MEMORY;
}
