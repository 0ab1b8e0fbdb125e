/*
 * slab.h - the engine's own small objects, in lowmem frames.
 *
 * Objects are named by their kernel virtual address (ref_t), come zeroed, and are
 * of a few fixed sizes. A cache keeps its partly filled frames on a list, gives an
 * empty frame back at once, and always takes the lowest free object of the first
 * frame: where an object lies is a function of the op stream.
 */
#ifndef ENGINE_SLAB_H
#define ENGINE_SLAB_H

#include "../types.h"

struct engine;

enum slab_cache {
	SLAB_TASK,
	SLAB_MM,
	SLAB_AREA_LEAF, /* 1 KiB leaves of area maps */
	SLAB_FILE,
	SLAB_HOLDER, /* who holds which pkmap slot */
	SLAB_DMA,
	SLAB_NUMBERS,	/* leaves of number tables (user/numbers.h) */
	SLAB_FILE_NODE, /* levels of a file's page index */
	NR_SLAB_CACHES,
};

struct slab_state {
	struct {
		u32 object_size; /* bytes; 0: not set up */
		u32 nr_objects, nr_frames;
		u32 partial; /* first frame with room, as pfn */
	} cache[NR_SLAB_CACHES];
};

/* Sets a cache's object size once, at boot. At most 2048 bytes, multiple of 8. */
void slab_setup(struct engine *e, u32 cache, u32 object_size);
ref_t slab_alloc(struct engine *e, u32 cache); /* 0: no memory */
void slab_free(struct engine *e, u32 cache, ref_t object);

#endif
