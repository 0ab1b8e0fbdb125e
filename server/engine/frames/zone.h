/*
 * zone.h - zones: free lists, per-CPU lists, watermarks and reserves, as they lie
 * in the machine's RAM.
 *
 * Names and numbers are Linux 6.1's. Lists are doubly linked through the frames'
 * descriptors, ended by pfn 0: frame 0 is never free. All zeros is an empty zone.
 */
#ifndef ENGINE_ZONE_H
#define ENGINE_ZONE_H

#include "../boot/layout.h"

enum {
	MAX_ORDER = 10, /* largest order; Linux's MAX_ORDER - 1 */
	NR_ORDERS = MAX_ORDER + 1,
	NR_MIGRATETYPES = 5,
	/* Migratetypes that have per-CPU lists, and that may merge with each other. */
	NR_PCP_TYPES = 3,
	/* Orders 0 to 3 have a per-CPU list for each type; two more are for blocks of
	 * pageblock_order, non-movable and movable ones (Linux's THP lists; 6.1.0 has one). */
	PCP_MAX_ORDER = 3,
	PCP_LIST_LARGE = (PCP_MAX_ORDER + 1) * NR_PCP_TYPES,
	NR_PCP_LISTS = PCP_LIST_LARGE + 2,
	NR_MARKS = 3,
	/* Ranges of blocks never yet taken that a zone can keep apart. A machine whose
	 * memory map has more pieces keeps them as ordinary list entries. */
	FRONTIER_RANGES = 16,
};

struct pfn_list {
	pfn_t first, last;
	u32 nr; /* entries */
};

/* A CPU's lists of one zone. */
struct pcp {
	u32 count;	 /* pages on all lists */
	u32 free_factor; /* how often in a row it overflowed: frees grow by 2^this */
	s32 free_diff;	 /* what this CPU has not yet added to zone.free */
	struct pfn_list list[NR_PCP_LISTS];
};

/* Blocks of MAX_ORDER, MOVABLE, not taken since boot: the end of that free list.
 * Their descriptors are zeros. Taken from the list's front: of ascending ranges
 * the lowest block of the first, of descending ones the highest of the last. */
struct frontier {
	u32 nr;		/* ranges */
	u32 descending; /* 1: HIGHMEM's order */
	u32 blocks;	/* in all ranges */
	struct {
		pfn_t start, end;
	} range[FRONTIER_RANGES];
};

struct zone {
	/* Looked at by every allocation. */
	s32 free;	    /* NR_FREE_PAGES: pages on the free lists, less the CPUs' free_diff */
	u32 mark[NR_MARKS]; /* by MARK_*, without the boost; pages */
	u32 boost;	    /* pages */
	u32 reserve[NR_ZONES];	 /* lowmem_reserve: against requests of that class; pages */
	u32 highatomic;		 /* pages in HIGHATOMIC pageblocks */
	u32 pcp_high, pcp_batch; /* pages */
	u32 stat_threshold;	 /* largest free_diff */
	/* No mark is crossed while free - band_low (unsigned) < band_size. */
	s32 band_low;
	u32 band_size;
	u32 marks_above; /* how many marks `free` was above when last looked at: 0 to 3 */

	pfn_t start, end;     /* spanned; equal: the zone is empty */
	u32 present, managed; /* pages that are RAM; that the allocator was given */
	struct frontier frontier;
	struct pfn_list free_list[NR_ORDERS][NR_MIGRATETYPES];
	struct pcp pcp[ENGINE_MAX_CPUS];
};

struct frames_state {
	u32 populated;			/* a bit for each zone with managed pages */
	pfn_t zone_bound[NR_ZONES - 1]; /* first frame that is above zone 0, 1, 2 */
	u32 lowest_class;		/* ZONE_NORMAL where the preset has no DMA zone */
	u32 user_zones;	  /* a bit for each zone that user pages may come from; 0: not set */
	u32 poison_free;  /* TOGGLE_*; UNCHANGED until boot or SetPolicy says */
	u32 mobility_off; /* too small to group by mobility: all is UNMOVABLE */
	u32 loaded;	  /* 1: the state came from LoadState and must stay exact */

	/* Sysctls. */
	u32 min_free_kbytes;
	u32 user_min_free_kbytes; /* 0: never set by hand */
	u32 reserve_ratio[NR_ZONES - 1];
	u32 watermark_scale_factor, watermark_boost_factor; /* ten-thousandths */
	u32 pcp_high_fraction;

	/* Frames of layout.reserve_*: those from reserve_next on were never used, the
	 * others are used or on this list. */
	pfn_t reserve_next, reserve_free;
	u32 reserve_used;

	struct zone zone[NR_ZONES];
};

/* Hands every range that memblock has free to the buddy, in Linux's order and with
 * its lists' order: what a fresh machine has. frames_boot() (boot/boot.h) calls it,
 * and LoadState when it has to give up. Returns the pages. */
u32 frames_release(struct engine *e);

/* The zones' free lists are what they are going to be: notes which zones have frames
 * and emits zone_ready. */
void frames_ready(struct engine *e);

/* Back to zones that know where they lie and have no free frame. Only on a machine
 * of which no frame is allocated. */
void frames_forget(struct engine *e);

/* Which zones user pages may come from, by USER_FALLBACK_*; UNCHANGED at boot is ANY. */
void frames_set_user_fallback(struct frames_state *f, u32 policy);

/* Turns what is left of a zone's frontier into list entries. */
void frontier_materialise(struct engine *e, u32 zone);

/* The frontier's next block, which is no longer in it; 0: it is empty. */
pfn_t frontier_take(struct zone *z);

/* Is this frame in a block of the frontier? */
bool frontier_has(const struct zone *z, pfn_t pfn);

/* Where the range of the frontier ends that this frame is in. */
pfn_t frontier_range_end(const struct zone *z, pfn_t pfn);

/* The frontier's blocks in list order: block number i, below frontier.blocks. */
pfn_t frontier_block(const struct zone *z, u32 i);

/* A CPU's difference has become too large: adds it to the zone's count and starts
 * again. zone_add_free() (zone_access.h) decides that. */
void zone_fold_diff(struct engine *e, u32 zone, s32 *diff);

/* Looks whether free pages or marks have moved past each other, and says so. */
void zone_check_marks(struct engine *e, u32 zone);

/* Free pages on the buddy's lists, exactly. */
u32 zone_free_pages(const struct engine *e, u32 zone);

/* Pages on the zone's per-CPU lists. */
u32 zone_pcp_pages(const struct engine *e, u32 zone);

/* What check_frames() (wings.h) does, in whatever phase: the last op of a LoadState
 * asks before the state is the machine's. */
bool frames_audit(struct engine *e, struct engine_error *why);

/* Bytes of the pageblock-type array of a machine with so many frames. */
u32 pageblock_bytes(pfn_t max_pfn, u32 pageblock_order);

static inline u32 pages_of_order(u32 order)
{
	return 1u << order;
}

static inline u32 zone_spanned(const struct zone *z)
{
	return z->end - z->start;
}

#endif
