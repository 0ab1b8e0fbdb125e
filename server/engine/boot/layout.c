/*
 * layout.c - what a machine's address space looks like, from its configuration
 * alone: RAM, zones, windows, and where the engine's own metadata lies.
 *
 * Everything that differs between presets is in one table; the arithmetic is the
 * same for all. Invariants of a computed layout:
 *   1 zones follow each other without a gap from frame 1 to max_pfn;
 *   2 lowmem and the windows do not overlap, and windows ascend in the table's order;
 *   3 the metadata is RAM in lowmem, in one piece, apart from what else is kept.
 *
 * Not modelled: NUMA nodes, DMA32, kernel image and initrd (the host window stands
 * for the image; late_pages for what is given back late).
 */
#include "../state.h"
#include "../text.h"
#include "range.h"

#define KIB 10
#define MIB 20
#define GIB 30

enum {
	FIRMWARE_END = 1 << MIB,      /* Linux since 5.13 keeps all of the first MiB */
	BIOS_AREA = 0xa0000,	      /* never RAM on a PC, whatever the map says */
	DMA_LIMIT = 16 << MIB,	      /* what ISA devices reach */
	MIN_LOWMEM = 64 << MIB,	      /* Linux's own floor under highmem= */
	MIN_RAM = 4 << MIB,	      /* less leaves nothing to allocate */
	MIN_PAGE_OFFSET = 256 << MIB, /* below there is no room for a program */
	MAX_ORDER_PAGES = 1 << 10,    /* Linux rounds ZONE_MOVABLE's start to these */
	LINUX_INITRD_FRAMES = 512,    /* see `headroom` */
	LINUX_INITMEM_FRAMES = 228,   /* init code and data, and what PAE adds to them */
	LINUX_INITMEM_PAE = 4,
	PCI_HOLE_START_MIB = 3072, /* the usual map: RAM to 3 GiB, then from 4 GiB */
};

/* Physical addresses end here: 36 bits of PAE, 32 without. */
static u64 reach_of(const struct engine_config *config)
{
	return config->flags & CONFIG_PAE ? 1ULL << 36 : 1ULL << 32;
}

struct windows {
	va_t vmalloc_end;
	va_t pkmap_start; /* 0: 2 MiB below page_offset (ARM's PMD_SIZE) */
	u32 pkmap_slots;
	va_t ldt_start, ldt_end;
};

struct preset {
	const char *name;
	bool pc; /* the firmware's area and holes, the host window, and the usual map */
	bool zone_dma;
	u32 user_gap;	 /* user space ends this far below page_offset */
	u64 low_top;	 /* the reserve for windows ends here; lowmem is what is left below it */
	u32 reserve;	 /* its size by default */
	u32 reserve_add; /* its size beyond vmalloc= */
	/* vmalloc begins at (high_memory + hole + round) & -align. */
	u32 hole, round, align;
	u32 headroom; /* frames kept free between metadata and the end of lowmem */
	va_t fixmap_start, fixmap_top;
	u32 nr_fixmap, fix_kmap_begin;
	va_t cpu_entry_start, cpu_entry_end;
	struct windows windows[2]; /* two-level, PAE */
};

/*
 * classic: Linux 2.6's i386. MAXMEM is 4 GiB - PAGE_OFFSET - 128 MiB; pkmap is the
 * last page table below the fixmap; vmalloc ends two pages below it.
 *
 * linux-6.1: measured on Debian 6.1.0-50-686 and -686-pae (the constants stand in the
 * recordings' const.jsonl): MAXMEM is VMALLOC_END - PAGE_OFFSET - 128 MiB, and vmalloc=N
 * asks for N + 8 MiB. Its boot puts the initrd at the very top of lowmem and gives those
 * frames back, so that recorded states have free frames there (295 to 297), and mem_map
 * below: the headroom makes ours fit where Linux's was. How large the initrd was is what
 * late_pages has beyond the init memory; 512 frames are left where nobody says.
 *
 * arm32: VMALLOC_END 0xff800000, 240 MiB and an 8 MiB hole: 768 MiB of lowmem at 3G;
 * TASK_SIZE is PAGE_OFFSET - 16 MiB (modules), pkmap one PMD below PAGE_OFFSET.
 *
 * ppc32: LOWMEM_SIZE is 768 MiB at 3G, a 16 MiB hole, pkmap at a page table's boundary
 * below the fixmap, and no limit for DMA.
 */
static const struct preset presets[] = {
    [PRESET_CLASSIC] =
	{
	    .name = "classic",
	    .pc = true,
	    .zone_dma = true,
	    .low_top = 1ULL << 32,
	    .reserve = 128 << MIB,
	    .hole = 8 << MIB,
	    .round = (8 << MIB) - 1,
	    .align = 8 << MIB,
	    .fixmap_start = 0xffc00000,
	    .fixmap_top = 0xfffff000,
	    .nr_fixmap = 1024,
	    .fix_kmap_begin = 68,
	    .windows = {{.vmalloc_end = 0xff7fe000, .pkmap_start = 0xff800000, .pkmap_slots = 1024},
			{.vmalloc_end = 0xff9fe000, .pkmap_start = 0xffa00000, .pkmap_slots = 512}},
	},
    [PRESET_LINUX_6_1] =
	{
	    .name = "linux-6.1",
	    .pc = true,
	    .zone_dma = true,
	    .reserve = 128 << MIB,
	    .reserve_add = 8 << MIB,
	    .hole = 8 << MIB,
	    .align = 1,
	    .headroom = LINUX_INITRD_FRAMES,
	    .fixmap_start = 0xff9fe000,
	    .fixmap_top = 0xfffff000,
	    .nr_fixmap = 1537,
	    .fix_kmap_begin = 68,
	    .cpu_entry_start = 0xff400000,
	    .cpu_entry_end = 0xff960000,
	    .windows = {{.vmalloc_end = 0xfebfe000,
			 .pkmap_start = 0xfec00000,
			 .pkmap_slots = 1024,
			 .ldt_start = 0xff000000,
			 .ldt_end = 0xff400000},
			{.vmalloc_end = 0xfeffe000,
			 .pkmap_start = 0xff000000,
			 .pkmap_slots = 512,
			 .ldt_start = 0xff200000,
			 .ldt_end = 0xff400000}},
	},
    [PRESET_ARM32] =
	{
	    .name = "arm32",
	    .zone_dma = true,
	    .user_gap = 16 << MIB,
	    .reserve = 248 << MIB,
	    .reserve_add = 8 << MIB,
	    .hole = 8 << MIB,
	    .align = 8 << MIB,
	    .fixmap_start = 0xffc80000,
	    .fixmap_top = 0xffeff000,
	    .nr_fixmap = 640,
	    .fix_kmap_begin = 1,
	    .windows = {{.vmalloc_end = 0xff800000, .pkmap_slots = 512},
			{.vmalloc_end = 0xff800000, .pkmap_slots = 512}},
	},
    [PRESET_PPC32] =
	{
	    .name = "ppc32",
	    .low_top = 0xff800000,
	    .reserve = 248 << MIB,
	    .reserve_add = 16 << MIB,
	    .hole = 16 << MIB,
	    .align = 16 << MIB,
	    .fixmap_start = 0xffde0000,
	    .fixmap_top = 0xfffff000,
	    .nr_fixmap = 544,
	    .fix_kmap_begin = 32,
	    .windows = {{.vmalloc_end = 0xff7fe000, .pkmap_start = 0xff800000, .pkmap_slots = 1024},
			{.vmalloc_end = 0xff7fe000, .pkmap_start = 0xffa00000, .pkmap_slots = 512}},
	},
};

static u32 mib(u64 bytes)
{
	return (u32)(bytes >> MIB);
}

/* ---- the RAM map ---- */

static void map_insert(struct ram_map *map, u64 start, u64 end)
{
	u32 at = map->nr++;

	for (; at > 0 && map->range[at - 1].start > start; at--)
		map->range[at] = map->range[at - 1];
	map->range[at] = (struct engine_range){start, end - start};
}

/* Neighbours that touch become one, before partial frames are cut off: a frame that two
 * entries share is whole. */
static void map_merge(struct ram_map *map)
{
	u32 kept = 0;

	for (u32 i = 1; i < map->nr; i++) {
		if (range_end(map->range[kept]) == map->range[i].start)
			map->range[kept].size += map->range[i].size;
		else
			map->range[++kept] = map->range[i];
	}
	map->nr = kept + 1;
}

/* Keeps what lies outside [start, end). Cutting a range in two makes the map longer by
 * one at most, since ranges are apart. */
static void map_cut(struct ram_map *map, u64 start, u64 end)
{
	for (u32 i = 0; i < map->nr; i++) {
		struct engine_range r = map->range[i];

		if (!range_overlaps(r, start, end))
			continue;
		map->range[i].size = max_u64(start, r.start) - r.start;
		if (end < range_end(r))
			map_insert(map, end, range_end(r));
	}
}

static void map_trim(struct ram_map *map)
{
	u32 kept = 0;

	for (u32 i = 0; i < map->nr; i++) {
		u64 start = (map->range[i].start + PAGE_SIZE - 1) & ~(u64)(PAGE_SIZE - 1);
		u64 end = range_end(map->range[i]) & ~(u64)(PAGE_SIZE - 1);

		if (start < end)
			map->range[kept++] = (struct engine_range){start, end - start};
	}
	map->nr = kept;
}

/* The usual map of `ram` bytes; a PC's has holes, a board's has none. */
static bool map_from_size(const struct engine_config *config, bool pc, struct ram_map *map,
			  struct engine_error *why)
{
	u64 hole_start = (u64)PCI_HOLE_START_MIB << MIB, hole_end = 1ULL << 32;
	u64 end =
	    !pc || config->ram <= hole_start ? config->ram : config->ram - hole_start + hole_end;

	if (end > 1ULL << 36)
		return refuse(why,
			      "ram %u MiB ends at %u MiB behind the hole from 3 to 4 GiB, and "
			      "physical addresses end at 65536 MiB",
			      mib(config->ram), mib(end));
	if (!pc) {
		map_insert(map, 0, end);
		return true;
	}
	map_insert(map, 0, 0x9fc00);
	if (end > FIRMWARE_END)
		map_insert(map, FIRMWARE_END, min_u64(end, hole_start));
	if (end > hole_end)
		map_insert(map, hole_end, end);
	return true;
}

static bool map_from_e820(const struct engine_config *config, struct ram_map *map,
			  struct engine_error *why)
{
	if (config->nr_e820 > ENGINE_MAX_E820)
		return refuse(why, "e820 map of %u entries, and %u fit", config->nr_e820,
			      ENGINE_MAX_E820);
	for (u32 i = 0; i < config->nr_e820; i++) {
		const struct engine_e820 *n = &config->e820[i];

		if (n->size == 0 || n->start + n->size < n->start)
			return refuse(why, "e820 entry %u at 0x%llx has no size or no end", i,
				      (unsigned long long)n->start);
		if (n->type != E820_USABLE)
			continue;
		for (u32 k = 0; k < map->nr; k++) {
			struct engine_range r = map->range[k];

			if (range_overlaps(r, n->start, n->start + n->size))
				return refuse(why,
					      "e820 entries of usable RAM overlap: 0x%llx-0x%llx "
					      "and 0x%llx-0x%llx",
					      (unsigned long long)r.start,
					      (unsigned long long)range_end(r) - 1,
					      (unsigned long long)n->start,
					      (unsigned long long)(n->start + n->size) - 1);
		}
		map_insert(map, n->start, n->start + n->size);
	}
	if (map->nr == 0)
		return refuse(why, "e820 map of %u entries without usable RAM", config->nr_e820);
	map_merge(map);
	/* Where types overlap, RAM loses: Linux's rule as well. */
	for (u32 i = 0; i < config->nr_e820; i++)
		if (config->e820[i].type != E820_USABLE)
			map_cut(map, config->e820[i].start,
				config->e820[i].start + config->e820[i].size);
	return true;
}

bool ram_map_make(const struct engine_config *config, paddr_t end, struct ram_map *ret,
		  struct engine_error *why)
{
	bool pc;

	ret->nr = 0;
	ret->reserved0 = 0;
	if (config->preset >= sizeof presets / sizeof presets[0])
		return refuse(why, "preset %u, and there are %u", config->preset,
			      (u32)(sizeof presets / sizeof presets[0]));
	if ((config->ram != 0) == (config->nr_e820 != 0))
		return refuse(why, config->ram ? "both ram and an e820 map"
					       : "neither ram nor an e820 map");
	pc = presets[config->preset].pc;
	if (!(config->ram ? map_from_size(config, pc, ret, why) : map_from_e820(config, ret, why)))
		return false;
	map_cut(ret, 0, PAGE_SIZE);
	if (pc)
		map_cut(ret, BIOS_AREA, FIRMWARE_END);
	if (config->mem)
		map_cut(ret, config->mem, ~0ULL);
	if (end)
		map_cut(ret, end, ~0ULL);
	map_trim(ret);
	if (ret->nr == 0)
		return refuse(why, "no whole frame of RAM is left below mem=0x%llx",
			      (unsigned long long)config->mem);
	return true;
}

bool ram_map_has(const struct ram_map *map, pfn_t pfn)
{
	u64 paddr = (u64)pfn << PAGE_SHIFT;

	for (u32 i = 0; i < map->nr && map->range[i].start <= paddr; i++)
		if (paddr < range_end(map->range[i]))
			return true;
	return false;
}

/* Frames of RAM in [start, end). */
static u32 map_count(const struct ram_map *map, u64 start, u64 end)
{
	u64 bytes = 0;

	for (u32 i = 0; i < map->nr; i++) {
		u64 from = max_u64(map->range[i].start, start);
		u64 to = min_u64(range_end(map->range[i]), end);

		if (from < to)
			bytes += to - from;
	}
	return (u32)(bytes >> PAGE_SHIFT);
}

/* End of the highest RAM below `limit`; 0 when there is none. */
static u64 map_end_below(const struct ram_map *map, u64 limit)
{
	for (u32 i = map->nr; i-- > 0;)
		if (map->range[i].start < limit)
			return min_u64(range_end(map->range[i]), limit);
	return 0;
}

/* ---- lowmem, HIGHMEM and zones ---- */

static bool check_split(const struct engine_config *config, const struct preset *p, u32 page_offset,
			struct engine_error *why)
{
	if (page_offset & ((4 << MIB) - 1))
		return refuse(why,
			      "page offset 0x%08x, and page tables split at multiples of 4 MiB",
			      page_offset);
	if (config->flags & CONFIG_PAE && page_offset & ((1u << GIB) - 1))
		return refuse(why, "page offset 0x%08x with PAE, which splits at whole GiB",
			      page_offset);
	if (page_offset < MIN_PAGE_OFFSET + p->user_gap)
		return refuse(why, "page offset 0x%08x leaves less than 256 MiB of user space",
			      page_offset);
	return true;
}

/* Bytes that the direct map can cover at most. */
static bool find_lowmem_limit(const struct engine_config *config, const struct preset *p,
			      const struct windows *w, u32 page_offset, u64 *ret,
			      struct engine_error *why)
{
	u64 top = p->low_top ? p->low_top : w->vmalloc_end;
	u64 reserve =
	    config->vmalloc_bytes ? (u64)config->vmalloc_bytes + p->reserve_add : p->reserve;

	if (top < page_offset + reserve + MIN_LOWMEM)
		return refuse(why,
			      "page offset 0x%08x with %u MiB for vmalloc leaves less than %u MiB "
			      "of lowmem",
			      page_offset, mib(reserve), mib(MIN_LOWMEM));
	/* The default reserve of a preset always holds its windows; one that is asked for
	 * may be smaller than them. */
	if (top - reserve + p->hole + p->round >= w->vmalloc_end)
		return refuse(why, "vmalloc=%u KiB is less than preset %s needs for its windows",
			      config->vmalloc_bytes >> KIB, p->name);
	*ret = (top - page_offset - reserve) & ~(u64)(PAGE_SIZE - 1);
	return true;
}

/* Linux's find_low_pfn_range(): how far lowmem and RAM reach, given the cap. */
static bool find_low_end(const struct engine_config *config, u64 limit, u64 ram_end, u64 *ret_low,
			 u64 *ret_end, struct engine_error *why)
{
	u64 cap = config->highmem & ~(u64)(PAGE_SIZE - 1);

	if (config->highmem && config->flags & CONFIG_HIGHMEM_OFF)
		return refuse(why, "highmem=%u MiB and highmem off", mib(config->highmem));
	*ret_low = min_u64(limit, ram_end);
	*ret_end = ram_end;
	if (config->flags & CONFIG_HIGHMEM_OFF) {
		*ret_end = *ret_low;
	} else if (cap && ram_end > limit) {
		/* A cap above what there is changes nothing. */
		*ret_end = min_u64(ram_end, limit + cap);
	} else if (cap) {
		if (ram_end < cap + MIN_LOWMEM)
			return refuse(why,
				      "highmem=%u MiB of RAM that ends at %u MiB leaves less than "
				      "%u MiB of lowmem",
				      mib(cap), mib(ram_end), mib(MIN_LOWMEM));
		*ret_low = ram_end - cap;
	}
	return true;
}

static void set_zone(struct layout *l, u32 zone, u64 start, u64 end)
{
	l->zone_start[zone] = (pfn_t)start;
	l->zone_end[zone] = (pfn_t)(start < end ? end : start);
}

/* Linux's find_zone_movable_pfns_for_nodes() for one node: kernel frames are counted from
 * the bottom, over the RAM below the highest zone first. `total` has RAM that highmem= puts
 * out of use, too. Returns 0 for no ZONE_MOVABLE. */
static u32 find_movable(const struct engine_config *config, const struct ram_map *map, u64 total,
			u32 usable)
{
	u64 kernel = config->kernelcore >> PAGE_SHIFT;
	u64 movable = ((config->movablecore >> PAGE_SHIFT) + MAX_ORDER_PAGES - 1) &
		      ~(u64)(MAX_ORDER_PAGES - 1);
	u64 start = 0;

	if (movable)
		kernel = max_u64(kernel, total - min_u64(total, movable));
	if (kernel == 0 || kernel >= total)
		return 0;
	for (u32 i = 0; i < map->nr && kernel; i++) {
		u64 from = map->range[i].start >> PAGE_SHIFT;
		u64 to = range_end(map->range[i]) >> PAGE_SHIFT;

		if (from < usable) {
			kernel -= min_u64(kernel, min_u64(to, usable) - from);
			if (to <= usable) {
				start = to;
				continue;
			}
			from = usable;
		}
		start = from + min_u64(kernel, to - from);
		kernel -= start - from;
	}
	/* Kernel frames may have run out below the highest zone. */
	start = max_u64(start, usable);
	return (u32)((start + MAX_ORDER_PAGES - 1) & ~(u64)(MAX_ORDER_PAGES - 1));
}

static void set_zones(const struct engine_config *config, const struct preset *p,
		      const struct ram_map *map, u64 total, struct layout *l)
{
	u32 movable, highest = ZONE_NORMAL;

	l->dma_end_pfn = p->zone_dma ? (pfn_t)min_u64(DMA_LIMIT >> PAGE_SHIFT, l->low_end_pfn) : 0;
	/* Frame 0 belongs to no zone. */
	set_zone(l, ZONE_DMA, 1, l->dma_end_pfn);
	set_zone(l, ZONE_NORMAL, l->zone_end[ZONE_DMA], l->low_end_pfn);
	set_zone(l, ZONE_HIGHMEM, l->low_end_pfn, l->max_pfn);
	set_zone(l, ZONE_MOVABLE, l->max_pfn, l->max_pfn);
	if (!config->kernelcore && !config->movablecore)
		return;
	if (l->zone_start[ZONE_HIGHMEM] < l->zone_end[ZONE_HIGHMEM])
		highest = ZONE_HIGHMEM;
	movable = find_movable(config, map, total, l->zone_start[highest]);
	if (movable == 0 || movable >= l->zone_end[highest])
		return;
	l->zone_end[highest] = movable;
	set_zone(l, ZONE_MOVABLE, movable, l->max_pfn);
	if (highest == ZONE_NORMAL)
		set_zone(l, ZONE_HIGHMEM, movable, movable);
}

/* The first RAM that is there and not used, and how much of it in all. */
static void set_unused(const struct ram_map *map, u64 end, struct layout *l)
{
	for (u32 i = map->nr; i-- > 0 && range_end(map->range[i]) > end;) {
		l->unused_start = max_u64(map->range[i].start, end);
		l->unused_bytes += range_end(map->range[i]) - l->unused_start;
	}
}

/* ---- windows ---- */

static void set_windows(const struct preset *p, const struct windows *w, struct layout *l)
{
	l->task_size = l->page_offset - p->user_gap;
	l->high_memory = l->page_offset + (l->low_end_pfn << PAGE_SHIFT);
	l->vmalloc_start = (l->high_memory + p->hole + p->round) & -p->align;
	l->vmalloc_end = w->vmalloc_end;
	l->pkmap_start = w->pkmap_start ? w->pkmap_start : l->page_offset - (2 << MIB);
	l->pkmap_slots = w->pkmap_slots;
	l->fixmap_start = p->fixmap_start;
	l->fixmap_top = p->fixmap_top;
	l->nr_fixmap = p->nr_fixmap;
	l->fix_kmap_begin = p->fix_kmap_begin;
	l->fix_kmap_end = p->fix_kmap_begin + KMAP_LOCAL_SLOTS * ENGINE_MAX_CPUS - 1;
	l->ldt_start = w->ldt_start;
	l->ldt_end = w->ldt_end;
	l->cpu_entry_start = p->cpu_entry_start;
	l->cpu_entry_end = p->cpu_entry_end;
}

/* ---- what is kept from the allocator ---- */

static bool check_reserved(const struct engine_config *config, struct engine_error *why)
{
	if (config->nr_reserved > ENGINE_MAX_RESERVED)
		return refuse(why, "%u reserved ranges, and %u fit", config->nr_reserved,
			      ENGINE_MAX_RESERVED);
	for (u32 i = 0; i < config->nr_reserved; i++) {
		struct engine_range r = config->reserved[i];

		if (r.size == 0 || range_end(r) < r.start)
			return refuse(why, "reserved range %u at 0x%llx has no size or no end", i,
				      (unsigned long long)r.start);
	}
	return true;
}

static void set_kept(const struct preset *p, const struct ram_map *map, struct layout *l)
{
	l->host_start = l->host_end = HOST_WINDOW_PADDR >> PAGE_SHIFT;
	if (!p->pc)
		return;
	l->firmware_end = FIRMWARE_END >> PAGE_SHIFT;
	for (u32 i = 0; i < map->nr; i++)
		if (map->range[i].start <= HOST_WINDOW_PADDR)
			l->host_end =
			    (pfn_t)(min_u64(max_u64(range_end(map->range[i]), HOST_WINDOW_PADDR),
					    HOST_WINDOW_PADDR + HOST_WINDOW_BYTES) >>
				    PAGE_SHIFT);
}

/* Lowers *end below what overlaps [*end - size, *end); false when nothing does. */
static bool step_below(const struct engine_range *kept, u32 nr, u64 size, u64 *end)
{
	for (u32 i = 0; i < nr; i++) {
		if (range_overlaps(kept[i], *end - min_u64(size, *end), *end)) {
			*end = kept[i].start & ~(u64)(PAGE_SIZE - 1);
			return true;
		}
	}
	return false;
}

u32 initrd_frames(const struct engine_config *config)
{
	u32 init = LINUX_INITMEM_FRAMES + (config->flags & CONFIG_PAE ? LINUX_INITMEM_PAE : 0);

	return config->late_pages > init ? config->late_pages - init : 0;
}

/* Frames to leave at the end of lowmem, where the recorded kernel's initrd was. */
static u32 headroom(const struct engine_config *config, const struct preset *p)
{
	if (!p->headroom || !config->late_pages)
		return p->headroom;
	return config->late_pages > LINUX_INITMEM_FRAMES ? config->late_pages - LINUX_INITMEM_FRAMES
							 : 0;
}

/* The highest free place for `frames` in lowmem. 0: none. A ZONE_MOVABLE of lowmem is left
 * alone if that can be: Linux's image, much larger than the host window, keeps from NORMAL
 * what the metadata, and boot's page tables below it, take behind the window; from a small
 * ZONE_MOVABLE Linux keeps less. */
static pfn_t find_metadata(const struct engine_config *config, const struct preset *p,
			   const struct ram_map *map, const struct layout *l, u32 frames)
{
	struct engine_range kept[ENGINE_MAX_RESERVED + 2];
	u64 size = (u64)frames << PAGE_SHIFT;
	u64 top = (u64)(l->low_end_pfn - min_u64(headroom(config, p), l->low_end_pfn))
		  << PAGE_SHIFT;
	u32 nr = config->nr_reserved;

	for (u32 i = 0; i < nr; i++)
		kept[i] = config->reserved[i];
	kept[nr++] = range_of_frames(0, l->firmware_end);
	kept[nr++] = range_of_frames(l->host_start, l->host_end);
	if (l->zone_start[ZONE_MOVABLE] < l->low_end_pfn) {
		u64 start = (u64)(l->host_end + tables_most(map->nr)) << PAGE_SHIFT;
		u64 end = start + size;

		if (end <= (u64)l->zone_start[ZONE_MOVABLE] << PAGE_SHIFT &&
		    map_count(map, start, end) == frames && !step_below(kept, nr, size, &end))
			return (pfn_t)(start >> PAGE_SHIFT);
	}
	for (u32 i = map->nr; i-- > 0;) {
		u64 end = min_u64(range_end(map->range[i]), top);

		while (step_below(kept, nr, size, &end))
			;
		if (end >= map->range[i].start + size)
			return (pfn_t)((end - size) >> PAGE_SHIFT);
	}
	return 0;
}

/* Frames kept for a loaded state's page tables and objects: enough for the kernel's own
 * tables and a few tasks, growing with RAM, and small enough to fit with mem_map where
 * Linux, whose descriptors have 40 bytes to our 32, had its mem_map. */
static u32 reserve_frames(pfn_t max_pfn)
{
	return (u32)min_u64(128 + max_pfn / 1024, 1024);
}

static ref_t ref_at(const struct layout *l, pfn_t pfn)
{
	return l->page_offset + (pfn << PAGE_SHIFT);
}

static bool set_metadata(const struct engine_config *config, const struct preset *p,
			 const struct ram_map *map, struct layout *l, struct engine_error *why)
{
	u32 state = pages_of(sizeof(struct machine_state));
	u32 mem_map = pages_of((u64)l->max_pfn * sizeof(struct page));
	u32 pageblocks = pages_of(pageblock_bytes(l->max_pfn, l->pageblock_order));
	u32 reserve = reserve_frames(l->max_pfn);
	u32 frames = state + mem_map + pageblocks + reserve;
	u32 low = map_count(map, 0, (u64)l->low_end_pfn << PAGE_SHIFT);
	u32 kept = l->firmware_end + (l->host_end - l->host_start);
	pfn_t start = find_metadata(config, p, map, l, frames);

	if (start == 0 || low < kept + frames + (MIN_RAM >> PAGE_SHIFT) / 4)
		return refuse(why,
			      "RAM up to %u MiB needs %u KiB of metadata in lowmem, and %u MiB of "
			      "lowmem at page offset 0x%08x have no room for it in one piece",
			      l->max_pfn >> (MIB - PAGE_SHIFT), frames << (PAGE_SHIFT - KIB),
			      low >> (MIB - PAGE_SHIFT), l->page_offset);
	if (config->late_pages >= low - frames)
		return refuse(why, "late_pages %u of %u pages of lowmem", config->late_pages, low);
	l->metadata_start = start;
	l->metadata_end = start + frames;
	l->state_ref = ref_at(l, start);
	l->mem_map_ref = ref_at(l, start + state);
	l->pageblock_ref = ref_at(l, start + state + mem_map);
	l->reserve_start = start + state + mem_map + pageblocks;
	l->reserve_end = l->metadata_end;
	return true;
}

/* ---- all of it ---- */

bool layout_compute(const struct engine_config *config, struct layout *ret,
		    struct engine_error *why)
{
	const u32 known =
	    CONFIG_PAE | CONFIG_EARLY | CONFIG_HIGHMEM_OFF | CONFIG_THP_OFF | CONFIG_POISON_FREE;
	struct layout l = {0};
	struct ram_map map;
	u64 limit = 0, low_end = 0, end, total;

	if (!ram_map_make(config, 0, &map, why))
		return false;
	if (config->flags & ~known)
		return refuse(why, "config flags 0x%x, and 0x%x are known", config->flags, known);
	if (config->cpus > ENGINE_MAX_CPUS)
		return refuse(why, "%u CPUs, and %u fit", config->cpus, ENGINE_MAX_CPUS);

	const struct preset *p = &presets[config->preset];
	const struct windows *w = &p->windows[!!(config->flags & CONFIG_PAE)];

	l.page_offset = config->page_offset ? config->page_offset : 0xc0000000;
	l.pae = !!(config->flags & CONFIG_PAE);
	l.cpus = config->cpus ? config->cpus : 1;
	l.pageblock_order = l.pae ? 9 : 10;
	end = map_end_below(&map, reach_of(config));
	if (end < MIN_RAM)
		return refuse(why, "RAM below 0x%llx ends at %u KiB, and a machine needs %u KiB",
			      (unsigned long long)reach_of(config), (u32)(end >> KIB),
			      MIN_RAM >> KIB);
	if (!check_split(config, p, l.page_offset, why) || !check_reserved(config, why) ||
	    !find_lowmem_limit(config, p, w, l.page_offset, &limit, why) ||
	    !find_low_end(config, limit, end, &low_end, &end, why))
		return false;
	l.low_end_pfn = (pfn_t)(low_end >> PAGE_SHIFT);
	l.max_pfn = (pfn_t)(end >> PAGE_SHIFT);
	set_unused(&map, end, &l);
	total = map_count(&map, 0, reach_of(config));
	map_cut(&map, end, ~0ULL);
	map_trim(&map);
	set_zones(config, p, &map, total, &l);
	set_windows(p, w, &l);
	set_kept(p, &map, &l);
	if (!set_metadata(config, p, &map, &l, why))
		return false;
	*ret = l;
	return true;
}
