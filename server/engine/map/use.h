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

#include "../engine.h"

/* Why a frame cannot be mapped: OK; NOT_FOUND, it is free; INVALID, it is outside
 * RAM or reserved since boot. */
u32 frame_mappable(struct engine *e, pfn_t pfn);

/* Is any of [start, end) RAM, in use or not? */
bool paddr_is_ram(struct engine *e, paddr_t start, paddr_t end);

/* Does the engine itself own this frame (page table, object, bounce buffer)? It
 * frees such a frame when it likes, so no use of it can be counted. */
bool frame_is_own(struct engine *e, pfn_t pfn);

/* One use more, one less. An anonymous frame without users is freed with its last
 * use: the task that owned it may be gone. */
void frame_use(struct engine *e, pfn_t pfn);
void frame_unuse(struct engine *e, pfn_t pfn);

/* Calls fn with the head of a frame's block, once for each use that this wing has. */
void map_for_each_use(struct engine *e, void (*fn)(struct engine *e, pfn_t head, void *arg),
		      void *arg);

#endif
