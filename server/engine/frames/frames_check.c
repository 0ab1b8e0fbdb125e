/*
 * frames_check.c - the audit of the allocator: lists against descriptors against
 * counters, each from the ground up.
 *
 * In this order: each list's links and entries; each zone's counters against its
 * lists; then every frame of RAM once, from block to block: no block overlaps
 * another, each free head is on a list (as many heads as entries, and every entry is
 * a head), nothing that boot kept is in a block; at last the engine's own frames.
 *
 * The frontier's frames are taken at their word: reading them would touch what the
 * frontier is there to leave alone.
 */
#include "../event.h"
#include "../text.h"
#include "../wings.h"
#include "buddy.h"
#include "marks.h"
#include "page_alloc.h"
#include "pcp.h"
#include "route.h"
#include "slab_frame.h"
#include "zone_access.h"

/* What the scan of all frames counts, to be compared with what lists say. */
struct census {
	u32 free_heads, pcp_heads; /* blocks */
	u32 pages;		   /* in blocks of all states */
	u32 slab_frames[NR_SLAB_CACHES], slab_objects[NR_SLAB_CACHES];
	u32 reserve_used;
};

static const char *const zone_word[NR_ZONES] = {"DMA", "Normal", "HighMem", "Movable"};

/* ---- lists ---- */

/* Walks a list of blocks that must all have these flags. `type_free`: whatever type. */
static bool check_list(struct engine *e, u32 zone, const struct pfn_list *l, u32 flags,
		       u32 flag_mask, const char *name, u32 index, struct engine_error *why)
{
	const struct zone *z = &e->st->frames.zone[zone];
	pfn_t before = 0, pfn = l->first;
	u32 nr = 0;

	for (; pfn; before = pfn, pfn = e->mem_map[pfn].next) {
		const struct page *p;

		if (pfn < z->start || pfn >= z->end)
			return refuse(why, "zone %s, %s list %u: frame %u is not of the zone",
				      zone_word[zone], name, index, pfn);
		p = &e->mem_map[pfn];
		if ((p->flags & flag_mask) != flags)
			return refuse(why, "zone %s, %s list %u: frame %u has flags 0x%x, not 0x%x",
				      zone_word[zone], name, index, pfn, p->flags, flags);
		if (pfn & (pages_of_order(page_order(p)) - 1) ||
		    pages_of_order(page_order(p)) > z->end - pfn)
			return refuse(why, "zone %s, %s list %u: block %u of order %u is misplaced",
				      zone_word[zone], name, index, pfn, page_order(p));
		if (p->ref)
			return refuse(why, "zone %s, %s list %u: frame %u is free and has %u uses",
				      zone_word[zone], name, index, pfn, p->ref);
		if (p->prev != before || ++nr > l->nr)
			return refuse(why, "zone %s, %s list %u: links around frame %u are broken",
				      zone_word[zone], name, index, pfn);
	}
	if (l->last != before || l->nr != nr)
		return refuse(why, "zone %s, %s list %u: %u entries to %u counted, %u to %u found",
			      zone_word[zone], name, index, l->nr, l->last, nr, before);
	return true;
}

/* No two buddies are free side by side, but where their types must stay apart. */
static bool check_merged(struct engine *e, u32 zone, u32 order, u32 type, struct engine_error *why)
{
	const struct zone *z = &e->st->frames.zone[zone];
	pfn_t pfn = z->free_list[order][type].first;

	for (; pfn && order < MAX_ORDER; pfn = e->mem_map[pfn].next) {
		pfn_t buddy = pfn ^ pages_of_order(order);

		if (buddy_is_mergeable(e, zone, pfn, order))
			return refuse(why, "zone %s: buddies %u and %u of order %u are both free",
				      zone_word[zone], pfn, buddy, order);
	}
	return true;
}

static bool check_free_lists(struct engine *e, u32 zone, struct census *listed,
			     struct engine_error *why)
{
	const struct zone *z = &e->st->frames.zone[zone];
	u32 pages = z->frontier.blocks << MAX_ORDER;

	for (u32 o = 0; o <= MAX_ORDER; o++) {
		for (u32 t = 0; t < NR_MIGRATETYPES; t++) {
			if (!check_list(e, zone, &z->free_list[o][t],
					page_head_flags(FRAME_FREE, o, t), UINT32_MAX, "free",
					o * NR_MIGRATETYPES + t, why) ||
			    !check_merged(e, zone, o, t, why))
				return false;
			listed->free_heads += z->free_list[o][t].nr;
			pages += z->free_list[o][t].nr << o;
		}
	}
	if (pages != zone_free_pages(e, zone))
		return refuse(why, "zone %s: %u pages on the free lists, counted %u",
			      zone_word[zone], pages, zone_free_pages(e, zone));
	return true;
}

static bool check_pcps(struct engine *e, u32 zone, struct census *listed, struct engine_error *why)
{
	const struct zone *z = &e->st->frames.zone[zone];
	u32 most = e->st->frames.loaded ? STAT_THRESHOLD_MOST : z->stat_threshold;

	for (u32 cpu = 0; cpu < e->st->layout.cpus; cpu++) {
		const struct pcp *pcp = &z->pcp[cpu];
		u32 diff = (u32)(pcp->free_diff < 0 ? -pcp->free_diff : pcp->free_diff), pages = 0;

		for (u32 i = 0; i < NR_PCP_LISTS; i++) {
			u32 order = pcp_list_order(&e->st->layout, i);

			if (!check_list(e, zone, &pcp->list[i],
					page_head_flags(FRAME_PCP, order, 0), ~(u32)PAGE_TYPE_MASK,
					"per-CPU", i, why))
				return false;
			listed->pcp_heads += pcp->list[i].nr;
			pages += pcp->list[i].nr << order;
		}
		if (pages != pcp->count)
			return refuse(why, "zone %s, CPU %u: %u pages on its lists, counted %u",
				      zone_word[zone], cpu, pages, pcp->count);
		if (diff > most)
			return refuse(why, "zone %s, CPU %u: difference %u is above %u",
				      zone_word[zone], cpu, diff, most);
	}
	return true;
}

static bool check_zone(struct engine *e, u32 zone, struct engine_error *why)
{
	const struct zone *z = &e->st->frames.zone[zone];
	u32 order = e->st->layout.pageblock_order, above = 0, highatomic = 0;

	for (u32 i = 0; i < NR_MARKS; i++)
		above += z->free > (s64)z->mark[i] + z->boost;
	if (above != z->marks_above)
		return refuse(why, "zone %s: above %u marks, noted as above %u", zone_word[zone],
			      above, z->marks_above);
	for (pfn_t block = z->start >> order; block <= (z->end - 1) >> order; block++) {
		if (pageblock_type(e, zone, block << order) == MIGRATE_HIGHATOMIC)
			highatomic += pages_of_order(order);
	}
	if (highatomic != z->highatomic)
		return refuse(why, "zone %s: %u pages in HIGHATOMIC pageblocks, counted %u",
			      zone_word[zone], highatomic, z->highatomic);
	return true;
}

/* ---- every frame ---- */

static bool check_slab_frame(struct engine *e, pfn_t pfn, struct census *seen,
			     struct engine_error *why)
{
	const struct slab_frame *s = at(e, frame_ref(e, pfn));
	u32 used = 0, room;

	if (s->cache >= NR_SLAB_CACHES || !e->st->slab.cache[s->cache].object_size)
		return refuse(why, "frame %u is of no slab cache", pfn);
	for (u32 i = 0; i < SLAB_MAP_WORDS * 32; i++)
		used += s->used_map[i / 32] >> i % 32 & 1;
	room = slab_objects_per_frame(e->st->slab.cache[s->cache].object_size);
	if (used != s->used || !used || used > room)
		return refuse(why, "slab frame %u has %u objects, counted %u, room for %u", pfn,
			      used, s->used, room);
	seen->slab_frames[s->cache]++;
	seen->slab_objects[s->cache] += used;
	return true;
}

static bool is_reserve(const struct engine *e, pfn_t pfn)
{
	return pfn >= e->st->layout.reserve_start && pfn < e->st->layout.reserve_end;
}

static bool check_block(struct engine *e, pfn_t pfn, struct census *seen, struct engine_error *why)
{
	const struct page *p = &e->mem_map[pfn];
	u32 zone = zone_of_pfn(e, pfn), state = page_state(p),
	    pages = pages_of_order(page_order(p));

	if (page_order(p) > MAX_ORDER || pfn & (pages - 1) ||
	    pages > e->st->frames.zone[zone].end - pfn)
		return refuse(why, "block %u of order %u is misplaced", pfn, page_order(p));
	for (u32 i = 0; i < pages; i++) {
		if (i && e->mem_map[pfn + i].flags)
			return refuse(why, "frame %u in the block of %u has flags 0x%x", pfn + i,
				      pfn, e->mem_map[pfn + i].flags);
		if (!memblock_is_memory(e, pfn + i) ||
		    memblock_is_reserved(e, pfn + i) != is_reserve(e, pfn + i))
			return refuse(why, "frame %u in the block of %u was not the allocator's",
				      pfn + i, pfn);
	}
	if (state > FRAME_PCP && p->flags & PAGE_TYPE_MASK)
		return refuse(why, "allocated block %u has flags 0x%x", pfn, p->flags);
	seen->free_heads += state == FRAME_FREE;
	seen->pcp_heads += state == FRAME_PCP;
	if (is_reserve(e, pfn))
		seen->reserve_used++;
	else
		seen->pages += pages;
	return state != FRAME_SLAB || check_slab_frame(e, pfn, seen, why);
}

/* The frames of one range of RAM, from block to block. */
static bool check_range(struct engine *e, pfn_t pfn, pfn_t end, struct census *seen,
			struct engine_error *why)
{
	while (pfn < end) {
		const struct page *p = &e->mem_map[pfn];
		u32 zone = zone_of_pfn(e, pfn);
		pfn_t frontier = frontier_range_end(&e->st->frames.zone[zone], pfn);

		if (frontier) {
			seen->pages += frontier - pfn;
			pfn = frontier;
		} else if (p->flags & PAGE_HEAD) {
			if (!check_block(e, pfn, seen, why))
				return false;
			pfn += pages_of_order(page_order(p));
		} else if (p->flags) {
			return refuse(why, "frame %u is no head and has flags 0x%x", pfn, p->flags);
		} else if (!e->st->frames.loaded && !memblock_is_reserved(e, pfn)) {
			return refuse(why, "frame %u is neither free nor allocated nor kept", pfn);
		} else {
			pfn++;
		}
	}
	return true;
}

static bool check_all_frames(struct engine *e, struct census *seen, struct engine_error *why)
{
	const struct memblock_array *memory = &e->st->memblock.array[MEMBLOCK_MEMORY];
	const struct memblock_region *r =
	    memory->regions ? at(e, memory->regions) : memory->initial;

	for (u32 i = 0; i < memory->nr; i++) {
		pfn_t end = (pfn_t)((r[i].start + r[i].size) >> PAGE_SHIFT);

		end = end > e->st->layout.max_pfn ? e->st->layout.max_pfn : end;
		if (!check_range(e, pages_of(r[i].start), end, seen, why))
			return false;
	}
	return true;
}

/* ---- slabs and reserve ---- */

static bool check_slabs(struct engine *e, const struct census *seen, struct engine_error *why)
{
	for (u32 cache = 0; cache < NR_SLAB_CACHES; cache++) {
		u32 frames = e->st->slab.cache[cache].nr_frames, partial = 0;
		u32 objects = e->st->slab.cache[cache].nr_objects, before = 0;
		u32 room = e->st->slab.cache[cache].object_size
			       ? slab_objects_per_frame(e->st->slab.cache[cache].object_size)
			       : 0;
		u32 spare = 0;

		if (frames != seen->slab_frames[cache] || objects != seen->slab_objects[cache])
			return refuse(why, "slab %u: %u frames, %u objects; counted %u, %u", cache,
				      seen->slab_frames[cache], seen->slab_objects[cache], frames,
				      objects);
		for (pfn_t pfn = e->st->slab.cache[cache].partial; pfn;
		     before = pfn, pfn = e->mem_map[pfn].next) {
			const struct slab_frame *s;

			if (!is_lowmem(e, pfn) || page_state(&e->mem_map[pfn]) != FRAME_SLAB ||
			    e->mem_map[pfn].prev != before || ++partial > frames)
				return refuse(why, "slab %u: its list is broken at frame %u", cache,
					      pfn);
			s = at(e, frame_ref(e, pfn));
			if (s->cache != cache || s->used >= room)
				return refuse(why, "slab %u: frame %u has no room or is not its",
					      cache, pfn);
			spare += room - s->used;
		}
		/* Every frame with room is on the list: no room is anywhere else. */
		if (frames * room - objects != spare)
			return refuse(why, "slab %u: room for %u, on its list %u", cache,
				      frames * room - objects, spare);
	}
	return true;
}

static bool check_reserve(struct engine *e, const struct census *seen, struct engine_error *why)
{
	const struct frames_state *f = &e->st->frames;
	u32 free = 0;

	for (pfn_t pfn = f->reserve_free; pfn; pfn = e->mem_map[pfn].next) {
		if (!is_reserve(e, pfn) || e->mem_map[pfn].flags || ++free > f->reserve_next)
			return refuse(why, "the reserve's list is broken at frame %u", pfn);
	}
	if (seen->reserve_used != f->reserve_used ||
	    f->reserve_next - e->st->layout.reserve_start != f->reserve_used + free)
		return refuse(why, "the reserve: %u frames used, counted %u, free %u",
			      seen->reserve_used, f->reserve_used, free);
	return true;
}

bool frames_audit(struct engine *e, struct engine_error *why)
{
	struct census listed = {0}, seen = {0};
	u32 managed = 0;

	for (u32 zone = 0; zone < NR_ZONES; zone++) {
		if (!e->st->frames.zone[zone].managed)
			continue;
		managed += e->st->frames.zone[zone].managed;
		if (!check_free_lists(e, zone, &listed, why) ||
		    !check_pcps(e, zone, &listed, why) || !check_zone(e, zone, why))
			return false;
	}
	if (!check_all_frames(e, &seen, why))
		return false;
	if (seen.free_heads != listed.free_heads || seen.pcp_heads != listed.pcp_heads)
		return refuse(why, "%u free and %u per-CPU blocks, on lists %u and %u",
			      seen.free_heads, seen.pcp_heads, listed.free_heads, listed.pcp_heads);
	/* In a loaded state some of what is managed was allocated by nobody known. */
	if (!e->st->frames.loaded && seen.pages != managed)
		return refuse(why, "%u pages in blocks, managed %u", seen.pages, managed);
	return check_slabs(e, &seen, why) && check_reserve(e, &seen, why);
}

bool check_frames(struct engine *e, struct engine_error *why)
{
	/* A state that comes in pieces is audited by the op with its last one. */
	if (e->st->phase == PHASE_LOADING)
		return true;
	if (!frames_audit(e, why))
		return false;
	return routes_are_right(e) ||
	       refuse(why, "the ways of requests are not those of the zones' marks and policies");
}
