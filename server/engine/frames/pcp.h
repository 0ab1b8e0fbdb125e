/*
 * pcp.h - per-CPU lists: blocks kept between the buddy and who allocates, of orders
 * 0 to 3 and of pageblock_order.
 *
 * Mirrors rmqueue_pcplist() and free_unref_page_commit() of Linux 6.1's stable kernels; the
 * CPU is the one that executes the op.
 */
#ifndef ENGINE_PCP_H
#define ENGINE_PCP_H

#include "list.h"
#include "zone_access.h"

/* free_factor stops here: Linux's CONFIG_PCP_BATCH_SCALE_MAX, which stable kernels of 6.1
 * have and 6.1.0 has not. */
enum { PCP_FREE_FACTOR_MOST = 5 };

/* Has this order lists? */
static inline bool pcp_has_order(const struct layout *l, u32 order)
{
	return order <= PCP_MAX_ORDER || order == l->pageblock_order;
}

/* Order of the blocks on a list. */
static inline u32 pcp_list_order(const struct layout *l, u32 list)
{
	return list < PCP_LIST_LARGE ? list / NR_PCP_TYPES : l->pageblock_order;
}

/* The list of an order that has one; type is one of the NR_PCP_TYPES. */
static inline u32 pcp_list_of(u32 order, u32 type)
{
	return order <= PCP_MAX_ORDER ? order * NR_PCP_TYPES + type
				      : PCP_LIST_LARGE + (type == MIGRATE_MOVABLE);
}

/* Whose lists a pageblock's blocks go to: MOVABLE's, where it has none. */
static inline u32 pcp_type(u32 type)
{
	return type < NR_PCP_TYPES ? type : MIGRATE_MOVABLE;
}

/* Brings blocks from the buddy to the executing CPU's list, which is empty, as many as there
 * are of a batch. The first goes to the caller; 0: none. */
pfn_t pcp_refill(struct engine *e, u32 zone, u32 order, u32 type);

/* The executing CPU's lists hold too much since they got a block of this order and type:
 * the oldest go back to the buddy. */
void pcp_shrink(struct engine *e, u32 zone, u32 order, u32 type);

/* The executing CPU's lists. */
static inline struct pcp *pcp_of(const struct engine *e, struct zone *z)
{
	return &z->pcp[e->op_cpu];
}

/* Takes a list's first block. */
static inline void pcp_pop(struct engine *e, struct pcp *pcp, struct pfn_list *list, pfn_t first,
			   u32 order)
{
	/* Whoever allocates will not overflow soon. */
	pcp->free_factor >>= 1;
	pcp->count -= pages_of_order(order);
	list_pop_head(e->mem_map, list, first);
}

/* Takes a block, refilling the list from the buddy when it is empty. 0: none. */
static inline pfn_t pcp_take(struct engine *e, u32 zone, u32 order, u32 type)
{
	struct pcp *pcp = pcp_of(e, zone_at(e, zone));
	struct pfn_list *list = &pcp->list[pcp_list_of(order, type)];
	pfn_t pfn = list->first;

	if (pfn) {
		pcp_pop(e, pcp, list, pfn, order);
	} else {
		pfn = pcp_refill(e, zone, order, type);
		pcp->free_factor >>= 1; /* an attempt in vain counts as well */
	}
	return pfn;
}

/* Gives a block back. True: the lists may hold too much now, which is for pcp_shrink(). */
static inline bool pcp_free(struct engine *e, u32 zone, pfn_t pfn, u32 order, u32 type)
{
	struct zone *z = zone_at(e, zone);
	struct pcp *pcp = pcp_of(e, z);
	struct pfn_list *list = &pcp->list[pcp_list_of(order, pcp_type(type))];
	struct page *map = e->mem_map;
	u32 count = pcp->count + pages_of_order(order);

	map[pfn].flags = page_head_flags(FRAME_PCP, order, type);
	list_push_head(map, list, pfn);
	pcp->count = count;
	return count >= z->pcp_high || (order && pcp->free_factor);
}

/* Gives all of a CPU's lists of a zone back to the buddy. Returns the pages. */
u32 pcp_drain(struct engine *e, u32 zone, u32 cpu);

#endif
