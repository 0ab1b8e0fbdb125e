/*
 * layout.h - the address space of a machine: computed once, from its
 * configuration alone, before anything exists.
 *
 * Sources: `classic` is the layout of the literature (lowmem 896 MB at 3G, pkmap
 * just below the fixmap, fixmap 0xffc00000 to 0xfffff000); `linux-6.1` was
 * measured on Debian's 6.1 i386 kernels; see layout.c for each constant.
 */
#ifndef ENGINE_LAYOUT_H
#define ENGINE_LAYOUT_H

#include "../engine.h"

enum {
	NR_ZONES = 4,
	/* kmap_local slots of one CPU (Linux's KM_MAX_IDX). */
	KMAP_LOCAL_SLOTS = 16,
};

/* Where frames that the guest needs for itself lie, in both back ends, and where
 * it maps them: inside the fixmap range, unused by both x86 presets. */
#define HOST_WINDOW_PADDR 0x01000000u
#define HOST_WINDOW_VA	  0xffc00000u
#define HOST_WINDOW_BYTES 0x001b0000u
/* Its last two pages are ring 3's: a page of data that it may write, and the code
 * that makes user accesses. Two pages above the window reach the guest's devices: its
 * console, and the CPU's own interrupt controller. */
#define HOST_USER_DATA_VA 0xffdae000u
#define HOST_USER_CODE_VA 0xffdaf000u
#define HOST_MMIO_VA	  0xffdb0000u
#define HOST_MMIO_PADDR	  0xfeb02000u
#define HOST_LAPIC_VA	  0xffdb1000u
#define HOST_LAPIC_PADDR  0xfee00000u
#define HOST_END_VA	  0xffdb2000u

struct layout {
	u32 page_offset;
	u32 task_size; /* user space ends here */
	u32 pae;       /* 0 or 1 */
	u32 cpus;

	/* Frames. low_end_pfn: end of the direct map and of NORMAL. max_pfn: end of
	 * the RAM in use. dma_end_pfn: 0 where the DMA zone is empty. */
	pfn_t dma_end_pfn, low_end_pfn, max_pfn;
	/* Zones: first frame and frame after the last; equal when empty. */
	pfn_t zone_start[NR_ZONES], zone_end[NR_ZONES];
	u32 reserved0;
	u64 unused_start, unused_bytes; /* RAM that cannot be used, for the event */

	/* Windows; ends are the first address after. */
	va_t high_memory; /* end of the direct map */
	va_t vmalloc_start, vmalloc_end;
	va_t pkmap_start;
	u32 pkmap_slots;
	va_t fixmap_start, fixmap_top; /* slot i is at fixmap_top - i * PAGE_SIZE */
	u32 nr_fixmap;		       /* indexes 0 .. nr_fixmap - 1 */
	u32 fix_kmap_begin;	       /* kmap_local of cpu c, depth d: + 16 c + d */
	u32 fix_kmap_end;	       /* last index of the kmap_local slots */
	va_t ldt_start, ldt_end;       /* linux-6.1; else equal */
	va_t cpu_entry_start, cpu_entry_end;

	/* The engine's own, at the top of lowmem: [metadata_start, metadata_end), in
	 * one piece: state block, mem_map (a descriptor for each frame below max_pfn,
	 * holes too), pageblock types (pageblock_bytes() of frames/zone.h), reserve for loaded
	 * states. */
	pfn_t metadata_start, metadata_end;
	ref_t state_ref, mem_map_ref, pageblock_ref;
	pfn_t reserve_start, reserve_end; /* frames for page tables and objects while a
					   * loaded allocator state must stay exact */
	u32 pageblock_order;		  /* 10 two-level, 9 PAE */

	/* What boot keeps from the allocator beside the metadata: frames below
	 * firmware_end (the real-mode area; 0: none), and the host window, as far as
	 * there is RAM (equal: none). */
	pfn_t firmware_end, host_start, host_end;
	u32 reserved1;
};

_Static_assert(sizeof(struct layout) == 184, "no padding: it is state, and is compared");

/* Computes the layout. False with `why` for what cannot be, naming both parts. */
bool layout_compute(const struct engine_config *config, struct layout *ret,
		    struct engine_error *why);

/* More frames than the kernel's own tables can take: those of the windows, and one at either
 * end of each range of RAM, where the direct map has no large page. */
static inline u32 tables_most(u32 ranges)
{
	return 32 + 2 * ranges;
}

/* Pages of late_pages that are an initrd's, at the end of lowmem: what there is beyond the
 * init memory of Debian's 6.1. */
u32 initrd_frames(const struct engine_config *config);

/* Of engine_e820.type; every other type is no RAM. */
enum { E820_USABLE = 1 };

/* RAM as page-aligned ranges: sorted, apart, not empty. */
enum { RAM_MAX_RANGES = ENGINE_MAX_E820 + 2 };
struct ram_map {
	u32 nr, reserved0;
	struct engine_range range[RAM_MAX_RANGES]; /* bytes */
};

/* The RAM of a configuration that lies below `end` (0: all of it): the e820 map or
 * the usual map of its size, without frame 0, what entries of other types cover,
 * the PC's hole below 1 MiB, partial frames, and what mem= cuts off. Frames that
 * are not in it are no RAM to anybody. False with `why` for a map that is none. */
bool ram_map_make(const struct engine_config *config, paddr_t end, struct ram_map *ret,
		  struct engine_error *why);
/* Does the map hold this frame? */
bool ram_map_has(const struct ram_map *map, pfn_t pfn);

/* May SetFixmap use this index? Not the hole at 0, not what belongs to kmap_local,
 * not what lies over the host window and its devices, in any preset: the same
 * index is refused on both back ends. */
static inline bool fix_is_settable(const struct layout *l, u32 index)
{
	va_t va = l->fixmap_top - (index << PAGE_SHIFT);

	return index > 0 && index < l->nr_fixmap &&
	       (index < l->fix_kmap_begin || index > l->fix_kmap_end) &&
	       (va < HOST_WINDOW_VA || va >= HOST_END_VA);
}

static inline va_t fix_to_va(const struct layout *l, u32 index)
{
	return l->fixmap_top - (index << PAGE_SHIFT);
}

#endif
