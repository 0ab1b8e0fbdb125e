/*
 * state.h - what a machine knows, as it lies in its RAM.
 *
 * One block near the top of lowmem holds every wing's state; what does not fit
 * hangs on it by ref_t (a kernel virtual address) or pfn_t. No host pointer is
 * ever stored. All zeros is a valid beginning of every part.
 */
#ifndef ENGINE_STATE_H
#define ENGINE_STATE_H

#include "boot/layout.h"
#include "boot/memblock.h"
#include "dma/dma.h"
#include "engine.h"
#include "frames/page.h"
#include "frames/slab.h"
#include "frames/zone.h"
#include "map/map_state.h"
#include "user/file.h"
#include "user/task.h"

enum machine_phase {
	PHASE_EARLY = 1,   /* memblock alone */
	PHASE_FRESH = 2,   /* booted, no op but LoadState yet */
	PHASE_LOADING = 3, /* a LoadState is under way: nothing else until its last */
	PHASE_RUNNING = 4,
};

#define MACHINE_MAGIC 0x31646e6f7aULL /* "zond1" */

struct machine_state {
	u64 magic;
	u32 phase;
	u32 detail; /* DETAIL_*; not part of the digest (engine_digest skips it) */
	struct engine_config config;
	struct layout layout;
	u64 op_count;
	u64 event_counts[64]; /* by kind; EVENT_KIND_END is below 64 */
	struct memblock memblock;
	struct frames_state frames;
	struct slab_state slab;
	struct map_state map;
	struct user_state user;
	struct file_state files;
	struct dma_state dma;
};

/* The number of the op being executed; of none yet: 0, boot's. */
static inline u64 op_number(const struct engine *e)
{
	return e->st->op_count;
}

/* The byte at kernel virtual address `ref` of the direct map. */
static inline void *at(const struct engine *e, ref_t ref)
{
	return (void *)(bias_of(e) + ref);
}

static inline ref_t ref_of(const struct engine *e, const void *p)
{
	return (ref_t)((uintptr_t)p - bias_of(e));
}

/* A lowmem frame's address in the direct map. */
static inline ref_t frame_ref(const struct engine *e, pfn_t pfn)
{
	return e->page_offset + (pfn << PAGE_SHIFT);
}

static inline pfn_t ref_pfn(const struct engine *e, ref_t ref)
{
	return (ref - e->page_offset) >> PAGE_SHIFT;
}

static inline bool is_lowmem(const struct engine *e, pfn_t pfn)
{
	return pfn < e->st->layout.low_end_pfn;
}

static inline struct page *page_of(const struct engine *e, pfn_t pfn)
{
	return &e->mem_map[pfn];
}

/* Always on. A broken invariant ends the machine, not the daemon. */
#define ENGINE_ASSERT(e, condition)                                           \
	do {                                                                  \
		if (__builtin_expect(!(condition), 0))                        \
			port_panic((e), __FILE_NAME__, __LINE__, #condition); \
	} while (0)

#endif
