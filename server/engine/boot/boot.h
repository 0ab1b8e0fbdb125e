/*
 * boot.h - from an e820 map to a running allocator, in the order of a kernel's
 * boot: memblock, direct map, mem_map, zones, and the buddy takes over.
 */
#ifndef ENGINE_BOOT_H
#define ENGINE_BOOT_H

#include "../engine.h"

/* Before anything else: layout, state block, memblock filled and reserved. */
bool boot_early(struct engine *e, const struct engine_config *config, struct engine_error *why);

/* The rest. Returns a status; NO_MEMORY when memblock cannot serve what is needed. */
u32 boot_finish(struct engine *e);

/* Each wing's own start, called by boot_finish() in this order. Everything before
 * it works already: page tables and the zero page before frames_boot(), the page
 * allocator before map_boot(). A status. */
u32 frames_boot(struct engine *e); /* zones, memblock's free ranges to the buddy, marks */
u32 map_boot(struct engine *e);	   /* SLAB_AREA_LEAF, SLAB_HOLDER; windows */
u32 user_boot(struct engine *e);   /* SLAB_TASK, SLAB_MM, SLAB_FILE */
u32 dma_boot(struct engine *e);	   /* SLAB_DMA */

#endif
