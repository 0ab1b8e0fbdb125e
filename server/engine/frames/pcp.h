/*
 * pcp.h - per-CPU lists: blocks kept between the buddy and who allocates, of orders
 * 0 to 3 and of pageblock_order.
 *
 * Mirrors Linux 6.1's rmqueue_pcplist() and free_unref_page_commit(); the CPU is
 * the one that executes the op.
 */
#ifndef ENGINE_PCP_H
#define ENGINE_PCP_H

#include "zone.h"

/* free_factor stops here: Linux's PCP_BATCH_SCALE_MAX. */
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

/* Takes a block, refilling the list from the buddy when it is empty. 0: none. */
pfn_t pcp_take(struct engine *e, u32 zone, u32 order, u32 type);

/* Gives a block back; when the lists overflow, the oldest go to the buddy. */
void pcp_free(struct engine *e, u32 zone, pfn_t pfn, u32 order, u32 type);

/* Gives all of a CPU's lists of a zone back to the buddy. Returns the pages. */
u32 pcp_drain(struct engine *e, u32 zone, u32 cpu);

#endif
