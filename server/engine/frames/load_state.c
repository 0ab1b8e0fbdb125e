/*
 * load_state.c - LoadState: an exact allocator state, record by record.
 *
 * The first op empties the fresh machine's zones; each record then fills what it
 * names. The last op audits the whole. When anything is wrong the zones are emptied
 * again and filled as boot did, so that a refusal leaves a fresh machine.
 */
#include "load_state.h"
#include "../event.h"
#include "../ops.h"
#include "../text.h"
#include "buddy.h"
#include "list.h"
#include "marks.h"
#include "page_alloc.h"
#include "pcp.h"
#include "zone_access.h"

struct record {
	u32 kind, zone, nr;
	const u8 *words; /* not aligned */
};

static u32 word(const struct record *r, u32 i)
{
	u32 value;

	__builtin_memcpy(&value, r->words + i * sizeof value, sizeof value);
	return value;
}

/* Is the block RAM of this zone, and not the machine's own? */
static bool may_be_free(struct engine *e, u32 zone, pfn_t pfn, u32 order)
{
	const struct zone *z = &e->st->frames.zone[zone];
	u32 pages = pages_of_order(order);
	struct engine_range free;
	u64 cursor = (u64)pfn << PAGE_SHIFT;

	if (!pfn || pfn & (pages - 1) || pfn < z->start || pfn >= z->end || z->end - pfn < pages)
		return false;
	return !(e->mem_map[pfn].flags & PAGE_HEAD) && memblock_next_free(e, &cursor, &free) &&
	       free.start == (u64)pfn << PAGE_SHIFT && free.size >= (u64)pages << PAGE_SHIFT;
}

static bool load_zone(struct engine *e, const struct record *r)
{
	struct zone *z = &e->st->frames.zone[r->zone];

	if (r->nr != LOAD_ZONE_WORDS || word(r, 0) != z->start || word(r, 1) != zone_spanned(z) ||
	    word(r, 2) != z->present || word(r, 3) > z->present || z->managed)
		return false;
	z->managed = word(r, 3);
	for (u32 i = 0; i < NR_MARKS; i++)
		z->mark[i] = word(r, 4 + i);
	z->boost = word(r, 7);
	z->highatomic = word(r, 8);
	for (u32 i = 0; i < NR_ZONES; i++)
		z->reserve[i] = word(r, 9 + i);
	z->free = (s32)word(r, 13);
	z->stat_threshold = marks_stat_threshold(e, z->managed);
	return z->managed > 0;
}

static bool load_pageblocks(struct engine *e, const struct record *r)
{
	const struct zone *z = &e->st->frames.zone[r->zone];
	u32 order = e->st->layout.pageblock_order;
	u32 first = z->start >> order,
	    blocks = z->managed ? ((z->end - 1) >> order) - first + 1 : 0;
	u32 from, count;

	if (r->nr < 2)
		return false;
	from = word(r, 0);
	count = word(r, 1);
	if (count > (r->nr - 2) * LOAD_TYPES_PER_WORD || from > blocks || count > blocks - from)
		return false;
	for (u32 i = 0; i < count; i++) {
		u32 type =
		    word(r, 2 + i / LOAD_TYPES_PER_WORD) >> 4 * (i % LOAD_TYPES_PER_WORD) & 0xf;

		if (type >= MIGRATE_ISOLATE)
			return false;
		pageblock_set_type(e, r->zone, (first + from + i) << order, type);
	}
	return true;
}

static bool load_free(struct engine *e, const struct record *r)
{
	u32 order, type;

	if (!r->nr)
		return false;
	order = word(r, 0) >> 8;
	type = word(r, 0) & 0xff;
	if (order > MAX_ORDER || type >= MIGRATE_ISOLATE)
		return false;
	for (u32 i = 1; i < r->nr; i++) {
		if (!may_be_free(e, r->zone, word(r, i), order))
			return false;
		buddy_append(e, r->zone, word(r, i), order, type);
	}
	return true;
}

/* Migratetype that a page on a per-CPU list goes back to. */
static u32 type_on_list(struct engine *e, u32 zone, u32 list, pfn_t pfn)
{
	u32 type = list % NR_PCP_TYPES;

	if (list >= PCP_LIST_LARGE)
		type = list == PCP_LIST_LARGE ? MIGRATE_UNMOVABLE : MIGRATE_MOVABLE;
	if (type == MIGRATE_MOVABLE && pageblock_type(e, zone, pfn) == MIGRATE_HIGHATOMIC)
		type = MIGRATE_HIGHATOMIC;
	return type;
}

static bool load_pcp_list(struct engine *e, const struct record *r)
{
	u32 cpu, list, order;
	struct pcp *pcp;

	if (!r->nr)
		return false;
	cpu = word(r, 0) >> 8;
	list = word(r, 0) & 0xff;
	if (cpu >= e->st->layout.cpus || list >= NR_PCP_LISTS)
		return false;
	pcp = &e->st->frames.zone[r->zone].pcp[cpu];
	order = pcp_list_order(&e->st->layout, list);
	for (u32 i = 1; i < r->nr; i++) {
		pfn_t pfn = word(r, i);

		if (!may_be_free(e, r->zone, pfn, order))
			return false;
		e->mem_map[pfn].flags =
		    page_head_flags(FRAME_PCP, order, type_on_list(e, r->zone, list, pfn));
		list_push_tail(e->mem_map, &pcp->list[list], pfn);
		pcp->count += pages_of_order(order);
	}
	return true;
}

static bool load_pcp(struct engine *e, const struct record *r)
{
	struct zone *z = &e->st->frames.zone[r->zone];
	struct pcp *pcp;

	if (r->nr != LOAD_PCP_WORDS || word(r, 0) >= e->st->layout.cpus)
		return false;
	pcp = &z->pcp[word(r, 0)];
	if (word(r, 1) != pcp->count || !word(r, 3) || word(r, 4) > PCP_FREE_FACTOR_MOST)
		return false;
	z->pcp_high = word(r, 2);
	z->pcp_batch = word(r, 3);
	pcp->free_factor = word(r, 4);
	pcp->free_diff = (s32)word(r, 5);
	return true;
}

static bool (*const loaders[])(struct engine *e, const struct record *r) = {
    [LOAD_ZONE] = load_zone, [LOAD_PAGEBLOCKS] = load_pageblocks,
    [LOAD_FREE] = load_free, [LOAD_PCP_LIST] = load_pcp_list,
    [LOAD_PCP] = load_pcp,
};

static bool load_records(struct engine *e, const u8 *data, u32 bytes)
{
	u32 nr = bytes / sizeof(u32);

	if (bytes % sizeof(u32))
		return false;
	for (u32 i = 0; i < nr;) {
		struct record r = {.words = data + i * sizeof(u32)};
		u32 head = word(&r, 0);

		r.kind = head & 0xff;
		r.zone = head >> 8 & 0xff;
		r.nr = head >> 16;
		r.words += sizeof(u32);
		if (!r.kind || r.kind >= sizeof loaders / sizeof loaders[0] || r.zone >= NR_ZONES ||
		    r.nr >= nr - i)
			return false;
		if (r.kind != LOAD_ZONE && !e->st->frames.zone[r.zone].managed)
			return false;
		if (!loaders[r.kind](e, &r))
			return false;
		i += 1 + r.nr;
	}
	return true;
}

static bool finish(struct engine *e, struct engine_result *res)
{
	struct engine_error why;
	u32 pages = 0;

	for (u32 i = 0; i < NR_ZONES; i++) {
		const struct zone *z = &e->st->frames.zone[i];

		if (z->present && !z->managed)
			return false;
		pages += zone_free_pages(e, i) + zone_pcp_pages(e, i);
		if (z->managed)
			zone_check_marks(e, i);
	}
	e->st->frames.loaded = 1;
	if (!frames_audit(e, &why))
		return false;
	frames_ready(e);
	res->values[0] = pages;
	return true;
}

static void give_up(struct engine *e)
{
	e->st->frames.loaded = 0;
	frames_forget(e);
	frames_release(e);
	e->st->phase = PHASE_FRESH;
}

u32 op_load_state(struct engine *e, const struct engine_op *op, struct engine_result *res)
{
	if (e->st->phase == PHASE_FRESH) {
		frames_forget(e);
		e->st->phase = PHASE_LOADING;
	}
	if (!load_records(e, op->data, op->data_len) || (op->args[0] && !finish(e, res))) {
		give_up(e);
		return STATUS_INVALID;
	}
	if (op->args[0])
		e->st->phase = PHASE_RUNNING;
	return STATUS_OK;
}
