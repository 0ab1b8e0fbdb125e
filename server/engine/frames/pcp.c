/*
 * pcp.c - per-CPU lists.
 *
 * Invariants:
 *  1 A block on a list has flags page_head_flags(FRAME_PCP, order, type), type being
 *    where it goes when it leaves: the list's own, or HIGHATOMIC on a MOVABLE list.
 *    The list for large non-movable blocks holds two types.
 *  2 pcp.count is the pages on all lists of that CPU and zone.
 *
 * Allocations take from the head, where the last free went; refills add to the tail
 * and overflows leave from it.
 *
 * Not modelled: shorter lists while kswapd runs (there is none), remote frees.
 */
#include "pcp.h"
#include "../event.h"
#include "../ops.h"
#include "buddy.h"

static inline u32 take_run(struct engine *e, u32 zone, u32 order, u32 type, u32 most,
			   pfn_t *ret_first)
{
	*ret_first = buddy_pop(e, zone, order, type);
	return *ret_first ? 1 : buddy_take_run(e, zone, order, type, most, ret_first);
}

/* Lists `nr` blocks that begin with pfn, and more until there are so many. Returns how many. */
static __attribute__((noinline)) u32 fill(struct engine *e, u32 zone, u32 order, u32 type,
					  pfn_t pfn, u32 nr, u32 blocks)
{
	struct pfn_list *l = &pcp_of(e, zone_at(e, zone))->list[pcp_list_of(order, type)];
	u32 listed = 0;

	for (;;) {
		if (nr)
			list_push_run(e->mem_map, l, pfn, nr, pages_of_order(order),
				      page_head_flags(FRAME_PCP, order, type));
		listed += nr;
		if (listed == blocks)
			return listed;
		nr = take_run(e, zone, order, type, blocks - listed, &pfn);
		if (!nr)
			return listed;
	}
}

pfn_t pcp_refill(struct engine *e, u32 zone, u32 order, u32 type)
{
	struct zone *z = zone_at(e, zone);
	struct pcp *pcp = pcp_of(e, z);
	u32 blocks = z->pcp_batch, taken;
	pfn_t first;

	/* A batch of 1 marks a zone too small to keep much. */
	if (blocks > 1)
		blocks = blocks >> order > 2 ? blocks >> order : 2;
	taken = take_run(e, zone, order, type, blocks, &first);
	if (!taken)
		return 0;
	if (blocks > 1) {
		u32 listed = fill(e, zone, order, type, first + pages_of_order(order), taken - 1,
				  blocks - 1);

		pcp->count += listed << order;
		taken = 1 + listed;
	}
	zone_add_free(e, zone, -(s32)(taken << order));
	event_pcp_refill(e, zone, e->op_cpu, pcp_list_of(order, type), taken << order);
	return first;
}

/* Gives blocks back until at least `pages` have gone, beginning with list `first`
 * and going round; each list until it is empty. Returns the pages. */
static u32 give_back(struct engine *e, u32 zone, u32 cpu, u32 pages, u32 first)
{
	struct pcp *pcp = &e->st->frames.zone[zone].pcp[cpu];
	u32 gone = 0;

	pages = pages < pcp->count ? pages : pcp->count;
	for (u32 i = first; gone < pages; i = i + 1 < NR_PCP_LISTS ? i + 1 : 0)
		gone += buddy_free_oldest(e, zone, &pcp->list[i], pcp_list_order(&e->st->layout, i),
					  pages - gone);
	pcp->count -= gone;
	if (gone)
		event_pcp_drain(e, zone, cpu, gone);
	return gone;
}

/* How much an overflow gives back: a batch, doubled each time that no allocation
 * came between, but never so much that less than a batch stays. */
static u32 overflow_pages(const struct zone *z, struct pcp *pcp)
{
	u32 batch = z->pcp_batch, most, pages;

	if (z->pcp_high < batch)
		return 1;
	most = z->pcp_high - batch;
	pages = batch << pcp->free_factor;
	if (pages < most && pcp->free_factor < PCP_FREE_FACTOR_MOST)
		pcp->free_factor++;
	pages = pages > batch ? pages : batch;
	return pages < most ? pages : most;
}

void pcp_shrink(struct engine *e, u32 zone, u32 order, u32 type)
{
	struct zone *z = zone_at(e, zone);
	struct pcp *pcp = &z->pcp[e->op_cpu];
	u32 list = pcp_list_of(order, pcp_type(type));

	/* Blocks of orders 1 to 3 fragment what they lie in: where frees follow each
	 * other, everything goes back. */
	if (pcp->free_factor && order && order <= PCP_MAX_ORDER)
		give_back(e, zone, e->op_cpu, pcp->count, list);
	else if (pcp->count >= z->pcp_high)
		give_back(e, zone, e->op_cpu, overflow_pages(z, pcp), list);
}

u32 pcp_drain(struct engine *e, u32 zone, u32 cpu)
{
	return give_back(e, zone, cpu, UINT32_MAX, 0);
}

u32 op_drain_pcp(struct engine *e, const struct engine_op *op, struct engine_result *res)
{
	u32 first = op->args[0] ? 0 : op->cpu, end = op->args[0] ? e->st->layout.cpus : op->cpu + 1;
	u32 pages = 0;

	for (u32 cpu = first; cpu < end; cpu++) {
		for (u32 zone = 0; zone < NR_ZONES; zone++)
			pages += pcp_drain(e, zone, cpu);
	}
	res->values[0] = pages;
	return STATUS_OK;
}
