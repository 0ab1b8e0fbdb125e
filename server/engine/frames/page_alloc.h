/*
 * page_alloc.h - the page allocator as the other wings see it.
 */
#ifndef ENGINE_PAGE_ALLOC_H
#define ENGINE_PAGE_ALLOC_H

#include "../engine.h"

/* Does this gfp name a zone and a migratetype? __GFP_DMA with __GFP_HIGHMEM does
 * not, nor __GFP_MOVABLE with __GFP_RECLAIMABLE. */
bool page_gfp_valid(u32 gfp);

/* Linux's order of attempts for this gfp; 0 for one that is not valid. Returns the first frame, or
 * 0. The block's state is FRAME_ALLOCATED, its owner and op those of the op being executed.
 * __GFP_ZERO clears, through a kmap_local mapping where it must. Emits what happened. */
pfn_t page_alloc(struct engine *e, u32 gfp, u32 order);

/* The same for a page that user space will see: the machine's user_fallback
 * policy narrows the zones, as it does wherever gfp has __GFP_HARDWALL. */
pfn_t page_alloc_user(struct engine *e, u32 gfp);

/* Frees a block that is allocated with this order and has no uses. Anything else
 * is a broken invariant: requests from outside go through page_free_asked(). */
void page_free(struct engine *e, pfn_t pfn, u32 order);

/* Why a request to free must be refused: OK, DOUBLE_FREE, WRONG_ORDER, RESERVED,
 * INVALID (outside RAM, unaligned) or BUSY (in use, or not the caller's kind of
 * frame: page tables, anonymous memory, ...). */
u32 page_free_check(struct engine *e, pfn_t pfn, u32 order);

/* A request to free: that check and, if it finds nothing, the freeing. */
u32 page_free_asked(struct engine *e, pfn_t pfn, u32 order);

/* Is this frame part of an allocated block? Returns its head, or 0. */
pfn_t page_allocated_head(struct engine *e, pfn_t pfn);

/* Head of the block that a frame below max_pfn is in: allocated, on a free list or
 * on a per-CPU list. 0: none, or a block of the frontier. */
pfn_t page_block_head(const struct engine *e, pfn_t pfn);

/* What a frame below max_pfn is, and how many frames from it on are surely the same. */
struct frame_run {
	pfn_t first;
	u32 count;		/* at least 1 */
	pfn_t head;		/* of the block that it is in; else the frame itself */
	u32 zone, state, order; /* FRAME_*; the block's order, else 0 */
	u32 owner;		/* of an allocated block; else 0 */
};
void frame_describe(struct engine *e, pfn_t pfn, struct frame_run *ret);

/* For page tables and the engine's own objects: a zeroed lowmem frame, from the
 * buddy (GFP_KERNEL), or from the reserve: while the machine boots, and while a
 * loaded state must stay exact.
 * 0 when there is none. `state` is FRAME_PAGE_TABLE or FRAME_SLAB. */
pfn_t frame_alloc_own(struct engine *e, u32 state);
void frame_free_own(struct engine *e, pfn_t pfn);

/* The zone of a frame below max_pfn. */
u32 zone_of_pfn(const struct engine *e, pfn_t pfn);

#endif
