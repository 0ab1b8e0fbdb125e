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

#endif
