/*
 * use.h - a frame is mapped, and what that means for those who want to free it.
 *
 * Every mapping that is made of a frame (a pkmap user, a kmap_local entry, a page of
 * a vmap area, a fixmap slot, a sleeper's wish) is one use, counted in the `ref` of
 * the head of the frame's block, so that FreePages answers BUSY. A kmap of a lowmem
 * frame makes no mapping and so no use: the direct map is always there.
 */
#ifndef ENGINE_USE_H
#define ENGINE_USE_H

#include "../frames/zone_access.h"
#include "../port.h"

/* Why a frame cannot be mapped: NOT_FOUND, it is free; INVALID, it is outside RAM or
 * reserved since boot. */
u32 frame_why_not_mappable(struct engine *e, pfn_t pfn);

/* Is any of [start, end) RAM, in use or not? */
bool paddr_is_ram(struct engine *e, paddr_t start, paddr_t end);

/* An anonymous block without users: it is freed. */
void block_unused(struct engine *e, struct page *block);

/* OK, with the head's descriptor of the frame's block; or why not. */
static inline u32 frame_mappable(struct engine *e, pfn_t pfn, struct page **ret_block)
{
	*ret_block = frame_block(e, pfn);
	return *ret_block ? STATUS_OK : frame_why_not_mappable(e, pfn);
}

/* Does the engine itself own this block (page table, object, bounce buffer)? It frees such
 * a one when it likes, so no use of it can be counted. */
static inline bool block_is_own(const struct page *block)
{
	const u32 own = 1u << FRAME_PAGE_TABLE | 1u << FRAME_SLAB | 1u << FRAME_BOUNCE;

	return own >> page_state(block) & 1;
}

/* The same for a frame that has been found to be mappable, or is mapped. */
static inline struct page *mappable_block(struct engine *e, pfn_t pfn)
{
	struct page *p = &e->mem_map[pfn];

	if (__builtin_expect(!(p->flags & PAGE_HEAD), 0)) {
		pfn = page_block_head(e, pfn);
		ENGINE_ASSERT(e, pfn);
		p = &e->mem_map[pfn];
	}
	return p;
}

/* One use more, one less. An anonymous block is freed with its last use: the task that
 * owned it may be gone. */
static inline void frame_use(struct engine *e, pfn_t pfn)
{
	mappable_block(e, pfn)->ref++;
}

static inline void block_unuse(struct engine *e, struct page *block)
{
	ENGINE_ASSERT(e, block->ref);
	if (!--block->ref && page_state(block) == FRAME_ANONYMOUS)
		block_unused(e, block);
}

/* Of a block that is known to be page_is_plain(). */
static inline void page_unuse_plain(struct engine *e, struct page *page)
{
	ENGINE_ASSERT(e, page->ref);
	page->ref--;
}

static inline void frame_unuse(struct engine *e, pfn_t pfn)
{
	block_unuse(e, mappable_block(e, pfn));
}

/* Calls fn with the head of a frame's block, once for each use that this wing has. */
void map_for_each_use(struct engine *e, void (*fn)(struct engine *e, pfn_t head, void *arg),
		      void *arg);

#endif
