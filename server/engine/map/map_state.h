/*
 * map_state.h - the mapping wing's part of the state block.
 */
#ifndef ENGINE_MAP_STATE_H
#define ENGINE_MAP_STATE_H

#include "kmap_local.h"
#include "pkmap.h"
#include "vmalloc.h"

enum { FIXMAP_WORDS = 4096 / 32 };

struct map_state {
	pfn_t kernel_pgd; /* the kernel's own top-level table */
	pfn_t zero_pfn;	  /* the shared zero page: reserved, from memblock */
	/* Tables made at boot, the kernel's pgd first, side by side. */
	pfn_t boot_tables_start;
	u32 nr_boot_tables;
	struct pkmap_state pkmap;
	struct vmap_state vmap;
	u32 fixmap_used[FIXMAP_WORDS]; /* a bit for each index set by SetFixmap */
};

#endif
