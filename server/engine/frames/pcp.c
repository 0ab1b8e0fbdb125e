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

void pcp_refill(struct engine *e, u32 zone, u32 order, u32 type)
{
	struct zone *z = zone_at(e, zone);
	struct pcp *pcp = &z->pcp[e->op_cpu];
	u32 list = pcp_list_of(order, type), blocks = z->pcp_batch, taken = 0;

	/* A batch of 1 marks a zone too small to keep much. */
	if (blocks > 1)
		blocks = blocks >> order > 2 ? blocks >> order : 2;
	for (; taken < blocks; taken++) {
		pfn_t pfn = buddy_take(e, zone, order, type);

		if (!pfn)
			break;
		e->mem_map[pfn].flags = page_head_flags(FRAME_PCP, order, type);
		list_push_tail(e->mem_map, &pcp->list[list], pfn);
	}
	if (!taken)
		return;
	pcp->count += taken << order;
	zone_add_free(e, zone, -(s32)(taken << order));
	event_pcp_refill(e, zone, e->op_cpu, list, taken << order);
}

/* Gives blocks back until at least `pages` have gone, beginning with list `first`
 * and going round; each list until it is empty. Returns the pages. */
static u32 give_back(struct engine *e, u32 zone, u32 cpu, u32 pages, u32 first)
{
	struct pcp *pcp = &e->st->frames.zone[zone].pcp[cpu];
	u32 gone = 0;

	pages = pages < pcp->count ? pages : pcp->count;
	for (u32 i = first; gone < pages; i = i + 1 < NR_PCP_LISTS ? i + 1 : 0) {
		struct pfn_list *list = &pcp->list[i];
		u32 order = pcp_list_order(&e->st->layout, i);

		while (gone < pages && list->last) {
			pfn_t pfn = list->last;
			u32 type = page_type(&e->mem_map[pfn]);

			list_remove(e->mem_map, list, pfn);
			e->mem_map[pfn].flags = 0;
			gone += pages_of_order(order);
			pcp->count -= pages_of_order(order);
			buddy_free(e, zone, pfn, order, type, FREE_NATURAL);
			zone_add_free(e, zone, (s32)pages_of_order(order));
		}
	}
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
	u32 list = pcp_list_of(order, type < NR_PCP_TYPES ? type : MIGRATE_MOVABLE);

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
