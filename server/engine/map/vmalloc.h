/*
 * vmalloc.h - vmalloc, vmap and ioremap: ranges of the vmalloc window.
 *
 * Lowest hole that fits, one guard page behind each area. Freeing clears the
 * entries and frees the frames at once; the addresses are used again only after a
 * purge, which flushes the TLBs: at the end of the op that makes the lazily freed
 * pages exceed fls(cpus) x 32 MiB, before an allocation gives up, or on request.
 */
#ifndef ENGINE_VMALLOC_H
#define ENGINE_VMALLOC_H

#include "areas.h"

struct vmap_state {
	struct area_map areas; /* kind: VMAP_*; live and lazy */
	u32 lazy_areas, lazy_pages;
	u32 used_pages; /* of live areas, guard pages not counted */
	u32 reserved0;
};

/* An access is about to be made to [va, va + length): if a lazily freed area is
 * there, its range is flushed first, so that the access faults on every host. */
void vmap_before_access(struct engine *e, u32 cpu, va_t va, u32 length);

/* The written trigger of the lazy purge; called after every op that leaves lazy pages. */
void vmap_end_of_op(struct engine *e);

#endif
