/*
 * page_run.h - single pages of an op that takes or gives back many: what page_alloc() and
 * page_free() do, frame by frame and event by event, inline and with nothing asked twice.
 */
#ifndef ENGINE_PAGE_RUN_H
#define ENGINE_PAGE_RUN_H

#include "../event.h"
#include "pcp.h"

/* A block that was a list's first is allocated now: its prev is 0, and nothing uses it. */
static inline void page_hand_out(struct engine *e, pfn_t pfn, u32 order, u32 state)
{
	u64 number = op_number(e);
	u32 owner = e->op_owner;
	struct page *p = &e->mem_map[pfn];

	p->flags = page_head_flags(state, order, 0);
	p->next = 0;
	p->owner = owner;
	p->op = number;
}

/* A free's event, of a block that makes the executing CPU's lists too long, and what follows
 * from that. */
u32 page_tell_and_shrink(struct engine *e, pfn_t pfn, u32 order);

/* Pages by one gfp. All zeros but gfp to begin with. */
struct page_run {
	u32 gfp;
	/* That can come off the list; to be set to 0 when other pages have been asked for. */
	u32 listed;
	u32 zone;
	struct pcp *pcp;
	struct pfn_list *list;
};

/* Looks how many the list has, if its zone may serve: taking them changes nothing of what the
 * zone has free. False: none. */
bool page_run_look(struct engine *e, struct page_run *run);

/* The usual way. 0: no memory. */
pfn_t page_run_alloc(struct engine *e, u32 gfp, u32 state);

/* The next page, and what it is used for (FRAME_*); 0: no memory. */
static ALWAYS_INLINE pfn_t page_run_next(struct engine *e, struct page_run *run, u32 state)
{
	if (!run->listed && !page_run_look(e, run))
		return page_run_alloc(e, run->gfp, state);

	pfn_t pfn = run->list->first;

	run->listed--;
	pcp_pop(e, run->pcp, run->list, pfn, 0);
	page_hand_out(e, pfn, 0, state);
	event_alloc(e, pfn, 0, run->gfp, run->zone, pageblock_type(e, run->zone, pfn));
	return pfn;
}

/* page_free() of one page. */
static ALWAYS_INLINE void page_free_single(struct engine *e, pfn_t pfn)
{
	const struct page *p = &e->mem_map[pfn];
	u32 others = p->flags - page_head_flags(FRAME_PCP + 1, 0, 0);

	if (__builtin_expect(others > PAGE_STATE_MASK - (FRAME_PCP + 1) || p->ref ||
				 e->st->frames.poison_free == TOGGLE_ON,
			     0)) {
		page_free(e, pfn, 0); /* which may say what is wrong */
		return;
	}
	u32 zone = frame_zone(e, pfn), type = pageblock_type(e, zone, pfn);

	if (__builtin_expect(pcp_free(e, zone, pfn, 0, type), 0))
		page_tell_and_shrink(e, pfn, 0);
	else
		event_free(e, pfn, 0, zone, type);
}

#endif
