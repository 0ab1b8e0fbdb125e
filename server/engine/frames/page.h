/*
 * page.h - the descriptor of a frame (Linux's struct page).
 *
 * 32 bytes, one for each frame below max_pfn, in an array at the top of lowmem.
 * State is on the first frame of a block (its head); the other descriptors of the
 * block are not looked at for state. A descriptor of zeros is a frame inside a
 * free block that was never taken, so a machine starts without writing them.
 */
#ifndef ENGINE_PAGE_H
#define ENGINE_PAGE_H

#include "../types.h"

struct page {
	u32 flags; /* PAGE_* below */
	/* Free: neighbours on the list, as pfns. Allocated: by state, see below. */
	pfn_t next, prev;
	u32 owner; /* label of the op that allocated it */
	u64 op;	   /* that op's number */
	/* Allocated: uses that forbid FreePages (kmap, kmap_local, vmap, fixmap, DMA,
	 * pins; of anonymous and page-cache frames also user mappings). Of a block,
	 * uses of any of its frames count on its head. */
	u32 ref;
	/* pkmap slot + 1 of this very frame, 0 for none. Survives a free, as Linux's
	 * page_address does: the mapping goes only when the window wraps. */
	u32 slot;
};

_Static_assert(sizeof(struct page) == 32, "two to a cache line");

/* flags: state in the low four bits (enum contract_frame_state, FRAME_FREE is 0),
 * order in the next four, then what frames/ needs. Of a frame that is no head all
 * of them are 0. */
enum {
	PAGE_STATE_MASK = 0xf,
	PAGE_ORDER_SHIFT = 4,
	PAGE_ORDER_MASK = 0xf0,
	/* Of a free or per-CPU block: the migratetype of the list it is on, or is to
	 * go back to. It may differ from its pageblock's. */
	PAGE_TYPE_SHIFT = 8,
	PAGE_TYPE_MASK = 0x700,
	/* First frame of a block: on a free list, on a per-CPU list, or allocated. */
	PAGE_HEAD = 0x800,
};

static inline u32 page_state(const struct page *p)
{
	return p->flags & PAGE_STATE_MASK;
}

static inline u32 page_order(const struct page *p)
{
	return (p->flags & PAGE_ORDER_MASK) >> PAGE_ORDER_SHIFT;
}

static inline u32 page_type(const struct page *p)
{
	return (p->flags & PAGE_TYPE_MASK) >> PAGE_TYPE_SHIFT;
}

/* Flags of the head of a block. */
static inline u32 page_head_flags(u32 state, u32 order, u32 type)
{
	return PAGE_HEAD | type << PAGE_TYPE_SHIFT | order << PAGE_ORDER_SHIFT | state;
}

/* An allocated frame's state may be changed from FRAME_ALLOCATED to what it is
 * used for, and is changed back by page_free(). */
static inline void page_set_state(struct page *p, u32 state)
{
	p->flags = (p->flags & ~(u32)PAGE_STATE_MASK) | state;
}

/* FRAME_ANONYMOUS and FRAME_PAGE_CACHE: `next` counts user mappings, `prev` pins. */
static inline u32 *page_mapcount(struct page *p)
{
	return &p->next;
}

static inline u32 *page_pincount(struct page *p)
{
	return &p->prev;
}

#endif
