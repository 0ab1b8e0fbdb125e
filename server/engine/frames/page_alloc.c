/*
 * page_alloc.c - from a gfp to a frame, and back.
 *
 * The way of a request, as in Linux: gfp gives a class (the highest zone it may use)
 * and a migratetype. The zones are tried from the class down, never up: first
 * against the LOW mark (plus the reserve that a lower zone keeps against requests of
 * this class), then, with what the gfp entitles to, against MIN, then once more or
 * without marks. A zone that may serve does so from its per-CPU list or its buddy.
 *
 * The slow path's flags are those of 6.3 and of later 6.1 stable kernels, which the
 * recordings show; plain 6.1.0 differs.
 *
 * Invariants:
 *  1 The head of an allocated block has flags page_head_flags(state, order, 0), the
 *    other descriptors of the block have flags 0.
 *  2 Nothing is freed that page_free_check() has not passed.
 *
 * What an ordinary request goes through is one straight function: without flags, and with
 * a request that is nowhere in memory, most of the rules fold away.
 *
 * Not modelled: reclaim, compaction, the OOM killer: a request that would wait for
 * them fails. HIGHATOMIC pageblocks are for this reason never given back.
 */
#include "page_alloc.h"
#include "../event.h"
#include "../map/kmap_local.h"
#include "../ops.h"
#include "buddy.h"
#include "page_run.h"
#include "route.h"

enum {
	GFP_TYPE_SHIFT = 3, /* of __GFP_MOVABLE and __GFP_RECLAIMABLE */
	GFP_TYPE_MASK = 3,
	GFP_KIND_MASK = (1 << GFP_KIND_BITS) - 1,
	NO_CLASS = 0xff,
	POISON = 0xaa,
	ALL_ZONES = (1 << NR_ZONES) - 1,
};

/* What a request may do beyond a usual one. */
enum alloc_flags {
	ALLOC_MIN_RESERVE = 1, /* __GFP_HIGH: half of what the min mark keeps */
	ALLOC_NON_BLOCK = 2,   /* cannot reclaim: with the above, a quarter of the rest too */
	ALLOC_HIGHATOMIC = 4,  /* may use, and makes, HIGHATOMIC pageblocks */
	ALLOC_NO_MARKS = 8,    /* __GFP_MEMALLOC: all there is */
};

/* What a request gets. */
struct block {
	pfn_t pfn; /* 0: nothing */
	u32 zone;
	u32 type;  /* its pageblock's */
	bool full; /* the event buffer, with this block's: for finish_alloc() */
};

struct request {
	u32 gfp, order;
	u32 class; /* highest zone, ZONE_* */
	u32 type;  /* MIGRATE_* */
	u32 zones; /* a bit for each zone it may use */
	u32 mark;  /* MARK_* */
	u32 flags; /* enum alloc_flags */
};

/* By __GFP_DMA (1), __GFP_HIGHMEM (2), DMA32 (4, no such zone here), __GFP_MOVABLE (8), which
 * alone is no zone's name, and __GFP_RECLAIMABLE (0x10), which cannot be with __GFP_MOVABLE. */
static const u8 class_of_gfp[GFP_KIND_MASK + 1] = {
    [0x00] = ZONE_NORMAL, [0x01] = ZONE_DMA, [0x02] = ZONE_HIGHMEM, [0x03] = NO_CLASS,
    [0x04] = ZONE_NORMAL, [0x05] = NO_CLASS, [0x06] = NO_CLASS,	    [0x07] = NO_CLASS,
    [0x08] = ZONE_NORMAL, [0x09] = ZONE_DMA, [0x0a] = ZONE_MOVABLE, [0x0b] = NO_CLASS,
    [0x0c] = ZONE_NORMAL, [0x0d] = NO_CLASS, [0x0e] = NO_CLASS,	    [0x0f] = NO_CLASS,
    [0x10] = ZONE_NORMAL, [0x11] = ZONE_DMA, [0x12] = ZONE_HIGHMEM, [0x13] = NO_CLASS,
    [0x14] = ZONE_NORMAL, [0x15] = NO_CLASS, [0x16] = NO_CLASS,	    [0x17] = NO_CLASS,
    [0x18] = NO_CLASS,	  [0x19] = NO_CLASS, [0x1a] = NO_CLASS,	    [0x1b] = NO_CLASS,
    [0x1c] = NO_CLASS,	  [0x1d] = NO_CLASS, [0x1e] = NO_CLASS,	    [0x1f] = NO_CLASS,
};

/* A class's own zone and those below it. */
static const u8 zones_of_class[NR_ZONES] = {1, 3, 7, 15};

/* Zones that user pages may come from. */
static const u8 user_zones[] = {
    [USER_FALLBACK_UNCHANGED] = ALL_ZONES,
    [USER_FALLBACK_ANY] = ALL_ZONES,
    [USER_FALLBACK_NO_DMA] = ALL_ZONES & ~(1 << ZONE_DMA),
    [USER_FALLBACK_HIGHMEM_ONLY] = 1 << ZONE_HIGHMEM | 1 << ZONE_MOVABLE,
};

void frames_set_user_fallback(struct frames_state *f, u32 policy)
{
	f->user_zones = user_zones[policy];
}

static u32 gfp_type(u32 gfp)
{
	return gfp >> GFP_TYPE_SHIFT & GFP_TYPE_MASK;
}

bool page_gfp_valid(u32 gfp)
{
	return class_of_gfp[gfp & GFP_KIND_MASK] != NO_CLASS;
}

/* ---- may this zone serve? ---- */

/* Is there more than the mark, with what this request may use of what it keeps, and
 * a block large enough? */
static ALWAYS_INLINE bool above_mark(const struct zone *z, const struct request *r, u32 mark)
{
	/* Never more pages than 64 GiB have: 32 bits are enough until marks come in. */
	s32 free = z->free - (s32)(pages_of_order(r->order) - 1);

	/* HIGHATOMIC pages are counted as if all were free: that may be too many, and
	 * saves a search. */
	if (!(r->flags & (ALLOC_MIN_RESERVE | ALLOC_NON_BLOCK)))
		free -= (s32)z->highatomic;
	if (r->flags & ALLOC_MIN_RESERVE) {
		mark -= mark / 2;
		if (r->flags & ALLOC_NON_BLOCK)
			mark -= mark / 4;
	}
	if (free <= 0 || (u32)free <= mark || (u32)free - mark <= z->reserve[r->class])
		return false;
	return !r->order || buddy_has(z, r->order, r->flags & ALLOC_HIGHATOMIC);
}

static ALWAYS_INLINE bool may_serve(const struct zone *z, const struct request *r)
{
	if (above_mark(z, r, z->mark[r->mark] + z->boost))
		return true;
	/* A small urgent request does not care for a boost, which is for reclaim. Urgent is
	 * __GFP_ATOMIC here, not __GFP_HIGH, as in kernels before 6.3. */
	return !r->order && r->gfp & __GFP_ATOMIC && z->boost && r->mark == MARK_MIN &&
	       above_mark(z, r, z->mark[MARK_MIN]);
}

/* ---- one zone, one sweep ---- */

static ALWAYS_INLINE pfn_t take_from_buddy(struct engine *e, u32 zone, const struct request *r)
{
	pfn_t pfn = 0;

	if (r->flags & ALLOC_HIGHATOMIC)
		pfn = buddy_take_exact(e, zone, r->order, MIGRATE_HIGHATOMIC);
	if (!pfn)
		pfn = buddy_take(e, zone, r->order, r->type);
	/* Failing now is worse than failing a larger atomic request later. */
	if (!pfn && r->flags & ALLOC_NON_BLOCK)
		pfn = buddy_take_exact(e, zone, r->order, MIGRATE_HIGHATOMIC);
	if (pfn)
		zone_add_free(e, zone, -(s32)pages_of_order(r->order));
	return pfn;
}

static ALWAYS_INLINE pfn_t take(struct engine *e, u32 zone, const struct request *r)
{
	pfn_t pfn = 0;

	if (pcp_has_order(&e->st->layout, r->order))
		pfn = pcp_take(e, zone, r->order, r->type);
	return pfn ? pfn : take_from_buddy(e, zone, r);
}

/* Why the zone that was wanted most did not serve. */
static u32 why_not(const struct zone *z, const struct request *r)
{
	struct request single = *r;

	single.order = 0;
	if (z->free <= 0)
		return FALLBACK_EMPTY;
	return above_mark(z, &single, z->mark[r->mark] + z->boost + pages_of_order(r->order) - 1)
		   ? FALLBACK_ORDER
		   : FALLBACK_MARK;
}

static u32 highest(u32 zones)
{
	return 31 - (u32)__builtin_clz(zones);
}

static ALWAYS_INLINE pfn_t try_zone(struct engine *e, u32 zone, const struct request *r)
{
	if (!may_serve(zone_at(e, zone), r) && !(r->flags & ALLOC_NO_MARKS))
		return 0;
	return take(e, zone, r);
}

/* Tries these zones, from the highest down. */
static pfn_t sweep(struct engine *e, const struct request *r, u32 zones)
{
	for (; zones; zones &= ~(1u << highest(zones))) {
		u32 zone = highest(zones), wanted = highest(r->zones);
		pfn_t pfn = try_zone(e, zone, r);

		if (!pfn)
			continue;
		if (r->flags & ALLOC_HIGHATOMIC)
			buddy_reserve_highatomic(e, zone, pfn);
		/* A zone without any frames is not on the zonelist, so that passing it
		 * over is no fallback. */
		if (zone != wanted)
			event_zone_fallback(e, wanted, zone, why_not(zone_at(e, wanted), r), pfn,
					    r->order);
		return pfn;
	}
	return 0;
}

/* ---- the sweeps of a request ---- */

static u32 slow_flags(u32 gfp, u32 order)
{
	u32 flags = gfp & __GFP_HIGH ? ALLOC_MIN_RESERVE : 0;

	if (gfp & (__GFP_DIRECT_RECLAIM | __GFP_NOMEMALLOC))
		return flags;
	flags |= ALLOC_NON_BLOCK;
	if (order && flags & ALLOC_MIN_RESERVE)
		flags |= ALLOC_HIGHATOMIC;
	return flags;
}

/* The request is a copy, so that the caller's may stay in registers. */
static __attribute__((noinline)) pfn_t take_slowly(struct engine *e, struct request r)
{
	pfn_t pfn = sweep(e, &r, r.zones & ~(1u << highest(r.zones)));

	if (pfn)
		return pfn;
	r.mark = MARK_MIN;
	r.flags = slow_flags(r.gfp, r.order);
	pfn = sweep(e, &r, r.zones);
	if (pfn)
		return pfn;
	/* Linux sweeps a second time even where nothing has changed in between; a
	 * failed attempt lowers free_factor, so this is to be seen. */
	if (r.gfp & __GFP_MEMALLOC && !(r.gfp & __GFP_NOMEMALLOC))
		r.flags = ALLOC_NO_MARKS;
	pfn = sweep(e, &r, r.zones);
	if (!pfn && r.gfp & __GFP_NOFAIL) {
		r.flags = ALLOC_NO_MARKS;
		pfn = sweep(e, &r, r.zones);
	}
	return pfn;
}

static __attribute__((noinline)) void tell_failure(struct engine *e, u32 gfp, u32 order)
{
	u32 free[NR_ZONES];

	for (u32 i = 0; i < NR_ZONES; i++)
		free[i] = zone_free_pages(e, i);
	event_alloc_failed(e, gfp, order, free[ZONE_DMA], free[ZONE_NORMAL], free[ZONE_HIGHMEM],
			   free[ZONE_MOVABLE]);
}

static __attribute__((noinline)) void clear_pages(struct engine *e, pfn_t pfn, u32 pages)
{
	for (u32 i = 0; i < pages; i++) {
		va_t va = kmap_temporary(e, e->op_cpu, pfn + i);

		port_clear_page(e, e->op_cpu, va);
		kunmap_temporary(e, e->op_cpu, va);
	}
}

static __attribute__((noinline)) void poison_pages(struct engine *e, pfn_t pfn, u32 pages)
{
	for (u32 i = 0; i < pages; i++) {
		va_t va = kmap_temporary(e, e->op_cpu, pfn + i);

		port_fill_page(e, e->op_cpu, va, POISON);
		kunmap_temporary(e, e->op_cpu, va);
	}
}

/* The user_fallback policy binds pages for user space. Their gfps are those with
 * __GFP_HARDWALL (GFP_USER, GFP_HIGHUSER, GFP_HIGHUSER_MOVABLE), whether a fault
 * asks or an AllocPages of that kind. */
static ALWAYS_INLINE bool make_request(const struct frames_state *f, u32 gfp, u32 order,
				       struct request *r)
{
	u32 class = class_of_gfp[gfp & GFP_KIND_MASK];

	if (class == NO_CLASS)
		return false;
	if (__builtin_expect(class < f->lowest_class, 0))
		class = f->lowest_class;
	r->gfp = gfp;
	r->order = order;
	r->class = class;
	r->type = f->mobility_off ? MIGRATE_UNMOVABLE : gfp_type(gfp);
	r->zones = f->populated & zones_of_class[class];
	if (gfp & __GFP_HARDWALL)
		r->zones &= f->user_zones;
	r->mark = MARK_LOW;
	r->flags = 0;
	return true;
}

void routes_update(struct engine *e)
{
	const struct frames_state *f = &e->st->frames;
	struct request r;

	for (u32 i = 0; i < PAGE_ROUTES; i++) {
		u32 gfp = (i & GFP_KIND_MASK) | (i >> GFP_KIND_BITS) << GFP_HARDWALL_BIT;
		struct page_route to = {.limit = LIMIT_NONE};

		if (make_request(f, gfp, 0, &r) && r.zones) {
			to.zone = (u8)highest(r.zones);
			to.limit = (u8)(to.zone * NR_ZONES + r.class);
			to.type = (u8)r.type;
		}
		e->page_route[i] = to;
	}
	for (u32 i = 0; i < NR_ZONES; i++)
		limits_update(e, i);
	e->page_limit[LIMIT_NONE] = INT32_MAX;
}

/* What above_mark() asks of a request without flags. */
void limits_update(struct engine *e, u32 zone)
{
	const struct zone *z = zone_at(e, zone);

	for (u32 class = 0; class < NR_ZONES; class ++) {
		u64 most = (u64)(z->mark[MARK_LOW] + z->boost) + z->reserve[class] + z->highatomic;

		e->page_limit[zone * NR_ZONES + class] = most < INT32_MAX ? (s32)most : INT32_MAX;
	}
}

bool routes_are_right(const struct engine *e)
{
	struct engine now = *e;

	routes_update(&now);
	return !__builtin_memcmp(now.page_route, e->page_route, sizeof now.page_route) &&
	       !__builtin_memcmp(now.page_limit, e->page_limit, sizeof now.page_limit);
}

/* What the first zone did not serve: from another, or with what the gfp entitles to. */
static __attribute__((noinline)) pfn_t find_block(struct engine *e, u32 gfp, u32 order)
{
	struct request r;
	pfn_t pfn = 0;

	if (!make_request(&e->st->frames, gfp, order, &r))
		return 0;
	if (r.zones)
		pfn = take_slowly(e, r);
	if (!pfn)
		tell_failure(e, gfp, order);
	return pfn;
}

/* A block from the executing CPU's list, if that has one and the best zone may serve.
 * 0: nothing was changed. */
static ALWAYS_INLINE bool take_listed(struct engine *e, u32 gfp, u32 order, struct block *b)
{
	const struct page_route *to = route_of(e, gfp);
	struct pcp *pcp = pcp_of(e, zone_at(e, to->zone));
	struct pfn_list *list = &pcp->list[pcp_list_of(order, to->type)];

	b->pfn = list->first;
	if (!b->pfn || !route_is_open(e, to, order))
		return false;
	b->zone = to->zone;
	pcp_pop(e, pcp, list, b->pfn, order);
	return true;
}

static ALWAYS_INLINE void hand_out(struct engine *e, struct block *b, u32 gfp, u32 order)
{
	page_hand_out(e, b->pfn, order, FRAME_ALLOCATED);
	b->type = pageblock_type(e, b->zone, b->pfn);
	b->full = event_alloc_fills(e, b->pfn, order, gfp, b->zone, b->type);
}

static ALWAYS_INLINE bool is_unfinished(const struct block *b, u32 gfp)
{
	return b->full || gfp & __GFP_ZERO;
}

/* What some allocations end with: calls, for which the others need not make room. */
static __attribute__((noinline)) pfn_t finish_alloc(struct engine *e, pfn_t pfn, u32 gfp, u32 order)
{
	if (e->next_event == e->events_end)
		port_events(e);
	if (gfp & __GFP_ZERO)
		clear_pages(e, pfn, pages_of_order(order));
	return pfn;
}

static ALWAYS_INLINE struct block alloc_any(struct engine *e, u32 gfp, u32 order)
{
	const struct page_route *to = route_of(e, gfp);
	struct request r = {.order = order, .type = to->type};
	struct block b = {.zone = to->zone};

	if (route_is_open(e, to, order))
		b.pfn = take(e, to->zone, &r);
	if (!b.pfn) {
		b.pfn = find_block(e, gfp, order);
		if (!b.pfn)
			return b;
		b.zone = frame_zone(e, b.pfn);
	}
	hand_out(e, &b, gfp, order);
	return b;
}

/* By value: who asks keeps the block in registers. */
static __attribute__((noinline)) struct block alloc_block(struct engine *e, u32 gfp, u32 order)
{
	return alloc_any(e, gfp, order);
}

/* Nearly all requests are small, and the executing CPU has what they ask for: that needs
 * no other function, so that it pays for none. */
static ALWAYS_INLINE bool alloc_listed(struct engine *e, u32 gfp, u32 order, struct block *b)
{
	if (__builtin_expect(order > PCP_MAX_ORDER || !take_listed(e, gfp, order, b), 0))
		return false;
	hand_out(e, b, gfp, order);
	return true;
}

static __attribute__((noinline)) pfn_t alloc_unlisted(struct engine *e, u32 gfp, u32 order)
{
	struct block b = alloc_any(e, gfp, order);

	return is_unfinished(&b, gfp) && b.pfn ? finish_alloc(e, b.pfn, gfp, order) : b.pfn;
}

static ALWAYS_INLINE pfn_t alloc_pfn(struct engine *e, u32 gfp, u32 order)
{
	struct block b;

	if (!alloc_listed(e, gfp, order, &b))
		return alloc_unlisted(e, gfp, order);
	return is_unfinished(&b, gfp) ? finish_alloc(e, b.pfn, gfp, order) : b.pfn;
}

/* Functions of their own, so that those for one page need no more registers than that. */
static __attribute__((noinline)) pfn_t alloc_of_order(struct engine *e, u32 gfp, u32 order)
{
	return alloc_pfn(e, gfp, order);
}

pfn_t page_alloc(struct engine *e, u32 gfp, u32 order)
{
	return order ? alloc_of_order(e, gfp, order) : alloc_pfn(e, gfp, 0);
}

pfn_t page_alloc_user(struct engine *e, u32 gfp)
{
	return page_alloc(e, gfp | __GFP_HARDWALL, 0);
}

/* ---- runs ---- */

__attribute__((noinline)) bool page_run_look(struct engine *e, struct page_run *run)
{
	const struct page_route *to = route_of(e, run->gfp);

	if (run->gfp & __GFP_ZERO || !route_is_open(e, to, 0))
		return false;
	run->zone = to->zone;
	run->pcp = pcp_of(e, zone_at(e, run->zone));
	run->list = &run->pcp->list[pcp_list_of(0, to->type)];
	run->listed = run->list->nr;
	return run->listed;
}

__attribute__((noinline)) pfn_t page_run_alloc(struct engine *e, u32 gfp, u32 state)
{
	pfn_t pfn = page_alloc(e, gfp, 0);

	if (pfn)
		page_set_state(&e->mem_map[pfn], state);
	return pfn;
}

/* ---- what a frame is ---- */

pfn_t page_block_head(const struct engine *e, pfn_t pfn)
{
	for (u32 order = 0; order <= MAX_ORDER; order++) {
		pfn_t head = pfn & ~(pages_of_order(order) - 1);
		const struct page *p = &e->mem_map[head];

		/* The first head on the way up decides: no block holds another's head. */
		if (p->flags & PAGE_HEAD)
			return page_order(p) >= order ? head : 0;
	}
	return 0;
}

pfn_t page_allocated_head(struct engine *e, pfn_t pfn)
{
	const struct page *block = frame_block(e, pfn);

	return block ? (pfn_t)(block - e->mem_map) : 0;
}

static bool is_kept(struct engine *e, pfn_t pfn)
{
	return !memblock_is_memory(e, pfn) || memblock_is_reserved(e, pfn);
}

/* First frame of RAM at or after pfn, or max_pfn. */
static pfn_t next_memory(struct engine *e, pfn_t pfn)
{
	while (pfn < e->st->layout.max_pfn && !memblock_is_memory(e, pfn))
		pfn++;
	return pfn;
}

/* A frame that belongs to no block: state, and where frames like it end. */
static u32 state_of_kept(struct engine *e, pfn_t pfn, pfn_t *ret_end)
{
	const struct layout *l = &e->st->layout;
	const struct map_state *map = &e->st->map;

	*ret_end = pfn + 1;
	if (!memblock_is_memory(e, pfn)) {
		*ret_end = next_memory(e, pfn);
		return FRAME_HOLE;
	}
	if (pfn >= l->metadata_start && pfn < l->metadata_end) {
		/* Of the reserve, frames in use lie between those that are not. */
		if (pfn < l->reserve_start)
			*ret_end = l->reserve_start;
		return FRAME_METADATA;
	}
	if (pfn >= l->host_start && pfn < l->host_end) {
		*ret_end = l->host_end;
		return FRAME_HOST;
	}
	if (pfn - map->boot_tables_start < map->nr_boot_tables)
		return FRAME_PAGE_TABLE;
	/* What nobody keeps was allocated before a loaded state was recorded. */
	return memblock_is_reserved(e, pfn) ? FRAME_RESERVED : FRAME_ALLOCATED;
}

void frame_describe(struct engine *e, pfn_t pfn, struct frame_run *ret)
{
	u32 zone = frame_zone(e, pfn);
	const struct zone *z = &e->st->frames.zone[zone];
	pfn_t head = page_block_head(e, pfn), end;

	*ret = (struct frame_run){.first = pfn, .head = pfn, .zone = zone};
	if (head) {
		const struct page *p = &e->mem_map[head];

		ret->head = head;
		ret->state = page_state(p);
		ret->order = page_order(p);
		ret->owner = ret->state > FRAME_PCP ? p->owner : 0;
		end = head + pages_of_order(ret->order);
	} else if (frontier_has(z, pfn)) {
		ret->head = pfn & ~(pages_of_order(MAX_ORDER) - 1);
		ret->state = FRAME_FREE;
		ret->order = MAX_ORDER;
		end = frontier_range_end(z, pfn);
	} else {
		ret->state = state_of_kept(e, pfn, &end);
		end = pfn < z->end && end > z->end ? z->end : end;
	}
	ret->count = end - pfn;
}

/* ---- freeing ---- */

/* Of a frame in no block. In a loaded state it may have been allocated before the
 * recording began: no op of ours did it, so any order is believed. */
static u32 why_unknown(struct engine *e, pfn_t pfn, u32 order)
{
	for (pfn_t p = pfn; p < pfn + pages_of_order(order); p++) {
		if (is_kept(e, p) || !e->st->frames.loaded)
			return STATUS_RESERVED;
		if (page_block_head(e, p))
			return STATUS_WRONG_ORDER;
	}
	return STATUS_OK;
}

static __attribute__((noinline)) u32 why_not_free(struct engine *e, pfn_t pfn, u32 order)
{
	const struct page *p;
	pfn_t head;

	if (order > MAX_ORDER || pfn & (pages_of_order(order) - 1) ||
	    pfn + pages_of_order(order) > e->st->layout.max_pfn)
		return STATUS_INVALID;
	if (frontier_has(&e->st->frames.zone[frame_zone(e, pfn)], pfn))
		return STATUS_DOUBLE_FREE;
	head = page_block_head(e, pfn);
	if (!head)
		return why_unknown(e, pfn, order);
	p = &e->mem_map[head];
	if (page_state(p) == FRAME_FREE || page_state(p) == FRAME_PCP)
		return STATUS_DOUBLE_FREE;
	if (page_state(p) != FRAME_ALLOCATED)
		return STATUS_BUSY;
	if (head != pfn || page_order(p) != order)
		return STATUS_WRONG_ORDER;
	return STATUS_BUSY;
}

/* The usual case: one compare of state and order. Only a failure looks further. */
static ALWAYS_INLINE bool is_free_to_go(const struct engine *e, pfn_t pfn, u32 order)
{
	return pfn < e->st->layout.max_pfn && !e->mem_map[pfn].ref &&
	       e->mem_map[pfn].flags == page_head_flags(FRAME_ALLOCATED, order, 0);
}

u32 page_free_check(struct engine *e, pfn_t pfn, u32 order)
{
	return is_free_to_go(e, pfn, order) ? STATUS_OK : why_not_free(e, pfn, order);
}

/* Freeing answers STATUS_OK all the way, so that one function may end with the next. */
static __attribute__((noinline)) u32 free_block(struct engine *e, pfn_t pfn, u32 order)
{
	u32 zone = frame_zone(e, pfn), type = pageblock_type(e, zone, pfn);

	event_free(e, pfn, order, zone, type);
	if (e->st->frames.poison_free == TOGGLE_ON)
		poison_pages(e, pfn, pages_of_order(order));
	if (pcp_has_order(&e->st->layout, order)) {
		if (pcp_free(e, zone, pfn, order, type))
			pcp_shrink(e, zone, order, type);
		return STATUS_OK;
	}
	buddy_free(e, zone, pfn, order, type, FREE_NATURAL);
	zone_add_free(e, zone, (s32)pages_of_order(order));
	return STATUS_OK;
}

__attribute__((noinline)) u32 page_tell_and_shrink(struct engine *e, pfn_t pfn, u32 order)
{
	u32 zone = frame_zone(e, pfn), type = pageblock_type(e, zone, pfn);

	event_free(e, pfn, order, zone, type);
	pcp_shrink(e, zone, order, type);
	return STATUS_OK;
}

static __attribute__((noinline, cold)) u32 give_events(struct engine *e)
{
	port_events(e);
	return STATUS_OK;
}

/* To the executing CPU's lists, and mostly no more than that. The event comes last, so that
 * nothing has to be kept over the call that a full buffer takes. */
static ALWAYS_INLINE u32 list_and_tell(struct engine *e, pfn_t pfn, u32 order, u32 zone, u32 type)
{
	if (__builtin_expect(pcp_free(e, zone, pfn, order, type), 0))
		return page_tell_and_shrink(e, pfn, order);
	if (event_free_fills(e, pfn, order, zone, type))
		return give_events(e);
	return STATUS_OK;
}

static __attribute__((noinline)) u32 free_elsewhere(struct engine *e, pfn_t pfn, u32 order)
{
	u32 zone = frame_zone(e, pfn);

	return list_and_tell(e, pfn, order, zone, pageblock_type(e, zone, pfn));
}

/* Where zone and type are what they mostly are, they are constants: which list it is does not
 * have to wait for the frame's number, its pageblock and a multiplication. */
static ALWAYS_INLINE u32 free_to_list(struct engine *e, pfn_t pfn, u32 order)
{
	const pfn_t *bound = e->st->frames.zone_bound;

	if (pfn >= bound[1] && pfn < bound[2] &&
	    pageblock_type(e, ZONE_HIGHMEM, pfn) == MIGRATE_MOVABLE)
		return list_and_tell(e, pfn, order, ZONE_HIGHMEM, MIGRATE_MOVABLE);
	if (pfn >= bound[0] && pfn < bound[1] &&
	    pageblock_type(e, ZONE_NORMAL, pfn) == MIGRATE_UNMOVABLE)
		return list_and_tell(e, pfn, order, ZONE_NORMAL, MIGRATE_UNMOVABLE);
	return free_elsewhere(e, pfn, order);
}

static ALWAYS_INLINE u32 free_checked(struct engine *e, pfn_t pfn, u32 order)
{
	if (order > PCP_MAX_ORDER || e->st->frames.poison_free == TOGGLE_ON)
		return free_block(e, pfn, order);
	/* The order is known, as in page_alloc(). */
	return order ? free_to_list(e, pfn, order) : free_to_list(e, pfn, 0);
}

static __attribute__((noinline)) u32 free_of_order(struct engine *e, pfn_t pfn, u32 order)
{
	/* Never 0, which the compiler cannot know. */
	return order ? free_checked(e, pfn, order) : STATUS_OK;
}

/* Not a block of ours, or not to be freed. */
static __attribute__((noinline)) u32 free_unusual(struct engine *e, pfn_t pfn, u32 order)
{
	u32 status = why_not_free(e, pfn, order);

	if (status != STATUS_OK)
		return status;
	/* A block of nobody's in a loaded state: known from here on. */
	ENGINE_ASSERT(e, !e->mem_map[pfn].ref);
	e->mem_map[pfn].flags = page_head_flags(FRAME_ALLOCATED, order, 0);
	return free_checked(e, pfn, order);
}

static ALWAYS_INLINE u32 free_asked(struct engine *e, pfn_t pfn, u32 order)
{
	return is_free_to_go(e, pfn, order) ? free_checked(e, pfn, order)
					    : free_unusual(e, pfn, order);
}

static __attribute__((noinline)) u32 free_asked_of_order(struct engine *e, pfn_t pfn, u32 order)
{
	return order ? free_asked(e, pfn, order) : STATUS_OK;
}

u32 page_free_asked(struct engine *e, pfn_t pfn, u32 order)
{
	return order ? free_asked_of_order(e, pfn, order) : free_asked(e, pfn, 0);
}

void page_free(struct engine *e, pfn_t pfn, u32 order)
{
	const struct page *p = &e->mem_map[pfn];

	/* Allocated, whatever for, and of this order. */
	ENGINE_ASSERT(e, p->flags - page_head_flags(FRAME_PCP + 1, order, 0) <=
			     PAGE_STATE_MASK - (FRAME_PCP + 1));
	ENGINE_ASSERT(e, !p->ref);
	if (order)
		free_of_order(e, pfn, order);
	else
		free_checked(e, pfn, 0);
}

/* ---- the engine's own frames ---- */

static pfn_t take_reserve(struct engine *e)
{
	struct frames_state *f = &e->st->frames;
	pfn_t pfn = f->reserve_free;

	if (pfn)
		f->reserve_free = e->mem_map[pfn].next;
	else if (f->reserve_next < e->st->layout.reserve_end)
		pfn = f->reserve_next++;
	else
		return 0;
	f->reserve_used++;
	e->mem_map[pfn] = (struct page){.owner = e->op_owner,
					.op = op_number(e),
					.flags = page_head_flags(FRAME_ALLOCATED, 0, 0)};
	return pfn;
}

pfn_t frame_alloc_own(struct engine *e, u32 state)
{
	/* During boot the buddy must end up as Linux's, so nothing is taken from it. */
	bool exact = e->st->phase == PHASE_EARLY || e->st->frames.loaded;
	pfn_t pfn = exact ? take_reserve(e) : page_alloc(e, GFP_KERNEL, 0);

	if (!pfn)
		return 0;
	page_set_state(&e->mem_map[pfn], state);
	__builtin_memset(at(e, frame_ref(e, pfn)), 0, PAGE_SIZE);
	return pfn;
}

void frame_free_own(struct engine *e, pfn_t pfn)
{
	struct frames_state *f = &e->st->frames;
	struct page *p = &e->mem_map[pfn];

	if (pfn < e->st->layout.reserve_start || pfn >= e->st->layout.reserve_end) {
		page_free(e, pfn, 0);
		return;
	}
	ENGINE_ASSERT(e, p->flags & PAGE_HEAD && !p->ref);
	*p = (struct page){.next = f->reserve_free};
	f->reserve_free = pfn;
	f->reserve_used--;
}

/* ---- ops ---- */

u32 op_alloc_pages(struct engine *e, const struct engine_op *op, struct engine_result *res)
{
	u32 gfp = (u32)op->args[0], order = (u32)op->args[1];
	struct block b;

	/* Most are for one page: with an order that is known to be 0, half of it is constant.
	 * What is not valid is on no list. */
	if (!(order ? alloc_listed(e, gfp, order, &b) : alloc_listed(e, gfp, 0, &b))) {
		if (!page_gfp_valid(gfp) || order > MAX_ORDER)
			return STATUS_INVALID;
		b = alloc_block(e, gfp, order);
		if (!b.pfn)
			return STATUS_NO_MEMORY;
	}
	if (__builtin_expect(is_unfinished(&b, gfp), 0))
		finish_alloc(e, b.pfn, gfp, order);
	res->values[0] = b.pfn;
	res->values[1] = b.zone;
	res->values[2] = b.type;
	return STATUS_OK;
}

u32 op_free_pages(struct engine *e, const struct engine_op *op, struct engine_result *res)
{
	(void)res;
	return page_free_asked(e, (pfn_t)op->args[0], (u32)op->args[1]);
}

u32 op_set_policy(struct engine *e, const struct engine_op *op, struct engine_result *res)
{
	struct frames_state *f = &e->st->frames;
	u32 fallback = (u32)op->args[0], poison = (u32)op->args[1], detail = (u32)op->args[2];

	(void)res;
	if (fallback > USER_FALLBACK_HIGHMEM_ONLY || poison > TOGGLE_ON || detail > DETAIL_ALL)
		return STATUS_INVALID;
	if (fallback != USER_FALLBACK_UNCHANGED) {
		frames_set_user_fallback(f, fallback);
		routes_update(e);
	}
	if (poison != TOGGLE_UNCHANGED)
		f->poison_free = poison;
	if (detail != DETAIL_UNCHANGED)
		engine_set_detail(e, detail);
	return STATUS_OK;
}
