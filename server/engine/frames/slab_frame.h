/*
 * slab_frame.h - the beginning of a frame of small objects, for slab.c and for the
 * audit.
 */
#ifndef ENGINE_SLAB_FRAME_H
#define ENGINE_SLAB_FRAME_H

#include "../types.h"

enum { SLAB_MIN_OBJECT = 8, SLAB_MAP_WORDS = PAGE_SIZE / SLAB_MIN_OBJECT / 32 };

struct slab_frame {
	u32 cache; /* enum slab_cache */
	u32 used;  /* objects in use, at least 1 */
	u32 used_map[SLAB_MAP_WORDS];
};

_Static_assert(sizeof(struct slab_frame) % 8 == 0, "objects hold u64");

u32 slab_objects_per_frame(u32 object_size);

#endif
