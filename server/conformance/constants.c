/*
 * constants.c - const.jsonl: the address space's constants, the numbers of types and
 * flags, and the zones as the kernel's own structures have them.
 *
 * A recorder's line says {"t":"const","k":NAME,"v":NUMBER} or {"t":"zone",...} or
 * {"t":"zonelist",...}. A name that the table does not have is a difference: nothing is
 * passed over in silence.
 *
 * Not compared:
 *  - sizeof(struct page) and mem_map: what Linux's frame descriptors are and where they
 *    lie. Those of this machine are its own (counted in the report);
 *  - a zone's boost, which is what the recorder's earlier experiments left behind, and its
 *    drift mark, which only kswapd looks at;
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "box.h"

/* What a name stands for on this machine. */
enum what {
	FIXED, /* `number` itself */
	SLOT,  /* the fixmap's index `number` */
	PAGE_OFFSET_OF_IT,
	HIGH_MEMORY,
	VMALLOC_FIRST,
	VMALLOC_LAST,
	VMALLOC_HOLE,
	MAX_LOWMEM,
	PKMAP_FIRST,
	PKMAP_SLOTS,
	PKMAP_LAST,
	LDT_FIRST,
	LDT_LAST,
	CPU_ENTRY_FIRST,
	CPU_ENTRY_PAGES,
	FIXMAP_TOP,
	FIXMAP_TOTAL_FIRST,
	FIXMAP_TOTAL_SIZE,
	FIXMAP_PERMANENT_FIRST,
	FIXMAP_PERMANENT_SIZE,
	FIXMAP_SLOTS,
	KMAP_FIRST,
	KMAP_LAST,
	KMAP_FIRST_VA,
	KMAP_LAST_VA,
	PAGEBLOCK_ORDER,
	PAGEBLOCK_PAGES,
	CPUS,
	MAX_FRAMES,
	TOTAL_PAGES,
	HIGHMEM_PAGES,
	BY_PAE, /* `number` in two-level tables, `pae` in three-level ones */
	CPU_ENTRY_SIZE,
	SLOT_BELOW_KMAP, /* `number` below the first of kmap_local's slots */
	SLOT_ABOVE_KMAP, /* `number` above the last of them */
	SLOT_BELOW_END,	 /* `number` below the number of slots */
	ABSENT,		 /* not modelled */
};

enum {
	/* Linux's last index of what stays after boot, __end_of_permanent_fixed_addresses. */
	FIX_PERMANENT = 583,
};

static const struct constant {
	const char *name;
	enum what what;
	u32 number, pae;
} constants[] = {
    {"PAGE_OFFSET", PAGE_OFFSET_OF_IT, 0, 0},
    {"PAGE_SIZE", FIXED, PAGE_SIZE, 0},
    {"high_memory", HIGH_MEMORY, 0, 0},
    {"VMALLOC_START", VMALLOC_FIRST, 0, 0},
    {"VMALLOC_END", VMALLOC_LAST, 0, 0},
    {"VMALLOC_OFFSET", VMALLOC_HOLE, 0, 0},
    {"VMALLOC_END - PAGE_OFFSET - ((unsigned long)reserve_mb << 20)", MAX_LOWMEM, 0, 0},
    {"PKMAP_BASE", PKMAP_FIRST, 0, 0},
    {"LAST_PKMAP", PKMAP_SLOTS, 0, 0},
    {"PKMAP_ADDR(0)", PKMAP_FIRST, 0, 0},
    {"PKMAP_ADDR(LAST_PKMAP - 1)", PKMAP_LAST, 0, 0},
    {"LDT_BASE_ADDR", LDT_FIRST, 0, 0},
    {"LDT_END_ADDR", LDT_LAST, 0, 0},
    {"CPU_ENTRY_AREA_BASE", CPU_ENTRY_FIRST, 0, 0},
    {"CPU_ENTRY_AREA_PAGES", CPU_ENTRY_PAGES, 0, 0},
    {"__FIXADDR_TOP", FIXMAP_TOP, 0, 0},
    {"FIXADDR_TOP", FIXMAP_TOP, 0, 0},
    {"FIXADDR_START", FIXMAP_PERMANENT_FIRST, 0, 0},
    {"FIXADDR_SIZE", FIXMAP_PERMANENT_SIZE, 0, 0},
    {"FIXADDR_TOT_START", FIXMAP_TOTAL_FIRST, 0, 0},
    {"FIXADDR_TOT_SIZE", FIXMAP_TOTAL_SIZE, 0, 0},
    {"PMD_SIZE", BY_PAE, 4 << 20, 2 << 20},
    {"PGDIR_SHIFT", BY_PAE, 22, 30},
    {"PTRS_PER_PTE", BY_PAE, 1024, 512},
    {"PTRS_PER_PMD", BY_PAE, 1, 512},
    {"PTRS_PER_PGD", BY_PAE, 1024, 4},
    {"sizeof(pte_t)", BY_PAE, 4, 8},
    {"sizeof(pgd_t)", BY_PAE, 4, 8},
    {"KM_MAX_IDX", FIXED, KMAP_LOCAL_SLOTS, 0},
    {"NR_CPUS", FIXED, ENGINE_MAX_CPUS, 0},
    {"nr_cpu_ids", CPUS, 0, 0},
    {"FIX_KMAP_BEGIN", KMAP_FIRST, 0, 0},
    {"FIX_KMAP_END", KMAP_LAST, 0, 0},
    {"__end_of_permanent_fixed_addresses", FIXED, FIX_PERMANENT, 0},
    {"__end_of_fixed_addresses", FIXMAP_SLOTS, 0, 0},
    {"__fix_to_virt(FIX_KMAP_BEGIN)", KMAP_FIRST_VA, 0, 0},
    {"__fix_to_virt(FIX_KMAP_END)", KMAP_LAST_VA, 0, 0},
    {"__fix_to_virt(FIX_BTMAP_BEGIN)", SLOT, 1535, 0},
    {"__fix_to_virt(FIX_BTMAP_END)", SLOT, 1024, 0},
    {"__fix_to_virt(FIX_WP_TEST)", SLOT, 1536, 0},
    {"__fix_to_virt(FIX_APIC_BASE)", SLOT, 3, 0},
    {"__fix_to_virt(FIX_IO_APIC_BASE_0)", SLOT, 4, 0},
    {"__fix_to_virt(FIX_HOLE)", SLOT, 0, 0},
    {"MAX_ORDER", FIXED, NR_ORDERS, 0},
    {"pageblock_order", PAGEBLOCK_ORDER, 0, 0},
    {"pageblock_nr_pages", PAGEBLOCK_PAGES, 0, 0},
    {"MIGRATE_TYPES", FIXED, NR_MIGRATETYPES, 0},
    {"MIGRATE_PCPTYPES", FIXED, NR_PCP_TYPES, 0},
    {"NR_PCP_LISTS", FIXED, NR_PCP_LISTS, 0},
    {"MAX_NR_ZONES", FIXED, NR_ZONES, 0},
    {"MIGRATE_UNMOVABLE", FIXED, MIGRATE_UNMOVABLE, 0},
    {"MIGRATE_MOVABLE", FIXED, MIGRATE_MOVABLE, 0},
    {"MIGRATE_RECLAIMABLE", FIXED, MIGRATE_RECLAIMABLE, 0},
    {"MIGRATE_HIGHATOMIC", FIXED, MIGRATE_HIGHATOMIC, 0},
    {"MIGRATE_ISOLATE", FIXED, MIGRATE_ISOLATE, 0},
    {"ZONE_DMA", FIXED, ZONE_DMA, 0},
    {"ZONE_NORMAL", FIXED, ZONE_NORMAL, 0},
    {"ZONE_HIGHMEM", FIXED, ZONE_HIGHMEM, 0},
    {"ZONE_MOVABLE", FIXED, ZONE_MOVABLE, 0},
    {"GFP_ATOMIC", FIXED, GFP_ATOMIC, 0},
    {"GFP_KERNEL", FIXED, GFP_KERNEL, 0},
    {"GFP_NOWAIT", FIXED, GFP_NOWAIT, 0},
    {"GFP_USER", FIXED, GFP_USER, 0},
    {"GFP_DMA", FIXED, GFP_DMA, 0},
    {"GFP_HIGHUSER", FIXED, GFP_HIGHUSER, 0},
    {"GFP_HIGHUSER_MOVABLE", FIXED, GFP_HIGHUSER_MOVABLE, 0},
    {"GFP_TRANSHUGE_LIGHT", FIXED, GFP_TRANSHUGE_LIGHT, 0},
    {"__GFP_DMA", FIXED, __GFP_DMA, 0},
    {"__GFP_HIGHMEM", FIXED, __GFP_HIGHMEM, 0},
    {"__GFP_MOVABLE", FIXED, __GFP_MOVABLE, 0},
    {"__GFP_RECLAIMABLE", FIXED, __GFP_RECLAIMABLE, 0},
    {"__GFP_HIGH", FIXED, __GFP_HIGH, 0},
    {"__GFP_IO", FIXED, __GFP_IO, 0},
    {"__GFP_FS", FIXED, __GFP_FS, 0},
    {"__GFP_ZERO", FIXED, __GFP_ZERO, 0},
    {"__GFP_ATOMIC", FIXED, __GFP_ATOMIC, 0},
    {"__GFP_DIRECT_RECLAIM", FIXED, __GFP_DIRECT_RECLAIM, 0},
    {"__GFP_KSWAPD_RECLAIM", FIXED, __GFP_KSWAPD_RECLAIM, 0},
    {"__GFP_WRITE", FIXED, __GFP_WRITE, 0},
    {"__GFP_NOWARN", FIXED, __GFP_NOWARN, 0},
    {"__GFP_RETRY_MAYFAIL", FIXED, __GFP_RETRY_MAYFAIL, 0},
    {"__GFP_NOFAIL", FIXED, __GFP_NOFAIL, 0},
    {"__GFP_NORETRY", FIXED, __GFP_NORETRY, 0},
    {"__GFP_MEMALLOC", FIXED, __GFP_MEMALLOC, 0},
    {"__GFP_COMP", FIXED, __GFP_COMP, 0},
    {"__GFP_NOMEMALLOC", FIXED, __GFP_NOMEMALLOC, 0},
    {"__GFP_HARDWALL", FIXED, __GFP_HARDWALL, 0},
    {"__GFP_THISNODE", FIXED, __GFP_THISNODE, 0},
    {"__GFP_ACCOUNT", FIXED, __GFP_ACCOUNT, 0},
    {"max_mapnr", MAX_FRAMES, 0, 0},
    {"totalram_pages()", TOTAL_PAGES, 0, 0},
    {"totalhigh_pages()", HIGHMEM_PAGES, 0, 0},
    {"sizeof(struct cpu_entry_area)", CPU_ENTRY_SIZE, 0, 0},
    {"FIX_HOLE", SLOT_BELOW_KMAP, 68, 0},
    {"FIX_DBGP_BASE", SLOT_BELOW_KMAP, 67, 0},
    {"FIX_EARLYCON_MEM_BASE", SLOT_BELOW_KMAP, 66, 0},
    {"FIX_APIC_BASE", SLOT_BELOW_KMAP, 65, 0},
    {"FIX_IO_APIC_BASE_0", SLOT_BELOW_KMAP, 64, 0},
    {"FIX_IO_APIC_BASE_END", SLOT_BELOW_KMAP, 1, 0},
    {"FIX_PCIE_MCFG", SLOT_ABOVE_KMAP, 1, 0},
    {"FIX_APEI_GHES_IRQ", SLOT_ABOVE_KMAP, 2, 0},
    {"FIX_APEI_GHES_NMI", SLOT_ABOVE_KMAP, 3, 0},
    {"FIX_BTMAP_END", SLOT_BELOW_END, 513, 0},
    {"FIX_BTMAP_BEGIN", SLOT_BELOW_END, 2, 0},
    {"FIX_WP_TEST", SLOT_BELOW_END, 1, 0},
    /* Linux's descriptor of a frame, 40 bytes, and where it put them: ours have 32, and
     * lie where the recorded states have room. */
    {"sizeof(struct page)", ABSENT, 0, 0},
    {"mem_map", ABSENT, 0, 0},
};

static u32 managed_pages(const struct engine *e)
{
	u32 pages = 0;

	for (u32 i = 0; i < NR_ZONES; i++)
		pages += e->st->frames.zone[i].managed;
	return pages;
}

/* Linux counts what lies above the direct map: ZONE_MOVABLE's too. */
static u32 highmem_pages(const struct engine *e)
{
	u32 pages = 0;

	for (u32 i = 0; i < NR_ZONES; i++)
		if (e->st->frames.zone[i].start >= e->st->layout.low_end_pfn)
			pages += e->st->frames.zone[i].managed;
	return pages;
}

static u32 value_of(const struct constant *c, const struct engine *e)
{
	const struct layout *l = &e->st->layout;
	va_t permanent = l->fixmap_top - FIX_PERMANENT * PAGE_SIZE;

	switch (c->what) {
	case FIXED: return c->number;
	case SLOT: return fix_to_va(l, c->number);
	case BY_PAE: return l->pae ? c->pae : c->number;
	case PAGE_OFFSET_OF_IT: return l->page_offset;
	case HIGH_MEMORY: return l->high_memory;
	case VMALLOC_FIRST: return l->vmalloc_start;
	case VMALLOC_LAST: return l->vmalloc_end;
	case VMALLOC_HOLE: return l->vmalloc_start - l->high_memory;
	/* The recorder's module has the default reserve, whatever vmalloc= said. */
	case MAX_LOWMEM: return l->vmalloc_end - l->page_offset - (128u << 20);
	case PKMAP_FIRST: return l->pkmap_start;
	case PKMAP_SLOTS: return l->pkmap_slots;
	case PKMAP_LAST: return l->pkmap_start + (l->pkmap_slots - 1) * PAGE_SIZE;
	case LDT_FIRST: return l->ldt_start;
	case LDT_LAST: return l->ldt_end;
	case CPU_ENTRY_FIRST: return l->cpu_entry_start;
	case CPU_ENTRY_PAGES: return (l->cpu_entry_end - l->cpu_entry_start) >> PAGE_SHIFT;
	case FIXMAP_TOP: return l->fixmap_top;
	case FIXMAP_TOTAL_FIRST: return l->fixmap_start;
	case FIXMAP_TOTAL_SIZE: return l->fixmap_top - l->fixmap_start;
	case FIXMAP_PERMANENT_FIRST: return permanent;
	case FIXMAP_PERMANENT_SIZE: return l->fixmap_top - permanent;
	case FIXMAP_SLOTS: return l->nr_fixmap;
	case KMAP_FIRST: return l->fix_kmap_begin;
	case KMAP_LAST: return l->fix_kmap_end;
	case KMAP_FIRST_VA: return fix_to_va(l, l->fix_kmap_begin);
	case KMAP_LAST_VA: return fix_to_va(l, l->fix_kmap_end);
	case PAGEBLOCK_ORDER: return l->pageblock_order;
	case PAGEBLOCK_PAGES: return 1u << l->pageblock_order;
	case CPUS: return l->cpus;
	case MAX_FRAMES: return l->max_pfn;
	case TOTAL_PAGES: return managed_pages(e);
	case HIGHMEM_PAGES: return highmem_pages(e);
	case CPU_ENTRY_SIZE: return (l->cpu_entry_end - l->cpu_entry_start) / ENGINE_MAX_CPUS;
	case SLOT_BELOW_KMAP: return l->fix_kmap_begin - c->number;
	case SLOT_ABOVE_KMAP: return l->fix_kmap_end + c->number;
	case SLOT_BELOW_END: return l->nr_fixmap - c->number;
	case ABSENT: break;
	}
	return 0;
}

static u32 number(const json_t *object, const char *key)
{
	return (u32)json_integer_value(json_object_get(object, key));
}

/* Returns whether it was compared. */
static bool compare_constant(struct conformance_report *r, const struct engine *e,
			     const json_t *line)
{
	const char *name = json_string_value(json_object_get(line, "k"));

	for (unsigned i = 0; name && i < sizeof constants / sizeof constants[0]; i++) {
		if (strcmp(name, constants[i].name) != 0)
			continue;
		if (constants[i].what == ABSENT)
			return false;
		compare(r, value_of(&constants[i], e), number(line, "v"), "%s", name);
		return true;
	}
	r->compared++;
	return differs(r, "a constant that is not known here: %s", name ? name : "(no name)");
}

static void compare_array(struct conformance_report *r, const json_t *want, const u32 *got, u32 nr,
			  const char *zone, const char *what)
{
	for (u32 i = 0; i < nr; i++)
		compare(r, got[i], (u64)json_integer_value(json_array_get(want, i)), "%s: %s %u",
			zone, what, i);
}

static void compare_zone(struct conformance_report *r, const struct engine *e, const json_t *line)
{
	u32 number_of_zone = number(line, "z");
	const struct zone *z = &e->st->frames.zone[number_of_zone % NR_ZONES];
	const char *name = json_string_value(json_object_get(line, "name"));

	if (z->managed)
		compare(r, z->start, number(line, "start"), "%s: start", name);
	compare(r, zone_spanned(z), number(line, "spanned"), "%s: spanned", name);
	compare(r, z->present, number(line, "present"), "%s: present", name);
	compare(r, z->managed, number(line, "managed"), "%s: managed", name);
	compare_array(r, json_object_get(line, "wmark"), z->mark, NR_MARKS, name, "mark");
	compare_array(r, json_object_get(line, "reserve"), z->reserve, NR_ZONES, name, "reserve");
	compare(r, z->pcp_high, number(line, "pageset_high"), "%s: pcp high", name);
	compare(r, z->pcp_batch, number(line, "pageset_batch"), "%s: pcp batch", name);
}

/* Zones in the order in which requests try them: those with frames, from the highest. */
static void compare_zonelist(struct conformance_report *r, const struct engine *e,
			     const json_t *line)
{
	static const char *const names[NR_ZONES] = {"DMA", "Normal", "HighMem", "Movable"};
	const json_t *want = json_object_get(line, "zones");
	size_t at = 0;

	for (u32 zone = NR_ZONES; zone-- > 0;) {
		const char *name = json_string_value(json_array_get(want, at));

		if (!(e->st->frames.populated & 1u << zone))
			continue;
		compare(r, name && strcmp(name, names[zone]) == 0, true,
			"zonelist %u: that its zone %zu is %s", number(line, "i"), at, names[zone]);
		at++;
	}
	compare(r, at, json_array_size(want), "zonelist %u: zones", number(line, "i"));
}

/* The recorder's boot read /proc/sys/vm/lowmem_reserve_ratio, which computes the reserves
 * anew from what is managed by then. */
static void recompute_reserves(struct box *b)
{
	u8 ratios[(NR_ZONES - 1) * 4];

	memcpy(ratios, b->e->st->frames.reserve_ratio, sizeof ratios);
	box_run(b, &(struct engine_op){.code = OP_SET_SYSCTL,
				       .args = {SYSCTL_LOWMEM_RESERVE_RATIO},
				       .data = ratios,
				       .data_len = sizeof ratios});
}

/* Pages that each zone managed, from the file itself. */
static void read_managed(const char *path, u32 managed[NR_ZONES])
{
	static const char *const names[NR_ZONES] = {"\"name\":\"DMA\"", "\"name\":\"Normal\"",
						    "\"name\":\"HighMem\"", "\"name\":\"Movable\""};
	struct lines *lines = lines_open(path);
	const char *line;

	while (lines && (line = lines_next(lines))) {
		const char *at = strstr(line, "\"managed\":");

		for (u32 i = 0; at && i < NR_ZONES; i++)
			if (strstr(line, names[i]))
				managed[i] = (u32)strtoul(at + strlen("\"managed\":"), NULL, 10);
	}
	lines_close(lines);
}

void check_constants(const char *path, struct conformance_report *r)
{
	struct boot_log *log = calloc(1, sizeof *log);
	struct lines *lines = lines_open(path);
	struct box *b = NULL;
	char folder[4096];
	const char *line;
	u32 absent = 0, managed[NR_ZONES] = {0};

	folder_of(path, folder, sizeof folder);
	if (!log || !lines || !boot_log_read(folder, log))
		differs(r, "%s cannot be read, or has no dmesg with a memory map beside it", path);
	else {
		read_managed(path, managed);
		b = box_new_like(log, managed, r);
	}
	if (b)
		recompute_reserves(b);
	while (b && (line = lines_next(lines))) {
		json_t *object = json_loads(line, 0, NULL);
		const char *type = json_string_value(json_object_get(object, "t"));

		if (!object)
			is_cut_line(lines, r);
		if (type && strcmp(type, "const") == 0)
			absent += !compare_constant(r, b->e, object);
		if (type && strcmp(type, "zone") == 0)
			compare_zone(r, b->e, object);
		if (type && strcmp(type, "zonelist") == 0)
			compare_zonelist(r, b->e, object);
		json_decref(object);
	}
	if (lines && lines_broken(lines))
		differs(r, "%s cannot be read to its end", path);
	if (absent)
		note(r, "not compared: %u figures of Linux's own mem_map", absent);
	lines_close(lines);
	box_free(b);
	free(log);
}
