/*
 * page_use.h - uses of an allocated block by the kernel: mappings of its own,
 * devices, pins. A used block cannot be freed.
 *
 * The last use of an anonymous frame takes the frame along: it may have lost its
 * tasks before (munmap, exit), and then nobody else would.
 */
#ifndef ENGINE_PAGE_USE_H
#define ENGINE_PAGE_USE_H

#include "../port.h"
#include "../state.h"
#include "page_alloc.h"

static inline void page_get(struct engine *e, pfn_t head)
{
	page_of(e, head)->ref++;
}

static inline void page_put(struct engine *e, pfn_t head)
{
	struct page *p = page_of(e, head);

	ENGINE_ASSERT(e, p->ref > 0);
	if (--p->ref == 0 && page_state(p) == FRAME_ANONYMOUS)
		page_free(e, head, 0);
}

#endif
